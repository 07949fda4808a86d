"""Exercises of lesson 08: bits per byte, the tokens that llama.cpp scores, a paired difference."""

from __future__ import annotations

import math
from typing import Any

import numpy as np

from lessonkit.course.exercises.attempts import Exercise, Mistake


def bits_per_byte(surprises: list[float], text: str) -> float:
    """Bits for each UTF-8 byte of a text, from its tokens' surprises in nats."""
    return sum(surprises) / math.log(2) / len(text.encode("utf-8"))


def scored_positions(tokens: int, window: int) -> list[int]:
    """Positions that llama.cpp scores: in each whole window those after its middle token."""
    return [
        start + place
        for start in range(0, tokens - window + 1, window)
        for place in range(window // 2 + 1, window)
    ]


def paired_difference(a: list[float], b: list[float]) -> tuple[float, float]:
    """The mean of b - a over windows, and its standard error."""
    gaps = [after - before for before, after in zip(a, b, strict=True)]
    mean = sum(gaps) / len(gaps)
    variance = sum((gap - mean) ** 2 for gap in gaps) / (len(gaps) - 1)
    return mean, math.sqrt(variance / len(gaps))


def _texts() -> list[tuple[list[float], str]]:
    return [
        ([math.log(2)] * 500, "a" * 1000),
        ([0.5, 2.0, 0.1], "The lighthouse"),
        ([1.0, 1.0], "岛上的灯塔"),
        ([0.25, 3.5, 0.0, 1.25], "Quill Bay, 42 m – über"),
    ]


def _windows() -> list[tuple[int, int]]:
    return [(16, 8), (20, 8), (7, 8), (24, 6), (1100, 512)]


def _pairs() -> list[tuple[list[float], list[float]]]:
    rng = np.random.default_rng(8)
    hard = rng.normal(2.0, 0.5, 12)
    return [
        ([2.0, 3.0, 1.0], [2.1, 3.2, 1.3]),
        ([1.0, 1.0, 4.0, 2.0], [1.5, 0.5, 4.25, 2.0]),
        (hard.tolist(), (hard + rng.normal(0.01, 0.02, 12)).tolist()),
    ]


def _characters(surprises: list[float], text: str) -> float:
    return sum(surprises) / math.log(2) / len(text)


def _nats(surprises: list[float], text: str) -> float:
    return bits_per_byte(surprises, text) * math.log(2)


def _mean_per_token(surprises: list[float], text: str) -> float:
    return sum(surprises) / len(surprises) / math.log(2)


def _as_perplexity(surprises: list[float], text: str) -> float:
    return float(2 ** bits_per_byte(surprises, text))


def _middle_too(tokens: int, window: int) -> list[int]:
    return [
        start + place
        for start in range(0, tokens - window + 1, window)
        for place in range(window // 2, window)
    ]


def _remainder_too(tokens: int, window: int) -> list[int]:
    return [p for p in range(tokens) if p % window > window // 2]


def _inside_the_window(tokens: int, window: int) -> list[int]:
    return [position % window for position in scored_positions(tokens, window)]


def _all_but_the_first(tokens: int, window: int) -> list[int]:
    return [p for p in range(tokens // window * window) if p % window]


def _unpaired(a: list[float], b: list[float]) -> tuple[float, float]:
    errors = [np.var(side, ddof=1) / len(side) for side in (a, b)]
    return paired_difference(a, b)[0], math.sqrt(sum(errors))


def _deviation(a: list[float], b: list[float]) -> tuple[float, float]:
    mean, error = paired_difference(a, b)
    return mean, error * math.sqrt(len(a))


def _by_n(a: list[float], b: list[float]) -> tuple[float, float]:
    mean, error = paired_difference(a, b)
    return mean, error * math.sqrt((len(a) - 1) / len(a))


def _turned_round(a: list[float], b: list[float]) -> Any:
    return paired_difference(b, a)


EXERCISES = [
    Exercise(
        name="bits_per_byte",
        prompt=(
            "Write bits_per_byte(surprises, text): `surprises` are the tokens' surprises in nats, "
            "`text` is the text that they are the tokens of. Return the bits for each byte of the "
            "text in UTF-8."
        ),
        reference=bits_per_byte,
        make_cases=_texts,
        hint=(
            "Add the surprises up; a nat is 1 / math.log(2) bits; divide by "
            "len(text.encode('utf-8'))."
        ),
        nudge="Nats or bits, the sum or the mean, characters or bytes: decide all three.",
        mistakes=(
            Mistake(
                _characters,
                "Right for English only: a Chinese character has three bytes in UTF-8. Count the "
                "bytes, not the characters.",
            ),
            Mistake(_nats, "Those are nats per byte: divide by math.log(2) as well."),
            Mistake(
                _mean_per_token,
                "That is bits per token, which hangs on the tokenizer. Divide by the text's bytes.",
            ),
            Mistake(
                _as_perplexity,
                "That is the perplexity by the byte. Bits per byte is its logarithm to base 2.",
            ),
        ),
        rtol=1e-9,
    ),
    Exercise(
        name="scored_positions",
        prompt=(
            "Write scored_positions(tokens, window): a text has so many tokens, llama.cpp reads "
            "windows that do not overlap, drops a remainder, and scores what has more than half a "
            "window before it. Return the list of scored positions in the text; of 512 tokens "
            "these are 257 to 511."
        ),
        reference=scored_positions,
        make_cases=_windows,
        hint=(
            "Windows begin at 0, window, 2 * window, ...; each is whole. In a window the places "
            "window // 2 + 1 to window - 1 are scored."
        ),
        nudge="Take one window of 8 tokens by hand: which of its places are scored?",
        mistakes=(
            Mistake(
                _middle_too,
                "One too many in each window: of 512 tokens, 257 to 511 are scored, 255 of them.",
            ),
            Mistake(
                _remainder_too, "A last window that is not whole is dropped, and scores nothing."
            ),
            Mistake(
                _inside_the_window,
                "Those are places inside a window: add where the window begins.",
            ),
            Mistake(
                _all_but_the_first,
                "That is the protocol of GPTQ's paper. llama.cpp scores second halves only.",
            ),
        ),
    ),
    Exercise(
        name="paired_difference",
        prompt=(
            "Write paired_difference(a, b): mean surprises of two models, window by window. "
            "Return (mean of b - a, standard error of that mean), in pairs."
        ),
        reference=paired_difference,
        make_cases=_pairs,
        hint=(
            "Take the differences first. The standard error of their mean is their standard "
            "deviation (divided by n - 1 inside the root) over the root of n."
        ),
        nudge="Both models read the same windows. What can be taken away before any mean?",
        mistakes=(
            Mistake(
                _unpaired,
                "That is the error of two separate texts. Both models read the same windows: take "
                "the differences first.",
            ),
            Mistake(
                _deviation,
                "That is how far the differences scatter. The error of their mean is smaller, by "
                "the root of their number.",
            ),
            Mistake(
                _by_n,
                "A little too small: the mean was taken from the same windows, so divide the sum "
                "of squares by n - 1.",
            ),
            Mistake(_turned_round, "The sign is wrong: b minus a, positive where b is worse."),
        ),
        rtol=1e-9,
    ),
]
