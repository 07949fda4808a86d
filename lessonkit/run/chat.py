"""Talk with a model in a terminal: one question, or one after another.

The answer appears while it is written. What is typed is read line by line; where a line's bytes
are not whole characters (a terminal that deletes half a Chinese one), they are left out.
"""

from __future__ import annotations

import sys
from collections.abc import Callable, Iterable
from contextlib import suppress
from dataclasses import dataclass, field
from typing import Any

from lessonkit.models.decoding import context_length, prompt_ids
from lessonkit.models.loading import Loaded
from lessonkit.run.generate import Sampling, stream
from lessonkit.run.templates import Template, Turn


@dataclass
class Chat:
    """A talk: the model, the template, what was said. `sampling` says how words are chosen."""

    loaded: Loaded
    template: Template
    sampling: Sampling = field(default_factory=lambda: Sampling())
    max_new_tokens: int = 256
    system: str = ""
    history: list[Turn] = field(default_factory=list)

    def ask(self, question: str) -> Iterable[str]:
        """The answer, piece by piece; it joins the history when it is complete."""
        pieces = []
        for piece in stream(
            *self.loaded,
            self._prompt(question),
            max_new_tokens=self.max_new_tokens,
            sampling=self.sampling,
            stops=self.template.stops,
        ):
            pieces.append(piece)
            yield piece
        self.history.append((question, "".join(pieces).strip()))

    def _prompt(self, question: str) -> str:
        """The talk so far; what came first is forgotten where the context is too short."""
        room = context_length(self.loaded.model) - min(
            self.max_new_tokens, context_length(self.loaded.model) // 2
        )
        for first in range(len(self.history) + 1):
            prompt = self.template.prompt(question, self.history[first:], self.system)
            if len(prompt_ids(self.loaded.tokenizer, prompt)) <= room:
                break
        return prompt


def talk(chat: Chat, *, read: Callable[[str], str] = input, write: Any = None) -> None:
    """Ask for questions and show the answers, until the input ends (Ctrl-D) or says /exit.

    /clear forgets what was said.
    """
    out = write or sys.stdout
    while True:
        try:
            question = whole_characters(read("> ")).strip()
        except EOFError:
            return
        except UnicodeDecodeError:
            print("(these bytes are no text, and were left out)", file=out)
            continue
        if question == "/exit":
            return
        if question == "/clear":
            chat.history.clear()
        elif question:
            show(chat.ask(question), out)


def show(pieces: Iterable[str], out: Any) -> None:
    """Write an answer while it comes."""
    for piece in pieces:
        out.write(piece)
        out.flush()
    out.write("\n")


def whole_characters(text: str) -> str:
    """Text without the halves of characters that a terminal may leave.

    Python reads bytes that are no UTF-8 as lone surrogates, which no tokenizer takes.
    """
    return text.encode("utf-8", "surrogateescape").decode("utf-8", "ignore")


def prepare_terminal() -> None:
    """Line editing (history, arrow keys) where there is one, and input that never raises."""
    with suppress(ImportError):
        import readline  # noqa: F401  its import changes what `input` does
    for stream_, errors in ((sys.stdin, "surrogateescape"), (sys.stdout, "replace")):
        if hasattr(stream_, "reconfigure"):
            stream_.reconfigure(errors=errors)
