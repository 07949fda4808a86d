"""Exercises of lesson 07: scales from magnitudes, a word of an AWQ file, heads sharing a value."""

from __future__ import annotations

import math
from collections.abc import Callable

import numpy as np

from lessonkit.course.exercises.attempts import Exercise, Mistake

_ORDER = (0, 2, 4, 6, 1, 3, 5, 7)


def channel_scales(magnitudes: list[float], ratio: float) -> list[float]:
    """Scales of one ratio: magnitude ** ratio, spread evenly around 1."""
    raw = [magnitude**ratio for magnitude in magnitudes]
    middle = math.sqrt(max(raw) * min(raw))
    return [scale / middle for scale in raw]


def codes_of_word(word: int) -> list[int]:
    """The codes of eight neighbouring columns, in the order of the columns."""
    codes = [0] * 8
    for field, column in enumerate(_ORDER):
        codes[column] = word >> 4 * field & 15
    return codes


def value_row_scales(scales: list[float], heads: int, key_value_heads: int) -> list[float]:
    """One scale for each row of v_proj: the mean over the heads that repeat it."""
    size, repeats = len(scales) // heads, heads // key_value_heads
    return [
        sum(scales[(head * repeats + copy) * size + i] for copy in range(repeats)) / repeats
        for head in range(key_value_heads)
        for i in range(size)
    ]


def _magnitudes() -> list[tuple[list[float], float]]:
    rng = np.random.default_rng(7)
    drawn = np.exp(rng.normal(size=12)).round(3).tolist()
    return [
        ([1.0, 4.0, 16.0], 0.5),
        ([1.0, 4.0, 16.0], 0.25),
        ([0.25, 2.0], 1.0),
        (drawn, 0.35),
        (drawn, 0.0),
    ]


def _words() -> list[tuple[int]]:
    rng = np.random.default_rng(7)
    drawn = [int(word) for word in rng.integers(0, 1 << 32, 3)]
    return [(word,) for word in [0x75316420, 0x00000010, 0xF0000000, *drawn]]


def _heads() -> list[tuple[list[float], int, int]]:
    eight = [1.0, 10.0, 3.0, 20.0, 5.0, 30.0, 9.0, 60.0]
    return [(eight, 4, 2), (eight, 2, 1), (eight, 4, 1), (eight, 8, 2), (eight, 4, 4)]


def _not_centred(magnitudes: list[float], ratio: float) -> list[float]:
    return [magnitude**ratio for magnitude in magnitudes]


def _by_the_mean(magnitudes: list[float], ratio: float) -> list[float]:
    raw = _not_centred(magnitudes, ratio)
    return [scale / (sum(raw) / len(raw)) for scale in raw]


def _by_the_largest(magnitudes: list[float], ratio: float) -> list[float]:
    raw = _not_centred(magnitudes, ratio)
    return [scale / max(raw) for scale in raw]


def _upside_down(magnitudes: list[float], ratio: float) -> list[float]:
    return [1 / scale for scale in channel_scales(magnitudes, ratio)]


def _times(magnitudes: list[float], ratio: float) -> list[float]:
    middle = math.sqrt(max(magnitudes) * min(magnitudes))
    return [ratio * magnitude / middle for magnitude in magnitudes]


def _fields(word: int) -> list[int]:
    return [word >> 4 * field & 15 for field in range(8)]


def _as_written(word: int) -> list[int]:
    return _fields(word)[::-1]


def _order_the_wrong_way_round(word: int) -> list[int]:
    fields = _fields(word)
    return [fields[column] for column in _ORDER]


def _ordered_as_written(word: int) -> list[int]:
    fields = _as_written(word)
    return [fields[_ORDER.index(column)] for column in range(8)]


def _reduced(
    of_copies: Callable[[list[float]], float],
) -> Callable[[list[float], int, int], list[float]]:
    def solve(scales: list[float], heads: int, key_value_heads: int) -> list[float]:
        size, repeats = len(scales) // heads, heads // key_value_heads
        by_head = np.asarray(scales).reshape(key_value_heads, repeats, size)
        return [
            of_copies(by_head[h, :, i].tolist()) for h in range(len(by_head)) for i in range(size)
        ]

    return solve


def _interleaved(scales: list[float], heads: int, key_value_heads: int) -> list[float]:
    repeats = heads // key_value_heads
    by_head = np.asarray(scales).reshape(repeats, key_value_heads, -1)
    means: list[float] = by_head.mean(axis=0).reshape(-1).tolist()
    return means


