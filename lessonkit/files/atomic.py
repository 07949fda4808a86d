"""All or nothing: output appears under its name only when it is complete and on the disk.

Everything is written in a hidden sibling, `.NAME.partial-XXXX`, synced, and renamed at the
end. If the run is interrupted, even by a power cut, nothing stands under the final name, and
the next run removes what was left behind.
"""

from __future__ import annotations

import glob
import os
import shutil
import sys
import tempfile
from collections.abc import Iterable, Iterator
from contextlib import contextmanager, suppress
from pathlib import Path
from typing import BinaryIO

from lessonkit.errors import LessonkitError

CERTIFICATE_NAME = "lessonkit-certificate.json"
"""What every conversion leaves in its output (see `files.certificate`); it marks it as ours."""


@contextmanager
def atomic_folder(
    out: str | os.PathLike[str],
    *,
    force: bool = False,
    protect: Iterable[str | os.PathLike[str]] = (),
) -> Iterator[Path]:
    """Yield a folder to write into; it becomes `out` when the block ends without an error.

    An `out` that exists (other than as an empty folder) is refused, or replaced as a whole
    with `force`, provided that lessonkit wrote it: anything else is refused, and what would have
    been lost is named. `protect` names the sources: they, and folders that hold them, are never
    replaced. Every file written is synced before the rename.
    """
    out, protect = Path(out), tuple(protect)
    check_target(out, force=force, protect=protect)
    with _workspace(out) as workspace:
        new = workspace / "new"
        new.mkdir()
        yield new
        for folder, _, files in os.walk(new, topdown=False):
            for name in files:
                sync(Path(folder) / name)
            sync(Path(folder))
        check_target(out, force=force, protect=protect)  # it may have come meanwhile
        _put_in_place(new, out, workspace)


@contextmanager
def atomic_file(
    out: str | os.PathLike[str],
    *,
    magic: bytes,
    force: bool = False,
    protect: Iterable[str | os.PathLike[str]] = (),
) -> Iterator[BinaryIO]:
    """Yield an open binary file; it becomes `out` when the block ends without an error.

    `magic` are the first bytes of such a file: `force` replaces no file that begins otherwise.
    """
    out, protect = Path(out), tuple(protect)
    if out.is_dir():
        raise LessonkitError(
            "A file was to be written, but this is a folder.", where=out, remedy="Name a file."
        )
    check_target(out, force=force, protect=protect, magic=magic)
    with _workspace(out) as workspace:
        new = workspace / "new"
        with new.open("w+b") as file:
            yield file
        sync(new)
        check_target(out, force=force, protect=protect, magic=magic)  # it may have come meanwhile
        _put_in_place(new, out, workspace)


def check_space(
    folder: str | os.PathLike[str], needed: int, *, remedy: str = "write to another disk"
) -> None:
    """Refuse now what could not be finished: are `needed` bytes free where `folder` will be?

    `remedy` is what one can do beside freeing some space.
    """
    parent = Path(folder).absolute()
    while not parent.exists():
        parent = parent.parent
    free = shutil.disk_usage(parent).free
    if free < needed:
        raise LessonkitError(
            f"This takes {needed / 1e9:.2f} GB of disk; only {free / 1e9:.2f} GB are free.",
            where=folder,
            remedy=f"Free some space, or {remedy}.",
        )


def sync(path: str | os.PathLike[str]) -> None:
    """Wait until a file's (or folder's) content is on the disk, not only in memory."""
    if os.name == "nt" and Path(path).is_dir():
        return  # Windows cannot open a folder
    descriptor = os.open(path, os.O_RDWR if os.name == "nt" else os.O_RDONLY)
    try:
        os.fsync(descriptor)
    finally:
        os.close(descriptor)


def check_target(
    out: Path,
    *,
    force: bool,
    protect: Iterable[str | os.PathLike[str]],
    magic: bytes | None = None,
) -> None:
    """Refuse an output that exists, unless `force` may replace it; nothing foreign is lost.

    `atomic_folder` and `atomic_file` ask this first; who works for hours before, asks before.
    """
    if not out.exists() and not out.is_symlink():
        return
    if out.is_dir() and not any(out.iterdir()):
        return
    if not force:
        raise LessonkitError(
            "The output exists already; nothing was written.",
            where=out,
            remedy="Choose another name, or replace it: --force.",
        )
    final = out.resolve()
    for path in (*protect, Path.cwd(), Path.home()):
        if Path(path).resolve().is_relative_to(final):
            raise LessonkitError(
                f"Replacing this would delete {path}, which is needed.",
                where=out,
                remedy="Choose another name for the output.",
            )
    if lost := _not_ours(out, magic):
        shown = ", ".join(lost[:5]) + (f" and {len(lost) - 5} more" if len(lost) > 5 else "")
        raise LessonkitError(
            f"This was not written by lessonkit; replacing it would delete {shown}.",
            where=out,
            remedy="Choose another name for the output, or delete it yourself.",
        )


