"""What must not leave this machine: secrets, and files that are not finished.

Secrets are known by their names, or by the form that services give their tokens. That finds what
people leave in a folder by mistake; it is no proof that there is none.
"""

from __future__ import annotations

import re
from collections.abc import Iterator
from fnmatch import fnmatch
from pathlib import Path

from lessonkit.errors import LessonkitError
from lessonkit.files.gguf import read_gguf_header
from lessonkit.files.safetensors import read_header

_SECRET_NAMES = (
    ".env*", "*.env", ".netrc", "_netrc", ".git-credentials", ".pypirc", ".npmrc", "*.pem", "*.key",
    "*.p12", "*.pfx", "*.kdbx", "id_rsa*", "id_ed25519*", "id_ecdsa*", "token", "*.token",
    "*credential*", "*secret*", "stored_tokens",
)  # fmt: skip
_SECRETS = {
    "a Hugging Face token": re.compile(rb"\bhf_[A-Za-z0-9]{30,}"),
    "an API key": re.compile(rb"\bsk-[A-Za-z0-9_-]{20,}|\bAKIA[0-9A-Z]{16}\b|\bAIza[\w-]{35}"),
    "a GitHub token": re.compile(rb"\bgh[pousr]_[A-Za-z0-9]{36,}|\bgithub_pat_\w{50,}"),
    "a private key": re.compile(rb"-----BEGIN [A-Z ]*PRIVATE KEY-----"),
}
_UNFINISHED = ("*.incomplete", "*.part", "*.partial", "*.partial-*", "*.tmp", "*.crdownload",
               "*.download", ".*.download-*", "*.lock")  # fmt: skip
WEIGHTS = (".safetensors", ".bin", ".pth", ".pt", ".gguf", ".npz")
_PIECE = 1 << 20


def require_finished(name: str, file: Path) -> None:
    """Refuse what a download or a conversion left behind, and weight files that are cut off."""
    last = name.split("/")[-1]
    unfinished = any(fnmatch(part, sign) for part in name.split("/") for sign in _UNFINISHED)
    if unfinished or (last.endswith(WEIGHTS) and _is_cut_off(file)):
        raise LessonkitError(
            "A file is not finished: its name or its size says so.",
            where=name,
            remedy="Fetch or convert it again, or delete what an interrupted run left.",
        )


def _is_cut_off(file: Path) -> bool:
    """Is a weight file shorter than its own header says, or empty?"""
    if file.stat().st_size == 0:
        return True
    try:
        if file.suffix == ".safetensors":
            read_header(file)
        elif file.suffix == ".gguf":
            return read_gguf_header(file).end > file.stat().st_size
    except LessonkitError:
        return True
    return False


def require_no_secret(name: str, file: Path) -> None:
    """Refuse by name, and by content for all that is not a weight file; the secret is not shown."""
    last = name.split("/")[-1].lower()
    kind = "a file of secrets" if any(fnmatch(last, sign) for sign in _SECRET_NAMES) else None
    if kind is None and not last.endswith(WEIGHTS):
        kind = next(_secrets_in(file), None)
    if kind is not None:
        raise LessonkitError(
            f"This looks like {kind}; nothing of the folder will be sent.",
            where=name,
            remedy="Take it out of the folder. If it was ever public, make it invalid where it "
            "came from: deleting a file does not delete it from a repository's history.",
        )


def _secrets_in(file: Path) -> Iterator[str]:
    """The kinds of secrets in a file, read in pieces that overlap."""
    with file.open("rb") as opened:
        tail = b""
        while piece := opened.read(_PIECE):
            text = tail + piece
            yield from (kind for kind, sign in _SECRETS.items() if sign.search(text))
            tail = text[-256:]
