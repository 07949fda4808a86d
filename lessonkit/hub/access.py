"""Asking the Hugging Face Hub, or a mirror of it: which files are there, and which are needed?

`HF_ENDPOINT` names a mirror, `HF_HUB_OFFLINE=1` forbids the network; both are read at each
call, so that setting them in a notebook works although huggingface_hub reads them at its import.
"""

from __future__ import annotations

import os
import re
from collections.abc import Iterable, Iterator, Sequence
from contextlib import contextmanager
from dataclasses import dataclass
from fnmatch import fnmatch
from typing import Any, NoReturn

from lessonkit.errors import LessonkitError
from lessonkit.files.atomic import CERTIFICATE_NAME
from lessonkit.files.integrity import GIT_BLOB, inner_name
from lessonkit.hub.companions import companions_among

_DEFAULT_ENDPOINT = "https://huggingface.co"
# The first form that is there is taken; the others hold the same weights again.
FORMS = {
    "safetensors":
        ("model.safetensors", "model.safetensors.index.json", "model-*-of-*.safetensors"),
    "pytorch": ("pytorch_model.bin", "pytorch_model.bin.index.json", "pytorch_model-*-of-*.bin"),
    "meta": ("consolidated.*.pth", "params.json", "checklist.chk", "tokenizer_checklist.chk"),
    "adapter": ("adapter_model.safetensors", "adapter_model.bin", "adapter_config.json"),
    "gguf": ("*.gguf",),
}  # fmt: skip
_WEIGHTS = (".safetensors", ".bin", ".pth", ".gguf")
_PART = re.compile(r"-\d{5}-of-\d{5}(?=\.gguf$)")


@dataclass(frozen=True)
class HubFiles:
    """The needed files of one commit: sizes in bytes, digests as `integrity.verify` reads them."""

    commit: str
    sizes: dict[str, int]
    digests: dict[str, str]


def needed_files(names: Iterable[str], forms: Sequence[str] = tuple(FORMS)) -> list[str]:
    """Of a repository's files, those that using or converting the model needs.

    `forms` are the forms of weights that are welcome, the best first. Empty: there are none.
    """
    top = sorted(name for name in names if "/" not in name)
    certificates = [n for n in top if n == CERTIFICATE_NAME or n.endswith(".certificate.json")]
    small = companions_among(top) + certificates
    for form in forms:
        weights = _matching(top, FORMS[form])
        if any(name.endswith(_WEIGHTS) for name in weights):
            return small + [name for name in weights if name not in small]
    return []


def list_files(
    repository: str,
    *,
    revision: str | None = None,
    endpoint: str | None = None,
    forms: Sequence[str] = tuple(FORMS),
) -> HubFiles:
    """Ask the Hub for the needed files of a repository, with their sizes and hashes.

    Large files have a SHA-256, small ones the SHA-1 that git gives them.
    """
    from huggingface_hub import HfApi

    if is_offline():
        raise LessonkitError(
            "The network is forbidden by HF_HUB_OFFLINE.",
            where=repository,
            remedy="Unset HF_HUB_OFFLINE for one run.",
        )
    info = HfApi(endpoint=endpoint_in_use(endpoint)).model_info(
        repository, revision=revision, files_metadata=True, timeout=30
    )
    files = {
        inner_name(file.rfilename, where=f"the file list of {repository}"): file
        for file in info.siblings or []
    }
    needed = needed_files(files, forms)
    _require_one_model(needed, repository)
    for name in needed:
        if files[name].size is None or not (files[name].lfs or files[name].blob_id):
            raise LessonkitError(
                f"The server gives no size or hash for {name}, so it could not be checked.",
                where=repository,
                remedy="Use the Hub itself, or a mirror that passes its file list on.",
            )
    return HubFiles(
        commit=info.sha or revision or "main",
        sizes={name: files[name].size or 0 for name in needed},
        digests={name: _digest(files[name]) for name in needed},
    )


def endpoint_in_use(endpoint: str | None = None) -> str:
    """The server's address: as given, else `HF_ENDPOINT`, else the Hub's own."""
    return (endpoint or os.environ.get("HF_ENDPOINT", "")).rstrip("/") or _DEFAULT_ENDPOINT


