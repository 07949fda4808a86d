"""One view over the tensors of a checkpoint, whatever kind of file holds them.

    with safetensors: one file, or shards and `model.safetensors.index.json`
    with PyTorch:     one `.bin` or `.pth`, or shards and `pytorch_model.bin.index.json`

Files are memory-mapped: opening reads the headers only, and a tensor's bytes are read when
they are used. Meta's model-parallel shards each open as one checkpoint; how they join is
knowledge about the model, and lives in `lessonkit.llama.layout`.
"""

from __future__ import annotations

import json
import mmap
import os
import zlib
from collections.abc import Iterator
from dataclasses import dataclass
from pathlib import Path
from typing import TYPE_CHECKING, Any, Protocol

import numpy as np

from lessonkit.errors import LessonkitError
from lessonkit.files.dtypes import DTYPES, Array, as_torch
from lessonkit.files.integrity import Stamp, inner_name, require_stamp, stamp
from lessonkit.files.safetensors import TensorInfo, read_header
from lessonkit.files.torch_file import read_torch_header

if TYPE_CHECKING:
    import torch

# In the order in which transformers looks for them.
_WEIGHTS = ("model.safetensors", "pytorch_model.bin", "adapter_model.safetensors",
            "adapter_model.bin")  # fmt: skip
_INDEXES = ("model.safetensors.index.json", "pytorch_model.bin.index.json")


class TensorSource(Protocol):
    """What every view over tensors offers; conversions and comparisons need no more."""

    path: Path
    """The folder or file that was opened."""
    form: str
    """What kind of checkpoint it is, in words."""
    weight_files: list[Path]
    """The files that hold the tensors."""
    notes: list[str]
    """What was noticed when it was opened."""

    def names(self) -> list[str]:
        """The tensors' names."""
        ...

    def info(self, name: str) -> TensorInfo:
        """Dtype and shape of a tensor."""
        ...

    def array(self, name: str) -> Array:
        """The bits of a tensor."""
        ...

    def check(self, name: str) -> bool:
        """Compare a tensor with its file's own checksum: False where the file has none.

        Raises LessonkitError if the two differ.
        """
        ...

    def release(self, name: str) -> None:
        """The tensor's memory is not needed for now."""
        ...

    def require_unchanged(self) -> None:
        """Raise LessonkitError if a weight file was changed since it was opened."""
        ...


@dataclass(frozen=True)
class _Place:
    """Where the bytes of a tensor are: `stride` (in values) only for a strided window.

    `storage` are the start and length in bytes of the record that the window looks into, and
    `crc` its CRC-32, where the file has one.
    """

    file: Path
    start: int
    offset: int = 0
    stride: tuple[int, ...] | None = None
    storage: tuple[int, int] = (0, 0)
    crc: int | None = None


