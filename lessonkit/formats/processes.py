"""Work in several processes, for what takes many short steps.

Threads share Python's lock, and wait for each other after every step; processes have one each. But
what a process works on must be sent there, and its result back. So this is for arithmetic that
takes many times as long as to copy its numbers: the searches of `ggml`.
"""

from __future__ import annotations

import os
import signal
import threading
import time
from collections.abc import Callable, Iterable, Iterator
from typing import TypeVar

import psutil

from lessonkit.formats.threads import threads, unshared

Result = TypeVar("Result")

_IDLE = 10  # seconds after which the processes end


def in_processes(
    work: Callable[..., Result], calls: Iterable[tuple[object, ...]]
) -> Iterator[Result]:
    """Yield ``work(*call)`` for all calls, in their order.

    As many processes compute as torch would use threads; if that is one, none is started. `work`
    is a function of a module, and what it takes, returns and raises can be pickled.
    """
    count = threads()
    if count == 1:
        for call in calls:
            yield work(*call)
        return
    from loky import get_reusable_executor

    pool = get_reusable_executor(
        max_workers=count, timeout=_IDLE, initializer=_begin, initargs=(os.getpid(),)
    )
    waiting = [pool.submit(_alone, work, *call) for call in calls]
    try:
        for each in waiting:
            yield each.result()
    finally:
        for each in waiting:  # after an error, or if nobody asks for the rest
            each.cancel()


def _alone(work: Callable[..., Result], *call: object) -> Result:
    with unshared():
        return work(*call)


def _begin(parent: int) -> None:
    # Ctrl-C reaches every process of a terminal; the one that asked for the work tells of it.
    signal.signal(signal.SIGINT, signal.SIG_IGN)
    threading.Thread(target=_end_with, args=[parent], daemon=True).start()


def _end_with(parent: int) -> None:
    """End this process when `parent` has: one that was killed leaves others waiting for ever."""
    me = psutil.Process()
    while (now := me.parent()) is not None and now.pid == parent:
        time.sleep(1)
    os._exit(1)
