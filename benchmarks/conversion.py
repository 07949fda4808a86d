"""Meta to Hugging Face: lessonkit, transformers 4.47.1's converter and `cp`, side by side.

    python benchmarks/conversion.py [--shape tinyllama|7b|toy] [--rounds 3] [--folder DIR]

Random weights in the shape of TinyLlama-1.1B (2.2 GB, bf16) are written once; each contender
then makes its output from them in turn, round by round, as a whole process, until the bytes
are on the disk. Printed are the best time, the CPU time, and the peak of anonymous memory:
the memory that the process really needs, without the mapped pages of the files it reads,
which the system takes back at will. `cp` is followed by a sync of the copy.
The reference needs the environment that `make interop` builds; else it is left out.
"""

from __future__ import annotations

import argparse
import json
import os
import shutil
import subprocess
import sys
import tempfile
import time
from collections.abc import Iterator
from dataclasses import dataclass
from pathlib import Path

import numpy as np

from lessonkit.convert.llama_configs import meta_params
from lessonkit.convert.llama_shape import LlamaShape
from lessonkit.convert.meta_layout import pairs
from lessonkit.files.dtypes import Array, cast
from lessonkit.files.torch_file import write_torch_file

ROOT = Path(__file__).resolve().parents[1]
REFERENCE = ROOT / ".interop" / "transformers-4.47.1" / "bin" / "python"
SHAPES = {
    "toy": LlamaShape(512, 4, 8, 4, 1024, 32000, 1e-5),
    "tinyllama": LlamaShape(2048, 22, 32, 4, 5632, 32000, 1e-5),
    "7b": LlamaShape(4096, 32, 32, 32, 11008, 32000, 1e-5),
}


@dataclass
class Run:
    """One run of one contender: seconds, CPU seconds, peaks in bytes."""

    wall: float
    cpu: float
    anonymous: int
    resident: int


def write_source(folder: Path, shape: LlamaShape, tokenizer: Path) -> Path:
    """A Meta checkpoint with random weights in one file."""
    folder.mkdir(parents=True)
    random = np.random.default_rng(0)

    def tensors() -> Iterator[tuple[str, str, Array]]:
        for pair in pairs(shape.layers):
            values = random.standard_normal(shape.shape_of(pair), dtype=np.float32)
            yield pair.meta, "BF16", cast(values * np.float32(0.02), "F32", "BF16")

    with (folder / "consolidated.00.pth").open("wb") as file:
        write_torch_file(file, tensors())
        os.fsync(file.fileno())
    (folder / "params.json").write_text(json.dumps(meta_params(shape)))
    shutil.copy(tokenizer, folder / "tokenizer.model")
    return folder


def contenders(source: Path, out: Path) -> dict[str, list[str]]:
    """The command of each; all write to `out`."""
    file = source / "consolidated.00.pth"
    commands = {
        "cp + sync": ["sh", "-c", f"cp --reflink=never '{file}' '{out}' && sync '{out}'"],
        "lessonkit": [sys.executable, "-m", "lessonkit.cli", "to-hf", str(source), str(out)],
    }
    if REFERENCE.is_file():
        module = "transformers.models.llama.convert_llama_weights_to_hf"
        convert = (
            f"'{REFERENCE}' -m {module} --input_dir '{source}' --output_dir '{out}' "
            "--num_shards 1 --llama_version 2"
        )
        commands["transformers 4.47.1"] = ["sh", "-c", f"{convert} && sync '{out}'/*"]
    return commands


def measure(command: list[str]) -> Run:
    """Run a command to its end and watch its memory, and that of its children."""
    environment = {**os.environ, "PYTHONPATH": str(ROOT), "HF_HUB_OFFLINE": "1"}
    if command[0] == "sh":
        environment.pop("PYTHONPATH")
    started, before = time.perf_counter(), os.times()
    process = subprocess.Popen(
        command, env=environment, stdout=subprocess.DEVNULL, stderr=subprocess.PIPE
    )
    anonymous = resident = 0
    while process.poll() is None:
        now = [_memory(pid) for pid in _family(process.pid)]
        anonymous = max(anonymous, sum(memory[0] for memory in now))
        resident = max(resident, sum(memory[1] for memory in now))
        time.sleep(0.01)
    wall, after = time.perf_counter() - started, os.times()
    if process.returncode:
        assert process.stderr is not None
        sys.exit(process.stderr.read().decode()[-2000:])
    used = after.children_user + after.children_system
    cpu = used - before.children_user - before.children_system
    return Run(wall, cpu, anonymous, resident)


def _family(pid: int) -> list[int]:
    try:
        children = Path(f"/proc/{pid}/task/{pid}/children").read_text().split()
    except OSError:
        return []
    return [pid, *(member for child in children for member in _family(int(child)))]


def _memory(pid: int) -> tuple[int, int]:
    """Anonymous and all resident memory of a process, in bytes (Linux)."""
    try:
        lines = Path(f"/proc/{pid}/status").read_text().splitlines()
    except OSError:
        return 0, 0
    values = {line.split(":")[0]: int(line.split()[1]) * 1024 for line in lines if " kB" in line}
    return values.get("RssAnon", 0), values.get("VmRSS", 0)


def find_tokenizer() -> Path | None:
    """TinyLlama's tokenizer in a `shared/data` folder above the project."""
    for parent in ROOT.parents:
        path = parent / "shared" / "data" / "tinyllama" / "tokenizer.model"
        if path.is_file():
            return path
    return None


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0] if __doc__ else None)
    parser.add_argument("--shape", choices=SHAPES, default="tinyllama")
    parser.add_argument("--rounds", type=int, default=3)
    parser.add_argument("--folder", type=Path, help="where to work (needs twice the model's size)")
    parser.add_argument("--tokenizer", type=Path, default=find_tokenizer(),
                        help="a tokenizer.model with 32,000 pieces")  # fmt: skip
    parser.add_argument("--only", help="run this contender alone")
    options = parser.parse_args()
    if options.tokenizer is None:
        sys.exit("name a SentencePiece model with 32,000 pieces: --tokenizer FILE")
    with tempfile.TemporaryDirectory(dir=options.folder) as folder:
        source = write_source(Path(folder) / "meta", SHAPES[options.shape], options.tokenizer)
        size = (source / "consolidated.00.pth").stat().st_size
        out = Path(folder) / "out"
        commands = contenders(source, out)
        if options.only:
            commands = {options.only: commands[options.only]}
        runs: dict[str, list[Run]] = {name: [] for name in commands}
        for _ in range(options.rounds):
            for name, command in commands.items():
                runs[name].append(measure(command))
                shutil.rmtree(out) if out.is_dir() else out.unlink()
        print(f"{options.shape}: {size / 1e9:.2f} GB, best of {options.rounds} rounds")
        print(
            f"{'':22}{'seconds':>9}{'CPU s':>8}{'anonymous MB':>14}{'resident MB':>13}{'of cp':>8}"
        )
        copy = min(run.wall for run in runs.get("cp + sync", [Run(float("nan"), 0, 0, 0)]))
        for name, found in runs.items():
            best = min(found, key=lambda run: run.wall)
            print(
                f"{name:22}{best.wall:9.2f}{best.cpu:8.2f}"
                f"{max(run.anonymous for run in found) / 1e6:14.0f}"
                f"{max(run.resident for run in found) / 1e6:13.0f}{best.wall / copy:10.1f}"
            )


if __name__ == "__main__":
    main()
