"""IQ4_NL and IQ4_XS: four-bit codes for sixteen levels that are not evenly spaced.

IQ4_NL scales a block of 32 by a float16. IQ4_XS scales a super-block of 256 by a float16,
and each of its eight blocks of 32 by a six-bit number too.

Levels and layouts: `ggml-common.h`. Arithmetic: `quantize_row_iq4_nl_impl` in
`ggml-quants.c`.
"""

from __future__ import annotations

import numpy as np

from lessonkit.formats.ggml.blocks import (
    BlockFormat,
    by_element,
    by_group,
    importance_weights,
    mean_squares,
    ordered_sum,
    pack,
    unpack,
)
from lessonkit.formats.ggml.searches import TINY, F, nearest, signed_largest

BLOCK = 32
LEVELS = np.array(
    [-127, -104, -83, -65, -49, -35, -22, -10, 1, 13, 25, 38, 53, 69, 89, 113], dtype=np.float32
)

# The middle between two levels is a multiple of one half, so the floor of 2x decides between
# them: of two levels equally near the higher one is taken.
_REACH = 300  # a search asks for levels up to (7 + 127) * 1; twice that, and a little
_CODES = np.searchsorted(
    LEVELS[:-1] + LEVELS[1:], np.arange(-_REACH, _REACH + 1), side="right"
).astype(np.uint8)
_VALUES = LEVELS[_CODES]


class _IQ4(BlockFormat):
    """What both share: the search for the scale of 32 values."""

    always_searches = True
    piece = 1 << 18

    def scales(self, x: np.ndarray, importance: np.ndarray | None) -> np.ndarray:
        """Find the scale of each group of 32: float32 [groups].

        Tries -largest/127, then the scales that put the largest value at -134 to -120.
        """
        xs = by_element(x, BLOCK)
        if importance is None:
            w = xs * xs
        else:
            mean_square = np.repeat(F(2) * mean_squares(x, self.values), self.values // BLOCK)
            w = importance_weights(xs, importance, mean_square)
        largest = signed_largest(xs)
        zero = np.abs(largest) < TINY
        largest = np.where(zero, F(1), largest)
        level, product = np.empty_like(xs), np.empty_like(xs)
        index = np.empty(xs.shape, dtype=np.intp)

        def sums(inverse: np.ndarray) -> tuple[np.ndarray, np.ndarray]:
            _positions(xs, inverse, product, index)
            np.take(_VALUES, index, out=level, mode="clip")
            np.multiply(w, level, out=product)
            np.multiply(product, level, out=level)
            np.multiply(product, xs, out=product)
            return ordered_sum(product), ordered_sum(level)

        sum_lx, sum_l2 = sums(1 / (-largest / LEVELS[0]))
        scale = np.where(sum_l2 > 0, sum_lx / sum_l2, F(0))
        best = scale * sum_lx
        for k in range(-7, 8):
            sum_lx, sum_l2 = sums((F(k) + LEVELS[0]) / largest)
            better = (sum_l2 > 0) & (sum_lx * sum_lx > best * sum_l2)
            scale = np.where(better, sum_lx / sum_l2, scale)
            best = np.where(better, scale * sum_lx, best)
        return np.where(zero, F(0), scale)


class IQ4NL(_IQ4):
    """Blocks of 32 with a float16 scale. 4.5 bits."""

    name, number, values = "IQ4_NL", 20, BLOCK
    layout = np.dtype([("d", "<f2"), ("qs", "u1", 16)])

    def encode_blocks(self, x: np.ndarray, importance: np.ndarray | None) -> np.ndarray:
        """See `BlockFormat.encode_blocks`."""
        scale = self.scales(x, importance)
        out = np.empty(len(scale), dtype=self.layout)
        out["d"] = scale
        codes = _nearest_levels(by_element(x, BLOCK), scale)
        out["qs"] = pack(codes.reshape(-1, 2, 16), 4)
        return out

    def decode_blocks(self, blocks: np.ndarray) -> np.ndarray:
        """See `BlockFormat.decode_blocks`."""
        codes = unpack(blocks["qs"], 4).reshape(-1, BLOCK)
        return blocks["d"].astype(np.float32)[:, None] * LEVELS[codes]


class IQ4XS(_IQ4):
    """Super-blocks of 256, eight six-bit scales stored plus 32. 4.25 bits."""

    name, number, values = "IQ4_XS", 23, 256
    layout = np.dtype([("d", "<f2"), ("high", "<u2"), ("low", "u1", 4), ("qs", "u1", 128)])

    def encode_blocks(self, x: np.ndarray, importance: np.ndarray | None) -> np.ndarray:
        """See `BlockFormat.encode_blocks`. Here the values' codes follow the float32 d."""
        scales = by_element(self.scales(x, importance), 8)
        out = np.empty(scales.shape[1], dtype=self.layout)
        d = -signed_largest(scales) / F(32)
        out["d"] = d
        whole = np.clip(nearest(np.where(d != 0, 1 / d, F(0)) * scales), -32, 31)
        stored = by_group(whole + 32)
        out["low"] = pack((stored & 15).reshape(-1, 4, 2).swapaxes(1, 2), 4)
        # Two bits of each scale, the first lowest: a sum, because no two overlap.
        out["high"] = ((stored >> 4).astype(np.uint16) << np.arange(0, 16, 2, dtype=np.uint16)).sum(
            axis=1
        )
        step = (d * whole.astype(np.float32)).T.reshape(-1)
        codes = _nearest_levels(by_element(x, BLOCK), step)
        out["qs"] = pack(codes.reshape(-1, 8, 2, 16), 4).reshape(-1, 128)
        return out

    def decode_blocks(self, blocks: np.ndarray) -> np.ndarray:
        """See `BlockFormat.decode_blocks`."""
        low = unpack(blocks["low"], 4).swapaxes(1, 2).reshape(-1, 8)
        high = (blocks["high"][:, None] >> np.arange(0, 16, 2, dtype=np.uint16)) & 3
        scales = (low | (high << 4)).astype(np.float32) - F(32)
        step = blocks["d"].astype(np.float32)[:, None] * scales
        codes = unpack(blocks["qs"].reshape(-1, 8, 16), 4).reshape(-1, 8, BLOCK)
        return (step[..., None] * LEVELS[codes]).reshape(-1, 256)


def _positions(xs: np.ndarray, inverse: np.ndarray, scratch: np.ndarray, out: np.ndarray) -> None:
    """Find each value's place in the tables above."""
    np.multiply(xs, F(2) * inverse, out=scratch)
    np.floor(scratch, out=scratch)
    np.clip(scratch, F(-_REACH), F(_REACH), out=scratch)
    np.add(scratch, F(_REACH), out=out, casting="unsafe")


def _nearest_levels(xs: np.ndarray, scale: np.ndarray) -> np.ndarray:
    """Return the codes [groups, 32] of values divided by their group's scale."""
    index = np.empty(xs.shape, dtype=np.intp)
    _positions(xs, np.where(scale != 0, 1 / scale, F(0)), np.empty_like(xs), index)
    return by_group(np.take(_CODES, index, mode="clip"))
