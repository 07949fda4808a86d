"""Merging: PEFT's own results to the bit, and an error for each mistake that passes elsewhere."""

from __future__ import annotations

import json
import shutil

import pytest
import torch
from safetensors.torch import load_file

from lessonkit.convert.adapter import open_adapter
from lessonkit.convert.dequantized import Dequantized
from lessonkit.convert.lora import merge
from lessonkit.convert.lora_tensor import deltas
from lessonkit.convert.meta import meta_to_hf
from lessonkit.convert.nf4 import quantize_checkpoint
from lessonkit.convert.verification import verify_model
from lessonkit.errors import LessonkitError
from tests.convert.adapters import edit_config, edit_tensors, make_adapter, their_merge
from tests.convert.conftest import SAVED
from tests.tiny import make_tiny_llama

Q = "model.layers.0.self_attn.q_proj.weight"
EMBEDDING, HEAD = "model.embed_tokens.weight", "lm_head.weight"


def tensors_of(folder):
    return load_file(folder / "model.safetensors")


def differing(ours, theirs):
    assert set(ours) <= set(theirs)
    return [name for name, tensor in ours.items() if not torch.equal(tensor, theirs[name])]


def error(*arguments, **options) -> LessonkitError:
    with pytest.raises(LessonkitError) as caught:
        merge(*arguments, **options)
    assert caught.value.remedy
    assert not arguments[2].exists()
    return caught.value


def test_only_what_the_adapters_replace(bases, tmp_path):
    """The base of a program that adds the rest by itself; the adapters may be merged into it."""
    base = bases[torch.bfloat16]
    first = make_adapter(base, tmp_path / "first")
    second = make_adapter(base, tmp_path / "second", seed=1, modules_to_save=SAVED)
    certificate = merge(base, [first, second], tmp_path / "base", added=False)
    found, before, saved = tensors_of(tmp_path / "base"), tensors_of(base), open_adapter(second)
    assert set(differing(found, before)) == {EMBEDDING, HEAD} == set(saved.saved)
    for name, key in saved.saved.items():
        assert torch.equal(found[name], saved.weights.tensor(key).bfloat16())
    assert certificate.options["adapters"] == []
    assert [each["name"] for each in certificate.options["replaced_by"]] == ["first", "second"]
    merge(tmp_path / "base", [first, second], tmp_path / "all")
    merge(base, [first, second], tmp_path / "at-once")
    assert differing(tensors_of(tmp_path / "all"), tensors_of(tmp_path / "at-once")) == []


# --- the same as PEFT ---------------------------------------------------------------------------


@pytest.mark.parametrize(
    ("dtype", "options"),
    [
        (torch.float32, {}),
        (torch.bfloat16, {}),
        (torch.float16, {}),
        (torch.bfloat16, {"dtype": torch.bfloat16}),
        (torch.bfloat16, {"use_rslora": True}),
        (torch.bfloat16, {"use_dora": True}),
        (
            torch.bfloat16,
            {"rank_pattern": {"q_proj": 2}, "alpha_pattern": {r"layers\.1\..*k_proj": 3}},
        ),
        (torch.bfloat16, {"modules_to_save": [*SAVED, "norm"]}),
        (torch.bfloat16, {"trainable_token_indices": {"embed_tokens": [3, 7], "lm_head": [5]}}),
        (torch.float32, {"target_modules": ["q_proj", "embed_tokens"]}),
        (torch.bfloat16, {"target_modules": ["q_proj", "embed_tokens"], "use_dora": True}),
    ],
    ids=str,
)
def test_one_adapter_is_pefts_merge_to_the_bit(bases, tmp_path, dtype, options):
    adapter = make_adapter(bases[dtype], tmp_path / "a", **options)
    certificate = merge(bases[dtype], [adapter], tmp_path / "out")
    assert differing(tensors_of(tmp_path / "out"), their_merge(bases[dtype], adapter)) == []
    assert certificate.verdicts["merged"] == len(open_adapter(adapter).targets)
    assert verify_model(tmp_path / "out").ok


def test_safe_merge_rounds_twice_and_we_do_not(base, plain, tmp_path):
    merge(base, [plain], tmp_path / "out")
    ours, safe = tensors_of(tmp_path / "out"), their_merge(base, plain, safe_merge=True)
    names = list(open_adapter(plain).low_rank)
    changed = sum(int((ours[name] != safe[name]).sum()) for name in names)
    assert 0.01 < changed / sum(ours[name].numel() for name in names) < 0.3
    exact = {name: tensors_of(base)[name].float() for name in names}
    for name, delta in deltas(open_adapter(plain)):
        assert torch.equal(ours[name], (exact[name] + delta).bfloat16())


