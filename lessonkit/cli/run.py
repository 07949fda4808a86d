"""Commands that use a model."""

from __future__ import annotations

import argparse
import json
import signal
import sys
import time
from pathlib import Path

from lessonkit.cli.arguments import (
    Commands,
    add_command,
    add_json,
    not_negative,
    port,
    positive,
    read_secret,
)


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
        adapters = [find_adapter(name) for name in options.adapter]
        warning = template_warning(options.template, folder, *adapters)
        if warning:
            print(f"warning: {warning}", file=sys.stderr)
        loaded = load(folder, dtype=options.dtype)
        for adapter in adapters:
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
    command.add_argument(
        "--adapter",
        action="append",
        default=[],
        metavar="A",
        help="a PEFT folder, or zh, chat; unmerged; may be repeated, in order",
    )
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


def _serve(commands: Commands) -> None:
    def run(options: argparse.Namespace) -> int:
        from lessonkit.run.serve import serving

        signal.signal(signal.SIGTERM, signal.default_int_handler)  # a service manager's Ctrl-C
        with serving(
            options.model,
            host=options.host,
            port=options.port,
            api_key=read_secret(options.api_key_file) if options.api_key_file else None,
            adapters=options.adapter,
            template=options.template,
            context=options.context,
            cache_type=options.cache_type,
            threads=options.threads,
        ) as served:
            try:
                if options.json:
                    found = {"address": served.address, "api": served.api}
                    print(json.dumps(found | {"adapters": served.adapters}), flush=True)
                else:
                    print(f"serving {options.model}\n{served}\nCtrl-C ends", flush=True)
                while True:
                    time.sleep(1)
            except KeyboardInterrupt:
                return 0

    command = add_command(
        commands,
        "serve",
        "an OpenAI-compatible server, and a chat page, on this machine",
        run,
    )
    command.add_argument("model", metavar="MODEL", help="a .gguf file, a folder, a Hub id, or mini")
    command.add_argument("--port", type=port, default=8080, metavar="P", help="0: a free one")
    command.add_argument(
        "--host", default="127.0.0.1", metavar="H", help="another address needs a key"
    )
    command.add_argument(
        "--api-key-file", type=Path, metavar="FILE", help="a file that holds the key to ask for"
    )
    command.add_argument(
        "--adapter",
        action="append",
        default=[],
        metavar="A",
        help="a PEFT folder, a .gguf adapter, or zh, chat; on unless a request says otherwise; "
        "may be repeated, in order",
    )
    command.add_argument(
        "--template",
        choices=["alpaca", "zephyr", "llama-2"],
        help="the text around a question (default: the one in the model's file)",
    )
    command.add_argument("--context", type=positive, metavar="N", help="tokens, at most")
    command.add_argument(
        "--cache-type",
        choices=["f16", "q8_0", "q4_0"],
        default="f16",
        help="what keys and values are stored in",
    )
    command.add_argument("--threads", type=positive, metavar="N")
    add_json(command, "the address, for scripts")


COMMANDS = (_chat, _serve)
