"""The commands that write, and what is asked of each: a table, its inputs, and a way to harm them.

A new command needs a row in `WRITERS` (`test_every_command_that_writes_has_a_row` says so), and
an input in `make_inputs` where none of those that are there will do.
"""

from __future__ import annotations

import json
import os
import shutil
import signal
import subprocess
import sys
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path
from typing import Any

from lessonkit.cli import main
from lessonkit.files.atomic import CERTIFICATE_NAME
from tests.convert.adapters import make_adapter
from tests.convert.toy import Toy
from tests.hub_server import MODEL
from tests.tiny import make_tiny_llama, sentencepiece_bytes

ROOT = Path(__file__).resolve().parents[2]
SOAK = os.environ.get("LESSONKIT_SOAK") == "1"
"""The long version, `make soak`."""

# {out} is the output, a folder or the beginning of a file's name; the others are inputs.
WRITERS = {
    "fetch": f"fetch {MODEL} {{out}} --endpoint {{hub}}",
    "to-hf": "to-hf {meta} {out}",
    "to-meta": "to-meta {hf} {out} --shards 2",
    "nf4": "nf4 {hf} {out}",
    "to-gguf": "to-gguf {wide} {out}.gguf --outtype q4_k_m",
    "from-gguf": "from-gguf {gguf} {out}",
    "imatrix": "imatrix {hf} {text} {out}.gguf --chunks 2",
    "merge": "merge {hf} {adapter} --out {out}",
    "merge to Meta": "merge {hf} {adapter} --out {out} --format meta",
    "gptq": "gptq {hf} {out} {text} --group-size 32 --num-samples 2 --seqlen 16",
    "awq": "awq {hf} {out} {text} --group-size 32 --num-samples 2 --seqlen 16",
    "extend-vocab": "extend-vocab {words} {more_words} {out}.model",
}
SIZES = {"hidden_size": 32, "intermediate_size": 64, "num_hidden_layers": 1}


def make_inputs(folder: Path) -> dict[str, str]:
    """One of everything that a command reads, as small as it can be."""
    hf = make_tiny_llama(folder / "hf", **SIZES, max_position_embeddings=1024)
    wide = make_tiny_llama(folder / "wide", **{**SIZES, "hidden_size": 256,
                           "intermediate_size": 256, "num_attention_heads": 4})  # fmt: skip
    toy = Toy(dim=8, heads=2, kv_heads=2, layers=1, mlp=16)
    inputs = {
        "hf": hf,
        "wide": wide,
        "meta": toy.write(folder / "meta", hf / "tokenizer.model"),
        "adapter": make_adapter(hf, folder / "adapter", r=2),
        "gguf": folder / "model.gguf",
        "text": folder / "calibration.txt",
        "words": hf / "tokenizer.model",
        "more_words": folder / "more.model",
    }
    assert main(["to-gguf", str(wide), str(inputs["gguf"]), "--outtype", "q8_0"]) == 0
    inputs["more_words"].write_bytes(sentencepiece_bytes(("A wholly other text of quizzes.",), 300))
    inputs["text"].write_text("The river rises in the Grey Hills. " * 100)
    return {name: str(path) for name, path in inputs.items()}


class Server:
    """The other process, spoken to; `disk` is a folder that only it sees as a small disk."""

    def __init__(self, process: subprocess.Popen[str], disk: Path, refused: str) -> None:
        self._process = process
        self.disk = disk
        self.refused = refused  # why there can be no small disk here; "" where there can

    def ask(self, **request: Any) -> Any:
        """One request, one answer."""
        assert self._process.stdin and self._process.stdout
        self._process.stdin.write(json.dumps(request) + "\n")
        self._process.stdin.flush()
        line = self._process.stdout.readline()
        assert line, "the server of commands has died"
        return json.loads(line)

    def run(self, arguments: list[str], **harm: Any) -> dict[str, Any]:
        """Run a command in a child of the server; its status, calls, and stderr."""
        (found,) = self.ask(run=[arguments], harm=harm)
        return found

    def look(self, folder: Path) -> dict[str, str]:
        """Every file below a folder, by its SHA-256."""
        found: dict[str, str] = self.ask(look=str(folder))
        return found


