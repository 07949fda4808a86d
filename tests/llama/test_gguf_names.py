"""Tensor names and row order of GGUF, next to the gguf package's names."""

from __future__ import annotations

import gguf
import numpy as np
import pytest

from lessonkit.llama.gguf_names import (
    ARCHITECTURES,
    in_file_order,
    layer_of,
    to_gguf_name,
    to_halves,
    to_hf_name,
    to_pairs,
)
from lessonkit.llama.layout import pairs
from lessonkit.llama.shape import LlamaShape

SHAPE = LlamaShape(16, 2, 4, 2, 32, 40, 1e-5)
NAMES = [
    *(pair.hf for pair in pairs(3)),
    "model.layers.2.self_attn.q_norm.weight",
    "model.layers.2.self_attn.k_norm.weight",
    "model.layers.1.self_attn.q_proj.bias",
]


@pytest.mark.parametrize("kind", sorted(set(ARCHITECTURES.values())))
@pytest.mark.parametrize("name", NAMES)
def test_names_are_those_of_the_gguf_package(kind: str, name: str) -> None:
    arch = {v: k for k, v in gguf.MODEL_ARCH_NAMES.items()}[kind]
    theirs = gguf.get_tensor_name_map(arch, 3).get_name(name, try_suffixes=(".weight", ".bias"))
    if theirs is not None:  # a Llama has no norms of queries
        assert to_gguf_name(name) == theirs
    assert to_hf_name(str(to_gguf_name(name))) == name


@pytest.mark.parametrize("name", ["model.layers.0.mlp.experts.1.w1.weight", "x", "lm_head.scales",
                                  "model.layers.0.lm_head.weight"])  # fmt: skip
def test_what_has_no_place_has_no_name(name: str) -> None:
    assert to_gguf_name(name) is None and to_hf_name(name) is None


def test_the_file_begins_with_what_is_outside_the_layers() -> None:
    names = [str(to_gguf_name(pair.hf)) for pair in pairs(11)]
    ordered = sorted(names, key=in_file_order)
    assert ordered[:4] == ["output.weight", "output_norm.weight", "token_embd.weight",
                           "blk.0.attn_k.weight"]  # fmt: skip
    assert [layer_of(name) for name in ordered] == sorted(map(layer_of, names))


def test_queries_and_keys_of_a_llama_are_in_metas_order_and_come_back() -> None:
    rows = np.arange(16 * 3).reshape(16, 3)
    moved = to_pairs("blk.0.attn_q.weight", rows, "llama", SHAPE)
    # llama.cpp's formula: view as heads, halves, rows of a half; swap the two.
    theirs = rows.reshape(4, 2, 2, 3).swapaxes(1, 2).reshape(16, 3)
    assert np.array_equal(moved, theirs) and not np.array_equal(moved, rows)
    assert np.array_equal(to_halves("blk.0.attn_q.weight", moved, "llama", SHAPE), rows)
    keys = rows[:8]
    moved = to_pairs("blk.0.attn_k.weight", keys, "llama", SHAPE)
    assert np.array_equal(moved, keys.reshape(2, 2, 2, 3).swapaxes(1, 2).reshape(8, 3))


def test_a_bias_moves_with_its_rows() -> None:
    bias = np.arange(16)
    moved = to_pairs("blk.0.attn_q.bias", bias, "llama", SHAPE)
    assert moved.shape == (16,)
    column = to_pairs("blk.0.attn_q.weight", bias.reshape(16, 1), "llama", SHAPE)
    assert np.array_equal(moved, column.reshape(-1))


@pytest.mark.parametrize(
    ("name", "kind"),
    [("blk.0.attn_v.weight", "llama"), ("blk.0.attn_q_norm.weight", "llama"),
     ("blk.0.attn_q.weight", "qwen2")],
)  # fmt: skip
def test_all_else_stays(name: str, kind: str) -> None:
    rows = np.arange(16).reshape(16, 1)
    assert to_pairs(name, rows, kind, SHAPE) is rows
