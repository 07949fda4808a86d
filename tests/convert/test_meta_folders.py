"""Every folder that the tutorials show, and every way in which the files may not fit."""

from __future__ import annotations

import json
import shutil
from pathlib import Path
from typing import Any

import pytest
import torch
from transformers import AutoModelForCausalLM, AutoTokenizer

from lessonkit.convert.llama_shape import LlamaShape, meta_mlp_width, meta_params
from lessonkit.convert.meta import hf_to_meta, meta_to_hf
from lessonkit.convert.meta_checkpoint import is_meta
from lessonkit.errors import LessonkitError
from tests.convert.toy import Toy, file_bytes


def test_every_layout_of_the_tutorials(toy: Toy, sentencepiece_model: Path, tmp_path: Path) -> None:
    flat = toy.write(tmp_path / "llama-2-7b", sentencepiece_model)
    toy.write(tmp_path / "llama" / "7B", None)
    shutil.copy(sentencepiece_model, tmp_path / "llama" / "tokenizer.model")
    outputs = []
    for number, source in enumerate((flat, tmp_path / "llama" / "7B", tmp_path / "llama")):
        meta_to_hf(source, tmp_path / str(number))
        outputs.append(file_bytes(tmp_path / str(number)))
        assert is_meta(source)
    assert outputs[0] == outputs[1] == outputs[2]
    toy.write(tmp_path / "llama" / "13B", None)
    assert "several models: 13B, 7B" in failure(tmp_path / "llama", tmp_path)
    toy.write(tmp_path / "bare", None)
    assert "no tokenizer.model" in failure(tmp_path / "bare", tmp_path)
    meta_to_hf(tmp_path / "bare", tmp_path / "named", tokenizer=sentencepiece_model)
    assert file_bytes(tmp_path / "named") == outputs[0]
    assert "no such tokenizer" in failure(tmp_path / "bare", tmp_path, tokenizer="nowhere")
    assert not is_meta(tmp_path / "named")


def failure(source: Path, tmp_path: Path, **options: Any) -> str:
    """What the conversion complains about; whatever it is, it leaves nothing behind."""
    before = sorted(tmp_path.rglob("*"))
    with pytest.raises(LessonkitError) as caught:
        meta_to_hf(source, tmp_path / "out", **options)
    assert caught.value.remedy and caught.value.where
    assert sorted(tmp_path.rglob("*")) == before
    return caught.value.what


# --- what readers of the tutorials meet -----------------------------------------------------


def test_vocabulary_minus_one_is_told(sentencepiece_model: Path, tmp_path: Path) -> None:
    source = Toy(params={"vocab_size": -1}).write(tmp_path / "meta", sentencepiece_model)
    notes = meta_to_hf(source, tmp_path / "hf").notes
    assert any("vocabulary open; the embedding has 400 rows" in note for note in notes)


def test_missing_feed_forward_size_is_told(sentencepiece_model: Path, tmp_path: Path) -> None:
    toy = Toy(mlp=160)
    source = toy.write(tmp_path / "a", sentencepiece_model)
    assert any(
        "lead" in n and "96, but w1 has 160" in n for n in meta_to_hf(source, tmp_path / "x").notes
    )
    params = {
        k: v for k, v in toy.params_json().items() if k not in ("multiple_of", "ffn_dim_multiplier")
    }
    (source / "params.json").write_text(json.dumps(params))
    notes = meta_to_hf(source, tmp_path / "y").notes
    assert any("no feed-forward size; w1 has 160 rows" in note for note in notes)
    assert json.loads((tmp_path / "y" / "config.json").read_text())["intermediate_size"] == 160


@pytest.mark.parametrize("mlp", [96, 160, 256, 333, 5632, 11008, 14336])
def test_any_feed_forward_size_comes_back(mlp: int) -> None:
    for width in (64, 2048, 4096):
        shape = LlamaShape(width, 1, 4, 4, mlp, 400, 1e-5)
        params = meta_params(shape)
        rule = (params["multiple_of"], params.get("ffn_dim_multiplier"))
        assert meta_mlp_width(width, *rule) == mlp
    assert meta_params(LlamaShape(4096, 1, 32, 32, 11008, 400, 1e-5))["multiple_of"] == 256
    assert meta_params(LlamaShape(4096, 1, 32, 8, 14336, 400, 1e-5))["ffn_dim_multiplier"] == 1.3


