"""What protocols read: rows joined, the raw file, articles put together again."""

from __future__ import annotations

import hashlib

import pytest

from lessonkit.evaluate.documents import Document, detokenize, documents, pages, raw_text
from lessonkit.models.texts import rows_of
from tests.evaluate.common import Sample

WIKITEXT = (
    " \n = Lamp = \n \n The lamp 's light reaches 3 @.@ 5 km . \n \n = = Oil = = \n \n It burned"
    ' whale @-@ oil , " as all did " ( till 1901 ) . \n \n \n = Kite = \n \n A kite ; \n'
)


def test_wikitexts_file_comes_back_from_its_rows():
    rows = rows_of(WIKITEXT)
    assert "" in rows, "the blank lines' spaces are gone"
    assert raw_text(rows) == WIKITEXT


@pytest.mark.parametrize(
    "content", ["a\n\nb\n", " = T = \n\n A lamp. \n", "one line \n\nanother\n", "a\n\n\n", "x\ny"]
)
def test_other_files_come_back_too(content):
    assert raw_text(rows_of(content)).removesuffix("\n") == content.removesuffix("\n")


def test_articles_stand_a_blank_line_apart():
    assert raw_text((" = A = \n\n a", " = B = \n\n b")) == " = A = \n\n a\n\n = B = \n\n b\n"


def test_forms():
    text = Sample(rows_of(WIKITEXT))
    (joined,) = documents(text, "joined")
    (raw,) = documents(text, "raw")
    assert joined.seen == text.joined() != raw.seen
    assert raw.seen == raw.original == WIKITEXT[:-1], "one line end is stripped, no more"
    articles = documents(text, "articles")
    assert [a.original for a in articles] == pages(WIKITEXT)
    assert [a.seen for a in articles] == [detokenize(page) for page in pages(WIKITEXT)]


def test_pages_begin_at_level_1_headings():
    lamp, kite = pages(WIKITEXT)
    assert lamp.startswith(" = Lamp = \n") and "= = Oil" in lamp and lamp.endswith(". \n \n ")
    assert kite == " = Kite = \n \n A kite ; "
    assert pages("no heading\n") == ["no heading"]
    assert pages("an equation = here =\n = T = \nx\n") == ["an equation = here =", " = T = \nx"]
    assert pages("\n \n") == []


def test_words_and_bytes_as_lm_eval_counts_them():
    assert Document(" = A = \n ", "").words == 5  # "", "=", "A", "=", ""
    assert Document("a", "").words == 1 and Document("", "").words == 1
    assert Document("岛 é", "").bytes == 6


@pytest.mark.parametrize(
    ("written", "read"),
    [
        ("3 @.@ 5 , 1 @,@ 000 whale @-@ oil", "3.5, 1,000 whale-oil"),
        ("a : b ; c . D ! E ? F", "a: b; c. D! E? F"),
        ("( x ) [ y ] { z } \" q \" ' r '", "(x) [y] {z} \"q\" 'r'"),
        ("the lamp 's light", "the lamp's light"),
        ("the sailors ' light", "the sailors' light"),
        (" = = = Oil = = = \n \n It", " === Oil ===\n\nIt"),
        ("5 ° C", "5°C"),
        ("x N y", "x 1 y"),
    ],
)
def test_detokenize(written, read):
    assert detokenize(written) == read


def test_wikitext_2(real_files):
    """62 documents in the test split; its raw file comes back to the byte from its rows."""
    content = (real_files / "wikitext-2-raw" / "wiki.test.raw").read_text(encoding="utf-8")
    raw = raw_text(rows_of(content))
    assert len(raw.encode()) == 1_290_590
    assert hashlib.sha256(raw.encode()).digest() == hashlib.sha256(content.encode()).digest()
    assert len(pages(content)) == 62
