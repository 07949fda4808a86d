"""The converted tokenizer gives the original's ids, in the library as it really loads it."""

from __future__ import annotations

import json
from collections.abc import Callable
from functools import cache
from pathlib import Path
from tempfile import TemporaryDirectory

import pytest
import sentencepiece
import tiktoken
from hypothesis import given, settings
from hypothesis import strategies as st
from sentencepiece import sentencepiece_model_pb2
from tokenizers import Tokenizer
from transformers import AutoTokenizer

from lessonkit.errors import LessonkitError
from lessonkit.llama.tokenizer import TokenizerFiles, convert_tokenizer, count_tokens
from lessonkit.llama.tokenizer_json import LLAMA_3_PATTERN, read_tiktoken
from tests.tiny import sentencepiece_bytes

TEXTS = [
    "", " ", "  ", "Hello world", " a space first", "two  inside and last ", "\n\n\t x\r\n",
    "岛屿 harbour's 12345", "🙂 naïve ﬁ e\u0301", "▁under", "<0x41> \x00\x01",
    "The ferry leaves at 11 o'clock." * 3,
]  # fmt: skip


def load(files: TokenizerFiles, folder: Path) -> Callable[[str], list[int]]:
    """The tokenizer as a learner gets it: from a model's folder, by AutoTokenizer."""
    (folder / "config.json").write_text('{"model_type": "llama"}')
    for name, content in files.files.items():
        (folder / name).write_bytes(content)
    tokenizer = AutoTokenizer.from_pretrained(folder, local_files_only=True)
    assert len(tokenizer) == files.size
    return lambda text: tokenizer(text)["input_ids"]


def test_sentencepiece_ids_bos_included(sentencepiece_model: Path, tmp_path: Path) -> None:
    files = convert_tokenizer(sentencepiece_model, context=77)
    original = sentencepiece.SentencePieceProcessor(model_file=str(sentencepiece_model))
    encode = load(files, tmp_path)
    for text in TEXTS:
        assert encode(text) == [1, *original.encode(text)], text
    assert files.ids == files.generation == {"bos_token_id": 1, "eos_token_id": 2}
    assert count_tokens(sentencepiece_model) == files.size
    assert files.size == original.get_piece_size()
    assert not files.notes
    tokenizer = AutoTokenizer.from_pretrained(tmp_path, local_files_only=True)
    assert (tokenizer.bos_token, tokenizer.eos_token, tokenizer.unk_token) == (
        "<s>",
        "</s>",
        "<unk>",
    )
    assert tokenizer.model_max_length == 77
    for text in TEXTS:
        decoded = tokenizer.decode(original.encode(text), skip_special_tokens=True)
        assert decoded == original.decode(original.encode(text)), text
    assert (tmp_path / "tokenizer.model").read_bytes() == sentencepiece_model.read_bytes()


@settings(max_examples=200, deadline=None)
@given(st.text(max_size=60))
def test_any_text_gets_sentencepieces_ids(text: str) -> None:
    ours, original = _both()
    if any(token in text for token in ("<s>", "</s>", "<unk>")):
        return  # names of special tokens are special to Hugging Face only
    assert ours.encode(text).ids == [1, *original.encode(text)]


@cache
def _both() -> tuple[Tokenizer, sentencepiece.SentencePieceProcessor]:
    raw = sentencepiece_bytes()
    with TemporaryDirectory() as folder:
        (Path(folder) / "tokenizer.model").write_bytes(raw)
        files = convert_tokenizer(Path(folder) / "tokenizer.model", context=10)
    ours = Tokenizer.from_str(files.files["tokenizer.json"].decode())
    return ours, sentencepiece.SentencePieceProcessor(model_proto=raw)


@pytest.mark.parametrize("later", [False, True])
def test_tiktoken_ids(tiktoken_model: Path, tmp_path: Path, later: bool) -> None:
    files = convert_tokenizer(tiktoken_model, context=8192, later_llama_3=later)
    ranks = read_tiktoken(tiktoken_model.read_bytes())
    assert ranks is not None and len(ranks) == 300
    original = tiktoken.Encoding(
        "t", pat_str=LLAMA_3_PATTERN, mergeable_ranks=ranks, special_tokens={}
    )
    encode = load(files, tmp_path)
    for text in TEXTS:
        assert encode(text) == [300, *original.encode_ordinary(text)], text
    assert files.size == 556 and not files.notes
    assert files.ids == {"bos_token_id": 300, "eos_token_id": 301}
    stops = [301, 308, 309] if later else [301, 309]
    assert files.generation == {"bos_token_id": 300, "eos_token_id": stops}
    assert count_tokens(tiktoken_model) == 556


def test_the_real_llama_tokenizer(real_files: Path) -> None:
    folder = real_files / "tinyllama"
    files = convert_tokenizer(folder / "tokenizer.model", context=2048)
    theirs = json.loads((folder / "tokenizer.json").read_text(encoding="utf-8"))
    assert json.loads(files.files["tokenizer.json"]) == theirs
    assert not files.notes


def test_no_file(tmp_path: Path) -> None:
    with pytest.raises(LessonkitError, match="cannot be read"):
        convert_tokenizer(tmp_path / "tokenizer.model", context=10)
    (tmp_path / "tokenizer.model").write_text("<html>")
    for read in (count_tokens, lambda path: convert_tokenizer(path, context=10)):
        with pytest.raises(LessonkitError, match="neither a SentencePiece model nor a tiktoken"):
            read(tmp_path / "tokenizer.model")


def test_added_tokens_follow_the_pieces(sentencepiece_model: Path, tmp_path: Path) -> None:
    files = convert_tokenizer(sentencepiece_model, context=10, added_tokens=["[PAD]"])
    encode = load(files, tmp_path)
    assert files.size == 401
    assert encode("[PAD]") == [1, 400]


def test_equal_scores_are_noticed(tmp_path: Path) -> None:
    """Pieces appended with score 0, as in Chinese-LLaMA: SentencePiece goes left to right."""
    model = sentencepiece_model_pb2.ModelProto()
    model.ParseFromString(sentencepiece_bytes())
    for piece in ("th", "he", "er", "re", "es", "st", "ar", "ri"):
        if piece not in {p.piece for p in model.pieces}:
            model.pieces.add(piece=piece, score=0.0)
        next(p for p in model.pieces if p.piece == piece).score = 0.0
    (tmp_path / "tokenizer.model").write_bytes(model.SerializeToString())
    files = convert_tokenizer(tmp_path / "tokenizer.model", context=10)
    (note,) = files.notes
    assert "gives other ids" in note and "equal scores" in note
