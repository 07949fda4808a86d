"""The command that publishes a model: it verifies, shows what will go, asks, and sends."""

from __future__ import annotations

import argparse
import sys
from pathlib import Path

from lessonkit.cli.arguments import Commands, add_command, path_of, read_text
from lessonkit.errors import LessonkitError


def _share(commands: Commands) -> None:
    def run(options: argparse.Namespace) -> int:
        from lessonkit.convert.verification import verify_model
        from lessonkit.hub.card import Facts
        from lessonkit.hub.publish import prepare, publish

        path = path_of(options.path)
        measured = [read_text(file) for file in options.measured]
        facts = Facts(options.base, options.relation, options.licence, measured)
        parcel = prepare(path, options.repository, facts)
        if not (path / "adapter_config.json").is_file():
            found = verify_model(path)
            print(found)
            if not found.ok:
                return 1
        print(f"{parcel}\n\n{parcel.card}")
        if options.dry_run:
            print("dry run: nothing was sent")
            return 0
        if not options.yes:
            _ask(parcel.repository, public=options.public)
        where = publish(
            parcel, public=options.public, endpoint=options.endpoint, force=options.force
        )
        print(f"sent: {where}")
        return 0

    command = add_command(commands, "share", "publish a model with a card that says all", run)
    command.add_argument("path", metavar="PATH", help="a folder or a .gguf file")
    command.add_argument("repository", metavar="REPO_ID", help="owner/name on the Hub")
    command.add_argument("--base", metavar="HUB_ID", help="the model that it was made from")
    command.add_argument(
        "--relation",
        choices=["adapter", "finetune", "merge", "quantized"],
        help="to its base (default: as the certificate says)",
    )
    command.add_argument("--licence", metavar="L", help="as the Hub spells it: apache-2.0, ...")
    command.add_argument(
        "--measured",
        action="append",
        default=[],
        type=Path,
        metavar="FILE",
        help="what `lessonkit perplexity` printed, for the card; may be repeated",
    )
    command.add_argument("--dry-run", action="store_true", help="show all, send nothing")
    command.add_argument("--yes", action="store_true", help="do not ask")
    command.add_argument("--public", action="store_true", help="for all to see (else private)")
    command.add_argument("--endpoint", metavar="URL", help="another server than the Hub")
    command.add_argument(
        "--force", action="store_true", help="into a repository that holds files already"
    )


def _ask(repository: str, *, public: bool) -> None:
    """Send only after a yes from a person."""
    seen = "for everybody to see" if public else "privately"
    answer = input(f"Send it to {repository}, {seen}? [y/N] ") if sys.stdin.isatty() else ""
    if answer.strip().lower() not in ("y", "yes"):
        raise LessonkitError(
            "Nothing was sent.",
            where=repository,
            remedy="Answer y, or say --yes where nobody can be asked.",
        )


COMMANDS = (_share,)