class Checkpoint:
    """The tensors of one checkpoint, lazily: a weight file, an index, or a folder with one.

    `form` is "safetensors" or "pytorch", `weight_files` are the files that hold tensors, `metadata`
    is what a safetensors header says about itself.
    """

    def __init__(self, path: str | os.PathLike[str]) -> None:
        self.path = Path(path)
        self.weight_files: list[Path] = []
        self.metadata: dict[str, str] = {}
        self.notes: list[str] = []
        self._infos: dict[str, TensorInfo] = {}
        self._places: dict[str, _Place] = {}
        self._maps: dict[Path, mmap.mmap] = {}
        self._stamps: dict[Path, Stamp] = {}
        if not self.path.exists():
            raise LessonkitError(
                "There is no such file or folder.",
                where=path,
                remedy="Check the spelling of the path.",
            )
        file = _find_weights(self.path) if self.path.is_dir() else self.path
        self.form = "safetensors" if ".safetensors" in file.name else "pytorch"
        if file.name.endswith(".index.json"):
            self._add_shards(file)
        else:
            self._add_file(file)

    def names(self) -> list[str]:
        """The tensors' names, file by file, in the order in which the bytes lie."""
        return list(self._infos)

    def __iter__(self) -> Iterator[str]:
        return iter(self._infos)

    def __len__(self) -> int:
        return len(self._infos)

    def __contains__(self, name: object) -> bool:
        return name in self._infos

    def info(self, name: str) -> TensorInfo:
        """Dtype and shape of a tensor."""
        try:
            return self._infos[name]
        except KeyError:
            raise LessonkitError(
                f"There is no tensor {name}.",
                where=self.path,
                remedy="`lessonkit info --tensors` lists what is there.",
            ) from None

    def file_of(self, name: str) -> Path:
        """The file that holds a tensor."""
        self.info(name)
        return self._places[name].file

    def array(self, name: str) -> Array:
        """The bits of a tensor: a read-only array, mapped from the file, not copied.

        For dtypes that numpy lacks these are integers of the same width: uint16 for BF16.
        """
        array = self._mapped(name)
        array.flags.writeable = False
        return array

    def tensor(self, name: str) -> torch.Tensor:
        """The same as a torch tensor. Writing to it never reaches the file."""
        return as_torch(self._mapped(name), self.info(name).dtype)

    def check(self, name: str) -> bool:
        """Compare the bytes of a tensor with the CRC-32 that a zip archive carries for them.

        False where there is none: safetensors has no checksums, and torch can be told to write
        none. Raises LessonkitError if they differ: bytes were changed after the file was written.
        """
        self.info(name)
        place = self._places[name]
        if place.crc is None:
            return False
        start, length = place.storage
        with memoryview(self._map(place.file)) as content, content[start : start + length] as part:
            found = zlib.crc32(part)
        if found != place.crc:
            raise LessonkitError(
                f"The tensor {name} is not as it was written: its CRC-32 is {found:08x}, and the "
                f"file says {place.crc:08x}.",
                where=place.file,
                remedy="Fetch the file again; it was altered on the way or on the disk.",
            )
        return True

    def release(self, name: str) -> None:
        """Give a tensor's pages back to the system; using it again reads them again.

        This keeps the resident memory of a streaming conversion small.
        """
        place, info = self._places[name], self._infos[name]
        if hasattr(mmap.mmap, "madvise") and info.nbytes:
            start = place.start + place.offset * DTYPES[info.dtype].block_bytes
            first = start // mmap.PAGESIZE * mmap.PAGESIZE
            length = start + info.nbytes - first
            self._map(place.file).madvise(mmap.MADV_DONTNEED, first, length)

    def require_unchanged(self) -> None:
        """Raise LessonkitError if a weight file was changed since it was opened."""
        for file, its_stamp in self._stamps.items():
            require_stamp(file, its_stamp)

    def _map(self, file: Path) -> mmap.mmap:
        if file not in self._maps:
            with file.open("rb") as opened:
                require_stamp(file, self._stamps[file], stamp(opened.fileno()))
                # A private mapping: torch may write to its tensors, the file stays as it is.
                self._maps[file] = mmap.mmap(opened.fileno(), 0, access=mmap.ACCESS_COPY)
        return self._maps[file]

    def _mapped(self, name: str) -> Array:
        info = self.info(name)
        place, dtype = self._places[name], DTYPES[info.dtype]
        shape = dtype.stored_shape(info.shape)
        if info.count == 0:
            return np.empty(shape, dtype.bits)
        start = place.start + place.offset * dtype.block_bytes
        if place.stride is not None:
            strides = tuple(step * dtype.bits.itemsize for step in place.stride)
            return np.ndarray(shape, dtype.bits, self._map(place.file), start, strides)
        return np.ndarray(shape, dtype.bits, self._map(place.file), start)

    def _add_file(self, file: Path) -> list[str]:
        """Take in the tensors of one weight file; returns their names."""
        self.weight_files.append(file)
        try:
            self._stamps[file] = stamp(file)
            if self.form == "safetensors":
                header = read_header(file)
                self.metadata.update(header.metadata)
                infos = header.tensors
                places = {name: _Place(file, header.starts[name]) for name in infos}
            else:
                torch_header = read_torch_header(file)
                infos = torch_header.tensors
                places = {
                    name: _Place(
                        file,
                        start := torch_header.starts[name],
                        stored.offset,
                        stored.stride,
                        (start, DTYPES[stored.dtype].nbytes(stored.length)),
                        torch_header.checksums.get(name),
                    )
                    for name, stored in torch_header.stored.items()
                }
        except OSError as error:
            raise LessonkitError(
                f"The file cannot be read: {error.strerror}.",
                where=file,
                remedy="Check that the path is right and the download complete.",
            ) from error
        for name in infos:
            if name in self._infos:
                raise LessonkitError(
                    f"The tensor {name} is in two files: {self._places[name].file.name} too.",
                    where=file,
                    remedy="Remove the file that does not belong here, or fetch all again.",
                )
        self._infos.update(infos)
        self._places.update(places)
        return list(infos)

    def _add_shards(self, index: Path) -> None:
        """Open the shards that an index names; both must agree on every tensor."""
        weight_map = _read_index(index)
        for shard in sorted(set(weight_map.values())):
            file = index.parent / shard
            if not file.is_file():
                raise LessonkitError(
                    f"The shard {shard} is missing.", where=index, remedy="Fetch this file again."
                )
            promised = {name for name, its_shard in weight_map.items() if its_shard == shard}
            found = set(self._add_file(file))
            for name in sorted(promised ^ found):
                problem = "is not in it" if name in promised else "is in it, against the index"
                raise LessonkitError(
                    f"The index and the shard {shard} disagree: the tensor {name} {problem}.",
                    where=index,
                    remedy="Fetch the index and the shards again, from the same revision.",
                )


