"""Fetching, against a small server on this machine that speaks enough of the Hub's protocol."""

from __future__ import annotations

import os
import re
from collections.abc import Iterator
from pathlib import Path

import pytest

from lessonkit.errors import LessonkitError
from lessonkit.files.integrity import verify
from lessonkit.hub import download as module
from lessonkit.hub.download import fetch
from tests.hub_server import COMMIT, MODEL, Hub, running

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


@pytest.fixture
def hub(monkeypatch: pytest.MonkeyPatch) -> Iterator[Hub]:
    from huggingface_hub import constants, file_download

    monkeypatch.setattr(constants, "HF_HUB_OFFLINE", False)
    monkeypatch.delenv("HF_HUB_OFFLINE", raising=False)
    monkeypatch.delenv("HF_ENDPOINT", raising=False)
    monkeypatch.setattr(constants, "DOWNLOAD_CHUNK_SIZE", 50_000)
    monkeypatch.setattr(file_download.time, "sleep", lambda _: None)
    with running(FILES) as server:
        yield server


def names(folder: Path) -> list[str]:
    return sorted(path.name for path in folder.iterdir())


def test_fetches_what_is_needed_and_checks_it(hub: Hub, tmp_path: Path) -> None:
    report = fetch(MODEL, tmp_path / "out", endpoint=hub.address)
    wanted = ["README.md", "config.json", "model.safetensors", "tokenizer.model"]
    assert sorted(finding.name for finding in report.findings) == wanted
    assert report.ok
    assert names(tmp_path / "out") == sorted([*wanted, "SHA256SUMS"])
    assert all((tmp_path / "out" / name).read_bytes() == FILES[name] for name in wanted)
    assert names(tmp_path) == ["out"]
    assert sorted(hub.fetched) == wanted
    assert verify(tmp_path / "out", tmp_path / "out" / "SHA256SUMS").ok


def test_a_broken_connection_is_taken_up_again(hub: Hub, tmp_path: Path) -> None:
    hub.cut_after = 1_200_000
    fetch(MODEL, tmp_path / "out", endpoint=hub.address)
    assert (tmp_path / "out" / "model.safetensors").read_bytes() == WEIGHTS
    assert any(re.fullmatch(r"model.safetensors bytes=\d+-", line) for line in hub.fetched)


def test_a_broken_download_is_continued_by_the_next_run(hub: Hub, tmp_path: Path) -> None:
    hub.cut_after, hub.dies = 1_200_000, True
    with pytest.raises(LessonkitError, match="broke off") as caught:
        fetch(MODEL, tmp_path / "out", endpoint=hub.address)
    assert "continues where it stopped" in str(caught.value.remedy)
    assert not (tmp_path / "out").exists()
    (left,) = tmp_path.iterdir()
    have = (left / "model.safetensors.incomplete").read_bytes()
    assert len(have) > 1_000_000 and have == WEIGHTS[: len(have)]
    hub.cut_after, hub.dead = None, False
    hub.requests.clear()
    fetch(MODEL, tmp_path / "out", endpoint=hub.address)
    assert (tmp_path / "out" / "model.safetensors").read_bytes() == WEIGHTS
    # Only the rest was asked for, and no file a second time.
    assert f"model.safetensors bytes={len(have)}-" in hub.fetched
    assert not {"config.json", "README.md"} & set(hub.fetched)
    assert names(tmp_path) == ["out"]


def test_a_corrupted_file_is_caught_and_fetched_again(hub: Hub, tmp_path: Path) -> None:
    hub.served["model.safetensors"] = WEIGHTS[:-1] + bytes([WEIGHTS[-1] ^ 1])
    hub.served["tokenizer.model"] = FILES["tokenizer.model"][:-1] + b"!"
    with pytest.raises(LessonkitError, match="not what the Hub promised") as caught:
        fetch(MODEL, tmp_path / "out", endpoint=hub.address)
    assert "tokenizer.model is altered; model.safetensors is altered" in caught.value.what
    assert not (tmp_path / "out").exists()
    hub.served = dict(FILES)
    hub.requests.clear()
    assert fetch(MODEL, tmp_path / "out", endpoint=hub.address).ok
    assert sorted(hub.fetched) == ["model.safetensors", "tokenizer.model"]


