"""A command for the shell: it completes the others."""

from __future__ import annotations

import argparse

from lessonkit.cli.arguments import Commands, add_command
from lessonkit.errors import LessonkitError


def _completion(commands: Commands) -> None:
    def run(options: argparse.Namespace) -> int:
        try:
            import shtab
        except ImportError as error:
            raise LessonkitError(
                "What writes completions is not installed.",
                where="the package shtab",
                remedy="pip install shtab",
            ) from error
        from lessonkit.cli import build_parser

        print(shtab.complete(build_parser(), shell=options.shell))
        return 0

    command = add_command(commands, "completion", "a script that completes these commands", run)
    command.add_argument("shell", choices=["bash", "zsh", "tcsh"])


COMMANDS = (_completion,)
