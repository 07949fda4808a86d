"""GPTQ in llama.cpp: codes that GPTQ chose, in blocks of Q4_0.

Q4_0 holds `d * (code - 8)`, d in fp16, for blocks of 32 neighbours. That is GPTQ's symmetric
4-bit grid: such a checkpoint needs no rounding, only another order of its bits; a group's scale
is repeated for each of its blocks. Or GPTQ rounds onto Q4_0's own grid in the first place
(`Q4_0Grid`): the file has the same size as one rounded to nearest.
"""

from __future__ import annotations

import os
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from pathlib import Path

import numpy as np

from lessonkit.convert.calibration import Calibration
from lessonkit.convert.gptq import Gptq
from lessonkit.convert.hf_checkpoint import HfCheckpoint
from lessonkit.convert.layer_results import FinishedLayers
from lessonkit.convert.layerwise import quantize_layers
from lessonkit.convert.packed import UnpackedCheckpoint
from lessonkit.convert.quantized_folder import LayersByName
from lessonkit.errors import LessonkitError
from lessonkit.files.dtypes import Array
from lessonkit.quantize.grids import Q4_0Grid, Quantized

Codes = Callable[[str], Quantized | None]
"""Given Hugging Face's name of a tensor, its codes, if they have been chosen already."""

_BLOCK = 32
_LAYOUT = np.dtype([("d", "<f2"), ("qs", "u1", 16)])  # byte j: values j (low) and j + 16 (high)
_REMEDY = (
    "Choose --outtype f16 or q8_0 to store the dequantised values, or quantise the original "
    "again without act-order, symmetrically, in 4 bits."
)


def stored_codes(checkpoint: HfCheckpoint) -> Codes:
    """The codes of a GPTQ checkpoint; none for a checkpoint of another form.

    Raises LessonkitError if Q4_0 cannot hold one of its weights.
    """
    if not isinstance(checkpoint, UnpackedCheckpoint):
        return lambda name: None
    for name in sorted(checkpoint.packed):
        require_q4_0(checkpoint.quantized(name), f"{checkpoint.path}: {name}")
        checkpoint.release(name)
    return lambda name: checkpoint.quantized(name) if name in checkpoint.packed else None


@contextmanager
def codes_by_gptq(
    source: str | os.PathLike[str], calibration: Calibration, finished: FinishedLayers
) -> Iterator[Codes]:
    """Choose codes on Q4_0's grid with GPTQ, layer by layer.

    They stay in `finished` until the block is left, and after an error too.
    """
    method = Gptq(Q4_0Grid())
    with finished:
        for _ in quantize_layers(Path(source), calibration, method, finished=finished):
            pass
        layers = LayersByName(finished, method.grid)
        yield lambda name: layers.of(name).quantized.get(name)
        finished.forget()


def q4_0_blocks(quantized: Quantized) -> Array:
    """The blocks of a weight [out, in] as uint8 [out, in / 32 * 18]."""
    codes = quantized.codes.numpy()
    blocks = codes.reshape(len(codes), -1, _BLOCK)
    result = np.empty(blocks.shape[:2], _LAYOUT)
    result["d"] = quantized.scales[:, quantized.g_idx[::_BLOCK].long()].half().numpy()
    result["qs"] = blocks[..., :16] | blocks[..., 16:] << 4
    return result.view(np.uint8).reshape(len(codes), -1)


def require_q4_0(quantized: Quantized, where: str) -> None:
    """Raise LessonkitError, with the reason, unless Q4_0 holds these values exactly."""
    import torch

    g_idx = quantized.g_idx
    columns, groups = len(g_idx), quantized.scales.shape[1]
    problem = None
    if quantized.grid.bits != 4:
        problem = f"the codes have {quantized.grid.bits} bits, Q4_0's have 4"
    elif quantized.zeros is None or bool((quantized.zeros != 8).any()):
        problem = "it is asymmetric: Q4_0's zero-point is always 8"
    elif bool((g_idx.diff() < 0).any()):
        problem = (
            "its g_idx is permuted (act-order, desc_act): neighbours along a row have scales of "
            "different groups, and a block of Q4_0 has one"
        )
    elif columns % _BLOCK or (columns // groups) % _BLOCK:
        problem = f"groups of {columns // groups} are not made of blocks of 32"
    elif not torch.equal(quantized.scales.half().double(), quantized.scales.double()):
        problem = f"its scales are {quantized.scales.dtype}, and fp16, as in Q4_0, would round them"
    if problem:
        raise LessonkitError(
            f"This weight has no exact form in GGUF: {problem}.", where=where, remedy=_REMEDY
        )
