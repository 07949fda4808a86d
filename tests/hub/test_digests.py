"""The digests that huggingface_hub noted, where it really leaves them."""

from __future__ import annotations

import hashlib
from pathlib import Path

import pytest
from huggingface_hub import constants, snapshot_download

from lessonkit.files.integrity import verify
from lessonkit.hub.digests import hub_digests
from tests.hub_server import MODEL, running

FILES = {"config.json": b"{}", "model.safetensors": bytes(1000)}
SHA256 = {name: hashlib.sha256(data).hexdigest() for name, data in FILES.items()}


@pytest.fixture(params=["cache", "local folder"])
def downloaded(
    request: pytest.FixtureRequest, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> Path:
    monkeypatch.setattr(constants, "HF_HUB_OFFLINE", False)
    place = {"cache_dir": tmp_path} if request.param == "cache" else {"local_dir": tmp_path}
    with running(FILES) as server:
        return Path(snapshot_download(MODEL, endpoint=server.address, **place))  # type: ignore[arg-type]


def test_what_the_library_left_is_read(downloaded: Path) -> None:
    digests = hub_digests(downloaded)
    assert digests == SHA256
    assert verify(downloaded, digests).ok
    file = (downloaded / "model.safetensors").resolve()
    file.chmod(0o644)
    file.write_bytes(bytes(999) + b"\x01")
    report = verify(downloaded, digests)
    assert [(finding.name, finding.verdict) for finding in report.problems] == [
        ("model.safetensors", "altered")
    ]


def test_small_files_have_gits_digest(tmp_path: Path) -> None:
    notes = tmp_path / ".cache" / "huggingface" / "download"
    notes.mkdir(parents=True)
    (tmp_path / "hello").write_bytes(b"hello\n")
    git = "ce013625030ba8dba906f756967f9e9ca394464a"
    (notes / "hello.metadata").write_text(f"commit\n{git}\n1700000000.0\n")
    assert hub_digests(tmp_path) == {"hello": f"git-blob-sha1:{git}"}
    assert verify(tmp_path, hub_digests(tmp_path)).ok


def test_what_says_nothing(tmp_path: Path) -> None:
    assert hub_digests(tmp_path) == {}
    (tmp_path / "blobs").mkdir()
    (tmp_path / "blobs" / "W/not-a-digest").parent.mkdir()
    (tmp_path / "link").symlink_to("blobs/not-a-digest")
    (tmp_path / "other").symlink_to("elsewhere/" + "0" * 64)
    notes = tmp_path / ".cache" / "huggingface" / "download"
    notes.mkdir(parents=True)
    (notes / "a.metadata").write_text("commit")
    (notes / "b.metadata").write_text('commit\n"etag"\n')
    (notes / "c.metadata").write_bytes(b"\xff\n\xff\n")
    assert hub_digests(tmp_path) == {}
