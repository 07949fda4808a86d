"""A 4-bit checkpoint shown as plain weights: those that bitsandbytes would compute with."""

from __future__ import annotations

from pathlib import Path

import pytest
import torch

from lessonkit.convert.dequantized import Dequantized
from lessonkit.convert.nf4 import quantize_checkpoint
from lessonkit.convert.open import open_model

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
