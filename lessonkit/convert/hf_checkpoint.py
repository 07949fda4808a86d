"""A Llama in Hugging Face's form, opened: do config.json, tensors and tokenizer fit together?

Everything that Meta's form could not hold, or that would be lost on the way, is found here,
before anything is written: it is refused, or noted.
"""

from __future__ import annotations

import os
from pathlib import Path

from lessonkit.convert.meta_folder import is_meta
from lessonkit.errors import LessonkitError
from lessonkit.files.checkpoint import Checkpoint, read_json
from lessonkit.files.difference import same_bytes
from lessonkit.files.dtypes import FLOATS
from lessonkit.llama.configs import read_hf_config, read_sizes
from lessonkit.llama.layout import EMBEDDING, HEAD, is_recomputed, pairs
from lessonkit.llama.shape import LlamaShape
from lessonkit.llama.tokenizer import count_tokens

_REMEDY = "Fetch the checkpoint again; config.json and the weights must belong together."


class HfCheckpoint(Checkpoint):
    """A checkpoint in Hugging Face's form, with what lies beside the weights.

    `config` is the content of `config.json`, empty where there is none; `tokenizer` the
    `tokenizer.model`, where there is one; `notes` say what another form does not carry.
    """

    def __init__(self, path: str | os.PathLike[str]) -> None:
        super().__init__(path)
        self.config_file = self.weight_files[0].parent / "config.json"
        self.config = read_json(self.config_file) if self.config_file.is_file() else {}
        self.tokenizer = _find_tokenizer(self.config_file.parent)

    @property
    def shape(self) -> LlamaShape | None:
        """The sizes; None where no `config.json` of a Llama goes with the weights."""
        if self.config.get("model_type") != "llama":
            return None
        try:
            return read_sizes(self.config, self.config_file)
        except LessonkitError:
            return None

    @property
    def parameters(self) -> int:
        """How many weights."""
        return sum(self.info(name).count for name in self.names())


def open_hf_llama(folder: str | os.PathLike[str]) -> tuple[HfCheckpoint, LlamaShape]:
    """Open a plain Llama with `config.json` and weights; raises `LessonkitError` unless all fit.

    Returns its sizes too. What Meta's form does not carry stands in its notes.
    """
    folder = Path(folder)
    if is_meta(folder):
        raise LessonkitError(
            "The folder is in Meta's form already.",
            where=folder,
            remedy="The other way round is `lessonkit to-hf`.",
        )
    shape = read_hf_config(read_json(folder / "config.json"), folder / "config.json")
    model = HfCheckpoint(folder)
    _require_tensors(model, shape)
    if shape.tied:
        _look_at_tied_head(model)
    _look_at_tokenizer(model, shape)
    if any(is_recomputed(name) for name in model):
        model.notes.append("rotary_emb.inv_freq was left out: it follows from rope_theta")
    return model, shape


def _find_tokenizer(folder: Path) -> Path | None:
    """Llama 3's repositories keep Meta's own files in a folder `original`."""
    for place in (folder, folder / "original"):
        if (place / "tokenizer.model").is_file():
            return place / "tokenizer.model"
    return None


def _require_tensors(model: HfCheckpoint, shape: LlamaShape) -> None:
    """Exactly the tensors of such a Llama, in the right shapes, with values and not codes."""
    last = f"model.layers.{shape.layers - 1}.self_attn.q_proj.weight"
    if last not in model:  # before a table of an absurd number of layers is made
        raise _misfit(f"The tensor {last} is missing", model.path)
    wanted = {pair.hf: pair for pair in pairs(shape.layers)}
    for name in model:
        if name not in wanted and not is_recomputed(name):
            raise _misfit(f"The tensor {name} has no place in a Llama", model.path)
    for name, pair in wanted.items():
        if name not in model:
            if name == HEAD and shape.tied:
                continue
            raise _misfit(f"The tensor {name} is missing", model.path)
        info, expected = model.info(name), shape.shape_of(pair)
        if info.shape != expected:
            raise _misfit(
                f"{name} has the shape {list(info.shape)}; config.json leads to {list(expected)}",
                model.file_of(name),
            )
        if info.dtype not in FLOATS:
            raise LessonkitError(
                f"{name} is {info.dtype}: codes of a quantised model, not weights.",
                where=model.file_of(name),
                remedy=f"Start from the original checkpoint, in one of {', '.join(FLOATS)}.",
            )


def _look_at_tied_head(model: HfCheckpoint) -> None:
    """A tied head that is stored all the same must be the embedding, for it will be lost."""
    model.notes.append("the embedding is also the output head: Meta's form stores both")
    if HEAD in model:
        ours, theirs = (model.array(name).reshape(-1) for name in (EMBEDDING, HEAD))
        same_dtype = model.info(EMBEDDING).dtype == model.info(HEAD).dtype
        if not (same_dtype and same_bytes(ours, theirs)):
            raise LessonkitError(
                "config.json says that the output head is the embedding, but the weights hold "
                f"another {HEAD}.",
                where=model.path,
                remedy="Which is right? transformers 5 uses the weights' own head: to keep it, set "
                '"tie_word_embeddings" to false in config.json.',
            )
        for name in (EMBEDDING, HEAD):
            model.release(name)


def _look_at_tokenizer(model: HfCheckpoint, shape: LlamaShape) -> None:
    """Each token needs a row of the embedding; Meta's code wants no row more."""
    if model.tokenizer is None:
        model.notes.append("the source has no tokenizer.model, which Meta's code needs")
        return
    rows, tokens = shape.vocabulary, count_tokens(model.tokenizer)
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
