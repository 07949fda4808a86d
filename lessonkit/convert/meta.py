"""Meta's Llama checkpoints to Hugging Face's form and back, one tensor at a time.

No value changes on the way: tensors are renamed, joined or cut, and the rows of the query
and key matrices change places. Only if another dtype is asked for by name are values rounded,
and then the certificate counts how many changed.
"""

from __future__ import annotations

import os
from collections.abc import Iterator, Sequence

from lessonkit.convert.conversion import (
    CheckpointPassage,
    FolderPassage,
    Read,
    as_json,
    to_checkpoint,
    to_folder,
)
from lessonkit.convert.hf_checkpoint import open_hf_llama
from lessonkit.convert.meta_checkpoint import MetaCheckpoint, open_meta
from lessonkit.errors import LessonkitError
from lessonkit.files.certificate import Certificate
from lessonkit.files.dtypes import DTYPES, FLOATS, Array, cast, parse_float
from lessonkit.files.safetensors import TensorInfo
from lessonkit.files.torch_file import write_torch_file
from lessonkit.files.writer import MAX_SHARD_BYTES
from lessonkit.llama.configs import hf_config, meta_params
from lessonkit.llama.layout import EMBEDDING, HEAD, Pair, cut, halves_to_pairs, pairs
from lessonkit.llama.shape import LLAMA_3_THETA, LlamaShape, context_of
from lessonkit.llama.tokenizer import TokenizerFiles, convert_tokenizer

MAX_SHARDS = 8


def meta_to_hf(
    source: str | os.PathLike[str],
    out: str | os.PathLike[str],
    *,
    dtype: str | None = None,
    tokenizer: str | os.PathLike[str] | None = None,
    added_tokens: Sequence[str] = (),
    context: int | None = None,
    max_shard_bytes: int = MAX_SHARD_BYTES,
    force: bool = False,
) -> Certificate:
    """Convert a folder in Meta's form; `out` then loads with transformers.

    Parameters
    ----------
    source:
        The folder with `params.json` and `consolidated.NN.pth`, or the one above it.
    out:
        The folder to make; it appears when it is complete. Replaced only with `force`.
    dtype:
        Round to this format ("float16", "BF16", ...). By default the source's is kept.
    tokenizer:
        A `tokenizer.model` that lies elsewhere.
    added_tokens:
        Names for the embedding's rows beyond the tokenizer's last piece (Alpaca: "[PAD]").
    context:
        The longest text in tokens, which `params.json` does not say. By default what the
        certificate of `hf_to_meta` says, else what is usual for such a Llama, with a note.

    Returns the certificate that was also written into `out`. Memory: the largest tensor.
    """
    meta = open_meta(source, tokenizer)
    target = None if dtype is None else parse_float(dtype)
    certificate = Certificate("Meta to Hugging Face", {"dtype": target or "as the source"})
    certificate.notes += meta.notes
    context = _context(context, meta, certificate)
    words = _tokenizer_for(meta, context, added_tokens)
    certificate.notes += words.notes
    plan = [_as_dtype(meta.info(name), target) for name in meta.names()]
    config = hf_config(meta.shape, dtype=_commonest_dtype(plan), context=context, ids=words.ids)
    with to_checkpoint(
        meta, out, certificate, "to Hugging Face",
        plan=plan, max_shard_bytes=max_shard_bytes, force=force, protect=[source],
    ) as passage:  # fmt: skip
        for info in plan:
            with passage.tensor(info.name) as read:
                _write(passage, info, read, [meta.source_of(info.name)])
        for name, content in words.files.items():
            passage.writer.add_file(name, content)
        passage.writer.add_file("config.json", as_json(config))
        passage.writer.add_file("generation_config.json", as_json(words.generation))
    return certificate


def _write(passage: CheckpointPassage, info: TensorInfo, read: Read, source: list[str]) -> None:
    """Write a tensor as planned, and record what became of it."""
    result = cast(read.bits, read.dtype, info.dtype)
    passage.writer.add(info.name, result, info.dtype)
    if result is read.bits:
        passage.keep(info.name, read, source=source)
    else:
        passage.cast(info.name, read, result, info.dtype, source=source)


def hf_to_meta(
    source: str | os.PathLike[str],
    out: str | os.PathLike[str],
    *,
    shards: int = 1,
    force: bool = False,
) -> Certificate:
    """Convert a Hugging Face Llama to Meta's form, in 1 to 8 model-parallel shards.

    `out` holds `params.json`, `consolidated.NN.pth`, `tokenizer.model` (where the source has
    one) and the certificate. The dtype is kept. Memory: the largest tensor.
    """
    model, shape = open_hf_llama(source)
    # Llama 3 cuts its embedding by rows, Llama 1 and 2 by columns.
    axis = 0 if shape.rope_theta == LLAMA_3_THETA else 1
    table = list(pairs(shape.layers, embedding_axis=axis))
    _require_possible(shards, shape, table)
    # What Meta's own files have no place for; `meta_to_hf` reads it again.
    noted = {"context": model.config.get("max_position_embeddings"), "tied": shape.tied}
    certificate = Certificate("Hugging Face to Meta", {"shards": shards, **noted}, model.notes)
    needed = sum(model.info(_stored_as(pair, shape)).nbytes for pair in table)
    with to_folder(
        model, out, certificate, "to Meta", needed=needed, passes=shards, force=force
    ) as passage:
        folder = passage.folder
        for rank in range(shards):
            tensors = _slices(passage, shape, table, rank, shards)
            with (folder / f"consolidated.{rank:02}.pth").open("xb") as file:
                write_torch_file(file, tensors)
        (folder / "params.json").write_bytes(as_json(meta_params(shape)))
        if model.tokenizer is not None:
            (folder / "tokenizer.model").write_bytes(model.tokenizer.read_bytes())
    return certificate


