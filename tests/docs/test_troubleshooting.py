"""Every message of docs/troubleshooting.md that can be provoked is provoked, word for word."""

from __future__ import annotations

import importlib
import json
import re
import shutil
import subprocess
import sys
import zipfile
from collections.abc import Callable
from pathlib import Path
from typing import Any
from unittest.mock import patch

import numpy as np
import pytest
import torch
from safetensors import safe_open
from safetensors.torch import save_file

from lessonkit.convert import hf_to_meta, open_model
from lessonkit.evaluate import compare, perplexity
from lessonkit.files import open_checkpoint
from lessonkit.formats import NF4, quantize_absmax, quantize_blockwise
from lessonkit.hub.cache import download
from lessonkit.models import load
from lessonkit.models.texts import Split, Text
from lessonkit.quantize import fake_quantize
from tests.tiny import island_sentences, make_tiny_llama

PAGE = Path(__file__).resolve().parents[2] / "docs" / "troubleshooting.md"
POINTER = b"version https://git-lfs.github.com/spec/v1\noid sha256:0\nsize 13476925163\n"

# Messages that no test can provoke, and why.
NOT_PROVOKED = {
    "CUDA out of memory": "it needs a GPU, and a model too large for it",
    "401 Client Error ... Repository Not Found": "it needs the Hub",
    "No such file or directory ... 7B/params.json": "it needs a converter of transformers 4",
    "no checkpoint files found in": "it needs Meta's own program",
    "Loading a checkpoint for MP=": "it needs Meta's own program",
    "Invalid device string: 'bfloat16'": "it needs a processor with AVX512-BF16; see lesson 02",
    "cannot import name 'LLaMATokenizer'": "an import statement provokes it: the test below",
}


def documented() -> list[str]:
    """The messages in the first column of the page's tables."""
    text = PAGE.read_text(encoding="utf-8").split("## No message at all")[0]
    return re.findall(r"^\| `(.+?)` \|", text, re.M)


