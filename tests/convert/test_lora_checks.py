"""Each mistake that passes in silence elsewhere is an error here, with a message of its own."""

from __future__ import annotations

import json
import shutil

import pytest
import torch
from safetensors.torch import load_file, save_file

from lessonkit.convert.lora import merge
from lessonkit.errors import LessonkitError
from tests.convert.adapters import edit_tensors, make_adapter
from tests.tiny import make_tiny_llama

Q = "model.layers.0.self_attn.q_proj.weight"
EMBEDDING, HEAD = "model.embed_tokens.weight", "lm_head.weight"


def error(*arguments, **options) -> LessonkitError:
    with pytest.raises(LessonkitError) as caught:
        merge(*arguments, **options)
    assert caught.value.remedy
    assert not arguments[2].exists()
    return caught.value


def test_keys_that_match_nothing(base, copied, tmp_path):
    edit_tensors(copied, lambda old: {k.replace("layers.1.", "layers.7."): v
                                      for k, v in old.items()})  # fmt: skip
    found = error(base, [copied], tmp_path / "out")
    assert "changes 14 tensors, of which the base lacks 7" in found.what


def test_another_familys_adapter(base, copied, tmp_path):
    edit_tensors(copied, lambda old: {k.replace("o_proj", "dense"): v for k, v in old.items()})
    assert "is for a model of the Phi family" in error(base, [copied], tmp_path / "out").what


def test_another_bases_shapes(plain, tmp_path):
    wide = make_tiny_llama(tmp_path / "wide", hidden_size=96)
    found = error(wide, [plain], tmp_path / "out")
    assert "is for another base" in found.what and "[96, 128]" in found.what


def test_an_untrained_adapter(base, copied, tmp_path):
    edit_tensors(copied, lambda old: {k: v * ("lora_B" not in k) for k, v in old.items()})
    assert "every B is zero" in error(base, [copied], tmp_path / "out").what


def test_a_change_below_the_rounding(base, copied, tmp_path):
    edit_tensors(copied, lambda old: {k: v * 1e-12 for k, v in old.items()})
    assert "changed no value" in error(base, [copied], tmp_path / "out").what


def test_named_twice(base, plain, tmp_path):
    assert "is named twice" in error(base, [plain, plain], tmp_path / "out").what


def test_merged_into_a_base_that_holds_it(base, plain, tmp_path):
    """Also after another one, and whatever kind of file holds it."""
    other = make_adapter(base, tmp_path / "other", seed=5)
    merge(base, [plain], tmp_path / "once")
    merge(tmp_path / "once", [other], tmp_path / "twice")
    pickled = shutil.copytree(plain, tmp_path / "pickled")
    torch.save(load_file(pickled / "adapter_model.safetensors"), pickled / "adapter_model.bin")
    (pickled / "adapter_model.safetensors").unlink()
    for merged in ("once", "twice"):
        found = error(tmp_path / merged, [pickled], tmp_path / "again")
        assert "holds the adapter pickled already" in found.what


def test_a_change_too_large_for_the_dtype(bases, copied, tmp_path):
    edit_tensors(copied, lambda old: {k: v * 1000 for k, v in old.items()})
    found = error(bases[torch.float16], [copied], tmp_path / "out")
    assert "not finite" in found.what


def test_a_bias_without_a_bias_in_the_base(base, tmp_path):
    adapter = make_adapter(base, tmp_path / "a", target_modules=["q_proj"])
    edit_tensors(adapter, lambda old: {
        **old, "base_model.model.model.layers.0.self_attn.q_proj.lora_B.bias": torch.ones(64)
    })  # fmt: skip
    assert "has a bias (lora_bias)" in error(base, [adapter], tmp_path / "out").what


def test_a_bias_is_added_scaled(base, copied, tmp_path):
    biased = shutil.copytree(base, tmp_path / "biased")
    name = Q.replace("weight", "bias")
    tensors = load_file(base / "model.safetensors") | {name: torch.ones(64, dtype=torch.bfloat16)}
    save_file(tensors, biased / "model.safetensors")
    key = f"base_model.model.{Q.replace('.weight', '')}.lora_B.bias"
    edit_tensors(copied, lambda old: {**old, key: torch.full((64,), 0.5)})
    merge(biased, [copied], tmp_path / "out")
    assert load_file(tmp_path / "out" / "model.safetensors")[name].tolist() == [2.0] * 64


def test_weights_that_make_no_sense(base, plain, grown, tmp_path):
    assert "need 1 weights" in error(base, [plain], tmp_path / "out", weights=[1, 2]).what
    found = error(base, [grown[0]], tmp_path / "out", weights=[0.5])
    assert "replaces whole tensors" in found.what
    assert "no adapter to merge" in error(base, [], tmp_path / "out").what


def test_other_mistakes(base, plain, tmp_path):
    assert "no form" in error(base, [plain], tmp_path / "out", form="gguf").what
    assert "rounded to 'int8'" in error(base, [plain], tmp_path / "out", dtype="int8").what
    quantised = shutil.copytree(base, tmp_path / "gptq")
    config = json.loads((base / "config.json").read_text())
    config["quantization_config"] = {"quant_method": "gptq"}
    (quantised / "config.json").write_text(json.dumps(config))
    assert "is quantised" in error(quantised, [plain], tmp_path / "out").what
