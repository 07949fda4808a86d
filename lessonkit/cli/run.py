"""Commands that use a model."""

from __future__ import annotations

import argparse
import sys

from lessonkit.cli.arguments import Commands, add_command, not_negative, positive


def _chat(commands: Commands) -> None:
    def run(options: argparse.Namespace) -> int:
        from lessonkit.models.loading import load
        from lessonkit.models.names import find_adapter, find_path
        from lessonkit.run.adapted import with_adapter
        from lessonkit.run.chat import Chat, prepare_terminal, show, talk
        from lessonkit.run.generate import Sampling
        from lessonkit.run.templates import find_template, template_warning

        sampling = Sampling(
            options.temperature, options.top_p, options.repeat_penalty, options.seed
        )
        sampling.require_valid()
        folder = find_path(options.model)
        adapter = find_adapter(options.adapter) if options.adapter else None
        warning = template_warning(options.template, folder, adapter)
        if warning:
            print(f"warning: {warning}", file=sys.stderr)
        loaded = load(folder, dtype=options.dtype)
        if adapter:
            loaded = with_adapter(loaded, adapter)
        chat = Chat(loaded, find_template(options.template), sampling, options.max_tokens)
        prepare_terminal()
        if options.prompt is not None:
            show(chat.ask(options.prompt), sys.stdout)
        else:
            print("/exit or Ctrl-D ends, /clear forgets", file=sys.stderr)
            talk(chat)
        return 0

    command = add_command(commands, "chat", "ask a model, once or one question after another", run)
    command.add_argument("model", metavar="MODEL", help="a folder, a Hub id, or mini")
    command.add_argument("--adapter", metavar="A", help="a PEFT folder, or zh, chat; unmerged")
    command.add_argument(
        "--template",
        choices=["alpaca", "zephyr", "llama-2", "none"],
        default="none",
        help="the text around a question (--with-prompt of the tutorials is alpaca)",
    )
    command.add_argument("--prompt", metavar="TEXT", help="ask this and end")
    command.add_argument("--temperature", type=not_negative, default=0.0, metavar="T")
    command.add_argument("--top-p", type=float, default=1.0, metavar="P")
    command.add_argument("--repeat-penalty", type=float, default=1.0, metavar="R")
    command.add_argument("--max-tokens", type=positive, default=256, metavar="N")
    command.add_argument("--seed", type=int, default=0, metavar="N")
    command.add_argument("--dtype", metavar="D", help="load as float32, bfloat16, ...")


COMMANDS = (_chat,)
