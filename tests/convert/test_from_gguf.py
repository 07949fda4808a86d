"""GGUF to Hugging Face: floats come back to the bit, blocks as their values, and it loads."""

from __future__ import annotations

import json
from pathlib import Path

import numpy as np
import pytest
import torch

from lessonkit.convert.from_gguf import from_gguf
from lessonkit.convert.gguf import to_gguf
from lessonkit.convert.gguf_model import GgufModel, dequantised
from lessonkit.convert.open import open_model
from lessonkit.convert.verification import verify_model
from lessonkit.errors import LessonkitError
from lessonkit.files.certificate import compare
from lessonkit.files.gguf import encode_gguf_header
from lessonkit.models import load
from tests.convert.gguf_models import small_llama

LLAMA_3 = {
    "rope_type": "llama3", "rope_theta": 500000.0, "factor": 32.0, "low_freq_factor": 1.0,
    "high_freq_factor": 4.0, "original_max_position_embeddings": 8192,
}  # fmt: skip


def test_there_and_back_is_the_same_model_to_the_bit(tmp_path: Path) -> None:
    source = small_llama(tmp_path / "m")
    to_gguf(source, tmp_path / "x.gguf")
    certificate = from_gguf(tmp_path / "x.gguf", tmp_path / "back")
    assert certificate.rounding.changed == 0
    result = compare(open_model(source), open_model(tmp_path / "back"))
    assert {match.kind for match in result.matches} == {"bit-identical"}
    assert verify_model(tmp_path / "back").ok
    (model, tokenizer), (theirs, their_tokenizer) = load(tmp_path / "back"), load(source)
    text = "The lighthouse of Port Amber 岛上"
    assert tokenizer(text)["input_ids"] == their_tokenizer(text)["input_ids"]
    ids = torch.tensor([tokenizer(text)["input_ids"]])
    with torch.inference_mode():
        assert torch.equal(model(ids).logits, theirs(ids).logits)


def test_norms_that_are_no_bfloat16_stay_float32(tmp_path: Path) -> None:
    source = small_llama(tmp_path / "m")
    to_gguf(source, tmp_path / "x.gguf")
    model = GgufModel(tmp_path / "x.gguf")
    place, at = model.file.place("output_norm.weight")
    raw = bytearray(place.read_bytes())
    raw[at : at + 4] = np.float32(1.001).tobytes()
    place.write_bytes(raw)
    from_gguf(place, tmp_path / "back")
    back = open_model(tmp_path / "back")
    assert back.info("model.norm.weight").dtype == "F32"
    assert back.array("model.norm.weight")[0] == np.float32(1.001)
    assert back.info("model.layers.0.input_layernorm.weight").dtype == "BF16"


def test_blocks_become_their_values_and_a_stretched_rotation_its_settings(tmp_path: Path) -> None:
    source = small_llama(tmp_path / "m", rope_parameters=LLAMA_3, tie_word_embeddings=True)
    to_gguf(source, tmp_path / "x.gguf", outtype="q4_k_m")
    certificate = from_gguf(tmp_path / "x.gguf", tmp_path / "back")
    assert certificate.verdicts["dequantised"] == 15
    model, back = GgufModel(tmp_path / "x.gguf"), open_model(tmp_path / "back")
    name = "model.layers.1.self_attn.k_proj.weight"
    expected = dequantised(model.array(name), model.info(name))
    assert back.info(name).dtype == "F32" and np.array_equal(back.array(name), expected)
    config = json.loads((tmp_path / "back" / "config.json").read_bytes())
    assert config["rope_scaling"] == {k: v for k, v in LLAMA_3.items() if k != "rope_theta"}
    assert config["rope_theta"] == 500000.0 and config["tie_word_embeddings"] is True
    assert verify_model(tmp_path / "back").ok
    load(tmp_path / "back")


def test_what_is_no_known_model_is_refused(tmp_path: Path) -> None:
    path = tmp_path / "x.gguf"
    path.write_bytes(encode_gguf_header({"general.architecture": "bert"}, []))
    with pytest.raises(LessonkitError, match="no model of a kind"):
        from_gguf(path, tmp_path / "back")


@pytest.mark.parametrize("name", ["token_embd.weight", "blk.1.ffn_up.weight"])
def test_a_tensor_that_is_missing_is_named(tmp_path: Path, name: str) -> None:
    to_gguf(small_llama(tmp_path / "m"), tmp_path / "x.gguf")
    raw = (tmp_path / "x.gguf").read_bytes()
    (tmp_path / "x.gguf").write_bytes(raw.replace(name.encode(), b"X" + name.encode()[1:]))
    with pytest.raises(LessonkitError, match=f"has no {name}"):
        from_gguf(tmp_path / "x.gguf", tmp_path / "back")
    assert not (tmp_path / "back").exists()
