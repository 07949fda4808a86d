"""What a notebook costs: its memory is seen, and one that stops is told."""

from __future__ import annotations

from pathlib import Path

import pytest
from nbformat.v4 import new_code_cell, new_notebook, writes

from lessonkit.testing.commands import main
from lessonkit.testing.measure import Cost, measure

MEGABYTES = 300
LARGE = f"""import time
large = bytearray({MEGABYTES} * 10**6)
large[::4096] = b"x" * len(large[::4096])
time.sleep(1)"""
MAPPED = """import mmap
with open("file", "wb") as file:
    file.write(large)
with open("file", "rb") as file:
    pages = mmap.mmap(file.fileno(), 0, access=mmap.ACCESS_READ)
seen = sum(pages[::4096])
time.sleep(1)"""


def notebook(path: Path, *sources: str) -> Path:
    cells = [new_code_cell(source, id=f"cell-{n}") for n, source in enumerate(sources)]
    path.write_text(writes(new_notebook(cells=cells)), encoding="utf-8")
    return path


def test_minutes_and_memory_of_each_cell_without_mapped_files(tmp_path: Path) -> None:
    (tmp_path / "here").write_text("")
    empty = "import pathlib\nassert not list(pathlib.Path().iterdir())"
    path = notebook(tmp_path / "a.ipynb", empty, LARGE, MAPPED)
    before = path.read_bytes()
    cells: list[Cost] = []
    cost = measure(path, cells.append)
    assert cost.error == "" and cost.seconds > 1
    assert [cell.name for cell in cells] == ["cell-0", "cell-1", "cell-2"]
    small, large, mapped = cells
    assert small.seconds < 1 < large.seconds and cost.peak == max(cell.peak for cell in cells)
    assert 0.8 * MEGABYTES < (large.peak - small.peak) / 1e6 < 1.5 * MEGABYTES
    assert (mapped.peak - large.peak) / 1e6 < 0.2 * MEGABYTES
    assert path.read_bytes() == before  # it is only measured


def test_one_that_stops_is_told_and_the_others_still_run(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    notebook(tmp_path / "a.ipynb", "1 / 0")
    model = "import os\nprint(os.environ['LESSONKIT_MODEL'])\nassert False, 'seen'"
    notebook(tmp_path / "b.ipynb", model)
    notebook(tmp_path / "c.ipynb", "1 + 1")
    notebook(tmp_path / "d.ipynb", "import os, signal\nos.kill(os.getpid(), signal.SIGKILL)")
    monkeypatch.setenv("LESSONKIT_MODEL", "another")
    assert main(["measure", str(tmp_path)]) == 1
    told = capsys.readouterr().out
    assert "ZeroDivisionError" in told and "another" in told and "c.ipynb\n" in told
    assert "d.ipynb, stops at an error\nThe kernel died" in told
    assert main(["measure", str(tmp_path / "c.ipynb")]) == 0
