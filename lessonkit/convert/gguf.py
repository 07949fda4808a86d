"""Hugging Face to GGUF, in plain floats or quantised by one of llama.cpp's mixes.

One tensor at a time: names change, rows of queries and keys move (see `llama.gguf_names`),
norms and other vectors become F32, matrices what was asked for. The bytes of quantised tensors
are those of `llama-quantize` (x86-64), from the source's own values and not from F16.

The file is written by lessonkit itself, not by the gguf package's writer: that one opens its
output under its final name, while here nothing stands under a name before it is complete.
"""

from __future__ import annotations

import os
from collections.abc import Iterator, Sequence
from contextlib import ExitStack
from dataclasses import dataclass
from pathlib import Path
from typing import Any, BinaryIO

import numpy as np

from lessonkit.convert import gguf_mix
from lessonkit.convert.calibration import Calibration
from lessonkit.convert.conversion import FilePassage, Read, to_files
from lessonkit.convert.gguf_gptq import codes_by_gptq, q4_0_blocks, stored_codes
from lessonkit.convert.gguf_mix import MIXES, ModelFigures, is_quantised
from lessonkit.convert.gguf_tensor import encode_tensor, relative_error
from lessonkit.convert.hf_checkpoint import HfCheckpoint
from lessonkit.convert.imatrix import ImportanceMatrix, read_imatrix
from lessonkit.convert.layer_results import FinishedLayers
from lessonkit.convert.meta_folder import is_meta
from lessonkit.convert.packed import PackedCheckpoint, UnpackedCheckpoint
from lessonkit.errors import LessonkitError
from lessonkit.files.atomic import check_target
from lessonkit.files.certificate import Certificate, Record, tensor_sha256
from lessonkit.files.checkpoint import read_json
from lessonkit.files.difference import same_bytes
from lessonkit.files.dtypes import FLOATS, Array, bytes_of
from lessonkit.files.foreign import GGUF
from lessonkit.files.gguf import aligned, encode_gguf_header, is_gguf
from lessonkit.files.gguf_parts import GgufPart, cut, part_paths
from lessonkit.files.safetensors import TensorInfo
from lessonkit.llama.configs import read_sizes
from lessonkit.llama.gguf_metadata import (
    FILE_TYPES,
    architecture_of,
    model_metadata,
    rope_factors,
)
from lessonkit.llama.gguf_names import ROPE_FACTORS, in_file_order, to_gguf_name, to_pairs
from lessonkit.llama.gguf_tokenizer import tokenizer_metadata
from lessonkit.llama.layout import EMBEDDING, HEAD, is_recomputed, pairs
from lessonkit.llama.shape import LlamaShape

OUTTYPES = ("auto", "f32", "f16", "bf16", *MIXES)


@dataclass(frozen=True)
class GgufPlan:
    """What a GGUF file will hold: `tensors` in order, under GGUF's names, with their types.

    `source_of` gives Hugging Face's name; `metadata` is all of it; `nbytes` the file's size.
    """

    architecture: str
    shape: LlamaShape
    metadata: dict[str, Any]
    tensors: list[TensorInfo]
    source_of: dict[str, str]
    notes: list[str]

    @property
    def nbytes(self) -> int:
        """The size of the file in bytes."""
        return GgufPart(self.metadata, self.tensors).nbytes


