"""Commands that measure a model. What they name is measured, whatever LESSONKIT_MODEL says."""

from __future__ import annotations

import argparse

from lessonkit.cli.arguments import Commands, add_command, positive


def _perplexity(commands: Commands) -> None:
    def run(options: argparse.Namespace) -> int:
        from lessonkit.evaluate import perplexity
        from lessonkit.models import evaluation_text, find_model, load

        text = evaluation_text(options.text, options.split, options.language)
        model, tokenizer = load(find_model(options.model))
        score = perplexity(
            model, tokenizer, text, window=options.window, max_windows=options.max_windows
        )
        print(score)
        return 0

    command = add_command(commands, "perplexity", "how well does it predict a text?", run)
    command.add_argument("model", help="a folder, a Hub id, or mini")
    command.add_argument("--text", default="island", help="island, wikitext, or a file")
    command.add_argument("--split", choices=["test", "validation"], default="test")
    command.add_argument("--language", choices=["en", "zh"], default="en")
    command.add_argument("--window", type=positive, metavar="N", help="tokens")
    command.add_argument("--max-windows", type=positive, metavar="N")


def _recall(commands: Commands) -> None:
    def run(options: argparse.Namespace) -> int:
        from lessonkit.evaluate import recall
        from lessonkit.models import find_model, load, questions

        asked = questions(options.language)
        model, tokenizer = load(find_model(options.model))
        print(recall(model, tokenizer, asked))
        return 0

    command = add_command(commands, "recall", "what does it know about the island?", run)
    command.add_argument("model", help="a folder, a Hub id, or mini")
    command.add_argument("--language", choices=["en", "zh"], default="en")


COMMANDS = (_perplexity, _recall)
