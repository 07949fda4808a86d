"""Every lesson as on Colab: its published versions are there already, lessonkit is not.

    python -m tools.colab FREEZE FOLDER [--python 3.13] [--torch-backend cpu] [LESSON.ipynb ...]

FREEZE is Colab's list of packages, a file or an address. In FOLDER an environment with those
versions is made; beside it, in a folder that holds nothing but the wheel and the notebooks, each
lesson runs from its own set-up cell on, which installs what is missing. At the end, nothing that
was there may have been replaced.
"""

from __future__ import annotations

import argparse
import json
import os
import re
import shutil
import subprocess
import sys
from pathlib import Path
from urllib.request import urlopen

ROOT = Path(__file__).resolve().parent.parent
# What Colab has of all that the course asks for, and what runs a notebook.
THERE = [
    "pip", "torch", "transformers", "numpy", "matplotlib", "huggingface_hub", "tokenizers",
    "safetensors", "sentencepiece", "protobuf", "psutil", "tqdm", "accelerate", "datasets", "peft",
    "tiktoken", "openai", "ipykernel", "ipython", "nbclient", "nbformat", "jupyter_client",
]  # fmt: skip


def constraints(freeze: str) -> list[str]:
    """The versions in `pip freeze`'s text, one a line, as constraints.

    torch stands there with its download's address or with the label of its build, which no index
    knows: only its version stays.

    Raises
    ------
    ValueError
        The text names no version of torch: it is not Colab's list, or has another form now.
    """
    plain = [line for line in freeze.splitlines() if re.fullmatch(r"[\w.-]+==\d[^+\s]*", line)]
    torch = re.search(r"^torch(?:==| @ .*/torch-)(\d[\d.]*\d)", freeze, re.MULTILINE)
    if torch is None:
        raise ValueError("no version of torch in this list")
    return [line for line in plain if not line.startswith("torch==")] + [f"torch=={torch[1]}"]


def replaced(before: str, after: str) -> list[str]:
    """The lines of `pip freeze` that are gone or have become others."""
    return sorted(set(before.split("\n")) - set(after.split("\n")))


def read(freeze: str) -> str:
    """The text of a file or at an address."""
    if re.match(r"https?://", freeze):
        with urlopen(freeze) as answer:
            return str(answer.read().decode())
    return Path(freeze).read_text(encoding="utf-8")


def strip(path: Path) -> None:
    """Take out of a notebook all that an earlier run left."""
    notebook = json.loads(path.read_text(encoding="utf-8"))
    for cell in notebook["cells"]:
        if cell["cell_type"] == "code":
            cell["execution_count"], cell["outputs"] = None, []
    path.write_text(json.dumps(notebook), encoding="utf-8")


def ran(path: Path) -> int:
    """How many code cells of a notebook have run."""
    cells = json.loads(path.read_text(encoding="utf-8"))["cells"]
    return sum(bool(cell.get("execution_count")) for cell in cells)


def main() -> int:
    """Build, install, run, compare; 0 when every lesson ran and nothing was replaced."""
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0])
    parser.add_argument("freeze", metavar="FREEZE", help="Colab's pip-freeze.txt: file or address")
    parser.add_argument("folder", type=Path, metavar="FOLDER", help="made anew")
    parser.add_argument("lessons", nargs="*", type=Path, metavar="LESSON", help="all unless named")
    parser.add_argument("--python", default="3.13", help="Colab's")
    parser.add_argument("--torch-backend", help="cpu, cu128, ...")
    options = parser.parse_intermixed_args()
    lessons = options.lessons or sorted((ROOT / "notebooks").glob("*.ipynb"))

    shutil.rmtree(options.folder, ignore_errors=True)
    empty = options.folder.resolve() / "empty"
    empty.mkdir(parents=True)
    listed = empty.parent / "colab.txt"
    listed.write_text("\n".join(constraints(read(options.freeze))) + "\n", encoding="utf-8")
    uv, environment = [sys.executable, "-m", "uv"], empty.parent / "environment"
    python = environment / "bin" / "python"
    backend = [f"--torch-backend={options.torch_backend}"] if options.torch_backend else []

    def freeze() -> str:
        found = subprocess.run([python, "-m", "pip", "freeze"], stdout=subprocess.PIPE, check=True)
        return found.stdout.decode()

    build = [sys.executable, "-m", "build", "--wheel", "--outdir", empty, ROOT]
    subprocess.run(build, stdout=subprocess.DEVNULL, check=True)
    subprocess.run([*uv, "venv", "-q", "--python", options.python, environment], check=True)
    subprocess.run(
        [*uv, "pip", "install", "-q", "--no-config", "--python", python, "--constraint", listed,
         *backend, *THERE], check=True,
    )  # fmt: skip
    subprocess.run([python, "-m", "ipykernel", "install", "--sys-prefix"], check=True)
    settings = {"PIP_CONSTRAINT": str(listed), "JUPYTER_PREFER_ENV_PATH": "1"}
    before, failed = freeze(), []
    for lesson in lessons:
        copy = Path(shutil.copy(lesson, empty))
        strip(copy)
        done = subprocess.run(
            [environment / "bin" / "jupyter", "execute", "--inplace", "--timeout=1800", copy.name],
            cwd=empty, env=os.environ | settings, check=False,
        )  # fmt: skip
        print(f"{lesson.name}: {ran(copy)} cells ran", flush=True)
        if done.returncode or ran(copy) < 4:
            failed.append(lesson.name)
    gone = replaced(before, freeze())
    print(f"failed: {', '.join(failed) or 'none'}; replaced: {', '.join(gone) or 'nothing'}")
    return 1 if failed or gone else 0


if __name__ == "__main__":
    sys.exit(main())
