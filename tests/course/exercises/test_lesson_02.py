"""The references of lesson 02 against the library and against bitsandbytes."""

from __future__ import annotations

import numpy as np
import pytest

from lessonkit.course.exercises import lesson_02
from lessonkit.formats import SCALE_BITS, bits_per_weight
from lessonkit.formats.blockwise import quantize_blockwise, unpack_nibbles
from lessonkit.formats.codebooks import NF4


def test_the_lesson_has_its_exercises() -> None:
    names = [exercise.name for exercise in lesson_02.EXERCISES]
    assert names == ["nearest_codes", "better_format", "four_bit_cost"]


def test_nearest_codes_are_the_librarys_also_at_ties() -> None:
    torch = pytest.importorskip("torch")
    random = np.random.default_rng(0).uniform(-1, 1, 4000).astype(np.float32)
    x = np.concatenate([[1.0], NF4.thresholds, random]).astype(np.float32)[:4000]
    theirs = quantize_blockwise(torch.from_numpy(x), NF4, 4000).codes().numpy()
    assert (lesson_02.nearest_codes(x, lesson_02.LEVELS["nf4"]) == theirs).all()


def test_nearest_codes_are_those_of_bitsandbytes() -> None:
    torch = pytest.importorskip("torch")
    bnb = pytest.importorskip("bitsandbytes.functional")
    random = np.random.default_rng(1).uniform(-1, 1, 4096).astype(np.float32)
    random[0], random[1:16] = 1.0, NF4.thresholds
    packed, _ = bnb.quantize_4bit(torch.from_numpy(random), blocksize=4096, quant_type="nf4")
    theirs = unpack_nibbles(packed, 4096).numpy()
    assert (lesson_02.nearest_codes(random, lesson_02.LEVELS["nf4"]) == theirs).all()


def test_each_format_wins_somewhere() -> None:
    winners = [lesson_02.better_format(*case) for case in lesson_02._histograms()]
    assert winners[0] == "nf4" and winners[1] == "int4"
    assert winners.count("nf4") > 1 and winners.count("int4") > 1


@pytest.mark.parametrize("block", [32, 64, 128, 4096])
@pytest.mark.parametrize("double", [False, True])
def test_cost_is_the_librarys(block: int, double: bool) -> None:
    expected = bits_per_weight(4, block, scale_bits=SCALE_BITS if double else 32)
    assert lesson_02.four_bit_cost(block, double) == expected


def test_cost_worked_by_hand() -> None:
    assert lesson_02.four_bit_cost(64, False) == 4.5
    assert round(lesson_02.four_bit_cost(64, True), 3) == 4.127
