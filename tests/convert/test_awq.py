"""AWQ folders: the function before rounding is the model's own, and who reads them."""

from __future__ import annotations

import json
import os
from pathlib import Path

import pytest
import torch
from safetensors.torch import load_file

from lessonkit.convert.awq import Awq, to_awq
from lessonkit.convert.layerwise import quantize_layers
from lessonkit.convert.plain import runnable
from lessonkit.errors import LessonkitError
from lessonkit.quantize.grids import AwqGrid, IntGrid
from tests.convert.quantized import CALIBRATION, UP, contents, difference, logits_of
from tests.tiny import make_tiny_llama


@pytest.fixture(scope="module")
def source(tmp_path_factory: pytest.TempPathFactory) -> Path:
    return make_tiny_llama(tmp_path_factory.mktemp("awq") / "tiny", attention_bias=True)


def whole_model(folder: Path):
    from transformers import AutoModelForCausalLM

    return AutoModelForCausalLM.from_pretrained(folder, dtype=torch.float32).eval()


@pytest.mark.parametrize("heads", [2, 4], ids=["grouped heads", "as many heads"])
def test_scaling_and_folding_change_nothing_but_the_rounding(heads: int, tmp_path: Path) -> None:
    """At 8 bits next to no rounding is left, biases and bf16 norms included."""
    source = make_tiny_llama(
        tmp_path / "tiny", num_key_value_heads=heads, attention_bias=True, mlp_bias=True
    )
    model = whole_model(source)
    with torch.no_grad():  # biases that matter
        for name, parameter in model.named_parameters():
            if name.endswith("bias"):
                parameter.normal_(generator=torch.Generator().manual_seed(len(name)))
    model.bfloat16().save_pretrained(source)
    model.float()
    before = logits_of(model)
    method = Awq(AwqGrid(32, bits=8), clip=False)
    changed = 0
    for result in quantize_layers(source, CALIBRATION, method):
        changed += len(result.changed)
        assert all(report["ratio"] >= 0 for report in result.reports.values())
        model.load_state_dict(result.weights(), strict=False)
    assert changed == 2 * 4  # two norms, v_proj's and up_proj's biases
    assert float((logits_of(model) - before).abs().max() / before.std()) < 0.1


def test_the_search_and_the_clipping_lower_the_outputs_errors(source: Path) -> None:
    def error(method: Awq) -> float:
        results = quantize_layers(source, CALIBRATION, method)
        return sum(r["output_error"] for one in results for r in one.reports.values())

    grid = AwqGrid(32, bits=3)
    plain = error(Awq(grid, clip=False, repeated_heads="leave"))
    assert error(Awq(grid, clip=False)) < plain
    assert error(Awq(grid)) < plain


def test_whole_blocks_can_be_the_judge(source: Path) -> None:
    """The searched layers' own outputs may then be worse; the block's are not."""
    results = list(quantize_layers(source, CALIBRATION, Awq(AwqGrid(32), score="block")))
    plain = list(quantize_layers(source, CALIBRATION, Awq(AwqGrid(32))))
    name = "model.layers.0.self_attn.o_proj.weight"  # judged alone in both cases
    assert results[0].reports[name]["ratio"] == plain[0].reports[name]["ratio"]
    assert len(results) == 2 and results[1].quantized.keys() == plain[1].quantized.keys()


def test_the_folder(source: Path, tmp_path: Path) -> None:
    for out in ("out", "again"):
        to_awq(source, tmp_path / out, CALIBRATION, Awq(AwqGrid(32)), dtype="float16")
    assert contents(tmp_path / "out") == contents(tmp_path / "again")
    config = json.loads((tmp_path / "out" / "config.json").read_text())
    assert config["quantization_config"] == {
        "quant_method": "awq", "bits": 4, "group_size": 32, "zero_point": True, "version": "gemm",
        "modules_to_not_convert": None,
    }  # fmt: skip
    tensors = load_file(tmp_path / "out" / "model.safetensors")
    stem = UP.removesuffix("weight")
    shapes = {name.removeprefix(stem): t.shape for name, t in tensors.items() if stem in name}
    assert shapes == {"qweight": (64, 16), "qzeros": (2, 16), "scales": (2, 128)}
    assert tensors["model.layers.0.input_layernorm.weight"].dtype == torch.float16
    assert tensors["model.layers.0.self_attn.v_proj.bias"].dtype == torch.float16
    certificate = json.loads((tmp_path / "out" / "lessonkit-certificate.json").read_text())
    records = certificate["tensors"]
    assert records["model.layers.0.input_layernorm.weight"]["verdict"] == "scales folded in"
    assert "ratio" in records[f"{stem}qweight"]


def test_gptqmodel_and_transformers_give_our_logits(source: Path, tmp_path: Path) -> None:
    os.environ.setdefault("GPTQMODEL_CPU_WORKERS", "2")
    gptqmodel = pytest.importorskip("gptqmodel")
    to_awq(source, tmp_path / "out", CALIBRATION, Awq(AwqGrid(32)), dtype="float16")
    ours = runnable(tmp_path / "out").model
    theirs = gptqmodel.GPTQModel.load(
        str(tmp_path / "out"), device="cpu", dtype=torch.float16,
        backend=gptqmodel.BACKEND.AWQ_TORCH,
    )  # fmt: skip
    assert difference(logits_of(ours), logits_of(theirs.model)) < 0.1
    loaded = whole_model(tmp_path / "out")
    assert type(loaded.model.layers[0].mlp.up_proj).__module__.startswith("gptqmodel")
    assert difference(logits_of(ours), logits_of(loaded)) < 0.1


def test_what_is_refused(source: Path, tmp_path: Path) -> None:
    for grid in (IntGrid(4, 32), AwqGrid(32, bits=3)):
        with pytest.raises(LessonkitError, match="An AWQ file cannot hold"):
            to_awq(source, tmp_path / "out", CALIBRATION, Awq(grid))
    for wrong in ({"inputs": "x"}, {"score": "x"}, {"repeated_heads": "x"}):
        with pytest.raises(LessonkitError, match="There is no"):
            Awq(**wrong)
    assert not list(tmp_path.iterdir())
