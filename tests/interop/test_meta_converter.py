"""Against the last converter that transformers shipped (4.47.1), in an environment of its own.

`make interop` builds that environment, and lets nothing be skipped. Elsewhere these tests are
skipped where it is missing, and say so.
"""

from __future__ import annotations

import json
import os
import subprocess
from pathlib import Path

import pytest
import torch
from sentencepiece import SentencePieceProcessor
from tokenizers import Tokenizer

from lessonkit.convert.meta import meta_to_hf
from lessonkit.files.certificate import compare
from lessonkit.files.checkpoint import Checkpoint, open_checkpoint
from tests.convert.toy import Toy
from tests.tiny import SENTENCES

ROOT = Path(__file__).resolve().parents[2]
PYTHON = ROOT / ".interop" / "transformers-4.47.1" / "bin" / "python"
CONVERTER = "transformers.models.llama.convert_llama_weights_to_hf"

pytestmark = pytest.mark.skipif(
    not PYTHON.is_file() and os.environ.get("LESSONKIT_INTEROP") != "required",
    reason="not compared: transformers 4.47.1 is not here (make interop)",
)

TEXTS = (*SENTENCES, " a space first", "two  inside\n\n\t", "🙂 x = 12345", "")
LLAMA_3 = Toy(vocabulary=556, llama_3=True)
FORMS = {
    "llama 2": ("2", Toy()),
    "llama 2, two shards": ("2", Toy(shards=2)),
    "llama 1": ("1", Toy(kv_heads=4, params={"norm_eps": 1e-6, "n_kv_heads": None})),
    "llama 3": ("3", LLAMA_3),
    "llama 3, two shards": ("3", LLAMA_3.with_(shards=2)),
    "llama 3.1": ("3.1", LLAMA_3.with_(params={"use_scaled_rope": True})),
    "llama 3.2": ("3.2", LLAMA_3.with_(params={"use_scaled_rope": True}, tied=True)),
}


def reference(source: Path, out: Path, version: str, shards: int) -> Checkpoint:
    """The same folder, converted by transformers 4.47.1."""
    run = subprocess.run(
        [PYTHON, "-m", CONVERTER, "--input_dir", source, "--output_dir", out,
         "--llama_version", version, "--num_shards", str(shards)],
        env={**os.environ, "HF_HUB_OFFLINE": "1", "PYTHONPATH": ""}, capture_output=True,
        text=True, check=False,
    )  # fmt: skip
    assert run.returncode == 0, run.stderr[-2000:]
    return open_checkpoint(out)


@pytest.fixture
def words(request: pytest.FixtureRequest) -> dict[bool, Path]:
    return {
        False: request.getfixturevalue("sentencepiece_model"),
        True: request.getfixturevalue("tiktoken_model"),
    }


@pytest.mark.parametrize("form", FORMS, ids=lambda name: name.replace(" ", "-"))
def test_same_tensors_and_config(form: str, words: dict[bool, Path], tmp_path: Path) -> None:
    version, toy = FORMS[form]
    source = toy.write(tmp_path / "meta", words[toy.llama_3])
    theirs = reference(source, tmp_path / "theirs", version, toy.shards)
    meta_to_hf(source, tmp_path / "ours")
    result = compare(theirs, open_checkpoint(tmp_path / "ours"))
    assert {match.kind for match in result.matches} == {"bit-identical"}, result
    ours_config, their_config = (
        json.loads((tmp_path / name / "config.json").read_text()) for name in ("ours", "theirs")
    )
    if toy.llama_3:  # the reference writes the real Llama 3's ids, whatever the tokenizer
        assert (their_config.pop("bos_token_id"), their_config.pop("eos_token_id")) == (
            128000, 128001,
        )  # fmt: skip
        assert (ours_config.pop("bos_token_id"), ours_config.pop("eos_token_id")) == (300, 301)
    assert {key: their_config[key] for key in ours_config} == ours_config


@pytest.mark.parametrize("form", ["llama 3", "llama 3.1"], ids=["3", "3.1"])
def test_same_tokenizer_for_llama_3(form: str, words: dict[bool, Path], tmp_path: Path) -> None:
    version, toy = FORMS[form]
    source = toy.write(tmp_path / "meta", words[True])
    reference(source, tmp_path / "theirs", version, 1)
    meta_to_hf(source, tmp_path / "ours")
    ours, theirs = (
        json.loads((tmp_path / name / "tokenizer.json").read_text()) for name in ("ours", "theirs")
    )
    for part in ("model", "added_tokens", "normalizer", "pre_tokenizer"):
        assert ours[part] == theirs[part], part
    both = [Tokenizer.from_str(json.dumps(content)) for content in (ours, theirs)]
    for text in TEXTS:
        assert both[0].encode(text).ids == both[1].encode(text).ids, text


def test_the_reference_loses_the_first_space_and_ours_does_not(
    words: dict[bool, Path], tmp_path: Path
) -> None:
    """Llama 1 and 2: its tokenizer.json lacks the step that puts a space before the text."""
    source = Toy().write(tmp_path / "meta", words[False])
    reference(source, tmp_path / "theirs", "2", 1)
    meta_to_hf(source, tmp_path / "ours")
    ours, theirs = (
        json.loads((tmp_path / name / "tokenizer.json").read_text()) for name in ("ours", "theirs")
    )
    assert ours["model"] == theirs["model"]  # same pieces, same merges
    original = SentencePieceProcessor(model_file=str(words[False]))
    for text in TEXTS:
        expected = [1, *original.encode(text)]
        assert Tokenizer.from_str(json.dumps(ours)).encode(text).ids == expected, text
        if text.strip():
            assert Tokenizer.from_str(json.dumps(theirs)).encode(text).ids != expected, text


def test_the_reference_alters_fp16_and_ours_does_not(
    words: dict[bool, Path], tmp_path: Path
) -> None:
    toy = Toy(dtype=torch.float16)
    source = toy.write(tmp_path / "meta", words[False])
    theirs = reference(source, tmp_path / "theirs", "2", 1)
    meta_to_hf(source, tmp_path / "ours")
    ours = open_checkpoint(tmp_path / "ours")
    expected = toy.hf_tensors()
    assert all(torch.equal(ours.tensor(name), tensor) for name, tensor in expected.items())
    changed = [
        (theirs.tensor(name).double() != tensor.double()).float().mean().item()
        for name, tensor in expected.items()
        if tensor.ndim == 2
    ]
    assert min(changed) > 0.8
    meta_to_hf(source, tmp_path / "cast", dtype="bfloat16")
    result = compare(theirs, open_checkpoint(tmp_path / "cast"))
    assert {match.kind for match in result.matches} == {"bit-identical"}
