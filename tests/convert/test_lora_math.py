"""Low rank and DoRA worked by hand."""

from __future__ import annotations

import torch

from lessonkit.convert.lora_math import add_dora, low_rank_delta


def test_low_rank_by_hand() -> None:
    a, b = torch.tensor([[1.0, 2.0]]), torch.tensor([[3.0], [4.0]])  # rank 1
    assert low_rank_delta(a, b, 2.0).tolist() == [[6, 12], [8, 16]]
    assert low_rank_delta(a, b, 2.0, transposed=True).tolist() == [[6, 8], [12, 16]]


def test_dora_gives_every_output_the_length_that_it_learned() -> None:
    weight, delta = torch.tensor([[3.0, 0.0], [0.0, 1.0]]), torch.tensor([[0.0, 4.0], [0.0, 0.0]])
    result = add_dora(weight, delta, torch.tensor([10.0, 2.0]))
    assert result.tolist() == [[6, 8], [0, 2]]
    turned = add_dora(weight.T, delta.T, torch.tensor([10.0, 2.0]), transposed=True)
    assert torch.equal(turned, result.T)
