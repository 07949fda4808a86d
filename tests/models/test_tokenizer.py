"""The tokenizer's ids are the SentencePiece model's, however the folder came to be."""

from __future__ import annotations

import json

import pytest
import sentencepiece
from hypothesis import given
from hypothesis import strategies as st

from lessonkit.errors import LessonkitError
from lessonkit.llama.tokenizer import PROBES, convert_tokenizer
from lessonkit.llama.vocabulary import extend_vocabulary
from lessonkit.models.tokenizer import load_tokenizer
from tests.tiny import SENTENCES, make_tokenizer, sentencepiece_bytes

TEXTS = (
    *PROBES,
    *SENTENCES,
    " = A title = \n",
    " ",
    "     ",
    "a" + " " * 33 + "b  ",
    "\r\n\x00\x7f",
    "ﬁ Å e\u0301 \u3000 \xa0 \u200b",  # nothing is normalised
    "2024-11-20 3,141",
)


@pytest.fixture(scope="module")
def pieces() -> sentencepiece.SentencePieceProcessor:
    return sentencepiece.SentencePieceProcessor(model_proto=sentencepiece_bytes())


@pytest.fixture(scope="module", params=["tokenizer.model alone", "saved by transformers"])
def tokenizer(request, tmp_path_factory):
    alone = request.param == "tokenizer.model alone"
    return load_tokenizer(make_tokenizer(tmp_path_factory.mktemp("tokenizer"), only_model=alone))


@pytest.mark.parametrize("text", TEXTS)
def test_ids_are_those_of_sentencepiece(tokenizer, pieces, text):
    assert tokenizer.encode(text) == [1, *pieces.encode(text)]
    assert tokenizer(text, add_special_tokens=False).input_ids == pieces.encode(text)
    assert tokenizer.decode(pieces.encode(text)) == text


# Surrogates have no UTF-8; "▁" is SentencePiece's own sign for a space, "<" may begin a token.
@given(st.text(st.characters(exclude_categories=["Cs"], exclude_characters="▁<"), max_size=60))
def test_ids_of_any_text_are_those_of_sentencepiece(tokenizer, pieces, text):
    assert tokenizer.encode(text) == [1, *pieces.encode(text)]


@given(st.text(" \nabehilnoprstwT.", max_size=80))
def test_ids_of_english_looking_text(tokenizer, pieces, text):
    assert tokenizer.encode(text) == [1, *pieces.encode(text)]


def test_special_tokens_stay_special(tokenizer):
    assert tokenizer.encode("<s>") == [1, 1]
    assert tokenizer.encode("of</s>")[-1] == 2
    assert tokenizer.bos_token_id == 1 and tokenizer.eos_token_id == 2


def test_scores_and_not_ids_order_the_merges(tmp_path):
    """transformers 5.23 alone orders them by id, and is wrong for such a model."""
    from sentencepiece import sentencepiece_model_pb2 as model_pb2

    model = model_pb2.ModelProto.FromString(sentencepiece_bytes())
    normal = [piece for piece in model.pieces if piece.type == 1]
    scores = [piece.score for piece in normal]
    for piece, score in zip(normal, reversed(scores), strict=True):
        piece.score = score
    changed = model.SerializeToString()
    make_tokenizer(tmp_path, only_model=True, model=changed)
    pieces = sentencepiece.SentencePieceProcessor(model_proto=changed)
    tokenizer = load_tokenizer(tmp_path)
    for text in SENTENCES:
        assert tokenizer.encode(text) == [1, *pieces.encode(text)]
    from transformers import LlamaTokenizer

    theirs = LlamaTokenizer.from_pretrained(tmp_path, add_bos_token=True)
    assert any(theirs.encode(text) != [1, *pieces.encode(text)] for text in SENTENCES)


def test_a_model_without_a_beginning_token_gets_none(tmp_path):
    model = sentencepiece_bytes(bos_id=-1)
    pieces = sentencepiece.SentencePieceProcessor(model_proto=model)
    tokenizer = load_tokenizer(make_tokenizer(tmp_path, only_model=True, model=model))
    assert tokenizer.encode(SENTENCES[0]) == pieces.encode(SENTENCES[0])


