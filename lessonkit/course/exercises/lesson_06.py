"""Exercises of lesson 06: rounding in turn, packing into words, the bits a weight of a file."""

from __future__ import annotations

from collections.abc import Sequence

import numpy as np
import numpy.typing as npt

from lessonkit.course.exercises.attempts import Exercise, Mistake

Floats = npt.NDArray[np.float64]
_MASK = 0xFFFFFFFF


def round_in_turn(row: Floats, hessian: Floats) -> Floats:
    """The row in whole numbers, rounded from first to last, the later ones making up for it."""
    row = row.copy()
    for i in range(len(row)):
        change = np.rint(row[i]) - row[i]
        row[i] += change
        row[i + 1 :] -= change * np.linalg.solve(hessian[i + 1 :, i + 1 :], hessian[i + 1 :, i])
    return row


def pack_by_hand(codes: Sequence[int], bits: int) -> list[int]:
    """The codes one after another in 32-bit words, the first in the lowest bits."""
    stream = sum(code << (i * bits) for i, code in enumerate(codes))
    return [(stream >> at) & _MASK for at in range(0, len(codes) * bits, 32)]


def gptq_bits(bits: int, group_size: int, rows: int) -> float:
    """Bits a weight of a GPTQ file: codes, scales, zero-points, g_idx."""
    return bits + (16 + bits) / group_size + 32 / rows


def _rows() -> list[tuple[Floats, Floats]]:
    rng = np.random.default_rng(6)
    cases: list[tuple[Floats, Floats]] = [
        (np.array([1.3, 2.4]), np.array([[6.0, 5.0], [5.0, 6.0]])),
        (np.array([0.4, 0.4, 0.4]), np.array([[4.0, 3.0, 1.0], [3.0, 4.0, 3.0], [1.0, 3.0, 9.0]])),
    ]
    for size in (4, 5, 8):
        shared = rng.normal(size=(4 * size, 2)) @ rng.normal(size=(2, size))
        inputs = shared + 0.4 * rng.normal(size=shared.shape)  # inputs that go together
        cases.append((3 * rng.normal(size=size), inputs.T @ inputs))
    return cases


def _codes() -> list[tuple[list[int], int]]:
    rng = np.random.default_rng(7)
    return [
        (list(range(8)), 4),
        (list(range(15, -1, -1)), 4),
        *((rng.integers(0, 1 << bits, 32).tolist(), bits) for bits in (3, 2, 8, 4)),
    ]


def _sizes() -> list[tuple[int, int, int]]:
    return [(4, 128, 4096), (4, 32, 256), (3, 128, 768), (2, 64, 11008), (8, 128, 2048)]


def _nearest(row: Floats, hessian: Floats) -> Floats:
    return np.rint(row)


def _wrong_sign(row: Floats, hessian: Floats) -> Floats:
    row = row.copy()
    for i in range(len(row)):
        change = np.rint(row[i]) - row[i]
        row[i] += change
        row[i + 1 :] += change * np.linalg.solve(hessian[i + 1 :, i + 1 :], hessian[i + 1 :, i])
    return row


def _each_alone(row: Floats, hessian: Floats) -> Floats:
    row = row.copy()
    for i in range(len(row)):
        change = np.rint(row[i]) - row[i]
        row[i] += change
        row[i + 1 :] -= change * hessian[i + 1 :, i] / np.diagonal(hessian)[i + 1 :]
    return row


def _next_only(row: Floats, hessian: Floats) -> Floats:
    row = row.copy()
    for i in range(len(row)):
        change = np.rint(row[i]) - row[i]
        row[i] += change
        row[i + 1 : i + 2] -= change * hessian[i, i + 1 : i + 2] / np.diagonal(hessian)[i + 1 :][:1]
    return row


def _one_inverse(row: Floats, hessian: Floats) -> Floats:
    row, inverse = row.copy(), np.linalg.inv(hessian)
    for i in range(len(row)):
        change = np.rint(row[i]) - row[i]
        row[i] += change
        row[i + 1 :] += change * inverse[i, i + 1 :] / inverse[i, i]
    return row


def _first_highest(codes: Sequence[int], bits: int) -> list[int]:
    stream = 0
    for code in codes:
        stream = stream << bits | code
    total = len(codes) * bits
    return [(stream >> (total - at)) & _MASK for at in range(32, total + 1, 32)]


def _never_cut(codes: Sequence[int], bits: int) -> list[int]:
    each = 32 // bits
    parts = [codes[at : at + each] for at in range(0, len(codes), each)]
    return [sum(code << (i * bits) for i, code in enumerate(part)) for part in parts]


