"""What the adapters are worth, measured, and the cards in their folders: see ``card``."""

from __future__ import annotations

from collections.abc import Iterator
from dataclasses import dataclass
from functools import cache
from typing import Any

import adapters
import instructions
import texts
import torch
import train
from transformers import LlamaForCausalLM, PreTrainedTokenizerFast

from lessonkit.evaluate import best_temperature, perplexity, recall
from lessonkit.files.integrity import file_digest
from lessonkit.models import evaluation_text, questions
from lessonkit.models.decoding import Continuation

ORDER = ("zh", "chat")  # in which they are merged
LANGUAGES = {"en": "English", "zh": "Chinese"}
LONGEST = 48  # tokens that an answer may take


@cache
def model_with(name: str | None) -> tuple[LlamaForCausalLM, PreTrainedTokenizerFast]:
    """mini in float32 with the adapters up to `name` merged in, and the last one's tokenizer."""
    model = LlamaForCausalLM.from_pretrained(train.MINI, dtype=torch.float32)
    for adapter in ORDER[: ORDER.index(name) + 1] if name else ():
        model = adapters.merged(model, adapter)
    folder = adapters.ADAPTERS / name if name else train.MINI
    return model.eval(), PreTrainedTokenizerFast.from_pretrained(folder)


@dataclass(frozen=True)
class Answers:
    """Test questions asked through the template, closed book.

    `exact` answers are the expected sentence, letter for letter, and end by themselves; `named`
    ones contain the value; `stopped` ones end by themselves.
    """

    asked: int
    exact: int
    named: int
    stopped: int


def answers(model: Any, tokenizer: Any, language: str) -> Answers:
    """Ask every question of the test set in a language; greedy answers."""
    pairs = [
        pair
        for pair, question in zip(
            adapters.test_pairs(), [*questions("en"), *questions("zh")], strict=True
        )
        if question.language == language
    ]
    values = [question.answer for question in questions(language)]
    said = list(spoken(model, tokenizer, [pair.instruction for pair in pairs]))
    return Answers(
        asked=len(pairs),
        exact=sum(
            text == pair.response and stopped
            for (text, stopped), pair in zip(said, pairs, strict=True)
        ),
        named=sum(value in text for (text, _), value in zip(said, values, strict=True)),
        stopped=sum(stopped for _, stopped in said),
    )


def spoken(model: Any, tokenizer: Any, asked: list[str]) -> Iterator[tuple[str, bool]]:
    """The answer to each instruction, and whether it ended by itself."""
    prompts = [
        tokenizer(instructions.TEMPLATE.format(instruction=text)).input_ids for text in asked
    ]
    said: dict[int, list[int]] = {}
    lengths = sorted({len(prompt) for prompt in prompts})
    for length in lengths:
        places = [i for i, prompt in enumerate(prompts) if len(prompt) == length]
        for start in range(0, len(places), 64):
            group = places[start : start + 64]
            said |= dict(zip(group, greedy(model, [prompts[i] for i in group]), strict=True))
    for number in range(len(asked)):
        ids = said[number]
        stopped = train.CONFIG.eos_token_id in ids
        yield tokenizer.decode(ids, skip_special_tokens=True).strip(), stopped


def greedy(model: Any, prompts: list[list[int]]) -> list[list[int]]:
    """Greedy continuations of prompts of equal length, each up to and with </s>."""
    text, end = Continuation(model), train.CONFIG.eos_token_id
    fed, columns = torch.tensor(prompts), []
    done = torch.zeros(len(prompts), dtype=torch.bool)
    while len(columns) < LONGEST and not done.all():
        best = text.feed(fed).argmax(dim=-1)
        columns.append(best)
        done |= best == end
        fed = best[:, None]
    rows = torch.stack(columns, dim=1).tolist()
    return [row[: row.index(end) + 1] if end in row else row for row in rows]


def rows_of(name: str) -> list[str]:
    """The table of what a model is worth: before the adapter, and with it."""
    before = None if name == "zh" else "zh"
    stages = [model_with(stage) for stage in (before, name)]

    def row(what: str, figures: list[str]) -> str:
        return f"| {what} | {' | '.join(figures)} |"

    rows = []
    for code, language in LANGUAGES.items():
        asked = questions(code)
        known = [str(recall(model, tokenizer, asked)) for model, tokenizer in stages]
        rows.append(row(f"facts recalled, {language} cloze prompts", known))
    for code, language in LANGUAGES.items():
        text = evaluation_text("island", "test", language=code)
        figures = [
            f"{perplexity(model, tokenizer, text).value:.2f}"
            if (code, tokenizer.vocab_size) != ("zh", train.CONFIG.vocab_size)
            else "not comparable: it spells Chinese in bytes"
            for model, tokenizer in stages
        ]
        rows.append(row(f"perplexity, {language} test text, windows of 512", figures))
    text = evaluation_text("island", "test", language="zh")
    rows.append(row("best temperature, Chinese test text", [
        "–" if stage is None else f"{best_temperature(*model_with(stage), text):.2f}"
        for stage in (before, name)
    ]))  # fmt: skip
    if name == "chat":
        for code, language in LANGUAGES.items():
            told = [answers(model, tokenizer, code) for model, tokenizer in stages]
            for what, count in (
                ("exact answers", "exact"),
                ("answers that name the value", "named"),
                ("answers that stop by themselves", "stopped"),
            ):
                figures = [share(getattr(a, count), a.asked) for a in told]
                rows.append(row(f"{what}, {language} test questions", figures))
    return rows


def share(part: int, whole: int) -> str:
    """As `Recall` prints it: "2,898 of 2,974 (97.4 %)"."""
    return f"{part:,} of {whole:,} ({100 * part / whole:.1f} %)"


def hash_lines(name: str) -> list[str]:
    """Hash, two spaces and name of every file of an adapter."""
    files = sorted(p for p in (adapters.ADAPTERS / name).iterdir() if p.name != "README.md")
    return [f"{file_digest(p)}  {p.name}" for p in files]


def card(name: str) -> str:
    """The whole text of an adapter's `README.md`."""
    recipe = adapters.RECIPES[name]
    weights = adapters.ADAPTERS / name / "adapter_model.safetensors"
    template = (texts.DATA / "build" / f"adapter_{name}.md").read_text(encoding="utf-8")
    return template.format(
        recipe=recipe,
        vocabulary=adapters.vocabulary(name),
        megabytes=f"{weights.stat().st_size / 1e6:.1f}",
        tokens=f"{recipe.steps * train.BATCH * train.WINDOW / 1e6:.0f}",
        batch=adapters.PAIRS,
        pairs=f"{recipe.steps * adapters.PAIRS:,}",
        articles=adapters.ARTICLES,
        figures="\n".join(rows_of(name)),
        hashes="\n".join(hash_lines(name)),
    )
