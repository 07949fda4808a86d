"""What every conversion does around its own work: hash, record, let go, write the certificate.

    with to_checkpoint(source, out, certificate, "to 4 bits", plan=plan, force=force) as passage:
        for name in source.names():
            with passage.tensor(name) as read:
                passage.writer.add(name, read.bits, read.dtype)
                passage.keep(name, read)

A tensor is hashed, and compared with its file's own checksum where there is one, on a thread of
its own while it is worked on. There it is also recorded, and its memory given back, while the next
one is.
"""

from __future__ import annotations

import json
import os
from collections.abc import Callable, Iterable, Iterator, Sequence
from concurrent.futures import Future, ThreadPoolExecutor
from contextlib import ExitStack, contextmanager
from dataclasses import dataclass
from pathlib import Path
from typing import Any, BinaryIO, Self

from lessonkit.files.atomic import atomic_file, atomic_folder, check_space, check_target
from lessonkit.files.certificate import (
    CERTIFICATE_NAME,
    CERTIFICATE_START,
    Certificate,
    Record,
    certificate_beside,
    tensor_sha256,
)
from lessonkit.files.checkpoint import TensorSource
from lessonkit.files.dtypes import Array
from lessonkit.files.safetensors import TensorInfo
from lessonkit.files.writer import MAX_SHARD_BYTES, ShardWriter, write_checkpoint
from lessonkit.formats.threads import unshared
from lessonkit.progress import byte_bar


@dataclass(frozen=True)
class Read:
    """A tensor as the source holds it, and its SHA-256 as soon as that is known."""

    bits: Array
    dtype: str
    sha256: Future[str]


class Passage:
    """A conversion under way: reads tensors one by one and records what becomes of them."""

    def __init__(
        self, source: TensorSource, certificate: Certificate, bar: Any, passes: int
    ) -> None:
        self.source = source
        self.certificate = certificate
        self._bar = bar
        self._passes = passes
        self._beside = ThreadPoolExecutor(1)  # one: all is done in the order in which it came
        self._under_way: list[Future[None]] = []

    def __enter__(self) -> Self:
        return self

    def __exit__(self, error: type[BaseException] | None, *_: object) -> None:
        """Wait for what is under way; where nothing else went wrong, raise what that raised."""
        self._beside.shutdown()
        if error is None:
            for each in self._under_way:
                each.result()

    @contextmanager
    def tensor(self, name: str) -> Iterator[Read]:
        """Yield a tensor; its checksum is known to be right when the block has ended."""
        info = self.source.info(name)
        bits = self.source.array(name)
        read = Read(bits, info.dtype, self._beside.submit(self._hash, name, bits))
        yield read
        read.sha256.result()  # raises what the checksum told
        self._do(lambda: self.source.release(name))
        self._bar.update(info.nbytes / self._passes)

    def keep(self, name: str, read: Read, *, source: Sequence[str] | None = None) -> None:
        """Record that a tensor's values were not touched; `source` are the names it came from."""

        def keep() -> None:
            self.certificate.kept(
                name, read.bits, read.dtype, sha256=read.sha256.result(), source=source or [name]
            )

        self._do(keep)

    def cast(
        self, name: str, read: Read, result: Array, dtype: str, *,
        source: Sequence[str] | None = None,
    ) -> None:  # fmt: skip
        """Record that a tensor was rounded to another dtype."""

        def cast() -> None:
            self.certificate.cast(
                name, read.bits, read.dtype, result, dtype,
                sha256=read.sha256.result(), source=source or [name],
            )  # fmt: skip

        self._do(cast)

    def record(self, make: Callable[..., Iterable[tuple[str, Record]]], *arguments: Any) -> None:
        """Record what else became of a tensor: ``make(*arguments)`` is called on that thread."""
        self._do(lambda: self.certificate.records.update(make(*arguments)))

    def _do(self, work: Callable[[], None]) -> None:
        def do() -> None:
            with unshared():
                work()

        self._under_way.append(self._beside.submit(do))

    def _hash(self, name: str, bits: Array) -> str:
        self.source.check(name)
        return tensor_sha256(bits)


