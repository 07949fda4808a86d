"""Fetching, against a small server on this machine that speaks enough of the Hub's protocol."""

from __future__ import annotations

import hashlib
import json
import os
import re
import threading
from collections.abc import Iterator
from http.server import BaseHTTPRequestHandler, ThreadingHTTPServer
from pathlib import Path

import pytest

from lessonkit.convert import hub as module
from lessonkit.convert.hub import fetch, list_files, needed_files
from lessonkit.errors import LessonkitError
from lessonkit.files.integrity import verify

COMMIT = "0123456789abcdef0123456789abcdef01234567"
WEIGHTS = os.urandom(3_000_000)
FILES = {
    "config.json": b'{"model_type": "llama"}',
    "tokenizer.model": b"words" * 50,
    "model.safetensors": WEIGHTS,
    "pytorch_model.bin": b"the same weights again",
    "flax_model.msgpack": b"and again",
    "original/consolidated.00.pth": b"and again",
    "README.md": b"# A model",
}


class Hub(ThreadingHTTPServer):
    """One public repository, a gated one, and nothing else."""

    def __init__(self) -> None:
        super().__init__(("127.0.0.1", 0), Handler)
        self.files = dict(FILES)
        self.served = dict(FILES)  # what is really sent
        self.requests: list[str] = []
        self.cut_after: int | None = None  # break the connection after so many bytes of a file
        self.dies = False  # after the first such break, answer nothing any more
        self.dead = False

    @property
    def address(self) -> str:
        return f"http://127.0.0.1:{self.server_port}"

    def fetched(self) -> list[str]:
        """The files whose content was asked for, with the range."""
        return [line.split("/resolve/", 1)[1].split("/", 1)[1] for line in self.requests
                if line.startswith("GET") and "/resolve/" in line]  # fmt: skip


class Handler(BaseHTTPRequestHandler):
    server: Hub
    protocol_version = "HTTP/1.1"

    def do_HEAD(self) -> None:
        self.do_GET()

    def do_GET(self) -> None:
        wanted = self.headers.get("Range", "")
        self.server.requests.append(f"{self.command} {self.path.split('?')[0]} {wanted}".strip())
        path = self.path.split("?")[0]
        if self.server.dead:
            self.close_connection = True
            return None
        if "owner/gated" in path:
            return self.answer(403, b"{}", {"X-Error-Code": "GatedRepo"})
        if "owner/model" not in path:
            return self.answer(404, b"{}", {"X-Error-Code": "RepoNotFound"})
        if "no-such-branch" in path:
            return self.answer(404, b"{}", {"X-Error-Code": "RevisionNotFound"})
        if path.startswith("/api/models/owner/model"):
            return self.answer(200, json.dumps(self.listing()).encode())
        found = re.fullmatch(rf"/owner/model/resolve/{COMMIT}/(.+)", path)
        if found is None or found[1] not in self.server.served:
            return self.answer(404, b"", {"X-Error-Code": "EntryNotFound"})
        data = self.server.served[found[1]]
        if wanted:
            start = int(wanted.removeprefix("bytes=").split("-")[0])
            rest = {"Content-Range": f"bytes {start}-{len(data) - 1}/{len(data)}"}
            return self.answer(206, data[start:], rest)
        return self.answer(200, data)

    def listing(self) -> object:
        siblings = []
        for name, data in self.server.files.items():
            blob = hashlib.sha1(b"blob %d\0" % len(data) + data).hexdigest()
            file: dict[str, object] = {"rfilename": name, "size": len(data), "blobId": blob}
            if len(data) > 100_000:
                digest = hashlib.sha256(data).hexdigest()
                file["lfs"] = {"sha256": digest, "size": len(data), "pointerSize": 130}
            siblings.append(file)
        return {"id": "owner/model", "sha": COMMIT, "siblings": siblings, "tags": []}

    def answer(self, status: int, body: bytes, headers: dict[str, str] | None = None) -> None:
        self.send_response(status)
        for name, value in (headers or {}).items():
            self.send_header(name, value)
        self.send_header("Content-Length", str(len(body)))
        self.end_headers()
        if self.command == "HEAD":
            return
        limit = self.server.cut_after
        if limit is not None and len(body) > limit:
            self.wfile.write(body[:limit])
            self.close_connection = True
            self.server.dead = self.server.dies
        else:
            self.wfile.write(body)

    def log_message(self, *_: object) -> None:
        pass


