"""Every reader of the package: a sound sample, how it is damaged, and what is done with the result.

A new form needs a row in `READERS`: the samples' folder, the file that is damaged, how, and a
function that reads the folder as fully as a command does. It may write below `out` only.
"""

from __future__ import annotations

import base64
import json
import shutil
from collections.abc import Callable
from dataclasses import dataclass
from functools import partial
from pathlib import Path
from typing import Any

import numpy as np
import torch
from safetensors.torch import save_file

from lessonkit.cli import main
from lessonkit.convert.dequantized import Dequantized
from lessonkit.convert.from_gguf import from_gguf
from lessonkit.convert.gguf import open_source, plan_gguf, to_gguf
from lessonkit.convert.gguf_model import GgufModel, dequantised
from lessonkit.convert.hf_checkpoint import open_hf_llama
from lessonkit.convert.imatrix import read_imatrix
from lessonkit.convert.lora import merge
from lessonkit.convert.meta import meta_to_hf
from lessonkit.convert.open import open_model, overview, tensor_list
from lessonkit.convert.packed import PackedCheckpoint, UnpackedCheckpoint
from lessonkit.convert.plan import plan
from lessonkit.convert.verification import verify_model
from lessonkit.errors import LessonkitError
from lessonkit.evaluate.kl_base import MAGIC, read_kl_base, row_length
from lessonkit.files.dtypes import FLOATS
from lessonkit.files.gguf import encode_gguf_header
from lessonkit.files.safetensors import TensorInfo
from lessonkit.llama.gguf_tokenizer import tokenizer_metadata
from lessonkit.llama.tokenizer import convert_tokenizer, count_tokens
from lessonkit.llama.vocabulary import extend_vocabulary
from tests.convert.adapters import make_adapter
from tests.convert.toy import Toy
from tests.faults.harness import SIZES
from tests.hostile import mutate
from tests.hostile.mutate import Mutation
from tests.tiny import SENTENCES, make_tiny_llama, sentencepiece_bytes


def make_samples(folder: Path) -> None:
    """A folder for each sample."""
    hf = make_tiny_llama(folder / "hf", **SIZES)
    shutil.copytree(hf, folder / "config")
    make_tiny_llama(folder / "index", **SIZES, max_shard_size="30KB")
    toy = Toy(dim=8, heads=2, kv_heads=2, layers=1, mlp=16)
    toy.write(folder / "params", hf / "tokenizer.model")
    toy.write(folder / "pth", None)
    _small_tensors(folder / "tensors")
    make_adapter(hf, folder / "adapter", r=2)
    for name in ("nf4", "certificate"):
        assert main(["nf4", str(hf), str(folder / name), "--double-quant"]) == 0
    (folder / "words.txt").write_text("The river rises in the Grey Hills. " * 20)
    for method in ("gptq", "awq"):
        few = ["--group-size", "32", "--num-samples", "2", "--seqlen", "16"]
        asked = [method, str(hf), str(folder / method), str(folder / "words.txt"), *few]
        assert main(asked) == 0
    (folder / "gguf").mkdir()
    wide = make_tiny_llama(folder / "wide", **{**SIZES, "hidden_size": 128, "vocab_size": 400})
    assert main(["to-gguf", str(wide), str(folder / "gguf" / "m.gguf"), "--outtype", "q8_0"]) == 0
    _parts(folder / "parts")
    _importance(folder / "imatrix")
    (folder / "checklist").mkdir()
    shutil.copy(hf / "config.json", folder / "checklist")
    digest = "0123456789abcdef" * 4
    (folder / "checklist" / "SHA256SUMS").write_text(
        f"# a list\n{digest}  config.json\n{digest} *other\n"
    )
    words = folder / "words"
    words.mkdir()
    (words / "tokenizer.model").write_bytes(sentencepiece_bytes(SENTENCES[:3], 300))
    shutil.copytree(words, folder / "tiktoken")
    table = "".join(f"{_base64(bytes([byte]))} {byte}\n" for byte in range(256))
    table += f"{_base64(b'ab')} 256\n{_base64(b'abc')} 257\n"
    (folder / "tiktoken" / "tokenizer.model").write_text(table)
    shutil.copytree(hf, folder / "settings")
    _byte_level(folder / "byte-level")
    _kl_base(folder / "kl")


def _small_tensors(folder: Path) -> None:
    folder.mkdir()
    tensors = {"a": torch.ones(2, 3), "b": torch.ones(5, dtype=torch.bfloat16),
               "c": torch.ones(4, dtype=torch.uint8)}  # fmt: skip
    save_file(tensors, folder / "model.safetensors", {"format": "pt"})


