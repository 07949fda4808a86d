"""A vocabulary grows: old ids stay, new pieces follow in order, and SentencePiece uses them."""

from __future__ import annotations

from pathlib import Path

import pytest
import sentencepiece
from sentencepiece import sentencepiece_model_pb2

from lessonkit.errors import LessonkitError
from lessonkit.llama.sentencepiece_model import CONTROL, NORMAL, parse_sentencepiece
from lessonkit.llama.tokenizer import build_tokenizer
from lessonkit.llama.tokenizer_json import from_sentencepiece
from lessonkit.llama.vocabulary import extend_vocabulary
from tests.tiny import SENTENCES, sentencepiece_bytes

CHINESE = (
    "阿文河发源于赤针峰。",
    "赤针峰耸立在北部高地。",
    "阿文河流经霍尔伯里。",
    "霍尔伯里依傍阿文河。",
)
BASE = sentencepiece_bytes()
ADDED = sentencepiece_bytes(CHINESE, 320)


def message(raw: bytes) -> sentencepiece_model_pb2.ModelProto:
    return sentencepiece_model_pb2.ModelProto.FromString(raw)


def made_of(*pieces: str, score: float = -1.0, kind: int = 2) -> bytes:
    """A model with the toy's settings, these pieces and nothing else but its special ones."""
    model = message(BASE)
    kept = [piece for piece in model.pieces if piece.type != NORMAL]
    del model.pieces[:]
    model.pieces.extend(kept)
    for number, piece in enumerate(pieces):
        model.pieces.add(piece=piece, score=score - number)
    model.trainer_spec.model_type = kind
    return model.SerializeToString()


def processor(raw: bytes) -> sentencepiece.SentencePieceProcessor:
    return sentencepiece.SentencePieceProcessor(model_proto=raw)


def test_unseen_pieces_follow_the_old_ones_in_their_order_with_score_0() -> None:
    grown = extend_vocabulary(BASE, ADDED)
    old, added, new = message(BASE).pieces, message(ADDED).pieces, message(grown.model).pieces
    known = {piece.piece for piece in old}
    expected = [p.piece for p in added if p.type == NORMAL and p.piece not in known]
    assert len(expected) > 20 and grown.pieces == tuple(expected)
    assert list(new)[: len(old)] == list(old)
    assert [(p.piece, p.score, p.type) for p in list(new)[len(old) :]] == [
        (piece, 0.0, NORMAL) for piece in expected
    ]
    assert (grown.before, grown.size, grown.unreachable) == (len(old), len(new), 0)
    assert str(grown) == (
        f"{len(old):,} pieces and {len(expected)} new ones, from {expected[0]!r} "
        f"to {expected[-1]!r}: {len(new):,}"
    )


def test_bytes_control_and_unknown_pieces_of_the_second_are_not_taken() -> None:
    other = sentencepiece_bytes(CHINESE, 320, bos_piece="<begin>", unk_piece="<what>")
    assert "<begin>" in processor(other).id_to_piece([0, 1, 2])
    assert extend_vocabulary(BASE, other).pieces == extend_vocabulary(BASE, ADDED).pieces


def test_sentencepiece_reads_the_new_pieces_and_the_old_text_as_before() -> None:
    grown = processor(extend_vocabulary(BASE, ADDED).model)
    for text in CHINESE:
        assert len(grown.encode(text)) < len(processor(BASE).encode(text))
        assert grown.decode(grown.encode(text)) == text
    for text in SENTENCES:
        assert grown.encode(text) == processor(BASE).encode(text)


def test_settings_are_those_of_the_base() -> None:
    other = sentencepiece_bytes(CHINESE, 320, add_dummy_prefix=False)
    new, old = message(extend_vocabulary(BASE, other).model), message(BASE)
    assert new.normalizer_spec == old.normalizer_spec and new.trainer_spec == old.trainer_spec


def test_paths_or_bytes_the_same_bytes_every_time(tmp_path: Path) -> None:
    base, added = tmp_path / "base.model", tmp_path / "added.model"
    base.write_bytes(BASE)
    added.write_bytes(ADDED)
    assert extend_vocabulary(base, str(added)) == extend_vocabulary(BASE, ADDED)


