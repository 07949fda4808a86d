"""The one family of errors: three parts, each on its line, absent parts left out."""

from __future__ import annotations

from pathlib import Path

import pytest

from lessonkit.errors import LessonkitError, malformed


def test_an_error_tells_what_where_and_what_to_do() -> None:
    error = LessonkitError("The file is cut short.", where=Path("a.bin"), remedy="Download it.")
    assert str(error) == "The file is cut short.\n  where: a.bin\n  what to do: Download it."
    assert (error.what, error.where, error.remedy) == (
        "The file is cut short.",
        "a.bin",
        "Download it.",
    )


def test_parts_that_are_not_given_are_left_out() -> None:
    assert str(LessonkitError("No.")) == "No."
    assert str(LessonkitError("No.", remedy="Wait.")) == "No.\n  what to do: Wait."
    assert LessonkitError("No.").where is None


def test_where_may_be_anything_that_can_be_written_even_zero() -> None:
    assert "where: 0" in str(LessonkitError("Bad index.", where=0))


def test_it_is_caught_as_an_ordinary_exception() -> None:
    with pytest.raises(Exception, match=r"(?s)Bad\..*what to do: Mend it\."):
        raise LessonkitError("Bad.", remedy="Mend it.")


@pytest.mark.parametrize(
    "mistake", [lambda: {}["a"], lambda: 1 < "a", lambda: int("x"), lambda: 1 / 0]
)
def test_whatever_a_foreign_content_makes_fail_is_told(mistake) -> None:
    with (
        pytest.raises(
            LessonkitError, match=r"^It is not as it should be \(\w+Error: .+\)\."
        ) as caught,
        malformed("It is not as it should be", where="f", remedy="Fetch it."),
    ):
        mistake()
    assert (caught.value.where, caught.value.remedy) == ("f", "Fetch it.")
    with pytest.raises(MemoryError), malformed("It is not", where="f", remedy="Fetch it."):
        raise MemoryError
    with pytest.raises(LessonkitError, match="Mine"), malformed("No", where="f", remedy="Do."):
        raise LessonkitError("Mine.")
