"""config.json and params.json: read as their libraries mean them, and refused where they lie."""

from __future__ import annotations

import json
from dataclasses import replace
from pathlib import Path
from typing import Any

import pytest
from hypothesis import given
from hypothesis import strategies as st
from transformers import AutoConfig, LlamaConfig

from lessonkit.errors import LessonkitError
from lessonkit.llama.configs import (
    hf_config,
    meta_params,
    read_context,
    read_hf_config,
    read_meta_params,
    read_sizes,
)
from lessonkit.llama.shape import LlamaShape, meta_mlp_width

HERE = Path("config.json")
SHAPE = LlamaShape(64, 2, 4, 2, 96, 400, 1e-5)
SHAPES = {
    "llama 1": replace(SHAPE, kv_heads=4, norm_eps=1e-6),
    "llama 2": SHAPE,
    "code llama": replace(SHAPE, rope_theta=1e6),
    "llama 3": replace(SHAPE, rope_theta=5e5),
    "llama 3.1": replace(SHAPE, rope_theta=5e5, rope_factor=8.0),
    "llama 3.2": replace(SHAPE, rope_theta=5e5, rope_factor=32.0, tied=True),
    "stretched otherwise": replace(SHAPE, rope_theta=5e5, rope_factor=16.0, rope_high=1.0),
}
IDS = {"bos_token_id": 1, "eos_token_id": 2}


@pytest.fixture(params=SHAPES, ids=lambda name: name.replace(" ", "-"))
def shape(request: pytest.FixtureRequest) -> LlamaShape:
    return SHAPES[request.param]


# --- config.json ------------------------------------------------------------------------------


def test_the_library_reads_what_we_write(shape: LlamaShape, tmp_path: Path) -> None:
    content = hf_config(shape, dtype="float16", context=77, ids=IDS)
    (tmp_path / "config.json").write_text(json.dumps(content))
    config = AutoConfig.from_pretrained(tmp_path, local_files_only=True)
    assert isinstance(config, LlamaConfig)
    assert (config.hidden_size, config.num_hidden_layers, config.vocab_size) == (64, 2, 400)
    assert (config.num_attention_heads, config.num_key_value_heads) == (4, shape.kv_heads)
    assert (config.intermediate_size, config.head_dim) == (96, 16)
    assert config.rms_norm_eps == shape.norm_eps and config.hidden_act == "silu"
    assert config.tie_word_embeddings == shape.tied
    assert config.max_position_embeddings == 77 and str(config.dtype) == "torch.float16"
    assert (config.bos_token_id, config.eos_token_id) == (1, 2)
    rope = config.rope_parameters
    assert rope["rope_theta"] == shape.rope_theta
    if shape.rope_factor is None:
        assert rope["rope_type"] == "default"
    else:
        assert rope["rope_type"] == "llama3"
        assert (rope["factor"], rope["high_freq_factor"]) == (shape.rope_factor, shape.rope_high)
        assert (rope["low_freq_factor"], rope["original_max_position_embeddings"]) == (1, 8192)
    # Both what we wrote and what transformers 5 makes of it are read back as the same shape.
    assert read_hf_config(content, HERE) == read_hf_config(config.to_dict(), HERE) == shape


def test_a_tokenizer_without_special_tokens_gets_none(tmp_path: Path) -> None:
    (tmp_path / "config.json").write_text(
        json.dumps(hf_config(SHAPE, dtype="float32", context=9, ids={}))
    )
    config = AutoConfig.from_pretrained(tmp_path, local_files_only=True)
    assert config.bos_token_id is None and config.eos_token_id is None


def test_what_a_config_may_leave_out() -> None:
    content = hf_config(SHAPES["llama 1"], dtype="float32", context=9, ids=IDS)
    for name in ("num_key_value_heads", "head_dim", "rms_norm_eps", "rope_theta", "rope_scaling",
                 "tie_word_embeddings", "hidden_act", "attention_bias", "mlp_bias"):  # fmt: skip
        del content[name]
    assert read_hf_config(content, HERE) == SHAPES["llama 1"]


LLAMA_3 = {"rope_type": "llama3", "factor": 8.0, "low_freq_factor": 1.0, "high_freq_factor": 4.0,
           "original_max_position_embeddings": 8192}  # fmt: skip


@pytest.mark.parametrize(
    ("changes", "complaint"),
    [
        ({"model_type": "mistral"}, "of the type 'mistral', not a Llama: Meta's form cannot"),
        ({"model_type": None}, "of the type None"),
        ({"quantization_config": {"quant_method": "gptq"}}, "quantised"),
        ({"attention_bias": True}, "biases"),
        ({"mlp_bias": True}, "biases"),
        ({"hidden_act": "gelu"}, "activation is 'gelu', not SiLU"),
        ({"head_dim": 32}, r"4 heads \(head_dim 32\) do not fill the width 64"),
        ({"head_dim": "16"}, "head_dim is '16'"),
        ({"num_attention_heads": 5}, "do not"),
        ({"num_key_value_heads": 3}, "do not divide"),
        ({"vocab_size": None}, "vocab_size is None"),
        ({"vocab_size": -1}, "vocab_size is -1, not a positive whole number"),
        ({"hidden_size": 64.0}, "hidden_size is 64.0"),
        ({"num_hidden_layers": True}, "num_hidden_layers is True"),
        ({"rms_norm_eps": "small"}, "rms_norm_eps is 'small'"),
        ({"rope_theta": "big"}, "rope_theta is 'big'"),
        ({"rope_theta": -1.0}, "rope_theta is -1.0"),
        ({"rope_scaling": "llama3"}, "rotary settings are 'llama3'"),
        ({"rope_scaling": {"rope_type": "yarn", "factor": 2.0}}, "none of Meta's"),
        ({"rope_scaling": {"type": "linear", "factor": 2.0}}, "none of Meta's"),
        ({"rope_scaling": {**LLAMA_3, "low_freq_factor": 2.0}}, "none of Meta's"),
        ({"rope_scaling": {**LLAMA_3, "original_max_position_embeddings": 4096}}, "none of Meta's"),
        ({"rope_scaling": {**LLAMA_3, "factor": None}}, "factor is None, not a positive number"),
        ({"rope_scaling": {**LLAMA_3, "high_freq_factor": [4]}}, "high_freq_factor is"),
    ],
)
def test_configs_that_meta_has_no_form_for(changes: dict[str, Any], complaint: str) -> None:
    content = hf_config(SHAPE, dtype="float32", context=9, ids=IDS)
    with pytest.raises(LessonkitError, match=complaint) as caught:
        read_hf_config({**content, **changes}, HERE)
    assert caught.value.where == "config.json" and caught.value.remedy


