"""All or nothing: what is written appears whole, and what was there is kept until then."""

from __future__ import annotations

import os
import shutil
import sys
import tempfile
from pathlib import Path
from typing import BinaryIO

import pytest

from lessonkit.errors import LessonkitError
from lessonkit.files import atomic
from lessonkit.files.atomic import CERTIFICATE_NAME, atomic_file, atomic_folder, check_space


def test_existing_output_needs_force(tmp_path: Path) -> None:
    out = tmp_path / "out"
    out.mkdir()  # an empty folder may be filled
    with atomic_folder(out) as folder:
        (folder / CERTIFICATE_NAME).write_text("1")
    with pytest.raises(LessonkitError, match="exists already"), atomic_folder(out):
        raise AssertionError
    with atomic_folder(out, force=True) as folder:
        (folder / CERTIFICATE_NAME).write_text("2")
        (folder / "g").write_text("2")
    assert {path.name for path in out.iterdir()} == {CERTIFICATE_NAME, "g"}
    with pytest.raises(ZeroDivisionError), atomic_folder(out, force=True) as folder:
        (folder / "h").write_text("3")
        _ = 1 // 0
    assert {path.name for path in out.iterdir()} == {CERTIFICATE_NAME, "g"}
    assert [path.name for path in tmp_path.iterdir()] == ["out"]


def test_force_replaces_only_what_lessonkit_wrote(tmp_path: Path) -> None:
    full = tmp_path / "full"
    (full / "deep").mkdir(parents=True)
    (full / "important.txt").write_text("mine")
    (full / "deep" / "more.txt").write_text("mine")
    with (
        pytest.raises(LessonkitError, match="delete deep/more.txt, important.txt"),
        atomic_folder(full, force=True),
    ):
        raise AssertionError
    plain = tmp_path / "plain"
    plain.write_text("mine")
    with (
        pytest.raises(LessonkitError, match="would delete plain"),
        atomic_folder(plain, force=True),
    ):
        raise AssertionError
    with (
        pytest.raises(LessonkitError, match="would delete plain"),
        atomic_file(plain, magic=b"GGUF", force=True),
    ):
        raise AssertionError
    assert (full / "important.txt").read_text() == plain.read_text() == "mine"


def test_what_fetch_listed_may_be_replaced_and_nothing_beside_it(tmp_path: Path) -> None:
    out = tmp_path / "out"
    out.mkdir()
    (out / "model.safetensors").write_text("w")
    (out / "SHA256SUMS").write_text("00  model.safetensors\n")
    (out / "notes.txt").write_text("mine")
    with pytest.raises(LessonkitError, match="delete notes.txt"), atomic_folder(out, force=True):
        raise AssertionError
    (out / "notes.txt").unlink()
    with atomic_folder(out, force=True) as folder:
        (folder / "new").write_text("2")
    assert [path.name for path in out.iterdir()] == ["new"]


