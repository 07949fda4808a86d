"""How Meta's Llama files and Hugging Face's differ: names, row order, slices.

Three things and no more. Names differ. The rows of the query and key matrices are in another
order, because Meta rotates neighbouring pairs (0,1), (2,3), ... of a head and Hugging Face
rotates halves (0, d/2), (1, d/2+1), ... And Meta cuts a large model into slices, one file for
each GPU: some matrices by rows (axis 0), some by columns (axis 1), norms not at all.
"""

from __future__ import annotations

from collections.abc import Iterator
from dataclasses import dataclass

import numpy as np

from lessonkit.errors import LessonkitError
from lessonkit.files.dtypes import Array


@dataclass(frozen=True)
class Pair:
    """One tensor under both names. `axis` is cut across shards (None: a copy in each);
    `rotary` is "query" or "key" where the rows are in another order."""

    hf: str
    meta: str
    axis: int | None
    rotary: str | None = None


_LAYER = (
    Pair("self_attn.q_proj", "attention.wq", 0, "query"),
    Pair("self_attn.k_proj", "attention.wk", 0, "key"),
    Pair("self_attn.v_proj", "attention.wv", 0),
    Pair("self_attn.o_proj", "attention.wo", 1),
    Pair("mlp.gate_proj", "feed_forward.w1", 0),
    Pair("mlp.down_proj", "feed_forward.w2", 1),
    Pair("mlp.up_proj", "feed_forward.w3", 0),
    Pair("input_layernorm", "attention_norm", None),
    Pair("post_attention_layernorm", "ffn_norm", None),
)
EMBEDDING = "model.embed_tokens.weight"
HEAD = "lm_head.weight"


def pairs(layers: int, *, embedding_axis: int = 1) -> Iterator[Pair]:
    """Every tensor of a Llama, from the embedding through the layers to the head.

    `embedding_axis` is 1 (columns) in Llama 1 and 2, and 0 (rows) in Llama 3.
    """
    yield Pair(EMBEDDING, "tok_embeddings.weight", embedding_axis)
    for layer in range(layers):
        for pair in _LAYER:
            yield Pair(
                f"model.layers.{layer}.{pair.hf}.weight",
                f"layers.{layer}.{pair.meta}.weight",
                pair.axis,
                pair.rotary,
            )
    yield Pair("model.norm.weight", "norm.weight", None)
    yield Pair(HEAD, "output.weight", 0)


def is_recomputed(name: str) -> bool:
    """Is this a table of rotary frequencies? It follows from `rope_theta` and is left out.

    Meta's files hold one, or one in each layer (LLaMA 7B); old Hugging Face ones one a layer.
    """
    return name.endswith(("rope.freqs", "rotary_emb.inv_freq"))


def pairs_to_halves(matrix: Array, heads: int) -> Array:
    """Meta's row order to Hugging Face's, for `wq` (query heads) or `wk` (key/value heads).

    Within each head, rows 0, 2, 4, ... come first, then rows 1, 3, 5, ...
    """
    rows, columns = _rows_of_heads(matrix, heads)
    return matrix.reshape(heads, rows // 2, 2, columns).swapaxes(1, 2).reshape(matrix.shape)


def halves_to_pairs(matrix: Array, heads: int) -> Array:
    """Hugging Face's row order to Meta's: the inverse of `pairs_to_halves`."""
    rows, columns = _rows_of_heads(matrix, heads)
    return matrix.reshape(heads, 2, rows // 2, columns).swapaxes(1, 2).reshape(matrix.shape)


def join(slices: list[Array], axis: int | None) -> Array:
    """Put the slices of model-parallel shards together; one slice is returned as it is."""
    if len(slices) == 1 or axis is None:
        return slices[0]
    return np.concatenate(slices, axis=axis)


def cut(matrix: Array, axis: int | None, rank: int, shards: int) -> Array:
    """The slice of a tensor that belongs into shard `rank` of `shards`; a view."""
    if axis is None:
        return matrix
    length = matrix.shape[axis]
    if length % shards:
        raise LessonkitError(
            f"{length} {'rows' if axis == 0 else 'columns'} cannot be cut into {shards} shards.",
            where=f"a tensor of shape {list(matrix.shape)}",
            remedy="Ask for a number of shards that divides the number of key/value heads.",
        )
    size = length // shards
    return matrix[rank * size : (rank + 1) * size] if axis == 0 else (
        matrix[:, rank * size : (rank + 1) * size]
    )  # fmt: skip


def _rows_of_heads(matrix: Array, heads: int) -> tuple[int, int]:
    """Rows of one head, and columns."""
    if matrix.ndim != 2 or heads < 1 or matrix.shape[0] % (2 * heads):
        raise LessonkitError(
            f"A matrix of shape {list(matrix.shape)} does not hold {heads} heads of even size.",
            where="heads",
            remedy="For wk, give the number of key/value heads, not of query heads.",
        )
    return matrix.shape[0] // heads, matrix.shape[1]