def test_two_in_sequence(bases, tmp_path):
    """In float32 PEFT's sequence to the bit; in bfloat16 PEFT rounds once an adapter, we once."""
    for dtype in (torch.float32, torch.bfloat16):
        base = bases[dtype]
        pair = [make_adapter(base, tmp_path / f"{dtype}{n}", seed=n) for n in (1, 2)]
        merge(base, pair, tmp_path / f"out{dtype}")
        ours, theirs = tensors_of(tmp_path / f"out{dtype}"), their_merge(base, *pair)
        if dtype == torch.float32:
            assert differing(ours, theirs) == []
    total = tensors_of(base)[Q].float()
    for adapter in pair:
        total += dict(deltas(open_adapter(adapter)))[Q]
    assert torch.equal(ours[Q], total.bfloat16())
    assert not torch.equal(ours[Q], theirs[Q])


def test_two_doras_in_sequence_and_their_order(bases, tmp_path):
    base = bases[torch.float32]
    pair = [make_adapter(base, tmp_path / f"d{n}", seed=n, use_dora=True) for n in (1, 2)]
    merge(base, pair, tmp_path / "out")
    merge(base, pair[::-1], tmp_path / "other")
    ours = tensors_of(tmp_path / "out")
    assert differing(ours, their_merge(base, *pair)) == []
    assert not torch.allclose(ours[Q], tensors_of(tmp_path / "other")[Q], atol=1e-4)


def test_fan_in_fan_out_turns_the_change_over(base, copied, tmp_path):
    """As for GPT-2: the stored weight is [in, out]. Square layers fit both ways."""
    edit_tensors(copied, lambda old: {k: v for k, v in old.items() if "o_proj" in k})
    edit_config(copied, fan_in_fan_out=True)
    merge(base, [copied], tmp_path / "out", dtype="float32")
    name = "model.layers.0.self_attn.o_proj.weight"
    part = open_adapter(copied).low_rank[name]
    a, b = (open_adapter(copied).weights.tensor(key) for key in (part.a, part.b))
    expected = tensors_of(base)[name].float() + (b @ a).T * 2
    assert torch.equal(tensors_of(tmp_path / "out")[name], expected)


def test_weights(base, plain, tmp_path):
    merge(base, [plain], tmp_path / "half", weights=[0.5], dtype="float32")
    delta = dict(deltas(open_adapter(plain)))[Q]
    assert torch.equal(tensors_of(tmp_path / "half")[Q], tensors_of(base)[Q].float() + delta * 0.5)
    assert json.loads((tmp_path / "half" / "config.json").read_text())["dtype"] == "float32"


# --- a grown vocabulary -------------------------------------------------------------------------


def test_grown_vocabulary_one_adapter_on_the_other(base, grown, tmp_path):
    first, second = grown
    certificate = merge(base, [first, second], tmp_path / "out")
    ours = tensors_of(tmp_path / "out")
    rows = ours[EMBEDDING].shape[0]
    saved = load_file(second / "adapter_model.safetensors")
    for name in (EMBEDDING, HEAD):
        assert torch.equal(ours[name], saved[f"base_model.model.{name}"].bfloat16())
    assert json.loads((tmp_path / "out" / "config.json").read_text())["vocab_size"] == rows
    assert (tmp_path / "out" / "tokenizer.model").read_bytes() == (
        second / "tokenizer.model"
    ).read_bytes()
    assert not (tmp_path / "out" / "tokenizer.json").exists()  # the base's, which lacks the tokens
    assert "10 rows new" in certificate.records[EMBEDDING].verdict
    assert f"the vocabulary grew from {rows - 10} to {rows}" in certificate.notes
    assert verify_model(tmp_path / "out").ok
    one = merge(base, [first], tmp_path / "one")
    assert one.records[HEAD].details["output_shape"] == [rows - 1, 64]
    theirs = their_merge(base, first, rows=rows - 1)
    assert differing(tensors_of(tmp_path / "one"), theirs) == []


def test_the_wrong_order(base, grown, tmp_path):
    found = error(base, grown[::-1], tmp_path / "out")
    assert "wrong order: second has made the vocabulary" in found.what


def test_saved_rows_overwritten(base, tmp_path):
    pair = [
        make_adapter(base, tmp_path / name, seed=seed, modules_to_save=SAVED)
        for seed, name in enumerate(("one", "two"))
    ]
    found = error(base, pair, tmp_path / "out")
    assert "two replaces" in found.what and "which one has changed" in found.what
    assert "--replace-saved" in found.remedy
    merge(base, pair, tmp_path / "out", replace_saved=True)
    saved = load_file(pair[1] / "adapter_model.safetensors")
    ours = tensors_of(tmp_path / "out")
    assert torch.equal(ours[HEAD], saved[f"base_model.model.{HEAD}"].bfloat16())


