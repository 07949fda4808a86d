"""One GGUF model in several files, `NAME-00001-of-00003.gguf` and so on, as llama.cpp cuts it.

Every part is a GGUF file of its own, with some of the tensors. The first holds all metadata;
each says which part it is, of how many, and how many tensors the whole model has.
"""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import numpy as np

from lessonkit.errors import LessonkitError
from lessonkit.files.gguf import aligned, encode_gguf_header
from lessonkit.files.safetensors import TensorInfo

MOST_PARTS = 65535  # their numbers are u16


@dataclass(frozen=True)
class GgufPart:
    """One file: its metadata, and its tensors in order."""

    metadata: dict[str, Any]
    tensors: list[TensorInfo]

    @property
    def nbytes(self) -> int:
        """The size of the file in bytes."""
        header = len(encode_gguf_header(self.metadata, self.tensors))
        return header + sum(aligned(info.nbytes) for info in self.tensors)


def cut(
    metadata: dict[str, Any], tensors: Sequence[TensorInfo], max_bytes: int | None = None
) -> list[GgufPart]:
    """Cut a model into files of at most `max_bytes`, or leave it whole (None, or it is smaller).

    Tensors keep their order and are never cut: a part that is too large holds only one.
    """
    whole = GgufPart(metadata, list(tensors))
    if max_bytes is None or whole.nbytes <= max_bytes:
        return [whole]
    if max_bytes < 1:
        raise LessonkitError(
            f"Files of at most {max_bytes} bytes hold nothing.",
            where="the largest size of a part",
            remedy="Give a size such as 2G.",
        )
    # As if each header told of all tensors: some KB too much, and never too little.
    first = len(encode_gguf_header({**metadata, **_numbers(0, 0, 0)}, whole.tensors))
    later = len(encode_gguf_header(_numbers(0, 0, 0), whole.tensors))
    shares: list[list[TensorInfo]] = [[]]
    room = max_bytes - first
    for info in tensors:
        size = aligned(info.nbytes)
        if shares[-1] and size > room:
            shares.append([])
            room = max_bytes - later
        shares[-1].append(info)
        room -= size
    if len(shares) > MOST_PARTS:
        raise LessonkitError(
            f"Parts of {max_bytes:,} bytes would be {len(shares):,}; {MOST_PARTS:,} are possible.",
            where="the largest size of a part",
            remedy="Give a larger size.",
        )
    return [
        GgufPart({**(metadata if i == 0 else {}), **_numbers(i, len(shares), len(tensors))}, share)
        for i, share in enumerate(shares)
    ]


def part_paths(out: Path, count: int) -> list[Path]:
    """The names of the parts of `out`; a whole model keeps its own."""
    if count == 1:
        return [out]
    stem = out.name.removesuffix(".gguf")
    return [out.with_name(f"{stem}-{n:05}-of-{count:05}.gguf") for n in range(1, count + 1)]


def _numbers(number: int, parts: int, tensors: int) -> dict[str, Any]:
    """What a part says of itself, in the types that llama.cpp insists on."""
    return {
        "split.no": np.uint16(number),
        "split.count": np.uint16(parts),
        "split.tensors.count": np.int32(tensors),
    }
