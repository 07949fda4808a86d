"""How fast, and in how much memory, does a model become GGUF, here and in llama.cpp?

    python benchmarks/to_gguf.py [--outtypes f16 q8_0 q4_k_m] [--rounds N] [--layers N]
                                 [--tokenizer FOLDER] [--threads N] [--folder FOLDER]

Random bf16 weights in TinyLlama's shape (2.2 GB; fewer with --layers) are written once. Each
conversion is a process of its own, and so is a `cp` of the source, round by round. llama.cpp takes
part where it is built (`python tests/interop/llama_cpp_library.py`) and a tokenizer is given: its
script convert_hf_to_gguf.py for f16, bf16 and q8_0, and its quantiser for the other types, which
reads the script's F16 file. The script stops without a tokenizer; TinyLlama's own is used where
the variable LESSONKIT_REAL_FILES says where it lies.

Printed are the median of the wall times, its CPU time, and the highest peaks of memory: what the
process made, and also with the pages of mapped files, which the system can take back at will.
"""

from __future__ import annotations

import argparse
import json
import os
import shutil
import sys
import tempfile
from pathlib import Path

import numpy as np

ROOT = Path(__file__).resolve().parents[1]
sys.path.insert(0, str(ROOT))

from processes import Run, measure, note_runs  # noqa: E402  the repository comes first

from lessonkit.convert.gguf_mix import MIXES  # noqa: E402
from lessonkit.convert.plan import hf_tensors  # noqa: E402
from lessonkit.files.atomic import check_space  # noqa: E402
from lessonkit.files.dtypes import cast  # noqa: E402
from lessonkit.files.writer import write_checkpoint  # noqa: E402
from lessonkit.llama.configs import hf_config  # noqa: E402
from lessonkit.llama.shape import LlamaShape  # noqa: E402
from tests.interop import ggml_library, llama_cpp_library  # noqa: E402

LESSONKIT = "import sys; from lessonkit.cli import main; sys.exit(main(sys.argv[1:]))"
SCRIPT = ggml_library.source() / "convert_hf_to_gguf.py"
OF_SCRIPT = ("f32", "f16", "bf16", "q8_0")
QUANTISE = (
    "import sys; from tests.interop.llama_cpp_library import ask; "
    "sys.exit(ask(quantise=[*sys.argv[1:3], int(sys.argv[3])], threads=int(sys.argv[4])))"
)


def write_model(folder: Path, layers: int, tokenizer: Path | None) -> Path:
    """Random weights of TinyLlama's shape, with a tokenizer where there is one."""
    shape = LlamaShape(2048, layers, 32, 4, 5632, 32000, 1e-5)
    random = np.random.default_rng(0)
    plan = hf_tensors(shape)
    config = hf_config(shape, dtype="bfloat16", context=2048, ids={})
    with write_checkpoint(folder, plan=plan) as writer:
        for info in plan:
            values = random.standard_normal(info.count, dtype=np.float32) * np.float32(0.02)
            writer.add(info.name, cast(values, "F32", "BF16").reshape(info.shape), "BF16")
        writer.add_file("config.json", json.dumps(config).encode())
    if tokenizer is not None:
        for file in (*tokenizer.glob("*token*"), *tokenizer.glob("chat_template*")):
            shutil.copyfile(file, folder / file.name)
    return folder


def contenders(
    source: Path, out: Path, outtypes: list[str], threads: int, f16: Path | None
) -> dict[str, list[str]]:
    """The commands by name; those of llama.cpp where `f16`, the script's F16 file, is given."""
    (weights,) = source.glob("*.safetensors")
    commands = {"cp": ["cp", str(weights), str(out)]}
    python = [sys.executable, "-c"]
    for outtype in outtypes:
        ours = ["to-gguf", str(source), str(out), "--outtype", outtype]
        commands[f"lessonkit {outtype}"] = [*python, LESSONKIT, *ours]
        if f16 is None:
            continue
        if outtype in OF_SCRIPT:
            commands[f"script {outtype}"] = by_script(source, out, outtype)
        else:
            theirs = [str(f16), str(out), str(MIXES[outtype].file_type), str(threads)]
            commands[f"quantiser {outtype}"] = [*python, QUANTISE, *theirs]
    return commands


def by_script(source: Path, out: Path, outtype: str) -> list[str]:
    """The command that converts with llama.cpp's own script."""
    return [sys.executable, str(SCRIPT), str(source), "--outfile", str(out), "--outtype", outtype]


def main() -> None:
    """Measure and print."""
    parser = argparse.ArgumentParser(
        description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter
    )
    real = os.environ.get("LESSONKIT_REAL_FILES")
    parser.add_argument("--outtypes", nargs="+", default=["f16", "q8_0", "q4_k_m"])
    parser.add_argument("--rounds", type=int, default=3)
    parser.add_argument("--layers", type=int, default=22)
    parser.add_argument("--tokenizer", type=Path, default=Path(real, "tinyllama") if real else None)
    parser.add_argument("--threads", type=int, default=os.cpu_count() or 1, help="of the quantiser")
    parser.add_argument("--folder", default=None, help="where to work (a temporary folder)")
    options = parser.parse_args()
    with tempfile.TemporaryDirectory(dir=options.folder) as place:
        folder = Path(place)
        check_space(folder, 4 * 2_200_000_000 * options.layers // 22)
        source = write_model(folder / "model", options.layers, options.tokenizer)
        out, f16 = folder / "out.gguf", None
        if options.tokenizer is None:
            print("llama.cpp is not compared: its script wants a tokenizer")
        elif not llama_cpp_library.LIBRARY.is_file():
            print("llama.cpp is not compared: it is not here")
        else:
            f16 = folder / "f16.gguf"
            measure(by_script(source, f16, "f16"))
        commands = contenders(source, out, options.outtypes, options.threads, f16)
        runs: dict[str, list[Run]] = {name: [] for name in commands}
        for _ in range(options.rounds):
            for name, command in commands.items():
                runs[name].append(measure(command))
                size = out.stat().st_size
                print(f"  {name}: {runs[name][-1].wall:.1f} s, {size:,} bytes", file=sys.stderr)
                for file in folder.glob("out.gguf*"):
                    file.unlink()
    print(f"{options.layers} layers, the median of {options.rounds} rounds")
    print(f"{'':18}{'seconds':>9}{'CPU s':>8}{'own MB':>9}{'with mapped MB':>16}")
    for name, found in runs.items():
        middle = sorted(found, key=lambda run: run.wall)[len(found) // 2]
        anonymous, resident = (
            max(getattr(run, which) for run in found) / 1e6 for which in ("anonymous", "resident")
        )
        contender, _, outtype = name.partition(" ")
        note_runs(f"to GGUF, {outtype or options.outtypes[0]}", contender, found)
        times = f"{middle.wall:9.1f}{middle.cpu:8.1f}"
        print(f"{name:18}{times}{anonymous:9.0f}{resident:16.0f}")


if __name__ == "__main__":
    main()