def test_the_base_has_more_rows(base, tmp_path):
    smaller = make_adapter(base, tmp_path / "a", rows=100, modules_to_save=SAVED)
    assert "the vocabulary would shrink" in error(base, [smaller], tmp_path / "out").what


def test_only_one_of_embedding_and_head_grows(base, grown, tmp_path):
    folder = shutil.copytree(grown[0], tmp_path / "half")
    edit_tensors(folder, lambda old: {k: v for k, v in old.items() if "lm_head" not in k})
    assert "grows in one place only" in error(base, [folder], tmp_path / "out").what


def test_tied_embeddings_with_a_grown_vocabulary(grown, tmp_path):
    tied = make_tiny_llama(tmp_path / "tied", tie_word_embeddings=True)
    found = error(tied, [grown[0]], tmp_path / "out")
    assert "(tied)" in found.what and "grows" in found.what and "Untie" in found.remedy


def test_tokenizers_that_do_not_fit(base, grown, tmp_path):
    none = shutil.copytree(grown[0], tmp_path / "none")
    (none / "tokenizer.model").unlink()
    assert "the new rows would never be used" in error(base, [none], tmp_path / "out").what
    large = shutil.copytree(grown[0], tmp_path / "large")
    shutil.copy(grown[1] / "tokenizer.model", large)
    assert "ids that the model does not know" in error(base, [large], tmp_path / "out").what


def test_tokens_added_beside_the_sentencepiece_model_count(base, grown, tmp_path):
    """Alpaca's tokenizer: 49953 pieces, and [PAD] in added_tokens.json."""
    folder = shutil.copytree(grown[1], tmp_path / "second")
    shutil.copy(grown[0] / "tokenizer.model", folder)
    rows = tensors_of_saved(folder)
    (folder / "added_tokens.json").write_text(json.dumps({"[PAD]": rows - 1}))
    certificate = merge(base, [folder], tmp_path / "out")
    assert not [note for note in certificate.notes if "only" in note]


def tensors_of_saved(folder) -> int:
    return len(load_file(folder / "adapter_model.safetensors")[f"base_model.model.{HEAD}"])


# --- other forms ----------------------------------------------------------------------------------


def test_metas_form_and_back(base, plain, tmp_path):
    merge(base, [plain], tmp_path / "hf")
    certificate = merge(base, [plain], tmp_path / "meta", form="meta")
    assert certificate.options["adapters"][0]["name"] == "plain"
    assert verify_model(tmp_path / "meta").ok
    assert "in Meta's form" in error(tmp_path / "meta", [plain], tmp_path / "no").what
    meta_to_hf(tmp_path / "meta", tmp_path / "back")
    assert differing(tensors_of(tmp_path / "back"), tensors_of(tmp_path / "hf")) == []
    assert sorted(path.name for path in (tmp_path / "meta").iterdir()) == [
        "consolidated.00.pth", "lessonkit-certificate.json", "params.json", "tokenizer.model",
    ]  # fmt: skip


@pytest.mark.parametrize("double", [False, True])
def test_a_base_in_four_bits(base, plain, tmp_path, double):
    """Its values are bitsandbytes', and the change is added to them; both schools differ."""
    from bitsandbytes.functional import QuantState, dequantize_4bit

    quantize_checkpoint(base, tmp_path / "nf4", double_quant=double)
    stored = tensors_of(tmp_path / "nf4")
    state = {
        key.removeprefix(f"{Q}."): value for key, value in stored.items() if key.startswith(f"{Q}.")
    }
    theirs = dequantize_4bit(stored[Q], QuantState.from_dict(state, device="cpu"))
    opened = Dequantized(tmp_path / "nf4")
    assert torch.equal(torch.from_numpy(opened.array(Q)).view(torch.bfloat16), theirs)
    certificate = merge(tmp_path / "nf4", [plain], tmp_path / "out")
    ours = tensors_of(tmp_path / "out")
    delta = dict(deltas(open_adapter(plain)))[Q]
    assert torch.equal(ours[Q], (theirs.float() + delta).bfloat16())
    assert "quantization_config" not in json.loads((tmp_path / "out" / "config.json").read_text())
    assert "in 4 bits" in certificate.notes[-1]
    merge(base, [plain], tmp_path / "other-school")
    other = tensors_of(tmp_path / "other-school")
    assert set(other) == set(ours) and not torch.equal(other[Q], ours[Q])
    assert verify_model(tmp_path / "out").ok


def test_the_same_merge_gives_the_same_bytes(base, plain, tmp_path):
    for name in ("a", "b"):
        merge(base, [plain], tmp_path / name, max_shard_bytes=100_000)
    files = sorted(path.name for path in (tmp_path / "a").iterdir())
    assert "model.safetensors.index.json" in files
    assert all(
        (tmp_path / "a" / f).read_bytes() == (tmp_path / "b" / f).read_bytes() for f in files
    )
