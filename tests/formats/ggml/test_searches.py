"""The searches, next to plain loops over one group, and their rules at the edges."""

from __future__ import annotations

from collections.abc import Callable

import numpy as np
import pytest

from lessonkit.formats.ggml.searches import nearest, q3, qkx, qp, qx, signed_largest, smallest
from tests.formats.ggml.samples import bell

F = np.float32


@pytest.fixture(autouse=True)
def quiet():
    with np.errstate(all="ignore"):
        yield


def groups(size: int = 16, count: int = 200) -> np.ndarray:
    return bell(11, (size, count)) * F(0.05)


def squared_error(x: np.ndarray, approximation: np.ndarray, weights: np.ndarray) -> np.ndarray:
    return (weights * (x - approximation).astype(np.float64) ** 2).sum(axis=0)


def test_nearest_rounds_half_to_even() -> None:
    x = np.array([-2.5, -1.5, -0.5, 0.5, 1.5, 2.5, 2.4999998, 4194303], F)
    assert list(nearest(x)) == [-2, -2, 0, 0, 2, 2, 2, 4194303]


def test_nearest_beyond_its_reach_gives_what_the_bits_say() -> None:
    x = np.array([np.inf, -np.inf, np.nan, 2.0**23], F)
    assert list(nearest(x)) == [-(2**22), -(2**22), 0, -(2**22) + 2**21]


def test_the_largest_keeps_its_sign_and_the_first_of_equals_wins() -> None:
    x = np.array([[1, 3, 2, -0.0], [-2, -3, -2, -0.0], [1, 3, 0, -0.0]], F)
    largest = signed_largest(x)
    assert list(largest) == [-2, 3, 2, 0]
    assert not np.signbit(largest[3])


def test_the_smallest_zero_has_the_sign_of_the_first() -> None:
    x = np.array([[1, 0.0, -0.0, 2], [-0.0, -0.0, 0.0, 1]], F)
    found = smallest(x)
    assert list(found) == [0, 0, 0, 1]
    assert list(np.signbit(found)) == [True, False, True, False]


def loop_qx(x: list[np.float32], half: int) -> np.float32:
    """The scale, found for one group by a plain loop."""
    largest = max(x, key=abs)  # the first of equals

    def sums(inverse: np.float32) -> tuple[np.float32, np.float32]:
        lx, l2 = F(0), F(0)
        for value in x:
            code = F(min(max(round(float(inverse * value)), -half), half - 1))
            w = value * value
            lx += w * value * code
            l2 += w * code * code
        return lx, l2

    lx, l2 = sums(F(-half) / largest)
    scale = lx / l2
    best = scale * lx
    for k in (*range(-9, 0), *range(1, 10)):
        lx, l2 = sums(-(F(half) + F(0.1) * F(k)) / largest)
        if l2 > 0 and lx * lx > best * l2:
            scale = lx / l2
            best = scale * lx
    return scale


def test_qx_is_the_plain_loop_to_the_bit() -> None:
    x = groups(count=50)
    scale, codes = qx(x, 8)
    assert [float(s) for s in scale] == [float(loop_qx(list(g), 8)) for g in x.T]
    assert codes.min() == 0 and codes.max() <= 15


def test_qx_loses_no_more_than_its_first_try() -> None:
    x = groups()
    w = x * x
    scale, codes = qx(x, 4)
    first = np.clip(np.rint(x * (-4 / signed_largest(x))), -4, 3)
    fitted = (w * x * first).sum(axis=0) / (w * first**2).sum(axis=0)
    found = squared_error(x, scale * (codes.astype(F) - 4), w)
    assert (found <= squared_error(x, fitted * first, w) * (1 + 1e-4)).all()
    assert (found < 0.9 * squared_error(x, fitted * first, w)).mean() > 0.3


def test_qkx_keeps_a_better_minimum_for_later_tries() -> None:
    """Against a loop that forgets it: some groups come out differently, most do not."""
    x, w = groups(32), np.ones((32, 200), F)
    scale, below, codes = qkx(x, 15, w, first=-1.0, step=0.1, steps=20)
    best = squared_error(x, scale * codes - below, w)
    # Single tries, each from the original minimum.
    single = [
        squared_error(x, s * c - b, w)
        for s, b, c in (qkx(x, 15, w, first=-1 + 0.1 * k, step=0, steps=0) for k in range(21))
    ]
    differs = np.abs(best - np.min(single, axis=0)) > 1e-4 * best
    assert 0 < differs.mean() < 0.9


