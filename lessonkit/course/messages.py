"""Error messages as people meet them: a lesson provokes one, prints it, and goes on."""

from __future__ import annotations

import os
import re
from collections.abc import Callable

_COLOUR = re.compile(r"\x1b\[\d+m")
_LONGEST_LINE = 185


def print_error(
    action: Callable[[], object], *wanted: str, folder: str | os.PathLike[str] | None = None
) -> None:
    """Do it, and print the error that this raises; print nothing if it raises none.

    Parameters
    ----------
    action:
        What goes wrong.
    wanted:
        Of a long message only the lines with one of these words are printed. Without them, or
        where no line has one: the first line.
    folder:
        A folder of this machine whose name is left out of the message.
    """
    try:
        action()
    except Exception as error:
        text = _COLOUR.sub("", str(error))
        if folder is not None:
            text = text.replace(f"{os.fspath(folder)}{os.sep}", "")
        text = text.split(" (/")[0]  # some end with the place of a library
        lines = [line.strip() for line in text.splitlines()]
        shown = [line for line in lines if any(word in line for word in wanted)] or lines[:1]
        short = " ... ".join(_shortened(line) for line in shown)
        print(f"{type(error).__name__}: {short}")


def _shortened(line: str) -> str:
    """The line, or as many whole words of it as there is room for."""
    if len(line) <= _LONGEST_LINE:
        return line
    words = line[: _LONGEST_LINE + 1].rpartition(" ")[0]
    return f"{words or line[:_LONGEST_LINE]} ..."