@pytest.fixture
def hub(monkeypatch: pytest.MonkeyPatch) -> Iterator[Hub]:
    from huggingface_hub import constants, file_download

    monkeypatch.setattr(constants, "HF_HUB_OFFLINE", False)
    monkeypatch.setattr(constants, "DOWNLOAD_CHUNK_SIZE", 50_000)
    monkeypatch.setattr(file_download.time, "sleep", lambda _: None)
    server = Hub()
    thread = threading.Thread(target=server.serve_forever, daemon=True)
    thread.start()
    yield server
    server.shutdown()
    server.server_close()


def names(folder: Path) -> list[str]:
    return sorted(path.name for path in folder.iterdir())


def test_fetches_what_is_needed_and_checks_it(hub: Hub, tmp_path: Path) -> None:
    report = fetch("owner/model", tmp_path / "out", endpoint=hub.address)
    wanted = ["README.md", "config.json", "model.safetensors", "tokenizer.model"]
    assert sorted(finding.name for finding in report.findings) == wanted
    assert report.ok
    assert names(tmp_path / "out") == sorted([*wanted, "SHA256SUMS"])
    assert all((tmp_path / "out" / name).read_bytes() == FILES[name] for name in wanted)
    assert names(tmp_path) == ["out"]
    assert sorted(hub.fetched()) == wanted
    assert verify(tmp_path / "out", tmp_path / "out" / "SHA256SUMS").ok


def test_revision_reaches_the_server(hub: Hub) -> None:
    listing = list_files("owner/model", revision="v1.0", endpoint=hub.address)
    assert listing.commit == COMMIT
    assert any("/revision/v1.0" in line for line in hub.requests)
    assert listing.digests["config.json"].startswith("git-blob-sha1:")
    assert listing.digests["model.safetensors"] == hashlib.sha256(WEIGHTS).hexdigest()


def test_a_broken_connection_is_taken_up_again(hub: Hub, tmp_path: Path) -> None:
    hub.cut_after = 1_200_000
    fetch("owner/model", tmp_path / "out", endpoint=hub.address)
    assert (tmp_path / "out" / "model.safetensors").read_bytes() == WEIGHTS
    assert any(re.fullmatch(r"model.safetensors bytes=\d+-", line) for line in hub.fetched())


def test_a_broken_download_is_continued_by_the_next_run(hub: Hub, tmp_path: Path) -> None:
    hub.cut_after, hub.dies = 1_200_000, True
    with pytest.raises(LessonkitError, match="broke off") as caught:
        fetch("owner/model", tmp_path / "out", endpoint=hub.address)
    assert "continues where it stopped" in str(caught.value.remedy)
    assert not (tmp_path / "out").exists()
    (left,) = tmp_path.iterdir()
    have = (left / "model.safetensors.incomplete").read_bytes()
    assert len(have) > 1_000_000 and have == WEIGHTS[: len(have)]
    hub.cut_after, hub.dead = None, False
    hub.requests.clear()
    fetch("owner/model", tmp_path / "out", endpoint=hub.address)
    assert (tmp_path / "out" / "model.safetensors").read_bytes() == WEIGHTS
    # Only the rest was asked for, and no file a second time.
    assert f"model.safetensors bytes={len(have)}-" in hub.fetched()
    assert not {"config.json", "README.md"} & set(hub.fetched())
    assert names(tmp_path) == ["out"]


def test_a_corrupted_file_is_caught_and_fetched_again(hub: Hub, tmp_path: Path) -> None:
    hub.served["model.safetensors"] = WEIGHTS[:-1] + bytes([WEIGHTS[-1] ^ 1])
    hub.served["tokenizer.model"] = FILES["tokenizer.model"][:-1] + b"!"
    with pytest.raises(LessonkitError, match="not what the Hub promised") as caught:
        fetch("owner/model", tmp_path / "out", endpoint=hub.address)
    assert "tokenizer.model is altered; model.safetensors is altered" in caught.value.what
    assert not (tmp_path / "out").exists()
    hub.served = dict(FILES)
    hub.requests.clear()
    assert fetch("owner/model", tmp_path / "out", endpoint=hub.address).ok
    assert sorted(hub.fetched()) == ["model.safetensors", "tokenizer.model"]