@pytest.mark.parametrize("absolute", [False, True])
def test_qkx_minimises_the_error_it_is_asked_to(absolute: bool) -> None:
    x = groups(32) + F(0.02)
    w = np.abs(x)
    options = {"first": -0.5, "step": 0.1, "steps": 15}
    found = {a: qkx(x, 3, w, **options, absolute=a) for a in (False, True)}

    def error(scale: np.ndarray, below: np.ndarray, codes: np.ndarray) -> float:
        difference = np.abs(x - (scale * codes - below))
        return float((w * (difference if absolute else difference**2)).sum())

    assert error(*found[absolute]) < error(*found[not absolute])


def test_qkx_never_has_a_minimum_above_zero() -> None:
    scale, below, codes = qkx(np.abs(groups(32)) + 1, 15, np.ones((32, 200), F),
                              first=-1.0, step=0.1, steps=20)  # fmt: skip
    assert (below >= 0).all()
    assert (codes.min(axis=0) > 0).any()


@pytest.mark.parametrize("value", [0.0, 0.5, -0.5])
def test_qkx_of_equal_values(value: float) -> None:
    """All negative: scale 0 and the value as minimum. All positive: code 15 each."""
    x = np.full((32, 3), value, F)
    scale, below, codes = qkx(x, 15, np.ones_like(x), first=-1.0, step=0.1, steps=20)
    assert np.allclose(scale * codes - below, x, rtol=1e-6)
    assert (scale == 0).all() == (value <= 0)


def test_q3_changes_codes_only_for_the_better() -> None:
    x = groups()
    w = x * x
    scale, codes = q3(x, 4)
    first = np.clip(np.rint(x * (-4 / signed_largest(x))), -4, 3)
    fitted = (w * x * first).sum(axis=0) / (w * first**2).sum(axis=0)
    found = squared_error(x, scale * (codes.astype(F) - 4), w)
    assert (found <= squared_error(x, fitted * first, w) * (1 + 1e-4)).all()
    assert (codes.astype(F) - 4 != first).any(axis=0).mean() > 0.1


def test_qp_fits_positive_numbers() -> None:
    x = np.abs(groups(8))
    scale, codes = qp(x, 63, np.ones_like(x))
    assert codes.max() <= 63
    assert (np.abs(scale * codes - x) <= 0.6 * scale).all()


def test_qp_lets_a_negative_code_wrap_round_as_ggml_does() -> None:
    x = np.array([[1.0], [-0.1]], F)
    _, codes = qp(x, 15, np.ones_like(x))
    assert codes[0, 0] == 15 and codes[1, 0] > 250


@pytest.mark.parametrize(
    "search",
    [
        lambda x: qx(x, 8),
        lambda x: qx(x, 8, np.ones_like(x)),
        lambda x: q3(x, 4),
        lambda x: qp(x, 15, np.ones_like(x)),
    ],
)
def test_next_to_zero_counts_as_zero(search: Callable) -> None:
    """A group whose largest magnitude is below 1e-15 has scale 0 and codes 0."""
    x = np.array([[0.9e-15, 1.1e-15, 0], [0, 0, 0]], F)
    scale, codes = search(x)
    assert list(scale != 0) == [False, True, False]
    assert not codes[:, [0, 2]].any()


@pytest.mark.parametrize("count", [1, 2, 3, 5, 64])
def test_a_group_does_not_depend_on_its_company(count: int) -> None:
    x = groups(32, 64)
    w = np.abs(x)
    options = {"first": -0.9, "step": 0.05, "steps": 36}
    whole = (*qx(x, 16), *qkx(x, 15, w, **options), *q3(x, 4), *qp(np.abs(x), 63, w))
    y, v = np.ascontiguousarray(x[:, :count]), np.ascontiguousarray(w[:, :count])
    part = (*qx(y, 16), *qkx(y, 15, v, **options), *q3(y, 4), *qp(np.abs(y), 63, v))
    assert all(np.array_equal(p, a[..., :count]) for p, a in zip(part, whole, strict=True))