def test_tokenizer_and_embedding_that_disagree(sentencepiece_model: Path, tmp_path: Path) -> None:
    open_size = {"vocab_size": -1}
    less = Toy(vocabulary=399, params=open_size).write(tmp_path / "a", sentencepiece_model)
    assert "has 400 tokens, the embedding only 399 rows" in failure(less, tmp_path)
    more = Toy(vocabulary=401, params=open_size).write(tmp_path / "b", sentencepiece_model)
    assert "has 401 rows, the tokenizer only 400 tokens" in failure(more, tmp_path)
    edited = Toy(vocabulary=401, params={"vocab_size": 400}).write(
        tmp_path / "c", sentencepiece_model
    )
    assert "says vocab_size 400, the embedding has 401" in failure(edited, tmp_path)
    meta_to_hf(more, tmp_path / "hf", added_tokens=["[PAD]"])
    tokenizer = AutoTokenizer.from_pretrained(tmp_path / "hf", local_files_only=True)
    assert tokenizer.convert_tokens_to_ids("[PAD]") == 400


def test_wrong_or_missing_shards(sentencepiece_model: Path, tmp_path: Path) -> None:
    source = Toy(shards=2).write(tmp_path / "meta", sentencepiece_model)
    last = source / "consolidated.01.pth"
    shard = last.read_bytes()
    last.unlink()
    assert "should be 2 shards; 1 were found" in failure(source, tmp_path)
    (source / "consolidated.02.pth").write_bytes(shard)
    assert "consolidated.01.pth is missing" in failure(source, tmp_path)
    (source / "consolidated.02.pth").unlink()
    last.write_bytes(shard[:-3000])
    assert "damaged or cut off" in failure(source, tmp_path)
    last.write_bytes(b"")
    assert "no PyTorch file" in failure(source, tmp_path)
    torch.save(Toy(shards=2, dim=128).shard(1), last)
    assert "The shards disagree on" in failure(source, tmp_path)
    tensors = Toy(shards=2).shard(1)
    del tensors["norm.weight"]
    torch.save(tensors, last)
    assert "norm.weight is not in every shard" in failure(source, tmp_path)


def test_missing_files(toy: Toy, sentencepiece_model: Path, tmp_path: Path) -> None:
    source = toy.write(tmp_path / "meta", sentencepiece_model)
    (source / "params.json").unlink()
    assert "params.json is missing" in failure(source, tmp_path)
    (source / "consolidated.00.pth").unlink()
    assert "no consolidated.NN.pth" in failure(source, tmp_path)
    assert "not a folder" in failure(source / "nothing", tmp_path)


@pytest.mark.parametrize(
    ("params", "complaint"),
    [
        ({"n_layers": 3}, "layers.2.attention.wq.weight is missing"),
        ({"n_layers": 1}, "layers.1.* has no place"),
        ({"n_kv_heads": None}, "n_kv_heads missing in params.json"),
        ({"n_kv_heads": 3}, "do not fill"),
        ({"n_heads": 5}, "do not fill"),
        ({"n_heads": "4"}, "n_heads is '4'"),
        ({"n_heads": 0}, "n_heads is 0"),
        ({"dim": None}, "dim is None"),
        ({"dim": 48}, "expected"),
        ({"norm_eps": "small"}, "norm_eps is 'small'"),
        ({"norm_eps": float("nan")}, "norm_eps is nan"),
        ({"rope_theta": -1}, "rope_theta is -1"),
        ({"multiple_of": 0}, "multiple_of is 0"),
    ],
)
def test_params_that_do_not_fit(
    sentencepiece_model: Path, tmp_path: Path, params: dict[str, Any], complaint: str
) -> None:
    source = Toy(params=params).write(tmp_path / "meta", sentencepiece_model)
    with pytest.raises(LessonkitError, match=complaint):
        meta_to_hf(source, tmp_path / "out")
    assert not (tmp_path / "out").exists()


