"""Blockwise 4-bit codes and double quantisation: against bitsandbytes, to the bit."""

from __future__ import annotations

import numpy as np
import pytest
import torch
from hypothesis import given, settings
from hypothesis import strategies as st

from lessonkit.errors import LessonkitError
from lessonkit.formats.blocks import bits_per_weight
from lessonkit.formats.blockwise import (
    Blockwise,
    dequantize_blockwise,
    quantize_blockwise,
    unpack_nibbles,
)
from lessonkit.formats.codebooks import CODEBOOKS, FP4, INT4, NF4, Codebook
from lessonkit.formats.double_quant import SCALE_BITS, DoubleQuantized

DTYPES = (torch.float32, torch.float16, torch.bfloat16)
BLOCK_SIZES = (32, 64, 128, 256, 512, 1024, 2048, 4096)
# Whole blocks, ragged ends, odd sizes, less than a block, more than one piece of work.
SHAPES = ((64, 128), (7, 333), (5,), (1, 4097), (3, 8192), (257, 401))
BITS_AS = {torch.float32: torch.int32, torch.float16: torch.int16, torch.bfloat16: torch.int16}


def weights(shape: tuple[int, ...], dtype: torch.dtype, seed: int = 0) -> torch.Tensor:
    """Random numbers of many sizes, with a stretch of zeros."""
    generator = torch.Generator().manual_seed(seed)
    x = torch.randn(shape, generator=generator) * torch.rand(shape, generator=generator)
    x.view(-1)[64:200] = 0
    return x.to(dtype)


def same_bits(a: torch.Tensor, b: torch.Tensor) -> bool:
    """Equal to the bit, the sign of zero included."""
    kind = BITS_AS.get(a.dtype, a.dtype)
    return a.dtype == b.dtype and torch.equal(a.view(kind), b.view(kind))


def bnb_quantize(x: torch.Tensor, name: str, block_size: int, double_quant: bool = False):
    import bitsandbytes.functional as bnb

    return bnb.quantize_4bit(
        x, blocksize=block_size, quant_type=name, compress_statistics=double_quant
    )


# --- against bitsandbytes ---------------------------------------------------------------------


@pytest.mark.parametrize("dtype", DTYPES, ids=str)
@pytest.mark.parametrize("block_size", BLOCK_SIZES)
@pytest.mark.parametrize("book", [NF4, FP4], ids=lambda book: book.name)
def test_packed_bytes_and_absmax_equal_bitsandbytes(
    book: Codebook, block_size: int, dtype: torch.dtype
) -> None:
    for shape in SHAPES:
        x = weights(shape, dtype)
        packed, state = bnb_quantize(x, book.name, block_size)
        ours = quantize_blockwise(x, book, block_size)
        assert torch.equal(ours.packed, packed.view(-1)), shape
        assert same_bits(ours.absmax, state.absmax), shape


@pytest.mark.parametrize("dtype", DTYPES, ids=str)
@pytest.mark.parametrize("block_size", BLOCK_SIZES)
def test_double_quantisation_equals_bitsandbytes(block_size: int, dtype: torch.dtype) -> None:
    for shape in (*SHAPES, (300, 4096)):
        x = weights(shape, dtype)
        packed, state = bnb_quantize(x, "nf4", block_size, double_quant=True)
        ours = quantize_blockwise(x, NF4, block_size, double_quant=True)
        assert isinstance(ours.absmax, DoubleQuantized)
        assert torch.equal(ours.packed, packed.view(-1)), shape
        assert torch.equal(ours.absmax.codes, state.absmax), shape
        assert same_bits(ours.absmax.absmax, state.state2.absmax), shape
        assert same_bits(ours.absmax.offset, state.offset), shape


@pytest.mark.parametrize("dtype", DTYPES, ids=str)
@pytest.mark.parametrize("book", [NF4, FP4], ids=lambda book: book.name)
@pytest.mark.parametrize("double_quant", [False, True])
def test_dequantised_values_equal_bitsandbytes(
    book: Codebook, dtype: torch.dtype, double_quant: bool
) -> None:
    import bitsandbytes.functional as bnb

    for shape in ((64, 128), (7, 334), (3, 8192), (600, 1024)):
        x = weights(shape, dtype)
        packed, state = bnb_quantize(x, book.name, 64, double_quant)
        ours = quantize_blockwise(x, book, 64, double_quant=double_quant)
        theirs = bnb.dequantize_4bit(packed, state)
        # bitsandbytes has two kernels; FP4's code 8 is -0 in the one and +0 in the other.
        same = same_bits if book is NF4 else torch.equal
        assert same(ours.dequantize(dtype), theirs), shape


