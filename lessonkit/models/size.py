"""How large is a model: its weights, counted by number format, and its shape."""

from __future__ import annotations

from collections import Counter
from dataclasses import dataclass
from typing import Any

from lessonkit.llama.configs import read_sizes
from lessonkit.llama.shape import LlamaShape

SMALL = 50_000_000
"""Up to so many weights a model counts as small: what is done with it takes seconds on a CPU."""


def is_small(model: Any) -> bool:
    """Is this loaded model a small one?"""
    return sum(parameter.numel() for parameter in model.parameters()) <= SMALL


@dataclass(frozen=True)
class Description:
    """The size and shape of a loaded Llama.

    `parameters` counts every stored value once (tied tensors once), `dtypes` says how many of
    them there are in each number format, `byte_count` is what they take, `context` is the longest
    text in tokens.
    """

    parameters: int
    dtypes: dict[str, int]
    byte_count: int
    shape: LlamaShape
    context: int

    def __str__(self) -> str:
        formats = ", ".join(
            name if len(self.dtypes) == 1 else f"{name} ({count:,})"
            for name, count in self.dtypes.items()
        )
        heads = f"{self.shape.heads} heads"
        if self.shape.kv_heads != self.shape.heads:
            heads += f" that share {self.shape.kv_heads} key/value heads"
        return (
            f"{self.parameters:,} parameters in {formats}: {self.byte_count / 1e6:,.1f} MB\n"
            f"{self.shape.layers} layers of width {self.shape.width:,}, feed-forward width "
            f"{self.shape.mlp_width:,}, {heads}\n"
            f"vocabulary of {self.shape.vocabulary:,}, texts of up to {self.context:,} tokens"
        )


def describe(model: Any) -> Description:
    """Describe a loaded transformers model."""
    sizes: Counter[str] = Counter()
    byte_count = 0
    for parameter in model.parameters():
        sizes[str(parameter.dtype).removeprefix("torch.")] += parameter.numel()
        byte_count += parameter.numel() * parameter.element_size()
    config = model.config.to_dict()
    return Description(
        parameters=sizes.total(),
        dtypes=dict(sizes),
        byte_count=byte_count,
        shape=read_sizes(config, "the model's configuration"),
        context=config["max_position_embeddings"],
    )
