"""A text cut for a model: what is recorded, what is refused."""

from __future__ import annotations

import copy
import hashlib
from dataclasses import replace
from pathlib import Path

import pytest

from lessonkit.errors import LessonkitError
from lessonkit.evaluate.cut import cut
from lessonkit.evaluate.documents import raw_text
from lessonkit.evaluate.protocols import PROTOCOLS, gptq, sliding
from lessonkit.models.tokenizer import load_tokenizer
from tests.evaluate.common import TEXT, sample, tiny_model
from tests.tiny import make_tokenizer


@pytest.fixture(scope="module")
def tokenizer(tmp_path_factory):
    return load_tokenizer(make_tokenizer(tmp_path_factory.mktemp("tokenizer")))


@pytest.fixture(scope="module")
def model():
    return tiny_model(max_position_embeddings=64)


def test_what_is_recorded(model, tokenizer):
    found = cut(model, tokenizer, TEXT, window=32)
    assert (found.text, found.split, found.protocol) == ("sample/test/en", "test", gptq(32))
    assert found.sha256 == hashlib.sha256(TEXT.joined().encode()).hexdigest()
    assert found.scored == 31 * len(found.pieces)


def test_the_text_is_tokenised_once_after_one_beginning_token(model, tokenizer):
    ids = [1, *tokenizer.encode(TEXT.joined(), add_special_tokens=False)]
    pieces = cut(model, tokenizer, TEXT, window=32).pieces
    assert [i for piece in pieces for i in piece.ids] == ids[: len(ids) // 32 * 32]


def test_llama_cpp_strips_one_line_end(model, tokenizer):
    content = TEXT.joined() + "\n"
    stripped = cut(model, tokenizer, sample(content), protocol="llama.cpp", window=32)
    assert stripped.sha256 == hashlib.sha256(content[:-1].encode()).hexdigest()


def test_articles(model, tokenizer):
    found = cut(model, tokenizer, TEXT, protocol="word_perplexity")
    raw = raw_text(TEXT.rows)
    titles = raw.count(" = Place")
    assert titles == 3 and [p.ids[0] for p in found.pieces].count(1) == titles
    part = cut(model, tokenizer, TEXT, protocol="word_perplexity", max_windows=7)
    assert 0 < len(part.pieces) <= 7 and [p.ids[0] for p in part.pieces].count(1) < titles
    assert part.words < found.words and part.bytes < found.bytes, "of whole articles only"
    assert part.sha256 == found.sha256


def test_bytes_count_only_where_every_token_does(model, tokenizer):
    whole = replace(sliding(32), unit="bit")
    found = cut(model, tokenizer, TEXT, protocol=whole)
    assert found.bytes == len(TEXT.joined().encode())
    assert found.scored == len(tokenizer.encode(TEXT.joined(), add_special_tokens=False))
    for protocol, most in ((whole, 3), (replace(gptq(32), unit="byte"), None)):
        with pytest.raises(LessonkitError, match="Only a part of the text would be read"):
            cut(model, tokenizer, TEXT, protocol=protocol, max_windows=most)


def test_max_windows_takes_the_first(model, tokenizer):
    whole = cut(model, tokenizer, TEXT, window=32).pieces
    assert cut(model, tokenizer, TEXT, window=32, max_windows=3).pieces == whole[:3]
    assert cut(model, tokenizer, TEXT, window=32, max_windows=10_000).pieces == whole


@pytest.mark.parametrize("text", ["The bridge of Port Amber. " * 99, Path("text.txt"), ["a", "b"]])
def test_what_is_no_text_with_a_name_and_a_split_is_told(model, tokenizer, text):
    with pytest.raises(LessonkitError, match=f"is a {type(text).__name__}, of which") as caught:
        cut(model, tokenizer, text, window=32)
    assert caught.value.where == "text" and "evaluation_text('island')" in caught.value.remedy


def test_tokenizers_without_a_beginning_token(model, tokenizer):
    without = copy.deepcopy(tokenizer)
    without.bos_token = None
    for name in ("gptq", "llama.cpp", "sliding"):
        found = cut(model, without, TEXT, protocol=name, window=32)
        assert found.protocol.bos == "none" and "no BOS" in str(found.protocol)
        assert all(piece.ids[0] != 1 for piece in found.pieces)
    ended = cut(model, without, TEXT, protocol="bits_per_byte")
    assert ended.pieces[0].ids[0] == 2, "lm-eval takes the end token"
    without.eos_token = None
    with pytest.raises(LessonkitError, match="neither a beginning nor an end token"):
        cut(model, without, TEXT, protocol="bits_per_byte")


def error_of(*arguments, **options) -> LessonkitError:
    with pytest.raises(LessonkitError) as caught:
        cut(*arguments, **options)
    assert caught.value.remedy
    return caught.value


def test_a_text_shorter_than_a_window(model, tokenizer):
    for content in ("", "The river"):
        error = error_of(model, tokenizer, sample(content), window=32)
        assert "less than one window" in error.what and error.where == "sample/test/en"
    for name in PROTOCOLS:
        error_of(model, tokenizer, sample(""), protocol=name)


def test_no_article_is_short_enough(model, tokenizer):
    error = error_of(model, tokenizer, TEXT, protocol="word_perplexity", max_windows=1)
    assert "No article" in error.what


@pytest.mark.parametrize("window", [65, 10_000, 1, 0, -3])
@pytest.mark.parametrize("protocol", PROTOCOLS)
def test_a_window_that_does_not_fit(model, tokenizer, protocol, window):
    error_of(model, tokenizer, TEXT, protocol=protocol, window=window)


def test_a_protocol_has_its_window(model, tokenizer):
    assert "already" in error_of(model, tokenizer, TEXT, protocol=gptq(32), window=16).what
    assert "does not fit" in error_of(model, tokenizer, TEXT, protocol=gptq()).what


@pytest.mark.parametrize("value", [0, -1])
def test_max_windows_below_one(model, tokenizer, value):
    assert "max_windows" in error_of(model, tokenizer, TEXT, max_windows=value).what


def test_a_token_without_an_embedding(tokenizer):
    small = tiny_model()
    small.resize_token_embeddings(300)
    assert "embeddings" in error_of(small, tokenizer, TEXT, window=32).what
