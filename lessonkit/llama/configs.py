"""A Llama's sizes in Hugging Face's `config.json` and in Meta's `params.json`: read, written."""

from __future__ import annotations

import os
from collections.abc import Mapping
from pathlib import Path
from typing import Any

from lessonkit.errors import LessonkitError
from lessonkit.llama.shape import LlamaShape, meta_mlp_width

# Beyond what any model has: larger numbers would make tables that fill the memory.
_MOST = {"num_hidden_layers": 10_000, "n_layers": 10_000, "vocab_size": 1 << 22}
_LARGEST = 1 << 31
_ORIGINAL_CONTEXT = 8192  # of Llama 3, before 3.1 stretched it


def hf_config(
    shape: LlamaShape, *, dtype: str, context: int, ids: Mapping[str, Any]
) -> dict[str, Any]:
    """The content of `config.json`. `dtype` is torch's name; `ids` the special token ids.

    The rotary settings have the names that transformers 4 writes and 5 also reads.
    """
    scaling = None
    if shape.rope_factor is not None:
        scaling = {
            "rope_type": "llama3",
            "factor": shape.rope_factor,
            "low_freq_factor": 1.0,
            "high_freq_factor": shape.rope_high,
            "original_max_position_embeddings": _ORIGINAL_CONTEXT,
        }
    return {
        "architectures": ["LlamaForCausalLM"],
        "model_type": "llama",
        "vocab_size": shape.vocabulary,
        "hidden_size": shape.width,
        "intermediate_size": shape.mlp_width,
        "num_hidden_layers": shape.layers,
        "num_attention_heads": shape.heads,
        "num_key_value_heads": shape.kv_heads,
        "head_dim": shape.head_size,
        "hidden_act": "silu",
        "max_position_embeddings": context,
        "rms_norm_eps": shape.norm_eps,
        "rope_theta": shape.rope_theta,
        "rope_scaling": scaling,
        "attention_bias": False,
        "mlp_bias": False,
        "tie_word_embeddings": shape.tied,
        "torch_dtype": dtype,
        "bos_token_id": None,  # else transformers would assume 1 and 2
        "eos_token_id": None,
        **ids,
    }


