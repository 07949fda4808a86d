"""Any form as plain weights: the values are those that each form's own reader gives."""

from __future__ import annotations

import json
import shutil
from dataclasses import replace
from pathlib import Path

import pytest
import torch

from lessonkit.convert import cut_calibration, to_awq, to_gptq
from lessonkit.convert.from_gguf import from_gguf
from lessonkit.convert.gguf import to_gguf
from lessonkit.convert.meta import hf_to_meta
from lessonkit.convert.nf4 import quantize_checkpoint
from lessonkit.convert.plain import open_plain, plain_weights, runnable, weights_of
from lessonkit.errors import LessonkitError
from lessonkit.evaluate import perplexity
from lessonkit.models import calibration_text, load
from lessonkit.quantize import quantized_model
from tests.convert.gguf_models import small_llama
from tests.evaluate.common import TEXT
from tests.tiny import SENTENCES, make_tiny_llama


@pytest.fixture(scope="module")
def source(tmp_path_factory: pytest.TempPathFactory) -> Path:
    return small_llama(tmp_path_factory.mktemp("source") / "m")


@pytest.fixture
def model(source: Path):
    return load(source, dtype="float32", device="cpu").model


def logits(model) -> torch.Tensor:
    with torch.inference_mode():
        return model(torch.arange(3, 40)[None]).logits


def forms(source: Path, folder: Path) -> dict[str, Path]:
    """One model in forms that change no value."""
    to_gguf(source, folder / "bf16.gguf")
    to_gguf(source, folder / "f32.gguf", outtype="f32")
    hf_to_meta(source, folder / "meta")
    return {"hf": source, "bf16": folder / "bf16.gguf", "f32": folder / "f32.gguf",
            "meta": folder / "meta"}  # fmt: skip


def test_lossless_forms_hold_the_same_values(source: Path, tmp_path: Path) -> None:
    found = {
        name: dict(plain_weights(open_plain(path)))
        for name, path in forms(source, tmp_path).items()
    }
    expected = found.pop("hf")
    for name, weights in found.items():
        assert set(weights) == set(expected), name
        for key, values in weights.items():
            assert values.dtype == torch.float32
            assert torch.equal(values, expected[key]), (name, key)


def test_a_model_gets_the_weights_of_a_file_and_its_own_ones_back(
    source: Path, model, tmp_path: Path
) -> None:
    to_gguf(source, tmp_path / "q.gguf", outtype="q4_k_m")
    from_gguf(tmp_path / "q.gguf", tmp_path / "back")
    before = logits(model)
    own = {name: parameter.data_ptr() for name, parameter in model.named_parameters()}
    with weights_of(model, tmp_path / "q.gguf") as changed:
        inside = logits(changed)
    assert torch.equal(inside, logits(load(tmp_path / "back", dtype="float32", device="cpu").model))
    assert not torch.equal(inside, before) and torch.equal(logits(model), before)
    assert own == {name: parameter.data_ptr() for name, parameter in model.named_parameters()}


def test_nf4_has_the_values_of_the_scheme(source: Path, model, tmp_path: Path) -> None:
    quantize_checkpoint(source, tmp_path / "nf4", double_quant=True)
    with quantized_model(model.bfloat16(), "nf4 block 64 double quant"):
        expected = {name: p.detach().float().clone() for name, p in model.named_parameters()}
    found = dict(plain_weights(open_plain(tmp_path / "nf4")))
    assert set(found) == set(expected)
    assert all(torch.equal(found[name], expected[name]) for name in found)


def test_gptq_and_awq_folders(source: Path, model, tmp_path: Path) -> None:
    loaded = load(source)
    calibration = cut_calibration(
        loaded.tokenizer, replace(calibration_text(), rows=SENTENCES * 12), num_samples=4, seqlen=16
    )
    to_gptq(source, tmp_path / "gptq", calibration)
    to_awq(source, tmp_path / "awq", calibration)
    for kind in ("gptq", "awq"):
        found = runnable(tmp_path / kind)
        assert f"{kind.upper()} (4 bits, groups of 128), dequantised, computed in flo" in found.how
        assert "quantization_config" not in found.model.config.to_dict()
        assert not found.model.training and found.tokenizer(SENTENCES[0]).input_ids[0] == 1
        with weights_of(model, tmp_path / kind):
            assert torch.equal(logits(model), logits(found.model))
        rounded = runnable(tmp_path / kind, dtype="bfloat16").model
        assert rounded.dtype == torch.bfloat16
        for name, values in plain_weights(open_plain(tmp_path / kind)):
            assert torch.equal(rounded.get_parameter(name), values.bfloat16()), name


