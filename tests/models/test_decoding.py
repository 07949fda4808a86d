"""Token by token gives the scores of the whole text at once; ends and prompts."""

from __future__ import annotations

import warnings
from pathlib import Path
from types import SimpleNamespace

import pytest
import torch

from lessonkit.errors import LessonkitError
from lessonkit.models.decoding import Continuation, prompt_ids, stop_tokens
from lessonkit.models.loading import load
from tests.tiny import make_tiny_llama


def test_a_cache_gives_the_scores_of_the_whole_text(tmp_path: Path) -> None:
    model, _ = load(make_tiny_llama(tmp_path), dtype="float32")
    ids = torch.arange(3, 23).view(2, 10)
    text = Continuation(model)
    text.feed(ids[:, :6])
    for place in range(6, 10):
        with warnings.catch_warnings(action="error"):  # of a name that transformers gives up
            scores = text.feed(ids[:, place : place + 1])
    with torch.no_grad():
        whole = model(ids).logits[:, -1]
    assert scores.dtype == torch.float32
    torch.testing.assert_close(scores, whole, rtol=1e-4, atol=1e-5)


def test_ends_come_from_the_settings_and_the_tokenizer() -> None:
    settings = SimpleNamespace(generation_config=SimpleNamespace(eos_token_id=[7, 9]))
    assert stop_tokens(settings, SimpleNamespace(eos_token_id=2)) == {2, 7, 9}
    assert stop_tokens(SimpleNamespace(), SimpleNamespace(eos_token_id=None)) == frozenset()


def test_an_empty_prompt_is_an_error() -> None:
    def no_tokens(text: str, verbose: bool) -> SimpleNamespace:
        return SimpleNamespace(input_ids=[])

    with pytest.raises(LessonkitError, match="no tokens"):
        prompt_ids(no_tokens, "")
