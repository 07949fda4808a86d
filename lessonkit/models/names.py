"""What a model's name means: the embedded `mini`, a folder, or a Llama on the Hugging Face Hub.

The environment variable LESSONKIT_MODEL, where it is set, wins over any such name, so that a whole
notebook runs on another model without an edit. A `pathlib.Path` is taken as it is: a lesson
loads the folders that it wrote itself that way, and the command line what was named on it.
"""

from __future__ import annotations

import os
import re
from pathlib import Path

from lessonkit.errors import LessonkitError
from lessonkit.hub.cache import download
from lessonkit.models.embedded import verified_folder

VARIABLE = "LESSONKIT_MODEL"
MINI = "mini"
ADAPTERS = ("zh", "chat")
_HUB_ID = re.compile(r"[\w][\w.-]*/[\w][\w.-]*", re.ASCII)


def chosen(name: str | Path = MINI) -> str | Path:
    """The model's name after LESSONKIT_MODEL, where that is set, has had its say.

    A `Path` names one certain folder and is never replaced.
    """
    if isinstance(name, Path):
        return name
    return os.environ.get(VARIABLE, "").strip() or name


def resolve(name: str | Path = MINI, *, revision: str | None = None) -> Path:
    """The local folder of the model that a lesson names, once LESSONKIT_MODEL has had its say.

    Raises LessonkitError as `find_model` does.
    """
    return find_model(chosen(name), revision=revision)


def find_model(name: str | Path, *, revision: str | None = None) -> Path:
    """The local folder of just this model; a Hub id is downloaded, unless the cache has it.

    "mini" is always the embedded model; a folder of that name is "./mini".

    Raises
    ------
    LessonkitError
        The name means nothing, the embedded model was altered, or the download failed.
    """
    if name == MINI:
        return verified_folder(MINI)
    folder = Path(name).expanduser()
    if folder.is_dir():
        return folder
    if folder.is_file():
        raise LessonkitError(
            "The model's name is a file.",
            where=folder,
            remedy="Give the folder that holds config.json and the weights. (A GGUF file runs with "
            "lessonkit serve; lessonkit from-gguf makes a folder of it.)",
        )
    if isinstance(name, str) and _HUB_ID.fullmatch(name):
        if _looks_like_a_path(name):
            raise LessonkitError(
                f"There is no folder {name}.",
                where=Path(name).absolute(),
                remedy="Check the spelling, and from where the path starts. (A Hub id has the "
                "same form; if you mean one, its first part must not be a folder here.)",
            )
        return download(name, revision)
    raise LessonkitError(
        f"There is no model {str(name)!r}: it is neither 'mini', nor a folder that exists, "
        "nor has it the form of a Hub id.",
        where=VARIABLE if os.environ.get(VARIABLE) else None,
        remedy="Use 'mini', the path of a folder with config.json, or an id like "
        "'TinyLlama/TinyLlama-1.1B-Chat-v1.0'.",
    )


def find_path(name: str) -> Path:
    """The folder or file that a name means: `mini`, a path that exists, or a model on the Hub.

    Raises LessonkitError as `find_model` does, and for a path that does not exist.
    """
    path = Path(name).expanduser()
    if name != MINI and (path.exists() or not _HUB_ID.fullmatch(name)):
        if not path.exists():
            raise LessonkitError(
                "There is no such file or folder.",
                where=path,
                remedy=f"Check the spelling. The embedded model is {MINI}; one on the Hub has "
                "the form owner/name.",
            )
        return path
    return find_model(name)


def find_adapter(name: str | Path) -> Path:
    """The folder of an adapter: "zh" or "chat", the embedded ones for `mini`, or a path.

    A folder of that name is "./zh". Raises LessonkitError where there is no such folder.
    """
    if name in ADAPTERS:
        return verified_folder(f"adapters/{name}")
    folder = Path(name).expanduser()
    if not folder.is_dir():
        raise LessonkitError(
            "There is no such folder.",
            where=folder,
            remedy=f"Check the spelling. The embedded adapters are {' and '.join(ADAPTERS)}.",
        )
    return folder


def _looks_like_a_path(name: str) -> bool:
    """`data/mini` has the form of a Hub id; where a folder `data` is at hand it is a path."""
    return Path(name).parent.is_dir()
