"""Is the download whole and unaltered? Checksums, and a plain answer for each file.

Meta ships a `checklist.chk` (md5), other sites a `SHA256SUMS`, and the Hugging Face Hub
knows a SHA-256 for every large file and a git blob SHA-1 for every small one. All three
become the same thing here: a checklist, file name -> digest.
"""

from __future__ import annotations

import hashlib
import json
import os
import re
from collections.abc import Iterator, Mapping
from dataclasses import dataclass
from pathlib import Path, PurePosixPath
from typing import TypeAlias

from lessonkit.errors import LessonkitError
from lessonkit.files.foreign import is_lfs_pointer
from lessonkit.progress import byte_bar

GIT_BLOB = "git-blob-sha1"
ALGORITHM_OF_LENGTH = {32: "md5", 40: "sha1", 64: "sha256", 128: "sha512"}
CHECKLIST_NAMES = ("checklist.chk", "tokenizer_checklist.chk", "SHA256SUMS", "SHA256SUMS.txt")

_CHUNK_BYTES = 1 << 20
_LARGEST_CHECKLIST = 16 << 20
_LONGEST_NAME = 1000
_LINE = re.compile(r"([0-9a-fA-F]+)[ \t]+\*?(\S.*)")


@dataclass(frozen=True)
class Finding:
    """What was found out about one file.

    `verdict` is "ok", "missing", "short" or "altered"; `detail` explains it.
    """

    name: str
    verdict: str
    detail: str = ""

    def __str__(self) -> str:
        return f"{self.verdict:8} {self.name}" + (f"  ({self.detail})" if self.detail else "")


@dataclass(frozen=True)
class Report:
    """The findings for every file of a checklist, in its order."""

    folder: Path
    findings: tuple[Finding, ...]

    @property
    def ok(self) -> bool:
        """True when every file is there and has the digest that was promised."""
        return all(finding.verdict == "ok" for finding in self.findings)

    @property
    def problems(self) -> tuple[Finding, ...]:
        """The findings that are not "ok"."""
        return tuple(finding for finding in self.findings if finding.verdict != "ok")

    def __str__(self) -> str:
        return "\n".join(str(finding) for finding in self.findings)


def file_digest(path: str | os.PathLike[str], algorithm: str = "sha256") -> str:
    """The hexadecimal digest of a file, read in pieces of 1 MiB.

    `algorithm` is a name that hashlib knows, or "git-blob-sha1": the SHA-1 that git gives a
    file, which is taken over `b"blob <size>\\0"` and the content.
    """
    path = Path(path)
    try:
        with path.open("rb", buffering=0) as file:
            size = os.fstat(file.fileno()).st_size
            if algorithm == GIT_BLOB:
                digest = hashlib.sha1(b"blob %d\0" % size, usedforsecurity=False)
            else:
                digest = hashlib.new(algorithm, usedforsecurity=False)
            buffer = memoryview(bytearray(_CHUNK_BYTES))
            with byte_bar(size, path.name) as advance:
                while count := file.readinto(buffer):
                    digest.update(buffer[:count])
                    advance.update(count)
    except OSError as error:
        raise LessonkitError(
            f"The file cannot be read: {error.strerror}.",
            where=path,
            remedy="Check the path and your permission to read it.",
        ) from error
    return digest.hexdigest()


Stamp: TypeAlias = tuple[int, int, int]
"""What changes when a file is written to, or another takes its place: size, time, file number."""


def stamp(file: str | os.PathLike[str] | int) -> Stamp:
    """The stamp of a file, by its path or its descriptor."""
    status = os.stat(file)
    return status.st_size, status.st_mtime_ns, status.st_ino


def require_stamp(path: Path, expected: Stamp, found: Stamp | None = None) -> None:
    """Raise LessonkitError if a file is not what it was when it got its stamp."""
    try:
        same = (found or stamp(path)) == expected
    except FileNotFoundError:
        same = False
    if not same:
        raise LessonkitError(
            "The file was changed while it was read.",
            where=path,
            remedy="Wait until nothing writes to it any more, then run this again.",
        )


