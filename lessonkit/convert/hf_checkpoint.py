"""A Llama in Hugging Face's form, opened: do config.json, tensors and tokenizer fit together?

Everything that Meta's form could not hold, or that would be lost on the way, is found here,
before anything is written: it is refused, or noted.
"""

from __future__ import annotations

import os
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

from lessonkit.convert.llama_configs import read_hf_config
from lessonkit.convert.llama_shape import LlamaShape
from lessonkit.convert.meta_folder import is_meta
from lessonkit.convert.meta_layout import EMBEDDING, HEAD, is_recomputed, pairs
from lessonkit.convert.tokenizer import count_tokens
from lessonkit.errors import LessonkitError
from lessonkit.files.checkpoint import Checkpoint, open_checkpoint, read_json
from lessonkit.files.difference import same_bytes
from lessonkit.files.dtypes import FLOATS

_REMEDY = "Fetch the checkpoint again; config.json and the weights must belong together."


@dataclass
class HfLlama:
    """A checked model: its `config` and `shape`, its `tensors`, the `tokenizer` (a
    `tokenizer.model`) where there is one, and `notes` on what Meta's form does not carry."""

    config: dict[str, Any]
    shape: LlamaShape
    tensors: Checkpoint
    tokenizer: Path | None
    notes: list[str] = field(default_factory=list)


def open_hf_llama(folder: str | os.PathLike[str]) -> HfLlama:
    """Open a folder with `config.json` and weights; raises `LessonkitError` unless all fit."""
    folder = Path(folder)
    if is_meta(folder):
        raise LessonkitError(
            "The folder is in Meta's form already.",
            where=folder,
            remedy="The other way round is `lessonkit to-hf`.",
        )
    config = read_json(folder / "config.json")
    shape = read_hf_config(config, folder / "config.json")
    model = HfLlama(config, shape, open_checkpoint(folder), _find_tokenizer(folder))
    _require_tensors(model)
    _look_at_head(model)
    _look_at_tokenizer(model)
    if any(is_recomputed(name) for name in model.tensors):
        model.notes.append("rotary_emb.inv_freq was left out: it follows from rope_theta")
    return model


def _find_tokenizer(folder: Path) -> Path | None:
    """Llama 3's repositories keep Meta's own files in a folder `original`."""
    for place in (folder, folder / "original"):
        if (place / "tokenizer.model").is_file():
            return place / "tokenizer.model"
    return None


def _require_tensors(model: HfLlama) -> None:
    """Exactly the tensors of such a Llama, in the right shapes, with values and not codes."""
    tensors, shape = model.tensors, model.shape
    last = f"model.layers.{shape.layers - 1}.self_attn.q_proj.weight"
    if last not in tensors:  # before a table of an absurd number of layers is made
        raise _misfit(f"The tensor {last} is missing", tensors.path)
    wanted = {pair.hf: pair for pair in pairs(shape.layers)}
    for name in tensors:
        if name not in wanted and not is_recomputed(name):
            raise _misfit(f"The tensor {name} has no place in a Llama", tensors.path)
    for name, pair in wanted.items():
        if name not in tensors:
            if name == HEAD and shape.tied:
                continue
            raise _misfit(f"The tensor {name} is missing", tensors.path)
        info, expected = tensors.info(name), shape.shape_of(pair)
        if info.shape != expected:
            raise _misfit(
                f"{name} has the shape {list(info.shape)}; config.json leads to {list(expected)}",
                tensors.file_of(name),
            )
        if info.dtype not in FLOATS:
            raise LessonkitError(
                f"{name} is {info.dtype}: codes of a quantised model, not weights.",
                where=tensors.file_of(name),
                remedy=f"Start from the original checkpoint, in one of {', '.join(FLOATS)}.",
            )


def _look_at_head(model: HfLlama) -> None:
    """A tied head that is stored all the same must be the embedding, for it will be lost."""
    if not model.shape.tied:
        return
    model.notes.append("the embedding is also the output head: Meta's form stores both")
    tensors = model.tensors
    if HEAD in tensors:
        ours, theirs = (tensors.array(name).reshape(-1) for name in (EMBEDDING, HEAD))
        same_dtype = tensors.info(EMBEDDING).dtype == tensors.info(HEAD).dtype
        if not (same_dtype and same_bytes(ours, theirs)):
            raise LessonkitError(
                "config.json says that the output head is the embedding, but the weights hold "
                f"another {HEAD}.",
                where=tensors.path,
                remedy="Which is right? transformers 5 uses the weights' own head: to keep it, set "
                '"tie_word_embeddings" to false in config.json.',
            )
        for name in (EMBEDDING, HEAD):
            tensors.release(name)


def _look_at_tokenizer(model: HfLlama) -> None:
    """Each token needs a row of the embedding; Meta's code wants no row more."""
    if model.tokenizer is None:
        model.notes.append("the source has no tokenizer.model, which Meta's code needs")
        return
    rows, tokens = model.shape.vocabulary, count_tokens(model.tokenizer)
    if tokens > rows:
        raise LessonkitError(
            f"The tokenizer has {tokens} tokens, the embedding only {rows} rows: text would lead "
            "to ids that the model does not know.",
            where=model.tokenizer,
            remedy="Use the tokenizer.model that came with these weights.",
        )
    if tokens < rows:
        model.notes.append(
            f"the embedding has {rows} rows, tokenizer.model only {tokens} tokens: Meta's code "
            "takes the number from the tokenizer and will not load this; to convert back, name "
            f"the {rows - tokens} others with --added-token"
        )


def _misfit(what: str, where: Path) -> LessonkitError:
    return LessonkitError(f"{what}.", where=where, remedy=_REMEDY)
