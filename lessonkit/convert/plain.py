"""A checkpoint in any form as plain weights: put into a model, or made into one.

Whoever wants to know what a format costs need not compute as its own kernels do. The weights that
its codes stand for are exact, and a model with these weights, in float32, tells what the *format*
does to it. What a program's kernels do besides (llama.cpp rounds the inputs of a layer to 8 bits,
bitsandbytes multiplies in bfloat16) is another question; a report must say which was asked.
"""

from __future__ import annotations

import json
import os
import tempfile
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path
from typing import TYPE_CHECKING, Any, NamedTuple

import numpy as np

from lessonkit.convert.dequantized import load_dequantized, open_dequantized
from lessonkit.convert.from_gguf import config_of, tokenizer_of
from lessonkit.convert.gguf_model import GgufModel, dequantised
from lessonkit.convert.nf4 import FourBitCheckpoint
from lessonkit.convert.open import OpenModel, open_model
from lessonkit.convert.packed import PackedCheckpoint
from lessonkit.errors import LessonkitError
from lessonkit.files.dtypes import FLOATS, to_float32
from lessonkit.llama.layout import HEAD, is_recomputed
from lessonkit.models.loading import Loaded, load
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
    coded = isinstance(source, FourBitCheckpoint | PackedCheckpoint)
    return open_dequantized(Path(path)) if coded else source


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
    dtype: str | None = None,
    device: torch.device | str | None = None,
) -> Runnable:
    """A model in any form, ready to be measured.

    Folders that transformers computes with, bitsandbytes' too, are loaded by it. GGUF, GPTQ and
    AWQ are dequantised, and the model is computed in `dtype` (float32 by default).
    Raises LessonkitError as `load` does, and for a file whose tokenizer cannot be rebuilt.
    """
    source = open_model(path)
    if isinstance(source, PackedCheckpoint):
        dtype = dtype or "float32"
        loaded = load_dequantized(path, dtype=dtype, device=device)
        return Runnable(*loaded, f"{source.form}, {_dequantised_in(dtype)}")
    if not isinstance(source, GgufModel):
        loaded = load(Path(path), dtype=dtype, device=device)
        number = str(loaded.model.dtype).removeprefix("torch.")
        return Runnable(*loaded, f"{source.form}, computed in {number} by transformers")
    dtype = dtype or "float32"
    kinds = sorted({source.info(name).dtype for name in source.names()} - {"F32"})
    loaded = _made(source, dtype, device)
    label = f"{source.form} of {', '.join(kinds) or 'F32'}"
    return Runnable(*loaded, f"{label}, {_dequantised_in(dtype)}")


def _dequantised_in(dtype: str) -> str:
    return f"dequantised, computed in {dtype} by transformers"


def _made(source: GgufModel, dtype: str, device: torch.device | str | None) -> Loaded:
    """A model of empty tensors, filled one by one."""
    import torch
    from transformers import AutoConfig, AutoModelForCausalLM

    files, _ = tokenizer_of(source)
    if not files:
        raise LessonkitError(
            "The tokenizer in the file is of a kind that is not rebuilt here.",
            where=source.path,
            remedy="Convert it (lessonkit from-gguf), put the original's tokenizer into the "
            "folder, and name that.",
        )
    config = config_of(source)
    with tempfile.TemporaryDirectory() as folder:
        for name, content in {**files, "config.json": json.dumps(config).encode()}.items():
            (Path(folder) / name).write_bytes(content)
        tokenizer = load_tokenizer(Path(folder))
        settings = AutoConfig.from_pretrained(folder, local_files_only=True)
    target = torch.device(device or ("cuda" if torch.cuda.is_available() else "cpu"))
    with torch.device("meta"):
        model = AutoModelForCausalLM.from_config(settings, dtype=getattr(torch, dtype))
    model = model.to_empty(device=target)
    # What is computed from the configuration was empty too.
    model.model.rotary_emb = type(model.model.rotary_emb)(config=settings).to(target)
    model.tie_weights()
    _fill(model, source)
    return Loaded(model.eval(), tokenizer)


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