def test_values_are_copies_that_outlive_the_file(source: Path, tmp_path: Path) -> None:
    to_gguf(source, tmp_path / "f32.gguf", outtype="f32")
    name, values = next(plain_weights(open_plain(tmp_path / "f32.gguf")))
    kept = values.clone()
    values += 1
    again = dict(plain_weights(open_plain(tmp_path / "f32.gguf")))[name]
    assert torch.equal(again, kept)


def test_a_gguf_file_runs_as_its_converted_folder_does(source: Path, tmp_path: Path) -> None:
    to_gguf(source, tmp_path / "q.gguf", outtype="q4_0")
    from_gguf(tmp_path / "q.gguf", tmp_path / "back")
    found = runnable(tmp_path / "q.gguf")
    theirs = load(tmp_path / "back", dtype="float32")
    assert "gguf of Q4_0, Q6_K, dequantised, computed in float32" in found.how
    assert torch.equal(logits(found.model), logits(theirs.model))
    ours, other = (
        perplexity(each.model, each.tokenizer, TEXT, window=32, max_windows=3)
        for each in (found, theirs)
    )
    assert ours == other


def test_a_tied_head(tmp_path: Path) -> None:
    source = small_llama(tmp_path / "m", tie_word_embeddings=True)
    to_gguf(source, tmp_path / "x.gguf")
    found = runnable(tmp_path / "x.gguf", dtype="bfloat16").model
    theirs = load(source).model
    assert found.lm_head.weight is found.model.embed_tokens.weight
    assert torch.equal(logits(found), logits(theirs))
    with weights_of(theirs, tmp_path / "x.gguf"):
        assert torch.equal(logits(theirs), logits(found))


def test_folders_are_loaded_by_transformers(source: Path, tmp_path: Path) -> None:
    quantize_checkpoint(source, tmp_path / "nf4")
    assert runnable(source).how == "safetensors, computed in bfloat16 by transformers"
    assert "bitsandbytes NF4 (plain scales)" in runnable(tmp_path / "nf4").how


def test_another_models_weights_are_refused(source: Path, model, tmp_path: Path) -> None:
    narrow = make_tiny_llama(tmp_path / "narrow")
    deep = small_llama(tmp_path / "deep", num_hidden_layers=3)
    before = logits(model)
    for other, problem in ((narrow, "has no place"), (deep, "has no place")):
        with pytest.raises(LessonkitError, match=problem), weights_of(model, other):
            pass
    deeper = load(deep, dtype="float32", device="cpu").model
    with pytest.raises(LessonkitError, match="is not there"), weights_of(deeper, source):
        pass
    assert torch.equal(logits(model), before)


def test_what_cannot_be_made_is_told(source: Path, tmp_path: Path) -> None:
    to_gguf(source, tmp_path / "x.gguf")
    with pytest.raises(LessonkitError, match="'int3' is not a floating-point dtype"):
        runnable(tmp_path / "x.gguf", dtype="int3")
    said = {"quant_method": "gptq", "bits": 4, "group_size": 32}
    shutil.copytree(source, tmp_path / "opt")
    config = json.loads((source / "config.json").read_text())
    (tmp_path / "opt" / "config.json").write_text(
        json.dumps(config | {"model_type": "opt", "quantization_config": said})
    )
    with pytest.raises(LessonkitError, match="of no kind that is known here"):
        runnable(tmp_path / "opt")


def test_an_unknown_tokenizer_is_told(source: Path, tmp_path: Path) -> None:
    (tmp_path / "bare").mkdir()
    for file in source.iterdir():
        if "token" not in file.name:
            (tmp_path / "bare" / file.name).write_bytes(file.read_bytes())
    to_gguf(tmp_path / "bare", tmp_path / "x.gguf")
    with pytest.raises(LessonkitError, match="not rebuilt here"):
        runnable(tmp_path / "x.gguf")
