"""Commands that measure a model. What they name is measured, whatever LESSONKIT_MODEL says.

Started by `torchrun`, `perplexity` and `divergence` share the work among the processes.
"""

from __future__ import annotations

import argparse
import json
from typing import TYPE_CHECKING, Any

from lessonkit.cli.arguments import Commands, add_command, add_force, add_json, path_of, positive

if TYPE_CHECKING:
    from lessonkit.convert.plain import Runnable


def _perplexity(commands: Commands) -> None:
    def run(options: argparse.Namespace) -> int:
        from lessonkit.evaluate import joined, perplexity

        text, how = _text(options), _how(options)
        with joined() as speaks:
            model = _model(options.model, options)
            found = perplexity(model.model, model.tokenizer, text, **how)
            if speaks and options.json:
                print(json.dumps({**found.as_plain(), "weights": model.how}))
            elif speaks:
                print(f"{found}\nweights  {model.how}")
        return 0

    command = add_command(commands, "perplexity", "how well does it predict a text?", run)
    command.add_argument("model", metavar="MODEL", help="a folder, a .gguf file, a Hub id, or mini")
    _add_model_options(command)
    _add_text_options(command)
    _add_protocol_options(command)
    add_json(command)


def _divergence(commands: Commands) -> None:
    def run(options: argparse.Namespace) -> int:
        from lessonkit.evaluate import compare, divergence, joined

        text, how = _text(options), _how(options)
        with joined() as speaks:
            base, model = _model(options.base, options, plain=True), _model(options.model, options)
            found = divergence(base.model, model.model, model.tokenizer, text, **how)
            before, after = found.base, found.model
            assert before and after
            test = compare(before, after)
            if speaks and options.json:
                print(
                    json.dumps(
                        {
                            "base": {**before.as_plain(), "weights": base.how},
                            "model": {**after.as_plain(), "weights": model.how},
                            "divergence": found.as_plain(),
                            "difference": test.as_plain(),
                        }
                    )
                )
            elif speaks:
                print(f"base     {before}\nmodel    {after}")
                print(f"{found}\n{found.percentiles()}\n{test}")
                print(f"weights  {model.how}\nbase's   {base.how}")
        return 0

    command = add_command(
        commands, "divergence", "how far from its original? and is the difference real?", run
    )
    command.add_argument("model", metavar="MODEL", help="a folder, a .gguf file, a Hub id, or mini")
    command.add_argument("base", metavar="BASE", help="the model in full precision")
    _add_model_options(command, dtype="float32")  # bfloat16 alone would be seen
    _add_text_options(command)
    _add_protocol_options(command)
    add_json(command)


def _kl_base(commands: Commands) -> None:
    def run(options: argparse.Namespace) -> int:
        from lessonkit.evaluate import write_kl_base

        text = _text(options)
        model = _model(options.model, options)
        write_kl_base(
            options.out, model.model, model.tokenizer, text,
            window=options.window, max_windows=options.max_windows, force=options.force,
        )  # fmt: skip
        print(f"weights  {model.how}\nwritten to {options.out}")
        return 0

    command = add_command(
        commands, "kl-base", "log-probabilities for llama-perplexity --kl-divergence", run
    )
    command.add_argument("model", metavar="MODEL", help="a folder, a .gguf file, a Hub id, or mini")
    command.add_argument("out", metavar="OUT", help="the file to make")
    _add_model_options(command)
    _add_text_options(command)
    add_force(command)


def _recall(commands: Commands) -> None:
    def run(options: argparse.Namespace) -> int:
        from lessonkit.evaluate import mcnemar, recall
        from lessonkit.models import questions

        asked = questions(options.language)
        model = _model(options.model, options)
        found = recall(model.model, model.tokenizer, asked)
        print(f"{found}\nweights  {model.how}")
        if options.base:
            base = _model(options.base, options, plain=True)
            before = recall(base.model, base.tokenizer, asked)
            print(f"base     {before}\n{mcnemar(before.verdicts, found.verdicts)}")
        return 0

    command = add_command(commands, "recall", "what does it know about the island?", run)
    command.add_argument("model", metavar="MODEL", help="a folder, a .gguf file, a Hub id, or mini")
    _add_model_options(command)
    command.add_argument("--base", metavar="BASE", help="which answers changed since this model?")
    command.add_argument("--language", choices=["en", "zh"], default="en")


def _add_model_options(command: argparse.ArgumentParser, *, dtype: str | None = None) -> None:
    command.add_argument("--adapter", metavar="A", help="a PEFT folder, or zh, chat; unmerged")
    command.add_argument(
        "--dtype",
        default=dtype,
        metavar="D",
        help=f"compute in float32, bfloat16, ... ({dtype or 'as the files'})",
    )


def _add_text_options(command: argparse.ArgumentParser) -> None:
    command.add_argument("--text", default="island", help="island, wikitext, or a file")
    command.add_argument("--split", choices=["test", "validation"], default="test")
    command.add_argument("--language", choices=["en", "zh"], default="en")
    command.add_argument("--window", type=positive, metavar="N", help="tokens")
    command.add_argument("--max-windows", type=positive, metavar="N")


def _add_protocol_options(command: argparse.ArgumentParser) -> None:
    command.add_argument(
        "--protocol",
        default="gptq",
        metavar="P",
        help="gptq, llama.cpp, sliding, word_perplexity, byte_perplexity or bits_per_byte",
    )
    command.add_argument(
        "--stride", type=positive, metavar="N", help="for sliding, with --window: every N tokens"
    )


def _text(options: argparse.Namespace) -> Any:
    from lessonkit.models import evaluation_text

    return evaluation_text(options.text, options.split, options.language)


def _how(options: argparse.Namespace) -> dict[str, Any]:
    """The protocol and how much of the text, as `perplexity` takes them."""
    from lessonkit.evaluate import sliding

    if options.stride is None:
        how = {"protocol": options.protocol, "window": options.window}
    elif options.protocol == "sliding" and options.window:
        how = {"protocol": sliding(options.window, options.stride)}
    else:
        options.parser.error("--stride belongs to --protocol sliding, with --window")
    return {**how, "max_windows": options.max_windows}


def _model(name: str, options: argparse.Namespace, *, plain: bool = False) -> Runnable:
    """The model of a name; unless `plain`, with the adapter that the options ask for."""
    from lessonkit.convert import runnable
    from lessonkit.models.loading import Loaded
    from lessonkit.models.names import find_adapter
    from lessonkit.run import with_adapter

    found = runnable(path_of(name), dtype=options.dtype)
    if plain or options.adapter is None:
        return found
    adapter = find_adapter(options.adapter)
    adapted = with_adapter(Loaded(found.model, found.tokenizer), adapter)
    return found._replace(
        model=adapted.model,
        tokenizer=adapted.tokenizer,
        how=f"{found.how}, with the adapter {adapter.name}, unmerged",
    )


COMMANDS = (_perplexity, _divergence, _kl_base, _recall)
