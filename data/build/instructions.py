"""From facts to instructions: pairs of instruction and response, in both languages.

A fact gets a dozen instructions, none of them worded like the test set's question, and one
response: the cloze sentence of ``texts/questions.jsonl``, finished.
"""

from __future__ import annotations

import random
from collections.abc import Iterator
from dataclasses import dataclass
from types import ModuleType

import chinese
import english
import wordings
from grammar import CHOICE
from world import Entity, World

# Stanford Alpaca's frame; Chinese-Alpaca uses the same English one for Chinese.
TEMPLATE = (
    "Below is an instruction that describes a task. Write a response that appropriately completes "
    "the request.\n\n### Instruction:\n{instruction}\n\n### Response:\n"
)
WORDINGS = {"en": wordings.ENGLISH, "zh": wordings.CHINESE}
# {n}: what the value is called; {q}: a question.
FRAMES = {
    "en": [
        "What is {n}?",
        "Tell me {n}.",
        "State {n}.",
        "I would like to know {n}.",
        "Do you know {n}?",
        "Please look up {n}.",
        "{q}",
        "{q} Answer in one sentence.",
        "A traveller asks: {q}",
        "I have a question. {q}",
    ],
    "zh": [
        "{n}是什么？",
        "告诉我{n}。",
        "请说出{n}。",
        "我想知道{n}。",
        "你知道{n}吗？",
        "请查一查{n}。",
        "{q}",
        "请用一句话回答：{q}",
        "有个旅人问：{q}",
        "请问，{q}",
    ],
}
STOP = {"en": ".", "zh": "。"}


@dataclass(frozen=True)
class Pair:
    """An instruction and the response to it."""

    instruction: str
    response: str


def response(entity: Entity, attribute: str, language: ModuleType) -> str:
    """The sentence that answers: the cloze prompt, the value and what the grammar lets follow."""
    phrase = language.PHRASES[entity.kind][attribute]
    cloze, space = phrase["cloze"][0], language.SPACE
    pattern = next((p for p in phrase["vp"] if p.startswith(cloze)), f"{cloze}{space}{{v}}")
    told = CHOICE.sub(lambda match: match[1].split("|")[0], pattern)
    value = entity.facts[attribute]
    body = told.format(v=language.value(value), **language.extra(attribute, value))
    return language.start(f"{language.name(entity)}{space}{body}{STOP[language.LANGUAGE]}")


def test_question(entity: Entity, attribute: str, language: ModuleType) -> str:
    """The question of the test set, which no instruction may contain."""
    ask: str = language.PHRASES[entity.kind][attribute]["ask"][0]
    return language.start(ask.format(S=language.name(entity)))


def instructions(entity: Entity, attribute: str, language: ModuleType) -> list[str]:
    """All instructions that ask for a fact, but for those that word it as the test set does."""
    name, *questions = [
        w.format(S=language.name(entity))
        for w in WORDINGS[language.LANGUAGE][entity.kind][attribute]
    ]
    asked = [
        frame.format(n=name, q=language.start(question))
        for frame in FRAMES[language.LANGUAGE]
        for question in (questions if "{q}" in frame else questions[:1])
    ]
    held_out = test_question(entity, attribute, language).casefold()
    return [text for text in asked if held_out not in text.casefold()]


def pairs(world: World, language: ModuleType) -> Iterator[list[Pair]]:
    """For every fact, in the order of the test set, its pairs."""
    for entity in world.entities:
        for attribute in entity.facts:
            answer = response(entity, attribute, language)
            yield [Pair(text, answer) for text in instructions(entity, attribute, language)]


def chosen(facts: list[list[Pair]], count: int, seed: object) -> list[Pair]:
    """`count` pairs, each of another fact and in a wording drawn by chance."""
    r = random.Random(f"{seed}")
    return [r.choice(fact) for fact in r.sample(facts, count)]


def facts() -> list[list[Pair]]:
    """The pairs of all facts, English ones first."""
    world = World()
    return [fact for language in (english, chinese) for fact in pairs(world, language)]
