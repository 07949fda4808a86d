"""Does an adapter belong to a base, and may several follow one another?

Each of these goes through elsewhere without a word, and gives a model that is wrong.
"""

from __future__ import annotations

from collections.abc import Sequence
from pathlib import Path
from typing import Any

import numpy as np

from lessonkit.convert.adapter import Adapter, LowRank, family_of
from lessonkit.convert.hf_checkpoint import HfCheckpoint
from lessonkit.errors import LessonkitError
from lessonkit.files.certificate import certificate_of
from lessonkit.files.checkpoint import read_json
from lessonkit.llama.layout import EMBEDDING, HEAD
from lessonkit.llama.tokenizer import count_tokens

Shape = tuple[int, ...]
_BASE = "Name the base that the adapter was trained on (base_model_name_or_path in its config)."
TOKENIZER_FILES = (
    "tokenizer.model", "tokenizer.json", "tokenizer_config.json", "special_tokens_map.json",
    "added_tokens.json", "vocab.json", "merges.txt", "chat_template.jinja", "chat_template.json",
)  # fmt: skip


def merged_before(base: HfCheckpoint) -> list[dict[str, Any]]:
    """The adapters that the base's certificate says it holds already."""
    certificate = certificate_of(base.path if base.path.is_dir() else base.path.parent)
    if certificate is None:
        return []
    held = read_json(certificate).get("options", {}).get("adapters", [])
    return [each for each in held if isinstance(each, dict)]


def require_weights(adapters: Sequence[Adapter], weights: Sequence[float] | None) -> list[float]:
    """One weight an adapter, 1 where none are given; only plain LoRA can be weighted."""
    if not adapters:
        raise LessonkitError(
            "There is no adapter to merge.", where="adapters", remedy="Name at least one folder."
        )
    if weights is None:
        return [1.0] * len(adapters)
    if len(weights) != len(adapters) or not np.isfinite(weights).all() or 0 in weights:
        raise LessonkitError(
            f"{len(adapters)} adapters need {len(adapters)} weights, none of them 0; there are "
            f"{list(weights)}.",
            where="weights",
            remedy="Give one number an adapter, in their order.",
        )
    for adapter, weight in zip(adapters, weights, strict=True):
        dora = any(part.magnitude for part in adapter.low_rank.values())
        if weight != 1 and (dora or adapter.saved or adapter.rows):
            raise LessonkitError(
                f"The adapter {adapter.name} cannot be weighted with {weight:g}: it "
                + ("rescales weights (DoRA)." if dora else "replaces whole tensors or rows."),
                where=adapter.path,
                remedy="Weight only adapters that add, or leave its weight at 1.",
            )
    return list(weights)


def require_new(
    adapters: Sequence[Adapter], digests: Sequence[str], before: Sequence[dict[str, Any]]
) -> None:
    """No adapter twice: neither in the list, nor in a base that holds it already."""
    held = {each.get("sha256") for each in before}
    for place, (adapter, digest) in enumerate(zip(adapters, digests, strict=True)):
        if digest in held:
            raise LessonkitError(
                f"The base holds the adapter {adapter.name} already (its certificate says so): "
                "merging it again would double its change.",
                where=adapter.path,
                remedy="Use the merged model as it is, or start from the original base.",
            )
        if digest in digests[:place]:
            raise LessonkitError(
                f"The adapter {adapter.name} is named twice: its change would be doubled.",
                where=adapter.path,
                remedy="Name each adapter once; to make one stronger, use --weights.",
            )


