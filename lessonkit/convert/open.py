"""Which form is this? One table of recognisers; whatever is opened offers one interface.

A further form adds a row to `FORMS`, above the rows that would take its files for their own.
"""

from __future__ import annotations

import os
from collections.abc import Callable
from pathlib import Path
from typing import NamedTuple, Protocol

from lessonkit.convert.gguf_model import GgufModel, is_gguf_model
from lessonkit.convert.hf_checkpoint import HfCheckpoint
from lessonkit.convert.meta_checkpoint import open_meta
from lessonkit.convert.meta_folder import is_meta
from lessonkit.convert.nf4 import FourBitCheckpoint
from lessonkit.convert.packed import PackedCheckpoint
from lessonkit.errors import LessonkitError
from lessonkit.files.checkpoint import TensorSource
from lessonkit.files.dtypes import storage
from lessonkit.llama.shape import LlamaShape


class OpenModel(TensorSource, Protocol):
    """A model in any form: its tensors under Hugging Face's names and layout, and its size."""

    @property
    def shape(self) -> LlamaShape | None:
        """The sizes; None where nothing beside the weights tells them."""
        ...

    @property
    def parameters(self) -> int:
        """How many weights, whatever they are stored in."""
        ...


class Form(NamedTuple):
    """One form of checkpoint: how it is told from others, and how it is opened."""

    recognises: Callable[[Path], bool]
    open: Callable[[Path], OpenModel]


FORMS = (
    Form(is_meta, open_meta),
    Form(is_gguf_model, GgufModel),
    Form(FourBitCheckpoint.recognises, FourBitCheckpoint),
    Form(PackedCheckpoint.recognises, PackedCheckpoint),
    Form(lambda path: True, HfCheckpoint),  # or an error that says what is missing
)


def open_model(path: str | os.PathLike[str]) -> OpenModel:
    """Open a model in any form: a folder, or one weight file."""
    path = Path(path)
    if not path.exists():
        raise LessonkitError(
            "There is no such file or folder.", where=path, remedy="Check the spelling of the path."
        )
    return next(form for form in FORMS if form.recognises(path)).open(path)


def overview(model: OpenModel) -> str:
    """What `lessonkit info` says of a model, a line each."""
    infos = [model.info(name) for name in model.names()]
    counts: dict[str, int] = {}
    for info in infos:
        counts[info.dtype] = counts.get(info.dtype, 0) + info.count
    each = [f"{storage(dtype).torch_name} ({count:,})" for dtype, count in counts.items()]
    formats = ", ".join(each) if len(each) > 1 else each[0].split()[0] if each else "none"
    files = len(model.weight_files)
    lines = [
        f"form        {model.form} ({files} file{'s' * (files != 1)})",
        f"tensors     {len(infos)}",
        f"parameters  {model.parameters:,}",
        f"stored as   {formats}",
        f"bytes       {sum(info.nbytes for info in infos):,}",
    ]
    if model.shape:
        lines.append(f"shape       {model.shape}")
    return "\n".join([*lines, *(f"note        {note}" for note in model.notes)])


def tensor_list(model: OpenModel) -> str:
    """Every tensor of a model: dtype, shape, name."""
    return "\n".join(
        f"{info.dtype:8} {'x'.join(map(str, info.shape)):14} {info.name}"
        for info in map(model.info, model.names())
    )
