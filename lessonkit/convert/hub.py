"""Fetch a model from the Hugging Face Hub, or a mirror of it: whole, or not at all.

The files come into a hidden folder beside the output, `.NAME.download-COMMIT`. A run that
breaks off leaves them there, the unfinished one too, and the next run goes on where it
stopped. Only when every file has the size and the hash that the Hub promised do they move to
their place.
"""

from __future__ import annotations

import os
import shutil
import sys
from collections.abc import Iterable, Iterator
from contextlib import contextmanager
from dataclasses import dataclass
from fnmatch import fnmatch
from pathlib import Path
from typing import Any

from lessonkit.errors import LessonkitError
from lessonkit.files.atomic import atomic_folder, check_space
from lessonkit.files.integrity import GIT_BLOB, Report, file_digest, inner_name, verify

_SMALL = (
    "config.json", "generation_config.json", "tokenizer.model", "tokenizer.json",
    "tokenizer_config.json", "special_tokens_map.json", "added_tokens.json",
    "chat_template.jinja", "LICENSE*", "USE_POLICY*", "README.md",
)  # fmt: skip
# The first kind that is there is taken; the others hold the same weights again.
_WEIGHTS = (
    ("model.safetensors", "model.safetensors.index.json", "model-*-of-*.safetensors"),
    ("pytorch_model.bin", "pytorch_model.bin.index.json", "pytorch_model-*-of-*.bin"),
    ("consolidated.*.pth", "params.json", "checklist.chk"),
    ("adapter_model.safetensors", "adapter_config.json"),
    ("adapter_model.bin", "adapter_config.json"),
    ("*.gguf",),
)


@dataclass(frozen=True)
class HubFiles:
    """The files of one commit: sizes in bytes, and digests as `integrity.verify` reads them."""

    commit: str
    sizes: dict[str, int]
    digests: dict[str, str]


def needed_files(names: Iterable[str]) -> list[str]:
    """Of a repository's files, those that using or converting the model needs."""
    top = sorted(name for name in names if "/" not in name)
    small = [name for name in top if any(fnmatch(name, pattern) for pattern in _SMALL)]
    for patterns in _WEIGHTS:
        weights = [name for name in top if any(fnmatch(name, pattern) for pattern in patterns)]
        if any(name.endswith((".safetensors", ".bin", ".pth", ".gguf")) for name in weights):
            return small + [name for name in weights if name not in small]
    return []


def list_files(
    repository: str, *, revision: str | None = None, endpoint: str | None = None
) -> HubFiles:
    """Ask the Hub for the files of a repository, with their sizes and hashes.

    Large files have a SHA-256, small ones the SHA-1 that git gives them.
    """
    from huggingface_hub import HfApi

    with told_plainly(repository, revision, endpoint):
        info = HfApi(endpoint=endpoint).model_info(
            repository, revision=revision, files_metadata=True, timeout=30
        )
    sizes, digests = {}, {}
    for file in info.siblings or []:
        name = inner_name(file.rfilename, where=f"the file list of {repository}")
        if file.size is None or not (file.lfs or file.blob_id):
            raise LessonkitError(
                f"The server gives no size or hash for {name}, so it could not be checked.",
                where=repository,
                remedy="Use the Hub itself, or a mirror that passes its file list on.",
            )
        sizes[name] = file.size
        digests[name] = file.lfs.sha256 if file.lfs else f"{GIT_BLOB}:{file.blob_id}"
    return HubFiles(info.sha or revision or "main", sizes, digests)


def fetch(
    repository: str,
    out: str | os.PathLike[str],
    *,
    revision: str | None = None,
    endpoint: str | None = None,
    force: bool = False,
) -> Report:
    """Download what is needed of a model into the folder `out`, and check every file.

    `revision` is a commit, tag or branch; `endpoint` the address of a mirror (by default
    `HF_ENDPOINT`, else the Hub). The free space is checked first. Beside the files a
    `SHA256SUMS` is written, so that `verify` can repeat the check without a network.
    """
    out = Path(out)
    listing = list_files(repository, revision=revision, endpoint=endpoint)
    names = needed_files(listing.sizes)
    if not names:
        raise LessonkitError(
            "The repository holds no weights that are known here.",
            where=repository,
            remedy="Name a model's repository (safetensors, .bin, Meta's .pth, or GGUF).",
        )
    unfinished = out.absolute().parent / f".{out.name}.download-{listing.commit[:12]}"
    with atomic_folder(out, force=force) as folder:
        present = sum(path.stat().st_size for path in unfinished.rglob("*") if path.is_file())
        check_space(out, sum(listing.sizes[name] for name in names) - present)
        with told_plainly(repository, revision, endpoint), _bars():
            for name in names:
                _download(repository, name, unfinished, listing, endpoint)
        report = _checked(unfinished, listing, names)
        sums = "".join(f"{_sha256(unfinished / name, listing)}  {name}\n" for name in names)
        for name in names:
            (unfinished / name).rename(folder / name)
        (folder / "SHA256SUMS").write_text(sums, encoding="utf-8")
    shutil.rmtree(unfinished)
    return report


