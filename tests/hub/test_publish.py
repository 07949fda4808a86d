"""What would go, what must not, and the upload itself, to a server that speaks as the Hub does."""

from __future__ import annotations

import hashlib
from collections.abc import Iterator
from pathlib import Path

import pytest
from huggingface_hub import constants

from lessonkit.convert.verification import verify_model
from lessonkit.errors import LessonkitError
from lessonkit.hub.card import Facts
from lessonkit.hub.download import fetch
from lessonkit.hub.publish import prepare, publish
from tests.hub_server import TOKEN, Hub, running
from tests.tiny import make_tiny_llama


@pytest.fixture
def model(tmp_path: Path) -> Path:
    return make_tiny_llama(tmp_path / "tiny")


@pytest.fixture
def hub(monkeypatch: pytest.MonkeyPatch) -> Iterator[Hub]:
    monkeypatch.setattr(constants, "HF_HUB_OFFLINE", False)
    monkeypatch.delenv("HF_HUB_OFFLINE", raising=False)
    monkeypatch.setattr(constants, "HF_HUB_DISABLE_XET", True)  # the server takes LFS objects
    monkeypatch.setenv("HF_TOKEN", TOKEN)
    with running({}) as server:
        yield server


def test_what_would_go_is_said_file_by_file(model: Path) -> None:
    (model / "notes").mkdir()
    (model / "notes" / "a.txt").write_text("a")
    (model / ".cache").mkdir()
    (model / ".cache" / "x").write_text("x")
    (model / "README.md").write_text("# The base's own card")
    parcel = prepare(model, "you/tiny", Facts("you/base", licence="mit", measured=["2.5 ± 0.1"]))
    said = {item.name: item for item in parcel.items}
    assert {"model.safetensors", "config.json", "notes/a.txt", "README.md", "SHA256SUMS"} <= {*said}
    assert parcel.left == (".cache/x", "README.md")
    for name, item in said.items():
        data = item.source if isinstance(item.source, bytes) else item.source.read_bytes()
        assert item.sha256 == hashlib.sha256(data).hexdigest() and item.nbytes == len(data)
        assert f"{item.nbytes:,}" in str(parcel) and name in str(parcel)
    assert parcel.nbytes == sum(item.nbytes for item in parcel.items)
    assert "base: [you/base]" not in parcel.card and "base_model: you/base" in parcel.card
    assert "2.5 ± 0.1" in parcel.card and "The base's own" not in parcel.card
    sums = said["SHA256SUMS"].source
    assert isinstance(sums, bytes)
    assert f"{said['README.md'].sha256}  README.md\n" in sums.decode()
    assert "there is no certificate" in str(parcel)


def test_an_upload_arrives_and_can_be_fetched_and_verified(
    model: Path, tmp_path: Path, hub: Hub
) -> None:
    from lessonkit.convert.gguf import to_gguf

    file = tmp_path / "tiny.gguf"
    to_gguf(model, file, outtype="q8_0")
    parcel = prepare(file, "you/tiny-gguf", Facts("you/tiny", licence="mit"))
    folder = tmp_path / "folder"
    folder.mkdir()
    for each in (file, file.with_name("tiny.gguf.certificate.json")):
        (folder / each.name).write_bytes(each.read_bytes())
    assert prepare(folder, "you/tiny-gguf", Facts("you/tiny", licence="mit")).card == parcel.card
    where = publish(parcel, endpoint=hub.address)
    assert where.startswith(f"{hub.address}/you/tiny-gguf/commit/")
    assert hub.created["you/tiny-gguf"]["visibility"] == "private"
    there = hub.uploaded["you/tiny-gguf"]
    assert {*there} == {"tiny.gguf", "tiny.gguf.certificate.json", "README.md", "SHA256SUMS"}
    assert there["tiny.gguf"] == file.read_bytes()
    assert len(hub.objects) == 1 + (len(there["tiny.gguf.certificate.json"]) > 9_999)
    assert sum("/commit/" in line for line in hub.requests) == 1


