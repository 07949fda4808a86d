"""Every benchmark of this folder, one after the other, into one report and one table.

    python benchmarks/all.py [--small] [--rounds N] [--only NAME ...] [--out REPORT.md] [--readme]

Each script runs as a process of its own and prints its own table, ours beside the production
libraries' in turns; here they stand under the command that made them, and then one table with the
medians of all and their ratios, which --readme puts into README.md. --small takes shapes that need
seconds: it shows that all of them work, and measures nothing. Scripts whose libraries or files are
not here say so, and the others go on.
"""

from __future__ import annotations

import argparse
import os
import platform
import subprocess
import sys
import tempfile
from pathlib import Path

from rows import FILE, as_table, read_rows

HERE = Path(__file__).resolve().parent
README = HERE.parent / "README.md"
BEGIN, END = "<!-- benchmarks: python benchmarks/all.py --readme -->", "<!-- end of benchmarks -->"

# What each measures; its options; and those of the small version. A new benchmark needs a row.
BENCHMARKS: dict[str, tuple[str, str, str]] = {
    "conversion.py": ("Meta to Hugging Face", "", "--shape toy --rounds 1"),
    "merge.py": ("LoRA merge", "", "--layers 1 --rounds 1"),
    "to_gguf.py": ("Hugging Face to GGUF", "", "--layers 1 --rounds 1"),
    "ggml.py": ("GGUF's block encoders", "", "--rounds 1 --rows 16"),
    "four_bit.py": ("NF4", "", "--rounds 1"),
    "gptq.py": ("GPTQ of one matrix", "", "--rounds 1 --tokens 512"),
    "layerwise.py gptq": ("GPTQ of a model", "", "--layers 1 --samples 2 --seqlen 64 --width 512"),
    # GPTQModel's takes a quarter of an hour at TinyLlama's width.
    "layerwise.py awq": (
        "AWQ of a model",
        "--width 1024",
        "--layers 1 --samples 2 --seqlen 64 --width 512",
    ),
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


def into_readme(table: str) -> None:
    """Put the table between its two marks, below the command."""
    text = README.read_text(encoding="utf-8")
    before, begin, rest = text.partition(BEGIN)
    _, end, after = rest.partition(END)
    if not begin or not end:
        sys.exit(f"README.md lacks the marks {BEGIN!r} and {END!r}")
    README.write_text(f"{before}{begin}\n{table}\n{end}{after}", encoding="utf-8")


def main() -> int:
    parser = argparse.ArgumentParser(description=(__doc__ or "").splitlines()[0])
    parser.add_argument("--small", action="store_true", help="see that all work; measure nothing")
    parser.add_argument("--rounds", help="how often each takes its turn, instead of its own number")
    parser.add_argument("--only", nargs="+", metavar="NAME", help="scripts, such as ggml.py")
    parser.add_argument("--out", type=Path, help="write the report there too")
    parser.add_argument("--readme", action="store_true", help="put the table into README.md")
    options = parser.parse_args()
    cores = f"{os.cpu_count()} cores, Python {platform.python_version()}, {platform.machine()}"
    rounds = ["--rounds", options.rounds] if options.rounds else []
    parts, failed = [f"# Benchmarks\n\n{cores}\n"], []
    print(parts[0], flush=True)
    with tempfile.TemporaryDirectory() as folder:
        noted = Path(folder) / "rows"
        noted.touch()
        os.environ[FILE] = str(noted)
        for name, (_, full, small) in BENCHMARKS.items():
            script = name.split()[0]
            if options.only and script not in options.only:
                continue
            asked = (small if options.small else full).split()
            part, well = run(name, [*asked, *rounds])
            failed += [] if well else [name]
            parts.append(part)
            print(part, flush=True)
            if options.out:
                options.out.write_text("\n".join(parts), encoding="utf-8")
        only = ["--only", *options.only] if options.only else []
        command = " ".join(["python benchmarks/all.py", *rounds, *only])
        table = f"{cores}: `{command}`\n\n{as_table(read_rows(noted))}"
    print(table)
    if options.out:
        options.out.write_text("\n".join([*parts, table, ""]), encoding="utf-8")
    if options.readme:
        into_readme(table)
    if failed:
        print(f"did not end well: {', '.join(failed)}", file=sys.stderr)
    return 1 if failed else 0


if __name__ == "__main__":
    sys.exit(main())