def read_sizes(config: Mapping[str, Any], where: str | os.PathLike[str]) -> LlamaShape:
    """The sizes in the `config.json` of any Llama, whatever else it says.

    Rotary scaling of another kind than Llama 3's is left out. Raises `LessonkitError` for sizes
    that make no sense; `where` is named in it.
    """
    path = Path(where)
    heads, width = _size(config, "num_attention_heads", path), _size(config, "hidden_size", path)
    head_dim = config.get("head_dim")
    if head_dim is None and width % heads:
        raise _damaged(f"{heads} heads do not fill the width {width}", path)
    own = None if head_dim in (None, width // heads) else _size(config, "head_dim", path)
    theta, factor, high = _read_rope(config, path)
    shape = LlamaShape(
        width=width,
        layers=_size(config, "num_hidden_layers", path),
        heads=heads,
        kv_heads=_size(config, "num_key_value_heads", path, default=heads),
        mlp_width=_size(config, "intermediate_size", path),
        vocabulary=_size(config, "vocab_size", path),
        norm_eps=_number(config, "rms_norm_eps", path, default=1e-6),
        rope_theta=theta,
        rope_factor=factor,
        rope_high=high,
        tied=bool(config.get("tie_word_embeddings", False)),
        head_dim=own,
    )
    if shape.heads % shape.kv_heads:
        raise _damaged(f"{shape.kv_heads} key/value heads do not divide {heads} heads", path)
    return shape


def read_context(config: Mapping[str, Any], path: Path) -> int | None:
    """The longest text in tokens, where `config.json` says it."""
    key = "max_position_embeddings"
    return None if config.get(key) is None else _size(config, key, path)


def read_hf_config(config: Mapping[str, Any], path: str | os.PathLike[str]) -> LlamaShape:
    """The sizes in a `config.json`, as transformers 4 or 5 writes it.

    Raises `LessonkitError` for what Meta's form cannot express.
    """
    path = Path(path)
    if config.get("model_type") != "llama":
        raise _cannot(f"The model is of the type {config.get('model_type')!r}, not a Llama", path)
    if config.get("quantization_config"):
        raise _cannot("The model is quantised; its tensors hold codes, not weights", path)
    if config.get("attention_bias") or config.get("mlp_bias"):
        raise _cannot("The model has biases", path)
    if config.get("hidden_act", "silu") not in ("silu", "swish"):
        raise _cannot(f"The activation is {config['hidden_act']!r}, not SiLU", path)
    shape = read_sizes(config, path)
    if shape.head_dim is not None:
        raise _cannot(
            f"{shape.heads} heads (head_dim {shape.head_dim}) do not fill the width {shape.width}",
            path,
        )
    rope = _rope_settings(config, path)
    if _rope_kind(rope) != "default" and shape.rope_factor is None:
        raise _cannot(f"The rotary scaling {rope} is none of Meta's", path)
    return shape


def meta_params(shape: LlamaShape) -> dict[str, Any]:
    """The content of `params.json`, with no key that Meta's code for this Llama would refuse."""
    multiple_of, multiplier = _mlp_rule(shape)
    params: dict[str, Any] = {
        "dim": shape.width,
        "n_layers": shape.layers,
        "n_heads": shape.heads,
        "vocab_size": shape.vocabulary,
        "multiple_of": multiple_of,
        "norm_eps": shape.norm_eps,
    }
    if shape.kv_heads != shape.heads:
        params["n_kv_heads"] = shape.kv_heads
    if multiplier is not None:
        params["ffn_dim_multiplier"] = multiplier
    if shape.rope_theta != 10_000:
        params["rope_theta"] = shape.rope_theta
    if shape.rope_factor is not None:
        params["use_scaled_rope"] = True
        params["rope_scaling_factor"] = shape.rope_factor
        params["rope_high_freq_factor"] = shape.rope_high
    return params


def read_meta_params(
    params: Mapping[str, Any], path: Path, *, mlp_width: int, vocabulary: int, tied: bool
) -> tuple[LlamaShape, list[str]]:
    """The sizes in a `params.json`, completed by what only the tensors say; and notes.

    `mlp_width` are the rows of `w1`, `vocabulary` those of the embedding, over all shards.
    """
    notes: list[str] = []
    heads, width = _size(params, "n_heads", path), _size(params, "dim", path)
    kv_heads = heads
    if params.get("n_kv_heads") is not None:
        kv_heads = _size(params, "n_kv_heads", path)
    if width % heads or heads % kv_heads:
        raise _damaged(f"{heads} heads, {kv_heads} of them key/value, do not fill {width}", path)
    said = params.get("vocab_size", -1)
    if said == -1:
        notes.append(f"params.json leaves the vocabulary open; the embedding has {vocabulary} rows")
    elif said != vocabulary:
        raise _damaged(
            f"params.json says vocab_size {said}, the embedding has {vocabulary} rows", path,
            "Find out which tokenizer the model was trained with; do not edit params.json to fit.",
        )  # fmt: skip
    notes += _check_mlp_width(params, width, mlp_width, path)
    factor = None
    if params.get("use_scaled_rope"):
        factor = _number(params, "rope_scaling_factor", path, default=32.0 if tied else 8.0)
        if "rope_scaling_factor" not in params:
            notes.append(
                f"params.json does not give the rope scaling factor; {factor:g} was taken, as in "
                + ("Llama 3.2 (tied embeddings)" if tied else "Llama 3.1 and 3.3")
            )
    return LlamaShape(
        width=width,
        layers=_size(params, "n_layers", path),
        heads=heads,
        kv_heads=kv_heads,
        mlp_width=mlp_width,
        vocabulary=vocabulary,
        norm_eps=_number(params, "norm_eps", path),
        rope_theta=_number(params, "rope_theta", path, default=10_000.0),
        rope_factor=factor,
        rope_high=_number(params, "rope_high_freq_factor", path, default=4.0),
        tied=tied,
    ), notes  # fmt: skip


def _check_mlp_width(
    params: Mapping[str, Any], width: int, mlp_width: int, path: Path
) -> list[str]:
    if "multiple_of" not in params:
        return [f"params.json gives no feed-forward size; w1 has {mlp_width} rows"]
    multiplier = params.get("ffn_dim_multiplier")
    computed = meta_mlp_width(
        width,
        _size(params, "multiple_of", path),
        None if multiplier is None else _number(params, "ffn_dim_multiplier", path),
    )
    if computed != mlp_width:
        return [
            f"params.json leads to a feed-forward size of {computed}, but w1 has {mlp_width} rows: "
            "the tensors are right"
        ]
    return []


def _mlp_rule(shape: LlamaShape) -> tuple[int, float | None]:
    """`multiple_of` and `ffn_dim_multiplier` that lead to this feed-forward width."""
    sizes = [256, 1024, 4096, 512, 128, 64, 32, 16, 8, 4, 2, 1]
    for multiple_of in sizes:
        if meta_mlp_width(shape.width, multiple_of, None) == shape.mlp_width:
            return multiple_of, None
    base = int(2 * (4 * shape.width) / 3)
    for multiple_of in sizes:
        for multiplier in (1.3, 1.5, shape.mlp_width / base, (shape.mlp_width + 0.5) / base):
            if meta_mlp_width(shape.width, multiple_of, multiplier) == shape.mlp_width:
                return multiple_of, multiplier
    raise AssertionError(f"no rule gives the feed-forward width {shape.mlp_width}")


def _rope_settings(config: Mapping[str, Any], path: Path) -> dict[str, Any]:
    """The rotary settings, under the names of transformers 4 or 5."""
    rope = config.get("rope_parameters") or config.get("rope_scaling") or {}
    if not isinstance(rope, dict):
        raise _damaged(f"The rotary settings are {rope!r}, not an object", path)
    return rope


def _rope_kind(rope: Mapping[str, Any]) -> Any:
    return rope.get("rope_type", rope.get("type", "default"))


def _read_rope(config: Mapping[str, Any], path: Path) -> tuple[float, float | None, float]:
    """theta, and Llama 3's factor and high-frequency factor (None and 4 without such scaling)."""
    rope = _rope_settings(config, path)
    theta = _number({**config, **rope}, "rope_theta", path, default=10_000.0)
    plain = rope.get("low_freq_factor") == 1.0 and (
        rope.get("original_max_position_embeddings") == _ORIGINAL_CONTEXT
    )
    if _rope_kind(rope) != "llama3" or not plain:
        return theta, None, 4.0
    return (
        theta,
        _number(rope, "factor", path),
        _number(rope, "high_freq_factor", path, default=4.0),
    )


def _size(values: Mapping[str, Any], key: str, path: Path, default: int | None = None) -> int:
    value = values.get(key, default) if values.get(key) is not None else default
    if type(value) is not int or value < 1:
        raise _damaged(f"{key} is {value!r}, not a positive whole number", path)
    if value > _MOST.get(key, _LARGEST):
        raise _damaged(f"{key} is larger than in any model", path)
    return value


def _number(values: Mapping[str, Any], key: str, path: Path, default: float | None = None) -> float:
    value = values.get(key, default)
    # JSON knows NaN and Infinity too; nothing in a Llama comes near the bound.
    if isinstance(value, bool) or not isinstance(value, int | float) or not 0 < value < 1e15:
        raise _damaged(f"{key} is {value!r}, not a positive number", path)
    return float(value)


def _damaged(what: str, path: Path, remedy: str = "Fetch this file again.") -> LessonkitError:
    return LessonkitError(f"{what}.", where=path, remedy=remedy)


def _cannot(what: str, path: Path) -> LessonkitError:
    return LessonkitError(
        f"{what}: Meta's form cannot express this.",
        where=path,
        remedy="Only plain Llama 1, 2 and 3 models convert to Meta's form.",
    )
