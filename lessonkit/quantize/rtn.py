"""Round to nearest: every weight takes the closest value its format offers. No data needed.

A scheme is named in words, so that a lesson can loop over schemes::

    for name in ("bf16", "int8 per channel", "int4 block 64", "nf4 block 64"):
        with quantized_model(model, name):
            ...

The names are explained in `lessonkit.quantize.schemes`.
"""

from __future__ import annotations

from collections.abc import Iterator
from contextlib import contextmanager
from typing import TYPE_CHECKING

from lessonkit.errors import LessonkitError
from lessonkit.formats.arrays import as_float_tensor
from lessonkit.formats.blocks import relative_rms
from lessonkit.quantize.schemes import Scheme, scheme

if TYPE_CHECKING:
    import torch
    from torch import nn


def fake_quantize(weight: torch.Tensor, how: str | Scheme) -> torch.Tensor:
    """Quantise `weight` and dequantise it again: same shape, dtype and device.

    The weight [out, in] is quantised from its float32 values, and the result is rounded
    to the weight's own dtype, as it is when a model is run in that dtype.
    Raises LessonkitError for NaN, infinity and what is beyond the format's range.
    """
    return scheme(how).dequantized(as_float_tensor(weight)).to(weight.dtype)


def relative_rms_error(weight: torch.Tensor, how: str | Scheme) -> float:
    """Return `rms(weight - quantised) / rms(weight)`, before any cast to weight's dtype."""
    original = as_float_tensor(weight)
    return relative_rms(scheme(how).dequantized(original) - original.float(), original)


def linear_layers(model: nn.Module, *, lm_head: bool = False) -> dict[str, nn.Linear]:
    """Return the model's linear layers by name, in order, without the output layer.

    Embeddings are never among them. `lm_head=True` includes the output layer, which
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
    """Give the model quantised linear weights inside a `with` block, its own ones after.

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


def _named(name: str, weight: torch.Tensor, how: Scheme) -> torch.Tensor:
    """Fake-quantise, and say which layer an error belongs to."""
    try:
        return fake_quantize(weight, how)
    except LessonkitError as error:
        raise LessonkitError(error.what, where=f"{name}.weight", remedy=error.remedy) from error
