"""The K-quants: 256 values in a super-block, whose sub-blocks' scales are codes themselves.

A sub-block of 16 or 32 values has a scale of its own, and in Q2_K, Q4_K and Q5_K an offset
("min") too. These are rounded to 4, 6 or 8 bits, with one float16 for the super-block to
scale them by. The values' codes are then rounded again, with the scales as stored; where a
stored scale is 0, the codes of the search stay.

Layouts: `ggml-common.h`. Arithmetic: `quantize_row_q*_K_ref` (without importance) and
`quantize_row_q*_K_impl` (with it) in `ggml-quants.c`.
"""

from __future__ import annotations

from abc import abstractmethod
from typing import Any, ClassVar

import numpy as np

from lessonkit.formats.ggml.blocks import (
    BlockFormat,
    by_element,
    by_group,
    importance_by_element,
    importance_weights,
    mean_squares,
    ordered_sum,
    pack,
    unpack,
)
from lessonkit.formats.ggml.searches import (
    TINY,
    F,
    nearest,
    q3,
    qkx,
    qp,
    qx,
    round_within,
    signed_largest,
)

SUPER = 256


class KQuant(BlockFormat):
    """What the K-quants share: super-blocks of 256 values, in sub-blocks of `sub`."""

    values = SUPER
    always_searches = True
    piece = 1 << 18
    sub: ClassVar[int]

    @abstractmethod
    def store_codes(self, blocks: np.ndarray, codes: np.ndarray) -> None:
        """Pack uint8 codes [n, 256] into the blocks' fields."""

    @abstractmethod
    def load_codes(self, blocks: np.ndarray) -> np.ndarray:
        """Return the codes [n, 256] of the blocks, uint8."""

    def by_super(self, groups: np.ndarray) -> np.ndarray:
        """Lay out one number a sub-block as [sub-blocks, super-blocks]."""
        return by_element(groups, SUPER // self.sub)

    def weights(self, x: np.ndarray, importance: np.ndarray, factor: int = 2) -> np.ndarray:
        """Return the weights of the search: the mean square is the super-block's, times factor."""
        mean_square = np.repeat(mean_squares(x, SUPER) * F(factor), SUPER // self.sub)
        return importance_weights(by_element(x, self.sub), importance, mean_square)


def round_again(
    x: np.ndarray, step: np.ndarray, codes: np.ndarray, low: int, high: int
) -> np.ndarray:
    """Return codes x / step, counted from low, and `codes` where the step is 0; changes `x`."""
    x /= step
    again = round_within(x, low, high)
    again -= F(low)
    out = again.astype(np.uint8)
    (none,) = np.nonzero(step == 0)
    out[:, none] = codes[:, none]
    return out


class OffsetKQuant(KQuant):
    """`x = d * scale * code - dmin * min` with codes up to `top`."""

    top: ClassVar[int]
    scale_top: ClassVar[int]
    plain_tries: ClassVar[dict[str, Any]]
    factor: ClassVar[int] = 2

    @abstractmethod
    def plain_weights(self, xs: np.ndarray) -> np.ndarray:
        """Weigh the errors where there is no importance matrix."""

    @abstractmethod
    def pack_scales(self, scales: np.ndarray, mins: np.ndarray) -> np.ndarray:
        """Pack uint8 codes [n, sub-blocks] of scales and mins into bytes."""

    @abstractmethod
    def unpack_scales(self, packed: np.ndarray) -> tuple[np.ndarray, np.ndarray]:
        """Undo `pack_scales`."""

    def encode_blocks(self, x: np.ndarray, importance: np.ndarray | None) -> np.ndarray:
        """See `BlockFormat.encode_blocks`."""
        xs = by_element(x, self.sub)
        out = np.empty(x.size // SUPER, dtype=self.layout)
        if importance is None:
            scales, mins, codes = qkx(xs, self.top, self.plain_weights(xs), **self.plain_tries)
            out["d"], scale_codes = self.plain_scales(self.by_super(scales))
            out["dmin"], min_codes = self.plain_scales(self.by_super(mins))
        else:
            weights = self.weights(x, importance, self.factor)
            scales, mins, codes = qkx(xs, self.top, weights, first=-0.9, step=0.05, steps=36)
            total = self.by_super(ordered_sum(weights))
            out["d"], scale_codes = qp(self.by_super(scales), self.scale_top, total)
            out["dmin"], min_codes = qp(self.by_super(mins), self.scale_top, total)
        out["scales"] = self.pack_scales(by_group(scale_codes), by_group(min_codes))
        step, low = (part.reshape(-1) for part in self.steps(out))
        again = round_again(xs + low, step, codes, 0, self.top)
        self.store_codes(out, by_group(again).reshape(-1, SUPER))
        return out

    def decode_blocks(self, blocks: np.ndarray) -> np.ndarray:
        """See `BlockFormat.decode_blocks`."""
        step, low = self.steps(blocks)
        codes = self.load_codes(blocks).reshape(*step.shape, self.sub)
        return (step[..., None] * codes - low[..., None]).reshape(-1, SUPER)

    def plain_scales(self, values: np.ndarray) -> tuple[np.ndarray, np.ndarray]:
        """Round scales or mins [sub-blocks, n] to codes below the largest: float d, uint8 codes."""
        largest = np.maximum(np.maximum.reduce(values, axis=0), F(0))
        inverse = np.where(largest > 0, F(self.scale_top) / largest, F(0))
        # A negative scale, which is very rare, wraps round.
        codes = (nearest(inverse * values) & 255).astype(np.uint8)
        return largest / F(self.scale_top), codes

    def steps(self, blocks: np.ndarray) -> tuple[np.ndarray, np.ndarray]:
        """Return what a code counts, and what is taken off: float32 [n, sub-blocks] each."""
        scales, mins = self.unpack_scales(blocks["scales"])
        d, dmin = (blocks[field].astype(np.float32)[:, None] for field in ("d", "dmin"))
        return d * scales, dmin * mins


class Q2K(OffsetKQuant):
    """Two bits a value; 16 sub-blocks with scale and min of four bits each. 2.625 bits."""

    name, number, sub, top, scale_top = "Q2_K", 10, 16, 3, 15
    layout = np.dtype([("scales", "u1", 16), ("qs", "u1", 64), ("d", "<f2"), ("dmin", "<f2")])
    plain_tries: ClassVar = {"first": -0.5, "step": 0.1, "steps": 15, "absolute": True}
    factor = 1

    def plain_weights(self, xs: np.ndarray) -> np.ndarray:
        """`|x|`."""
        return np.abs(xs)

    def pack_scales(self, scales: np.ndarray, mins: np.ndarray) -> np.ndarray:
        """A byte for each sub-block: the scale in the low four bits, the min in the others."""
        return scales | (mins << 4)

    def unpack_scales(self, packed: np.ndarray) -> tuple[np.ndarray, np.ndarray]:
        """See `pack_scales`."""
        return packed & 15, packed >> 4

    def store_codes(self, blocks: np.ndarray, codes: np.ndarray) -> None:
        """In each half of 128: byte j holds values j, j + 32, j + 64 and j + 96."""
        blocks["qs"] = pack(codes.reshape(-1, 2, 4, 32), 2).reshape(-1, 64)

    def load_codes(self, blocks: np.ndarray) -> np.ndarray:
        """See `store_codes`."""
        return unpack(blocks["qs"].reshape(-1, 2, 32), 2).reshape(-1, SUPER)


class _SixBitScales(OffsetKQuant):
    """Q4_K and Q5_K: eight sub-blocks of 32, scale and min of six bits each in 12 bytes."""

    sub, scale_top = 32, 63

    def plain_weights(self, xs: np.ndarray) -> np.ndarray:
        """`sqrt(mean x^2 of the sub-block) + |x|`."""
        root: np.ndarray = np.sqrt(ordered_sum(xs * xs) / F(self.sub))
        return root + np.abs(xs)

    def plain_scales(self, values: np.ndarray) -> tuple[np.ndarray, np.ndarray]:
        """As in the other formats, but what wrapped round is clipped."""
        d, codes = super().plain_scales(values)
        return d, np.minimum(codes, 63)

    def pack_scales(self, scales: np.ndarray, mins: np.ndarray) -> np.ndarray:
        """Bytes 0 to 3: scales 0 to 3, with the top two bits of scales 4 to 7 above them.

        Bytes 4 to 7: the same of the mins. Bytes 8 to 11: the low four bits of scales 4 to
        7, and of those mins above them.
        """
        late = (scales[:, 4:] & 15) | (mins[:, 4:] << 4)
        early = [part[:, :4] | (part[:, 4:] >> 4 << 6) for part in (scales, mins)]
        return np.concatenate((*early, late), axis=1)

    def unpack_scales(self, packed: np.ndarray) -> tuple[np.ndarray, np.ndarray]:
        """See `pack_scales`."""
        late = packed[:, 8:]
        scales = (packed[:, :4] & 63, (late & 15) | (packed[:, :4] >> 6 << 4))
        mins = (packed[:, 4:8] & 63, (late >> 4) | (packed[:, 4:8] >> 6 << 4))
        return np.concatenate(scales, axis=1), np.concatenate(mins, axis=1)

    def store_codes(self, blocks: np.ndarray, codes: np.ndarray) -> None:
        """In each quarter of 64: byte j holds the low four bits of values j and j + 32."""
        blocks["qs"] = pack((codes & 15).reshape(-1, 4, 2, 32), 4).reshape(-1, 128)

    def load_codes(self, blocks: np.ndarray) -> np.ndarray:
        """See `store_codes`."""
        return unpack(blocks["qs"].reshape(-1, 4, 32), 4).reshape(-1, SUPER)


class Q4K(_SixBitScales):
    """Four bits a value. 4.5 bits."""

    name, number, top = "Q4_K", 12, 15
    layout = np.dtype([("d", "<f2"), ("dmin", "<f2"), ("scales", "u1", 12), ("qs", "u1", 128)])
    plain_tries: ClassVar = {"first": -1.0, "step": 0.1, "steps": 20}


class Q5K(_SixBitScales):
    """Five bits a value: those of Q4_K, and bit 4 in a field of its own. 5.5 bits."""

    name, number, top = "Q5_K", 13, 31
    layout = np.dtype(
        [("d", "<f2"), ("dmin", "<f2"), ("scales", "u1", 12), ("qh", "u1", 32), ("qs", "u1", 128)]
    )
    plain_tries: ClassVar = {"first": -0.5, "step": 0.1, "steps": 15}

    def pack_scales(self, scales: np.ndarray, mins: np.ndarray) -> np.ndarray:
        """As in Q4_K, but here clipped with an importance matrix, too."""
        return super().pack_scales(np.minimum(scales, 63), np.minimum(mins, 63))

    def store_codes(self, blocks: np.ndarray, codes: np.ndarray) -> None:
        """The high bits: byte j holds those of values j, j + 32, ..., j + 224."""
        super().store_codes(blocks, codes)
        blocks["qh"] = pack((codes >> 4).reshape(-1, 8, 32), 1)

    def load_codes(self, blocks: np.ndarray) -> np.ndarray:
        """See `store_codes`."""
        high = unpack(blocks["qh"], 1).reshape(-1, SUPER)
        return super().load_codes(blocks) | (high << 4)


class SymmetricKQuant(KQuant):
    """`x = d * scale * (code - half)`, 16 sub-blocks of 16."""

    sub = 16
    half: ClassVar[int]

    @abstractmethod
    def scales(self, blocks: np.ndarray) -> np.ndarray:
        """Return the sub-blocks' scales as signed whole numbers [n, 16]."""

    def steps(self, blocks: np.ndarray) -> np.ndarray:
        """Return what a code counts: float32 [n, sub-blocks]."""
        d: np.ndarray = blocks["d"].astype(np.float32)[:, None]
        return d * self.scales(blocks)

    def store_rounded(self, blocks: np.ndarray, xs: np.ndarray, codes: np.ndarray) -> None:
        """Round the values again, with the scales as stored, and store their codes."""
        step = self.steps(blocks).reshape(-1)
        again = round_again(xs.copy(), step, codes, -self.half, self.half - 1)
        self.store_codes(blocks, by_group(again).reshape(-1, SUPER))

    def decode_blocks(self, blocks: np.ndarray) -> np.ndarray:
        """See `BlockFormat.decode_blocks`."""
        codes = self.load_codes(blocks).astype(np.int8) - np.int8(self.half)
        step = self.steps(blocks)
        return (step[..., None] * codes.reshape(*step.shape, self.sub)).reshape(-1, SUPER)


class Q3K(SymmetricKQuant):
    """Three bits a value, scales of six bits in 12 bytes. 3.4375 bits."""

    name, number, half = "Q3_K", 11, 4
    piece = 1 << 20  # its search goes through few groups in many steps
    layout = np.dtype([("hmask", "u1", 32), ("qs", "u1", 64), ("scales", "u1", 12), ("d", "<f2")])

    def encode_blocks(self, x: np.ndarray, importance: np.ndarray | None) -> np.ndarray:
        """See `BlockFormat.encode_blocks`."""
        xs = by_element(x, self.sub)
        out = np.empty(x.size // SUPER, dtype=self.layout)
        if importance is None:
            scales, codes = q3(xs, self.half)
            scales = self.by_super(scales)
            largest = signed_largest(scales)
            inverse = F(-32) / largest
            scale_codes = np.clip(nearest(inverse * scales), -32, 31) + 32
            scale_codes[:, largest == 0] = 0
            out["d"] = np.where(largest != 0, 1 / inverse, F(0))
        else:
            weights = self.weights(x, importance)
            scales, codes = qx(xs, self.half, weights)
            total = self.by_super(ordered_sum(weights))
            out["d"], scale_codes = qx(self.by_super(scales), 32, total)
        by_sub = by_group(scale_codes)
        out["scales"][:, :8] = pack((by_sub & 15).reshape(-1, 2, 8), 4)
        out["scales"][:, 8:] = pack((by_sub >> 4).reshape(-1, 4, 4), 2)
        self.store_rounded(out, xs, codes)
        return out

    def scales(self, blocks: np.ndarray) -> np.ndarray:
        """Bytes 0 to 7: low four bits of scales j, j + 8. The rest: two bits of j, j + 4, ..."""
        low = unpack(blocks["scales"][:, :8], 4).reshape(-1, 16)
        high = unpack(blocks["scales"][:, 8:], 2).reshape(-1, 16)
        return (low | (high << 4)).astype(np.int8) - np.int8(32)

    def store_codes(self, blocks: np.ndarray, codes: np.ndarray) -> None:
        """The low two bits as in Q2_K, the third as Q5_K's fifth."""
        blocks["qs"] = pack((codes & 3).reshape(-1, 2, 4, 32), 2).reshape(-1, 64)
        blocks["hmask"] = pack((codes >> 2).reshape(-1, 8, 32), 1)

    def load_codes(self, blocks: np.ndarray) -> np.ndarray:
        """See `store_codes`."""
        low = unpack(blocks["qs"].reshape(-1, 2, 32), 2).reshape(-1, SUPER)
        return low | (unpack(blocks["hmask"], 1).reshape(-1, SUPER) << 2)


class Q6K(SymmetricKQuant):
    """Six bits a value, scales of eight. 6.5625 bits."""

    name, number, half = "Q6_K", 14, 32
    layout = np.dtype([("ql", "u1", 128), ("qh", "u1", 64), ("scales", "i1", 16), ("d", "<f2")])

    def encode_blocks(self, x: np.ndarray, importance: np.ndarray | None) -> np.ndarray:
        """See `BlockFormat.encode_blocks`. The importance alone is the weight."""
        xs = by_element(x, self.sub)
        out = np.empty(x.size // SUPER, dtype=self.layout)
        weights = None if importance is None else importance_by_element(xs, importance)
        scales, codes = qx(xs, self.half, weights)
        scales = self.by_super(scales)
        largest = signed_largest(scales)
        inverse = F(-128) / largest
        out["d"] = 1 / inverse
        out["scales"] = np.minimum(nearest(inverse * scales), 127).T
        self.store_rounded(out, xs, codes)
        out[np.abs(largest) < TINY] = np.zeros((), dtype=self.layout)
        return out

    def scales(self, blocks: np.ndarray) -> np.ndarray:
        """Return them as they stand."""
        scales: np.ndarray = blocks["scales"]
        return scales

    def store_codes(self, blocks: np.ndarray, codes: np.ndarray) -> None:
        """In each half of 128, `ql`: byte j holds the low four bits of values j and j + 64.

        `qh`: byte j holds the upper two of values j, j + 32, j + 64 and j + 96.
        """
        blocks["ql"] = pack((codes & 15).reshape(-1, 2, 2, 64), 4).reshape(-1, 128)
        blocks["qh"] = pack((codes >> 4).reshape(-1, 2, 4, 32), 2).reshape(-1, 64)

    def load_codes(self, blocks: np.ndarray) -> np.ndarray:
        """See `store_codes`."""
        low = unpack(blocks["ql"].reshape(-1, 2, 64), 4).reshape(-1, SUPER)
        high = unpack(blocks["qh"].reshape(-1, 2, 32), 2).reshape(-1, SUPER)
        return low | (high << 4)
