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
import sys
import traceback
from collections.abc import Callable, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from lessonkit.course.exercises.answers import as_text, is_blank, same_answer
from lessonkit.course.source import show_source
from lessonkit.errors import LessonkitError

_LINE = 200
"""A failing call that is longer is shown with an argument a line."""

_NUDGED: set[str] = set()
"""The exercises whose nudge was given: the next call of `hint` says more."""


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
        What helps whoever is stuck: the way, all but its last step.
    nudge:
        What to think of first: said to a wrong answer that is none of `mistakes`, or by the first
        call of `hint`. The next call of `hint` says `hint`. Without a nudge that is said at once.
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
    nudge: str = ""
    make_cases: Callable[[], Sequence[tuple[Any, ...]]] | None = None
    mistakes: tuple[Mistake, ...] = ()
    rtol: float = 0.0
    atol: float = 0.0

    @property
    def asks_for_a_function(self) -> bool:
        """False where the answer is a value."""
        return self.make_cases is not None

    @property
    def first_hint(self) -> str:
        """What is said first: the nudge, where there is one, and how to hear more."""
        more = f"(Still stuck? exercises.hint({self.name!r}) says more.)"
        return f"{self.nudge} {more}" if self.nudge else self.hint

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
        return _wrong(exercise, ["this exercise asks for a function; a value came"])
    if not exercise.asks_for_a_function and callable(answer):
        return _wrong(exercise, ["this exercise asks for a value; a function came"])

    cases = exercise.cases()
    for number, inputs in enumerate(cases):
        expected = exercise.reference(*copy.deepcopy(inputs))
        try:
            got = answer(*copy.deepcopy(inputs)) if callable(answer) else answer
        except NotImplementedError:
            return _not_attempted(exercise, "Replace the NotImplementedError with your own lines.")
        except Exception as error:  # whatever the learner's code does, the notebook goes on
            told = _told(exercise, inputs, f"{type(error).__name__}: {error}", expected)
            return _wrong(exercise, [*told, *_line_that_raised(error)])
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
    """Print the question of an exercise again, and its hint: a nudge first, if it has one."""
    exercise = find(name)
    said = exercise.hint if name in _NUDGED else exercise.first_hint
    _NUDGED.add(name)
    print(f"{name}: {exercise.prompt}\n  hint: {said}")


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


def _wrong(exercise: Exercise, told: list[str], helpful: str = "") -> Verdict:
    if not helpful:
        helpful = exercise.first_hint
        _NUDGED.add(exercise.name)
    print("\n  ".join([f"{exercise.name}: wrong", *told, f"hint: {helpful}"]))
    return Verdict.WRONG


def _told(exercise: Exercise, inputs: tuple[Any, ...], got: str, expected: Any) -> list[str]:
    """The lines that show the first failing case. Of a value that is asked for, the answer stays
    untold: it would be the solution."""
    if not exercise.asks_for_a_function:
        return [f"came out: {got}"]
    shown = [as_text(value) for value in inputs]
    call = [f"{exercise.name}({', '.join(shown)})"]
    if len(call[0]) > _LINE:  # an argument a line
        call = [f"{exercise.name}(", *(f"  {text}," for text in shown), ")"]
    return [*call, f"came out:         {got}", f"should have been: {as_text(expected)}"]


def _line_that_raised(error: Exception) -> list[str]:
    """The innermost line of the learner's own code in an error's traceback, if there is one."""
    frames = traceback.extract_tb(error.__traceback__)[1:]  # the first is ours
    own = [f for f in frames if f.line and not _is_library(f.filename)]
    return [f"in line {own[-1].lineno} of {own[-1].name}: {own[-1].line}"] if own else []


def _is_library(filename: str) -> bool:
    path = Path(filename)
    ours = Path(__file__).parent.parent.parent  # lessonkit
    return "site-packages" in path.parts or any(
        path.is_relative_to(folder) for folder in (ours, sys.prefix, sys.base_prefix)
    )


def _best_hint(exercise: Exercise, answer: Any) -> str:
    """The hint of the known mistake that this answer makes; empty if it is none of them."""
    for mistake in exercise.mistakes:
        if _makes(exercise, answer, mistake.answer):
            return mistake.hint
    return ""


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
