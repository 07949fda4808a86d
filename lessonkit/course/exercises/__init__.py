"""Exercises with automatic verdicts; those of each lesson in one module, a list EXERCISES."""

from lessonkit.course.exercises.attempts import attempt, hint, solution

__all__ = [
    "attempt",
    "hint",
    "solution",
]
