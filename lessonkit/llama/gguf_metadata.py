"""A model's sizes as GGUF's metadata, and back; Llama 3's rotation as a tensor.

Keys and their order are those of llama.cpp's converter (`conversion/base.py`,
`conversion/llama.py`).
"""

from __future__ import annotations

import math
from collections.abc import Mapping
from pathlib import Path
from typing import Any

import numpy as np

from lessonkit.errors import LessonkitError
from lessonkit.files.dtypes import Array
from lessonkit.llama.configs import read_context, read_sizes
from lessonkit.llama.gguf_names import ARCHITECTURES
from lessonkit.llama.shape import LlamaShape

QUANTIZATION_VERSION = 2
FILE_TYPES = {"F32": 0, "F16": 1, "BF16": 32}
"""`general.file_type` of files that are not quantised; the mixes know their own."""


def architecture_of(config: Mapping[str, Any], path: Path) -> str:
    """What GGUF calls this kind of model; LessonkitError for kinds that need more than names."""
    kind = config.get("model_type")
    if config.get("quantization_config"):
        raise LessonkitError(
            "The model is quantised; its tensors hold codes, not weights.",
            where=path,
            remedy="Start from the original checkpoint.",
        )
    if not isinstance(kind, str) or kind not in ARCHITECTURES:
        raise LessonkitError(
            f"The model is of the type {kind!r}.",
            where=path,
            remedy="Written here are " + ", ".join(ARCHITECTURES) + "; for others use llama.cpp's "
            "convert_hf_to_gguf.py.",
        )
    return ARCHITECTURES[kind]


def model_metadata(
    config: Mapping[str, Any], path: Path, *, name: str, parameters: int, file_type: int
) -> dict[str, Any]:
    """The keys `general.*` and those under the architecture's name.

    `config` is the content of `config.json`, `path` where it lies; `parameters` counts weights.
    """
    shape = read_sizes(config, path)
    kind = architecture_of(config, path)
    rope = _rope(config)
    own: dict[str, Any] = {
        "block_count": shape.layers,
        "context_length": read_context(config, path),
        "embedding_length": shape.width,
        "feed_forward_length": shape.mlp_width,
        "attention.head_count": shape.heads,
        "attention.head_count_kv": shape.kv_heads,
        **_scaling(rope, path),
        "rope.freq_base": float(shape.rope_theta),
        "attention.layer_norm_rms_epsilon": float(shape.norm_eps),
        "attention.key_length": shape.head_size,
        "attention.value_length": shape.head_size,
        "vocab_size": shape.vocabulary,
        "rope.dimension_count": shape.head_size,
    }
    return {
        "general.architecture": kind,
        "general.type": "model",
        "general.name": name,
        "general.size_label": size_label(parameters),
        **{f"{kind}.{key}": value for key, value in own.items() if value is not None},
        "general.file_type": file_type,
        "general.quantization_version": QUANTIZATION_VERSION,
    }


def size_label(parameters: int) -> str:
    """Two digits and a letter: 6.0M, 1.1B (GGUF's naming convention)."""
    for letter, unit in (("T", 1e-12), ("B", 1e-9), ("M", 1e-6), ("K", 1e-3)):
        if parameters * unit > 1 or letter == "K":
            scaled = parameters * unit
            digits = max(2 - len(str(round(scaled)).lstrip("0")), 0)
            return f"{scaled:.{digits}f}{letter}"
    raise AssertionError("the last unit takes everything")


def rope_factors(config: Mapping[str, Any]) -> Array | None:
    """By how much Llama 3.1 and later slow each rotation: float32 [head size / 2], or None.

    Short waves (high frequencies) are kept, long ones slowed by `factor`, those between in
    proportion. Formula: `_compute_llama3_parameters` in transformers' modeling_rope_utils.py;
    computed in float32, as llama.cpp's converter does.
    """
    rope = _rope(config)
    if _kind(rope) != "llama3":
        return None
    size = config.get("head_dim") or config["hidden_size"] // config["num_attention_heads"]
    steps = np.arange(0, size, 2, dtype=np.float32) / np.float32(size)
    theta = float({**config, **rope}.get("rope_theta", 10_000.0))
    waves = 2 * math.pi * np.float64(1) / (np.float32(1) / np.float32(theta) ** steps)
    factor, low, high = (
        float(rope.get(key, default))
        for key, default in (("factor", 8), ("low_freq_factor", 1), ("high_freq_factor", 4))
    )
    context = rope.get("original_max_position_embeddings", 8192)
    smooth = (context / waves - low) / (high - low)
    between = 1 / ((1 - smooth) / factor + smooth)
    slowed = np.where(waves > context / low, factor, between)
    return np.where(waves < context / high, 1.0, slowed).astype(np.float32)