def to_gguf(
    source: str | os.PathLike[str],
    out: str | os.PathLike[str],
    *,
    outtype: str = "auto",
    imatrix: str | os.PathLike[str] | ImportanceMatrix | None = None,
    tensor_types: Sequence[tuple[str, str]] = (),
    output_type: str | None = None,
    embedding_type: str | None = None,
    pure: bool = False,
    calibration: Calibration | None = None,
    max_part_bytes: int | None = None,
    force: bool = False,
) -> Certificate:
    """Convert a Hugging Face Llama, Mistral, Qwen 2 or 3 (dense) to GGUF.

    Parameters
    ----------
    source:
        A folder with `config.json` and weights in F32, F16 or BF16: safetensors or PyTorch, in
        shards or not. The tokenizer beside them goes into the file. Or a GPTQ folder: symmetric
        4-bit codes without act-order become Q4_0 as they are.
    out:
        The file to make. It appears when it is complete, and `OUT.certificate.json` beside it.
    outtype:
        "auto" keeps each matrix as it is; "f32", "f16", "bf16" round all of them; or one of
        `gguf_mix.MIXES`, such as "q8_0" or "q4_k_m". Capitals are taken too.
    imatrix:
        An importance matrix, or its file (`lessonkit imatrix`).
    tensor_types, output_type, embedding_type, pure:
        Exceptions from the mix: see `gguf_mix.tensor_types`.
    calibration:
        Choose the codes of Q4_0's matrices with GPTQ, on these tokens: the file is as large, its
        error smaller. After an interruption the same call goes on from OUT.unfinished.
    max_part_bytes:
        A larger file is cut into parts of at most this size, OUT-00001-of-00003.gguf and so on.
    force:
        Replace a GGUF file that is there, and its certificate.

    Returns the certificate. Memory: the largest tensor, in the source's and the file's type.
    Raises LessonkitError for other models, for codes instead of weights, for values that F16
    cannot hold, and for NaN and infinity where blocks are made.
    """
    importance = imatrix if isinstance(imatrix, ImportanceMatrix) or imatrix is None else (
        read_imatrix(imatrix)
    )  # fmt: skip
    outtype = outtype.lower()  # llama.cpp writes Q4_K_M
    checkpoint, config = open_source(source)
    plan = plan_gguf(
        checkpoint, config, outtype, importance=importance, tensor_types=tensor_types,
        output_type=output_type, embedding_type=embedding_type, pure=pure,
    )  # fmt: skip
    options: dict[str, Any] = {"outtype": outtype}
    if importance is not None:
        options["imatrix"] = importance.name
        _require_fit(importance, plan)
    if tensor_types:
        options["tensor_types"] = [f"{pattern}={kind.upper()}" for pattern, kind in tensor_types]
    chosen = {"output_type": output_type, "embedding_type": embedding_type}
    options |= {key: kind.upper() for key, kind in chosen.items() if kind}
    options |= {"pure": True} if pure else {}
    entries = importance.entries if importance else {}
    parts = cut(plan.metadata, plan.tensors, max_part_bytes)
    outs = part_paths(Path(out), len(parts))
    if len(parts) > 1:
        plan.notes.append(f"in {len(parts)} parts; a program is given the first, {outs[0].name}")
    finished = FinishedLayers(Path(f"{os.fspath(out)}.unfinished"))
    of_q4_0 = [info for info in plan.tensors if info.dtype == "Q4_0"]
    codes = stored_codes(checkpoint) if of_q4_0 else lambda name: None
    with ExitStack() as stack:
        if calibration is not None:
            _require_q4_0_grid(outtype, importance, checkpoint)
            for target in outs:
                check_target(target, force=force, protect=[checkpoint.path], magic=GGUF)
            options |= {"method": "gptq", "calibration": str(calibration)}
            finished = FinishedLayers(f"{os.fspath(out)}.unfinished")
            codes = stack.enter_context(codes_by_gptq(source, calibration, finished))
        certificate = Certificate("Hugging Face to GGUF", options, plan.notes)
        needed = sum(part.nbytes for part in parts)
        passage = stack.enter_context(
            to_files(
                checkpoint, outs, certificate, "to GGUF", magic=GGUF, needed=needed, force=force
            )
        )
        for part, file in zip(parts, passage.files, strict=True):
            file.write(encode_gguf_header(part.metadata, part.tensors))
            for info in part.tensors:
                if info.name == ROPE_FACTORS:
                    _write(file, np.asarray(rope_factors(config)))
                    continue
                name = plan.source_of[info.name]
                with passage.tensor(name) as read:
                    chosen_codes = codes(name) if info.dtype == "Q4_0" else None
                    if chosen_codes is not None:
                        result = q4_0_blocks(chosen_codes)
                    else:
                        result = encode_tensor(read.bits, read.dtype, info, entries.get(info.name))
                    _record(passage, name, read, info, result)
                    _write(file, to_pairs(info.name, result, plan.architecture, plan.shape))
    return certificate


def open_source(source: str | os.PathLike[str]) -> tuple[HfCheckpoint, dict[str, Any]]:
    """Open a folder in Hugging Face's form; LessonkitError for what cannot become GGUF."""
    source = Path(source)
    if source.is_file():
        what = "is a GGUF file already" if is_gguf(source) else "is a file"
        raise LessonkitError(
            f"This {what}; a folder in Hugging Face's form is asked for.",
            where=source,
            remedy="Name the folder that holds config.json and the original weights.",
        )
    if is_meta(source):
        raise LessonkitError(
            "The folder is in Meta's form.",
            where=source,
            remedy="Convert it first: lessonkit to-hf.",
        )
    config = read_json(source / "config.json")
    packed = PackedCheckpoint.recognises(source)
    if packed:  # its codes are read as the weights that they stand for
        config.pop("quantization_config")
    architecture_of(config, source / "config.json")
    return UnpackedCheckpoint(source) if packed else HfCheckpoint(source), config