def test_files_of_two_models_are_refused(tmp_path):
    make_tokenizer(tmp_path)
    (tmp_path / "tokenizer.model").write_bytes(sentencepiece_bytes(vocabulary=420))
    with pytest.raises(LessonkitError, match="different vocabularies"):
        load_tokenizer(tmp_path)


def test_a_model_that_normalises_is_refused(tmp_path):
    model = sentencepiece_bytes(normalization_rule_name="nmt_nfkc")
    with pytest.raises(LessonkitError, match="it normalises Unicode"):
        load_tokenizer(make_tokenizer(tmp_path, only_model=True, model=model))


def test_added_pieces_of_equal_score_are_refused(tmp_path):
    """Leftmost first, says SentencePiece; a list of merges cannot say that."""
    from sentencepiece import sentencepiece_model_pb2 as model_pb2

    model = model_pb2.ModelProto.FromString(sentencepiece_bytes())
    for added in ("从河", "流从", "河上"):
        assert added not in {piece.piece for piece in model.pieces}
        model.pieces.add(piece=added, score=0.0)
    make_tokenizer(tmp_path, only_model=True, model=model.SerializeToString())
    with pytest.raises(LessonkitError, match="disagree") as caught:
        load_tokenizer(tmp_path)
    assert "same score" in str(caught.value)


def test_a_control_piece_like_pad_is_no_text(tmp_path):
    """Alpaca's [PAD] is a piece of the SentencePiece model, which no text becomes."""
    grown = extend_vocabulary(sentencepiece_bytes(), tokens=["[PAD]"])
    make_tokenizer(tmp_path, only_model=True)
    (tmp_path / "tokenizer.model").write_bytes(grown.model)
    made = convert_tokenizer(tmp_path / "tokenizer.model", context=64)
    assert made.notes == []
    for name, content in made.files.items():
        (tmp_path / name).write_bytes(content)
    tokenizer = load_tokenizer(tmp_path)
    assert tokenizer.convert_tokens_to_ids("[PAD]") == grown.size - 1
    assert tokenizer("The river").input_ids[-1] != grown.size - 1


def test_without_a_sentencepiece_model_tokenizer_json_is_used(tmp_path):
    make_tokenizer(tmp_path)
    (tmp_path / "config.json").write_text(json.dumps({"model_type": "llama"}))
    expected = load_tokenizer(tmp_path).encode("The river Sorrel", add_special_tokens=False)
    (tmp_path / "tokenizer.model").unlink()
    found = load_tokenizer(tmp_path).encode("The river Sorrel", add_special_tokens=False)
    assert found == expected
    # Llama 3 puts a table of another kind under that name.
    (tmp_path / "tokenizer.model").write_text("IQ== 0\nIg== 1\n")
    assert load_tokenizer(tmp_path).encode("The river Sorrel", add_special_tokens=False) == expected


def test_no_tokenizer_and_broken_ones_are_errors(tmp_path):
    with pytest.raises(LessonkitError, match="no tokenizer") as caught:
        load_tokenizer(tmp_path)
    assert caught.value.remedy
    (tmp_path / "tokenizer.model").write_bytes(sentencepiece_bytes()[:1000])
    with pytest.raises(LessonkitError, match="neither a SentencePiece model nor"):
        load_tokenizer(tmp_path)
    (tmp_path / "tokenizer.model").unlink()
    (tmp_path / "config.json").write_text(json.dumps({"model_type": "llama"}))
    (tmp_path / "tokenizer.json").write_text("{")
    with pytest.raises(LessonkitError, match="cannot be read"):
        load_tokenizer(tmp_path)


@pytest.mark.parametrize("only_model", [True, False])
def test_tinyllama_on_all_of_wikitext(tmp_path, only_model, real_files):
    folder = real_files / "tinyllama"
    model = (folder / "tokenizer.model").read_bytes()
    if only_model:
        folder = make_tokenizer(tmp_path, only_model=True, model=model)
    pieces = sentencepiece.SentencePieceProcessor(model_proto=model)
    tokenizer = load_tokenizer(folder)
    for text in TEXTS:
        assert tokenizer.encode(text) == [1, *pieces.encode(text)]
    wikitext = real_files / "wikitext-2-raw" / "wiki.test.raw"
    text = wikitext.read_text(encoding="utf-8")
    assert tokenizer(text, verbose=False).input_ids == [1, *pieces.encode(text)]
