"""GPTQ folders: what they hold, who reads them, and what is refused."""

from __future__ import annotations

import json
import os
from pathlib import Path

import pytest
import torch
from safetensors.torch import load_file

from lessonkit.convert.gptq import Gptq, to_gptq
from lessonkit.convert.packed import PackedCheckpoint
from lessonkit.convert.plain import runnable
from lessonkit.errors import LessonkitError
from lessonkit.formats.codebooks import NF4
from lessonkit.quantize.gptq import Order
from lessonkit.quantize.grids import CodebookGrid, IntGrid
from tests.convert.quantized import CALIBRATION, UP, contents, difference, logits_of
from tests.tiny import make_tiny_llama


@pytest.fixture(scope="module")
def source(tmp_path_factory: pytest.TempPathFactory) -> Path:
    return make_tiny_llama(tmp_path_factory.mktemp("gptq") / "tiny")


@pytest.fixture(scope="module")
def made(source: Path, tmp_path_factory: pytest.TempPathFactory) -> Path:
    out = tmp_path_factory.mktemp("made") / "out"
    to_gptq(source, out, CALIBRATION, Gptq(IntGrid(4, 32)))
    return out


def test_the_folder_says_what_it_is_in_autogptqs_words(made: Path) -> None:
    said = json.loads((made / "quantize_config.json").read_text())
    asked = ("bits", "group_size", "sym", "desc_act", "damp_percent")
    assert [said[key] for key in asked] == [4, 32, True, False, 0.05]
    assert (said["quant_method"], said["checkpoint_format"]) == ("gptq", "gptq")
    assert json.loads((made / "config.json").read_text())["quantization_config"] == said
    tensors = load_file(made / "model.safetensors")
    stem = UP.removesuffix("weight")
    shapes = {name.removeprefix(stem): t.shape for name, t in tensors.items() if stem in name}
    assert shapes == {"qweight": (8, 128), "qzeros": (2, 16), "scales": (2, 128), "g_idx": (64,)}
    assert int(tensors[f"{stem}qzeros"][0, 0]) == 0x77777777  # 8, stored minus 1
    assert tensors[f"{stem}scales"].dtype == torch.float16
    assert not (made.parent / "out.unfinished").exists()


def test_all_but_the_linear_layers_is_as_it_was(source: Path, made: Path) -> None:
    before, after = (load_file(folder / "model.safetensors") for folder in (source, made))
    kept = [name for name in before if name in after]
    assert "lm_head.weight" in kept and "model.layers.0.input_layernorm.weight" in kept
    assert all(torch.equal(before[name], after[name]) for name in kept)
    assert len(before) - len(kept) == 14
    assert (made / "tokenizer.model").read_bytes() == (source / "tokenizer.model").read_bytes()


def test_a_second_run_gives_the_same_bytes(source: Path, made: Path, tmp_path: Path) -> None:
    to_gptq(source, tmp_path / "again", CALIBRATION, Gptq(IntGrid(4, 32)))
    assert contents(tmp_path / "again") == contents(made)


def test_the_certificate_tells_the_error_of_the_stored_weights(source: Path, made: Path) -> None:
    records = json.loads((made / "lessonkit-certificate.json").read_text())["tensors"]
    record = records[UP.replace("weight", "qweight")]
    stored = PackedCheckpoint(made).quantized(UP).dequantize()
    weight = load_file(source / "model.safetensors")[UP].float()
    error = float((stored - weight).square().sum().sqrt() / weight.square().sum().sqrt())
    assert record["relative_rms_error"] == pytest.approx(error, rel=1e-5)
    assert 0 < record["relative_output_rms_error"] < 0.1
    assert record["bits_per_weight"] == pytest.approx(4 + (16 + 4) / 32 + 32 / 128, abs=0.01)
    assert record["verdict"].startswith("quantised: GPTQ 4 bits, groups of 32, relative RMS error")


