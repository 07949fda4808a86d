"""The commands of lesson 04: merge, extend-vocab, chat."""

from __future__ import annotations

import io
import sys

import pytest

from lessonkit.cli import main
from tests.convert.adapters import make_adapter
from tests.tiny import make_tiny_llama, sentencepiece_bytes


@pytest.fixture(scope="module")
def base(tmp_path_factory):
    return make_tiny_llama(tmp_path_factory.mktemp("base"))


@pytest.fixture(scope="module")
def adapter(base, tmp_path_factory):
    return make_adapter(base, tmp_path_factory.mktemp("adapters") / "chat")


def test_merge_and_chat(base, adapter, tmp_path, capsys):
    out = str(tmp_path / "out")
    assert main(["merge", str(base), str(adapter), "--out", out, "--weights", "0.5"]) == 0
    printed = capsys.readouterr().out
    assert printed == (f"LoRA merge: 21 tensors: 7 bit-identical, 14 merged\nwritten to {out}\n")
    assert main(["verify", out]) == 0
    capsys.readouterr()
    asked = ["--prompt", "The river", "--max-tokens", "5"]
    assert main(["chat", out, "--template", "alpaca", *asked]) == 0
    told = capsys.readouterr()
    assert told.out.endswith("\n") and "warning" not in told.err  # the certificate names "chat"
    assert main(["chat", str(base), "--template", "alpaca", *asked]) == 0
    assert "warning: nothing says" in capsys.readouterr().err
    assert main(["chat", str(base), "--adapter", str(adapter), *asked]) == 0
    assert main(["merge", out, str(adapter), "--out", str(tmp_path / "no")]) == 2
    assert "holds the adapter chat already" in capsys.readouterr().err


def test_merge_to_metas_form(base, adapter, tmp_path, capsys):
    out = str(tmp_path / "meta")
    assert main(["merge", str(base), str(adapter), "--out", out, "--format", "meta"]) == 0
    assert main(["info", out]) == 0
    assert "form        Meta" in capsys.readouterr().out


def test_an_adapter_becomes_gguf(base, adapter, tmp_path, capsys):
    out = str(tmp_path / "adapter.gguf")
    assert main(["to-gguf", str(adapter), out, "--base", str(base)]) == 0
    assert capsys.readouterr().out == f"14 changed layers\nwritten to {out}\n"
    assert main(["info", out]) == 0
    assert main(["to-gguf", str(adapter), out]) == 2
    assert "is an adapter" in capsys.readouterr().err


def test_an_interactive_talk_ends_with_its_input(base, capsys, monkeypatch):
    monkeypatch.setattr(sys, "stdin", io.StringIO("The river\n/exit\n"))
    assert main(["chat", str(base), "--max-tokens", "3"]) == 0
    told = capsys.readouterr()
    assert told.out.startswith("> ") and "/exit" in told.err


def test_extend_vocab(tmp_path, capsys):
    for name, model in (
        ("a.model", sentencepiece_bytes()),
        ("b.model", sentencepiece_bytes(("很久以前有一条河", "山上有一座灯塔"), 300)),
    ):
        (tmp_path / name).write_bytes(model)
    paths = [str(tmp_path / name) for name in ("a.model", "b.model", "out.model")]
    assert main(["extend-vocab", *paths, "--token", "[PAD]"]) == 0
    assert "'[PAD]'" in capsys.readouterr().out
    assert main(["extend-vocab", *paths]) == 2  # the output exists
    assert main(["extend-vocab", *paths, "--force"]) == 0


def test_a_number_that_means_nothing(base, capsys):
    assert main(["chat", str(base), "--prompt", "x", "--top-p", "7"]) == 2
    assert "top_p is above 0" in capsys.readouterr().err
