"""Blocks: grouping comes back, padding changes nothing, and costs are worked by hand."""

from __future__ import annotations

import pytest
import torch

from lessonkit.formats.blocks import bits_per_weight, grouped, relative_rms, ungrouped
from lessonkit.formats.double_quant import SCALE_BITS


@pytest.mark.parametrize("shape", [(7,), (3, 8), (2, 3, 10), ()])
@pytest.mark.parametrize("size", [None, 1, 4, 64])
def test_grouping_comes_back(shape: tuple[int, ...], size: int | None) -> None:
    values = torch.randn(shape, generator=torch.Generator().manual_seed(0))
    groups = grouped(values, size)
    assert groups.dim() == 3 and (size is None or groups.shape[-1] == size)
    assert torch.equal(ungrouped(groups, values.shape), values)


def test_a_shorter_last_group_is_filled_with_zeros() -> None:
    assert grouped(torch.arange(1.0, 6.0), 4).tolist() == [[[1, 2, 3, 4], [5, 0, 0, 0]]]


def test_bits_per_weight_by_hand() -> None:
    assert bits_per_weight(4, 64) == 4.5
    assert bits_per_weight(4, 128, scale_bits=16, zero_bits=4) == 4 + 20 / 128
    assert bits_per_weight(4, 32, scale_bits=8) == 4.25  # MXFP4
    assert round(bits_per_weight(4, 64, scale_bits=SCALE_BITS), 3) == 4.127


def test_relative_rms_by_hand() -> None:
    assert relative_rms(torch.tensor([3.0, 4.0]), torch.tensor([0.0, 50.0])) == 0.1
    assert relative_rms(torch.zeros(2), torch.zeros(2)) == 0.0
