"""The searches for a group's scale: which codes, and which scale, lose least.

A group's codes follow from its scale, and its best scale from its codes. Each search tries
several scales, rounds the values to codes, fits the scale to them by weighted least squares
and keeps what loses least. The names are those of `ggml-quants.c`, less `make_` and
`_quants`; with the same order of float32 operations the bytes are those of a build
without fused multiply-add.

All arrays are float32 [values, groups] or [groups]; see
`lessonkit.formats.ggml.blocks.by_element`. Divisions by zero are expected: call them
under `np.errstate(all="ignore")`.
"""

from __future__ import annotations

from collections.abc import Callable, Iterable

import numpy as np

from lessonkit.formats.ggml.blocks import ordered_sum

F = np.float32

TINY = F(1e-15)
"""A group whose largest magnitude is below this counts as all zeros."""

_MAGIC = F(12582912.0)  # 1.5 * 2^23: adding it leaves a whole number in the lowest bits
_REACH = F(4194303.0)  # nearest() rounds what lies within


def nearest(x: np.ndarray) -> np.ndarray:
    """Round half to even, to int32, and give what ggml's `nearest_int` gives beyond 2^22.

    There, and for NaN and infinity, its bits mean something else; but files depend on it.
    """
    bits = (x + _MAGIC).view(np.int32)
    bits &= np.int32(0x7FFFFF)
    bits -= np.int32(0x400000)
    return bits


def round_within(x: np.ndarray, low: int, high: int) -> np.ndarray:
    """Do what `nearest` does, then clip to [low, high]; changes `x` and returns it, float32."""
    reach = np.maximum(np.maximum.reduce(x, axis=0), -np.minimum.reduce(x, axis=0))
    (beyond,) = np.nonzero(~(reach <= _REACH))  # NaN, too
    strange = nearest(x[:, beyond])
    np.rint(x, out=x)
    x[:, beyond] = strange
    return np.clip(x, F(low), F(high), out=x)


def signed_largest(x: np.ndarray) -> np.ndarray:
    """Return each group's value of largest magnitude, with its sign; of equals the first."""
    high, low = np.maximum.reduce(x, axis=0), np.minimum.reduce(x, axis=0)
    largest: np.ndarray = np.where(high > -low, high, low) + F(0)  # no -0
    (ties,) = np.nonzero((high == -low) & (high > 0))
    if len(ties):
        tied = x[:, ties]
        largest[ties] = tied[np.abs(tied).argmax(axis=0), np.arange(len(ties))]
    return largest


def smallest(x: np.ndarray) -> np.ndarray:
    """Return each group's smallest value; a zero has the sign of the group's first zero."""
    low: np.ndarray = np.minimum.reduce(x, axis=0)
    (zero,) = np.nonzero(low == 0)
    if len(zero):
        some = x[:, zero]
        low[zero] = some[(some == 0).argmax(axis=0), np.arange(len(zero))]
    return low


def qx(
    x: np.ndarray, half: int, weights: np.ndarray | None = None
) -> tuple[np.ndarray, np.ndarray]:
    """Symmetric codes: `x ~ scale * (code - half)`, 0 <= code < 2 * half.

    Tries `-(half + 0.1 k) / largest` for k = 0, then -9 to 9, weighing squared errors by
    `weights`, else by x^2. Returns the scales and the codes, uint8; groups below TINY have
    scale 0 and codes 0.
    """
    largest = signed_largest(x)
    zero = np.abs(largest) < TINY
    largest = np.where(zero, F(1), largest)
    w = x * x if weights is None else weights
    wx = w * x
    code, product = np.empty_like(x), np.empty_like(x)

    def round_to_codes(inverse: np.ndarray) -> None:
        np.multiply(x, inverse, out=code)
        np.rint(code, out=code)
        np.clip(code, F(-half), F(half - 1), out=code)

    def sums(inverse: np.ndarray) -> tuple[np.ndarray, np.ndarray]:
        round_to_codes(inverse)
        np.multiply(w, code, out=product)
        np.multiply(product, code, out=product)
        np.multiply(wx, code, out=code)
        return ordered_sum(code), ordered_sum(product)

    chosen = F(-half) / largest
    sum_lx, sum_l2 = sums(chosen)
    scale = np.where(sum_l2 != 0, sum_lx / sum_l2, F(0))
    best = scale * sum_lx
    for k in [*range(-9, 0), *range(1, 10)]:
        inverse = -(F(half) + F(0.1) * F(k)) / largest
        sum_lx, sum_l2 = sums(inverse)
        better = (sum_l2 > 0) & (sum_lx * sum_lx > best * sum_l2)
        scale = np.where(better, sum_lx / sum_l2, scale)
        best = np.where(better, scale * sum_lx, best)
        chosen = np.where(better, inverse, chosen)
    round_to_codes(chosen)
    codes = (code + F(half)).astype(np.uint8)
    codes[:, zero] = 0
    return np.where(zero, F(0), scale), codes


