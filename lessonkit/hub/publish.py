"""Publish a model on the Hugging Face Hub: first what would go, file by file; then, if asked, it.

Nothing here reads, prints or stores a token: huggingface_hub finds it where `hf auth login` put it.
A folder that holds what looks like a secret, or a file that is not finished, is refused as a whole.
"""

from __future__ import annotations

import hashlib
import os
import re
from collections.abc import Iterator
from contextlib import contextmanager
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from lessonkit.errors import LessonkitError
from lessonkit.files.certificate import certificate_beside, certificate_of
from lessonkit.files.checkpoint import has_weights, open_checkpoint, read_json
from lessonkit.files.integrity import file_digest
from lessonkit.hub.access import endpoint_in_use, hub_bars, is_offline
from lessonkit.hub.card import RELATIONS, Facts, model_card
from lessonkit.hub.vetting import WEIGHTS, require_finished, require_no_secret
from lessonkit.progress import bars_wanted

CARD, SUMS = "README.md", "SHA256SUMS"
_PICKLES = (".bin", ".pth", ".pt", ".pkl")
_ID = re.compile(r"[\w][\w.-]*/[\w][\w.-]*", re.ASCII)


@dataclass(frozen=True)
class Item:
    """A file that will go: its name there, and where it comes from: a file here, or bytes."""

    name: str
    source: Path | bytes
    nbytes: int
    sha256: str


@dataclass(frozen=True)
class Parcel:
    """All that will go to `repository`: files, the card and SHA256SUMS among them. `left` stays."""

    repository: str
    items: tuple[Item, ...]
    left: tuple[str, ...]
    notes: tuple[str, ...]

    @property
    def nbytes(self) -> int:
        """The bytes of all files."""
        return sum(item.nbytes for item in self.items)

    @property
    def card(self) -> str:
        """The model card's text."""
        (text,) = (i.source for i in self.items if i.name == CARD and isinstance(i.source, bytes))
        return text.decode()

    def __str__(self) -> str:
        lines = [f"to {self.repository}: {len(self.items)} files, {self.nbytes:,} bytes"]
        lines += [f"  {i.nbytes:>15,}  {i.sha256[:12]}  {i.name}" for i in self.items]
        lines += [f"stays here: {name}" for name in self.left]
        return "\n".join([*lines, *(f"note: {note}" for note in self.notes)])


def prepare(path: str | os.PathLike[str], repository: str, facts: Facts | None = None) -> Parcel:
    """Say what would go to `repository`, with a model card; nothing is sent.

    `path` is a folder, or one GGUF file. Hidden files stay, and so does a README.md, which is most
    often that of the base: the new card takes its place.

    Raises
    ------
    LessonkitError
        No model, a repository's name that cannot be, or a file that looks secret or unfinished.
    """
    path, facts = Path(path), facts or Facts()
    _require_names(path, repository, facts)
    found = dict(_files_of(path))
    for name, file in found.items():
        require_finished(name, file)
        require_no_secret(name, file)
    if path.is_dir() and has_weights(path):
        open_checkpoint(path)  # or an error: a shard is missing
    going = {n: f for n, f in found.items() if not _is_hidden(n) and n not in (CARD, SUMS)}
    items = [_item(name, file) for name, file in going.items()]
    if not any(name.endswith(WEIGHTS) for name in going):
        raise LessonkitError(
            "There are no weights here.", where=path, remedy="Name a model's folder or file."
        )
    certificate = _certificate(path)
    listed = [(item.name, item.nbytes, item.sha256) for item in items]
    card = model_card(repository, _library(going), certificate, listed, facts)
    items.append(_item(CARD, card.encode()))
    sums = "".join(f"{item.sha256}  {item.name}\n" for item in items)
    items.append(_item(SUMS, sums.encode()))
    left = tuple(name for name in found if name not in going and name != SUMS)
    return Parcel(repository, tuple(items), left, tuple(_notes(going, certificate, facts)))


def publish(
    parcel: Parcel, *, public: bool = False, endpoint: str | None = None, force: bool = False
) -> str:
    """Send it, in one commit; returns the commit's address.

    The repository is made where it does not exist, private unless `public`. One that holds files
    already is refused, unless `force` adds to it and replaces what has the same name.
    """
    from huggingface_hub import CommitOperationAdd, HfApi

    if is_offline():
        raise LessonkitError(
            "The network is forbidden by HF_HUB_OFFLINE.",
            where=parcel.repository,
            remedy="Unset HF_HUB_OFFLINE for one run.",
        )
    endpoint = endpoint_in_use(endpoint)
    api = HfApi(endpoint=endpoint)
    with _told_plainly(parcel.repository, endpoint), hub_bars(bars_wanted(large=True)):
        api.create_repo(parcel.repository, private=not public, exist_ok=True)
        there = set(api.list_repo_files(parcel.repository)) - {".gitattributes"}
        if there and not force:
            raise LessonkitError(
                f"The repository holds {len(there)} files already; nothing was sent.",
                where=parcel.repository,
                remedy="Choose another name, or add to it and replace what has the same name: "
                "--force.",
            )
        operations = [
            CommitOperationAdd(path_in_repo=item.name, path_or_fileobj=item.source)
            for item in parcel.items
        ]
        commit = api.create_commit(
            parcel.repository, operations, commit_message="Model, certificate and card"
        )
    return str(commit.commit_url)


