"""Grids: the values that a group of weights may take, and the parameters that place them.

A group is `group_size` neighbours of one row of a weight [out, in]; -1 means the whole row.
Whoever chooses codes, round-to-nearest or GPTQ, asks a grid two things: *fit* the parameters
of these groups, and *round* these weights to codes, given parameters. A grid is one of:

* `IntGrid`: GPTQ's evenly spaced values `scale * (code - zero)`;
* `AwqGrid`: AutoAWQ's, whose range need not contain 0;
* `Q4_0Grid`: llama.cpp's Q4_0 blocks, the same formula with a signed scale;
* `CodebookGrid`: `absmax * value of the code`, for NF4 and other tables of sixteen.

A file stores the first three's scales in fp16. They are rounded to fp16 when they are fitted,
before any code is chosen: the codes then suit the scales that a reader will find, and the
error reported is that of the stored weight.
"""

from __future__ import annotations

from abc import ABC, abstractmethod
from collections.abc import Iterator
from dataclasses import dataclass
from typing import TYPE_CHECKING, Any

from lessonkit.errors import LessonkitError
from lessonkit.formats.arrays import as_float_tensor, require_finite
from lessonkit.formats.codebooks import Codebook

if TYPE_CHECKING:
    import torch

WEIGHTS_AT_ONCE = 1 << 17
"""So many weights are rounded at a time in a search: what comes in between stays in the cache."""

SHRINK_STEPS = 80
"""The search tries 100 %, 99 %, .. 21 % of a group's range, as AutoGPTQ's `quantizer.py`."""


@dataclass(frozen=True)
class Parameters:
    """What places the grid of each group: float32 tensors of one shape, one entry a group.

    `scales` hold the very values that a file will store. `zeros` are the codes that stand
    for 0, whole numbers; None for a codebook.
    """

    scales: torch.Tensor
    zeros: torch.Tensor | None = None

    def take(self, index: Any) -> Parameters:
        """Return the parameters at an index of these tensors, as in `scales[index]`."""
        return Parameters(self.scales[index], None if self.zeros is None else self.zeros[index])

    def for_each_weight(self) -> Parameters:
        """Add a last axis of size 1, so that parameters [..] broadcast over groups [.., size]."""
        return self.take((..., None))


class Grid(ABC):
    """A set of values for groups of weights; see the top of this module."""

    bits: int
    group_size: int

    @property
    @abstractmethod
    def scale_dtype(self) -> torch.dtype:
        """The dtype in which a file stores the scales."""

    @abstractmethod
    def fit(self, groups: torch.Tensor) -> Parameters:
        """Find the parameters of groups, float32 [.., size], as tensors [..]."""

    @abstractmethod
    def encode(self, weights: torch.Tensor, parameters: Parameters) -> torch.Tensor:
        """Return the nearest code, uint8, of each float32 weight.

        The parameters' shape must broadcast against that of the weights.
        """

    @abstractmethod
    def decode(self, codes: torch.Tensor, parameters: Parameters) -> torch.Tensor:
        """Return the float32 value of each code; shapes as in `encode`."""

    def groups_in(self, columns: int) -> int:
        """Return how many groups a row has. Raises LessonkitError if they do not fill it."""
        if self.group_size == -1:
            return 1
        if self.group_size < 1 or columns % self.group_size:
            raise LessonkitError(
                f"Groups of {self.group_size} do not fill rows of {columns} weights.",
                where="group_size",
                remedy=f"Use a divisor of {columns}, or -1 for one group a row.",
            )
        return columns // self.group_size


