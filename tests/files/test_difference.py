"""Values that changed are counted right, and what is far apart is never called near."""

from __future__ import annotations

import numpy as np
import pytest
import torch
from hypothesis import given
from hypothesis import strategies as st

from lessonkit.files.difference import Difference, is_cast, measure, same_bytes
from lessonkit.files.dtypes import bits_of, cast, to_float32

INF, NAN = np.inf, np.nan


def test_measure_counts_by_hand() -> None:
    a = np.array([1.0, 1.0, 2.0, np.nan, 65504.0, 0.0], "<f4")
    b = np.array([1.0, 1.0 + 2**-22, 2.0 - 2**-20, np.nan, np.inf, -0.0], "<f4")
    difference = measure(a, "F32", b, "F32")
    assert (difference.count, difference.changed, difference.overflowed) == (6, 3, 1)
    assert difference.largest == 2**-20
    assert difference.ulps == 4  # at 2.0 one ulp is 2**-22
    assert str(difference) == "3 of 6 values changed, at most 4 ulp, 1 overflowed"


def test_the_dtype_trap_of_the_field_notes() -> None:
    """fp16 to bf16 drops three mantissa bits: 7 of 8 values change, by at most 4 ulp."""
    normal = torch.randn(200_000, generator=torch.Generator().manual_seed(0)) * 0.02
    half = bits_of(normal.half())[0]
    there = measure(half, "F16", cast(half, "F16", "BF16"), "BF16")
    assert there.changed / there.count == pytest.approx(0.874, abs=0.005)
    assert there.ulps == 4
    brain = bits_of(normal.bfloat16())[0]
    back = measure(brain, "BF16", cast(brain, "BF16", "F16"), "F16")
    assert back.changed / back.count < 0.0005


@pytest.mark.parametrize(
    ("a", "b", "changed", "overflowed", "unbounded"),
    [
        ([1.0], [INF], 1, 1, 1),
        ([1.0], [NAN], 1, 0, 1),
        ([INF], [1.0], 1, 0, 1),
        ([INF], [-INF], 1, 0, 1),
        ([NAN], [0.0], 1, 0, 1),
        ([NAN, INF, -0.0], [NAN, INF, 0.0], 0, 0, 0),
        ([1.0, 2.0, 3.0], [1.0, NAN, 4.0], 2, 0, 1),
    ],
)
def test_what_has_no_distance(
    a: list[float], b: list[float], changed: int, overflowed: int, unbounded: int
) -> None:
    found = measure(np.array(a, "<f4"), "F32", np.array(b, "<f4"), "F32")
    assert (found.changed, found.overflowed, found.unbounded) == (changed, overflowed, unbounded)
    assert np.isfinite(found.largest)
    assert ("infinite or NaN" in str(found)) == (unbounded > overflowed)


@pytest.mark.parametrize(
    ("dtype", "values"),
    [("F16", [1.0, 6e-8, 6e-5, 60000.0]), ("BF16", [1.0, 1e-40, 1e38]), ("F64", [1.0, 5e-324])],
)
def test_an_ulp_is_the_step_to_the_next_number(dtype: str, values: list[float]) -> None:
    kinds = {"F16": torch.float16, "BF16": torch.bfloat16, "F64": torch.float64}
    bits, _ = bits_of(torch.tensor(values, dtype=torch.float64).to(kinds[dtype]))
    up = (bits.view(f"u{bits.itemsize}") + 1).view(bits.dtype)
    for one, other in zip(bits, up, strict=True):
        found = measure(np.array([one]), dtype, np.array([other]), dtype)
        assert (found.changed, found.ulps) == (1, 1)


@given(st.lists(st.floats(width=32), max_size=20), st.sampled_from(["F16", "BF16", "F64"]))
def test_what_was_rounded_is_known_to_be(values: list[float], target: str) -> None:
    source = np.array(values, "<f4")
    rounded = cast(source, "F32", target)
    assert is_cast(source, "F32", rounded, target)
    if values:
        other = rounded.copy()
        other.view("u1")[0] ^= 1
        assert not is_cast(source, "F32", other, target)


def test_differences_add_up() -> None:
    one, other = Difference(4, 2, 0.5, 3, 1, 1), Difference(6, 1, 0.25, 9, 0, 1)
    assert one + other == Difference(10, 3, 0.5, 9, 1, 2)
    assert str(one + other).startswith("3 of 10 values changed, at most 9 ulp, 1 overflowed, 1 be")
    assert one + Difference(0) == one


def test_many_values_are_measured_on_several_threads() -> None:
    """F16 keeps fewer digits of small numbers, and none of large ones."""
    values = np.random.default_rng(1).standard_normal(700_000).astype("<f4") * np.float32(1e-4)
    values[[5, 400_000, 699_999]] = 1e6, np.nan, np.inf
    bits = cast(values, "F32", "BF16")
    rounded = cast(bits, "BF16", "F16")
    exact = to_float32(bits, "BF16").astype(np.float64)
    with np.errstate(invalid="ignore"):
        apart = np.abs(rounded.astype(np.float64) - exact)
    found = measure(bits, "BF16", rounded, "F16")
    assert found.count == 700_000
    assert (found.overflowed, found.unbounded) == (1, 1)
    assert found.changed == np.count_nonzero(apart > 0)
    assert found.largest == apart[np.isfinite(apart)].max() > 0
    assert found == sum(
        (measure(bits[i : i + 999], "BF16", rounded[i : i + 999], "F16")
         for i in range(0, 700_000, 999)), Difference(0),
    )  # fmt: skip


def test_pieces_meet_without_a_gap(monkeypatch: pytest.MonkeyPatch) -> None:
    from lessonkit.files import difference

    monkeypatch.setattr(difference, "_CHUNK", 4)
    zeros = np.zeros(10, "<f4")
    for place in range(10):
        other = zeros.copy()
        other[place] = 1
        assert not same_bytes(zeros, other)
        assert not is_cast(zeros, "F32", other, "F32")
        assert measure(zeros, "F32", other, "F32").changed == 1
    assert same_bytes(zeros, zeros.copy())
    assert not same_bytes(zeros, zeros[:8]) and not same_bytes(zeros, -zeros)
