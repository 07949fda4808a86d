"""A GGUF file: key/value metadata, a table of tensors, then the tensors; read and checked.

    4 bytes   "GGUF"
    u32       version (2 or 3)
    u64 u64   how many tensors, how many keys
    keys      name, type, value: everything that llama.cpp knows of a model, the tokenizer too
    table     for each tensor: name, sizes (row length first), type, offset
    tensors   each at a multiple of `general.alignment` (32 unless it says so)

All numbers are little-endian; a string is a u64 length and UTF-8. A tensor's rows are blocks
(see `lessonkit.formats.ggml`) or plain numbers. A large model may be cut into files
`NAME-00001-of-00003.gguf`; they open as one. The reader refuses every count, length and offset
that does not fit the file. Format: https://github.com/ggml-org/ggml/blob/master/docs/gguf.md
"""

from __future__ import annotations

import mmap
import os
import re
import struct
from dataclasses import dataclass, field, replace
from pathlib import Path
from typing import Any, NoReturn

import numpy as np

from lessonkit.errors import LessonkitError
from lessonkit.files.dtypes import Array, storage
from lessonkit.files.foreign import GGUF
from lessonkit.files.integrity import Stamp, require_stamp, stamp
from lessonkit.files.safetensors import TensorInfo

VERSIONS = (2, 3)
ALIGNMENT = 32
ALIGNMENT_KEY = "general.alignment"
LONGEST_NAME = 63  # bytes of a tensor's name: ggml keeps 64 with the zero
MOST_DIMENSIONS = 4
SPLIT_NAME = re.compile(r"(.+)-(\d{5})-of-(\d{5})\.gguf")

# ggml's `enum ggml_type`, by number.
TYPES: dict[int, str] = {
    0: "F32", 1: "F16", 2: "Q4_0", 3: "Q4_1", 6: "Q5_0", 7: "Q5_1", 8: "Q8_0", 9: "Q8_1",
    10: "Q2_K", 11: "Q3_K", 12: "Q4_K", 13: "Q5_K", 14: "Q6_K", 15: "Q8_K", 16: "IQ2_XXS",
    17: "IQ2_XS", 18: "IQ3_XXS", 19: "IQ1_S", 20: "IQ4_NL", 21: "IQ3_S", 22: "IQ2_S",
    23: "IQ4_XS", 24: "I8", 25: "I16", 26: "I32", 27: "I64", 28: "F64", 29: "IQ1_M", 30: "BF16",
    34: "TQ1_0", 35: "TQ2_0", 39: "MXFP4", 40: "NVFP4", 41: "Q1_0", 42: "Q2_0",
}  # fmt: skip
# GGUF's types of metadata values, by number: numpy's name for them.
NUMBERS = {0: "<u1", 1: "<i1", 2: "<u2", 3: "<i2", 4: "<u4", 5: "<i4", 6: "<f4", 7: "?",
           10: "<u8", 11: "<i8", 12: "<f8"}  # fmt: skip
_TYPE_NUMBERS = {np.dtype(name): number for number, name in NUMBERS.items()}
STRING, ARRAY = 8, 9
_DAMAGED = "Fetch the file again; it is damaged or was not written completely."


@dataclass(frozen=True)
class GgufHeader:
    """What a file holds, and where: `starts` are byte positions in the whole file.

    `metadata` has Python's numbers, texts, lists of texts, and numpy arrays for lists of numbers.
    `end` is where the last tensor ends, `stamp` tells this file from a later one.
    """

    version: int
    metadata: dict[str, Any]
    tensors: dict[str, TensorInfo]
    starts: dict[str, int]
    end: int
    stamp: Stamp = (0, 0, 0)


def read_gguf_header(path: str | os.PathLike[str]) -> GgufHeader:
    """Read and check all that stands before the tensors of one GGUF file."""
    path = Path(path)
    try:
        with path.open("rb") as file:
            size = os.fstat(file.fileno()).st_size
            if size < 24:
                _refuse(f"The file has {size} bytes; a GGUF file has at least 24.", path)
            its_stamp = stamp(file.fileno())
            with mmap.mmap(file.fileno(), 0, access=mmap.ACCESS_READ) as content:
                return replace(_Parser(content, path).header(), stamp=its_stamp)
    except OSError as error:
        raise LessonkitError(
            f"The file cannot be read: {error.strerror}.",
            where=path,
            remedy="Check that the path is right and the download complete.",
        ) from error


