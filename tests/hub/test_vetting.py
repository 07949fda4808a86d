"""Secrets and unfinished files: each kind is refused by name, and no secret is repeated."""

from __future__ import annotations

from pathlib import Path

import pytest

from lessonkit.errors import LessonkitError
from lessonkit.hub.publish import prepare
from lessonkit.hub.vetting import require_finished, require_no_secret
from tests.tiny import make_tiny_llama

# Put together here: no file of a repository should hold what looks like a token.
SECRETS = {
    "Hugging Face": "hf_" + "aB3" * 12,
    "API key": "sk-" + "proj-" + "aB3" * 12,
    "cloud": "AKIA" + "A1" * 8,
    "GitHub": "ghp_" + "aB3" * 12,
    "private key": "-----BEGIN " + "OPENSSH PRIVATE KEY-----",
}


@pytest.fixture
def model(tmp_path: Path) -> Path:
    return make_tiny_llama(tmp_path / "tiny")


@pytest.mark.parametrize("secret", SECRETS.values(), ids=SECRETS.keys())
@pytest.mark.parametrize("before", [0, (1 << 20) - 10], ids=["at once", "between two pieces"])
def test_secrets_in_files_are_refused_and_not_repeated(
    tmp_path: Path, before: int, secret: str
) -> None:
    file = tmp_path / "train.py"
    file.write_text(" " * before + f'"{secret}"\n')
    with pytest.raises(LessonkitError, match="looks like") as caught:
        require_no_secret("train.py", file)
    assert "train.py" in str(caught.value) and secret not in str(caught.value)


@pytest.mark.parametrize("place", ["notes/log.txt", ".hidden/log.txt", "generation_config.json"])
def test_one_secret_anywhere_and_nothing_goes(model: Path, place: str) -> None:
    (model / place).parent.mkdir(exist_ok=True)
    (model / place).write_text(SECRETS["GitHub"])
    with pytest.raises(LessonkitError, match="nothing of the folder") as caught:
        prepare(model, "you/tiny")
    assert place in str(caught.value)


@pytest.mark.parametrize(
    "name", [".env", ".env.local", "prod.env", "id_rsa", "server.pem", "token", ".netrc",
             "credentials.json", "client_secret.json"],
)  # fmt: skip
def test_files_of_secrets_are_known_by_their_names(model: Path, name: str) -> None:
    (model / name).write_text("x")
    with pytest.raises(LessonkitError, match="a file of secrets"):
        prepare(model, "you/tiny")


@pytest.mark.parametrize(
    "name", ["model.safetensors.incomplete", "x.part", "model.tmp", ".tiny.partial-ab12/new/a"]
)
def test_what_an_interrupted_run_left(model: Path, name: str) -> None:
    (model / name).parent.mkdir(parents=True, exist_ok=True)
    (model / name).write_text("x")
    with pytest.raises(LessonkitError, match="not finished"):
        prepare(model, "you/tiny")


def test_weights_that_are_cut_off(model: Path, tmp_path: Path) -> None:
    from lessonkit.convert.gguf import to_gguf

    to_gguf(model, tmp_path / "tiny.gguf")
    for file in (tmp_path / "tiny.gguf", model / "model.safetensors"):
        require_finished(file.name, file)
        file.write_bytes(file.read_bytes()[:-1])
        with pytest.raises(LessonkitError, match="not finished"):
            require_finished(file.name, file)
        file.write_bytes(b"")
        with pytest.raises(LessonkitError, match="not finished"):
            require_finished(file.name, file)


def test_a_models_own_files_are_no_secrets(model: Path) -> None:
    (model / "special_tokens_map.json").write_text('{"eos_token": "</s>"}')
    (model / "notes.md").write_text("hf_hub_download, sk-learn, a token, ghp_, tokens.")
    for file in model.iterdir():
        require_no_secret(file.name, file)
        require_finished(file.name, file)
