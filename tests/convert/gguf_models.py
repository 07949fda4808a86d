"""A small Llama whose rows are whole K-quant blocks, and its GGUF files, for several tests."""

from __future__ import annotations

from pathlib import Path
from typing import Any

from tests.tiny import make_tiny_llama


def small_llama(folder: Path, **overrides: Any) -> Path:
    """Two layers of width 256: K-quants fit its rows; a tokenizer of 400 pieces."""
    sizes = {"hidden_size": 256, "intermediate_size": 256, "initializer_range": 0.05}
    return make_tiny_llama(folder, **{**sizes, **overrides})


def flip(path: Path, at: int) -> None:
    """Change one byte of a file."""
    with path.open("r+b") as file:
        file.seek(at)
        old = file.read(1)
        file.seek(at)
        file.write(bytes([old[0] ^ 0x01]))
