"""One tensor of several pieces: the values, and what is said of them, as whole-tensor sums give."""

from __future__ import annotations

from types import SimpleNamespace
from typing import Any, cast

import pytest
import torch

from lessonkit.convert.adapter import Adapter, LowRank, open_adapter
from lessonkit.convert.lora_tensor import Workspace, deltas, merge_tensor
from lessonkit.errors import LessonkitError
from lessonkit.files.dtypes import as_torch, bits_of

NAME, SHAPE, RANK = "layer.weight", (300, 256), 4


def adapter(scale: float, seed: int, **more: Any) -> Adapter:
    """As much of an adapter as one tensor needs."""
    random = torch.Generator().manual_seed(seed)
    tensors = {
        "a": torch.randn(RANK, SHAPE[1], generator=random),
        "b": torch.randn(SHAPE[0], RANK, generator=random),
        **more.pop("tensors", {}),
    }
    part = LowRank("layer", "a", "b", RANK, scale)
    given = {"saved": {}, "rows": {}, "low_rank": {NAME: part}, "name": f"number {seed}", **more}
    return cast(
        Adapter, SimpleNamespace(**given, weights=SimpleNamespace(tensor=tensors.__getitem__))
    )


def change(it: Adapter) -> torch.Tensor:
    return dict(deltas(it))[NAME]


@pytest.fixture
def weights() -> torch.Tensor:
    return torch.randn(SHAPE, generator=torch.Generator().manual_seed(0))


@pytest.mark.parametrize("dtype", [torch.float32, torch.float16, torch.bfloat16])
@pytest.mark.parametrize("target", ["F32", "F16", "BF16"])
def test_values_count_and_distance(weights: torch.Tensor, dtype: torch.dtype, target: str) -> None:
    first, second = adapter(1e-3, 1), adapter(-2e-3, 2)
    weights = weights.to(dtype)
    bits, name = bits_of(weights)
    merged = merge_tensor(NAME, bits, name, target, [(first, 1.0), (second, 0.5)], Workspace())
    ours = as_torch(merged.bits, target)
    expected = (weights.float() + change(first) + change(second) * 0.5).to(ours.dtype)
    assert torch.equal(ours, expected)
    assert merged.changed == int((expected != weights.to(ours.dtype)).sum())
    assert 0 < merged.changed < weights.numel() or target == "F32"
    assert merged.largest == float((expected.float() - weights.float()).abs().max())
    assert torch.equal(weights, as_torch(bits, name))  # the source stays as it is


def test_new_rows_count_as_changed(weights: torch.Tensor) -> None:
    saved = torch.cat([weights, torch.ones(7, SHAPE[1])])
    grown = adapter(1.0, 1, saved={NAME: "saved"}, low_rank={}, tensors={"saved": saved})
    merged = merge_tensor(NAME, weights.numpy(), "F32", "F32", [(grown, 1.0)], Workspace())
    assert (merged.changed, merged.largest) == (7 * SHAPE[1], 0.0)
    saved[-1, -1] = torch.inf
    with pytest.raises(LessonkitError, match="not finite after the merge"):
        merge_tensor(NAME, weights.numpy(), "F32", "F32", [(grown, 1.0)], Workspace())


def test_rows_are_replaced_after_what_came_before(weights: torch.Tensor) -> None:
    before = adapter(1.0, 1)
    row = adapter(1.0, 2, rows={NAME: ([5], "row")}, low_rank={},
                  tensors={"row": torch.full((1, SHAPE[1]), 9.0)})  # fmt: skip
    merged = merge_tensor(
        NAME, weights.numpy(), "F32", "F32", [(before, 1.0), (row, 1.0)], Workspace()
    )
    expected = weights + change(before)
    expected[5] = 9.0
    assert torch.equal(torch.from_numpy(merged.bits), expected)


def test_an_overflow_is_an_error_and_a_base_that_was_not_finite_is_none(
    weights: torch.Tensor,
) -> None:
    large = adapter(1e6, 1)
    with pytest.raises(LessonkitError, match="not finite after the merge") as caught:
        merge_tensor(NAME, weights.numpy(), "F32", "F16", [(large, 1.0)], Workspace())
    assert "bfloat16" in str(caught.value)
    weights[0, 0] = torch.nan
    merged = merge_tensor(
        NAME, weights.numpy(), "F32", "F32", [(adapter(1.0, 1), 1.0)], Workspace()
    )
    assert merged.changed == weights.numel()


def test_whole_numbers_are_refused(weights: torch.Tensor) -> None:
    bits, name = bits_of(weights.to(torch.int8))
    with pytest.raises(LessonkitError, match="I8; a change can be added to F32"):
        merge_tensor(NAME, bits, name, name, [(adapter(1.0, 1), 1.0)], Workspace())


def test_deltas_of_a_real_adapter(plain) -> None:
    opened = open_adapter(plain)
    for name, delta in deltas(opened):
        part = opened.low_rank[name]
        a, b = (opened.weights.tensor(key) for key in (part.a, part.b))
        assert torch.equal(delta, b @ a * part.scale)
