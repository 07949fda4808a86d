"""A LoRA adapter as a GGUF file, for llama.cpp's `--lora`.

    general.type = "adapter", adapter.type = "lora", adapter.lora.alpha
    blk.0.attn_q.weight.lora_a, blk.0.attn_q.weight.lora_b, ...

llama.cpp multiplies every change by alpha / rank, one alpha for the file (`src/llama-adapter.h`);
its own converter writes `lora_alpha` and looks at no other option, so that a rank-stabilised
adapter comes out too weak by the root of the rank. Here alpha is chosen so that most layers are
right as they stand, and where a layer needs another, the rest is folded into its B.
"""

from __future__ import annotations

import os
from collections import Counter
from collections.abc import Sequence
from pathlib import Path
from typing import Any

import numpy as np

from lessonkit.convert.adapter import Adapter, LowRank
from lessonkit.convert.hf_checkpoint import HfCheckpoint
from lessonkit.convert.lora import merge
from lessonkit.convert.lora_checks import require_fit
from lessonkit.errors import LessonkitError
from lessonkit.files.atomic import atomic_file
from lessonkit.files.dtypes import Array, to_float32
from lessonkit.llama.layout import EMBEDDING, halves_to_pairs
from lessonkit.llama.shape import LlamaShape


def adapter_to_gguf(
    adapter: str | os.PathLike[str],
    out: str | os.PathLike[str],
    *,
    base: str | os.PathLike[str],
    force: bool = False,
) -> dict[str, float]:
    """Write a PEFT LoRA as GGUF; returns the factor folded into each layer's B (1: none).

    `base` is the Llama that it belongs to: the adapter does not say how many heads there are,
    and the rows of q and k (so of their B) change places, as in every GGUF of a Llama. A and B
    are written as float32. DoRA, saved tensors and biases have no place in such a file: merge
    them instead, or see `switchable`.
    """
    opened = Adapter(adapter)
    _require_plain(opened)
    return _to_gguf(opened, Path(base), out, force)


def switchable(
    base: str | os.PathLike[str],
    adapters: Sequence[str | os.PathLike[str]],
    folder: str | os.PathLike[str],
) -> tuple[Path, list[Path]]:
    """A base and GGUF adapters, so that llama.cpp can add each adapter's change or leave it out.

    What an adapter adds to weights goes into its own file, `folder`/adapter-N.gguf. What it
    *replaces* (a saved embedding, the rows of a larger vocabulary) cannot be switched: for all
    adapters, in order, it goes into the base, which is then `folder`/base. Without such adapters
    the base is the one that was given.
    """
    opened, path = [Adapter(adapter) for adapter in adapters], Path(base)
    if any(adapter.saved or adapter.rows for adapter in opened):
        path = Path(folder) / "base"
        merge(base, adapters, path, added=False)
    files = [Path(folder) / f"adapter-{number}.gguf" for number in range(len(opened))]
    for adapter, file in zip(opened, files, strict=True):
        part = adapter.adding()
        _require_plain(part)
        _to_gguf(part, path, file, force=False)
    return path, files


def _to_gguf(
    opened: Adapter, base: Path, out: str | os.PathLike[str], force: bool
) -> dict[str, float]:
    source = HfCheckpoint(base)
    shape = source.shape
    if shape is None:
        raise LessonkitError(
            "The base is no Llama that this could be written for.",
            where=source.config_file,
            remedy="Name the folder of the base, with its config.json.",
        )
    require_fit(source, [opened])
    names = _gguf_names(opened, shape)
    alphas = {name: part.scale * part.rank for name, part in opened.low_rank.items()}
    alpha = float(np.float32(Counter(alphas.values()).most_common(1)[0][0]))
    folded = {n: 1.0 if np.float32(a) == np.float32(alpha) else a / alpha
              for n, a in alphas.items()}  # fmt: skip
    with atomic_file(out, magic=b"GGUF", force=force, protect=[opened.path, base]) as file:
        _write(Path(file.name), opened, shape, names, alpha, folded)
    return folded


def _write(
    path: Path,
    adapter: Adapter,
    shape: LlamaShape,
    names: dict[str, str],
    alpha: float,
    folded: dict[str, float],
) -> None:
    import gguf

    writer: Any = gguf.GGUFWriter(path, "llama")
    writer.add_type(gguf.GGUFType.ADAPTER)
    writer.add_name(adapter.name)
    writer.add_string(gguf.Keys.Adapter.TYPE, "lora")
    writer.add_float32(gguf.Keys.Adapter.LORA_ALPHA, alpha)
    for name, part in adapter.low_rank.items():
        a, b = _factors(adapter, name, part, shape)
        writer.add_tensor(f"{names[name]}.lora_a", a)
        writer.add_tensor(f"{names[name]}.lora_b", b * np.float32(folded[name]))
    writer.write_header_to_file()
    writer.write_kv_data_to_file()
    writer.write_tensors_to_file()
    writer.close()


def _factors(adapter: Adapter, name: str, part: LowRank, shape: LlamaShape) -> tuple[Array, Array]:
    """A and B in float32, in llama.cpp's row order."""
    a, b = (
        np.ascontiguousarray(
            to_float32(adapter.weights.array(key), adapter.weights.info(key).dtype)
        )
        for key in (part.a, part.b)
    )
    if name == EMBEDDING:
        return np.ascontiguousarray(a.T), b  # llama.cpp looks rows of A up, as of the embedding
    for layer, heads in (("q_proj", shape.heads), ("k_proj", shape.kv_heads)):
        if part.module.endswith(layer):
            b = np.ascontiguousarray(halves_to_pairs(b, heads))
    return a, b


def _gguf_names(adapter: Adapter, shape: LlamaShape) -> dict[str, str]:
    """llama.cpp's names of the weights."""
    import gguf

    table = gguf.get_tensor_name_map(gguf.MODEL_ARCH.LLAMA, shape.layers)
    names = {name: table.get_name(name, try_suffixes=(".weight",)) for name in adapter.low_rank}
    for name, found in names.items():
        if found is None:
            raise LessonkitError(
                f"llama.cpp has no name for {name}.",
                where=adapter.path,
                remedy="Merge the adapter, and convert the merged model.",
            )
    return names


def _require_plain(adapter: Adapter) -> None:
    dora = any(part.magnitude for part in adapter.low_rank.values())
    biases = any(part.bias for part in adapter.low_rank.values())
    for found, what in (
        (dora, "is a DoRA"),
        (adapter.saved, "saves whole tensors (modules_to_save)"),
        (adapter.rows, "replaces rows of the embedding (trainable_token_indices)"),
        (biases, "has biases (lora_bias)"),
        (any(p.transposed for n, p in adapter.low_rank.items() if n != EMBEDDING),
         "is turned over (fan_in_fan_out)"),
    ):  # fmt: skip
        if found:
            raise LessonkitError(
                f"The adapter {what}, which a GGUF adapter cannot hold.",
                where=adapter.path,
                remedy="Merge it (lessonkit merge) and convert the merged model.",
            )