def open_checkpoint(path: str | os.PathLike[str]) -> Checkpoint:
    """Open a checkpoint: a weight file, an index file, or a folder that holds one of them."""
    return Checkpoint(path)


def has_weights(folder: Path) -> bool:
    """Does a folder hold weights under one of Hugging Face's names?"""
    return any((folder / name).is_file() for name in (*_WEIGHTS, *_INDEXES))


def _find_weights(folder: Path) -> Path:
    for index, whole in zip(_INDEXES, _WEIGHTS, strict=False):
        if (folder / index).is_file() and (folder / whole).is_file():
            raise LessonkitError(
                f"The folder holds two checkpoints: {whole} and {index}.",
                where=folder,
                remedy="Name the one that you mean, or remove the other.",
            )
    for name in (*_INDEXES[:1], *_WEIGHTS[:1], *_INDEXES[1:], *_WEIGHTS[1:]):
        if (folder / name).is_file():
            return folder / name
    shards = sorted(folder.glob("consolidated.*.pth"))
    if len(shards) == 1:
        return shards[0]
    if shards:
        raise LessonkitError(
            f"The folder holds {len(shards)} model-parallel shards; each has a slice of every "
            "tensor.",
            where=folder,
            remedy="Name one shard's file, or convert them: lessonkit to-hf.",
        )
    others = sorted(p.name for p in folder.iterdir() if p.suffix in (".safetensors", ".bin"))
    if len(others) == 1:
        return folder / others[0]
    raise LessonkitError(
        f"There are {len(others)} weight files but no index to say what belongs together."
        if others
        else "The folder holds no weights (model.safetensors, pytorch_model.bin, "
        "consolidated.*.pth).",
        where=folder,
        remedy="Fetch the missing file (model.safetensors.index.json)."
        if others
        else "Check the path, and that the download is complete.",
    )


def _read_index(index: Path) -> dict[str, str]:
    parsed = read_json(index)
    weight_map = parsed.get("weight_map")
    if not isinstance(weight_map, dict) or not weight_map:
        raise LessonkitError(
            'The index has no "weight_map".', where=index, remedy="Fetch the index again."
        )
    for name, shard in weight_map.items():
        if not isinstance(shard, str):
            raise LessonkitError(
                f"The index gives no file name for the tensor {name}.",
                where=index,
                remedy="Fetch the index again.",
            )
        weight_map[name] = inner_name(shard, where=index)
    return weight_map


def read_json(path: str | os.PathLike[str]) -> dict[str, Any]:
    """Read a JSON object (config.json, params.json, an index), or say what is wrong with it."""
    path = Path(path)
    try:
        parsed = json.loads(path.read_bytes())
    except OSError as error:
        if path.parent.is_file():  # a weight file was named in its folder's place
            raise LessonkitError(
                f"A folder with {path.name} and the weights was to be read, but this is a file.",
                where=path.parent,
                remedy="Name the folder that holds it. Of a GGUF, `lessonkit from-gguf` makes one.",
            ) from error
        raise LessonkitError(
            f"The file cannot be read: {error.strerror}.",
            where=path,
            remedy="Fetch it; it belongs beside the weights.",
        ) from error
    except (ValueError, RecursionError) as error:
        raise LessonkitError(
            f"The file is not valid JSON ({error}).", where=path, remedy="Fetch it again."
        ) from error
    if not isinstance(parsed, dict):
        raise LessonkitError(
            "The file does not hold a JSON object.", where=path, remedy="Fetch it again."
        )
    return parsed
