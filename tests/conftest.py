"""What several test files share."""

from __future__ import annotations

import os
from pathlib import Path

import pytest

ROOT = Path(__file__).resolve().parent.parent


@pytest.fixture(scope="session")
def mini() -> Path:
    """The folder of the embedded model; without it a test fails, it is not skipped."""
    folder = ROOT / "data" / "mini"
    missing = [n for n in ("config.json", "tokenizer.model") if not (folder / n).is_file()]
    if missing:
        pytest.fail(f"data/mini lacks {', '.join(missing)}: run `make model`, or restore data/")
    return folder


@pytest.fixture(scope="session")
def real_files() -> Path:
    """A folder with `tinyllama` (its tokenizer's files) and `wikitext-2-raw` (wiki.test.raw ...).

    They are not ours to pass on: LESSONKIT_REAL_FILES says where they lie.
    """
    folder = os.environ.get("LESSONKIT_REAL_FILES")
    if not folder:
        pytest.skip(
            "LESSONKIT_REAL_FILES names no folder with TinyLlama's tokenizer and WikiText-2"
        )
    return Path(folder)