def test_force_never_deletes_a_source(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    source = tmp_path / "models" / "llama"
    source.mkdir(parents=True)
    (source / "w").write_text("precious")
    (tmp_path / "link").symlink_to(tmp_path / "models")
    for out in (source, source.parent, tmp_path / "link"):
        with (
            pytest.raises(LessonkitError, match="would delete"),
            atomic_folder(out, force=True, protect=[source]),
        ):
            raise AssertionError
    monkeypatch.chdir(source)
    with pytest.raises(LessonkitError, match="would delete"), atomic_folder("..", force=True):
        raise AssertionError
    assert (source / "w").read_text() == "precious"


def test_single_files(tmp_path: Path) -> None:
    with atomic_file(tmp_path / "f", magic=b"") as file:
        file.write(b"1")
    with (
        pytest.raises(LessonkitError, match="exists already"),
        atomic_file(tmp_path / "f", magic=b""),
    ):
        raise AssertionError
    with atomic_file(tmp_path / "f", force=True, magic=b"") as file:
        file.write(b"2")
        assert (tmp_path / "f").read_bytes() == b"1"
    assert (tmp_path / "f").read_bytes() == b"2"
    with (
        pytest.raises(LessonkitError, match="is a folder"),
        atomic_file(tmp_path, force=True, magic=b""),
    ):
        raise AssertionError


def test_no_space_and_no_permission(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    check_space(tmp_path / "not" / "yet", 1)
    with pytest.raises(LessonkitError, match="only .* GB are free"):
        check_space(tmp_path / "not" / "yet", 1 << 60)
    (tmp_path / "file").write_bytes(b"")
    with (
        pytest.raises(LessonkitError, match="cannot be written here"),
        atomic_folder(tmp_path / "file" / "out"),
    ):
        raise AssertionError

    def full(_path: Path) -> None:
        raise OSError(28, "No space left on device")

    monkeypatch.setattr(atomic, "sync", full)
    with pytest.raises(LessonkitError, match="No space left"), atomic_folder(tmp_path / "out") as f:
        (f / "x").write_bytes(b"1")
    assert [path.name for path in tmp_path.iterdir()] == ["file"]


def test_the_content_is_on_the_disk_before_it_gets_its_name(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    events: list[str] = []
    rename = os.rename

    def noted_rename(old: Path, new: Path) -> None:
        events.append(f"rename {Path(new).name}")
        rename(old, new)

    monkeypatch.setattr(atomic, "sync", lambda path: events.append(f"sync {Path(path).name}"))
    monkeypatch.setattr(os, "rename", noted_rename)
    with atomic_folder(tmp_path / "out") as folder:
        (folder / "sub").mkdir()
        (folder / "sub" / "w").write_bytes(b"1")
        assert not (tmp_path / "out").exists() and not events
    after = f"sync {tmp_path.name}"  # so that the new name itself is on the disk
    assert events == ["sync w", "sync sub", "sync new", "rename out", after]
    events.clear()
    with atomic_file(tmp_path / "f", magic=b"") as file:
        file.write(b"1")
    assert events == ["sync new", "rename f", after]


def test_sync_asks_the_system_for_files_and_folders(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    (tmp_path / "f").write_bytes(b"1")
    synced: list[tuple[int, int]] = []

    def fsync(descriptor: int) -> None:
        status = os.fstat(descriptor)
        synced.append((status.st_dev, status.st_ino))

    monkeypatch.setattr(os, "fsync", fsync)
    for path in (tmp_path / "f", tmp_path):
        atomic.sync(path)
        assert synced.pop() == (path.stat().st_dev, path.stat().st_ino)
    with pytest.raises(FileNotFoundError):
        atomic.sync(tmp_path / "absent")


def test_folders_above_are_made(tmp_path: Path) -> None:
    with atomic_file(tmp_path / "a" / "b" / "f", magic=b"") as file:
        file.write(b"1")
    assert (tmp_path / "a" / "b" / "f").read_bytes() == b"1"


def test_a_failed_write_keeps_the_old_file(tmp_path: Path) -> None:
    (tmp_path / "f").write_bytes(b"old")
    with (
        pytest.raises(KeyboardInterrupt),
        atomic_file(tmp_path / "f", force=True, magic=b"") as file,
    ):
        file.write(b"new")
        raise KeyboardInterrupt
    assert (tmp_path / "f").read_bytes() == b"old"
    assert [path.name for path in tmp_path.iterdir()] == ["f"]


def test_an_error_of_the_system_is_told_as_ours(tmp_path: Path) -> None:
    with (
        pytest.raises(LessonkitError, match="No such file") as caught,
        atomic_folder(tmp_path / "out") as folder,
    ):
        (folder / "absent" / "f").write_bytes(b"")
    assert str(caught.value.where).endswith(str(Path("absent", "f"))) and caught.value.remedy
    assert not list(tmp_path.iterdir())


def test_a_link_is_replaced_and_what_it_leads_to_stays(tmp_path: Path) -> None:
    (tmp_path / "models").mkdir()
    (tmp_path / "models" / "w").write_text("precious")
    link = tmp_path / "link"
    link.symlink_to(tmp_path / "models")
    with pytest.raises(LessonkitError, match="exists already"), atomic_folder(link):
        raise AssertionError
    with atomic_folder(link, force=True) as folder:
        (folder / "new").write_text("1")
    assert not link.is_symlink() and [path.name for path in link.iterdir()] == ["new"]
    assert (tmp_path / "models" / "w").read_text() == "precious"


def test_a_link_to_nothing_is_something(tmp_path: Path) -> None:
    (tmp_path / "link").symlink_to(tmp_path / "absent")
    with (
        pytest.raises(LessonkitError, match="exists already"),
        atomic_file(tmp_path / "link", magic=b""),
    ):
        raise AssertionError
    with atomic_file(tmp_path / "link", force=True, magic=b"") as file:
        file.write(b"1")
    assert (tmp_path / "link").read_bytes() == b"1" and not (tmp_path / "absent").exists()


def leftover(folder: Path, name: str) -> Path:
    """What a killed run leaves: a workspace with a lock that nobody holds."""
    workspace = folder / name
    workspace.mkdir()
    (workspace / "lock").write_bytes(b"")
    (workspace / "new").write_bytes(b"half")
    return workspace


@pytest.mark.skipif(sys.platform == "win32", reason="locks are not used on Windows")
def test_only_leftovers_of_the_same_name_are_removed(tmp_path: Path) -> None:
    mine = leftover(tmp_path, ".out[1].partial-abcd")
    others = [leftover(tmp_path, f".{name}.partial-abcd") for name in ("out", "out1", "a.out[1]")]
    unlocked = leftover(tmp_path, ".out[1].partial-user")
    (unlocked / "lock").unlink()  # not ours at all
    (tmp_path / ".out[1].partial-empty").mkdir()  # of a run that was killed while it tidied up
    with atomic_file(tmp_path / "out[1]", magic=b"") as file:
        file.write(b"1")
    assert not mine.exists() and (unlocked / "new").exists()
    assert not (tmp_path / ".out[1].partial-empty").exists()
    assert all((other / "new").read_bytes() == b"half" for other in others)


@pytest.mark.skipif(sys.platform == "win32", reason="locks are not used on Windows")
def test_a_second_run_on_the_same_output_is_refused(tmp_path: Path) -> None:
    with atomic_file(tmp_path / "f", magic=b"") as first, atomic_folder(tmp_path / "g"):
        (in_use,) = tmp_path.glob(".f.partial-*")
        with (
            pytest.raises(LessonkitError, match="Another run is writing"),
            atomic_file(tmp_path / "f", force=True, magic=b""),
        ):
            raise AssertionError
        assert list(tmp_path.glob(".f.partial-*")) == [in_use]
        first.write(b"first")
    assert (tmp_path / "f").read_bytes() == b"first"
    assert sorted(path.name for path in tmp_path.iterdir()) == ["f", "g"]


def test_what_appears_under_the_name_meanwhile_is_kept(tmp_path: Path) -> None:
    with pytest.raises(LessonkitError, match="exists already"), atomic_folder(tmp_path / "out"):
        (tmp_path / "out").mkdir()
        (tmp_path / "out" / "mine").write_text("precious")
    with (
        pytest.raises(LessonkitError, match="exists already"),
        atomic_file(tmp_path / "f", magic=b"") as file,
    ):
        file.write(b"1")
        (tmp_path / "f").write_text("precious")
    assert (tmp_path / "out" / "mine").read_text() == (tmp_path / "f").read_text() == "precious"
    assert sorted(path.name for path in tmp_path.iterdir()) == ["f", "out"]


@pytest.mark.skipif(sys.platform == "win32", reason="locks are not used on Windows")
def test_a_workspace_that_another_run_takes_away_is_made_again(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    """Between making its folder and locking it, a run looks like a leftover to the others."""
    made: list[Path] = []
    make, lock = tempfile.mkdtemp, atomic.lock_file

    def taken(prefix: str, dir: Path) -> str:
        made.append(Path(make(prefix=prefix, dir=dir)))
        if len(made) == 1:
            made[-1].rmdir()
        return str(made[-1])

    def refused(file: BinaryIO) -> None:
        if len(made) == 2:
            raise BlockingIOError
        if len(made) == 3:
            shutil.rmtree(made[-1])
        lock(file)

    monkeypatch.setattr(tempfile, "mkdtemp", taken)
    monkeypatch.setattr(atomic, "lock_file", refused)
    with atomic_file(tmp_path / "f", magic=b"") as file:
        file.write(b"1")
    assert len(made) == 4 and (tmp_path / "f").read_bytes() == b"1"
