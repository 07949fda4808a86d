"""Exercises of lesson 03: the row order of the two forms, a lost tensor, the shape of a shard."""

from __future__ import annotations

import json

import numpy as np

from lessonkit.course.exercises.attempts import Exercise, Mistake
from lessonkit.files.safetensors import TensorInfo, encode_header
from lessonkit.llama import pairs


def row_orders(heads: int, head_size: int) -> tuple[np.ndarray, np.ndarray]:
    """Row numbers (to_hf, to_meta): `wq[to_hf]` is q_proj, and `q_proj[to_meta]` is wq."""
    rows = np.arange(heads * head_size).reshape(heads, head_size // 2, 2)
    to_hf = rows.swapaxes(1, 2).reshape(-1)
    # Sorting a permutation puts every row back into its place: that is its inverse.
    return to_hf, np.argsort(to_hf)


def lost_tensors(raw: bytes, layers: int) -> set[str]:
    """The names that a Llama needs and a safetensors file, given by its first bytes, lacks."""
    length = int.from_bytes(raw[:8], "little")
    header = json.loads(raw[8 : 8 + length])
    return {pair.hf for pair in pairs(layers)} - set(header)


def shard_shape(name: str, shape: tuple[int, ...], shards: int, llama_3: bool) -> tuple[int, ...]:
    """The shape of one shard's part of a tensor, given by Meta's name and whole shape."""
    part = name.removesuffix(".weight").rpartition(".")[2]
    if "norm" in part:
        return shape
    by_columns = part in ("wo", "w2") or (part == "tok_embeddings" and not llama_3)
    rows, columns = shape
    return (rows, columns // shards) if by_columns else (rows // shards, columns)


def _order_cases() -> list[tuple[int, int]]:
    return [(1, 8), (2, 8), (3, 4), (4, 64), (32, 128), (8, 2)]


def _headers() -> list[tuple[bytes, int]]:
    """Headers of small Llamas that lost nothing, one tensor, or several."""
    cases: list[tuple[int, set[str]]] = [
        (2, {"model.layers.1.mlp.up_proj.weight"}),
        (2, set()),
        (1, {"model.norm.weight", "lm_head.weight"}),
        (12, {"model.layers.10.self_attn.k_proj.weight", "model.layers.2.input_layernorm.weight"}),
    ]
    return [(_header(layers, lost), layers) for layers, lost in cases]


def _header(layers: int, lost: set[str]) -> bytes:
    kept = [pair.hf for pair in pairs(layers) if pair.hf not in lost]
    header = encode_header([TensorInfo(name, "BF16", (1,)) for name in kept], {"format": "pt"})
    # Values follow, as in a file: whoever takes all the rest for the header goes wrong.
    return header + b"\x80\x3f" * len(kept)


def _shard_cases() -> list[tuple[str, tuple[int, ...], int, bool]]:
    return [
        ("layers.0.attention.wq.weight", (4096, 4096), 2, False),
        ("layers.31.attention.wo.weight", (4096, 4096), 2, False),
        ("layers.7.attention.wk.weight", (1024, 8192), 8, False),
        ("layers.7.feed_forward.w1.weight", (28672, 8192), 8, False),
        ("layers.7.feed_forward.w2.weight", (8192, 28672), 8, False),
        ("layers.0.ffn_norm.weight", (4096,), 2, False),
        ("norm.weight", (8192,), 8, True),
        ("tok_embeddings.weight", (32000, 5120), 2, False),
        ("tok_embeddings.weight", (128256, 8192), 8, True),
        ("output.weight", (32000, 5120), 2, False),
        ("layers.3.feed_forward.w3.weight", (768, 256), 1, False),
    ]


def _one_big_head(heads: int, head_size: int) -> tuple[np.ndarray, np.ndarray]:
    return row_orders(1, heads * head_size)


def _first_head_again(heads: int, head_size: int) -> tuple[np.ndarray, np.ndarray]:
    to_hf, to_meta = row_orders(1, head_size)
    return np.tile(to_hf, heads), np.tile(to_meta, heads)


def _in_layer_0_only(raw: bytes, layers: int) -> set[str]:
    return lost_tensors(raw, 1)


def _too_much(raw: bytes, layers: int) -> set[str]:
    length = int.from_bytes(raw[:8], "little")
    return set(json.loads(raw[8 : 8 + length])) - {pair.hf for pair in pairs(layers)}


def _either_way(raw: bytes, layers: int) -> set[str]:
    return lost_tensors(raw, layers) | _too_much(raw, layers)


def _under_metas_names(raw: bytes, layers: int) -> set[str]:
    lost = lost_tensors(raw, layers)
    return {pair.meta for pair in pairs(layers) if pair.hf in lost}


def _all_by_rows(name: str, shape: tuple[int, ...], shards: int, llama_3: bool) -> tuple[int, ...]:
    return shape if "norm" in name else (shape[0] // shards, *shape[1:])


def _norms_too(name: str, shape: tuple[int, ...], shards: int, llama_3: bool) -> tuple[int, ...]:
    if "norm" in name:
        return (shape[0] // shards,)
    return shard_shape(name, shape, shards, llama_3)


def _as_llama_2(name: str, shape: tuple[int, ...], shards: int, llama_3: bool) -> tuple[int, ...]:
    return shard_shape(name, shape, shards, False)


def _axes_exchanged(
    name: str, shape: tuple[int, ...], shards: int, llama_3: bool
) -> tuple[int, ...]:
    return shard_shape(name, shape[::-1], shards, llama_3)[::-1]


EXERCISES = [
    Exercise(
        name="row_orders",
        prompt=(
            "Write row_orders(heads, head_size): return two lists (or arrays) of row numbers, "
            "to_hf and to_meta, so that wq[to_hf] is q_proj and q_proj[to_meta] is wq again. "
            "head_size is even."
        ),
        reference=row_orders,
        make_cases=_order_cases,
        hint=(
            "Within a head, to_hf takes rows 0, 2, 4, ... and then 1, 3, 5, ...; the next head "
            "does the same, head_size rows further down. to_meta undoes it: np.argsort(to_hf)."
        ),
        nudge="Do it on paper for one head of 8 rows: which of Meta's rows comes first, second?",
        mistakes=(
            Mistake(
                lambda heads, size: row_orders(heads, size)[::-1],
                "Both are right, but in the other order: to_hf comes first.",
            ),
            Mistake(
                lambda heads, size: (row_orders(heads, size)[0],) * 2,
                "to_hf is right. Applied twice it does not lead back (but for heads of size 4): "
                "to_meta needs an order of its own.",
            ),
            Mistake(
                _one_big_head,
                "Right for one head. With several, the rows stay within their head: even rows "
                "then odd rows of head 0, then those of head 1.",
            ),
            Mistake(
                _first_head_again,
                "You name the rows of the first head again and again. Head h begins at row "
                "h * head_size.",
            ),
        ),
    ),
    Exercise(
        name="lost_tensors",
        prompt=(
            "Write lost_tensors(raw, layers): `raw` are the first bytes of a safetensors file, "
            "its length, its whole header and the first of its values. Return the set of the "
            "names, in Hugging Face's form, that a Llama of so many layers needs and that the "
            "header does not list. The output head is a tensor of its own."
        ),
        reference=lost_tensors,
        make_cases=_headers,
        hint=(
            "int.from_bytes(raw[:8], 'little') is the length of the JSON that follows. The names "
            "that should be there: {pair.hf for pair in pairs(layers)}."
        ),
        nudge="Two sets: the names that are needed, and those in the header. Section 3 reads one.",
        mistakes=(
            Mistake(
                _too_much,
                "That is what the header has and a Llama does not need. Subtract the other way "
                "round: needed minus found.",
            ),
            Mistake(
                _either_way,
                "Almost: __metadata__ in the header is no tensor. Take what is needed and not "
                "found, not the difference both ways.",
            ),
            Mistake(
                _in_layer_0_only,
                "You looked at one layer only: pass `layers` on to pairs.",
            ),
            Mistake(
                _under_metas_names,
                "The right tensors under Meta's names. The file uses Hugging Face's: pair.hf.",
            ),
        ),
    ),
    Exercise(
        name="shard_shape",
        prompt=(
            "Write shard_shape(name, shape, shards, llama_3): `name` is Meta's name of a tensor, "
            "`shape` its whole shape. Return the shape of the part that lies in one of so many "
            "shards. `llama_3` is True for Llama 3, whose embedding is cut by rows."
        ),
        reference=shard_shape,
        make_cases=_shard_cases,
        hint=(
            "Norms are copied. wo, w2 and (before Llama 3) tok_embeddings are cut by columns, "
            "all the others by rows."
        ),
        nudge="What does the GPU with this part compute: whole heads of its own, or part of a sum?",
        mistakes=(
            Mistake(
                _all_by_rows,
                "Not all are cut by rows. wo and w2 add up their parts, so they are cut by "
                "columns; and so is the embedding of Llama 1 and 2.",
            ),
            Mistake(_norms_too, "Norms are small: each shard holds a whole copy."),
            Mistake(
                _as_llama_2,
                "Right for Llama 1 and 2. Llama 3 cuts tok_embeddings by rows.",
            ),
            Mistake(
                _axes_exchanged,
                "Rows and columns are exchanged: a matrix's shape is (rows out, columns in).",
            ),
        ),
    ),
]
