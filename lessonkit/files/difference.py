"""How far two tensors are apart, counted value by value, in pieces, so that memory stays small."""

from __future__ import annotations

from dataclasses import dataclass

import numpy as np

from lessonkit.files.dtypes import DTYPES, Array, cast, to_float32
from lessonkit.formats.floats import BF16, FP16, FP32, ulp
from lessonkit.formats.threads import pieces, share_out

_FORMATS = {"F16": FP16, "BF16": BF16, "F32": FP32}
_CHUNK = 1 << 17  # values compared at a time, so that memory stays small


@dataclass(frozen=True)
class Difference:
    """How far the values of B are from those of A.

    `changed` values differ; by at most `largest`, which is `ulps` units in the last place of
    A's format, rounded up; `overflowed` values were finite and became infinite; `unbounded`
    ones (those included) have no distance, because one of the two is infinite or NaN.
    """

    count: int
    changed: int = 0
    largest: float = 0.0
    ulps: int = 0
    overflowed: int = 0
    unbounded: int = 0

    def __add__(self, other: Difference) -> Difference:
        """Both taken together."""
        return Difference(
            self.count + other.count,
            self.changed + other.changed,
            max(self.largest, other.largest),
            max(self.ulps, other.ulps),
            self.overflowed + other.overflowed,
            self.unbounded + other.unbounded,
        )

    def __str__(self) -> str:
        text = f"{self.changed:,} of {self.count:,} values changed"
        if self.changed:
            text += f", at most {self.ulps} ulp"
        if self.overflowed:
            text += f", {self.overflowed:,} overflowed"
        lost = self.unbounded - self.overflowed
        return text + (f", {lost:,} became or were infinite or NaN" if lost else "")


def measure(a: Array, a_dtype: str, b: Array, b_dtype: str) -> Difference:
    """Compare two float tensors value by value; NaN equals NaN."""
    a, b = a.reshape(-1), b.reshape(-1)
    found: dict[int, Difference] = {}

    def measure_piece(start: int, stop: int) -> None:
        found[start] = _measure(a[start:stop], a_dtype, b[start:stop], b_dtype)

    share_out(measure_piece, pieces(a.size, _CHUNK))
    return sum(found.values(), Difference(0))


def _measure(a: Array, a_dtype: str, b: Array, b_dtype: str) -> Difference:
    if a_dtype == b_dtype and np.array_equal(a.view("u1"), b.view("u1")):
        return Difference(a.size)
    x, y = to_float32(a, a_dtype), to_float32(b, b_dtype)
    (differs,) = np.nonzero(x != y)  # also two NaNs
    x, y = x[differs].astype(np.float64), y[differs].astype(np.float64)
    other = ~(np.isnan(x) & np.isnan(y))
    x, y = x[other], y[other]
    finite = np.isfinite(x) & np.isfinite(y)
    error = np.abs(y[finite] - x[finite])
    return Difference(
        a.size,
        changed=x.size,
        largest=float(error.max(initial=0.0)),
        ulps=int(np.ceil((error / _ulp(x[finite], a_dtype)).max(initial=0.0))),
        overflowed=int(np.count_nonzero(np.isfinite(x) & np.isinf(y))),
        unbounded=int(np.count_nonzero(~finite)),
    )


def _ulp(values: Array, dtype: str) -> Array:
    """The distance between neighbouring numbers of a format, at these values (float64)."""
    gaps: Array = np.spacing(np.abs(values)) if dtype == "F64" else ulp(values, _FORMATS[dtype])
    return gaps


def same_bytes(a: Array, b: Array) -> bool:
    """Are two flat arrays of one dtype equal to the bit? Compared piece by piece."""
    return a.size == b.size and all(
        np.array_equal(a[start : start + _CHUNK].view("u1"), b[start : start + _CHUNK].view("u1"))
        for start in range(0, a.size, _CHUNK)
    )


def is_cast(a: Array, a_dtype: str, b: Array, b_dtype: str) -> bool:
    """Is B what rounding A gives?"""
    bits = DTYPES[b_dtype].bits
    return all(
        same_bytes(
            cast(a[start : start + _CHUNK], a_dtype, b_dtype),
            b[start : start + _CHUNK].astype(bits, copy=False),
        )
        for start in range(0, a.size, _CHUNK)
    )
