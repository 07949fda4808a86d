"""Lesson 00: the references, worked by hand and against the formats themselves."""

from __future__ import annotations

import re

import pytest

from lessonkit.course.exercises.lesson_00 import (
    BITS_PER_WEIGHT,
    EXERCISES,
    bytes_of_model,
    formats_that_fit,
    largest_that_fits,
)


@pytest.mark.parametrize(
    ("parameters", "bits", "bytes_needed"),
    [
        (7_000_000_000, 32, 28_000_000_000),
        (7_000_000_000, 16, 14_000_000_000),
        (7_000_000_000, 8, 7_000_000_000),
        (7_000_000_000, 4, 3_500_000_000),
        (1, 32, 4),
        (1, 1, 1),
        (2, 4, 1),
        (3, 4, 2),  # 12 bits
        (5, 3, 2),  # 15 bits
        (8, 3, 3),  # 24 bits: nothing to round
        (0, 16, 0),
    ],
)
def test_bytes_of_model(parameters: int, bits: int, bytes_needed: int) -> None:
    assert bytes_of_model(parameters, bits) == bytes_needed


@pytest.mark.parametrize(
    ("gigabytes", "bits", "parameters"),
    [
        (14, 16, 7_000_000_000),
        (6, 4, 12_000_000_000),
        (6, 4.5, 10_666_666_666),
        (24, 32, 6_000_000_000),
        (0.5, 3, 1_333_333_333),
    ],
)
def test_largest_that_fits(gigabytes: float, bits: float, parameters: int) -> None:
    assert largest_that_fits(gigabytes, bits) == parameters
    assert type(largest_that_fits(gigabytes, bits)) is int


def test_one_more_parameter_would_not_fit() -> None:
    for gigabytes, bits in ((14, 16), (6, 4), (1, 3), (0.5, 7)):
        largest = largest_that_fits(gigabytes, bits)
        assert largest * bits <= gigabytes * 8e9 < (largest + 1) * bits


def test_formats_that_fit() -> None:
    # 6 GB are 48e9 bits; 48e9 / 7e9 is 6.857 bits a weight.
    assert formats_that_fit() == {"Q6_K", "Q5_0", "NF4", "Q4_0"}


def test_the_bits_of_the_ggml_formats_are_ggmls() -> None:
    gguf = pytest.importorskip("gguf")
    for name in ("BF16", "Q8_0", "Q6_K", "Q5_0", "Q4_0"):
        weights, size = gguf.GGML_QUANT_SIZES[gguf.GGMLQuantizationType[name]]
        assert BITS_PER_WEIGHT[name] == 8 * size / weights


def test_the_prompt_gives_the_bits_that_the_reference_uses() -> None:
    (prompt,) = (e.prompt for e in EXERCISES if e.name == "formats_that_fit")
    told = re.findall(r"([A-Z]+\d+(?:_\w+)?) ([\d.]+\d|\d)", prompt.split("Give the set")[0])
    assert {name: float(bits) for name, bits in told} == BITS_PER_WEIGHT