class EvenGrid(Grid):
    """Evenly spaced values: `scale * (code - zero)`, codes 0 .. 2^bits - 1, fp16 scales."""

    @property
    def scale_dtype(self) -> torch.dtype:
        """The dtype in which a file stores the scales: fp16."""
        import torch

        return torch.float16

    @property
    def top(self) -> int:
        """The largest code."""
        return (1 << self.bits) - 1

    def encode(self, weights: torch.Tensor, parameters: Parameters) -> torch.Tensor:
        """Return `round(weight / scale) + zero`, kept within 0 .. 2^bits - 1, as uint8."""
        import torch

        assert parameters.zeros is not None
        codes = torch.round(weights / parameters.scales).add_(parameters.zeros)
        return codes.clamp_(0, self.top).to(torch.uint8)

    def decode(self, codes: torch.Tensor, parameters: Parameters) -> torch.Tensor:
        """Return `scale * (code - zero)` as float32."""
        assert parameters.zeros is not None
        return (codes.float() - parameters.zeros).mul_(parameters.scales)


@dataclass(frozen=True)
class IntGrid(EvenGrid):
    """GPTQ's grid, as AutoGPTQ's `quantizer.py` defines it.

    Parameters
    ----------
    bits:
        2, 3, 4 or 8.
    group_size:
        Neighbours along a row that share parameters; -1: the whole row.
    symmetric:
        The range is [-absmax, absmax] and the zero-point 2^(bits-1). Otherwise it is
        [min, max], widened to contain 0. (AutoGPTQ gives a group without negative weights
        half that symmetric range, although codes above the zero-point reach only half of
        it, and so clips most of it. Here the range is [-absmax, absmax] also then.)
    search_norm:
        If given, the range is shrunk in steps of 1 % as long as the p-norm of the
        rounding error falls, p = search_norm. AutoGPTQ's `mse` option uses p = 2.4.
    lowest_zero:
        The lowest zero-point. 1, because AutoGPTQ's files cannot hold a 0; with 0 a group
        without negative weights gains one level, in files of version 2.
    """

    bits: int = 4
    group_size: int = 128
    symmetric: bool = True
    search_norm: float | None = None
    lowest_zero: int = 1

    def __post_init__(self) -> None:
        if self.bits not in (2, 3, 4, 8):
            raise LessonkitError(
                f"GPTQ's files hold no codes of {self.bits} bits.",
                where="bits",
                remedy="Use 2, 3, 4 or 8.",
            )

    def fit(self, groups: torch.Tensor) -> Parameters:
        """Find fp16 scales and zero-points; a group of zeros gets the range [-1, 1]."""
        import torch

        low, high = groups.amin(dim=-1).clamp_(max=0), groups.amax(dim=-1).clamp_(min=0)
        require_finite(high - low, where="weight")
        if self.symmetric:
            high = torch.maximum(high, -low)
            low = -high
        empty = high == low
        low, high = low.masked_fill(empty, -1), high.masked_fill(empty, 1)
        best = self._place(low, high)
        if self.search_norm is None:
            return best
        error = self._error(groups, best, self.search_norm)
        for step in range(1, SHRINK_STEPS):
            share = 1 - step / 100
            candidate = self._place(low * share, high * share)
            candidate_error = self._error(groups, candidate, self.search_norm)
            better = candidate_error < error
            error = torch.where(better, candidate_error, error)
            assert best.zeros is not None and candidate.zeros is not None
            best = Parameters(
                torch.where(better, candidate.scales, best.scales),
                torch.where(better, candidate.zeros, best.zeros),
            )
        return best

    def _place(self, low: torch.Tensor, high: torch.Tensor) -> Parameters:
        """Spread the codes over [low, high]."""
        import torch

        scales = _as_stored((high - low) / self.top)
        if self.symmetric:
            return Parameters(scales, torch.full_like(scales, (self.top + 1) // 2))
        return Parameters(scales, torch.round(-low / scales).clamp_(self.lowest_zero, self.top))

    def _error(self, groups: torch.Tensor, parameters: Parameters, norm: float) -> torch.Tensor:
        each = parameters.for_each_weight()
        error = self.decode(self.encode(groups, each), each).sub_(groups).abs_()
        return error.pow_(norm).sum(dim=-1)


@dataclass(frozen=True)
class AwqGrid(EvenGrid):
    """AutoAWQ's grid (`awq/quantize/quantizer.py`): [min, max] as they are, zero-points 0..15.

    Unlike GPTQ's asymmetric grid it does not widen the range to contain 0; the zero-point is
    clamped instead, so that a group without weights of one sign is shifted, and clipped. The
    scale is at least 1e-5 / 15.
    """

    group_size: int = 128
    bits: int = 4

    def fit(self, groups: torch.Tensor) -> Parameters:
        """Find fp16 scales and zero-points."""
        import torch

        low, high = groups.amin(dim=-1), groups.amax(dim=-1)
        require_finite(high - low, where="weight")
        scales = _as_stored((high - low).clamp_(min=1e-5) / self.top)
        return Parameters(scales, (-torch.round(low / scales)).clamp_(0, self.top))


@dataclass(frozen=True)
class Q4_0Grid(EvenGrid):
    """llama.cpp's Q4_0: blocks of 32, `d * (code - 8)` with d = (weight of largest |w|) / -8.

    d carries the sign, so that the largest weight, of whichever sign, gets code 0, that is -8.
    `ggml-quants.c` chooses codes with d in float32 and then stores d in fp16; here d is
    rounded first, and codes are rounded half to even.
    """

    bits: int = 4
    group_size: int = 32

    def __post_init__(self) -> None:
        if (self.bits, self.group_size) != (4, 32):
            raise LessonkitError(
                f"Q4_0 has 4 bits and blocks of 32, not {self.bits} and {self.group_size}.",
                where="Q4_0Grid",
                remedy="Leave both as they are.",
            )

    def fit(self, groups: torch.Tensor) -> Parameters:
        """Find d and the zero-point, 8; a block of zeros gets d = 1."""
        import torch

        largest = groups.gather(-1, groups.abs().argmax(dim=-1, keepdim=True)).squeeze(-1)
        require_finite(largest, where="weight")
        scales = _as_stored(torch.where(largest == 0, 1.0, largest / -8))
        return Parameters(scales, torch.full_like(scales, 8))


@dataclass(frozen=True)
class CodebookGrid(Grid):
    """A table of sixteen values times the block's absmax, a float32, as bitsandbytes stores it.

    Round-to-nearest onto this grid gives the codes of `formats.blockwise`.
    """

    codebook: Codebook
    group_size: int = 64
    bits: int = 4

    @property
    def scale_dtype(self) -> torch.dtype:
        """The dtype in which a file stores absmax: float32."""
        import torch

        return torch.float32

    def fit(self, groups: torch.Tensor) -> Parameters:
        """Find the largest magnitude of each group."""
        absmax = groups.abs().amax(dim=-1)
        require_finite(absmax, where="weight")
        return Parameters(absmax)

    def encode(self, weights: torch.Tensor, parameters: Parameters) -> torch.Tensor:
        """Return the code of the nearest value to `weight * (1 / absmax)`; ties go down."""
        import torch

        device = weights.device
        inverse = torch.where(parameters.scales > 0, 1 / parameters.scales, 0)
        thresholds = torch.from_numpy(self.codebook.thresholds).to(device)
        order = torch.tensor(self.codebook.search_order, dtype=torch.uint8, device=device)
        return order[torch.bucketize(weights * inverse, thresholds)]

    def decode(self, codes: torch.Tensor, parameters: Parameters) -> torch.Tensor:
        """Return `absmax * value` as float32."""
        return self.codebook.tensor(codes.device)[codes.int()] * parameters.scales


@dataclass(frozen=True)
class Quantized:
    """A weight [out, in] on a grid.

    Attributes
    ----------
    grid:
        How to read the codes.
    codes:
        uint8 [out, in].
    scales:
        [out, groups] in the grid's `scale_dtype`.
    zeros:
        uint8 [out, groups]; None for a codebook.
    g_idx:
        int32 [in], the group of each input column.
    """

    grid: Grid
    codes: torch.Tensor
    scales: torch.Tensor
    zeros: torch.Tensor | None
    g_idx: torch.Tensor

    def dequantize(self) -> torch.Tensor:
        """Return the weight that a reader of the stored codes and scales gets: float32."""
        import torch

        zeros = None if self.zeros is None else self.zeros.float()
        parameters = Parameters(self.scales.float(), zeros)
        count = self.scales.shape[1]
        as_they_stand = torch.arange(len(self.g_idx), device=self.g_idx.device)
        if torch.equal(self.g_idx, (as_they_stand // (len(self.g_idx) // count)).int()):
            groups = self.codes.unflatten(1, (count, -1))
            return self.grid.decode(groups, parameters.for_each_weight()).flatten(1)
        return self.grid.decode(self.codes, parameters.take((slice(None), self.g_idx.long())))


def join(groups: list[Parameters]) -> Parameters:
    """Put the parameters [out] of one group each side by side: [out, groups]."""
    import torch

    zeros = [group.zeros for group in groups if group.zeros is not None]
    return Parameters(
        torch.stack([group.scales for group in groups], dim=1),
        torch.stack(zeros, dim=1) if zeros else None,
    )


def stored(
    grid: Grid, codes: torch.Tensor, parameters: Parameters, g_idx: torch.Tensor
) -> Quantized:
    """Put codes [out, in] and parameters [out, groups] into the dtypes of a file."""
    import torch

    zeros = None if parameters.zeros is None else parameters.zeros.to(torch.uint8)
    scales = parameters.scales.to(grid.scale_dtype)
    return Quantized(grid, codes, scales, zeros, g_idx.to(torch.int32))


def round_to_nearest(weight: torch.Tensor, grid: Grid) -> Quantized:
    """Quantise each weight of a matrix [out, in] to its nearest value on the grid.

    This is what GPTQ and AWQ are to improve upon. NaN, infinity and a group size that does
    not divide `in` raise LessonkitError.
    """
    import torch

    values = as_matrix(weight)
    count = grid.groups_in(values.shape[1])
    groups = values.unflatten(1, (count, -1))
    parameters = grid.fit(groups)
    codes = grid.encode(groups, parameters.for_each_weight()).flatten(1)
    g_idx = torch.arange(values.shape[1], device=values.device) // groups.shape[-1]
    return stored(grid, codes, parameters, g_idx)


def in_pieces(*matrices: torch.Tensor) -> Iterator[tuple[torch.Tensor, ...]]:
    """Cut matrices of the same number of rows into views of a few rows: `WEIGHTS_AT_ONCE`."""
    rows = max(1, WEIGHTS_AT_ONCE // max(matrix.shape[1] for matrix in matrices))
    return zip(*(matrix.split(rows) for matrix in matrices), strict=True)


def as_matrix(weight: torch.Tensor) -> torch.Tensor:
    """Return a weight as float32; LessonkitError unless it is a floating-point matrix."""
    if weight.dim() != 2:
        raise LessonkitError(
            f"A weight of shape {tuple(weight.shape)} is no matrix.",
            where="weight",
            remedy="Pass it as [out, in].",
        )
    return as_float_tensor(weight, where="weight").float()


def _as_stored(scales: torch.Tensor) -> torch.Tensor:
    """Round scales to fp16, kept as float32; one that would vanish is fp16's smallest number.

    Raises LessonkitError for a scale beyond fp16's range.
    """
    import torch

    rounded = scales.half().float()
    if bool(torch.isinf(rounded).any()):
        raise LessonkitError(
            f"A scale of {float(scales.abs().max()):g} is beyond fp16, in which files store it.",
            where="weight",
            remedy="Weights this large point to a damaged file.",
        )
    smallest = torch.full_like(scales, 2.0**-24).copysign_(scales)
    return torch.where(rounded == 0, smallest, rounded)
