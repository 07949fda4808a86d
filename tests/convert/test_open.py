"""Each form is recognised, and all of them offer one interface."""

from __future__ import annotations

from pathlib import Path

import pytest

from lessonkit.convert.meta import meta_to_hf
from lessonkit.convert.nf4 import quantize_checkpoint
from lessonkit.convert.open import open_model, overview, tensor_list
from lessonkit.errors import LessonkitError
from tests.convert.toy import Toy


@pytest.fixture(scope="module")
def forms(
    tmp_path_factory: pytest.TempPathFactory, toy: Toy, sentencepiece_model: Path
) -> dict[str, Path]:
    """One model in each form."""
    root = tmp_path_factory.mktemp("forms")
    found = {"meta": toy.write(root / "meta", sentencepiece_model)}
    found["hf"], found["nf4"] = root / "hf", root / "nf4"
    meta_to_hf(found["meta"], found["hf"])
    quantize_checkpoint(found["hf"], found["nf4"])
    return found


@pytest.mark.parametrize(
    ("name", "form"),
    [
        ("meta", "Meta, shown under Hugging Face's names"),
        ("hf", "safetensors"),
        ("nf4", "safetensors, bitsandbytes NF4 (plain scales)"),
    ],
)
def test_one_interface(forms: dict[str, Path], name: str, form: str) -> None:
    model = open_model(forms[name])
    assert model.form == form and model.path == forms[name]
    assert model.weight_files and all(file.is_file() for file in model.weight_files)
    assert model.shape == open_model(forms["hf"]).shape is not None
    assert model.parameters == open_model(forms["hf"]).parameters > 0
    for tensor in model.names():
        assert model.array(tensor).nbytes == model.info(tensor).nbytes
        assert model.check(tensor) == (name == "meta")  # only a zip archive has checksums
        model.release(tensor)


def test_what_is_told(forms: dict[str, Path]) -> None:
    text = overview(open_model(forms["nf4"]))
    assert text.startswith("form        safetensors, bitsandbytes NF4 (plain scales) (1 file)\n")
    assert f"parameters  {open_model(forms['hf']).parameters:,}\n" in text
    assert "\nshape       2 layers" in text
    lines = tensor_list(open_model(forms["hf"])).splitlines()
    assert len(lines) == 21 and all(line.startswith("BF16") for line in lines)


def test_weights_without_a_configuration(forms: dict[str, Path]) -> None:
    model = open_model(forms["hf"] / "model.safetensors")
    assert model.shape is not None  # config.json lies beside it
    bare = forms["hf"].parent / "bare.safetensors"
    bare.write_bytes((forms["hf"] / "model.safetensors").read_bytes())
    assert open_model(bare).shape is None and "shape" not in overview(open_model(bare))


def test_what_is_not_there(tmp_path: Path) -> None:
    with pytest.raises(LessonkitError, match="no such file"):
        open_model(tmp_path / "nowhere")
    with pytest.raises(LessonkitError, match="holds no weights"):
        open_model(tmp_path)
