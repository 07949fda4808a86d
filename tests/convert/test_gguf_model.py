"""A GGUF file opened as a model: names, row order, what is not known."""

from __future__ import annotations

from pathlib import Path

import numpy as np
import pytest

from lessonkit.convert.gguf import to_gguf
from lessonkit.convert.gguf_model import GgufModel, dequantised, is_gguf_model
from lessonkit.convert.open import open_model, overview
from lessonkit.errors import LessonkitError
from lessonkit.files.gguf import encode_gguf_header
from lessonkit.files.safetensors import TensorInfo
from lessonkit.formats.ggml import decode
from tests.convert.gguf_models import small_llama


@pytest.fixture(scope="module")
def small(tmp_path_factory: pytest.TempPathFactory) -> Path:
    return small_llama(tmp_path_factory.mktemp("small") / "model")


@pytest.fixture(scope="module")
def quantised(small: Path, tmp_path_factory: pytest.TempPathFactory) -> Path:
    out = tmp_path_factory.mktemp("gguf") / "x.gguf"
    to_gguf(small, out, outtype="q8_0")
    return out


def test_names_shape_and_number_of_weights_are_the_sources(small: Path, quantised: Path) -> None:
    model, source = open_model(quantised), open_model(small)
    assert isinstance(model, GgufModel)
    assert set(model.names()) == set(source.names())
    assert model.shape is not None and source.shape is not None
    assert str(model.shape) == str(source.shape)
    assert model.parameters == source.parameters
    assert "q8_0" in overview(model) and "gguf (1 file)" in overview(model)


def test_rows_of_blocks_return_to_hugging_faces_order(small: Path, quantised: Path) -> None:
    model, source = open_model(quantised), open_model(small)
    name = "model.layers.0.self_attn.q_proj.weight"
    from lessonkit.files.dtypes import to_float32

    values = to_float32(source.array(name), "BF16")
    decoded = decode(model.array(name), "Q8_0")
    assert np.abs(decoded - values).max() < np.abs(values).max() / 100
    assert np.array_equal(dequantised(model.array(name), model.info(name)), decoded)
    model.release(name)
    assert not model.check(name)


def test_a_folder_with_one_gguf_file_is_opened(quantised: Path, tmp_path: Path) -> None:
    assert is_gguf_model(quantised.parent)
    assert open_model(quantised.parent).names() == open_model(quantised).names()
    (tmp_path / "a.gguf").write_bytes(quantised.read_bytes())
    (tmp_path / "b.gguf").write_bytes(quantised.read_bytes())
    with pytest.raises(LessonkitError, match="holds 2 GGUF files"):
        open_model(tmp_path)
    (tmp_path / "empty").mkdir()
    with pytest.raises(LessonkitError, match="holds no GGUF file"):
        GgufModel(tmp_path / "empty")


def test_a_file_of_another_kind_shows_its_own_names(tmp_path: Path) -> None:
    info = TensorInfo("blk.0.attn_q.weight", "F32", (2, 2))
    path = tmp_path / "x.gguf"
    path.write_bytes(encode_gguf_header({"general.architecture": "bert"}, [info]) + bytes(32))
    model = open_model(path)
    assert model.names() == ["blk.0.attn_q.weight"] and model.shape is None
    assert "'bert'" in model.notes[0]


def test_a_type_without_a_decoder_is_named() -> None:
    with pytest.raises(LessonkitError, match="IQ2_XS, which is not decoded"):
        dequantised(np.zeros(74, np.uint8), TensorInfo("x", "IQ2_XS", (1, 256)))
