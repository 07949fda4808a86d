"""What is derived from the lessons: solutions, pictures, the README's two tables, the ledger.

    python -m tools.lessons          write all of it
    python -m tools.lessons --check  fail where something is not what the lessons say

A lesson's first cell holds its title and, in bold, its question. The cell whose figure stands for
the lesson carries the tag `picture`; the one whose printed table the README shows, the tag `table`;
the cells that add to the ledger, the tag `ledger`. Where pyproject.toml says the repository's
address on GitHub (`[project.urls]`, `Repository`), and only there, each row has a badge that opens
it in Colab.
"""

from __future__ import annotations

import argparse
import base64
import re
import sys
import tomllib
from pathlib import Path

from nbformat import NotebookNode

from lessonkit.testing.notebooks import execute, mended_copy, parse, setup_source
from lessonkit.testing.rules import SETUP_TAG, canonical
from tools.solutions import solutions_notebook

ROOT = Path(__file__).resolve().parent.parent
NOTEBOOKS = ROOT / "notebooks"
PICTURES = ROOT / "docs" / "pictures"
README = ROOT / "README.md"
LEDGER = ROOT / "docs" / "ledger.md"
PICTURE_TAG = "picture"
TABLE_TAG = "table"
LEDGER_TAG = "ledger"
BEGIN, END = "<!-- lessons: python -m tools.lessons -->", "<!-- end of lessons -->"
TABLE_BEGIN, TABLE_END = "<!-- formats: python -m tools.lessons -->", "<!-- end of formats -->"
LEDGER_HEAD = """# The ledger

Each lesson adds its forms of `mini` to one table: what a form costs, what it is worth, and how
much worse it is than the model as it was. *Worse by* is the change of the perplexity and its
standard error, both models compared window by window. Only rows under the same protocol may be set
side by side. *Bits* are those of the weights that a form rounds: the linear layers, or in a GGUF
file all. GPTQ chooses a little differently on every processor, so it has fewer digits.

The lessons computed these figures, and every test run computes them again. Run a lesson, and its
rows go into your own table, in `ledger.json` beside the notebook, whatever your model is.
"""


def lessons() -> list[Path]:
    """The lessons, in order."""
    return sorted(NOTEBOOKS.glob("[0-9][0-9]_*.ipynb"))


def read(path: Path) -> NotebookNode:
    """A notebook from its file."""
    return parse(path.read_text(encoding="utf-8"))


def title_and_question(path: Path) -> tuple[str, str]:
    """What the first cell of a lesson says: "# Title", and the question in bold."""
    first = read(path).cells[0].source
    title = re.match(r"# (.+)", first)
    question = re.search(r"^\*\*(.+\?)\*\*$", first, re.M)
    if not title or not question:
        raise SystemExit(f"{path.name}: the first cell needs '# Title' and a '**Question?**' line")
    return title[1], question[1]


def picture(path: Path) -> tuple[bytes, str]:
    """The PNG of the lesson's tagged cell, and the first sentence of its alternative text."""
    for cell in read(path).cells:
        if PICTURE_TAG not in cell.metadata.get("tags", []):
            continue
        for output in cell.get("outputs", []):
            if "image/png" in output.get("data", {}):
                alt = output["metadata"]["image/png"]["alt"]
                sentence = re.split(r"(?<=[.:])\s", alt)[0].rstrip(".:").replace('"', "'")
                return base64.b64decode(output["data"]["image/png"]), sentence
    raise SystemExit(f"{path.name}: no cell with the tag 'picture' shows a figure")


def repository() -> str | None:
    """The repository on GitHub, owner/name, as pyproject.toml has it: the one place for it."""
    project = tomllib.loads((ROOT / "pyproject.toml").read_text(encoding="utf-8"))["project"]
    address = project.get("urls", {}).get("Repository", "")
    found = re.fullmatch(r"https://github\.com/([\w.-]+/[\w.-]+?)(?:\.git)?/?", address)
    return found[1] if found else None


def badge(name: str) -> str:
    """A badge that opens a notebook in Colab; nothing where the address is not known."""
    where = repository()
    if where is None:
        return ""
    colab = "https://colab.research.google.com"
    return (
        f" [![Open in Colab]({colab}/assets/colab-badge.svg)]"
        f"({colab}/github/{where}/blob/main/notebooks/{name})"
    )


