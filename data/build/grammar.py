"""From facts to articles: one engine for both languages.

A language module (``english``, ``chinese``) brings the phrases and how to join them.
The engine picks facts, phrases and joints at random, in the raw form of WikiText.

Every sentence belongs to exactly one split, by a hash of its text. A writer for one
split throws away the sentences of the others. English has joints that hold a full
stop, whose halves the hash does not see: a writer for a held-out split is therefore
also given all that the training text says, and never says it again.
"""

from __future__ import annotations

import hashlib
import random
import re
from collections.abc import Iterator
from dataclasses import dataclass
from types import ModuleType

from world import Entity, Value, World

# Tenths of all sentences: 0 to test, 1 to validation, 2 to calibration, the rest to train.
SPLITS = {"test": (0,), "validation": (1,), "calibration": (2,), "train": (3, 4, 5, 6, 7, 8, 9)}
TRIES = 60
CHOICE = re.compile(r"\[([^\[\]]*)\]")


def tenth(sentence: str) -> int:
    """The split number of a sentence, 0 to 9, from the hash of its text."""
    return hashlib.blake2b(sentence.strip().encode(), digest_size=4).digest()[0] % 10


def plain_sentences(text: str) -> list[str]:
    """The sentences of a text as a reader counts them: up to each full stop."""
    return [s for s in re.split(r"(?<=[.。])\s*", text.strip()) if s]


def fingerprint(sentence: str) -> int:
    """A sentence as a number: sets of these are small."""
    return int.from_bytes(hashlib.blake2b(sentence.encode(), digest_size=8).digest())


@dataclass(frozen=True)
class Sentence:
    """A finished sentence and its frame: the pattern before names and values went in."""

    text: str
    frame: str


@dataclass
class Article:
    """A title and its parts: (heading or None, sentences)."""

    title: str
    parts: list[tuple[str | None, list[Sentence]]]

    def sentences(self) -> Iterator[Sentence]:
        for _, sentences in self.parts:
            yield from sentences

    def raw(self, space: str) -> str:
        """WikiText's raw form: ` = Title = `, ` = = Heading = = `, one paragraph a line."""
        lines = [f" = {self.title} = "]
        for heading, sentences in self.parts:
            if heading:
                lines.append(f" = = {heading} = = ")
            lines.append(f" {space.join(s.text for s in sentences)} ")
        return "\n\n".join(lines)


