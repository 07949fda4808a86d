"""Paired tests: right numbers, few false alarms, and the power that theory promises."""

from __future__ import annotations

import math
import random
from dataclasses import replace

import numpy as np
import pytest

from lessonkit.errors import LessonkitError
from lessonkit.evaluate.paired import _t_quantile, _t_within, compare, holm, mcnemar
from lessonkit.evaluate.perplexity import Perplexity
from lessonkit.evaluate.protocols import gptq, word_perplexity


def result(window_nll, window_scored=None, **changes) -> Perplexity:
    scored = tuple(window_scored or [31] * len(window_nll))
    made = Perplexity(
        mean_nll=math.fsum(m * n for m, n in zip(window_nll, scored, strict=True)) / sum(scored),
        mean_square=0.0,
        scored=sum(scored),
        words=100,
        bytes=500,
        protocol=gptq(32),
        text="sample/test/en",
        split="test",
        sha256="0" * 64,
        dtype="float32",
        window_nll=tuple(map(float, window_nll)),
        window_scored=scored,
    )
    return replace(made, **changes)


# --- perplexities ------------------------------------------------------------------------------


@pytest.mark.parametrize(
    ("freedom", "quantile"),  # any table of Student's t, two-sided 95 %
    [(1, 12.706), (2, 4.303), (3, 3.182), (4, 2.776), (10, 2.228), (23, 2.069), (1000, 1.962)],
)
def test_students_t(freedom, quantile):
    assert _t_quantile(0.95, freedom) == pytest.approx(quantile, abs=5e-4)
    assert _t_within(_t_quantile(0.95, freedom), freedom) == pytest.approx(0.95, abs=1e-12)
    assert _t_within(0, freedom) == 0


def test_by_hand():
    """Differences .1, .2, .3: mean .2, error .1/sqrt(3), t = 3.4641 on 2 degrees: p = .0742."""
    found = compare(result([2.0, 3.0, 1.0]), result([2.1, 3.2, 1.3]))
    assert found.mean == pytest.approx(0.2)
    assert found.error == pytest.approx(0.1 / math.sqrt(3))
    assert found.p == pytest.approx(0.0742, abs=5e-5) and not found.real
    assert (found.low, found.high) == pytest.approx((0.2 - 0.24841, 0.2 + 0.24841), abs=1e-4)
    assert found.ratio == pytest.approx(math.exp(0.2))
    assert found.ratio_error == pytest.approx(math.exp(0.2) * found.error)
    assert str(found) == (
        "perplexity × 1.2214 ± 0.0705, +0.2000 nats a token (95 %: -0.0484 to +0.4484; "
        "3 windows): may be chance (p = 0.07)"
    )


def test_windows_of_unequal_length_weigh_by_their_tokens():
    a = result([2.0, 3.0, 1.0, 2.0], [10, 20, 30, 40])
    b = result([2.1, 3.0, 1.2, 2.3], [10, 20, 30, 40])
    found = compare(a, b)
    assert found.mean == pytest.approx(b.mean_nll - a.mean_nll)
    assert found.mean == pytest.approx((0.1 * 10 + 0.2 * 30 + 0.3 * 40) / 100)
    residuals = [
        n * (d - found.mean) for n, d in zip(a.window_scored, (0.1, 0, 0.2, 0.3), strict=True)
    ]
    expected = math.sqrt(sum(r * r for r in residuals) / (4 * 3)) / 25
    assert found.error == pytest.approx(expected)


def test_by_word_the_ratio_is_that_of_the_word_perplexities():
    a = result([2.0, 3.0, 1.0], protocol=word_perplexity(32))
    b = result([2.1, 3.2, 1.3], protocol=word_perplexity(32))
    found = compare(a, b)
    assert found.unit == "word" and "nats a word" in str(found)
    assert found.ratio == pytest.approx(b.value / a.value)


def test_a_model_against_itself_and_a_constant_shift():
    a = result([2.0, 3.0, 1.0])
    same = compare(a, a)
    assert (same.mean, same.error, same.p, same.ratio) == (0, 0, 1, 1) and not same.real
    shifted = compare(result([1.0, 2.0]), result([1.5, 2.5]))
    assert shifted.p == 0 and shifted.real and "p < 0.0001" in str(shifted)
    assert compare(a, result([2000.0, 3000.0, 9000.0])).ratio == math.inf


def test_chance_alone_raises_the_alarm_in_5_per_cent():
    """2,000 pairs without a difference: 100 alarms expected, sd 9.7; the bounds are 4 sd."""
    rng = np.random.default_rng(0)
    alarms = 0
    for _ in range(2000):
        hard = rng.normal(3, 1, 24)  # windows differ far more than models do
        a, b = (result(hard + rng.normal(0, 0.05, 24)) for _ in range(2))
        alarms += compare(a, b).real
    assert 61 <= alarms <= 139


