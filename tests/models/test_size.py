"""The description of a loaded model counts by hand, ties once, and reads well."""

from __future__ import annotations

from pathlib import Path

import pytest
import torch

from lessonkit.models.loading import load
from lessonkit.models.size import SMALL, describe, is_small
from tests.tiny import make_tiny_llama


@pytest.fixture(scope="module")
def folder(tmp_path_factory: pytest.TempPathFactory) -> Path:
    return make_tiny_llama(tmp_path_factory.mktemp("tiny"))


@pytest.fixture(autouse=True)
def no_override(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.delenv("LESSONKIT_MODEL", raising=False)


def test_the_description_counts_by_hand(folder: Path) -> None:
    width, mlp, vocabulary, key_value = 64, 128, 400, 32
    layer = 2 * width * width + 2 * width * key_value + 3 * width * mlp + 2 * width
    expected = 2 * layer + 2 * vocabulary * width + width
    found = describe(load(folder).model)
    assert found.parameters == expected and found.dtypes == {"bfloat16": expected}
    assert found.byte_count == 2 * expected
    assert (found.shape.layers, found.shape.width, found.shape.mlp_width) == (2, 64, 128)
    assert (found.shape.heads, found.shape.kv_heads) == (4, 2)
    assert (found.shape.vocabulary, found.context) == (400, 128)
    assert describe(load(folder, dtype="float32").model).byte_count == 4 * expected
    assert str(found) == (
        "125,248 parameters in bfloat16: 0.3 MB\n"
        "2 layers of width 64, feed-forward width 128, 4 heads that share 2 key/value heads\n"
        "vocabulary of 400, texts of up to 128 tokens"
    )


def test_a_tied_head_counts_once_and_formats_are_told_apart(tmp_path: Path) -> None:
    make_tiny_llama(tmp_path, tie_word_embeddings=True)
    model = load(tmp_path).model
    assert describe(model).parameters == 125_248 - 400 * 64
    model.model.norm.float()
    assert "bfloat16 (99,584), float32 (64)" in str(describe(model))


def test_small_is_up_to_a_bound() -> None:
    with torch.device("meta"):
        assert is_small(torch.nn.Linear(SMALL // 1000, 1000, bias=False))
        assert not is_small(torch.nn.Linear(SMALL // 1000, 1000))
