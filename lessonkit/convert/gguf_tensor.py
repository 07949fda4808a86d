"""One tensor's bits in a type of a GGUF file, and what that costs; rows on all cores."""

from __future__ import annotations

from collections.abc import Iterator

import numpy as np

from lessonkit.errors import LessonkitError
from lessonkit.files.dtypes import FLOATS, Array, cast, to_float32
from lessonkit.files.safetensors import TensorInfo
from lessonkit.formats.ggml import block_format, decode, encode, row_bytes
from lessonkit.formats.processes import in_processes
from lessonkit.formats.threads import pieces, share_out

_PIECE = 1 << 17  # values looked at at a time
_FOR_PROCESSES = 1 << 22  # values from which on a search is worth the start of processes
_SENT = 1 << 19  # values that a process is sent at a time


def encode_tensor(bits: Array, dtype: str, info: TensorInfo, importance: Array | None) -> Array:
    """A tensor's bits in the type that `info` names; blocks as uint8 [rows, bytes of a row].

    `bits` are F32, F16 or BF16, in `info`'s shape and in any order of rows. Raises LessonkitError
    where a value overflows or cannot be encoded; it names the tensor.
    """
    if info.dtype in FLOATS:
        result = cast(bits, dtype, info.dtype)
        if info.dtype == "F16" and dtype != "F16":
            _require_no_overflow(bits, dtype, result, info)
        return result
    rows = bits.reshape(-1, bits.shape[-1])
    out = np.empty((len(rows), row_bytes(rows.shape[1], info.dtype)), np.uint8)

    if rows.size >= _FOR_PROCESSES and block_format(info.dtype).searches(importance):
        spans = list(pieces(len(rows), _SENT // rows.shape[1]))
        calls = ((rows[start:stop], dtype, info, importance, start) for start, stop in spans)
        for (start, stop), encoded in zip(spans, in_processes(_encode_rows, calls), strict=True):
            out[start:stop] = encoded
        return out

    def encode_rows(start: int, stop: int) -> None:
        out[start:stop] = _encode_rows(rows[start:stop], dtype, info, importance, start)

    share_out(encode_rows, _pieces_of(rows, info.dtype))
    return out


def _encode_rows(
    rows: Array, dtype: str, info: TensorInfo, importance: Array | None, first: int
) -> Array:
    try:
        return encode(to_float32(rows, dtype), info.dtype, importance, first_row=first)
    except LessonkitError as error:
        raise LessonkitError(
            error.what, where=f"{info.name}: {error.where}", remedy=error.remedy
        ) from error


def _pieces_of(rows: Array, kind: str) -> Iterator[tuple[int, int]]:
    """Rows to work on at a time: what is made of them on the way shall stay in a cache."""
    return pieces(len(rows), block_format(kind).at_a_time // rows.shape[1])


def relative_error(bits: Array, dtype: str, encoded: Array, kind: str) -> float:
    """rms(decoded - original) / rms(original), summed in float64."""
    rows = bits.reshape(-1, bits.shape[-1])
    sums: dict[int, list[float]] = {}

    def add_up(start: int, stop: int) -> None:
        x = to_float32(rows[start:stop], dtype)
        error = decode(encoded[start:stop], kind)
        error -= x
        sums[start] = [float(np.sum(each * each, dtype=np.float64)) for each in (error, x)]

    share_out(add_up, _pieces_of(rows, kind))
    wrong, total = (sum(each) for each in zip(*(sums[at] for at in sorted(sums)), strict=True))
    return float(np.sqrt(wrong / total)) if total else 0.0


def _require_no_overflow(bits: Array, dtype: str, result: Array, info: TensorInfo) -> None:
    flat, rounded = bits.reshape(-1), result.reshape(-1)
    for start in range(0, flat.size, _PIECE):
        part = rounded[start : start + _PIECE]
        exponents = part.view(np.uint16) & np.uint16(0x7C00)
        if exponents.max(initial=0) < 0x7C00:
            continue  # neither infinite nor NaN
        values = to_float32(flat[start : start + _PIECE], dtype)
        lost = np.isinf(part) & np.isfinite(values)
        if lost.any():
            at = int(lost.argmax())
            raise LessonkitError(
                f"{info.name} holds {values[at]:g}, which F16 cannot: it would become infinite.",
                where=f"{info.name}, value {start + at:,}",
                remedy="Use bf16 or f32, or keep the source's own type: auto.",
            )
