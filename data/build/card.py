"""The model card: measure everything it states and write `data/README.md` and `data/SHA256SUMS`.

`python data/build/card.py` writes both. With `--check` it measures again, writes nothing and
fails where a figure or a hash differs from the committed ones.
"""

from __future__ import annotations

import argparse
import sys
from pathlib import Path

import texts
from grammar import fingerprint, plain_sentences
from tqdm import tqdm
from world import World

from lessonkit.files.integrity import file_digest

DATA = texts.DATA
HASHED = ("mini", "texts")


def data_files() -> list[Path]:
    """Every committed data file, in order of name."""
    return sorted(p for folder in HASHED for p in (DATA / folder).rglob("*") if p.is_file())


def hash_lines() -> list[str]:
    """Lines of SHA256SUMS: hash, two spaces, path relative to `data/`."""
    return [f"{file_digest(p)}  {p.relative_to(DATA).as_posix()}" for p in data_files()]


def text_figures() -> list[str]:
    """A table row for each language and split: size, sentences, overlap, commonest frame."""
    world, rows = World(), []
    for language in texts.languages():
        said = texts.training_fingerprints(language)
        for split in texts.COUNTS:
            articles = texts.held_out_articles(world, language, split)
            plain = [p for a in articles for s in a.sentences() for p in plain_sentences(s.text)]
            shared = sum(fingerprint(p) in said for p in plain)
            _, share = texts.frame_share(articles)
            size = (DATA / "texts" / language.LANGUAGE / f"{split}.txt").stat().st_size
            rows.append(
                f"| `{language.LANGUAGE}/{split}.txt` | {size / 1e6:.2f} MB | {len(articles):,} "
                f"| {len(plain):,} | {shared} | {100 * share:.1f} % |"
            )
    return rows


def model_figures() -> list[str]:
    """Rows of what `mini` is worth: perplexity on both English splits, recall in both languages."""
    from lessonkit.evaluate.perplexity import perplexity
    from lessonkit.evaluate.recall import recall
    from lessonkit.models.loading import load
    from lessonkit.models.questions import questions
    from lessonkit.models.texts import evaluation_text

    model, tokenizer = load("mini", dtype="float32")
    rows = []
    for split in ("test", "validation"):
        score = perplexity(model, tokenizer, evaluation_text("island", split))
        rows.append(f"| perplexity, English {split} text | {score} |")
    for name, language in (("English", "en"), ("Chinese", "zh")):
        known = recall(model, tokenizer, questions(language))
        rows.append(f"| facts recalled, {name} cloze prompts | {known} |")
    return rows


def card() -> str:
    """The whole text of `data/README.md`."""
    world = World()
    kinds = ", ".join(f"{len(entities)} {kind}s" for kind, entities in world.kinds.items())
    kinds = kinds.replace("persons", "people").replace("dishs", "dishes")
    facts = sum(len(entity.facts) for entity in world.entities)
    template = (DATA / "build" / "card.md").read_text(encoding="utf-8")
    return template.format(
        entities=len(world.entities),
        kinds=kinds,
        facts=f"{facts:,}",
        texts="\n".join(text_figures()),
        model="\n".join(model_figures()),
        hashes="\n".join(hash_lines()),
    )


def main() -> int:
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("--check", action="store_true", help="measure and compare, write nothing")
    check = parser.parse_args().check
    sums = "\n".join(hash_lines()) + "\n"
    if not check:  # loading `mini` needs the list of hashes first
        (DATA / "SHA256SUMS").write_text(sums)
    wanted = {"SHA256SUMS": sums, "README.md": card()}
    wrong = [name for name, text in wanted.items() if check and (DATA / name).read_text() != text]
    for name, text in wanted.items():
        if not check:
            (DATA / name).write_text(text)
    tqdm.write(
        f"differs from what was measured now: {', '.join(wrong)}" if wrong else "the card is right"
    )
    return 1 if wrong else 0


if __name__ == "__main__":
    sys.exit(main())
