"""The command line as a whole: its order, its examples, --quiet, --json, completion."""

from __future__ import annotations

import argparse
import json
import os
import re
import shlex
import shutil
import signal
import subprocess
import sys
import urllib.request
from pathlib import Path

import pytest

import lessonkit
from lessonkit.cli import build_parser, commands_of, main
from lessonkit.cli.journey import STEPS, example_of
from tests.tiny import make_tiny_llama

ENVIRONMENT = {**os.environ, "PYTHONPATH": os.pathsep.join(
    [str(Path(lessonkit.__file__).parents[1]), os.environ.get("PYTHONPATH", "")])}  # fmt: skip
COMMANDS = commands_of(build_parser())


def test_alone_it_shows_the_way(capsys: pytest.CaptureFixture[str]) -> None:
    assert main([]) == 0
    printed = capsys.readouterr().out
    places = [printed.index(f"\n  {name} ") for name in COMMANDS if name in order()]
    assert len(places) == len(COMMANDS)
    in_order = [printed.index(f"\n  {name} ") for name in order() if name in COMMANDS]
    assert in_order == sorted(in_order)


def order() -> list[str]:
    return [name for step in STEPS.values() for name in step]


def test_every_command_has_its_place_and_every_place_a_command() -> None:
    assert sorted(COMMANDS) == sorted(set(order()))


@pytest.mark.parametrize("name", COMMANDS)
def test_help_shows_an_example_that_can_be_typed(name: str) -> None:
    example = example_of(name)
    assert example and example in COMMANDS[name].format_help()
    words = shlex.split(example.partition(" > ")[0])
    assert words[:2] == ["lessonkit", name]
    options = build_parser().parse_args(words[1:])
    assert callable(options.run)


@pytest.mark.parametrize("name", COMMANDS)
def test_what_means_the_same_is_called_the_same(name: str) -> None:
    found = {o: a for a in COMMANDS[name]._actions for o in a.option_strings}
    assert isinstance(found["--quiet"], argparse._StoreTrueAction)
    for flag in ("--json", "--force", "--dry-run"):
        assert flag not in found or isinstance(found[flag], argparse._StoreTrueAction)
    assert all(a.help or a.metavar or a.choices for a in COMMANDS[name]._actions)


