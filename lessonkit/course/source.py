"""Show the source of lessonkit in a lesson: the code that is read is the code that runs."""

from __future__ import annotations

import inspect
import textwrap
from typing import Any

from lessonkit.course.display import show_bundle
from lessonkit.errors import LessonkitError


def source_of(thing: Any) -> str:
    """The source text of a function, class or module, without its surrounding indentation."""
    try:
        return textwrap.dedent(inspect.getsource(thing)).rstrip("\n")
    except (TypeError, OSError) as error:
        raise LessonkitError(
            f"There is no Python source to show for {thing!r}.",
            remedy="Pass a function, class or module written in Python, not a value.",
        ) from error


def show_source(thing: Any) -> None:
    """Show the source of a function, class or module, under a line that says where it lives.

    In a notebook the front end highlights it, in the colours of its own theme.
    """
    source = source_of(thing)
    module = inspect.getmodule(thing)
    if module is not None and module.__name__ != "__main__":
        source = f"# {module.__name__}\n\n{source}"
    fence = "````" if "```" in source else "```"
    show_bundle({"text/markdown": f"{fence}python\n{source}\n{fence}", "text/plain": source})
