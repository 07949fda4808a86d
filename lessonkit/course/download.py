"""A model from the Hugging Face Hub, or from a mirror of it, as a local folder.

Only the files that a Llama needs are fetched. They land in the Hub's usual cache, so other
programs share them and a second call needs no network. `HF_ENDPOINT` names a mirror,
`HF_HUB_OFFLINE=1` forbids the network; both are read at each call, so that setting them in a
notebook works although huggingface_hub reads them at its import.
"""

from __future__ import annotations

import os
import shutil
from collections.abc import Iterator
from contextlib import contextmanager
from fnmatch import fnmatch
from pathlib import Path
from typing import Any

from lessonkit.errors import LessonkitError
from lessonkit.evaluate.progress import bars_wanted
from lessonkit.files.checkpoint import open_checkpoint

PINNED = {"TinyLlama/TinyLlama-1.1B-Chat-v1.0": "fe8a4ea1ffedaf415f4da2f062534de366a451e6"}
"""Revisions that the course was made with, so that a change on the Hub changes no number."""

_SMALL_FILES = (
    "config.json",
    "generation_config.json",
    "tokenizer.model",
    "tokenizer.json",
    "tokenizer_config.json",
    "special_tokens_map.json",
    "added_tokens.json",
    "chat_template.jinja",
)
_SAFETENSORS = ("model.safetensors", "model.safetensors.index.json", "model-*-of-*.safetensors")
_PYTORCH = ("pytorch_model.bin", "pytorch_model.bin.index.json", "pytorch_model-*-of-*.bin")
_DEFAULT_ENDPOINT = "https://huggingface.co"
_FOLDER_HELP = "or fetch the model elsewhere and give its local folder as the model's name"


def download(repository: str, revision: str | None = None) -> Path:
    """The local folder of a Hub repository such as "owner/name", downloaded where needed.

    Parameters
    ----------
    repository:
        The Hub id.
    revision:
        A commit, tag or branch. By default the one that the course pins, else "main".

    Raises
    ------
    LessonkitError
        The Hub cannot be reached and the cache does not hold the model; no such repository or
        revision; the repository is gated; the disk has too little room.
    """
    revision = revision or PINNED.get(repository, "main")
    # A commit never changes: what the cache holds of it is right without asking the Hub.
    if _is_commit(revision) or _offline():
        cached = _from_cache(repository, revision)
        if cached is not None:
            return cached
    with _told_plainly(repository, revision), _bars():
        return _fetch(repository, revision)


def needed_files(names: list[str]) -> list[str]:
    """Of a repository's files, those that loading a Llama needs: safetensors before `.bin`."""
    weights = _matching(names, _SAFETENSORS) or _matching(names, _PYTORCH)
    return _matching(names, _SMALL_FILES) + weights


def _matching(names: list[str], patterns: tuple[str, ...]) -> list[str]:
    return [name for name in names if any(fnmatch(name, pattern) for pattern in patterns)]


def _is_commit(revision: str) -> bool:
    return len(revision) == 40 and all(c in "0123456789abcdef" for c in revision)


def _offline() -> bool:
    from huggingface_hub import constants

    asked = os.environ.get("HF_HUB_OFFLINE", "").upper() in ("1", "ON", "YES", "TRUE")
    return asked or constants.HF_HUB_OFFLINE


def _endpoint() -> str:
    return os.environ.get("HF_ENDPOINT", "").rstrip("/") or _DEFAULT_ENDPOINT


def _from_cache(repository: str, revision: str) -> Path | None:
    """The model's folder in the Hub's cache, or None unless it is there and complete."""
    from huggingface_hub import snapshot_download

    try:
        folder = Path(snapshot_download(repository, revision=revision, local_files_only=True,
                                        allow_patterns=list(_SMALL_FILES)))  # fmt: skip
    except (OSError, ValueError):
        return None
    return folder if _complete(folder) else None