def qkx(
    x: np.ndarray,
    top: int,
    weights: np.ndarray,
    *,
    first: float,
    step: float,
    steps: int,
    absolute: bool = False,
) -> tuple[np.ndarray, np.ndarray, np.ndarray]:
    """Codes with an offset: `x ~ scale * code - below`, 0 <= code <= top, below >= 0.

    ggml's qkx2 and qkx3, which differ in nothing that shows. Tries the inverse scales
    `(first + step * k + top) / (max - min)` for k = 0 to `steps`, both included. A try
    that is kept replaces `min`, too, so that later tries start from it.

    Errors are squared, or `absolute`. Returns scales, belows and codes (uint8); a group
    of one value has scale 0 and codes 0.
    """
    lowest, high = smallest(x), np.maximum.reduce(x, axis=0)
    low = np.where(lowest > 0, F(0), lowest)
    flat = high == low
    sum_w, sum_x = ordered_sum(weights), ordered_sum(weights * x)
    # Four arrays of this size, and one more for the sums: a cache must hold them.
    shifted, code, product = x - low, np.empty_like(x), np.empty_like(x)

    def spans(low: np.ndarray, at: np.ndarray | slice = np.s_[:]) -> tuple[np.ndarray, bool]:
        """Return max - min, 1 for groups of one value; and whether their codes stay near `top`."""
        span = np.where(flat[at], F(1), high[at] - low)
        # `nearest` differs from rint beyond _REACH, which only numbers next to zero get to; and
        # where the inverse of so small a span is infinite.
        below = np.abs(lowest[at] - low)
        near = below + F(1e-30) <= _REACH / F(4 * (top + 1)) * np.abs(span)
        return span, bool(near.all())

    def round_to_codes(inverse: np.ndarray, near: bool) -> None:
        np.multiply(shifted, inverse, out=code)
        if near:
            np.rint(code, out=code)
        else:
            code[:] = nearest(code)
        np.clip(code, F(0), F(top), out=code)

    def error(scale: np.ndarray, low: np.ndarray) -> np.ndarray:
        """Return the error of `code`, which is used up."""
        np.multiply(code, scale, out=code)
        np.add(code, low, out=code)
        np.subtract(code, x, out=code)
        if absolute:
            np.abs(code, out=code)
        else:
            np.multiply(code, code, out=code)
        np.multiply(code, weights, out=code)
        return ordered_sum(code)

    span, near = spans(low)
    chosen, chosen_low = F(top) / span, low.copy()
    scale = 1 / chosen
    round_to_codes(chosen, near)
    best = error(scale, low)
    square = np.empty_like(x)
    for k in range(steps + 1):
        inverse = (F(first) + F(step) * F(k) + F(top)) / span
        round_to_codes(inverse, near)
        np.multiply(weights, code, out=product)
        sum_l = ordered_sum(product)
        np.multiply(product, code, out=square)
        sum_l2 = ordered_sum(square)
        np.multiply(product, x, out=product)
        sum_xl = ordered_sum(product)
        determinant = sum_w * sum_l2 - sum_l * sum_l
        new_scale = (sum_w * sum_xl - sum_x * sum_l) / determinant
        new_low = (sum_l2 * sum_x - sum_l * sum_xl) / determinant
        (above,) = np.nonzero(new_low > 0)
        new_scale[above] = sum_xl[above] / sum_l2[above]
        new_low[above] = 0
        new_error = error(new_scale, new_low)
        (better,) = np.nonzero((determinant > 0) & (new_error < best))
        if len(better):
            chosen[better], chosen_low[better] = inverse[better], low[better]
            best[better], scale[better] = new_error[better], new_scale[better]
            low[better] = new_low[better]
            span[better], still_near = spans(low[better], better)
            near &= still_near
            np.subtract(x, low, out=shifted)
    np.subtract(x, chosen_low, out=shifted)
    round_to_codes(chosen, near)
    codes = code.astype(np.uint8)
    codes[:, flat] = 0
    return np.where(flat, F(0), scale), -low, codes


