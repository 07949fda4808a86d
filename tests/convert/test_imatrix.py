"""Importance matrices: measured by hand, written and read in llama.cpp's two forms."""

from __future__ import annotations

import struct
from pathlib import Path

import gguf
import numpy as np
import pytest
import torch

from lessonkit.convert.imatrix import ImportanceMatrix, collect_imatrix, read_imatrix
from lessonkit.errors import LessonkitError
from lessonkit.files.gguf import encode_gguf_header
from lessonkit.models import load
from lessonkit.models.texts import Split, Text
from tests.tiny import SENTENCES, make_tiny_llama

TEXT = Text("some", "en", Split.CALIBRATION, tuple(SENTENCES[:6] * 2))


@pytest.fixture(scope="module")
def loaded(tmp_path_factory: pytest.TempPathFactory):
    return load(make_tiny_llama(tmp_path_factory.mktemp("m") / "model", dtype=torch.float32))


def test_sums_of_squares_are_those_of_the_layers_inputs(loaded) -> None:
    model, tokenizer = loaded
    found = collect_imatrix(model, tokenizer, TEXT, chunks=3, chunk=16)
    assert found.chunks == 3 and len(found.sums) == 14
    assert all(name.startswith("blk.") for name in found.sums)
    assert set(found.counts.values()) == {48.0}
    ids = torch.tensor(tokenizer(TEXT.joined())["input_ids"])[:48].reshape(3, 16)
    ids[:, 0] = tokenizer.bos_token_id
    with torch.inference_mode():
        states = model.model(ids, output_hidden_states=True).hidden_states[0]
        inputs = model.model.layers[0].input_layernorm(states)
    expected = inputs.double().square().sum((0, 1)).numpy()
    for part in ("attn_q", "attn_k", "attn_v"):
        np.testing.assert_allclose(found.sums[f"blk.0.{part}.weight"], expected, rtol=1e-5)
    np.testing.assert_allclose(found.entries["blk.0.attn_q.weight"], expected / 48, rtol=1e-5)


def test_no_hook_stays_behind(loaded) -> None:
    model, tokenizer = loaded
    collect_imatrix(model, tokenizer, TEXT, chunks=2, chunk=16)
    assert not any(module._forward_pre_hooks for module in model.modules())


def test_the_file_is_one_that_the_gguf_package_reads(tmp_path: Path) -> None:
    matrix = ImportanceMatrix(
        {"blk.1.b.weight": np.array([4, 8], np.float32), "blk.0.a.weight": np.ones(3, np.float32)},
        {"blk.1.b.weight": 4.0, "blk.0.a.weight": 0.0}, "imatrix", "island", 7,
    )  # fmt: skip
    matrix.save(tmp_path / "i.gguf")
    reader = gguf.GGUFReader(tmp_path / "i.gguf")
    assert [t.name for t in reader.tensors] == [
        "blk.0.a.weight.in_sum2", "blk.0.a.weight.counts",
        "blk.1.b.weight.in_sum2", "blk.1.b.weight.counts",
    ]  # fmt: skip
    assert reader.fields["general.type"].contents() == "imatrix"
    assert reader.fields["imatrix.chunk_count"].contents() == 7
    back = read_imatrix(tmp_path / "i.gguf")
    assert (back.name, back.dataset, back.chunks, back.chunk) == ("i.gguf", "island", 7, 512)
    assert back.entries["blk.1.b.weight"].tolist() == [1, 2]
    assert back.entries["blk.0.a.weight"].tolist() == [1, 1, 1]  # it saw no token
    with pytest.raises(LessonkitError, match="exists already"):
        matrix.save(tmp_path / "i.gguf")


def test_the_older_form_is_read(tmp_path: Path) -> None:
    name, text = b"blk.0.a.weight", b"wiki"
    raw = struct.pack("<ii", 1, len(name)) + name + struct.pack("<iiff", 5, 2, 10.0, 20.0)
    (tmp_path / "i.dat").write_bytes(raw + struct.pack("<ii", 5, len(text)) + text)
    found = read_imatrix(tmp_path / "i.dat")
    assert found.entries["blk.0.a.weight"].tolist() == [2, 4]
    assert (found.chunks, found.dataset) == (5, "wiki")
    (tmp_path / "cut.dat").write_bytes(raw[:-2])
    with pytest.raises(LessonkitError, match="no importance matrix"):
        read_imatrix(tmp_path / "cut.dat")


def test_other_files_are_refused(tmp_path: Path) -> None:
    (tmp_path / "x.gguf").write_bytes(encode_gguf_header({"general.type": "model"}, []))
    with pytest.raises(LessonkitError, match="no importance matrix"):
        read_imatrix(tmp_path / "x.gguf")
    with pytest.raises(LessonkitError, match="no such file"):
        read_imatrix(tmp_path / "none")


def test_a_test_text_and_a_short_one_are_refused(loaded) -> None:
    model, tokenizer = loaded
    with pytest.raises(LessonkitError, match="test split"):
        collect_imatrix(model, tokenizer, Text("t", "en", Split.TEST, TEXT.rows), chunk=16)
    with pytest.raises(LessonkitError, match="less than two chunks"):
        collect_imatrix(model, tokenizer, Text("t", "en", Split.TRAIN, ("a",)), chunk=16)
    with pytest.raises(LessonkitError, match="chunk of 1"):
        collect_imatrix(model, tokenizer, TEXT, chunk=1)
