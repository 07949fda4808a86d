"""GPTQ's codes as Q4_0: identical values, or a refusal that says why; GPTQ onto Q4_0's grid."""

from __future__ import annotations

from dataclasses import replace
from pathlib import Path

import numpy as np
import pytest
import torch

from lessonkit.convert.awq import Awq, to_awq
from lessonkit.convert.gguf import to_gguf
from lessonkit.convert.gguf_gptq import q4_0_blocks, require_q4_0
from lessonkit.convert.gptq import Gptq, to_gptq
from lessonkit.convert.packed import UnpackedCheckpoint
from lessonkit.errors import LessonkitError
from lessonkit.files.gguf import open_gguf
from lessonkit.formats.ggml import decode
from lessonkit.quantize.grids import AwqGrid, IntGrid, Q4_0Grid, round_to_nearest
from tests.convert.quantized import CALIBRATION, UP
from tests.tiny import make_tiny_llama

GGUF_UP, GGUF_DOWN = "blk.1.ffn_up.weight", "blk.1.ffn_down.weight"
DOWN = UP.replace("up_proj", "down_proj")


@pytest.fixture(scope="module")
def source(tmp_path_factory: pytest.TempPathFactory) -> Path:
    return make_tiny_llama(tmp_path_factory.mktemp("gguf_gptq") / "tiny")


def decoded(file: Path, name: str) -> np.ndarray:
    opened = open_gguf(file)
    kind = opened.info(name).dtype
    return opened.array(name) if kind == "F32" else decode(opened.array(name), kind)


def test_blocks_are_those_of_the_gguf_package() -> None:
    gguf = pytest.importorskip("gguf")
    weight = torch.randn(8, 96, generator=torch.Generator().manual_seed(1))
    quantized = round_to_nearest(weight, Q4_0Grid())
    theirs = gguf.quants.dequantize(q4_0_blocks(quantized), gguf.GGMLQuantizationType.Q4_0)
    assert np.array_equal(theirs, quantized.dequantize().numpy())


@pytest.mark.parametrize("size", [32, 64, -1])
@pytest.mark.parametrize("outtype", ["auto", "q4_0"])
def test_a_symmetric_checkpoint_keeps_its_values(
    source: Path, size: int, outtype: str, tmp_path: Path
) -> None:
    to_gptq(source, tmp_path / "gptq", CALIBRATION, Gptq(IntGrid(4, size)))
    certificate = to_gguf(tmp_path / "gptq", tmp_path / "out.gguf", outtype=outtype)
    shown = UnpackedCheckpoint(tmp_path / "gptq")
    for ours, theirs in ((GGUF_UP, UP), (GGUF_DOWN, DOWN)):
        assert open_gguf(tmp_path / "out.gguf").info(ours).dtype == "Q4_0"
        assert np.array_equal(decoded(tmp_path / "out.gguf", ours), shown.array(theirs))
    assert certificate.records[UP].verdict == "quantised: Q4_0, relative RMS error 0"
    assert not list(tmp_path.glob("*.unfinished"))


def test_the_whole_model_says_the_same(source: Path, tmp_path: Path) -> None:
    """Rows of queries and keys move on the way, and move back."""
    from transformers import AutoModelForCausalLM

    from lessonkit.convert.from_gguf import from_gguf
    from lessonkit.convert.plain import runnable
    from tests.convert.quantized import logits_of

    to_gptq(source, tmp_path / "gptq", CALIBRATION, Gptq(IntGrid(4, 32)))
    to_gguf(tmp_path / "gptq", tmp_path / "out.gguf")
    from_gguf(tmp_path / "out.gguf", tmp_path / "back")
    back = AutoModelForCausalLM.from_pretrained(tmp_path / "back", dtype=torch.float32)
    ours = runnable(tmp_path / "gptq").model
    assert torch.equal(logits_of(back.eval()), logits_of(ours))


def test_what_q4_0_cannot_hold_is_refused_with_the_reason(source: Path, tmp_path: Path) -> None:
    methods = {
        "g_idx is permuted": Gptq(IntGrid(4, 32), order="desc_act"),
        "asymmetric": Gptq(IntGrid(4, 32, symmetric=False)),
        "3 bits": Gptq(IntGrid(3, 32)),
        "not made of blocks of 32": Gptq(IntGrid(4, 16)),
    }
    for number, (reason, method) in enumerate(methods.items()):
        to_gptq(source, tmp_path / str(number), CALIBRATION, method)
        with pytest.raises(LessonkitError) as caught:
            to_gguf(tmp_path / str(number), tmp_path / "out.gguf")
        assert reason in caught.value.what and "--outtype f16" in str(caught.value.remedy)
        assert not (tmp_path / "out.gguf").exists()
        to_gguf(tmp_path / str(number), tmp_path / "out.gguf", outtype="f32", force=True)
        shown = UnpackedCheckpoint(tmp_path / str(number)).array(UP)
        assert np.array_equal(decoded(tmp_path / "out.gguf", GGUF_UP), shown)
        (tmp_path / "out.gguf").unlink()
        (tmp_path / "out.gguf.certificate.json").unlink()
    quantized = round_to_nearest(torch.randn(4, 64), IntGrid(4, 32))
    require_q4_0(replace(quantized, scales=torch.full((4, 2), 2.0**-20).bfloat16()), "here")
    with pytest.raises(LessonkitError, match=r"scales are torch\.bfloat16, and fp16"):
        require_q4_0(replace(quantized, scales=torch.full((4, 2), 1e9).bfloat16()), "here")
    to_awq(source, tmp_path / "awq", CALIBRATION, Awq(AwqGrid(32)))
    with pytest.raises(LessonkitError, match="asymmetric"):
        to_gguf(tmp_path / "awq", tmp_path / "out.gguf")


def test_gptq_rounds_onto_q4_0s_own_grid(source: Path, tmp_path: Path) -> None:
    from lessonkit.convert.layerwise import quantize_layers

    to_gguf(source, tmp_path / "rtn.gguf", outtype="q4_0")
    to_gguf(source, tmp_path / "gptq.gguf", outtype="q4_0", calibration=CALIBRATION)
    rtn, gptq = (open_gguf(tmp_path / f"{name}.gguf") for name in ("rtn", "gptq"))
    assert [rtn.info(name) for name in rtn.names()] == [gptq.info(name) for name in gptq.names()]
    _, second = quantize_layers(source, CALIBRATION, Gptq(Q4_0Grid()))
    assert np.array_equal(decoded(tmp_path / "gptq.gguf", GGUF_UP), second.weights()[UP].numpy())
    assert not (tmp_path / "gptq.gguf.unfinished").exists()


def test_gptq_goes_with_q4_0_alone(source: Path, tmp_path: Path) -> None:
    with pytest.raises(LessonkitError, match="for q4_0 only"):
        to_gguf(source, tmp_path / "out.gguf", outtype="q8_0", calibration=CALIBRATION)
