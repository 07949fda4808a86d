"""The references of lesson 03 against the converter, torch and transformers."""

from __future__ import annotations

import json
from collections.abc import Callable
from pathlib import Path
from typing import Any

import numpy as np
import pytest

from lessonkit.course.exercises import lesson_03
from lessonkit.course.exercises.attempts import Verdict, attempt
from lessonkit.files.checkpoint import open_checkpoint
from lessonkit.llama.layout import cut, halves_to_pairs, pairs, pairs_to_halves
from tests.tiny import make_tiny_llama


def test_the_lesson_has_its_exercises() -> None:
    names = [exercise.name for exercise in lesson_03.EXERCISES]
    assert names == ["row_orders", "lost_tensors", "shard_shape"]


def test_row_orders_worked_by_hand() -> None:
    to_hf, to_meta = lesson_03.row_orders(1, 8)
    assert to_hf.tolist() == [0, 2, 4, 6, 1, 3, 5, 7]
    assert to_meta.tolist() == [0, 4, 1, 5, 2, 6, 3, 7]


@pytest.mark.parametrize(("heads", "size"), lesson_03._order_cases())
def test_row_orders_are_the_converters(heads: int, size: int) -> None:
    to_hf, to_meta = lesson_03.row_orders(heads, size)
    matrix = np.random.default_rng(0).normal(size=(heads * size, 3))
    assert (matrix[to_hf] == pairs_to_halves(matrix, heads)).all()
    assert (matrix[to_meta] == halves_to_pairs(matrix, heads)).all()
    assert (matrix[to_hf][to_meta] == matrix).all()


def test_row_orders_make_transformers_turn_the_pairs_of_meta() -> None:
    torch = pytest.importorskip("torch")
    llama = pytest.importorskip("transformers.models.llama.modeling_llama")
    size, tokens = 8, 5
    frequencies = 10000.0 ** -(torch.arange(0, size, 2) / size)
    angles = torch.outer(torch.arange(tokens).float(), frequencies)
    x = torch.randn(tokens, size)
    turned = torch.view_as_complex(x.view(tokens, -1, 2)) * torch.polar(torch.ones(()), angles)
    in_meta = torch.view_as_real(turned).flatten(-2)
    both = torch.cat([angles, angles], dim=-1)
    to_hf, to_meta = map(torch.from_numpy, lesson_03.row_orders(1, size))
    reordered = x[None, None, :, to_hf]
    theirs, _ = llama.apply_rotary_pos_emb(reordered, reordered, both.cos()[None], both.sin()[None])
    assert torch.allclose(theirs[0, 0][:, to_meta], in_meta, atol=1e-6)


def test_a_real_file_has_lost_nothing_and_another_one_tensor(tmp_path: Path) -> None:
    save_file = pytest.importorskip("safetensors.torch").save_file
    folder = make_tiny_llama(tmp_path / "llama")
    raw = (folder / "model.safetensors").read_bytes()
    assert lesson_03.lost_tensors(raw, layers=2) == set()
    checkpoint = open_checkpoint(folder)
    kept = {name: checkpoint.tensor(name).clone() for name in checkpoint}
    lost = "model.layers.1.mlp.down_proj.weight"
    del kept[lost]
    save_file(kept, tmp_path / "lossy.safetensors")
    raw = (tmp_path / "lossy.safetensors").read_bytes()
    assert lesson_03.lost_tensors(raw, layers=2) == {lost}


@pytest.mark.parametrize("llama_3", [False, True])
@pytest.mark.parametrize("shards", [1, 2, 4])
def test_shard_shapes_are_the_converters(shards: int, llama_3: bool) -> None:
    for pair in pairs(2, embedding_axis=0 if llama_3 else 1):
        shape = (16,) if "norm" in pair.hf else (64, 16)
        part = cut(np.zeros(shape), pair.axis, 0, shards)
        assert lesson_03.shard_shape(pair.meta, shape, shards, llama_3) == part.shape


def test_shard_shapes_worked_by_hand() -> None:
    wk = lesson_03.shard_shape("layers.0.attention.wk.weight", (1024, 8192), 8, False)
    w2 = lesson_03.shard_shape("layers.0.feed_forward.w2.weight", (8192, 28672), 8, False)
    assert wk == (128, 8192) and w2 == (8192, 3584)


@pytest.mark.parametrize("end", [lambda raw: None, lambda raw: int.from_bytes(raw[:8], "big")])
def test_whoever_reads_on_behind_the_header_is_found_out(end: Callable[[bytes], Any]) -> None:
    def reads_on(raw: bytes, layers: int) -> set[str]:
        return {pair.hf for pair in pairs(layers)} - set(json.loads(raw[8 : end(raw)]))

    for raw, layers in lesson_03._headers():
        with pytest.raises(UnicodeDecodeError):
            reads_on(raw, layers)
    assert attempt("lost_tensors", reads_on) is Verdict.WRONG
