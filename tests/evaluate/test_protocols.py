"""Each protocol cuts as its source does, shown on numbers that can be checked by eye."""

from __future__ import annotations

from dataclasses import replace
from types import SimpleNamespace

import pytest

from lessonkit.errors import LessonkitError
from lessonkit.evaluate.protocols import (
    PROTOCOLS,
    Piece,
    byte_perplexity,
    gptq,
    llama_cpp,
    named,
    sliding,
    word_perplexity,
)

BOS = 1


def cut(protocol, count: int, bos: int | None = BOS) -> list[Piece]:
    """Tokens 100, 101, … cut."""
    return list(protocol.pieces(range(100, 100 + count), bos))


def seen(pieces: list[Piece]) -> list[tuple[list[int], list[int]]]:
    """For each piece its context and what is scored."""
    return [(list(p.ids[: p.first]), list(p.ids[p.first :])) for p in pieces]


def test_gptq():
    assert seen(cut(gptq(4), 9)) == [([1], [100, 101, 102]), ([103], [104, 105, 106])]
    assert seen(cut(gptq(4), 9, None))[0] == ([100], [101, 102, 103])
    assert cut(gptq(4), 2) == []


def test_llama_cpp():
    assert seen(cut(llama_cpp(8), 20)) == [
        ([1, 100, 101, 102, 103], [104, 105, 106]),
        ([1, 108, 109, 110, 111], [112, 113, 114]),  # 107 was replaced
    ]
    (piece, *others) = cut(llama_cpp(), 2000)
    assert len(others) == 2
    assert (piece.first, piece.scored) == (257, 255)
    assert seen(cut(llama_cpp(7), 7, None)) == [([100, 101, 102, 103], [104, 105, 106])]


def test_sliding():
    assert seen(cut(sliding(4, 2), 8)) == [
        ([1], [100, 101, 102]),
        ([101, 102], [103, 104]),
        ([103, 104], [105, 106]),
        ([105, 106], [107]),  # the remainder counts
    ]
    assert seen(cut(sliding(4, 2), 7)) == seen(cut(sliding(4, 2), 8))[:3]
    assert sliding(1024).stride == 512


@pytest.mark.parametrize("count", range(1, 40))
@pytest.mark.parametrize("stride", [1, 2, 3, 5])
def test_sliding_scores_every_token_once_as_the_documentations_loop(count, stride):
    length, before = count + 1, 0
    expected = []
    for begin in range(0, length, stride):
        end = min(begin + 5, length)
        new = end - before
        expected += list(range(max(end - new, begin + 1), end))
        before = end
        if end == length:
            break
    found = [i - 99 for _, scored in seen(cut(sliding(5, stride), count)) for i in scored]
    assert found == expected
    if stride < 5:
        assert found == list(range(1, length))


def test_lm_eval():
    assert seen(cut(word_perplexity(4), 10)) == [
        ([1], [100, 101, 102, 103]),
        ([103], [104, 105, 106, 107]),
        ([105, 106, 107], [108, 109]),  # reaches back to fill the window
    ]
    assert seen(cut(word_perplexity(4), 2)) == [([1], [100, 101])]
    assert cut(word_perplexity(4), 0) == []


@pytest.mark.parametrize("count", range(0, 30))
def test_lm_eval_scores_every_token_once_and_reads_no_more_than_its_window(count):
    pieces = cut(word_perplexity(7), count)
    assert [i for _, scored in seen(pieces) for i in scored] == list(range(100, 100 + count))
    assert all(len(piece.ids) - 1 <= 7 for piece in pieces)


def test_the_beginning_token():
    bare = SimpleNamespace(bos_token_id=None, eos_token_id=2)
    llama = SimpleNamespace(bos_token_id=1, eos_token_id=2)
    assert [PROTOCOLS[n]().beginning(llama) for n in PROTOCOLS] == [1] * 6
    assert [PROTOCOLS[n]().beginning(bare) for n in PROTOCOLS] == [None] * 3 + [2] * 3


def test_names_and_windows():
    assert named("gptq", context=512) == gptq(512)
    assert named("gptq", context=100_000) == gptq(2048)
    assert named("llama.cpp", context=4096) == llama_cpp(512)
    assert named("sliding", context=4096, window=64) == sliding(64, 32)
    assert str(gptq(512)) == "gptq windows of 512, BOS at the start"
    assert str(sliding(512, 128)) == "sliding windows of 512 every 128, BOS at the start"
    assert str(replace(gptq(512), unit="bit")) == f"{gptq(512)}, in bits a byte"
    assert str(byte_perplexity(512)) == "byte_perplexity windows of 512, BOS before each document"
    with pytest.raises(LessonkitError, match="no perplexity protocol 'wikitext'") as caught:
        named("wikitext", context=512)
    assert "word_perplexity" in caught.value.remedy


@pytest.mark.parametrize("stride", [0, -1, 65])
def test_a_stride_that_does_not_work(stride):
    with pytest.raises(LessonkitError, match="stride"):
        sliding(64, stride)
