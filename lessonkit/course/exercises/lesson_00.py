"""Exercises of lesson 00: how large is a model?"""

from __future__ import annotations

from lessonkit.course.exercises.attempts import Exercise, Mistake

BITS_PER_WEIGHT = {
    "FP32": 32.0,
    "BF16": 16.0,
    "Q8_0": 8.5,
    "INT8": 8.0,
    "Q6_K": 6.5625,
    "Q5_0": 5.5,
    "NF4": 4.5,
    "Q4_0": 4.5,
}
"""Formats of the course and the bits that one weight takes in them, scales included."""


def bytes_of_model(parameters: int, bits: int) -> int:
    """Bytes that hold so many parameters of so many bits each, a last part byte counted whole."""
    return (parameters * bits + 7) // 8


def largest_that_fits(gigabytes: float, bits: float) -> int:
    """The largest number of parameters whose weights fit in so many gigabytes of 10^9 bytes."""
    return int(gigabytes * 1e9 * 8 // bits)


def formats_that_fit() -> set[str]:
    """The formats in which 7 * 10^9 weights take at most 6 * 10^9 bytes."""
    return {name for name, bits in BITS_PER_WEIGHT.items() if 7e9 * bits / 8 <= 6e9}


EXERCISES = [
    Exercise(
        name="bytes_of_model",
        prompt=(
            "Write bytes_of_model(parameters, bits): how many bytes hold that many parameters of "
            "that many bits each? Bits are packed without gaps; the last byte may be part full."
        ),
        reference=bytes_of_model,
        make_cases=lambda: [(7 * 10**9, 16), (7 * 10**9, 4), (1, 32), (3, 4), (5, 3), (3, 3)],
        hint="Count the bits of all parameters, divide by 8, and round up to a whole byte.",
        nudge="How many bits are there in all, and how many in a byte?",
        mistakes=(
            Mistake(lambda n, bits: n * bits, "Those are bits. A byte has 8 of them."),
            Mistake(
                lambda n, bits: n * bits // 8,
                "Almost: 3 parameters of 4 bits are 12 bits, and 12 bits need 2 bytes, not 1.",
            ),
            Mistake(
                lambda n, bits: round(n * bits / 8),
                "Almost: round rounds 9/8 down to 1, but 9 bits do not fit into one byte. Always "
                "up.",
            ),
            Mistake(
                lambda n, bits: n * bits / 8,
                "Almost: no file has half a byte. Round up to a whole one.",
            ),
            Mistake(
                lambda n, bits: n * ((bits + 7) // 8),
                "You give every parameter whole bytes. Two parameters of 4 bits share one byte.",
            ),
        ),
    ),
    Exercise(
        name="largest_that_fits",
        prompt=(
            "Write largest_that_fits(gigabytes, bits): how many parameters of that many bits fit "
            "in so many gigabytes? One gigabyte is 10^9 bytes. Count whole parameters only."
        ),
        reference=largest_that_fits,
        make_cases=lambda: [(14, 16), (6, 4), (6, 4.5), (24, 32), (0.5, 3)],
        hint="Turn gigabytes into bits (times 10^9, times 8), then divide by the bits of one.",
        nudge="Bring both to the same unit first.",
        mistakes=(
            Mistake(
                lambda gigabytes, bits: int(gigabytes * 1e9 // bits),
                "You divide bytes by bits. There are 8 bits in each byte.",
            ),
            Mistake(
                lambda gigabytes, bits: int(gigabytes * 2**30 * 8 // bits),
                "You use 2^30 bytes: that is a gibibyte (GiB). Here a gigabyte (GB) is 10^9 bytes.",
            ),
            Mistake(
                lambda gigabytes, bits: gigabytes * 1e9 * 8 / bits,
                "Almost: part of a parameter is of no use. Round down.",
            ),
            Mistake(
                lambda gigabytes, bits: round(gigabytes * 1e9 * 8 / bits),
                "Almost: round may round up, and then the last parameter does not fit. Round down.",
            ),
        ),
    ),
    Exercise(
        name="formats_that_fit",
        prompt=(
            "Bits per weight: FP32 32, BF16 16, Q8_0 8.5, INT8 8, Q6_K 6.5625, Q5_0 5.5, NF4 4.5, "
            "Q4_0 4.5. Give the set of the formats in which the weights of a model of 7 billion "
            "parameters take at most 6 GB (6 * 10^9 bytes)."
        ),
        reference=formats_that_fit,
        hint="6 GB are 48 billion bits. Shared by 7 billion weights, that is how many bits each?",
        nudge="How many bits may one weight have, if 7 billion of them share 6 GB?",
        mistakes=(
            Mistake(
                {"Q5_0", "NF4", "Q4_0"},
                "You missed one: 7 billion times 6.5625 bits is 5.74 billion bytes.",
            ),
            Mistake(
                {"INT8", "Q6_K", "Q5_0", "NF4", "Q4_0"},
                "One is too large: at 8 bits, 7 billion weights take 7 GB.",
            ),
            Mistake(
                {"FP32", "BF16", "Q8_0", "INT8"},
                "Those are the ones that do not fit. Give the ones that do.",
            ),
        ),
    ),
]
