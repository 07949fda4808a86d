"""Where the files of a Meta model are.

The layouts that the download scripts and tutorials produce:

    llama/tokenizer.model, llama/7B/{params.json, consolidated.00.pth, checklist.chk}
    llama-2-7b/{params.json, consolidated.00.pth, tokenizer.model}
    Llama-3.2-1B/original/{params.json, consolidated.00.pth, tokenizer.model}
"""

from __future__ import annotations

import os
import re
from dataclasses import dataclass
from pathlib import Path

from lessonkit.errors import LessonkitError
from lessonkit.files.checkpoint import has_weights

_SHARD = re.compile(r"consolidated\.(\d\d)\.pth")


@dataclass(frozen=True)
class MetaFolder:
    """The files of one model: `shards` in order, `tokenizer` where there is one."""

    folder: Path
    params: Path
    shards: tuple[Path, ...]
    tokenizer: Path | None


def is_meta(path: str | os.PathLike[str]) -> bool:
    """Is this a folder in Meta's form? Where Hugging Face's weights lie too, those count."""
    folder = Path(path)
    if not folder.is_dir() or has_weights(folder):
        return False
    here = any(folder.glob("consolidated.*.pth"))
    return here or (not (folder / "config.json").is_file() and len(_model_folders(folder)) > 0)


def find_meta(
    path: str | os.PathLike[str], tokenizer: str | os.PathLike[str] | None = None
) -> MetaFolder:
    """Find the files of a Meta model; `tokenizer` names one that lies elsewhere.

    `path` is the folder with the weights, or the one above it.
    """
    root = Path(path)
    if not root.is_dir():
        raise LessonkitError(
            "This is not a folder." if root.exists() else "There is no such folder.",
            where=root,
            remedy="Name the folder that holds params.json and consolidated.00.pth.",
        )
    folder = _the_model_folder(root)
    if not (folder / "params.json").is_file():
        raise LessonkitError(
            "params.json is missing; the tensors alone do not tell the number of heads.",
            where=folder,
            remedy="Fetch params.json; it comes with the weights.",
        )
    return MetaFolder(
        folder, folder / "params.json", _shards(folder), _tokenizer(folder, tokenizer)
    )


def _the_model_folder(root: Path) -> Path:
    candidates = _model_folders(root)
    if len(candidates) == 1:
        return candidates[0]
    if candidates:
        names = ", ".join(folder.name for folder in candidates)
        raise LessonkitError(
            f"The folder holds several models: {names}.",
            where=root,
            remedy=f"Name one of them, for example {candidates[0]}.",
        )
    if has_weights(root):
        raise LessonkitError(
            "The folder is in Hugging Face's form already.",
            where=root,
            remedy="The other way round is `lessonkit to-meta`.",
        )
    raise LessonkitError(
        "There are no consolidated.NN.pth files here.",
        where=root,
        remedy="Name the folder that Meta's download made; look whether it is complete.",
    )


def _model_folders(root: Path) -> list[Path]:
    """`root` itself or its direct subfolders, where they hold weights."""
    if any(root.glob("consolidated.*.pth")):
        return [root]
    return sorted({path.parent for path in root.glob("*/consolidated.*.pth")})


def _shards(folder: Path) -> tuple[Path, ...]:
    found = {int(m[1]): path for path in folder.iterdir() if (m := _SHARD.fullmatch(path.name))}
    for number in range(max(found) + 1 if found else 1):
        if number not in found:
            raise LessonkitError(
                f"The shard consolidated.{number:02}.pth is missing.",
                where=folder,
                remedy="Fetch it; all shards are needed, each holds a slice of every tensor.",
            )
    return tuple(found[number] for number in sorted(found))


def _tokenizer(folder: Path, given: str | os.PathLike[str] | None) -> Path | None:
    if given is not None:
        if not Path(given).is_file():
            raise LessonkitError(
                "There is no such tokenizer file.", where=given, remedy="Check the path."
            )
        return Path(given)
    for place in (folder, folder.absolute().parent):
        if (place / "tokenizer.model").is_file():
            return place / "tokenizer.model"
    return None
