"""Whatever lies beside a model and can tell whether it is whole is asked, and believed."""

from __future__ import annotations

import hashlib
import shutil
from pathlib import Path

import pytest
import torch

from lessonkit.convert.meta import hf_to_meta, meta_to_hf
from lessonkit.convert.verification import verify_model
from lessonkit.errors import LessonkitError
from lessonkit.files.certificate import CERTIFICATE_NAME
from tests.convert.toy import Toy


def write_list(folder: Path, *names: str, form: str = "md5", to: str = "checklist.chk") -> Path:
    lines = [
        f"{hashlib.new(form, (folder / name).read_bytes()).hexdigest()}  {name}\n" for name in names
    ]
    (folder / to).write_text("".join(lines))
    return folder / to


def flip(file: Path, place: int = -1) -> None:
    """Change one bit of the content; the structure stays."""
    raw = bytearray(file.read_bytes())
    raw[place] ^= 1
    file.write_bytes(raw)


@pytest.fixture
def llama(toy: Toy, sentencepiece_model: Path, tmp_path: Path) -> Path:
    """As Meta's script leaves it: 7B/ with its list, the tokenizer with its own above."""
    model = toy.write(tmp_path / "llama" / "7B", None)
    shutil.copy(sentencepiece_model, tmp_path / "llama" / "tokenizer.model")
    write_list(model, "consolidated.00.pth", "params.json")
    write_list(tmp_path / "llama", "tokenizer.model", to="tokenizer_checklist.chk")
    return tmp_path / "llama"


def test_metas_lists(llama: Path) -> None:
    found = verify_model(llama)
    assert found.ok and not found.unchecked
    assert str(found) == (
        f"{llama / 'tokenizer_checklist.chk'}: 1 of 1 files ok\n"
        f"{llama / '7B' / 'checklist.chk'}: 2 of 2 files ok\nwhole and unaltered"
    )
    assert verify_model(llama / "7B").ok
    assert verify_model(llama / "7B" / "consolidated.00.pth").ok
    flip(llama / "7B" / "consolidated.00.pth", 5000)
    (llama / "tokenizer.model").unlink()
    found = verify_model(llama)
    assert not found.ok
    assert "  missing  tokenizer.model  (no such file)" in str(found)
    assert "  altered  consolidated.00.pth  (md5 is " in str(found)
    assert str(found).endswith("NOT what it should be")
    assert not verify_model(llama / "7B" / "consolidated.00.pth").ok


def test_a_short_file_is_told_even_if_nothing_can_be_opened(llama: Path) -> None:
    shard = llama / "7B" / "consolidated.00.pth"
    shard.write_bytes(shard.read_bytes()[:-100])
    assert "  short    consolidated.00.pth  (the zip archive has lost" in str(verify_model(llama))
    (llama / "7B" / "checklist.chk").unlink()
    found = verify_model(llama)
    assert not found.ok and "  damaged  consolidated.00.pth" in str(found)


def test_without_any_list_a_pth_still_has_its_own_checksums(llama: Path) -> None:
    for path in llama.rglob("*.chk"):
        path.unlink()
    found = verify_model(llama)
    assert found.ok and found.unchecked == ("consolidated.00.pth",)
    assert str(found) == (
        "checksums inside the files: 21 of 21 tensors ok\n"
        "no list here speaks of consolidated.00.pth\n"
        "whole, and as it was written; nothing here tells by whom"
    )
    flip(llama / "7B" / "consolidated.00.pth", 5000)
    found = verify_model(llama)
    assert not found.ok and "its CRC-32 is" in str(found)
    with pytest.raises(LessonkitError, match="its CRC-32 is"):
        meta_to_hf(llama, llama / "hf")
    assert not (llama / "hf").exists()


def test_a_pth_that_was_written_without_checksums_is_not_called_damaged(llama: Path) -> None:
    for path in llama.rglob("*.chk"):
        path.unlink()
    shard = llama / "7B" / "consolidated.00.pth"
    tensors = torch.load(shard, weights_only=True)
    torch.serialization.set_crc32_options(False)
    try:
        torch.save(tensors, shard)
    finally:
        torch.serialization.set_crc32_options(True)
    found = verify_model(llama)
    assert found.ok and str(found) == (
        "no checklist here; the 21 tensors are complete\n"
        "whole; nothing here tells whether it is unaltered"
    )


