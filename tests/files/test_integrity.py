"""Checksums: every way in which a download can be wrong is told apart."""

from __future__ import annotations

import hashlib
import json
import os
import shutil
import subprocess
from pathlib import Path

import pytest
from hypothesis import given
from hypothesis import strategies as st

from lessonkit.errors import LessonkitError
from lessonkit.files.integrity import (
    file_digest,
    find_checklists,
    inner_name,
    read_checklist,
    require_stamp,
    stamp,
    verify,
)


def md5(data: bytes) -> str:
    return hashlib.md5(data).hexdigest()


@pytest.mark.parametrize("algorithm", ["md5", "sha1", "sha256", "sha512"])
def test_digest_is_hashlibs(tmp_path: Path, algorithm: str) -> None:
    data = bytes(range(256)) * 9000  # more than two pieces
    (tmp_path / "f").write_bytes(data)
    assert file_digest(tmp_path / "f", algorithm) == hashlib.new(algorithm, data).hexdigest()


def test_git_blob_digest_is_gits(tmp_path: Path) -> None:
    (tmp_path / "f").write_bytes(b"hello\n")
    assert file_digest(tmp_path / "f", "git-blob-sha1") == (
        "ce013625030ba8dba906f756967f9e9ca394464a"
    )
    if shutil.which("git"):
        answer = subprocess.run(
            ["git", "hash-object", str(tmp_path / "f")], capture_output=True, text=True, check=True
        )
        assert answer.stdout.strip() == file_digest(tmp_path / "f", "git-blob-sha1")


def test_unreadable_file_is_our_error(tmp_path: Path) -> None:
    with pytest.raises(LessonkitError, match="cannot be read"):
        file_digest(tmp_path / "nothing")


def test_reads_both_forms_of_list(tmp_path: Path) -> None:
    digest = "a" * 64
    (tmp_path / "SHA256SUMS").write_text(
        f"# made today\n{digest}  a.bin\n\n{digest} *sub/b.bin\r\n"
    )
    assert read_checklist(tmp_path / "SHA256SUMS") == {"a.bin": digest, "sub/b.bin": digest}
    (tmp_path / "checklist.chk").write_text(f"{'B' * 32}  ./consolidated.00.pth\n")
    assert read_checklist(tmp_path / "checklist.chk") == {"consolidated.00.pth": "b" * 32}
    (tmp_path / "7B").mkdir()
    (tmp_path / "7B" / "checklist.chk").write_text(f"{'B' * 32}  params.json\n")
    found = [str(path.relative_to(tmp_path)) for path in find_checklists(tmp_path)]
    assert found == ["checklist.chk", "SHA256SUMS", "7B/checklist.chk"]


def test_reads_what_sha256sum_writes(tmp_path: Path) -> None:
    if not shutil.which("sha256sum"):
        pytest.skip("no sha256sum here")
    (tmp_path / "a file.bin").write_bytes(b"x")
    made = subprocess.run(
        ["sha256sum", "-b", "a file.bin"], cwd=tmp_path, capture_output=True, check=True
    )
    (tmp_path / "SHA256SUMS").write_bytes(made.stdout)
    assert verify(tmp_path, tmp_path / "SHA256SUMS").ok


@pytest.mark.parametrize(
    ("content", "complaint"),
    [
        ("", "names no file"),
        ("# only a comment\n", "names no file"),
        ("abc  f\n", "not a `digest  name` line"),
        (f"{'a' * 33}  f\n", "not a `digest  name` line"),
        (f"{'g' * 32}  f\n", "not a `digest  name` line"),
        (f"{'a' * 32}\n", "not a `digest  name` line"),
        (f"\\{'a' * 32}  f\\nx\n", "not a `digest  name` line"),
        (f"{'a' * 32}  /etc/passwd\n", "does not stay inside"),
        (f"{'a' * 32}  ../f\n", "does not stay inside"),
        (f"{'a' * 32}  a/../../f\n", "does not stay inside"),
        (f"{'a' * 32}  .\n", "does not stay inside"),
        (f"{'a' * 32}  C:f\n", "does not stay inside"),
        (f"{'a' * 32}  a\\b\n", "does not stay inside"),
        (f"{'a' * 32}  f\n{'b' * 32}  ./f\n", "listed twice"),
    ],
)
def test_malformed_lists_are_refused(tmp_path: Path, content: str, complaint: str) -> None:
    (tmp_path / "list").write_text(content)
    with pytest.raises(LessonkitError, match=complaint):
        read_checklist(tmp_path / "list")


def test_lists_that_are_no_text(tmp_path: Path) -> None:
    (tmp_path / "list").write_bytes(b"\xff\xfe\x00")
    with pytest.raises(LessonkitError, match="not a text file"):
        read_checklist(tmp_path / "list")
    with pytest.raises(LessonkitError, match="cannot be read"):
        read_checklist(tmp_path / "absent")
    with (tmp_path / "weights.pth").open("wb") as file:
        file.truncate(20 << 20)
    with pytest.raises(LessonkitError, match="too large"):
        read_checklist(tmp_path / "weights.pth")


