"""The cards: measure all they state; write `data/README.md`, the adapters' and `data/SHA256SUMS`.

`python data/build/card.py` writes them. With `--check` it measures again, writes nothing and
fails where a figure or a hash differs from the committed ones.
"""

from __future__ import annotations

import argparse
import sys
from functools import cache
from pathlib import Path
from typing import Any

import adapter_card
import texts
from grammar import fingerprint, plain_sentences
from tqdm import tqdm
from world import World

from lessonkit.files.integrity import file_digest

DATA = texts.DATA
LEAST_TEMPERATURE, MOST_TEMPERATURE = 0.97, 1.03
FORMATS = (
    "fp8 e4m3", "int8 block 64", "int4 block 64", "int4 block 64 zero-point", "nf4 block 64",
    "fp4 block 64", "e2m1 block 64", "e3m0 block 64", "mxfp4", "nvfp4", "int3 block 64",
    "int2 block 64",
)  # fmt: skip
HASHED = ("mini", "texts", "adapters")


def data_files() -> list[Path]:
    """Every committed data file but the cards, in order of name."""
    found = (p for folder in HASHED for p in (DATA / folder).rglob("*"))
    return sorted(p for p in found if p.is_file() and p.name != "README.md")


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


@cache
def mini() -> tuple[Any, Any]:
    """The embedded model in float32, and its tokenizer."""
    from lessonkit.models import find_model, load

    return load(find_model("mini"), dtype="float32")


def model_figures() -> list[str]:
    """Rows of what `mini` is worth: perplexity, temperature, recall in both languages."""
    from lessonkit.evaluate import best_temperature, perplexity, recall
    from lessonkit.models import evaluation_text, questions

    model, tokenizer = mini()
    rows = []
    for split in ("test", "validation"):
        text = evaluation_text("island", split)
        rows.append(f"| perplexity, English {split} text | {perplexity(model, tokenizer, text)} |")
        temperature = best_temperature(model, tokenizer, text)
        rows.append(f"| best temperature, English {split} text | {temperature:.2f} |")
        if not LEAST_TEMPERATURE < temperature < MOST_TEMPERATURE:
            raise SystemExit(
                f"mini is not calibrated: best temperature {temperature:.3f} ({split})"
            )
    for name, language in (("English", "en"), ("Chinese", "zh")):
        known = recall(model, tokenizer, questions(language))
        rows.append(f"| facts recalled, {name} cloze prompts | {known} |")
    return rows


def format_figures() -> list[str]:
    """Rows of what fewer bits cost: perplexity over float32's, paired; recall, by McNemar's test.

    Fails where a format seems better than float32 by more than its error: then the model would
    not measure honestly.
    """
    from contextlib import nullcontext

    from lessonkit.evaluate import compare, holm, mcnemar, perplexities, recall
    from lessonkit.models import evaluation_text, questions
    from lessonkit.quantize import quantized_model, scheme

    model, tokenizer = mini()
    asked = questions("en")[::5]
    text = evaluation_text("island", "test")
    variants = {name: quantized_model(model, name) for name in FORMATS}
    scores = perplexities(model, tokenizer, text, {"float32": nullcontext(), **variants})
    base = recall(model, tokenizer, asked)
    shape = model.model.layers[0].mlp.down_proj.weight.shape
    rows, better = [], []
    for name in FORMATS:
        with quantized_model(model, name):
            known = recall(model, tokenizer, asked)
        rise, flips = (
            compare(scores["float32"], scores[name]),
            mcnemar(base.verdicts, known.verdicts),
        )
        if rise.mean < 0:
            better.append(rise.p)
        if flips.gained > flips.lost and flips.real:
            raise SystemExit(f"{name} knows more than float32: {flips}")
        rows.append(
            f"| {name} | {scheme(name).bits_per_weight(shape):.3f} "
            f"| × {rise.ratio:.4f} ± {rise.ratio_error:.4f} "
            f"| {known} | {flips.lost} lost, {flips.gained} gained |"
        )
    if any(p < 0.05 for p in holm(better)):
        raise SystemExit("a format has a lower perplexity than float32, beyond its paired error")
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
        formats="\n".join(format_figures()),
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
    wanted |= {f"adapters/{name}/README.md": adapter_card.card(name) for name in adapter_card.ORDER}
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
