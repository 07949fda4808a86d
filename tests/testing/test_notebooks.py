"""The notebook linter: each rule finds its fault, mends what it can, and leaves the rest alone."""

from __future__ import annotations

import base64
import json
from collections.abc import Callable
from pathlib import Path
from typing import Any

import pytest

from lessonkit.testing.commands import main
from lessonkit.testing.notebooks import lint, refresh, reproducible_environment
from lessonkit.testing.rules import LONGEST_CODE, LONGEST_TEXT, METADATA

SETUP = "import math\n\nMODEL = 'mini'"
PIXEL = base64.b64encode(b"not really a picture").decode()
ALT = "A histogram of the weights, which is a bell around zero."
HOME = "/".join(["", "home", "ada"])  # in pieces: no tracked file names a home folder

Book = dict[str, Any]


def text_cell(source: str, name: str = "title") -> Book:
    return {"cell_type": "markdown", "id": name, "metadata": {}, "source": source}


def code_cell(source: str, name: str, count: int, *outputs: Book, tags: str = "") -> Book:
    return {
        "cell_type": "code",
        "execution_count": count,
        "id": name,
        "metadata": {"tags": tags.split()} if tags else {},
        "outputs": list(outputs),
        "source": source,
    }


def printed(text: str, name: str = "stdout") -> Book:
    return {"output_type": "stream", "name": name, "text": text}


def picture(alt: str | None = ALT, plain: str = ALT) -> Book:
    facts = {} if alt is None else {"image/png": {"alt": alt}}
    data = {"image/png": PIXEL, "text/plain": plain}
    return {"output_type": "display_data", "data": data, "metadata": facts}


def clean_book() -> Book:
    """A small notebook in which nothing is wrong."""
    return {
        "cells": [
            text_cell("# A lesson\n\nIts question."),
            code_cell(SETUP, "setup", 1, tags="setup"),
            code_cell("print(6 * 7)", "product", 2, printed("42\n")),
            code_cell("plot()", "plot", 3, picture()),
        ],
        "metadata": json.loads(json.dumps(METADATA)),
        "nbformat": 4,
        "nbformat_minor": 5,
    }


def as_text(book: Book) -> str:
    """The canonical text of a notebook, written out independently of the linter."""
    book = json.loads(json.dumps(book))
    for cell in book["cells"]:
        cell["source"] = cell["source"].splitlines(keepends=True)
        for output in cell.get("outputs", []):
            if "text" in output:
                output["text"] = output["text"].splitlines(keepends=True)
            if "text/plain" in output.get("data", {}):
                plain = output["data"]["text/plain"]
                output["data"]["text/plain"] = plain.splitlines(keepends=True)
    return json.dumps(book, indent=1, sort_keys=True, ensure_ascii=False) + "\n"


@pytest.fixture
def folder(tmp_path: Path) -> Path:
    """A folder with a clean first lesson."""
    (tmp_path / "00_start_here.ipynb").write_text(as_text(clean_book()), encoding="utf-8")
    return tmp_path


def fault_name(value: object) -> str:
    return getattr(value, "__name__", "")


def save(folder: Path, book: Book, name: str = "01_lesson.ipynb") -> Path:
    path = folder / name
    path.write_text(as_text(book), encoding="utf-8")
    return path


def test_a_clean_notebook_has_no_findings_and_is_left_alone(folder: Path) -> None:
    path = save(folder, clean_book())
    before = path.read_bytes()
    assert lint(path) == []
    assert lint(path, fix=True) == []
    assert path.read_bytes() == before


# --- rules that --fix mends: (fault put in, cell named, words of the finding) -----------------


def spaces(book: Book) -> None:
    book["cells"][2]["source"] = "\nprint(6 * 7)   \n\n"


def timings(book: Book) -> None:
    book["cells"][2]["metadata"] = {"execution": {"iopub.execute_input": "2026-01-01"}}


def collapsed(book: Book) -> None:
    book["cells"][2]["metadata"] = {"collapsed": True, "tags": ["kept"]}


def figure_facts(book: Book) -> None:
    book["cells"][3]["outputs"][0]["metadata"]["needs_background"] = "light"


def two_streams(book: Book) -> None:
    book["cells"][2]["outputs"] = [printed("4"), printed("2\n")]


def wrong_count(book: Book) -> None:
    book["cells"][2]["execution_count"] = 17


