"""How fast, and in how much memory, does a model become GGUF?

    python benchmarks/to_gguf.py [--outtypes bf16 q8_0 q4_k_m] [--rounds N] [--layers N]

Random bf16 weights in TinyLlama's shape (2.2 GB; fewer with --layers) are written once; each
conversion is a process of its own, and so is a `cp` of the source, round by round. Printed are
the best wall time, its CPU time, and the peak of resident memory, with the pages of the mapped
source that the system can take back at will.
"""

from __future__ import annotations

import argparse
import json
import resource
import shutil
import subprocess
import sys
import tempfile
import time
from pathlib import Path

import numpy as np

ROOT = Path(__file__).resolve().parents[1]
sys.path.insert(0, str(ROOT))

from lessonkit.convert.plan import hf_tensors  # noqa: E402  the repository comes first
from lessonkit.files.atomic import check_space  # noqa: E402
from lessonkit.files.dtypes import cast  # noqa: E402
from lessonkit.files.writer import write_checkpoint  # noqa: E402
from lessonkit.llama.configs import hf_config  # noqa: E402
from lessonkit.llama.shape import LlamaShape  # noqa: E402

CONVERT = (
    "import sys; from lessonkit.convert import to_gguf; "
    "to_gguf(*sys.argv[1:3], outtype=sys.argv[3])"
)


def write_model(folder: Path, layers: int) -> Path:
    """Random weights of TinyLlama's shape, without a tokenizer."""
    shape = LlamaShape(2048, layers, 32, 4, 5632, 32000, 1e-5)
    random = np.random.default_rng(0)
    plan = hf_tensors(shape)
    config = hf_config(shape, dtype="bfloat16", context=2048, ids={})
    with write_checkpoint(folder, plan=plan) as writer:
        for info in plan:
            values = random.standard_normal(info.count, dtype=np.float32) * np.float32(0.02)
            writer.add(info.name, cast(values, "F32", "BF16").reshape(info.shape), "BF16")
        writer.add_file("config.json", json.dumps(config).encode())
    return folder


def run(command: list[str]) -> tuple[float, float, int]:
    """Wall seconds, CPU seconds and the peak of resident memory in bytes of a process."""
    before = resource.getrusage(resource.RUSAGE_CHILDREN)
    watched = [sys.executable, "-c", WATCH, *command]
    started = time.perf_counter()
    told = subprocess.run(watched, check=True, cwd=ROOT, capture_output=True, text=True).stdout
    wall = time.perf_counter() - started
    after = resource.getrusage(resource.RUSAGE_CHILDREN)
    cpu = after.ru_utime + after.ru_stime - before.ru_utime - before.ru_stime
    return wall, cpu, int(told.split()[-1]) * 1024


# A process between: the peak of children is that of the largest so far.
WATCH = (
    "import resource, subprocess, sys; subprocess.run(sys.argv[1:], check=True); "
    "print(resource.getrusage(resource.RUSAGE_CHILDREN).ru_maxrss)"
)


def main() -> None:
    """Measure and print."""
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("--outtypes", nargs="+", default=["bf16", "q8_0", "q4_k_m"])
    parser.add_argument("--rounds", type=int, default=3)
    parser.add_argument("--layers", type=int, default=22)
    parser.add_argument("--folder", default=None, help="where to work (a temporary folder)")
    options = parser.parse_args()
    with tempfile.TemporaryDirectory(dir=options.folder) as place:
        folder = Path(place)
        check_space(folder, 3 * 2_200_000_000 * options.layers // 22)
        source = write_model(folder / "model", options.layers)
        weights = next(source.glob("*.safetensors"))
        out = folder / "out.gguf"
        contenders = {"cp": ["cp", str(weights), str(out)]}
        for outtype in options.outtypes:
            contenders[outtype] = [sys.executable, "-c", CONVERT, str(source), str(out), outtype]
        best: dict[str, tuple[float, float, int]] = {}
        for _ in range(options.rounds):
            for name, command in contenders.items():
                found = run(command)
                best[name] = min(best.get(name, found), found)
                size = out.stat().st_size
                print(f"  {name}: {found[0]:.1f} s, {size:,} bytes", file=sys.stderr)
                for file in folder.glob("out.gguf*"):
                    shutil.rmtree(file) if file.is_dir() else file.unlink()
        print(f"{weights.stat().st_size:,} bytes of bf16, best of {options.rounds}")
        for name, (wall, cpu, peak) in best.items():
            print(f"{name:8} {wall:7.1f} s  {cpu:7.1f} s CPU  {peak / 1e6:7.0f} MB peak")


if __name__ == "__main__":
    main()
