"""The formats with blocks of 32 and one scale: Q4_0, Q4_1, Q5_0, Q5_1, Q8_0 and MXFP4.

Without an importance matrix the scale is read off the block's extremes; the codes follow
its float32 value, and the file holds it rounded to float16. With one, Q4_0 to Q5_1 search.

Layouts: `ggml-common.h`. Arithmetic: `quantize_row_*_ref` (without importance) and
`quantize_row_*_impl` (with it) in `ggml-quants.c`.
"""

from __future__ import annotations

from typing import ClassVar

import numpy as np

from lessonkit.formats.ggml.blocks import (
    BlockFormat,
    by_element,
    by_group,
    importance_weights,
    unpack,
)
from lessonkit.formats.ggml.searches import F, qkx, qx, signed_largest, smallest

BLOCK = 32


class _Legacy(BlockFormat):
    values = BLOCK


class _HalfBytes(_Legacy):
    """Codes of four or five bits: byte j holds the low four of values j and j + 16."""

    scale_shows_faults = True
    top: ClassVar[int]

    def store_codes(self, blocks: np.ndarray, codes: np.ndarray) -> None:
        """Store codes in the layout of `_by_fours`, uint32 [8, n], four in each."""
        low = codes & np.uint32(0x0F0F0F0F) if self.top > 15 else codes
        _store(low[:4] | (low[4:] << np.uint32(4)), blocks["qs"])
        if self.top > 15:
            _store(_fifth_bits(codes)[None], blocks["qh"])

    def load_codes(self, blocks: np.ndarray) -> np.ndarray:
        """Return the codes [n, 32], uint8."""
        codes = unpack(blocks["qs"], 4).reshape(-1, BLOCK)
        if self.top > 15:
            fifth = np.unpackbits(blocks["qh"], axis=1, bitorder="little")
            codes |= fifth << np.uint8(4)
        return codes

    def weights(self, x: np.ndarray, importance: np.ndarray) -> np.ndarray:
        """Return the weights of the search. Here the mean square is the whole row's."""
        columns = x.shape[1]
        mean_square = np.add.accumulate(x * x, axis=1)[:, -1] / F(columns)
        return importance_weights(
            by_element(x, BLOCK), importance, np.repeat(mean_square, columns // BLOCK)
        )


class _Symmetric(_HalfBytes):
    """`x = d * (code - half)`. The value of largest magnitude gets code 0."""

    def encode_blocks(self, x: np.ndarray, importance: np.ndarray | None) -> np.ndarray:
        """See `BlockFormat.encode_blocks`."""
        out = np.empty(x.size // BLOCK, dtype=self.layout)
        half = (self.top + 1) // 2
        if importance is None:
            fours = _by_fours(x)
            d = _signed_largest(fours) / F(-half)
            out["d"] = d
            codes = _truncated(fours, d, F(half + 0.5), self.top)
        else:
            out["d"], searched = qx(by_element(x, BLOCK), half, self.weights(x, importance))
            codes = by_group(searched).view(np.uint32).T
        self.store_codes(out, codes)
        return out

    def decode_blocks(self, blocks: np.ndarray) -> np.ndarray:
        """See `BlockFormat.decode_blocks`."""
        codes = self.load_codes(blocks).view(np.int8) - np.int8((self.top + 1) // 2)
        return blocks["d"].astype(np.float32)[:, None] * codes


class _Offset(_HalfBytes):
    """`x = d * code + m`, m the block's minimum."""

    def encode_blocks(self, x: np.ndarray, importance: np.ndarray | None) -> np.ndarray:
        """See `BlockFormat.encode_blocks`."""
        out = np.empty(x.size // BLOCK, dtype=self.layout)
        if importance is None:
            fours = _by_fours(x)
            low = _over_block(np.minimum, fours)
            (zero,) = np.nonzero(low == 0)
            low[zero] = smallest(x.reshape(-1, BLOCK)[zero].T)  # with the right sign
            d = (_over_block(np.maximum, fours) - low + F(0)) / F(self.top)  # no -0
            fours -= np.repeat(low, 4)
            codes = _truncated(fours, d, F(0.5), self.top)
        else:
            d, below, searched = qkx(
                by_element(x, BLOCK), self.top, self.weights(x, importance),
                first=-0.9, step=0.05, steps=36,
            )  # fmt: skip
            low = -below
            codes = by_group(searched).view(np.uint32).T
        out["d"], out["m"] = d, low
        self.store_codes(out, codes)
        return out

    def decode_blocks(self, blocks: np.ndarray) -> np.ndarray:
        """See `BlockFormat.decode_blocks`."""
        d, m = (blocks[field].astype(np.float32)[:, None] for field in ("d", "m"))
        return d * self.load_codes(blocks) + m


class Q40(_Symmetric):
    """Four bits a value, `d = largest / -8`. 4.5 bits."""

    name, number, top = "Q4_0", 2, 15
    layout = np.dtype([("d", "<f2"), ("qs", "u1", 16)])


class Q41(_Offset):
    """Four bits a value, `d = (max - min) / 15`. 5 bits."""

    name, number, top = "Q4_1", 3, 15
    layout = np.dtype([("d", "<f2"), ("m", "<f2"), ("qs", "u1", 16)])


class Q50(_Symmetric):
    """Five bits a value, `d = largest / -16`; bit j of `qh` is value j's fifth. 5.5 bits."""

    name, number, top = "Q5_0", 6, 31
    layout = np.dtype([("d", "<f2"), ("qh", "u1", 4), ("qs", "u1", 16)])


class Q51(_Offset):
    """Five bits a value, `d = (max - min) / 31`. 6 bits."""

    name, number, top = "Q5_1", 7, 31
    layout = np.dtype([("d", "<f2"), ("m", "<f2"), ("qh", "u1", 4), ("qs", "u1", 16)])


class Q80(_Legacy):
    """`x = d * code`, codes -127 to 127, rounded half away from zero. 8.5 bits."""

    name, number = "Q8_0", 8
    layout = np.dtype([("d", "<f2"), ("qs", "i1", BLOCK)])
    uses_importance = False
    scale_shows_faults = True

    def encode_blocks(self, x: np.ndarray, importance: np.ndarray | None) -> np.ndarray:
        """See `BlockFormat.encode_blocks`."""
        out = np.empty(x.size // BLOCK, dtype=self.layout)
        fours = _by_fours(x)
        negative = (fours < 0).view(np.int8)
        magnitude = np.abs(fours, out=fours)
        d = _over_block(np.maximum, magnitude) / F(127)
        out["d"] = d
        magnitude *= np.repeat(_inverse(d)[0], 4)
        # Half away from zero: add just under 0.5, then cut off. (0.5 itself would round the
        # number below 0.5 up.)
        magnitude += np.nextafter(F(0.5), F(0))
        codes = magnitude.astype(np.int8)
        codes ^= -negative  # two's complement: all bits change, and one is added
        codes += negative
        _store(codes.view(np.uint32), out["qs"])
        return out

    def decode_blocks(self, blocks: np.ndarray) -> np.ndarray:
        """See `BlockFormat.decode_blocks`."""
        return blocks["d"].astype(np.float32)[:, None] * blocks["qs"]


class MXFP4(_Legacy):
    """E2M1 codes (0 to 6 and their negatives), scale a power of two in a byte. 4.25 bits.

    The scale is `2^(floor(log2(largest)) - 2)`: what is above 6 times it is cut to 6.
    The logarithm is a float32, so it is one too high just below some powers of two.
    """

    name, number = "MXFP4", 39
    layout = np.dtype([("e", "u1"), ("qs", "u1", 16)])
    uses_importance = False

    # Twice the numbers, as ggml has them: its scale is half as large.
    _LEVELS = np.array([0, 1, 2, 3, 4, 6, 8, 12, 0, -1, -2, -3, -4, -6, -8, -12], dtype=np.float32)

    def encode_blocks(self, x: np.ndarray, importance: np.ndarray | None) -> np.ndarray:
        """See `BlockFormat.encode_blocks`."""
        out = np.empty(x.size // BLOCK, dtype=self.layout)
        fours = _by_fours(x)
        magnitude = np.abs(fours)
        largest = _over_block(np.maximum, magnitude)
        logarithm = np.log2(largest.astype(np.float64)).astype(np.float32)
        exponent = np.where(largest > 0, np.floor(logarithm) + F(125), F(0)).astype(np.int32)
        out["e"] = exponent & 255  # wraps round below 2^-125, and then all codes are 0
        half_scale = np.repeat(_half_scale(out["e"]), 4)
        codes = np.zeros(fours.shape, dtype=np.uint8)
        above = np.empty(fours.shape, dtype=bool)
        for low, high in zip(self._LEVELS[:7], self._LEVELS[1:8], strict=True):
            np.greater(magnitude, (low + high) / 2 * half_scale, out=above)
            codes += above.view(np.uint8)
        np.less(fours, 0, out=above)
        above &= codes.view(bool)
        codes |= above.view(np.uint8) << np.uint8(3)
        words = codes.view(np.uint32)
        _store(words[:4] | (words[4:] << np.uint32(4)), out["qs"])
        return out

    def decode_blocks(self, blocks: np.ndarray) -> np.ndarray:
        """See `BlockFormat.decode_blocks`."""
        codes = unpack(blocks["qs"], 4).reshape(-1, BLOCK)
        return _half_scale(blocks["e"])[:, None] * self._LEVELS[codes]


def _half_scale(exponent: np.ndarray) -> np.ndarray:
    """Return 2^(exponent - 128), half an E8M0 scale, exact; float32."""
    return np.ldexp(F(1), exponent.astype(np.int32) - 128)


# --- four values at a time --------------------------------------------------------------------


def _by_fours(x: np.ndarray) -> np.ndarray:
    """Lay out blocks as [8, 4 n]: row i holds values 4i to 4i + 3 of every block.

    As `by_element`, but numpy moves 16 bytes at a time, which is several times faster;
    and four codes of a byte each lie together, a 32-bit number.
    """
    # First a copy in order: memory is read much faster so, and the cache out of order.
    sixteen_bytes = x.copy().reshape(-1, BLOCK).view(np.complex128)
    return sixteen_bytes.T.copy(order="C").view(np.float32)


def _store(fours: np.ndarray, field: np.ndarray) -> None:
    """Undo `_by_fours` for codes: uint32 [k, n], four in each, into bytes [n, 4 k] of blocks."""
    words = field.view(np.uint32)
    for i, word in enumerate(fours):  # column by column is twice as fast as all at once
        words[:, i] = word


def _over_block(operation: np.ufunc, fours: np.ndarray) -> np.ndarray:
    """Reduce to one number a block, by np.maximum or np.minimum."""
    four = operation.reduce(fours, axis=0)
    # Of all neighbours, because that is faster than of every second pair.
    pairs = operation(four[:-1], four[1:])
    result: np.ndarray = operation(pairs[::4], pairs[2::4])
    return result


def _signed_largest(fours: np.ndarray) -> np.ndarray:
    """Return each block's value of largest magnitude, with its sign; of equals the first."""
    high, low = _over_block(np.maximum, fours), _over_block(np.minimum, fours)
    middle = high + low  # has the sign of the larger one
    largest: np.ndarray = np.copysign(np.maximum(high, -low), middle)
    (tied,) = np.nonzero(middle == 0)
    if len(tied):
        values = fours.reshape(8, -1, 4)[:, tied].swapaxes(1, 2).reshape(BLOCK, -1)
        largest[tied] = signed_largest(values)
    return largest


def _inverse(d: np.ndarray) -> tuple[np.ndarray, np.ndarray]:
    """Return 1/d, but 0 where that is infinite; and where d is so small, yet not 0."""
    inverse: np.ndarray = 1 / d
    (infinite,) = np.nonzero(np.isinf(inverse))
    inverse[infinite] = 0
    return inverse, infinite[d[infinite] != 0]


def _truncated(fours: np.ndarray, d: np.ndarray, plus: np.float32, top: int) -> np.ndarray:
    """Return codes trunc(x / d + plus), at most top, as uint32 [8, n]; changes `fours`."""
    inverse, too_small = _inverse(d)
    fours *= np.repeat(inverse, 4)
    fours += plus
    codes = fours.astype(np.uint8)
    # A row of tops, because np.minimum with one number takes ten times as long.
    np.minimum(codes, np.full(codes.shape[1], top, dtype=np.uint8), out=codes)
    words = codes.view(np.uint32)
    words[:, too_small] = 0  # x / d is infinite, and C's cast gives 0
    return words


def _fifth_bits(codes: np.ndarray) -> np.ndarray:
    """Gather bit 4 of each code, uint32 [8, n], four in each: uint32 [n], bit j of value j."""
    bits = codes & np.uint32(0x10101010)
    # Bits 4, 12, 20 and 28 times this have copies in bits 28, 29, 30 and 31, and none of the
    # other copies carries into these.
    bits *= np.uint32(1 << 24 | 1 << 17 | 1 << 10 | 1 << 3)
    bits >>= np.uint32(28)
    bits <<= np.arange(0, 32, 4, dtype=np.uint32)[:, None]
    gathered: np.ndarray = np.bitwise_or.reduce(bits, axis=0)
    return gathered
