"""Work on arrays in pieces, several at a time: numpy lets go of Python's lock while it computes."""

from __future__ import annotations

import os
import sys
import threading
from collections.abc import Callable, Iterable, Iterator
from concurrent.futures import ThreadPoolExecutor
from contextlib import contextmanager
from functools import cache

import numpy as np


def share_out(work: Callable[[int, int], None], pieces: Iterable[tuple[int, int]]) -> None:
    """Do `work(start, stop)` for all pieces, on as many threads as torch would use.

    The pieces touch different memory. Within them numpy says nothing of divisions by zero and
    the like: the callers replace or report what these leave.
    """
    _keep_freed_memory()

    def one(piece: tuple[int, int]) -> None:
        with np.errstate(all="ignore"):  # each thread has an error state of its own
            work(*piece)

    todo = list(pieces)
    count = min(threads(), len(todo))
    if count <= 1:
        for piece in todo:
            one(piece)
    else:
        with ThreadPoolExecutor(count) as pool:
            list(pool.map(one, todo))


class _Here(threading.local):
    alone = False


_here = _Here()


@contextmanager
def unshared() -> Iterator[None]:
    """Let `share_out` do all the work of the thread that asks: others are busy beside it."""
    before, _here.alone = _here.alone, True
    try:
        yield
    finally:
        _here.alone = before


def pieces(size: int, step: int) -> Iterator[tuple[int, int]]:
    """Where pieces of `step` (at least 1) begin and end, of `size` in all, as `share_out` wants."""
    step = max(1, step)
    for start in range(0, size, step):
        yield start, min(start + step, size)


@contextmanager
def one_torch_thread() -> Iterator[None]:
    """Let torch compute on one thread, for work beside which other threads are busy.

    Its threads wait for each other after every step: where they must share the processor's cores,
    two take longer than one.
    """
    import torch

    before = torch.get_num_threads()
    torch.set_num_threads(1)
    try:
        yield
    finally:
        torch.set_num_threads(before)


def threads() -> int:
    """As many threads as torch would use, where it is loaded; else one for each core."""
    if _here.alone:
        return 1
    torch = sys.modules.get("torch")
    return torch.get_num_threads() if torch else os.cpu_count() or 1


@cache
def _keep_freed_memory() -> None:
    """Let the C library keep what temporaries leave, instead of fetching it anew each time.

    That fetching can take as long as the arithmetic. glibc gives back to the system what is
    larger than the largest piece that it has seen freed; so here it sees a large one, once.
    """
    np.empty(1 << 24, dtype=np.uint8)
