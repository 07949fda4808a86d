"""Models load whole, in silence, in their own dtype; everything else is an error with a remedy."""

from __future__ import annotations

import json
import pickle
import shutil
from pathlib import Path

import pytest
import torch
from safetensors.torch import load_file, save_file

from lessonkit.errors import LessonkitError
from lessonkit.models import embedded, loading
from lessonkit.models.loading import load
from lessonkit.models.names import chosen, resolve
from tests.tiny import make_data, make_tiny_llama

WEIGHTS = "model.safetensors"


@pytest.fixture(autouse=True)
def no_override(monkeypatch):
    monkeypatch.delenv("LESSONKIT_MODEL", raising=False)


@pytest.fixture(scope="module")
def template(tmp_path_factory) -> Path:
    return make_tiny_llama(tmp_path_factory.mktemp("template"))


@pytest.fixture
def folder(template, tmp_path) -> Path:
    """A fresh copy that a test may damage."""
    return Path(shutil.copytree(template, tmp_path / "model"))


def edit_config(folder: Path, **changes: object) -> None:
    path = folder / "config.json"
    config = {**json.loads(path.read_text()), **changes}
    path.write_text(json.dumps(config))


def error_of(call) -> LessonkitError:
    with pytest.raises(LessonkitError) as caught:
        call()
    assert caught.value.remedy, "every error says what to do"
    return caught.value


# --- which model -------------------------------------------------------------------------------


def test_the_variable_wins_over_a_name_but_not_over_a_path(monkeypatch, tmp_path):
    assert chosen() == "mini"
    assert chosen("a/b") == "a/b"
    monkeypatch.setenv("LESSONKIT_MODEL", "other/model")
    assert chosen() == chosen("a/b") == "other/model"
    assert chosen(tmp_path) == tmp_path
    monkeypatch.setenv("LESSONKIT_MODEL", " ")
    assert chosen() == "mini"


def test_mini_is_the_embedded_folder_and_is_checked(tmp_path, monkeypatch):
    data = make_data(tmp_path / "data")
    monkeypatch.setattr(embedded, "_PACKAGE", tmp_path / "lessonkit")
    assert resolve() == resolve("mini") == data / "mini"
    model, tokenizer = load()
    assert model.dtype == torch.bfloat16
    assert tokenizer.encode("The")[0] == 1
    embedded._verified.cache_clear()
    with (data / "mini" / WEIGHTS).open("r+b") as file:
        file.seek(-1, 2)
        file.write(b"\x55")
    assert "SHA-256" in error_of(load).what


def test_names_that_mean_nothing(tmp_path, monkeypatch):
    monkeypatch.chdir(tmp_path)
    (tmp_path / "file").write_text("")
    for name in ("maxi", "./missing", "a/b/c", "/no/such/folder", "~/no such", ".", "a/b?"):
        if name != ".":
            error = error_of(lambda name=name: resolve(name))
            assert repr(name) in error.what and "mini" in str(error.remedy)
    assert "is a file" in error_of(lambda: resolve("file")).what
    monkeypatch.setenv("LESSONKIT_MODEL", "maxi")
    assert error_of(resolve).where == "LESSONKIT_MODEL"


def test_a_folder_is_itself_even_where_its_name_looks_like_a_hub_id(folder, monkeypatch):
    monkeypatch.chdir(folder.parent.parent)
    name = f"{folder.parent.name}/{folder.name}"
    assert resolve(name) == Path(name)
    monkeypatch.setenv("LESSONKIT_MODEL", str(folder))
    assert resolve("mini") == folder


# --- loading -----------------------------------------------------------------------------------


def assert_same_weights(model, folder: Path) -> None:
    stored = {}
    for file in folder.glob("*.safetensors"):
        stored.update(load_file(file))
    found = model.state_dict()
    assert found.keys() == stored.keys()
    for name, tensor in stored.items():
        assert found[name].dtype == tensor.dtype
        assert torch.equal(found[name].cpu(), tensor), name


@pytest.mark.parametrize("dtype", [torch.bfloat16, torch.float16, torch.float32])
@pytest.mark.parametrize("shard_size", ["5GB", "50KB"])
def test_the_weights_arrive_bit_for_bit(tmp_path, dtype, shard_size):
    make_tiny_llama(tmp_path, dtype=dtype, max_shard_size=shard_size)
    loaded = load(str(tmp_path), device="cpu")
    assert not loaded.model.training
    assert_same_weights(loaded.model, tmp_path)
    assert (len(list(tmp_path.glob("*.safetensors"))) > 1) == (shard_size == "50KB")


def test_the_weights_dtype_counts_not_what_the_configuration_says(folder):
    edit_config(folder, dtype="float16", torch_dtype="float16")
    assert_same_weights(load(folder, device="cpu").model, folder)


def test_mixed_dtypes_meet_where_nothing_is_lost(folder):
    tensors = load_file(folder / WEIGHTS)
    tensors["model.norm.weight"] = tensors["model.norm.weight"].half() + 2**-10
    save_file(tensors, folder / WEIGHTS, metadata={"format": "pt"})
    model = load(folder, device="cpu").model
    assert model.dtype == torch.float32
    for name, tensor in tensors.items():
        assert torch.equal(model.state_dict()[name], tensor.float())