def test_differing_copies_are_told(sentencepiece_model: Path, tmp_path: Path) -> None:
    toy = Toy(shards=2)
    source = toy.write(tmp_path / "meta", sentencepiece_model)
    shard = toy.shard(1)
    shard["norm.weight"] += 1
    torch.save(shard, source / "consolidated.01.pth")
    notes = meta_to_hf(source, tmp_path / "hf").notes
    assert "the shards' copies of norm.weight differ; the first was used" in notes


@pytest.mark.parametrize(
    ("changes", "complaint"),
    [
        ({"model_type": "mistral"}, "not a Llama"),
        ({"attention_bias": True}, "biases"),
        ({"head_dim": 32}, "do not fill"),
        ({"quantization_config": {"quant_method": "gptq"}}, "quantised"),
        ({"rope_scaling": {"rope_type": "yarn", "factor": 2.0}}, "none of Meta's"),
        ({"num_hidden_layers": 3}, "model.layers.2.* is missing"),
        ({"num_hidden_layers": 1}, "model.layers.1.* has no place"),
        ({"intermediate_size": 100}, "config.json leads to"),
        ({"num_key_value_heads": 3}, "do not divide"),
        ({"vocab_size": None}, "vocab_size is None"),
    ],
)
def test_models_that_meta_has_no_form_for(
    toy: Toy, sentencepiece_model: Path, tmp_path: Path, changes: dict[str, Any], complaint: str
) -> None:
    meta_to_hf(toy.write(tmp_path / "meta", sentencepiece_model), tmp_path / "hf")
    config = json.loads((tmp_path / "hf" / "config.json").read_text())
    (tmp_path / "hf" / "config.json").write_text(json.dumps({**config, **changes}))
    with pytest.raises(LessonkitError, match=complaint):
        hf_to_meta(tmp_path / "hf", tmp_path / "out")
    assert not (tmp_path / "out").exists()


def test_hf_to_meta_reads_what_the_library_saves(
    toy: Toy, sentencepiece_model: Path, tmp_path: Path
) -> None:
    """transformers 5 writes rope_parameters, and no tokenizer.model."""
    meta_to_hf(toy.write(tmp_path / "meta", sentencepiece_model), tmp_path / "hf")
    model = AutoModelForCausalLM.from_pretrained(tmp_path / "hf", local_files_only=True)
    model.save_pretrained(tmp_path / "saved")
    certificate = hf_to_meta(tmp_path / "saved", tmp_path / "again")
    assert "the source has no tokenizer.model, which Meta's code needs" in certificate.notes
    ours = torch.load(tmp_path / "again" / "consolidated.00.pth", weights_only=True)
    for name, tensor in toy.meta_tensors().items():
        assert torch.equal(ours[name], tensor), name


@pytest.mark.parametrize("shards", [0, 3, 4, 9])
def test_numbers_of_shards_that_do_not_go(
    toy: Toy, sentencepiece_model: Path, tmp_path: Path, shards: int
) -> None:
    meta_to_hf(toy.write(tmp_path / "meta", sentencepiece_model), tmp_path / "hf")
    with pytest.raises(LessonkitError, match="cannot be cut") as caught:
        hf_to_meta(tmp_path / "hf", tmp_path / "out", shards=shards)
    assert caught.value.remedy == "Use one of 1, 2."


def test_nothing_is_overwritten(toy: Toy, sentencepiece_model: Path, tmp_path: Path) -> None:
    source = toy.write(tmp_path / "meta", sentencepiece_model)
    meta_to_hf(source, tmp_path / "hf")
    before = file_bytes(tmp_path / "hf")
    for convert, given in ((meta_to_hf, source), (hf_to_meta, tmp_path / "hf")):
        with pytest.raises(LessonkitError, match="exists already"):
            convert(given, tmp_path / "hf")
        with pytest.raises(LessonkitError, match="would delete"):
            convert(given, given, force=True)
    assert file_bytes(tmp_path / "hf") == before
    meta_to_hf(source, tmp_path / "hf", force=True)
    assert file_bytes(tmp_path / "hf") == before
