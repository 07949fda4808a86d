"""One family of errors, each with three parts: what is wrong, where, what to do."""

from __future__ import annotations

import re
import struct
from collections.abc import Iterator
from contextlib import contextmanager


class LessonkitError(Exception):
    """Bad input, told in three parts.

    Parameters
    ----------
    what:
        What is wrong, as a sentence.
    where:
        The file, tensor, argument or index that is at fault.
    remedy:
        What the reader can do about it.
    """

    def __init__(self, what: str, *, where: object = None, remedy: str | None = None) -> None:
        self.what = what
        self.where = None if where is None else str(where)
        self.remedy = remedy
        super().__init__(what)

    def __str__(self) -> str:
        lines = [self.what]
        if self.where is not None:
            lines.append(f"  where: {self.where}")
        if self.remedy is not None:
            lines.append(f"  what to do: {self.remedy}")
        return "\n".join(lines)


@contextmanager
def malformed(what: str, *, where: object, remedy: str) -> Iterator[None]:
    """Tell whatever a foreign file's content makes fail in this block as a LessonkitError.

    For content of so loose a form (a tokenizer's JSON, GGUF's metadata) that a check of every part
    would be longer than what is done with it. Files are read and written outside such a block.
    """
    try:
        yield
    except (
        ArithmeticError, AttributeError, LookupError, RuntimeError, TypeError, ValueError,
        re.error, struct.error,
    ) as error:  # fmt: skip
        kind = type(error).__name__
        raise LessonkitError(f"{what} ({kind}: {error}).", where=where, remedy=remedy) from error
