"""The commands, tried as another project would: on a folder outside this repository."""

from __future__ import annotations

import os
import subprocess
import sys
from pathlib import Path

import pytest
from nbformat.v4 import new_code_cell, new_markdown_cell, new_notebook, writes

import lessonkit
from lessonkit.testing.commands import main, notebooks_in
from lessonkit.testing.notebooks import parse

TITLE = new_markdown_cell("# Squares\n\nA notebook of another project.")


@pytest.fixture
def folder(tmp_path: Path) -> Path:
    """Notebooks as Jupyter leaves them: random ids, its own metadata, not run."""
    cells = [TITLE, new_code_cell("squares = [n * n for n in range(4)]"), new_code_cell("squares")]
    (tmp_path / "squares.ipynb").write_text(writes(new_notebook(cells=cells)), encoding="utf-8")
    (tmp_path / ".ipynb_checkpoints").mkdir()
    (tmp_path / ".ipynb_checkpoints" / "squares.ipynb").write_text("{}", encoding="utf-8")
    return tmp_path


def typed(folder: Path, *words: str) -> subprocess.CompletedProcess[str]:
    """The command in a process of its own, in the other project's folder."""
    environment = os.environ | {"PYTHONPATH": str(Path(lessonkit.__file__).parents[1])}
    return subprocess.run(
        [sys.executable, "-m", "lessonkit.testing", *words],
        cwd=folder, env=environment, capture_output=True, text=True, check=False,
    )  # fmt: skip


def test_lint_refresh_run_and_portable_in_another_project(folder: Path) -> None:
    found = typed(folder, "lint", ".")
    assert found.returncode == 1 and "has 2 code cells that were never run" in found.stdout
    assert "squares.ipynb: cell " in found.stdout and "1 notebooks" in found.stdout
    made = typed(folder, "refresh", ".")
    assert made.returncode == 0, made.stdout + made.stderr
    assert typed(folder, "lint", "squares.ipynb").stdout == "1 notebooks, 0 findings\n"
    file = folder / "squares.ipynb"
    assert parse(file.read_text()).cells[2].outputs[0].data["text/plain"] == "[0, 1, 4, 9]"
    ran = typed(folder, "run", ".")
    assert ran.returncode == 0 and "2 passed" in ran.stdout
    elsewhere = typed(folder, "portable", "--setting", "avx2", "squares.ipynb")
    assert elsewhere.returncode == 0 and "every setting passes" in elsewhere.stdout
    file.write_text(file.read_text().replace("[0, 1, 4, 9]", "[0, 1, 4, 8]"))
    for words in (["run", "."], ["portable", "--setting", "avx2", "."]):
        assert typed(folder, *words).returncode == 1


def test_checkpoints_are_left_alone_and_what_is_missing_is_named(folder: Path) -> None:
    assert notebooks_in([folder]) == [folder / "squares.ipynb"]
    with pytest.raises(SystemExit):
        main(["lint", str(folder / "no.ipynb")])


def test_fix_mends_and_says_what_is_left(folder: Path, capsys: pytest.CaptureFixture[str]) -> None:
    assert main(["lint", "--fix", str(folder)]) == 1
    printed = capsys.readouterr().out
    assert "1 notebooks, 1 findings" in printed and "never run" in printed
    assert [c.id for c in parse((folder / "squares.ipynb").read_text()).cells] == [
        "squares", "squares-n-n-for-n", "squares-2",
    ]  # fmt: skip
