"""Exercises of lesson 02: nearest levels, which format wins, and what the scales cost."""

from __future__ import annotations

from typing import Any

import numpy as np

from lessonkit.course.exercises.attempts import Exercise, Mistake
from lessonkit.formats import INT4, NF4

LEVELS = {
    "nf4": np.array(NF4.values, np.float32),
    "int4": np.array(INT4.values, np.float32),
}


def nearest_codes(scaled: np.ndarray, levels: np.ndarray) -> np.ndarray:
    """The index of the nearest level for each number; a tie takes the lower level."""
    midpoints = (levels[:-1] + levels[1:]) / np.float32(2)
    # The number of midpoints strictly below a number is the index of its level.
    return np.searchsorted(midpoints, scaled, side="left").astype(np.uint8)


def better_format(centres: np.ndarray, counts: np.ndarray) -> str:
    """The one of "nf4" and "int4" with the smaller mean squared error for a histogram."""
    scaled = (centres / np.abs(centres).max()).astype(np.float32)
    errors = {
        name: counts @ (levels[nearest_codes(scaled, levels)] - scaled) ** 2
        for name, levels in LEVELS.items()
    }
    return min(errors, key=lambda name: errors[name])


def four_bit_cost(block_size: int, double_quant: bool) -> float:
    """Bits a weight: 4, and float32 scales; or 8-bit scales with a float32 for each 256."""
    if double_quant:
        return 4 + 8 / block_size + 32 / (256 * block_size)
    return 4 + 32 / block_size


def _search_cases() -> list[tuple[np.ndarray, np.ndarray]]:
    small = np.array([-1.0, 0.0, 0.5, 1.0], np.float32)
    nf4 = LEVELS["nf4"]
    ties = (nf4[:-1] + nf4[1:]) / np.float32(2)
    random = np.random.default_rng(5).uniform(-1, 1, 500).astype(np.float32)
    return [
        (np.array([0.1, 0.4, -0.6, 1.0], np.float32), small),
        (np.array([-0.5, 0.25, 0.75], np.float32), small),  # three exact ties
        (np.array([-3.0, 3.0], np.float32), small),  # beyond both ends
        (ties, nf4),
        (random, nf4),
        (random, LEVELS["int4"]),
    ]


def _histograms() -> list[tuple[np.ndarray, np.ndarray]]:
    """Normal, flat, two heaps, a spike, a heavy tail: centres of 100 bins, and counts."""
    centres = np.linspace(-0.0495, 0.0495, 100)
    at = centres / 0.05
    shapes = [
        np.exp(-((at / 0.3) ** 2) / 2),
        np.ones(100),
        (np.abs(np.abs(at) - 0.85) < 0.12).astype(float),
        np.exp(-np.abs(at) / 0.12),
        1 / (1 + (at / 0.2) ** 2),
        np.abs(at),
        1000 * (np.abs(at - 0.08) < 0.005) + np.ones(100),
    ]
    return [(centres, np.round(1000 * shape)) for shape in shapes]


def _lopsided_histograms() -> list[tuple[np.ndarray, np.ndarray]]:
    """The largest magnitude lies on the left: whoever divides by the largest centre goes wrong."""
    centres = np.linspace(-0.0995, 0.0295, 130)
    heap = np.exp(-((centres / 0.012) ** 2) / 2)
    far_left = 0.02 * np.abs(centres + 0.08)
    return [(centres, np.round(1000 * (heap + far_left) + 1)), (centres, np.ones(130))]


def _cost_cases() -> list[tuple[int, bool]]:
    return [(64, False), (64, True), (32, False), (32, True), (128, True), (4096, False)]


def _by_distance(scaled: np.ndarray, levels: np.ndarray) -> np.ndarray:
    return np.abs(scaled[:, None] - levels).argmin(axis=1).astype(np.uint8)


def _ties_up(scaled: np.ndarray, levels: np.ndarray) -> np.ndarray:
    midpoints = (levels[:-1] + levels[1:]) / np.float32(2)
    return np.searchsorted(midpoints, scaled, side="right").astype(np.uint8)


def _level_below(scaled: np.ndarray, levels: np.ndarray) -> np.ndarray:
    return np.clip(np.searchsorted(levels, scaled, side="right") - 1, 0, None)


def _by_even_steps(scaled: np.ndarray, levels: np.ndarray) -> np.ndarray:
    return np.rint((np.clip(scaled, -1, 1) + 1) / 2 * (len(levels) - 1)).astype(np.uint8)


def _unweighted(centres: np.ndarray, counts: np.ndarray) -> str:
    return better_format(centres, np.ones_like(counts))