def test_quiet_leaves_the_status_and_errors(
    tmp_path: Path, capsys: pytest.CaptureFixture[str], monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setenv("LESSONKIT_PROGRESS", "0")
    model, out = make_tiny_llama(tmp_path / "tiny"), tmp_path / "tiny.gguf"
    assert main(["to-gguf", str(model), str(out), "--quiet"]) == 0
    assert main(["compare", str(model), str(out), "-q"]) == 1
    assert main(["verify", str(out), "-q"]) == 0
    printed = capsys.readouterr()
    assert (printed.out, printed.err) == ("", "")
    assert main(["info", str(tmp_path / "nowhere"), "-q"]) == 2
    assert "what to do" in capsys.readouterr().err


def test_json_for_scripts(tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    model, out = make_tiny_llama(tmp_path / "tiny"), tmp_path / "tiny.gguf"
    assert main(["to-gguf", str(model), str(out), "--outtype", "q8_0"]) == 0
    capsys.readouterr()

    def told(*command: str, status: int = 0) -> dict:
        assert main([*command, "--json"]) == status
        found: dict = json.loads(capsys.readouterr().out)
        return found

    assert told("plan", "mini")["outputs"]["q8_0"]["nbytes"] > 1_000_000
    info = told("info", str(out))
    assert info["form"] == "gguf" and info["parameters"] > 1000
    assert info["tensors"]["model.norm.weight"] == {"dtype": "F32", "shape": [64]}
    findings = told("verify", str(out))["findings"]
    assert {f["verdict"] for found in findings.values() for f in found} == {"ok"}
    origins = told("explain", str(out), "--source", str(model))["origins"]
    assert all(each["made_from"] for each in origins)
    matches = told("compare", str(model), str(out), status=1)["matches"]
    assert {m["kind"] for m in matches} >= {"different"}


@pytest.mark.skipif(shutil.which("bash") is None, reason="there is no bash")
def test_bash_completes_commands_and_options() -> None:
    pytest.importorskip("shtab")
    script = subprocess.run(
        [sys.executable, "-m", "lessonkit.cli", "completion", "bash"],
        capture_output=True, text=True, env=ENVIRONMENT, check=True,
    ).stdout  # fmt: skip
    (function,) = re.findall(r"^complete .*-F (\S+) lessonkit$", script, re.M)
    for typed, expected in ((["to-"], {"to-hf", "to-meta", "to-gguf"}),
                            (["plan", "--js"], {"--json"})):  # fmt: skip
        words = " ".join(["lessonkit", *typed])
        run = subprocess.run(
            ["bash", "-c", f"{script}\nCOMP_WORDS=({words}); COMP_CWORD={len(typed)}; {function};"
             'printf "%s\\n" "${COMPREPLY[@]}"'],
            capture_output=True, text=True, check=True,
        )  # fmt: skip
        assert {word.strip() for word in run.stdout.split()} == expected


def test_completion_without_its_library(
    capsys: pytest.CaptureFixture[str], monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setitem(sys.modules, "shtab", None)
    assert main(["completion", "zsh"]) == 2
    assert "pip install shtab" in capsys.readouterr().err


def test_share_shows_everything_and_sends_nothing(
    tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    model, measured = make_tiny_llama(tmp_path / "tiny"), tmp_path / "score.txt"
    measured.write_text("perplexity 12.3, protocol gptq\n")
    out = str(tmp_path / "tiny.gguf")
    assert main(["to-gguf", str(model), out, "-q"]) == 0
    command = ["share", out, "you/tiny", "--base", "you/base", "--measured", str(measured)]
    assert main([*command, "--dry-run"]) == 0
    printed = capsys.readouterr().out
    for part in ("whole and unaltered", "tiny.gguf.certificate.json", "base_model: you/base",
                 "perplexity 12.3, protocol gptq", "dry run: nothing was sent"):  # fmt: skip
        assert part in printed
    assert main([*command, "--dry-run", "--measured", str(tmp_path / "nowhere")]) == 2
    assert "cannot be read" in capsys.readouterr().err
    assert main(command) == 2  # nobody is there to say yes
    assert "Nothing was sent" in capsys.readouterr().err
    raw = bytearray(Path(out).read_bytes())
    raw[-1] ^= 1
    Path(out).write_bytes(raw)
    assert main([*command, "--dry-run"]) == 1
    assert "altered" in capsys.readouterr().out


def test_serve_until_it_is_told_to_end(mini: Path, tmp_path: Path) -> None:
    pytest.importorskip("xllamacpp")
    with subprocess.Popen(
        [sys.executable, "-m", "lessonkit.cli", "serve", "mini", "--port", "0", "--json",
         "--threads", "1"],
        stdout=subprocess.PIPE, stderr=subprocess.PIPE, text=True,
        env={**ENVIRONMENT, "TMPDIR": str(tmp_path)},
    ) as run:  # fmt: skip
        assert run.stdout is not None
        found = json.loads(run.stdout.readline())
        assert [p.name for p in tmp_path.glob("lessonkit-serve-*/model.gguf")] == ["model.gguf"]
        with urllib.request.urlopen(f"{found['address']}/health") as answer:
            assert json.loads(answer.read()) == {"status": "ok"}
        run.send_signal(signal.SIGTERM)
        _, errors = run.communicate(timeout=60)
    assert run.returncode == 0 and errors == ""
    assert not list(tmp_path.glob("lessonkit-serve-*"))


def test_a_key_comes_from_a_file_and_never_from_the_command_line(
    tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    pytest.importorskip("xllamacpp")
    assert "--api-key" not in {
        option for action in COMMANDS["serve"]._actions for option in action.option_strings
    }
    key = tmp_path / "key"
    for text, problem in (("", "one word"), ("two words\n", "one word"), (None, "cannot be read")):
        if text is None:
            key.unlink()
        else:
            key.write_text(text)
        assert main(["serve", "mini", "--api-key-file", str(key)]) == 2
        assert problem in capsys.readouterr().err
    assert main(["serve", "mini", "--host", "0.0.0.0"]) == 2
    assert "--api-key-file" in capsys.readouterr().err
