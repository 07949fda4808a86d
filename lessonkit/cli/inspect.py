"""Commands that look at a model: what is in it, is it whole, do two differ? And `fetch`."""

from __future__ import annotations

import argparse
import json

from lessonkit.cli.arguments import (
    Commands,
    add_command,
    add_force,
    add_json,
    not_negative,
    path_of,
    positive,
    show,
)


def _info(commands: Commands) -> None:
    def run(options: argparse.Namespace) -> int:
        from lessonkit.convert.open import as_plain, open_model, overview, tensor_list

        model = open_model(path_of(options.path))
        if options.json:
            print(json.dumps(as_plain(model)))
            return 0
        print(overview(model))
        if options.tensors:
            print(tensor_list(model))
        return 0

    command = add_command(commands, "info", "what is in a checkpoint?", run)
    command.add_argument("path", metavar="PATH", help="a folder or file in any form, or mini")
    command.add_argument("--tensors", action="store_true", help="list every tensor")
    add_json(command)


def _fetch(commands: Commands) -> None:
    def run(options: argparse.Namespace) -> int:
        from lessonkit.hub.download import fetch

        report = fetch(
            options.repository,
            options.out,
            revision=options.revision,
            endpoint=options.endpoint,
            force=options.force,
        )
        print(f"{report}\nwritten to {options.out}")
        return 0

    command = add_command(commands, "fetch", "download a model, whole and checked", run)
    command.add_argument("repository", metavar="HUB_ID", help="owner/name")
    command.add_argument("out", metavar="OUT", help="the folder to make")
    command.add_argument("--revision", help="a commit, tag or branch")
    command.add_argument("--endpoint", metavar="URL", help="a mirror of the Hub")
    add_force(command)


def _verify(commands: Commands) -> None:
    def run(options: argparse.Namespace) -> int:
        from lessonkit.convert.verification import verify_model

        found = verify_model(path_of(options.path), options.checklist)
        show(found, as_json=options.json)
        return 0 if found.ok else 1

    command = add_command(commands, "verify", "is it whole and unaltered?", run)
    command.add_argument("path", metavar="PATH", help="a folder or weight file, or mini")
    command.add_argument("--checklist", metavar="FILE", help="checklist.chk, SHA256SUMS, ...")
    add_json(command)


def _compare(commands: Commands) -> None:
    def run(options: argparse.Namespace) -> int:
        from lessonkit.convert.open import open_model
        from lessonkit.files.certificate import compare

        result = compare(open_model(path_of(options.a)), open_model(path_of(options.b)))
        asked = {"allow_cast": options.allow_cast, "tolerance": options.tolerance}
        show(result, as_json=True) if options.json else print(result.report(**asked))
        return 1 if result.beyond(**asked) else 0

    command = add_command(commands, "compare", "which tensors of two checkpoints differ?", run)
    command.add_argument("a", metavar="A", help="a folder or file in any form, or mini")
    command.add_argument("b", metavar="B", help="the other")
    command.add_argument("--allow-cast", action="store_true", help="B may be A, rounded")
    command.add_argument(
        "--tolerance",
        type=not_negative,
        default=0.0,
        metavar="X",
        help="values may differ by this much",
    )
    add_json(command)


def _plan(commands: Commands) -> None:
    def run(options: argparse.Namespace) -> int:
        from lessonkit.convert.plan import plan

        show(plan(path_of(options.model), context=options.context), as_json=options.json)
        return 0

    command = add_command(commands, "plan", "how large in every form, and to run?", run)
    command.add_argument("model", metavar="MODEL", help="a folder, a config.json, or mini")
    command.add_argument("--context", type=positive, metavar="N", help="tokens in the cache")
    add_json(command)


def _explain(commands: Commands) -> None:
    def run(options: argparse.Namespace) -> int:
        from lessonkit.convert.explain import explain

        found = explain(path_of(options.file), path_of(options.source), imatrix=options.imatrix)
        show(found, as_json=options.json)
        return 0 if found.ok else 1

    command = add_command(
        commands, "explain", "was a GGUF file made from this model, and how?", run
    )
    command.add_argument("file", metavar="FILE.gguf")
    command.add_argument("--source", required=True, metavar="HF_DIR", help="a folder, or mini")
    command.add_argument("--imatrix", metavar="FILE", help="the importance matrix, if there is one")
    add_json(command)


COMMANDS = (_info, _fetch, _verify, _compare, _plan, _explain)
