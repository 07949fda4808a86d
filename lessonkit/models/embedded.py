"""The data that comes with the course: the embedded model, its texts and its questions.

They live in the folder `data/` of the repository, and in `lessonkit/_data/` of an installed
package. `SHA256SUMS` in that folder lists every file; `verified` checks a file against it
before anybody reads the file.
"""

from __future__ import annotations

from functools import cache
from pathlib import Path

from lessonkit.errors import LessonkitError
from lessonkit.files.integrity import file_digest, read_checklist

CHECKLIST = "SHA256SUMS"
_PACKAGE = Path(__file__).resolve().parent.parent
_RESTORE = (
    "Restore it: `git checkout -- data` in a clone of the repository, "
    "`pip install --force-reinstall --no-deps` of the same wheel elsewhere."
)


def data_dir() -> Path:
    """The folder of the embedded data: the package's own, else the repository's.

    Raises
    ------
    LessonkitError
        Neither folder has a `SHA256SUMS`.
    """
    for folder in (_PACKAGE / "_data", _PACKAGE.parent / "data"):
        if (folder / CHECKLIST).is_file():
            return folder
    raise LessonkitError(
        "The data that comes with the course was not found.",
        where=f"neither {_PACKAGE / '_data'} nor {_PACKAGE.parent / 'data'} has a {CHECKLIST}",
        remedy="Install lessonkit from its wheel, or work in a complete clone of the repository.",
    )


def verified(relative_path: str) -> Path:
    """The path of an embedded file, such as "texts/en/test.txt", once its SHA-256 is checked.

    Each file is read and hashed once in a process; later calls are free.

    Raises
    ------
    LessonkitError
        The file is not part of the data, is missing, or is not the file that was published.
    """
    return _verified(data_dir(), relative_path)


def verified_folder(relative_path: str) -> Path:
    """The path of an embedded folder, such as "mini", once every listed file in it is checked."""
    folder = data_dir()
    names = [name for name in _checklist(folder) if name.startswith(f"{relative_path}/")]
    if not names:
        raise LessonkitError(
            f"The embedded data has no folder {relative_path!r}.",
            where=folder / CHECKLIST,
            remedy="Check the name; the list of files tells what there is.",
        )
    for name in names:
        _verified(folder, name)
    return folder / relative_path


@cache
def _checklist(folder: Path) -> dict[str, str]:
    return read_checklist(folder / CHECKLIST)


@cache  # an error is not kept: the next call looks again
def _verified(folder: Path, relative_path: str) -> Path:
    listed = _checklist(folder)
    if relative_path not in listed:
        raise LessonkitError(
            f"The embedded data has no file {relative_path!r}.",
            where=folder / CHECKLIST,
            remedy="Check the name; the list of files tells what there is.",
        )
    path = folder / relative_path
    if not path.is_file():
        raise LessonkitError("An embedded file is missing.", where=path, remedy=_RESTORE)
    if file_digest(path) != listed[relative_path]:
        raise LessonkitError(
            "An embedded file is not the one that was published: its SHA-256 differs.",
            where=path,
            remedy=f"{_RESTORE} If git changed its line ends, set `core.autocrlf` to false first.",
        )
    return path
