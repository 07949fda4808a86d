"""data/build/export_tokenizer.py: what is committed is what the script writes, to the byte."""

from __future__ import annotations

import sys
from pathlib import Path

DATA = Path(__file__).resolve().parents[2] / "data"
sys.path.insert(0, str(DATA / "build"))

from export_tokenizer import write_tokenizer  # noqa: E402


def test_the_committed_tokenizer_files_are_what_the_script_writes(tmp_path: Path) -> None:
    mini = DATA / "mini"
    write_tokenizer(mini / "tokenizer.model", tmp_path)
    for name in ("tokenizer.json", "tokenizer_config.json", "tokenizer.model"):
        assert (tmp_path / name).read_bytes() == (mini / name).read_bytes(), name
