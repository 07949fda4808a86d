"""Is the difference real? Tests in pairs, for two models on the same text or questions.

Two models find the same windows hard, so their difference varies far less from window to window
than either perplexity does. A paired test asks of that difference alone: is it more than chance?
"""

from __future__ import annotations

import math
from collections.abc import Sequence
from dataclasses import asdict, dataclass
from typing import Any

from lessonkit.errors import LessonkitError
from lessonkit.evaluate.perplexity import Perplexity, require_comparable

SIGNIFICANT = 0.05


@dataclass(frozen=True)
class Difference:
    """How much worse `b` is than `a`, in nats a unit (token, word or byte): b minus a.

    `low` and `high` bound the mean with 95 % confidence; `p` is the chance of a mean at least so
    far from zero, were there no difference. `ratio` is the perplexity of b over that of a.
    """

    mean: float
    error: float
    low: float
    high: float
    p: float
    windows: int
    unit: str

    @property
    def ratio(self) -> float:
        """Perplexity of b divided by that of a."""
        return math.exp(self.mean) if self.mean < 709 else math.inf

    @property
    def ratio_error(self) -> float:
        """Standard error of the ratio, to first order."""
        return self.ratio * self.error

    @property
    def real(self) -> bool:
        """Is the difference more than chance, at 5 %? For several comparisons, see `holm`."""
        return self.p < SIGNIFICANT

    def as_plain(self) -> dict[str, Any]:
        """All figures and the verdict: as JSON takes it. An infinite ratio is None."""
        ratio = self.ratio if math.isfinite(self.ratio) else None
        return {**asdict(self), "ratio": ratio, "real": self.real}

    def __str__(self) -> str:
        verdict = "a real difference" if self.real else "may be chance"
        return (
            f"perplexity × {self.ratio:.4f} ± {self.ratio_error:.4f}, "
            f"{self.mean:+.4f} nats a {self.unit} (95 %: {self.low:+.4f} to {self.high:+.4f}; "
            f"{self.windows:,} windows): {verdict} ({_p(self.p)})"
        )


def compare(a: Perplexity, b: Perplexity) -> Difference:
    """Test the difference of two perplexities in pairs, window by window: b minus a.

    Student's t for the mean of the windows' differences, weighted by their scored tokens; with
    windows of unequal length it is the usual ratio estimator (Cochran, Sampling Techniques, 6).
    Windows of one text are taken as independent, so this speaks of the text's kind, not of all
    texts. Raises LessonkitError for results that do not compare, or of fewer than two windows.
    """
    require_comparable(a, b)
    if a.window_scored != b.window_scored or a.windows < 2:
        raise LessonkitError(
            "A paired test needs two windows or more, and the same ones for both models.",
            where=f"{a.windows:,} and {b.windows:,} windows",
            remedy="Measure both with the same tokenizer and more windows.",
        )
    count = a.windows
    weights = [scored * count / a.scored for scored in a.window_scored]  # 1 on average
    gaps = [theirs - ours for ours, theirs in zip(a.window_nll, b.window_nll, strict=True)]
    mean = math.fsum(w * gap for w, gap in zip(weights, gaps, strict=True)) / count
    squares = math.fsum((w * (gap - mean)) ** 2 for w, gap in zip(weights, gaps, strict=True))
    error = math.sqrt(squares / (count * (count - 1)))
    p = 1 - _t_within(abs(mean) / error, count - 1) if error > 0 else float(mean == 0)
    reach = _t_quantile(0.95, count - 1) * error
    scale = a.scored / a.units  # from tokens to the protocol's unit
    return Difference(
        mean=mean * scale,
        error=error * scale,
        low=(mean - reach) * scale,
        high=(mean + reach) * scale,
        p=max(0.0, p),
        windows=count,
        unit="byte" if a.protocol.unit == "bit" else a.protocol.unit,
    )


@dataclass(frozen=True)
class Flips:
    """Answers that changed between two models: `lost` were right before, `gained` are now."""

    lost: int
    gained: int
    asked: int
    p: float

    @property
    def flips(self) -> int:
        """Answers that changed, either way."""
        return self.lost + self.gained

    @property
    def real(self) -> bool:
        """Is the balance of lost and gained more than chance, at 5 %?"""
        return self.p < SIGNIFICANT

    def __str__(self) -> str:
        verdict = "a real difference" if self.real else "may be chance"
        return (
            f"{self.lost:,} answers lost, {self.gained:,} gained, of {self.asked:,}: "
            f"{verdict} ({_p(self.p)})"
        )


def mcnemar(a: Sequence[bool], b: Sequence[bool]) -> Flips:
    """McNemar's exact test: do two models know equally much?

    `a` and `b` say of each question whether it was answered right. Questions that both know, or
    both do not, say nothing about the difference. Of the others each model should have about
    half: p is the two-sided binomial probability of a split at least so uneven (McNemar,
    Psychometrika 12, 1947; doubled smaller tail, at most 1).
    """
    if len(a) != len(b) or not len(a):
        raise LessonkitError(
            "The test needs the same questions, at least one, answered by both models.",
            where=f"{len(a):,} and {len(b):,} answers",
            remedy="Ask both models the same list.",
        )
    lost = sum(bool(x) and not y for x, y in zip(a, b, strict=True))
    gained = sum(bool(y) and not x for x, y in zip(a, b, strict=True))
    n = lost + gained
    tail = sum(math.comb(n, k) for k in range(min(lost, gained) + 1))
    return Flips(lost, gained, len(a), min(1.0, 2 * tail / 2**n))


def holm(p_values: Sequence[float]) -> list[float]:
    """Holm's correction: p-values to hold against 5 % when several comparisons are made at once.

    Twenty harmless comparisons give a "significant" one by chance. The smallest of m values is
    multiplied by m, the next by m - 1, and so on; none becomes smaller than the one before it,
    or larger than 1 (Holm, Scandinavian Journal of Statistics 6, 1979). Same order as given.
    """
    adjusted = [0.0] * len(p_values)
    largest = 0.0
    for rank, i in enumerate(sorted(range(len(p_values)), key=lambda i: p_values[i])):
        largest = max(largest, min(1.0, (len(p_values) - rank) * p_values[i]))
        adjusted[i] = largest
    return adjusted


def _t_within(t: float, freedom: int) -> float:
    """P(|T| <= t) of Student's distribution with `freedom` degrees, an integer: a finite sum.

    Abramowitz and Stegun, Handbook of Mathematical Functions, 26.7.3 and 26.7.4.
    """
    angle = math.atan2(t, math.sqrt(freedom))
    sine, square = math.sin(angle), math.cos(angle) ** 2
    odd = freedom % 2
    term, total = (math.cos(angle) if odd else 1.0), 0.0
    for k in range(1 + odd, freedom, 2):
        total += term
        term *= square * k / (k + 1)
    return 2 / math.pi * (angle + sine * total) if odd else sine * total


def _t_quantile(confidence: float, freedom: int) -> float:
    """The t that |T| stays below with that probability, found by halving."""
    low, high = 0.0, 1.0
    while _t_within(high, freedom) < confidence:
        high *= 2
    for _ in range(60):
        middle = (low + high) / 2
        low, high = (low, middle) if _t_within(middle, freedom) >= confidence else (middle, high)
    return high


def _p(p: float) -> str:
    return "p < 0.0001" if p < 0.0001 else f"p = {p:.4f}" if p < 0.01 else f"p = {p:.2f}"
