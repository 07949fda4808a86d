"""The header of a safetensors file: eight bytes of length, then JSON, then the tensors.

    8 bytes   N, little-endian
    N bytes   {"name": {"dtype": "BF16", "shape": [2, 3], "data_offsets": [0, 12]}, ...}
    the rest  the values, row by row, one tensor after another

The reader refuses every header that does not describe its file exactly: an offset out of
range would read foreign memory, and a hole or an overlap means that something was lost.
Format: https://huggingface.co/docs/safetensors
"""

from __future__ import annotations

import json
import math
import os
from collections.abc import Iterable, Mapping
from dataclasses import dataclass
from pathlib import Path
from typing import Any, NoReturn

from lessonkit.errors import LessonkitError
from lessonkit.files.dtypes import DTYPES, storage
from lessonkit.files.foreign import refuse_foreign

LARGEST_HEADER = 100_000_000  # bytes; the same limit as the safetensors library
_DAMAGED = "Fetch the file again; it is damaged or was not written completely."


@dataclass(frozen=True)
class TensorInfo:
    """Name, dtype ("BF16", ...) and shape of a tensor, without its values."""

    name: str
    dtype: str
    shape: tuple[int, ...]

    @property
    def count(self) -> int:
        """How many values."""
        return math.prod(self.shape)

    @property
    def nbytes(self) -> int:
        """How many bytes they take."""
        return storage(self.dtype).nbytes(self.count)


@dataclass(frozen=True)
class Header:
    """What a file holds, and where: `starts` are byte positions in the whole file."""

    tensors: dict[str, TensorInfo]
    starts: dict[str, int]
    metadata: dict[str, str]


def read_header(path: str | os.PathLike[str]) -> Header:
    """Read and check the header of a safetensors file."""
    path = Path(path)
    with path.open("rb") as file:
        size = os.fstat(file.fileno()).st_size
        if size < 8:
            _refuse(f"The file has {size} bytes; a safetensors file has at least 8.", path)
        refuse_foreign(file, path)
        length = int.from_bytes(file.read(8), "little")
        if length > LARGEST_HEADER:
            _refuse(f"The header claims {length:,} bytes: not a safetensors file.", path)
        if length > size - 8:
            _refuse(f"The header claims {length:,} bytes, the file has only {size:,}.", path)
        raw = file.read(length)
    return _check(_parse(raw, path), data_start=8 + length, size=size, path=path)


def encode_header(tensors: Iterable[TensorInfo], metadata: Mapping[str, str]) -> bytes:
    """The length and JSON that stand before `tensors`, which follow in the same order."""
    entries: dict[str, Any] = {"__metadata__": dict(metadata)} if metadata else {}
    start = 0
    for info in tensors:
        end = start + info.nbytes
        entries[info.name] = {
            "dtype": info.dtype,
            "shape": list(info.shape),
            "data_offsets": [start, end],
        }
        start = end
    text = json.dumps(entries, separators=(",", ":"), ensure_ascii=False).encode()
    text += b" " * (-len(text) % 8)  # the tensors start at a multiple of 8
    return len(text).to_bytes(8, "little") + text


def _parse(raw: bytes, path: Path) -> dict[str, Any]:
    if not raw.startswith(b"{"):
        _refuse("The header is not a JSON object.", path)
    try:
        parsed = json.loads(raw.decode("utf-8"), object_pairs_hook=_no_duplicates)
    except LessonkitError as error:
        _refuse(error.what, path)
    except (ValueError, RecursionError) as error:
        _refuse(f"The header is not valid JSON ({error}).", path)
    assert isinstance(parsed, dict)  # it began with a brace
    return parsed


def _no_duplicates(pairs: list[tuple[str, Any]]) -> dict[str, Any]:
    result: dict[str, Any] = {}
    for key, value in pairs:
        if key in result:
            raise LessonkitError(f"The header names {key!r} twice.")
        result[key] = value
    return result


def _check(entries: dict[str, Any], *, data_start: int, size: int, path: Path) -> Header:
    metadata = entries.pop("__metadata__", {})
    if not isinstance(metadata, dict) or not all(isinstance(v, str) for v in metadata.values()):
        _refuse("The header's __metadata__ is not a map from text to text.", path)
    tensors: dict[str, TensorInfo] = {}
    spans: list[tuple[int, int, str]] = []
    for name, entry in entries.items():
        info, begin, end = _check_entry(name, entry, path)
        tensors[name] = info
        spans.append((begin, end, name))
    spans.sort()
    position = 0
    for begin, end, name in spans:
        if begin != position:
            kind = "overlaps the one before it" if begin < position else "follows a hole"
            _refuse(f"Tensor {name} {kind}: it begins at {begin}, not at {position}.", path)
        position = end
    present = size - data_start
    if position != present:
        _refuse(f"The tensors take {position:,} bytes, but the file holds {present:,}.", path)
    starts = {name: data_start + begin for begin, _, name in spans}
    return Header({name: tensors[name] for _, _, name in spans}, starts, metadata)


def _check_entry(name: str, entry: Any, path: Path) -> tuple[TensorInfo, int, int]:
    if not isinstance(entry, dict) or set(entry) != {"dtype", "shape", "data_offsets"}:
        _refuse(f"Tensor {name} must have dtype, shape and data_offsets, nothing else.", path)
    dtype, shape, offsets = entry["dtype"], entry["shape"], entry["data_offsets"]
    if not isinstance(dtype, str) or dtype not in DTYPES:
        _refuse(
            f"Tensor {name} has the unknown dtype {dtype!r}.",
            path,
            f"Known are {', '.join(DTYPES)}.",
        )
    if not _are_sizes(shape):
        _refuse(f"Tensor {name} has the impossible shape {shape!r}.", path)
    if not _are_sizes(offsets) or len(offsets) != 2 or offsets[0] > offsets[1]:
        _refuse(f"Tensor {name} has the impossible data_offsets {offsets!r}.", path)
    info = TensorInfo(name, dtype, tuple(shape))
    begin, end = offsets
    if end - begin != info.nbytes:
        _refuse(
            f"Tensor {name}: {dtype} of shape {shape} takes {info.nbytes:,} bytes, "
            f"its data_offsets span {end - begin:,}.",
            path,
        )
    return info, begin, end


def _are_sizes(values: Any) -> bool:
    # `type() is int`: JSON's true would pass isinstance.
    return isinstance(values, list) and all(type(v) is int and 0 <= v < 1 << 63 for v in values)


def _refuse(what: str, path: Path, remedy: str = _DAMAGED) -> NoReturn:
    raise LessonkitError(what, where=path, remedy=remedy)
