"""The arithmetic of LoRA: a change of low rank, and DoRA's rescaled sum. All in float32.

Sources: LoRA (arXiv 2106.09685, section 4.1), rsLoRA (2312.03732: the scale is alpha / sqrt(r)),
DoRA (2402.09353, equation 5); PEFT's `lora/layer.py` and `lora/variants.py` do the same.
"""

from __future__ import annotations

from typing import TYPE_CHECKING

if TYPE_CHECKING:
    import torch


def low_rank_product(
    a: torch.Tensor, b: torch.Tensor, *, out: torch.Tensor | None = None
) -> torch.Tensor:
    """``b @ a``, float32 [out, in], for `a` [rank, in] and `b` [out, rank]; into `out` if given."""
    import torch

    return torch.matmul(b.float(), a.float(), out=out)


def low_rank_delta(
    a: torch.Tensor, b: torch.Tensor, scale: float, *, transposed: bool = False
) -> torch.Tensor:
    """The change ``scale * b @ a`` of a weight, float32 [out, in]; [in, out] if `transposed`.

    The product is scaled, not a factor: that is where PEFT rounds, so the bits agree.
    """
    product = low_rank_product(a, b).mul_(scale)
    return product.T if transposed else product


def add_dora(
    weight: torch.Tensor, delta: torch.Tensor, magnitude: torch.Tensor, *, transposed: bool = False
) -> torch.Tensor:
    """DoRA: ``magnitude * (W + delta) / norm(W + delta)``, the norm over each output's inputs.

    `weight` and `delta` are float32 [out, in] ([in, out] if `transposed`), `magnitude` is [out].
    This is no sum: a second adapter on top gives another result than the first on the second.
    """
    import torch

    total = weight + delta
    norm = torch.linalg.norm(total.T if transposed else total, dim=1)
    factor = (magnitude.float().reshape(-1) / norm).view(-1, 1)
    return (factor.T if transposed else factor) * total
