"""lessonkit.formats.floats against torch, against the definition, and against itself."""

from __future__ import annotations

import math

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from lessonkit.errors import LessonkitError
from lessonkit.formats import floats
from lessonkit.formats.floats import (
    BF16,
    FP4_E1M2,
    FP4_E2M1,
    FP4_E3M0,
    FP8_E4M3,
    FP8_E5M2,
    FP16,
    FP32,
    TF32,
    FloatFormat,
    decode,
    encode,
)

NAMED = [FP32, TF32, FP16, BF16, FP8_E4M3, FP8_E5M2, FP4_E3M0, FP4_E2M1, FP4_E1M2]
SMALL = [fmt for fmt in NAMED if fmt.bits <= 16]
TORCH = {FP16: "float16", BF16: "bfloat16", FP8_E4M3: "float8_e4m3fn", FP8_E5M2: "float8_e5m2"}
by_name = pytest.mark.parametrize("fmt", NAMED, ids=lambda fmt: fmt.name)
small_by_name = pytest.mark.parametrize("fmt", SMALL, ids=lambda fmt: fmt.name)
torch_by_name = pytest.mark.parametrize("fmt", TORCH, ids=lambda fmt: fmt.name)


# --- against torch --------------------------------------------------------------------------


def torch_decode(codes: np.ndarray, fmt: FloatFormat) -> np.ndarray:
    torch = pytest.importorskip("torch")
    signed = codes.view(np.int16) if fmt.bits == 16 else codes
    return torch.from_numpy(signed).view(getattr(torch, TORCH[fmt])).float().numpy()


def torch_encode(x: np.ndarray, fmt: FloatFormat) -> np.ndarray:
    torch = pytest.importorskip("torch")
    kind = torch.int16 if fmt.bits == 16 else torch.uint8
    rounded = torch.from_numpy(x).to(getattr(torch, TORCH[fmt]))
    return rounded.view(kind).numpy().view(fmt.code_dtype)


def assert_encodes_like_torch(x: np.ndarray, fmt: FloatFormat) -> None:
    """Same bits for all numbers; NaN for NaN (whose other bits torch itself varies by CPU)."""
    torch = pytest.importorskip("torch")
    # torch 2.13 saturates E4M3, older versions give NaN: follow the one installed.
    huge = torch.tensor(1e9).to(getattr(torch, TORCH[fmt])).float()
    ours = encode(x, fmt, saturate=bool(huge == fmt.max))
    theirs = torch_encode(x, fmt)
    number = ~np.isnan(x)
    wrong = np.flatnonzero((ours != theirs) & number)
    assert wrong.size == 0, (
        f"{x[wrong[0]]!r}: ours {ours[wrong[0]]:#x}, torch {theirs[wrong[0]]:#x}"
    )
    assert np.isnan(decode(ours[~number], fmt)).all()
    assert np.isnan(torch_decode(theirs[~number], fmt)).all()


@torch_by_name
def test_decode_every_code_like_torch(fmt: FloatFormat) -> None:
    codes = np.arange(2**fmt.bits).astype(fmt.code_dtype)
    ours, theirs = decode(codes, fmt, np.float32), torch_decode(codes, fmt)
    assert (np.isnan(ours) == np.isnan(theirs)).all()
    number = ~np.isnan(theirs)
    # As integers, so that +0 and -0 count as different.
    assert (ours[number].view(np.uint32) == theirs[number].view(np.uint32)).all()


@torch_by_name
def test_encode_random_float32_like_torch(fmt: FloatFormat) -> None:
    rng = np.random.default_rng(1)
    any_bits = rng.integers(0, 2**32, 2_000_000, dtype=np.uint64).astype(np.uint32)
    assert_encodes_like_torch(any_bits.view(np.float32), fmt)
    # Few of those land inside a narrow format: as many again, spread over its range.
    low, high = math.log2(fmt.smallest_subnormal) - 2, math.log2(fmt.max) + 1
    spread = np.exp2(rng.uniform(low, min(high, 127.9), 2_000_000)).astype(np.float32)
    assert_encodes_like_torch(spread * rng.choice(np.array([-1, 1], np.float32), spread.size), fmt)


@torch_by_name
def test_encode_ties_and_their_neighbours_like_torch(fmt: FloatFormat) -> None:
    values = floats.finite_values(fmt)
    ties = ((values[1:] + values[:-1]) / 2).astype(np.float32)
    around = [values.astype(np.float32), ties]
    around += [np.nextafter(x, np.float32(to)) for x in list(around) for to in (-np.inf, np.inf)]
    x = np.concatenate(around)
    assert_encodes_like_torch(np.concatenate([x, -x]), fmt)


