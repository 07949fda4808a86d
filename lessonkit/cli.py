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
from pathlib import Path
from typing import TYPE_CHECKING

import lessonkit
from lessonkit.errors import LessonkitError

if TYPE_CHECKING:
    from lessonkit.files.certificate import Certificate
    from lessonkit.files.checkpoint import TensorSource


def main(arguments: Sequence[str] | None = None) -> int:
    """Run one command; returns the exit status."""
    options = _parser().parse_args(arguments)
    try:
        status: int = options.run(options)
        sys.stdout.flush()
        return status
    except LessonkitError as error:
        print(error, file=sys.stderr)
        return 2
    except KeyboardInterrupt:
        print("interrupted; no unfinished output was kept", file=sys.stderr)
        return 130
    except BrokenPipeError:  # the reader, `head` for example, has seen enough
        os.dup2(os.open(os.devnull, os.O_WRONLY), sys.stdout.fileno())
        return 0


# --- what is in a checkpoint, and is it whole? ----------------------------------------------


def _info(options: argparse.Namespace) -> int:
    from lessonkit.convert.meta import open_canonical, shape_of
    from lessonkit.files.dtypes import DTYPES

    path = _path(options.path)
    source = open_canonical(path)
    infos = [source.info(name) for name in source.names()]
    values: dict[str, int] = {}
    for info in infos:
        values[info.dtype] = values.get(info.dtype, 0) + info.count
    each = [f"{DTYPES[dtype].torch_name} ({count:,})" for dtype, count in values.items()]
    formats = ", ".join(each) if len(each) > 1 else each[0].split()[0] if each else "none"
    print(f"form        {_form(source)}")
    print(f"tensors     {len(infos)}")
    print(f"parameters  {sum(values.values()):,} in {formats}")
    print(f"bytes       {sum(info.nbytes for info in infos):,}")
    if shape := shape_of(source):
        print(f"shape       {shape}")
    for note in getattr(source, "notes", ()):
        print(f"note        {note}")
    if options.tensors:
        for info in infos:
            print(f"{info.dtype:8} {'x'.join(map(str, info.shape)):14} {info.name}")
    return 0


def _verify(options: argparse.Namespace) -> int:
    from lessonkit.convert.verification import verify_model

    found = verify_model(_path(options.path), options.checklist)
    print(found)
    return 0 if found.ok else 1


def _compare(options: argparse.Namespace) -> int:
    from lessonkit.convert.meta import open_canonical
    from lessonkit.files.certificate import IDENTICAL, compare

    result = compare(open_canonical(_path(options.a)), open_canonical(_path(options.b)))
    for match in result.matches if result.common else ():
        if match.kind != IDENTICAL:
            print(match)
    print(result)
    beyond = result.beyond(allow_cast=options.allow_cast, tolerance=options.tolerance)
    if beyond:
        print(f"{len(beyond)} tensors differ by more than was asked for")
    if not result.common:
        print("the two have no name in common: name Meta's files by their folder, not one by one")
    return 1 if beyond else 0


def _fetch(options: argparse.Namespace) -> int:
    from lessonkit.convert.hub import fetch

    report = fetch(
        options.repository,
        options.out,
        revision=options.revision,
        endpoint=options.endpoint,
        force=options.force,
    )
    print(f"{report}\nwritten to {options.out}")
    return 0


# --- conversions ----------------------------------------------------------------------------


def _to_hf(options: argparse.Namespace) -> int:
    from lessonkit.convert.meta import meta_to_hf

    return _told(
        options.out,
        meta_to_hf(
            _path(options.source),
            options.out,
            dtype=options.dtype,
            tokenizer=options.tokenizer,
            added_tokens=options.added_token,
            context=options.context,
            force=options.force,
        ),
    )


def _to_meta(options: argparse.Namespace) -> int:
    from lessonkit.convert.meta import hf_to_meta

    source = _path(options.source)
    done = hf_to_meta(source, options.out, shards=options.shards, force=options.force)
    return _told(options.out, done)


def _nf4(options: argparse.Namespace) -> int:
    from lessonkit.convert.nf4 import quantize_checkpoint

    return _told(
        options.out,
        quantize_checkpoint(
            _path(options.source),
            options.out,
            quant_type=options.type,
            double_quant=options.double_quant,
            block_size=options.block_size,
            force=options.force,
        ),
    )


def _told(out: str, certificate: Certificate) -> int:
    print(certificate)
    print(f"written to {out}")
    return 0


# --- how good is it? ------------------------------------------------------------------------


def _perplexity(options: argparse.Namespace) -> int:
    from lessonkit.course.models import load
    from lessonkit.course.texts import evaluation_text
    from lessonkit.evaluate.perplexity import perplexity

    text = evaluation_text(options.text, options.split, options.language)
    model, tokenizer = load(_model(options.model))
    print(
        perplexity(
            model, tokenizer, text, window=options.window, max_windows=options.max_windows
        )
    )  # fmt: skip
    return 0


def _recall(options: argparse.Namespace) -> int:
    from lessonkit.course.models import load
    from lessonkit.course.texts import questions
    from lessonkit.evaluate.recall import recall

    asked = questions(options.language)
    model, tokenizer = load(_model(options.model))
    print(recall(model, tokenizer, asked))
    return 0


# --- arguments ------------------------------------------------------------------------------


def _parser() -> argparse.ArgumentParser:
    parser = argparse.ArgumentParser(
        prog="lessonkit", description="What LLM weights are made of, and how they change form."
    )
    parser.add_argument("--version", action="version", version=lessonkit.__version__)
    commands = parser.add_subparsers(metavar="COMMAND", required=True)
    _add_file_commands(commands)
    _add_conversions(commands)
    _add_measures(commands)
    return parser


