"""INT2 to INT8: a float becomes a small integer and a scale.

Two recipes, each with one set of parameters per tensor, per channel (a row of a
weight of shape [out, in]) or per block of n neighbours along the input axis:

* absmax, symmetric: `code = round(x * (1 / scale))`; zero is always exact.
  `restricted` uses codes -127..127 (for 8 bits) and `scale = absmax / 127`: LLM.int8.
  `full` uses codes -128..127 and `scale = absmax / 127.5`: PyTorch's observers, GPTQ.
* zero-point, asymmetric: `code = round(x * (1 / scale)) + zero`, codes 0..255, and
  `scale = (max - min) / 255` where the range is first widened to contain 0, so
  that zero stays exact (Jacob et al. 2018, https://arxiv.org/abs/1712.05877).

Rounding is to the nearest integer, and half-way cases go to the even one, as in
`torch.round` and `numpy.rint`. Arithmetic is in float32, and multiplies by the
rounded reciprocal of the scale rather than dividing, because PyTorch's own
`fake_quantize_per_channel_affine` does: codes then agree with it to the bit.
"""

from __future__ import annotations

from dataclasses import dataclass
from typing import TYPE_CHECKING, Literal

from lessonkit.errors import LessonkitError
from lessonkit.formats.arrays import as_float_tensor, require_finite
from lessonkit.formats.blocks import bits_per_weight, grouped, ungrouped

if TYPE_CHECKING:
    import numpy as np
    import torch

Granularity = Literal["tensor", "channel", "block"]
Convention = Literal["restricted", "full"]


@dataclass(frozen=True)
class IntQuantized:
    """Integer codes with what is needed to read them back.

    Attributes
    ----------
    codes:
        int8 (absmax) or uint8 (zero-point), in the shape of the input.
    scales:
        float32, shape [1, 1], [rows, 1] or [rows, blocks]; rows are all axes but
        the last, flattened.
    zeros:
        uint8 in the shape of `scales`, or None for absmax.
    bits:
        Bits a code needs, 2 to 8. (In memory here a code takes a byte.)
    granularity, block_size:
        What shares a scale; `block_size` is None unless granularity is "block".
    """

    codes: torch.Tensor
    scales: torch.Tensor
    zeros: torch.Tensor | None
    bits: int
    granularity: Granularity
    block_size: int | None

    def dequantize(self) -> torch.Tensor:
        """Return `(codes - zeros) * scales` as float32, in the input's shape."""
        import torch

        codes = _groups(self.codes, self.granularity, self.block_size).to(torch.float32)
        if self.zeros is not None:
            codes = codes - self.zeros.to(torch.float32).unsqueeze(-1)
        return _ungrouped(codes * self.scales.unsqueeze(-1), self.codes.shape)

    def bits_per_weight(self, *, scale_bits: int = 32, zero_bits: int | None = None) -> float:
        """Bits stored for a weight: code, and its share of the scale and zero-point.

        `scale_bits` is 32 for float32 scales, as held here; many file formats store
        16. `zero_bits` is as wide as a code unless given.
        """
        if self.zeros is None:
            zero_bits = 0
        elif zero_bits is None:
            zero_bits = self.bits
        size = self.codes.numel() / self.scales.numel()
        return bits_per_weight(self.bits, size, scale_bits=scale_bits, zero_bits=zero_bits)


