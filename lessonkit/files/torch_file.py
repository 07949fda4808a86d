"""PyTorch's `.pth` and `.bin` files: a zip archive with one pickle and one record a tensor.

NAME/data.pkl      which tensors there are (a pickle, see torch_pickle)
NAME/data/0, 1, …  their values, stored without compression, so they can be mapped
NAME/byteorder, NAME/version
"""

from __future__ import annotations

import os
import struct
import zipfile
from collections.abc import Iterable
from dataclasses import dataclass
from pathlib import Path
from typing import BinaryIO, NoReturn

from lessonkit.errors import LessonkitError
from lessonkit.files.dtypes import DTYPES, Array, bytes_of
from lessonkit.files.foreign import refuse_foreign
from lessonkit.files.safetensors import TensorInfo
from lessonkit.files.torch_pickle import (
    LARGEST_PICKLE,
    StoredTensor,
    read_tensors,
    write_tensors,
)

_LEGACY_MAGIC = b"\x80\x02\x8a\nl\xfc\x9cF\xf9 j\xa8P\x19."
# What zipfile raises for one.
_BROKEN_ARCHIVE = (zipfile.BadZipFile, NotImplementedError, struct.error, ValueError, EOFError)
_ALIGNMENT = 64  # as torch: a mapped record can be used in place


@dataclass(frozen=True)
class TorchHeader:
    """The tensors of one file, and the byte at which each one's storage begins.

    `checksums` are the CRC-32s that the zip archive carries for the storages, by tensor; empty for
    files written without them.
    """

    tensors: dict[str, TensorInfo]
    stored: dict[str, StoredTensor]
    starts: dict[str, int]
    checksums: dict[str, int]


def read_torch_header(path: str | os.PathLike[str]) -> TorchHeader:
    """Read what a PyTorch zip file holds; nothing in it is executed.

    Raises `LessonkitError` for legacy (non-zip) pickles, compressed or truncated archives,
    pickles with anything but tensors in them, and tensors that reach beyond their record.
    """
    path = Path(path)
    with path.open("rb") as file:
        _expect_zip(file, path)
        try:
            with zipfile.ZipFile(file) as archive:
                records = _records(archive, path)
                prefix = _prefix(records, path)
                _forget_absent_checksums(records)
                if records.get(f"{prefix}byteorder") and (
                    archive.read(f"{prefix}byteorder") != b"little"
                ):
                    _refuse("The file was written on a big-endian machine.", path)
                if records[f"{prefix}data.pkl"].file_size > LARGEST_PICKLE:
                    _refuse("The pickle is absurdly large for a table of tensors.", path)
                program = archive.read(f"{prefix}data.pkl")
        except _BROKEN_ARCHIVE as error:
            reason = str(error) or "it ends too soon"
            _refuse(f"The zip archive is damaged or cut off ({reason}).", path)
        stored = read_tensors(program, where=path)
        starts = {
            name: _record_start(file, records, f"{prefix}data/{tensor.key}", tensor, path)
            for name, tensor in stored.items()
        }
    tensors = {name: TensorInfo(name, t.dtype, t.shape) for name, t in stored.items()}
    checksums = {
        name: crc
        for name, tensor in stored.items()
        if (crc := records[f"{prefix}data/{tensor.key}"].CRC) is not None
    }
    return TorchHeader(tensors, stored, starts, checksums)


def write_torch_file(file: BinaryIO, tensors: Iterable[tuple[str, str, Array]]) -> None:
    """Write tensors, given as (name, dtype, bits), as a file that `torch.load` reads.

    One tensor at a time is taken from `tensors`; nothing else is kept in memory. The result
    depends on the tensors only: the same input gives the same bytes.
    """
    described: list[tuple[str, StoredTensor]] = []
    with zipfile.ZipFile(file, "w", zipfile.ZIP_STORED, allowZip64=True) as archive:
        for number, (name, dtype, bits) in enumerate(tensors):
            key = str(number)
            described.append((name, _describe(dtype, key, bits)))
            _write_record(archive, f"archive/data/{key}", bytes_of(bits))
        program = write_tensors(described)
        _write_record(archive, "archive/data.pkl", program)
        _write_record(archive, "archive/byteorder", b"little")
        _write_record(archive, "archive/version", b"3\n")


