"""Everything that Meta's form could not hold is refused or noted before anything is written."""

from __future__ import annotations

import json
from collections.abc import Callable
from pathlib import Path
from typing import Any

import pytest
import torch
from safetensors.torch import load_file, save_file

from lessonkit.convert.hf_checkpoint import open_hf_llama
from lessonkit.errors import LessonkitError
from lessonkit.llama.configs import hf_config
from lessonkit.llama.shape import LlamaShape
from tests.convert.toy import Toy
from tests.tiny import sentencepiece_bytes

Table = dict[str, torch.Tensor]


def write(folder: Path, toy: Toy | None = None, **changes: Any) -> Path:
    """A toy in Hugging Face's form, without lessonkit's own conversion."""
    toy = toy or Toy()
    shape = LlamaShape(
        toy.dim, toy.layers, toy.heads, toy.kv_heads, toy.mlp, toy.vocabulary, 1e-5, tied=toy.tied
    )
    config = hf_config(shape, dtype="bfloat16", context=77, ids={})
    (folder / "config.json").write_text(json.dumps({**config, **changes}))
    tensors = {name: tensor.contiguous() for name, tensor in toy.hf_tensors().items()}
    save_file(tensors, folder / "model.safetensors")
    return folder


def rewrite(folder: Path, change: Callable[[Table], object]) -> None:
    table = load_file(folder / "model.safetensors")
    change(table)
    save_file(table, folder / "model.safetensors")


def complaint(folder: Path) -> LessonkitError:
    with pytest.raises(LessonkitError) as caught:
        open_hf_llama(folder)
    assert caught.value.remedy and caught.value.where
    return caught.value


def test_a_whole_model(tmp_path: Path) -> None:
    folder = write(tmp_path)
    (folder / "tokenizer.model").write_bytes(sentencepiece_bytes())
    model, shape = open_hf_llama(folder)
    assert (
        shape == model.shape and shape.width == 64 and model.config["max_position_embeddings"] == 77
    )
    assert sorted(model) == sorted(Toy().hf_tensors())
    assert model.tokenizer == folder / "tokenizer.model" and not model.notes


# --- tensors ----------------------------------------------------------------------------------


def lose(name: str) -> Callable[[Table], object]:
    return lambda table: table.pop(name)


def put(name: str, tensor: torch.Tensor) -> Callable[[Table], object]:
    return lambda table: table.update({name: tensor})


Q = "model.layers.0.self_attn.q_proj.weight"


@pytest.mark.parametrize(
    ("change", "expected"),
    [
        (lose("lm_head.weight"), "The tensor lm_head.weight is missing"),
        (lose(Q), f"The tensor {Q} is missing"),
        (put("model.layers.2.mlp.up_proj.weight", torch.ones(2)), "has no place in a Llama"),
        (put("model.layers.0.self_attn.q_proj.bias", torch.ones(64)), "has no place in a Llama"),
        (put(Q, torch.ones(64, 60)), r"has the shape \[64, 60\]; config.json leads to \[64, 64\]"),
        (put(Q, torch.ones(64, 64, dtype=torch.int8)), "is I8: codes of a quantised model"),
        (put(Q, torch.ones(64, 64).to(torch.float8_e4m3fn)), "is F8_E4M3: codes of a quantised"),
    ],
)
def test_tensors_that_do_not_fit(
    tmp_path: Path, change: Callable[[Table], object], expected: str
) -> None:
    folder = write(tmp_path)
    rewrite(folder, change)
    with pytest.raises(LessonkitError, match=expected):
        open_hf_llama(folder)


@pytest.mark.parametrize(
    ("changes", "expected"),
    [
        ({"num_hidden_layers": 3}, "model.layers.2.self_attn.q_proj.weight is missing"),
        ({"num_hidden_layers": 10**12}, "num_hidden_layers is larger than in any model"),
        ({"num_hidden_layers": 1}, "model.layers.1.* has no place in a Llama"),
        ({"intermediate_size": 100}, "config.json leads to"),
        ({"vocab_size": 401}, r"has the shape \[400, 64\]; config.json leads to \[401, 64\]"),
        ({"model_type": "mistral"}, "not a Llama"),
    ],
)
def test_configs_that_do_not_fit(tmp_path: Path, changes: dict[str, Any], expected: str) -> None:
    folder = write(tmp_path, **changes)
    with pytest.raises(LessonkitError, match=expected):
        open_hf_llama(folder)


def test_old_tables_of_frequencies_are_left_out_with_a_note(tmp_path: Path) -> None:
    folder = write(tmp_path)
    rewrite(folder, put("model.layers.0.self_attn.rotary_emb.inv_freq", torch.ones(8)))
    assert any(
        "rotary_emb.inv_freq was left out" in note for note in open_hf_llama(folder)[0].notes
    )


def test_other_folders(tmp_path: Path) -> None:
    assert "cannot be read" in complaint(tmp_path).what
    meta = Toy().write(tmp_path / "meta", None)
    assert complaint(meta).what == "The folder is in Meta's form already."


# --- tied heads -------------------------------------------------------------------------------


def test_a_tied_head_is_told(tmp_path: Path) -> None:
    folder = write(tmp_path, Toy(tied=True))
    note = "the embedding is also the output head: Meta's form stores both"
    assert note in open_hf_llama(folder)[0].notes
    rewrite(folder, lambda t: t.update({"lm_head.weight": t["model.embed_tokens.weight"].clone()}))
    assert note in open_hf_llama(folder)[0].notes


@pytest.mark.parametrize("dtype", [torch.bfloat16, torch.float32])
def test_a_tied_head_that_is_another_is_refused(tmp_path: Path, dtype: torch.dtype) -> None:
    """transformers 5 would use it; to drop it would change the model without a word."""
    folder = write(tmp_path, Toy(tied=True))

    def untie(table: Table) -> None:
        table["lm_head.weight"] = table["model.embed_tokens.weight"].to(dtype).clone()
        if dtype == torch.bfloat16:
            table["lm_head.weight"][-1, -1] += 1

    rewrite(folder, untie)
    error = complaint(folder)
    assert "but the weights hold another lm_head.weight" in error.what
    assert "tie_word_embeddings" in str(error.remedy)


# --- tokenizers -------------------------------------------------------------------------------


def test_tokenizer_and_embedding(tmp_path: Path) -> None:
    folder = write(tmp_path)
    (note,) = open_hf_llama(folder)[0].notes
    assert note == "the source has no tokenizer.model, which Meta's code needs"
    words = folder / "tokenizer.model"
    words.write_bytes(sentencepiece_bytes(vocabulary=420))
    assert "has 420 tokens, the embedding only 400 rows" in complaint(folder).what
    words.write_bytes(sentencepiece_bytes(vocabulary=390))
    (note,) = open_hf_llama(folder)[0].notes
    assert "has 400 rows, tokenizer.model only 390 tokens" in note
    assert "name the 10 others with --added-token" in note
    words.write_text("version https://git-lfs.github.com/spec/v1\n")
    assert "neither a SentencePiece model nor" in complaint(folder).what


def test_llama_3s_repositories_keep_it_in_a_folder(tmp_path: Path, tiktoken_model: Path) -> None:
    folder = write(tmp_path, Toy(vocabulary=556))
    (folder / "original").mkdir()
    (folder / "original" / "tokenizer.model").write_bytes(tiktoken_model.read_bytes())
    model, _ = open_hf_llama(folder)
    assert model.tokenizer == folder / "original" / "tokenizer.model" and not model.notes
