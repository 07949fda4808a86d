"""Tokenizers in GGUF's metadata, next to the gguf package's reading of the same folder."""

from __future__ import annotations

import json
import shutil
from pathlib import Path
from typing import Any

import gguf
import numpy as np
import pytest
import sentencepiece
from tokenizers import Tokenizer, models, pre_tokenizers

from lessonkit.errors import LessonkitError
from lessonkit.llama.gguf_tokenizer import (
    BYTE,
    CONTROL,
    NORMAL,
    UNUSED,
    USER_DEFINED,
    sentencepiece_of,
    special_ids_of,
    tokenizer_metadata,
)
from lessonkit.llama.tokenizer import PROBES
from lessonkit.llama.tokenizer_json import LLAMA_3_PATTERN
from tests.tiny import make_tokenizer

CONFIG = {"vocab_size": 410, "bos_token_id": 1, "eos_token_id": 2, "pad_token_id": None}


@pytest.fixture(scope="module")
def folder(tmp_path_factory: pytest.TempPathFactory) -> Path:
    return make_tokenizer(tmp_path_factory.mktemp("words"))


@pytest.fixture
def copy(folder: Path, tmp_path: Path) -> Path:
    return Path(shutil.copytree(folder, tmp_path / "copy"))


def settings(folder: Path, **changes: Any) -> None:
    path = folder / "tokenizer_config.json"
    path.write_text(json.dumps({**json.loads(path.read_text()), **changes}))


def test_pieces_scores_and_types_and_padding_up_to_the_embedding(copy: Path) -> None:
    settings(copy, added_tokens_decoder={})
    words, notes = tokenizer_metadata(copy, CONFIG)
    processor = sentencepiece.SentencePieceProcessor(model_file=str(copy / "tokenizer.model"))
    count = processor.vocab_size()
    tokens, types = words["tokenizer.ggml.tokens"], words["tokenizer.ggml.token_type"]
    assert not notes and words["tokenizer.ggml.model"] == "llama"
    assert len(tokens) == len(types) == 410 > count
    assert tokens[:count] == [processor.id_to_piece(i) for i in range(count)]
    scores = [processor.get_score(i) for i in range(count)]
    assert np.array_equal(words["tokenizer.ggml.scores"][:count], np.float32(scores))
    assert types[:5].tolist() == [2, CONTROL, CONTROL, BYTE, BYTE] and types[count - 1] == NORMAL
    assert tokens[count:] == [f"[PAD{i}]" for i in range(count, 410)]
    assert set(types[count:].tolist()) == {UNUSED}
    assert set(words["tokenizer.ggml.scores"][count:].tolist()) == {-10000.0}


def test_special_ids_and_added_tokens_are_what_the_gguf_package_finds(folder: Path) -> None:
    words, _ = tokenizer_metadata(folder, CONFIG)
    theirs = gguf.SpecialVocab(folder, n_vocab=410)
    names = {"bos": "bos", "eos": "eos", "unk": "unknown", "pad": "padding"}
    for kind, index in theirs.special_token_ids.items():
        assert words[f"tokenizer.ggml.{names[kind]}_token_id"] == index
    for kind in ("bos", "eos"):
        assert words.get(f"tokenizer.ggml.add_{kind}_token") == theirs.add_special_token.get(kind)


def test_added_tokens(copy: Path) -> None:
    added = {"400": {"content": "<pad>", "special": False},
             "401": {"content": "▁x", "special": False},
             "402": {"content": "<|so|>"}, "999": {"content": "far"}}  # fmt: skip
    settings(copy, added_tokens_decoder=added)
    (copy / "added_tokens.json").write_text(json.dumps({"[X]": 405}))
    words, _ = tokenizer_metadata(copy, CONFIG)
    found = {
        i: (words["tokenizer.ggml.tokens"][i], words["tokenizer.ggml.token_type"][i])
        for i in (400, 401, 402, 405)
    }
    assert found == {400: ("<pad>", CONTROL), 401: (" x", USER_DEFINED), 402: ("<|so|>", CONTROL),
                     405: ("[X]", USER_DEFINED)}  # fmt: skip
    assert words["tokenizer.ggml.scores"][400] == -1000.0