def quantize_absmax(
    x: torch.Tensor | np.ndarray,
    bits: int = 8,
    *,
    granularity: Granularity = "tensor",
    block_size: int | None = None,
    convention: Convention = "restricted",
) -> IntQuantized:
    """Quantise symmetrically: the largest magnitude sets the scale, zero maps to 0.

    Parameters
    ----------
    x:
        Floating-point tensor or array of any shape; a weight is [out, in].
    bits:
        2 to 8.
    granularity, block_size:
        "tensor", "channel" (each row along the last axis) or "block"
        (`block_size` neighbours along the last axis; a last block may be shorter).
    convention:
        "restricted": codes -(2^(b-1)-1) .. 2^(b-1)-1, scale absmax / (2^(b-1)-1).
        "full": codes -2^(b-1) .. 2^(b-1)-1, scale absmax / ((2^b - 1) / 2); one level
        more, and the largest positive value is clipped by half a step.

    A group of zeros, or of nothing above 1e-36, gets scale 1 and codes 0.
    NaN and infinity raise LessonkitError.
    """
    _check(bits, granularity, block_size)
    if convention not in ("restricted", "full"):
        raise LessonkitError(
            f"There is no symmetric convention {convention!r}.",
            where="convention",
            remedy="Use 'restricted' (-127..127) or 'full' (-128..127).",
        )
    import torch

    tensor = as_float_tensor(x)
    groups = _groups(tensor.to(torch.float32), granularity, block_size)
    absmax = groups.abs().amax(dim=-1)
    require_finite(absmax, of=tensor)
    top = 2 ** (bits - 1) - 1
    bottom = -top if convention == "restricted" else -top - 1
    scales = _usable(absmax / ((top - bottom) / 2))
    codes = torch.round(groups * (1 / scales).unsqueeze(-1)).clamp_(bottom, top).to(torch.int8)
    return IntQuantized(
        _ungrouped(codes, tensor.shape), scales, None, bits, granularity, block_size
    )


def quantize_zero_point(
    x: torch.Tensor | np.ndarray,
    bits: int = 8,
    *,
    granularity: Granularity = "tensor",
    block_size: int | None = None,
) -> IntQuantized:
    """Quantise asymmetrically: the smallest value maps to 0, the largest to 2^bits - 1.

    The range [min, max] is widened to contain 0. Parameters, shapes and errors as in
    `quantize_absmax`; the codes are uint8, and so are the zero-points.
    """
    _check(bits, granularity, block_size)
    import torch

    tensor = as_float_tensor(x)
    groups = _groups(tensor.to(torch.float32), granularity, block_size)
    low = groups.amin(dim=-1).clamp_(max=0.0)
    high = groups.amax(dim=-1).clamp_(min=0.0)
    require_finite(high - low, of=tensor)
    top = 2**bits - 1
    scales = _usable((high - low) / top)
    zeros = torch.round(-low / scales).clamp_(0, top)
    codes = torch.round(groups * (1 / scales).unsqueeze(-1))
    codes = codes.add_(zeros.unsqueeze(-1)).clamp_(0, top)
    return IntQuantized(
        _ungrouped(codes.to(torch.uint8), tensor.shape),
        scales,
        zeros.to(torch.uint8),
        bits,
        granularity,
        block_size,
    )


def _check(bits: int, granularity: str, block_size: int | None) -> None:
    if not 2 <= bits <= 8:
        raise LessonkitError(
            f"Integer codes of {bits} bits are not supported.",
            where="bits",
            remedy="Use 2 to 8 bits.",
        )
    if granularity not in ("tensor", "channel", "block"):
        raise LessonkitError(
            f"There is no granularity {granularity!r}.",
            where="granularity",
            remedy="Use 'tensor', 'channel' or 'block'.",
        )
    fits = (
        block_size is not None and block_size > 0 if granularity == "block" else block_size is None
    )
    if not fits:
        raise LessonkitError(
            f"granularity {granularity!r} and block_size {block_size} do not go together.",
            where="block_size",
            remedy="Give a positive block_size with granularity='block', and only with it.",
        )


def _groups(values: torch.Tensor, granularity: str, block_size: int | None) -> torch.Tensor:
    """View `values` as [rows, groups, size], by what shares a scale."""
    if granularity == "tensor":
        return values.reshape(1, 1, -1)
    return grouped(values, block_size)


def _ungrouped(groups: torch.Tensor, shape: torch.Size) -> torch.Tensor:
    """Undo `_groups`."""
    return groups.reshape(shape) if groups.numel() == shape.numel() else ungrouped(groups, shape)


def _usable(scales: torch.Tensor) -> torch.Tensor:
    """Replace scales whose reciprocal overflows (zero, subnormal) by 1: all codes become 0."""
    import torch

    return torch.where(scales < torch.finfo(torch.float32).tiny, 1.0, scales)
