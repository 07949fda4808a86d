"""What several test files share."""

from __future__ import annotations

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
