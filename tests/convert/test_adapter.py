"""Adapters in PEFT's form: every spelling finds its tensor, what cannot be merged is refused."""

from __future__ import annotations

import json
import math

import pytest
import torch
from safetensors.torch import load_file, save_file

from lessonkit.convert.adapter import family_of, open_adapter
from lessonkit.errors import LessonkitError

Q = "model.layers.0.self_attn.q_proj"
PLAIN = {
    f"base_model.model.{Q}.lora_A.weight": torch.ones(4, 8),
    f"base_model.model.{Q}.lora_B.weight": torch.ones(6, 4),
}


def write(folder, tensors=None, *, pickled=False, **config):
    folder.mkdir(exist_ok=True)
    settings = {"peft_type": "LORA", "r": 4, "lora_alpha": 8, **config}
    (folder / "adapter_config.json").write_text(json.dumps(settings))
    tensors = PLAIN if tensors is None else tensors
    if pickled:
        torch.save(tensors, folder / "adapter_model.bin")
    else:
        save_file(tensors, folder / "adapter_model.safetensors")
    return folder


def error(folder) -> LessonkitError:
    with pytest.raises(LessonkitError) as caught:
        open_adapter(folder)
    assert caught.value.remedy
    return caught.value


def test_a_plain_adapter(tmp_path):
    part = open_adapter(write(tmp_path / "a")).low_rank[f"{Q}.weight"]
    assert (part.module, part.rank, part.scale, part.transposed) == (Q, 4, 2.0, False)


def test_the_hash_is_that_of_the_values_whatever_the_file(tmp_path):
    one = open_adapter(write(tmp_path / "a"))
    two = open_adapter(write(tmp_path / "b", pickled=True))
    other = open_adapter(write(tmp_path / "c", {k: v * 2 for k, v in PLAIN.items()}))
    assert one.sha256 == two.sha256 != other.sha256


def test_the_name_default_in_the_keys_changes_nothing(tmp_path):
    spelled = {key.replace(".weight", ".default.weight"): v for key, v in PLAIN.items()}
    assert list(open_adapter(write(tmp_path / "a", spelled)).low_rank) == [f"{Q}.weight"]


@pytest.mark.parametrize(
    "key",
    [
        "base_model.model.model.embed_tokens.weight",
        "base_model.model.model.embed_tokens.modules_to_save.weight",
        "base_model.model.model.embed_tokens.modules_to_save.default.weight",
        "base_model.model.model.embed_tokens.base_layer.weight",
    ],
)
def test_spellings_of_a_saved_embedding(tmp_path, key):
    adapter = open_adapter(write(tmp_path / "a", {**PLAIN, key: torch.ones(10, 8)}))
    assert adapter.saved == {"model.embed_tokens.weight": key}


def test_the_copy_of_the_original_is_left_out(tmp_path):
    """Old versions of PEFT stored the untouched embedding too."""
    key = "base_model.model.model.embed_tokens.original_module.weight"
    adapter = open_adapter(write(tmp_path / "a", {**PLAIN, key: torch.ones(10, 8)}))
    assert adapter.targets == [f"{Q}.weight"]


def test_rank_stabilised(tmp_path):
    part = open_adapter(write(tmp_path / "a", use_rslora=True)).low_rank[f"{Q}.weight"]
    assert part.scale == 8 / math.sqrt(4)


@pytest.mark.parametrize(
    ("pattern", "alpha"),
    [
        ({"q_proj": 2}, 2),
        ({"proj": 2}, 8),  # a whole part of the name
        ({"layers.0.self_attn.q_proj": 2}, 2),
        ({r".*\.0\..*q_proj": 2, "q_proj": 3}, 2),  # the first that fits
        ({"q_proj.weight": 2}, 8),
    ],
)
def test_alpha_patterns(tmp_path, pattern, alpha):
    part = open_adapter(write(tmp_path / "a", alpha_pattern=pattern)).low_rank[f"{Q}.weight"]
    assert part.scale == alpha / 4


def test_rank_pattern_must_fit_the_tensors(tmp_path):
    assert open_adapter(write(tmp_path / "a", r=99, rank_pattern={"q_proj": 4})).low_rank
    assert "says rank 2" in error(write(tmp_path / "b", rank_pattern={"q_proj": 2})).what


@pytest.mark.parametrize(
    ("config", "message"),
    [
        ({"peft_type": "IA3"}, "type IA3; only LoRA"),
        ({"peft_type": "ADALORA"}, "type ADALORA"),
        ({"init_lora_weights": "pissa_niter_16"}, "began as pissa_niter_16, which changes the"),
        ({"init_lora_weights": "olora"}, "began as olora"),
        ({"init_lora_weights": "corda"}, "began as corda"),
        ({"init_lora_weights": "loftq"}, "began as loftq"),
        ({"alora_invocation_tokens": [5]}, "aLoRA"),
        ({"use_qalora": True}, "QALoRA"),
        ({"target_parameters": ["mlp.experts"]}, "target_parameters"),
        ({"layer_replication": [[0, 2]]}, "layer_replication"),
        ({"use_dora": True}, "no DoRA magnitude"),
    ],
)
def test_refused_by_name(tmp_path, config, message):
    assert message in error(write(tmp_path / "a", **config)).what


@pytest.mark.parametrize("start", [True, False, "gaussian", "eva"])
def test_beginnings_that_leave_the_base_alone(tmp_path, start):
    assert open_adapter(write(tmp_path / "a", init_lora_weights=start)).low_rank


def test_damaged_adapters(tmp_path):
    half = dict(list(PLAIN.items())[:1])
    assert "no lora_B" in error(write(tmp_path / "half", half)).what
    codes = {key: value.to(torch.int8) for key, value in PLAIN.items()}
    assert "is I8" in error(write(tmp_path / "codes", codes)).what
    only = {"base_model.model.lm_head.original_module.weight": torch.ones(2, 2)}
    assert "changes anything" in error(write(tmp_path / "nothing", only)).what
    (tmp_path / "none").mkdir()
    assert "no adapter_config.json" in error(tmp_path / "none").what


def test_trained_rows(tmp_path):
    key = "base_model.model.model.embed_tokens.token_adapter.trainable_tokens_delta"
    tensors = {**PLAIN, key: torch.ones(2, 8)}
    for said in ([3, 7], {"embed_tokens": [3, 7]}):
        adapter = open_adapter(write(tmp_path / "a", tensors, trainable_token_indices=said))
        assert adapter.rows == {"model.embed_tokens.weight": ([3, 7], key)}
    assert "which rows" in error(write(tmp_path / "b", tensors)).what


@pytest.mark.parametrize(
    ("name", "family"),
    [
        ("model.layers.0.self_attn.dense.weight", "Phi"),
        ("model.layers.0.mlp.fc1.weight", "Phi"),
        ("gpt_neox.layers.0.attention.query_key_value.weight", "GPT-NeoX"),
        ("model.decoder.layers.0.self_attn.q_proj.weight", "OPT"),
        ("transformer.h.0.attn.c_attn.weight", "GPT-2"),
        ("model.layers.0.self_attn.q_proj.weight", None),
    ],
)
def test_families(name, family):
    assert family_of(name) == family


def test_peft_wrote_what_was_read(tmp_path):
    """The tensors come back as they were stored."""
    adapter = open_adapter(write(tmp_path / "a"))
    stored = load_file(tmp_path / "a" / "adapter_model.safetensors")
    part = adapter.low_rank[f"{Q}.weight"]
    assert torch.equal(adapter.weights.tensor(part.a), stored[part.a])