@torch_by_name
def test_encode_special_values_and_overflow_like_torch(fmt: FloatFormat) -> None:
    # From the largest number on, in quarters of its gap: also past the tie with "infinity".
    with np.errstate(over="ignore"):
        edge = np.float32(fmt.max * (1 + np.arange(6) * fmt.epsilon / 8))
    zeros = np.array([0.0, -0.0, 1e-45, -1e-45, np.inf, -np.inf, np.nan, 3e38, -3e38], np.float32)
    assert_encodes_like_torch(np.concatenate([edge, -edge, zeros]), fmt)


def test_fp32_from_float64_like_numpy() -> None:
    rng = np.random.default_rng(2)
    x = rng.integers(0, 2**64, 1_000_000, dtype=np.uint64).view(np.float64)
    x = np.concatenate([x, np.exp2(rng.uniform(-152, 129, 1_000_000))])
    x = x[~np.isnan(x)]
    with np.errstate(over="ignore"):
        theirs = x.astype(np.float32).view(np.uint32)
    assert (encode(x, FP32) == theirs).all()


def test_float64_is_rounded_once() -> None:
    # Just above a tie of FP16. By way of float32 it becomes the tie, and then goes down.
    x = 1 + 2**-11 + 2**-40
    assert decode(encode(x, FP16), FP16) == 1 + 2**-10
    assert decode(encode(np.float32(x), FP16), FP16) == 1.0


# --- against the definition ------------------------------------------------------------------


@small_by_name
@settings(max_examples=300, deadline=None)
@given(data=st.data())
def test_encode_gives_the_nearest_number(fmt: FloatFormat, data: st.DataObject) -> None:
    x = data.draw(st.floats(-fmt.max, fmt.max))
    values = floats.finite_values(fmt)
    chosen = floats.round_to(x, fmt)
    distance = np.abs(values - x)
    assert abs(chosen - x) == distance.min()
    if (distance == distance.min()).sum() == 2:
        if fmt.mantissa_bits or chosen == 0:
            assert int(encode(x, fmt)) % 2 == 0
        else:  # neither power of two ends in an even digit: IEEE 754 says the larger one
            assert abs(chosen) > abs(x)


@by_name
@settings(max_examples=300, deadline=None)
@given(x=st.floats(allow_nan=False), y=st.floats(allow_nan=False))
def test_rounding_keeps_the_order_and_the_sign(fmt: FloatFormat, x: float, y: float) -> None:
    low, high = sorted([x, y])
    assert floats.round_to(low, fmt, saturate=True) <= floats.round_to(high, fmt, saturate=True)
    assert np.signbit(floats.round_to(x, fmt, saturate=True)) == np.signbit(x)


@by_name
def test_decode_then_encode_gives_the_code_back(fmt: FloatFormat) -> None:
    rng = np.random.default_rng(3)
    codes = np.arange(2**fmt.bits) if fmt.bits <= 16 else rng.integers(0, 2**fmt.bits, 500_000)
    values = decode(codes, fmt)
    number = ~np.isnan(values)
    assert (encode(values[number], fmt) == codes[number]).all()
    if not number.all():
        assert np.isnan(floats.round_to(values[~number], fmt)).all()


@st.composite
def any_format(draw: st.DrawFn) -> FloatFormat:
    exponent_bits, mantissa_bits = draw(st.integers(1, 8)), draw(st.integers(0, 10))
    kinds = ["finite"] + (["fn", "ieee"] if exponent_bits > 1 and mantissa_bits else [])
    kind = draw(st.sampled_from(kinds))
    return FloatFormat("mine", exponent_bits, mantissa_bits, draw(st.integers(-20, 130)), kind)  # type: ignore[arg-type]


@settings(max_examples=60, deadline=None)
@given(fmt=any_format())
def test_any_small_format(fmt: FloatFormat) -> None:
    if fmt.bits > 16:
        return
    positive = decode(np.arange(fmt.max_code + 1), fmt)
    assert (np.diff(positive) > 0).all()
    assert positive[0] == 0 and positive[-1] == fmt.max == floats.finite_values(fmt)[-1]
    assert (encode(positive, fmt) == np.arange(fmt.max_code + 1)).all()
    assert (np.diff(positive) == floats.ulp(positive[:-1], fmt)).all()
    if positive.size > 1:
        assert positive[1] == fmt.smallest_subnormal


def test_the_values_of_four_bits() -> None:
    positive = {
        fmt: floats.finite_values(fmt)[-8:].tolist() for fmt in (FP4_E3M0, FP4_E2M1, FP4_E1M2)
    }
    assert positive[FP4_E2M1] == [0, 0.5, 1, 1.5, 2, 3, 4, 6]  # OCP Microscaling formats v1.0
    assert positive[FP4_E3M0] == [0, 0.25, 0.5, 1, 2, 4, 8, 16]
    assert positive[FP4_E1M2] == [0, 0.5, 1, 1.5, 2, 2.5, 3, 3.5]


