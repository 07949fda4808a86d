"""A small model is measured thoroughly, a large one briefly."""

from __future__ import annotations

from types import SimpleNamespace

import torch

from lessonkit.course import budget


def test_a_small_model_is_measured_more_than_a_large_one() -> None:
    small = torch.nn.Linear(10, 10)
    with torch.device("meta"):
        large = torch.nn.Linear(10_000, 10_000)
    assert budget.windows_for(small) > budget.windows_for(large) >= 2
    assert budget.questions_for(small) > budget.questions_for(large) > 0
    small.config = large.config = SimpleNamespace(num_hidden_layers=9)  # type: ignore[assignment]
    assert budget.layers_for(small) == 9 > budget.layers_for(large) > 0