def plan_gguf(
    checkpoint: HfCheckpoint,
    config: dict[str, Any],
    outtype: str = "auto",
    *,
    importance: ImportanceMatrix | None = None,
    **exceptions: Any,
) -> GgufPlan:
    """Decide, without reading a weight, what the file will hold; see `to_gguf`."""
    architecture = architecture_of(config, checkpoint.config_file)
    shape = read_sizes(config, checkpoint.config_file)
    notes: list[str] = []
    source_of = _names(checkpoint, shape, notes)
    shapes = {name: checkpoint.info(hf).shape for name, hf in source_of.items()}
    _require_shape(source_of, shapes, shape, checkpoint)
    packed = checkpoint.packed if isinstance(checkpoint, UnpackedCheckpoint) else ()
    kept = {
        name: "Q4_0" if hf in packed else checkpoint.info(hf).dtype
        for name, hf in source_of.items()
    }
    infos = [TensorInfo(name, kept[name], shapes[name]) for name in source_of]
    tensors = choose_types(
        infos, outtype, architecture, shape, imatrix=importance is not None, **exceptions
    )
    factors = rope_factors(config)
    if factors is not None:
        tensors.append(TensorInfo(ROPE_FACTORS, "F32", factors.shape))
    metadata, said = header_metadata(
        config, checkpoint.config_file.parent, outtype, tensors, checkpoint.parameters
    )
    if importance is not None:
        metadata |= importance.as_metadata()
    return GgufPlan(architecture, shape, metadata, tensors, source_of, notes + said)


def header_metadata(
    config: dict[str, Any], folder: Path, outtype: str, tensors: Sequence[TensorInfo],
    parameters: int,
) -> tuple[dict[str, Any], list[str]]:  # fmt: skip
    """All of a file's metadata, from a folder's `config.json` and tokenizer; and notes."""
    metadata = model_metadata(
        config, folder / "config.json", name=folder.absolute().name, parameters=parameters,
        file_type=_file_type(outtype, tensors),
    )  # fmt: skip
    words, notes = tokenizer_metadata(folder, config)
    metadata |= words
    if outtype in MIXES:  # as `llama-quantize` does: then the whole file is the same
        for key in ("general.quantization_version", "general.file_type"):
            metadata[key] = metadata.pop(key)
    return metadata, notes


def choose_types(
    tensors: Sequence[TensorInfo],
    outtype: str,
    architecture: str,
    shape: LlamaShape,
    *,
    imatrix: bool = False,
    tensor_types: Sequence[tuple[str, str]] = (),
    **exceptions: Any,
) -> list[TensorInfo]:
    """The tensors in the file's order, each with the type that it gets there.

    `tensors` have GGUF's names and the source's dtypes; the rest is as in `to_gguf`.
    """
    if outtype not in OUTTYPES:
        raise LessonkitError(
            f"There is no outtype {outtype!r}.",
            where="outtype",
            remedy="Use one of " + ", ".join(OUTTYPES) + ".",
        )
    mixed: dict[str, str] = {}
    if outtype in MIXES:
        figures = ModelFigures(shape.layers, shape.heads, shape.kv_heads, architecture)
        mixed = gguf_mix.tensor_types(
            [(info.name, info.shape) for info in tensors], outtype, figures,
            imatrix=imatrix, overrides=tensor_types, **exceptions,
        )  # fmt: skip
    elif tensor_types or any(exceptions.values()):
        raise LessonkitError(
            f"Exceptions for single tensors need a mix, and {outtype} is none.",
            where="outtype",
            remedy="Choose a mix such as q8_0 or q4_k_m.",
        )

    def kind(info: TensorInfo) -> str:
        if outtype in MIXES or not is_quantised(info.name, info.shape):
            return mixed.get(info.name, "F32")
        return info.dtype if outtype == "auto" else outtype.upper()

    ordered = sorted(tensors, key=lambda info: in_file_order(info.name))
    return [TensorInfo(info.name, kind(info), info.shape) for info in ordered]


def _record(passage: FilePassage, name: str, read: Read, info: TensorInfo, result: Array) -> None:
    """What became of a tensor; rows are still where they were."""
    if info.dtype == read.dtype:
        passage.keep(name, read)
    elif info.dtype in FLOATS:
        passage.cast(name, read, result, info.dtype)
    else:
        passage.record(_quantised, name, read, info, result)


def _quantised(
    name: str, read: Read, info: TensorInfo, result: Array
) -> Iterator[tuple[str, Record]]:
    error = relative_error(read.bits, read.dtype, result, info.dtype)
    yield name, Record(
        f"quantised: {info.dtype}, relative RMS error {error:.3g}",
        read.dtype, read.bits.shape, read.sha256.result(), [name],
        {"output_dtype": info.dtype, "output_sha256": tensor_sha256(result)},
    )  # fmt: skip