def agree(raw: bytes, text: str) -> bool:
    """Does a `tokenizer.json` made from this model give SentencePiece's ids?"""
    source = parse_sentencepiece(raw, Path("tokenizer.model"))
    tokenizer = build_tokenizer(from_sentencepiece(source), source.path)
    return tokenizer.encode(text).ids == source.encode(text)


def test_equal_scores_do_not_fit_into_a_tokenizer_json_but_ranked_ones_do() -> None:
    base = made_of("▁")
    added = made_of("bc", "ab", "a", "b", "c")
    zero = extend_vocabulary(base, added).model
    ranked = extend_vocabulary(base, added, scores="ranked").model
    assert processor(zero).encode("abc", out_type=str)[-2:] == ["ab", "c"]  # the leftmost pair
    assert processor(ranked).encode("abc", out_type=str)[-2:] == ["a", "bc"]  # as `added` does
    assert processor(added).encode("abc", out_type=str)[-2:] == ["a", "bc"]
    assert not agree(zero, "abc") and agree(ranked, "abc")


def test_ranked_scores_descend_from_below_the_base() -> None:
    grown = extend_vocabulary(BASE, ADDED, scores="ranked")
    scores = [piece.score for piece in message(grown.model).pieces]
    assert scores[grown.before] == min(scores[: grown.before]) - 1
    assert scores[grown.before :] == sorted(scores[grown.before :], reverse=True)
    assert len(set(scores[grown.before :])) == len(grown.pieces)
    assert all(agree(grown.model, text) for text in (*CHINESE, *SENTENCES))


def test_tokens_come_last_and_no_text_becomes_them() -> None:
    chinese = extend_vocabulary(BASE, ADDED)
    both = extend_vocabulary(BASE, ADDED, tokens=["[PAD]", "[X]"])
    assert both.pieces == (*chinese.pieces, "[PAD]", "[X]")
    alpaca = extend_vocabulary(chinese.model, tokens=["[PAD]"])
    assert (alpaca.before, alpaca.size, alpaca.pieces) == (
        chinese.size,
        chinese.size + 1,
        ("[PAD]",),
    )
    last = message(alpaca.model).pieces[-1]
    assert (last.piece, last.type) == ("[PAD]", CONTROL)
    assert alpaca.before not in processor(alpaca.model).encode("[PAD]")


def test_pieces_that_no_pair_makes_are_counted() -> None:
    grown = extend_vocabulary(made_of("▁", "a"), made_of("b", "ab", "xyz"))
    assert grown.unreachable == 1 and "1 of them out of reach" in str(grown)
    assert processor(grown.model).encode("ab", out_type=str) == ["▁", "ab"]


@pytest.mark.parametrize(
    ("base", "added", "options", "said"),
    [
        (made_of("▁", "a", kind=1), ADDED, {}, "its kind is not BPE"),
        (BASE, BASE, {}, "nothing to add"),
        (BASE, None, {}, "nothing to add"),
        (b"<html>", ADDED, {}, "neither a SentencePiece model"),
        (BASE, b"<html>", {}, "neither a SentencePiece model"),
        (BASE, Path("nowhere/added.model"), {}, "cannot be read"),
        (BASE, ADDED, {"tokens": ["<s>"]}, "'<s>' cannot be added: it is there already"),
        (BASE, ADDED, {"tokens": ["阿"]}, "it is there already"),
        (BASE, ADDED, {"tokens": ["[PAD]", "[PAD]"]}, "it is there already"),
        (BASE, ADDED, {"tokens": [""]}, "it is empty"),
        (BASE, ADDED, {"scores": "low"}, "no way 'low' to score"),
    ],
)
def test_bad_input_is_an_error_with_a_remedy(
    base: bytes, added: bytes | Path | None, options: dict[str, object], said: str
) -> None:
    with pytest.raises(LessonkitError, match=said) as caught:
        extend_vocabulary(base, added, **options)  # type: ignore[arg-type]
    assert caught.value.remedy