def test_the_chat_template_and_the_first_space(copy: Path) -> None:
    (copy / "chat_template.jinja").write_text("from the file")
    assert tokenizer_metadata(copy, CONFIG)[0]["tokenizer.chat_template"] == "from the file"
    settings(copy, chat_template="from the settings", add_prefix_space=False)
    words, _ = tokenizer_metadata(copy, CONFIG)
    assert words["tokenizer.chat_template"] == "from the settings"
    assert words["tokenizer.ggml.add_space_prefix"] is False
    several = [{"name": "default", "template": "d"}, {"name": "tool", "template": "t"}]
    settings(copy, chat_template=several)
    words, notes = tokenizer_metadata(copy, CONFIG)
    assert words["tokenizer.chat_template"] == "d" and "only the one" in notes[0]


def test_more_pieces_than_rows_are_refused(folder: Path) -> None:
    with pytest.raises(LessonkitError, match="only 50 rows"):
        tokenizer_metadata(folder, {**CONFIG, "vocab_size": 50})


def test_the_way_back_gives_the_same_ids(folder: Path) -> None:
    words, _ = tokenizer_metadata(folder, CONFIG)
    raw = sentencepiece_of(words)
    ours = sentencepiece.SentencePieceProcessor(model_proto=raw)
    theirs = sentencepiece.SentencePieceProcessor(model_file=str(folder / "tokenizer.model"))
    assert (ours.bos_id(), ours.eos_id(), ours.unk_id()) == (1, 2, 0)
    for text in PROBES:
        assert ours.encode(text) == theirs.encode(text)
    assert special_ids_of(words) == {"bos_token_id": 1, "eos_token_id": 2, "pad_token_id": None}
    assert sentencepiece_of({"tokenizer.ggml.model": "gpt2"}) is None


def byte_level(folder: Path, pattern: str) -> Path:
    letters = sorted(pre_tokenizers.ByteLevel.alphabet())
    vocabulary = {letter: i for i, letter in enumerate([*letters, "he", "Ġh"])}
    tokenizer = Tokenizer(models.BPE(vocab=vocabulary, merges=[("h", "e"), ("Ġ", "h")]))
    from tokenizers import Regex

    tokenizer.pre_tokenizer = pre_tokenizers.Sequence(
        [
            pre_tokenizers.Split(Regex(pattern), behavior="isolated"),
            pre_tokenizers.ByteLevel(add_prefix_space=False, use_regex=False),
        ]
    )
    tokenizer.add_special_tokens(["<|begin_of_text|>", "<|end_of_text|>"])
    tokenizer.save(str(folder / "tokenizer.json"))
    names = {"bos_token": "<|begin_of_text|>", "eos_token": "<|end_of_text|>"}
    (folder / "tokenizer_config.json").write_text(json.dumps(names))
    return folder


def test_byte_level_tokenizers(tmp_path: Path) -> None:
    words, _ = tokenizer_metadata(byte_level(tmp_path, LLAMA_3_PATTERN), {"vocab_size": 264})
    theirs = gguf.SpecialVocab(tmp_path, load_merges=True, n_vocab=264)
    assert words["tokenizer.ggml.model"] == "gpt2"
    assert words["tokenizer.ggml.pre"] == "llama-bpe"
    assert words["tokenizer.ggml.merges"] == theirs.merges == ["h e", "Ġ h"]
    assert words["tokenizer.ggml.bos_token_id"] == theirs.special_token_ids["bos"] == 258
    assert words["tokenizer.ggml.tokens"][256:] == [
        "he", "Ġh", "<|begin_of_text|>", "<|end_of_text|>", *(f"[PAD{i}]" for i in range(260, 264)),
    ]  # fmt: skip
    assert words["tokenizer.ggml.token_type"][256:].tolist() == [1, 1, 3, 3, 5, 5, 5, 5]
    qwen = byte_level(tmp_path, LLAMA_3_PATTERN.replace(r"\p{N}{1,3}", r"\p{N}"))
    assert tokenizer_metadata(qwen, {"vocab_size": 264})[0]["tokenizer.ggml.pre"] == "qwen2"


def test_an_unknown_way_to_cut_is_refused(tmp_path: Path) -> None:
    with pytest.raises(LessonkitError, match="cuts texts in a way"):
        tokenizer_metadata(byte_level(tmp_path, r"\w+"), {"vocab_size": 264})


def test_no_tokenizer_is_noted(tmp_path: Path) -> None:
    words, notes = tokenizer_metadata(tmp_path, CONFIG)
    assert words == {"tokenizer.ggml.model": "none"} and "no tokenizer" in notes[0]
