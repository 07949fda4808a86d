"""A checkpoint in bitsandbytes' 4 bits, shown as the weights that its codes stand for.

For GPTQ and AWQ see `convert.packed`; `convert.plain` makes a model of any of them.
"""

from __future__ import annotations

import os
from typing import Any

from lessonkit.convert.nf4 import FourBitCheckpoint
from lessonkit.errors import LessonkitError, malformed
from lessonkit.files.checkpoint import Checkpoint
from lessonkit.files.dtypes import Array, bits_of, parse_dtype
from lessonkit.files.safetensors import TensorInfo
from lessonkit.formats.blockwise import dequantize_blockwise
from lessonkit.formats.codebooks import CODEBOOKS
from lessonkit.formats.double_quant import DoubleQuantized


class Dequantized(FourBitCheckpoint):
    """bitsandbytes' NF4 or FP4, shown as plain weights in the dtype that its files name.

    The values are those of bitsandbytes' `dequantize_4bit`: code value times scale in float32,
    rounded once. `names` leaves the helping tensors out.
    """

    def __init__(self, path: str | os.PathLike[str]) -> None:
        self._states: dict[str, dict[str, Any]] = {}  # `info` is asked while they are read
        self._stored = Checkpoint(path)
        super().__init__(path)

    def names(self) -> list[str]:
        """The weights' names, without the tensors that help to read them."""
        helpers = tuple(f"{name}." for name in self._states)
        return [n for n in super().names() if n in self._states or not n.startswith(helpers)]

    def info(self, name: str) -> TensorInfo:
        """Dtype and shape of the weight, not of its codes."""
        state = self._states.get(name)
        if state is None:
            return super().info(name)
        return TensorInfo(name, parse_dtype(str(state["dtype"])), tuple(state["shape"]))

    def array(self, name: str) -> Array:
        """The weight's bits."""
        state = self._states.get(name)
        if state is None:
            return super().array(name)
        with malformed(
            f"{name} does not fit the description of its codes",
            where=self.path,
            remedy="Fetch the file again, or quantise the original: lessonkit nf4.",
        ):
            return self._dequantize(name, state)

    def release(self, name: str) -> None:
        """Give the pages of codes and scales back."""
        if name not in self._states:
            super().release(name)

    def _dequantize(self, name: str, state: dict[str, Any]) -> Array:
        import torch

        if state.get("quant_type") not in CODEBOOKS:
            raise LessonkitError(
                f"{name} is in the 4-bit type {state.get('quant_type')!r}.",
                where=self.path,
                remedy="Only nf4 and fp4 are read here.",
            )
        absmax: Any = self._stored.tensor(f"{name}.absmax")
        if "nested_blocksize" in state:
            absmax = DoubleQuantized(
                absmax,
                self._stored.tensor(f"{name}.nested_absmax"),
                torch.tensor(state["nested_offset"]),
            ).dequantize()
        weight = dequantize_blockwise(
            self._stored.tensor(name).reshape(-1), absmax, CODEBOOKS[state["quant_type"]],
            state["blocksize"], torch.Size(state["shape"]), getattr(torch, state["dtype"]),
        )  # fmt: skip
        return bits_of(weight)[0]
