"""Blockwise absmax: scale each block of weights into [-1, 1], look each one up in a codebook.

Bit-exact with bitsandbytes 0.50 on the CPU: packed bytes and absmax. The input is taken in
row-major order; a block is `block_size` neighbours, and the last block may be shorter.
Two codes share a byte, the first value in the high nibble. The arithmetic itself is in
`formats.blockwise_kernels`.
"""

from __future__ import annotations

from dataclasses import dataclass
from typing import TYPE_CHECKING

import numpy as np

from lessonkit.errors import LessonkitError
from lessonkit.formats.arrays import as_float_tensor, require_finite
from lessonkit.formats.blockwise_kernels import (
    dequantize_with_numpy,
    dequantize_with_torch,
    quantize_with_numpy,
    quantize_with_torch,
)
from lessonkit.formats.codebooks import Codebook
from lessonkit.formats.double_quant import DoubleQuantized, double_quantize

if TYPE_CHECKING:
    import torch


@dataclass(frozen=True)
class Blockwise:
    """A tensor in 4-bit codes with a scale a block.

    Attributes
    ----------
    packed:
        uint8 [ceil(size / 2)], two codes a byte.
    absmax:
        float32 [blocks], or `DoubleQuantized`.
    codebook, block_size:
        How to read the codes.
    shape:
        Shape of the original.
    """

    packed: torch.Tensor
    absmax: torch.Tensor | DoubleQuantized
    codebook: Codebook
    block_size: int
    shape: torch.Size

    @property
    def scales(self) -> torch.Tensor:
        """The blocks' scales as float32 [blocks], also under double quantisation."""
        if isinstance(self.absmax, DoubleQuantized):
            return self.absmax.dequantize()
        return self.absmax

    def codes(self) -> torch.Tensor:
        """Return the codes, uint8 in the original's shape."""
        return unpack_nibbles(self.packed, self.shape.numel()).reshape(self.shape)

    def dequantize(self, dtype: torch.dtype | None = None) -> torch.Tensor:
        """Return `value of code * scale` in the original's shape, float32 unless told."""
        return dequantize_blockwise(
            self.packed, self.scales, self.codebook, self.block_size, self.shape, dtype
        )

    def bits_per_weight(self) -> float:
        """Bits held, codes and all scales, divided by the number of weights."""
        if isinstance(self.absmax, DoubleQuantized):
            scale_bytes = self.absmax.codes.nbytes + self.absmax.absmax.nbytes + 4
        else:
            scale_bytes = self.absmax.nbytes
        return 8 * (self.packed.nbytes + scale_bytes) / self.shape.numel()


def quantize_blockwise(
    x: torch.Tensor | np.ndarray,
    codebook: Codebook,
    block_size: int = 64,
    *,
    double_quant: bool = False,
) -> Blockwise:
    """Quantise a tensor of any shape to 4-bit codes with one scale a block.

    Each weight is divided by its block's largest magnitude and takes the code of the
    nearest value in the codebook; half-way cases take the lower value. All in float32;
    fp16 and bf16 inputs are widened first. Full blocks multiply by the rounded reciprocal
    of absmax and a shorter last block divides, as bitsandbytes does: the two can differ in
    a last bit, and so, rarely, in a code.

    `block_size` is any positive even number (bitsandbytes takes 32, 64 .. 4096).
    NaN and infinity raise LessonkitError.
    """
    _check_block_size(block_size)
    tensor = as_float_tensor(x)
    flat = tensor.reshape(-1)
    quantize = quantize_with_numpy if flat.device.type == "cpu" else quantize_with_torch
    packed, absmax = quantize(flat, codebook, block_size)
    require_finite(absmax, of=flat)
    return Blockwise(
        packed,
        double_quantize(absmax) if double_quant else absmax,
        codebook,
        block_size,
        tensor.shape,
    )


def dequantize_blockwise(
    packed: torch.Tensor,
    absmax: torch.Tensor,
    codebook: Codebook,
    block_size: int,
    shape: tuple[int, ...],
    dtype: torch.dtype | None = None,
) -> torch.Tensor:
    """Return `codebook value * absmax of the block`, rounded once to `dtype`.

    `packed` and `absmax` (float32) are as in `Blockwise`. Correct for every
    shape, unlike bitsandbytes' CPU kernel, which takes wrong scales if the last axis is a
    multiple of 16 but not of the block size.
    """
    import torch

    _check_block_size(block_size)
    size = int(np.prod(shape, dtype=np.int64))
    if packed.numel() != -(-size // 2) or absmax.numel() != -(-size // block_size):
        raise LessonkitError(
            f"{packed.numel()} bytes and {absmax.numel()} scales do not make {tuple(shape)}.",
            where="packed, absmax",
            remedy=f"{-(-size // 2)} bytes and {-(-size // block_size)} scales are needed for "
            f"blocks of {block_size}.",
        )
    dequantize = dequantize_with_numpy if packed.device.type == "cpu" else dequantize_with_torch
    scales = absmax.to(packed.device, torch.float32).reshape(-1)
    flat = dequantize(
        packed.reshape(-1), scales, codebook, block_size, size, dtype or torch.float32
    )
    return flat.reshape(shape)


def unpack_nibbles(packed: torch.Tensor, size: int) -> torch.Tensor:
    """Two codes a byte, the first in the high nibble: return the first `size`, uint8."""
    import torch

    flat = packed.reshape(-1)
    return torch.stack((flat >> 4, flat & 15), dim=-1).view(-1)[:size]


def _check_block_size(block_size: int) -> None:
    if block_size < 2 or block_size % 2:
        raise LessonkitError(
            f"A block of {block_size} weights cannot be packed two a byte.",
            where="block_size",
            remedy="Use a positive even block size; 64 is the usual one.",
        )
