"""data/build: the world, its articles in two languages, the splits and the questions."""

from __future__ import annotations

import json
import re
import sys
from collections import Counter
from functools import cache
from pathlib import Path
from types import ModuleType
from typing import Any

import pytest

DATA = Path(__file__).resolve().parents[2] / "data"
sys.path.insert(0, str(DATA / "build"))

import chinese  # noqa: E402
import english  # noqa: E402
import texts  # noqa: E402
from grammar import SPLITS, Article, Writer, fingerprint, questions, tenth  # noqa: E402
from texts import held_out_articles  # noqa: E402
from world import World, table  # noqa: E402

LANGUAGES = {"en": english, "zh": chinese}
COUNTS = {**texts.COUNTS, "train": 3000}
HELD_OUT = sorted(texts.COUNTS)
SENTENCE_END = {"en": re.compile(r"(?<=[.!?]) +"), "zh": re.compile(r"(?<=[。！？])")}
# What must never be left in a text, per language: marks of the grammar and slips of joining.
LEFTOVERS = {
    "en": r"[{}\[\]|]|  |[,;:]\s*[,.;:]|\.\.| [.:]|\b([Tt]he|[Aa]n?) ([Tt]he|an?)\b|[^\x00-\x7f]",
    "zh": r"[{}\[\]|]|  |[，。；：、]{2}|[A-Za-z]|[,.;:!?()\"']|(的的|他他|她她|它它)|[“][^”]*\n",
}
LINKED = {  # attributes whose value is a person, and the year in which that person did it
    ("mountain", "climber"): "climbed",
    ("bridge", "architect"): "built",
    ("instrument", "inventor"): "year",
    ("ship", "captain"): "launched",
    ("book", "author"): "year",
}

by_language = pytest.mark.parametrize("language", LANGUAGES.values(), ids=LANGUAGES)


@cache
def world() -> World:
    return World()


@cache
def articles(language: str, split: str) -> list[Article]:
    """The articles of a split, written once for all the tests of this file."""
    if split in HELD_OUT:
        return held_out_articles(world(), LANGUAGES[language], split)
    writer = Writer(world(), LANGUAGES[language], split, texts.SEED)
    return list(writer.articles(COUNTS[split]))


def written_before(_: World, language: ModuleType, split: str) -> list[Article]:
    """Stands in for ``texts.held_out_articles``: gives the articles already written."""
    return articles(language.LANGUAGE, split)


def naive_sentences(language: ModuleType, split: str) -> list[str]:
    """Sentences as a reader would find them: paragraphs of the raw text, cut at full stops."""
    found = []
    for article in articles(language.LANGUAGE, split):
        for line in article.raw(language.SPACE).split("\n"):
            if line.strip() and not line.startswith(" ="):
                found += SENTENCE_END[language.LANGUAGE].split(line.strip())
    return [sentence for sentence in found if sentence]


# The world


def test_the_table_is_large_and_every_entity_has_its_facts() -> None:
    assert len(world().entities) >= 500
    assert len(world().kinds) >= 10
    assert all(len(entity.facts) >= 5 for entity in world().entities)


@pytest.mark.parametrize("place", [0, 1], ids=["en", "zh"])
def test_names_are_unique(place: int) -> None:
    names = Counter(entity.name[place] for entity in world().entities)
    assert [name for name, times in names.items() if times > 1] == []


def test_people_were_alive_when_they_did_it() -> None:
    for (kind, who), when in LINKED.items():
        for entity in world().kinds[kind]:
            person = entity.facts[who].facts
            assert person["born"] + 18 <= entity.facts[when] <= person["died"], entity


def test_a_bridge_crosses_the_river_of_its_town() -> None:
    for bridge in world().kinds["bridge"]:
        assert bridge.facts["river"] is bridge.facts["town"].facts["river"], bridge
    for river in world().kinds["river"]:
        assert river.facts["town"].facts["river"] is river, river


def test_the_world_depends_on_its_seed_alone() -> None:
    assert table(World()) == table(world())
    assert table(World(seed=1)) != table(world())


# The committed files


