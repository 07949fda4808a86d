"""A Llama's sizes, and what follows from them: the shapes of its tensors, its usual context."""

from __future__ import annotations

import math
from dataclasses import dataclass

from lessonkit.llama.layout import Pair

LLAMA_3_THETA = 500_000.0


@dataclass(frozen=True)
class LlamaShape:
    """The sizes of a Llama. `rope_factor` is the stretch of Llama 3.1 and later, else None;
    `tied` says that the output head is the embedding; `head_dim` is the size of a head where the
    heads do not just fill the width."""

    width: int
    layers: int
    heads: int
    kv_heads: int
    mlp_width: int
    vocabulary: int
    norm_eps: float
    rope_theta: float = 10_000.0
    rope_factor: float | None = None
    rope_high: float = 4.0
    tied: bool = False
    head_dim: int | None = None

    def __str__(self) -> str:
        sharing = f", {self.kv_heads} for keys and values" if self.kv_heads != self.heads else ""
        return (
            f"{self.layers} layers of width {self.width}, feed-forward width {self.mlp_width}, "
            f"{self.heads} heads{sharing}, vocabulary of {self.vocabulary}"
            + (", tied embeddings" if self.tied else "")
        )

    @property
    def head_size(self) -> int:
        """Values of one attention head."""
        return self.head_dim or self.width // self.heads

    def heads_of(self, pair: Pair) -> int:
        """How many heads the rows of a query or key matrix hold."""
        return self.heads if pair.rotary == "query" else self.kv_heads

    def shape_of(self, pair: Pair) -> tuple[int, ...]:
        """The shape of a whole tensor (rows out, columns in)."""
        q_width = self.heads * self.head_size
        kv_width = self.kv_heads * self.head_size
        name = pair.hf.removesuffix(".weight").rpartition(".")[2]
        return {
            "embed_tokens": (self.vocabulary, self.width),
            "lm_head": (self.vocabulary, self.width),
            "q_proj": (q_width, self.width),
            "k_proj": (kv_width, self.width),
            "v_proj": (kv_width, self.width),
            "o_proj": (self.width, q_width),
            "gate_proj": (self.mlp_width, self.width),
            "up_proj": (self.mlp_width, self.width),
            "down_proj": (self.width, self.mlp_width),
        }.get(name, (self.width,))


def meta_mlp_width(width: int, multiple_of: int, multiplier: float | None) -> int:
    """The feed-forward width that Meta's code computes from `params.json`.

    Source: `FeedForward` in Meta's llama/model.py. Two thirds of 4 * dim, times
    `ffn_dim_multiplier`, rounded up to a multiple of `multiple_of`.
    """
    hidden = int(2 * (4 * width) / 3)
    if multiplier is not None:
        hidden = int(multiplier * hidden)
    return multiple_of * math.ceil(hidden / multiple_of)


def context_of(shape: LlamaShape) -> tuple[int, str]:
    """The longest text of the Llama that these sizes point to, and that Llama's name.

    `params.json` does not say it. Llama 1 and 2 differ only in their norm's epsilon; and of the
    two with 80 layers, Llama 1 shares no key/value heads.
    """
    if shape.rope_factor is not None:
        return 131_072, "Llama 3.1 or later"
    if shape.rope_theta == LLAMA_3_THETA:
        return 8192, "Llama 3"
    if shape.rope_theta > 10_000:
        return 16_384, "Code Llama"
    first_65b = shape.layers == 80 and shape.kv_heads == shape.heads
    if shape.norm_eps == 1e-6 or first_65b:
        return 2048, "Llama 1"
    return 4096, "Llama 2"