def test_safetensors_have_no_checksums(llama: Path) -> None:
    meta_to_hf(llama, llama / "hf")
    (llama / "hf" / CERTIFICATE_NAME).unlink()
    assert str(verify_model(llama / "hf")).endswith("tells whether it is unaltered")


def test_one_shard_of_several_is_not_called_whole(llama: Path) -> None:
    meta_to_hf(llama, llama / "hf", max_shard_bytes=100_000)
    shard = sorted((llama / "hf").glob("model-*.safetensors"))[0]
    found = verify_model(shard)
    number = len(list((llama / "hf").glob("model-*.safetensors")))
    assert number > 1 and f"this is shard 1 of {number}; the others were not looked at" in str(
        found
    )
    assert "complete as far as this file goes" in str(found)


def test_a_list_that_leaves_the_weights_out(llama: Path) -> None:
    write_list(llama / "7B", "params.json")
    found = verify_model(llama)
    assert found.ok and found.unchecked == ("consolidated.00.pth",)
    assert "no list here speaks of consolidated.00.pth" in str(found)
    assert str(found).endswith("nothing here tells by whom")


def test_a_list_that_is_named(llama: Path, tmp_path: Path) -> None:
    own = write_list(llama / "7B", "consolidated.00.pth", form="sha256", to="mine")
    moved = own.rename(tmp_path / "mine")
    flip(llama / "7B" / "params.json", 0)  # this the named list does not speak of
    found = verify_model(llama / "7B", moved)
    assert not found.ok and "  damaged  params.json  (The file is not valid JSON" in str(found)
    flip(llama / "7B" / "params.json", 0)
    found = verify_model(llama / "7B", moved)
    assert list(found.findings) == [str(moved)] and found.ok and not found.unchecked
    with pytest.raises(LessonkitError, match="checklist cannot be read"):
        verify_model(llama, tmp_path / "nowhere")


def test_a_list_above_that_speaks_of_this_folder(llama: Path) -> None:
    """As data/SHA256SUMS speaks of data/mini."""
    for path in llama.rglob("*.chk"):
        path.unlink()
    write_list(llama, "7B/consolidated.00.pth", form="sha256", to="SHA256SUMS")
    found = verify_model(llama / "7B")
    assert found.ok and not found.unchecked and "1 of 1 files ok" in str(found)
    flip(llama / "7B" / "consolidated.00.pth", 5000)
    assert not verify_model(llama / "7B").ok


@pytest.mark.parametrize("tied", [False, True])
def test_certificates(tied: bool, sentencepiece_model: Path, tmp_path: Path) -> None:
    toy = Toy(tied=tied)
    meta_to_hf(toy.write(tmp_path / "meta", sentencepiece_model), tmp_path / "hf")
    hf_to_meta(tmp_path / "hf", tmp_path / "llama" / "7B", shards=2)
    tensors = 20 if tied else 21
    for folder in (tmp_path / "hf", tmp_path / "llama" / "7B", tmp_path / "llama"):
        found = verify_model(folder)
        assert found.ok and not found.unchecked
        assert f"{CERTIFICATE_NAME}: {tensors} of {tensors} tensors ok" in str(found)
    flip(tmp_path / "hf" / "model.safetensors")
    found = verify_model(tmp_path / "hf")
    assert not found.ok and "  altered  " in str(found)


def test_what_the_hub_noted(llama: Path, tmp_path: Path) -> None:
    digest = hashlib.sha256((llama / "7B" / "params.json").read_bytes()).hexdigest()
    blob = tmp_path / "blobs" / digest
    blob.parent.mkdir()
    (llama / "7B" / "params.json").rename(blob)
    (llama / "7B" / "params.json").symlink_to(blob)
    assert "as the Hub noted: 1 of 1 files ok" in str(verify_model(llama / "7B"))
    flip(blob)
    found = verify_model(llama / "7B")
    assert not found.ok and "altered  params.json" in str(found)


def test_what_is_no_model(tmp_path: Path) -> None:
    for path, complaint in [(tmp_path, "no weights"), (tmp_path / "x", "no such file")]:
        with pytest.raises(LessonkitError, match=complaint):
            verify_model(path)
