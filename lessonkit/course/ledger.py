"""The ledger: one table that grows from lesson to lesson.

Each row is a form of one model: what it costs (bits a weight), what it is worth (perplexity,
recall), and how much worse it is than the model as it was, with the paired error of that figure.
Rows stand under the protocol by which they were measured, because only those may be compared. A
lesson adds its rows with one call and shows the table so far::

    course.record(MODEL, 2, plain, {"nf4 block 64": (4.5, scores["nf4 block 64"], known)})

The table is kept in `ledger.json` in the current folder, or in the file that LESSONKIT_LEDGER
names. Where that variable is empty, it is kept nowhere, and a lesson shows its own rows only: so
are the notebooks run whose outputs are committed.
"""

from __future__ import annotations

import json
import os
from collections.abc import Mapping
from dataclasses import asdict, dataclass
from pathlib import Path

from lessonkit.errors import LessonkitError
from lessonkit.evaluate import Perplexity, Recall, compare
from lessonkit.models.names import chosen

VARIABLE = "LESSONKIT_LEDGER"
FILE_NAME = "ledger.json"

# Perplexities of the same unchanged model differ by less than this from machine to machine.
_SAME_BASE = 1e-3


@dataclass(frozen=True)
class Row:
    """One form of a model.

    `protocol` says how and on which text it was measured, `base` is the perplexity of the unchanged
    model by that protocol. `worse` and `error` are in percent; None for the unchanged model
    itself. `recall` is the share of the facts that it knows, None where nothing was asked. `rough`
    rows come out a little differently on another processor, and are shown with fewer digits.
    """

    model: str
    lesson: int
    form: str
    bits: float
    protocol: str
    base: float
    perplexity: float
    worse: float | None
    error: float | None
    recall: float | None
    rough: bool = False

    def __str__(self) -> str:
        worse, digits = "", 1 if self.rough else 3
        if self.worse is not None and self.error is not None:
            # Adding 0 turns -0.0, which would print as -0.00, into 0.0.
            worse = f"{round(self.worse, 2) + 0.0:+.2f} ± {self.error:.2f} %"
            if self.rough:
                worse = "below +1 %" if self.worse < 1 else f"about {self.worse:+.0f} %"
        recall = "" if self.recall is None else f"{100 * self.recall:.0f} %"
        perplexity = f"{self.perplexity:.{digits}f}{' ' * (3 - digits)}"
        line = f"  {self.lesson:02}  {self.form:<28}{self.bits:>7.3f}{perplexity:>11}"
        return f"{line}{worse:>20}{recall:>8}".rstrip()


HEADER = f"  {'':<4}{'form':<28}{'bits':>7}{'perplexity':>11}{'worse by':>20}{'recall':>8}"


def record(
    model: str | Path,
    lesson: int,
    base: Perplexity,
    rows: Mapping[str, tuple[float, Perplexity, Recall | None]],
    *,
    rough: bool = False,
) -> None:
    """Add a lesson's rows to the ledger of a model, and print the whole ledger so far.

    Parameters
    ----------
    model:
        The lesson's MODEL.
    lesson:
        Its number. A row of the same lesson and form takes the place of the earlier one.
    base:
        The perplexity of the model as it was, by the same protocol as all the rows.
    rows:
        For each form its bits a weight, its perplexity, and its recall (None: not asked).
    rough:
        Show fewer digits: for methods such as GPTQ, which choose a little differently on another
        processor.

    Raises
    ------
    LessonkitError
        A row and the base have other protocols, texts or numbers of windows.
    """
    name = str(chosen(model))
    new = [_row(name, lesson, form, base, *what, rough=rough) for form, what in rows.items()]
    kept = [row for row in _read() if not any(_supersedes(other, row) for other in new)]
    every = sorted([*kept, *new], key=lambda row: row.lesson)  # stable: in order of entry
    _write(every)
    print(as_text([row for row in every if row.model == name]))


def as_text(rows: list[Row]) -> str:
    """The rows as a table, grouped by protocol."""
    lines = [HEADER]
    for protocol in dict.fromkeys(row.protocol for row in rows):
        lines.append(f"{protocol}:")
        lines += [str(row) for row in rows if row.protocol == protocol]
    return "\n".join(lines)


def _row(
    model: str, lesson: int, form: str, base: Perplexity,
    bits: float, score: Perplexity, known: Recall | None, *, rough: bool,
) -> Row:  # fmt: skip
    gap = None if score is base else compare(base, score)
    return Row(
        model=model,
        lesson=lesson,
        form=form,
        bits=bits,
        protocol=str(score).partition("(")[2].removesuffix(")"),
        base=base.value,
        perplexity=score.value,
        worse=None if gap is None else 100 * (gap.ratio - 1),
        error=None if gap is None else 100 * gap.ratio_error,
        recall=None if known is None else known.share,
        rough=rough,
    )


def _supersedes(new: Row, old: Row) -> bool:
    """Is the old row the same one, or was it measured on a model that has changed since?"""
    if new.model != old.model:
        return False
    changed = new.protocol == old.protocol and abs(new.base / old.base - 1) > _SAME_BASE
    return changed or (new.lesson, new.form) == (old.lesson, old.form)


def _path() -> Path | None:
    named = os.environ.get(VARIABLE)
    if named is None:
        return Path(FILE_NAME)
    return Path(named) if named else None


def _read() -> list[Row]:
    path = _path()
    if path is None or not path.exists():
        return []
    try:
        return [Row(**row) for row in json.loads(path.read_text(encoding="utf-8"))]
    except (ValueError, TypeError) as error:
        raise LessonkitError(
            "This is not a ledger of this version of lessonkit.",
            where=path,
            remedy="Move the file away, and run the lessons whose rows you want again.",
        ) from error


def _write(rows: list[Row]) -> None:
    path = _path()
    if path is None:
        return
    # Written beside its place and then renamed, so that no lesson finds half a ledger.
    new = path.with_name(f"{path.name}.new")
    new.write_text(json.dumps([asdict(row) for row in rows], indent=1) + "\n", encoding="utf-8")
    new.replace(path)