# --- params.json ------------------------------------------------------------------------------


def read(params: dict[str, Any], shape: LlamaShape = SHAPE) -> tuple[LlamaShape, list[str]]:
    return read_meta_params(
        params, HERE, mlp_width=shape.mlp_width, vocabulary=shape.vocabulary, tied=shape.tied
    )


def test_params_come_back_without_a_note(shape: LlamaShape) -> None:
    assert read(json.loads(json.dumps(meta_params(shape))), shape) == (shape, [])


def test_metas_code_for_llama_2_knows_every_key() -> None:
    """Its ModelArgs refuses any other; Llama 3's adds rope_theta and use_scaled_rope."""
    known = {"dim", "n_layers", "n_heads", "n_kv_heads", "vocab_size", "multiple_of",
             "ffn_dim_multiplier", "norm_eps"}  # fmt: skip
    assert set(meta_params(SHAPE)) <= known
    assert "n_kv_heads" not in meta_params(SHAPES["llama 1"])
    assert set(meta_params(SHAPES["llama 3"])) - known == {"rope_theta"}
    assert meta_params(SHAPES["llama 3.1"])["use_scaled_rope"] is True


def test_llama_2_needs_no_multiplier() -> None:
    params = meta_params(LlamaShape(4096, 32, 32, 32, 11008, 32000, 1e-5))
    assert params["multiple_of"] == 256 and "ffn_dim_multiplier" not in params
    params = meta_params(LlamaShape(4096, 32, 32, 8, 14336, 128256, 1e-5))
    assert params["ffn_dim_multiplier"] == 1.3


@given(st.integers(2, 20_000), st.integers(1, 60_000))
def test_any_feed_forward_width_can_be_said(width: int, mlp: int) -> None:
    params = json.loads(json.dumps(meta_params(LlamaShape(width, 1, 1, 1, mlp, 9, 1e-5))))
    rule = params["multiple_of"], params.get("ffn_dim_multiplier")
    assert meta_mlp_width(width, *rule) == mlp


@pytest.mark.parametrize(
    ("changes", "complaint"),
    [
        ({"n_heads": "4"}, "n_heads is '4', not a positive whole number"),
        ({"n_heads": 0}, "n_heads is 0"),
        ({"n_heads": 5}, "5 heads, 2 of them key/value, do not fill 64"),
        ({"n_kv_heads": 3}, "do not fill"),
        ({"n_layers": True}, "n_layers is True"),
        ({"dim": None}, "dim is None"),
        ({"norm_eps": "small"}, "norm_eps is 'small'"),
        ({"norm_eps": float("nan")}, "norm_eps is nan"),
        ({"rope_theta": float("inf")}, "rope_theta is inf"),
        ({"ffn_dim_multiplier": 1e308}, "ffn_dim_multiplier is 1e.308"),
        ({"rope_theta": -1}, "rope_theta is -1"),
        ({"multiple_of": 0}, "multiple_of is 0"),
        ({"ffn_dim_multiplier": "x"}, "ffn_dim_multiplier is 'x'"),
        ({"vocab_size": 32000}, "says vocab_size 32000, the embedding has 400 rows"),
        ({"use_scaled_rope": True, "rope_scaling_factor": 0}, "rope_scaling_factor is 0"),
    ],
)
def test_params_that_make_no_sense(changes: dict[str, Any], complaint: str) -> None:
    with pytest.raises(LessonkitError, match=complaint) as caught:
        read({**meta_params(SHAPE), **changes})
    assert caught.value.where == "config.json" and caught.value.remedy


def test_a_vocabulary_is_never_fitted_by_hand() -> None:
    with pytest.raises(LessonkitError) as caught:
        read({**meta_params(SHAPE), "vocab_size": 49954})
    assert "do not edit params.json to fit" in str(caught.value.remedy)


def test_numbers_that_would_fill_the_memory_are_refused() -> None:
    config = {"num_attention_heads": 2, "hidden_size": 8, "num_hidden_layers": 1,
              "intermediate_size": 8, "vocab_size": 9}  # fmt: skip
    assert read_sizes(config, "c").layers == 1
    for key, value in (("num_hidden_layers", 1 << 30), ("vocab_size", 1 << 30),
                       ("intermediate_size", 1 << 70)):  # fmt: skip
        with pytest.raises(LessonkitError, match=f"{key} is larger than in any model"):
            read_sizes({**config, key: value}, "c")
    with pytest.raises(LessonkitError, match="max_position_embeddings"):
        read_context({"max_position_embeddings": "long"}, Path("c"))
    assert read_context({}, Path("c")) is None
