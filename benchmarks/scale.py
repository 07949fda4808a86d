"""A whole model through every conversion, once each: how long, and in how much memory?

    python benchmarks/scale.py [--shape 7b|tinyllama|toy] [--tokenizer FILE] [--folder DIR]

Random bf16 weights in the shape of a 7B Llama (13.5 GB) are written in Meta's form, and go from
there to Hugging Face's, back, through a merge, to GGUF (f16, q8_0, q4_k_m) and to NF4. Every step
is a process of its own that writes to the disk, and its output is deleted as soon as no further
step reads it: about three times the model's size of disk is needed at most. Printed are seconds,
CPU seconds, and the peaks of anonymous memory (what the process really needs) and of resident
memory (with the mapped pages of the files it reads, which the system takes back at will).
"""

from __future__ import annotations

import argparse
import json
import math
import os
import shutil
import sys
import tempfile
from pathlib import Path

import numpy as np
from conversion import SHAPES, measure, write_source

from lessonkit.files.atomic import check_space
from lessonkit.files.writer import write_checkpoint
from lessonkit.llama.layout import pairs
from lessonkit.llama.shape import LlamaShape

RANK = 16
# Each step: its name, and the command; {names} are what earlier ones made, {out} is this one's.
STEPS = {
    "to-hf": "to-hf {meta} {out}",
    "to-meta": "to-meta {hf} {out}",
    "merge": "merge {hf} {adapter} --out {out}",
    "to-gguf f16": "to-gguf {hf} {out}.gguf --outtype f16",
    "to-gguf q8_0": "to-gguf {hf} {out}.gguf --outtype q8_0",
    "to-gguf q4_k_m": "to-gguf {hf} {out}.gguf --outtype q4_k_m",
    "nf4": "nf4 {hf} {out}",
}


def write_adapter(folder: Path, shape: LlamaShape) -> Path:
    """A random LoRA over every linear layer, in PEFT's form."""
    random = np.random.default_rng(1)
    with write_checkpoint(folder) as writer:
        for pair in pairs(shape.layers):
            if "_proj" not in pair.hf:
                continue
            rows, columns = shape.shape_of(pair)
            name = f"base_model.model.{pair.hf.removesuffix('.weight')}"
            for part, size in (("lora_A", (RANK, columns)), ("lora_B", (rows, RANK))):
                values = random.standard_normal(size, dtype=np.float32) * np.float32(0.02)
                writer.add(f"{name}.{part}.weight", values)
        config = {"peft_type": "LORA", "r": RANK, "lora_alpha": RANK}
        writer.add_file("adapter_config.json", json.dumps(config).encode())
    return folder


def size_of(path: Path) -> int:
    """The bytes of a file, or of all files in a folder."""
    files = [path] if path.is_file() else [file for file in path.rglob("*") if file.is_file()]
    return sum(file.stat().st_size for file in files)


def main() -> None:
    parser = argparse.ArgumentParser(description=(__doc__ or "").splitlines()[0])
    parser.add_argument("--shape", choices=SHAPES, default="7b")
    parser.add_argument("--folder", type=Path, help="where to work")
    parser.add_argument(
        "--tokenizer", type=Path, help="a tokenizer.model with 32,000 pieces; else TinyLlama's in "
        "the folder that LESSONKIT_REAL_FILES names",
    )  # fmt: skip
    options = parser.parse_args()
    shape, real = SHAPES[options.shape], os.environ.get("LESSONKIT_REAL_FILES")
    tokenizer = options.tokenizer or (real and Path(real) / "tinyllama" / "tokenizer.model")
    if not tokenizer:
        parser.error("name a SentencePiece model with 32,000 pieces: --tokenizer FILE")
    if options.folder is not None:
        options.folder.mkdir(parents=True, exist_ok=True)
    with tempfile.TemporaryDirectory(dir=options.folder) as folder:
        place = Path(folder)
        size = 2 * sum(math.prod(shape.shape_of(pair)) for pair in pairs(shape.layers))
        check_space(place, 3 * size + (1 << 28))
        made = {"meta": write_source(place / "meta", shape, tokenizer)}
        print(f"{options.shape}: {size / 1e9:.2f} GB in bf16")
        print(f"{'':16}{'seconds':>9}{'CPU s':>9}{'anonymous MB':>14}{'resident MB':>13}{'GB':>8}")
        for name, step in STEPS.items():
            out = place / "out"
            command = step.format(**made, out=out).split()
            run = measure([sys.executable, "-m", "lessonkit.cli", *command])
            written = out if out.exists() else out.with_suffix(".gguf")
            print(
                f"{name:16}{run.wall:9.1f}{run.cpu:9.1f}{run.anonymous / 1e6:14.0f}"
                f"{run.resident / 1e6:13.0f}{size_of(written) / 1e9:8.2f}",
                flush=True,
            )
            if name == "to-hf":
                made["hf"] = written.rename(place / "hf")
                shutil.rmtree(made.pop("meta"))
                made["adapter"] = write_adapter(place / "adapter", shape)
            for path in place.glob("out*"):
                shutil.rmtree(path) if path.is_dir() else path.unlink()


if __name__ == "__main__":
    main()