@pytest.mark.parametrize("bits", [2, 3, 4, 8])
@pytest.mark.parametrize(
    ("size", "order", "symmetric", "version"),
    [(32, "desc_act", True, 1), (-1, "natural", False, 1), (64, "act_group_aware", False, 2)],
)
def test_every_setting_is_read_back_as_it_was_computed(
    source: Path, bits: int, size: int, order: Order, symmetric: bool, version, tmp_path: Path
) -> None:
    from lessonkit.convert.layerwise import quantize_layers

    grid = IntGrid(bits, size, symmetric, lowest_zero=1 if version == 1 else 0)
    method = Gptq(grid, order=order, static_groups=order == "desc_act" and bits == 8)
    to_gptq(source, tmp_path / "out", CALIBRATION, method, version=version)
    opened = PackedCheckpoint(tmp_path / "out")
    for result in quantize_layers(source, CALIBRATION, method):
        for name, quantized in result.quantized.items():
            back = opened.quantized(name)
            assert torch.equal(back.codes, quantized.codes)
            assert torch.equal(back.dequantize(), quantized.dequantize())


@pytest.mark.parametrize("dtype", [None, "float16"])
def test_transformers_gives_our_logits(source: Path, dtype: str | None, tmp_path: Path) -> None:
    """Through optimum and GPTQModel, in float32."""
    os.environ.setdefault("GPTQMODEL_CPU_WORKERS", "2")
    pytest.importorskip("gptqmodel")
    from transformers import AutoModelForCausalLM

    method = Gptq(IntGrid(4, 32), order="desc_act")
    to_gptq(source, tmp_path / "out", CALIBRATION, method, dtype=dtype)
    config = json.loads((tmp_path / "out" / "config.json").read_text())
    assert config["dtype"] == (dtype or "bfloat16")
    ours = runnable(tmp_path / "out").model
    theirs = AutoModelForCausalLM.from_pretrained(tmp_path / "out", dtype=torch.float32).eval()
    assert type(theirs.model.layers[0].mlp.up_proj).__module__.startswith("gptqmodel")
    assert difference(logits_of(ours), logits_of(theirs)) < 0.1  # it computes in bfloat16


def test_gptqmodel_gives_our_weights_and_logits(made: Path) -> None:
    os.environ.setdefault("GPTQMODEL_CPU_WORKERS", "2")
    gptqmodel = pytest.importorskip("gptqmodel")
    theirs = gptqmodel.GPTQModel.load(
        str(made), device="cpu", dtype=torch.float16, backend=gptqmodel.BACKEND.TORCH
    )
    ours = runnable(made).model
    for name in PackedCheckpoint(made).packed:
        module = theirs.model.get_submodule(name.removesuffix(".weight"))
        assert torch.equal(module.dequantize_weight().T, ours.get_parameter(name).half()), name
    assert difference(logits_of(ours), logits_of(theirs.model)) < 0.1


def test_what_is_refused_before_any_work(source: Path, tmp_path: Path, monkeypatch) -> None:
    monkeypatch.setattr(Gptq, "quantize", lambda *_: pytest.fail("it began to work"))

    def error_of(method: Gptq, **options) -> str:
        with pytest.raises(LessonkitError) as caught:
            to_gptq(source, tmp_path / "out", CALIBRATION, method, **options)
        return caught.value.what

    assert "CodebookGrid" in error_of(Gptq(CodebookGrid(NF4, 32)))
    assert "zero-point of 0" in error_of(Gptq(IntGrid(4, 32, symmetric=False, lowest_zero=0)))
    assert "do not fill rows of 64" in error_of(Gptq(IntGrid(4, 128)))
    assert "cannot be rounded to 'int8'" in error_of(Gptq(IntGrid(4, 32)), dtype="int8")
    assert not list(tmp_path.iterdir())
    (tmp_path / "out").mkdir()
    (tmp_path / "out" / "mine.txt").write_text("mine")
    assert "exists already" in error_of(Gptq(IntGrid(4, 32)))
    assert "not written by lessonkit" in error_of(Gptq(IntGrid(4, 32)), force=True)


def test_an_error_names_the_weight(source: Path, tmp_path: Path, monkeypatch) -> None:
    def fail(*_, **__):
        raise LessonkitError("No.", where="hessian", remedy="-")

    monkeypatch.setattr("lessonkit.convert.gptq.gptq", fail)
    with pytest.raises(LessonkitError) as caught:
        to_gptq(source, tmp_path / "out", CALIBRATION, Gptq(IntGrid(4, 32)))
    assert "model.layers.0.self_attn.q_proj.weight: hessian" in str(caught.value)
    assert not (tmp_path / "out").exists()
