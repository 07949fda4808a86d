"""Use a model: let it write."""

from lessonkit.run.generate import complete

__all__ = [
    "complete",
]