def _describe(dtype: str, key: str, bits: Array) -> StoredTensor:
    stride, step = [], 1
    for length in reversed(bits.shape):
        stride.append(step)
        step *= length
    return StoredTensor(dtype, key, bits.size, 0, bits.shape, tuple(reversed(stride)))


def _write_record(archive: zipfile.ZipFile, name: str, content: bytes | memoryview) -> None:
    assert archive.fp is not None
    record = zipfile.ZipInfo(name)  # its date is fixed: 1980-01-01
    # The local header takes 30 bytes, the name, our padding field and zip64's own 20 bytes.
    padding = -(archive.fp.tell() + 30 + len(name) + 4 + 20) % _ALIGNMENT
    record.extra = b"FB" + padding.to_bytes(2, "little") + b"Z" * padding
    with archive.open(record, "w", force_zip64=True) as out:
        out.write(content)


def _expect_zip(file: BinaryIO, path: Path) -> None:
    refuse_foreign(file, path)
    head = file.read(len(_LEGACY_MAGIC))
    if head == _LEGACY_MAGIC:
        raise LessonkitError(
            "This is a PyTorch file in the legacy (non-zip) form of 2020 and earlier.",
            where=path,
            remedy="Re-save it once, where you trust its source: "
            "torch.save(torch.load(old, weights_only=True), new).",
        )
    if not head.startswith(b"PK\x03\x04"):
        if head.startswith(b"\x80"):
            _refuse("This is a bare pickle; PyTorch files are zip archives.", path)
        known = "neither safetensors nor GGUF, and no PyTorch file, which is a zip archive"
        _refuse(f"This file holds no weights: {known}.", path)


def _records(archive: zipfile.ZipFile, path: Path) -> dict[str, zipfile.ZipInfo]:
    records: dict[str, zipfile.ZipInfo] = {}
    for record in archive.infolist():
        if record.filename in records:
            _refuse(f"The archive holds {record.filename} twice.", path)
        if record.compress_type != zipfile.ZIP_STORED:
            raise LessonkitError(
                f"The record {record.filename} is compressed; torch.save never does this.",
                where=path,
                remedy="Unpack and re-save it with torch, where you trust its source.",
            )
        records[record.filename] = record
    return records


def _forget_absent_checksums(records: dict[str, zipfile.ZipInfo]) -> None:
    """torch can be told to write no CRC-32: then all of them are 0, and mean nothing."""
    if not any(record.CRC for record in records.values()):
        for record in records.values():
            record.CRC = None  # type: ignore[assignment]  # zipfile then checks nothing


def _prefix(records: dict[str, zipfile.ZipInfo], path: Path) -> str:
    """The folder inside the archive; torch names it after the file or "archive"."""
    found = [name for name in records if name.count("/") == 1 and name.endswith("/data.pkl")]
    if len(found) != 1:
        _refuse("The zip archive holds no data.pkl, so it is not a PyTorch file.", path)
    prefix = found[0].removesuffix("data.pkl")
    if f"{prefix}constants.pkl" in records:
        raise LessonkitError(
            "This is a TorchScript program, not a table of tensors.",
            where=path,
            remedy="Save its state_dict() instead.",
        )
    return prefix


def _record_start(
    file: BinaryIO,
    records: dict[str, zipfile.ZipInfo],
    name: str,
    tensor: StoredTensor,
    path: Path,
) -> int:
    """The byte at which a record's values begin, once it is known that all are there."""
    record = records.get(name)
    if record is None:
        _refuse(f"The archive lacks the record {name}.", path)
    needed = tensor.length * DTYPES[tensor.dtype].block_bytes
    if record.file_size != needed:
        _refuse(f"The record {name} has {record.file_size:,} bytes, not {needed:,}.", path)
    file.seek(record.header_offset)
    local = file.read(30)
    if len(local) < 30 or not local.startswith(b"PK\x03\x04"):
        _refuse(f"The record {name} is not where the archive says.", path)
    name_length, extra_length = struct.unpack("<HH", local[26:])
    start = record.header_offset + 30 + name_length + extra_length
    if start + needed > os.fstat(file.fileno()).st_size:
        _refuse(f"The record {name} reaches beyond the end of the file.", path)
    return start


def _refuse(what: str, path: Path) -> NoReturn:
    raise LessonkitError(what, where=path, remedy="Fetch the file again; it may be damaged.")
