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
from collections.abc import Sequence
from contextlib import suppress
from dataclasses import dataclass, field
from pathlib import Path

from lessonkit.testing.notebooks import execute, parse, seconds_of

_BETWEEN_LOOKS = 0.2  # seconds


@dataclass(frozen=True)
class Cost:
    """What one run took. `peak` is in bytes; `cells` are seconds and ids, the slowest first."""

    path: Path
    seconds: float
    peak: int
    cells: list[tuple[float, str]] = field(default_factory=list)
    error: str = ""

    def __str__(self) -> str:
        ended = ", stops at an error" if self.error else ""
        return f"{self.seconds / 60:6.1f} minutes {self.peak / 1e9:6.1f} GB  {self.path}{ended}"


class _Memory(threading.Thread):
    """The most memory that this process's children had together, in bytes, while it ran.

    Resident memory, as `top` shows it: a file that is mapped, such as the weights of a server,
    counts as far as it has been read, though the system could drop it.
    """

    def __init__(self) -> None:
        super().__init__(daemon=True)
        self.peak = 0
        self._ended = threading.Event()

    def run(self) -> None:
        import psutil

        while not self._ended.wait(_BETWEEN_LOOKS):
            now = 0
            for process in psutil.Process().children(recursive=True):
                with suppress(psutil.Error):  # one that has just ended
                    now += process.memory_info().rss
            self.peak = max(self.peak, now)

    def __enter__(self) -> _Memory:
        self.start()
        return self

    def __exit__(self, *_: object) -> None:
        self._ended.set()
        self.join()


def measure(path: Path, timeout: int = 4 * 3600) -> Cost:
    """Run the notebook at `path` in an empty folder. One in which a cell raises has an `error`."""
    from nbclient.exceptions import CellExecutionError

    os.environ["LESSONKIT_LEDGER"] = ""  # figures of a trial are not to be kept
    notebook, error = parse(path.read_text(encoding="utf-8")), ""
    with tempfile.TemporaryDirectory(prefix="lessonkit-measure-") as folder, _Memory() as memory:
        began = time.monotonic()
        try:
            execute(notebook, Path(folder), timeout, timed=True)
        except CellExecutionError as raised:
            error = str(raised)
        seconds = time.monotonic() - began
    ran = [
        cell
        for cell in notebook.cells
        if "shell.execute_reply" in cell.metadata.get("execution", {})
    ]
    cells = sorted(((seconds_of(cell), cell.id) for cell in ran), reverse=True)
    return Cost(path, seconds, memory.peak, cells, error)


def measure_all(paths: Sequence[Path], count: int) -> bool:
    """Print what each notebook took, with its slowest cells; did all run to their end?"""
    whole = True
    for path in paths:
        cost = measure(path)
        print(cost, flush=True)
        for seconds, name in cost.cells[:count]:
            print(f"{seconds:10.1f} s  {name}", flush=True)
        if cost.error:
            print(cost.error, flush=True)
        whole = whole and not cost.error
    return whole
