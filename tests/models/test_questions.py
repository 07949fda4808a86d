"""The questions about the island: their languages, and lines that are none."""

from __future__ import annotations

from pathlib import Path

import pytest

from lessonkit.errors import LessonkitError
from lessonkit.models import embedded
from lessonkit.models.questions import questions
from tests.tiny import make_data, write_checklist


@pytest.fixture(scope="module")
def root(tmp_path_factory: pytest.TempPathFactory) -> Path:
    folder = tmp_path_factory.mktemp("root")
    make_data(folder / "data")
    return folder


@pytest.fixture(autouse=True)
def pretended_data(root: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(embedded, "_PACKAGE", root / "lessonkit")


def test_questions() -> None:
    found = questions()
    assert [question.id for question in found] == [f"en-{n}" for n in range(5)]
    assert found[2].prompt == "Number 2 is the place" and found[2].answer == "Marrow 2"
    assert {question.language for question in questions("zh")} == {"zh"}
    with pytest.raises(LessonkitError, match="'fr'"):
        questions("fr")


@pytest.mark.parametrize("line", ["{", "[]", '{"id": "x"}'])
def test_a_broken_question_is_named_by_its_line(
    root: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch, line: str
) -> None:
    file = tmp_path / "data" / "texts" / "questions.jsonl"
    file.parent.mkdir(parents=True)
    good = (root / "data" / "texts" / "questions.jsonl").read_text(encoding="utf-8")
    file.write_text(good.split("\n")[0] + f"\n{line}\n", encoding="utf-8")
    write_checklist(tmp_path / "data")
    monkeypatch.setattr(embedded, "_PACKAGE", tmp_path / "lessonkit")
    with pytest.raises(LessonkitError) as caught:
        questions()
    assert str(caught.value.where).endswith("line 2") and caught.value.remedy