def test_a_damaged_beginning_is_caught_too(hub: Hub, tmp_path: Path) -> None:
    """What an interrupted run left may be damaged itself: the hash over the whole file tells."""
    unfinished = tmp_path / f".out.download-{COMMIT[:12]}"
    unfinished.mkdir()
    (unfinished / "model.safetensors.incomplete").write_bytes(bytes(1000))
    (unfinished / "config.json.incomplete").write_bytes(bytes(1000))  # longer than it should be
    with pytest.raises(LessonkitError, match="model.safetensors is altered"):
        fetch("owner/model", tmp_path / "out", endpoint=hub.address)
    assert fetch("owner/model", tmp_path / "out", endpoint=hub.address).ok


def test_no_space(hub: Hub, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    def full(_folder: object, needed: int) -> None:
        raise LessonkitError(f"{needed} bytes are too many.")

    monkeypatch.setattr(module, "check_space", full)
    with pytest.raises(LessonkitError, match="30002.. bytes are too many"):
        fetch("owner/model", tmp_path / "out", endpoint=hub.address)
    assert not hub.fetched()
    assert not list(tmp_path.iterdir())


def test_existing_output(hub: Hub, tmp_path: Path) -> None:
    (tmp_path / "out").mkdir()
    (tmp_path / "out" / "mine").write_text("precious")
    with pytest.raises(LessonkitError, match="exists already"):
        fetch("owner/model", tmp_path / "out", endpoint=hub.address)
    assert not hub.fetched()
    fetch("owner/model", tmp_path / "out", endpoint=hub.address, force=True)
    assert "mine" not in names(tmp_path / "out")


@pytest.mark.parametrize(
    ("repository", "revision", "complaint"),
    [
        ("owner/other", None, "no such public repository"),
        ("owner/gated", None, "is gated"),
        ("owner/model", "no-such-branch", "no revision 'no-such-branch'"),
        ("not a name!", None, "cannot be a repository's name"),
    ],
)
def test_what_the_server_refuses(
    hub: Hub, tmp_path: Path, repository: str, revision: str | None, complaint: str
) -> None:
    with pytest.raises(LessonkitError, match=complaint) as caught:
        fetch(repository, tmp_path / "out", revision=revision, endpoint=hub.address)
    assert caught.value.remedy
    assert not list(tmp_path.iterdir())


def test_no_server_at_all(hub: Hub, tmp_path: Path) -> None:
    address = hub.address
    hub.shutdown()
    hub.server_close()
    with pytest.raises(LessonkitError, match="could not be reached") as caught:
        fetch("owner/model", tmp_path / "out", endpoint=address)
    assert "--endpoint" in str(caught.value.remedy)
    assert address in str(caught.value.where)


def test_file_lists_that_cannot_be_trusted(hub: Hub, tmp_path: Path) -> None:
    hub.files = {"../evil.safetensors": b"x"}
    with pytest.raises(LessonkitError, match="does not stay inside"):
        fetch("owner/model", tmp_path / "out", endpoint=hub.address)
    hub.files = {"notes.txt": b"x"}
    with pytest.raises(LessonkitError, match="no weights"):
        fetch("owner/model", tmp_path / "out", endpoint=hub.address)
    assert not list(tmp_path.iterdir())


def test_needed_files() -> None:
    assert needed_files(FILES) == [
        "README.md",
        "config.json",
        "tokenizer.model",
        "model.safetensors",
    ]
    shards = ["model-00001-of-00002.safetensors", "model-00002-of-00002.safetensors"]
    index = "model.safetensors.index.json"
    assert needed_files([*shards, index, "pytorch_model.bin"]) == [*shards, index]
    assert needed_files(["pytorch_model.bin", "tf_model.h5"]) == ["pytorch_model.bin"]
    meta = ["checklist.chk", "consolidated.00.pth", "consolidated.01.pth", "params.json"]
    assert needed_files([*meta, "tokenizer.model"]) == ["tokenizer.model", *meta]
    assert needed_files(["config.json", "x.txt", "params.json"]) == []
