"""Merging a LoRA adapter: lessonkit, PEFT and mergekit, side by side.

    python benchmarks/merge.py [--layers 22] [--rank 16] [--rounds 3] [--mergekit PYTHON]

Random bf16 weights in TinyLlama's shape (2.2 GB; fewer with --layers) and a random float32 adapter
on all seven linear layers of each block are written once. Each contender then makes the merged
folder, in turn, as a whole process: `lessonkit merge`; PEFT's load, `merge_and_unload`, save; and
mergekit, where the Python of an environment that holds it is named (it wants versions of its own).
`cp` of the base, followed by a sync, is the limit.
"""

from __future__ import annotations

import argparse
import json
import shutil
import sys
import tempfile
from pathlib import Path

import numpy as np
from processes import Run, measure, table
from safetensors.numpy import save_file

from lessonkit.convert.plan import hf_tensors
from lessonkit.files.atomic import check_space
from lessonkit.files.dtypes import cast
from lessonkit.files.writer import write_checkpoint
from lessonkit.llama.configs import hf_config
from lessonkit.llama.shape import LlamaShape

COPY = "cp + sync"
LINEAR = ("q_proj", "k_proj", "v_proj", "o_proj", "gate_proj", "up_proj", "down_proj")
PEFT = """
import sys, torch
from peft import PeftModel
from transformers import AutoModelForCausalLM
base, adapter, out = sys.argv[1:]
model = AutoModelForCausalLM.from_pretrained(base, dtype="auto")
PeftModel.from_pretrained(model, adapter).merge_and_unload().save_pretrained(out)
"""
MERGEKIT = "merge_method: passthrough\nmodels:\n  - model: {base}+{adapter}\ndtype: bfloat16\n"


def write_base(folder: Path, shape: LlamaShape) -> Path:
    """A folder in Hugging Face's form with random weights, without a tokenizer."""
    random, plan = np.random.default_rng(0), hf_tensors(shape)
    config = hf_config(shape, dtype="bfloat16", context=2048, ids={})
    with write_checkpoint(folder, plan=plan) as writer:
        for info in plan:
            values = random.standard_normal(info.count, dtype=np.float32) * np.float32(0.02)
            writer.add(info.name, cast(values, "F32", "BF16").reshape(info.shape), "BF16")
        writer.add_file("config.json", json.dumps(config).encode())
    return folder


def write_adapter(folder: Path, shape: LlamaShape, rank: int) -> Path:
    """A PEFT folder whose every change is about a hundredth of the weights' size."""
    random, tensors = np.random.default_rng(1), {}
    for info in hf_tensors(shape):
        module = info.name.removesuffix(".weight")
        if module.split(".")[-1] in LINEAR:
            rows, columns = info.shape
            for part, size in (("lora_A", (rank, columns)), ("lora_B", (rows, rank))):
                values = random.standard_normal(size, dtype=np.float32) * 0.01
                tensors[f"base_model.model.{module}.{part}.weight"] = values
    folder.mkdir()
    save_file(tensors, folder / "adapter_model.safetensors", metadata={"format": "pt"})
    config = {"peft_type": "LORA", "task_type": "CAUSAL_LM", "r": rank, "lora_alpha": rank,
              "target_modules": list(LINEAR), "base_model_name_or_path": "base"}  # fmt: skip
    (folder / "adapter_config.json").write_text(json.dumps(config))
    return folder


def contenders(base: Path, adapter: Path, out: Path, mergekit: Path | None) -> dict[str, list[str]]:
    """The command of each; all write to the folder `out`."""
    commands = {
        COPY: ["sh", "-c", f"cp -r --reflink=never '{base}' '{out}' && sync '{out}'/*"],
        "lessonkit": [sys.executable, "-m", "lessonkit.cli", "merge",
                      str(base), str(adapter), "--out", str(out)],
        "PEFT": ["sh", "-c", f"'{sys.executable}' -c '{PEFT}' '{base}' '{adapter}' '{out}' "
                 f"&& sync '{out}'/*"],
    }  # fmt: skip
    if mergekit is not None:
        recipe = adapter.with_name("mergekit.yaml")
        recipe.write_text(MERGEKIT.format(base=base, adapter=adapter))
        program = mergekit.with_name("mergekit-yaml")
        run = f"'{program}' '{recipe}' '{out}' --no-copy-tokenizer --lora-merge-cache '{out}.cache'"
        commands["mergekit"] = ["sh", "-c", f"{run} && sync '{out}'/*"]
    return commands


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0] if __doc__ else None)
    parser.add_argument("--layers", type=int, default=22)
    parser.add_argument("--rank", type=int, default=16)
    parser.add_argument("--rounds", type=int, default=3)
    parser.add_argument("--mergekit", type=Path, metavar="PYTHON", help="of its environment")
    parser.add_argument("--folder", type=Path, help="where to work (needs three times the size)")
    options = parser.parse_args()
    shape = LlamaShape(2048, options.layers, 32, 4, 5632, 32000, 1e-5)
    size = 2 * sum(info.count for info in hf_tensors(shape))
    with tempfile.TemporaryDirectory(dir=options.folder) as place:
        check_space(place, 3 * size)
        base = write_base(Path(place) / "base", shape)
        adapter = write_adapter(Path(place) / "adapter", shape, options.rank)
        out = Path(place) / "out"
        commands = contenders(base, adapter, out, options.mergekit)
        runs: dict[str, list[Run]] = {name: [] for name in commands}
        for _ in range(options.rounds):
            for name in runs:
                runs[name].append(measure(commands[name]))
                for made in Path(place).glob("out*"):
                    shutil.rmtree(made)
        print(f"{size / 1e9:.2f} GB, rank {options.rank}, rounds: {options.rounds}")
        print(table(f"LoRA merge, {size / 1e9:.1f} GB", runs))


if __name__ == "__main__":
    main()