def q3(x: np.ndarray, half: int) -> tuple[np.ndarray, np.ndarray]:
    """Symmetric codes as `qx` has them, found by changing one code at a time.

    Starts from `-half / largest`; errors are weighed by x^2.
    """
    size, count = x.shape
    codes = np.empty((size, count), dtype=np.int8)
    sum_lx, sum_l2 = np.empty_like(x[0]), np.empty_like(x[0])
    zero, tried = np.empty(count, dtype=bool), []
    # Few groups at a time, so that a core's cache holds all that is made of them on the way.
    for start in range(0, count, 1 << 12):
        some = slice(start, start + (1 << 12))
        xs = x[:, some]
        largest = signed_largest(xs)
        zero[some] = np.abs(largest) < TINY
        code = xs * (F(-half) / np.where(zero[some], F(1), largest))
        np.rint(code, out=code)
        np.clip(code, F(-half), F(half - 1), out=code)
        codes[:, some] = code
        w = xs * xs
        wx = w * xs
        lx, l2 = _products(w, wx, code)
        sum_lx[some], sum_l2[some] = ordered_sum(lx), ordered_sum(l2)
        _, worth = _best_alone(xs, code, lx, l2, sum_lx[some], sum_l2[some])
        (at,) = np.nonzero(np.logical_or.reduce(worth, axis=0))
        tried.append([at + start, *(_take(a, at) for a in (xs, w, wx, code))])

    def round_to_codes(values: np.ndarray) -> np.ndarray:
        return np.maximum(np.minimum(nearest(values), half - 1), -half).astype(np.float32)

    groups, *parts = (np.concatenate(each, axis=-1) for each in zip(*tried, strict=True))
    _one_at_a_time(groups, parts, codes, sum_lx, sum_l2, round_to_codes)
    scale = np.where((sum_l2 > 0) & ~zero, sum_lx / sum_l2, F(0))
    codes += np.int8(half)
    codes[:, zero] = 0
    return scale, codes.view(np.uint8)


def qp(x: np.ndarray, top: int, weights: np.ndarray) -> tuple[np.ndarray, np.ndarray]:
    """Positive codes: `x ~ scale * code`, 0 <= code <= top; for scales of scales.

    Tries `(0.1 k + top) / max` for k = 0, then -4 to 4, then changes one code at a time.
    Returns scales and codes, uint8. A negative x gets what ggml gives it, a code that wraps
    round: such scales are very rare.
    """
    largest = np.maximum(np.maximum.reduce(x, axis=0), F(0))
    zero = largest < TINY
    largest = np.where(zero, F(1), largest)

    def wrapped(codes: np.ndarray) -> np.ndarray:
        return (codes & 255).astype(np.float32)

    def loss(codes: np.ndarray, scale: np.ndarray) -> np.ndarray:
        difference = x - scale * codes
        return ordered_sum(weights * difference * difference)

    inverse = F(top) / largest
    best = loss(wrapped(nearest(inverse * x)), 1 / inverse)
    for k in [*range(-4, 0), *range(1, 5)]:
        trial = (F(0.1) * F(k) + F(top)) / largest
        codes = np.minimum(nearest(trial * x), top).astype(np.float32)
        new = loss(codes, 1 / trial)
        better = new < best
        best, inverse = np.where(better, new, best), np.where(better, trial, inverse)
    whole = np.minimum(nearest(inverse * x), top)
    codes = whole.astype(np.float32)
    wx = weights * x
    sum_lx, sum_l2 = (ordered_sum(products) for products in _products(weights, wx, codes))

    def round_to_codes(values: np.ndarray) -> np.ndarray:
        return np.minimum(nearest(values), top).astype(np.float32)

    codes = wrapped(whole)
    out = codes.astype(np.uint8)
    groups = np.arange(x.shape[1])
    parts = [x, weights, wx, codes]
    _one_at_a_time(groups, parts, out, sum_lx, sum_l2, round_to_codes, positive_to=top)
    scale = np.where((sum_l2 > 0) & ~zero, sum_lx / sum_l2, F(0))
    out[:, zero] = 0
    return scale, out


