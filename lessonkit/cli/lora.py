"""Commands for adapters: merge them, and grow a tokenizer as they need it."""

from __future__ import annotations

import argparse

from lessonkit.cli.arguments import Commands, add_command, add_force, numbers, path_of, told


def _merge(commands: Commands) -> None:
    def run(options: argparse.Namespace) -> int:
        from lessonkit.convert.lora import merge
        from lessonkit.models.names import find_adapter

        certificate = merge(
            path_of(options.base),
            [find_adapter(name) for name in options.adapters],
            options.out,
            weights=options.weights,
            dtype=options.dtype,
            form=options.format,
            replace_saved=options.replace_saved,
            force=options.force,
        )
        return told(options.out, certificate)

    command = add_command(commands, "merge", "LoRA adapters, in order, into their base", run)
    command.add_argument("base", metavar="BASE", help="a folder in Hugging Face's form, or mini")
    command.add_argument(
        "adapters",
        metavar="ADAPTER",
        nargs="+",
        help="a PEFT folder, or zh, chat: the embedded ones",
    )
    command.add_argument("--out", required=True, metavar="OUT", help="the folder to make")
    command.add_argument("--format", choices=["hf", "meta"], default="hf")
    command.add_argument("--dtype", metavar="D", help="round to float32, float16, bfloat16")
    command.add_argument(
        "--weights", type=numbers, metavar="W1,W2", help="a factor for each adapter's change"
    )
    command.add_argument(
        "--replace-saved",
        action="store_true",
        help="an adapter trained on top of another may replace the embedding that it saved",
    )
    add_force(command)


def _extend_vocabulary(commands: Commands) -> None:
    def run(options: argparse.Namespace) -> int:
        from lessonkit.files.atomic import atomic_file
        from lessonkit.llama.vocabulary import extend_vocabulary

        grown = extend_vocabulary(options.base, options.added, tokens=options.token)
        protect = [options.base, options.added]
        # A SentencePiece model begins with its first piece (field 1 of the message).
        with atomic_file(options.out, magic=b"\n", force=options.force, protect=protect) as file:
            file.write(grown.model)
        return told(options.out, grown)

    command = add_command(
        commands, "extend-vocab", "append another vocabulary's pieces to a tokenizer", run
    )
    command.add_argument("base", metavar="BASE.model", help="the tokenizer.model to extend")
    command.add_argument("added", metavar="ADDED.model", help="the one that brings new pieces")
    command.add_argument("out", metavar="OUT.model", help="the file to make")
    command.add_argument(
        "--token", action="append", default=[], metavar="TOKEN", help="a control token, as [PAD]"
    )
    add_force(command)


COMMANDS = (_merge, _extend_vocabulary)