class CheckpointPassage(Passage):
    """A conversion to a safetensors checkpoint, written by `writer`."""

    writer: ShardWriter


class FolderPassage(Passage):
    """A conversion to a folder of other files."""

    folder: Path


class FilePassage(Passage):
    """A conversion to a file, or to several that belong together."""

    files: list[BinaryIO]


@contextmanager
def to_checkpoint(
    source: TensorSource,
    out: str | os.PathLike[str],
    certificate: Certificate,
    label: str,
    *,
    plan: Sequence[TensorInfo] | None = None,
    needed: int = 0,
    max_shard_bytes: int = MAX_SHARD_BYTES,
    force: bool = False,
    protect: Iterable[str | os.PathLike[str]] = (),
) -> Iterator[CheckpointPassage]:
    """Convert into a safetensors checkpoint; the certificate is its last file.

    `plan` are the tensors to come, where they are known beforehand; else `needed` are the bytes
    of disk that are certainly enough. `protect` are sources beside the weight files.
    """
    if plan is None:
        check_space(out, needed)
    with write_checkpoint(
        out,
        plan=plan,
        max_shard_bytes=max_shard_bytes,
        force=force,
        protect=[source.path, *source.weight_files, *protect],
    ) as writer:
        with _bar(source, label) as bar:
            passage = CheckpointPassage(source, certificate, bar, 1)
            passage.writer = writer
            with passage:
                yield passage
        source.require_unchanged()
        writer.add_file(CERTIFICATE_NAME, certificate.to_bytes())


@contextmanager
def to_folder(
    source: TensorSource,
    out: str | os.PathLike[str],
    certificate: Certificate,
    label: str,
    *,
    needed: int,
    passes: int = 1,
    force: bool = False,
) -> Iterator[FolderPassage]:
    """Convert into a folder whose files the caller writes; the certificate is the last one.

    The source is read `passes` times; `needed` are the bytes of disk that the output takes.
    """
    check_space(out, needed)
    protect = [source.path, *source.weight_files]
    with atomic_folder(out, force=force, protect=protect) as folder:
        with _bar(source, label) as bar:
            passage = FolderPassage(source, certificate, bar, passes)
            passage.folder = folder
            with passage:
                yield passage
        source.require_unchanged()
        (folder / CERTIFICATE_NAME).write_bytes(certificate.to_bytes())


@contextmanager
def to_files(
    source: TensorSource,
    outs: Sequence[str | os.PathLike[str]],
    certificate: Certificate,
    label: str,
    *,
    magic: bytes,
    needed: int,
    force: bool = False,
    protect: Iterable[str | os.PathLike[str]] = (),
) -> Iterator[FilePassage]:
    """Convert into one or several files, which the caller writes; the certificate lies beside.

    `magic` are the files' first bytes, `needed` are the bytes of disk that they take. They
    appear when all are complete: the first file, without which nothing reads the others, after
    these, and the certificate last.
    """
    check_space(Path(outs[0]).absolute().parent, needed)
    protect = [source.path, *source.weight_files, *protect]
    for out in outs:  # before the certificate: whoever named this file knows nothing of that one
        check_target(Path(out), force=force, protect=protect, magic=magic)
    with ExitStack() as stack:
        beside = certificate_beside(outs[0])
        last = stack.enter_context(atomic_file(beside, magic=CERTIFICATE_START, force=force))
        files = [
            stack.enter_context(atomic_file(out, magic=magic, force=force, protect=protect))
            for out in outs
        ]
        passage = FilePassage(source, certificate, stack.enter_context(_bar(source, label)), 1)
        passage.files = files
        with passage:
            yield passage
        source.require_unchanged()
        last.write(certificate.to_bytes())
        if force:  # the old certificate goes first: it must never lie beside the new file
            for file in files:
                file.flush()
                os.fsync(file.fileno())
            beside.unlink(missing_ok=True)


def as_json(content: Any) -> bytes:
    """A JSON file as the Hub's are: indented, with a line end."""
    return (json.dumps(content, indent=2, ensure_ascii=False) + "\n").encode()


def _bar(source: TensorSource, label: str) -> Any:
    return byte_bar(sum(source.info(name).nbytes for name in source.names()), label)