def _write(file: BinaryIO, bits: Array) -> None:
    content = bytes_of(bits)
    file.write(content)
    file.write(bytes(aligned(content.nbytes) - content.nbytes))


def _names(checkpoint: HfCheckpoint, shape: LlamaShape, notes: list[str]) -> dict[str, str]:
    """GGUF's name of every tensor: Hugging Face's."""
    names: dict[str, str] = {}
    for name in checkpoint.names():
        info, ours = checkpoint.info(name), to_gguf_name(name)
        if is_recomputed(name):
            notes.append(f"{name} was left out: it follows from rope_theta")
        elif name == HEAD and shape.tied and _is_embedding(checkpoint):
            notes.append("lm_head.weight is the embedding and was left out, as config.json says")
        elif ours is None:
            raise LessonkitError(
                f"The tensor {name} has no place in such a model.",
                where=checkpoint.file_of(name),
                remedy="Experts, adapters and other additions are not converted here.",
            )
        elif info.dtype not in ("F32", "F16", "BF16"):
            raise LessonkitError(
                f"{name} is {info.dtype}; F32, F16 and BF16 are converted to GGUF.",
                where=checkpoint.file_of(name),
                remedy="Start from the original weights, or cast them to F32 first.",
            )
        else:
            names[ours] = name
    return names


def _is_embedding(checkpoint: HfCheckpoint) -> bool:
    """Does a tied head that is stored all the same hold the embedding's own bytes?"""
    if (
        EMBEDDING not in checkpoint
        or checkpoint.info(EMBEDDING).dtype != checkpoint.info(HEAD).dtype
    ):
        return False
    same = same_bytes(*(checkpoint.array(name).reshape(-1) for name in (EMBEDDING, HEAD)))
    for name in (EMBEDDING, HEAD):
        checkpoint.release(name)
    return same


def _require_shape(
    source_of: dict[str, str], shapes: dict[str, tuple[int, ...]], shape: LlamaShape,
    checkpoint: HfCheckpoint,
) -> None:  # fmt: skip
    """All tensors that config.json leads to, in its shapes; llama.cpp would only crash."""
    wanted = {to_gguf_name(pair.hf): shape.shape_of(pair) for pair in pairs(shape.layers)}
    if shape.tied:
        wanted.pop("output.weight", None)
    for name, expected in wanted.items():
        found = shapes.get(str(name))
        if found != expected:
            what = "is missing" if found is None else f"has the shape {list(found)}"
            raise LessonkitError(
                f"{source_of.get(str(name), name)} {what}; config.json leads to {list(expected)}.",
                where=checkpoint.path,
                remedy="Fetch the checkpoint again; config.json and the weights must belong "
                "together.",
            )


def _file_type(outtype: str, tensors: Sequence[TensorInfo]) -> int:
    """`general.file_type`: the mix's, or that of the type most of the matrices' values have."""
    if outtype in MIXES:
        return MIXES[outtype].file_type
    counts: dict[str, int] = {}
    for info in tensors:
        if len(info.shape) > 1:
            counts[info.dtype] = counts.get(info.dtype, 0) + info.count
    most = max(counts, key=lambda kind: counts[kind])
    return MIXES["q4_0"].file_type if most == "Q4_0" else FILE_TYPES[most]


def _require_q4_0_grid(
    outtype: str, importance: ImportanceMatrix | None, checkpoint: HfCheckpoint
) -> None:
    """GPTQ replaces the search that an importance matrix would guide, and needs the original."""
    if outtype != "q4_0" or importance is not None or isinstance(checkpoint, UnpackedCheckpoint):
        raise LessonkitError(
            "GPTQ chooses codes for q4_0 only, without an importance matrix, from weights that "
            "are not quantised yet.",
            where="method",
            remedy="Use --outtype q4_0 --method gptq and no --imatrix.",
        )


def _require_fit(importance: ImportanceMatrix, plan: GgufPlan) -> None:
    """Was the importance matrix measured on this model?"""
    shapes = {info.name: info.shape for info in plan.tensors}
    for name, values in importance.entries.items():
        if name not in shapes or len(values) != shapes[name][-1]:
            raise LessonkitError(
                f"The importance matrix speaks of {len(values)} columns of {name}; the model has "
                + (f"{shapes[name][-1]}." if name in shapes else "no such tensor."),
                where=importance.name,
                remedy="Measure one on this model: lessonkit imatrix.",
            )
