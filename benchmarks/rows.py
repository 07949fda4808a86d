"""Rows for the table over all benchmarks: who did what, in how much time and memory, how well.

A script notes its medians; they are kept where `all.py` asks for them, in the file that an
environment variable names, and nowhere else.
"""

from __future__ import annotations

import json
import os
from collections.abc import Iterable
from pathlib import Path
from typing import Any

FILE = "LESSONKIT_BENCHMARK_ROWS"
OURS = "lessonkit"


def note(
    task: str,
    contender: str,
    seconds: float,
    *,
    peak: float | None = None,
    error: float | None = None,
) -> None:
    """Keep one row, if asked to: `seconds` are a median, `peak` is in bytes.

    `error` is whatever the benchmark measures the loss in: only ratios of it are shown.
    """
    if path := os.environ.get(FILE):
        row = {"task": task, "by": contender, "seconds": seconds, "peak": peak, "error": error}
        with open(path, "a", encoding="utf-8") as file:
            file.write(json.dumps(row) + "\n")


def read_rows(path: Path) -> list[dict[str, Any]]:
    """What was noted, in that order."""
    return [json.loads(line) for line in path.read_text(encoding="utf-8").splitlines()]


def as_table(rows: Iterable[dict[str, Any]]) -> str:
    """One line for each task and peer, as Markdown: ours, theirs, and the ratios of theirs to ours.

    A task that lessonkit has no row for is left out.
    """
    tasks: dict[str, dict[str, dict[str, Any]]] = {}
    for row in rows:
        tasks.setdefault(row["task"], {})[row["by"]] = row
    lines = [
        "| | lessonkit | beside | | times as long | times the memory | times the error |",
        "|---|---|---|---|---|---|---|",
    ]
    for task, found in tasks.items():
        if OURS not in found:
            continue
        ours, first = found.pop(OURS), True
        for name, theirs in found.items():
            told = (_told(ours), task) if first else ("", "")
            ratios = " | ".join(_ratio(theirs, ours, key) for key in ("seconds", "peak", "error"))
            lines.append(f"| {told[1]} | {told[0]} | {name} | {_told(theirs)} | {ratios} |")
            first = False
    return "\n".join(lines)


def _told(row: dict[str, Any]) -> str:
    seconds = row["seconds"]
    time = f"{seconds * 1e3:.3g} ms" if seconds < 1 else f"{seconds:.3g} s"
    return time if not row["peak"] else f"{time}, {row['peak'] / 1e6:,.0f} MB"


def _ratio(theirs: dict[str, Any], ours: dict[str, Any], key: str) -> str:
    return f"{theirs[key] / ours[key]:.2f}" if theirs[key] and ours[key] else ""
