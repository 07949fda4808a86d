"""LLM.int8: 8-bit matrix multiplication with the outlier columns kept apart.

Dettmers et al. 2022 (https://arxiv.org/abs/2208.07339). Each row of the activations
[tokens, in] and each row of the weight [out, in] gets its own absmax, so the integer
product can be rescaled by the outer product of the two. A few input columns of large
models hold values many times larger than the rest; a column with any magnitude of at
least 6.0 is multiplied in floating point instead, and the other columns no longer
share a scale with it.

Codes, scales and outlier columns equal those of bitsandbytes 0.50 to the bit. The
product does not, on a CPU: bitsandbytes rescales there by 6.200124e-05 where 1 / 127^2
is 6.200012e-05, so its outputs are 1.8e-5 too large. We use 1 / 127^2. And on a processor
without VNNI its product of whole numbers, `torch._int_mm`, is wrong without a word: pairs are
added in 16 bits and cut off there (torch 2.13). Ours is exact everywhere.
"""

from __future__ import annotations

from dataclasses import dataclass
from typing import TYPE_CHECKING

from lessonkit.errors import LessonkitError
from lessonkit.formats.arrays import as_float_tensor, require_finite

if TYPE_CHECKING:
    import torch

OUTLIER_THRESHOLD = 6.0
"""Magnitude from which an activation makes its column an outlier (the paper's choice)."""

_RESCALE = 1 / 127**2
"""A product of two codes is in units of absmax / 127 twice over."""


@dataclass(frozen=True)
class Int8Rows:
    """A matrix whose rows are 8-bit codes, each row with one scale.

    Attributes
    ----------
    codes:
        int8 [rows, columns]; 0 in outlier columns.
    absmax:
        float32 [rows]: the magnitude that code 127 stands for, outliers left out.
    outlier_columns:
        int64, the columns held back, in rising order; empty if there are none.
    """

    codes: torch.Tensor
    absmax: torch.Tensor
    outlier_columns: torch.Tensor

    def dequantize(self) -> torch.Tensor:
        """Return `codes * absmax / 127` as float32 [rows, columns], outlier columns 0."""
        return self.codes.float() * self.absmax.unsqueeze(-1) * (1 / 127)


def quantize_rows(matrix: torch.Tensor, *, threshold: float = 0.0) -> Int8Rows:
    """Quantise each row by its absmax: `code = round(x * (127 / absmax))`.

    The matrix is cast to fp16 first, as bitsandbytes does; the rest is in float32.

    Parameters
    ----------
    matrix:
        Floating point [rows, columns].
    threshold:
        If above 0, columns with any magnitude of at least `threshold` are held back.

    Raises LessonkitError for other shapes, for NaN and infinity, and for values beyond
    fp16's range (65504).
    """
    import torch

    matrix = as_float_tensor(matrix)
    if matrix.dim() != 2:
        raise LessonkitError(
            f"A matrix is needed, not a tensor of shape {tuple(matrix.shape)}.",
            where="matrix",
            remedy="Flatten all axes but the last: x.reshape(-1, x.shape[-1]).",
        )
    values = matrix.to(torch.float16).float()
    magnitudes = values.abs()
    require_finite(magnitudes.amax(dim=-1), where="matrix, after the cast to fp16")
    if threshold > 0.0:
        outliers = magnitudes >= threshold
        columns = outliers.any(dim=0).nonzero().view(-1)
        magnitudes = magnitudes.masked_fill(outliers, 0.0)
    else:
        columns = torch.empty(0, dtype=torch.int64, device=matrix.device)
    absmax = magnitudes.amax(dim=-1)
    # A row of zeros would divide by zero; its codes are 0 whatever the factor.
    factor = 127.0 / torch.where(absmax == 0, 1.0, absmax)
    values[:, columns] = 0.0
    codes = torch.round(values * factor.unsqueeze(-1)).to(torch.int8)
    return Int8Rows(codes, absmax, columns)


def integer_product(a: torch.Tensor, b: torch.Tensor) -> torch.Tensor:
    """Return `a @ b.T` of int8 matrices [m, k] and [n, k] as the exact int32 [m, n].

    Computed in float64, which holds every integer below 2^53 exactly: fast on any device,
    and no sum can round. (int32 itself suffices up to k = 133 000.)
    """
    import torch

    return (a.double() @ b.double().T).to(torch.int32)


def linear(
    x: torch.Tensor,
    weight: Int8Rows,
    bias: torch.Tensor | None = None,
    *,
    threshold: float = OUTLIER_THRESHOLD,
) -> torch.Tensor:
    """Apply a linear layer in LLM.int8 arithmetic.

    Parameters
    ----------
    x:
        Activations [..., in], any floating dtype.
    weight:
        The layer's weight [out, in], from `quantize_rows`.
    bias:
        [out], or None.
    threshold:
        Outlier threshold; 0 turns the decomposition off.

    Returns [..., out] in x's dtype. The integer part is rescaled in float32 and rounded
    to that dtype before the outlier part, `x[:, outliers] @ dequantised weight columns`,
    is added in it: the order of bitsandbytes. The weight columns used for the outliers are
    the dequantised int8 ones; the original weight is not kept.
    """
    rows = x.reshape(-1, x.shape[-1])
    quantized = quantize_rows(rows, threshold=threshold)
    total = integer_product(quantized.codes, weight.codes).float()
    total = total * (quantized.absmax.unsqueeze(1) * weight.absmax.unsqueeze(0)) * _RESCALE
    if bias is not None:
        total = total + bias
    result = total.to(x.dtype)
    columns = quantized.outlier_columns
    if columns.numel():
        held_back = Int8Rows(weight.codes[:, columns], weight.absmax, columns[:0])
        result = result.addmm(rows[:, columns], held_back.dequantize().to(x.dtype).T)
    return result.reshape(*x.shape[:-1], weight.codes.shape[0])
