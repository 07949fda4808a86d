"""AWQ: make the input channels that matter larger before rounding, and undo that outside.

A linear layer does not change if input channel i of its weight [out, in] is multiplied by s_i
and its inputs are divided by s_i. Its rounding errors do: a channel with a large s is rounded
more finely. AWQ looks for s among twenty candidates made of the mean magnitude of each input
channel and, with *duo scaling*, of the weights; rounds with each; and keeps the one whose
output changes least. The division is *folded* into what makes the inputs: the weight of a
norm, or the output rows of another linear layer. Then each group's range is clipped if that
lowers the error too.

Lin et al. 2023, https://arxiv.org/abs/2306.00978; formulas and constants as in AutoAWQ's
`awq/quantize/quantizer.py` and `scale.py`. AutoAWQ runs the tokens through the layer for
every candidate. The squared error of a linear layer's output is a quadratic form in the
weight's change E, tr(E G E^T) with G = X^T X / tokens, so that here G stands for the tokens.
Where a whole block is to be compared, as AutoAWQ does for q, k, v and for gate, up, a function
of the caller's gives the loss.
"""

from __future__ import annotations

from collections.abc import Callable, Sequence
from dataclasses import dataclass
from typing import TYPE_CHECKING

from lessonkit.errors import LessonkitError
from lessonkit.formats.arrays import require_finite
from lessonkit.quantize.gptq import Hessian, energy
from lessonkit.quantize.grids import Grid, as_matrix, in_pieces, round_to_nearest

if TYPE_CHECKING:
    import torch

RATIOS = tuple(step / 20 for step in range(20))
"""Exponents r tried for the scales: 0, .05, .. .95."""

CLIP_SHARES = tuple(1 - step / 20 for step in range(10))
"""Shares of a group's largest magnitude tried as its limit: 1.00, .95, .. .55."""

BlockLoss = Callable[[Sequence["torch.Tensor"]], float]
"""Given a replacement for each weight, in order, returns how much the block's output changed."""


@dataclass(frozen=True)
class InputStatistics:
    """What AWQ needs to know of a layer's inputs X [tokens, in].

    Attributes
    ----------
    mean_magnitude:
        float32 [in], the mean of |x| over tokens.
    gram:
        float32 [in, in], X^T X / tokens.
    """

    mean_magnitude: torch.Tensor
    gram: torch.Tensor

    def divided_by(self, scales: torch.Tensor) -> InputStatistics:
        """Return the statistics of the inputs after their division by `scales` [in]."""
        return InputStatistics(
            self.mean_magnitude / scales, self.gram / scales[:, None] / scales[None, :]
        )


class InputCollector:
    """Running `InputStatistics` of inputs that come in pieces."""

    def __init__(self, columns: int, device: torch.device | str = "cpu") -> None:
        import torch

        self._hessian = Hessian(columns, device)
        self._magnitudes = torch.zeros(columns, dtype=torch.float64, device=device)

    def add(self, inputs: torch.Tensor) -> None:
        """Take in inputs of shape [.., in], one token a row, of any floating-point dtype."""
        self._hessian.add(inputs)
        rows = inputs.detach().reshape(-1, inputs.shape[-1])
        self._magnitudes += rows.float().abs().sum(dim=0).to(self._magnitudes)

    def statistics(self) -> InputStatistics:
        """Return what is known so far. Raises LessonkitError if no token has come in."""
        tokens = self._hessian.tokens
        if not tokens:
            raise LessonkitError(
                "No inputs of this layer have been collected.",
                where="calibration",
                remedy="Run the calibration text through the model first.",
            )
        return InputStatistics((self._magnitudes / tokens).float(), self._hessian.matrix / 2)


@dataclass(frozen=True)
class ScaleSearch:
    """The best candidate of `search_scales`.

    Attributes
    ----------
    scales:
        float32 [in], to multiply the weights' columns and to divide the inputs by.
    ratio:
        The exponent r that they come from.
    losses:
        The loss of every candidate, in the order of the ratios tried.
    """

    scales: torch.Tensor
    ratio: float
    losses: tuple[float, ...]