def read_model_metadata(metadata: Mapping[str, Any], path: Path) -> LlamaShape:
    """The sizes in a GGUF file's metadata; LessonkitError for other kinds of models."""
    kind = metadata.get("general.architecture")
    if kind not in ARCHITECTURES.values():
        raise LessonkitError(
            f"The file holds a model of the architecture {kind!r}.",
            where=path,
            remedy="Known here are " + ", ".join(sorted(set(ARCHITECTURES.values()))) + ".",
        )
    return read_sizes(_sizes(metadata, str(kind)), path)


def hf_config_of(metadata: Mapping[str, Any], path: Path, *, tied: bool) -> dict[str, Any]:
    """The content of `config.json` for a GGUF file's model, without dtype and token ids."""
    read_model_metadata(metadata, path)
    kind = str(metadata["general.architecture"])
    sizes = _sizes(metadata, kind)
    config = {
        "architectures": [f"{kind.capitalize()}ForCausalLM"],
        "model_type": kind,
        **{key: value for key, value in sizes.items() if value is not None},
        "hidden_act": "silu",
        "tie_word_embeddings": tied,
    }
    scaling = metadata.get(f"{kind}.rope.scaling.type")
    if scaling in ("linear", "yarn"):
        factor = metadata.get(f"{kind}.rope.scaling.factor")
        if factor is None:
            raise LessonkitError(
                f"The rotation is stretched ({scaling}), and the file does not say by how much.",
                where=path,
                remedy="Take config.json from the original model.",
            )
        config["rope_scaling"] = {"rope_type": scaling, "factor": factor}
        original = metadata.get(f"{kind}.rope.scaling.original_context_length")
        if original is not None:
            config["rope_scaling"]["original_max_position_embeddings"] = original
    return config


def _sizes(metadata: Mapping[str, Any], kind: str) -> dict[str, Any]:
    def value(key: str, default: Any = None) -> Any:
        return metadata.get(f"{kind}.{key}", default)

    tokens = metadata.get("tokenizer.ggml.tokens")
    return {
        "vocab_size": value("vocab_size", len(tokens) if isinstance(tokens, list) else None),
        "hidden_size": value("embedding_length"),
        "intermediate_size": value("feed_forward_length"),
        "num_hidden_layers": value("block_count"),
        "num_attention_heads": value("attention.head_count"),
        "num_key_value_heads": value("attention.head_count_kv"),
        "head_dim": value("attention.key_length"),
        "max_position_embeddings": value("context_length"),
        # A float32 such as 9.99999974e-06 was written as 1e-05.
        "rms_norm_eps": _shortest(value("attention.layer_norm_rms_epsilon")),
        "rope_theta": _shortest(value("rope.freq_base", 10_000.0)),
    }


def _shortest(value: Any) -> Any:
    """The shortest number that is the same float32."""
    return float(str(np.float32(value))) if isinstance(value, float) else value


def _rope(config: Mapping[str, Any]) -> dict[str, Any]:
    return dict(config.get("rope_parameters") or config.get("rope_scaling") or {})


def _kind(rope: Mapping[str, Any]) -> Any:
    return rope.get("rope_type", rope.get("type", "default"))


def _scaling(rope: Mapping[str, Any], path: Path) -> dict[str, Any]:
    """Keys for a stretched rotation. Llama 3's is a tensor instead: :func:`rope_factors`."""
    kind = _kind(rope)
    if kind in ("default", "llama3", None):
        return {}
    if kind not in ("linear", "yarn"):
        raise LessonkitError(
            f"The rotary scaling is {kind!r}.",
            where=path,
            remedy="Written here are default, linear, yarn and llama3.",
        )
    needed = ("factor", "original_max_position_embeddings")[: 2 if kind == "yarn" else 1]
    if lacking := [key for key in needed if key not in rope]:
        raise LessonkitError(
            f"The rotary scaling {kind!r} lacks {' and '.join(lacking)}.",
            where=path,
            remedy="Fetch config.json again, or add what its card says.",
        )
    keys = {"rope.scaling.type": kind, "rope.scaling.factor": float(rope["factor"])}
    if kind == "yarn":
        keys["rope.scaling.original_context_length"] = rope["original_max_position_embeddings"]
        for key, name in (("attention_factor", "attn_factor"), ("beta_fast", "beta_fast"),
                          ("beta_slow", "beta_slow")):  # fmt: skip
            if rope.get(key) is not None:
                keys[f"rope.scaling.yarn_{name}"] = float(rope[key])
    return keys
