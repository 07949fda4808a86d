"""Meta to Hugging Face: lessonkit, transformers 4.47.1's converter and `cp`, side by side.

    python benchmarks/conversion.py [--shape tinyllama|7b|toy] [--rounds 3] [--folder DIR]

Random weights in the shape of TinyLlama-1.1B (2.2 GB, bf16) or of a 7B Llama (13.5 GB) are
written once, or taken from a folder (--source); each contender then makes its output from them
in turn, round by round, as a whole process, until the bytes are on the disk. Printed are the
best time, the CPU time, the ratio to the others, and the peaks of anonymous memory (what the
process really needs) and of resident memory (with the mapped pages of the files it reads, which
the system takes back at will). `cp` is followed by a sync of the copy.

The reference needs the environment that `make interop` builds, and memory for the whole model
twice over; without them it is left out, and that is said.
"""

from __future__ import annotations

import argparse
import json
import math
import os
import shutil
import sys
import tempfile
from collections.abc import Iterator
from pathlib import Path

import numpy as np
import psutil
from processes import Run, measure, table

from lessonkit.files.atomic import check_space
from lessonkit.files.dtypes import Array, cast
from lessonkit.files.torch_file import write_torch_file
from lessonkit.llama.configs import meta_params
from lessonkit.llama.layout import pairs
from lessonkit.llama.shape import LlamaShape

ROOT = Path(__file__).resolve().parents[1]
COPY, OURS, THEIRS = "cp + sync", "lessonkit", "transformers 4.47.1"
REFERENCE = ROOT / ".interop" / "transformers-4.47.1" / "bin" / "python"
SHAPES = {
    "toy": LlamaShape(512, 4, 8, 4, 1024, 32000, 1e-5),
    "tinyllama": LlamaShape(2048, 22, 32, 4, 5632, 32000, 1e-5),
    "7b": LlamaShape(4096, 32, 32, 32, 11008, 32000, 1e-5),
}


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


def contenders(source: Path, out: Path, size: int) -> dict[str, list[str]]:
    """The command of each; all write to `out`."""
    file = source / "consolidated.00.pth"
    commands = {
        COPY: ["sh", "-c", f"cp --reflink=never '{file}' '{out}' && sync '{out}'"],
        OURS: [sys.executable, "-m", "lessonkit.cli", "to-hf", str(source), str(out)],
    }
    if not REFERENCE.is_file():
        print(f"{THEIRS} is left out: its environment is not here (make interop)")
    elif psutil.virtual_memory().available < 2.5 * size:
        print(f"{THEIRS} is left out: too little memory for {size / 1e9:.1f} GB twice over")
    else:
        module = "transformers.models.llama.convert_llama_weights_to_hf"
        convert = (
            f"'{REFERENCE}' -m {module} --input_dir '{source}' --output_dir '{out}' "
            "--num_shards 1 --llama_version 2"
        )
        commands[THEIRS] = ["sh", "-c", f"{convert} && sync '{out}'/*"]
    return commands


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0] if __doc__ else None)
    parser.add_argument("--shape", choices=SHAPES, default="tinyllama")
    parser.add_argument("--source", type=Path, help="a folder in Meta's form, instead of a shape")
    parser.add_argument("--rounds", type=int, default=3)
    parser.add_argument("--folder", type=Path, help="where to work (needs twice the model's size)")
    parser.add_argument(
        "--tokenizer", type=Path, help="a tokenizer.model with 32,000 pieces; else TinyLlama's in "
        "the folder that LESSONKIT_REAL_FILES names",
    )  # fmt: skip
    parser.add_argument("--only", action="append", metavar="NAME", help="run this contender alone")
    options = parser.parse_args()
    shape, real = SHAPES[options.shape], os.environ.get("LESSONKIT_REAL_FILES")
    tokenizer = options.tokenizer or (real and Path(real) / "tinyllama" / "tokenizer.model")
    if not tokenizer and not options.source:
        parser.error("name a SentencePiece model with 32,000 pieces: --tokenizer FILE")
    if options.folder is not None:
        options.folder.mkdir(parents=True, exist_ok=True)
    with tempfile.TemporaryDirectory(dir=options.folder) as folder:
        size = 2 * sum(math.prod(shape.shape_of(pair)) for pair in pairs(shape.layers))
        check_space(folder, 2 * size)
        source = options.source or write_source(Path(folder) / "meta", shape, tokenizer)
        size = sum(file.stat().st_size for file in source.glob("*.pth"))
        out = Path(folder) / "out"
        commands = contenders(source, out, size)
        chosen = options.only or list(commands)
        runs: dict[str, list[Run]] = {name: [] for name in commands if name in chosen}
        for _ in range(options.rounds):
            for name in runs:
                runs[name].append(measure(commands[name]))
                shutil.rmtree(out) if out.is_dir() else out.unlink()
        print(f"{options.source or options.shape}: {size / 1e9:.2f} GB, rounds: {options.rounds}")
        print(table(f"Meta to Hugging Face, {size / 1e9:.1f} GB", runs))


if __name__ == "__main__":
    main()
