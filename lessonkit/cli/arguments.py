"""What several commands share: how a command is added, and arguments that mean the same in all."""

from __future__ import annotations

import argparse
import json
from collections.abc import Callable
from dataclasses import asdict
from pathlib import Path
from typing import Any, TypeAlias

from lessonkit.cli.journey import example_of
from lessonkit.errors import LessonkitError

# argparse has no public name for it.
Commands: TypeAlias = "argparse._SubParsersAction[argparse.ArgumentParser]"


def add_command(
    commands: Commands, name: str, summary: str, run: Callable[[argparse.Namespace], int]
) -> argparse.ArgumentParser:
    """Add a command; `run` takes the parsed options and returns the exit status."""
    example = example_of(name)
    command = commands.add_parser(
        name,
        help=summary,
        description=summary,
        epilog=f"example:\n  {example}" if example else None,
        formatter_class=argparse.RawDescriptionHelpFormatter,
    )
    command.add_argument(
        "-q", "--quiet", action="store_true", help="print errors alone; the exit status tells"
    )
    command.set_defaults(run=run, parser=command)
    return command


def add_force(command: argparse.ArgumentParser) -> None:
    """`--force`, for commands that write."""
    command.add_argument(
        "--force", action="store_true", help="replace an output that lessonkit wrote before"
    )


def add_json(command: argparse.ArgumentParser, what: str = "all that was found") -> None:
    """`--json`, for commands whose answer a script may want."""
    command.add_argument("--json", action="store_true", help=f"{what}, as JSON")


def show(found: Any, *, as_json: bool) -> None:
    """Print a result, a dataclass, as text or as JSON."""
    print(json.dumps(asdict(found), default=str) if as_json else found)


def read_text(file: Path) -> str:
    """The text in a file that an argument names."""
    try:
        return file.read_text(encoding="utf-8")
    except (OSError, UnicodeDecodeError) as error:
        raise LessonkitError(
            f"The file cannot be read: {type(error).__name__}.",
            where=file,
            remedy="Name a text file.",
        ) from error


def read_secret(file: Path) -> str:
    """The one word in a file: on a command line, every process list would show it."""
    words = read_text(file).split()
    if len(words) != 1:
        raise LessonkitError(
            "The file does not hold one word, the key.",
            where=file,
            remedy="Write a key into it, for example with: openssl rand -hex 24",
        )
    return words[0]


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
    if not text.isdecimal() or int(text) < 1:
        raise argparse.ArgumentTypeError(f"{text} is not a whole number from 1 on")
    return int(text)


def port(text: str) -> int:
    """A port, or 0 for any free one."""
    number = int(text)
    if not 0 <= number <= 65535:
        raise argparse.ArgumentTypeError(f"{text} is not a port, 0 to 65535")
    return number


def pattern_and_type(text: str) -> tuple[str, str]:
    """`attn_v=q6_k` as a pattern and a type."""
    pattern, equals, kind = text.rpartition("=")
    if not (pattern and equals and kind):
        raise argparse.ArgumentTypeError(f"{text} is not PATTERN=TYPE")
    return pattern, kind


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
