"""Progress bars: in a terminal, in a notebook for large work only, and as the user says."""

from __future__ import annotations

import io
import sys

import pytest

from lessonkit.progress import LARGE_BYTES, bar, bars_wanted, byte_bar


class Terminal(io.StringIO):
    def isatty(self) -> bool:
        return True


class Notebook(io.StringIO):
    """What standard error is in a notebook: a stream of ipykernel's, and no terminal."""


Notebook.__module__ = "ipykernel.iostream"
STREAMS = {"terminal": Terminal, "notebook": Notebook, "pipe": io.StringIO}


@pytest.fixture(autouse=True)
def unasked(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.delenv("LESSONKIT_PROGRESS", raising=False)


@pytest.mark.parametrize(
    ("stream", "large", "wanted"),
    [
        ("terminal", False, True),
        ("terminal", True, True),
        ("notebook", False, False),  # or committed outputs would hold bars
        ("notebook", True, True),
        ("pipe", False, False),
        ("pipe", True, False),
    ],
)
def test_where_bars_are_drawn(
    monkeypatch: pytest.MonkeyPatch, stream: str, large: bool, wanted: bool
) -> None:
    monkeypatch.setattr(sys, "stderr", STREAMS[stream]())
    assert bars_wanted(large=large) is wanted
    for other in ("", "yes", "2"):  # only 1 and 0 mean something
        monkeypatch.setenv("LESSONKIT_PROGRESS", other)
        assert bars_wanted(large=large) is wanted


@pytest.mark.parametrize("stream", STREAMS)
def test_the_variable_wins_everywhere(monkeypatch: pytest.MonkeyPatch, stream: str) -> None:
    monkeypatch.setattr(sys, "stderr", STREAMS[stream]())
    for large in (True, False):
        monkeypatch.setenv("LESSONKIT_PROGRESS", "1")
        assert bars_wanted(large=large)
        monkeypatch.setenv("LESSONKIT_PROGRESS", "0")
        assert not bars_wanted(large=large)


def test_a_bar_that_is_wanted_counts_and_goes_away(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(sys, "stderr", stream := Terminal())
    with bar(3, "windows", large=False) as shown:
        assert not shown.disable and shown.delay == 2 and shown.leave is False
        assert stream.getvalue() == ""  # short work stays silent even here
        shown.start_t -= 10  # as if it had taken ten seconds so far
        shown.delay = 0
        shown.update(2)
        shown.refresh()
        assert "windows" in stream.getvalue() and "2/3" in stream.getvalue()
    assert stream.getvalue().endswith("\r")  # the line is blank again


def test_a_bar_that_is_not_wanted_writes_nothing(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(sys, "stderr", stream := Notebook())
    with bar(3, "windows", large=False) as shown:
        assert shown.disable
        shown.update(3)
    assert stream.getvalue() == ""


def test_a_large_conversion_draws_a_bar_in_a_notebook_too(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(sys, "stderr", Notebook())
    with byte_bar(LARGE_BYTES, "convert") as shown:
        assert not shown.disable and shown.unit == "B" and shown.unit_scale
    with byte_bar(LARGE_BYTES - 1, "convert") as shown:
        assert shown.disable


def test_any_label_will_do(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("LESSONKIT_PROGRESS", "1")
    monkeypatch.setattr(sys, "stderr", written := io.StringIO())
    with bar(2, ("AWQ", 4), large=True) as progress:
        progress.refresh()
    assert "('AWQ', 4)" in written.getvalue()
