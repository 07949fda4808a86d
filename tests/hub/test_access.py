"""Which files are needed, and what a server's refusals are turned into."""

from __future__ import annotations

import hashlib
from collections.abc import Iterator

import pytest

from lessonkit.errors import LessonkitError
from lessonkit.hub.access import (
    FORMS,
    endpoint_in_use,
    hub_bars,
    is_offline,
    list_files,
    needed_files,
    told_plainly,
)
from tests.hub_server import COMMIT, MODEL, Hub, running

FILES = {"config.json": b"{}", "model.safetensors": bytes(200_000), "notes.txt": b"?"}


@pytest.fixture
def hub(monkeypatch: pytest.MonkeyPatch) -> Iterator[Hub]:
    from huggingface_hub import constants

    monkeypatch.setattr(constants, "HF_HUB_OFFLINE", False)
    monkeypatch.delenv("HF_HUB_OFFLINE", raising=False)
    with running(FILES) as server:
        monkeypatch.setenv("HF_ENDPOINT", f"{server.address}/")
        yield server


# --- which files ------------------------------------------------------------------------------


def test_the_first_form_of_the_weights_is_taken() -> None:
    small = ["README.md", "config.json", "tokenizer.model"]
    other = ["flax_model.msgpack", "original/consolidated.00.pth", "x.safetensors", "train.bin"]
    assert needed_files([*small, *other]) == []
    whole = ["model.safetensors"]
    assert needed_files([*small, *other, *whole, "pytorch_model.bin"]) == small + whole
    index = "model.safetensors.index.json"
    shards = [f"model-0000{number}-of-00002.safetensors" for number in (1, 2)]
    assert needed_files([index, *shards, "pytorch_model.bin"]) == [*shards, index]
    # An index alone, or params.json alone, is no form.
    assert needed_files([index, "params.json", "pytorch_model.bin"]) == ["pytorch_model.bin"]
    meta = ["checklist.chk", "consolidated.00.pth", "consolidated.01.pth", "params.json"]
    assert needed_files([*meta, "tokenizer.model"]) == ["tokenizer.model", *meta]
    adapter = ["adapter_config.json", "adapter_model.safetensors"]
    assert needed_files([*adapter, "model.gguf"]) == adapter


def test_only_welcome_forms_are_taken() -> None:
    names = ["consolidated.00.pth", "model.gguf", "pytorch_model.bin"]
    assert needed_files(names, ("safetensors", "pytorch")) == ["pytorch_model.bin"]
    assert needed_files(names[:2], ("safetensors", "pytorch")) == []
    assert needed_files(names, ("gguf",)) == ["model.gguf"]
    assert set(FORMS) == {"safetensors", "pytorch", "meta", "adapter", "gguf"}


def test_what_the_list_says(hub: Hub) -> None:
    listing = list_files(MODEL, revision="v1.0")
    assert any("/revision/v1.0" in line for line in hub.requests)
    assert listing.commit == COMMIT
    assert listing.sizes == {"config.json": 2, "model.safetensors": 200_000}
    assert listing.digests["model.safetensors"] == hashlib.sha256(bytes(200_000)).hexdigest()
    blob = hashlib.sha1(b"blob 2\0{}").hexdigest()
    assert listing.digests["config.json"] == f"git-blob-sha1:{blob}"


def complaint(hub: Hub, **files: bytes) -> LessonkitError:
    hub.files = {name.replace("__", "."): data for name, data in files.items()}
    with pytest.raises(LessonkitError) as caught:
        list_files(MODEL)
    assert caught.value.remedy and caught.value.where
    return caught.value


def test_lists_that_are_refused(hub: Hub) -> None:
    assert "holds no weights" in complaint(hub, notes__txt=b"x").what
    several = complaint(hub, **{f"llama.{kind}__gguf": b"x" for kind in ("q4_0", "q8_0")})
    assert "2 models in one place: llama.q4_0.gguf, llama.q8_0.gguf" in several.what
    assert f"hf download {MODEL} llama.q4_0.gguf" in str(several.remedy)
    parts = {f"llama-0000{number}-of-00002.gguf": b"x" for number in (1, 2)}
    hub.files = parts
    assert set(list_files(MODEL).sizes) == set(parts)
    hub.hashes = False
    assert "no size or hash for a__gguf".replace("__", ".") in complaint(hub, a__gguf=b"x").what
    assert "does not stay inside" in complaint(hub, **{"../evil.gguf": b"x"}).what


# --- which server -----------------------------------------------------------------------------


def test_the_environment_is_read_at_each_call(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("HF_ENDPOINT", "https://one.example/")
    assert endpoint_in_use() == "https://one.example"
    assert endpoint_in_use("https://two.example/") == "https://two.example"
    monkeypatch.setenv("HF_ENDPOINT", "")
    assert endpoint_in_use() == "https://huggingface.co"
    monkeypatch.setenv("HF_HUB_OFFLINE", "yes")
    assert is_offline()
    with pytest.raises(LessonkitError, match="forbidden by HF_HUB_OFFLINE"):
        list_files(MODEL)


def test_bars_are_put_back(monkeypatch: pytest.MonkeyPatch) -> None:
    from huggingface_hub.utils.tqdm import are_progress_bars_disabled as disabled

    monkeypatch.delenv("HF_HUB_DISABLE_PROGRESS_BARS", raising=False)
    before = disabled()
    with hub_bars(show=False):
        assert disabled()
    with hub_bars(show=True):
        assert disabled() == before
    assert disabled() == before


# --- errors -----------------------------------------------------------------------------------


@pytest.mark.parametrize(
    ("repository", "revision", "what"),
    [
        ("owner/other", None, "no public model 'owner/other'"),
        ("owner/gated", None, "model owner/gated is gated"),
        (MODEL, "no-such-branch", "no revision 'no-such-branch'"),
        ("not a name!", None, "'not a name!' cannot be a Hub id"),
    ],
)
def test_what_a_server_refuses(hub: Hub, repository: str, revision: str | None, what: str) -> None:
    with (
        pytest.raises(LessonkitError, match=what) as caught,
        told_plainly(repository, revision, again=""),
    ):
        list_files(repository, revision=revision)
    assert caught.value.remedy
    assert caught.value.where == f"{repository}, revision {revision or 'main'}, at {hub.address}"


def test_a_status_is_told(hub: Hub) -> None:
    hub.status = 418
    with (
        pytest.raises(LessonkitError, match="server refused: 418"),
        told_plainly(MODEL, None, again=""),
    ):
        list_files(MODEL)


@pytest.mark.parametrize(
    ("error", "what"),
    [
        (ConnectionResetError(104, "reset"), "could not be reached, or broke off: Connection"),
        (TimeoutError(110, "slow"), "could not be reached, or broke off: TimeoutError"),
        (OSError("Consistency check failed: 3 of 5"), "fewer bytes than it had announced"),
        (OSError(28, "No space left on device"), "cannot be written: .* No space left"),
    ],
)
def test_failures_on_the_way(error: OSError, what: str) -> None:
    with pytest.raises(LessonkitError, match=what) as caught, told_plainly(MODEL, None, again="!!"):
        raise error
    assert str(caught.value.remedy).startswith("!!") != ("No space" in what)


def test_other_errors_pass() -> None:
    with pytest.raises(ZeroDivisionError), told_plainly(MODEL, None, again=""):
        _ = 1 // 0
