"""What several commands share: how a command is added, and arguments that mean the same in all."""

from __future__ import annotations

import argparse
from collections.abc import Callable
from pathlib import Path
from typing import Any, TypeAlias

# argparse has no public name for it.
Commands: TypeAlias = "argparse._SubParsersAction[argparse.ArgumentParser]"


def add_command(
    commands: Commands, name: str, summary: str, run: Callable[[argparse.Namespace], int]
) -> argparse.ArgumentParser:
    """Add a command; `run` takes the parsed options and returns the exit status."""
    command = commands.add_parser(name, help=summary, description=summary)
    command.set_defaults(run=run, parser=command)
    return command


def add_force(command: argparse.ArgumentParser) -> None:
    """`--force`, for commands that write."""
    command.add_argument(
        "--force", action="store_true", help="replace an output that lessonkit wrote before"
    )


def path_of(name: str) -> Path:
    """The folder or file that an argument names: `mini`, a path, or a Hub id."""
    from lessonkit.models.names import find_path

    return find_path(name)


def not_negative(text: str) -> float:
    """A number from 0 on."""
    number = float(text)
    if not number >= 0:
        raise argparse.ArgumentTypeError(f"{text} is not a number from 0 on")
    return number


def positive(text: str) -> int:
    """A whole number from 1 on."""
    number = int(text)
    if number < 1:
        raise argparse.ArgumentTypeError(f"{text} is not a whole number from 1 on")
    return number


def pattern_and_type(text: str) -> tuple[str, str]:
    """`attn_v=q6_k` as a pattern and a type."""
    pattern, equals, kind = text.rpartition("=")
    if not (pattern and equals and kind):
        raise argparse.ArgumentTypeError(f"{text} is not PATTERN=TYPE")
    return pattern, kind.upper()


def numbers(text: str) -> list[float]:
    """Numbers with commas between them."""
    return [float(part) for part in text.split(",")]


def file_size(text: str) -> int:
    """Read a size such as 500M or 2G, in millions or thousands of millions of bytes."""
    unit = {"M": 10**6, "G": 10**9}.get(text[-1:].upper())
    if unit is None or not text[:-1].isdecimal() or int(text[:-1]) < 1:
        raise argparse.ArgumentTypeError(f"{text!r} is not a size such as 500M or 2G")
    return int(text[:-1]) * unit


def told(out: str, certificate: Any) -> int:
    """Print what a conversion did and where; the exit status."""
    print(f"{certificate}\nwritten to {out}")
    return 0