@dataclass
class _Parser:
    """A position in the bytes of a file; every step forward is checked against its end."""

    content: mmap.mmap
    path: Path
    at: int = 0
    depth: int = 0

    def header(self) -> GgufHeader:
        if self._take(4, "the beginning") != GGUF:
            _refuse("The file does not begin with GGUF.", self.path, "Name a GGUF file.")
        version = self._number("<u4", "the version")
        if version not in VERSIONS:
            swapped = int.from_bytes(version.to_bytes(4, "little"), "big")
            kind = "is big-endian" if swapped in VERSIONS else f"has the version {version}"
            _refuse(f"The file {kind}; versions 2 and 3, little-endian, are read here.", self.path,
                    "Convert the original model again with a present tool.")  # fmt: skip
        tensors = self._count("<u8", 24, "tensors")
        keys = self._count("<u8", 13, "keys")
        metadata: dict[str, Any] = {}
        for _ in range(keys):
            key = self._string("a key")
            if key in metadata:
                _refuse(f"The key {key!r} stands there twice.", self.path)
            metadata[key] = self._value(self._number("<u4", key), key)
        return self._table(version, metadata, tensors)

    def _table(self, version: int, metadata: dict[str, Any], count: int) -> GgufHeader:
        alignment = metadata.get(ALIGNMENT_KEY, ALIGNMENT)
        if type(alignment) is not int or alignment < 1 or alignment & (alignment - 1):
            _refuse(f"{ALIGNMENT_KEY} is {alignment!r}, not a power of two.", self.path)
        infos: dict[str, TensorInfo] = {}
        offsets: dict[str, int] = {}
        for _ in range(count):
            info = self._tensor()
            if info.name in infos:
                _refuse(f"The tensor {info.name} stands in the table twice.", self.path)
            infos[info.name] = info
            offsets[info.name] = self._number("<u8", info.name)
        data = aligned(self.at, alignment)
        position, end = 0, self.at
        for name, info in infos.items():
            if offsets[name] != position:
                _refuse(
                    f"Tensor {name} begins at {offsets[name]:,}, not at {position:,}, where the "
                    "one before it leads to.",
                    self.path,
                )
            end = data + position + info.nbytes
            if end > len(self.content):
                _refuse(
                    f"Tensor {name} ends at byte {end:,}; the file has only {len(self.content):,}.",
                    self.path,
                )
            position += aligned(info.nbytes, alignment)
        starts = {name: data + offset for name, offset in offsets.items()}
        return GgufHeader(version, metadata, infos, starts, end)

    def _tensor(self) -> TensorInfo:
        name = self._string("a tensor's name")
        length = len(name.encode("utf-8", "surrogateescape"))
        if not 0 < length <= LONGEST_NAME:
            _refuse(f"A tensor's name has {length} bytes: {name[:40]!r}.", self.path)
        dimensions = self._number("<u4", name)
        if not 1 <= dimensions <= MOST_DIMENSIONS:
            _refuse(f"Tensor {name} has {dimensions} dimensions; 1 to 4 are possible.", self.path)
        sizes = [self._number("<u8", name) for _ in range(dimensions)]
        number = self._number("<u4", name)
        if number not in TYPES:
            _refuse(
                f"Tensor {name} has the type number {number}, which is not known here.",
                self.path,
                "It may be newer than this course, or one that llama.cpp has dropped: convert the "
                "original model again.",
            )
        info = TensorInfo(name, TYPES[number], tuple(reversed(sizes)))
        if info.count >= 1 << 63:
            _refuse(f"Tensor {name} has the impossible shape {list(info.shape)}.", self.path)
        block = storage(info.dtype).values
        if info.shape[-1] % block:
            _refuse(
                f"Tensor {name}: rows of {info.shape[-1]} values are no whole number of "
                f"{info.dtype} blocks of {block}.",
                self.path,
            )
        return info

    def _value(self, kind: int, key: str) -> Any:
        if kind in NUMBERS:
            return self._number(NUMBERS[kind], key)
        if kind == STRING:
            return self._string(key)
        if kind != ARRAY:
            _refuse(f"The value of {key} has the unknown type {kind}.", self.path)
        inner = self._number("<u4", key)
        if inner in NUMBERS:
            dtype = np.dtype(NUMBERS[inner])
            length = self._count("<u8", dtype.itemsize, key)
            return np.frombuffer(self._take(length * dtype.itemsize, key), dtype)
        if inner == STRING:
            return [self._string(key) for _ in range(self._count("<u8", 8, key))]
        if inner != ARRAY or self.depth:
            _refuse(f"The list {key} holds values of the type {inner}.", self.path)
        self.depth = 1
        value = [self._value(ARRAY, key) for _ in range(self._count("<u8", 12, key))]
        self.depth = 0
        return value

    def _string(self, what: str) -> str:
        raw = self._take(self._count("<u8", 1, what), what)
        try:
            return raw.decode("utf-8")
        except UnicodeDecodeError:
            # A byte-level vocabulary from elsewhere may hold pieces that are no text.
            return raw.decode("utf-8", "surrogateescape")

    def _count(self, dtype: str, smallest: int, what: str) -> int:
        """A number of things that take at least `smallest` bytes each: they must fit the file."""
        count: int = self._number(dtype, what)
        if count > (len(self.content) - self.at) // smallest:
            _refuse(f"{what}: {count:,} of them do not fit the rest of the file.", self.path)
        return count

    def _number(self, dtype: str, what: str) -> Any:
        kind = np.dtype(dtype)
        return np.frombuffer(self._take(kind.itemsize, what), kind)[0].item()

    def _take(self, length: int, what: str) -> bytes:
        if length > len(self.content) - self.at:
            _refuse(f"The file ends inside {what}.", self.path)
        self.at += length
        return self.content[self.at - length : self.at]


