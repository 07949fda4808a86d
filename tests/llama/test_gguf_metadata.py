"""A model's sizes as GGUF's metadata and back; Llama 3's factors next to transformers' rotation."""

from __future__ import annotations

import json
from pathlib import Path
from typing import Any

import gguf
import numpy as np
import pytest
import torch
from transformers import LlamaConfig
from transformers.modeling_rope_utils import ROPE_INIT_FUNCTIONS

from lessonkit.errors import LessonkitError
from lessonkit.llama.configs import read_sizes
from lessonkit.llama.gguf_metadata import (
    FILE_TYPES,
    architecture_of,
    hf_config_of,
    model_metadata,
    read_model_metadata,
    rope_factors,
    size_label,
)

HERE = Path("config.json")
CONFIG: dict[str, Any] = {
    "model_type": "llama", "hidden_size": 64, "intermediate_size": 96, "num_hidden_layers": 2,
    "num_attention_heads": 4, "num_key_value_heads": 2, "vocab_size": 400, "rms_norm_eps": 1e-5,
    "rope_theta": 10000.0, "max_position_embeddings": 512,
}  # fmt: skip
LLAMA_3 = {
    "rope_type": "llama3", "rope_theta": 500000.0, "factor": 32.0, "low_freq_factor": 1.0,
    "high_freq_factor": 4.0, "original_max_position_embeddings": 8192,
}  # fmt: skip


def metadata(**changes: Any) -> dict[str, Any]:
    return model_metadata(
        {**CONFIG, **changes}, HERE, name="toy", parameters=6_032_128, file_type=1
    )


def test_the_embedded_models_keys_are_those_that_llama_cpp_writes(mini: Path) -> None:
    """Keys, order and values as convert_hf_to_gguf.py wrote them for this folder."""
    config = json.loads((mini / "config.json").read_bytes())
    found = model_metadata(config, HERE, name="Mini", parameters=6_032_128, file_type=32)
    assert found == {
        "general.architecture": "llama", "general.type": "model", "general.name": "Mini",
        "general.size_label": "6.0M", "llama.block_count": 5, "llama.context_length": 512,
        "llama.embedding_length": 256, "llama.feed_forward_length": 768,
        "llama.attention.head_count": 4, "llama.attention.head_count_kv": 2,
        "llama.rope.freq_base": 10000.0, "llama.attention.layer_norm_rms_epsilon": 1e-05,
        "llama.attention.key_length": 64, "llama.attention.value_length": 64,
        "general.file_type": 32, "llama.vocab_size": 4096, "llama.rope.dimension_count": 64,
        "general.quantization_version": 2,
    }  # fmt: skip


@pytest.mark.parametrize("name", FILE_TYPES)
def test_file_types_are_those_of_the_gguf_package(name: str) -> None:
    known = {"F32": "ALL_F32", "F16": "MOSTLY_F16", "BF16": "MOSTLY_BF16"}
    assert gguf.LlamaFileType[known[name]] == FILE_TYPES[name]


@pytest.mark.parametrize("parameters", [950, 5_000, 6_032_128, 99_600_000, 1_100_048_384, 7e13])
def test_size_labels_are_those_of_the_gguf_package(parameters: float) -> None:
    assert size_label(int(parameters)) == gguf.size_label(int(parameters), 0, 0, 0)


def test_the_way_back_gives_the_same_sizes() -> None:
    for kind in ("llama", "qwen2", "qwen3"):
        found = metadata(model_type=kind, head_dim=32)
        shape = read_model_metadata(found, HERE)
        assert shape == read_sizes({**CONFIG, "head_dim": 32}, HERE)
        config = hf_config_of(found, HERE, tied=True)
        assert config["model_type"] == kind and config["tie_word_embeddings"]
        assert {key: config[key] for key in CONFIG} == {**CONFIG, "model_type": kind}


def test_an_epsilon_that_was_float32_in_the_file_is_a_short_number_again() -> None:
    found = metadata() | {"llama.attention.layer_norm_rms_epsilon": float(np.float32(1e-5))}
    assert hf_config_of(found, HERE, tied=False)["rms_norm_eps"] == 1e-5


@pytest.mark.parametrize("factor", [8.0, 32.0])
def test_llama_3s_factors_slow_the_frequencies_as_transformers_does(factor: float) -> None:
    rope = {**LLAMA_3, "factor": factor}
    config = LlamaConfig(**{**CONFIG, "hidden_size": 512, "rope_parameters": rope})
    theirs, _ = ROPE_INIT_FUNCTIONS["llama3"](config, torch.device("cpu"))
    plain = 1 / 500000.0 ** (torch.arange(0, 128, 2).double() / 128)
    factors = rope_factors({**CONFIG, "hidden_size": 512, "rope_parameters": rope})
    assert factors is not None and factors.dtype == np.float32
    np.testing.assert_allclose(plain.numpy() / factors, theirs.double().numpy(), rtol=1e-5)
    assert factors[0] == 1 and factors[-1] == factor
    assert ((factors > 1) & (factors < factor)).any()  # some lie between


def test_other_rotations_have_no_factors_but_keys() -> None:
    assert rope_factors(CONFIG) is None
    linear = metadata(rope_scaling={"type": "linear", "factor": 4.0})
    assert linear["llama.rope.scaling.type"] == "linear"
    assert linear["llama.rope.scaling.factor"] == 4.0
    yarn = {"rope_type": "yarn", "factor": 4.0, "original_max_position_embeddings": 4096,
            "beta_fast": 32}  # fmt: skip
    found = metadata(rope_parameters=yarn)
    assert found["llama.rope.scaling.original_context_length"] == 4096
    assert found["llama.rope.scaling.yarn_beta_fast"] == 32.0
    back = hf_config_of(found, HERE, tied=False)["rope_scaling"]
    assert back == {"rope_type": "yarn", "factor": 4.0, "original_max_position_embeddings": 4096}
    del found["llama.rope.scaling.factor"]
    with pytest.raises(LessonkitError, match="does not say by how much"):
        hf_config_of(found, HERE, tied=False)
    with pytest.raises(LessonkitError, match="'dynamic'"):
        metadata(rope_scaling={"rope_type": "dynamic", "factor": 2.0})
    with pytest.raises(LessonkitError, match="'yarn' lacks original_max_position_embeddings"):
        metadata(rope_scaling={"rope_type": "yarn", "factor": 2.0})


def test_what_is_not_known_is_refused() -> None:
    with pytest.raises(LessonkitError, match="'gpt_neox'"):
        architecture_of({"model_type": "gpt_neox"}, HERE)
    with pytest.raises(LessonkitError, match="of the type \\['llama'\\]"):
        architecture_of({"model_type": ["llama"]}, HERE)
    with pytest.raises(LessonkitError, match="quantised"):
        architecture_of({"model_type": "llama", "quantization_config": {"bits": 4}}, HERE)
    with pytest.raises(LessonkitError, match="architecture 'bert'"):
        read_model_metadata({"general.architecture": "bert"}, HERE)
    with pytest.raises(LessonkitError, match="num_attention_heads is None"):
        read_model_metadata({"general.architecture": "llama"}, HERE)
    with pytest.raises(LessonkitError, match="vocab_size is None"):
        no_list = {key: value for key, value in metadata().items() if "vocab" not in key}
        read_model_metadata(no_list | {"tokenizer.ggml.tokens": 3}, HERE)
