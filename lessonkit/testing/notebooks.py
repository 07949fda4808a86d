"""Notebooks as files: run one, lint one, mend it, keep its new outputs.

A clean notebook has one possible form on disk, so that a change to a lesson shows in a diff as
that change and nothing else. `testing.rules` holds the rules.
"""

from __future__ import annotations

import copy
import json
import os
import sys
import time
from collections.abc import Callable, Sequence
from dataclasses import dataclass
from pathlib import Path

import nbformat
from nbformat import NotebookNode

from lessonkit.testing.rules import (
    MEND,
    MENDINGS,
    REFERENCE,
    SETUP_TAG,
    canonical,
    check_cell,
    check_whole,
    mend,
    tidy,
)

THREADS = "LESSONKIT_THREADS"
REQUIRE_ENGINES = "LESSONKIT_REQUIRE_ENGINES"


@dataclass(frozen=True)
class Finding:
    """One thing wrong with one cell (or, where `cell` is empty, with the whole notebook)."""

    path: Path
    cell: str
    problem: str
    remedy: str

    def __str__(self) -> str:
        place = f"{self.path}: cell {self.cell}" if self.cell else f"{self.path}"
        return f"{place}: {self.problem}. {self.remedy}"


# --- running ----------------------------------------------------------------------------------


def reproducible_environment() -> dict[str, str]:
    """The environment variables under which a notebook gives the same outputs everywhere.

    No hub is asked, no cache or settings of the user's home are read, and arithmetic uses one
    thread (or as many as `LESSONKIT_THREADS` says). What must be cached, such as the list of fonts,
    lies in the virtual environment. No ledger is kept. A comparison with a library that is not
    installed is an error, unless `LESSONKIT_REQUIRE_ENGINES` was set to something else before.
    """
    cache = Path(sys.prefix) / "cache"
    threads = os.environ.get(THREADS, "1")
    folders = {
        "HF_HOME": cache / "huggingface",
        "IPYTHONDIR": cache / "ipython",
        "JUPYTER_CONFIG_DIR": cache / "jupyter",
        "JUPYTER_DATA_DIR": cache / "jupyter-data",
        "MPLCONFIGDIR": cache / "matplotlib",
    }
    for folder in folders.values():
        folder.mkdir(parents=True, exist_ok=True)
    return {name: str(folder) for name, folder in folders.items()} | {
        "HF_HUB_OFFLINE": "1",
        "HF_HUB_DISABLE_TELEMETRY": "1",
        "JUPYTER_PREFER_ENV_PATH": "1",
        "LESSONKIT_LEDGER": "",  # a lesson shows its own rows, whatever was run before it
        REQUIRE_ENGINES: os.environ.get(REQUIRE_ENGINES, "1"),
        "MKL_NUM_THREADS": threads,
        "OMP_NUM_THREADS": threads,
        "TOKENIZERS_PARALLELISM": "false",
    }


def use_reproducible_environment() -> None:
    """Set these variables in this process, for it and for every kernel that it starts."""
    os.environ.update(reproducible_environment())
    os.environ.pop("LESSONKIT_MODEL", None)
    if not any(Path(os.environ["MPLCONFIGDIR"]).glob("fontlist-*.json")):
        import matplotlib.font_manager  # noqa: F401  lists the fonts now, not inside a cell


def execute(
    notebook: NotebookNode,
    folder: Path,
    timeout: int = 1800,
    *,
    ended: Callable[[str, float], None] = lambda cell, seconds: None,
) -> int:
    """Run every code cell in place, with `folder` as the working folder; how many cells ran.

    `ended` is told each cell's id and seconds as soon as it has run, also of one that raised.

    Raises
    ------
    nbclient.exceptions.CellExecutionError
        A cell raised; its message holds the traceback.
    """
    from nbclient import NotebookClient

    for cell in notebook.cells:
        if cell.cell_type == "code":
            cell["execution_count"] = None
    began = time.monotonic()

    def begin(**_: object) -> None:
        nonlocal began
        began = time.monotonic()

    client = NotebookClient(
        notebook,
        timeout=timeout,
        kernel_name="python3",
        record_timing=False,
        on_cell_execute=begin,
        on_cell_executed=lambda cell, **_: ended(cell.id, time.monotonic() - began),
        extra_arguments=["--log-level=40"],  # errors of the kernel itself, no warnings
        resources={"metadata": {"path": str(folder)}},
    )
    client.execute()
    return sum(
        cell.cell_type == "code" and cell.execution_count is not None for cell in notebook.cells
    )


# --- one notebook, from disk to disk ----------------------------------------------------------


