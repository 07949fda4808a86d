"""Leaves: the same bits and numbers, whether they come from numpy, torch or plain Python."""

from __future__ import annotations

from typing import Any

import numpy as np
import pytest

from lessonkit.course.leaves import Leaf, leaf_pair
from lessonkit.errors import LessonkitError


def leaf(value: Any) -> Leaf:
    return leaf_pair(value, value, "", "check")[0]


@pytest.mark.parametrize(
    ("value", "dtype", "bits"),
    [
        (np.array([1.0, -0.0], np.float32), "float32", [0x3F800000, 0x80000000]),
        (np.array([1.0], ">f4"), "float32", [0x3F800000]),
        (np.array([1.0], np.float16), "float16", [0x3C00]),
        (np.array([-1], np.int8), "int8", [0xFF]),
        (np.array([True, False]), "bool", [1, 0]),
        (np.arange(6, dtype=np.uint8)[::-2], "uint8", [5, 3, 1]),
        (b"\x00\xff", "bytes", [0, 255]),
        (memoryview(b"a"), "bytes", [97]),
        ("aλ🌙", "str", [0x61, 0x3BB, 0x1F319]),
    ],
)
def test_bits(value: Any, dtype: str, bits: list[int]) -> None:
    found = leaf(value)
    assert found.dtype == dtype and found.bits.tolist() == bits
    assert found.bits.dtype.kind == "u" and found.count == len(bits)
    assert found.shape == found.values.shape == (len(bits),)
    assert found.is_text == (dtype in ("bytes", "str"))


def test_bits_of_torchs_own_formats() -> None:
    torch = pytest.importorskip("torch")
    found = leaf(torch.tensor([[1.0, -2.0]], dtype=torch.bfloat16))
    assert found.dtype == "bfloat16" and found.shape == (1, 2)
    assert found.bits.tolist() == [[0x3F80, 0xC000]]
    assert found.values.dtype == np.float32 and found.values.tolist() == [[1.0, -2.0]]
    found = leaf(torch.tensor([1.0, 448.0]).to(torch.float8_e4m3fn))
    assert found.dtype == "float8_e4m3fn" and found.bits.tolist() == [0x38, 0x7E]
    assert found.values.tolist() == [1.0, 448.0]
    table = torch.arange(6.0).reshape(2, 3)
    assert leaf(table.T).values.tolist() == table.T.tolist()
    assert leaf(torch.tensor(2.5)).shape == ()


def test_torch_and_numpy_give_equal_leaves() -> None:
    torch = pytest.importorskip("torch")
    array = np.random.default_rng(0).normal(size=(3, 4)).astype(np.float32)
    ours, theirs = leaf_pair(array, torch.from_numpy(array).requires_grad_(), "", "check")
    assert ours.dtype == theirs.dtype and ours.shape == theirs.shape
    assert np.array_equal(ours.bits, theirs.bits)


@pytest.mark.parametrize(
    ("plain", "other", "dtype"),
    [
        (3, np.uint8(3), "uint8"),
        (300, np.uint8(44), "int64"),  # 300 does not fit: it must not become 44
        (-1, np.uint8(255), "int64"),
        (0.5, np.float16(0.5), "float16"),
        (0.1, np.float32(0.1), "float64"),  # 0.1 is another number as float32
        (float("nan"), np.float16("nan"), "float16"),
        (float("inf"), np.float16("inf"), "float16"),
        (1e6, np.float16("inf"), "float64"),
        (2, np.float32(2), "float32"),
        (1.5, np.int32(1), "float64"),
        (True, np.bool_(True), "bool"),
        ([1, 2], np.array([1, 2], np.int8), "int8"),
        ((1, 2), np.array([1.0, 2.5]), "float64"),
        (np.float64(1), np.float32(1), "float64"),  # a numpy number has a type of its own
    ],
)
def test_plain_numbers_take_the_other_sides_type_if_they_fit(
    plain: Any, other: Any, dtype: str
) -> None:
    ours, theirs = leaf_pair(plain, other, "", "check")
    assert ours.dtype == dtype and theirs.dtype == np.asarray(other).dtype.name
    assert ours.values.tolist() == np.asarray(plain).tolist() or plain != plain
    swapped_theirs, swapped_ours = leaf_pair(other, plain, "", "check")
    assert swapped_ours.dtype == dtype and swapped_theirs.dtype == theirs.dtype


def test_plain_numbers_keep_their_type_beside_bfloat16() -> None:
    torch = pytest.importorskip("torch")
    ours, theirs = leaf_pair([1.0], torch.ones(1, dtype=torch.bfloat16), "", "check")
    assert (ours.dtype, theirs.dtype) == ("float64", "bfloat16")


@pytest.mark.parametrize(
    ("value", "shown"),
    [
        (b"\n", "0x0a"),
        ("'", '"\'"'),
        (np.array([0.1], np.float32), "0.10000000149011612 (float32)"),
        (np.array([0.1]), "0.1 (float64)"),
        (np.array([2**64 - 1], np.uint64), "18446744073709551615 (uint64)"),
        (np.array([True]), "1 (bool)"),
    ],
)
def test_values_are_shown_in_full(value: Any, shown: str) -> None:
    assert leaf(value).show(0) == shown


def test_show_counts_row_by_row() -> None:
    assert leaf(np.arange(6).reshape(2, 3)).show(4) == "4 (int64)"


@pytest.mark.parametrize(
    ("value", "kind"),
    [
        (np.array([1j]), "complex128 array"),
        (np.array([1], object), "object array"),
        (np.array(["2026"], "datetime64[Y]"), "datetime64"),
        ([[1], [1, 2]], "list"),
        (object(), "object"),
    ],
)
def test_what_is_no_number_is_told_with_its_place(value: Any, kind: str) -> None:
    with pytest.raises(LessonkitError) as caught:
        leaf_pair(value, np.ones(1), "['layer']", "check")
    assert caught.value.what.startswith("check['layer']: cannot compare this ")
    assert kind in caught.value.what and caught.value.remedy


def test_the_path_goes_with_the_leaf() -> None:
    assert leaf_pair(1, np.int8(1), "[3]", "check")[0].path == "[3]"
