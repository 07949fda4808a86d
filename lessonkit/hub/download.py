"""Fetch a model from the Hugging Face Hub, or a mirror of it: whole, or not at all.

The files come into a hidden folder beside the output, `.NAME.download-COMMIT`. A run that
breaks off leaves them there, the unfinished one too, and the next run goes on where it
stopped. Only when every file has the size and the hash that the Hub promised do they move to
their place.
"""

from __future__ import annotations

import glob
import os
import shutil
from pathlib import Path

from lessonkit.errors import LessonkitError
from lessonkit.files.atomic import atomic_folder, check_space, sync
from lessonkit.files.integrity import GIT_BLOB, Report, file_digest, verify
from lessonkit.hub.access import (
    HubFiles,
    endpoint_in_use,
    hub_bars,
    list_files,
    told_plainly,
)
from lessonkit.progress import bars_wanted

_AGAIN = "Run it again: a broken download continues where it stopped. (--endpoint names a mirror.)"


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
    endpoint = endpoint_in_use(endpoint)
    with told_plainly(repository, revision, endpoint, again=_AGAIN):
        listing = list_files(repository, revision=revision, endpoint=endpoint)
    names = list(listing.sizes)
    unfinished = out.absolute().parent / f".{out.name}.download-{listing.commit[:12]}"
    with atomic_folder(out, force=force) as folder:
        present = sum(path.stat().st_size for path in unfinished.rglob("*") if path.is_file())
        check_space(out, sum(listing.sizes.values()) - present)
        with (
            told_plainly(repository, revision, endpoint, again=_AGAIN),
            hub_bars(bars_wanted(large=True)),
        ):
            for name in names:
                _download(repository, name, unfinished, listing, endpoint)
        report = _checked(unfinished, listing)
        sums = "".join(f"{_sha256(unfinished / name, listing)}  {name}\n" for name in names)
        for name in names:
            (unfinished / name).rename(folder / name)
        (folder / "SHA256SUMS").write_text(sums, encoding="utf-8")
    for leftover in out.absolute().parent.glob(f".{glob.escape(out.name)}.download-*"):
        shutil.rmtree(leftover)  # this one, and those of older commits
    return report


def _download(repository: str, name: str, folder: Path, listing: HubFiles, endpoint: str) -> None:
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
    # huggingface_hub's own snapshot_download deletes an unfinished file when it is interrupted
    # (2.4), so that a shard of 5 GB would start again; the function below it can continue.
    with part.open("ab") as file:
        http_get(
            hf_hub_url(repository, name, revision=listing.commit, endpoint=endpoint),
            file,
            resume_size=file.tell(),
            headers=build_hf_headers(),
            expected_size=size,
        )
    sync(part)  # now, so that nothing large is left to do between here and the end
    part.rename(done)


def _sha256(path: Path, listing: HubFiles) -> str:
    """The SHA-256 of a checked file: the Hub knows it for large ones."""
    known = listing.digests[path.name]
    return file_digest(path) if known.startswith(GIT_BLOB) else known


def _checked(folder: Path, listing: HubFiles) -> Report:
    """The report on all files; wrong ones are deleted, so that a rerun fetches them again."""
    report = verify(folder, listing.digests, listing.sizes)
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