def _require_names(path: Path, repository: str, facts: Facts) -> None:
    if not path.exists():
        raise LessonkitError(
            "There is no such file or folder.", where=path, remedy="Check the spelling."
        )
    for name in (repository, *([facts.base] if facts.base else [])):
        if not _ID.fullmatch(name):
            raise LessonkitError(
                f"{name!r} cannot be a Hub id.", where=name, remedy="An id is owner/name."
            )
    if facts.relation is not None and facts.relation not in RELATIONS:
        raise LessonkitError(
            f"The Hub knows no relation {facts.relation!r}.",
            where="base_model_relation",
            remedy=f"Use one of {', '.join(RELATIONS)}.",
        )


def _files_of(path: Path) -> Iterator[tuple[str, Path]]:
    """All files with their names in the repository; of one GGUF file its certificate too."""
    if path.is_dir():
        for file in sorted(path.rglob("*")):
            if file.is_file():
                yield file.relative_to(path).as_posix(), file
        return
    yield path.name, path
    beside = certificate_beside(path)
    if beside.is_file():
        yield beside.name, beside


def _certificate(path: Path) -> dict[str, Any]:
    """The certificate: the folder's own, or that beside its only GGUF file; empty without one."""
    own = certificate_of(path) if path.is_dir() else None
    ggufs = list(path.glob("*.gguf")) if path.is_dir() else [path]
    if own is None and len(ggufs) == 1 and certificate_beside(ggufs[0]).is_file():
        own = certificate_beside(ggufs[0])
    return read_json(own) if own is not None else {}


def _is_hidden(name: str) -> bool:
    return any(part.startswith(".") or part == "__pycache__" for part in name.split("/"))


def _item(name: str, source: Path | bytes) -> Item:
    if isinstance(source, bytes):
        return Item(name, source, len(source), hashlib.sha256(source).hexdigest())
    return Item(name, source, source.stat().st_size, file_digest(source))


def _library(names: dict[str, Path]) -> str:
    """What loads it: the Hub's word."""
    if "adapter_config.json" in names:
        return "peft"
    return "gguf" if any(name.endswith(".gguf") for name in names) else "transformers"


def _notes(names: dict[str, Path], certificate: dict[str, Any], facts: Facts) -> Iterator[str]:
    if not certificate:
        yield "there is no certificate: nobody can tell what the tensors were made from"
    if not facts.base:
        yield "no base is named: the Hub will not show what this was made from (--base)"
    if not facts.licence:
        yield "no licence is named, so nobody may use it (--licence; the base's own binds you)"
    if any(name.endswith(_PICKLES) for name in names):
        yield "pickles can run code when they are loaded; safetensors cannot (lesson 03)"


@contextmanager
def _told_plainly(repository: str, endpoint: str) -> Iterator[None]:
    """Turn the errors of huggingface_hub into ours: what is wrong, where, what to do."""
    from huggingface_hub import errors

    try:
        yield
    except errors.LocalTokenNotFoundError as error:
        raise _refused("You are not logged in.", _LOG_IN, repository, endpoint) from error
    except errors.HfHubHTTPError as error:
        status = getattr(getattr(error, "response", None), "status_code", None)
        if status in (401, 403):
            what = "The server does not let you write there."
            remedy = f"Is the owner's name right? {_LOG_IN}"
            raise _refused(what, remedy, repository, endpoint) from error
        what, again = f"The server refused: {status}.", "Wait a little and run it again."
        raise _refused(what, again, repository, endpoint) from error
    except (getattr(errors, "HTTPError", OSError), OSError) as error:
        what = f"The server could not be reached, or broke off: {type(error).__name__}."
        again = "Run it again: nothing shows before the last file is there."
        raise _refused(what, again, repository, endpoint) from error


_LOG_IN = (
    "Log in once, in a terminal, with a token that may write: hf auth login. "
    "Never put a token into a notebook."
)


def _refused(what: str, remedy: str, repository: str, endpoint: str) -> LessonkitError:
    return LessonkitError(what, where=f"{repository}, at {endpoint}", remedy=remedy)
