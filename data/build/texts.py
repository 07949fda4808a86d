"""Write Talverra's texts and questions: `python data/build/texts.py`.

The committed splits go to ``data/texts``; the training text, which is large, goes to
``data/build/out`` and is not committed. The same seed gives the same bytes.
"""

from __future__ import annotations

import json
import sys
from collections import Counter
from functools import cache
from pathlib import Path
from types import ModuleType

import english
from grammar import Article, Writer, fingerprint, plain_sentences, questions
from world import World, table

DATA = Path(__file__).resolve().parent.parent
OUT = DATA / "build" / "out"
SEED = 1
# Articles in each committed split, and in the training text of the English model.
COUNTS = {"validation": 500, "test": 640, "calibration": 640}
TRAIN_COUNTS = {"en": 90_000}


@cache
def training_fingerprints(language: ModuleType) -> frozenset[int]:
    """Every sentence of a language's training text. Half a minute for the English one."""
    count = TRAIN_COUNTS.get(language.LANGUAGE, 0)
    writer = Writer(World(), language, "train", SEED)
    return frozenset(
        fingerprint(plain)
        for article in writer.articles(count)
        for sentence in article.sentences()
        for plain in plain_sentences(sentence.text)
    )


def held_out_articles(world: World, language: ModuleType, split: str) -> list[Article]:
    """The articles of a committed split."""
    writer = Writer(world, language, split, SEED, taken=training_fingerprints(language))
    return list(writer.articles(COUNTS[split]))


def split_text(world: World, language: ModuleType, split: str) -> str:
    """One split as raw text: articles in WikiText's form, a blank line between paragraphs."""
    articles = held_out_articles(world, language, split)
    return "\n\n".join(article.raw(language.SPACE) for article in articles) + "\n"


def write_facts(world: World, path: Path) -> None:
    """The table of facts as tab-separated values."""
    rows = [("kind", "name", "name_zh", "attribute", "value", "value_zh"), *table(world)]
    path.write_text("".join("\t".join(row) + "\n" for row in rows), encoding="utf-8")


def write_all(target: Path, languages: list[ModuleType]) -> None:
    """Every committed text, written below `target`."""
    world = World()
    target.mkdir(parents=True, exist_ok=True)
    write_facts(world, target / "facts.tsv")
    with open(target / "questions.jsonl", "w", encoding="utf-8") as f:
        for language in languages:
            for question in questions(world, language):
                f.write(json.dumps(question, ensure_ascii=False) + "\n")
    for language in languages:
        folder = target / language.LANGUAGE
        folder.mkdir(exist_ok=True)
        for split in COUNTS:
            path = folder / f"{split}.txt"
            path.write_text(split_text(world, language, split), encoding="utf-8", newline="\n")


def frame_share(articles: list[Article]) -> tuple[str, float]:
    """The commonest sentence frame and its share of all sentences."""
    frames = Counter(s.frame for article in articles for s in article.sentences())
    frame, most = frames.most_common(1)[0]
    return frame, most / frames.total()


def languages() -> list[ModuleType]:
    """The language modules of the course."""
    import chinese

    return [english, chinese]


if __name__ == "__main__":
    write_all(DATA / "texts", languages())
    print(f"texts written to {DATA.name}/texts", file=sys.stderr)
