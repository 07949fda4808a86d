"""`check(ours, theirs)`: is our result the production library's, to the bit?

Three verdicts, each one printed line::

    check weights: identical (1,024 values)
    check weights: within 1e-05 (largest difference 3.1e-07)
    check weights: not compared: bitsandbytes is not installed

and a fourth, an error that shows the worst place. What is compared, in this order:

1. Bits. Same kind of values (dtype), same shape, same bits everywhere: `identical`. NaNs
   count as identical only with the same bits; 0.0 and -0.0 are not identical.
2. Values. NaN equals NaN in the same place, infinity equals infinity of the same sign, 0.0 equals
   -0.0. Equal values with other bits pass, and the line says `equal, not identical`.
3. Distance: |ours - theirs| <= atol + rtol * |theirs| everywhere.

Shapes must always agree. Dtypes must agree too, unless a tolerance is given; then the line names
both. Without a tolerance nothing but equal values passes.
"""

from __future__ import annotations

import math
import os
from collections.abc import Mapping
from dataclasses import dataclass
from typing import Any

import numpy as np

from lessonkit.course.leaves import Leaf, leaf_pair
from lessonkit.errors import LessonkitError

REQUIRE_ENGINES = "LESSONKIT_REQUIRE_ENGINES"


class CheckFailed(LessonkitError, AssertionError):
    """Ours and theirs differ by more than the contract allows."""


def check(
    ours: Any,
    theirs: Any,
    *,
    rtol: float = 0.0,
    atol: float = 0.0,
    block: int | None = None,
    name: str | None = None,
    figures: bool = True,
) -> None:
    """Compare two results, print one line, and raise CheckFailed if they differ too much.

    Parameters
    ----------
    ours, theirs:
        Arrays, tensors, numbers, bytes, text, or dicts and lists of these. `theirs` may be a
        function that imports a library and returns its result: where the library is not installed,
        the line says so and nothing is compared. Where the environment variable
        LESSONKIT_REQUIRE_ENGINES is 1 (as in CI), that is an error instead.
    rtol, atol:
        The contract: `|ours - theirs| <= atol + rtol * |theirs|`. Both 0: equal values.
    block:
        Values in one block, counted row by row. The error then names the worst place's block.
    name:
        What is compared, for the line.
    figures:
        False where the largest difference depends on the machine: the line then says only
        `within 1e-05`, even if this machine's result is identical.
    """
    label = "check" if name is None else f"check {name}"
    _refuse_bad_contract(rtol, atol, block)
    if callable(theirs):
        try:
            theirs = theirs()
        except ModuleNotFoundError as error:
            _report_absent(str(error.name).partition(".")[0], label)
            return

    pairs = _pairs(ours, theirs, label)
    results = [_compare(a, b, rtol, atol, label, block) for a, b in pairs]
    print(f"{label}: {_verdict(results, rtol, atol, figures)}")


@dataclass(frozen=True)
class _Result:
    """What comparing two leaves found, once it was within the contract."""

    count: int
    other_bits: int
    largest: float
    dtypes: tuple[str, str]


def _verdict(results: list[_Result], rtol: float, atol: float, figures: bool) -> str:
    count = sum(r.count for r in results)
    other_bits = sum(r.other_bits for r in results)
    largest = max(r.largest for r in results)
    dtypes = sorted({f"{a} against {b}" for r in results for a, b in [r.dtypes] if a != b})
    if not figures and (rtol or atol):
        return f"within {_contract(rtol, atol)}"
    if other_bits == 0 and not dtypes:
        parts = f" in {len(results)} parts" if len(results) > 1 else ""
        return f"identical ({count:,} {'value' if count == 1 else 'values'}{parts})"
    notes = "".join(f"; {text}" for text in dtypes)
    if largest == 0:
        bits = f"{other_bits:,} of {count:,} differ in bits: 0.0 and -0.0, or NaNs"
        return f"equal, not identical ({bits if other_bits else 'same values'}{notes})"
    return f"within {_contract(rtol, atol)} (largest difference {_two_digits(largest)}{notes})"


def _contract(rtol: float, atol: float) -> str:
    absolute, relative = _two_digits(atol), f"{_two_digits(rtol)} of the value"
    if atol and rtol:
        return f"{absolute} + {relative}"
    return absolute if atol else relative


def _compare(
    ours: Leaf, theirs: Leaf, rtol: float, atol: float, label: str, block: int | None
) -> _Result:
    """Compare two leaves; raise CheckFailed at the worst place if outside the contract."""
    label = f"{label}{ours.path}"
    if ours.shape != theirs.shape:
        raise CheckFailed(f"{label}: shapes differ: ours {ours.shape}, theirs {theirs.shape}.")
    dtypes = (ours.dtype, theirs.dtype)
    same_dtype = ours.dtype == theirs.dtype
    if same_dtype and np.array_equal(ours.bits, theirs.bits):
        return _Result(ours.count, 0, 0.0, dtypes)

    difference, allowed = _distance(ours, theirs, rtol, atol)
    if not (difference <= allowed).all():
        raise _failure(ours, theirs, difference, allowed, label, block)
    if not same_dtype and not (rtol or atol):
        raise CheckFailed(
            f"{label}: the values are equal but the dtypes differ: "
            f"ours {ours.dtype}, theirs {theirs.dtype}.",
            remedy="Convert one of them, or allow it by giving a tolerance.",
        )
    other_bits = int((ours.bits != theirs.bits).sum()) if same_dtype else 0
    return _Result(ours.count, other_bits, float(difference.max(initial=0.0)), dtypes)


