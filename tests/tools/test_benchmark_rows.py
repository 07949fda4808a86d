"""The table over all benchmarks: ratios are theirs over ours, and nothing is kept unasked."""

from __future__ import annotations

import sys
from pathlib import Path

import pytest

BENCHMARKS = Path(__file__).resolve().parents[2] / "benchmarks"


def test_notes_become_a_table(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(sys, "path", [str(BENCHMARKS), *sys.path])
    import rows

    monkeypatch.delenv(rows.FILE, raising=False)
    rows.note("merge", "lessonkit", 1.0)  # nobody asked
    monkeypatch.setenv(rows.FILE, str(tmp_path / "rows"))
    rows.note("merge", "PEFT", 30.0, peak=4e9)
    rows.note("merge", "lessonkit", 12.0, peak=1e9)
    rows.note("merge", "cp", 0.5)
    rows.note("blocks", "lessonkit", 0.002, error=2.0)
    rows.note("blocks", "gguf", 0.001, error=3.0)
    rows.note("alone", "gguf", 0.001)
    lines = rows.as_table(rows.read_rows(tmp_path / "rows")).splitlines()[2:]
    assert lines == [
        "| merge | 12 s, 1,000 MB | PEFT | 30 s, 4,000 MB | 2.50 | 4.00 |  |",
        "|  |  | cp | 500 ms | 0.04 |  |  |",
        "| blocks | 2 ms | gguf | 1 ms | 0.50 |  | 1.50 |",
    ]
