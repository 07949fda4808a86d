"""Run notebooks, strictly: every output must come out as it is committed, here or elsewhere.

The same sums come out with other last bits on another processor, with another number of threads,
or in another build of a library. The settings here make one machine stand in for many: what is
committed must come out under each.
"""

from __future__ import annotations

import os
import subprocess
import sys
from collections.abc import Sequence
from pathlib import Path

from lessonkit.testing.notebooks import THREADS, reproducible_environment

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


def run(paths: Sequence[Path], setting: str | None = None, *, workers: int = 1) -> bool:
    """Run notebooks, or folders of them, under one setting or none; did all outputs come out?"""
    variables = reproducible_environment() | SETTINGS.get(setting or "", {})
    if THREADS in variables:  # after all others: the number of threads is one of them
        variables |= dict.fromkeys(("OMP_NUM_THREADS", "MKL_NUM_THREADS"), variables[THREADS])
    if setting:
        told = " ".join(f"{name}={value}" for name, value in SETTINGS[setting].items())
        print(f"--- {setting}: {told}", flush=True)
    command = [sys.executable, "-m", "pytest", *map(str, paths), "-q", "--nbval",
               "--nbval-current-env", "--nbval-cell-timeout=600"]  # fmt: skip
    if workers > 1:
        command += ["-n", str(workers), "--dist", "loadfile"]
    return subprocess.run(command, env={**os.environ, **variables}, check=False).returncode == 0
