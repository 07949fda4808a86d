"""What tokenizer.json says: merges, special tokens, rules for spaces."""

from __future__ import annotations

import json
from pathlib import Path
from typing import Any

import pytest
from tokenizers import Tokenizer
from transformers.convert_slow_tokenizer import bytes_to_unicode

from lessonkit.errors import LessonkitError
from lessonkit.llama.sentencepiece_model import parse_sentencepiece
from lessonkit.llama.tokenizer_json import (
    Built,
    from_sentencepiece,
    from_tiktoken,
    merges_by_score,
    read_tiktoken,
)
from tests.tiny import SENTENCES, sentencepiece_bytes

BYTES = {bytes([byte]): byte for byte in range(256)}


def built(added: tuple[str, ...] = (), **options: Any) -> Built:
    raw = sentencepiece_bytes(**options)
    return from_sentencepiece(parse_sentencepiece(raw, Path("tokenizer.model")), added)


def loaded(content: Built) -> Tokenizer:
    return Tokenizer.from_str(json.dumps(content.content))


# --- merges -----------------------------------------------------------------------------------


def test_merges_follow_scores() -> None:
    scores = {"a": -5.0, "b": -6.0, "ab": -2.0, "abb": -1.0, "bb": -2.0}
    assert merges_by_score(scores) == [("a", "bb"), ("ab", "b"), ("a", "b"), ("b", "b")]


def test_equal_scores_follow_ids() -> None:
    assert merges_by_score({"a": 0.0, "b": 0.0, "ba": 0.0, "ab": 0.0}) == [("b", "a"), ("a", "b")]
    # Ways to cut one piece: by the id of the left part, as in the files that Llama came with.
    four = merges_by_score({"a": 0.0, "aaa": -1.0, "aa": -2.0, "aaaa": -3.0})
    assert four[-3:] == [("a", "aaa"), ("aaa", "a"), ("aa", "aa")]


def test_pieces_that_nothing_joins_to() -> None:
    assert merges_by_score({"x": 0.0, "hello": -1.0}) == []


# --- from SentencePiece -----------------------------------------------------------------------


def test_control_and_unknown_pieces_are_special() -> None:
    content = built(added=("[PAD]", "<extra>")).content
    special = {token["content"]: token["id"] for token in content["added_tokens"]}
    assert special == {"<unk>": 0, "<s>": 1, "</s>": 2, "[PAD]": 400, "<extra>": 401}
    assert all(token["special"] for token in content["added_tokens"])
    merged = {left + right for left, right in content["model"]["merges"]}
    assert merged and not merged & (set(special) | {"<0x41>"})


def test_names_ids_and_stops() -> None:
    found = built()
    assert found.names == {"bos_token": "<s>", "eos_token": "</s>", "unk_token": "<unk>"}
    assert found.ids == {"bos_token_id": 1, "eos_token_id": 2}
    assert found.size == 400 and found.stops == (2,)
    assert built(added=("a-b",)).size == 401
    bare = built(bos_id=-1, eos_id=-1)
    assert bare.ids == {} and bare.stops == () and bare.content["post_processor"] is None
    assert loaded(built(bos_id=-1)).encode("").ids == []


def test_a_first_space_only_where_the_model_puts_one() -> None:
    for first_space in (True, False):
        raw = sentencepiece_bytes(add_dummy_prefix=first_space)
        source = parse_sentencepiece(raw, Path("tokenizer.model"))
        tokenizer = loaded(from_sentencepiece(source))
        for text in (*SENTENCES, " x", "x", ""):
            assert tokenizer.encode(text).ids == source.encode(text), text
            assert tokenizer.decode(source.encode(text)) == text


@pytest.mark.parametrize(
    ("added", "complaint"),
    [
        (("<s>",), "'<s>' cannot be added: it is there already"),
        (("[PAD]", "[PAD]"), r"'\[PAD\]' cannot be added: it is there already"),
        (("",), "'' cannot be added: it is empty"),
    ],
)
def test_tokens_that_cannot_be_added(added: tuple[str, ...], complaint: str) -> None:
    """They would keep their old id, and the row that they were to name would have no token."""
    with pytest.raises(LessonkitError, match=complaint):
        built(added)


@pytest.mark.parametrize("token", ["", "a", "<|eot_id|>"])
def test_tokens_that_cannot_be_added_to_llama_3(token: str) -> None:
    with pytest.raises(LessonkitError, match="cannot be added"):
        from_tiktoken(BYTES, later=False, added_tokens=(token,))


# --- from tiktoken ----------------------------------------------------------------------------


def test_a_tiktoken_file_by_hand() -> None:
    assert read_tiktoken(b"aGk= 1\nIQ== 0\n\n") == {b"hi": 1, b"!": 0}
    for wrong in (b"", b"\n", b"aGk=\n", b"aGk= 0 0\n", b"aGk= x\n", b"?? 0\n", b"aGk= 1\n",
                  b"aGk= 0\nIQ== 0\n", b"aGk= 0\nIQ== 2\n"):  # fmt: skip
        assert read_tiktoken(wrong) is None, wrong


def test_bytes_are_written_as_gpt_2_writes_them() -> None:
    vocabulary = from_tiktoken(BYTES, later=False, added_tokens=()).content["model"]["vocab"]
    assert vocabulary == {letter: byte for byte, letter in bytes_to_unicode().items()}


@pytest.mark.parametrize("later", [False, True])
def test_llama_3s_special_tokens(later: bool) -> None:
    found = from_tiktoken(BYTES, later=later, added_tokens=("<extra>",))
    ids = {token["content"]: token["id"] - 256 for token in found.content["added_tokens"]}
    assert len(ids) == 257 and sorted(ids.values()) == list(range(257))
    assert ids["<|begin_of_text|>"] == 0 and ids["<|end_of_text|>"] == 1
    assert ids["<|start_header_id|>"] == 6 and ids["<|end_header_id|>"] == 7
    assert ids["<|eot_id|>"] == 9 and ids["<extra>"] == 256
    names = {"<|finetune_right_pad_id|>": 4, "<|eom_id|>": 8, "<|python_tag|>": 10}
    assert {name: ids.get(name) for name in names} == (names if later else dict.fromkeys(names))
    assert found.ids == {"bos_token_id": 256, "eos_token_id": 257} and found.size == 513
    # Generation ends after a turn, too.
    assert found.stops == ((257, 264, 265) if later else (257, 265))


def test_whole_sequences_come_before_merges() -> None:
    """tiktoken takes a piece of text that is a token as a whole, whatever its merges say."""
    ranks = {**BYTES, b"ab": 256, b"abcd": 257}  # no merges lead to abcd
    tokenizer = loaded(from_tiktoken(ranks, later=False, added_tokens=()))
    begin = 258
    assert tokenizer.encode("abcd").ids == [begin, 257]
    assert tokenizer.encode("abc").ids == [begin, 256, 99]
