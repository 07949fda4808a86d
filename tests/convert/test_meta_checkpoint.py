"""Do the files of a Meta model fit together? And its tensors under Hugging Face's names."""

from __future__ import annotations

import json
from collections.abc import Callable
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import torch

from lessonkit.convert.meta_checkpoint import MetaCheckpoint, open_meta
from lessonkit.errors import LessonkitError
from lessonkit.files.certificate import CERTIFICATE_NAME
from lessonkit.files.dtypes import bits_of
from tests.convert.toy import Toy

Table = dict[str, torch.Tensor]


@pytest.mark.parametrize("toy", [Toy(), Toy(shards=2), Toy(vocabulary=556, llama_3=True, shards=2)])
def test_tensors_are_seen_as_hugging_faces(toy: Toy, tmp_path: Path) -> None:
    meta = open_meta(toy.write(tmp_path, None))
    expected = toy.hf_tensors()
    assert sorted(meta.names()) == sorted(expected)
    for name, tensor in expected.items():
        bits, dtype = bits_of(tensor)
        assert meta.info(name).dtype == dtype and meta.info(name).shape == bits.shape
        assert np.array_equal(meta.array(name), bits), name
        meta.release(name)
        assert np.array_equal(meta.array(name), bits), name
    assert meta.source_of("model.norm.weight") == "norm.weight"
    assert meta.shape.mlp_width == toy.mlp and meta.shape.vocabulary == toy.vocabulary
    with pytest.raises(LessonkitError, match="no tensor wq"):
        meta.array("wq")


# --- notes: what the files left open ----------------------------------------------------------


def notes(folder: Path) -> str:
    return "\n".join(open_meta(folder).notes)


def test_an_open_vocabulary_is_told(tmp_path: Path) -> None:
    source = Toy(params={"vocab_size": -1}, shards=2).write(tmp_path, None)
    assert "leaves the vocabulary open; the embedding has 400 rows" in notes(source)


def test_a_missing_or_wrong_feed_forward_size_is_told(tmp_path: Path) -> None:
    toy = Toy(mlp=160)
    source = toy.write(tmp_path, None)
    assert "leads to a feed-forward size of 96, but w1 has 160 rows" in notes(source)
    params = {
        k: v for k, v in toy.params_json().items() if k not in ("multiple_of", "ffn_dim_multiplier")
    }
    (source / "params.json").write_text(json.dumps(params))
    assert "gives no feed-forward size; w1 has 160 rows" in notes(source)
    assert open_meta(source).shape.mlp_width == 160


@pytest.mark.parametrize(
    ("tied", "factor", "family"), [(False, 8, "Llama 3.1"), (True, 32, "Llama 3.2")]
)
def test_a_missing_rope_factor_is_told(
    tmp_path: Path, tied: bool, factor: int, family: str
) -> None:
    toy = Toy(llama_3=True, tied=tied, params={"use_scaled_rope": True})
    source = toy.write(tmp_path, None)
    assert f"scaling factor; {factor} was taken, as in {family}" in notes(source)
    toy = toy.with_(params={"use_scaled_rope": True, "rope_scaling_factor": 16})
    meta = open_meta(toy.write(tmp_path, None))
    assert meta.shape.rope_factor == 16 and "scaling factor" not in "\n".join(meta.notes)


@pytest.mark.parametrize("shards", [1, 2])
@pytest.mark.parametrize("llama_3", [False, True])
def test_tied_embeddings_are_stored_once(tmp_path: Path, shards: int, llama_3: bool) -> None:
    toy = Toy(tied=True, shards=shards, llama_3=llama_3)
    meta = open_meta(toy.write(tmp_path, None))
    assert meta.shape.tied and "lm_head.weight" not in meta.names()
    assert "the output head equals the embedding: the two are stored once" in meta.notes
    # A single other bit, in the last row, and they are two matrices.
    last = toy.shard(shards - 1)
    last["output.weight"][-1, -1] += 1
    torch.save(last, tmp_path / f"consolidated.{shards - 1:02}.pth")
    meta = open_meta(tmp_path)
    assert not meta.shape.tied and "lm_head.weight" in meta.names()


def test_equal_matrices_that_were_two_stay_two(tmp_path: Path) -> None:
    """`hf_to_meta` notes in its certificate that the head was not tied."""
    source = Toy(tied=True).write(tmp_path, None)
    (source / CERTIFICATE_NAME).write_text('{"options": {"tied": false}}')
    meta = open_meta(source)
    assert not meta.shape.tied and "lm_head.weight" in meta.names()
    (source / CERTIFICATE_NAME).write_text('{"options": {"tied": "no"}}')
    assert open_meta(source).shape.tied
    (source / CERTIFICATE_NAME).write_text("{")
    with pytest.raises(LessonkitError, match="not valid JSON"):
        open_meta(source)


def test_differing_copies_are_told(tmp_path: Path) -> None:
    toy = Toy(shards=2)
    source = toy.write(tmp_path, None)
    assert "copies" not in notes(source)
    shard = toy.shard(1)
    shard["norm.weight"] += 1
    torch.save(shard, source / "consolidated.01.pth")
    assert "the shards' copies of norm.weight differ; the first was used" in notes(source)