def _by_largest_centre(centres: np.ndarray, counts: np.ndarray) -> str:
    scaled = (centres / centres.max()).astype(np.float32)
    errors = {
        name: counts @ (levels[nearest_codes(scaled, levels)] - scaled) ** 2
        for name, levels in LEVELS.items()
    }
    return min(errors, key=lambda name: errors[name])


def _worse(centres: np.ndarray, counts: np.ndarray) -> str:
    return "int4" if better_format(centres, counts) == "nf4" else "nf4"


def _cost_without_mean(block: int, double: bool) -> Any:
    return 4 + 8 / block if double else four_bit_cost(block, double)


EXERCISES = [
    Exercise(
        name="nearest_codes",
        prompt=(
            "Write nearest_codes(scaled, levels): for each float32 number in `scaled`, the index "
            "of the nearest of the rising `levels`. Half-way between two, take the lower one, as "
            "bitsandbytes does. Numbers beyond the ends take the outermost level."
        ),
        reference=nearest_codes,
        make_cases=_search_cases,
        hint=(
            "Compute the float32 midpoints between neighbours. How many of them lie strictly "
            "below a number? (np.searchsorted with the right `side`, or a sum of comparisons.)"
        ),
        nudge="Where, between two neighbouring levels, does the nearest one change?",
        mistakes=(
            Mistake(
                _by_distance,
                "A sound idea, and right but for ties: there the rounding of your two distances "
                "picks a level. Compare with float32 midpoints, (levels[:-1] + levels[1:]) / 2, "
                "as the library does.",
            ),
            Mistake(
                _ties_up,
                "All but the ties are right. A number that equals a midpoint takes the lower "
                "level: count the midpoints strictly below it (side='left').",
            ),
            Mistake(
                _level_below,
                "That is the level below the number, not the nearest: 0.4 is nearer to 0.5 "
                "than to 0.",
            ),
            Mistake(
                _by_even_steps,
                "That works for evenly spaced levels only. Compare with the midpoints between "
                "the levels you were given.",
            ),
            Mistake(
                lambda scaled, levels: levels[nearest_codes(scaled, levels)],
                "Those are the levels. The codes, their indices, are asked for.",
            ),
        ),
    ),
    Exercise(
        name="better_format",
        prompt=(
            "Write better_format(centres, counts): a histogram of weights is given by the "
            "centres of its bins and the number of weights in each. Scale by absmax, take the "
            "nearest levels of NF4.values and of INT4.values, and return 'nf4' or 'int4': the "
            "one with the smaller mean squared error."
        ),
        reference=better_format,
        make_cases=lambda: [*_histograms(), *_lopsided_histograms()],
        hint=(
            "scaled = centres / np.abs(centres).max(). For each format, look up the nearest "
            "level of every centre, square the difference, and add up with the counts as weights."
        ),
        nudge="Scale first: the weight of the largest magnitude must come to lie at -1 or 1.",
        mistakes=(
            Mistake(
                _by_largest_centre,
                "The largest centre is not the one of largest magnitude: that may be negative.",
            ),
            Mistake(
                _unweighted,
                "Every bin counted the same. A bin with 1000 weights matters 1000 times as much "
                "as a bin with one: multiply the squared errors by counts.",
            ),
            Mistake(
                lambda centres, counts: "nf4",
                "You found NF4 every time. Did you divide by the largest magnitude first? With "
                "flat weights, for example, the evenly spaced levels of INT4 win.",
            ),
            Mistake(_worse, "The smaller error wins, not the larger one."),
        ),
    ),
    Exercise(
        name="four_bit_cost",
        prompt=(
            "Write four_bit_cost(block_size, double_quant): bits a weight for 4-bit codes with a "
            "float32 scale for each block; with double_quant, the scales take 8 bits each, and "
            "256 of them share a float32 scale of their own."
        ),
        reference=four_bit_cost,
        make_cases=_cost_cases,
        hint=(
            "Without: 4 + 32 / block_size. With: a scale of 8 bits is shared by block_size "
            "weights, and a float32 by 256 scales, so by how many weights?"
        ),
        nudge="Who shares a scale? Divide its bits by the number of weights that it serves.",
        mistakes=(
            Mistake(
                _cost_without_mean,
                "Nearly. The 8-bit scales need a float32 scale of their own: one for 256 of them.",
            ),
            Mistake(
                lambda block, double: 4 + (8 / block + 32 / 256 if double else 32 / block),
                "256 scales share the second float32, and each of them serves a whole block: "
                "divide by 256 * block_size.",
            ),
            Mistake(
                lambda block, double: 4 + 32 / block,
                "Right without double quantisation. With it, a scale takes 8 bits, not 32.",
            ),
            Mistake(
                lambda block, double: 4 + 16 / block if not double else four_bit_cost(block, True),
                "bitsandbytes keeps its scales in float32, 32 bits each, not 16.",
            ),
        ),
        rtol=1e-12,
    ),
]