def _products(w: np.ndarray, wx: np.ndarray, code: np.ndarray) -> tuple[np.ndarray, np.ndarray]:
    """Return w x code and w code^2 of each value."""
    l2 = w * code
    l2 *= code
    return wx * code, l2


def _best_alone(
    x: np.ndarray,
    code: np.ndarray,
    lx: np.ndarray,
    l2: np.ndarray,
    sum_lx: np.ndarray,
    sum_l2: np.ndarray,
    positive_to: int = 0,
) -> tuple[np.ndarray, np.ndarray]:
    """Return the best number in the place of each code, the others fixed; and whether to try it.

    Makes of `lx` and `l2`, the values' `_products`, the sums without each.
    """
    np.subtract(sum_lx, lx, out=lx)
    np.subtract(sum_l2, l2, out=l2)
    best = x * l2
    best /= lx
    distance = best - code
    worth = np.abs(distance, out=distance) >= F(0.5)  # else it is the nearest already
    if positive_to:
        worth |= code > positive_to  # has wrapped round
        worth &= l2 > 0
    worth &= lx > 0
    return best, worth


def _one_at_a_time(
    groups: np.ndarray,
    parts: Iterable[np.ndarray],
    codes: np.ndarray,
    sum_lx: np.ndarray,
    sum_l2: np.ndarray,
    round_to_codes: Callable[[np.ndarray], np.ndarray],
    positive_to: int = 0,
) -> None:
    """Change one code after another where the scale then fits better, in at most five sweeps.

    `groups` says which groups to work on; `parts` are these groups' values, weights, weights
    times values, and codes. Changes `codes` and the sums of w x code and w code^2, which are
    of all groups.

    A sweep tries the codes in their order, and a group whose sweep changed nothing is done.
    Few codes are worth a try, so each group goes its own way here: a round finds the next such
    code of every group that is not done, and tries it.
    """
    x, w, wx, code = parts
    size = len(x)
    total_lx, total_l2 = sum_lx[groups], sum_l2[groups]
    last: np.ndarray = np.full(len(groups), -1, dtype=np.int8)  # the code that was tried last
    sweep: np.ndarray = np.zeros_like(last)
    changed: np.ndarray = np.zeros(len(groups), dtype=bool)
    turn = np.arange(size, dtype=np.int8)[:, None]
    before_end = np.int8(size) - turn
    while len(groups):
        lx, l2 = _products(w, wx, code)
        best, worth = _best_alone(x, code, lx, l2, total_lx, total_l2, positive_to)
        worth &= turn > last
        left = np.maximum.reduce(worth.view(np.int8) * before_end, axis=0)
        (at,) = np.nonzero(left)
        i = size - left[at].astype(np.intp)
        place = i * len(groups) + at
        new = round_to_codes(np.take(best, place))
        new_lx = np.take(lx, place) + np.take(wx, place) * new
        new_l2 = np.take(l2, place) + np.take(w, place) * new * new
        old_lx, old_l2 = total_lx[at], total_l2[at]
        better = (new_l2 > 0) & (new_lx * new_lx * old_l2 > old_lx * old_lx * new_l2)
        better &= new != np.take(code, place)
        at, i, new = at[better], i[better], new[better]
        kept = groups[at]
        code[i, at] = codes[i, kept] = np.mod(new, F(256)) if positive_to else new
        total_lx[at] = sum_lx[kept] = new_lx[better]
        total_l2[at] = sum_l2[kept] = new_l2[better]
        changed[at] = True
        # Whoever has come to the end of a sweep begins another, if it was of use.
        ended = left == 0
        sweep += ended
        done = ended & ~(changed & (sweep < 5))
        changed &= ~ended
        last = np.where(ended, np.int8(-1), np.int8(size) - left)
        (going,) = np.nonzero(~done)
        if len(going) > 0.8 * len(groups):
            last[done] = size  # leaving these out would take longer than taking them along
        else:
            x, w, wx, code = (_take(a, going) for a in (x, w, wx, code))
            groups, total_lx, total_l2, last, sweep, changed = (
                a[going] for a in (groups, total_lx, total_l2, last, sweep, changed)
            )


def _take(x: np.ndarray, groups: np.ndarray) -> np.ndarray:
    """Return `x[:, groups]`, faster."""
    return np.take(x, groups, axis=1, mode="clip")
