"""Scales in 8 bits: against bitsandbytes to the bit, and where its look-up table rounds.

Whole tensors with double quantisation are compared in test_blockwise.py.
"""

from __future__ import annotations

import pytest
import torch

from lessonkit.errors import LessonkitError
from lessonkit.formats.codebooks import dynamic_map
from lessonkit.formats.double_quant import double_quantize


def scales(count: int) -> torch.Tensor:
    """Scales of Gaussian blocks: about the same size, none of them small."""
    generator = torch.Generator().manual_seed(count)
    return torch.randn(count, 64, generator=generator).abs().amax(dim=1) * 0.02


@pytest.mark.parametrize("count", [1, 2, 255, 256, 257, 5000])
def test_codes_and_values_equal_bitsandbytes(count: int) -> None:
    import bitsandbytes.functional as bnb

    absmax = scales(count)
    offset = absmax.mean()
    codes, state = bnb.quantize_blockwise(absmax - offset, blocksize=256)
    ours = double_quantize(absmax)
    assert torch.equal(ours.codes, codes)
    assert torch.equal(ours.absmax, state.absmax) and torch.equal(ours.offset, offset)
    assert torch.equal(ours.dequantize(), bnb.dequantize_blockwise(codes, state) + offset)


def test_equal_blocks_leave_nothing_to_double_quantise() -> None:
    import bitsandbytes.functional as bnb

    absmax = torch.full((600,), 0.25)
    codes, state = bnb.quantize_blockwise(absmax - absmax.mean(), blocksize=256)
    ours = double_quantize(absmax)
    assert torch.equal(ours.codes, codes) and not codes.any()
    assert torch.equal(ours.absmax, state.absmax)
    assert torch.equal(ours.dequantize(), absmax)


def test_the_look_up_table_misses_the_nearest_value_now_and_then() -> None:
    absmax = scales(40_000)
    ours = double_quantize(absmax)
    centred = absmax - absmax.mean()
    blocks = torch.nn.functional.pad(centred, (0, -len(centred) % 256)).view(-1, 256)
    scaled = (blocks * (1 / ours.absmax)[:, None]).view(-1)[: len(centred)]
    levels = dynamic_map()
    nearest = torch.bucketize(scaled, (levels[:-1] + levels[1:]) / 2)
    missed = nearest != ours.codes
    assert 0 < float(missed.float().mean()) < 0.003
    further = (levels[ours.codes.int()] - scaled).abs() - (levels[nearest] - scaled).abs()
    assert float(further.max()) <= 2 / 65535 + 1e-6  # the width of a cell


def test_double_quantised_scales_are_near() -> None:
    absmax = scales(5000)
    error = (double_quantize(absmax).dequantize() - absmax).abs().max() / absmax.mean()
    assert 0 < error < 0.02


def test_what_is_not_finite_is_an_error() -> None:
    with pytest.raises(LessonkitError, match="NaN or infinite"):
        double_quantize(torch.tensor([1.0, float("inf")]))
