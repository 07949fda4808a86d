"""A learner's answer: is it there at all, is it the expected one, how does it read?

Answers are numbers, text, arrays, tensors, and tuples, lists, dicts and sets of these. The learner
may return a list where the solution returns an array, or a Python number for a numpy one: what
counts is the values and the shape.
"""

from __future__ import annotations

from collections.abc import Mapping
from typing import Any

import numpy as np

# A result is printed to about this many characters: enough to compare, short enough to read.
_READABLE = 160


def is_blank(answer: Any) -> bool:
    """True for None, `...` and for a tuple or list with such a gap."""
    if isinstance(answer, (tuple, list)):
        return any(is_blank(part) for part in answer)
    return answer is None or answer is Ellipsis


def same_answer(expected: Any, got: Any, rtol: float, atol: float) -> bool:
    """Does `got` hold the expected values, each within `atol + rtol * |expected|`?

    NaN is expected where the solution has NaN. Sets compare without order. What cannot be read as
    the expected kind of thing at all is simply not the same.
    """
    if isinstance(expected, str):
        return isinstance(got, str) and got == expected
    if isinstance(expected, (set, frozenset)):
        return isinstance(got, (set, frozenset, list, tuple)) and _as_set(got) == expected
    if isinstance(expected, Mapping):
        return (
            isinstance(got, Mapping)
            and got.keys() == expected.keys()
            and all(same_answer(expected[key], got[key], rtol, atol) for key in expected)
        )
    if isinstance(expected, tuple):
        return (
            isinstance(got, (tuple, list))
            and len(got) == len(expected)
            and all(same_answer(e, g, rtol, atol) for e, g in zip(expected, got, strict=True))
        )
    wanted, given = _as_numbers(expected), _as_numbers(got)
    if wanted is None or given is None or wanted.shape != given.shape:
        return False
    return bool(np.allclose(given, wanted, rtol=rtol, atol=atol, equal_nan=True))


def as_text(value: Any) -> str:
    """The value on one line, cut to a readable length, its numbers in full precision."""
    if isinstance(value, tuple):
        text = "(" + ", ".join(as_text(part) for part in value) + ("," * (len(value) == 1)) + ")"
    elif isinstance(value, (set, frozenset)):
        text = "{" + ", ".join(sorted(as_text(part) for part in value)) + "}" if value else "set()"
    elif isinstance(value, np.generic):
        text = f"{value.item()!r}" if value.dtype.kind in "iub" else str(value)
    elif isinstance(value, np.ndarray):
        text = np.array2string(
            value, separator=", ", floatmode="unique", threshold=8, max_line_width=10**6
        )
        text = f"{' '.join(text.split())} ({value.dtype})"
    elif callable(value):
        text = getattr(value, "__name__", type(value).__name__)
    else:
        text = _safe_repr(value)
    return text if len(text) <= _READABLE else text[: _READABLE - 4] + " ..."


def _safe_repr(value: Any) -> str:
    try:
        return " ".join(repr(value).split())
    except Exception:  # a learner's own class may not know how to print itself
        return f"a {type(value).__name__}"


def _as_set(values: Any) -> set[Any] | None:
    try:
        return set(values)
    except TypeError:  # something in it cannot be in a set, so it is not the expected one
        return None


def _as_numbers(value: Any) -> np.ndarray | None:
    """An array of the value's numbers, whole ones kept whole; None where it has none."""
    if hasattr(value, "detach"):  # a torch tensor
        value = value.detach().cpu()
        value = value.float().numpy() if value.is_floating_point() else value.numpy()
    try:
        array = np.asarray(value)
    except Exception:  # lists of several lengths, and whatever a learner's own class does
        return None
    if array.dtype.kind not in "fiub":
        return None
    return array.astype(np.float64) if array.dtype.kind == "f" else array
