"""Round to nearest: every weight takes the closest value its format offers. No data needed.

A scheme is named in words, so that a lesson can loop over schemes::

    for name in ("bf16", "int8 per channel", "int4 block 64", "nf4 block 64"):
        with quantized_model(model, name):
            ...

A name is a format, then what shares a scale, then options:

* ``fp32``, ``fp16``, ``bf16``, ``fp8 e4m3``, ``fp8 e5m2``: a cast, no scale;
* ``int2`` to ``int8``, then ``per tensor``, ``per channel`` or ``block N``, then optionally
  ``full`` (codes -128..127) or ``zero-point`` (asymmetric): see ``formats.integers``;
* ``nf4``, ``fp4``, ``e2m1``, ``e3m0``, ``e1m2``, ``int4 codebook``, then ``block N``, then
  optionally ``double quant``: see ``formats.codebooks`` and ``formats.blockwise``;
* ``mxfp4``, ``nvfp4``: their blocks and scales are part of the format: see
  ``formats.microscaling``.
"""

from __future__ import annotations

import re
from collections.abc import Iterator
from contextlib import contextmanager
from dataclasses import dataclass
from typing import TYPE_CHECKING

from lessonkit.errors import LessonkitError
from lessonkit.formats import blockwise, codebooks, integers, microscaling
from lessonkit.formats.arrays import as_float_tensor, require_finite

if TYPE_CHECKING:
    import torch
    from torch import nn

_CASTS = {
    "fp32": ("float32", 32),
    "fp16": ("float16", 16),
    "bf16": ("bfloat16", 16),
    "fp8 e4m3": ("float8_e4m3fn", 8),
    "fp8 e5m2": ("float8_e5m2", 8),
}
_CODEBOOKS = {
    "nf4": codebooks.NF4,
    "fp4": codebooks.FP4,
    "e2m1": codebooks.E2M1,
    "e3m0": codebooks.E3M0,
    "e1m2": codebooks.E1M2,
    "int4 codebook": codebooks.INT4,
}
_INTEGER = re.compile(r"int([2-8]) (per tensor|per channel|block (\d+))( full| zero-point)?")
_BLOCKS = re.compile(rf"({'|'.join(_CODEBOOKS)}) block (\d+)( double quant)?")


