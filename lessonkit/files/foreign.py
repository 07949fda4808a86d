"""What lies under a weight file's name and is none: told by its first bytes."""

from __future__ import annotations

from pathlib import Path
from typing import BinaryIO

from lessonkit.errors import LessonkitError

LFS_POINTER = b"version https://git-lfs.github.com/spec/"
GGUF = b"GGUF"
_OLD_GGML = (b"lmgg", b"fmgg", b"tjgg", b"algg")  # ggml, ggmf, ggjt, ggla: before GGUF

# First bytes: what is wrong, what to do.
_KINDS: dict[tuple[bytes, ...], tuple[str, str]] = {
    (LFS_POINTER,): (
        "This is a git-lfs pointer, not the file itself",
        "Run `git lfs pull`, or fetch the file again.",
    ),
    (GGUF,): (
        "This is a GGUF file: llama.cpp's form",
        "lessonkit info, compare and from-gguf read it; "
        "llama.cpp, Ollama and others run it as it is.",
    ),
    _OLD_GGML: (
        "This is a file in a form that llama.cpp used before GGUF (2023)",
        "Nothing reads it any more: fetch the model again in another form.",
    ),
    (b"<!DOCTYPE", b"<!doctype", b"<html"): (
        "This is a web page, not a weight file",
        "Fetch the file itself: on the Hub its address has /resolve/ where the page has /blob/.",
    ),
}
_LONGEST = max(len(first) for kind in _KINDS for first in kind)


def refuse_foreign(file: BinaryIO, path: Path) -> None:
    """Raise LessonkitError, which names the kind, if an open file is one of these.

    The file is left at its beginning.
    """
    head = file.read(_LONGEST)
    file.seek(0)
    for kind, (what, remedy) in _KINDS.items():
        if head.startswith(kind):
            raise LessonkitError(f"{what}.", where=path, remedy=remedy)


def is_lfs_pointer(path: Path) -> bool:
    """Is this only git's placeholder for a large file?"""
    with path.open("rb") as file:
        return file.read(len(LFS_POINTER)) == LFS_POINTER
