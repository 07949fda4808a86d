"""The command line: exit status, what is printed where, and the tutorials' conversions."""

from __future__ import annotations

import os
import signal
import subprocess
import sys
from pathlib import Path

import pytest
import torch
from safetensors.torch import load_file, save_file

import lessonkit
from lessonkit.cli import main
from tests.convert.gguf_models import small_llama
from tests.convert.toy import Toy
from tests.hub_server import MODEL, running
from tests.tiny import make_tiny_llama, sentencepiece_bytes

ENVIRONMENT = {**os.environ, "PYTHONPATH": str(Path(lessonkit.__file__).parents[1])}


@pytest.fixture
def meta(tmp_path: Path) -> Path:
    folder = Toy(shards=2).write(tmp_path / "meta", None)
    (folder / "tokenizer.model").write_bytes(sentencepiece_bytes())
    return folder


def test_there_and_back_again(
    meta: Path, tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    hf, back = str(tmp_path / "hf"), str(tmp_path / "back")
    assert main(["to-hf", str(meta), hf]) == 0
    printed = capsys.readouterr().out
    assert "Meta to Hugging Face: 21 tensors: 21 bit-identical" in printed
    assert printed.endswith(f"written to {hf}\n")
    assert main(["compare", str(meta), hf]) == 0
    assert capsys.readouterr().out == "21 tensors: 21 bit-identical\n"
    assert main(["verify", hf]) == 0
    assert "21 of 21 tensors ok\nwhole and unaltered" in capsys.readouterr().out
    assert main(["to-meta", hf, back, "--shards", "2"]) == 0
    assert main(["compare", back, str(meta)]) == 0
    assert main(["verify", back]) == 0
    capsys.readouterr()
    for path, form in (
        (meta, "Meta, shown under Hugging Face's names (2 files)"),
        (hf, "safetensors (1 file)"),
    ):
        assert main(["info", str(path), "--tensors"]) == 0
        printed = capsys.readouterr().out
        assert form in printed and "stored as   bfloat16\n" in printed
        assert "shape       2 layers of width 64, feed-forward width 96, 4 heads, 2 for" in printed
        assert "BF16     400x64         model.embed_tokens.weight" in printed


def test_compare_says_no(meta: Path, tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    hf, half = str(tmp_path / "hf"), str(tmp_path / "half")
    main(["to-hf", str(meta), hf])
    main(["to-hf", str(meta), half, "--dtype", "float16"])
    capsys.readouterr()
    assert main(["compare", hf, half]) == 1
    assert "21 tensors differ by more than was asked for" in capsys.readouterr().out
    assert main(["compare", hf, half, "--allow-cast"]) == 0
    assert main(["compare", hf, half, "--tolerance", "0.1"]) == 0
    file = tmp_path / "hf" / "model.safetensors"
    tensors = load_file(file)
    tensors["model.norm.weight"][3] += 1
    save_file(tensors, file)
    capsys.readouterr()
    assert main(["compare", str(meta), hf]) == 1
    assert "model.norm.weight: different (1 of 64 values changed" in capsys.readouterr().out
    assert main(["verify", hf]) == 1
    printed = capsys.readouterr().out
    assert "altered  model.norm.weight" in printed and "NOT what it should be" in printed


def test_compare_of_names_that_have_nothing_in_common(
    meta: Path, tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    main(["to-hf", str(meta), str(tmp_path / "hf")])
    capsys.readouterr()
    assert main(["compare", str(meta / "consolidated.00.pth"), str(tmp_path / "hf")]) == 1
    printed = capsys.readouterr().out
    assert "22 only in A, 21 only in B" in printed and len(printed.splitlines()) == 2
    assert "name Meta's files by their folder" in printed


def test_the_embedded_model_by_its_name(
    mini: Path, tmp_path: Path, capsys: pytest.CaptureFixture[str], monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.chdir(tmp_path)
    assert main(["info", "mini"]) == 0
    assert "shape       5 layers of width 256" in capsys.readouterr().out
    assert main(["verify", "mini"]) == 0
    assert "6 of 6 files ok\nwhole and unaltered" in capsys.readouterr().out
    assert main(["to-meta", "mini", "meta", "--shards", "2"]) == 0
    assert main(["compare", "mini", "meta"]) == 0
    assert "bit-identical" in capsys.readouterr().out
    for command in (["to-hf", "mini", "out"], ["to-meta", "meta", "out"]):
        assert main(command) == 2
        assert "form already" in capsys.readouterr().err
    assert [path.name for path in tmp_path.iterdir()] == ["meta"]


def test_fetch(
    tmp_path: Path, capsys: pytest.CaptureFixture[str], monkeypatch: pytest.MonkeyPatch
) -> None:
    from huggingface_hub import constants

    monkeypatch.setattr(constants, "HF_HUB_OFFLINE", False)
    monkeypatch.delenv("HF_HUB_OFFLINE", raising=False)
    out = str(tmp_path / "out")
    files = {path.name: path.read_bytes() for path in make_tiny_llama(tmp_path / "tiny").iterdir()}
    with running(files) as hub:
        command = ["fetch", MODEL, out, "--endpoint", hub.address]
        assert main([*command, "--revision", "v2"]) == 0
        assert any("/revision/v2" in line for line in hub.requests)
        printed = capsys.readouterr().out
        assert "ok       model.safetensors  (sha256)" in printed
        assert printed.endswith(f"written to {out}\n")
        assert main(command) == 2 and main([*command, "--force"]) == 0
        hub.dead = True
        assert main([*command, "--force"]) == 2
        assert "--endpoint" in capsys.readouterr().err
    assert main(["verify", out]) == 0
    assert "whole and unaltered" in capsys.readouterr().out


def test_verify_with_lists(meta: Path, capsys: pytest.CaptureFixture[str]) -> None:
    assert main(["verify", str(meta)]) == 0
    assert "as it was written" in capsys.readouterr().out
    (meta / "checklist.chk").write_text(f"{'0' * 32}  params.json\n{'0' * 32}  gone.pth\n")
    assert main(["verify", str(meta)]) == 1
    printed = capsys.readouterr().out
    assert "altered  params.json" in printed and "missing  gone.pth" in printed
    assert main(["verify", str(meta), "--checklist", str(meta / "nowhere")]) == 2


def test_errors_have_three_lines_and_no_traceback(
    tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    for command in (
        ["info", "nowhere"],
        ["verify", str(tmp_path)],
        ["compare", "nowhere", "nowhere"],
        ["to-hf", "nowhere", str(tmp_path / "out")],
        ["to-meta", str(tmp_path), str(tmp_path / "out")],
        ["nf4", str(tmp_path), str(tmp_path / "out")],
        ["perplexity", "nowhere", "--text", "nowhere"],
    ):
        assert main(command) == 2, command
        printed = capsys.readouterr()
        assert not printed.out
        lines = printed.err.splitlines()
        assert lines[-1].startswith("  what to do: "), command
        assert lines[-2].startswith("  where: "), command
        assert "Traceback" not in printed.err
    assert not list(tmp_path.iterdir())


def test_a_file_in_a_folders_place_and_a_folder_in_a_files(
    tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    file = tmp_path / "a.gguf"
    file.write_bytes(b"GGUF")
    out = str(tmp_path / "out")
    for command in ("to-meta", "nf4"):
        assert main([command, str(file), out]) == 2
        assert f"but this is a file.\n  where: {file}\n" in capsys.readouterr().err
    assert main(["chat", str(file), "--prompt", "?"]) == 2
    assert "lessonkit serve" in capsys.readouterr().err
    (tmp_path / "empty").mkdir()
    assert main(["from-gguf", str(tmp_path / "empty"), out]) == 2
    assert "holds no GGUF file" in capsys.readouterr().err
    assert main(["info", "Mini"]) == 2
    assert "The embedded model is mini" in capsys.readouterr().err


def test_a_name_that_is_taken_is_refused_before_the_work_and_by_that_name(
    mini: Path, tmp_path: Path, capsys: pytest.CaptureFixture[str], monkeypatch: pytest.MonkeyPatch
) -> None:
    out = tmp_path / "out.gguf"
    assert main(["to-gguf", "mini", str(out)]) == 0
    capsys.readouterr()
    assert main(["to-gguf", "mini", str(out)]) == 2
    assert f"exists already; nothing was written.\n  where: {out}\n" in capsys.readouterr().err

    def measured(*_: object, **__: object) -> None:
        raise AssertionError("it began to measure")

    monkeypatch.setattr("lessonkit.convert.imatrix.collect_imatrix", measured)
    assert main(["imatrix", "mini", "island", str(out)]) == 2
    assert f"where: {out}\n" in capsys.readouterr().err


@pytest.mark.parametrize(
    "command",
    [
        ["to-hf"],
        ["nonsense"],
        ["nf4", "a", "b", "--type", "x"],
        ["recall", "mini", "--language", "xx"],
        ["compare", "a", "b", "--tolerance", "-1"],
        ["perplexity", "mini", "--split", "train"],
        ["perplexity", "mini", "--stride", "8"],
        ["perplexity", "mini", "--stride", "8", "--protocol", "sliding"],
        ["divergence", "mini"],
        ["serve", "mini", "--port", "65536"],
        ["share", "mini", "you/mini", "--relation", "copied"],
    ],
)
def test_wrong_arguments(command: list[str], capsys: pytest.CaptureFixture[str]) -> None:
    with pytest.raises(SystemExit) as caught:
        main(command)
    assert caught.value.code == 2
    assert "usage: lessonkit" in capsys.readouterr().err


def test_options_of_the_conversions(meta: Path, tmp_path: Path) -> None:
    import json

    (tmp_path / "words.model").write_bytes((meta / "tokenizer.model").read_bytes())
    (meta / "tokenizer.model").unlink()
    out = tmp_path / "out"
    command = ["to-hf", str(meta), str(out), "--context", "99"]
    assert main(command) == 2
    assert main([*command, "--tokenizer", str(tmp_path / "words.model")]) == 0
    assert main([*command, "--tokenizer", str(tmp_path / "words.model")]) == 2
    assert main([*command, "--tokenizer", str(tmp_path / "words.model"), "--force"]) == 0
    assert json.loads((out / "config.json").read_text())["max_position_embeddings"] == 99


def test_nf4_and_measures(tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    model = make_tiny_llama(tmp_path / "tiny")
    assert main(["nf4", str(model), str(tmp_path / "nf4"), "--double-quant"]) == 0
    assert "quantised" in capsys.readouterr().out
    (tmp_path / "text.txt").write_text("The lighthouse of Port Amber was built in 1842. " * 40)
    command = ["perplexity", str(model), "--text", str(tmp_path / "text.txt"), "--window", "32"]
    assert main([*command, "--max-windows", "3"]) == 0
    assert "93 tokens scored" in capsys.readouterr().out


def test_help_is_quick_and_light() -> None:
    script = (
        "import sys\nfrom lessonkit.cli import main\n"
        "try:\n    main(['--help'])\nexcept SystemExit:\n    pass\n"
        "heavy = {'torch', 'transformers', 'numpy', 'huggingface_hub'} & set(sys.modules)\n"
        "print('loaded:', sorted(heavy))"
    )
    run = subprocess.run(
        [sys.executable, "-c", script], capture_output=True, text=True, env=ENVIRONMENT, check=True
    )
    assert run.stdout.endswith("loaded: []\n")


def test_conversions_do_not_load_torch(meta: Path, tmp_path: Path) -> None:
    script = (
        "import sys\nfrom lessonkit.cli import main\n"
        f"assert main(['to-hf', {str(meta)!r}, {str(tmp_path / 'hf')!r}]) == 0\n"
        f"assert main(['to-meta', {str(tmp_path / 'hf')!r}, {str(tmp_path / 'm')!r}]) == 0\n"
        f"assert main(['compare', {str(tmp_path / 'hf')!r}, {str(tmp_path / 'm')!r}]) == 0\n"
        "print('loaded:', sorted({'torch', 'transformers'} & set(sys.modules)))"
    )
    run = subprocess.run(
        [sys.executable, "-c", script], capture_output=True, text=True, env=ENVIRONMENT, check=True
    )
    assert run.stdout.endswith("loaded: []\n")


WAITING = """
import sys, time
from lessonkit.cli import main
from lessonkit.files.writer import ShardWriter

add = ShardWriter.add

def wait_after_one(self, *arguments):
    add(self, *arguments)
    print("one tensor", flush=True)
    time.sleep(60)

ShardWriter.add = wait_after_one
sys.exit(main(sys.argv[1:]))
"""


def test_interrupted(meta: Path, tmp_path: Path) -> None:
    """Ctrl-C in the middle of a conversion: status 130, one line, nothing left."""
    out = tmp_path / "outputs"
    out.mkdir()
    with subprocess.Popen(
        [sys.executable, "-c", WAITING, "to-hf", str(meta), str(out / "hf")],
        stdout=subprocess.PIPE, stderr=subprocess.PIPE, text=True, env=ENVIRONMENT,
    ) as run:  # fmt: skip
        assert run.stdout is not None and run.stdout.readline() == "one tensor\n"
        assert list(out.glob(".hf.partial-*/new/*"))
        run.send_signal(signal.SIGINT)
        _, errors = run.communicate()
    assert run.returncode == 130
    assert errors == "interrupted; no unfinished output was kept\n"
    assert not list(out.iterdir())


def test_a_reader_that_stops_early(meta: Path) -> None:
    command = f"{sys.executable} -m lessonkit.cli info {meta} --tensors | head -1"
    run = subprocess.run(
        ["bash", "-c", f"set -o pipefail; {command}"], capture_output=True, text=True,
        env=ENVIRONMENT, check=False,
    )  # fmt: skip
    assert run.returncode == 0 and run.stdout.startswith("form") and not run.stderr


def test_version(capsys: pytest.CaptureFixture[str]) -> None:
    with pytest.raises(SystemExit):
        main(["--version"])
    assert capsys.readouterr().out.strip() == lessonkit.__version__


def test_a_pickle_with_code_in_it(tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    class Runs:
        def __reduce__(self) -> tuple[object, ...]:
            return (print, ("owned",))

    torch.save({"a": Runs()}, tmp_path / "pytorch_model.bin")
    assert main(["info", str(tmp_path)]) == 2
    printed = capsys.readouterr()
    assert "owned" not in printed.out and "print" in printed.err


def test_an_unknown_option_is_told_with_the_commands_own_usage(
    capsys: pytest.CaptureFixture[str],
) -> None:
    with pytest.raises(SystemExit):
        main(["info", "mini", "--nonsense"])
    assert capsys.readouterr().err.startswith("usage: lessonkit info")


def test_what_is_named_is_measured_whatever_the_variable_says(
    tmp_path: Path, capsys: pytest.CaptureFixture[str], monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setenv("LESSONKIT_MODEL", "mini")
    for command in (["perplexity"], ["recall"], ["divergence", "mini"], ["kl-base", "out"]):
        assert main([command[0], "./nowhere", *command[1:]]) == 2
        assert "nowhere" in capsys.readouterr().err


def test_force_deletes_nothing_of_a_strangers(
    tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    (tmp_path / "full").mkdir()
    (tmp_path / "full" / "important.txt").write_text("mine")
    assert main(["to-meta", "mini", str(tmp_path / "full"), "--force"]) == 2
    assert "would delete important.txt" in capsys.readouterr().err
    assert (tmp_path / "full" / "important.txt").read_text() == "mine"


def test_verify_says_no_to_a_file_that_is_cut_off(
    tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    model = make_tiny_llama(tmp_path / "tiny")
    weights = model / "model.safetensors"
    weights.write_bytes(weights.read_bytes()[:-10])
    assert main(["verify", str(model)]) == 1
    assert "damaged  model.safetensors" in capsys.readouterr().out


def test_compare_lists_only_what_is_beyond_and_knows_swapped_arguments(
    meta: Path, tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    hf, half = str(tmp_path / "hf"), str(tmp_path / "half")
    assert main(["to-hf", str(meta), hf, "--dtype", "float32"]) == 0
    assert main(["to-hf", str(meta), half, "--dtype", "float16"]) == 0
    capsys.readouterr()
    assert main(["compare", hf, half, "--allow-cast"]) == 0
    assert len(capsys.readouterr().out.splitlines()) == 1
    file = tmp_path / "half" / "model.safetensors"
    tensors = {name: t + 1e-9 for name, t in load_file(tmp_path / "hf/model.safetensors").items()}
    save_file(tensors, tmp_path / "hf" / "model.safetensors")
    save_file({name: t.half() for name, t in tensors.items()}, file)
    assert main(["compare", half, hf, "--allow-cast"]) in (0, 1)
    capsys.readouterr()


def test_gguf_there_and_back(
    tmp_path: Path, capsys: pytest.CaptureFixture[str], monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.chdir(tmp_path)
    assert main(["plan", "mini"]) == 0
    assert "Q4_K_M" in capsys.readouterr().out.upper()
    assert main(["to-gguf", "mini", "mini.gguf"]) == 0
    assert "bit-identical" in capsys.readouterr().out
    assert main(["info", "mini.gguf"]) == 0
    assert "form        gguf" in capsys.readouterr().out
    assert main(["verify", "mini.gguf"]) == 0
    assert main(["compare", "mini", "mini.gguf", "--allow-cast"]) == 0  # norms are kept in F32
    assert main(["from-gguf", "mini.gguf", "back"]) == 0
    assert main(["compare", "mini", "back", "--allow-cast"]) == 0
    assert main(["to-gguf", "mini", "mini.gguf"]) == 2  # it is there already
    command = ["to-gguf", "mini", "other.gguf", "--outtype", "q4_k_m"]
    assert main([*command, "--tensor-type", "attn_k=q8_0"]) == 0
    assert main(["info", "other.gguf", "--tensors"]) == 0
    assert "Q8_0     128x256        model.layers.0.self_attn.k_proj" in capsys.readouterr().out
    assert main(["to-gguf", "mini", "q.gguf", "--outtype", "q4_k_m"]) == 0
    assert main(["to-gguf", "mini", "p.gguf", "--split-max-size", "4M"]) == 0
    assert "parts; a program is given the first, p-00001-of-" in capsys.readouterr().out
    with pytest.raises(SystemExit):
        main(["to-gguf", "mini", "p.gguf", "--split-max-size", "4"])
    assert "not a size such as 500M" in capsys.readouterr().err
    capsys.readouterr()
    assert main(["explain", "q.gguf", "--source", "mini"]) == 0
    assert "q4_k_m" in capsys.readouterr().out.lower()
    raw = bytearray((tmp_path / "q.gguf").read_bytes())
    raw[-200] ^= 1
    (tmp_path / "q.gguf").write_bytes(raw)
    assert main(["explain", "q.gguf", "--source", "mini"]) == 1


def test_an_importance_matrix(tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    model = small_llama(tmp_path / "model", max_position_embeddings=512)
    (tmp_path / "text.txt").write_text("The river rises in the Grey Hills. " * 100)
    matrix, out = str(tmp_path / "matrix.gguf"), str(tmp_path / "q.gguf")
    assert main(["imatrix", str(model), str(tmp_path / "text.txt"), matrix, "--chunks", "2"]) == 0
    assert "14 weights, 2 chunks of Text(text.txt/calibration/en" in capsys.readouterr().out
    command = ["to-gguf", str(model), out, "--outtype", "q4_k_m"]
    assert main([*command, "--imatrix", matrix]) == 0
    assert main(["explain", out, "--source", str(model), "--imatrix", matrix]) == 0
    assert "with the importance matrix" in capsys.readouterr().out


def test_what_only_begins_like_gguf(tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    (tmp_path / "model.gguf").write_bytes(b"GGUF" + bytes(100))
    assert main(["info", str(tmp_path / "model.gguf")]) == 2
    assert "The file has the version 0" in capsys.readouterr().err


def test_four_bits_load_without_a_word(tmp_path: Path) -> None:
    """In a fresh interpreter: bitsandbytes has its say when it is imported."""
    model = make_tiny_llama(tmp_path / "tiny")
    assert main(["nf4", str(model), str(tmp_path / "nf4")]) == 0
    (tmp_path / "text.txt").write_text("The lighthouse of Port Amber was built in 1842. " * 40)
    done = subprocess.run(
        [sys.executable, "-m", "lessonkit.cli", "perplexity", str(tmp_path / "nf4"),
         "--text", str(tmp_path / "text.txt"), "--window", "32", "--max-windows", "2"],
        capture_output=True, text=True, env=ENVIRONMENT, check=False,
    )  # fmt: skip
    assert done.returncode == 0 and done.stderr == ""