@dataclass
class GgufFile:
    """The tensors of a GGUF file under its own names and in its own row order, lazily.

    `metadata` is that of the file, or of the first of several parts. A tensor of a block type is
    its bytes, uint8 [..., bytes of a row].
    """

    path: Path
    form: str = "gguf"
    weight_files: list[Path] = field(default_factory=list)
    notes: list[str] = field(default_factory=list)
    metadata: dict[str, Any] = field(default_factory=dict)
    version: int = 3
    _infos: dict[str, TensorInfo] = field(default_factory=dict)
    _places: dict[str, tuple[Path, int]] = field(default_factory=dict)
    _maps: dict[Path, mmap.mmap] = field(default_factory=dict)
    _stamps: dict[Path, Stamp] = field(default_factory=dict)

    def names(self) -> list[str]:
        """The tensors' names, in the order in which the bytes lie."""
        return list(self._infos)

    def info(self, name: str) -> TensorInfo:
        """Type and shape of a tensor; the shape ends with the row length."""
        if name not in self._infos:
            raise LessonkitError(
                f"There is no tensor {name}.",
                where=self.path,
                remedy="`lessonkit info --tensors` lists what is there.",
            )
        return self._infos[name]

    def place(self, name: str) -> tuple[Path, int]:
        """The file that holds a tensor, and the position of its first byte there."""
        self.info(name)
        return self._places[name]

    def array(self, name: str) -> Array:
        """The bits of a tensor: a read-only array, mapped from the file, not copied."""
        info, (file, start) = self.info(name), self.place(name)
        dtype = storage(info.dtype)
        array: Array = np.ndarray(
            dtype.stored_shape(info.shape), dtype.bits, self._map(file), start
        )
        return array

    def check(self, name: str) -> bool:
        """GGUF has no checksums: always False."""
        self.info(name)
        return False

    def release(self, name: str) -> None:
        """Give a tensor's pages back to the system; using it again reads them again."""
        info, (file, start) = self.info(name), self.place(name)
        if hasattr(mmap.mmap, "madvise") and info.nbytes:
            first = start // mmap.PAGESIZE * mmap.PAGESIZE
            self._map(file).madvise(mmap.MADV_DONTNEED, first, start + info.nbytes - first)

    def require_unchanged(self) -> None:
        """Raise LessonkitError if a file was changed since it was opened."""
        for file, its_stamp in self._stamps.items():
            require_stamp(file, its_stamp)

    def _map(self, file: Path) -> mmap.mmap:
        if file not in self._maps:
            with file.open("rb") as opened:
                require_stamp(file, self._stamps[file], stamp(opened.fileno()))
                self._maps[file] = mmap.mmap(opened.fileno(), 0, access=mmap.ACCESS_READ)
        return self._maps[file]

    def _add(self, file: Path, header: GgufHeader) -> None:
        for name in header.tensors:
            if name in self._infos:
                _refuse(f"The tensor {name} is in two parts.", file)
        self.weight_files.append(file)
        self._stamps[file] = header.stamp
        self._infos.update(header.tensors)
        self._places.update({name: (file, start) for name, start in header.starts.items()})


