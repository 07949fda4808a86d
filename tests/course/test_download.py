"""Downloads, against a small server on this machine that speaks the Hub's protocol."""

from __future__ import annotations

import hashlib
import json
import re
import shutil
import socket
import threading
from http.server import BaseHTTPRequestHandler, ThreadingHTTPServer
from pathlib import Path
from types import SimpleNamespace
from urllib.parse import unquote, urlsplit

import huggingface_hub
import pytest

from lessonkit.course import download as module
from lessonkit.course.download import PINNED, download, needed_files
from lessonkit.course.models import load, resolve
from lessonkit.errors import LessonkitError
from tests.tiny import make_tiny_llama

COMMIT = "0123456789abcdef0123456789abcdef01234567"
MODEL = "islanders/tiny"
EXTRAS = ("README.md", "consolidated.00.pth", "pytorch_model.bin", "onnx/model.onnx")


class Hub(ThreadingHTTPServer):
    """Just enough of the Hub: one public model, one gated, and a 404 for everything else."""

    def __init__(self, folder: Path) -> None:
        super().__init__(("127.0.0.1", 0), Handler)
        self.folder = folder
        self.requests: list[str] = []
        self.fail_after: int | None = None  # cut the connection in files after so many bytes

    @property
    def address(self) -> str:
        return f"http://127.0.0.1:{self.server_port}"

    @property
    def fetched(self) -> set[str]:
        """The files whose content was asked for."""
        found = (re.search(r"^GET .*/resolve/[^/]+/(.*)$", line) for line in self.requests)
        return {match[1] for match in found if match}


class Handler(BaseHTTPRequestHandler):
    server: Hub
    protocol_version = "HTTP/1.1"

    def do_HEAD(self) -> None:
        self.do_GET()

    def do_GET(self) -> None:
        path = unquote(urlsplit(self.path).path)
        self.server.requests.append(f"{self.command} {path}")
        if "islanders/gated" in path:
            return self.answer(403, b"{}", {"X-Error-Code": "GatedRepo"})
        if not re.search(rf"^/(api/models/)?{MODEL}(/|$)", path):
            return self.answer(401, b"{}", {"X-Error-Code": "RepoNotFound"})
        if "no-such-branch" in path:
            return self.answer(404, b"{}", {"X-Error-Code": "RevisionNotFound"})
        if path.startswith("/api/"):
            return self.answer(200, json.dumps(self.listing("/tree/" in path)).encode())
        file = self.server.folder / path.split("/", 5)[5]
        if not file.is_file():
            return self.answer(404, b"", {"X-Error-Code": "EntryNotFound"})
        data = file.read_bytes()
        return self.answer(200, data, {"ETag": f'"{hashlib.sha256(data).hexdigest()}"'})

    def listing(self, tree: bool) -> object:
        files = sorted(p for p in self.server.folder.rglob("*") if p.is_file())
        names = [(p.relative_to(self.server.folder).as_posix(), p.stat().st_size) for p in files]
        oid = hashlib.sha1
        if tree:
            return [
                {"type": "file", "path": name, "size": size, "oid": oid(name.encode()).hexdigest()}
                for name, size in names
            ]
        siblings = [
            {"rfilename": name, "size": size, "blobId": oid(name.encode()).hexdigest()}
            for name, size in names
        ]
        return {"id": MODEL, "modelId": MODEL, "sha": COMMIT, "siblings": siblings, "tags": []}

    def answer(self, status: int, body: bytes, headers: dict[str, str] | None = None) -> None:
        self.send_response(status)
        for name, value in {"X-Repo-Commit": COMMIT, **(headers or {})}.items():
            self.send_header(name, value)
        self.send_header("Content-Length", str(len(body)))
        self.end_headers()
        if self.command == "HEAD":
            return
        limit = self.server.fail_after
        if limit is not None and len(body) > limit:
            self.wfile.write(body[:limit])
            self.close_connection = True
        else:
            self.wfile.write(body)

    def log_message(self, *args: object) -> None:
        pass


@pytest.fixture(scope="module")
def template(tmp_path_factory) -> Path:
    folder = make_tiny_llama(tmp_path_factory.mktemp("hub"), max_shard_size="100KB")
    for name in EXTRAS:
        (folder / name).parent.mkdir(exist_ok=True)
        (folder / name).write_text("not needed")
    return folder


@pytest.fixture
def hub(template, tmp_path, monkeypatch):
    """A running hub, HF_ENDPOINT set to it, and an empty cache."""
    for name in ("HF_HUB_OFFLINE", "LESSONKIT_MODEL"):
        monkeypatch.delenv(name, raising=False)
    monkeypatch.setattr(huggingface_hub.constants, "HF_HUB_OFFLINE", False)
    monkeypatch.setattr(huggingface_hub.constants, "HF_HUB_CACHE", str(tmp_path / "cache"))
    server = Hub(Path(shutil.copytree(template, tmp_path / "served")))
    thread = threading.Thread(target=server.serve_forever, daemon=True)
    thread.start()
    monkeypatch.setenv("HF_ENDPOINT", server.address)
    yield server
    server.shutdown()
    server.server_close()


