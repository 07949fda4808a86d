"""What every format asks of its input: floating point, finite, as a torch tensor."""

from __future__ import annotations

from typing import TYPE_CHECKING, Any

from lessonkit.errors import LessonkitError

if TYPE_CHECKING:
    import numpy as np
    import torch


def as_float_tensor(values: torch.Tensor | np.ndarray, *, where: str = "input") -> torch.Tensor:
    """Return `values` as a torch tensor of a floating-point dtype, on its own device.

    A numpy array is taken over without a copy where torch can do so. An array of
    float64 becomes float32, the precision in which the formats compute.

    Raises LessonkitError if the values are not floating-point numbers or there are none.
    """
    import torch

    tensor: Any = values
    if not isinstance(tensor, torch.Tensor):
        tensor = torch.as_tensor(tensor)
    if not tensor.is_floating_point():
        raise LessonkitError(
            f"Only floating-point numbers can be quantised, and these are {tensor.dtype}.",
            where=where,
            remedy="Convert them first, for example with .to(torch.float32).",
        )
    if tensor.numel() == 0:
        raise LessonkitError(
            "There is nothing to quantise: the tensor is empty.",
            where=where,
            remedy="Check the tensor's shape, here " + str(tuple(tensor.shape)) + ".",
        )
    tensor = tensor.detach()
    return tensor.float() if tensor.dtype == torch.float64 else tensor


def require_finite(
    values: torch.Tensor, *, of: torch.Tensor | None = None, where: str = "input"
) -> None:
    """Raise LessonkitError if `values` holds a NaN or an infinity.

    It is enough to pass one number a block, provided that NaN and infinity in the
    block reach it: torch's `amax` of magnitudes does that. `of` are then the block's own values,
    so that the error can name the first of these that is bad.
    """
    import torch

    bad = ~torch.isfinite(values)
    if bool(bad.any()):
        if of is not None and not bool(torch.isfinite(of).all()):
            values, bad = of, ~torch.isfinite(of)
        first = tuple(int(i) for i in bad.nonzero()[0])
        raise LessonkitError(
            f"{int(bad.sum())} of {values.numel()} values are NaN or infinite, or became so "
            f"in float32; the first is number {first}.",
            where=where,
            remedy="A scale cannot be found for such a block. Find out where the values come "
            "from: a truncated download or an fp16 overflow are the usual causes.",
        )
