"""What does a notebook cost? Minutes and peak memory, on the model that LESSONKIT_MODEL names.

Here nothing is kept apart from the machine: the Hub may be asked, as many threads compute as the
libraries choose, and outputs are not compared. So this is how the course's lessons are run on a
large model, and how the figures in their first cells were found.
"""

from __future__ import annotations

import os
import tempfile
import threading
import time
from collections.abc import Callable, Sequence
from contextlib import suppress
from dataclasses import dataclass
from pathlib import Path

from lessonkit.testing.notebooks import execute, parse

_BETWEEN_LOOKS = 0.2  # seconds


@dataclass(frozen=True)
class Cost:
    """What a notebook, or one cell of it, took: seconds, and bytes of memory at the peak."""

    name: str
    seconds: float
    peak: int
    error: str = ""

    def __str__(self) -> str:
        ended = ", stops at an error" if self.error else ""
        return f"{self.seconds / 60:6.1f} minutes {self.peak / 1e9:6.1f} GB  {self.name}{ended}"


class _Memory(threading.Thread):
    """Watches the memory that this process's children hold together, in bytes.

    Their own memory, where the system tells it apart: a file that is mapped, such as the weights
    of a server, does not count, for the system can drop its pages and read them again.
    """

    def __init__(self) -> None:
        super().__init__(daemon=True)
        self._most = 0
        self._ended = threading.Event()

    def run(self) -> None:
        while not self._ended.wait(_BETWEEN_LOOKS):
            self._most = max(self._most, self._now())

    def _now(self) -> int:
        import psutil

        now = 0
        for process in psutil.Process().children(recursive=True):
            with suppress(psutil.Error):  # one that has just ended
                held = process.memory_info()
                now += held.rss - getattr(held, "shared", 0)
        return now

    def peak(self) -> int:
        """The most since this was asked last."""
        most, self._most = max(self._most, self._now()), 0
        return most

    def __enter__(self) -> _Memory:
        self.start()
        return self

    def __exit__(self, *_: object) -> None:
        self._ended.set()
        self.join()


def measure(path: Path, told: Callable[[Cost], None], timeout: int = 4 * 3600) -> Cost:
    """Run the notebook at `path` in an empty folder; `told` hears what each cell took as it ends.

    Where a cell raises, or the kernel dies, the notebook's cost has an `error`.
    """
    from nbclient.exceptions import CellExecutionError, DeadKernelError

    os.environ["LESSONKIT_LEDGER"] = ""  # figures of a trial are not to be kept
    notebook, error, peak = parse(path.read_text(encoding="utf-8")), "", 0
    with tempfile.TemporaryDirectory(prefix="lessonkit-measure-") as folder, _Memory() as memory:

        def ended(cell: str, seconds: float) -> None:
            nonlocal peak
            cost = Cost(cell, seconds, memory.peak())
            peak = max(peak, cost.peak)
            told(cost)

        began = time.monotonic()
        try:
            execute(notebook, Path(folder), timeout, ended=ended)
        except CellExecutionError as raised:
            error = str(raised)
        except DeadKernelError:
            error = "The kernel died: where memory runs out, the system ends it.\n"
        seconds = time.monotonic() - began
    return Cost(str(path), seconds, peak, error)


def measure_all(paths: Sequence[Path], least: float) -> bool:
    """Print what each notebook took, and, as they end, its cells of `least` seconds and more.

    Did all run to their end?
    """

    def told(cell: Cost) -> None:
        if cell.seconds >= least:
            print(f"{cell.seconds:8.1f} s {cell.peak / 1e9:10.1f} GB    {cell.name}", flush=True)

    whole = True
    for path in paths:
        cost = measure(path, told)
        print(cost, flush=True)
        if cost.error:
            print(cost.error, flush=True)
        whole = whole and not cost.error
    return whole