@pytest.mark.parametrize("dtype", ["float32", "torch.float32", torch.float32])
def test_another_dtype_on_request(folder, dtype):
    model = load(folder, dtype=dtype, device="cpu").model
    stored = load_file(folder / WEIGHTS)
    for name, tensor in model.state_dict().items():
        assert torch.equal(tensor, stored[name].float())


@pytest.mark.parametrize("dtype", ["float", "int8", "nonsense", torch.int8, 3])
def test_dtypes_that_are_none(folder, dtype):
    if dtype == "float":  # torch's own alias
        assert load(folder, dtype=dtype).model.dtype == torch.float32
    else:
        assert "dtype" in error_of(lambda: load(folder, dtype=dtype)).what


def test_pytorch_files_load_too(folder):
    tensors = load_file(folder / WEIGHTS)
    torch.save(tensors, folder / "pytorch_model.bin")
    (folder / WEIGHTS).unlink()
    model = load(folder, device="cpu").model
    assert all(torch.equal(model.state_dict()[name], tensor) for name, tensor in tensors.items())


class Evil:
    def __reduce__(self):
        return (Path("/nonexistent/evil").write_text, ("x",))


def test_a_pickle_that_runs_code_is_refused(folder, monkeypatch):
    touched = []
    monkeypatch.setattr(Path, "write_text", lambda *args: touched.append(args))
    (folder / WEIGHTS).unlink()
    torch.save({"model.norm.weight": Evil()}, folder / "pytorch_model.bin")
    error_of(lambda: load(folder))
    (folder / "pytorch_model.bin").write_bytes(pickle.dumps(Evil()))
    error_of(lambda: load(folder))
    assert not touched


def test_loading_is_silent(folder, capfd, recwarn):
    edit_config(folder, torch_dtype="bfloat16")  # an old name, which transformers remarks on
    (folder / "generation_config.json").write_text(
        json.dumps({"max_length": 2048, "temperature": 0.6, "do_sample": False, "pad_token_id": 0})
    )
    load(folder)
    captured = capfd.readouterr()
    assert captured.out == "" and captured.err == ""
    assert not list(recwarn)


def test_silence_ends_after_loading(folder):
    from transformers.utils import logging

    before = logging.get_verbosity(), logging.is_progress_bar_enabled()
    load(folder)
    assert (logging.get_verbosity(), logging.is_progress_bar_enabled()) == before


def test_cuda_where_there_is_one_else_the_cpu(folder):
    expected = "cuda" if torch.cuda.is_available() else "cpu"
    assert load(folder).model.device.type == expected
    assert load(folder, device="cpu").model.device.type == "cpu"


# --- damaged folders ---------------------------------------------------------------------------


def test_no_configuration_or_a_broken_one(folder):
    (folder / "config.json").write_text("{")
    assert "JSON" in error_of(lambda: load(folder)).what
    (folder / "config.json").unlink()
    assert "config.json" in error_of(lambda: load(folder)).what


def test_not_a_llama(folder):
    edit_config(folder, model_type="mistral")
    assert "'mistral'" in error_of(lambda: load(folder)).what


def test_no_weights(folder):
    (folder / WEIGHTS).unlink()
    assert "no weights" in error_of(lambda: load(folder)).what


def test_no_tokenizer(folder):
    for name in ("tokenizer.model", "tokenizer.json"):
        (folder / name).unlink()
    assert "no tokenizer" in error_of(lambda: load(folder)).what


@pytest.mark.parametrize("missing_bytes", [1, 1000, 250_000])
def test_truncated_weights(folder, missing_bytes):
    data = (folder / WEIGHTS).read_bytes()
    (folder / WEIGHTS).write_bytes(data[:-missing_bytes])
    error = error_of(lambda: load(folder))
    assert error.where == str(folder / WEIGHTS)


def test_a_missing_or_short_shard_is_named(tmp_path):
    make_tiny_llama(tmp_path, max_shard_size="50KB")
    shard = sorted(tmp_path.glob("model-*"))[2]
    data = shard.read_bytes()
    shard.write_bytes(data[:-8])
    assert error_of(lambda: load(tmp_path)).where == str(shard)
    shard.unlink()
    assert shard.name in error_of(lambda: load(tmp_path)).what


def test_tensors_that_are_missing_or_too_many_or_misshapen(folder):
    original = load_file(folder / WEIGHTS)
    cases = {
        "missing": {k: v for k, v in original.items() if "layers.1.mlp.up_proj" not in k},
        "unknown": {**original, "model.layers.1.self_attn.q_proj.bias": torch.ones(64)},
        "shape": {**original, "model.norm.weight": torch.ones(65, dtype=torch.bfloat16)},
    }
    for problem, tensors in cases.items():
        save_file(tensors, folder / WEIGHTS, metadata={"format": "pt"})
        error = error_of(lambda: load(folder))
        assert problem in error.what or "mismatch" in error.what, problem


def test_a_tokenizer_larger_than_the_embedding(folder):
    edit_config(folder, vocab_size=300)
    assert "400 tokens" in error_of(lambda: load(folder)).what


def test_too_little_memory(folder, monkeypatch):
    needed = 2 * sum(tensor.numel() for tensor in load_file(folder / WEIGHTS).values())
    monkeypatch.setattr(loading, "free_memory", lambda: int(needed * 1.2))
    load(folder, device="cpu")  # as bfloat16 it fits
    error = error_of(lambda: load(folder, dtype="float32", device="cpu"))
    assert "memory" in error.what and "bfloat16" in str(error.remedy)
