"""When to draw a progress bar, and on what."""

from __future__ import annotations

import os
import sys
from typing import TYPE_CHECKING, Any

if TYPE_CHECKING:
    import torch

LARGE = 100_000_000  # parameters


def bars_wanted(*, large: bool) -> bool:
    """Should a long run draw a bar?

    The environment variable LESSONKIT_PROGRESS decides: 1 for yes, 0 for no. Else a terminal
    gets bars, and a notebook gets them for large work only: what the embedded model does takes
    seconds, and stays silent so that committed outputs never hold a bar.
    """
    asked = os.environ.get("LESSONKIT_PROGRESS", "")
    if asked in ("0", "1"):
        return asked == "1"
    in_notebook = type(sys.stderr).__module__.startswith("ipykernel")
    return sys.stderr.isatty() or (large and in_notebook)


def is_large(model: torch.nn.Module) -> bool:
    """More than 100 million parameters: minutes, not seconds, on a CPU."""
    return sum(parameter.numel() for parameter in model.parameters()) > LARGE


def bar(total: int, what: str, *, model: torch.nn.Module) -> Any:
    """A tqdm bar over `total` steps that appears after two seconds, if it is wanted at all."""
    from tqdm.auto import tqdm

    return tqdm(
        total=total,
        desc=what,
        delay=2,
        leave=False,
        disable=not bars_wanted(large=is_large(model)),
    )