@pytest.fixture(scope="module")
def place(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """A folder with a tiny Llama in both forms, and with files that are broken in many ways."""
    folder = tmp_path_factory.mktemp("trouble")
    make_tiny_llama(folder / "hf")
    hf_to_meta(folder / "hf", folder / "meta", shards=2)
    tiny = {"a": torch.arange(6, dtype=torch.bfloat16).view(2, 3), "b": torch.tensor([0.5])}
    save_file(tiny, folder / "tiny.safetensors")
    torch.save(tiny, folder / "tiny.pth")
    (folder / "cut.safetensors").write_bytes((folder / "tiny.safetensors").read_bytes()[:-5])
    (folder / "empty.safetensors").write_bytes(b"")
    (folder / "cut.pth").write_bytes((folder / "tiny.pth").read_bytes()[:-100])
    for name in ("pointer.safetensors", "pointer.pth"):
        (folder / name).write_bytes(POINTER)
    torch.save({"weight": Trap()}, folder / "trap.pth")
    copy_of_pth(folder, "gpu.pth", b"X\x03\0\0\0cpu", b"X\x06\0\0\0cuda:0")
    altered = (folder / "tiny.pth").read_bytes()
    value = tiny["a"].view(torch.uint8).numpy().tobytes()
    (folder / "altered.pth").write_bytes(altered.replace(value, bytes(len(value)), 1))
    return folder


class Trap:
    def __reduce__(self) -> Any:
        return print, ("any command could stand here",)


def copy_of_pth(folder: Path, name: str, before: bytes, after: bytes) -> None:
    """tiny.pth with other bytes in its pickle."""
    with zipfile.ZipFile(folder / "tiny.pth") as old, zipfile.ZipFile(folder / name, "w") as new:
        for part in old.infolist():
            content = old.read(part)
            if part.filename.endswith("data.pkl"):
                assert before in content
                content = content.replace(before, after)
            new.writestr(part.filename, content)


def copy_of(folder: Path, name: str, *without: str) -> Path:
    """The tiny Llama again, without some of its files."""
    target = folder / name
    shutil.rmtree(target, ignore_errors=True)
    return Path(shutil.copytree(folder / "hf", target, ignore=shutil.ignore_patterns(*without)))


def with_config(folder: Path, name: str, **changes: Any) -> Path:
    """The tiny Llama with another config.json."""
    target = copy_of(folder, name)
    config = json.loads((target / "config.json").read_text())
    (target / "config.json").write_text(json.dumps({**config, **changes}))
    return target


def auto(folder: Path | str, **options: Any) -> Any:
    from transformers import AutoModelForCausalLM

    return AutoModelForCausalLM.from_pretrained(folder, **options)


def tokenizer(folder: Path | str) -> Any:
    from transformers import AutoTokenizer

    return AutoTokenizer.from_pretrained(folder)


def four_bit(folder: Path) -> Any:
    from transformers import BitsAndBytesConfig

    pytest.importorskip("bitsandbytes")
    config = BitsAndBytesConfig(load_in_4bit=True)
    return auto(folder / "hf", quantization_config=config, device_map="cpu")


def run(*command: str) -> None:
    """Run a command of Python's; its failure is an error with what it printed."""
    done = subprocess.run([sys.executable, *command], capture_output=True, text=True, check=False)
    if done.returncode:
        raise RuntimeError(done.stdout + done.stderr)


def pip(folder: Path, *found: str) -> None:
    """Ask pip for a version that was never published, where only these versions are found."""
    wheels = folder / "wheels"
    shutil.rmtree(wheels, ignore_errors=True)
    wheels.mkdir()
    for version in found:
        (wheels / f"peft-{version}-py3-none-any.whl").write_bytes(b"")
    run("-m", "pip", "download", "--no-index", "--find-links", str(wheels), "peft==0.3.0dev")


def without_protobuf(folder: Path) -> None:
    importlib.import_module("transformers.convert_slow_tokenizer")
    module = sys.modules["transformers.convert_slow_tokenizer"]
    absent = {f"is_{name}_available": lambda: False for name in ("protobuf", "sentencepiece")}
    with patch.multiple(module, **absent):
        module.import_protobuf("tokenizer.model")


def without_bitsandbytes(folder: Path) -> None:
    from transformers import BitsAndBytesConfig

    place = "transformers.quantizers.quantizer_bnb_4bit.is_bitsandbytes_available"
    with patch(place, return_value=False):
        auto(
            folder / "hf", device_map="cpu",
            quantization_config=BitsAndBytesConfig(load_in_4bit=True),
        )  # fmt: skip


def no_cuda(folder: Path) -> None:
    if torch.version.cuda or torch.cuda.is_available():
        pytest.skip("this torch has CUDA")
    torch.zeros(1, device="cuda")


def from_a_gpu(folder: Path) -> None:
    with patch("torch.cuda.is_available", return_value=False):
        torch.load(folder / "gpu.pth", weights_only=True)


def cut_model(folder: Path) -> None:
    target = copy_of(folder, "cut")
    file = target / "model.safetensors"
    file.write_bytes(file.read_bytes()[:-1000])
    load(target)


def one_shard(folder: Path, *, metas_names: bool) -> None:
    from lessonkit.llama import pairs

    shard = torch.load(folder / "meta" / "consolidated.00.pth", weights_only=True)
    names = {p.meta: p.meta if metas_names else p.hf for p in pairs(2) if p.axis is not None}
    part = {names[name]: tensor for name, tensor in shard.items() if name in names}
    auto(folder / "hf").load_state_dict(part, strict=metas_names)


def edited_params(folder: Path) -> None:
    target = folder / "edited"
    shutil.rmtree(target, ignore_errors=True)
    shutil.copytree(folder / "meta", target)
    params = json.loads((target / "params.json").read_text())
    params["vocab_size"] += 1
    (target / "params.json").write_text(json.dumps(params))
    open_model(target)


def negative_vocabulary(folder: Path) -> None:
    from transformers import AutoConfig, AutoModelForCausalLM

    config = AutoConfig.from_pretrained(folder / "hf")
    config.vocab_size = -1
    AutoModelForCausalLM.from_config(config)


def garbage_tokenizer(folder: Path) -> None:
    target = copy_of(folder, "garbage", "tokenizer*")
    (target / "tokenizer.model").write_bytes(POINTER)
    tokenizer(target)


def trainer(folder: Path) -> None:
    from transformers import Trainer, TrainingArguments

    arguments = TrainingArguments(output_dir=str(folder / "out"), report_to=[], use_cpu=True)
    Trainer(model=four_bit(folder), args=arguments)


def packed_weight(folder: Path) -> None:
    weight = four_bit(folder).model.layers[0].self_attn.q_proj.weight
    torch.nn.functional.linear(torch.zeros(1, 8), weight)


def odd_block(folder: Path) -> None:
    functional = pytest.importorskip("bitsandbytes.functional")
    functional.quantize_4bit(torch.zeros(64), blocksize=48)


def infinite_model(folder: Path) -> None:
    model, its_tokenizer = load(folder / "hf", dtype="float32")
    model.lm_head.weight.data[0] = float("inf")
    perplexity(model, its_tokenizer, island_text(), window=64)


def two_texts(folder: Path) -> None:
    model, its_tokenizer = load(folder / "hf", dtype="float32")
    few, many = (
        perplexity(model, its_tokenizer, island_text(), window=64, max_windows=count)
        for count in (2, 3)
    )
    compare(few, many)


def island_text() -> Text:
    return Text("island", "en", Split.TEST, (island_sentences(30),))


PROVOKE: dict[str, Callable[[Path], Any]] = {
    "No module named 'sentencepiece'": lambda _: run("-I", "-S", "-c", "import sentencepiece"),
    "requires the protobuf library but it was not found in your environment": without_protobuf,
    "Could not find a version that satisfies the requirement ... (from versions: none)": pip,
    "Could not find a version that satisfies the requirement ... (from versions: 0": (
        lambda folder: pip(folder, "0.2.0", "0.19.0")
    ),
    "No matching distribution found for": pip,
    "Torch not compiled with CUDA enabled": no_cuda,
    "requires bitsandbytes": without_bitsandbytes,
    "We couldn't connect to 'https://huggingface.co' to load the files": (
        lambda _: auto("some/model")
    ),
    "is not in the cache, and HF_HUB_OFFLINE forbids the network": lambda _: download("some/model"),
    "it is neither 'mini', nor a folder that exists": lambda _: load("no model at all"),
    "incomplete metadata, file not fully covered": (
        lambda folder: safe_open(folder / "cut.safetensors", "pt")
    ),
    "header too large": lambda folder: safe_open(folder / "pointer.safetensors", "pt"),
    "header too small": lambda folder: safe_open(folder / "empty.safetensors", "pt"),
    "The tensors take ... bytes, but the file holds": cut_model,
    "failed finding central directory": (
        lambda folder: torch.load(folder / "cut.pth", weights_only=True)
    ),
    "Unsupported operand 118": lambda folder: torch.load(folder / "pointer.pth", weights_only=True),
    "Unsupported global: GLOBAL ... was not an allowed global by default": (
        lambda folder: torch.load(folder / "trap.pth", weights_only=True)
    ),
    "which a table of tensors does not need": lambda folder: open_checkpoint(folder / "trap.pth"),
    "is not as it was written: its CRC-32 is": (
        lambda folder: open_checkpoint(folder / "altered.pth").check("a")
    ),
    "Attempting to deserialize object on a CUDA device": from_a_gpu,
    "no file named model.safetensors, or pytorch_model.bin, found": (
        lambda folder: auto(copy_of(folder, "weightless", "*.safetensors"))
    ),
    "No module named 'transformers.models.llama.convert_llama_weights_to_hf'": (
        lambda _: importlib.import_module("transformers.models.llama.convert_llama_weights_to_hf")
    ),
    "Unrecognized model in ... Should have a model_type key in its config.json": (
        lambda folder: auto(folder / "meta")
    ),
    "params.json says vocab_size": edited_params,
    "Trying to create tensor with negative dimension -1": negative_vocabulary,
    "size mismatch for model.layers.0.self_attn.q_proj.weight": (
        lambda folder: one_shard(folder, metas_names=False)
    ),
    "Missing key(s) in state_dict ... Unexpected key(s) in state_dict": (
        lambda folder: one_shard(folder, metas_names=True)
    ),
    "You set ignore_mismatched_sizes to False, thus raising an error": (
        lambda folder: auto(with_config(folder, "wide", intermediate_size=256))
    ),
    "unexpected keyword argument 'load_in_4bit'": (
        lambda folder: auto(folder / "hf", load_in_4bit=True)
    ),
    "module 'torch' has no attribute": lambda folder: auto(folder / "hf", dtype="float99"),
    "Couldn't instantiate the backend tokenizer from one of": (
        lambda folder: tokenizer(copy_of(folder, "speechless", "token*"))
    ),
    "Error parsing line": garbage_tokenizer,
    "index out of range in self": lambda folder: auto(folder / "hf")(torch.tensor([[9999]])),
    "Got unsupported ScalarType BFloat16": lambda _: torch.zeros(2, dtype=torch.bfloat16).numpy(),
    "mat1 and mat2 must have the same dtype": (
        lambda _: torch.nn.Linear(4, 4).half()(torch.zeros(1, 4))
    ),
    "values are NaN or infinite": (lambda _: quantize_absmax(np.array([1.0, np.nan], np.float32))),
    "beyond the largest float16": lambda _: fake_quantize(torch.tensor([70000.0]), "fp16"),
    "The model's scores are not finite": infinite_model,
    "have different counts of tokens, so their difference means nothing": two_texts,
    ".half() is not supported for quantized model": lambda folder: four_bit(folder).half(),
    "mat1 and mat2 shapes cannot be multiplied": packed_weight,
    "invalid blocksize 48": odd_block,
    "You cannot perform fine-tuning on purely quantized models": trainer,
}


def test_the_page_and_the_tests_name_the_same_messages() -> None:
    messages = documented()
    assert len(messages) == len(set(messages)) > 40
    assert set(messages) == set(PROVOKE) | set(NOT_PROVOKED)
    assert not set(PROVOKE) & set(NOT_PROVOKED)


@pytest.mark.parametrize("message", PROVOKE)
def test_the_message_has_these_words(message: str, place: Path) -> None:
    with pytest.raises(Exception) as caught:
        PROVOKE[message](place)
    said = plain(str(caught.value))
    for words in plain(message).split(" ... "):
        before, found, said = said.partition(words)
        assert found, f"not said: {words!r} in {before[:2000]!r}"


def plain(text: str) -> str:
    """Without the marks of code, and with single spaces."""
    return " ".join(text.replace("`", "").split())


def test_an_old_name_cannot_be_imported() -> None:
    with pytest.raises(ImportError, match="cannot import name 'LLaMATokenizer'"):
        from transformers import LLaMATokenizer  # noqa: F401


def test_a_value_that_cannot_be_quantised_is_found(place: Path) -> None:
    with pytest.raises(Exception, match=r"1 of 2 values .* the first is number \(1,\)"):
        quantize_absmax(np.array([1.0, np.nan], np.float32))
    with pytest.raises(Exception, match=r"1 of 64 values .* the first is number \(7,\)"):
        spoiled = torch.zeros(64)
        spoiled[7] = float("inf")
        quantize_blockwise(spoiled, NF4)
