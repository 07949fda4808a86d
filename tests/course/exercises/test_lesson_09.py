"""The references of lesson 09 against the toolkit: plan's cache, generation's penalty and stops."""

from __future__ import annotations

import pytest
import torch

from lessonkit.convert import plan
from lessonkit.course.exercises import lesson_09
from lessonkit.course.exercises.attempts import Verdict, attempt
from lessonkit.run.generate import _begun, _penalised


def test_the_lesson_has_its_exercises() -> None:
    names = [exercise.name for exercise in lesson_09.EXERCISES]
    assert names == ["cache_bytes", "penalised", "showable"]


@pytest.mark.parametrize("exercise", lesson_09.EXERCISES, ids=lambda e: e.name)
def test_solutions_pass_and_each_mistake_fails_with_its_hint(
    exercise, capsys: pytest.CaptureFixture[str]
) -> None:
    assert attempt(exercise.name, exercise.reference) is Verdict.RIGHT
    capsys.readouterr()
    for mistake in exercise.mistakes:
        assert attempt(exercise.name, mistake.answer) is Verdict.WRONG
        assert mistake.hint in capsys.readouterr().out


def test_the_cache_is_what_plan_says(mini) -> None:
    planned = plan(mini, context=100).cache
    assert planned["16 bits"] == lesson_09.cache_bytes(5, 2, 64, 100, 16)
    assert planned["q8_0"] == lesson_09.cache_bytes(5, 2, 64, 100, 8.5)


def test_the_penalty_is_the_one_that_generates() -> None:
    for scores, seen, penalty in lesson_09._scores():
        expected = _penalised(torch.tensor(scores), sorted(seen), penalty) if seen else scores
        found = lesson_09.penalised(scores, seen, penalty)
        assert torch.tensor(found).equal(torch.as_tensor(expected))


def test_what_is_held_back_is_what_streaming_holds_back() -> None:
    for text, stop in lesson_09._texts():
        if stop not in text:
            assert len(text) - len(lesson_09.showable(text, stop)) == _begun(text, [stop])