def test_the_figures_of_the_formats() -> None:
    for fmt, dtype in ((FP32, np.float32), (FP16, np.float16)):
        info = np.finfo(dtype)
        assert fmt.max == info.max and fmt.epsilon == info.eps
        assert fmt.smallest_normal == info.smallest_normal
        assert fmt.smallest_subnormal == info.smallest_subnormal
    assert (FP8_E4M3.max, FP8_E5M2.max, FP16.max) == (448, 57344, 65504)
    assert BF16.max == (2 - 2**-7) * 2.0**127
    assert TF32.bits == 19 and [fmt.code_dtype.itemsize for fmt in (FP32, FP16, FP4_E2M1)] == [
        4,
        2,
        1,
    ]


def test_overflow_policies() -> None:
    x = np.array([1e9, -1e9, np.inf, -np.inf])
    assert decode(encode(x, FP8_E5M2), FP8_E5M2).tolist() == [np.inf, -np.inf, np.inf, -np.inf]
    assert np.isnan(decode(encode(x, FP8_E4M3), FP8_E4M3)).all()
    for fmt in (FP8_E4M3, FP8_E5M2, FP4_E2M1):
        saturated = decode(encode(x, fmt, saturate=True), fmt)
        assert saturated.tolist() == [fmt.max, -fmt.max, fmt.max, -fmt.max]
    # 464 lies halfway between 448 and what would be 480: the even one is 448.
    assert decode(encode([464.0, 464.1], FP8_E4M3), FP8_E4M3)[0] == 448
    assert np.isnan(decode(encode(464.1, FP8_E4M3), FP8_E4M3))
    assert np.isnan(decode(encode(np.nan, FP8_E5M2, saturate=True), FP8_E5M2))


def test_ulp() -> None:
    x = np.array([1, 1.5, 2, 3e38, 1e-40, 0, -7], np.float32)
    assert (floats.ulp(x, FP32) == np.abs(np.spacing(x))).all()
    h = np.array([1, 1000, 6e4, 1e-7], np.float16)
    assert (floats.ulp(h, FP16) == np.spacing(h)).all()
    assert floats.ulp(65504, FP16) == 32
    assert np.isnan(floats.ulp([65505, np.inf, np.nan], FP16)).all()


def test_bits_and_fields() -> None:
    assert floats.bits(2.31384, FP32) == "0 10000000 00101000001010111110100"
    assert floats.bits(-1.5, BF16) == "1 01111111 1000000"
    assert floats.bits(-4, FP4_E3M0) == "1 101"
    sign, exponent, mantissa = floats.split_fields(np.array([0xC000], np.uint16), FP16)
    assert (sign[0], exponent[0], mantissa[0]) == (1, 16, 0)


def test_shapes_and_types() -> None:
    assert encode(np.zeros((2, 0, 3)), BF16).shape == (2, 0, 3)
    codes = encode(np.ones((2, 3), np.float16), FP8_E4M3)
    assert codes.shape == (2, 3) and codes.dtype == np.uint8
    assert isinstance(encode(1.0, FP16), np.uint16) and isinstance(decode(0, FP16), np.float64)
    assert encode([1, 2], FP16).tolist() == encode([1.0, 2.0], FP16).tolist()
    large = np.random.default_rng(4).normal(size=floats._PIECE + 7)
    assert (floats.round_to(large, FP16)[-7:] == floats.round_to(large[-7:], FP16)).all()
    x = np.array([1.0, np.inf])
    encode(x, FP16)
    assert x.tolist() == [1.0, np.inf]


@pytest.mark.parametrize(
    ("call", "words"),
    [
        (lambda: encode(np.nan, FP4_E2M1), "no code for NaN"),
        (lambda: encode(["a"], FP16), "Cannot encode"),
        (lambda: encode(np.longdouble(1), FP16), "Cannot encode"),
        (lambda: encode(2**53 + 1, FP16), "rounded twice"),
        (lambda: decode([256], FP8_E4M3), "between 0 and 255"),
        (lambda: decode([-1], FP8_E4M3), "between 0 and 255"),
        (lambda: decode([1.0], FP8_E4M3), "whole numbers"),
        (lambda: floats.all_values(FP32), "too many"),
        (lambda: FloatFormat("x", 9, 2, 0), "exponent bits"),
        (lambda: FloatFormat("x", 1, 2, 0), "IEEE"),
        (lambda: FloatFormat("x", 2, 2, 0, "odd"), "Unknown"),  # type: ignore[arg-type]
        (lambda: FloatFormat("x", 2, 2, 600), "bias"),
    ],
)
def test_bad_input_is_told(call: object, words: str) -> None:
    with pytest.raises(LessonkitError, match=words):
        call()  # type: ignore[operator]


def test_table_is_aligned_text() -> None:
    lines = floats.table([FP32, FP8_E4M3]).split("\n")
    assert lines[0].startswith("format") and lines[0].endswith("gap at 1")
    assert "3.4028e+38" in lines[1] and "448" in lines[2]
    assert len({len(line) for line in lines}) == 1
