"""Pictures, solutions and the README's table are what the lessons say."""

from __future__ import annotations

from pathlib import Path

import pytest

from lessonkit.course.exercises import lesson_02
from tools import lessons
from tools.solutions import needed_source


def test_nothing_is_stale() -> None:
    assert not lessons.stale(), "run `make notebooks`"


def test_every_lesson_has_a_question_and_a_picture() -> None:
    for path in lessons.lessons():
        title, question = lessons.title_and_question(path)
        assert title.startswith(path.stem[:2]) and question.endswith("?")
        content, alt = lessons.picture(path)
        assert content.startswith(b"\x89PNG") and len(alt) > 10


def test_the_ledger_has_the_rows_of_every_lesson_under_their_protocols() -> None:
    page = lessons.ledger().splitlines()
    assert sum(line.split()[:1] == ["form"] for line in page) == 1
    protocols = [line for line in page if "island/test/en" in line]
    assert protocols and len(protocols) == len(set(protocols))
    adding = [path for path in lessons.lessons() if lessons.ledger_lines(path)]
    assert [path.stem[:2] for path in adding][:3] == ["00", "01", "02"]
    for path in adding:
        rows = [line for line in lessons.ledger_lines(path) if line.startswith("  0")]
        assert rows and set(rows) <= set(page)


def test_what_is_stale_is_named(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(lessons, "PICTURES", lessons.ROOT / "docs" / "nowhere")
    changed = tmp_path / "README.md"
    text = lessons.README.read_text(encoding="utf-8").replace("| 01", "| 99").replace("[01", "[99")
    changed.write_text(text, encoding="utf-8")
    monkeypatch.setattr(lessons, "README", changed)
    found = lessons.stale()
    assert sum("is not the figure" in line for line in found) == len(lessons.lessons())
    assert "README.md has another table of lessons or formats" in found
    monkeypatch.setattr(lessons, "LEDGER", lessons.ROOT / "docs" / "no-ledger.md")
    assert any("has other rows" in line for line in lessons.stale())


def test_the_readme_shows_what_a_lesson_printed() -> None:
    content = lessons.formats()
    assert content.startswith("```\nformat") and content in lessons.readme()
    assert "nf4 block 64 double quant" in content and "gptq 4 bits" in content


def test_a_solution_brings_what_it_uses_and_no_more() -> None:
    parts = needed_source(lesson_02, "better_format")
    assert parts[-1].startswith("def better_format(")
    text = "\n".join(parts)
    assert "def nearest_codes(" in text and "LEVELS = {" in text and "import numpy as np" in text
    assert "four_bit_cost" not in text and "EXERCISES" not in text


@pytest.mark.parametrize(
    "address, where",
    [
        ("https://github.com/you/bits.of-weights", "you/bits.of-weights"),
        ("https://github.com/you/bits.git", "you/bits"),
        ("https://github.com/you/bits/", "you/bits"),
        ("https://example.org/you/bits", None),
        (None, None),
    ],
)
def test_badges_come_from_the_one_address(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, address: str | None, where: str | None
) -> None:
    urls = f'[project.urls]\nRepository = "{address}"\n' if address else ""
    (tmp_path / "pyproject.toml").write_text(f'[project]\nname = "x"\n{urls}', encoding="utf-8")
    monkeypatch.setattr(lessons, "ROOT", tmp_path)
    found = lessons.badge("01_a.ipynb")
    if where is None:
        assert found == ""
    else:
        assert found.endswith(f"/github/{where}/blob/main/notebooks/01_a.ipynb)")
