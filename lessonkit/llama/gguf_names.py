"""Tensor names and row order: Hugging Face's against GGUF's.

The names differ, and for models that GGUF calls `llama` (Llama, Mistral) the rows of the query
and key matrices stand in Meta's order: llama.cpp rotates neighbouring pairs there. For Qwen it
rotates halves, as transformers does, and only the names change.
"""

from __future__ import annotations

import re
from typing import Any

from lessonkit.files.dtypes import Array
from lessonkit.llama.layout import halves_to_pairs, pairs_to_halves
from lessonkit.llama.shape import LlamaShape

ARCHITECTURES = {"llama": "llama", "mistral": "llama", "qwen2": "qwen2", "qwen3": "qwen3"}
"""transformers' `model_type`: what GGUF calls it in `general.architecture`."""

ROPE_FACTORS = "rope_freqs.weight"
"""Llama 3's stretched rotation, which GGUF keeps as a tensor. Hugging Face has none such."""

_OUTER = {
    "model.embed_tokens": "token_embd",
    "model.norm": "output_norm",
    "lm_head": "output",
}
_INNER = {
    "self_attn.q_proj": "attn_q",
    "self_attn.k_proj": "attn_k",
    "self_attn.v_proj": "attn_v",
    "self_attn.o_proj": "attn_output",
    "self_attn.q_norm": "attn_q_norm",
    "self_attn.k_norm": "attn_k_norm",
    "mlp.gate_proj": "ffn_gate",
    "mlp.up_proj": "ffn_up",
    "mlp.down_proj": "ffn_down",
    "input_layernorm": "attn_norm",
    "post_attention_layernorm": "ffn_norm",
}
_OUTER_BACK = {gguf: hf for hf, gguf in _OUTER.items()}
_INNER_BACK = {gguf: hf for hf, gguf in _INNER.items()}
_HF = re.compile(r"(?:model\.layers\.(\d+)\.)?(.+)\.(weight|bias)")
_GGUF = re.compile(r"(?:blk\.(\d+)\.)?(.+)\.(weight|bias)")


def to_gguf_name(name: str) -> str | None:
    """GGUF's name for a tensor of Hugging Face's; None where it has none."""
    found = _HF.fullmatch(name)
    if found is None:
        return None
    layer, part, kind = found.groups()
    ours = (_OUTER if layer is None else _INNER).get(part)
    if ours is None:
        return None
    return f"{ours}.{kind}" if layer is None else f"blk.{int(layer)}.{ours}.{kind}"


def to_hf_name(name: str) -> str | None:
    """Hugging Face's name for a tensor of GGUF's; None where it has none."""
    found = _GGUF.fullmatch(name)
    if found is None:
        return None
    layer, part, kind = found.groups()
    theirs = (_OUTER_BACK if layer is None else _INNER_BACK).get(part)
    if theirs is None:
        return None
    return f"{theirs}.{kind}" if layer is None else f"model.layers.{int(layer)}.{theirs}.{kind}"


def layer_of(name: str) -> int:
    """The number of the layer that GGUF's name speaks of; -1 outside the layers."""
    found = re.match(r"blk\.(\d+)\.", name)
    return int(found[1]) if found else -1


def in_file_order(name: str) -> tuple[int, str]:
    """Sort GGUF's names as `llama-quantize` does: outside the layers, then layer by layer."""
    return layer_of(name), name


def to_pairs(name: str, rows: Array, architecture: str, shape: LlamaShape) -> Array:
    """The rows of a tensor in GGUF's order; `name` is GGUF's.

    A row may be values or the bytes of its blocks: rows are moved whole.
    """
    heads = _rotated_heads(name, architecture, shape)
    return rows if heads is None else _as_matrix(halves_to_pairs, rows, heads)


def to_halves(name: str, rows: Array, architecture: str, shape: LlamaShape) -> Array:
    """Undo :func:`to_pairs`."""
    heads = _rotated_heads(name, architecture, shape)
    return rows if heads is None else _as_matrix(pairs_to_halves, rows, heads)


def _rotated_heads(name: str, architecture: str, shape: LlamaShape) -> int | None:
    """How many heads a matrix holds whose rows are in another order; None for all others."""
    if architecture != "llama":
        return None
    part = name.rpartition(".")[0].rpartition(".")[2]
    return {"attn_q": shape.heads, "attn_k": shape.kv_heads}.get(part)


def _as_matrix(reorder: Any, rows: Array, heads: int) -> Array:
    """A bias has one value a row."""
    moved: Array = reorder(rows.reshape(len(rows), -1), heads)
    return moved.reshape(rows.shape)
