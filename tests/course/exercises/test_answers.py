"""Answers of learners: is there one, is it the expected one, how does it read?"""

from __future__ import annotations

from typing import Any

import numpy as np
import pytest

from lessonkit.course.exercises.answers import as_text, is_blank, same_answer

NAN = float("nan")


@pytest.mark.parametrize("answer", [None, ..., (1, None), [[1, [...]]], (..., ...)])
def test_gaps_are_blank(answer: Any) -> None:
    assert is_blank(answer)


@pytest.mark.parametrize("answer", [0, 0.0, "", False, NAN, (), [], {}, np.zeros(0), [0, ""]])
def test_empty_answers_are_answers(answer: Any) -> None:
    assert not is_blank(answer)


@pytest.mark.parametrize(
    ("expected", "got", "same"),
    [
        (1.0, 1, True),
        (1, True, True),
        (np.array([1.0, np.nan]), [1.0, float("nan")], True),
        (np.array([1.0, 2.0]), [[1.0, 2.0]], False),
        (np.array([1.0, 2.0]), 1.0, False),
        (1.0, "1.0", False),
        (1.0, None, False),
        (1.0, [[1], [1, 2]], False),
        ((1, 2), [1, 2], True),
        ((1, 2), (1, 2, 3), False),
        ({"a": 1}, {"a": 1.0}, True),
        ({"a": 1}, {"b": 1}, False),
        ({"a"}, ["a", "a"], True),
        ({"a"}, [["a"]], False),
        ({"a"}, "a", False),
        ("a", "a", True),
        (np.int8(-100), 156, False),
    ],
)
def test_same_answer(expected: Any, got: Any, same: bool) -> None:
    assert same_answer(expected, got, 0, 0) is same


@pytest.mark.parametrize(
    ("value", "text"),
    [
        (np.float32(0.1), "0.1"),
        (np.int8(3), "3"),
        (np.array([0.1, 2], np.float32), "[0.1, 2. ] (float32)"),
        (np.arange(100), "[ 0, 1, 2, ..., 97, 98, 99] (int64)"),
        ((np.int8(1),), "(1,)"),
        ({"b", "a"}, "{'a', 'b'}"),
        (set(), "set()"),
        (len, "len"),
        ("x" * 500, "'" + "x" * 155 + " ..."),
    ],
)
def test_as_text(value: Any, text: str) -> None:
    assert as_text(value) == text


def test_a_value_that_cannot_print_itself() -> None:
    class Shy:
        def __repr__(self) -> str:
            raise RuntimeError

    assert as_text(Shy()) == "a Shy"
    assert not is_blank(Shy())


def test_the_tolerance_is_relative_to_the_expected_value() -> None:
    assert same_answer(11.05, 10.0, rtol=0.1, atol=0)  # 10 % of 11.05 is more than 1.05
    assert not same_answer(10.0, 11.05, rtol=0.1, atol=0)
    assert same_answer(10.0, 11.05, rtol=0.1, atol=0.1)
    assert not same_answer((0.0,), (0.1,), rtol=0.1, atol=0)
    assert same_answer({"a": (0.0, [1.0])}, {"a": (0.1, [1.1])}, rtol=0, atol=0.11)


@pytest.mark.parametrize("wild", [NAN, np.inf, -np.inf])
def test_no_tolerance_hides_a_nan_or_an_infinity(wild: float) -> None:
    assert same_answer(wild, wild, 0, 0)
    assert not same_answer(1.0, wild, 1.0, 1e30)
    assert not same_answer(wild, 1.0, 1.0, 1e30)


def test_tensors_are_read_by_their_values() -> None:
    torch = pytest.importorskip("torch")
    wanted = np.array([1.5, -2.0], np.float32)
    for dtype in (torch.bfloat16, torch.float8_e4m3fn, torch.float64):
        assert same_answer(wanted, torch.tensor([1.5, -2.0]).to(dtype), 0, 0)
    assert same_answer(wanted, torch.tensor([1.5, -2.0], requires_grad=True), 0, 0)
    assert same_answer(np.array([True, False]), torch.tensor([1, 0]), 0, 0)
    assert not same_answer(wanted, torch.tensor([[1.5, -2.0]]), 0, 0)
    assert not same_answer(wanted, torch.tensor([1.5, -2.5]), 0, 0)


def test_an_object_that_cannot_be_an_array_is_not_the_answer() -> None:
    class Stubborn:
        def __array__(self, *_: Any, **__: Any) -> np.ndarray:
            raise RuntimeError

    assert not same_answer(1.0, Stubborn(), 0, 0)
    assert not same_answer({"a"}, Stubborn(), 0, 0)
    assert not same_answer((1, 2), Stubborn(), 0, 0)


def test_text_stays_on_one_line_and_keeps_its_figures() -> None:
    assert as_text(np.arange(4).reshape(2, 2)) == "[[0, 1], [2, 3]] (int64)"
    assert as_text("a\nb") == "'a\\nb'"
    assert as_text((1, (np.float32(0.1), "x"))) == "(1, (0.1, 'x'))"
    assert as_text(np.float64(0.1) + np.float64(0.2)) == "0.30000000000000004"
    assert as_text(np.bool_(True)) == "True"
    assert as_text(frozenset()) == "set()"
    assert "\n" not in as_text(np.eye(50)) and len(as_text(np.eye(50))) <= 160
