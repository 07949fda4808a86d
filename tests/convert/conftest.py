"""A toy model, and bases with adapters, that several test files share."""

from __future__ import annotations

import shutil

import pytest
import torch

from lessonkit.llama.vocabulary import extend_vocabulary
from tests.convert.adapters import make_adapter
from tests.convert.toy import Toy
from tests.tiny import make_tiny_llama

DTYPES = (torch.float32, torch.bfloat16, torch.float16)
SAVED = ["embed_tokens", "lm_head"]


@pytest.fixture(scope="session")
def toy() -> Toy:
    return Toy()


@pytest.fixture(scope="module")
def bases(tmp_path_factory):
    root = tmp_path_factory.mktemp("bases")
    return {dtype: make_tiny_llama(root / str(dtype), dtype=dtype) for dtype in DTYPES}


@pytest.fixture(scope="module")
def base(bases):
    return bases[torch.bfloat16]


@pytest.fixture(scope="module")
def plain(base, tmp_path_factory):
    return make_adapter(base, tmp_path_factory.mktemp("adapters") / "plain")


@pytest.fixture(scope="module")
def grown(base, tmp_path_factory):
    """An adapter that extends the vocabulary, and one trained on top that adds one token more."""
    root = tmp_path_factory.mktemp("grown")
    words = extend_vocabulary(base / "tokenizer.model", tokens=[f"<{n}>" for n in range(9)])
    more = extend_vocabulary(words.model, tokens=["[PAD]"])
    first = make_adapter(base, root / "first", rows=words.size, modules_to_save=SAVED, seed=1)
    second = make_adapter(base, root / "second", rows=more.size, modules_to_save=SAVED, seed=2)
    (first / "tokenizer.model").write_bytes(words.model)
    (second / "tokenizer.model").write_bytes(more.model)
    return first, second


@pytest.fixture
def copied(plain, tmp_path):
    return shutil.copytree(plain, tmp_path / "copied")
