"""What a lesson needs around its subject: a beginning, checks, exercises, plots.

What lessons use most can be had from here, for example `course.check`. Each name is imported
when it is first used, so that `from lessonkit import course` takes no time.
"""

from __future__ import annotations

import importlib
from typing import Any

_HOME = {
    "attempt": "exercises",
    "begin": "start",
    "check": "checking",
    "hint": "exercises",
    "layers_for": "budget",
    "look": "machine",
    "print_error": "messages",
    "questions_for": "budget",
    "record": "ledger",
    "show": "plots",
    "show_source": "source",
    "solution": "exercises",
    "windows_for": "budget",
}

__all__ = [*_HOME, "exercises", "plots"]  # noqa: PLE0604  two of its modules are public too


def __getattr__(name: str) -> Any:
    if name in ("exercises", "plots"):
        return importlib.import_module(f"{__name__}.{name}")
    if name not in _HOME:
        raise AttributeError(f"module {__name__!r} has no attribute {name!r}")
    return getattr(importlib.import_module(f"{__name__}.{_HOME[name]}"), name)


def __dir__() -> list[str]:
    return sorted(__all__)
