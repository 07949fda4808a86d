"""Several adapters as one: cat, linear, TIES and DARE, each on the factors of one layer.

A pair is one adapter's `(A, B, scale)` for a layer: A [rank, in], B [out, rank]; its change is
scale * B @ A. All of these are what PEFT's `add_weighted_adapter` does, and only `cat` gives the
weighted sum of the changes: the others mix the factors, and the product of two sums has cross
terms, B1 @ A2 and B2 @ A1, that nobody trained. Sources: TIES (arXiv 2306.01708), DARE
(2311.03099), PEFT's `utils/merge_utils.py`.
"""

from __future__ import annotations

import math
from collections.abc import Sequence
from typing import TYPE_CHECKING, NamedTuple, TypeAlias

from lessonkit.errors import LessonkitError

if TYPE_CHECKING:
    import torch

Factors: TypeAlias = "tuple[torch.Tensor, torch.Tensor]"


class Pair(NamedTuple):
    """One adapter's factors for one layer."""

    a: torch.Tensor
    b: torch.Tensor
    scale: float


def combine_cat(pairs: Sequence[Pair], weights: Sequence[float]) -> Factors:
    """A and B of rank r1 + r2 + ..., whose product is exactly the weighted sum of the changes."""
    import torch

    _require(pairs, weights, one_rank=False)
    together = zip(pairs, weights, strict=True)
    a = torch.cat([pair.a * weight * pair.scale for pair, weight in together])
    return a, torch.cat([pair.b for pair in pairs], dim=1)


def combine_linear(pairs: Sequence[Pair], weights: Sequence[float]) -> Factors:
    """A and B as weighted sums, each adapter's weight shared between its two factors.

    The product is (w1 B1 + w2 B2) @ (w1 A1 + w2 A2) with the roots of the weights: cross terms
    come in.
    """
    roots = _roots(pairs, weights)
    a = _sum([pair.a for pair in pairs], roots[0])
    return a, _sum([pair.b for pair in pairs], roots[1])


def ties(pairs: Sequence[Pair], weights: Sequence[float], *, density: float) -> Factors:
    """TIES: keep the largest values, elect a sign for each place, average those that agree.

    `density` is the part of the values that is kept, by magnitude.
    """
    _require_density(density)
    roots = _roots(pairs, weights)
    a = _agreeing([_largest(pair.a, density) for pair in pairs], roots[0])
    return a, _agreeing([_largest(pair.b, density) for pair in pairs], roots[1])


def dare(
    pairs: Sequence[Pair], weights: Sequence[float], *, density: float, seed: int = 0
) -> Factors:
    """DARE: drop values at random, divide the rest by `density`, then combine as `linear` does.

    The mean stays what it was. PEFT draws from torch's global generator, all A before all B; the
    draws here have a seed of their own and leave that generator alone.
    """
    import torch

    _require_density(density)
    roots = _roots(pairs, weights)
    generator = torch.Generator().manual_seed(seed)

    def thinned(factor: torch.Tensor) -> torch.Tensor:
        kept = torch.bernoulli(torch.full_like(factor, density), generator=generator)
        return factor * kept / density

    a = [thinned(pair.a) for pair in pairs]
    return _sum(a, roots[0]), _sum([thinned(pair.b) for pair in pairs], roots[1])


def _roots(pairs: Sequence[Pair], weights: Sequence[float]) -> tuple[list[float], list[float]]:
    """The factors for A and B; a negative weight's sign goes to A alone."""
    _require(pairs, weights, one_rank=True)
    whole = [weight * pair.scale for pair, weight in zip(pairs, weights, strict=True)]
    roots = [math.sqrt(abs(weight)) for weight in whole]
    return [math.copysign(r, w) for r, w in zip(roots, whole, strict=True)], roots


def _sum(tensors: Sequence[torch.Tensor], factors: Sequence[float]) -> torch.Tensor:
    import torch

    return (torch.stack(list(tensors)) * torch.tensor(factors)[:, None, None]).sum(dim=0)


def _largest(tensor: torch.Tensor, density: float) -> torch.Tensor:
    """All but the `density` part of largest magnitude becomes 0."""
    import torch

    flat = tensor.reshape(-1)
    kept = flat.abs().topk(int(density * flat.numel())).indices
    return torch.zeros_like(flat).index_copy(0, kept, flat[kept]).reshape(tensor.shape)


def _agreeing(tensors: Sequence[torch.Tensor], factors: Sequence[float]) -> torch.Tensor:
    """The weighted mean of the values whose sign is that of the sum at their place."""
    import torch

    stacked = torch.stack(list(tensors))
    elected = torch.where(stacked.sum(dim=0) >= 0, 1, -1)
    agree = stacked.sign() == elected
    weighted = stacked * torch.tensor(factors)[:, None, None]
    return (weighted * agree).sum(dim=0) / agree.sum(dim=0).clamp(min=1)


def _require(pairs: Sequence[Pair], weights: Sequence[float], *, one_rank: bool) -> None:
    if not pairs or len(pairs) != len(weights):
        raise LessonkitError(
            f"There are {len(pairs)} pairs and {len(weights)} weights.",
            where="weights",
            remedy="Give at least one pair, and a weight for each.",
        )
    sizes = {(p.a.shape[1], p.b.shape[0], p.a.shape[0] if one_rank else 0) for p in pairs}
    if len(sizes) > 1:
        raise LessonkitError(
            "The adapters do not have the same "
            + ("rank and layer sizes." if one_rank else "layer sizes."),
            where="pairs",
            remedy="Combine adapters of one base; different ranks only with combine_cat.",
        )


def _require_density(density: float) -> None:
    if not 0 < density <= 1:
        raise LessonkitError(
            f"A density of {density} keeps nothing, or more than everything.",
            where="density",
            remedy="Give a number above 0 and up to 1.",
        )