def _parts(folder: Path) -> None:
    folder.mkdir()
    for number in range(2):
        metadata = {"general.architecture": "none", "split.no": number, "split.count": 2,
                    "split.tensors.count": 2, "a.list": [1, 2], "a.text": "x"}  # fmt: skip
        info = TensorInfo(f"t{number}", "F32", (2, 4))
        head = encode_gguf_header(metadata, [info])
        (folder / f"m-{number + 1:05}-of-00002.gguf").write_bytes(head + bytes(32))


def _importance(folder: Path) -> None:
    folder.mkdir()
    infos = [TensorInfo("blk.0.attn_q.weight.in_sum2", "F32", (1, 8)),
             TensorInfo("blk.0.attn_q.weight.counts", "F32", (1, 1))]  # fmt: skip
    metadata = {"general.type": "imatrix", "imatrix.datasets": ["a text"],
                "imatrix.chunk_count": 2, "imatrix.chunk_size": 512}  # fmt: skip
    head = encode_gguf_header(metadata, infos)
    (folder / "m.gguf").write_bytes(head + np.ones(16, "<f4").tobytes())  # each padded to 32 bytes
    name = b"blk.0.attn_q.weight"
    numbers = [np.array(n, "<i4").tobytes() for n in (1, len(name), 2, 8, 2, 6)]
    one, length, calls, count, chunks, text = numbers
    values = np.ones(8, "<f4").tobytes()
    (folder / "m.dat").write_bytes(
        one + length + name + calls + count + values + chunks + text + b"a text"
    )


def _byte_level(folder: Path) -> None:
    folder.mkdir()
    files = convert_tokenizer(folder.parent / "tiktoken" / "tokenizer.model", context=128)
    for name, content in files.files.items():
        if name != "tokenizer.model":
            (folder / name).write_bytes(content)
    (folder / "config.json").write_text(json.dumps({"vocab_size": files.size}))


def _kl_base(folder: Path) -> None:
    folder.mkdir()
    window, vocabulary, windows = 8, 10, 2
    scored = window - 1 - window // 2
    head = MAGIC + np.array([window, vocabulary, windows], "<i4").tobytes()
    tokens = np.ones((windows, window), "<i4").tobytes()
    rows = bytes(2 * windows * scored * row_length(vocabulary))
    (folder / "base.kld").write_bytes(head + tokens + rows)


def _base64(raw: bytes) -> str:
    return base64.b64encode(raw).decode()


# --- what is done with what was damaged ---------------------------------------------------------


def look_at_model(folder: Path, _out: Path) -> None:
    """As `info --tensors`, `plan` and `verify`, and every value read."""
    model = open_model(folder)
    assert overview(model) and tensor_list(model) is not None
    for name in model.names():
        model.array(name).tobytes()
        model.check(name)
        model.release(name)
    model.require_unchanged()


def convert_meta(folder: Path, out: Path) -> None:
    look_at_model(folder, out)
    meta_to_hf(folder, out / "hf")


def look_at_config(folder: Path, _out: Path) -> None:
    attempts: list[Callable[[], object]] = [
        lambda: overview(open_model(folder)),
        lambda: str(plan(folder)),
        lambda: open_hf_llama(folder),
        lambda: plan_gguf(*open_source(folder)),
    ]
    all_of(attempts)


def all_of(attempts: list[Callable[[], object]]) -> None:
    """Try each of several readers of one file; each may refuse it."""
    refused: LessonkitError | None = None
    for attempt in attempts:
        try:
            attempt()
        except LessonkitError as error:
            refused = error
    if refused:
        raise refused


def merge_it(folder: Path, out: Path) -> None:
    merge(folder.parent / "hf", [folder], out / "merged")


def look_at_nf4(folder: Path, out: Path) -> None:
    look_at_model(folder, out)
    plain = Dequantized(folder)
    for name in plain.names():
        plain.array(name).tobytes()


def look_at_packed(outtype: str, folder: Path, out: Path) -> None:
    """As loading does, and `to-gguf`, which keeps GPTQ's codes."""
    look_at_model(folder, out)
    if PackedCheckpoint.recognises(folder):
        plain = UnpackedCheckpoint(folder)
        for name in plain.names():
            assert plain.array(name).shape == plain.info(name).shape
            plain.release(name)
    to_gguf(folder, out / "m.gguf", outtype=outtype)


def look_at_gguf(folder: Path, out: Path) -> None:
    look_at_parts(folder, out)
    from_gguf(folder / "m.gguf", out / "hf")


