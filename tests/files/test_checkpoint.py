"""Opening folders, indexes and shards; every disagreement between them is told."""

from __future__ import annotations

import json
from pathlib import Path

import numpy as np
import pytest
import torch
from safetensors.torch import save_file

from lessonkit.errors import LessonkitError
from lessonkit.files.checkpoint import open_checkpoint, read_json

A, B = torch.arange(4.0), torch.ones(2, 3, dtype=torch.bfloat16)


def sharded(folder: Path, weight_map: dict[str, object] | None = None) -> Path:
    save_file({"a": A}, folder / "model-00001-of-00002.safetensors")
    save_file({"b": B}, folder / "model-00002-of-00002.safetensors", {"format": "pt"})
    names = {"a": "model-00001-of-00002.safetensors", "b": "model-00002-of-00002.safetensors"}
    index = folder / "model.safetensors.index.json"
    index.write_text(json.dumps({"weight_map": names if weight_map is None else weight_map}))
    return index


def test_shards_look_like_one_checkpoint(tmp_path: Path) -> None:
    index = sharded(tmp_path)
    for path in (tmp_path, index):
        checkpoint = open_checkpoint(path)
        assert checkpoint.names() == ["a", "b"] == list(checkpoint)
        assert len(checkpoint) == len(checkpoint.weight_files) == 2
        assert "a" in checkpoint and "c" not in checkpoint
        assert torch.equal(checkpoint.tensor("b"), B)
        assert checkpoint.array("b").dtype == np.uint16
        assert checkpoint.info("b").dtype == "BF16" and checkpoint.info("b").nbytes == 12
        assert checkpoint.file_of("b").name == "model-00002-of-00002.safetensors"
        assert checkpoint.metadata == {"format": "pt"}
        with pytest.raises(LessonkitError, match="no tensor c"):
            checkpoint.array("c")


def test_bin_shards(tmp_path: Path) -> None:
    torch.save({"a": A}, tmp_path / "pytorch_model-00001-of-00001.bin")
    (tmp_path / "pytorch_model.bin.index.json").write_text(
        json.dumps({"weight_map": {"a": "pytorch_model-00001-of-00001.bin"}})
    )
    assert torch.equal(open_checkpoint(tmp_path).tensor("a"), A)


@pytest.mark.parametrize(
    ("weight_map", "complaint"),
    [
        ({}, 'no "weight_map"'),
        ({"a": "../model-00001-of-00002.safetensors"}, "does not stay inside"),
        ({"a": "/etc/passwd"}, "does not stay inside"),
        ({"a": 3}, "no file name"),
        ({"a": "other.safetensors"}, "shard other.safetensors is missing"),
        ({"a": "model-00002-of-00002.safetensors"}, "the tensor a is not in it"),
        ({"a": "model-00001-of-00002.safetensors", "c": "model-00001-of-00002.safetensors"},
         "the tensor c is not in it"),
    ],
)  # fmt: skip
def test_indexes_that_lie(tmp_path: Path, weight_map: dict[str, object], complaint: str) -> None:
    sharded(tmp_path, weight_map)
    with pytest.raises(LessonkitError, match=complaint):
        open_checkpoint(tmp_path)


def test_a_shard_with_more_than_the_index_says(tmp_path: Path) -> None:
    sharded(tmp_path, {"a": "model-00001-of-00002.safetensors"})
    save_file({"a": A, "extra": B}, tmp_path / "model-00001-of-00002.safetensors")
    with pytest.raises(LessonkitError, match="extra is in it, against the index"):
        open_checkpoint(tmp_path)


def test_a_tensor_in_two_shards(tmp_path: Path) -> None:
    sharded(tmp_path)
    save_file({"a": A, "b": B}, tmp_path / "model-00002-of-00002.safetensors")
    with pytest.raises(LessonkitError, match="a is in two files"):
        open_checkpoint(tmp_path)


def test_folders_that_do_not_say_what_they_hold(tmp_path: Path) -> None:
    def complaint() -> str:
        with pytest.raises(LessonkitError) as caught:
            open_checkpoint(tmp_path)
        return caught.value.what

    assert "no weights" in complaint()
    torch.save({"a": A}, tmp_path / "consolidated.00.pth")
    assert open_checkpoint(tmp_path).names() == ["a"]
    torch.save({"a": A}, tmp_path / "consolidated.01.pth")
    assert "2 model-parallel shards" in complaint()
    assert open_checkpoint(tmp_path / "consolidated.01.pth").names() == ["a"]
    sharded(tmp_path).unlink()
    for path in tmp_path.glob("*.pth"):
        path.unlink()
    assert "2 weight files but no index" in complaint()
    sharded(tmp_path)
    save_file({"a": A}, tmp_path / "model.safetensors")
    assert "two checkpoints" in complaint()


def test_paths_that_do_not_work(tmp_path: Path) -> None:
    with pytest.raises(LessonkitError, match="no such file"):
        open_checkpoint(tmp_path / "absent")
    for content, complaint in [("{", "not valid JSON"), ("[]", "not hold a JSON object")]:
        (tmp_path / "x.json").write_text(content)
        with pytest.raises(LessonkitError, match=complaint):
            read_json(tmp_path / "x.json")
    with pytest.raises(LessonkitError, match="cannot be read"):
        read_json(tmp_path / "absent.json")