def table() -> str:
    """The README's table: a row a lesson, its picture, its title, its question."""
    rows = ["| | lesson | the question it answers |", "|---|---|---|"]
    for path in lessons():
        title, question = title_and_question(path)
        _, alt = picture(path)
        image = f'<img src="docs/pictures/{path.stem[:2]}.png" width="260" alt="{alt}">'
        link = f"[{title}](notebooks/{path.name}){badge(path.name)}"
        rows.append(f"| {image} | {link} | {question} |")
    return "\n".join(rows)


def formats() -> str:
    """What the one cell with the tag `table` prints."""
    printed = [
        output.text
        for path in lessons()
        for cell in read(path).cells
        if TABLE_TAG in cell.metadata.get("tags", [])
        for output in cell.get("outputs", [])
        if output.output_type == "stream"
    ]
    if len(printed) != 1:
        raise SystemExit(f"{len(printed)} cells with the tag 'table' print something, not 1")
    return f"```\n{printed[0].rstrip()}\n```"


def readme() -> str:
    """The README with the tables as the lessons give them."""
    text = README.read_text(encoding="utf-8")
    text = _between(text, BEGIN, END, table())
    return _between(text, TABLE_BEGIN, TABLE_END, formats())


def _between(text: str, begin: str, end: str, content: str) -> str:
    before, rest = text.split(begin)
    _, after = rest.split(end)
    return f"{before}{begin}\n{content}\n{end}{after}"


def ledger() -> str:
    """The page with the rows that all lessons add to the ledger, grouped as the lessons do it."""
    header, groups = "", dict[str, list[str]]()
    for path in lessons():
        for line in ledger_lines(path):
            if not line.startswith(" "):  # a protocol; its rows follow
                rows = groups.setdefault(line, [])
            elif line.split()[0].isdigit():
                rows.append(line)
            else:
                header = line
    table = "\n".join([header, *(line for name in groups for line in [name, *groups[name]])])
    return f"{LEDGER_HEAD}\n```\n{table}\n```\n"


def ledger_lines(path: Path) -> list[str]:
    """What the cells of a lesson with the tag `ledger` print, line by line."""
    return [
        line
        for cell in read(path).cells
        if LEDGER_TAG in cell.metadata.get("tags", [])
        for output in cell.get("outputs", [])
        for line in output.get("text", "").splitlines()
    ]


def solutions(path: Path) -> NotebookNode:
    """The solutions of a lesson, not yet run."""
    cells = read(path).cells
    (setup,) = [c.source for c in cells if SETUP_TAG in c.metadata.get("tags", [])]
    return solutions_notebook(path.stem, title_and_question(path)[0], setup)


def stale() -> list[str]:
    """What is not as the lessons say; empty if all is well."""
    found = []
    for path in lessons():
        file = PICTURES / f"{path.stem[:2]}.png"
        if not file.is_file() or file.read_bytes() != picture(path)[0]:
            found.append(f"{file.relative_to(ROOT)} is not the figure of {path.name}")
        solved = NOTEBOOKS / "solutions" / path.name
        wanted = [(c.cell_type, c.source) for c in solutions(path).cells]
        if not solved.is_file() or [(c.cell_type, c.source) for c in read(solved).cells] != wanted:
            found.append(f"{solved.relative_to(ROOT)} does not hold the solutions in code")
    if not LEDGER.is_file() or LEDGER.read_text(encoding="utf-8") != ledger():
        found.append(f"{LEDGER.relative_to(ROOT)} has other rows than the lessons")
    if README.read_text(encoding="utf-8") != readme():
        found.append("README.md has another table of lessons or formats")
    return found


def write() -> None:
    """Write pictures, solutions (run, with their outputs), the ledger and the README's table."""
    PICTURES.mkdir(parents=True, exist_ok=True)
    (NOTEBOOKS / "solutions").mkdir(exist_ok=True)
    for path in lessons():
        (PICTURES / f"{path.stem[:2]}.png").write_bytes(picture(path)[0])
        solved = NOTEBOOKS / "solutions" / path.name
        notebook = solutions(path)
        execute(notebook, NOTEBOOKS)
        solved.write_text(canonical(mended_copy(notebook, setup_source(path))), encoding="utf-8")
    LEDGER.write_text(ledger(), encoding="utf-8")
    README.write_text(readme(), encoding="utf-8")


def main() -> int:
    """The command line."""
    parser = argparse.ArgumentParser(description=(__doc__ or "").splitlines()[0])
    parser.add_argument("--check", action="store_true", help="write nothing; fail where stale")
    if not parser.parse_args().check:
        write()
        return 0
    found = stale()
    print("\n".join([*found, "run `make notebooks`"]) if found else "all is as the lessons say")
    return 1 if found else 0


if __name__ == "__main__":
    sys.exit(main())