def look_at_parts(folder: Path, _out: Path) -> None:
    model = GgufModel(folder)
    assert overview(model) and tensor_list(model) is not None
    for name in model.names():
        info = model.info(name)
        if info.dtype in FLOATS:
            model.array(name).tobytes()
        else:
            dequantised(model.array(name), info)


def look_at_importance(name: str, folder: Path, _out: Path) -> None:
    matrix = read_imatrix(folder / name)
    assert matrix.as_metadata()
    for values in matrix.entries.values():
        values.sum()


def verify_it(folder: Path, _out: Path) -> None:
    str(verify_model(folder))


def look_at_words(folder: Path, _out: Path) -> None:
    path = folder / "tokenizer.model"
    words = folder.parent / "hf" / "tokenizer.model"
    all_of([
        lambda: count_tokens(path),
        lambda: convert_tokenizer(path, context=128),
        lambda: extend_vocabulary(path, tokens=["<new>"]),
        lambda: extend_vocabulary(words, path, tokens=["<new>"]),
        lambda: tokenizer_metadata(folder, {"vocab_size": 320}),
    ])  # fmt: skip


def look_at_tiktoken(folder: Path, _out: Path) -> None:
    path = folder / "tokenizer.model"
    all_of([lambda: count_tokens(path), lambda: convert_tokenizer(path, context=128)])


def look_at_settings(folder: Path, _out: Path) -> None:
    config: dict[str, Any] = json.loads((folder / "config.json").read_text())
    tokenizer_metadata(folder, config)


def look_at_kl_base(folder: Path, _out: Path) -> None:
    base = read_kl_base(folder / "base.kld")
    for window in range(min(3, len(base.rows))):
        base.log_probabilities(window).sum()
    assert len(base.pieces(1)) == len(base.tokens)


# --- the table ----------------------------------------------------------------------------------


@dataclass(frozen=True)
class Reader:
    """The sample's folder, the file in it that is damaged, how, and how it is read then."""

    sample: str
    file: str
    mutation: Mutation
    read: Callable[[Path, Path], object]


READERS = {
    "safetensors": Reader("tensors", "model.safetensors", mutate.any_safetensors, look_at_model),
    "index": Reader("index", "model.safetensors.index.json", mutate.any_json, look_at_model),
    "pth": Reader("pth", "consolidated.00.pth", mutate.any_zip, look_at_model),
    "params.json": Reader("params", "params.json", mutate.any_json, convert_meta),
    "config.json": Reader("config", "config.json", mutate.any_json, look_at_config),
    "adapter_config.json": Reader("adapter", "adapter_config.json", mutate.any_json, merge_it),
    "adapter": Reader("adapter", "adapter_model.safetensors", mutate.any_safetensors, merge_it),
    "sentencepiece": Reader("words", "tokenizer.model", mutate.any_bytes, look_at_words),
    "tiktoken": Reader("tiktoken", "tokenizer.model", mutate.any_bytes, look_at_tiktoken),
    "tokenizer_config.json": Reader(
        "settings", "tokenizer_config.json", mutate.any_json, look_at_settings
    ),
    "tokenizer.json": Reader("byte-level", "tokenizer.json", mutate.any_json, look_at_settings),
    "gguf": Reader("gguf", "m.gguf", mutate.any_gguf, look_at_gguf),
    "gguf part": Reader("parts", "m-00002-of-00002.gguf", mutate.any_gguf, look_at_parts),
    "imatrix": Reader("imatrix", "m.gguf", mutate.any_gguf, partial(look_at_importance, "m.gguf")),
    "imatrix.dat": Reader(
        "imatrix", "m.dat", mutate.any_bytes, partial(look_at_importance, "m.dat")
    ),
    "certificate": Reader("certificate", "lessonkit-certificate.json", mutate.any_json, verify_it),
    "checklist": Reader("checklist", "SHA256SUMS", mutate.any_bytes, verify_it),
    "nf4": Reader("nf4", "model.safetensors", mutate.json_tensors("quant_state"), look_at_nf4),
    "nf4 config.json": Reader("nf4", "config.json", mutate.any_json, look_at_nf4),
    **{
        f"{method}{of}": Reader(method, file, mutation, partial(look_at_packed, outtype))
        for method, outtype in (("gptq", "q4_0"), ("awq", "f16"))
        for of, file, mutation in (
            ("", "model.safetensors", mutate.any_safetensors),
            (" config.json", "config.json", mutate.any_json),
        )
    },
    "kl base": Reader("kl", "base.kld", mutate.any_bytes, look_at_kl_base),
}