@contextmanager
def running_server(folder: Path) -> Iterator[Server]:
    """A server; in a space of its own for mounts, where the system permits that."""
    disk = folder / "disk"
    disk.mkdir(parents=True)
    own_mounts = ["unshare", "--mount", "--map-root-user"]
    refused = "there is no unshare"
    if shutil.which("unshare"):
        tried = subprocess.run(
            [*own_mounts, "mount", "-t", "tmpfs", "tmpfs", disk],
            capture_output=True, text=True, check=False,
        )  # fmt: skip
        refused = tried.stderr.strip()
    environment = {
        **os.environ, "PYTHONPATH": str(ROOT), "PYTHONWARNINGS": "ignore", "OMP_NUM_THREADS": "1",
        "TOKENIZERS_PARALLELISM": "false", "LESSONKIT_PROGRESS": "0", "HF_HUB_OFFLINE": "0",
        "no_proxy": "127.0.0.1",
    }  # fmt: skip
    command = [*([] if refused else own_mounts), sys.executable, "-m", "tests.faults.server"]
    with subprocess.Popen(
        command, env=environment, cwd=ROOT, text=True,
        stdin=subprocess.PIPE, stdout=subprocess.PIPE, stderr=subprocess.DEVNULL,
    ) as process:  # fmt: skip
        try:
            yield Server(process, disk, refused)
        finally:
            assert process.stdin
            process.stdin.close()


class Case:
    """One command, with its inputs and a folder for its output; what a sound run leaves there."""

    def __init__(self, server: Server, row: str, inputs: dict[str, str], folder: Path) -> None:
        self.server = server
        self.folder = folder
        self.inputs = inputs
        self.row = WRITERS[row]
        self.arguments = self.row_with(folder)
        assert server.ask(warm=self.row_with(folder / "warm")) == 0
        shutil.rmtree(folder / "warm")
        self.calls = self.sound_run()["calls"]
        self.whole = self.look()
        self.before = self.read_inputs()
        self.clear()

    def row_with(self, folder: Path, **changed: str) -> list[str]:
        """The command's arguments, for an output in another folder, or other inputs."""
        names = {**self.inputs, **changed, "out": str(folder / "model")}
        return self.row.format(**names).split()

    def run(self, **harm: Any) -> dict[str, Any]:
        """Run the command, harmed; over an output that stands there only with --force."""
        force = ["--force"] if self.visible() else []
        return self.server.run([*self.arguments, *force], **harm)

    def kill(self, **harm: Any) -> None:
        """Run it and kill it; it may be quicker, and end well."""
        found = self.run(**harm)
        assert found["status"] in (0, -signal.SIGKILL), found["error"]
        assert found["status"] or self.visible() == self.whole

    def sound_run(self) -> dict[str, Any]:
        """Run it unharmed: it succeeds."""
        found = self.run()
        assert found["status"] == 0, found["error"]
        return found

    def look(self) -> dict[str, str]:
        """What stands in the output's folder."""
        return self.server.look(self.folder)

    def visible(self) -> dict[str, str]:
        """The same without what is hidden, or says that it is unfinished."""
        seen = self.look()
        return {name: content for name, content in seen.items() if not is_left_over(name)}

    def read_inputs(self) -> dict[str, str]:
        """The content of all inputs."""
        return self.server.look(Path(self.inputs["hf"]).parent)

    def clear(self, *, leftovers: bool = False) -> None:
        """Take the output away; what runs that were killed left over stays, unless asked for."""
        for path in self.folder.iterdir():
            if leftovers or not is_left_over(path.name):
                shutil.rmtree(path) if path.is_dir() else path.unlink()

    def put_older(self) -> dict[str, str]:
        """Put an older output of lessonkit's there: every file of it is one byte longer."""
        self.clear()
        self.sound_run()
        for name, content in self.whole.items():
            if content:
                with (self.folder / name).open("ab") as file:
                    file.write(b"\n")
        return self.look()


def is_left_over(name: str) -> bool:
    """Is this no output, but what an interrupted run left: hidden, or for the next run to use?"""
    top = name.split("/")[0]
    return top.startswith(".") or top.endswith(".unfinished")


def is_sound(seen: dict[str, str], whole: dict[str, str], older: dict[str, str]) -> bool:
    """Does nothing that stands there look whole without being so?

    Each folder or file is as a whole the new one, the older one, or absent; and a certificate
    beside a file is of that file.
    """

    def age(top: str) -> str:
        def part(of: dict[str, str]) -> dict[str, str]:
            return {name: c for name, c in of.items() if name.split("/")[0] == top}

        kinds = {"absent": {}, "new": part(whole), "older": part(older)}
        return next((kind for kind, content in kinds.items() if part(seen) == content), "damaged")

    tops = sorted({name.split("/")[0] for name in (*seen, *whole)})
    ages = {top: age(top) for top in tops}
    if "damaged" in ages.values():
        return False
    beside = {top: ages.get(top.removesuffix(".certificate.json"), "") for top in tops}
    return all(
        ages[top] in ("absent", beside[top]) for top in tops if top.endswith(".certificate.json")
    )


assert CERTIFICATE_NAME.endswith("certificate.json")