def _as_wide_as_o_proj(scales: list[float], heads: int, key_value_heads: int) -> list[float]:
    rows = value_row_scales(scales, heads, key_value_heads)
    by_head = np.asarray(rows).reshape(key_value_heads, 1, -1)
    spread: list[float] = by_head.repeat(heads // key_value_heads, axis=1).reshape(-1).tolist()
    return spread


EXERCISES = [
    Exercise(
        name="channel_scales",
        prompt=(
            "Write channel_scales(magnitudes, ratio): the scales of a ratio, without duo scaling. "
            "Each is its channel's magnitude to the power of `ratio`; then all are divided by the "
            "square root of (largest * smallest). Return a list."
        ),
        reference=channel_scales,
        make_cases=_magnitudes,
        hint=(
            "First raise every magnitude to the power: magnitude ** ratio. Then divide by "
            "math.sqrt(max(raw) * min(raw)), taken over these results."
        ),
        nudge="Two steps: a power for each channel, and one number that divides them all.",
        mistakes=(
            Mistake(
                _not_centred,
                "The powers are right. Now divide by sqrt(largest * smallest), so that the scales "
                "lie around 1.",
            ),
            Mistake(
                _by_the_mean,
                "You divided by the mean. AWQ divides by sqrt(largest * smallest): then the "
                "largest and the smallest scale multiply to 1.",
            ),
            Mistake(
                _by_the_largest,
                "You divided by the largest. Then no channel would be made larger, and a group's "
                "step could only shrink; divide by sqrt(largest * smallest).",
            ),
            Mistake(
                _upside_down,
                "These are the factors for the inputs. The weights of a loud channel are made "
                "larger, so a larger magnitude has a larger scale.",
            ),
            Mistake(_times, "The ratio is an exponent (**), not a factor."),
        ),
        rtol=1e-6,
        atol=1e-9,
    ),
    Exercise(
        name="codes_of_word",
        prompt=(
            "Write codes_of_word(word): `word` is one word of an AWQ file, a number from 0 to "
            "2**32 - 1. Return the eight 4-bit codes in the order of their columns. Counted from "
            "the lowest, the fields hold the columns 0, 2, 4, 6, 1, 3, 5, 7."
        ),
        reference=codes_of_word,
        make_cases=_words,
        hint=(
            "word >> 4 * i & 15 is field i. Field 1 belongs to column 2: so codes[order[i]] gets "
            "field i, with order = (0, 2, 4, 6, 1, 3, 5, 7)."
        ),
        nudge="Cut the word into eight fields first. Which column does each field belong to?",
        mistakes=(
            Mistake(
                _fields,
                "The fields are cut out rightly, lowest first. Now bring them into the order of "
                "the columns: field 1 holds column 2.",
            ),
            Mistake(
                _as_written,
                "You took the fields from the highest to the lowest, as the word is written. "
                "Column 0 is in the lowest four bits; and the others are not in order.",
            ),
            Mistake(
                _order_the_wrong_way_round,
                "The order is applied the wrong way round. Field i holds column order[i], so write "
                "codes[order[i]] = field i, not codes[i] = field order[i].",
            ),
            Mistake(
                _ordered_as_written,
                "The order is right, but counted from the highest field: column 0 is in the lowest "
                "four bits.",
            ),
        ),
    ),
    Exercise(
        name="value_row_scales",
        prompt=(
            "Write value_row_scales(scales, heads, key_value_heads): `scales` has one entry for "
            "each input channel of o_proj, head after head. Each value head of v_proj is repeated "
            "for heads // key_value_heads neighbouring heads. Return one scale for each row of "
            "v_proj: the mean over its copies."
        ),
        reference=value_row_scales,
        make_cases=_heads,
        hint=(
            "A head has size = len(scales) // heads channels. Heads j * n to j * n + n - 1, with "
            "n = heads // key_value_heads, are copies of value head j: average channel i over them."
        ),
        nudge="Which heads are copies of one value head? A row belongs to one channel of each.",
        mistakes=(
            Mistake(
                _interleaved,
                "Copies are neighbours: with 4 heads on 2 value heads, heads 0 and 1 belong "
                "together, not 0 and 2.",
            ),
            Mistake(
                _as_wide_as_o_proj,
                "The means are right, but v_proj has fewer rows than o_proj has inputs: give each "
                "mean once.",
            ),
            Mistake(_reduced(lambda copies: copies[0]), "You took the first copy. Take the mean."),
            Mistake(_reduced(sum), "That is the sum over the copies. Take the mean."),
        ),
        rtol=1e-6,
        atol=1e-9,
    ),
]
