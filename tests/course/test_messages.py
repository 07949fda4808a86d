"""Printed errors: one line, without colours and without folders of this machine."""

from __future__ import annotations

from pathlib import Path
from typing import NoReturn

import pytest

from lessonkit.course.messages import print_error


def printed(capsys: pytest.CaptureFixture[str], text: str, *wanted: str, **options: Path) -> str:
    def fail() -> NoReturn:
        raise ValueError(text)

    print_error(fail, *wanted, **options)
    return capsys.readouterr().out


def test_the_first_line_with_the_kind_of_error(capsys: pytest.CaptureFixture[str]) -> None:
    assert printed(capsys, "one\ntwo") == "ValueError: one\n"


def test_only_the_lines_that_are_wanted(capsys: pytest.CaptureFixture[str]) -> None:
    text = "Error(s):\n\t size mismatch for a\n\t size mismatch for b\n done"
    assert printed(capsys, text, "Error", "for b") == (
        "ValueError: Error(s): ... size mismatch for b\n"
    )
    assert printed(capsys, text, "nowhere") == "ValueError: Error(s):\n"


def test_no_colours_no_folders_no_places_of_libraries(capsys: pytest.CaptureFixture[str]) -> None:
    work = Path("some") / "work"
    text = f"\x1b[31mbad\x1b[0m file {work / 'a.pth'} (/usr/lib/x.py)"
    assert printed(capsys, text, folder=work) == "ValueError: bad file a.pth\n"


def test_a_long_line_is_cut_and_an_empty_message_is_no_trouble(
    capsys: pytest.CaptureFixture[str],
) -> None:
    assert printed(capsys, 1000 * "x") == f"ValueError: {185 * 'x'} ...\n"
    assert printed(capsys, 100 * "word ") == f"ValueError: {36 * 'word '}word ...\n"
    assert printed(capsys, "") == "ValueError: \n"


def test_without_an_error_nothing_is_printed(capsys: pytest.CaptureFixture[str]) -> None:
    print_error(lambda: None)
    assert capsys.readouterr().out == ""


def test_an_interruption_is_not_swallowed() -> None:
    def interrupt() -> NoReturn:
        raise KeyboardInterrupt

    with pytest.raises(KeyboardInterrupt):
        print_error(interrupt)