@pytest.mark.parametrize("book", [NF4, FP4], ids=lambda book: book.name)
def test_exact_ties_and_their_neighbours_equal_bitsandbytes(book: Codebook) -> None:
    ties = torch.from_numpy(book.thresholds)
    above = torch.nextafter(ties, torch.tensor(2.0))
    below = torch.nextafter(ties, torch.tensor(-2.0))
    # Each with absmax 1 in its block, so that scaling changes nothing.
    x = torch.cat([ties, above, below, torch.tensor(book.values), torch.tensor([1.0, -0.0, 1e-38])])
    x = torch.nn.functional.pad(x, (0, 64 - len(x)))
    packed, _ = bnb_quantize(x, book.name, 64)
    ours = quantize_blockwise(x, book, 64)
    assert torch.equal(ours.packed, packed.view(-1))
    codes = ours.codes()
    lower = torch.tensor([book.search_order[i] for i in range(15)], dtype=torch.uint8)
    assert torch.equal(codes[:15], lower), "a tie takes the lower level"
    assert torch.equal(codes[30:45], lower)
    upper = torch.tensor([book.search_order[i + 1] for i in range(15)], dtype=torch.uint8)
    assert torch.equal(codes[15:30], upper)


@pytest.mark.parametrize("size", [64, 63, 130])
def test_all_zero_blocks_equal_bitsandbytes(size: int) -> None:
    x = torch.zeros(size)
    for book, byte in ((NF4, 0x77), (FP4, 0x00)):
        packed, state = bnb_quantize(x, book.name, 64)
        ours = quantize_blockwise(x, book, 64)
        assert torch.equal(ours.packed, packed.view(-1))
        assert same_bits(ours.absmax, state.absmax)
        assert set(ours.packed.tolist()) == {byte}
        assert torch.equal(ours.dequantize(), x)


@pytest.mark.parametrize("scale", [1e-45, 1e-39, 1e-37, 1e37])
def test_extreme_magnitudes_equal_bitsandbytes(scale: float) -> None:
    x = weights((4, 100), torch.float32) * scale
    for book in (NF4, FP4):
        packed, state = bnb_quantize(x, book.name, 64)
        ours = quantize_blockwise(x, book, 64)
        assert torch.equal(ours.packed, packed.view(-1))
        assert same_bits(ours.absmax, state.absmax)


# --- where bitsandbytes' CPU path goes wrong ----------------------------------------------------


def test_bitsandbytes_takes_wrong_scales_at_some_widths_and_we_do_not() -> None:
    """Its AVX-512 kernel counts blocks row by row where the width is a multiple of 16."""
    import bitsandbytes.functional as bnb
    from bitsandbytes.backends.cpu.ops import _has_avx512

    if not _has_avx512:
        pytest.skip("the faulty kernel needs AVX-512")
    x = weights((64, 80), torch.float32)  # 80 = 5 * 16, but not a multiple of 64
    packed, state = bnb_quantize(x, "nf4", 64)
    theirs = bnb.dequantize_4bit(packed, state)
    ours = quantize_blockwise(x, NF4, 64)
    assert torch.equal(ours.packed, packed.view(-1)), "the codes are right, the values are not"
    slow = NF4.tensor()[ours.codes().int()].view(-1) * state.absmax.repeat_interleave(64)
    assert torch.equal(ours.dequantize().view(-1), slow)
    assert not torch.allclose(theirs, ours.dequantize(), atol=0.1)
    # As one long row the same bytes come out right.
    state.shape = torch.Size([1, x.numel()])
    assert torch.equal(bnb.dequantize_4bit(packed, state).view(-1), slow)


def test_bitsandbytes_repacks_weights_at_the_first_forward() -> None:
    """On AVX512-BF16 an eval forward reorders the bytes in place: save before, not after."""
    import bitsandbytes as bnb

    layer = bnb.nn.Linear4bit(128, 64, bias=False, quant_type="nf4")
    layer.weight.data = weights((64, 128), torch.float32)
    layer = layer.to("cpu").eval()
    if not layer.support_avx512bf16_for_cpu:
        pytest.skip("the repacking needs AVX512-BF16")
    before = layer.weight.data.clone()
    absmax = layer.weight.quant_state.absmax
    expected = quantize_blockwise(weights((64, 128), torch.float32), NF4, 64)
    assert torch.equal(before.view(-1), expected.packed)
    with torch.no_grad():
        layer(torch.ones(1, 128))
    after = layer.weight.data
    assert not torch.equal(after.view(-1), before.view(-1))
    wrong = dequantize_blockwise(after.view(-1), expected.scales, NF4, 64, (64, 128))
    assert not torch.allclose(wrong, expected.dequantize(), atol=0.1)
    assert (
        layer.weight.quant_state.absmax.dtype == torch.bfloat16 and absmax.dtype != torch.bfloat16
    )


# --- against the definition ---------------------------------------------------------------------