def parse(text: str) -> NotebookNode:
    """The notebook that a file's text holds. Cell ids may be missing: they can be mended.

    Raises
    ------
    ValueError
        The text is not JSON, or not a notebook of format 4.
    """
    content = json.loads(text)
    if not isinstance(content, dict) or content.get("nbformat") != 4:
        raise ValueError("not a notebook of format 4")
    probe = copy.deepcopy(content) | {"nbformat_minor": 5}
    for position, cell in enumerate(probe.get("cells", [])):
        cell["id"] = f"cell-{position}"
    for error in nbformat.validator.iter_validate(probe):
        raise ValueError(str(error).splitlines()[0])
    return nbformat.v4.reads(text)


def setup_source(path: Path) -> str | None:
    """The set-up cell that the notebook at `path` must have: the one of 00_start_here.ipynb.

    None where no such notebook lies in the folder or the one above: then there is no such rule.
    """
    for folder in (path.parent, path.parent.parent):
        reference = folder / REFERENCE
        if not reference.is_file():
            continue
        try:
            cells = parse(reference.read_text(encoding="utf-8")).cells
        except ValueError:  # the reference's own findings say what is wrong with it
            return None
        marked = [cell for cell in cells if SETUP_TAG in cell.metadata.get("tags", [])]
        return tidy(marked[0].source, "code") if marked else None
    return None


def check(path: Path, notebook: NotebookNode, text: str, setup: str | None) -> list[Finding]:
    """Every finding in one notebook, whose file holds `text`."""
    found = [Finding(path, *facts) for facts in check_whole(notebook, setup)]
    for position, cell in enumerate(notebook.cells, start=1):
        name = cell.get("id") or f"number {position}"
        if not cell.source.strip():
            found.append(Finding(path, name, "is empty", MEND))
        found += [Finding(path, name, *facts) for facts in check_cell(cell)]
    for mending, problem in MENDINGS:
        mended = copy.deepcopy(notebook)
        mending(mended)
        for position, (old, new) in enumerate(
            zip(notebook.cells, mended.cells, strict=True), start=1
        ):
            if old != new:
                found.append(Finding(path, old.get("id") or f"number {position}", problem, MEND))
    if not found and text != canonical(mended_copy(notebook, setup)):
        found.append(Finding(path, "", "is not in canonical form (metadata or layout)", MEND))
    return found


def mended_copy(notebook: NotebookNode, setup: str | None) -> NotebookNode:
    """A copy of a notebook with every mending applied."""
    mended = copy.deepcopy(notebook)
    mend(mended, setup)
    return mended


def lint(path: Path, *, fix: bool = False) -> list[Finding]:
    """The findings in the notebook at `path`; with `fix`, those left after mending it on disk."""
    try:
        text = path.read_bytes().decode("utf-8")  # bytes: the kind of line ends counts too
        notebook = parse(text)
    except ValueError as error:
        problem = f"is not a valid notebook ({error})"
        return [Finding(path, "", problem, "Restore it from version control.")]
    setup = setup_source(path)
    if fix:
        notebook = mended_copy(notebook, setup)
        mended = canonical(notebook)
        if mended != text:
            write(path, mended)
            text = mended
    return check(path, notebook, text, setup)


def write(path: Path, text: str) -> None:
    """Replace a file as a whole, so that an interruption leaves the old one."""
    temporary = path.with_suffix(".ipynb.new")
    temporary.write_text(text, encoding="utf-8", newline="\n")
    os.replace(temporary, path)


def refresh(path: Path) -> list[Finding]:
    """Run the notebook at `path`, keep its new outputs in canonical form, and lint it.

    A notebook in which a cell raises is left as it was.
    """
    from nbclient.exceptions import CellExecutionError

    notebook = parse(path.read_text(encoding="utf-8"))
    try:
        execute(notebook, path.parent)
    except CellExecutionError as error:
        return [Finding(path, "", f"stops at an error, and is left as it was:\n{error}", "")]
    write(path, canonical(mended_copy(notebook, setup_source(path))))
    return lint(path)


def slowest(path: Path) -> list[tuple[float, str]]:
    """Run the notebook at `path`: the seconds of each code cell, and its id, the slowest first."""
    times: list[tuple[float, str]] = []

    def ended(cell: str, seconds: float) -> None:
        times.append((seconds, f"{path.stem}: {cell}"))

    execute(parse(path.read_text(encoding="utf-8")), path.parent, ended=ended)
    return sorted(times, reverse=True)


def list_slowest(paths: Sequence[Path], count: int) -> None:
    """Print each notebook's time, and the slowest cells of all."""
    cells: list[tuple[float, str]] = []
    for path in paths:
        found = slowest(path)
        print(f"{sum(seconds for seconds, _ in found):7.1f} s  {path}", flush=True)
        cells += found
    print()
    for seconds, name in sorted(cells, reverse=True)[:count]:
        print(f"{seconds:7.1f} s  {name}")
