"""A 4-bit checkpoint shown as plain weights: those that bitsandbytes would compute with."""

from __future__ import annotations

from pathlib import Path

import pytest
import torch

from lessonkit.convert.dequantized import Dequantized
from lessonkit.convert.nf4 import quantize_checkpoint
from lessonkit.convert.open import open_model
from lessonkit.errors import LessonkitError

UP = "model.layers.1.mlp.up_proj.weight"


@pytest.mark.parametrize("double", [False, True])
def test_weights_are_bitsandbytes_own(base: Path, tmp_path: Path, double: bool) -> None:
    import bitsandbytes.functional as bnb

    quantize_checkpoint(base, tmp_path / "nf4", double_quant=double)
    shown, plain = Dequantized(tmp_path / "nf4"), open_model(base)
    assert shown.names() == plain.names() and shown.parameters == plain.parameters
    assert [shown.info(name) for name in shown.names()] == [
        plain.info(name) for name in plain.names()
    ]
    weight = torch.from_numpy(plain.array(UP).copy()).view(torch.bfloat16)
    packed, state = bnb.quantize_4bit(
        weight, blocksize=64, quant_type="nf4", compress_statistics=double
    )
    theirs = bnb.dequantize_4bit(packed, state)
    ours = torch.from_numpy(shown.array(UP)).view(torch.bfloat16)
    assert torch.equal(ours, theirs)


@pytest.mark.parametrize("kind", ["gptq", "awq", "nf4"])
def test_a_plain_model_of_any_of_them(base: Path, tmp_path: Path, kind: str) -> None:
    from lessonkit.convert.awq import Awq, to_awq
    from lessonkit.convert.dequantized import load_dequantized, open_dequantized
    from lessonkit.convert.gptq import Gptq, to_gptq
    from lessonkit.quantize.grids import AwqGrid, IntGrid
    from tests.convert.quantized import CALIBRATION

    out = tmp_path / "out"
    if kind == "gptq":
        to_gptq(base, out, CALIBRATION, Gptq(IntGrid(4, 32)))
    elif kind == "awq":
        to_awq(base, out, CALIBRATION, Awq(AwqGrid(32)))
    else:
        quantize_checkpoint(base, out)
    model, tokenizer = load_dequantized(out, dtype="float32")
    assert "quantization_config" not in model.config.to_dict() and not model.training
    view = open_dequantized(out)
    assert view.array(UP).shape == tuple(model.get_parameter(UP).shape)
    if view.info(UP).dtype == "F32":
        assert torch.equal(torch.from_numpy(view.array(UP)), model.get_parameter(UP))
    assert tokenizer("The bridge").input_ids[0] == 1
    assert load_dequantized(out, dtype="bfloat16").model.dtype == torch.bfloat16


def test_what_is_not_quantised_is_sent_to_load(base: Path) -> None:
    from lessonkit.convert.dequantized import load_dequantized

    with pytest.raises(LessonkitError, match="not in GPTQ"):
        load_dequantized(base)