def require_fit(
    base: HfCheckpoint, adapters: Sequence[Adapter], *, replace_saved: bool = False
) -> dict[str, Shape]:
    """Every key finds its place, in the right shape and order; returns the new shapes."""
    shapes: dict[str, Shape] = {name: base.info(name).shape for name in base.names()}
    first = dict(shapes)
    changed_by: dict[str, str] = {}
    for adapter in adapters:
        _require_names(adapter, shapes, base)
        _require_trained(adapter)
        for name, key in adapter.saved.items():
            new = adapter.weights.info(key).shape
            _require_replacement(adapter, name, new, shapes[name], first[name], changed_by)
            if name in changed_by and new == shapes[name] and not replace_saved:
                raise _overwritten(adapter, name, changed_by[name])
            shapes[name] = new
        for name, part in adapter.low_rank.items():
            _require_pair(adapter, name, part, shapes[name])
        for name, (rows, key) in adapter.rows.items():
            wanted = (len(rows), *shapes[name][1:])
            if adapter.weights.info(key).shape != wanted or max(rows) >= shapes[name][0]:
                raise _other_shape(adapter, name, adapter.weights.info(key).shape, shapes[name])
        changed_by |= dict.fromkeys(adapter.targets, adapter.name)
    _require_vocabulary(base, adapters, shapes, first)
    return shapes


def tokenizer_folder(adapters: Sequence[Adapter]) -> Path | None:
    """The last adapter's folder that brings a tokenizer."""
    for adapter in reversed(adapters):
        if any((adapter.path / name).is_file() for name in ("tokenizer.model", "tokenizer.json")):
            return adapter.path
    return None


def require_tokenizer(folder: Path | None, rows: int, grown: bool) -> str | None:
    """A row for each token, and a token for the new rows; returns a note, if there is one."""
    if folder is None:
        return None
    tokens = _count_tokens(folder)
    if tokens is None or tokens == rows:
        return None
    if tokens > rows:
        raise LessonkitError(
            f"The tokenizer has {tokens} tokens, the merged embedding only {rows} rows: text would "
            "lead to ids that the model does not know.",
            where=folder,
            remedy="Use the tokenizer that the last adapter was trained with, in its folder.",
        )
    if grown:
        raise LessonkitError(
            f"The merged embedding has {rows} rows, the tokenizer only {tokens} tokens: the new "
            "rows would never be used.",
            where=folder,
            remedy="Put the tokenizer of the extended vocabulary into the adapter's folder "
            "(lessonkit extend-vocab makes one).",
        )
    return f"the embedding has {rows} rows, the tokenizer only {tokens} tokens"


def _require_names(adapter: Adapter, shapes: dict[str, Shape], base: HfCheckpoint) -> None:
    targets = adapter.targets
    tied = HEAD in targets and HEAD not in shapes and EMBEDDING in shapes
    if base.config.get("tie_word_embeddings") or tied:
        touched = [name for name in (EMBEDDING, HEAD) if name in targets]
        if touched:
            grown = any((adapter.grown_rows(n) or 0) > shapes[EMBEDDING][0] for n in touched)
            raise LessonkitError(
                "The base's output head is its embedding (tied), and the adapter "
                f"{adapter.name} {'grows' if grown else 'changes'} {' and '.join(touched)}: "
                "transformers would load one of the two in place of both.",
                where=adapter.path,
                remedy='Untie the base first: set "tie_word_embeddings" to false in config.json '
                "and store a copy of the embedding as lm_head.weight.",
            )
    missing = [name for name in targets if name not in shapes]
    if not missing:
        return
    family = family_of(missing[0])
    biases = {f"{part.module}.bias" for part in adapter.low_rank.values() if part.bias}
    if missing[0] in biases:
        what, remedy = "has a bias (lora_bias), and the base's layer has none", _BASE
    elif family:
        what = f"is for a model of the {family} family"
        remedy = f"Merge it into the {family} model that it was trained on."
    else:
        what = f"changes {len(targets)} tensors, of which the base lacks {len(missing)}"
        remedy = _BASE
    raise LessonkitError(
        f"The adapter {adapter.name} {what}: there is no {missing[0]}.",
        where=base.path,
        remedy=remedy,
    )


def _require_trained(adapter: Adapter) -> None:
    if adapter.saved or adapter.rows:
        return
    parts = adapter.low_rank.values()
    if not any(adapter.weights.array(part.b).any() or part.magnitude for part in parts):
        raise LessonkitError(
            f"The adapter {adapter.name} changes nothing: every B is zero, as before training.",
            where=adapter.path,
            remedy="Use the adapter that training wrote; this one holds its starting values.",
        )