def random_id(book: Book) -> None:
    book["cells"][2]["id"] = "3f2a9c10"


def same_id(book: Book) -> None:
    book["cells"][3]["id"] = "product"


def no_id(book: Book) -> None:
    del book["cells"][2]["id"]


def empty_cell(book: Book) -> None:
    book["cells"].insert(2, code_cell("  \n", "nothing", 2))
    book["cells"][3]["execution_count"] = 3
    book["cells"][4]["execution_count"] = 4


def other_setup(book: Book) -> None:
    book["cells"][1]["source"] = SETUP.replace("mini", "other")


def widget_state(book: Book) -> None:
    book["metadata"]["widgets"] = {"application/vnd.jupyter.widget-state+json": {}}


def other_kernel(book: Book) -> None:
    book["metadata"]["kernelspec"] = {"name": "venv", "display_name": "My venv"}


def python_version(book: Book) -> None:
    book["metadata"]["language_info"]["version"] = "3.11.7"


def old_minor(book: Book) -> None:
    book["nbformat_minor"] = 4


MENDABLE = [
    (spaces, "product", "spaces at the ends"),
    (timings, "product", "metadata other than tags"),
    (collapsed, "product", "metadata other than tags"),
    (figure_facts, "plot", "metadata other than an image's"),
    (two_streams, "product", "several pieces"),
    (wrong_count, "product", "execution count"),
    (random_id, "3f2a9c10", "not unique, short and readable"),
    (same_id, "product", "not unique, short and readable"),
    (no_id, "number 3", "not unique, short and readable"),
    (empty_cell, "nothing", "is empty"),
    (other_setup, "setup", "differs from the set-up cell"),
    (widget_state, "", "canonical form"),
    (other_kernel, "", "canonical form"),
    (python_version, "", "canonical form"),
    (old_minor, "", "canonical form"),
]


@pytest.mark.parametrize("fault, cell, words", MENDABLE, ids=fault_name)
def test_a_mendable_fault_is_named_then_mended_once(
    folder: Path, fault: Callable[[Book], None], cell: str, words: str
) -> None:
    book = clean_book()
    fault(book)
    path = save(folder, book)

    found = lint(path)
    assert [(f.path, f.cell) for f in found if words in f.problem] == [(path, cell)]
    assert all("--fix" in f.remedy for f in found)

    assert lint(path, fix=True) == []
    once = path.read_bytes()
    assert lint(path, fix=True) == [] and path.read_bytes() == once


@pytest.mark.parametrize(
    "mangle",
    [
        lambda text: text.rstrip("\n"),
        lambda text: json.dumps(json.loads(text), indent=2) + "\n",
        lambda text: json.dumps(json.loads(text)),
        lambda text: text.replace("\n", "\r\n"),
    ],
)
def test_other_layouts_of_the_same_notebook_are_made_canonical(
    folder: Path, mangle: Callable[[str], str]
) -> None:
    path = save(folder, clean_book())
    wanted = path.read_bytes()
    path.write_bytes(mangle(path.read_text(encoding="utf-8")).encode())
    assert ["canonical form" in f.problem for f in lint(path)] == [True]
    lint(path, fix=True)
    assert path.read_bytes() == wanted


def test_mending_keeps_what_a_person_wrote(folder: Path) -> None:
    book = clean_book()
    book["cells"][0]["source"] = "# 标题 é\n\nline  \nbroken line"
    book["cells"][2]["metadata"] = {"tags": ["nbval-ignore-output"], "scrolled": True}
    book["cells"][2]["outputs"] = [printed("42 \n")]
    path = save(folder, book)
    lint(path, fix=True)
    mended = json.loads(path.read_text(encoding="utf-8"))["cells"]
    assert "".join(mended[0]["source"]) == book["cells"][0]["source"]
    assert mended[2]["metadata"] == {"tags": ["nbval-ignore-output"]}
    assert mended[2]["outputs"] == [{"name": "stdout", "output_type": "stream", "text": ["42 \n"]}]


