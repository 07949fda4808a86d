"""Downloads, against a small server on this machine that speaks the Hub's protocol."""

from __future__ import annotations

import shutil
import socket
from collections.abc import Iterator
from pathlib import Path
from types import SimpleNamespace

import huggingface_hub
import pytest

from lessonkit.errors import LessonkitError
from lessonkit.hub.cache import PINNED, download
from lessonkit.models.loading import load, resolve
from tests.hub_server import COMMIT, MODEL, Hub, running
from tests.tiny import make_tiny_llama

EXTRAS = ("consolidated.00.pth", "model.gguf", "pytorch_model.bin", "onnx/model.onnx")


@pytest.fixture(scope="module")
def files(tmp_path_factory: pytest.TempPathFactory) -> dict[str, bytes]:
    folder = make_tiny_llama(tmp_path_factory.mktemp("hub"), max_shard_size="100KB")
    needed = {path.name: path.read_bytes() for path in folder.iterdir()}
    return {**needed, **dict.fromkeys(EXTRAS, b"not needed")}


@pytest.fixture
def hub(files: dict[str, bytes], tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Iterator[Hub]:
    """A running hub, HF_ENDPOINT set to it, and an empty cache."""
    for name in ("HF_HUB_OFFLINE", "LESSONKIT_MODEL"):
        monkeypatch.delenv(name, raising=False)
    monkeypatch.setattr(huggingface_hub.constants, "HF_HUB_OFFLINE", False)
    monkeypatch.setattr(huggingface_hub.constants, "HF_HUB_CACHE", str(tmp_path / "cache"))
    with running(files) as server:
        monkeypatch.setenv("HF_ENDPOINT", server.address)
        yield server


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
    assert set(hub.fetched) == set(hub.files) - set(EXTRAS)


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
    assert "no public model 'owner/big'" in error_of("owner/big").what
    assert "no revision 'no-such-branch'" in error_of(MODEL, "no-such-branch").what
    assert "gated" in error_of("owner/gated").what
    assert "Hub id" in error_of("a--b/..c").what


def test_too_little_disk(hub, monkeypatch):
    monkeypatch.setattr(shutil, "disk_usage", lambda path: SimpleNamespace(free=100_000))
    error = error_of(MODEL)
    assert "disk" in error.what and "HF_HOME" in str(error.remedy)
    assert not hub.fetched


def test_a_download_that_breaks_off_can_be_taken_up_again(hub):
    hub.cut_after = 2000
    assert "broke off" in error_of(MODEL).what
    hub.cut_after = None
    assert load(MODEL).model.config.hidden_size == 64


def test_an_interrupted_commit_in_the_cache_is_completed(hub):
    folder = download(MODEL, COMMIT)
    shard = sorted(folder.glob("*.safetensors"))[1]
    shard.resolve().unlink()
    shard.unlink()
    assert download(MODEL, COMMIT) == folder
    assert shard.is_file()
