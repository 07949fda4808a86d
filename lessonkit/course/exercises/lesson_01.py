"""Exercises of lesson 01: what a number costs, and what is lost."""

from __future__ import annotations

import math
from typing import Any

import numpy as np

from lessonkit.course.exercises.attempts import Exercise, Mistake


def spacing(x: float, mantissa_bits: int) -> float:
    """The gap between neighbours at x, for a normal number x of a format with such a mantissa."""
    # frexp says x = f * 2^e with .5 <= |f| < 1, so the binade of x starts at 2^(e - 1).
    exponent = math.frexp(x)[1] - 1
    return math.ldexp(1.0, exponent - mantissa_bits)


def round_to_bf16(x: np.ndarray) -> np.ndarray:
    """Each float32 rounded to the nearest bf16 (ties to even), as float32, by its bits alone."""
    bits = x.view(np.uint32)
    last_kept = (bits >> 16) & 1
    # Adding just under half a step rounds to nearest; adding the last kept bit breaks ties to
    # even. A carry runs into the exponent, which is just what it should do.
    rounded = (bits + 0x7FFF + last_kept) & 0xFFFF0000
    return rounded.astype(np.uint32).view(np.float32)


def quantize_absmax_int8(row: np.ndarray) -> tuple[np.ndarray, float]:
    """Codes from -127 to 127 and the scale absmax / 127; a row of zeros has codes 0, scale 1."""
    scale = np.abs(row).max() / 127 or 1.0
    return np.rint(row / scale).astype(np.int8), scale


def bits_per_weight(code_bits: int, block_size: int, scale_bits: int) -> float:
    """Bits that one weight takes when every block of codes carries one scale."""
    return code_bits + scale_bits / block_size


def _spacing_cases() -> list[tuple[float, int]]:
    numbers = (1.0, 1.5, 2.0, 3.0, 0.1, 2.31384, 1000.0, -6.5, 1e-20)
    return [(x, m) for m in (7, 23, 10, 3) for x in numbers]


def _bf16_cases() -> list[tuple[np.ndarray]]:
    as_bits: list[list[int]] = [
        [0x3F800000],  # 1.0: nothing to round
        [0x3F80C000],  # nearer to the number above
        [0x3F804000],  # nearer to the number below
        [0x3F818000, 0x3F828000],  # two ties: one goes up, one goes down
        [0x3FFFFFFF],  # a carry into the exponent
        [0xBF80C000, 0xBF818000],  # negative
        [0x00018000, 0x00008000, 0x80000000],  # subnormal, and -0.0
        [0x7F7FFFFF, 0x7F800000, 0xFF800000],  # overflow, and infinities
    ]
    cases = [(np.array(bits, np.uint32).view(np.float32),) for bits in as_bits]
    random = np.random.default_rng(1).normal(0, 0.02, (4, 250)).astype(np.float32)
    return [*cases, (random,)]


def _row_cases() -> list[tuple[np.ndarray]]:
    rows: list[list[float]] = [
        [127.0, 1.0, -2.0],
        [1.0, 0.5, 0.3, -0.26],
        [-2.54, 1.0, 0.019],
        [0.0, 0.0],
    ]
    random = np.random.default_rng(2).normal(0, 0.02, 64)
    return [(np.array(row, np.float32),) for row in [*rows, random.tolist()]]


def _cut_to_bf16(x: np.ndarray) -> np.ndarray:
    return (x.view(np.uint32) & 0xFFFF0000).astype(np.uint32).view(np.float32)


def _half_up_to_bf16(x: np.ndarray) -> np.ndarray:
    return ((x.view(np.uint32) + 0x8000) & 0xFFFF0000).astype(np.uint32).view(np.float32)


def _to_fp16(x: np.ndarray) -> np.ndarray:
    with np.errstate(over="ignore"):
        return x.astype(np.float16).astype(np.float32)


def _int8(row: np.ndarray, scale: Any, rounding: Any) -> tuple[np.ndarray, Any]:
    scale = scale or 1.0
    return np.clip(rounding(row / scale), -128, 127).astype(np.int8), scale


def _int8_of_zeros_by_zero(row: np.ndarray) -> tuple[np.ndarray, Any]:
    scale = np.abs(row).max() / 127
    return quantize_absmax_int8(row)[0], scale