def test_new_ids_come_from_the_words_of_a_cell_and_do_not_depend_on_the_run(folder: Path) -> None:
    book = clean_book()
    cells = [
        text_cell("## How many bits, and why?\n\ntext", "0a1b2c3d"),
        text_cell("## How many bits, and why?\n\nmore", "0a1b2c3d-4e5f-6071-8293-a4b5c6d7e8f9"),
        text_cell("中文", "UPPER"),
        code_cell("# absmax of a block\nx = 1", "x", 4),
    ]
    book["cells"] += cells
    seen = []
    for name in ("01_a.ipynb", "02_b.ipynb"):
        path = save(folder, book, name)
        assert lint(path, fix=True) == []
        seen.append([c["id"] for c in json.loads(path.read_text(encoding="utf-8"))["cells"]])
    assert seen[0] == seen[1]
    assert seen[0][4:] == [
        "how-many-bits-and-why",
        "how-many-bits-and-why-2",
        "cell-7",
        "absmax-of-a-block",
    ]


# --- rules that only a person can mend --------------------------------------------------------


def stderr(book: Book) -> None:
    book["cells"][2]["outputs"] = [printed("Warning: slow\n", "stderr")]


def error(book: Book) -> None:
    failure = {"output_type": "error", "ename": "KeyError", "evalue": "x", "traceback": []}
    book["cells"][2]["outputs"] = [failure]


def home_path(book: Book) -> None:
    book["cells"][2]["outputs"] = [printed(f"saved to {HOME}/model\n")]


def temporary_path(book: Book) -> None:
    data = {"text/plain": "PosixPath('" + "/".join(["", "tmp", "x1"]) + "')"}
    result = {"output_type": "execute_result", "execution_count": 2, "data": data, "metadata": {}}
    book["cells"][2]["outputs"] = [result]


def html_path(book: Book) -> None:
    data = {"text/html": f"<b>{HOME}</b>", "text/plain": "bold"}
    book["cells"][2]["outputs"] = [{"output_type": "display_data", "data": data, "metadata": {}}]


def widget(book: Book) -> None:
    data = {"application/vnd.jupyter.widget-view+json": {"model_id": "a"}, "text/plain": "bar"}
    book["cells"][2]["outputs"] = [{"output_type": "display_data", "data": data, "metadata": {}}]


def no_alt(book: Book) -> None:
    book["cells"][3]["outputs"] = [picture(alt=None)]


def short_alt(book: Book) -> None:
    book["cells"][3]["outputs"] = [picture(alt="x" * 20)]


def figure_text(book: Book) -> None:
    book["cells"][3]["outputs"] = [picture(plain="<Figure size 640x480 with 1 Axes>")]


def long_code(book: Book) -> None:
    book["cells"][2]["source"] = "\n".join(f"x{i} = {i}" for i in range(LONGEST_CODE + 1))


def long_text(book: Book) -> None:
    book["cells"].append(text_cell("\n".join(["a line"] * (LONGEST_TEXT + 1)), "product-told"))


def no_title(book: Book) -> None:
    book["cells"][0]["source"] = "## Not a title"


def never_run(book: Book) -> None:
    book["cells"][2]["execution_count"] = None


def no_setup(book: Book) -> None:
    book["cells"][1]["metadata"] = {}


def two_setups(book: Book) -> None:
    book["cells"].append(code_cell(SETUP, "setup-again", 4, tags="setup"))


FOR_A_PERSON = [
    (stderr, "product", "stderr"),
    (error, "product", "KeyError"),
    (home_path, "product", "folder of one machine"),
    (temporary_path, "product", "folder of one machine"),
    (html_path, "product", "folder of one machine"),
    (widget, "product", "widget"),
    (no_alt, "plot", "alternative text"),
    (short_alt, "plot", "alternative text"),
    (figure_text, "plot", "reads as '<Figure"),
    (long_code, "product", f"{LONGEST_CODE + 1} lines"),
    (long_text, "product-told", f"{LONGEST_TEXT + 1} lines"),
    (no_title, "", "title"),
    (never_run, "", "1 code cells that were never run"),
    (no_setup, "", "0 set-up cells"),
    (two_setups, "", "2 set-up cells"),
]


@pytest.mark.parametrize("fault, cell, words", FOR_A_PERSON, ids=fault_name)
def test_a_fault_for_a_person_is_named_with_what_to_do_and_survives_fix(
    folder: Path, fault: Callable[[Book], None], cell: str, words: str
) -> None:
    book = clean_book()
    fault(book)
    path = save(folder, book)
    for fix in (False, True, True):
        (found,) = lint(path, fix=fix)
        assert found.cell == cell and words in found.problem and len(found.remedy) > 10
        assert str(path) in str(found) and found.remedy in str(found)