@given(st.text(max_size=200))
def test_any_text_is_read_or_refused(tmp_path_factory: pytest.TempPathFactory, text: str) -> None:
    path = tmp_path_factory.mktemp("fuzz") / "list"
    path.write_text(text, encoding="utf-8", errors="replace", newline="")
    try:
        entries = read_checklist(path)
    except LessonkitError:
        return
    assert all(".." not in name.split("/") and not name.startswith("/") for name in entries)


def test_names_stay_inside() -> None:
    assert inner_name("a/./b", where="here") == "a/b"
    with pytest.raises(LessonkitError, match="does not stay inside"):
        inner_name("a\nb", where="here")


def test_verify_tells_missing_short_and_altered(tmp_path: Path) -> None:
    (tmp_path / "good").write_bytes(b"1234")
    (tmp_path / "altered").write_bytes(b"1235")
    (tmp_path / "short").write_bytes(b"12")
    (tmp_path / "long").write_bytes(b"12345")
    names = ["good", "altered", "short", "long", "gone"]
    report = verify(tmp_path, {name: md5(b"1234") for name in names}, dict.fromkeys(names, 4))
    assert {finding.name: finding.verdict for finding in report.findings} == {
        "good": "ok",
        "altered": "altered",
        "short": "short",
        "long": "altered",
        "gone": "missing",
    }
    assert not report.ok
    assert [finding.name for finding in report.problems] == names[1:]
    assert "2 of 4 bytes" in str(report)
    assert md5(b"1235") in str(report)


def test_short_files_are_known_by_their_format(tmp_path: Path) -> None:
    header = json.dumps({"w": {"dtype": "U8", "shape": [8], "data_offsets": [0, 8]}}).encode()
    whole = len(header).to_bytes(8, "little") + header + bytes(8)
    pointer = b"version https://git-lfs.github.com/spec/v1\noid sha256:0\nsize 5\n"
    (tmp_path / "data.safetensors").write_bytes(whole[:-3])
    (tmp_path / "head.safetensors").write_bytes(whole[:20])
    (tmp_path / "bits.safetensors").write_bytes(whole[:-1] + b"\x01")
    (tmp_path / "w.pth").write_bytes(b"PK\x03\x04" + bytes(100))
    (tmp_path / "p.bin").write_bytes(pointer)
    (tmp_path / "empty").write_bytes(b"")
    names = ["data.safetensors", "head.safetensors", "bits.safetensors", "w.pth", "p.bin", "empty"]
    report = verify(tmp_path, dict.fromkeys(names, "0" * 64))
    verdicts = {finding.name: finding.verdict for finding in report.findings}
    assert verdicts.pop("bits.safetensors") == "altered"
    assert set(verdicts.values()) == {"short"}
    assert "git lfs pull" in str(report)


def test_verify_refuses_what_it_cannot_judge(tmp_path: Path) -> None:
    (tmp_path / "f").write_bytes(b"")
    with pytest.raises(LessonkitError, match="not a digest"):
        verify(tmp_path, {"f": "crc:00"})
    with pytest.raises(LessonkitError, match="does not stay inside"):
        verify(tmp_path, {"../f": "0" * 32})
    with pytest.raises(LessonkitError, match="not a folder"):
        verify(tmp_path / "f", {"f": "0" * 32})


def test_a_file_that_was_changed_is_told_by_its_stamp(tmp_path: Path) -> None:
    path = tmp_path / "w"
    path.write_bytes(b"123")
    os.utime(path, (1, 1))
    before = stamp(path)
    with path.open("rb") as file:
        require_stamp(path, before, stamp(file.fileno()))
    require_stamp(path, before)

    def other_size() -> None:
        path.write_bytes(b"1234")
        os.utime(path, (1, 1))

    def another_file() -> None:
        (tmp_path / "new").write_bytes(b"123")
        os.utime(tmp_path / "new", (1, 1))
        (tmp_path / "new").rename(path)

    for change in (lambda: path.write_bytes(b"124"), other_size, another_file, path.unlink):
        change()
        with pytest.raises(LessonkitError, match="changed while it was read") as caught:
            require_stamp(path, before)
        assert caught.value.where == str(path)
        path.write_bytes(b"123")
        os.utime(path, (1, 1))
        before = stamp(path)


def test_a_name_longer_than_any_file_s_is_refused(tmp_path: Path) -> None:
    (tmp_path / "SHA256SUMS").write_text(f"{'0' * 64}  {'x' * 300}\n")
    with pytest.raises(LessonkitError, match="longer than any file's"):
        verify(tmp_path, tmp_path / "SHA256SUMS")
