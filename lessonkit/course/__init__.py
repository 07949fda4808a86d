"""What a lesson needs around its subject: models, texts, checks, exercises, plots.

What lessons use most can be had from here, for example ``course.check``. Each name is imported
when it is first used, so that ``from lessonkit import course`` takes no time.
"""

from __future__ import annotations

import importlib
from typing import TYPE_CHECKING, Any

if TYPE_CHECKING:
    from lessonkit.course.budget import questions_for, windows_for
    from lessonkit.course.card import show
    from lessonkit.course.compare import absent, check
    from lessonkit.course.exercises import attempt, hint, solution
    from lessonkit.course.models import describe, load
    from lessonkit.course.ready import begin
    from lessonkit.course.source import show_source

_HOME = {
    "absent": "compare",
    "attempt": "exercises",
    "begin": "ready",
    "check": "compare",
    "describe": "models",
    "hint": "exercises",
    "load": "models",
    "questions_for": "budget",
    "show": "card",
    "show_source": "source",
    "solution": "exercises",
    "windows_for": "budget",
}

__all__ = [
    "absent",
    "attempt",
    "begin",
    "check",
    "describe",
    "hint",
    "load",
    "questions_for",
    "show",
    "show_source",
    "solution",
    "windows_for",
]


def __getattr__(name: str) -> Any:
    if name not in _HOME:
        raise AttributeError(f"module {__name__!r} has no attribute {name!r}")
    return getattr(importlib.import_module(f"{__name__}.{_HOME[name]}"), name)


def __dir__() -> list[str]:
    return sorted(__all__)
