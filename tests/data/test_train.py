"""data/build/train.py: the tokenizer comes out the same anywhere, to the byte."""

from __future__ import annotations

import sys
from itertools import islice
from pathlib import Path

import pytest

DATA = Path(__file__).resolve().parents[2] / "data"
sys.path.insert(0, str(DATA / "build"))

import english  # noqa: E402
import texts  # noqa: E402
import train  # noqa: E402
from grammar import Writer  # noqa: E402
from world import World  # noqa: E402


def test_the_committed_tokenizer_is_what_the_script_trains(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(train, "OUT", tmp_path)
    writer = Writer(World(), english, "train", texts.SEED)
    articles = writer.articles(texts.TRAIN_COUNTS[english.LANGUAGE])
    first = [a.raw(english.SPACE) for a in islice(articles, train.TOKENIZER_ARTICLES)]
    trained = train.train_tokenizer(first)
    assert trained.read_bytes() == (DATA / "mini" / "tokenizer.model").read_bytes()
