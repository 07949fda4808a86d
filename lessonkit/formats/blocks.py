"""Blocks: neighbours that share a scale. Grouping and padding, and what the scales cost."""

from __future__ import annotations

import math
from typing import TYPE_CHECKING

if TYPE_CHECKING:
    import torch

_PIECE = 1 << 20  # values


def grouped(values: torch.Tensor, size: int | None) -> torch.Tensor:
    """View as [rows, groups, size], groups along the last axis; one group a row if size is None.

    A shorter last group is filled with zeros. They change neither the largest magnitude of a group
    nor a range that must contain zero.
    """
    import torch

    rows = values.reshape(-1, values.shape[-1] if values.dim() else 1)
    if size is None:
        return rows.unsqueeze(1)
    rows = torch.nn.functional.pad(rows, (0, -rows.shape[1] % size))
    return rows.reshape(rows.shape[0], -1, size)


def ungrouped(groups: torch.Tensor, shape: torch.Size) -> torch.Tensor:
    """Undo `grouped`: drop the zeros and return to `shape`."""
    columns = shape[-1] if len(shape) else 1
    return groups.flatten(1)[:, :columns].reshape(shape)


def bits_per_weight(
    code_bits: float, block_size: float, *, scale_bits: float = 32, zero_bits: float = 0
) -> float:
    """Bits that a weight of a block costs: `code_bits + (scale_bits + zero_bits) / block_size`.

    4.5 for NF4 in blocks of 64 with float32 scales. With double quantisation a scale costs
    `double_quant.SCALE_BITS`, and the weight 4.127.
    """
    return code_bits + (scale_bits + zero_bits) / block_size


def relative_rms(error: torch.Tensor, original: torch.Tensor) -> float:
    """Return `rms(error) / rms(original)`, summed in float64; 0 where the original is all 0."""
    total = _squares(original)
    return math.sqrt(_squares(error) / total) if total > 0 else 0.0


def _squares(values: torch.Tensor) -> float:
    """Their squares' sum, in pieces: a large tensor in float64 would be several times as large."""
    return sum(float(piece.double().square().sum()) for piece in values.reshape(-1).split(_PIECE))