def open_gguf(path: str | os.PathLike[str]) -> GgufFile:
    """Open a GGUF file; of a model in several parts, name any one."""
    path = Path(path)
    header = read_gguf_header(path)
    parts = header.metadata.get("split.count", 1)
    if type(parts) is not int:
        _refuse(f"split.count is {parts!r}, not a number of parts.", path)
    named = SPLIT_NAME.fullmatch(path.name)
    if parts in (0, 1):
        opened = GgufFile(path, metadata=header.metadata, version=header.version)
        opened._add(path, header)
        return opened
    if named is None or int(named[3]) != parts:
        _refuse(
            f"The file is one of {parts} parts, but its name does not say which.",
            path,
            f"Name the parts NAME-00001-of-{parts:05}.gguf and so on.",
        )
    files = [path.with_name(f"{named[1]}-{n:05}-of-{parts:05}.gguf") for n in range(1, parts + 1)]
    if missing := [file.name for file in files if not file.is_file()]:
        _refuse(f"The part {missing[0]} is missing.", path, "Fetch this file again.")
    opened = GgufFile(path)
    for number, file in enumerate(files):
        header = read_gguf_header(file)
        said = [header.metadata.get(f"split.{key}") for key in ("no", "count")]
        if any(type(value) is not int for value in said) or said != [number, parts]:
            _refuse(f"This part does not say that it is number {number + 1} of {parts}.", file)
        if number == 0:
            opened.metadata, opened.version = header.metadata, header.version
        opened._add(file, header)
    promised = opened.metadata.get("split.tensors.count")
    if promised is not None and promised != len(opened.names()):
        _refuse(
            f"The parts hold {len(opened.names())} tensors; the first part says {promised}.", path
        )
    return opened


def is_gguf(path: Path) -> bool:
    """Does a file begin as a GGUF file does?"""
    if not path.is_file():
        return False
    with path.open("rb") as file:
        return file.read(len(GGUF)) == GGUF


def aligned(position: int, alignment: int = ALIGNMENT) -> int:
    """The next multiple of the alignment."""
    return -(-position // alignment) * alignment


def encode_gguf_header(metadata: dict[str, Any], tensors: list[TensorInfo]) -> bytes:
    """All that stands before the tensors, which follow in this order, each padded to 32 bytes.

    Types follow from the values as in llama.cpp's own files: bool; whole numbers u32 (i32 below
    0, u64 where u32 is too small); other numbers f32; lists of whole numbers i32, of others f32.
    A numpy number, such as np.uint16(3), keeps its type.
    """
    parts = [GGUF, struct.pack("<IQQ", 3, len(tensors), len(metadata))]
    for key, value in metadata.items():
        parts += [_text(key), _typed(value)]
    numbers = {name: number for number, name in TYPES.items()}
    offset = 0
    for info in tensors:
        if len(info.name.encode()) > LONGEST_NAME or not 1 <= len(info.shape) <= MOST_DIMENSIONS:
            raise LessonkitError(
                f"GGUF has no room for {info.name[:80]} of {len(info.shape)} dimensions.",
                where=info.name[:80],
                remedy="Names have at most 63 bytes, tensors one to four dimensions.",
            )
        sizes = tuple(reversed(info.shape))
        parts.append(_text(info.name) + struct.pack(f"<I{len(sizes)}Q", len(sizes), *sizes))
        parts.append(struct.pack("<IQ", numbers[info.dtype], offset))
        offset += aligned(info.nbytes)
    raw = b"".join(parts)
    return raw + bytes(aligned(len(raw)) - len(raw))


def _text(value: str) -> bytes:
    raw = value.encode("utf-8", "surrogateescape")
    return struct.pack("<Q", len(raw)) + raw


def _typed(value: Any) -> bytes:
    """A metadata value behind the number of its type."""
    if isinstance(value, np.generic):
        raw = value.astype(value.dtype.newbyteorder("<")).tobytes()
        return struct.pack("<I", _TYPE_NUMBERS[value.dtype]) + raw
    if isinstance(value, bool):
        return struct.pack("<I?", 7, value)
    if isinstance(value, int):
        kind, code = (5, "i") if value < 0 else (4, "I") if value < 1 << 32 else (10, "Q")
        return struct.pack(f"<I{code}", kind, value)
    if isinstance(value, float):
        return struct.pack("<If", 6, value)
    if isinstance(value, str):
        return struct.pack("<I", STRING) + _text(value)
    if len(value) and isinstance(value[0], str):
        return struct.pack("<IIQ", ARRAY, STRING, len(value)) + b"".join(map(_text, value))
    array = np.asarray(value)
    kind = 5 if array.dtype.kind in "iu" else 6
    raw = array.astype(NUMBERS[kind]).tobytes()
    return struct.pack("<IIQ", ARRAY, kind, array.size) + raw


def _refuse(what: str, path: Path, remedy: str = _DAMAGED) -> NoReturn:
    raise LessonkitError(what, where=path, remedy=remedy)
