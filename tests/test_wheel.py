"""The wheel alone is enough to run a lesson, as on Colab.

A fresh environment has everything but lessonkit. In an empty folder lie the wheel and the first
lesson; the lesson's own set-up cell installs the wheel. Nothing is downloaded.
"""

from __future__ import annotations

import json
import os
import shutil
import site
import subprocess
import sys
import venv
import zipfile
from pathlib import Path

import pytest

ROOT = Path(__file__).resolve().parent.parent
LESSON = ROOT / "notebooks" / "00_start_here.ipynb"

# Runs the notebook in the working folder, then says from where its kernel had lessonkit.
RUN = """
import json, sys
from nbclient import NotebookClient
from nbformat.v4 import new_code_cell, reads

notebook = reads(open("00_start_here.ipynb", encoding="utf-8").read())
notebook.cells.append(new_code_cell("import lessonkit; print(lessonkit.__file__)"))
for cell in notebook.cells:
    if cell.cell_type == "code":
        cell.execution_count, cell.outputs = None, []
NotebookClient(notebook, kernel_name="python3", timeout=600).execute()
code = [cell for cell in notebook.cells if cell.cell_type == "code"]
ran = sum(cell.execution_count is not None for cell in code)
file = code[-1].outputs[0].text.strip()
print(json.dumps({"cells": len(code), "ran": ran, "file": file}))
"""


@pytest.fixture(scope="module")
def wheel(mini: Path, tmp_path_factory: pytest.TempPathFactory) -> Path:
    """The wheel, built from the sources without network."""
    folder = tmp_path_factory.mktemp("dist")
    build = [sys.executable, "-m", "build", "--wheel", "--no-isolation", "--outdir", str(folder)]
    done = subprocess.run([*build, str(ROOT)], capture_output=True, text=True, check=False)
    assert done.returncode == 0, done.stdout + done.stderr
    (built,) = folder.glob("lessonkit-*.whl")
    return built


def test_the_wheel_carries_model_and_texts_and_not_what_made_them(wheel: Path) -> None:
    with zipfile.ZipFile(wheel) as archive:
        carried = {
            name.removeprefix("lessonkit/_data/"): archive.read(name)
            for name in archive.namelist()
            if name.startswith("lessonkit/_data/")
        }
    sums = (ROOT / "data" / "SHA256SUMS").read_text(encoding="utf-8").splitlines()
    listed = {line.split(maxsplit=1)[1].lstrip("*") for line in sums if line.strip()}
    cards = {"README.md", "adapters/zh/README.md", "adapters/chat/README.md"}
    assert set(carried) == listed | {"SHA256SUMS", *cards}
    assert all(data == (ROOT / "data" / name).read_bytes() for name, data in carried.items())


def fresh_environment(folder: Path) -> Path:
    """An environment with every package of this one, pip too, but not lessonkit; its Python."""
    venv.create(folder, with_pip=False)
    python = folder / "bin" / "python"
    there = subprocess.run(
        [python, "-c", "import sysconfig; print(sysconfig.get_path('purelib'))"],
        capture_output=True,
        text=True,
        check=True,
    ).stdout.strip()
    packages = folder / "packages"
    packages.mkdir()
    for source in [Path(p) for p in site.getsitepackages()]:
        for entry in source.iterdir() if source.is_dir() else ():
            own = entry.name.lower().lstrip("_").startswith("lessonkit")
            if not own and entry.suffix != ".pth" and not (packages / entry.name).exists():
                (packages / entry.name).symlink_to(entry)
    (Path(there) / "packages.pth").write_text(f"{packages}\n", encoding="utf-8")
    return python


def test_the_first_lesson_runs_in_an_empty_folder_through_its_own_set_up_cell(
    wheel: Path, tmp_path: Path
) -> None:
    python = fresh_environment(tmp_path / "venv")
    environment = os.environ | {"PIP_NO_INDEX": "1", "PYTHONNOUSERSITE": "1"}
    environment.pop("PYTHONPATH", None)
    for line, code in (("import lessonkit", 1), ("import torch.version, ipykernel", 0)):
        done = subprocess.run([python, "-c", line], cwd=tmp_path, env=environment, check=False)
        assert done.returncode == code, line
    subprocess.run(
        [python, "-m", "ipykernel", "install", "--sys-prefix"], env=environment, check=True
    )

    empty = tmp_path / "empty"
    empty.mkdir()
    shutil.copy(wheel, empty)
    shutil.copy(LESSON, empty)
    done = subprocess.run(
        [python, "-c", RUN], cwd=empty, env=environment, capture_output=True, text=True, check=False
    )
    assert done.returncode == 0, done.stderr[-4000:]
    facts = json.loads(done.stdout.splitlines()[-1])
    assert facts["ran"] == facts["cells"] > 3
    assert Path(facts["file"]).is_relative_to(tmp_path / "venv")