def error_of(*arguments: str) -> LessonkitError:
    with pytest.raises(LessonkitError) as caught:
        download(*arguments)
    assert caught.value.remedy
    return caught.value


def test_a_model_is_fetched_and_loads(hub, capfd):
    model, tokenizer = load(MODEL)
    assert tokenizer.encode("The")[0] == 1
    assert model.config.hidden_size == 64
    captured = capfd.readouterr()
    assert captured.out == "" and captured.err == ""
    assert hub.fetched == {
        p.name for p in hub.folder.iterdir() if p.is_file() and p.name not in EXTRAS
    }


def test_the_mirror_may_end_in_a_slash(hub, monkeypatch):
    monkeypatch.setenv("HF_ENDPOINT", hub.address + "/")
    assert (resolve(MODEL) / "config.json").is_file()


def test_a_commit_in_the_cache_needs_no_network(hub):
    first = download(MODEL, COMMIT)
    hub.requests.clear()
    assert download(MODEL, COMMIT) == first
    assert hub.requests == []


def test_a_branch_is_looked_up_but_its_files_are_not_fetched_again(hub):
    download(MODEL)
    hub.requests.clear()
    download(MODEL)
    assert hub.requests and not hub.fetched


def test_offline_uses_the_cache_and_else_says_so(hub, monkeypatch):
    monkeypatch.setenv("HF_HUB_OFFLINE", "1")
    error = error_of(MODEL)
    assert "HF_HUB_OFFLINE" in error.what and not hub.requests
    monkeypatch.delenv("HF_HUB_OFFLINE")
    folder = download(MODEL)
    hub.requests.clear()
    monkeypatch.setenv("HF_HUB_OFFLINE", "1")
    assert download(MODEL) == folder
    assert not hub.requests


def test_the_pinned_revision_is_asked_for(hub, monkeypatch):
    monkeypatch.setitem(PINNED, MODEL, COMMIT)
    download(MODEL)
    assert any(f"/revision/{COMMIT}" in request for request in hub.requests)
    assert PINNED["TinyLlama/TinyLlama-1.1B-Chat-v1.0"].startswith("fe8a4ea1")


def test_no_network_names_the_mirror_and_the_folder(hub, monkeypatch):
    with socket.socket() as taken:  # bound but not listening: connections are refused
        taken.bind(("127.0.0.1", 0))
        monkeypatch.setenv("HF_ENDPOINT", f"http://127.0.0.1:{taken.getsockname()[1]}")
        error = error_of(MODEL)
    assert "could not be reached" in error.what
    assert "HF_ENDPOINT" in str(error.remedy) and "local folder" in str(error.remedy)


def test_a_cached_branch_is_not_served_stale_without_a_word(hub, monkeypatch):
    """Without network the branch may have moved on; only offline mode says "use what is there"."""
    download(MODEL)
    with socket.socket() as taken:
        taken.bind(("127.0.0.1", 0))
        monkeypatch.setenv("HF_ENDPOINT", f"http://127.0.0.1:{taken.getsockname()[1]}")
        assert "HF_HUB_OFFLINE=1" in str(error_of(MODEL).remedy)


def test_unknown_repository_revision_and_gated_model(hub):
    assert "no public model 'islanders/big'" in error_of("islanders/big").what
    assert "no revision 'no-such-branch'" in error_of(MODEL, "no-such-branch").what
    assert "gated" in error_of("islanders/gated").what
    assert "Hub id" in error_of("a--b/..c").what


def test_too_little_disk(hub, monkeypatch):
    monkeypatch.setattr(module.shutil, "disk_usage", lambda path: SimpleNamespace(free=100_000))
    error = error_of(MODEL)
    assert "disk" in error.what and "HF_HOME" in str(error.remedy)
    assert not hub.fetched


def test_a_download_that_breaks_off_can_be_taken_up_again(hub):
    hub.fail_after = 2000
    assert "broke off" in error_of(MODEL).what
    hub.fail_after = None
    assert load(MODEL).model.config.hidden_size == 64


def test_an_interrupted_commit_in_the_cache_is_completed(hub):
    folder = download(MODEL, COMMIT)
    shard = sorted(folder.glob("*.safetensors"))[1]
    shard.resolve().unlink()
    shard.unlink()
    assert download(MODEL, COMMIT) == folder
    assert shard.is_file()


def test_safetensors_are_preferred_and_the_rest_is_left():
    kept = ["config.json", "tokenizer.model", "model.safetensors"]
    left = ["pytorch_model.bin", "README.md", "original/consolidated.00.pth", "x.safetensors"]
    assert needed_files(left + kept) == kept
    assert needed_files(["pytorch_model-1-of-2.bin", "training_args.bin"]) == [
        "pytorch_model-1-of-2.bin"
    ]
