"""What travels with the weights, and what does not."""

from __future__ import annotations

from pathlib import Path

from lessonkit.hub.companions import companions_among, companions_in

NAMES = ("LICENSE.txt", "README.md", "USE_POLICY.md", "config.json", "model.safetensors",
         "model.safetensors.index.json", "lessonkit-certificate.json", "optimizer.bin",
         "tokenizer.json", "tokenizer.model")  # fmt: skip


def test_configuration_tokenizer_and_licence_travel() -> None:
    assert companions_among(NAMES) == [
        "LICENSE.txt", "README.md", "USE_POLICY.md", "config.json", "tokenizer.json",
        "tokenizer.model",
    ]  # fmt: skip


def test_of_a_folder(tmp_path: Path) -> None:
    for name in NAMES:
        (tmp_path / name).write_text("x")
    (tmp_path / "vocab.json").mkdir()  # no file
    found = [path.name for path in companions_in(tmp_path, without=["config.json"])]
    assert found == [n for n in companions_among(NAMES) if n != "config.json"]
