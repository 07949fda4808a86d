"""Exercises: a question, hidden cases, and a verdict that never stops the notebook.

A lesson asks, the learner writes a function or a value, and `attempt` says one of three things::

    spacing: not attempted yet. Replace the ... with your own answer.
    spacing: wrong
      spacing(2.0, 7)
      came out:         0.0078125
      should have been: 0.015625
      hint: ...
    spacing: right (12 cases)

`hint` and `solution` help on request. The exercises of a lesson live in
`lessonkit.course.exercises`, one module a lesson, each with a list `EXERCISES`.
"""

from __future__ import annotations

import copy
import difflib
import enum
import functools
import importlib
import pkgutil
from collections.abc import Callable, Sequence
from dataclasses import dataclass
from typing import Any

from lessonkit.course.exercises.answers import as_text, is_blank, same_answer
from lessonkit.course.source import show_source
from lessonkit.errors import LessonkitError


class _Silent:
    """A result that a notebook does not show. (An Enum may not define this method itself.)"""

    def _ipython_display_(self) -> None:
        """Show nothing: `attempt` has printed the verdict already."""


class Verdict(_Silent, enum.Enum):
    """What `attempt` found."""

    NOT_ATTEMPTED = "not attempted yet"
    WRONG = "wrong"
    RIGHT = "right"


@dataclass(frozen=True)
class Mistake:
    """An answer that people really give, and the hint that helps with just that one."""

    answer: Any
    hint: str


@dataclass(frozen=True)
class Exercise:
    """One question with its hidden cases.

    Parameters
    ----------
    name:
        What `attempt` calls it; unique in the whole course.
    prompt:
        The question in full; `hint` repeats it.
    reference:
        The solution: a function of the inputs. For an exercise whose answer is a value, a
        function without arguments that returns it.
    make_cases:
        Makes the inputs afresh, one tuple of arguments a case; None where the answer is a value.
    hint:
        What to say to a wrong answer that is none of `mistakes`.
    mistakes:
        Known wrong answers with hints of their own. An answer that agrees with one of them in
        every case gets that hint.
    rtol, atol:
        How far a number may be from the reference's: `atol + rtol * |reference|`.
    """

    name: str
    prompt: str
    reference: Callable[..., Any]
    hint: str
    make_cases: Callable[[], Sequence[tuple[Any, ...]]] | None = None
    mistakes: tuple[Mistake, ...] = ()
    rtol: float = 0.0
    atol: float = 0.0

    @property
    def asks_for_a_function(self) -> bool:
        """False where the answer is a value."""
        return self.make_cases is not None

    def cases(self) -> list[tuple[Any, ...]]:
        """The inputs, made afresh: whatever a learner's function did to them is forgotten."""
        return [()] if self.make_cases is None else list(self.make_cases())

    def agree(self, one: Any, other: Any) -> bool:
        """Is one answer to a case the same as the other, within the tolerance?"""
        return same_answer(one, other, self.rtol, self.atol)


def attempt(name: str, answer: Any) -> Verdict:
    """Check the learner's answer to the exercise `name`, print the verdict and return it.

    `answer` is a function or a value. A stub (`...`, None, NotImplementedError) counts as not
    attempted; an exception in the learner's code is a wrong answer. Neither stops the notebook.
    """
    exercise = find(name)
    if is_blank(answer):
        return _not_attempted(exercise, "Replace the ... with your own answer.")
    if exercise.asks_for_a_function and not callable(answer):
        return _wrong(exercise, ["this exercise asks for a function; a value came"], exercise.hint)
    if not exercise.asks_for_a_function and callable(answer):
        return _wrong(exercise, ["this exercise asks for a value; a function came"], exercise.hint)

    cases = exercise.cases()
    for number, inputs in enumerate(cases):
        expected = exercise.reference(*copy.deepcopy(inputs))
        try:
            got = answer(*copy.deepcopy(inputs)) if callable(answer) else answer
        except NotImplementedError:
            return _not_attempted(exercise, "Replace the NotImplementedError with your own lines.")
        except Exception as error:  # whatever the learner's code does, the notebook goes on
            got_text = f"{type(error).__name__}: {error}"
            return _wrong(exercise, _told(exercise, inputs, got_text, expected), exercise.hint)
        if number == 0 and is_blank(got):
            reason = f"The function returned {as_text(got)}: write its lines, and return a result."
            return _not_attempted(exercise, reason)
        if not exercise.agree(expected, got):
            told = _told(exercise, inputs, as_text(got), expected)
            return _wrong(exercise, told, _best_hint(exercise, answer))
    count = "" if not exercise.asks_for_a_function else f" ({len(cases)} cases)"
    print(f"{exercise.name}: right{count}")
    return Verdict.RIGHT


def hint(name: str) -> None:
    """Print the question of an exercise again, and its hint."""
    exercise = find(name)
    print(f"{name}: {exercise.prompt}\n  hint: {exercise.hint}")


def solution(name: str) -> None:
    """Show the reference solution of an exercise."""
    show_source(find(name).reference)


def find(name: str) -> Exercise:
    """The exercise of that name; an unknown name is a LessonkitError that lists the near ones."""
    exercises = all_exercises()
    if name not in exercises:
        near = difflib.get_close_matches(str(name), exercises) or sorted(exercises)
        raise LessonkitError(
            f"There is no exercise called {name!r}.", remedy=f"Did you mean {', '.join(near)}?"
        )
    return exercises[name]


@functools.cache
def all_exercises() -> dict[str, Exercise]:
    """Every exercise of the course by name."""
    package = importlib.import_module("lessonkit.course.exercises")
    modules = sorted(info.name for info in pkgutil.iter_modules(package.__path__))
    found: dict[str, Exercise] = {}
    for module in (name for name in modules if name.startswith("lesson_")):
        for exercise in importlib.import_module(f"{package.__name__}.{module}").EXERCISES:
            if exercise.name in found:
                raise LessonkitError("Two exercises have the same name.", where=exercise.name)
            found[exercise.name] = exercise
    return found


def _not_attempted(exercise: Exercise, reason: str) -> Verdict:
    print(f"{exercise.name}: not attempted yet. {reason}")
    return Verdict.NOT_ATTEMPTED


def _wrong(exercise: Exercise, told: list[str], helpful: str) -> Verdict:
    print("\n  ".join([f"{exercise.name}: wrong", *told, f"hint: {helpful}"]))
    return Verdict.WRONG


def _told(exercise: Exercise, inputs: tuple[Any, ...], got: str, expected: Any) -> list[str]:
    """The lines that show the first failing case."""
    call = []
    if exercise.asks_for_a_function:
        call = [f"{exercise.name}({', '.join(as_text(value) for value in inputs)})"]
    return [*call, f"came out:         {got}", f"should have been: {as_text(expected)}"]


def _best_hint(exercise: Exercise, answer: Any) -> str:
    """The hint of the known mistake that this answer makes, or else the general one."""
    for mistake in exercise.mistakes:
        if _makes(exercise, answer, mistake.answer):
            return mistake.hint
    return exercise.hint


def _makes(exercise: Exercise, answer: Any, wrong: Any) -> bool:
    """Does the learner's answer agree with a known wrong one in every case?"""
    if not exercise.asks_for_a_function:
        return exercise.agree(wrong, answer)
    try:
        return all(
            exercise.agree(wrong(*copy.deepcopy(inputs)), answer(*copy.deepcopy(inputs)))
            for inputs in exercise.cases()
        )
    except Exception:  # a learner's function may fail on a later case than the one it was shown
        return False
