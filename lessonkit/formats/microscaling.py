"""MXFP4 and NVFP4: E2M1 elements, with a small float as the scale of a short block.

An E2M1 element is one of 0, 0.5, 1, 1.5, 2, 3, 4, 6 with a sign. What differs is the scale:

* MXFP4 (OCP Microscaling Formats 1.0): blocks of 32, scale 2^k stored as an E8M0 byte
  k + 127. The scale is 2^(floor(log2(absmax)) - 2), so the largest magnitude lands in
  [4, 8), and what lies above 6 is clipped.
* NVFP4 (NVIDIA): blocks of 16, scale an FP8 E4M3 number, times one float32 for the whole
  tensor, chosen so that the largest block scale is E4M3's largest number, 448.
"""

from __future__ import annotations

from dataclasses import dataclass
from typing import TYPE_CHECKING, Literal

import numpy as np

from lessonkit.errors import LessonkitError
from lessonkit.formats.arrays import as_float_tensor, require_finite
from lessonkit.formats.blocks import grouped, ungrouped
from lessonkit.formats.floats import FP4_E2M1, decode

if TYPE_CHECKING:
    import torch

MXFP4_BLOCK = 32
NVFP4_BLOCK = 16

Rule = Literal["ocp", "gguf"]

E2M1_LARGEST = 6.0
E4M3_LARGEST = 448.0

_MIDPOINTS = (0.25, 0.75, 1.25, 1.75, 2.5, 3.5, 5.0)
# At these the upper neighbour has the even code; at the others the lower one has.
_TIES_UP = (0.75, 1.75, 3.5)


