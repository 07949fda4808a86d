"""A model's folder, read from its headers; and what its description counts."""

from __future__ import annotations

import json
import shutil
from pathlib import Path
from typing import Any

import pytest
import torch
from safetensors.torch import load_file

from lessonkit.errors import LessonkitError
from lessonkit.files.safetensors import TensorInfo
from lessonkit.models.folder import ModelFolder, read_model_folder
from tests.tiny import make_tiny_llama

WEIGHTS = "model.safetensors"


@pytest.fixture(autouse=True)
def no_override(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.delenv("LESSONKIT_MODEL", raising=False)


@pytest.fixture(scope="module")
def template(tmp_path_factory: pytest.TempPathFactory) -> Path:
    return make_tiny_llama(tmp_path_factory.mktemp("template"))


@pytest.fixture
def folder(template: Path, tmp_path: Path) -> Path:
    """A fresh copy that a test may change."""
    return Path(shutil.copytree(template, tmp_path / "model"))


def of_dtypes(*dtypes: str, config: dict[str, Any] | None = None) -> ModelFolder:
    """A folder with one tensor of ten values in each of these formats."""
    tensors = tuple(TensorInfo(f"t{i}", dtype, (2, 5)) for i, dtype in enumerate(dtypes))
    return ModelFolder(Path("model"), config or {}, tensors, "safetensors")


# --- the folder --------------------------------------------------------------------------------


def test_reads_configuration_and_headers(folder: Path) -> None:
    found = read_model_folder(folder)
    stored = load_file(folder / WEIGHTS)
    assert found.path == folder and found.form == "safetensors" and not found.quantised
    assert found.config == json.loads((folder / "config.json").read_text())
    assert {info.name: info.shape for info in found.tensors} == {
        name: tuple(tensor.shape) for name, tensor in stored.items()
    }
    torch.save(stored, folder / "pytorch_model.bin")
    (folder / WEIGHTS).unlink()
    assert read_model_folder(folder).form == "pytorch"
    assert {info.name for info in read_model_folder(folder).tensors} == set(stored)


def test_metas_own_folder_is_sent_to_its_lesson(tmp_path: Path) -> None:
    (tmp_path / "params.json").write_text("{}")
    (tmp_path / "consolidated.00.pth").write_bytes(b"")
    with pytest.raises(LessonkitError) as caught:
        read_model_folder(tmp_path)
    assert caught.value.where == str(tmp_path) and "lesson 03" in str(caught.value.remedy)


def test_a_configuration_without_a_type_is_no_llama(folder: Path) -> None:
    (folder / "config.json").write_text("{}")
    with pytest.raises(LessonkitError, match="type None, not a Llama") as caught:
        read_model_folder(folder)
    assert caught.value.where == str(folder / "config.json")


@pytest.mark.parametrize(
    ("stored", "common"),
    [
        (["BF16", "BF16"], torch.bfloat16),
        (["F16"], torch.float16),
        (["F16", "BF16"], torch.float32),  # neither holds all values of the other
        (["BF16", "F32"], torch.float32),
        (["F32", "F64", "F16"], torch.float64),
        (["BF16", "I64", "U8", "BOOL"], torch.bfloat16),
        (["F8_E4M3", "F16"], torch.float16),
    ],
)
def test_the_one_format_that_loses_nothing(stored: list[str], common: torch.dtype) -> None:
    assert of_dtypes(*stored).dtype() == common
    assert of_dtypes(*reversed(stored)).dtype() == common


def test_without_floating_point_weights_the_format_is_torchs_default() -> None:
    assert of_dtypes("I32").dtype() == torch.get_default_dtype()


def test_bytes_once_loaded() -> None:
    mixed = of_dtypes("F32", "BF16", "I64", "U8")
    assert mixed.bytes_as(None) == 10 * (4 + 2 + 8 + 1)
    assert mixed.bytes_as(torch.float16) == 10 * (2 + 2 + 8 + 1)  # codes stay as they are
    assert mixed.bytes_as(torch.float64) == 10 * (8 + 8 + 8 + 1)


def test_quantised_weights_are_known_by_the_configuration() -> None:
    assert of_dtypes("U8", config={"quantization_config": {"bits": 4}}).quantised
