"""Every benchmark of this folder, one after the other, into one report.

    python benchmarks/all.py [--small] [--only NAME ...] [--out REPORT.md] [-- FURTHER OPTIONS]

Each script runs as a process of its own and prints its own table, of medians or best times and of
ratios, ours beside the production libraries' in turns; here they stand under the command that made
them. --small takes shapes that need seconds: it shows that all of them work, and measures nothing.
Scripts whose libraries or files are not here say so, and the others go on.
"""

from __future__ import annotations

import argparse
import os
import platform
import subprocess
import sys
from pathlib import Path

HERE = Path(__file__).resolve().parent

# What each measures; its options; and those of the small version. A new benchmark needs a row.
BENCHMARKS: dict[str, tuple[str, str, str]] = {
    "conversion.py": ("Meta to Hugging Face", "", "--shape toy --rounds 1"),
    "merge.py": ("LoRA merge", "", "--layers 1 --rounds 1"),
    "to_gguf.py": ("Hugging Face to GGUF", "", "--layers 1 --rounds 1"),
    "ggml.py": ("GGUF's block encoders", "", "--rounds 1 --rows 16"),
    "four_bit.py": ("NF4", "", "--rounds 1"),
    "gptq.py": ("GPTQ of one matrix", "", "--rounds 1 --tokens 512"),
    "layerwise.py gptq": ("GPTQ of a model", "", "--layers 1 --samples 2 --seqlen 64 --width 512"),
    "layerwise.py awq": ("AWQ of a model", "", "--layers 1 --samples 2 --seqlen 64 --width 512"),
    "perplexity.py": ("perplexity", "", "--layers 1 --window 128 --windows 2 --rounds 1"),
}


def run(name: str, options: list[str]) -> tuple[str, bool]:
    """The report of one benchmark, as Markdown, and whether it ended well."""
    script, *arguments = name.split()
    command = [sys.executable, str(HERE / script), *arguments, *options]
    environment = {**os.environ, "PYTHONPATH": str(HERE.parent), "PYTHONWARNINGS": "ignore"}
    done = subprocess.run(command, env=environment, capture_output=True, text=True, check=False)
    shown = " ".join(["python", f"benchmarks/{script}", *arguments, *options])
    said = done.stdout if done.returncode == 0 else f"{done.stdout}{done.stderr[-1000:]}"
    return (
        f"## {BENCHMARKS[name][0]}\n\n`{shown}`\n\n```\n{said.rstrip()}\n```\n",
        not done.returncode,
    )


def main() -> int:
    parser = argparse.ArgumentParser(description=(__doc__ or "").splitlines()[0])
    parser.add_argument("--small", action="store_true", help="see that all work; measure nothing")
    parser.add_argument("--only", nargs="+", metavar="NAME", help="scripts, such as ggml.py")
    parser.add_argument("--out", type=Path, help="write the report there too")
    options = parser.parse_args()
    cores = f"{os.cpu_count()} cores, Python {platform.python_version()}, {platform.machine()}"
    parts, failed = [f"# Benchmarks\n\n{cores}\n"], []
    print(parts[0], flush=True)
    for name, (_, full, small) in BENCHMARKS.items():
        script = name.split()[0]
        if not (HERE / script).is_file() or (options.only and script not in options.only):
            continue
        part, well = run(name, (small if options.small else full).split())
        failed += [] if well else [name]
        parts.append(part)
        print(part, flush=True)
        if options.out:
            options.out.write_text("\n".join(parts), encoding="utf-8")
    if failed:
        print(f"did not end well: {', '.join(failed)}", file=sys.stderr)
    return 1 if failed else 0


if __name__ == "__main__":
    sys.exit(main())
