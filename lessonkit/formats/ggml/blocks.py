"""What every block format of GGUF has in common: rows of blocks, worked on in pieces.

A row of a weight matrix is cut into blocks of 32 or 256 values. A block of `n` bytes holds
the codes of its values and the scales they share; a row of a file is its blocks, one after
another, and nothing else. Each format is one subclass of `BlockFormat`.

Work proceeds in pieces of whole rows or blocks that nearly fit a core's cache, so temporaries
stay small whatever the tensor's size. The pieces are shared out over threads.
"""

from __future__ import annotations

from abc import ABC, abstractmethod
from typing import ClassVar

import numpy as np

from lessonkit.errors import LessonkitError
from lessonkit.formats.threads import pieces, share_out, threads


class BlockFormat(ABC):
    """One GGUF type.

    Attributes
    ----------
    name, number:
        Its name and number in ggml's `enum ggml_type` (`ggml.h`).
    values:
        How many values a block holds.
    layout:
        A block's bytes as a numpy structured dtype, packed; little-endian, as GGUF is.
    uses_importance:
        Whether encoding depends on an importance matrix, if one is given.
    scale_shows_faults:
        Whether NaN and infinity in a block make its scale NaN or infinite.
    always_searches:
        Whether scales are searched for even without an importance matrix.
    piece:
        How many values one thread works on at a time.
    """

    name: ClassVar[str]
    number: ClassVar[int]
    values: ClassVar[int]
    layout: ClassVar[np.dtype[np.void]]
    uses_importance: ClassVar[bool] = True
    scale_shows_faults: ClassVar[bool] = False
    always_searches: ClassVar[bool] = False
    piece: ClassVar[int] = 1 << 17  # values, their scales and their codes in a second-level cache

    @property
    def at_a_time(self) -> int:
        """How many values each of the threads there are works on at a time.

        Several take twice what one takes for its cache's sake: after each step they wait for each
        other, for Python's lock, and so fewer, longer steps are better.
        """
        return self.piece if threads() == 1 else 2 * self.piece

    def searches(self, importance: np.ndarray | None) -> bool:
        """Are scales searched for, which takes many times as long as to read them off?"""
        return self.always_searches or (importance is not None and self.uses_importance)

    @property
    def bytes(self) -> int:
        """How many bytes a block takes."""
        return self.layout.itemsize

    @property
    def bits_per_weight(self) -> float:
        """Bits for each value, scales included."""
        return 8 * self.bytes / self.values

    def row_bytes(self, columns: int) -> int:
        """How many bytes a row takes; LessonkitError if it is no whole number of blocks."""
        if columns < 1 or columns % self.values:
            raise LessonkitError(
                f"A row of {columns} values has no whole number of {self.name} blocks of "
                f"{self.values}.",
                where=f"{columns} columns",
                remedy="Choose a type with smaller blocks, or keep the tensor as F16.",
            )
        return columns // self.values * self.bytes

    def encode(
        self, values: np.ndarray, importance: np.ndarray | None = None, *, first_row: int = 0
    ) -> np.ndarray:
        """Encode float32 [rows, columns] as uint8 [rows, row_bytes].

        `importance`, float32 [columns], weighs the squared error of each column: the mean
        square of what the column is multiplied with ("imatrix"). `first_row` is the number that
        errors give the first row, where `values` are a part of a matrix.

        Raises LessonkitError for other shapes or dtypes, for NaN and infinity, and for
        values so large that a block's scale overflows float16.
        """
        if values.dtype != np.float32 or values.ndim != 2:
            raise LessonkitError(
                f"Only float32 matrices can be encoded, and this is {values.dtype} of shape "
                f"{values.shape}.",
                where=self.name,
                remedy="Convert it to float32 and reshape it to [rows, columns] first.",
            )
        out = np.empty((len(values), self.row_bytes(values.shape[1])), dtype=np.uint8)
        if importance is not None:
            _check_importance(importance, values.shape[1])
        if importance is None or not self.uses_importance:
            # Each block stands alone, so pieces need not be whole rows.
            importance = None
            rows = np.ascontiguousarray(values).reshape(-1, self.values)
        else:
            rows = values
        encoded = out.reshape(len(rows), self.row_bytes(rows.shape[1]))
        before = first_row * values.shape[1]

        def encode_piece(start: int, stop: int) -> None:
            x = np.ascontiguousarray(rows[start:stop])
            # A finite sum has finite terms; an infinite one may only have overflowed.
            if not self.scale_shows_faults and not np.isfinite(np.add.reduce(x, axis=None)):
                _require_finite(x, before + start * rows.shape[1], values.shape[1])
            blocks = self.encode_blocks(x, importance)
            # As bytes: numpy copies records field by field, ten times slower.
            encoded[start:stop] = blocks.view(np.uint8).reshape(stop - start, -1)

        share_out(encode_piece, pieces(len(rows), self.at_a_time // max(1, rows.shape[1])))
        self._require_finite_scales(out, values, before)
        return out

    def _require_finite_scales(self, encoded: np.ndarray, values: np.ndarray, before: int) -> None:
        blocks = encoded.reshape(-1).view(self.layout)
        for field in {"d", "m", "dmin"} & set(self.layout.names or ()):
            finite = np.isfinite(blocks[field])
            if not finite.all():
                start = int(np.argmin(finite)) * self.values
                row = start // values.shape[1]
                _require_finite(values[row], before + row * values.shape[1], values.shape[1])
                raise LessonkitError(
                    f"The scale of a {self.name} block overflows float16.",
                    where=_place(before + start, values.shape[1]),
                    remedy="Values this large (65504 times the largest code) are no "
                    "weights: find out where they come from.",
                )

    def decode(self, data: np.ndarray) -> np.ndarray:
        """Decode uint8 [rows, bytes] as float32 [rows, columns]."""
        if data.dtype != np.uint8 or data.ndim != 2 or data.shape[1] % self.bytes:
            raise LessonkitError(
                f"{self.name} data is uint8 [rows, a multiple of {self.bytes}], and this is "
                f"{data.dtype} of shape {data.shape}.",
                where=self.name,
                remedy="Check the tensor's type and shape in the file's table.",
            )
        blocks = np.ascontiguousarray(data).reshape(-1).view(self.layout)
        out = np.empty((len(blocks), self.values), dtype=np.float32)

        def decode_piece(start: int, stop: int) -> None:
            out[start:stop] = self.decode_blocks(blocks[start:stop])

        share_out(decode_piece, pieces(len(blocks), self.at_a_time // self.values))
        return out.reshape(len(data), data.shape[1] // self.bytes * self.values)

    @abstractmethod
    def encode_blocks(self, x: np.ndarray, importance: np.ndarray | None) -> np.ndarray:
        """Encode finite float32 [rows, columns] as blocks, `layout` [rows * columns / values]."""

    @abstractmethod
    def decode_blocks(self, blocks: np.ndarray) -> np.ndarray:
        """Decode blocks, `layout` [n], as float32 [n, values]."""


def by_element(x: np.ndarray, size: int) -> np.ndarray:
    """Lay out values as [size, groups]: row i holds value i of every group of `size` values.

    Every search works on all groups at once, one value of each at a time: then numpy's
    operations run over long rows, and sums are added in the order of the values.
    """
    return np.ascontiguousarray(x.reshape(-1, size).T)


def by_group(codes: np.ndarray) -> np.ndarray:
    """Undo `by_element` for codes: [size, groups] to uint8 [groups, size]."""
    out = np.empty((codes.shape[1], len(codes)), dtype=np.uint8)
    for i, row in enumerate(codes):  # much faster than all at once
        out[:, i] = row
    return out


def ordered_sum(x: np.ndarray) -> np.ndarray:
    """Sum [values, groups] over the values, one after another, as a plain loop would.

    numpy's sum over neighbours in memory adds in pairs, which rounds differently. Over the
    first axis it adds in order, unless there is only one column: then these are neighbours.
    """
    total: np.ndarray = (
        np.add.reduce(x, axis=0) if x.shape[1] > 1 else np.add.accumulate(x, axis=0)[-1]
    )
    return total


def mean_squares(x: np.ndarray, size: int) -> np.ndarray:
    """Return the mean of x^2 of each group of `size` values, summed in order: [groups]."""
    return ordered_sum(by_element(x * x, size)) / np.float32(size)


def importance_by_element(xs: np.ndarray, importance: np.ndarray) -> np.ndarray:
    """Repeat an importance matrix [columns] for every row of a by-element layout."""
    one_row = by_element(importance, len(xs))
    return np.tile(one_row, xs.shape[1] // one_row.shape[1])


def importance_weights(
    xs: np.ndarray, importance: np.ndarray, mean_square: np.ndarray
) -> np.ndarray:
    """Return `importance * sqrt(mean_square + x^2)`, the weight of each squared error.

    `xs` is a by-element layout [size, groups] of whole rows; `mean_square` is [groups].
    """
    weights = xs * xs
    weights += mean_square
    np.sqrt(weights, out=weights)
    weights *= importance_by_element(xs, importance)
    return weights


def pack(codes: np.ndarray, bits: int) -> np.ndarray:
    """Put codes of `bits` bits side by side: [..., count, width] to bytes [..., width].

    Byte j holds the code j of each of the `count` runs, the first in its lowest bits.
    """
    out = codes[..., 0, :].copy()
    for i in range(1, codes.shape[-2]):
        out |= codes[..., i, :] << np.uint8(bits * i)
    return out


def unpack(data: np.ndarray, bits: int) -> np.ndarray:
    """Undo `pack`: bytes [..., width] to uint8 [..., 8 / bits, width]."""
    shifts = np.arange(0, 8, bits, dtype=np.uint8)[:, None]
    return (data[..., None, :] >> shifts) & np.uint8((1 << bits) - 1)


def _check_importance(importance: np.ndarray, columns: int) -> None:
    if importance.dtype != np.float32 or importance.shape != (columns,):
        raise LessonkitError(
            f"An importance matrix for {columns} columns is float32 [{columns}], and this is "
            f"{importance.dtype} of shape {importance.shape}.",
            where="importance",
            remedy="Was it measured on this model, and for this tensor?",
        )
    bad = ~(np.isfinite(importance) & (importance >= 0))
    if bad.any():
        raise LessonkitError(
            "An importance matrix holds mean squares, and one of these is negative, NaN or "
            "infinite.",
            where=f"importance, column {int(bad.argmax())}",
            remedy="Measure it again.",
        )


def _require_finite(x: np.ndarray, start: int, columns: int) -> None:
    bad = ~np.isfinite(x).reshape(-1)
    if bad.any():
        raise LessonkitError(
            "NaN and infinity cannot be encoded: no scale fits such a block.",
            where=_place(start + int(bad.argmax()), columns),
            remedy="Find out where the values come from: a truncated download or a float16 "
            "overflow are the usual causes.",
        )


def _place(index: int, columns: int) -> str:
    return f"row {index // columns}, column {index % columns}"
