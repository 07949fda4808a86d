"""Prompt templates: the text around a question with which a model was taught to answer.

A template is part of the training. A model that never saw it continues the text as any other,
and one that saw another answers badly; no file format requires that the template be named.
"""

from __future__ import annotations

import json
from collections.abc import Callable, Sequence
from pathlib import Path
from typing import Any, NamedTuple

from lessonkit.errors import LessonkitError

Turn = tuple[str, str]
"""A question and its answer."""


class Template(NamedTuple):
    """How a talk becomes one text. `stops` are strings that no answer contains."""

    name: str
    question: Callable[[str], str]
    answer_end: str
    system: Callable[[str, str], str]
    stops: tuple[str, ...] = ()
    default_system: str = ""

    def prompt(self, question: str, history: Sequence[Turn] = (), system: str = "") -> str:
        """The text up to where the next answer begins."""
        told = system or self.default_system
        asked = [*(asked for asked, _ in history), question]
        text = ""
        for number, each in enumerate(asked):
            turn = self.question(each)
            text += self.system(told, turn) if number == 0 and told else turn
            if number < len(history):
                text += history[number][1] + self.answer_end
        return text


TEMPLATES = {
    # Stanford Alpaca's, with the line end behind the last line that training put there.
    "alpaca": Template(
        "alpaca",
        lambda text: f"### Instruction:\n{text}\n\n### Response:\n",
        "\n\n",
        lambda system, turn: f"{system}\n\n{turn}",
        ("### Instruction:", "### Response:"),
        "Below is an instruction that describes a task. Write a response that appropriately "
        "completes the request.",
    ),
    # Zephyr's and TinyLlama-Chat's.
    "zephyr": Template(
        "zephyr",
        lambda text: f"<|user|>\n{text}</s>\n<|assistant|>\n",
        "</s>\n",
        lambda system, turn: f"<|system|>\n{system}</s>\n{turn}",
        ("<|user|>", "<|system|>"),
    ),
    # Llama 2 Chat's. The system text stands inside the first question.
    "llama-2": Template(
        "llama-2",
        lambda text: f"[INST] {text.strip()} [/INST]",
        " </s><s>",
        lambda system, turn: f"[INST] <<SYS>>\n{system}\n<</SYS>>\n\n{turn[len('[INST] ') :]}",
        ("[INST]",),
    ),
    # A plain continuation; a base model knows no other.
    "none": Template("none", lambda text: text, "\n", lambda system, turn: f"{system}\n{turn}"),
}
_TRAINED = ("chat", "instruct", "alpaca", "zephyr", "vicuna", "-it")


def find_template(name: str) -> Template:
    """A template by its name."""
    if name not in TEMPLATES:
        raise LessonkitError(
            f"There is no template {name!r}.",
            where="template",
            remedy=f"Use one of {', '.join(TEMPLATES)}.",
        )
    return TEMPLATES[name]


def as_jinja(template: Template) -> str:
    """The template in Jinja's language, as servers and tokenizers read it.

    It gives what `Template.prompt` gives for the same talk, up to where the next answer begins.
    """
    question, system = "\0", "\1"  # stand-ins, to see what stands around them
    before, after = template.question(question).split(question)
    opening, rest = template.system(system, template.question(question)).split(system)
    between, end = rest.split(question)
    trimmed = template.question(f" {question} ") == template.question(question)
    words = "message.content | trim" if trimmed else "message.content"
    first = f"{json.dumps(opening)} ~ talk.told ~ {json.dumps(between)} ~ words ~ {json.dumps(end)}"
    return (
        f"{{%- set talk = namespace(told={json.dumps(template.default_system)}) -%}}"
        "{%- for message in messages -%}"
        f"{{%- set words = {words} -%}}"
        "{%- if message.role == 'system' -%}{%- set talk.told = message.content -%}"
        "{%- elif message.role != 'user' -%}"
        f"{{{{- message.content ~ {json.dumps(template.answer_end)} -}}}}"
        f"{{%- elif talk.told -%}}{{{{- {first} -}}}}{{%- set talk.told = '' -%}}"
        f"{{%- else -%}}{{{{- {json.dumps(before)} ~ words ~ {json.dumps(after)} -}}}}"
        "{%- endif -%}{%- endfor -%}"
    )


def template_warning(template: str, model: Path, *adapters: Path) -> str | None:
    """A warning, if nothing says that the model was ever trained on instructions.

    Signs are a chat template beside the tokenizer, a name such as "chat" or "instruct" of the
    folder, of the model that it was made from, or of an adapter that was merged into it.
    """
    if template == "none":
        return None
    folders = [model, *adapters]
    if any(_has_chat_template(folder) for folder in folders):
        return None
    names = " ".join(name for folder in folders for name in _names(folder)).lower()
    if any(sign in names for sign in _TRAINED):
        return None
    return (
        f"nothing says that this model was trained on instructions: the template {template!r} "
        "may be mere text to it. A base model continues what it is given: --template none"
    )


def _has_chat_template(folder: Path) -> bool:
    if any((folder / name).is_file() for name in ("chat_template.jinja", "chat_template.json")):
        return True
    return bool(_read(folder / "tokenizer_config.json").get("chat_template"))


def _names(folder: Path) -> list[str]:
    """What a folder and its files call the model and its origin."""
    merged = _read(folder / "lessonkit-certificate.json").get("options", {}).get("adapters", [])
    said = [_read(folder / "config.json").get("_name_or_path"),
            _read(folder / "adapter_config.json").get("base_model_name_or_path"),
            *(each.get("name") for each in merged if isinstance(each, dict))]  # fmt: skip
    return [folder.resolve().name, *(str(name) for name in said if name)]


def _read(path: Path) -> dict[str, Any]:
    try:
        found = json.loads(path.read_bytes())
    except (OSError, ValueError, RecursionError):
        return {}
    return found if isinstance(found, dict) else {}
