"""The files that travel with the weights: configuration, tokenizer, chat template, licence."""

from __future__ import annotations

from collections.abc import Iterable
from fnmatch import fnmatch
from pathlib import Path

COMPANIONS = (
    "config.json",
    "generation_config.json",
    "tokenizer.model",
    "tokenizer.json",
    "tokenizer_config.json",
    "special_tokens_map.json",
    "added_tokens.json",
    "vocab.json",
    "merges.txt",
    "chat_template.jinja",
    "chat_template.json",
    "LICENSE*",
    "NOTICE*",
    "USE_POLICY*",
    "README.md",
)


def companions_among(names: Iterable[str]) -> list[str]:
    """Those of the file names that travel with the weights, in their order."""
    return [name for name in names if any(fnmatch(name, pattern) for pattern in COMPANIONS)]


def companions_in(folder: Path, *, without: Iterable[str] = ()) -> list[Path]:
    """The files of a folder that travel with its weights, sorted, `without` some by name."""
    present = sorted(path.name for path in folder.iterdir() if path.is_file())
    return [folder / name for name in companions_among(present) if name not in set(without)]
