"""The references of lesson 08 against the engine, its protocols and its paired test."""

from __future__ import annotations

import math
from dataclasses import replace

import numpy as np
import pytest

from lessonkit.course.exercises import lesson_08
from lessonkit.course.exercises.attempts import Verdict, attempt
from lessonkit.evaluate import compare, perplexity
from lessonkit.evaluate.documents import detokenize
from lessonkit.evaluate.engine import token_losses
from lessonkit.evaluate.protocols import llama_cpp
from lessonkit.models.tokenizer import load_tokenizer
from tests.evaluate.common import sample, tiny_model
from tests.evaluate.test_paired import result
from tests.tiny import make_tokenizer


def test_the_lesson_has_its_exercises() -> None:
    names = [exercise.name for exercise in lesson_08.EXERCISES]
    assert names == ["bits_per_byte", "scored_positions", "paired_difference"]


@pytest.mark.parametrize("exercise", lesson_08.EXERCISES, ids=lambda e: e.name)
def test_solutions_pass_and_each_mistake_fails_with_its_hint(
    exercise, capsys: pytest.CaptureFixture[str]
) -> None:
    assert attempt(exercise.name, exercise.reference) is Verdict.RIGHT
    capsys.readouterr()
    for mistake in exercise.mistakes:
        assert attempt(exercise.name, mistake.answer) is Verdict.WRONG
        assert mistake.hint in capsys.readouterr().out


def test_bits_per_byte_is_the_engines(tmp_path) -> None:
    import torch

    model, tokenizer = tiny_model(), load_tokenizer(make_tokenizer(tmp_path))
    page = " = Lamp = \n\n The lighthouse of Port Amber. 岛上的灯塔"
    assert detokenize(page).strip()
    ids = tokenizer(detokenize(page), add_special_tokens=False).input_ids
    surprises = token_losses(model, torch.tensor([[1, *ids]]))[0].tolist()
    found = perplexity(model, tokenizer, sample(page), protocol="bits_per_byte")
    assert lesson_08.bits_per_byte(surprises, page) == pytest.approx(found.value, rel=1e-5)


@pytest.mark.parametrize(("tokens", "window"), [(1100, 512), (64, 8), (70, 10)])
def test_positions_are_those_of_the_protocol(tokens: int, window: int) -> None:
    pieces = llama_cpp(window).pieces(list(range(1, tokens)), 0)
    starts = [number * window for number, _ in enumerate(pieces)]
    expected = [
        start + place
        for start, piece in zip(
            starts, llama_cpp(window).pieces(list(range(1, tokens)), 0), strict=True
        )
        for place in range(piece.first, len(piece.ids))
    ]
    assert lesson_08.scored_positions(tokens, window) == expected


def test_the_paired_difference_is_that_of_compare() -> None:
    rng = np.random.default_rng(0)
    a, b = rng.normal(2, 1, 9), rng.normal(2, 1, 9)
    found = compare(result(a.tolist()), replace(result(b.tolist())))
    ours = lesson_08.paired_difference(a.tolist(), b.tolist())
    assert ours == pytest.approx((found.mean, found.error))
    assert lesson_08.paired_difference([2.0, 3.0, 1.0], [2.1, 3.2, 1.3]) == pytest.approx(
        (0.2, 0.1 / math.sqrt(3))
    )