@dataclass(frozen=True)
class Scheme:
    """A way to quantise weights, as read from its name by :func:`scheme`.

    Attributes
    ----------
    name:
        The name in words.
    format:
        "cast", "integer", "codebook" or "microscaling".
    detail:
        The torch dtype's name, the codebook's name, or "mxfp4" / "nvfp4".
    bits:
        Bits of one code.
    granularity, block_size:
        What shares a scale; None for a cast.
    zero_point, full, double_quant:
        The options.
    """

    name: str
    format: str
    detail: str
    bits: int
    granularity: integers.Granularity | None = None
    block_size: int | None = None
    zero_point: bool = False
    full: bool = False
    double_quant: bool = False

    def bits_per_weight(self, shape: tuple[int, ...]) -> float:
        """Bits stored for each weight of a tensor of ``shape``, scales (float32) included.

        The exceptions to float32 are part of the format: MXFP4, NVFP4, double quantisation.
        """
        if self.format == "cast":
            return float(self.bits)
        if self.format == "microscaling":
            return microscaling.bits_per_weight(self.detail)
        if self.format == "codebook":
            assert self.block_size is not None
            return blockwise.bits_per_weight(self.block_size, double_quant=self.double_quant)
        rows = _size(shape[:-1])
        columns = shape[-1] if shape else 1
        groups = {
            "tensor": 1,
            "channel": rows,
            "block": rows * -(-columns // (self.block_size or 1)),
        }[str(self.granularity)]
        parameters = 32 + (self.bits if self.zero_point else 0)
        return self.bits + groups * parameters / (rows * columns)


def scheme(name: str | Scheme) -> Scheme:
    """Read a scheme's name (see the top of this module); a Scheme is returned unchanged.

    Raises LessonkitError if the name is not one of those described there.
    """
    if isinstance(name, Scheme):
        return name
    words = " ".join(name.lower().split())
    if words in _CASTS:
        dtype, bits = _CASTS[words]
        return Scheme(words, "cast", dtype, bits)
    if words in ("mxfp4", "nvfp4"):
        return Scheme(words, "microscaling", words, 4)
    if match := _INTEGER.fullmatch(words):
        bits_, where, block, option = match.groups()
        return Scheme(
            words,
            "integer",
            "int" + bits_,
            int(bits_),
            granularity="tensor" if where == "per tensor" else "block" if block else "channel",
            block_size=int(block) if block else None,
            zero_point=option == " zero-point",
            full=option == " full",
        )
    if match := _BLOCKS.fullmatch(words):
        book, block, option = match.groups()
        return Scheme(
            words, "codebook", book, 4, "block", int(block), double_quant=option is not None
        )
    raise LessonkitError(
        f"There is no quantisation scheme {name!r}.",
        where="scheme",
        remedy="Names look like 'bf16', 'fp8 e4m3', 'int8 per channel', 'int4 block 64 "
        "zero-point', 'nf4 block 64 double quant', 'mxfp4'.",
    )


def fake_quantize(weight: torch.Tensor, how: str | Scheme) -> torch.Tensor:
    """Quantise ``weight`` and dequantise it again: same shape, dtype and device.

    The weight [out, in] is quantised from its float32 values, and the result is rounded
    to the weight's own dtype, as it is when a model is run in that dtype.
    Raises LessonkitError for NaN, infinity and what is beyond the format's range.
    """
    return _dequantized(weight, scheme(how)).to(weight.dtype)


def relative_rms_error(weight: torch.Tensor, how: str | Scheme) -> float:
    """Return ``rms(weight - quantised) / rms(weight)``, before any cast to weight's dtype."""
    original = as_float_tensor(weight).float()
    error = (_dequantized(weight, scheme(how)) - original).double().square_().sum()
    total = original.double().square_().sum()
    return float((error / total).sqrt()) if total > 0 else 0.0


def linear_layers(model: nn.Module, *, lm_head: bool = False) -> dict[str, nn.Linear]:
    """Return the model's linear layers by name, in order, without the output layer.

    Embeddings are never among them. ``lm_head=True`` includes the output layer, which
    must then not share its weight with the embeddings.
    """
    from torch import nn

    get_output = getattr(model, "get_output_embeddings", lambda: None)
    output = get_output()
    layers: dict[str, nn.Linear] = {}
    for name, module in model.named_modules():
        if isinstance(module, nn.Linear) and (lm_head or module is not output):
            layers[name] = module
    if lm_head and output is not None:
        embeddings = getattr(model, "get_input_embeddings", lambda: None)()
        if embeddings is not None and embeddings.weight is output.weight:
            raise LessonkitError(
                "The output layer shares its weight with the embeddings: both would change.",
                where="lm_head",
                remedy="Leave lm_head=False for a model with tied embeddings.",
            )
    return layers


@contextmanager
def quantized_model(
    model: nn.Module, how: str | Scheme, *, lm_head: bool = False
) -> Iterator[nn.Module]:
    """Give the model quantised linear weights inside a ``with`` block, its own ones after.

    Weights are replaced one tensor at a time. The originals are set aside, not copied:
    memory grows by the size of the linear weights in the model's dtype (about 2 GB for
    1.1 billion parameters in bf16), and leaving the block puts the very same tensors
    back, also after an exception.
    """
    how = scheme(how)
    originals: list[tuple[torch.Tensor, torch.Tensor]] = []
    seen: set[int] = set()
    try:
        for name, layer in linear_layers(model, lm_head=lm_head).items():
            weight = layer.weight
            if id(weight) in seen:  # a weight shared by two layers is quantised once
                continue
            seen.add(id(weight))
            replacement = _named(name, weight.data, how)
            originals.append((weight, weight.data))
            weight.data = replacement
        yield model
    finally:
        for weight, data in originals:
            weight.data = data


def weight_errors(
    model: nn.Module, how: str | Scheme, *, lm_head: bool = False
) -> dict[str, float]:
    """Return the relative RMS error of each linear layer's weight under a scheme."""
    how = scheme(how)
    return {
        name: relative_rms_error(layer.weight, how)
        for name, layer in linear_layers(model, lm_head=lm_head).items()
    }


def _named(name: str, weight: torch.Tensor, how: Scheme) -> torch.Tensor:
    """Fake-quantise, and say which layer an error belongs to."""
    try:
        return fake_quantize(weight, how)
    except LessonkitError as error:
        raise LessonkitError(error.what, where=f"{name}.weight", remedy=error.remedy) from error


def _dequantized(weight: torch.Tensor, how: Scheme) -> torch.Tensor:
    """Quantise and dequantise, as float32."""
    values = as_float_tensor(weight)
    if how.format == "cast":
        return _cast(values, how.detail)
    if how.format == "microscaling":
        return microscaling.quantize(values, how.detail).dequantize()
    if how.format == "codebook":
        assert how.block_size is not None
        return blockwise.quantize_blockwise(
            values, _CODEBOOKS[how.detail], how.block_size, double_quant=how.double_quant
        ).dequantize()
    assert how.granularity is not None
    if how.zero_point:
        quantized = integers.quantize_zero_point(
            values, how.bits, granularity=how.granularity, block_size=how.block_size
        )
    else:
        quantized = integers.quantize_absmax(
            values,
            how.bits,
            granularity=how.granularity,
            block_size=how.block_size,
            convention="full" if how.full else "restricted",
        )
    return quantized.dequantize()


def _cast(values: torch.Tensor, dtype_name: str) -> torch.Tensor:
    """Round to a torch dtype and back. Out of range is an error, not infinity."""
    import torch

    dtype = getattr(torch, dtype_name)
    largest = values.abs().amax().float()
    require_finite(largest)
    if largest > torch.finfo(dtype).max:
        raise LessonkitError(
            f"{float(largest):g} is beyond the largest {dtype_name}, {torch.finfo(dtype).max:g}.",
            where="weight",
            remedy="Choose a format with a wider range, such as bf16, or one with scales.",
        )
    return values.to(dtype).float()


def _size(shape: tuple[int, ...]) -> int:
    size = 1
    for axis in shape:
        size *= axis
    return size
