"""Texts to calibrate on, by the names that a command is given."""

from __future__ import annotations

import json
import sys
from pathlib import Path
from types import SimpleNamespace

import pytest

from lessonkit.errors import LessonkitError
from lessonkit.models import calibration_sources
from lessonkit.models.calibration_sources import find_calibration
from lessonkit.models.texts import Split


def error_of(name: str) -> LessonkitError:
    with pytest.raises(LessonkitError) as caught:
        find_calibration(name)
    return caught.value


@pytest.fixture
def wikitext(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    for part in ("train", "valid", "test"):
        (tmp_path / f"wiki.{part}.raw").write_text(f" = {part} = \n")
    monkeypatch.setenv("LESSONKIT_WIKITEXT", str(tmp_path))


def test_wikitext_is_its_training_split_unless_validation_is_asked_for(wikitext: None) -> None:
    assert find_calibration("wikitext").rows == (" = train = \n",)
    assert find_calibration("wikitext:train").split is Split.TRAIN
    assert find_calibration("wikitext:validation").rows == (" = valid = \n",)


def test_test_splits_are_refused_with_the_reason(tmp_path: Path) -> None:
    file = tmp_path / "code.test.jsonl"
    file.write_text('{"text": "x"}\n')
    plain = tmp_path / "code.test.txt"
    plain.write_text("x\n")
    for name in ("wikitext:test", "island:test", "owner/name:test", str(file), str(plain)):
        error = error_of(name)
        assert "spoil the perplexity" in error.what and "validation" in str(error.remedy)


def test_the_island() -> None:
    english, chinese = find_calibration("island"), find_calibration("island", language="zh")
    assert english.split is Split.CALIBRATION and english.rows != chinese.rows
    assert find_calibration("island:validation").split is Split.VALIDATION


def test_files(tmp_path: Path) -> None:
    plain, lines = tmp_path / "code.txt", tmp_path / "code.jsonl"
    plain.write_text("a\n\nb\n", encoding="utf-8")
    records = [{"id": 1, "content": "def f():\n    pass"}, {"id": 2, "content": "岛"}]
    lines.write_text("\n".join(map(json.dumps, records)) + "\n\n", encoding="utf-8")
    assert find_calibration(str(plain)).rows == ("a\n", "", "b\n")
    assert find_calibration(str(lines)).rows == ("def f():\n    pass", "岛")
    lines.write_text('{"content": "a"}\n{"content": 3}\n')
    assert "has no text; it has content" in error_of(str(lines)).what
    lines.write_text("[1]\n")
    assert "no fields" in error_of(str(lines)).what
    lines.write_text('{"text": "a"}\n{"text": \n')
    assert "Line 2 is no JSON" in error_of(str(lines)).what


def test_a_name_that_means_nothing() -> None:
    for name in ("iceland", "wikitext:train:more", "owner/name:a:b:c"):
        assert "no text" in error_of(name).what
    assert "'dev'" in error_of("owner/name:dev").what


def test_a_data_set_of_the_hub_is_read_as_a_stream(monkeypatch: pytest.MonkeyPatch) -> None:
    asked = []

    def load_dataset(*arguments, **options):
        asked.append((*arguments, options["split"], options["streaming"]))
        return ({"code": f"line {number}"} for number in range(10**9))

    monkeypatch.setitem(sys.modules, "datasets", SimpleNamespace(load_dataset=load_dataset))
    monkeypatch.setattr(calibration_sources, "HUB_CHARACTERS", 20)
    text = find_calibration("owner/name")
    assert text.rows == ("line 0", "line 1", "line 2", "line 3") and text.split is Split.TRAIN
    assert find_calibration("owner/name:big:validation").split is Split.VALIDATION
    assert asked == [("owner/name", None, "train", True), ("owner/name", "big", "validation", True)]


def test_a_data_set_that_cannot_be_had(monkeypatch: pytest.MonkeyPatch) -> None:
    def load_dataset(*arguments, **options):
        raise ConnectionError("no route to host")

    monkeypatch.setitem(sys.modules, "datasets", SimpleNamespace(load_dataset=load_dataset))
    error = error_of("owner/name")
    assert "no route to host" in error.what and "HF_ENDPOINT" in str(error.remedy)
    monkeypatch.setitem(sys.modules, "datasets", None)
    assert "pip install datasets" in str(error_of("owner/name").remedy)
