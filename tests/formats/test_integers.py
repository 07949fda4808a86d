"""INT2 to INT8: against PyTorch's own fake quantisation, to the bit, and against the definition."""

from __future__ import annotations

import numpy as np
import pytest
import torch
from hypothesis import given
from hypothesis import strategies as st

from lessonkit.errors import LessonkitError
from lessonkit.formats.integers import (
    quantize_absmax,
    quantize_zero_point,
)

BITS = range(2, 9)


def weights(*shape: int, seed: int = 0) -> torch.Tensor:
    return torch.randn(shape, generator=torch.Generator().manual_seed(seed)) * 0.1


@pytest.mark.parametrize("bits", BITS)
def test_absmax_per_channel_equals_torch_to_the_bit(bits: int) -> None:
    x = weights(50, 301)
    top = 2 ** (bits - 1) - 1
    for convention, bottom in (("restricted", -top), ("full", -top - 1)):
        ours = quantize_absmax(x, bits, granularity="channel", convention=convention)
        scale = x.abs().amax(dim=1) / ((top - bottom) / 2)
        zero = torch.zeros(50, dtype=torch.int32)
        theirs = torch.fake_quantize_per_channel_affine(x, scale, zero, 0, bottom, top)
        assert torch.equal(ours.dequantize(), theirs)
        assert ours.codes.dtype == torch.int8
        assert bottom <= int(ours.codes.min()) and int(ours.codes.max()) <= top


@pytest.mark.parametrize("bits", BITS)
def test_zero_point_per_channel_equals_torch_to_the_bit(bits: int) -> None:
    x = weights(50, 301) + 0.05
    ours = quantize_zero_point(x, bits, granularity="channel")
    low, high = x.amin(dim=1).clamp(max=0), x.amax(dim=1).clamp(min=0)
    scale = (high - low) / (2**bits - 1)
    zero = torch.round(-low / scale).to(torch.int32)
    theirs = torch.fake_quantize_per_channel_affine(x, scale, zero, 0, 0, 2**bits - 1)
    assert torch.equal(ours.dequantize(), theirs)
    assert ours.codes.dtype == torch.uint8
    assert int(ours.codes.min()) == 0 and int(ours.codes.max()) == 2**bits - 1


def test_full_scale_is_that_of_torchs_observer() -> None:
    from torch.ao.quantization import PerChannelMinMaxObserver

    x = weights(20, 64)
    observer = PerChannelMinMaxObserver(
        ch_axis=0, dtype=torch.qint8, qscheme=torch.per_channel_symmetric
    )
    observer(x)
    scale, _ = observer.calculate_qparams()
    ours = quantize_absmax(x, granularity="channel", convention="full")
    assert torch.equal(ours.scales[:, 0], scale)


def test_a_case_worked_by_hand() -> None:
    x = torch.tensor([0.5, -1.27, 0.005, 0.015, 1.0])
    # scale 1.27 / 127 = 0.01; 0.5 and 1.5 steps round to the even neighbours, 0 and 2
    assert quantize_absmax(x).codes.tolist() == [50, -127, 0, 2, 100]
    # range -1 .. 2.5, four levels: scale 3.5 / 3, zero round(0.857) = 1
    ours = quantize_zero_point(torch.tensor([-1.0, 0.0, 1.0, 2.5]), 2)
    assert ours.codes.tolist() == [0, 1, 2, 3] and ours.zeros is not None
    assert ours.zeros.tolist() == [[1]]


def test_half_way_cases_go_to_the_even_code() -> None:
    x = torch.tensor([127.0, 0.5, 1.5, 2.5, -0.5, -1.5, -2.5])
    assert quantize_absmax(x).codes.tolist() == [127, 0, 2, 2, 0, -2, -2]


