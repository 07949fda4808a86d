"""Double quantisation: the scales of 4-bit blocks, themselves quantised to 8 bits.

Dettmers et al. 2023 (QLoRA, https://arxiv.org/abs/2305.14314): the mean of the scales is
subtracted, and what is left is quantised in blocks of 256 to the dynamic 8-bit map. For
blocks of 64 weights that is 8/64 + 32/(64 * 256) = 0.127 bits a weight instead of 0.5.
Bit-exact with bitsandbytes 0.50 on the CPU.
"""

from __future__ import annotations

from dataclasses import dataclass
from functools import cache
from typing import TYPE_CHECKING

from lessonkit.formats.arrays import require_finite
from lessonkit.formats.codebooks import dynamic_map

if TYPE_CHECKING:
    import torch

NESTED_BLOCK = 256
"""How many scales share a scale of their own."""

SCALE_BITS = 8 + 32 / NESTED_BLOCK
"""What a block's scale costs: its own 8 bits, and its share of the scale that it shares."""

_LOOKUP_CELLS = 1 << 16


@dataclass(frozen=True)
class DoubleQuantized:
    """The absmaxes of a tensor's blocks, themselves quantised to 8 bits.

    Attributes
    ----------
    codes:
        uint8 [blocks], indices into `dynamic_map`.
    absmax:
        float32 [ceil(blocks / 256)].
    offset:
        float32 scalar tensor, the mean of the absmaxes, subtracted before quantising.
    """

    codes: torch.Tensor
    absmax: torch.Tensor
    offset: torch.Tensor

    def dequantize(self) -> torch.Tensor:
        """Return the absmaxes as float32 [blocks]."""
        table = dynamic_map().to(self.codes.device)
        scale = self.absmax.repeat_interleave(NESTED_BLOCK)[: self.codes.numel()]
        return table[self.codes.int()] * scale + self.offset


def double_quantize(absmax: torch.Tensor) -> DoubleQuantized:
    """Quantise absmaxes (float32 [blocks]) to 8 bits, in blocks of 256, less their mean.

    Bit-exact with bitsandbytes on the CPU, which finds a code through a table of 65 536
    cells over [-1, 1]. Close to a decision threshold a number may get the neighbour of the
    nearest value, and around 0, where the map is finer than the cells, one a few codes
    away; the value is never further off than the nearest by more than a cell, 3e-5.
    Like bitsandbytes, it relies on `Tensor.mean`, whose last bit may depend on the number
    of threads for more than 32 768 blocks.
    """
    import torch

    offset = absmax.mean()
    centred = absmax - offset
    padded = torch.nn.functional.pad(centred, (0, -centred.numel() % NESTED_BLOCK))
    blocks = padded.view(-1, NESTED_BLOCK)
    largest = blocks.abs().amax(dim=-1)
    require_finite(largest, where="absmax less its mean")
    scaled = (blocks * (1.0 / largest).unsqueeze(-1)).clamp_(-1, 1)
    cells = ((scaled + 1) * 0.5 * (_LOOKUP_CELLS - 1) + 0.5).int()
    # A block of zeros gets code 0 for all, which decodes to -0.
    cells = torch.where(largest.unsqueeze(-1) == 0, 0, cells)
    codes = _lookup_table().to(absmax.device)[cells].view(-1)[: absmax.numel()]
    return DoubleQuantized(codes.contiguous(), largest, offset)


@cache
def _lookup_table() -> torch.Tensor:
    """Return the dynamic map's code for the centre of each of 65 536 cells over [-1, 1]."""
    import torch

    levels = dynamic_map()
    thresholds = 0.5 * (levels[:-1] + levels[1:])
    steps = 2.0 * torch.arange(_LOOKUP_CELLS, dtype=torch.float32)
    centres = -1.0 + steps / (_LOOKUP_CELLS - 1)
    return torch.bucketize(centres, thresholds).to(torch.uint8)
