"""Adapters as GGUF: what llama.cpp would add, scale and row order included, is what PEFT adds."""

from __future__ import annotations

import gguf
import numpy as np
import pytest
import torch

from lessonkit.convert.adapter import open_adapter
from lessonkit.convert.adapter_gguf import adapter_to_gguf, switchable
from lessonkit.convert.lora import merge
from lessonkit.convert.lora_tensor import deltas
from lessonkit.errors import LessonkitError
from lessonkit.files.checkpoint import open_checkpoint
from lessonkit.llama.layout import halves_to_pairs
from tests.convert.adapters import edit_config, edit_tensors, make_adapter
from tests.tiny import make_tiny_llama

NAMES = {"q_proj": "attn_q", "k_proj": "attn_k", "v_proj": "attn_v", "o_proj": "attn_output",
         "gate_proj": "ffn_gate", "up_proj": "ffn_up", "down_proj": "ffn_down"}  # fmt: skip
HEADS = {"q_proj": 4, "k_proj": 2}


@pytest.fixture(scope="module")
def base(tmp_path_factory):
    return make_tiny_llama(tmp_path_factory.mktemp("base"))


def fields(reader):
    return {name: field.contents() for name, field in reader.fields.items()}


def applied(path):
    """The changes that llama.cpp computes from a file: alpha / rank * B @ A."""
    reader = gguf.GGUFReader(path)
    tensors = {tensor.name: np.array(tensor.data) for tensor in reader.tensors}
    alpha = np.float32(fields(reader)["adapter.lora.alpha"])
    names = [name.removesuffix(".lora_a") for name in tensors if name.endswith(".lora_a")]
    assert len(tensors) == 2 * len(names)
    return {
        name: alpha / tensors[f"{name}.lora_b"].shape[1]
        * (tensors[f"{name}.lora_b"] @ tensors[f"{name}.lora_a"])
        for name in names
    }  # fmt: skip


@pytest.mark.parametrize(
    ("options", "folds"),
    [
        ({}, {1.0}),
        ({"use_rslora": True}, {1.0}),
        ({"alpha_pattern": {"q_proj": 3}}, {1.0, 3 / 8}),
        ({"use_rslora": True, "rank_pattern": {"v_proj": 2}}, {1.0, 0.5**0.5}),
        ({"dtype": torch.bfloat16}, {1.0}),
    ],
    ids=str,
)
def test_every_change_is_right(base, tmp_path, options, folds):
    folder = make_adapter(base, tmp_path / "a", **options)
    folded = adapter_to_gguf(folder, tmp_path / "a.gguf", base=base)
    assert {round(value, 6) for value in folded.values()} == {round(each, 6) for each in folds}
    found = applied(tmp_path / "a.gguf")
    count = 0
    for name, delta in deltas(open_adapter(folder)):
        layer, kind = name.split(".")[2], name.split(".")[-2]
        expected = delta.numpy()
        if kind in HEADS:
            expected = halves_to_pairs(expected, HEADS[kind])
        ours = found[f"blk.{layer}.{NAMES[kind]}.weight"]
        np.testing.assert_allclose(ours, expected, rtol=1e-5, atol=1e-7)
        count += 1
    assert count == len(found) == 14


def test_the_header(base, tmp_path):
    folder = make_adapter(base, tmp_path / "a", use_rslora=True)
    adapter_to_gguf(folder, tmp_path / "a.gguf", base=base)
    said = fields(gguf.GGUFReader(tmp_path / "a.gguf"))
    assert said["general.type"] == "adapter" and said["adapter.type"] == "lora"
    assert said["general.architecture"] == "llama"
    assert said["adapter.lora.alpha"] == 16  # alpha 8, times the root of rank 4


def test_an_embedding(base, tmp_path):
    folder = make_adapter(base, tmp_path / "a", target_modules=["q_proj", "embed_tokens"])
    name = "base_model.model.model.embed_tokens.base_layer.weight"
    edit_tensors(folder, lambda old: {k: v for k, v in old.items() if k != name})
    adapter_to_gguf(folder, tmp_path / "a.gguf", base=base)
    reader = gguf.GGUFReader(tmp_path / "a.gguf")
    tensors = {tensor.name: np.array(tensor.data) for tensor in reader.tensors}
    a, b = (tensors[f"token_embd.weight.lora_{letter}"] for letter in "ab")
    expected = dict(deltas(open_adapter(folder)))["model.embed_tokens.weight"].numpy()
    np.testing.assert_allclose(2 * a @ b.T, expected, rtol=1e-5, atol=1e-7)


@pytest.mark.parametrize(
    ("options", "message"),
    [
        ({"use_dora": True}, "is a DoRA"),
        ({"modules_to_save": ["lm_head"]}, "saves whole tensors"),
        ({"trainable_token_indices": [3]}, "replaces rows"),
    ],
)
def test_refused(base, tmp_path, options, message):
    folder = make_adapter(base, tmp_path / "a", **options)
    with pytest.raises(LessonkitError, match=message) as caught:
        adapter_to_gguf(folder, tmp_path / "a.gguf", base=base)
    assert "lessonkit merge" in caught.value.remedy
    assert not (tmp_path / "a.gguf").exists()


def test_what_is_added_can_be_switched_and_what_is_replaced_is_in_the_base(base, tmp_path):
    """Base and all changes together are the merge; the rows of q and k apart, as tested above."""
    plain = make_adapter(base, tmp_path / "plain")
    assert switchable(base, [plain], tmp_path / "nothing")[0] == base
    saving = make_adapter(base, tmp_path / "a", seed=1, modules_to_save=["embed_tokens", "lm_head"])
    served, files = switchable(base, [plain, saving], tmp_path)
    merge(base, [plain, saving], tmp_path / "merged")
    found, merged = open_checkpoint(served), open_checkpoint(tmp_path / "merged")
    changes = [applied(file) for file in files]
    for name in merged:
        total = found.tensor(name).float()
        kind = name.split(".")[-2]
        if kind in HEADS:
            continue
        if kind in NAMES:
            for change in changes:
                total += torch.from_numpy(change[f"blk.{name.split('.')[2]}.{NAMES[kind]}.weight"])
        torch.testing.assert_close(total.to(merged.tensor(name).dtype), merged.tensor(name))
    assert not torch.equal(
        found.tensor("lm_head.weight"), open_checkpoint(base).tensor("lm_head.weight")
    )


def test_other_mistakes(base, tmp_path):
    folder = make_adapter(base, tmp_path / "a")
    wide = make_tiny_llama(tmp_path / "wide", hidden_size=96)
    with pytest.raises(LessonkitError, match="for another base"):
        adapter_to_gguf(folder, tmp_path / "a.gguf", base=wide)
    edit_config(folder, fan_in_fan_out=True)
    with pytest.raises(LessonkitError, match="turned over"):
        adapter_to_gguf(folder, tmp_path / "a.gguf", base=base)
