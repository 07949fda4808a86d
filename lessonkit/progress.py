"""Progress bars: when there is one, and on what. One policy for everything that takes long.

The environment variable LESSONKIT_PROGRESS decides: 1 for yes, 0 for no. Else a terminal gets a
bar for whatever takes longer than two seconds. A notebook gets one for large work only: what the
embedded model does takes seconds, and committed outputs never hold a bar.
"""

from __future__ import annotations

import os
import sys
from typing import Any

LARGE_BYTES = 256 << 20
"""From here on a file, or all of a model's files, counts as large work."""


def bars_wanted(*, large: bool) -> bool:
    """Should a run draw a bar, if it takes longer than two seconds?"""
    asked = os.environ.get("LESSONKIT_PROGRESS", "")
    if asked in ("0", "1"):
        return asked == "1"
    in_notebook = type(sys.stderr).__module__.startswith("ipykernel")
    return sys.stderr.isatty() or (large and in_notebook)


def bar(total: int, what: object, *, large: bool, unit: str = "it") -> Any:
    """A tqdm bar over `total` steps that appears after two seconds, if it is wanted at all.

    `what` names it, and may be whatever a caller names his work by: a number, a tuple.
    """
    from tqdm.auto import tqdm

    return tqdm(
        total=total,
        desc=str(what),  # tqdm itself takes only these
        unit=unit,
        unit_scale=unit == "B",
        delay=2,
        leave=False,
        disable=not bars_wanted(large=large),
    )


def byte_bar(total: int, what: str) -> Any:
    """A bar that counts `total` bytes."""
    return bar(total, what, large=total >= LARGE_BYTES, unit="B")
