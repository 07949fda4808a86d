"""Work in several processes: in order, each alone on its core, and errors come back whole."""

from __future__ import annotations

import os
import signal
import subprocess
import sys
import time

import psutil
import pytest
import torch

from lessonkit.errors import LessonkitError
from lessonkit.formats.processes import in_processes
from lessonkit.formats.threads import threads

CALLS = [(number,) for number in range(6)]


@pytest.fixture
def two(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(torch, "get_num_threads", lambda: 2)


def slower_first(number: int) -> tuple[int, int, int]:
    time.sleep(0.02 * (len(CALLS) - number))
    return number, os.getpid(), threads()


def refused(number: int) -> int:
    if number == 3:
        raise LessonkitError("No.", where=number, remedy="Take another.")
    return number


def test_results_come_in_order_from_several_processes_of_one_thread_each(two: None) -> None:
    numbers, processes, counts = zip(*in_processes(slower_first, CALLS), strict=True)
    assert numbers == tuple(range(6))
    assert len(set(processes)) == 2 and os.getpid() not in processes
    assert set(counts) == {1}


def test_one_thread_starts_no_process(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(torch, "get_num_threads", lambda: 1)
    assert {process for _, process, _ in in_processes(slower_first, CALLS)} == {os.getpid()}


def test_an_error_comes_back_with_all_its_parts_and_the_next_work_is_done(two: None) -> None:
    results = in_processes(refused, CALLS)
    assert [next(results) for _ in range(3)] == [0, 1, 2]
    with pytest.raises(LessonkitError, match="No") as caught:
        next(results)
    assert (caught.value.where, caught.value.remedy) == ("3", "Take another.")
    assert list(in_processes(refused, CALLS[:3])) == [0, 1, 2]


def test_no_calls_are_no_work(two: None) -> None:
    assert list(in_processes(refused, [])) == []


ENDLESS = """
import time, torch
from lessonkit.formats.processes import in_processes
torch.set_num_threads(2)
print(*in_processes(pow, [(2, 2), (2, 3)]), flush=True)
time.sleep(600)
"""


def test_none_outlives_a_process_that_was_killed() -> None:
    process = subprocess.Popen([sys.executable, "-c", ENDLESS], stdout=subprocess.PIPE, text=True)
    assert process.stdout is not None and process.stdout.readline() == "4 8\n"
    others = psutil.Process(process.pid).children(recursive=True)
    assert len(others) >= 2
    process.send_signal(signal.SIGKILL)
    process.wait()
    _, alive = psutil.wait_procs(others, timeout=30)
    assert not alive
