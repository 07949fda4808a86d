"""The README shows a figure of every lesson, the one that the notebook holds now."""

from __future__ import annotations

import re

import pytest

from tools.pictures import CELLS, ROOT, figure_of, picture_path


@pytest.mark.parametrize("lesson", sorted(CELLS))
def test_a_picture_is_the_notebooks_figure(lesson):
    assert picture_path(lesson).read_bytes() == figure_of(lesson), "run `python -m tools.pictures`"


def test_every_lesson_is_in_the_readme_with_its_picture():
    lessons = {path.stem for path in (ROOT / "notebooks").glob("[0-9]*.ipynb")}
    assert set(CELLS) == lessons
    readme = (ROOT / "README.md").read_text(encoding="utf-8")
    shown = set(re.findall(r'src="(docs/pictures/[^"]+)"', readme))
    assert shown == {picture_path(x).relative_to(ROOT).as_posix() for x in lessons}
    for lesson in lessons:
        assert f"](notebooks/{lesson}.ipynb)" in readme
