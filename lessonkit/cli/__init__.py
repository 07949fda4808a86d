"""The command line: it parses, calls, prints, and has no logic of its own.

Exit status: 0 all is well; 1 the answer is no (files altered, tensors differ); 2 the input is
wrong; 130 interrupted. `--quiet` leaves only that, and errors. Each command imports what it needs
when it runs, so that `lessonkit --help` answers at once. `lessonkit` alone shows the way.
"""

from __future__ import annotations

import argparse
import os
import sys
from collections.abc import Sequence
from contextlib import ExitStack, redirect_stdout

import lessonkit
from lessonkit.cli import convert, inspect, lora, measure, publish, quantize, run, shell
from lessonkit.cli.journey import overview
from lessonkit.errors import LessonkitError

_NOTHING_KEPT = "no unfinished output was kept"


def main(arguments: Sequence[str] | None = None) -> int:
    """Run one command; returns the exit status."""
    parser = build_parser()
    options, unknown = parser.parse_known_args(arguments)
    if unknown:  # told with the command's own usage
        options.parser.error(f"unrecognized arguments: {' '.join(unknown)}")
    try:
        if options.run is None:
            print(_introduction(parser))
            return 0
        with ExitStack() as around:
            if options.quiet:
                os.environ["LESSONKIT_PROGRESS"] = "0"
                around.enter_context(redirect_stdout(around.enter_context(open(os.devnull, "w"))))
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


def build_parser() -> argparse.ArgumentParser:
    """The parser of all commands."""
    parser = argparse.ArgumentParser(
        prog="lessonkit", description="What LLM weights are made of, and how they change form."
    )
    parser.add_argument("--version", action="version", version=lessonkit.__version__)
    parser.set_defaults(run=None, parser=parser, quiet=False)
    commands = parser.add_subparsers(metavar="COMMAND")
    for module in (inspect, convert, quantize, lora, measure, run, publish, shell):
        for add in module.COMMANDS:
            add(commands)
    return parser


def commands_of(parser: argparse.ArgumentParser) -> dict[str, argparse.ArgumentParser]:
    """The commands by their names."""
    (found,) = (a for a in parser._actions if isinstance(a, argparse._SubParsersAction))
    return dict(found.choices)


def _introduction(parser: argparse.ArgumentParser) -> str:
    summaries = {name: str(each.description) for name, each in commands_of(parser).items()}
    return (
        f"{parser.description} The commands, in the order of a model's way:\n\n"
        f"{overview(summaries)}\n\n"
        "`lessonkit COMMAND --help` shows an example. `mini` is the model that is built in."
    )
