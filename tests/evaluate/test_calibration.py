"""The best temperature: 1 for text that the model itself draws, and it follows the scores."""

from __future__ import annotations

from types import SimpleNamespace
from typing import Any

import pytest
import torch

from lessonkit.evaluate.calibration import best_temperature
from lessonkit.models.loading import load
from lessonkit.models.texts import Split, Text
from tests.tiny import make_tiny_llama


class Drawn:
    """Stands in for a tokenizer: the text is tokens that a model drew."""

    bos_token_id = 1

    def __init__(self, ids: list[int]) -> None:
        self.ids = ids

    def __call__(self, text: str, **options: Any) -> SimpleNamespace:
        return SimpleNamespace(input_ids=self.ids)


@pytest.fixture(scope="module")
def drawn(tmp_path_factory: pytest.TempPathFactory) -> tuple[Any, Drawn]:
    """A tiny model made sharp, and 64 windows that it drew itself at temperature 1."""
    model, _ = load(make_tiny_llama(tmp_path_factory.mktemp("tiny")), dtype="float32")
    model.lm_head.weight.data *= 12
    torch.manual_seed(0)
    window = model.config.max_position_embeddings
    ids = torch.ones(64, 1, dtype=torch.long)
    with torch.inference_mode():
        while ids.shape[1] < window:
            scores = model(ids).logits[:, -1]
            ids = torch.cat([ids, torch.multinomial(scores.softmax(-1), 1)], dim=1)
    return model, Drawn(ids.flatten()[1:].tolist())


TEXT = Text("drawn", "en", Split.TEST, ("x",))


def test_a_models_own_text_needs_no_temperature(drawn: tuple[Any, Drawn]) -> None:
    assert best_temperature(*drawn, TEXT) == pytest.approx(1, abs=0.02)


@pytest.mark.parametrize("factor", [0.93, 1.08])
def test_it_follows_the_scores(drawn: tuple[Any, Drawn], factor: float) -> None:
    model, tokenizer = drawn
    before = best_temperature(model, tokenizer, TEXT)
    model.lm_head.weight.data *= factor
    try:
        found = best_temperature(model, tokenizer, TEXT)
    finally:
        model.lm_head.weight.data /= factor
    assert found / before == pytest.approx(factor, abs=0.006)
