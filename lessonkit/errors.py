"""One family of errors, each with three parts: what is wrong, where, what to do."""

from __future__ import annotations


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