@pytest.mark.parametrize("quantize", [quantize_absmax, quantize_zero_point])
@pytest.mark.parametrize("block", [1, 7, 32, 64, 1000])
def test_blocks_equal_each_block_by_itself(quantize, block: int) -> None:
    x = weights(6, 100)
    whole = quantize(x, 4, granularity="block", block_size=block)
    assert whole.codes.shape == x.shape
    assert whole.scales.shape == (6, -(-100 // block))
    for row in range(6):
        for start in range(0, 100, block):
            alone = quantize(x[row, start : start + block], 4)
            place = (row, slice(start, start + block))
            assert torch.equal(whole.codes[place], alone.codes)
            assert torch.equal(whole.dequantize()[place], alone.dequantize())


@pytest.mark.parametrize("shape", [(), (5,), (3, 4, 5)])
@pytest.mark.parametrize("granularity", ["tensor", "channel"])
def test_any_shape_comes_back(shape: tuple[int, ...], granularity) -> None:
    x = weights(*shape)
    for quantize in (quantize_absmax, quantize_zero_point):
        q = quantize(x, granularity=granularity)
        assert q.codes.shape == q.dequantize().shape == x.shape
        assert torch.allclose(q.dequantize(), x, atol=0.01)


def test_numpy_arrays_are_taken() -> None:
    x = weights(4, 8)
    assert torch.equal(quantize_absmax(x.numpy()).codes, quantize_absmax(x).codes)
    assert torch.equal(
        quantize_absmax(x.numpy().astype(np.float64)).codes, quantize_absmax(x).codes
    )


def test_half_precision_is_widened_first() -> None:
    x = weights(8, 64).to(torch.bfloat16)
    for quantize in (quantize_absmax, quantize_zero_point):
        assert torch.equal(quantize(x).codes, quantize(x.float()).codes)


@pytest.mark.parametrize("value", [0.0, 1e-45, 1e-40])
def test_groups_of_next_to_nothing_become_zeros(value: float) -> None:
    x = torch.full((2, 8), value)
    for quantize in (quantize_absmax, quantize_zero_point):
        q = quantize(x, granularity="channel")
        assert torch.equal(q.dequantize(), torch.zeros(2, 8))
        assert q.scales.tolist() == [[1.0], [1.0]]


@pytest.mark.parametrize("value", [1.0, -1.0])
def test_a_constant_is_kept_by_both_recipes(value: float) -> None:
    x = torch.full((8,), value)
    for quantize in (quantize_absmax, quantize_zero_point):
        assert torch.allclose(quantize(x).dequantize(), x)


@pytest.mark.parametrize("bad", [float("nan"), float("inf"), -float("inf")])
@pytest.mark.parametrize("quantize", [quantize_absmax, quantize_zero_point])
def test_nan_and_infinity_are_errors(quantize, bad: float) -> None:
    x = weights(4, 8)
    x[2, 3] = bad
    with pytest.raises(LessonkitError, match="NaN or infinite"):
        quantize(x, granularity="channel")


def test_a_range_beyond_float32_is_an_error_not_a_silent_infinity() -> None:
    with pytest.raises(LessonkitError):
        quantize_zero_point(torch.tensor([-3e38, 3e38]))


@pytest.mark.parametrize(
    "wrong",
    [
        {"bits": 1},
        {"bits": 9},
        {"granularity": "row"},
        {"granularity": "block"},
        {"granularity": "block", "block_size": 0},
        {"block_size": 64},
        {"convention": "symmetric"},
    ],
)
def test_wrong_options_are_errors(wrong: dict) -> None:
    with pytest.raises(LessonkitError):
        quantize_absmax(weights(2, 64), **wrong)


def test_bits_per_weight_counts_codes_scales_and_zeros() -> None:
    x = weights(16, 128)
    assert quantize_absmax(x, 4, granularity="block", block_size=64).bits_per_weight() == 4.5
    q = quantize_zero_point(x, 4, granularity="block", block_size=32)
    assert q.bits_per_weight() == 4 + 36 / 32
    assert q.bits_per_weight(scale_bits=16, zero_bits=16) == 5
    assert quantize_absmax(x, granularity="channel").bits_per_weight() == 8 + 32 / 128
    assert quantize_absmax(x).bits_per_weight() == 8 + 32 / (16 * 128)


finite = st.floats(-(2.0**99), 2.0**99, width=32)


@given(st.lists(finite, min_size=1, max_size=40), st.sampled_from(BITS))
def test_no_value_moves_by_more_than_half_a_step(values: list[float], bits: int) -> None:
    x = torch.tensor(values)
    symmetric, affine = quantize_absmax(x, bits), quantize_zero_point(x, bits)
    for q in (symmetric, affine):
        step = float(q.scales)
        # The reciprocal, and for the affine kind the ends of the range, are rounded too.
        slack = 1e-5 * float(x.abs().max()) + 1e-36
        limit = step * (0.5 if q is symmetric else 1.0) + slack
        assert float((q.dequantize() - x).abs().max()) <= limit


@given(st.lists(finite, min_size=1, max_size=40), st.sampled_from(BITS))
def test_zero_stays_zero(values: list[float], bits: int) -> None:
    x = torch.tensor([*values, 0.0])
    for q in (quantize_absmax(x, bits), quantize_zero_point(x, bits)):
        assert float(q.dequantize()[-1]) == 0
