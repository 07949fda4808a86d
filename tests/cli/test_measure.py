"""The commands that measure, on a model in several forms."""

from __future__ import annotations

import json
import re
from pathlib import Path

import pytest
import torch

from lessonkit.cli import main
from tests.convert.gguf_models import small_llama


@pytest.fixture(scope="module")
def folder(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """A model, its GGUF and 4-bit forms, and a text."""
    folder = tmp_path_factory.mktemp("forms")
    model = str(small_llama(folder / "hf"))
    assert main(["to-gguf", model, str(folder / "q4_0.gguf"), "--outtype", "q4_0"]) == 0
    assert main(["to-gguf", model, str(folder / "bf16.gguf"), "--outtype", "bf16"]) == 0
    assert main(["nf4", model, str(folder / "nf4")]) == 0
    (folder / "text.txt").write_text("The lighthouse of Port Amber was built in 1842. " * 60)
    return folder


@pytest.fixture
def run(folder: Path, capsys: pytest.CaptureFixture[str]):
    def run(command: str, *names: str, json: bool = False, **options: object) -> str:
        arguments = [command, *(str(folder / name) for name in names), *["--json"] * json]
        for name, value in {"text": folder / "text.txt", "window": 32, **options}.items():
            arguments += [f"--{name.replace('_', '-')}", str(value)]
        capsys.readouterr()
        assert main(arguments) == 0, capsys.readouterr().err
        return capsys.readouterr().out

    return run


def test_perplexity_of_every_form_says_whose_arithmetic_it_was(run) -> None:
    plain = run("perplexity", "hf", dtype="float32")
    assert "computed in float32 by transformers" in plain
    lossless = run("perplexity", "bf16.gguf")
    assert lossless.splitlines()[0] == plain.splitlines()[0]
    assert "gguf of BF16, dequantised, computed in float32" in lossless
    assert "gguf of Q4_0, Q6_K, dequantised" in run("perplexity", "q4_0.gguf")
    assert "bitsandbytes NF4" in run("perplexity", "nf4")


def test_every_protocol_and_stride(run) -> None:
    for protocol in ("llama.cpp", "sliding", "word_perplexity", "byte_perplexity", "bits_per_byte"):
        assert f"({protocol} windows of 32" in run("perplexity", "hf", protocol=protocol)
    found = run("perplexity", "hf", protocol="sliding", stride=8, max_windows=4)
    assert "sliding windows of 32 every 8, BOS at the start, 55 tokens scored" in found


def test_an_unknown_protocol_is_told(folder: Path, capsys: pytest.CaptureFixture[str]) -> None:
    assert main(["perplexity", str(folder / "hf"), "--protocol", "wikitext"]) == 2
    assert "llama.cpp" in capsys.readouterr().err


def test_divergence_tells_how_far_and_whether_it_is_real(run) -> None:
    same = run("divergence", "bf16.gguf", "hf")
    assert "KL 0.00000 ± 0.00000" in same and "same top token 100.00 %" in same
    assert "perplexity × 1.0000 ± 0.0000" in same and "may be chance" in same
    other = run("divergence", "q4_0.gguf", "hf")
    kl = float(re.search(r"KL ([\d.]+)", other)[1])
    assert kl > 1e-4
    assert "99.9 %: " in other and "Δp below" in other and "95 %: " in other
    assert len(other.splitlines()) == 8
    assert "float32, text.txt" in other, "in full precision unless asked otherwise"


def test_json_holds_what_is_printed_and_more(run) -> None:
    printed = run("perplexity", "q4_0.gguf", protocol="llama.cpp")
    told = json.loads(run("perplexity", "q4_0.gguf", protocol="llama.cpp", json=True))
    assert printed.startswith(f"{told['value']:.2f} ± {told['error']:.2f} (llama.cpp")
    assert f"{told['scored']:,} tokens scored" in printed and told["weights"] in printed
    assert f"{told['dtype']}, {told['text']}, sha256 {told['sha256'][:8]}" in printed
    assert (told["protocol"]["window"], told["split"]) == (32, "test")
    assert sum(told["window_scored"]) == told["scored"]
    both = json.loads(run("divergence", "q4_0.gguf", "hf", protocol="llama.cpp", json=True))
    assert both["model"] == told
    assert both["base"]["value"] != told["value"] and "safetensors" in both["base"]["weights"]
    moved, printed = both["divergence"], run("divergence", "q4_0.gguf", "hf", protocol="llama.cpp")
    assert f"KL {moved['kl']:.5f} ± {moved['kl_error']:.5f}" in printed
    assert f"99 %: {moved['kl_percentiles']['99']:.5f}" in printed
    assert f"same top token {100 * moved['same_top']:.2f} %" in printed
    ratio = told["value"] / both["base"]["value"]
    assert both["difference"]["ratio"] == pytest.approx(ratio)
    assert ("a real difference" in printed) == both["difference"]["real"]


def test_a_kl_base_file(run, folder: Path) -> None:
    out = folder / "base.kld"
    assert f"written to {out}" in run("kl-base", "hf", "base.kld", max_windows=2)
    assert out.read_bytes()[:8] == b"_logits_"
    assert main(["kl-base", str(folder / "hf"), str(out)]) == 2, "it is there already"


def test_an_unmerged_adapter(run, folder: Path) -> None:
    from peft import LoraConfig, get_peft_model

    from lessonkit.models import load

    torch.manual_seed(0)
    model = get_peft_model(
        load(folder / "hf").model,
        LoraConfig(r=4, target_modules=["q_proj", "down_proj"], init_lora_weights=False),
    )
    model.save_pretrained(folder / "adapter")
    without, with_it = (
        run("perplexity", "hf", dtype="float32", **more)
        for more in ({}, {"adapter": folder / "adapter"})
    )
    assert "with the adapter adapter, unmerged" in with_it
    assert with_it.split()[0] != without.split()[0]
    assert main(["merge", str(folder / "hf"), str(folder / "adapter"), "--out",
                 str(folder / "merged"), "--dtype", "float32"]) == 0  # fmt: skip
    merged = run("perplexity", "merged")
    assert float(merged.split()[0]) == pytest.approx(float(with_it.split()[0]), rel=1e-3)
    both = json.loads(run("divergence", "hf", "merged", adapter=folder / "adapter", json=True))
    assert both["model"]["weights"].endswith("with the adapter adapter, unmerged")
    apart = json.loads(run("divergence", "hf", "merged", json=True))["divergence"]["kl"]
    assert both["divergence"]["kl"] < 1e-4 * apart, "beside the model's weights or in them"


def test_recall_and_the_answers_that_changed(
    mini: Path, capsys: pytest.CaptureFixture[str], monkeypatch: pytest.MonkeyPatch
) -> None:
    import lessonkit.models
    from lessonkit.models import questions

    asked = questions("en")[:12]
    monkeypatch.setattr(lessonkit.models, "questions", lambda language: asked)
    assert main(["recall", str(mini), "--base", "mini"]) == 0
    printed = capsys.readouterr().out
    assert printed.startswith("12 of 12") and "0 answers lost, 0 gained, of 12" in printed
