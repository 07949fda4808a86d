"""What several test files share."""

from __future__ import annotations

import base64
import os
from pathlib import Path

import pytest
from tokenizers import Tokenizer, models, pre_tokenizers, trainers
from transformers.convert_slow_tokenizer import bytes_to_unicode

from tests.tiny import SENTENCES, sentencepiece_bytes

ROOT = Path(__file__).resolve().parent.parent


@pytest.fixture(scope="session")
def mini() -> Path:
    """The folder of the embedded model; without it a test fails, it is not skipped."""
    folder = ROOT / "data" / "mini"
    missing = [n for n in ("config.json", "tokenizer.model") if not (folder / n).is_file()]
    if missing:
        pytest.fail(f"data/mini lacks {', '.join(missing)}: run `make model`, or restore data/")
    return folder


@pytest.fixture(scope="session")
def real_files() -> Path:
    """A folder with `tinyllama` (its tokenizer's files) and `wikitext-2-raw` (wiki.test.raw ...).

    They are not ours to pass on: LESSONKIT_REAL_FILES says where they lie.
    """
    folder = os.environ.get("LESSONKIT_REAL_FILES")
    if not folder:
        pytest.skip(
            "LESSONKIT_REAL_FILES names no folder with TinyLlama's tokenizer and WikiText-2"
        )
    return Path(folder)


@pytest.fixture(scope="session")
def sentencepiece_model(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """A SentencePiece model of Llama's kind with 400 pieces."""
    path = tmp_path_factory.mktemp("sentencepiece") / "tokenizer.model"
    path.write_bytes(sentencepiece_bytes())
    return path


@pytest.fixture(scope="session")
def tiktoken_model(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """A table of 300 byte sequences in the form of Llama 3's tokenizer.model."""
    tokenizer = Tokenizer(models.BPE())
    tokenizer.pre_tokenizer = pre_tokenizers.ByteLevel(add_prefix_space=False)
    byte_of = {letter: byte for byte, letter in bytes_to_unicode().items()}
    tokenizer.train_from_iterator(
        SENTENCES,
        trainers.BpeTrainer(vocab_size=300, initial_alphabet=list(byte_of), show_progress=False),
    )
    path = tmp_path_factory.mktemp("tiktoken") / "tokenizer.model"
    with path.open("wb") as file:
        for token, rank in sorted(tokenizer.get_vocab().items(), key=lambda item: item[1]):
            file.write(base64.b64encode(bytes(byte_of[letter] for letter in token)))
            file.write(b" %d\n" % rank)
    return path
