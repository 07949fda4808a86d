"""A model from the Hugging Face Hub, or from a mirror of it, as a local folder.

Only the files that a Llama needs are fetched. They land in the Hub's usual cache, so other
programs share them and a second call needs no network. (`lessonkit.hub.download.fetch` makes a
folder of its own instead, and checks every hash.)
"""

from __future__ import annotations

from pathlib import Path

from lessonkit.errors import LessonkitError
from lessonkit.files.atomic import check_space
from lessonkit.files.checkpoint import open_checkpoint
from lessonkit.hub.access import (
    endpoint_in_use,
    hub_bars,
    is_offline,
    list_files,
    told_plainly,
)
from lessonkit.hub.companions import COMPANIONS
from lessonkit.progress import bars_wanted

PINNED = {"TinyLlama/TinyLlama-1.1B-Chat-v1.0": "fe8a4ea1ffedaf415f4da2f062534de366a451e6"}
"""Revisions that the course was made with, so that a change on the Hub changes no number."""

FORMS = ("safetensors", "pytorch")  # those that transformers loads


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
    if _is_commit(revision) or is_offline():
        cached = _from_cache(repository, revision)
        if cached is not None:
            return cached
    if is_offline():
        raise LessonkitError(
            f"The model {repository} is not in the cache, and HF_HUB_OFFLINE forbids the network.",
            where=f"{repository}, revision {revision}",
            remedy="Unset HF_HUB_OFFLINE for one run, or fetch the model elsewhere and name its "
            "local folder.",
        )
    again = (
        "Run it again: files that are complete are kept, the others begin anew (`lessonkit fetch` "
        "continues within a file). HF_HUB_OFFLINE=1 uses what was downloaded before."
    )
    with told_plainly(repository, revision, again=again), hub_bars(bars_wanted(large=True)):
        return _fetch(repository, revision)


def _is_commit(revision: str) -> bool:
    return len(revision) == 40 and all(c in "0123456789abcdef" for c in revision)


def _from_cache(repository: str, revision: str) -> Path | None:
    """The model's folder in the Hub's cache, or None unless it is there and complete."""
    from huggingface_hub import snapshot_download

    try:
        folder = Path(
            snapshot_download(
                repository, revision=revision, local_files_only=True,
                allow_patterns=list(COMPANIONS),
            )
        )  # fmt: skip
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
    from huggingface_hub import constants, snapshot_download

    listing = list_files(repository, revision=revision, forms=FORMS)
    cache = Path(constants.HF_HUB_CACHE).expanduser()
    other_disk = "set HF_HOME to a folder on a larger disk and restart"
    check_space(cache, sum(listing.sizes.values()), remedy=other_disk)
    folder = snapshot_download(
        repository,
        revision=revision,
        allow_patterns=list(listing.sizes),
        endpoint=endpoint_in_use(),
    )
    return Path(folder)
