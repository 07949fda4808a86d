"""Names, row order, slices: small cases by hand, and any case against the formula."""

from __future__ import annotations

import numpy as np
import pytest
import torch
from hypothesis import given
from hypothesis import strategies as st
from transformers import LlamaConfig, LlamaForCausalLM

from lessonkit.errors import LessonkitError
from lessonkit.llama.layout import (
    cut,
    halves_to_pairs,
    is_recomputed,
    join,
    pairs,
    pairs_to_halves,
)


def test_every_tensor_of_the_library_has_a_pair() -> None:
    config = LlamaConfig(
        vocab_size=40, hidden_size=64, intermediate_size=96, num_hidden_layers=3,
        num_attention_heads=4,
    )  # fmt: skip
    with torch.device("meta"):
        theirs = list(LlamaForCausalLM(config).state_dict())
    assert sorted(pair.hf for pair in pairs(3)) == sorted(theirs)
    metas = [pair.meta for pair in pairs(3)]
    assert len(set(metas)) == len(metas) == 3 + 9 * 3


def test_how_shards_are_cut() -> None:
    """Rows of wq wk wv w1 w3 output; columns of wo w2; the embedding as the family has it."""
    axes = {pair.meta.split(".")[-2]: pair.axis for pair in pairs(1)}
    assert axes == {
        "tok_embeddings": 1, "wq": 0, "wk": 0, "wv": 0, "wo": 1, "w1": 0, "w2": 1, "w3": 0,
        "attention_norm": None, "ffn_norm": None, "norm": None, "output": 0,
    }  # fmt: skip
    assert next(pairs(0, embedding_axis=0)).axis == 0
    assert [pair.meta for pair in pairs(1) if pair.rotary] == [
        "layers.0.attention.wq.weight", "layers.0.attention.wk.weight",
    ]  # fmt: skip


@pytest.mark.parametrize(
    ("name", "expected"),
    [
        ("rope.freqs", True),
        ("layers.31.attention.inner_attention.rope.freqs", True),
        ("model.layers.0.self_attn.rotary_emb.inv_freq", True),
        ("layers.0.attention.wq.weight", False),
        ("norm.weight", False),
    ],
)
def test_what_is_recomputed(name: str, expected: bool) -> None:
    assert is_recomputed(name) is expected


def test_two_heads_by_hand() -> None:
    rows = np.arange(8).reshape(8, 1)  # two heads of four rows
    assert pairs_to_halves(rows, 2).ravel().tolist() == [0, 2, 1, 3, 4, 6, 5, 7]
    assert halves_to_pairs(rows, 2).ravel().tolist() == [0, 2, 1, 3, 4, 6, 5, 7]
    rows = np.arange(6).reshape(6, 1)  # one head of six: the two are not the same
    assert pairs_to_halves(rows, 1).ravel().tolist() == [0, 2, 4, 1, 3, 5]
    assert halves_to_pairs(rows, 1).ravel().tolist() == [0, 3, 1, 4, 2, 5]


@given(st.integers(1, 5), st.integers(1, 6), st.integers(1, 4))
def test_the_formula_and_its_inverse(heads: int, half: int, columns: int) -> None:
    matrix = np.arange(heads * 2 * half * columns).reshape(-1, columns)
    slow = [
        matrix[head * 2 * half + 2 * place + part]
        for head in range(heads)
        for part in (0, 1)
        for place in range(half)
    ]
    halves = pairs_to_halves(matrix, heads)
    assert np.array_equal(halves, np.array(slow))
    assert np.array_equal(halves_to_pairs(halves, heads), matrix)
    assert halves.dtype == matrix.dtype


@pytest.mark.parametrize(
    ("shape", "heads"), [((8, 2), 3), ((6, 2), 2), ((8, 2), 0), ((8, 2), -2), ((8,), 2)]
)
def test_matrices_that_hold_no_such_heads(shape: tuple[int, ...], heads: int) -> None:
    for permute in (pairs_to_halves, halves_to_pairs):
        with pytest.raises(LessonkitError, match=f"does not hold {heads} heads"):
            permute(np.zeros(shape), heads)


@pytest.mark.parametrize("axis", [0, 1])
@pytest.mark.parametrize("shards", [1, 2, 4, 8])
def test_what_is_cut_is_joined_again(axis: int, shards: int) -> None:
    matrix = np.arange(16 * 24).reshape(16, 24)
    slices = [cut(matrix, axis, rank, shards) for rank in range(shards)]
    assert {piece.shape[axis] for piece in slices} == {matrix.shape[axis] // shards}
    assert all(np.shares_memory(piece, matrix) for piece in slices)
    assert np.array_equal(join(slices, axis), matrix)


def test_norms_are_copied() -> None:
    norm = np.arange(4)
    assert cut(norm, None, 1, 2) is norm
    assert join([norm, norm + 1], None) is norm


def test_slices_must_be_equal() -> None:
    with pytest.raises(LessonkitError, match="10 columns cannot be cut into 4 shards"):
        cut(np.zeros((8, 10)), 1, 0, 4)
    with pytest.raises(LessonkitError, match="7 rows cannot be cut into 2 shards"):
        cut(np.zeros((7, 10)), 0, 0, 2)
