"""Lesson 01: the references, worked by hand and against torch, numpy and the formats."""

from __future__ import annotations

import math

import numpy as np
import pytest

from lessonkit.course.exercises import lesson_00, lesson_01


@pytest.mark.parametrize(
    ("x", "mantissa_bits", "gap"),
    [
        (2.31384, 7, 0.015625),  # from 2 to 4 in 2^7 steps: 2 / 128
        (2.0, 7, 0.015625),  # a power of two: the gap above it
        (1.0, 7, 0.0078125),
        (1.0, 23, 2.0**-23),
        (0.1, 10, 2.0**-14),  # 0.1 lies between 2^-4 and 2^-3
        (1000.0, 7, 4.0),  # 1000 lies between 512 and 1024
        (-6.5, 3, 0.5),
        (3.0, 3, 0.25),
        (448.0, 3, 32.0),  # the largest number of FP8 E4M3
    ],
)
def test_spacing(x: float, mantissa_bits: int, gap: float) -> None:
    assert lesson_01.spacing(x, mantissa_bits) == gap


def test_spacing_is_numpys() -> None:
    for x in (1.0, 0.1, 2.0, 3.9999998, 1e-30, 1e30):
        assert lesson_01.spacing(float(np.float32(x)), 23) == np.spacing(np.float32(x))
    for x in (1.0, 0.1, 1000.0, 60000.0):
        assert lesson_01.spacing(float(np.float16(x)), 10) == np.spacing(np.float16(x))


@pytest.mark.parametrize(
    ("bits", "rounded"),
    [
        (0x3F800000, 0x3F800000),  # 1.0 is a bf16
        (0x3F807FFF, 0x3F800000),  # just under half a step
        (0x3F808000, 0x3F800000),  # a tie: the lower neighbour is even
        (0x3F808001, 0x3F810000),  # just over half a step
        (0x3F818000, 0x3F820000),  # a tie: the upper neighbour is even
        (0x3FFFFFFF, 0x40000000),  # the carry makes it 2.0
        (0xBF818000, 0xBF820000),  # the sign does not matter
        (0x80000000, 0x80000000),  # -0.0
        (0x00008000, 0x00000000),  # the tie next to zero
        (0x00018000, 0x00020000),
        (0x7F7FFFFF, 0x7F800000),  # beyond the largest bf16: infinity
        (0xFF800000, 0xFF800000),  # minus infinity
    ],
)
def test_round_to_bf16(bits: int, rounded: int) -> None:
    x = np.array([[bits]], np.uint32).view(np.float32)
    found = lesson_01.round_to_bf16(x)
    assert found.dtype == np.float32 and found.view(np.uint32).tolist() == [[rounded]]
    assert x.view(np.uint32).tolist() == [[bits]]  # the input is left alone


def test_the_number_of_the_lesson_in_bf16() -> None:
    assert lesson_01.round_to_bf16(np.array([2.31384], np.float32)).tolist() == [2.3125]


def test_round_to_bf16_is_torchs() -> None:
    torch = pytest.importorskip("torch")
    bits = np.random.default_rng(0).integers(0, 2**32, 500_000, dtype=np.uint64).astype(np.uint32)
    x = bits.view(np.float32)
    x = x[~np.isnan(x)]
    theirs = torch.from_numpy(x.copy()).bfloat16().float().numpy()
    assert (lesson_01.round_to_bf16(x).view(np.uint32) == theirs.view(np.uint32)).all()


@pytest.mark.parametrize(
    ("row", "codes", "scale"),
    [
        ([127.0, 1.0, -2.0], [127, 1, -2], 1.0),
        ([-2.54, 1.0, 0.019], [-127, 50, 1], 0.02),
        ([1.0, 0.5, 0.3, -0.26], [127, 64, 38, -33], 1 / 127),  # 63.5 is a tie: to the even 64
        ([0.0, 0.0], [0, 0], 1.0),
        ([-1e-3], [-127], 1e-3 / 127),
    ],
)
def test_quantize_absmax_int8(row: list[float], codes: list[int], scale: float) -> None:
    found, step = lesson_01.quantize_absmax_int8(np.array(row, np.float32))
    assert found.dtype == np.int8 and found.tolist() == codes
    assert math.isclose(step, scale, rel_tol=1e-6)


def test_no_weight_moves_by_more_than_half_a_step() -> None:
    row = np.random.default_rng(0).normal(0, 0.02, 4096).astype(np.float32)
    codes, step = lesson_01.quantize_absmax_int8(row)
    assert np.abs(codes * float(step) - row).max() <= 0.5 * step * (1 + 1e-5)
    assert np.abs(codes.astype(int)).max() == 127


@pytest.mark.parametrize(
    ("code_bits", "block_size", "scale_bits", "bits"),
    [
        (8, 64, 16, 8.25),
        (8, 32, 16, lesson_00.BITS_PER_WEIGHT["Q8_0"]),
        (4, 32, 16, lesson_00.BITS_PER_WEIGHT["Q4_0"]),
        (4, 64, 32, lesson_00.BITS_PER_WEIGHT["NF4"]),
        (4, 128, 16, 4.125),
        (8, 1, 32, 40),
    ],
)
def test_bits_per_weight(code_bits: int, block_size: int, scale_bits: int, bits: float) -> None:
    assert lesson_01.bits_per_weight(code_bits, block_size, scale_bits) == bits
