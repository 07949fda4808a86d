"""Files that are no weights are named by their first bytes, by every reader."""

from __future__ import annotations

from pathlib import Path

import pytest

from lessonkit.errors import LessonkitError
from lessonkit.files.checkpoint import open_checkpoint
from lessonkit.files.foreign import is_lfs_pointer, refuse_foreign

POINTER = b"version https://git-lfs.github.com/spec/v1\noid sha256:0\nsize 13476925163\n"
KINDS = {
    "git-lfs pointer": POINTER,
    "GGUF file": b"GGUF\x03\0\0\0" + bytes(40),
    "before GGUF": b"tjgg" + bytes(40),
    "web page": b"<!DOCTYPE html><html></html>",
}


@pytest.mark.parametrize("suffix", ["safetensors", "bin", "pth"])
@pytest.mark.parametrize("kind", KINDS)
def test_every_reader_names_it(tmp_path: Path, kind: str, suffix: str) -> None:
    path = tmp_path / f"model.{suffix}"
    path.write_bytes(KINDS[kind])
    with pytest.raises(LessonkitError, match=kind) as caught:
        open_checkpoint(path)
    assert caught.value.remedy and caught.value.where == str(path)


def test_other_files_pass_and_are_left_at_their_beginning(tmp_path: Path) -> None:
    (tmp_path / "f").write_bytes(b"GGU or something else")
    with (tmp_path / "f").open("rb") as file:
        refuse_foreign(file, tmp_path / "f")
        assert file.tell() == 0
    assert not is_lfs_pointer(tmp_path / "f")
    (tmp_path / "p").write_bytes(POINTER)
    assert is_lfs_pointer(tmp_path / "p")
