"""Every folder that the tutorials show is found; what is missing or too many is told."""

from __future__ import annotations

import json
import shutil
from pathlib import Path

import pytest

from lessonkit.convert.meta import meta_to_hf
from lessonkit.convert.meta_folder import find_meta, is_meta
from lessonkit.errors import LessonkitError
from tests.convert.toy import Toy, file_bytes


def touch(folder: Path, *names: str) -> Path:
    folder.mkdir(parents=True, exist_ok=True)
    for name in names:
        (folder / name).write_bytes(b"")
    return folder


def complaint(path: Path, **options: Path) -> str:
    with pytest.raises(LessonkitError) as caught:
        find_meta(path, **options)
    assert caught.value.remedy and caught.value.where
    return caught.value.what


ONE = ("params.json", "consolidated.00.pth")


def test_every_layout_of_the_tutorials_converts_to_the_same(
    toy: Toy, sentencepiece_model: Path, tmp_path: Path
) -> None:
    flat = toy.write(tmp_path / "llama-2-7b", sentencepiece_model)
    toy.write(tmp_path / "llama" / "7B", None)
    shutil.copy(sentencepiece_model, tmp_path / "llama" / "tokenizer.model")
    hub = toy.write(tmp_path / "Llama-3.2-1B" / "original", sentencepiece_model).parent
    outputs = []
    for number, source in enumerate((flat, tmp_path / "llama" / "7B", tmp_path / "llama", hub)):
        meta_to_hf(source, tmp_path / str(number))
        outputs.append(file_bytes(tmp_path / str(number)))
        assert is_meta(source)
    assert outputs[1:] == outputs[:1] * 3
    bare = toy.write(tmp_path / "bare" / "model", None)
    with pytest.raises(LessonkitError, match="no tokenizer.model beside the weights"):
        meta_to_hf(bare, tmp_path / "no")
    meta_to_hf(bare, tmp_path / "named", tokenizer=sentencepiece_model)
    assert file_bytes(tmp_path / "named") == outputs[0]
    assert not is_meta(tmp_path / "named")


def test_where_the_files_are(tmp_path: Path) -> None:
    model = touch(tmp_path / "llama" / "13B", *ONE, "consolidated.01.pth", "checklist.chk")
    found = find_meta(tmp_path / "llama")
    assert found == find_meta(model)
    assert found.folder == model and found.params == model / "params.json"
    assert [shard.name for shard in found.shards] == ["consolidated.00.pth", "consolidated.01.pth"]
    assert found.tokenizer is None
    above = touch(tmp_path / "llama", "tokenizer.model") / "tokenizer.model"
    assert find_meta(model).tokenizer == above.absolute()
    beside = touch(model, "tokenizer.model") / "tokenizer.model"
    assert find_meta(model).tokenizer == beside
    other = touch(tmp_path / "words", "mine.model") / "mine.model"
    assert find_meta(model, other).tokenizer == other


def test_eight_shards_come_in_order(tmp_path: Path) -> None:
    names = [f"consolidated.{rank:02}.pth" for rank in (3, 7, 0, 1, 6, 5, 2, 4)]
    found = find_meta(touch(tmp_path, "params.json", *names))
    assert [shard.name for shard in found.shards] == sorted(names)


def test_what_is_missing_or_too_many(tmp_path: Path) -> None:
    touch(tmp_path / "llama" / "7B", *ONE)
    touch(tmp_path / "llama" / "13B", *ONE)
    assert complaint(tmp_path / "llama") == "The folder holds several models: 13B, 7B."
    assert complaint(tmp_path / "nothing") == "There is no such folder."
    file = touch(tmp_path, "params.json") / "params.json"
    assert complaint(file) == "This is not a folder."
    assert "no consolidated.NN.pth" in complaint(touch(tmp_path / "empty"))
    assert "params.json is missing" in complaint(touch(tmp_path / "a", "consolidated.00.pth"))
    assert complaint(tmp_path / "llama" / "7B", tokenizer=tmp_path / "x") == (
        "There is no such tokenizer file."
    )


@pytest.mark.parametrize(
    ("shards", "missing"),
    [
        (("consolidated.01.pth",), "consolidated.00.pth"),
        (("consolidated.00.pth", "consolidated.02.pth"), "consolidated.01.pth"),
        (("consolidated.final.pth",), "consolidated.00.pth"),
    ],
)
def test_a_gap_in_the_shards(tmp_path: Path, shards: tuple[str, ...], missing: str) -> None:
    touch(tmp_path / "llama" / "7B", "params.json", *shards)
    for path in (tmp_path / "llama", tmp_path / "llama" / "7B"):
        assert complaint(path) == f"The shard {missing} is missing."


def test_a_folder_in_hugging_faces_form(tmp_path: Path) -> None:
    folder = touch(tmp_path / "hf", "config.json", "model.safetensors")
    assert not is_meta(folder)
    assert complaint(folder) == "The folder is in Hugging Face's form already."
    # A repository that keeps Meta's own files beside: as a whole it is Hugging Face's.
    touch(folder / "original", *ONE)
    assert not is_meta(folder) and is_meta(folder / "original")
    assert not is_meta(folder / "config.json") and not is_meta(tmp_path / "nothing")


def test_a_config_copied_beside_metas_files_makes_no_hugging_face_model(tmp_path: Path) -> None:
    """As readers of the tutorials do when something tells them that config.json is missing."""
    folder = touch(tmp_path, *ONE)
    (folder / "config.json").write_text(json.dumps({"model_type": "llama"}))
    assert is_meta(folder)
    assert find_meta(folder).folder == folder