def _distance(ours: Leaf, theirs: Leaf, rtol: float, atol: float) -> tuple[np.ndarray, np.ndarray]:
    """Flat arrays |ours - theirs| and what is allowed. NaN against a number is infinitely far."""
    a, b = ours.values.reshape(-1), theirs.values.reshape(-1)
    if a.dtype.kind in "iu" and b.dtype.kind in "iu":
        # Unsigned arithmetic wraps, so larger minus smaller is exact even for 64-bit integers.
        low, high = np.where(a < b, a, b), np.where(a < b, b, a)
        difference = (high.astype(np.uint64) - low.astype(np.uint64)).astype(np.float64)
    else:
        with np.errstate(invalid="ignore", over="ignore"):  # casting a signalling NaN is "invalid"
            a, b = a.astype(np.float64), b.astype(np.float64)
            difference = np.abs(a - b)
        difference[np.isnan(difference)] = math.inf
        difference[(a == b) | (np.isnan(a) & np.isnan(b))] = 0.0
    magnitude = np.abs(b.astype(np.float64))
    allowed = atol + rtol * np.where(np.isfinite(magnitude), magnitude, 0.0)
    return difference, allowed


def _failure(
    ours: Leaf,
    theirs: Leaf,
    difference: np.ndarray,
    allowed: np.ndarray,
    label: str,
    block: int | None,
) -> CheckFailed:
    wrong = difference > allowed
    # Bytes and text have no large and small differences: there, the first one tells most.
    place = int(np.argmax(wrong if ours.is_text else difference - allowed))
    share = f"{wrong.sum():,} of {wrong.size:,} values differ ({_percent(wrong.mean())})"
    where = "first at" if ours.is_text else "worst at"
    where = f"{where} {_index(place, ours.shape)}"
    if block is not None:
        starts = np.unique(np.flatnonzero(wrong) // block)
        share += f", in {starts.size:,} of {math.ceil(wrong.size / block):,} blocks of {block}"
        where += f", block {place // block}, place {place % block} in it"
    lines = [
        f"{label}: {share}",
        f"  ours:   {ours.show(place)}",
        f"  theirs: {theirs.show(place)}",
    ]
    if not ours.is_text:
        limit = f", allowed {_two_digits(allowed[place])}" if allowed[place] else ""
        lines.append(f"  apart:  {_two_digits(difference[place])}{limit}")
    return CheckFailed("\n".join(lines), where=where)


def _two_digits(number: float) -> str:
    """Two significant digits, or a whole number: text that is the same on every machine."""
    return f"{number:,.0f}" if number < 1e6 and number == int(number) else f"{number:.2g}"


def _percent(share: float) -> str:
    return f"{100 * share:.2g} %" if share < 0.995 else f"{100 * share:.0f} %"


def _index(place: int, shape: tuple[int, ...]) -> str:
    index = tuple(int(i) for i in np.unravel_index(place, shape)) if shape else ()
    return f"index {index[0] if len(index) == 1 else index}" if index else "the only value"


def _pairs(ours: Any, theirs: Any, label: str) -> list[tuple[Leaf, Leaf]]:
    """The leaves of two results side by side. Other keys or lengths raise CheckFailed."""
    pairs = list(_walk(ours, theirs, "", label))
    if sum(a.count + b.count for a, b in pairs) == 0:
        raise LessonkitError(
            f"{label}: nothing to compare: both sides are empty.",
            remedy="A check of nothing proves nothing: look at how the two were made.",
        )
    return pairs


def _walk(ours: Any, theirs: Any, path: str, label: str) -> list[tuple[Leaf, Leaf]]:
    if isinstance(ours, Mapping) and isinstance(theirs, Mapping):
        _refuse_other_keys(ours, theirs, f"{label}{path}")
        return [p for k in ours for p in _walk(ours[k], theirs[k], f"{path}[{k!r}]", label)]
    if isinstance(ours, (list, tuple)) and isinstance(theirs, (list, tuple)):
        if len(ours) != len(theirs):
            raise CheckFailed(
                f"{label}{path}: lengths differ: ours {len(ours)}, theirs {len(theirs)}."
            )
        both = enumerate(zip(ours, theirs, strict=True))
        return [p for i, (a, b) in both for p in _walk(a, b, f"{path}[{i}]", label)]
    return [leaf_pair(ours, theirs, path, label)]


def _refuse_other_keys(ours: Mapping[Any, Any], theirs: Mapping[Any, Any], label: str) -> None:
    only_ours = [str(k) for k in ours if k not in theirs]
    only_theirs = [str(k) for k in theirs if k not in ours]
    if only_ours or only_theirs:
        raise CheckFailed(
            f"{label}: the names differ: only ours has {', '.join(only_ours) or 'none'}; "
            f"only theirs has {', '.join(only_theirs) or 'none'}."
        )


def _refuse_bad_contract(rtol: float, atol: float, block: int | None) -> None:
    for name, value in (("rtol", rtol), ("atol", atol)):
        if not (value >= 0 and math.isfinite(value)):
            raise LessonkitError(
                f"{name} must be 0 or a positive number.", where=f"{name}={value!r}"
            )
    if block is not None and block < 1:
        raise LessonkitError("A block holds at least one value.", where=f"block={block!r}")


def _report_absent(library: str, label: str) -> None:
    if os.environ.get(REQUIRE_ENGINES) == "1":
        raise LessonkitError(
            f"{label}: {library} is not installed, and {REQUIRE_ENGINES}=1 requires it.",
            remedy=f"Install {library}, or set {REQUIRE_ENGINES}=0.",
        )
    print(f"{label}: not compared: {library} is not installed")