_Commands = argparse._SubParsersAction  # argparse has no public name for it


def _add_file_commands(commands: _Commands[argparse.ArgumentParser]) -> None:
    command = commands.add_parser("info", help="what is in a checkpoint?")
    command.add_argument("path", metavar="PATH", help="a folder or file in any form, or mini")
    command.add_argument("--tensors", action="store_true", help="list every tensor")
    command.set_defaults(run=_info)

    command = commands.add_parser("fetch", help="download a model, whole and checked")
    command.add_argument("repository", metavar="HUB_ID", help="owner/name")
    command.add_argument("out", metavar="OUT", help="the folder to make")
    command.add_argument("--revision", help="a commit, tag or branch")
    command.add_argument("--endpoint", metavar="URL", help="a mirror of the Hub")
    _add_force(command)
    command.set_defaults(run=_fetch)

    command = commands.add_parser("verify", help="is it whole and unaltered?")
    command.add_argument("path", metavar="PATH", help="a folder or weight file, or mini")
    command.add_argument("--checklist", metavar="FILE", help="checklist.chk, SHA256SUMS, ...")
    command.set_defaults(run=_verify)

    command = commands.add_parser("compare", help="which tensors of two checkpoints differ?")
    command.add_argument("a", metavar="A", help="a folder or file in any form, or mini")
    command.add_argument("b", metavar="B", help="the other")
    command.add_argument("--allow-cast", action="store_true", help="B may be A, rounded")
    command.add_argument(
        "--tolerance", type=float, default=0.0, metavar="X", help="values may differ by this much"
    )
    command.set_defaults(run=_compare)


def _add_conversions(commands: _Commands[argparse.ArgumentParser]) -> None:
    command = commands.add_parser("to-hf", help="Meta's Llama files to Hugging Face's form")
    command.add_argument(
        "source", metavar="META_DIR", help="the folder with params.json, or the one above it"
    )
    command.add_argument("out", metavar="OUT", help="the folder to make")
    command.add_argument(
        "--dtype", metavar="D", help="round to float16, bfloat16, ... (default: change no value)"
    )
    command.add_argument("--tokenizer", metavar="FILE", help="a tokenizer.model elsewhere")
    command.add_argument(
        "--added-token", action="append", default=[], metavar="TOKEN",
        help="a token behind the tokenizer's pieces, such as [PAD]; may be repeated",
    )  # fmt: skip
    command.add_argument("--context", type=int, metavar="N", help="the longest text, in tokens")
    _add_force(command)
    command.set_defaults(run=_to_hf)

    command = commands.add_parser("to-meta", help="Hugging Face's form to Meta's")
    command.add_argument("source", metavar="HF_DIR", help="a folder, or mini")
    command.add_argument("out", metavar="OUT", help="the folder to make")
    command.add_argument("--shards", type=int, default=1, metavar="N", help="1 to 8")
    _add_force(command)
    command.set_defaults(run=_to_meta)

    command = commands.add_parser("nf4", help="quantise once, load in 4 bits ever after")
    command.add_argument("source", metavar="HF_DIR", help="a folder, or mini")
    command.add_argument("out", metavar="OUT", help="the folder to make")
    command.add_argument("--type", choices=["nf4", "fp4"], default="nf4")
    command.add_argument("--double-quant", action="store_true", help="quantise the scales too")
    command.add_argument("--block-size", type=int, default=64, metavar="N")
    _add_force(command)
    command.set_defaults(run=_nf4)


def _add_measures(commands: _Commands[argparse.ArgumentParser]) -> None:
    command = commands.add_parser("perplexity", help="how well does it predict a text?")
    command.add_argument("model", help="a folder, a Hub id, or mini")
    command.add_argument("--text", default="island", help="island, wikitext, or a file")
    command.add_argument("--split", default="test", help="test or validation")
    command.add_argument("--language", default="en", help="en or zh")
    command.add_argument("--window", type=int, metavar="N", help="tokens")
    command.add_argument("--max-windows", type=int, metavar="N")
    command.set_defaults(run=_perplexity)

    command = commands.add_parser("recall", help="what does it know about the island?")
    command.add_argument("model", help="a folder, a Hub id, or mini")
    command.add_argument("--language", default="en", help="en or zh")
    command.set_defaults(run=_recall)


def _add_force(command: argparse.ArgumentParser) -> None:
    command.add_argument("--force", action="store_true", help="replace an existing output")


def _path(name: str) -> Path:
    """A path as it was given; `mini` is the embedded model unless such a file exists."""
    if name == "mini" and not Path(name).exists():
        from lessonkit.course.embedded import verified_folder

        return verified_folder("mini")
    return Path(name).expanduser()


def _model(name: str) -> Path | str:
    """What was named on the command line counts, whatever LESSONKIT_MODEL says."""
    path = _path(name)
    return path if path.exists() else name


def _form(source: TensorSource) -> str:
    from lessonkit.convert.meta_checkpoint import MetaCheckpoint
    from lessonkit.files.checkpoint import Checkpoint

    if isinstance(source, MetaCheckpoint):
        count = len(source.files.shards)
        return f"Meta ({_count(count, 'shard')}); shown under Hugging Face's names"
    assert isinstance(source, Checkpoint)
    return f"{source.form} ({_count(len(source.files), 'file')})"


def _count(number: int, thing: str) -> str:
    return f"{number} {thing}" + ("" if number == 1 else "s")


if __name__ == "__main__":
    sys.exit(main())