@dataclass(frozen=True)
class Microscaled:
    """A tensor of E2M1 codes with a scale a block along the last axis.

    Attributes
    ----------
    format:
        "mxfp4" or "nvfp4".
    codes:
        uint8 0 to 15 in the original's shape: sign (8), exponent (4 and 2), mantissa (1).
    scales:
        [rows, blocks]; E8M0 bytes (uint8) or torch.float8_e4m3fn.
    tensor_scale:
        float32 scalar tensor for NVFP4, else None.
    """

    format: str
    codes: torch.Tensor
    scales: torch.Tensor
    tensor_scale: torch.Tensor | None

    def block_scales(self) -> torch.Tensor:
        """Return the factor of each block as float32 [rows, blocks]."""
        import torch

        if self.tensor_scale is not None:
            return self.scales.float() * self.tensor_scale
        return torch.ldexp(torch.ones_like(self.scales, dtype=torch.float32), self.scales - 127.0)

    def dequantize(self) -> torch.Tensor:
        """Return `element * scale` as float32 in the original's shape."""
        import torch

        size = MXFP4_BLOCK if self.format == "mxfp4" else NVFP4_BLOCK
        table = torch.from_numpy(decode(np.arange(16), FP4_E2M1, np.float32))
        elements = table.to(self.codes.device)[self.codes.int()]
        blocks = grouped(elements, size) * self.block_scales().unsqueeze(-1)
        return ungrouped(blocks, self.codes.shape)

    def gguf_bytes(self) -> np.ndarray:
        """Return MXFP4 as GGUF stores it: uint8 [rows, 17 * blocks].

        A block is its E8M0 byte, then 16 bytes: the code of value i in the low nibble and
        that of value i + 16 in the high one. The last axis must be a multiple of 32.
        """
        import torch

        if self.format != "mxfp4" or self.codes.shape[-1] % MXFP4_BLOCK:
            raise LessonkitError(
                f"A {self.format} tensor of shape {tuple(self.codes.shape)} has no MXFP4 blocks "
                "in GGUF.",
                where="gguf_bytes",
                remedy="Only MXFP4 whose last axis is a multiple of 32 can be stored so.",
            )
        halves = grouped(self.codes, MXFP4_BLOCK).unflatten(-1, (2, MXFP4_BLOCK // 2))
        packed = halves[..., 0, :] | (halves[..., 1, :] << 4)
        data = torch.cat((self.scales.unsqueeze(-1), packed), dim=-1)
        return data.flatten(1).cpu().numpy()


def quantize_mxfp4(x: torch.Tensor | np.ndarray, *, rule: Rule = "ocp") -> Microscaled:
    """Quantise to MXFP4, blocks of 32 along the last axis; a last block may be shorter.

    Two rules are in use, and give the same for all but a few values:

    * "ocp": the specification's. The exponent of absmax is read from its bits; elements are
      rounded to nearest, ties to the even code.
    * "gguf": the `gguf` package's, to the bit. The exponent is the floor of a float32
      logarithm, one too high just below some powers of two; ties go toward zero, and a
      negative number that becomes zero gets code 0, not 8.

    Blocks with absmax below 2^-125 use the smallest scale (where `gguf` 0.19 wraps round
    to a very large one and returns zeros). NaN and infinity raise LessonkitError.
    """
    import torch

    tensor = as_float_tensor(x)
    blocks = grouped(tensor.float(), MXFP4_BLOCK)
    absmax = blocks.abs().amax(dim=-1)
    require_finite(absmax, where="absmax of the blocks")
    # frexp gives absmax = f * 2^e with 0.5 <= f < 1, so floor(log2(absmax)) = e - 1.
    exponent = torch.frexp(absmax).exponent - 1
    if rule == "gguf":
        with np.errstate(divide="ignore"):
            logarithm = np.floor(np.log2(absmax.cpu().numpy()))
        exponent = torch.from_numpy(logarithm).to(absmax.device)
    # E2M1's largest power of two is 4 = 2^2.
    scales = torch.where(absmax > 0, exponent - 2 + 127, 0).clamp(min=0)
    elements = torch.ldexp(blocks, (127 - scales).float().unsqueeze(-1))
    codes = encode_e2m1(elements, ties="even" if rule == "ocp" else "zero")
    if rule == "gguf":
        codes = torch.where(codes == 8, 0, codes)
    return Microscaled(
        "mxfp4", ungrouped(codes, tensor.shape), scales.to(torch.uint8), tensor_scale=None
    )


def quantize_nvfp4(x: torch.Tensor | np.ndarray) -> Microscaled:
    """Quantise to NVFP4, blocks of 16 along the last axis; a last block may be shorter.

    `tensor_scale = absmax of the tensor / (448 * 6)`; a block's scale is
    `absmax of the block / 6 / tensor_scale` rounded to E4M3; an element is
    `x / (scale * tensor_scale)` rounded to E2M1, ties to the even code.
    """
    import torch

    tensor = as_float_tensor(x)
    blocks = grouped(tensor.float(), NVFP4_BLOCK)
    absmax = blocks.abs().amax(dim=-1)
    require_finite(absmax, where="absmax of the blocks")
    tensor_scale = absmax.amax() / (E4M3_LARGEST * E2M1_LARGEST)
    if tensor_scale < torch.finfo(torch.float32).tiny:
        tensor_scale = torch.ones_like(tensor_scale)  # nothing but zeros, or next to it
    wanted = absmax / E2M1_LARGEST / tensor_scale
    scales = wanted.clamp_(max=E4M3_LARGEST).to(torch.float8_e4m3fn)
    factor = (scales.float() * tensor_scale).unsqueeze(-1)
    elements = torch.where(factor > 0, blocks / factor, 0.0)
    codes = encode_e2m1(elements, ties="even")
    return Microscaled("nvfp4", ungrouped(codes, tensor.shape), scales, tensor_scale)


def encode_e2m1(x: torch.Tensor, *, ties: Literal["even", "zero"] = "even") -> torch.Tensor:
    """Return the E2M1 code of each number, uint8 in x's shape; beyond 6 it is clipped.

    Half-way cases take the even code (IEEE) or the smaller magnitude.
    """
    import torch

    magnitude = x.abs()
    codes = torch.signbit(x).to(torch.uint8) << 3
    for midpoint in _MIDPOINTS:
        upward = ties == "even" and midpoint in _TIES_UP
        codes += magnitude >= midpoint if upward else magnitude > midpoint
    return codes