def is_offline() -> bool:
    """Does `HF_HUB_OFFLINE` forbid the network, now or when huggingface_hub was imported?"""
    from huggingface_hub import constants

    asked = os.environ.get("HF_HUB_OFFLINE", "").upper() in ("1", "ON", "YES", "TRUE")
    return asked or constants.HF_HUB_OFFLINE


@contextmanager
def hub_bars(show: bool) -> Iterator[None]:
    """huggingface_hub's own progress bars, or none."""
    from huggingface_hub.utils.tqdm import (
        are_progress_bars_disabled,
        disable_progress_bars,
        enable_progress_bars,
    )

    if show or are_progress_bars_disabled():
        yield
        return
    disable_progress_bars()
    try:
        yield
    finally:
        enable_progress_bars()


@contextmanager
def told_plainly(
    repository: str, revision: str | None, endpoint: str | None = None, *, again: str
) -> Iterator[None]:
    """Turn the errors of huggingface_hub into ours: what is wrong, where, what to do.

    `again` says what running the same once more will do after a connection broke.
    """
    from huggingface_hub import errors

    where = f"{repository}, revision {revision or 'main'}, at {endpoint_in_use(endpoint)}"
    elsewhere = "fetch the model elsewhere and name its local folder"

    def refuse(what: str, remedy: str, error: Exception) -> NoReturn:
        raise LessonkitError(what, where=where, remedy=remedy) from error

    # The base class of its HTTP library's errors, whichever library that is.
    http_error: Any = getattr(errors, "HTTPError", OSError)
    try:
        yield
    except errors.GatedRepoError as error:
        refuse(
            f"The model {repository} is gated: its owner asks you to accept terms first.",
            f"Accept them on the model's page, then log in once (hf auth login); or {elsewhere}.",
            error,
        )
    except errors.RevisionNotFoundError as error:
        refuse(
            f"The model {repository} has no revision {revision!r}.",
            "Look at the model's list of commits, or leave the revision out.",
            error,
        )
    except errors.RepositoryNotFoundError as error:
        refuse(
            f"There is no public model {repository!r}.",
            "Check the spelling (owner/name). For a private model, log in first: hf auth login.",
            error,
        )
    except errors.HFValidationError as error:
        refuse(f"{repository!r} cannot be a Hub id.", "An id is owner/name.", error)
    except errors.HfHubHTTPError as error:
        status = getattr(getattr(error, "response", None), "status_code", "no reason given")
        refuse(
            f"The server refused: {status}.",
            "Wait a little and run it again (429 and 5xx pass); ask whether the mirror is up to "
            f"date with the Hub (404); or {elsewhere}.",
            error,
        )
    except (http_error, OSError) as error:
        if _is_local(error):
            refuse(f"The download cannot be written: {error}.", "Free some space.", error)
        short = "Consistency check failed" in str(error)
        refuse(
            "The server sent fewer bytes than it had announced."
            if short
            else f"The server could not be reached, or broke off: {type(error).__name__}.",
            f"{again} Where the Hub is out of reach, set the variable HF_ENDPOINT to a mirror's "
            f"address, or {elsewhere}.",
            error,
        )


def _is_local(error: Exception) -> bool:
    """A disk's error has a number; so has a connection's, but that is another class."""
    network = isinstance(error, ConnectionError | TimeoutError)
    return isinstance(error, OSError) and error.errno is not None and not network


def _matching(names: list[str], patterns: Sequence[str]) -> list[str]:
    return [name for name in names if any(fnmatch(name, pattern) for pattern in patterns)]


def _digest(file: Any) -> str:
    return file.lfs.sha256 if file.lfs else f"{GIT_BLOB}:{file.blob_id}"


def _require_one_model(needed: list[str], repository: str) -> None:
    if not needed:
        raise LessonkitError(
            "The repository holds no weights that are known here.",
            where=repository,
            remedy="Name a model's repository (safetensors, .bin, Meta's .pth, or GGUF).",
        )
    gguf = sorted({_PART.sub("", name) for name in needed if name.endswith(".gguf")})
    if len(gguf) > 1:
        raise LessonkitError(
            f"The repository holds {len(gguf)} models in one place: {', '.join(gguf[:3])} ...",
            where=repository,
            remedy=f"Fetch one of them alone: hf download {repository} {gguf[0]}.",
        )
