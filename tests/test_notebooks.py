"""The notebooks as a whole. That their outputs hold is checked by nbval, which runs each of them.

Here: whose outputs are not compared and why, and that every lesson has its solutions. On another
Llama the lessons run in tests/another_llama.
"""

from __future__ import annotations

import re
from itertools import pairwise
from pathlib import Path

import pytest

from lessonkit.testing.notebooks import parse
from tools.lessons import title_and_question

ROOT = Path(__file__).resolve().parent.parent
NOTEBOOKS = ROOT / "notebooks"
LESSONS = sorted(NOTEBOOKS.glob("*.ipynb"))
SOLUTIONS = sorted((NOTEBOOKS / "solutions").glob("*.ipynb"))

# Every cell that nbval does not run or compare in full: (notebook, cell id) -> why not.
NOT_COMPARED: dict[tuple[str, str], str] = {
    ("00_start_here.ipynb", "machine"): "it prints the versions, memory and disk of this machine",
    ("02_four_bit_formats.ipynb", "on-this-processor"): "two faults of a library on one processor",
    ("09_run_and_share.ipynb", "speed"): "it measures the speed of this machine",
    ("05_gguf.ipynb", "llama-cpp-python"): "the package runs only where it was compiled",
}

MARK_IN_CODE = re.compile(r"#\s*(?:NBVAL|PYTEST_VALIDATE)_\w+", re.IGNORECASE)
MARKING_TAGS = re.compile(r"nbval-.*|raises-exception|skip-execution")


def not_compared(path: Path) -> list[str]:
    """The ids of a notebook's cells whose comparison a comment or a tag changes."""
    return [
        cell.id
        for cell in parse(path.read_text(encoding="utf-8")).cells
        if cell.cell_type == "code"
        and (
            MARK_IN_CODE.search(cell.source)
            or any(MARKING_TAGS.fullmatch(tag) for tag in cell.metadata.get("tags", []))
        )
    ]


def test_there_are_lessons() -> None:
    assert LESSONS, "notebooks/ holds no lesson"


def test_every_cell_that_is_not_compared_is_listed_with_a_reason() -> None:
    found = {
        (str(path.relative_to(NOTEBOOKS)), cell)
        for path in LESSONS + SOLUTIONS
        for cell in not_compared(path)
    }
    assert found == set(NOT_COMPARED)
    assert all(len(reason) > 10 for reason in NOT_COMPARED.values())


def prose(path: Path) -> str:
    """A notebook's Markdown, one cell after the other."""
    cells = parse(path.read_text(encoding="utf-8")).cells
    return "\n\n".join(cell.source for cell in cells if cell.cell_type == "markdown")


@pytest.mark.parametrize("path", LESSONS, ids=lambda p: p.stem)
def test_sections_are_counted_without_a_gap(path: Path) -> None:
    numbers = [int(number) for number in re.findall(r"^## (\d+)\. ", prose(path), re.MULTILINE)]
    assert numbers == list(range(1, len(numbers) + 1)) and numbers


def test_every_lesson_names_the_next_by_its_title_and_its_question() -> None:
    for path, following in pairwise(LESSONS):
        title, question = title_and_question(following)
        assert prose(path).rstrip().endswith(f"Next: **{title}**. {question}"), path.name


@pytest.mark.parametrize("path", SOLUTIONS, ids=lambda p: p.stem)
def test_every_solutions_notebook_has_its_lesson(path: Path) -> None:
    assert path.name in {lesson.name for lesson in LESSONS}