class Writer:
    """Writes articles about a world, in one language, for one split.

    `taken` are fingerprints of sentences that must not be written: the training text's.
    """

    def __init__(
        self,
        world: World,
        language: ModuleType,
        split: str,
        seed: int,
        taken: frozenset[int] = frozenset(),
    ) -> None:
        self.world, self.lang, self.taken = world, language, taken
        self.tenths = SPLITS[split]
        self.r = random.Random(f"{language.LANGUAGE}/{split}/{seed}")
        self.phrases = {
            kind: {key: self._all_phrases(p) for key, p in attributes.items()}
            for kind, attributes in language.PHRASES.items()
        }

    def _all_phrases(self, phrase: dict[str, list[str]]) -> dict[str, list[str]]:
        """The phrases of an attribute, with the cloze phrases among the verb phrases."""
        space = self.lang.SPACE
        cloze = [f"{c}{space}{{v}}" for c in phrase["cloze"]]
        missing = [c for c in cloze if not any(vp.startswith(c) for vp in phrase["vp"])]
        return {**phrase, "vp": phrase["vp"] + missing}

    def _choose(self, text: str) -> str:
        """Settle every ``[a|b]`` in a pattern."""
        return CHOICE.sub(lambda match: self.r.choice(match[1].split("|")), text)

    def _any(self, kind: str) -> str:
        return self.lang.name(self.r.choice(self.world.kinds[kind]))

    def _sources(self) -> dict[str, str]:
        """Who is quoted, where a pattern quotes: filled only by patterns that ask for it."""
        return {"book": self._any("book"), "writer": self._any("person"), "town": self._any("town")}

    def _value(self, attribute: str, v: Value) -> dict[str, str]:
        text = self.lang.value(v)
        return {"v": text, **self.lang.extra(attribute, v)}

    def _phrase(
        self, entity: Entity, attribute: str, form: str, subject: str, named: bool
    ) -> tuple[str, str]:
        """A filled phrase and the pattern it came from."""
        patterns = self.phrases[entity.kind][attribute][form]
        if named and form == "free":
            patterns = [p for p in patterns if "{S}" in p] or patterns
        pattern = self.r.choice(patterns)
        text = self._choose(pattern).format(
            S=subject,
            P=self.lang.pronoun(entity),
            Q=self.lang.possessive(entity),
            n=entity.name[self.lang.LANGUAGE == "zh"],
            **self._value(attribute, entity.facts[attribute]),
        )
        v = entity.facts[attribute]
        # Now and then say in passing who or what the value is.
        if (
            isinstance(v, Entity)
            and self.r.random() < 0.2
            and form == "vp"
            and text.endswith(self.lang.value(v))
        ):
            note = self.lang.aside(v)
            text += self.lang.APPOSITION.format(note) if note else ""
        return text, pattern

    def _subject(self, entity: Entity, named: bool, pronoun: bool = True) -> str:
        """The name, a word for its kind, or (where the pattern allows it) a pronoun."""
        roll = self.r.random()
        if named or roll < 0.5:
            return self.lang.name(entity)
        if pronoun and roll > 0.75:
            return self.lang.pronoun(entity)
        return self.r.choice(self.lang.generic(entity))

    def _fact_sentence(self, entity: Entity, attributes: list[str], named: bool) -> Sentence:
        joints = {1: self.lang.ONE, 2: self.lang.TWO, 3: self.lang.THREE}[len(attributes)]
        (joint,) = self.r.choices([j for j, _ in joints], [w for _, w in joints])
        plain = not any(mark in joint for mark in ("{free}", "{m}", "{W}"))
        subject = self._subject(entity, named, pronoun=plain)
        fields = {"S": subject, "P": self.lang.pronoun(entity), "W": self.lang.relative(entity)}
        frame = joint
        for mark, attribute in zip("abc", attributes, strict=False):
            # The first fact may stand as a modifier or as a sentence of its own.
            form, place = "vp", mark
            if mark == "a" and ("{M}" in joint or "{m}" in joint):
                form, place = "part", "M" if "{M}" in joint else "m"
            elif joint == "{free}":
                form, place = "free", "free"
            fields[place], pattern = self._phrase(entity, attribute, form, subject, named)
            frame = frame.replace("{" + place + "}", pattern)
        if "M" in fields:
            fields["M"] = self.lang.start(fields["M"])
        if "{O}" in joint:
            opener = self.r.choice(self.lang.OPENERS)
            frame = frame.replace("{O}", opener)
            fields["O"] = opener.format(**self._sources())
        if "{L}" in joint:
            fields["L"] = self.lang.start(self.r.choice(self.lang.LINKS))
        return Sentence(self.lang.polish(joint.format(**fields)), frame)

    def _in_split(self, make, *args) -> Sentence | None:
        """A sentence of this writer's split; None where the pattern has none to give."""
        for _ in range(TRIES):
            sentence = make(*args)
            if tenth(sentence.text) in self.tenths and not self._is_taken(sentence.text):
                return sentence
        return None

    def _is_taken(self, text: str) -> bool:
        return any(fingerprint(s) in self.taken for s in plain_sentences(text))

    def _facts(self, entity: Entity, attributes: list[str], named: bool) -> list[Sentence]:
        """Sentences that tell the given attributes, one to three in each."""
        sentences = []
        queue = list(attributes)
        while queue:
            size = min(len(queue), self.r.choices((1, 2, 3), (5, 4, 1))[0])
            group, queue = queue[:size], queue[size:]
            if sentence := self._in_split(
                self._fact_sentence, entity, group, named and not sentences
            ):
                sentences.append(sentence)
        return sentences

    def _story_sentence(
        self, pattern: str, entity: Entity, slots: dict[str, str], first: bool
    ) -> Sentence:
        sources = self._sources()
        opening = self.r.choice(self.lang.STORY_STARTS) if first else ""
        ending = "" if first else self.r.choice(self.lang.STORY_ENDS)
        body = self._choose(pattern).format(S=self._subject(entity, first, pronoun=False), **slots)
        stop = body[-1]
        text = (
            opening.format(**sources) + self.lang.start(body[:-1]) + ending.format(**sources) + stop
        )
        return Sentence(self.lang.polish(text), opening + pattern + ending)

    def _story(self, entity: Entity, number: int, slots: dict[str, Value]) -> list[Sentence]:
        filled = {key: self.lang.bare(v) for key, v in slots.items()}
        patterns = self.lang.story_sentences(self.lang.STORIES[entity.kind][number])
        told = [
            self._in_split(self._story_sentence, p, entity, filled, i == 0)
            for i, p in enumerate(patterns)
        ]
        # A story with a sentence missing makes no sense: tell it whole or not at all.
        return told if all(told) else []

    def _link_sentence(self, entity: Entity, pattern: str, fields: dict[str, str]) -> Sentence:
        body = self._choose(pattern).format(**fields)
        opener = self.r.choice(self.lang.OPENERS) if self.r.random() < 0.6 else ""
        if opener:
            body = self.lang.OPENED.format(O=opener.format(**self._sources()), body=body)
        return Sentence(self.lang.polish(body), opener + pattern)

    def _links(self, entity: Entity) -> list[Sentence]:
        """What the table says of this entity elsewhere, and a comparison."""
        sentences: list[Sentence | None] = []
        named = self.lang.name(entity)
        linked = self.world.backlinks[id(entity)]
        for other, attribute in self.r.sample(linked, min(len(linked), self.r.randint(1, 3))):
            pattern = self.r.choice(self.lang.BACKLINKS[other.kind, attribute])
            fields = {
                "S": named,
                "o": self.lang.name(other),
                "n": other.name[self.lang.LANGUAGE == "zh"],
            }
            sentences.append(self._in_split(self._link_sentence, entity, pattern, fields))
        other = self.r.choice(self.world.kinds[entity.kind])
        if other is not entity and self.r.random() < 0.5:
            for text in self.lang.comparisons(self.world, entity, other)[:1]:
                sentences.append(self._in_split(self._link_sentence, entity, text, {}))
        return [s for s in sentences if s]

    def article(self, entity: Entity) -> Article:
        """One article: an introduction, sections of facts, stories, connections."""
        r, lang = self.r, self.lang
        attributes = list(entity.facts)
        r.shuffle(attributes)
        parts: list[tuple[str | None, list[Sentence]]] = []
        short = r.random() < 0.3
        parts.append(
            (
                None,
                self._facts(entity, attributes if short else attributes[: r.randint(2, 3)], True),
            )
        )
        if not short:
            sections = list(lang.SECTIONS[entity.kind])
            r.shuffle(sections)
            for headings, told in sections:
                told = [a for a in told if r.random() < 0.9]
                r.shuffle(told)
                parts.append((r.choice(headings), self._facts(entity, told, True)))
        stories: list[Sentence] = []
        for number, slots in r.sample(
            entity.legends, r.randint(0, 1) if short else r.randint(1, 3)
        ):
            stories += self._story(entity, number, slots)
        parts.append((None if short else r.choice(lang.LEGEND_HEADINGS), stories))
        if r.random() < 0.5:
            parts.append((None if short else r.choice(lang.LINK_HEADINGS), self._links(entity)))
        return Article(entity.name[lang.LANGUAGE == "zh"], [(h, s) for h, s in parts if s])

    def list_article(self, kind: str) -> Article:
        """A survey: several things of one kind, a fact or two of each."""
        entities = self.r.sample(self.world.kinds[kind], self.r.randint(4, 8))
        parts: list[tuple[str | None, list[Sentence]]] = []
        for entity in entities:
            told = self.r.sample(list(entity.facts), self.r.randint(1, 2))
            parts.append((None, self._facts(entity, told, True)))
        return Article(self.lang.LIST_TITLES[kind], [(h, s) for h, s in parts if s])

    def articles(self, count: int, list_share: float = 0.15) -> Iterator[Article]:
        """`count` articles: every entity once, in random order, before any twice; some surveys."""
        kinds = list(self.world.kinds)
        queue: list[Entity] = []
        for _ in range(count):
            if self.r.random() < list_share:
                yield self.list_article(self.r.choice(kinds))
                continue
            if not queue:
                queue = list(self.world.entities)
                self.r.shuffle(queue)
            yield self.article(queue.pop())


def questions(world: World, language: ModuleType) -> Iterator[dict[str, str]]:
    """One question a fact: as a question and as a cloze prompt, with its answer."""
    for entity in world.entities:
        number = world.kinds[entity.kind].index(entity)
        for attribute, v in entity.facts.items():
            phrase = language.PHRASES[entity.kind][attribute]
            subject = language.name(entity)
            prompt = language.start(f"{subject}{language.SPACE}{phrase['cloze'][0]}")
            yield {
                "id": f"{language.LANGUAGE}-{entity.kind}-{number:03d}-{attribute}",
                "language": language.LANGUAGE,
                "question": language.start(phrase["ask"][0].format(S=subject)),
                "prompt": prompt,
                "answer": language.value(v),
                "entity": entity.name[language.LANGUAGE == "zh"],
                "attribute": attribute,
            }
