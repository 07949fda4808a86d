"""One tensor's bits in a type of a GGUF file, and the error: by rows, whatever its size."""

from __future__ import annotations

import numpy as np
import pytest
import torch

from lessonkit.convert import gguf_tensor
from lessonkit.convert.gguf_tensor import encode_tensor, relative_error
from lessonkit.errors import LessonkitError
from lessonkit.files.dtypes import cast
from lessonkit.files.safetensors import TensorInfo
from lessonkit.formats.ggml import decode, encode


@pytest.fixture(params=[False, True], ids=["threads", "processes"])
def shared(request: pytest.FixtureRequest, monkeypatch: pytest.MonkeyPatch) -> None:
    """Two threads; or two processes, for which no matrix is too small."""
    monkeypatch.setattr(torch, "get_num_threads", lambda: 2)
    if request.param:
        monkeypatch.setattr(gguf_tensor, "_FOR_PROCESSES", 1)
        monkeypatch.setattr(gguf_tensor, "_SENT", 1 << 17)


@pytest.mark.parametrize("kind", ["Q4_0", "Q6_K"])
def test_a_large_matrix_is_encoded_as_at_once(shared: None, kind: str) -> None:
    values = np.random.default_rng(0).standard_normal((900, 512), dtype=np.float32)
    weights = np.random.default_rng(1).random(512, dtype=np.float32)
    info = TensorInfo("blk.0.attn_q.weight", kind, values.shape)
    bits = cast(values, "F32", "BF16")
    exact = cast(bits, "BF16", "F32")
    for importance in (None, weights):
        expected = encode(exact, kind, importance)
        assert np.array_equal(encode_tensor(bits, "BF16", info, importance), expected)


def test_a_bad_value_far_down_is_named_by_the_matrix_s_own_row(shared: None) -> None:
    values = np.ones((900, 512), np.float32)
    values[701, 40] = np.inf
    with pytest.raises(LessonkitError, match="infinity") as caught:
        encode_tensor(values, "F32", TensorInfo("blk.0.attn_q.weight", "Q4_K", (900, 512)), None)
    assert caught.value.where == "blk.0.attn_q.weight: row 701, column 40"


def test_the_error_of_a_large_matrix_is_that_of_its_parts_together() -> None:
    values = np.random.default_rng(0).standard_normal((900, 512), dtype=np.float32)
    encoded = encode(values, "Q4_0")
    expected = np.linalg.norm(decode(encoded, "Q4_0") - values) / np.linalg.norm(values)
    assert relative_error(values, "F32", encoded, "Q4_0") == pytest.approx(expected, rel=1e-5)


def test_the_relative_error_of_zeros_is_zero() -> None:
    zeros = np.zeros((2, 32), np.float32)
    assert relative_error(zeros, "F32", encode(zeros, "Q8_0"), "Q8_0") == 0.0
