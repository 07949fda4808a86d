"""One table grows from lesson to lesson; only what may be compared stands together."""

from __future__ import annotations

import dataclasses
import math
from pathlib import Path

import pytest

from lessonkit.course import ledger
from lessonkit.errors import LessonkitError
from lessonkit.evaluate import Perplexity, Recall
from lessonkit.evaluate.protocols import gptq


def score(*nlls: float, sha: str = "ab" * 32) -> Perplexity:
    """A perplexity of some windows of 100 tokens each, with these mean losses."""
    return Perplexity(
        mean_nll=math.fsum(nlls) / len(nlls),
        mean_square=0.0,
        scored=100 * len(nlls),
        words=0,
        bytes=0,
        protocol=gptq(512),
        text="island/test/en",
        split="test",
        sha256=sha,
        dtype="float32",
        window_nll=nlls,
        window_scored=(100,) * len(nlls),
    )


@pytest.fixture
def kept(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Path:
    """The file where the ledger is kept."""
    path = tmp_path / "ledger.json"
    monkeypatch.setenv(ledger.VARIABLE, str(path))
    return path


BASE = score(1.0, 2.0, 3.0)
WORSE = score(1.1, 2.1, 3.1)


def lines(capsys: pytest.CaptureFixture[str]) -> list[str]:
    return capsys.readouterr().out.splitlines()


def test_a_row_says_what_it_costs_and_how_much_worse_it_is(
    kept: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    known = Recall(right=3, asked=4, misses=())
    ledger.record("mini", 2, BASE, {"as it is": (16, BASE, None), "nf4": (4.127, WORSE, known)})
    header, protocol, plain, nf4 = lines(capsys)
    assert header.split() == ["form", "bits", "perplexity", "worse", "by", "recall"]
    assert "300 tokens scored" in protocol and "sha256 abababab" in protocol
    assert plain.split() == ["02", "as", "it", "is", "16.000", f"{math.exp(2):.3f}"]
    # e^2.1 / e^2 = 1.10517; the three windows differ by the same, so the paired error is 0.
    assert nf4.split() == ["02", "nf4", "4.127", "8.166", "+10.52", "±", "0.00", "%", "75", "%"]
    assert kept.is_file() and not list(kept.parent.glob("*.new"))


def test_what_another_processor_finds_a_little_differently_has_fewer_digits(
    kept: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    ledger.record("mini", 2, BASE, {"nf4": (4.127, WORSE, None)})
    rows = {"gptq 2": (2.25, WORSE, None), "gptq 4": (4.25, score(1.0, 2.0, 3.01), None)}
    ledger.record("mini", 6, BASE, rows, rough=True)
    *_, nf4, two, four = lines(capsys)
    assert two.split() == ["06", "gptq", "2", "2.250", "8.2", "about", "+11", "%"]
    assert four.split() == ["06", "gptq", "4", "4.250", "7.4", "below", "+1", "%"]
    assert nf4.index("8.166") == two.index("8.2"), "decimal points stand under each other"
    assert nf4.index("%") == two.index("%")


def test_the_table_grows_and_a_second_run_adds_nothing(
    kept: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    for lesson, form in [(2, "nf4"), (1, "int8"), (2, "nf4")]:
        ledger.record("mini", lesson, BASE, {form: (4, WORSE, None)})
    assert [line.split()[:2] for line in lines(capsys)[-2:]] == [["01", "int8"], ["02", "nf4"]]


def test_models_stand_apart_and_so_do_protocols(
    kept: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    other = score(1.0, 2.0, sha="cd" * 32)
    ledger.record("elsewhere", 1, BASE, {"int8": (8, WORSE, None)})
    ledger.record("mini", 1, BASE, {"int8": (8, WORSE, None)})
    capsys.readouterr()
    ledger.record("mini", 2, other, {"nf4": (4, other, None)})
    assert [line[:2] for line in lines(capsys)] == ["  ", "gp", "  ", "gp", "  "]


def test_rows_of_a_model_that_has_changed_since_are_forgotten(
    kept: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    ledger.record("mini", 1, BASE, {"int8": (8, WORSE, None)})
    capsys.readouterr()
    trained_again = score(1.0, 2.0, 2.9)
    ledger.record("mini", 2, trained_again, {"nf4": (4, trained_again, None)})
    assert "int8" not in capsys.readouterr().out


def test_without_a_file_a_lesson_shows_its_own_rows(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    monkeypatch.chdir(tmp_path)
    monkeypatch.setenv(ledger.VARIABLE, "")
    for lesson in (1, 2):
        ledger.record("mini", lesson, BASE, {"int8": (8, WORSE, None)})
    assert "  01" not in capsys.readouterr().out.rpartition("form")[2]
    assert not list(tmp_path.iterdir())
    monkeypatch.delenv(ledger.VARIABLE)
    ledger.record("mini", 1, BASE, {"int8": (8, WORSE, None)})
    assert [path.name for path in tmp_path.iterdir()] == [ledger.FILE_NAME]


def test_another_text_or_another_file_is_refused(kept: Path) -> None:
    with pytest.raises(LessonkitError, match="different texts"):
        ledger.record("mini", 1, BASE, {"int8": (8, score(1, 2, 3, sha="cd" * 32), None)})
    assert not kept.exists()
    for content in ("not json", '[{"form": "int8"}]', "3"):
        kept.write_text(content)
        with pytest.raises(LessonkitError, match="not a ledger"):
            ledger.record("mini", 1, BASE, {"int8": (8, WORSE, None)})
        assert kept.read_text() == content


def test_a_tiny_change_for_the_better_has_no_minus_before_zero() -> None:
    row = ledger.Row("mini", 1, "int8", 8, "gptq", 1.6, 1.6, -0.001, 0.002, None)
    assert "+0.00 ± 0.00 %" in str(row) and dataclasses.replace(row, worse=-0.01).worse == -0.01
    assert "-0.01 ± 0.00 %" in str(dataclasses.replace(row, worse=-0.01))