def nearest(x: torch.Tensor, book: Codebook, block_size: int) -> torch.Tensor:
    """The slow, obvious way: try all levels, keep the first of the nearest."""
    levels = torch.tensor([book.values[code] for code in book.search_order])
    out = []
    for block in x.reshape(-1).split(block_size):
        scale = block.abs().max()
        scaled = block * (1 / scale) if len(block) == block_size else block / scale
        out.append(levels[(scaled[:, None] - levels).abs().argmin(dim=1)] * scale)
    return torch.cat(out).reshape(x.shape)


@pytest.mark.parametrize("book", CODEBOOKS.values(), ids=lambda book: book.name)
@pytest.mark.parametrize("block_size", [2, 6, 64, 500])
def test_every_codebook_takes_the_nearest_level(book: Codebook, block_size: int) -> None:
    x = torch.randn(9, 101, generator=torch.Generator().manual_seed(3))
    ours = quantize_blockwise(x, book, block_size)
    assert torch.equal(ours.dequantize(), nearest(x, book, block_size))


@pytest.mark.parametrize("bad", [float("nan"), float("inf"), -float("inf")])
@pytest.mark.parametrize("dtype", DTYPES, ids=str)
@pytest.mark.parametrize("where", [0, 100, 299])
def test_nan_and_infinity_are_errors(bad: float, dtype: torch.dtype, where: int) -> None:
    x = weights((300,), dtype)
    x[where] = bad
    with pytest.raises(LessonkitError, match="NaN or infinite"):
        quantize_blockwise(x, NF4)


@pytest.mark.parametrize("block_size", [-64, 0, 1, 63])
def test_block_sizes_that_cannot_be_packed_are_errors(block_size: int) -> None:
    with pytest.raises(LessonkitError, match="two a byte"):
        quantize_blockwise(torch.ones(64), NF4, block_size)


def test_parts_that_do_not_belong_together_are_an_error() -> None:
    q = quantize_blockwise(torch.ones(128), NF4)
    with pytest.raises(LessonkitError, match="do not make"):
        dequantize_blockwise(q.packed, q.scales, NF4, 64, (129,))
    with pytest.raises(LessonkitError, match="do not make"):
        dequantize_blockwise(q.packed, q.scales, NF4, 32, (128,))


def test_inference_mode_makes_no_difference() -> None:
    x = weights((300, 1000), torch.float32)
    with torch.inference_mode():
        inside = quantize_blockwise(x, NF4)
        assert torch.equal(inside.dequantize(), quantize_blockwise(x, NF4).dequantize())
    assert torch.equal(inside.packed, quantize_blockwise(x, NF4).packed)


def test_a_transposed_tensor_is_taken_in_its_own_row_major_order() -> None:
    x = weights((40, 96), torch.float32)
    assert torch.equal(
        quantize_blockwise(x.T, NF4).packed, quantize_blockwise(x.T.contiguous(), NF4).packed
    )


def test_numpy_arrays_are_taken() -> None:
    x = weights((4, 64), torch.float32)
    assert torch.equal(
        quantize_blockwise(x.numpy(), INT4).packed, quantize_blockwise(x, INT4).packed
    )


# --- packing and bits ---------------------------------------------------------------------------


def test_the_first_value_is_in_the_high_nibble() -> None:
    packed = torch.tensor([0x12, 0xF0, 0x70], dtype=torch.uint8)
    assert unpack_nibbles(packed, 5).tolist() == [1, 2, 15, 0, 7]


def test_bits_per_weight_is_the_formulas() -> None:
    x = torch.randn(512, 4096, generator=torch.Generator().manual_seed(0))
    for double_quant, scale_bits in ((False, 32), (True, SCALE_BITS)):
        q = quantize_blockwise(x, NF4, 64, double_quant=double_quant)
        expected = bits_per_weight(4, 64, scale_bits=scale_bits)
        assert q.bits_per_weight() == pytest.approx(expected, abs=1e-4)


@settings(max_examples=60, deadline=None)
@given(
    st.lists(st.floats(-(2.0**99), 2.0**99, width=32), min_size=1, max_size=150),
    st.sampled_from([2, 32, 64]),
    st.sampled_from(sorted(CODEBOOKS)),
)
def test_no_value_moves_further_than_half_the_widest_gap(
    values: list[float], block_size: int, name: str
) -> None:
    x = torch.tensor(values)
    book = CODEBOOKS[name]
    q = quantize_blockwise(x, book, block_size)
    assert isinstance(q, Blockwise)
    levels = np.array([book.values[code] for code in book.search_order])
    # INT4 reaches only 7/8 upwards: the end may be further than half a gap.
    reach = max(np.diff(levels).max() / 2, 1 - levels.max())
    scale = q.scales.repeat_interleave(block_size)[: len(x)]
    assert bool(((q.dequantize() - x).abs() <= scale * (reach + 1e-5) + 1e-36).all())