@pytest.mark.parametrize(
    "harmless",
    [
        "see https://example.org/tmp/x and https://example.org/content/y\n",
        "error: " + "/".join(["", "home", "you", "model"]) + " not found\n",
        "a ratio of 3/4, model/config.json, 10 tokens/s\n",
    ],
)
def test_what_only_looks_like_a_path_of_a_machine_is_allowed(folder: Path, harmless: str) -> None:
    book = clean_book()
    book["cells"][2]["outputs"] = [printed(harmless)]
    assert lint(save(folder, book)) == []


@pytest.mark.parametrize("text", ["", "{", "[]", '{"nbformat": 3, "worksheets": []}'])
def test_what_is_no_notebook_is_said_and_left_alone(folder: Path, text: str) -> None:
    path = folder / "broken.ipynb"
    path.write_text(text, encoding="utf-8")
    (found,) = lint(path, fix=True)
    assert "not a valid notebook" in found.problem
    assert path.read_text(encoding="utf-8") == text


def test_a_notebook_that_breaks_the_format_is_said(folder: Path) -> None:
    book = clean_book()
    del book["cells"][2]["outputs"]
    (found,) = lint(save(folder, book), fix=True)
    assert "outputs" in found.problem


def test_solutions_have_the_set_up_cell_of_the_folder_above(folder: Path) -> None:
    (folder / "solutions").mkdir()
    path = save(folder / "solutions", clean_book())
    assert lint(path) == []
    book = clean_book()
    other_setup(book)
    assert [f.cell for f in lint(save(folder / "solutions", book))] == ["setup"]


def test_without_a_first_lesson_no_set_up_cell_is_asked_for(tmp_path: Path) -> None:
    assert lint(save(tmp_path, clean_book())) == []
    book = clean_book()
    no_setup(book)
    assert lint(save(tmp_path, book)) == []


def test_the_number_of_threads_reaches_the_kernels(monkeypatch: pytest.MonkeyPatch) -> None:
    assert reproducible_environment()["OMP_NUM_THREADS"] == "1"
    monkeypatch.setenv("LESSONKIT_THREADS", "4")
    assert reproducible_environment()["OMP_NUM_THREADS"] == "4"


# --- refresh  -------------------------------------------------------------


def test_refresh_runs_the_cells_in_the_notebooks_folder_and_keeps_clean_outputs(
    folder: Path,
) -> None:
    (folder / "beside.txt").write_text("here", encoding="utf-8")
    book = clean_book()
    book["cells"][2:] = [
        code_cell("print(open('beside.txt').read())", "read", 9, printed("old\n")),
        code_cell("MODEL * 2", "twice", 3),
    ]
    path = save(folder, book)
    assert refresh(path) == []
    cells = json.loads(path.read_text(encoding="utf-8"))["cells"]
    assert [c["execution_count"] for c in cells[1:]] == [1, 2, 3]
    assert cells[2]["outputs"][0]["text"] == ["here\n"]
    assert cells[3]["outputs"][0]["data"]["text/plain"] == ["'minimini'"]
    assert cells[3]["metadata"] == {}


def test_refresh_leaves_a_failing_notebook_as_it_was(folder: Path) -> None:
    book = clean_book()
    book["cells"][2]["source"] = "1 / 0"
    path = save(folder, book)
    before = path.read_bytes()
    (found,) = refresh(path)
    assert "ZeroDivisionError" in found.problem
    assert path.read_bytes() == before


def test_the_slowest_cells_are_listed(folder: Path, capsys: pytest.CaptureFixture[str]) -> None:
    book = clean_book()
    book["cells"][2:] = [
        code_cell("import time\ntime.sleep(0.6)", "sleeps", 2),
        code_cell("1 + 1", "adds", 3),
    ]
    path = save(folder, book)
    before = path.read_bytes()
    assert main(["slowest", str(path), "--count", "2"]) == 0
    first, blank, *cells = capsys.readouterr().out.splitlines()
    assert first.endswith(str(path)) and not blank
    seconds, _, name = cells[0].split(maxsplit=2)
    assert name == "01_lesson: sleeps" and float(seconds) > 0.5
    assert len(cells) == 2 and path.read_bytes() == before