EXERCISES = [
    Exercise(
        name="spacing",
        prompt=(
            "Write spacing(x, mantissa_bits): the gap between x and the next larger number of a "
            "format with that many mantissa bits. x is normal, and may be negative."
        ),
        reference=spacing,
        make_cases=_spacing_cases,
        hint=(
            "Between 2^e and 2^(e+1) lie 2^mantissa_bits equal steps. Find e for |x| first "
            "(math.frexp, or math.floor of math.log2)."
        ),
        nudge="Between which two powers of two does x lie, and into how many steps is that cut?",
        mistakes=(
            Mistake(
                lambda x, m: 2.0**-m,
                "That is the gap between 1 and 2 only. It doubles with every power of two.",
            ),
            Mistake(
                lambda x, m: abs(x) * 2.0**-m,
                "The gap does not grow with every x: from 2 to 4 it is the same everywhere.",
            ),
            Mistake(
                lambda x, m: 2.0 ** (math.frexp(x)[1] - m),
                "Twice too large: math.frexp gives a fraction from .5 to 1, so its exponent is "
                "one more than that of 1.something * 2^e.",
            ),
            Mistake(
                lambda x, m: 2.0 ** (math.ceil(math.log2(abs(x))) - m),
                "Round the exponent down, not up: 3.0 lies between 2^1 and 2^2, so e is 1.",
            ),
        ),
    ),
    Exercise(
        name="round_to_bf16",
        prompt=(
            "Write round_to_bf16(x): x is an array of float32; return float32 values rounded to "
            "bf16 by whole-number arithmetic on their bits, ties to even. bf16 is the upper half "
            "of a float32. x.view(np.uint32) gives the bits, .view(np.float32) goes back."
        ),
        reference=round_to_bf16,
        make_cases=_bf16_cases,
        hint=(
            "Add 0x7FFF, and one more where the last kept bit (bit 16) is 1. Then set the lower "
            "16 bits to zero."
        ),
        nudge="Cutting the lower 16 bits off rounds towards zero. What must be added before?",
        mistakes=(
            Mistake(
                _cut_to_bf16,
                "You cut the lower bits off: that always rounds towards zero. Add first, then cut.",
            ),
            Mistake(
                _half_up_to_bf16,
                "All but the ties are right. Adding 0x8000 sends every tie away from zero; add "
                "0x7FFF plus the last kept bit, and ties go to the even neighbour.",
            ),
            Mistake(
                _to_fp16,
                "That is fp16: 5 exponent bits and 10 of mantissa. bf16 keeps all 8 exponent bits.",
            ),
            Mistake(lambda x: x, "Nothing was rounded: the lower 16 bits must become zero."),
        ),
    ),
    Exercise(
        name="quantize_absmax_int8",
        prompt=(
            "Write quantize_absmax_int8(row): return (codes, scale) for one row of float32. The "
            "scale is the largest magnitude divided by 127, the codes are whole numbers of type "
            "int8, rounded to nearest. A row of zeros has codes 0; give it the scale 1."
        ),
        reference=quantize_absmax_int8,
        make_cases=_row_cases,
        hint=(
            "scale = np.abs(row).max() / 127, codes = np.rint(row / scale). A row of zeros would "
            "divide by zero: give it the scale 1 before you divide."
        ),
        nudge="Which number must become 127? Then one step is how large?",
        mistakes=(
            Mistake(
                lambda row: _int8(row, np.abs(row).max() / 127, np.trunc),
                "Turning floats into int8 cuts the fraction off. Round to nearest first (np.rint).",
            ),
            Mistake(
                lambda row: _int8(row, np.abs(row).max() / 128, np.rint),
                "Divide by 127: with 128, the largest weight would get the code 128, and int8 "
                "ends at 127.",
            ),
            Mistake(
                lambda row: _int8(row, row.max() / 127, np.rint),
                "The largest value is not the largest magnitude: -2.54 is further out than 1.0.",
            ),
            Mistake(
                lambda row: (quantize_absmax_int8(row)[0], np.abs(row).max() or 1.0),
                "The codes are right. The scale is the step from one code to the next: the "
                "largest magnitude divided by 127.",
            ),
            Mistake(
                _int8_of_zeros_by_zero,
                "All rows are right but that of zeros: 0 / 0 is NaN, and NaN has no int8 code. "
                "Give such a row the scale 1.",
            ),
        ),
        rtol=1e-6,
    ),
    Exercise(
        name="bits_per_weight",
        prompt=(
            "Write bits_per_weight(code_bits, block_size, scale_bits): the bits that one weight "
            "takes when each block of block_size codes carries one scale of scale_bits."
        ),
        reference=bits_per_weight,
        make_cases=lambda: [(8, 64, 16), (4, 32, 16), (4, 64, 32), (4, 128, 16), (8, 1, 32)],
        hint="The scale's bits are shared by all weights of its block: divide, then add.",
        nudge="Who shares the scale?",
        mistakes=(
            Mistake(
                lambda code, block, scale: code,
                "The scales take room too: one for every block.",
            ),
            Mistake(
                lambda code, block, scale: code + scale,
                "A scale is shared by its whole block, not paid by every weight.",
            ),
            Mistake(
                lambda code, block, scale: code * block + scale,
                "Those are the bits of a whole block. Divide by the weights in it.",
            ),
            Mistake(
                lambda code, block, scale: (code * block + scale) / 8 / block,
                "Those are bytes per weight. Bits are asked for.",
            ),
        ),
        rtol=1e-12,
    ),
]
