"""How large will it be? Every output of the course, and the memory to run it, before any work.

Sizes follow from the shapes alone: a type has so many bytes a block, a mix so many tensors of
each type. With a model's folder a GGUF file's size is exact, its metadata included; with sizes
alone the vocabulary and the other metadata are left out.
"""

from __future__ import annotations

import os
from collections.abc import Iterable
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from lessonkit.convert.gguf import GgufPlan, choose_types, header_metadata
from lessonkit.convert.gguf_mix import MIXES
from lessonkit.errors import LessonkitError
from lessonkit.files.checkpoint import read_json
from lessonkit.files.gguf import is_gguf
from lessonkit.files.safetensors import TensorInfo
from lessonkit.formats.double_quant import NESTED_BLOCK
from lessonkit.llama.configs import read_context, read_sizes
from lessonkit.llama.gguf_metadata import architecture_of, rope_factors
from lessonkit.llama.gguf_names import ROPE_FACTORS, to_gguf_name
from lessonkit.llama.layout import pairs
from lessonkit.llama.shape import LlamaShape, context_of

CACHE_BITS = {"16 bits": 16.0, "q8_0": 8.5, "q4_0": 4.5}
"""Bits of a value in a key/value cache, scales included."""
_NF4_BLOCK, _GPTQ_GROUP = 64, 128


@dataclass(frozen=True)
class Output:
    """One possible output: its size on disk, of which `parameters` take so many bits each."""

    name: str
    nbytes: int
    parameters: int

    @property
    def bits_per_weight(self) -> float:
        """Bits for each weight, all that is in the file included."""
        return 8 * self.nbytes / self.parameters


@dataclass(frozen=True)
class Plan:
    """`outputs` by name; `cache` the bytes of keys and values for `context` tokens, by type.

    `exact` says that a GGUF output is the whole file, and not only its tensors and their table.
    """

    shape: LlamaShape
    parameters: int
    outputs: dict[str, Output]
    context: int
    cache: dict[str, int]
    exact: bool

    def memory(self, output: str, cache: str = "16 bits") -> int:
        """Bytes to run an output: weights and the whole cache; working memory comes on top."""
        if output not in self.outputs or cache not in self.cache:
            raise LessonkitError(
                f"There is no output {output!r} with a cache {cache!r}.",
                where="plan",
                remedy=f"Outputs: {', '.join(self.outputs)}; caches: {', '.join(self.cache)}.",
            )
        return self.outputs[output].nbytes + self.cache[cache]

    def __str__(self) -> str:
        caches = ", ".join(f"{name} {nbytes:,}" for name, nbytes in self.cache.items())
        note = "whole files" if self.exact else "tensors and their table; metadata comes on top"
        lines = [
            f"shape       {self.shape}",
            f"parameters  {self.parameters:,}",
            f"cache       for {self.context:,} tokens, bytes: {caches}",
            f"GGUF sizes  {note}",
            "",
            f"{'output':12} {'bytes':>17} {'bits/weight':>11} {'to run, 16-bit cache':>21}",
        ]
        lines += [
            f"{name:12} {out.nbytes:17,} {out.bits_per_weight:11.3f} {self.memory(name):21,}"
            for name, out in self.outputs.items()
        ]
        return "\n".join(lines)


def plan(model: str | os.PathLike[str] | LlamaShape, *, context: int | None = None) -> Plan:
    """Predict the size of every output.

    `model` is a folder in Hugging Face's form (weights are not looked at: `config.json`, and the
    tokenizer for exact GGUF sizes, are enough), a `config.json`, or sizes. `context` is the
    number of tokens that the cache is to hold: the model's longest text unless given.
    """
    if isinstance(model, LlamaShape):
        return _plan(model, None, None, context or context_of(model)[0])
    path = Path(model)
    if path.is_file() and is_gguf(path):
        raise LessonkitError(
            "This is a GGUF file; a plan is made from the model that it comes from.",
            where=path,
            remedy="Name the folder with config.json. What is in this file: lessonkit info.",
        )
    file = path / "config.json" if path.is_dir() else path
    config = read_json(file)
    shape = read_sizes(config, file)
    folder = path if path.is_dir() else None
    longest = read_context(config, file) or context_of(shape)[0]
    return _plan(shape, config, folder, context or longest)