def test_rotary_frequencies_are_checked_then_left_out(tmp_path: Path) -> None:
    toy = Toy()
    source = toy.write(tmp_path, None)
    assert "rope.freqs was left out: it follows from rope_theta" in notes(source)
    shard = toy.shard(0)
    freqs = shard.pop("rope.freqs")
    torch.save(shard, source / "consolidated.00.pth")
    assert "rope.freqs" not in notes(source)
    # LLaMA 7B has one table in each layer, in half precision.
    tables = {f"layers.{i}.attention.inner_attention.rope.freqs": freqs.half() for i in (0, 1)}
    torch.save({**shard, **tables}, source / "consolidated.00.pth")
    assert "it follows from rope_theta" in notes(source)
    assert sorted(open_meta(source).names()) == sorted(toy.hf_tensors())
    # Code Llama's, under the params.json of Llama 2: the base was 1,000,000.
    for wrong in (freqs**1.5, freqs[:3], freqs.long()):
        torch.save({**shard, "rope.freqs": wrong}, source / "consolidated.00.pth")
        assert "does not follow from the rope_theta of 10000: check params.json" in notes(source)


# --- errors: what does not fit ----------------------------------------------------------------


def complaint(folder: Path) -> str:
    with pytest.raises(LessonkitError) as caught:
        open_meta(folder)
    assert caught.value.remedy and caught.value.where
    return caught.value.what


@pytest.mark.parametrize(
    ("params", "expected"),
    [
        ({"n_layers": 3}, "layers.2.attention.wq.weight is missing; params.json promises 3 layers"),
        ({"n_layers": 10**12}, "n_layers is larger than in any model"),
        ({"n_layers": 1}, "layers.1.attention.wq.weight has no place in this Llama"),
        ({"n_kv_heads": None}, "is n_kv_heads missing in params.json?"),
        ({"n_kv_heads": 3}, "do not fill"),
        ({"n_heads": 5}, "do not fill"),
        ({"dim": 48}, "expected"),
        ({"vocab_size": 32000}, "params.json says vocab_size 32000, the embedding has 400 rows"),
        ({"vocab_size": None}, "says vocab_size None"),
    ],
)
def test_params_that_do_not_fit(tmp_path: Path, params: dict[str, Any], expected: str) -> None:
    assert expected in complaint(Toy(params=params).write(tmp_path, None))


def test_wrong_or_missing_shards(tmp_path: Path) -> None:
    source = Toy(shards=2).write(tmp_path, None)
    last = source / "consolidated.01.pth"
    shard = last.read_bytes()
    last.unlink()
    assert complaint(source) == (
        "A shard holds 32 of 64 query rows, so the number of shards should be 2; found: 1."
    )
    (source / "consolidated.02.pth").write_bytes(shard)
    assert complaint(source) == "The shard consolidated.01.pth is missing."
    (source / "consolidated.02.pth").unlink()
    last.write_bytes(shard[:-3000])
    assert "damaged or cut off" in complaint(source)
    last.write_bytes(b"")
    assert "no PyTorch file" in complaint(source)
    torch.save(Toy(shards=2, dim=128).shard(1), last)
    assert "The shards disagree on" in complaint(source)
    last.unlink()
    torch.save(Toy().shard(0), source / "consolidated.00.pth")
    torch.save(Toy().shard(0), last)  # of the same model: one too many
    assert "the number of shards should be 1; found: 2" in complaint(source)


def lose(name: str) -> Callable[[Table], object]:
    return lambda table: table.pop(name)


def put(name: str, tensor: torch.Tensor) -> Callable[[Table], object]:
    return lambda table: table.update({name: tensor})


@pytest.mark.parametrize(
    ("change", "expected"),
    [
        (lose("output.weight"), "The tensor output.weight is missing"),
        (lose("layers.1.ffn_norm.weight"), "The tensor layers.1.ffn_norm.weight is missing"),
        (lose("tok_embeddings.weight"), "does not hold the matrix tok_embeddings.weight"),
        (lose("layers.0.feed_forward.w1.weight"), "does not hold the matrix layers.0.feed_for"),
        (lose("layers.1.attention.wq.weight"), "layers.1.attention.wq.weight is missing"),
        (put("layers.0.attention.bq", torch.ones(4)), "bq has no place in this Llama"),
        (put("tok_embeddings.weight", torch.ones(4)), "does not hold the matrix tok_embeddings"),
        (put("output.weight", torch.tensor(1.0)), "output.weight has the shape [], expected"),
        (put("output.weight", torch.ones(399, 64)), "has the shape [399, 64], expected [400, 64]"),
        (put("layers.0.attention.wq.weight", torch.ones(0, 64)), "has the shape [0, 64]"),
        (put("norm.weight", torch.ones(64, 1)), "norm.weight has the shape [64, 1], expected"),
    ],
)
def test_tensors_that_do_not_fit(
    tmp_path: Path, change: Callable[[Table], object], expected: str
) -> None:
    toy = Toy()
    source = toy.write(tmp_path, None)
    table = toy.shard(0)
    change(table)
    torch.save(table, source / "consolidated.00.pth")
    assert expected in complaint(source)


def test_a_tensor_that_only_one_shard_has(tmp_path: Path) -> None:
    toy = Toy(shards=2)
    source = toy.write(tmp_path, None)
    shard = toy.shard(1)
    del shard["output.weight"]
    torch.save(shard, source / "consolidated.01.pth")
    assert "The tensor output.weight is not in every shard" in complaint(source)


def test_opening_reads_no_values(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """Only the norms' copies, the frequencies and the first row are looked at."""
    source = Toy(shards=2, dim=128).write(tmp_path, None)
    from lessonkit.files.checkpoint import Checkpoint

    read: list[str] = []
    array = Checkpoint.array

    def noted(self: Checkpoint, name: str) -> Any:
        read.append(name)
        return array(self, name)

    monkeypatch.setattr(Checkpoint, "array", noted)
    assert isinstance(open_meta(source), MetaCheckpoint)
    matrices = {name for name in read if "norm" not in name and "freqs" not in name}
    assert matrices == {"tok_embeddings.weight", "output.weight"}
