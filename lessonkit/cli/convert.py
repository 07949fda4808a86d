"""Commands that turn one checkpoint into another."""

from __future__ import annotations

import argparse
from pathlib import Path

from lessonkit.cli.arguments import (
    Commands,
    add_command,
    add_force,
    file_size,
    path_of,
    pattern_and_type,
    positive,
    told,
)
from lessonkit.cli.quantize import add_windows, calibration_of
from lessonkit.errors import LessonkitError


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


def _to_gguf(commands: Commands) -> None:
    def run(options: argparse.Namespace) -> int:
        from lessonkit.convert.gguf import to_gguf

        if options.base:
            return _adapter_to_gguf(options)
        source = path_of(options.source)
        if (source / "adapter_config.json").is_file():
            raise LessonkitError(
                "The folder is an adapter.", where=source, remedy="Name its model: --base BASE."
            )
        certificate = to_gguf(
            source,
            options.out,
            outtype=options.outtype,
            imatrix=options.imatrix,
            tensor_types=options.tensor_type,
            output_type=options.output_tensor_type,
            embedding_type=options.token_embedding_type,
            pure=options.pure,
            calibration=calibration_of(options) if options.method == "gptq" else None,
            max_part_bytes=options.split_max_size,
            force=options.force,
        )
        return told(options.out, certificate)

    command = add_command(commands, "to-gguf", "to llama.cpp's form, quantised if asked", run)
    command.add_argument("source", metavar="HF_DIR", help="a folder, or mini; or an adapter")
    command.add_argument("out", metavar="OUT.gguf", help="the file to make")
    command.add_argument("--base", metavar="BASE", help="of an adapter: the model it is for")
    command.add_argument(
        "--outtype",
        default="auto",
        metavar="TYPE",
        help="auto (change no matrix), f32, f16, bf16, or a mix such as q8_0 or q4_k_m",
    )
    command.add_argument("--imatrix", metavar="FILE", help="an importance matrix")
    command.add_argument(
        "--tensor-type",
        action="append",
        default=[],
        type=pattern_and_type,
        metavar="PATTERN=TYPE",
        help="another type for some tensors; may be repeated",
    )
    command.add_argument("--output-tensor-type", metavar="TYPE")
    command.add_argument("--token-embedding-type", metavar="TYPE")
    command.add_argument("--pure", action="store_true", help="the mix's main type everywhere")
    command.add_argument(
        "--method",
        choices=["rtn", "gptq"],
        default="rtn",
        help="of q4_0: round to nearest, or let GPTQ choose the codes (default rtn)",
    )
    command.add_argument(
        "--calibration",
        metavar="TEXT",
        help="what GPTQ watches the layers on (default: island for mini, else wikitext)",
    )
    add_windows(command)
    command.add_argument(
        "--split-max-size",
        type=file_size,
        metavar="N(M|G)",
        help="cut a larger file into OUT-00001-of-00003.gguf and so on",
    )
    add_force(command)


def _adapter_to_gguf(options: argparse.Namespace) -> int:
    from lessonkit.convert.adapter_gguf import adapter_to_gguf
    from lessonkit.models.names import find_adapter

    adapter = find_adapter(options.source)
    folded = adapter_to_gguf(adapter, options.out, base=path_of(options.base), force=options.force)
    factors = sorted({factor for factor in folded.values() if factor != 1})
    if factors:
        scales = ", ".join(f"{factor:g}" for factor in factors)
        print(f"scales that the form cannot hold are folded into B: {scales}")
    print(f"{len(folded)} changed layers\nwritten to {options.out}")
    return 0


def _from_gguf(commands: Commands) -> None:
    def run(options: argparse.Namespace) -> int:
        from lessonkit.convert.from_gguf import from_gguf

        certificate = from_gguf(path_of(options.source), options.out, force=options.force)
        return told(options.out, certificate)

    command = add_command(commands, "from-gguf", "GGUF to Hugging Face's form", run)
    command.add_argument("source", metavar="FILE.gguf")
    command.add_argument("out", metavar="OUT", help="the folder to make")
    add_force(command)


def _imatrix(commands: Commands) -> None:
    def run(options: argparse.Namespace) -> int:
        from lessonkit.convert.imatrix import collect_imatrix
        from lessonkit.files.atomic import check_target
        from lessonkit.files.foreign import GGUF
        from lessonkit.models import calibration_text, find_model, load

        # Measuring takes minutes or hours: a name that is taken is refused before.
        check_target(Path(options.out), force=options.force, protect=[], magic=GGUF)
        text = calibration_text(options.text, options.language, options.split)
        model, tokenizer = load(find_model(options.model))
        matrix = collect_imatrix(model, tokenizer, text, chunks=options.chunks)
        matrix.save(options.out, force=options.force)
        print(f"{len(matrix.sums)} weights, {matrix.chunks} chunks of {text!r}")
        print(f"written to {options.out}")
        return 0

    command = add_command(commands, "imatrix", "which columns matter? for to-gguf", run)
    command.add_argument("model", metavar="HF_DIR", help="a folder, a Hub id, or mini")
    command.add_argument("text", metavar="TEXT", help="island, wikitext, or a file")
    command.add_argument("out", metavar="OUT.gguf", help="the file to make")
    command.add_argument(
        "--split",
        choices=["calibration", "train"],
        help="calibration, but for wikitext, which has none: train",
    )
    command.add_argument("--language", choices=["en", "zh"], default="en")
    command.add_argument("--chunks", type=positive, metavar="N", help="of 512 tokens, at most")
    add_force(command)


COMMANDS = (_to_hf, _to_meta, _nf4, _to_gguf, _from_gguf, _imatrix)
