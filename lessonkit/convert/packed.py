"""A GPTQ or AWQ checkpoint, opened: as it is stored, or as the weights that its codes stand for."""

from __future__ import annotations

import math
import os
from collections.abc import Container
from pathlib import Path
from typing import TYPE_CHECKING, Any

from lessonkit.convert.hf_checkpoint import HfCheckpoint
from lessonkit.errors import LessonkitError
from lessonkit.files.checkpoint import Checkpoint, read_json
from lessonkit.files.dtypes import Array
from lessonkit.files.safetensors import TensorInfo
from lessonkit.formats.packing import Version, unpack_awq, unpack_gptq
from lessonkit.quantize.grids import AwqGrid, EvenGrid, IntGrid, Quantized

if TYPE_CHECKING:
    import torch

_VERSIONS: dict[str, Version] = {"gptq": 1, "gptq_v2": 2}
_BITS = {"gptq": (2, 3, 4, 8), "awq": (4,)}
_PARTS = ("qweight", "qzeros", "scales", "g_idx")
_REMEDY = "Convert it to one of these with the library that wrote it, or quantise the original."


class PackedCheckpoint(HfCheckpoint):
    """A checkpoint whose linear weights are int32 words of codes, with what helps to read them."""

    @staticmethod
    def recognises(path: Path) -> bool:
        """Does the `config.json` of a folder say so?"""
        config = path / "config.json"
        if not config.is_file():
            return False
        said = read_json(config).get("quantization_config")
        return isinstance(said, dict) and said.get("quant_method") in ("gptq", "awq")

    def __init__(self, path: str | os.PathLike[str]) -> None:
        self._stored = Checkpoint(path)
        super().__init__(path)
        self._said: dict[str, Any] = self.config["quantization_config"]
        self.method: str = self._said["quant_method"]
        self.bits: int = self._whole_number("bits", _BITS[self.method])
        """Of a code."""
        self._group_size = self._whole_number("group_size", range(-1, 1 << 31), default=-1)
        groups = "one group a row" if self._group_size == -1 else f"groups of {self._group_size}"
        act_order = ", act-order" if self._said.get("desc_act") else ""
        self.form += f", {self.method.upper()} ({self.bits} bits, {groups}{act_order})"
        self.packed = {
            f"{name.removesuffix('qweight')}weight"
            for name in self._stored.names()
            if name.endswith(".qweight")
        }

    @property
    def parameters(self) -> int:
        """How many weights: packed ones by the shape they had, without what helps to read them."""
        helpers = tuple(name.removesuffix("weight") for name in self.packed)
        plain = (name for name in self._stored.names() if not name.startswith(helpers or ("\0",)))
        packed = sum(math.prod(self.weight_shape(name)) for name in self.packed)
        biases = (name for name in self._stored.names() if name.endswith(".bias"))
        return packed + sum(self._stored.info(name).count for name in {*plain, *biases})

    def _whole_number(self, key: str, allowed: Container[int], **default: int) -> int:
        number = {**default, **self._said}.get(key)
        if type(number) is not int or number not in allowed or not number:
            raise LessonkitError(
                f"{key} is {number!r} in the quantization_config of a {self.method.upper()} model.",
                where=self.config_file,
                remedy=_REMEDY,
            )
        return number

    def weight_shape(self, name: str) -> tuple[int, int]:
        """[out, in] of a packed weight."""
        rows, columns = self._stored.info(_part(name, "qweight")).shape
        if self.method == "awq":
            return columns * 32 // self.bits, rows
        return columns, rows * 32 // self.bits

    def quantized(self, name: str) -> Quantized:
        """The codes, scales and zero-points of a packed weight.

        Raises LessonkitError for forms that are not read here, and for parts that do not fit.
        """
        import torch

        grid = self._grid()
        parts = {part: self._stored.tensor(_part(name, part)) for part in _PARTS[:3]}
        if self.method == "awq":
            codes, zeros = unpack_awq(parts["qweight"], parts["qzeros"])
        else:
            version = _VERSIONS[self._kind() or "gptq"]
            codes, zeros = unpack_gptq(parts["qweight"], parts["qzeros"], self.bits, version)
        columns = codes.shape[1]
        if (stored := _part(name, "g_idx")) in self._stored:
            g_idx = self._stored.tensor(stored).clone()
        else:
            groups = grid.groups_in(columns)
            g_idx = (torch.arange(columns) // (columns // groups)).to(torch.int32)
        scales = parts["scales"].T.contiguous()
        fits = scales.shape == zeros.shape and len(g_idx) == columns
        if not fits or not 0 <= int(g_idx.min()) <= int(g_idx.max()) < scales.shape[1]:
            raise LessonkitError(
                f"The parts of {name} do not fit together.",
                where=self.file_of(_part(name, "qweight")),
                remedy="Fetch the file again, or quantise the original.",
            )
        return Quantized(grid, codes, scales, zeros, g_idx)

    def _kind(self) -> str:
        """Which of its method's forms the words have, as the configuration says; "" for nothing."""
        said = self._said.get("version" if self.method == "awq" else "checkpoint_format")
        return str(said or "").lower()

    def _grid(self) -> EvenGrid:
        kind, known = self._kind(), ("gemm",) if self.method == "awq" else ("", *_VERSIONS)
        if kind not in known:
            raise LessonkitError(
                f"{self.method.upper()} weights in the form {kind!r} are not read here.",
                where=self.config_file,
                remedy=_REMEDY,
            )
        if self.method == "awq":
            return AwqGrid(self._group_size)
        return IntGrid(
            self.bits, self._group_size, bool(self._said.get("sym", True)), lowest_zero=0
        )


class UnpackedCheckpoint(PackedCheckpoint):
    """The same, shown as plain weights: float32, because scale times code fits into no less.

    Readers that compute in fp16 or bf16 round these values once more.
    """

    def names(self) -> list[str]:
        """The weights' names, without the tensors that help to read them."""
        names = []
        for name in super().names():
            stem, _, part = name.rpartition(".")
            if f"{stem}.weight" not in self.packed or part == "bias":
                names.append(name)
            elif part == "qweight":
                names.append(f"{stem}.weight")
        return names

    def info(self, name: str) -> TensorInfo:
        """Dtype and shape of the weight, not of its codes."""
        if name in self.packed:
            return TensorInfo(name, "F32", self.weight_shape(name))
        return super().info(name)

    def array(self, name: str) -> Array:
        """The weight's bits."""
        if name not in self.packed:
            return super().array(name)
        values: Array = self.quantized(name).dequantize().numpy()
        return values

    def tensor(self, name: str) -> torch.Tensor:
        """The same as a torch tensor."""
        return self.quantized(name).dequantize() if name in self.packed else super().tensor(name)

    def check(self, name: str) -> bool:
        """No: safetensors files carry no checksums."""
        return False

    def release(self, name: str) -> None:
        """Give the pages of codes and scales back."""
        parts = [_part(name, part) for part in _PARTS] if name in self.packed else [name]
        for part in parts:
            if part in self._stored:
                self._stored.release(part)


def _part(name: str, part: str) -> str:
    """The name of a tensor stored for a weight."""
    return f"{name.removesuffix('weight')}{part}"
