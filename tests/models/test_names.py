"""What a model's name means, to a lesson and on the command line."""

from __future__ import annotations

from pathlib import Path

import pytest

from lessonkit.errors import LessonkitError
from lessonkit.models.names import find_adapter, find_model, find_path, resolve


def test_mini_is_the_embedded_model_whatever_lies_here(
    mini: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.chdir(tmp_path)
    (tmp_path / "mini").mkdir()
    assert find_model("mini") == find_path("mini") == mini
    assert find_model("./mini") == find_path("./mini") == Path("mini")


def test_the_variable_speaks_to_lessons_only(
    mini: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setenv("LESSONKIT_MODEL", str(tmp_path))
    assert resolve("mini") == tmp_path
    assert find_model("mini") == mini


def test_a_path_that_looks_like_a_hub_id_is_a_path(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.chdir(tmp_path)
    (tmp_path / "data").mkdir()
    for find in (find_model, find_path):
        with pytest.raises(LessonkitError, match="no folder data/mini"):
            find("data/mini")


def test_files_are_paths_but_no_models(tmp_path: Path) -> None:
    file = tmp_path / "model.safetensors"
    file.write_bytes(b"")
    assert find_path(str(file)) == file
    with pytest.raises(LessonkitError, match="is a file"):
        find_model(file)
    with pytest.raises(LessonkitError, match="no such file"):
        find_path(str(tmp_path / "nowhere.safetensors"))


def test_the_embedded_adapters_have_names(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.chdir(tmp_path)
    (tmp_path / "zh").mkdir()
    assert (find_adapter("zh") / "adapter_config.json").is_file()
    assert find_adapter("./zh") == Path("zh")
    with pytest.raises(LessonkitError, match="(?s)no such folder.*zh and chat") as error:
        find_adapter("hz")
    assert "hz" in str(error.value)