def _require_replacement(
    adapter: Adapter,
    name: str,
    new: Shape,
    now: Shape,
    first: Shape,
    changed_by: dict[str, str],
) -> None:
    """A saved tensor takes the place of one of its shape; embedding and head may grow."""
    if name not in (EMBEDDING, HEAD) or len(new) != 2 or new[1:] != now[1:]:
        if new != now:
            raise _other_shape(adapter, name, new, now)
    elif new[0] < now[0]:
        if now != first:
            raise LessonkitError(
                f"The adapters are in the wrong order: {changed_by[name]} has made the vocabulary "
                f"{now[0]}, and {adapter.name} would shrink it to {new[0]}.",
                where=adapter.path,
                remedy="Name the adapter that extends the vocabulary first, and then the one that "
                "was trained on top.",
            )
        raise LessonkitError(
            f"The adapter {adapter.name} holds {new[0]} rows of {name}, the base has {now[0]}: the "
            "vocabulary would shrink.",
            where=adapter.path,
            remedy=_BASE,
        )


def _overwritten(adapter: Adapter, name: str, earlier: str) -> LessonkitError:
    return LessonkitError(
        f"{adapter.name} replaces {name}, which {earlier} has changed: that change would be lost.",
        where=adapter.path,
        remedy=f"If {adapter.name} was trained on top of {earlier}, its tensor holds both: say "
        "--replace-saved. Else the order is wrong, or the two do not go together.",
    )


def _require_pair(adapter: Adapter, name: str, part: LowRank, shape: Shape) -> None:
    a, b = (adapter.weights.info(key).shape for key in (part.a, part.b))
    made = (a[1], b[0]) if part.transposed else (b[0], a[1])
    if made != shape:
        raise _other_shape(adapter, name, made, shape)
    for key, what in ((part.magnitude, "DoRA magnitude"), (part.bias, "bias")):
        if key and int(np.prod(adapter.weights.info(key).shape)) != b[0]:
            raise _other_shape(adapter, f"the {what} of {name}", adapter.weights.info(key).shape,
                               (b[0],))  # fmt: skip


def _other_shape(adapter: Adapter, name: str, theirs: Shape, ours: Shape) -> LessonkitError:
    return LessonkitError(
        f"The adapter {adapter.name} is for another base: {name} is {list(ours)}, its change "
        f"{list(theirs)}.",
        where=adapter.path,
        remedy=_BASE,
    )


def _require_vocabulary(
    base: HfCheckpoint,
    adapters: Sequence[Adapter],
    shapes: dict[str, Shape],
    first: dict[str, Shape],
) -> None:
    if EMBEDDING not in shapes or HEAD not in shapes:
        return
    rows, head = shapes[EMBEDDING][0], shapes[HEAD][0]
    if rows != head and (shapes[EMBEDDING], shapes[HEAD]) != (first[EMBEDDING], first[HEAD]):
        raise LessonkitError(
            f"The vocabulary grows in one place only: the embedding would have {rows} rows, the "
            f"output head {head}.",
            where=adapters[-1].path,
            remedy="The adapter must bring both, embed_tokens and lm_head (modules_to_save).",
        )


def _count_tokens(folder: Path) -> int | None:
    """Tokens of a folder's tokenizer: the largest id and one, added tokens included."""
    whole = folder / "tokenizer.json"
    if whole.is_file():
        content = read_json(whole)
        vocabulary = content.get("model", {}).get("vocab", {})
        ids = list(vocabulary.values()) if isinstance(vocabulary, dict) else range(len(vocabulary))
        added = [token.get("id", 0) for token in content.get("added_tokens", [])]
        return max([*ids, *added], default=-1) + 1
    if not (folder / "tokenizer.model").is_file():
        return None
    added_file = folder / "added_tokens.json"
    beside = read_json(added_file) if added_file.is_file() else {}
    more = [number for number in beside.values() if type(number) is int]
    return max([count_tokens(folder / "tokenizer.model") - 1, *more]) + 1
