"""Every cell of every lesson, twice in a row, on another Llama that counts as a large one."""

from __future__ import annotations

import copy
import shutil
from pathlib import Path

import pytest
from nbformat.v4 import new_code_cell

from lessonkit.testing.notebooks import execute, parse

ROOT = Path(__file__).resolve().parents[2]
LESSONS = sorted((ROOT / "notebooks").glob("*.ipynb"))
# As much is measured as of a large model, less than of mini: what a reader's own Llama gets.
AS_IF_LARGE = "import lessonkit.models.size\n\nlessonkit.models.size.SMALL = 0"
# Characters of each text that the other Llama reads: eight windows of 512 tokens, as lessons ask.
TEXT = 16_000


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
