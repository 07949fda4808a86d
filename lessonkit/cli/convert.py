"""Commands that turn one checkpoint into another."""

from __future__ import annotations

import argparse

from lessonkit.cli.arguments import Commands, add_command, add_force, path_of, positive, told


def _to_hf(commands: Commands) -> None:
    def run(options: argparse.Namespace) -> int:
        from lessonkit.convert.meta import meta_to_hf

        certificate = meta_to_hf(
            path_of(options.source),
            options.out,
            dtype=options.dtype,
            tokenizer=options.tokenizer,
            added_tokens=options.added_token,
            context=options.context,
            force=options.force,
        )
        return told(options.out, certificate)

    command = add_command(commands, "to-hf", "Meta's Llama files to Hugging Face's form", run)
    command.add_argument(
        "source", metavar="META_DIR", help="the folder with params.json, or the one above it"
    )
    command.add_argument("out", metavar="OUT", help="the folder to make")
    command.add_argument(
        "--dtype", metavar="D", help="round to float16, bfloat16, ... (default: change no value)"
    )
    command.add_argument("--tokenizer", metavar="FILE", help="a tokenizer.model elsewhere")
    command.add_argument(
        "--added-token",
        action="append",
        default=[],
        metavar="TOKEN",
        help="a token behind the tokenizer's pieces, such as [PAD]; may be repeated",
    )
    command.add_argument("--context", type=positive, metavar="N", help="the longest text, tokens")
    add_force(command)


def _to_meta(commands: Commands) -> None:
    def run(options: argparse.Namespace) -> int:
        from lessonkit.convert.meta import hf_to_meta

        source = path_of(options.source)
        certificate = hf_to_meta(source, options.out, shards=options.shards, force=options.force)
        return told(options.out, certificate)

    command = add_command(commands, "to-meta", "Hugging Face's form to Meta's", run)
    command.add_argument("source", metavar="HF_DIR", help="a folder, or mini")
    command.add_argument("out", metavar="OUT", help="the folder to make")
    command.add_argument("--shards", type=int, default=1, metavar="N", help="1 to 8")
    add_force(command)


def _nf4(commands: Commands) -> None:
    def run(options: argparse.Namespace) -> int:
        from lessonkit.convert.nf4 import quantize_checkpoint

        certificate = quantize_checkpoint(
            path_of(options.source),
            options.out,
            quant_type=options.type,
            double_quant=options.double_quant,
            block_size=options.block_size,
            force=options.force,
        )
        return told(options.out, certificate)

    command = add_command(commands, "nf4", "quantise once, load in 4 bits ever after", run)
    command.add_argument("source", metavar="HF_DIR", help="a folder, or mini")
    command.add_argument("out", metavar="OUT", help="the folder to make")
    command.add_argument("--type", choices=["nf4", "fp4"], default="nf4")
    command.add_argument("--double-quant", action="store_true", help="quantise the scales too")
    command.add_argument("--block-size", type=int, default=64, metavar="N")
    add_force(command)


COMMANDS = (_to_hf, _to_meta, _nf4)