def _stored_as(pair: Pair, shape: LlamaShape) -> str:
    """The name under which Hugging Face's files hold a tensor: a tied head is the embedding."""
    return EMBEDDING if shape.tied and pair.hf == HEAD else pair.hf


def _slices(
    passage: FolderPassage, shape: LlamaShape, table: list[Pair], rank: int, shards: int
) -> Iterator[tuple[str, str, Array]]:
    """The tensors of one shard, in Meta's layout; whole ones are recorded with the first."""
    for pair in table:
        name = _stored_as(pair, shape)
        with passage.tensor(name) as read:
            rows = halves_to_pairs(read.bits, shape.heads_of(pair)) if pair.rotary else read.bits
            yield pair.meta, read.dtype, cut(rows, pair.axis, rank, shards)
            if rank == 0 and name == pair.hf:  # a tied head is there once, not twice
                passage.keep(name, read)


def _context(given: int | None, meta: MetaCheckpoint, certificate: Certificate) -> int:
    """The longest text: as given, as `hf_to_meta` noted it, or what is usual (with a note)."""
    if given is not None:
        if given < 1:
            raise LessonkitError(
                f"A text cannot be {given} tokens long.",
                where="context",
                remedy="Give a positive number of tokens, or leave it out.",
            )
        return given
    noted = meta.options.get("context")
    if type(noted) is int and noted > 0:
        return noted
    usual, family = context_of(meta.shape)
    certificate.notes.append(
        f"params.json does not say how long a text may be: {usual} tokens, as in {family}"
    )
    return usual


def _tokenizer_for(
    meta: MetaCheckpoint, context: int, added_tokens: Sequence[str]
) -> TokenizerFiles:
    """The tokenizer's files; an error unless it has one token for each row of the embedding."""
    path = meta.files.tokenizer
    if path is None:
        raise LessonkitError(
            "There is no tokenizer.model beside the weights or in the folder above.",
            where=meta.files.folder,
            remedy="Fetch it, or name it: --tokenizer FILE.",
        )
    words = convert_tokenizer(
        path, context=context, added_tokens=added_tokens,
        later_llama_3=meta.shape.rope_factor is not None,
    )  # fmt: skip
    rows, size = meta.shape.vocabulary, words.size
    if size > rows:
        added = ", the added ones included" if added_tokens else ""
        raise LessonkitError(
            f"The tokenizer has {size} tokens{added}, the embedding only {rows} rows: text would "
            "lead to ids that the model does not know.",
            where=path,
            remedy="Use the tokenizer.model that came with these weights (32000: Llama 1 and 2, "
            "49953: Chinese-LLaMA): --tokenizer FILE.",
        )
    if size < rows:
        raise LessonkitError(
            f"The embedding has {rows} rows, the tokenizer only {size} tokens.",
            where=path,
            remedy="Use the tokenizer.model that came with these weights; or name the tokens that "
            'it lacks, in order: --added-token "[PAD]" for Chinese-Alpaca (49954 rows, 49953 '
            "pieces).",
        )
    return words


def _as_dtype(info: TensorInfo, target: str | None) -> TensorInfo:
    if target is None or info.dtype not in FLOATS:
        return info
    return TensorInfo(info.name, target, info.shape)


def _commonest_dtype(plan: list[TensorInfo]) -> str:
    """torch's name for the dtype that most of the values have."""
    counts: dict[str, int] = {}
    for info in plan:
        counts[info.dtype] = counts.get(info.dtype, 0) + info.count
    return DTYPES[max(counts, key=lambda dtype: counts[dtype])].torch_name


def _require_possible(shards: int, shape: LlamaShape, table: list[Pair]) -> None:
    """Can the model be cut into so many shards? Heads stay whole, slices are equal."""
    lengths = {shape.shape_of(pair)[pair.axis] for pair in table if pair.axis is not None}
    possible = [
        number
        for number in range(1, MAX_SHARDS + 1)
        if all(length % number == 0 for length in (shape.kv_heads, *lengths))
    ]
    if shards not in possible:
        raise LessonkitError(
            f"This model cannot be cut into {shards} equal shards: it has {shape.kv_heads} "
            f"key/value heads and a vocabulary of {shape.vocabulary}.",
            where="the number of shards",
            remedy=f"Use one of {', '.join(map(str, possible))}.",
        )