def _plan(
    shape: LlamaShape, config: dict[str, Any] | None, folder: Path | None, context: int
) -> Plan:
    tensors = hf_tensors(shape)
    parameters = sum(info.count for info in tensors)
    sizes: dict[str, int] = {"fp16, bf16": 2 * parameters}
    for name in ("f32", "f16", "bf16", *MIXES):
        sizes[name] = _gguf_bytes(tensors, name, shape, config, folder)
    linear = [info for info in tensors if _is_linear(info)]
    rest = 2 * (parameters - sum(info.count for info in linear))
    sizes["nf4"] = rest + sum(map(_nf4_bytes, linear))
    sizes["nf4 double"] = rest + sum(map(_nf4_double_bytes, linear))
    sizes["awq"] = rest + sum(map(_awq_bytes, linear))
    sizes["gptq"] = sizes["awq"] + 4 * sum(info.shape[1] for info in linear)  # g_idx, int32
    values = 2 * shape.layers * shape.kv_heads * shape.head_size * context
    return Plan(
        shape,
        parameters,
        {name: Output(name, nbytes, parameters) for name, nbytes in sizes.items()},
        context,
        {name: int(values * bits / 8) for name, bits in CACHE_BITS.items()},
        exact=folder is not None,
    )


def hf_tensors(shape: LlamaShape, dtype: str = "BF16") -> list[TensorInfo]:
    """The tensors of a Llama of these sizes, under Hugging Face's names."""
    return [
        TensorInfo(pair.hf, dtype, shape.shape_of(pair))
        for pair in pairs(shape.layers)
        if not (shape.tied and pair.hf == "lm_head.weight")
    ]


def _gguf_bytes(
    tensors: Iterable[TensorInfo], outtype: str, shape: LlamaShape,
    config: dict[str, Any] | None, folder: Path | None,
) -> int:  # fmt: skip
    own = [TensorInfo(str(to_gguf_name(i.name)), i.dtype, i.shape) for i in tensors]
    # llama.cpp refuses q2_k_s without an importance matrix.
    imatrix = outtype == "q2_k_s"
    kind = (
        "llama" if config is None else architecture_of(config, (folder or Path()) / "config.json")
    )
    types = choose_types(own, outtype, kind, shape, imatrix=imatrix)
    if config is not None and (factors := rope_factors(config)) is not None:
        types.append(TensorInfo(ROPE_FACTORS, "F32", factors.shape))
    metadata: dict[str, Any] = {}
    if config is not None and folder is not None:
        parameters = sum(info.count for info in own)
        metadata, _ = header_metadata(config, folder, outtype, types, parameters)
    return GgufPlan(kind, shape, metadata, types, {}, []).nbytes


def _is_linear(info: TensorInfo) -> bool:
    return "_proj.weight" in info.name


def _nf4_bytes(info: TensorInfo) -> int:
    """Codes, float32 scales, the 16 values; the few bytes of JSON are left out."""
    return info.count // 2 + 4 * _blocks(info) + 64


def _nf4_double_bytes(info: TensorInfo) -> int:
    nested = -(-_blocks(info) // NESTED_BLOCK)
    return info.count // 2 + _blocks(info) + 4 * nested + 64 + 4 * 256


def _awq_bytes(info: TensorInfo) -> int:
    """4 bits, groups of 128: codes, float16 scales, 4-bit zeros."""
    rows, columns = info.shape
    groups = -(-columns // _GPTQ_GROUP) * rows
    return info.count // 2 + 2 * groups + groups // 2


def _blocks(info: TensorInfo) -> int:
    return -(-info.count // _NF4_BLOCK)
