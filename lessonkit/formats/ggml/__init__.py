"""The block formats of GGUF files, encoded as llama.cpp encodes them and decoded."""

from __future__ import annotations

import numpy as np

from lessonkit.errors import LessonkitError
from lessonkit.formats.ggml.blocks import BlockFormat
from lessonkit.formats.ggml.iquants import IQ4NL, IQ4XS
from lessonkit.formats.ggml.kquants import Q2K, Q3K, Q4K, Q5K, Q6K
from lessonkit.formats.ggml.legacy import MXFP4, Q40, Q41, Q50, Q51, Q80

__all__ = ["FORMATS", "BlockFormat", "block_format", "decode", "encode", "row_bytes"]

FORMATS: dict[str, BlockFormat] = {
    kind.name: kind()
    for kind in (Q40, Q41, Q50, Q51, Q80, Q2K, Q3K, Q4K, Q5K, Q6K, IQ4NL, IQ4XS, MXFP4)
}
"""The formats by ggml's names for them."""


def block_format(name: str) -> BlockFormat:
    """Look up a format by ggml's name for it, such as "Q4_K"; LessonkitError for others."""
    if name not in FORMATS:
        raise LessonkitError(
            f"There is no block format {name!r} here.",
            where="name",
            remedy="Use one of " + ", ".join(FORMATS) + ".",
        )
    return FORMATS[name]


def encode(
    values: np.ndarray, name: str, importance: np.ndarray | None = None, *, first_row: int = 0
) -> np.ndarray:
    """Encode float32 [rows, columns] as uint8 [rows, bytes]: `BlockFormat.encode`."""
    return block_format(name).encode(values, importance, first_row=first_row)


def decode(data: np.ndarray, name: str) -> np.ndarray:
    """Decode uint8 [rows, bytes] as float32 [rows, columns]: `BlockFormat.decode`."""
    return block_format(name).decode(data)


def row_bytes(columns: int, name: str) -> int:
    """How many bytes a row takes: `BlockFormat.row_bytes`."""
    return block_format(name).row_bytes(columns)