def search_scales(
    weights: Sequence[torch.Tensor],
    inputs: InputStatistics,
    grid: Grid,
    *,
    duo_scaling: bool = True,
    block_loss: BlockLoss | None = None,
    repeated_heads: tuple[int, int] | None = None,
    ratios: Sequence[float] = RATIOS,
) -> ScaleSearch:
    """Find one scale for each input channel of linear layers that share their inputs.

    Parameters
    ----------
    weights:
        Floating-point [out_i, in] each, unscaled; they are not changed.
    inputs:
        Statistics of the unscaled inputs.
    grid:
        The values that weights will be rounded to; AWQ's files need `AwqGrid`.
    duo_scaling:
        Whether the weights' own magnitudes count too; see `candidate_scales`.
    block_loss:
        The loss of a candidate, from the rounded weights divided by its scales again, that
        is as if nothing had been folded. Left out: the mean squared change of the layers'
        outputs together, through the Gram matrix.
    repeated_heads:
        (attention heads, key-value heads), for `o_proj` behind `v_proj` in grouped-query
        attention: scales are equal wherever a head is repeated. See `tie_heads`.
    ratios:
        The exponents to try. Of equal losses the first wins.
    """
    originals = [as_matrix(weight) for weight in weights]
    _check_shared_inputs(originals, inputs)
    magnitude = inputs.mean_magnitude
    weight_mean = mean_weight_magnitude(originals, grid) if duo_scaling else None
    if repeated_heads is not None:
        magnitude = tie_heads(magnitude, *repeated_heads)
        weight_mean = None if weight_mean is None else tie_heads(weight_mean, *repeated_heads)
    loss = block_loss or (lambda replaced: _gram_loss(originals, replaced, inputs.gram))
    candidates, losses = [], []
    for ratio in ratios:
        scales = candidate_scales(magnitude, ratio, weight_mean)
        replaced = [_rounded(original, scales, grid) for original in originals]
        candidates.append(scales)
        losses.append(float(loss(replaced)))
    best = min(range(len(losses)), key=losses.__getitem__)
    return ScaleSearch(candidates[best], ratios[best], tuple(losses))


def candidate_scales(
    magnitude: torch.Tensor, ratio: float, weight_mean: torch.Tensor | None = None
) -> torch.Tensor:
    """Return the scales of one ratio r, from mean magnitudes of inputs and weights, all [in].

    `magnitude^r`, or with duo scaling `magnitude^r / (weight_mean^(1 - r) + 1e-4)`; at
    least 1e-4; divided by `sqrt(largest * smallest)`, so that they lie around 1; and 1 where
    that is not a finite number. Without duo scaling, r = 0 gives all ones: plain rounding.
    """
    import torch

    scales = magnitude**ratio
    if weight_mean is not None:
        scales = scales / (weight_mean ** (1 - ratio) + 1e-4)
    scales = scales.clamp(min=1e-4)
    scales = scales / (scales.max() * scales.min()).sqrt()
    return torch.where(torch.isfinite(scales), scales, 1.0)


def mean_weight_magnitude(weights: Sequence[torch.Tensor], grid: Grid) -> torch.Tensor:
    """Return how large each input channel's weights are within their groups: float32 [in].

    |w| / (largest |w| of its group + 1e-6), averaged over all rows of all the layers.
    """
    total = None
    for weight in weights:
        groups = weight.abs().unflatten(1, (grid.groups_in(weight.shape[1]), -1))
        shares = (groups / (groups.amax(dim=-1, keepdim=True) + 1e-6)).flatten(1).sum(dim=0)
        total = shares if total is None else total + shares
    assert total is not None
    return total / sum(weight.shape[0] for weight in weights)


