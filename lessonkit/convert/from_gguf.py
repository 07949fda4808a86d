"""GGUF to Hugging Face: plain floats to the bit, blocks as the float32 values that they stand for.

GGUF keeps vectors (norms) as F32 whatever the matrices are. Where they are numbers of the
matrices' type, as after a conversion from it, they return to that type.
"""

from __future__ import annotations

import os
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import numpy as np

from lessonkit.convert.conversion import CheckpointPassage, Read, as_json, to_checkpoint
from lessonkit.convert.gguf_model import GgufModel, dequantised
from lessonkit.errors import LessonkitError
from lessonkit.files.certificate import Certificate, Record, tensor_sha256
from lessonkit.files.dtypes import DTYPES, FLOATS, Array, cast, to_float32
from lessonkit.files.safetensors import TensorInfo
from lessonkit.files.writer import MAX_SHARD_BYTES
from lessonkit.formats.ggml import FORMATS
from lessonkit.llama.gguf_metadata import hf_config_of, rope_factors
from lessonkit.llama.gguf_names import ROPE_FACTORS, to_gguf_name
from lessonkit.llama.gguf_tokenizer import sentencepiece_of, special_ids_of
from lessonkit.llama.layout import EMBEDDING, HEAD, pairs
from lessonkit.llama.sentencepiece_model import parse_sentencepiece
from lessonkit.llama.tokenizer import tokenizer_files


def from_gguf(
    source: str | os.PathLike[str],
    out: str | os.PathLike[str],
    *,
    max_shard_bytes: int = MAX_SHARD_BYTES,
    force: bool = False,
) -> Certificate:
    """Convert a GGUF file of a Llama, Mistral, Qwen 2 or 3 to a folder for transformers.

    A tensor in F32, F16 or BF16 keeps its bits (vectors may return to the matrices' type,
    without loss); one in blocks becomes F32. A SentencePiece tokenizer is rebuilt from the
    pieces; a byte-level one is not, and the certificate says so.
    Returns the certificate, which is also in `out`. Raises LessonkitError for other models and
    for types that are not decoded here.
    """
    model = GgufModel(source)
    if model.shape is None:
        raise LessonkitError(
            "The file holds no model of a kind that is known here: " + "; ".join(model.notes),
            where=source,
            remedy="Name a GGUF file of a Llama, Mistral, Qwen 2 or 3.",
        )
    plan = _plan(model)
    needed = (pair.hf for pair in pairs(model.shape.layers) if pair.hf != HEAD)  # it may be tied
    missing = next((name for name in needed if name not in plan), None)
    if missing is not None:
        raise LessonkitError(
            f"The file has no {to_gguf_name(missing)}, without which the model does not run.",
            where=source,
            remedy="Fetch it again; of a file in parts, all of them.",
        )
    certificate = Certificate("GGUF to Hugging Face", notes=list(model.notes))
    config = {**config_of(model), "torch_dtype": DTYPES[plan[EMBEDDING].dtype].torch_name}
    files, notes = tokenizer_of(model)
    with to_checkpoint(
        model, out, certificate, "from GGUF", plan=list(plan.values()),
        max_shard_bytes=max_shard_bytes, force=force,
    ) as passage:  # fmt: skip
        for name, info in plan.items():
            _convert(passage, name, info)
        passage.writer.add_file("config.json", as_json(config))
        for name, content in files.items():
            passage.writer.add_file(name, content)
        certificate.notes += notes
    return certificate


def _plan(model: GgufModel) -> dict[str, TensorInfo]:
    """The type that each tensor gets."""
    infos = {name: model.info(name) for name in model.names()}
    counts: dict[str, int] = {}
    for info in infos.values():
        if info.dtype not in FLOATS and info.dtype not in FORMATS:
            dequantised(np.empty(0, np.uint8), info)  # tells that there is no decoder
        if len(info.shape) > 1:
            counts[info.dtype] = counts.get(info.dtype, 0) + info.count
    main = max(counts, key=lambda kind: counts[kind], default="F32")

    def dtype(name: str, info: TensorInfo) -> str:
        if info.dtype not in FLOATS:
            return "F32"
        if len(info.shape) == 1 and info.dtype == "F32" and main in ("F16", "BF16"):
            bits = model.array(name)
            back = to_float32(cast(bits, "F32", main), main)
            return main if np.array_equal(back.view("u4"), bits.view("u4")) else "F32"
        return info.dtype

    return {name: TensorInfo(name, dtype(name, info), info.shape) for name, info in infos.items()}


def _convert(passage: CheckpointPassage, name: str, info: TensorInfo) -> None:
    with passage.tensor(name) as read:
        if read.dtype in FLOATS:
            result = cast(read.bits, read.dtype, info.dtype)
        else:
            result = dequantised(read.bits, passage.source.info(name))
        passage.writer.add(name, result, info.dtype)
        if read.dtype == info.dtype:
            passage.keep(name, read)
        elif read.dtype in FLOATS:
            passage.cast(name, read, result, info.dtype)
        else:
            passage.record(_record, info, read, result)


def _record(info: TensorInfo, read: Read, result: Array) -> Iterator[tuple[str, Record]]:
    """What became of a tensor that held codes."""
    yield info.name, Record(
        f"dequantised: {read.dtype}", read.dtype, info.shape, read.sha256.result(), [info.name],
        {"output_dtype": info.dtype, "output_sha256": tensor_sha256(result)},
    )  # fmt: skip


def config_of(model: GgufModel) -> dict[str, Any]:
    """The `config.json` that goes with a GGUF file's model, without a dtype."""
    tied = HEAD not in model.own_name
    config = hf_config_of(model.metadata, model.path, tied=tied)
    if ROPE_FACTORS in model.file.names():
        config["rope_scaling"] = _stretched(model, config)
    return {**config, **special_ids_of(model.metadata)}


def _stretched(model: GgufModel, config: dict[str, Any]) -> dict[str, Any]:
    """Which of Llama 3's settings lead to the factors in the file?"""
    found = model.file.array(ROPE_FACTORS)
    rope = {
        "rope_type": "llama3",
        "factor": float(found.max()),
        "low_freq_factor": 1.0,
        "high_freq_factor": 4.0,
        "original_max_position_embeddings": 8192,
    }
    computed = rope_factors({**config, "rope_scaling": rope})
    if computed is None or not np.allclose(computed, found, rtol=1e-5):
        raise LessonkitError(
            "The rotation factors in the file are none of Llama 3's.",
            where=f"{model.path}: {ROPE_FACTORS}",
            remedy="Take config.json from the original model.",
        )
    return rope


def tokenizer_of(model: GgufModel) -> tuple[dict[str, bytes], list[str]]:
    """The files of a GGUF file's tokenizer, and notes; none unless it is SentencePiece's."""
    raw = sentencepiece_of(model.metadata)
    if raw is None:
        return {}, ["the tokenizer was not rebuilt: take its files from the original model"]
    context = int(model.metadata.get(f"{model.architecture}.context_length", 2048))
    parse_sentencepiece(raw, Path("tokenizer.model"))
    files = tokenizer_files(raw, model.path, context=context)
    return files.files, files.notes