def read_checklist(path: str | os.PathLike[str]) -> dict[str, str]:
    """Read `digest  name` lines, as `md5sum` and `sha256sum` write them.

    A `*` before the name (binary mode) is allowed, blank lines and `#` comments are skipped.
    Returns file name -> lower-case digest. Names are relative and stay inside the folder;
    anything else, and every line of another form, is an error.
    """
    path = Path(path)
    entries: dict[str, str] = {}
    for number, line in _lines(path):
        where = f"{path}, line {number}"
        match = _LINE.fullmatch(line)
        if match is None or len(match[1]) not in ALGORITHM_OF_LENGTH:
            raise LessonkitError(
                f"This is not a `digest  name` line: {_shorten(line)}",
                where=where,
                remedy="Expected the output of md5sum, sha1sum or sha256sum; fetch the list again.",
            )
        name = inner_name(match[2], where=where)
        if name in entries:
            raise LessonkitError(
                f"The file {name} is listed twice.",
                where=where,
                remedy="Remove one of the two lines; a list must say one thing about a file.",
            )
        entries[name] = match[1].lower()
    if not entries:
        raise LessonkitError(
            "The checklist names no file, so it would approve anything.",
            where=path,
            remedy="Fetch the list again.",
        )
    return entries


def inner_name(name: str, *, where: object) -> str:
    """`name` as a clean relative POSIX path, refused when it would leave its folder."""
    pure = PurePosixPath(name)
    leaves = pure.is_absolute() or ".." in pure.parts or not pure.parts
    foreign = "\\" in name or re.match(r"[A-Za-z]:", name) or any(ord(c) < 32 for c in name)
    if leaves or foreign:
        raise LessonkitError(
            f"The file name {_shorten(name)} does not stay inside the folder.",
            where=where,
            remedy="Only plain names relative to the folder are accepted; do not trust this list.",
        )
    if len(name) > _LONGEST_NAME or any(
        len(part.encode("utf-8", "surrogatepass")) > 255 for part in pure.parts
    ):
        raise LessonkitError(
            f"The file name {_shorten(name)} is longer than any file's.",
            where=where,
            remedy="Fetch the list again.",
        )
    return str(pure)


def verify(
    folder: str | os.PathLike[str],
    checklist: str | os.PathLike[str] | Mapping[str, str],
    sizes: Mapping[str, int] | None = None,
) -> Report:
    """Check every file that the checklist names; which is missing, short or altered?

    `checklist` is a file for `read_checklist`, or a mapping name -> digest. A digest is
    hexadecimal, its algorithm told by its length, or prefixed: `git-blob-sha1:…`.
    `sizes` (name -> bytes), where known, tells a short file without reading it. Without it
    a file counts as short when its own format says that bytes are missing at its end.
    """
    folder = Path(folder)
    if not folder.is_dir():
        raise LessonkitError(
            "This is not a folder.", where=folder, remedy="Name the folder that holds the files."
        )
    entries = checklist if isinstance(checklist, Mapping) else read_checklist(checklist)
    findings = [
        _check(folder / inner_name(name, where=folder), name, digest, (sizes or {}).get(name))
        for name, digest in entries.items()
    ]
    return Report(folder, tuple(findings))


def find_checklists(folder: str | os.PathLike[str]) -> list[Path]:
    """The lists with well-known names, in the folder and in those directly inside it.

    Each list speaks of the files beside it. (Meta's LLaMA has one list for the tokenizer and
    one in each model's folder.)
    """
    root = Path(folder)
    places = [root, *sorted(path for path in root.glob("[!.]*") if path.is_dir())]
    return [path for place in places for path in lists_in(place)]


