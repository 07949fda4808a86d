"""The notebooks as a whole. That their outputs hold is checked by nbval, which runs each of them.

Here: whose outputs are not compared and why; that every lesson has its solutions; and that every
cell of every lesson runs, twice in a row, on another Llama that counts as a large one.
"""

from __future__ import annotations

import copy
import re
import shutil
from itertools import pairwise
from pathlib import Path

import pytest
from nbformat.v4 import new_code_cell

from lessonkit.testing.notebooks import execute, parse
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
# As much is measured as of a large model, less than of mini: what a reader's own Llama gets.
AS_IF_LARGE = "import lessonkit.models.size\n\nlessonkit.models.size.SMALL = 0"
# Characters of each text that the other Llama reads: eight windows of 512 tokens, as lessons ask.
TEXT = 16_000

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


@pytest.fixture(scope="session")
def other_llama(mini: Path, tmp_path_factory: pytest.TempPathFactory) -> Path:
    """A folder with another Llama: other heads, widths, depth; random weights, mini's vocabulary.

    It is smaller than mini, so that this takes little time; its widths are multiples of 256, as
    GGUF's K-quants ask for.
    """
    import torch
    from transformers import LlamaConfig, LlamaForCausalLM

    config = LlamaConfig.from_pretrained(mini)
    config.hidden_size = 256
    config.intermediate_size = 512
    config.num_hidden_layers = 2
    config.num_attention_heads = 8
    config.num_key_value_heads = 2
    config.head_dim = config.hidden_size // 8
    torch.manual_seed(0)
    folder = tmp_path_factory.mktemp("other") / "llama"
    LlamaForCausalLM(config).to(torch.bfloat16).save_pretrained(folder)
    for source in mini.iterdir():
        if "token" in source.name or source.suffix == ".jinja":
            shutil.copy(source, folder / source.name)
    return folder


@pytest.fixture(scope="session")
def wikitext(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """A folder with files named as WikiText-2's raw ones, and short: a few windows each."""
    folder = tmp_path_factory.mktemp("wikitext")
    for split, name in (("test", "test"), ("validation", "valid"), ("calibration", "train")):
        text = (ROOT / "data" / "texts" / "en" / f"{split}.txt").read_text(encoding="utf-8")
        (folder / f"wiki.{name}.raw").write_text(text[:TEXT], encoding="utf-8")
    return folder


@pytest.mark.parametrize("path", LESSONS, ids=lambda p: p.stem)
def test_every_cell_runs_twice_in_a_row_on_another_llama(
    path: Path,
    other_llama: Path,
    wikitext: Path,
    tmp_path: Path,
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    """Every cell runs and every assertion in it holds, at once again too; outputs may differ."""
    monkeypatch.setenv("LESSONKIT_MODEL", str(other_llama))
    monkeypatch.setenv("LESSONKIT_WIKITEXT", str(wikitext))
    notebook = parse(path.read_text(encoding="utf-8"))
    code = [cell for cell in notebook.cells if cell.cell_type == "code"]
    twice = [copy.deepcopy(cell) for cell in code for _ in range(2)]
    notebook.cells = [new_code_cell(AS_IF_LARGE), *twice]
    for number, cell in enumerate(notebook.cells):
        cell["id"] = f"cell-{number}"
    assert execute(notebook, tmp_path) == 2 * len(code) + 1 > 1