def _not_ours(out: Path, magic: bytes | None) -> list[str]:
    """The names of what a replacement would delete and lessonkit did not write.

    A folder is ours if it carries a certificate, or if `fetch` listed all that is in it in a
    SHA256SUMS; a file is ours if it begins as the one to be written does.
    """
    if out.is_symlink():  # what it leads to stays
        return []
    if not out.is_dir():
        if out.is_file() and magic is not None:
            with out.open("rb") as file:
                if file.read(len(magic)) == magic:
                    return []
        return [out.name]
    if magic is None and (out / CERTIFICATE_NAME).is_file():
        return []
    names = sorted(str(path.relative_to(out)) for path in out.rglob("*") if not path.is_dir())
    listed = {"SHA256SUMS"} if magic is None and (out / "SHA256SUMS").is_file() else set()
    if listed:
        lines = (out / "SHA256SUMS").read_text(encoding="utf-8", errors="replace").splitlines()
        listed |= {line.partition("  ")[2] for line in lines}
    return [name for name in names if name not in listed]


@contextmanager
def _workspace(out: Path) -> Iterator[Path]:
    """A hidden sibling of `out` that is locked while in use and removed afterwards."""
    parent = out.absolute().parent
    prefix = f".{out.name}.partial-"
    try:
        parent.mkdir(parents=True, exist_ok=True)
        with _one_at_a_time(parent):
            if _remove_leftovers(parent, prefix):
                raise LessonkitError(
                    "Another run is writing this output at this moment.",
                    where=out,
                    remedy="Wait until it has ended, or choose another name.",
                )
            workspace, lock = _claim(parent, prefix)
    except OSError as error:
        raise LessonkitError(
            f"The output cannot be written here: {error.strerror}.",
            where=out,
            remedy="Choose a folder that you may write to.",
        ) from error
    try:
        with lock:
            yield workspace
    except OSError as error:
        raise LessonkitError(
            f"Writing the output failed: {error.strerror or error}.",
            where=error.filename or out,
            remedy="Check the free space and the permissions; nothing was left behind.",
        ) from error
    finally:
        _remove(workspace)


def _claim(parent: Path, prefix: str) -> tuple[Path, BinaryIO]:
    """Make a workspace and lock it; another run may take it for a leftover before that."""
    while True:
        workspace = Path(tempfile.mkdtemp(prefix=prefix, dir=parent))
        with suppress(FileNotFoundError, BlockingIOError):
            lock = (workspace / "lock").open("wb")
            lock_file(lock)
            if (workspace / "lock").exists():
                return workspace, lock


def _remove_leftovers(parent: Path, prefix: str) -> bool:
    """Remove the workspaces of runs that were killed: nobody holds their lock any more.

    Returns whether there is one that is in use.
    """
    if sys.platform == "win32":
        return False
    in_use = False
    for leftover in parent.glob(f"{glob.escape(prefix)}*"):
        with suppress(OSError):  # in use, or not ours
            leftover.rmdir()  # killed while it tidied up, and empty but for its name
        with suppress(OSError), (leftover / "lock").open("r+b") as lock:
            try:
                lock_file(lock)
            except BlockingIOError:
                in_use = True
            else:
                _remove(leftover)
    return in_use


@contextmanager
def _one_at_a_time(folder: Path) -> Iterator[None]:
    """Hold the folder's own lock for this moment, where its file system has locks for folders."""
    if sys.platform == "win32":
        yield
        return
    import fcntl

    descriptor = os.open(folder, os.O_RDONLY)
    try:
        with suppress(OSError):
            fcntl.flock(descriptor, fcntl.LOCK_EX)
        yield
    finally:
        os.close(descriptor)


def _remove(workspace: Path) -> None:
    """Remove all but the lock first: a workspace without it would be taken for a stranger's."""
    with suppress(OSError):
        for path in workspace.iterdir():
            if path.is_dir() and not path.is_symlink():
                shutil.rmtree(path, ignore_errors=True)
            elif path.name != "lock":
                path.unlink()
    shutil.rmtree(workspace, ignore_errors=True)


def lock_file(file: BinaryIO) -> None:
    """Lock a file until it is closed or the process ends; BlockingIOError if another has done so.

    On Windows, nothing is locked.
    """
    if sys.platform != "win32":
        import fcntl

        fcntl.flock(file, fcntl.LOCK_EX | fcntl.LOCK_NB)


def _put_in_place(new: Path, out: Path, workspace: Path) -> None:
    """Rename; an old output goes into the workspace and disappears with it."""
    if out.is_symlink() or (out.exists() and not (out.is_dir() and not any(out.iterdir()))):
        os.rename(out, workspace / "old")
    os.rename(new, out)
    sync(out.absolute().parent)
