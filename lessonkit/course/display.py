"""Show something in a notebook in its best form, and in a terminal as text."""

from __future__ import annotations

from typing import Any


def show_bundle(data: dict[str, Any], metadata: dict[str, Any] | None = None) -> None:
    """Display one thing given in several forms: MIME type -> content.

    `data` must hold `text/plain`. In a notebook the front end picks the richest form it
    knows; without IPython the text is printed.
    """
    try:
        from IPython.core.interactiveshell import InteractiveShell
        from IPython.display import display
    except ImportError:
        print(data["text/plain"])
        return
    if InteractiveShell.initialized():
        display(data, raw=True, metadata=metadata or {})
    else:
        print(data["text/plain"])