def lists_in(folder: Path) -> list[Path]:
    """The lists with well-known names that lie in this folder itself."""
    return [path for name in CHECKLIST_NAMES if (path := folder / name).is_file()]


def _check(path: Path, name: str, digest: str, size: int | None) -> Finding:
    if not path.is_file():
        return Finding(name, "missing", "no such file")
    actual_size = path.stat().st_size
    if size is not None and actual_size < size:
        return Finding(name, "short", _pointer_note(path) or f"{actual_size:,} of {size:,} bytes")
    if size is not None and actual_size > size:
        return Finding(name, "altered", f"{actual_size:,} bytes where {size:,} were expected")
    algorithm, expected = _split_digest(digest, where=name)
    actual = file_digest(path, algorithm)
    if actual == expected:
        return Finding(name, "ok", algorithm)
    missing_end = _pointer_note(path) or _missing_end(path, actual_size)
    if missing_end and size is None:
        return Finding(name, "short", missing_end)
    return Finding(name, "altered", f"{algorithm} is {actual}, expected {expected}")


def _split_digest(digest: str, *, where: object) -> tuple[str, str]:
    algorithm, colon, value = digest.rpartition(":")
    if not colon:
        algorithm = ALGORITHM_OF_LENGTH.get(len(value), "")
    if algorithm not in (*ALGORITHM_OF_LENGTH.values(), GIT_BLOB):
        raise LessonkitError(
            f"This is not a digest that is known here: {_shorten(digest)}",
            where=where,
            remedy="Known are md5, sha1, sha256, sha512 and git-blob-sha1.",
        )
    return algorithm, value.lower()


def _pointer_note(path: Path) -> str:
    """Say so when the file is only git's placeholder for the real one (a frequent mistake)."""
    pointer = is_lfs_pointer(path)
    return "a git-lfs pointer, not the file itself: run `git lfs pull`" if pointer else ""


def _missing_end(path: Path, size: int) -> str:
    """What the format says about the end of the file; empty when it says nothing."""
    with path.open("rb") as file:
        head = file.read(8)
        if size == 0:
            return "the file is empty"
        if head.startswith(b"PK\x03\x04"):
            file.seek(max(0, size - 65_557))  # a zip ends in a 22-byte record and a comment
            return "" if b"PK\x05\x06" in file.read() else "the zip archive has lost its end"
        if path.suffix == ".safetensors" and len(head) == 8:
            length = int.from_bytes(head, "little")
            if length > size - 8:
                return "the header itself is cut off"
            try:
                header = json.loads(file.read(length))
                ends = [v["data_offsets"][1] for k, v in header.items() if k != "__metadata__"]
                promised = 8 + length + max(ends, default=0)
            except (ValueError, TypeError, KeyError, IndexError, AttributeError, RecursionError):
                return ""  # damaged, not short
            return f"{size:,} of {promised:,} bytes" if promised > size else ""
    return ""


def _lines(path: Path) -> Iterator[tuple[int, str]]:
    """The lines that say something, numbered from one."""
    try:
        if path.stat().st_size > _LARGEST_CHECKLIST:
            raise LessonkitError(
                "The file is far too large for a list of checksums.",
                where=path,
                remedy="Give the list itself (checklist.chk, SHA256SUMS), not a weight file.",
            )
        text = path.read_bytes().decode("utf-8")
    except OSError as error:
        raise LessonkitError(
            f"The checklist cannot be read: {error.strerror}.",
            where=path,
            remedy="Check the path; --checklist names the list.",
        ) from error
    except UnicodeDecodeError as error:
        raise LessonkitError(
            "The checklist is not a text file.", where=path, remedy="Fetch the list again."
        ) from error
    for number, line in enumerate(text.split("\n"), start=1):
        line = line.strip(" \t\r")
        if line and not line.startswith("#"):
            yield number, line


def _shorten(text: str) -> str:
    return repr(text if len(text) <= 80 else text[:77] + "...")