def tie_heads(values: torch.Tensor, heads: int, key_value_heads: int) -> torch.Tensor:
    """Average values [heads * size] over the heads that share one key-value head.

    In grouped-query attention key-value head j is repeated for heads j * n .. j * n + n - 1.
    What is folded into a row of `v_proj` therefore acts on n input channels of `o_proj`,
    whose scales must be equal. AutoAWQ leaves such an `o_proj` unscaled; llm-compressor
    averages as here. The result has the shape of `values`.
    """
    if heads < 1 or key_value_heads < 1 or heads % key_value_heads or len(values) % heads:
        raise LessonkitError(
            f"{heads} heads on {key_value_heads} key-value heads do not divide "
            f"{len(values)} channels.",
            where="repeated_heads",
            remedy="Give (num_attention_heads, num_key_value_heads) of the model.",
        )
    by_head = values.view(key_value_heads, heads // key_value_heads, -1)
    return by_head.mean(dim=1, keepdim=True).expand_as(by_head).reshape(-1)


def search_clip(
    weight: torch.Tensor,
    inputs: InputStatistics,
    grid: Grid,
    shares: Sequence[float] = CLIP_SHARES,
) -> torch.Tensor:
    """Find the magnitude at which each group is best clipped before it is rounded.

    Tried are shares of the group's largest magnitude; the loss is the group's own part of the
    squared output change, e G_g e^T, with G_g the group's block of the Gram matrix. Both
    `weight` [out, in] and `inputs` must already be scaled. AutoAWQ clips neither q nor k:
    their errors meet in a product.

    Returns float32 [out, groups].
    """
    import torch

    original = as_matrix(weight)
    _check_shared_inputs([original], inputs)
    count = grid.groups_in(original.shape[1])
    size = original.shape[1] // count
    largest = original.unflatten(1, (count, size)).abs().amax(dim=-1)
    blocks = inputs.gram.view(count, size, count, size).diagonal(dim1=0, dim2=2)
    blocks = blocks.permute(2, 0, 1)  # [groups, size, size]
    best = largest.clone()
    for rows, top, chosen in in_pieces(original, largest, best):
        least = torch.full_like(top, torch.inf)
        for share in shares:
            limits = top * share
            change = round_to_nearest(clip(rows, limits), grid).dequantize() - rows
            change = change.unflatten(1, (count, size)).transpose(0, 1)  # [groups, rows, size]
            loss = (change @ blocks).mul_(change).sum(dim=-1).T
            better = loss < least
            chosen.copy_(torch.where(better, limits, chosen))
            least = torch.where(better, loss, least)
    return best


def clip(weight: torch.Tensor, limits: torch.Tensor) -> torch.Tensor:
    """Clip a weight [out, in] to +-limits [out, groups], group by group."""
    groups = weight.unflatten(1, (limits.shape[1], -1))
    bounds = limits.unsqueeze(-1).to(weight.dtype)
    return groups.clamp(-bounds, bounds).flatten(1)


def scale_columns(weight: torch.Tensor, scales: torch.Tensor) -> torch.Tensor:
    """Return a weight [out, in] for inputs that have been divided by `scales` [in]."""
    return weight * scales.to(weight.dtype)


def fold_into_norm(norm: torch.Tensor, scales: torch.Tensor) -> torch.Tensor:
    """Return an RMSNorm's weight [in] that divides its outputs by `scales` [in]."""
    return norm / scales.to(norm.dtype)


def fold_into_rows(
    weight: torch.Tensor,
    scales: torch.Tensor,
    repeated_heads: tuple[int, int] | None = None,
) -> torch.Tensor:
    """Return a linear layer's weight [out, in'] that divides its outputs by `scales` [out].

    With `repeated_heads` = (attention heads, key-value heads) the weight is `v_proj`'s,
    the scales are `o_proj`'s [heads * size], and each value is taken once. A bias must be
    divided as well: pass it as [out, 1]. Raises LessonkitError if scales of repeated heads
    are not equal.
    """
    import torch

    if repeated_heads is not None:
        heads, key_value_heads = repeated_heads
        tied = tie_heads(scales, heads, key_value_heads)
        if not torch.allclose(tied, scales, rtol=1e-6, atol=0):
            raise LessonkitError(
                "Scales of heads that share one key-value head are not equal.",
                where="scales",
                remedy="Search them with the same repeated_heads.",
            )
        scales = scales.view(key_value_heads, heads // key_value_heads, -1)[:, 0].flatten()
    if weight.shape[0] != len(scales):
        raise LessonkitError(
            f"{len(scales)} scales cannot be folded into {weight.shape[0]} outputs.",
            where="scales",
            remedy="In grouped-query attention, give repeated_heads.",
        )
    return weight / scales.to(weight.dtype).unsqueeze(1)


def _rounded(weight: torch.Tensor, scales: torch.Tensor, grid: Grid) -> torch.Tensor:
    """Scale, round, scale back: the weight as the layer's own inputs see it."""
    import torch

    result = torch.empty_like(weight)
    for before, after in in_pieces(weight, result):
        torch.div(round_to_nearest(before * scales, grid).dequantize(), scales, out=after)
    return result


def _gram_loss(
    originals: Sequence[torch.Tensor], replaced: Sequence[torch.Tensor], gram: torch.Tensor
) -> float:
    """Return the mean squared change of all outputs, over tokens and output channels."""
    total = sum(
        energy(replacement - original, gram)
        for original, replacement in zip(originals, replaced, strict=True)
    )
    return total / sum(original.shape[0] for original in originals)


def _check_shared_inputs(weights: Sequence[torch.Tensor], inputs: InputStatistics) -> None:
    columns = len(inputs.mean_magnitude)
    if not weights or any(weight.shape[1] != columns for weight in weights):
        raise LessonkitError(
            f"Weights {[tuple(weight.shape) for weight in weights]} do not all take "
            f"{columns} inputs.",
            where="weights",
            remedy="Pass the layers that share these inputs, each weight as [out, in].",
        )
    require_finite(inputs.mean_magnitude, where="inputs")
