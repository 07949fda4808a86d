"""Run contenders as whole processes, in turns, and watch their time and memory."""

from __future__ import annotations

import os
import statistics
import subprocess
import sys
import time
from dataclasses import dataclass
from pathlib import Path

from rows import note

ROOT = Path(__file__).resolve().parents[1]


@dataclass
class Run:
    """One run of one contender: seconds, CPU seconds, peaks of memory in bytes."""

    wall: float
    cpu: float
    anonymous: int
    resident: int


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


def note_runs(task: str, contender: str, runs: list[Run]) -> None:
    """For the table over all benchmarks: the median of the times, the highest peak of memory."""
    peak = max(run.anonymous for run in runs)
    note(task, contender, statistics.median(run.wall for run in runs), peak=peak)


def table(task: str, runs: dict[str, list[Run]]) -> str:
    """One line for each contender: the best time, the highest peaks, and the ratios of times."""
    for name, found in runs.items():
        note_runs(task, name, found)
    best = {name: min(found, key=lambda run: run.wall) for name, found in runs.items()}
    lines = [
        f"{'':20}{'seconds':>9}{'CPU s':>8}{'anonymous MB':>14}{'resident MB':>13}"
        + "".join(f"{f'x {name.split()[0]}':>16}" for name in best)
    ]
    for name, run in best.items():
        anonymous = max(run.anonymous for run in runs[name]) / 1e6
        resident = max(run.resident for run in runs[name]) / 1e6
        lines.append(
            f"{name:20}{run.wall:9.2f}{run.cpu:8.2f}{anonymous:14.0f}{resident:13.0f}"
            + "".join(f"{run.wall / other.wall:16.2f}" for other in best.values())
        )
    return "\n".join(lines)
