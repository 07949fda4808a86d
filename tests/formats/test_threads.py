"""Work shared out over threads: every piece once, in an error state that says nothing."""

from __future__ import annotations

import threading
import warnings

import numpy as np
import pytest
import torch

from lessonkit.formats.threads import one_torch_thread, share_out, unshared


@pytest.mark.parametrize("threads", [1, 3])
def test_every_piece_is_done_once(threads: int, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(torch, "get_num_threads", lambda: threads)
    done = np.zeros(100, dtype=int)

    def work(start: int, stop: int) -> None:
        done[start:stop] += 1

    share_out(work, ((start, min(start + 7, 100)) for start in range(0, 100, 7)))
    assert (done == 1).all()


@pytest.mark.parametrize("threads", [1, 3])
def test_divisions_by_zero_are_silent_and_errors_are_not(
    threads: int, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(torch, "get_num_threads", lambda: threads)
    found = np.zeros(4, dtype=np.float32)

    def divide(start: int, stop: int) -> None:
        found[start:stop] = np.float32(1) / np.zeros(stop - start, dtype=np.float32)

    def fail(start: int, stop: int) -> None:
        raise KeyError(start)

    with warnings.catch_warnings():
        warnings.simplefilter("error")
        share_out(divide, [(0, 2), (2, 4)])
    assert np.isinf(found).all()
    with pytest.raises(KeyError):
        share_out(fail, [(0, 2), (2, 4)])


def test_a_thread_can_do_all_itself(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(torch, "get_num_threads", lambda: 3)
    pieces, by = [(number, number + 1) for number in range(50)], set()

    def note(start: int, stop: int) -> None:
        by.add(threading.current_thread())

    with unshared():
        share_out(note, pieces)
    assert by == {threading.current_thread()}
    share_out(note, pieces)
    assert len(by) > 1


def test_torch_gets_its_threads_back() -> None:
    threads = torch.get_num_threads()
    with pytest.raises(KeyError), one_torch_thread():
        assert torch.get_num_threads() == 1
        raise KeyError
    assert torch.get_num_threads() == threads


def test_no_pieces_are_no_work() -> None:
    share_out(lambda start, stop: pytest.fail("there is nothing to do"), [])