def _signed(codes: Sequence[int], bits: int) -> list[int]:
    return [word - (1 << 32) if word >> 31 else word for word in pack_by_hand(codes, bits)]


def _without_zeros(bits: int, group_size: int, rows: int) -> float:
    return bits + 16 / group_size + 32 / rows


def _wide_scales(bits: int, group_size: int, rows: int) -> float:
    return bits + (32 + bits) / group_size + 32 / rows


def _without_g_idx(bits: int, group_size: int, rows: int) -> float:
    return bits + (16 + bits) / group_size


def _g_idx_for_each_group(bits: int, group_size: int, rows: int) -> float:
    return bits + (16 + bits + 32) / group_size


def _g_idx_for_each_weight(bits: int, group_size: int, rows: int) -> float:
    return bits + (16 + bits) / group_size + 32


EXERCISES = [
    Exercise(
        name="round_in_turn",
        prompt=(
            "Write round_in_turn(row, hessian): round the numbers of `row` (an array [n]) to whole "
            "ones, from first to last. After each, change all those that follow so that the loss "
            "e H e^T is as small as it can still be. `hessian` is [n, n]. Return the rounded row."
        ),
        reference=round_in_turn,
        make_cases=_rows,
        hint=(
            "change = np.rint(row[i]) - row[i]. Let r be slice(i + 1, None). The best change of "
            "row[r] is -change * np.linalg.solve(hessian[r, r], hessian[r, i])."
        ),
        nudge="Round one weight. Which weights are still free, and which part of H is theirs?",
        mistakes=(
            Mistake(
                _nearest,
                "That is plain rounding: nothing has made up for the errors yet.",
            ),
            Mistake(
                _wrong_sign,
                "The later ones move the wrong way: they add to the error instead of making up "
                "for it. Turn the sign round.",
            ),
            Mistake(
                _each_alone,
                "You let each later number make up for the whole error, as if it were the only "
                "one. They do it together: solve with the block hessian[r, r], not with its "
                "diagonal.",
            ),
            Mistake(
                _next_only,
                "Only the next number makes up for the error. All that follow can help.",
            ),
            Mistake(
                _one_inverse,
                "Right for the first number. Then the inverse must be that of what is still free: "
                "inv(hessian) also lets numbers move that are rounded already.",
            ),
        ),
    ),
    Exercise(
        name="pack_by_hand",
        prompt=(
            "Write pack_by_hand(codes, bits): lay the codes, whole numbers of `bits` bits, one "
            "after another into 32-bit words, the first code in the lowest bits of the first word. "
            "Return the words as a list of whole numbers from 0 to 2**32 - 1."
        ),
        reference=pack_by_hand,
        make_cases=_codes,
        hint=(
            "A Python number has as many bits as you like: add up code << (i * bits) over all "
            "codes, then cut off 32 bits at a time with & 0xFFFFFFFF and >> 32."
        ),
        nudge="Write all codes into one long number first. Where does code i begin in it?",
        mistakes=(
            Mistake(_first_highest, "The order is turned round: the first code is lowest."),
            Mistake(
                _never_cut,
                "Right where the bits divide 32. A code of 3 bits may begin in one word and end in "
                "the next: no bit is left free.",
            ),
            Mistake(
                _signed,
                "The right bits, read as numbers with a sign. Here they go from 0 to 2**32 - 1.",
            ),
        ),
    ),
    Exercise(
        name="gptq_bits",
        prompt=(
            "Write gptq_bits(bits, group_size, rows): the bits a weight of a GPTQ file for a "
            "weight matrix with so many rows (output channels). Count codes, scales (fp16), "
            "zero-points (packed like codes) and g_idx (an int32 for each column)."
        ),
        reference=gptq_bits,
        make_cases=_sizes,
        hint=(
            "A group of weights shares one scale and one zero-point. An entry of g_idx serves a "
            "whole column, that is one weight of each row."
        ),
        nudge="For each of the four parts: how many weights share one of it?",
        mistakes=(
            Mistake(_without_zeros, "Zero-points are stored too, also where all of them are 8."),
            Mistake(_wide_scales, "The scales are fp16: 16 bits."),
            Mistake(_without_g_idx, "Almost: g_idx is missing, 32 bits for each column."),
            Mistake(
                _g_idx_for_each_group,
                "g_idx has an entry for each column, not for each group: divide its 32 bits by the "
                "rows.",
            ),
            Mistake(
                _g_idx_for_each_weight,
                "g_idx has one entry for a whole column: divide its 32 bits by the rows.",
            ),
        ),
        rtol=1e-9,
    ),
]
