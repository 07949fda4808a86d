"""Run every notebook, strictly, as other machines would: `python -m tools.portable [NAME ...]`.

The same sums come out with other last bits on another processor, with another number of threads,
or in another build of a library. The settings here make one machine stand in for many: what is
committed must come out under each. `--list` names them.
"""

from __future__ import annotations

import argparse
import os
import subprocess
import sys
from collections.abc import Sequence
from pathlib import Path

from tools.notebooks import THREADS

ROOT = Path(__file__).resolve().parent.parent

SETTINGS: dict[str, dict[str, str]] = {
    # The one that has found most, so it is part of every change's tests.
    "avx2": {
        "ATEN_CPU_CAPABILITY": "avx2",
        "ONEDNN_MAX_CPU_ISA": "AVX2",
        "MKL_ENABLE_INSTRUCTIONS": "AVX2",
    },
    "no-vectors": {
        "ATEN_CPU_CAPABILITY": "default",
        "ONEDNN_MAX_CPU_ISA": "SSE41",
        "MKL_ENABLE_INSTRUCTIONS": "SSE4_2",
    },
    "compatible-mkl": {"MKL_CBWR": "COMPATIBLE"},
    "avx512": {"ATEN_CPU_CAPABILITY": "avx512", "ONEDNN_MAX_CPU_ISA": "AVX512_CORE"},
    "avx512-bf16": {"ONEDNN_MAX_CPU_ISA": "AVX512_CORE_BF16"},
    "four-threads": {THREADS: "4"},
    "four-threads-avx2": {THREADS: "4", "ATEN_CPU_CAPABILITY": "avx2"},
}
"""Each a machine to stand in for. What a processor cannot do, the libraries ignore."""


def run(name: str, workers: int) -> bool:
    """Run all notebooks under one setting; did all outputs come out?"""
    print(f"--- {name}: {' '.join(f'{k}={v}' for k, v in SETTINGS[name].items())}", flush=True)
    done = subprocess.run(
        [sys.executable, "-m", "pytest", "notebooks", "-q", "-n", str(workers),
         "--dist", "loadfile"],
        cwd=ROOT, env={**os.environ, **SETTINGS[name]}, check=False,
    )  # fmt: skip
    return done.returncode == 0


def main(arguments: Sequence[str] | None = None) -> int:
    """The command line; 0 where every setting passes."""
    parser = argparse.ArgumentParser(description=(__doc__ or "").splitlines()[0])
    parser.add_argument("names", nargs="*", metavar="NAME", help="settings; all unless given")
    parser.add_argument("--list", action="store_true", help="name the settings")
    parser.add_argument("--workers", type=int, default=2)
    options = parser.parse_args(arguments)
    if options.list:
        print("\n".join(SETTINGS))
        return 0
    if unknown := set(options.names) - set(SETTINGS):
        parser.error(
            f"no such setting: {', '.join(sorted(unknown))}; there are {', '.join(SETTINGS)}"
        )
    failed = [n for n in options.names or SETTINGS if not run(n, options.workers)]
    print(f"failed: {', '.join(failed)}" if failed else "every setting passes")
    return 1 if failed else 0


if __name__ == "__main__":
    sys.exit(main())