def _download(
    repository: str, name: str, folder: Path, listing: HubFiles, endpoint: str | None
) -> None:
    """Fetch one file; what an earlier run left of it is kept and continued."""
    from huggingface_hub import hf_hub_url
    from huggingface_hub.file_download import http_get
    from huggingface_hub.utils import build_hf_headers  # type: ignore[attr-defined]

    size, done, part = listing.sizes[name], folder / name, folder / f"{name}.incomplete"
    if done.is_file() and done.stat().st_size == size:
        return
    folder.mkdir(parents=True, exist_ok=True)
    if part.is_file() and part.stat().st_size > size:
        part.unlink()
    # huggingface_hub's own snapshot_download deletes what it has when it is interrupted
    # (2.4), so 13 GB would start again; the function below it can continue.
    with part.open("ab") as file:
        http_get(
            hf_hub_url(repository, name, revision=listing.commit, endpoint=endpoint),
            file,
            resume_size=file.tell(),
            headers=build_hf_headers(),
            expected_size=size,
        )
    part.rename(done)


def _sha256(path: Path, listing: HubFiles) -> str:
    """The SHA-256 of a checked file: the Hub knows it for large ones."""
    known = listing.digests[path.name]
    return file_digest(path) if known.startswith(GIT_BLOB) else known


def _checked(folder: Path, listing: HubFiles, names: list[str]) -> Report:
    """The report on all files; wrong ones are deleted, so that a rerun fetches them again."""
    report = verify(folder, {name: listing.digests[name] for name in names}, listing.sizes)
    if not report.ok:
        for finding in report.problems:
            (folder / finding.name).unlink(missing_ok=True)
        raise LessonkitError(
            "The download is not what the Hub promised: "
            + "; ".join(f"{finding.name} is {finding.verdict}" for finding in report.problems)
            + ".",
            where=report.problems[0].detail,
            remedy="Run the command again: only these files are fetched again. If it repeats, "
            "the mirror or a proxy alters them.",
        )
    return report


@contextmanager
def _bars() -> Iterator[None]:
    """Progress bars in a terminal only."""
    from huggingface_hub.utils.tqdm import (
        are_progress_bars_disabled,
        disable_progress_bars,
        enable_progress_bars,
    )

    if sys.stderr.isatty() or are_progress_bars_disabled():
        yield
        return
    disable_progress_bars()
    try:
        yield
    finally:
        enable_progress_bars()


@contextmanager
def told_plainly(repository: str, revision: str | None, endpoint: str | None) -> Iterator[None]:
    """Turn the errors of huggingface_hub into ours: what is wrong, where, what to do."""
    from huggingface_hub import constants, errors

    where = f"{repository}, revision {revision or 'main'}, at {endpoint or constants.ENDPOINT}"
    # The base class of its HTTP library's errors, whichever library that is.
    http_error: Any = getattr(errors, "HTTPError", OSError)
    try:
        yield
    except errors.GatedRepoError as error:
        what = "The model is gated: its owner asks you to accept terms first."
        remedy = "Accept them on the model's page, then log in once: hf auth login."
        raise LessonkitError(what, where=where, remedy=remedy) from error
    except errors.RevisionNotFoundError as error:
        what = f"The repository has no revision {revision!r}."
        remedy = "Look at the list of commits on its page, or leave the revision out."
        raise LessonkitError(what, where=where, remedy=remedy) from error
    except errors.RepositoryNotFoundError as error:
        what = "There is no such public repository."
        remedy = "Check the spelling (owner/name). For a private one, log in: hf auth login."
        raise LessonkitError(what, where=where, remedy=remedy) from error
    except errors.HFValidationError as error:
        what = f"{repository!r} cannot be a repository's name."
        raise LessonkitError(what, where=where, remedy="A name is owner/name.") from error
    except errors.OfflineModeIsEnabled as error:
        what = "The network is forbidden by HF_HUB_OFFLINE."
        raise LessonkitError(what, where=where, remedy="Unset HF_HUB_OFFLINE.") from error
    except (http_error, ConnectionError, TimeoutError) as error:
        what = f"The server could not be reached, or broke off: {type(error).__name__}."
        remedy = (
            "Run the command again: it continues where it stopped. Where the Hub is out of "
            "reach, name a mirror: --endpoint URL, or the variable HF_ENDPOINT."
        )
        raise LessonkitError(what, where=where, remedy=remedy) from error
    except OSError as error:
        if "Consistency check failed" not in str(error):
            raise
        what = "The server sent fewer bytes than it had announced."
        remedy = "Run the command again: it continues where it stopped."
        raise LessonkitError(what, where=where, remedy=remedy) from error