def test_a_true_shift_is_found_as_often_as_theory_says():
    """A shift of 3 standard errors, 24 windows: a power of about .81, drawn below without our
    code. 1,000 trials; the bounds are 4 sd (12.3) around it.
    """
    rng = np.random.default_rng(1)
    sd, count = 0.05 * math.sqrt(2), 24
    shift = 3 * sd / math.sqrt(count)
    found = inside = 0
    for _ in range(1000):
        hard = rng.normal(3, 1, count)
        a = result(hard + rng.normal(0, 0.05, count))
        b = result(hard + shift + rng.normal(0, 0.05, count))
        difference = compare(a, b)
        found += difference.real
        inside += difference.low <= shift <= difference.high
    draws = np.random.default_rng(2).normal(3 / math.sqrt(count), 1, (20_000, count))
    t = draws.mean(1) / (draws.std(1, ddof=1) / math.sqrt(count))
    power = float((abs(t) > 2.0687).mean())
    assert 0.78 < power < 0.85
    assert abs(found - 1000 * power) < 4 * 12.3
    assert 950 - 4 * 6.9 <= inside <= 950 + 4 * 6.9, "the interval covers the truth in 95 %"


def test_unpaired_the_same_shift_would_drown():
    """llama.cpp's own error bars, or any that ignore the pairs, are wider by a factor of ten."""
    rng = np.random.default_rng(3)
    hard = rng.normal(3, 1, 24)
    paired = compare(result(hard), result(hard + 0.05 + rng.normal(0, 0.05, 24)))
    assert paired.real and paired.error < hard.std(ddof=1) / math.sqrt(24) / 10


def test_what_does_not_pair():
    a = result([2.0, 3.0])
    for other in (
        result([2.0, 3.0], protocol=gptq(64)),
        result([2.0, 3.0], sha256="1" * 64),
        result([2.0, 3.0, 1.0]),
        result([2.0, 3.0], [30, 32]),
    ):
        with pytest.raises(LessonkitError) as caught:
            compare(a, other)
        assert caught.value.remedy
    with pytest.raises(LessonkitError, match="two windows"):
        compare(result([2.0]), result([2.0]))


# --- answers -----------------------------------------------------------------------------------


@pytest.mark.parametrize(
    ("lost", "gained", "p"),
    [(0, 0, 1), (1, 0, 1), (5, 0, 2 / 32), (6, 0, 2 / 64), (3, 3, 1), (9, 1, 22 / 1024)],
)
def test_mcnemar_by_hand(lost, gained, p):
    a = [True] * lost + [False] * gained + [True] * 7 + [False] * 5
    b = [False] * lost + [True] * gained + [True] * 7 + [False] * 5
    found = mcnemar(a, b)
    assert (found.lost, found.gained, found.flips) == (lost, gained, lost + gained)
    assert found.asked == lost + gained + 12
    assert found.p == pytest.approx(p)
    assert found.real == (p < 0.05)


def test_mcnemar_prints_a_line():
    assert str(mcnemar([True] * 9 + [False], [False] * 9 + [True])) == (
        "9 answers lost, 1 gained, of 10: a real difference (p = 0.02)"
    )


def test_mcnemar_is_exact_so_it_alarms_in_at_most_5_per_cent():
    """1,000 pairs: each of 40 answers flips with .5, either way alike; 4 sd (6.9) above 50."""
    rng, alarms = random.Random(0), 0
    for _ in range(1000):
        a = [rng.random() < 0.5 for _ in range(40)]
        b = [rng.random() < 0.5 for _ in range(40)]
        alarms += mcnemar(a, b).real
    assert 5 <= alarms <= 50 + 28


def test_mcnemar_finds_a_loss():
    rng = random.Random(1)
    a = [rng.random() < 0.9 for _ in range(400)]
    b = [known and rng.random() < 0.95 for known in a]
    assert mcnemar(a, b).real and mcnemar(a, b).p < 1e-4


def test_mcnemar_wants_the_same_questions():
    for a, b in (([True], [True, False]), ([], [])):
        with pytest.raises(LessonkitError, match="same questions"):
            mcnemar(a, b)


# --- several comparisons -----------------------------------------------------------------------


def test_holm_by_hand():
    assert holm([0.01, 0.04, 0.03, 0.005]) == pytest.approx([0.03, 0.06, 0.06, 0.02])
    assert holm([0.6, 0.7]) == [1, 1] and holm([]) == [] and holm([0.2]) == [0.2]


def test_holm_keeps_the_family_at_5_per_cent():
    rng = np.random.default_rng(0)
    p_values = rng.random((2000, 10))
    plain = (p_values.min(1) < 0.05).sum()
    corrected = sum(min(holm(list(row))) < 0.05 for row in p_values)
    assert plain > 700 and 61 <= corrected <= 139
