"""A SentencePiece model is read as the library reads it, and nothing else passes for one."""

from __future__ import annotations

from pathlib import Path

import pytest
import sentencepiece
from hypothesis import given, settings
from hypothesis import strategies as st
from sentencepiece import sentencepiece_model_pb2

from lessonkit.errors import LessonkitError
from lessonkit.llama.sentencepiece_model import parse_sentencepiece
from tests.tiny import SENTENCES, sentencepiece_bytes

HERE = Path("tokenizer.model")


def edited(**changes: object) -> bytes:
    """The toy model with other settings: trainer_spec__model_type=1, for example."""
    model = sentencepiece_model_pb2.ModelProto()
    model.ParseFromString(sentencepiece_bytes())
    for path, value in changes.items():
        part, _, name = path.partition("__")
        setattr(getattr(model, part), name, value)
    return model.SerializeToString()


def test_pieces_and_ids_are_the_librarys() -> None:
    raw = sentencepiece_bytes()
    theirs = sentencepiece.SentencePieceProcessor(model_proto=raw)
    ours = parse_sentencepiece(raw, HERE)
    pieces = {theirs.id_to_piece(index): index for index in range(theirs.get_piece_size())}
    assert ours.vocabulary == pieces and list(ours.vocabulary.values()) == list(range(len(pieces)))
    assert ours.special() == {"bos_token": 1, "eos_token": 2, "unk_token": 0}
    for text in (*SENTENCES, "", " x"):
        assert ours.encode(text) == [1, *theirs.encode(text)]
    ours.require_plain()


def test_a_model_without_a_beginning_token() -> None:
    raw = sentencepiece_bytes(bos_id=-1)
    ours = parse_sentencepiece(raw, HERE)
    assert "bos_token" not in ours.special()
    theirs = sentencepiece.SentencePieceProcessor(model_proto=raw)
    assert ours.encode("The river") == theirs.encode("The river")
    assert parse_sentencepiece(sentencepiece_bytes(pad_id=3), HERE).special()["pad_token"] == 3


@pytest.mark.parametrize(
    "raw",
    [
        b"",
        b"<html>",
        b"version https://git-lfs.github.com/spec/v1\n",
        sentencepiece_bytes()[:1000],
        sentencepiece_model_pb2.ModelProto().SerializeToString(),
    ],
)
def test_other_files_are_refused(raw: bytes) -> None:
    with pytest.raises(LessonkitError, match="neither a SentencePiece model nor") as caught:
        parse_sentencepiece(raw, HERE)
    assert caught.value.where == "tokenizer.model" and caught.value.remedy


@pytest.mark.parametrize(
    ("raw", "complaint"),
    [
        (edited(trainer_spec__model_type=1), "kind is not BPE"),
        (edited(normalizer_spec__remove_extra_whitespaces=True), "removes extra spaces"),
        (sentencepiece_bytes(normalization_rule_name="nmt_nfkc"), "normalises Unicode"),
        (sentencepiece_bytes(user_defined_symbols="@@"), "user-defined pieces"),
        (sentencepiece_bytes(treat_whitespace_as_suffix=True), "behind words"),
    ],
)
def test_other_kinds_of_models_are_not_plain(raw: bytes, complaint: str) -> None:
    with pytest.raises(LessonkitError, match=complaint) as caught:
        parse_sentencepiece(raw, HERE).require_plain()
    assert caught.value.where == "tokenizer.model" and caught.value.remedy


@settings(max_examples=150, deadline=None)
@given(
    st.lists(st.tuples(st.integers(0, 10_000), st.integers(0, 255)), min_size=1, max_size=4),
    st.integers(0, 10_000),
)
def test_damaged_models_are_read_or_refused(changes: list[tuple[int, int]], cut: int) -> None:
    raw = bytearray(sentencepiece_bytes())
    for place, byte in changes:
        raw[place % len(raw)] = byte
    for damaged in (bytes(raw), bytes(raw[: cut % len(raw)])):
        try:
            model = parse_sentencepiece(damaged, HERE)
        except LessonkitError:
            continue
        assert all(type(piece) is str for piece in model.vocabulary)
