"""The command line: it parses, calls, prints, and has no logic of its own.

Exit status: 0 all is well; 1 the answer is no (files altered, tensors differ); 2 the input is
wrong; 130 interrupted. Each command imports what it needs when it runs, so that
`lessonkit --help` answers at once.
"""

from __future__ import annotations

import argparse
import os
import sys
from collections.abc import Sequence

import lessonkit
from lessonkit.cli import convert, inspect, lora, measure, quantize, run
from lessonkit.errors import LessonkitError

_NOTHING_KEPT = "no unfinished output was kept"


def main(arguments: Sequence[str] | None = None) -> int:
    """Run one command; returns the exit status."""
    options, unknown = _parser().parse_known_args(arguments)
    if unknown:  # told with the command's own usage
        options.parser.error(f"unrecognized arguments: {' '.join(unknown)}")
    try:
        status: int = options.run(options)
        sys.stdout.flush()
        return status
    except LessonkitError as error:
        print(error, file=sys.stderr)
        return 2
    except KeyboardInterrupt:
        kept = f"{getattr(options, 'out', '')}.unfinished"  # of layer-by-layer work
        told = f"the same command goes on from {kept}" if os.path.isdir(kept) else _NOTHING_KEPT
        print(f"interrupted; {told}", file=sys.stderr)
        return 130
    except BrokenPipeError:  # the reader, `head` for example, has seen enough
        os.dup2(os.open(os.devnull, os.O_WRONLY), sys.stdout.fileno())
        return 0


def _parser() -> argparse.ArgumentParser:
    parser = argparse.ArgumentParser(
        prog="lessonkit", description="What LLM weights are made of, and how they change form."
    )
    parser.add_argument("--version", action="version", version=lessonkit.__version__)
    commands = parser.add_subparsers(metavar="COMMAND", required=True)
    for module in (inspect, convert, quantize, lora, measure, run):
        for add in module.COMMANDS:
            add(commands)
    return parser
