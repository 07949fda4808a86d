"""A checkpoint in any form as plain weights: put into a model, or made into one.

Whoever wants to know what a format costs need not compute as its own kernels do. The weights that
its codes stand for are exact, and a model with these weights, in float32, tells what the *format*
does to it. What a program's kernels do besides (llama.cpp rounds the inputs of a layer to 8 bits,
bitsandbytes multiplies in bfloat16) is another question; a report must say which was asked.
"""

from __future__ import annotations

import os
import tempfile
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path
from typing import TYPE_CHECKING, Any, NamedTuple

import numpy as np

from lessonkit.convert.dequantized import Dequantized
from lessonkit.convert.from_gguf import config_of, tokenizer_of
from lessonkit.convert.gguf_model import GgufModel, dequantised
from lessonkit.convert.nf4 import FourBitCheckpoint
from lessonkit.convert.open import OpenModel, open_model
from lessonkit.convert.packed import PackedCheckpoint, UnpackedCheckpoint
from lessonkit.errors import LessonkitError
from lessonkit.files.dtypes import FLOATS, to_float32
from lessonkit.llama.layout import HEAD, is_recomputed
from lessonkit.models.loading import as_dtype, load
from lessonkit.models.tokenizer import load_tokenizer

if TYPE_CHECKING:
    import torch
    from torch import nn


class Runnable(NamedTuple):
    """A model to measure, its tokenizer, and in words: whose weights, computed how."""

    model: Any
    tokenizer: Any
    how: str


def open_plain(path: str | os.PathLike[str]) -> OpenModel:
    """Open a model in any form so that `plain_weights` can read it."""
    source = open_model(path)
    if isinstance(source, FourBitCheckpoint):
        return Dequantized(path)
    return UnpackedCheckpoint(path) if isinstance(source, PackedCheckpoint) else source


def plain_weights(source: OpenModel) -> Iterator[tuple[str, torch.Tensor]]:
    """Each tensor's name in Hugging Face's form and its float32 values, one at a time."""
    import torch

    for name in source.names():
        info = source.info(name)
        bits = source.array(name)
        if info.dtype in FLOATS:
            values = np.array(to_float32(bits, info.dtype))  # a copy: a file's bits stay its own
        else:
            values = dequantised(bits, info)
        yield name, torch.from_numpy(values)
        source.release(name)


@contextmanager
def weights_of(model: nn.Module, path: str | os.PathLike[str]) -> Iterator[nn.Module]:
    """Give a model the weights of a checkpoint in any form inside a `with` block.

    The checkpoint must be of this very model, quantised or not. Values are rounded to the model's
    dtype, so load it in float32. Its own weights are set aside, not copied, and come back after
    the block: memory grows by the size of the model. Raises LessonkitError where the checkpoint
    holds other tensors.
    """
    own = dict(model.named_parameters())
    kept = {name: parameter.data for name, parameter in own.items()}
    try:
        _fill(model, open_plain(path))
        yield model
    finally:
        for name, data in kept.items():
            own[name].data = data


def runnable(
    path: str | os.PathLike[str],
    *,
    dtype: torch.dtype | str | None = None,
    device: torch.device | str | None = None,
) -> Runnable:
    """A model in any form, ready to be measured.

    Folders that transformers computes with, bitsandbytes' too, are loaded by it. GGUF, GPTQ and
    AWQ are dequantised: every weight is the value that its code stands for, rounded to `dtype`
    (float32 by default), and the model takes as much memory as an unquantised one. None of the
    packages that compute with codes is needed.
    Raises LessonkitError as `load` does, for a model of an unknown kind, and for a file whose
    tokenizer cannot be rebuilt.
    """
    source = open_plain(path)
    if not isinstance(source, GgufModel | UnpackedCheckpoint):
        loaded = load(Path(path), dtype=dtype, device=device)
        return Runnable(*loaded, f"{source.form}, computed in {_name(loaded.model)}")
    if isinstance(source, GgufModel):
        config, tokenizer = config_of(source), _tokenizer_of(source)
        kinds = sorted({source.info(name).dtype for name in source.names()} - {"F32"})
        form = f"{source.form} of {', '.join(kinds) or 'F32'}"
    else:
        config, tokenizer = source.config, load_tokenizer(source.config_file.parent)
        form = source.form
    model = _made(source, config, dtype, device)
    return Runnable(model, tokenizer, f"{form}, dequantised, computed in {_name(model)}")


def _name(model: Any) -> str:
    return f"{str(model.dtype).removeprefix('torch.')} by transformers"


def _tokenizer_of(source: GgufModel) -> Any:
    files, _ = tokenizer_of(source)
    if not files:
        raise LessonkitError(
            "The tokenizer in the file is of a kind that is not rebuilt here.",
            where=source.path,
            remedy="Convert it (lessonkit from-gguf), put the original's tokenizer into the "
            "folder, and name that.",
        )
    with tempfile.TemporaryDirectory() as folder:
        for name, content in files.items():
            (Path(folder) / name).write_bytes(content)
        return load_tokenizer(Path(folder))


def _made(
    source: OpenModel,
    config: dict[str, Any],
    dtype: torch.dtype | str | None,
    device: torch.device | str | None,
) -> Any:
    """A model of empty tensors, filled one by one."""
    import torch
    from transformers import AutoConfig, AutoModelForCausalLM

    if source.shape is None:
        raise LessonkitError(
            "The model is of no kind that is known here.",
            where=source.path,
            remedy="Name a Llama; as a GGUF file also a Mistral, Qwen 2 or 3.",
        )
    plain = {key: said for key, said in config.items() if key != "quantization_config"}
    settings = AutoConfig.for_model(**plain)
    target = torch.device(device or ("cuda" if torch.cuda.is_available() else "cpu"))
    with torch.device("meta"):
        model = AutoModelForCausalLM.from_config(settings, dtype=as_dtype(dtype) or torch.float32)
    model = model.to_empty(device=target)
    # What is computed from the configuration was empty too.
    model.model.rotary_emb = type(model.model.rotary_emb)(config=settings).to(target)
    model.tie_weights()
    _fill(model, source)
    return model.eval()


def _fill(model: nn.Module, source: OpenModel) -> None:
    """Replace every parameter of a model by a checkpoint's values, in the model's dtype."""
    own = dict(model.named_parameters())
    missing = set(own)
    for name, values in plain_weights(source):
        if name in own and own[name].shape == values.shape:
            own[name].data = values.to(own[name])
            missing.discard(name)
        elif name != HEAD and not is_recomputed(name):  # of a tied head the model has no second
            raise _misfit(f"The tensor {name} {tuple(values.shape)} has no place", source)
    if missing:
        raise _misfit(f"{min(missing)} is not there; it belongs", source)


def _misfit(what: str, source: OpenModel) -> LessonkitError:
    return LessonkitError(
        f"{what} in the model.",
        where=source.path,
        remedy="Name a checkpoint that was made from this model.",
    )
