"""A GGUF file opened as a model: its tensors under Hugging Face's names, in its row order."""

from __future__ import annotations

import os
from pathlib import Path
from typing import Any

from lessonkit.errors import LessonkitError
from lessonkit.files.checkpoint import has_weights
from lessonkit.files.dtypes import Array, storage
from lessonkit.files.gguf import GgufFile, is_gguf, open_gguf
from lessonkit.files.safetensors import TensorInfo
from lessonkit.formats.ggml import FORMATS, decode
from lessonkit.llama.gguf_metadata import read_model_metadata
from lessonkit.llama.gguf_names import ROPE_FACTORS, to_halves, to_hf_name
from lessonkit.llama.shape import LlamaShape


def is_gguf_model(path: Path) -> bool:
    """Is this a GGUF file, or a folder that holds GGUF files and no other weights?"""
    if path.is_dir():
        return not has_weights(path) and any(path.glob("*.gguf"))
    return is_gguf(path)


class GgufModel:
    """The tensors of a GGUF file, lazily, as a `TensorSource`.

    A tensor without a name in Hugging Face's form keeps its own. `file` is the file as it is;
    `architecture` what it says of itself; `own_name` gives back GGUF's name of a tensor.
    """

    form = "gguf"

    def __init__(self, path: str | os.PathLike[str]) -> None:
        self.path = Path(path)
        self.file: GgufFile = open_gguf(_the_file(self.path))
        self.weight_files = self.file.weight_files
        self.notes = list(self.file.notes)
        self.architecture = str(self.file.metadata.get("general.architecture"))
        self.shape = self._read_shape()
        self.own_name: dict[str, str] = {}
        for name in self.file.names():
            if name == ROPE_FACTORS:
                self.notes.append(f"{name} holds Llama 3's rotation; elsewhere config.json does")
                continue
            self.own_name[(self.shape and to_hf_name(name)) or name] = name

    @property
    def metadata(self) -> dict[str, Any]:
        """What the file says besides its tensors."""
        return self.file.metadata

    @property
    def parameters(self) -> int:
        """How many weights."""
        return sum(self.info(name).count for name in self.own_name)

    def names(self) -> list[str]:
        """The tensors' names, in the order in which the bytes lie."""
        return list(self.own_name)

    def info(self, name: str) -> TensorInfo:
        """Type and shape of a tensor."""
        info = self.file.info(self.own_name.get(name, name))
        return TensorInfo(name, info.dtype, info.shape)

    def array(self, name: str) -> Array:
        """The bits of a tensor, rows in Hugging Face's order: values, or the bytes of blocks."""
        own = self.own_name.get(name, name)
        bits = self.file.array(own)
        return bits if self.shape is None else to_halves(own, bits, self.architecture, self.shape)

    def check(self, name: str) -> bool:
        """GGUF has no checksums: always False."""
        return self.file.check(self.own_name.get(name, name))

    def release(self, name: str) -> None:
        """Give a tensor's pages back to the system."""
        self.file.release(self.own_name.get(name, name))

    def require_unchanged(self) -> None:
        """Raise LessonkitError if a file was changed since it was opened."""
        self.file.require_unchanged()

    def _read_shape(self) -> LlamaShape | None:
        try:
            return read_model_metadata(self.metadata, self.path)
        except LessonkitError as error:
            self.notes.append(error.what)
            return None


def dequantised(bits: Array, info: TensorInfo) -> Array:
    """The float32 values of a tensor in blocks, in the tensor's shape."""
    if info.dtype not in FORMATS:
        raise LessonkitError(
            f"{info.name} is in {info.dtype}, which is not decoded here.",
            where=info.name,
            remedy="Known are " + ", ".join(FORMATS) + ".",
        )
    row = storage(info.dtype).nbytes(info.shape[-1])
    return decode(bits.reshape(-1, row), info.dtype).reshape(info.shape)


def _the_file(path: Path) -> Path:
    if not path.is_dir():
        return path
    files = sorted(path.glob("*.gguf"))
    if not files:
        raise LessonkitError(
            "The folder holds no GGUF file.", where=path, remedy="Name a file: FILE.gguf."
        )
    first = [file for file in files if "-00001-of-" in file.name]
    if len(files) == 1 or (len(first) == 1 and all("-of-" in file.name for file in files)):
        return (first or files)[0]
    raise LessonkitError(
        f"The folder holds {len(files)} GGUF files.",
        where=path,
        remedy="Name one of them: " + ", ".join(file.name for file in files[:5]) + ".",
    )
