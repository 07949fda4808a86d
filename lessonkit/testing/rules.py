"""The rules of a clean notebook: what can be mended, and what only a person can mend.

A rule that can be mended is written as its mending, a function that changes the notebook: a cell
that it would change is a finding. `testing.notebooks` applies the rules to files.
"""

from __future__ import annotations

import re
import tempfile
from collections.abc import Callable, Iterator
from pathlib import Path

import nbformat
from nbformat import NotebookNode

REFERENCE = "00_start_here.ipynb"
SETUP_TAG = "setup"
LONGEST_CODE = 24
LONGEST_TEXT = 40
SHORTEST_ALT = 20
MEND = "Run `python -m lessonkit.testing lint --fix` on this file."

METADATA = {
    "kernelspec": {"display_name": "Python 3", "language": "python", "name": "python3"},
    "language_info": {"name": "python", "pygments_lexer": "ipython3"},
}
IMAGES = ("image/png", "image/jpeg", "image/svg+xml")
WIDGET = "application/vnd.jupyter.widget-view+json"

# Folders that say on whose machine a cell ran. A made-up /home/you is fine.
MACHINE_PATH = re.compile(
    r"(?<![\w.])/(?:(?:home|Users)/(?!you\b)\w+|root/|tmp/|var/folders/|private/var/|content/)"
    r"|[A-Za-z]:\\+(?:Users|Temp)\\|site-packages|\.venv/"
)
READABLE_ID = re.compile(r"[a-z][a-z0-9]*(?:-[a-z0-9]+)*")
RANDOM_ID = re.compile(r"(?=[0-9a-f]*[0-9])[0-9a-f]{8}(?:-[0-9a-f-]+)?")
LONGEST_ID = 32


# --- what can be mended -----------------------------------------------------------------------


def slug(cell: NotebookNode) -> str:
    """A readable id from a cell's own words: its first heading, comment or name."""
    if SETUP_TAG in cell.metadata.get("tags", []):
        return SETUP_TAG
    first = next((line for line in cell.source.splitlines() if line.strip()), "")
    words = re.findall(r"[a-z0-9]+", first.lower())
    name = ""
    for word in words[:5]:
        if len(name) + 1 + len(word) > LONGEST_ID - 4:  # room for a number that makes it unique
            break
        name = f"{name}-{word}" if name else word
    return name if READABLE_ID.fullmatch(name) and len(name) > 1 else ""


def is_readable(cell_id: str) -> bool:
    """Whether an id is short and made of words, not one that Jupyter drew at random."""
    return (
        2 <= len(cell_id) <= LONGEST_ID
        and READABLE_ID.fullmatch(cell_id) is not None
        and RANDOM_ID.fullmatch(cell_id) is None
    )


def mend_ids(notebook: NotebookNode) -> None:
    """Give every cell a unique readable id; the first cell with a good id keeps it."""
    taken: set[str] = set()
    unnamed = []
    for position, cell in enumerate(notebook.cells, start=1):
        if is_readable(cell.get("id", "")) and cell.id not in taken:
            taken.add(cell.id)
        else:
            unnamed.append((position, cell))
    for position, cell in unnamed:
        base = slug(cell) or f"cell-{position}"
        name, number = base, 2
        while name in taken:
            name, number = f"{base}-{number}", number + 1
        cell["id"] = name
        taken.add(name)


def mend_counts(notebook: NotebookNode) -> None:
    """Number the code cells that were run by their place: as one run from the top does."""
    code = [cell for cell in notebook.cells if cell.cell_type == "code"]
    for number, cell in enumerate(code, start=1):
        if cell.execution_count is None:
            continue
        cell["execution_count"] = number
        for output in cell.outputs:
            if output.output_type == "execute_result":
                output["execution_count"] = number


def mend_cell_metadata(notebook: NotebookNode) -> None:
    """Keep the tags and nothing else: no timings, no folding, no editor's notes."""
    for cell in notebook.cells:
        tags = cell.metadata.get("tags", [])
        cell["metadata"] = NotebookNode({"tags": tags} if tags else {})


def mend_output_metadata(notebook: NotebookNode) -> None:
    """Keep of an image its alternative text and its size."""
    for output in outputs(notebook):
        if "metadata" not in output:
            continue
        kept = {}
        for kind, facts in output.metadata.items():
            if kind in IMAGES and isinstance(facts, dict):
                facts = {key: facts[key] for key in ("alt", "height", "width") if key in facts}
                if facts:
                    kept[kind] = facts
        output["metadata"] = nbformat.from_dict(kept)


def mend_streams(notebook: NotebookNode) -> None:
    """Join neighbouring pieces of printed text: where they were cut depends on the moment."""
    for cell in notebook.cells:
        if cell.cell_type != "code":
            continue
        joined: list[NotebookNode] = []
        for output in cell.outputs:
            last = joined[-1] if joined else None
            if (
                last is not None
                and output.output_type == last.output_type == "stream"
                and output.name == last.name
            ):
                last["text"] += output.text
            else:
                joined.append(output)
        cell["outputs"] = joined


def tidy(source: str, cell_type: str) -> str:
    """A cell's source without spaces at line ends or blank lines around; hard breaks stay."""
    lines = source.split("\n")
    for i, line in enumerate(lines):
        bare = line.rstrip()
        followed = i + 1 < len(lines) and lines[i + 1].strip()
        hard_break = cell_type == "markdown" and bare and line == bare + "  " and followed
        lines[i] = line if hard_break else bare
    return "\n".join(lines).strip("\n")


def mend_whitespace(notebook: NotebookNode) -> None:
    """Tidy every cell's source."""
    for cell in notebook.cells:
        cell["source"] = tidy(cell.source, cell.cell_type)


