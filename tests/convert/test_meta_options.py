"""Tokenizers that do not fit, and what the two conversions are asked for."""

from __future__ import annotations

import re
from functools import cache
from pathlib import Path

import pytest
from sentencepiece import sentencepiece_model_pb2
from transformers import AutoConfig, AutoTokenizer

from lessonkit.convert.meta import hf_to_meta, meta_to_hf
from lessonkit.convert.open import open_model
from lessonkit.errors import LessonkitError
from lessonkit.files.certificate import compare
from tests.convert.toy import Toy, file_bytes
from tests.tiny import sentencepiece_bytes

# --- the tokenizer and the embedding ----------------------------------------------------------


@cache
def pieces(count: int) -> bytes:
    """A SentencePiece model with so many pieces; those beyond 400 occur in no text."""
    model = sentencepiece_model_pb2.ModelProto()
    model.ParseFromString(sentencepiece_bytes())
    for number in range(len(model.pieces), count):
        model.pieces.add(piece=f"§{number}", score=float(-number))
    return model.SerializeToString()


def wide(folder: Path, rows: int, tokens: int) -> Path:
    """A very narrow Llama whose embedding has `rows` rows, with a tokenizer of `tokens`."""
    toy = Toy(dim=8, heads=2, kv_heads=2, layers=1, mlp=16, vocabulary=rows,
              params={"vocab_size": -1})  # fmt: skip
    toy.write(folder, None)
    (folder / "tokenizer.model").write_bytes(pieces(tokens))
    return folder


@pytest.mark.parametrize(
    ("rows", "tokens", "complaint", "remedy"),
    [
        (32000, 49953, "tokenizer has 49953 tokens, the embedding only 32000 rows", "32000: Llama"),
        (49953, 49954, "tokenizer has 49954 tokens, the embedding only 49953 rows", "49953: Chin"),
        (
            49953,
            32000,
            "embedding has 49953 rows, the tokenizer only 32000",
            "came with these",
        ),
        (
            49954,
            49953,
            "embedding has 49954 rows, the tokenizer only 49953",
            r'-token "\[PAD',
        ),
    ],
)
def test_the_vocabularies_of_the_tutorials(
    tmp_path: Path, rows: int, tokens: int, complaint: str, remedy: str
) -> None:
    source = wide(tmp_path / "meta", rows, tokens)
    with pytest.raises(LessonkitError, match=complaint) as caught:
        meta_to_hf(source, tmp_path / "hf")
    assert re.search(remedy, str(caught.value.remedy))
    assert caught.value.where == str(source / "tokenizer.model")
    assert [path.name for path in tmp_path.iterdir()] == ["meta"]


def test_alpacas_padding_token(tmp_path: Path) -> None:
    source = wide(tmp_path / "meta", 49954, 49953)
    meta_to_hf(source, tmp_path / "hf", added_tokens=["[PAD]"])
    tokenizer = AutoTokenizer.from_pretrained(tmp_path / "hf", local_files_only=True)
    assert len(tokenizer) == 49954 and tokenizer.convert_tokens_to_ids("[PAD]") == 49953
    config = AutoConfig.from_pretrained(tmp_path / "hf", local_files_only=True)
    assert config.vocab_size == 49954
    # And back: Meta's code counts the tokenizer's pieces, so the difference is told.
    notes = hf_to_meta(tmp_path / "hf", tmp_path / "back").notes
    assert any("49954 rows, tokenizer.model only 49953 tokens" in note for note in notes)
    assert not compare(open_model(source), open_model(tmp_path / "back")).beyond()


# --- what is asked for ------------------------------------------------------------------------


@pytest.mark.parametrize("shards", [0, 3, 4, 9])
def test_numbers_of_shards_that_do_not_go(
    toy: Toy, sentencepiece_model: Path, tmp_path: Path, shards: int
) -> None:
    meta_to_hf(toy.write(tmp_path / "meta", sentencepiece_model), tmp_path / "hf")
    with pytest.raises(LessonkitError, match="cannot be cut") as caught:
        hf_to_meta(tmp_path / "hf", tmp_path / "out", shards=shards)
    assert caught.value.remedy == "Use one of 1, 2."


def test_the_longest_text_can_be_said(toy: Toy, sentencepiece_model: Path, tmp_path: Path) -> None:
    source = toy.write(tmp_path / "meta", sentencepiece_model)
    notes = meta_to_hf(source, tmp_path / "hf", context=99).notes
    assert not any("how long a text may be" in note for note in notes)
    config = AutoConfig.from_pretrained(tmp_path / "hf", local_files_only=True)
    assert config.max_position_embeddings == 99
    for wrong in (0, -1):
        with pytest.raises(LessonkitError, match="cannot be .* tokens long"):
            meta_to_hf(source, tmp_path / "no", context=wrong)


def test_the_wrong_way_round(toy: Toy, sentencepiece_model: Path, tmp_path: Path) -> None:
    source = toy.write(tmp_path / "meta", sentencepiece_model)
    meta_to_hf(source, tmp_path / "hf")
    with pytest.raises(LessonkitError, match="in Hugging Face's form already"):
        meta_to_hf(tmp_path / "hf", tmp_path / "no")
    with pytest.raises(LessonkitError, match="in Meta's form already"):
        hf_to_meta(source, tmp_path / "no")


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