def _complete(folder: Path) -> bool:
    """Configuration, tokenizer and every shard: an interrupted download lacks some of them."""
    tokenizer = any((folder / name).is_file() for name in ("tokenizer.model", "tokenizer.json"))
    if not tokenizer or not (folder / "config.json").is_file():
        return False
    try:
        open_checkpoint(folder)
    except LessonkitError:
        return False
    return True


def _fetch(repository: str, revision: str) -> Path:
    from huggingface_hub import HfApi, snapshot_download

    if _offline():
        raise LessonkitError(
            f"The model {repository} is not in the cache, and HF_HUB_OFFLINE forbids the network.",
            where=f"{repository}, revision {revision}",
            remedy=f"Unset HF_HUB_OFFLINE for one run, {_FOLDER_HELP}.",
        )
    endpoint = _endpoint()
    info = HfApi(endpoint=endpoint).model_info(
        repository, revision=revision, files_metadata=True, timeout=30
    )
    sizes = {file.rfilename: file.size or 0 for file in info.siblings or []}
    files = needed_files(list(sizes))
    _require_disk(repository, sum(sizes[name] for name in files))
    folder = snapshot_download(
        repository, revision=revision, allow_patterns=files, endpoint=endpoint
    )
    return Path(folder)


def _require_disk(repository: str, needed: int) -> None:
    """Raise unless the disk that holds the Hub's cache has room for `needed` bytes."""
    from huggingface_hub import constants

    cache = Path(constants.HF_HUB_CACHE).expanduser()
    existing = next(folder for folder in (cache, *cache.parents) if folder.exists())
    free = shutil.disk_usage(existing).free
    if free < needed:
        raise LessonkitError(
            f"The download of {repository} takes {needed / 1e9:.2f} GB, "
            f"but the disk has only {free / 1e9:.2f} GB free.",
            where=cache,
            remedy="Free some room, or set HF_HOME to a folder on a larger disk and restart.",
        )


@contextmanager
def _bars() -> Iterator[None]:
    """huggingface_hub's own bars where bars are wanted, else silence."""
    from huggingface_hub.utils.tqdm import (
        are_progress_bars_disabled,
        disable_progress_bars,
        enable_progress_bars,
    )

    if bars_wanted(large=True) or are_progress_bars_disabled():
        yield
        return
    disable_progress_bars()
    try:
        yield
    finally:
        enable_progress_bars()


@contextmanager
def _told_plainly(repository: str, revision: str) -> Iterator[None]:
    """Turn huggingface_hub's errors into ours."""
    from huggingface_hub import errors

    where = f"{repository}, revision {revision}, at {_endpoint()}"
    # Connection failures come from the HTTP library that huggingface_hub uses at present;
    # its errors module holds that library's base class.
    http_error: Any = getattr(errors, "HTTPError", OSError)
    try:
        yield
    except errors.GatedRepoError as error:
        raise LessonkitError(
            f"The model {repository} is gated: its owner asks you to accept terms first.",
            where=where,
            remedy="Accept them on the model's page, then log in once with `hf auth login`, "
            + _FOLDER_HELP + ".",
        ) from error  # fmt: skip
    except errors.RevisionNotFoundError as error:
        raise LessonkitError(
            f"The model {repository} has no revision {revision!r}.",
            where=where,
            remedy="Look at the model's list of commits, or leave the revision out.",
        ) from error
    except errors.RepositoryNotFoundError as error:
        raise LessonkitError(
            f"The Hub has no public model {repository!r}.",
            where=where,
            remedy="Check the spelling (owner/name). For a private model, `hf auth login` first.",
        ) from error
    except errors.HFValidationError as error:
        raise LessonkitError(
            f"{repository!r} cannot be a Hub id.", where=where, remedy="An id is owner/name."
        ) from error
    except (OSError, http_error) as error:
        raise LessonkitError(
            f"The Hub could not be reached, or broke off: {type(error).__name__}.",
            where=where,
            remedy="Check the network and try again (a broken download continues). Where the Hub "
            "is out of reach, set HF_HUB_OFFLINE=1 to use what was downloaded before, set "
            f"HF_ENDPOINT to the address of a mirror, {_FOLDER_HELP}.",
        ) from error