def test_what_was_published_is_whole_where_it_is_fetched(
    model: Path, tmp_path: Path, hub: Hub, monkeypatch: pytest.MonkeyPatch
) -> None:
    from lessonkit.convert.nf4 import quantize_checkpoint

    quantize_checkpoint(model, tmp_path / "nf4")
    publish(prepare(tmp_path / "nf4", "you/nf4"), endpoint=hub.address, public=True)
    assert hub.created["you/nf4"]["visibility"] == "public"
    with running(hub.uploaded["you/nf4"]) as mirror:
        fetch("owner/model", tmp_path / "back", endpoint=mirror.address)
    found = verify_model(tmp_path / "back")
    assert found.ok and any("certificate" in source for source in found.findings)
    weights = tmp_path / "back" / "model.safetensors"
    raw = bytearray(weights.read_bytes())
    raw[-1] ^= 1
    weights.write_bytes(raw)
    assert not verify_model(tmp_path / "back").ok


def test_a_repository_with_files_is_left_alone_unless_forced(model: Path, hub: Hub) -> None:
    publish(prepare(model, "you/tiny"), endpoint=hub.address)
    hub.uploaded["you/tiny"]["old.txt"] = b"old"
    before = dict(hub.uploaded["you/tiny"])
    with pytest.raises(LessonkitError, match="files already"):
        publish(prepare(model, "you/tiny"), endpoint=hub.address)
    assert hub.uploaded["you/tiny"] == before
    publish(prepare(model, "you/tiny"), endpoint=hub.address, force=True)
    assert hub.uploaded["you/tiny"]["old.txt"] == b"old"


def test_without_the_right_token(
    model: Path, hub: Hub, monkeypatch: pytest.MonkeyPatch, tmp_path: Path
) -> None:
    parcel = prepare(model, "you/tiny")
    monkeypatch.setenv("HF_TOKEN", "hf_" + "x" * 34)
    with pytest.raises(LessonkitError) as caught:
        publish(parcel, endpoint=hub.address)
    assert "hf auth login" in str(caught.value) and "xxx" not in str(caught.value)
    monkeypatch.delenv("HF_TOKEN")
    monkeypatch.setattr(constants, "HF_TOKEN_PATH", str(tmp_path / "none"))
    with pytest.raises(LessonkitError, match="not let you write|not logged in"):
        publish(parcel, endpoint=hub.address)
    assert not hub.uploaded


def test_a_server_that_is_gone_and_a_network_that_is_forbidden(
    model: Path, hub: Hub, monkeypatch: pytest.MonkeyPatch
) -> None:
    parcel = prepare(model, "you/tiny")
    hub.status = 403
    with pytest.raises(LessonkitError, match="not let you write"):
        publish(parcel, endpoint=hub.address)
    hub.status = 400
    with pytest.raises(LessonkitError, match="server refused: 400"):
        publish(parcel, endpoint=hub.address)
    monkeypatch.setenv("HF_HUB_OFFLINE", "1")
    with pytest.raises(LessonkitError, match="HF_HUB_OFFLINE"):
        publish(parcel, endpoint=hub.address)


@pytest.mark.parametrize("name", ["nobody", "a/b/c", "a b/c", "../x/y"])
def test_names_that_cannot_be(model: Path, name: str) -> None:
    with pytest.raises(LessonkitError, match="cannot be a Hub id"):
        prepare(model, name)


def test_what_is_no_model(tmp_path: Path, model: Path) -> None:
    (tmp_path / "empty").mkdir()
    (tmp_path / "empty" / "a.txt").write_text("a")
    with pytest.raises(LessonkitError, match="no weights"):
        prepare(tmp_path / "empty", "you/x")
    with pytest.raises(LessonkitError, match="no such file"):
        prepare(tmp_path / "nowhere", "you/x")
    with pytest.raises(LessonkitError, match="no relation"):
        prepare(model, "you/x", Facts(relation="copied"))


def test_a_shard_that_is_missing(tmp_path: Path, model: Path) -> None:
    from transformers import AutoModelForCausalLM

    sharded = tmp_path / "sharded"
    AutoModelForCausalLM.from_pretrained(model).save_pretrained(sharded, max_shard_size="100KB")
    prepare(sharded, "you/x")
    next(sharded.glob("model-00002-*")).unlink()
    with pytest.raises(LessonkitError, match="model-00002-"):
        prepare(sharded, "you/x")
