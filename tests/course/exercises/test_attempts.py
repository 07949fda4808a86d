"""Exercises: the engine's verdicts, and every exercise of the course tells right from wrong."""

from __future__ import annotations

import math
from collections.abc import Callable
from typing import Any

import numpy as np
import pytest

from lessonkit.course.exercises import attempts as exercises
from lessonkit.course.exercises import lesson_00, lesson_01
from lessonkit.course.exercises.attempts import Exercise, Verdict, attempt
from lessonkit.errors import LessonkitError

ALL = list(exercises.all_exercises().values())
each = pytest.mark.parametrize("exercise", ALL, ids=lambda e: e.name)
MISTAKES = [(e, i) for e in ALL for i in range(len(e.mistakes))]


def right_answer(exercise: Exercise) -> Any:
    return exercise.reference if exercise.asks_for_a_function else exercise.reference()


# --- every exercise of the course ------------------------------------------------------------


def test_the_lessons_have_their_exercises() -> None:
    assert [e.name for e in lesson_00.EXERCISES] == [
        "bytes_of_model",
        "largest_that_fits",
        "formats_that_fit",
    ]
    assert [e.name for e in lesson_01.EXERCISES] == [
        "spacing",
        "round_to_bf16",
        "quantize_absmax_int8",
        "bits_per_weight",
    ]
    assert len(exercises.all_exercises()) == len(ALL)


@each
def test_the_solution_is_right(exercise: Exercise, capsys: pytest.CaptureFixture[str]) -> None:
    assert attempt(exercise.name, right_answer(exercise)) is Verdict.RIGHT
    assert capsys.readouterr().out.startswith(f"{exercise.name}: right")


@each
def test_every_exercise_knows_three_mistakes_or_more(exercise: Exercise) -> None:
    assert len(exercise.mistakes) >= 3
    assert len({m.hint for m in exercise.mistakes} | {exercise.hint}) == len(exercise.mistakes) + 1


@pytest.mark.parametrize(("exercise", "index"), MISTAKES, ids=lambda v: getattr(v, "name", v))
def test_each_mistake_is_wrong_and_gets_its_own_hint(
    exercise: Exercise, index: int, capsys: pytest.CaptureFixture[str]
) -> None:
    mistake = exercise.mistakes[index]
    assert attempt(exercise.name, mistake.answer) is Verdict.WRONG
    said = capsys.readouterr()
    assert said.out.endswith(f"hint: {mistake.hint}\n") and said.err == ""
    assert "came out: " in said.out
    # A value that is asked for is the solution: it stays untold.
    assert ("should have been: " in said.out) == exercise.asks_for_a_function
    assert max(len(text) for text in said.out.splitlines()) < 220


@each
def test_other_wrong_answers_get_the_general_hint(
    exercise: Exercise, capsys: pytest.CaptureFixture[str]
) -> None:
    for answer in (lambda *inputs: "no", lambda *inputs: 1 / 0, lambda: 1, "no", 12, object()):
        assert attempt(exercise.name, answer) is Verdict.WRONG
        assert capsys.readouterr().out.endswith(f"hint: {exercise.first_hint}\n")


@each
def test_stubs_are_not_attempted(exercise: Exercise, capsys: pytest.CaptureFixture[str]) -> None:
    def ellipsis(*inputs: Any) -> Any: ...

    def not_implemented(*inputs: Any) -> Any:
        raise NotImplementedError

    stubs: list[Any] = [None, ..., (..., ...), [...]]
    if exercise.asks_for_a_function:
        stubs += [ellipsis, not_implemented, lambda *inputs: ..., lambda *inputs: (..., 1)]
    for stub in stubs:
        assert attempt(exercise.name, stub) is Verdict.NOT_ATTEMPTED
        assert capsys.readouterr().out.startswith(f"{exercise.name}: not attempted yet.")