def test_the_committed_texts_are_what_the_generator_writes(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(texts, "held_out_articles", written_before)
    texts.write_all(tmp_path, texts.languages())
    written = sorted(p.relative_to(tmp_path) for p in tmp_path.rglob("*") if p.is_file())
    assert len(written) == 2 + len(LANGUAGES) * len(HELD_OUT)
    for path in written:
        assert (tmp_path / path).read_bytes() == (DATA / "texts" / path).read_bytes(), path


@by_language
@pytest.mark.parametrize("split", HELD_OUT)
def test_each_committed_split_has_a_handy_size(language: ModuleType, split: str) -> None:
    size = (DATA / "texts" / language.LANGUAGE / f"{split}.txt").stat().st_size
    assert 200_000 <= size <= 1_000_000


# The articles


@by_language
@pytest.mark.parametrize("split", COUNTS)
def test_no_sentence_frame_is_common(language: ModuleType, split: str) -> None:
    frame, share = texts.frame_share(articles(language.LANGUAGE, split))
    assert share <= 0.02, frame


@by_language
@pytest.mark.parametrize("split", COUNTS)
def test_every_sentence_is_in_the_split_of_its_hash(language: ModuleType, split: str) -> None:
    for article in articles(language.LANGUAGE, split):
        for sentence in article.sentences():
            assert tenth(sentence.text) in SPLITS[split], sentence.text


@by_language
@pytest.mark.parametrize("split", HELD_OUT)
def test_held_out_sentences_are_not_in_the_training_text(language: ModuleType, split: str) -> None:
    """None as the grammar counts sentences, and none as a reader would cut the raw text."""
    train = {s.text for a in articles(language.LANGUAGE, "train") for s in a.sentences()}
    held_out = {s.text for a in articles(language.LANGUAGE, split) for s in a.sentences()}
    assert not train & held_out
    assert not set(naive_sentences(language, "train")) & set(naive_sentences(language, split))


@pytest.mark.parametrize("split", HELD_OUT)
def test_held_out_sentences_are_not_in_what_the_model_was_trained_on(split: str) -> None:
    """The same against all 90 000 articles, by fingerprint."""
    said = texts.training_fingerprints(english)
    assert len(said) > 100_000
    assert not [s for s in naive_sentences(english, split) if fingerprint(s) in said]


@by_language
@pytest.mark.parametrize("split", COUNTS)
def test_nothing_is_left_of_the_grammar(language: ModuleType, split: str) -> None:
    wrong = re.compile(LEFTOVERS[language.LANGUAGE])
    for article in articles(language.LANGUAGE, split):
        text = article.raw(language.SPACE)
        assert not (slip := wrong.search(text)), text[max(0, slip.start() - 60) : slip.end() + 20]


def test_both_languages_say_the_same_things() -> None:
    """The same kinds, attributes, forms and stories, and the same things in each story."""
    for kind, attributes in english.PHRASES.items():
        assert list(attributes) == list(chinese.PHRASES[kind])
        for attribute, phrase in attributes.items():
            assert phrase.keys() == chinese.PHRASES[kind][attribute].keys()
        for en, zh in zip(english.STORIES[kind], chinese.STORIES[kind], strict=True):
            assert len(english.story_sentences(en)) == len(chinese.story_sentences(zh)), zh
            assert slots(en) - {"S"} == slots(zh) - {"S"}, zh
    assert english.BACKLINKS.keys() == chinese.BACKLINKS.keys()
    assert english.LIST_TITLES.keys() == chinese.LIST_TITLES.keys() == world().kinds.keys()


def slots(pattern: str) -> set[str]:
    return set(re.findall(r"{(\w+)}", pattern))


# The questions


@cache
def asked(language: str) -> list[dict[str, Any]]:
    return list(questions(world(), LANGUAGES[language]))


@by_language
def test_there_are_enough_questions_and_all_are_whole(language: ModuleType) -> None:
    asked_here = asked(language.LANGUAGE)
    assert len(asked_here) >= 500
    assert len({q["id"] for q in asked_here}) == len(asked_here)
    assert all(q["answer"] and q["question"][-1] in "?？" for q in asked_here)
    wrong = re.compile(LEFTOVERS[language.LANGUAGE])
    for question in asked_here:
        text = question["prompt"] + language.SPACE + question["answer"]
        assert not wrong.search(text.replace("?", "")), question


def test_every_fact_has_one_question_in_each_language() -> None:
    ids = [[q["id"].split("-", 1)[1] for q in asked(language)] for language in LANGUAGES]
    assert ids[0] == ids[1]
    assert len(ids[0]) == len(table(world()))


@by_language
def test_cloze_answers_are_stated_in_training_articles(language: ModuleType) -> None:
    """Prompt and answer, word for word, in articles of the training split about the entity."""
    entities = {entity.name[language is chinese]: entity for entity in world().entities}
    writer = Writer(world(), language, "train", seed=99)
    for question in asked(language.LANGUAGE)[::61]:
        stated = question["prompt"][1:] + language.SPACE + question["answer"]
        entity = entities[question["entity"]]
        assert any(stated in writer.article(entity).raw(language.SPACE) for _ in range(400)), stated


def test_committed_questions_are_json_lines() -> None:
    lines = (DATA / "texts" / "questions.jsonl").read_text(encoding="utf-8").splitlines()
    assert [json.loads(line) for line in lines] == [*asked("en"), *asked("zh")]
