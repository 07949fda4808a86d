"""The text that a command is told to calibrate on: a name and, if need be, a split.

    island                 its calibration split          wikitext        its training split
    wikitext:validation    if it is asked for             FILE            any UTF-8 text
    FILE.jsonl             the field "text" of each line  owner/name      a data set of the Hub's
    owner/name:split, owner/name:configuration:split

The test split is refused everywhere: perplexities are reported on it.
"""

from __future__ import annotations

import json
import re
from collections.abc import Iterable, Iterator, Mapping
from pathlib import Path
from typing import Any

from lessonkit.errors import LessonkitError
from lessonkit.models.texts import (
    FOR_CALIBRATION,
    ISLAND,
    WIKITEXT,
    Split,
    Text,
    as_split,
    calibration_text,
    read_text,
    require_use,
    split_in_name,
    text_of,
)

HUB_CHARACTERS = 8_000_000
"""So much is read of a data set on the Hub: some two million tokens."""

IF_ASKED = (*FOR_CALIBRATION, Split.VALIDATION)
"""The splits that may be calibrated on if they are asked for by name."""

_FIELDS = ("text", "content", "code", "completion")  # where a record's text may stand
_HUB_ID = re.compile(r"[\w][\w.-]*/[\w][\w.-]*", re.ASCII)


def find_calibration(name: str, *, language: str = "en") -> Text:
    """The text that a name stands for; see the head of this module.

    `language` chooses between the island's two; for other texts it is only noted.

    Raises LessonkitError for a test split, a name that means nothing, a file that cannot be
    read, and a data set that cannot be had.
    """
    path = Path(name).expanduser()
    if path.is_file():
        if path.suffix == ".jsonl":
            return _of_jsonl(path, language)
        return text_of(path, Split.CALIBRATION, language, IF_ASKED)
    collection, *further = name.split(":")
    if collection in (ISLAND, WIKITEXT) and len(further) < 2:
        if not further:
            return calibration_text(collection, language)
        return text_of(collection, as_split(further[0]), language, IF_ASKED)
    if _HUB_ID.fullmatch(collection) and len(further) < 3:
        return _of_hub(collection, further, language)
    raise LessonkitError(
        f"There is no text {name!r} to calibrate on.",
        where=path,
        remedy="Use island, wikitext, a text file, a .jsonl file whose lines have a field "
        '"text", or a data set of the Hub such as owner/name or owner/name:train.',
    )


def _of_jsonl(path: Path, language: str) -> Text:
    split = split_in_name(path) or Split.CALIBRATION
    require_use(split, IF_ASKED, path)
    return Text(path.name, language, split, tuple(_texts(_records(path), path)))


def _records(path: Path) -> Iterator[Any]:
    for number, line in enumerate(read_text(path).splitlines(), 1):
        if line.strip():
            try:
                yield json.loads(line)
            except ValueError as error:
                raise LessonkitError(
                    f"Line {number} is no JSON: {error}.",
                    where=path,
                    remedy='Each line must be an object such as {"text": "..."}.',
                ) from error


def _texts(records: Iterable[Any], where: object) -> Iterator[str]:
    """The text of each record: one of the fields that usually hold it, the same for all."""
    field = None
    for record in records:
        if field is None and isinstance(record, Mapping):
            field = next((name for name in _FIELDS if name in record), None)
        found = record.get(field) if isinstance(record, Mapping) and field else None
        if not isinstance(found, str):
            names = ", ".join(map(str, record)) if isinstance(record, Mapping) else "no fields"
            raise LessonkitError(
                f"A record has no text; it has {names}.",
                where=str(where),
                remedy=f"Its text must stand in one of the fields {', '.join(_FIELDS)}.",
            )
        yield found


def _of_hub(collection: str, further: list[str], language: str) -> Text:
    """The first texts of a data set, read as a stream: it may be of any size."""
    said = further[-1] if further else "train"
    split = as_split(said)
    require_use(split, IF_ASKED, f"{collection}:{said}")
    configuration = further[0] if len(further) == 2 else None
    try:
        import datasets
    except ImportError as error:
        raise LessonkitError(
            "Data sets are read with the package datasets, which is not installed.",
            where="import datasets",
            remedy="`pip install datasets`, or give a text file.",
        ) from error
    rows: list[str] = []
    size = 0
    try:
        table: Any = datasets.load_dataset(collection, configuration, split=said, streaming=True)
        for text in _texts(table, collection):
            rows.append(text)
            size += len(text)
            if size >= HUB_CHARACTERS:
                break
    except LessonkitError:
        raise
    except Exception as error:  # datasets lets its many libraries' errors through
        raise LessonkitError(
            f"The data set could not be had: {str(error).strip().splitlines()[0]}"
            if str(error).strip()
            else f"The data set could not be had: {type(error).__name__}.",
            where=collection,
            remedy="Check its name, its configuration and split (owner/name:configuration:split) "
            "and the network; or set HF_ENDPOINT to a mirror; or give a text file.",
        ) from error
    return Text(collection, language, split, tuple(rows))