@each
def test_hint_and_solution_on_request(
    exercise: Exercise, capsys: pytest.CaptureFixture[str], monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(exercises, "_NUDGED", set())
    exercises.hint(exercise.name)
    said = capsys.readouterr().out
    assert exercise.prompt in said and exercise.first_hint in said
    assert not exercise.nudge or (exercise.hint not in said and "says more" in said)
    exercises.hint(exercise.name)
    assert exercise.hint in capsys.readouterr().out
    exercises.solution(exercise.name)
    assert f"def {exercise.reference.__name__}(" in capsys.readouterr().out


def test_a_wrong_answer_is_nudged_and_the_hint_then_says_more(
    capsys: pytest.CaptureFixture[str], monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(exercises, "_NUDGED", set())
    exercise = exercises.find("spacing")
    attempt("spacing", lambda x, mantissa_bits: 17.0)
    assert exercise.nudge in capsys.readouterr().out
    exercises.hint("spacing")
    said = capsys.readouterr().out
    assert exercise.hint in said and exercise.nudge not in said


# --- the engine ------------------------------------------------------------------------------


def test_other_right_answers_are_right_too() -> None:
    def with_log2(x: float, mantissa_bits: int) -> float:
        return 2.0 ** (math.floor(math.log2(abs(x))) - mantissa_bits)

    def as_list(row: np.ndarray) -> list[Any]:
        codes, scale = lesson_01.quantize_absmax_int8(row)
        return [codes.tolist(), float(scale)]

    assert attempt("spacing", with_log2) is Verdict.RIGHT
    assert attempt("quantize_absmax_int8", as_list) is Verdict.RIGHT
    assert attempt("formats_that_fit", ["NF4", "Q4_0", "Q6_K", "Q5_0"]) is Verdict.RIGHT
    assert attempt("bytes_of_model", lambda n, bits: math.ceil(n * bits / 8)) is Verdict.RIGHT


def test_a_torch_answer_is_read(capsys: pytest.CaptureFixture[str]) -> None:
    torch = pytest.importorskip("torch")

    def with_torch(x: np.ndarray) -> Any:
        return torch.from_numpy(x).bfloat16().requires_grad_()

    assert attempt("round_to_bf16", with_torch) is Verdict.RIGHT


def test_an_answer_that_changes_its_inputs_spoils_nothing(
    capsys: pytest.CaptureFixture[str],
) -> None:
    def spoiler(x: np.ndarray) -> np.ndarray:
        rounded = lesson_01.round_to_bf16(x)
        x[...] = 0
        return rounded

    def in_place(x: np.ndarray) -> np.ndarray:
        x[...] = 0
        return x

    assert attempt("round_to_bf16", spoiler) is Verdict.RIGHT
    capsys.readouterr()
    assert attempt("round_to_bf16", in_place) is Verdict.WRONG
    assert "round_to_bf16([1.] (float32))" in capsys.readouterr().out
    assert attempt("round_to_bf16", spoiler) is Verdict.RIGHT


def test_the_first_failing_case_is_shown(capsys: pytest.CaptureFixture[str]) -> None:
    attempt("spacing", lambda x, m: 2.0**-m)
    assert capsys.readouterr().out.splitlines()[:4] == [
        "spacing: wrong",
        "  spacing(2.0, 7)",
        "  came out:         0.0078125",
        "  should have been: 0.015625",
    ]


def test_an_exception_is_shown_with_its_type(capsys: pytest.CaptureFixture[str]) -> None:
    def fails(row: np.ndarray) -> Any:
        raise ValueError("no such thing")

    assert attempt("quantize_absmax_int8", fails) is Verdict.WRONG
    said = capsys.readouterr().out
    assert "came out:         ValueError: no such thing" in said
    number = fails.__code__.co_firstlineno + 1
    assert f'in line {number} of fails: raise ValueError("no such thing")' in said


def test_an_exception_in_a_library_shows_the_learners_line(
    capsys: pytest.CaptureFixture[str],
) -> None:
    def fails(row: np.ndarray) -> Any:
        return np.reshape(row, (7, 7))

    assert attempt("quantize_absmax_int8", fails) is Verdict.WRONG
    said = capsys.readouterr().out
    assert "of fails: return np.reshape(row, (7, 7))" in said


def test_an_exception_without_a_line_of_the_learners_shows_none(
    capsys: pytest.CaptureFixture[str],
) -> None:
    assert attempt("bytes_of_model", int) is Verdict.WRONG
    assert "in line" not in capsys.readouterr().out


def test_a_function_that_fails_late_is_still_wrong(capsys: pytest.CaptureFixture[str]) -> None:
    calls: list[int] = []

    def fails_late(parameters: int, bits: int) -> float:
        calls.append(1)
        if len(calls) > 6:
            raise RuntimeError
        return parameters * bits // 8

    assert attempt("bytes_of_model", fails_late) is Verdict.WRONG


def test_unknown_names_are_told() -> None:
    with pytest.raises(LessonkitError, match=r"Did you mean spacing"):
        attempt("spacng", None)


def test_a_verdict_shows_nothing_in_a_notebook(capsys: pytest.CaptureFixture[str]) -> None:
    Verdict.RIGHT._ipython_display_()
    assert capsys.readouterr().out == ""


def test_two_exercises_of_one_name_are_refused(monkeypatch: pytest.MonkeyPatch) -> None:
    repeated: list[Exercise] = [*lesson_00.EXERCISES, lesson_01.EXERCISES[0]]
    uncached: Callable[[], Any] = exercises.all_exercises.__wrapped__
    monkeypatch.setattr(lesson_00, "EXERCISES", repeated)
    with pytest.raises(LessonkitError, match="same name"):
        uncached()