def test_a_damaged_beginning_is_caught_too(hub: Hub, tmp_path: Path) -> None:
    """What an interrupted run left may be damaged itself: the hash over the whole file tells."""
    unfinished = tmp_path / f".out.download-{COMMIT[:12]}"
    unfinished.mkdir()
    (unfinished / "model.safetensors.incomplete").write_bytes(bytes(1000))
    (unfinished / "config.json.incomplete").write_bytes(bytes(1000))  # longer than it should be
    with pytest.raises(LessonkitError, match="model.safetensors is altered"):
        fetch(MODEL, tmp_path / "out", endpoint=hub.address)
    assert fetch(MODEL, tmp_path / "out", endpoint=hub.address).ok


def test_what_was_complete_is_not_asked_for_again(hub: Hub, tmp_path: Path) -> None:
    """Killed after the last byte: the file is whole, but has not got its name yet."""
    unfinished = tmp_path / f".out.download-{COMMIT[:12]}"
    unfinished.mkdir()
    (unfinished / "model.safetensors.incomplete").write_bytes(WEIGHTS)
    older = tmp_path / ".out.download-fedcba987654"  # of a commit that is not asked for any more
    older.mkdir()
    assert fetch(MODEL, tmp_path / "out", endpoint=hub.address).ok
    assert "model.safetensors" not in "".join(hub.fetched)
    assert names(tmp_path) == ["out"]


def test_no_space(hub: Hub, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    def full(_folder: object, needed: int) -> None:
        raise LessonkitError(f"{needed} bytes are too many.")

    monkeypatch.setattr(module, "check_space", full)
    with pytest.raises(LessonkitError, match="30002.. bytes are too many"):
        fetch(MODEL, tmp_path / "out", endpoint=hub.address)
    assert not hub.fetched
    assert not list(tmp_path.iterdir())


def test_existing_output(hub: Hub, tmp_path: Path) -> None:
    (tmp_path / "out").mkdir()
    (tmp_path / "out" / "mine").write_text("precious")
    with pytest.raises(LessonkitError, match="exists already"):
        fetch(MODEL, tmp_path / "out", endpoint=hub.address)
    assert not hub.fetched
    with pytest.raises(LessonkitError, match="delete mine"):
        fetch(MODEL, tmp_path / "out", endpoint=hub.address, force=True)
    (tmp_path / "out" / "mine").unlink()
    fetch(MODEL, tmp_path / "out", endpoint=hub.address)
    fetch(MODEL, tmp_path / "out", endpoint=hub.address, force=True)
    assert "SHA256SUMS" in names(tmp_path / "out")


def test_http_get_goes_on_from_what_is_there(hub: Hub, tmp_path: Path) -> None:
    """The contract with huggingface_hub on which resuming rests: it asks for the rest only."""
    from huggingface_hub import hf_hub_url
    from huggingface_hub.file_download import http_get

    name, content = "model.safetensors", hub.files["model.safetensors"]
    with (tmp_path / "part").open("w+b") as file:
        file.write(content[:1000])
        http_get(
            hf_hub_url(MODEL, name, revision=COMMIT, endpoint=hub.address),
            file,
            resume_size=1000,
            expected_size=len(content),
        )
    assert (tmp_path / "part").read_bytes() == content


@pytest.mark.parametrize(
    ("repository", "revision", "complaint"),
    [
        ("owner/other", None, "no public model 'owner/other'"),
        ("owner/gated", None, "is gated"),
        (MODEL, "no-such-branch", "no revision 'no-such-branch'"),
        ("not a name!", None, "cannot be a Hub id"),
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
        fetch(MODEL, tmp_path / "out", endpoint=address)
    assert "--endpoint" in str(caught.value.remedy)
    assert address in str(caught.value.where)


def test_file_lists_that_cannot_be_trusted(hub: Hub, tmp_path: Path) -> None:
    hub.files = {"../evil.safetensors": b"x"}
    with pytest.raises(LessonkitError, match="does not stay inside"):
        fetch(MODEL, tmp_path / "out", endpoint=hub.address)
    hub.files = {"notes.txt": b"x"}
    with pytest.raises(LessonkitError, match="no weights"):
        fetch(MODEL, tmp_path / "out", endpoint=hub.address)
    assert not list(tmp_path.iterdir())
