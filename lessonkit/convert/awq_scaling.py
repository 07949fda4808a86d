"""What AWQ does to a layer's weights before they are rounded, and how a whole block is judged."""

from __future__ import annotations

from collections.abc import Sequence
from typing import TYPE_CHECKING

from lessonkit.convert.decoder import Block, DecoderLayer
from lessonkit.quantize.awq import BlockLoss, InputStatistics, fold_into_rows

if TYPE_CHECKING:
    import torch


class ScaledWeight:
    """A weight on its way: multiplied by `columns`, divided by `rows`, its inputs divided."""

    def __init__(
        self, weight: torch.Tensor, columns: torch.Tensor, inputs: InputStatistics, ratio: float
    ) -> None:
        self.weight, self.columns, self.inputs, self.ratio = weight, columns, inputs, ratio
        self.rows: torch.Tensor | None = None

    def divide_rows(self, scales: torch.Tensor, heads: tuple[int, int] | None) -> None:
        """Take in the scales of the linear layer behind."""
        before = self.weight
        self.weight = fold_into_rows(before, scales, heads)
        ones = before.new_ones(len(before), 1)
        self.rows = 1 / fold_into_rows(ones, scales, heads).squeeze(1)


def repeated_heads(layer: DecoderLayer) -> tuple[int, int] | None:
    """(heads, key-value heads) where they differ."""
    config = layer.module.self_attn.config
    heads, shared = config.num_attention_heads, config.num_key_value_heads
    return None if heads == shared else (heads, shared)


def by_name(
    layer: DecoderLayer, linears: Sequence[str], weights: Sequence[torch.Tensor]
) -> dict[str, torch.Tensor]:
    """Weights of linear layers under the checkpoint's names."""
    names = (f"{layer.prefix}{linear}.weight" for linear in linears)
    return dict(zip(names, weights, strict=True))


def divided_bias(
    layer: DecoderLayer, into: str, scales: torch.Tensor, heads: tuple[int, int] | None
) -> torch.Tensor | None:
    """The bias of a linear layer whose rows are divided, divided like them, if it has one."""
    bias = layer.module.get_submodule(into).bias
    if bias is None:
        return None
    return fold_into_rows(bias.data.float()[:, None], scales, heads).squeeze(1)


def output_loss(
    layer: DecoderLayer, block: Block, linears: Sequence[str], before: torch.Tensor
) -> BlockLoss:
    """How much a block's outputs change, mean of squares, when some weights are replaced."""
    reference = before.clone()
    layer.advance(reference, [block])

    def loss(replaced: Sequence[torch.Tensor]) -> float:
        layer.replace(by_name(layer, linears, replaced))
        total = sum(
            float((after - known).float().square().sum(dim=-1).double().sum())
            for after, known in layer.outputs(before, reference, [block])
        )
        return total / reference.numel()

    return loss
