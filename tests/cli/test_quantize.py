"""The commands gptq and awq, and to-gguf with GPTQ: options old and new, and what is refused."""

from __future__ import annotations

import json
from pathlib import Path

import pytest

from lessonkit.cli import main
from tests.tiny import SENTENCES, make_tiny_llama

SMALL = ["--num-samples", "4", "--seqlen", "32"]


@pytest.fixture(scope="module")
def folder(tmp_path_factory: pytest.TempPathFactory) -> Path:
    root = tmp_path_factory.mktemp("quantize")
    make_tiny_llama(root / "tiny")
    (root / "text.txt").write_text("\n".join(SENTENCES * 4), encoding="utf-8")
    rows = [json.dumps({"text": sentence}) for sentence in SENTENCES * 4]
    (root / "text.jsonl").write_text("\n".join(rows), encoding="utf-8")
    return root


def said(out: Path) -> dict:
    return json.loads((out / "config.json").read_text())["quantization_config"]


def test_the_tutorials_command(
    folder: Path, tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    out = tmp_path / "out"
    command = ["gptq", str(folder / "tiny"), str(out), str(folder / "text.txt")]
    command += [
        "--bits",
        "4",
        "--group_size",
        "32",
        "--desc_act",
        "0",
        "--damp",
        "0.1",
        "--dtype",
        "float16",
    ]
    command += ["--seqlen", "32", "--num_samples", "4", "--use_fast"]
    assert main(command) == 0
    printed = capsys.readouterr().out
    assert "14 quantised" in printed and printed.endswith(f"written to {out}\n")
    config = said(out)
    assert (config["bits"], config["group_size"], config["damp_percent"]) == (4, 32, 0.1)
    assert config["desc_act"] is False and config["sym"] is True
    assert json.loads((out / "config.json").read_text())["torch_dtype"] == "float16"
    assert main(["verify", str(out)]) == 0
    assert main(["info", str(out)]) == 0
    assert "GPTQ (4 bits, groups of 32)" in capsys.readouterr().out


def test_every_option_of_gptq(folder: Path, tmp_path: Path) -> None:
    command = ["gptq", str(folder / "tiny"), str(tmp_path / "out"), str(folder / "text.jsonl")]
    command += [
        "--bits",
        "3",
        "--group-size",
        "-1",
        "--desc-act",
        "1",
        "--static-groups",
        "1",
        "--sym",
        "0",
    ]
    command += [
        "--true-sequential",
        "0",
        "--mse",
        "2.4",
        "--version",
        "2",
        "--seed",
        "3",
        "--device",
        "cpu",
    ]
    command += ["--compute-dtype", "bfloat16", "--activations-on-disk"]
    assert main([*command, *SMALL]) == 0
    config = said(tmp_path / "out")
    assert (config["bits"], config["group_size"], config["desc_act"]) == (3, -1, True)
    assert (config["sym"], config["static_groups"], config["true_sequential"]) == (
        False,
        True,
        False,
    )
    assert config["checkpoint_format"] == "gptq_v2" and config["meta"]["mse"] == 2.4
    assert main([*command, *SMALL]) == 2  # it is there already
    assert main([*command, *SMALL, "--force"]) == 0


def test_awq(folder: Path, tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    command = ["awq", str(folder / "tiny"), str(tmp_path / "out"), str(folder / "text.txt")]
    command += [
        "--group_size",
        "32",
        "--duo-scaling",
        "0",
        "--clip",
        "0",
        "--repeated-heads",
        "leave",
    ]
    command += ["--inputs", "quantized", "--score", "block", "--dtype", "float16"]
    assert main([*command, *SMALL]) == 0
    assert "Hugging Face to AWQ" in capsys.readouterr().out
    assert said(tmp_path / "out")["version"] == "gemm"


def test_to_gguf_with_gptq(
    folder: Path, tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    command = ["to-gguf", str(folder / "tiny"), str(tmp_path / "out.gguf"), "--method", "gptq"]
    command += ["--calibration", str(folder / "text.txt"), *SMALL]
    assert main([*command, "--outtype", "q4_0"]) == 0
    assert (tmp_path / "out.gguf").is_file()
    assert main([*command, "--outtype", "q8_0", "--force"]) == 2
    assert "for q4_0 only" in capsys.readouterr().err


def test_what_is_told(folder: Path, tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    for name in ("gptq", "awq"):
        command = [name, str(folder / "tiny"), str(tmp_path / "out")]
        assert main([*command, "wikitext:test"]) == 2
        assert "spoil the perplexity" in capsys.readouterr().err
        assert main([*command, str(folder / "text.txt")]) == 2
        assert "are missing" in capsys.readouterr().err
        assert main([*command, str(folder / "text.txt"), *SMALL]) == 2
        assert "do not fill rows of 64" in capsys.readouterr().err
    assert not list(tmp_path.iterdir())
    with pytest.raises(SystemExit):
        main(["gptq", str(folder / "tiny"), str(tmp_path / "out"), "--desc-act", "yes"])
    assert "neither 0 nor 1" in capsys.readouterr().err