MENDINGS: tuple[tuple[Callable[[NotebookNode], None], str], ...] = (
    (mend_whitespace, "has spaces at the ends of lines, or blank lines around it"),
    (mend_cell_metadata, "has metadata other than tags"),
    (mend_output_metadata, "has metadata other than an image's alternative text and size"),
    (mend_streams, "has printed text in several pieces"),
    (mend_counts, "has an execution count that is not its place among the code cells"),
    (mend_ids, "has an id that is not unique, short and readable"),
)


def mend(notebook: NotebookNode, setup: str | None) -> None:
    """Apply every mending to a notebook. `setup` is the source that set-up cells must have."""
    notebook["cells"] = [cell for cell in notebook.cells if cell.source.strip()]
    notebook["metadata"] = nbformat.from_dict(METADATA)
    notebook["nbformat"], notebook["nbformat_minor"] = 4, 5
    for mending, _ in MENDINGS:
        mending(notebook)
    for cell in notebook.cells:
        if setup is not None and SETUP_TAG in cell.metadata.get("tags", []):
            cell["source"] = setup


def canonical(notebook: NotebookNode) -> str:
    """The one form on disk: sorted keys, one space of indent, text as it reads, a last newline."""
    return str(nbformat.v4.writes(notebook)) + "\n"


# --- what only a person can mend --------------------------------------------------------------


def outputs(notebook: NotebookNode) -> Iterator[NotebookNode]:
    """Every output of every code cell."""
    for cell in notebook.cells:
        if cell.cell_type == "code":
            yield from cell.outputs


def output_texts(output: NotebookNode) -> Iterator[str]:
    """Every text that a reader or a browser gets from one output."""
    if output.output_type == "stream":
        yield output.text
    elif output.output_type == "error":
        yield "\n".join([output.evalue, *output.traceback])
    else:
        yield from (
            text
            for kind, text in output.data.items()
            if isinstance(text, str) and (kind.startswith("text/") or kind == "image/svg+xml")
        )


def machine_path(text: str) -> str | None:
    """The first folder of this or of anybody's machine named in a text."""
    found = MACHINE_PATH.search(text)
    if found:
        return found.group()
    own = [Path.cwd(), Path.home(), Path(tempfile.gettempdir())]
    names = [str(folder) for folder in own if folder != Path(folder.anchor)]
    return next((n for n in names if re.search(rf"(?<![\w.]){re.escape(n)}(?![\w.-])", text)), None)


def check_output(output: NotebookNode) -> Iterator[tuple[str, str]]:
    """What is wrong with one output: the problem and what to do."""
    if output.output_type == "error":
        yield (
            f"shows an uncaught {output.ename}",
            "Mend the cell; an error that is taught is caught and printed.",
        )
    if output.output_type == "stream" and output.name == "stderr":
        yield (
            f"writes to stderr: {output.text.strip()[:60]!r}",
            "Silence the warning or the progress bar where it arises.",
        )
    for text in output_texts(output):
        found = machine_path(text)
        if found:
            yield f"names a folder of one machine, {found!r}", "Print the file's name alone."
    data = output.get("data", {})
    if WIDGET in data:
        yield "shows a widget, which no rendered page can show", "Print, or plot, instead."
    for kind in IMAGES:
        if kind in data:
            alt = str(output.metadata.get(kind, {}).get("alt", "")).strip()
            if len(alt) <= SHORTEST_ALT:
                yield (
                    f"has an image without alternative text (over {SHORTEST_ALT} characters)",
                    'Show it with lessonkit.course.plots and say in words what it shows: "alt".',
                )
            if re.match(r"<[\w.]*(Figure|Image)\b", str(data.get("text/plain", ""))):
                yield (
                    f"has an image that reads as {data['text/plain'][:40]!r} without pictures",
                    "Show it with lessonkit.course.plots, which puts the alternative text there.",
                )


def check_cell(cell: NotebookNode) -> Iterator[tuple[str, str]]:
    """What is wrong with one cell that only a person can mend."""
    length = len(cell.source.splitlines())
    longest = LONGEST_CODE if cell.cell_type == "code" else LONGEST_TEXT
    if length > longest:
        yield f"has {length} lines, more than {longest}", "Cut it into steps, one idea each."
    if cell.cell_type == "code":
        for output in cell.outputs:
            yield from check_output(output)


def check_whole(notebook: NotebookNode, setup: str | None) -> Iterator[tuple[str, str, str]]:
    """What is wrong with the notebook as a whole: cell id, problem, what to do.

    `setup` is the set-up cell that all notebooks of a folder share; None: they share none.
    """
    first = notebook.cells[0] if notebook.cells else None
    if first is None or first.cell_type != "markdown" or not first.source.startswith("# "):
        yield "", "does not begin with a title", "Make its first cell Markdown: `# Title`."
    code = [cell for cell in notebook.cells if cell.cell_type == "code" and cell.source.strip()]
    waiting = sum(cell.execution_count is None for cell in code)
    if waiting:
        yield (
            "",
            f"has {waiting} code cells that were never run",
            "Run `python -m lessonkit.testing refresh` on it.",
        )
    if setup is None:
        return
    marked = [cell for cell in notebook.cells if SETUP_TAG in cell.metadata.get("tags", [])]
    if len(marked) != 1:
        yield (
            "",
            f"has {len(marked)} set-up cells, not one",
            f"Copy the cell tagged `{SETUP_TAG}` from {REFERENCE}, with its tag.",
        )
    for cell in marked:
        if cell.source != setup:
            yield cell.get("id", ""), f"differs from the set-up cell of {REFERENCE}", MEND
