"""What the formats refuse, and what they take."""

from __future__ import annotations

import numpy as np
import pytest
import torch

from lessonkit.errors import LessonkitError
from lessonkit.formats.arrays import as_float_tensor, require_finite


def test_arrays_become_tensors_and_float64_becomes_float32() -> None:
    assert as_float_tensor(np.ones(3, np.float32)).dtype == torch.float32
    assert as_float_tensor(np.ones(3)).dtype == torch.float32
    assert as_float_tensor(torch.ones(3, dtype=torch.bfloat16)).dtype == torch.bfloat16


def test_a_parameter_is_detached() -> None:
    assert not as_float_tensor(torch.nn.Parameter(torch.ones(2))).requires_grad


@pytest.mark.parametrize("bad", [torch.ones(3, dtype=torch.int8), np.arange(3), torch.empty(0)])
def test_whole_numbers_and_nothing_are_refused(bad: object) -> None:
    with pytest.raises(LessonkitError):
        as_float_tensor(bad)  # type: ignore[arg-type]


@pytest.mark.parametrize("bad", [float("nan"), float("inf"), -float("inf")])
def test_what_is_not_finite_is_refused_and_located(bad: float) -> None:
    values = torch.zeros(2, 3)
    require_finite(values)
    values[1, 2] = bad
    with pytest.raises(LessonkitError, match=r"1 of 6 values .* number \(1, 2\)"):
        require_finite(values)
