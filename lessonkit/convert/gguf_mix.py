"""Which tensor of a model gets which GGUF type: llama.cpp's mixes.

A "mix" such as q4_k_m names a type for most tensors and a better one for those that suffer
most: the output, attention values and the feed-forward's way down, in some layers. The
rules and their order: `llama_tensor_get_type` and what it calls in `llama-quant.cpp`.
They are those for dense models of Llama's kind (no 8-expert rules, none for Falcon).
"""

from __future__ import annotations

import re
from collections.abc import Callable, Iterable, Sequence
from dataclasses import dataclass

from lessonkit.errors import LessonkitError
from lessonkit.formats.ggml import block_format


@dataclass(frozen=True)
class ModelFigures:
    """What the rules ask of a model: its layers, query heads and key/value heads."""

    layers: int
    heads: int
    kv_heads: int
    architecture: str = "llama"

    @property
    def sharing(self) -> int:
        """How many query heads share a key/value head."""
        return self.heads // self.kv_heads if self.kv_heads else 0

    @property
    def is_70b(self) -> bool:
        """Whether llama.cpp takes it for Llama 2 or 3 of 70B parameters."""
        return self.architecture == "llama" and self.layers == 80 and self.heads != self.kv_heads


@dataclass(frozen=True)
class Place:
    """Where a tensor stands: number `i` of `n` of its kind, in which model."""

    i: int
    n: int
    sharing: int
    imatrix: bool

    def among_first(self, part: int) -> bool:
        """Whether it is in the first 1/part of the layers, rounded down."""
        return self.i < self.n // part

    @property
    def deserves_more(self) -> bool:
        """The first eighth, the last eighth, and every third in between."""
        return self.among_first(8) or self.i >= 7 * self.n // 8 or (self.i - self.n // 8) % 3 == 2


Rule = Callable[[Place], str | None]
"""A better type for a tensor in some place; None for the mix's own."""


def _own(_: Place) -> None:
    return None


def _always(kind: str) -> Rule:
    return lambda place: kind


def _shared_by_four(kind: str) -> Rule:
    return lambda place: kind if place.sharing >= 4 else None


def _more(kind: str) -> Rule:
    return lambda place: kind if place.deserves_more else None


def _first_eighth(kind: str, imatrix: bool | None = None) -> Rule:
    return lambda place: kind if place.among_first(8) and imatrix in (None, place.imatrix) else None


@dataclass(frozen=True)
class Mix:
    """A mix: its main type, its number in `general.file_type`, and the exceptions."""

    kind: str
    file_type: int
    attn_v: Rule = _own
    ffn_down: Rule = _own
    attn_output: Rule = _own


MIXES: dict[str, Mix] = {
    "q4_0": Mix("Q4_0", 2, ffn_down=_first_eighth("Q4_1", imatrix=True)),
    "q4_1": Mix("Q4_1", 3),
    "q5_0": Mix("Q5_0", 8, ffn_down=_first_eighth("Q5_1", imatrix=True)),
    "q5_1": Mix("Q5_1", 9),
    "q8_0": Mix("Q8_0", 7),
    "q2_k": Mix(
        "Q2_K",
        10,
        attn_v=lambda place: "Q4_K" if place.sharing >= 4 else "Q3_K",
        ffn_down=_always("Q3_K"),
        attn_output=_always("Q3_K"),
    ),
    "q2_k_s": Mix("Q2_K", 21, attn_v=_shared_by_four("Q4_K"), ffn_down=_first_eighth("Q4_K")),
    "q3_k_s": Mix("Q3_K", 11),
    "q3_k_m": Mix(
        "Q3_K",
        12,
        attn_v=lambda place: "Q5_K" if place.i < 2 else "Q4_K",
        ffn_down=lambda place: "Q5_K" if place.among_first(16) else "Q4_K",
        attn_output=_always("Q4_K"),
    ),
    "q3_k_l": Mix("Q3_K", 13, _always("Q5_K"), _always("Q5_K"), _always("Q5_K")),
    "q4_k_s": Mix(
        "Q4_K",
        14,
        attn_v=lambda place: "Q5_K" if place.i < 4 else None,
        ffn_down=_first_eighth("Q5_K"),
    ),
    "q4_k_m": Mix("Q4_K", 15, attn_v=_more("Q6_K"), ffn_down=_more("Q6_K")),
    "q5_k_s": Mix("Q5_K", 16),
    "q5_k_m": Mix("Q5_K", 17, attn_v=_more("Q6_K"), ffn_down=_more("Q6_K")),
    "q6_k": Mix("Q6_K", 18),
    "iq4_nl": Mix("IQ4_NL", 25, _shared_by_four("Q5_K"), _first_eighth("Q5_K", imatrix=False)),
    "iq4_xs": Mix("IQ4_XS", 30, _shared_by_four("Q5_K"), _first_eighth("Q5_K", imatrix=False)),
    # llama.cpp's MXFP4_MOE: only matrices of experts become MXFP4.
    "mxfp4": Mix("MXFP4", 38),
}

# A type with smaller blocks, for rows that the type's own do not divide; else F16.
_SMALLER = {
    "Q2_K": "Q4_0",
    "Q3_K": "Q4_0",
    "Q4_K": "Q5_0",
    "Q5_K": "Q5_1",
    "Q6_K": "Q8_0",
    "IQ4_XS": "IQ4_NL",
}

_EMBEDDING = "token_embd.weight"
_OUTPUT = "output.weight"


def is_quantised(name: str, shape: Sequence[int]) -> bool:
    """Whether a mix touches a tensor: a matrix of weights, but no norm and no expert router.

    `shape` ends with the row length. A single row counts as a vector.
    """
    return (
        any(size > 1 for size in shape[:-1])
        and name.endswith("weight")
        and "_norm.weight" not in name
        and "ffn_gate_inp.weight" not in name
    )


def tensor_types(
    tensors: Iterable[tuple[str, Sequence[int]]],
    mix: str,
    model: ModelFigures,
    *,
    imatrix: bool = False,
    overrides: Sequence[tuple[str, str]] = (),
    output_type: str | None = None,
    embedding_type: str | None = None,
    pure: bool = False,
) -> dict[str, str]:
    """Return the type of each tensor that the mix touches, by name; others keep their own.

    Parameters
    ----------
    tensors:
        Names as GGUF has them (`blk.0.attn_v.weight`) and shapes that end with the row
        length. Their order does not matter: layers are counted by number.
    mix:
        One of MIXES.
    model:
        The model's figures.
    imatrix:
        Whether there is an importance matrix; some rules ask.
    overrides:
        `--tensor-type`: (pattern, type); the first whose pattern is found in the name
        counts. Such a tensor is not counted among its kind: later layers move up. Types may be
        written in capitals or not.
    output_type, embedding_type:
        `--output-tensor-type` and `--token-embedding-type`, used as they are.
    pure:
        `--pure`: the main type everywhere.

    Raises LessonkitError for an unknown mix or type, a pattern that is found in no matrix's name,
    and for q2_k_s without an importance matrix, which llama.cpp refuses too.
    """
    chosen = _known_mix(mix)
    patterns = [(_compiled(pattern), _known_type(kind)) for pattern, kind in overrides]
    output_type, embedding_type = (
        kind and _known_type(kind) for kind in (output_type, embedding_type)
    )
    shapes = dict(tensors)
    touched = [name for name in sorted(shapes, key=_layer) if is_quantised(name, shapes[name])]
    for pattern, _ in patterns:
        _require_found(pattern, touched)
    tied = _OUTPUT not in shapes
    values = sum(_category(name) == "attn_v" for name in shapes)
    counters = {"attn_v": 0, "ffn_down": 0}
    types: dict[str, str] = {}

    def by_the_mix(name: str) -> str:
        category = _category(name)
        if name == _OUTPUT or (tied and name == _EMBEDDING):
            return output_type or _for_output(chosen, shapes[name][-1])
        if mix == "mxfp4":
            return "MXFP4" if len(shapes[name]) == 3 and shapes[name][0] > 1 else "Q8_0"
        place = Place(
            counters.get(category, 0),
            values if category == "attn_v" else model.layers,
            model.sharing,
            imatrix,
        )
        if category in counters:
            counters[category] += 1
        rule: Rule = getattr(chosen, category, _own)
        kind = rule(place) or chosen.kind
        if category == "attn_v" and model.is_70b and kind in ("Q3_K", "Q4_K"):
            kind = "Q5_K"
        return kind

    for name in touched:
        if name == _EMBEDDING and embedding_type:
            types[name] = embedding_type
        elif name == _OUTPUT and output_type:
            types[name] = output_type
        else:
            matched = next((kind for pattern, kind in patterns if pattern.search(name)), None)
            kind = matched or (chosen.kind if pure else by_the_mix(name))
            types[name] = that_divides(kind, shapes[name][-1])
    if mix == "q2_k_s" and not imatrix and "Q2_K" in types.values():
        raise LessonkitError(
            "q2_k_s needs an importance matrix: without one the model is of no use.",
            where=next(name for name, kind in types.items() if kind == "Q2_K"),
            remedy="Measure an importance matrix first, or choose q2_k.",
        )
    return types


def that_divides(kind: str, columns: int) -> str:
    """Return the type, or the one llama.cpp falls back to for rows of so many values."""
    for candidate in (kind, _SMALLER.get(kind, kind)):
        if columns % block_format(candidate).values == 0:
            return candidate
    return "F16"


def _for_output(mix: Mix, columns: int) -> str:
    whole = columns % block_format(mix.kind).values == 0
    return "Q6_K" if whole and mix.kind not in ("Q8_0", "MXFP4") else "Q8_0"


def _category(name: str) -> str:
    """Which rule a tensor falls under: a field of Mix, or ""."""
    # Fused matrices count as values. (llama.cpp has a rule of their own that it never reaches.)
    if any(part in name for part in ("attn_qkv.weight", "attn_kv_b.weight", "attn_v.weight")):
        return "attn_v"
    if "attn_output.weight" in name:
        return "attn_output"
    return "ffn_down" if "ffn_down" in name else ""


def _layer(name: str) -> tuple[int, str]:
    """Sort by layer, those outside the layers first."""
    found = re.match(r"blk\.(\d+)\.", name)
    return (int(found[1]) if found else -1, name)


def _known_mix(name: str) -> Mix:
    if name not in MIXES:
        raise LessonkitError(
            f"There is no mix {name!r}.",
            where="mix",
            remedy="Use one of " + ", ".join(MIXES) + ".",
        )
    return MIXES[name]


def _known_type(name: str) -> str:
    return block_format(name.upper()).name


def _compiled(pattern: str) -> re.Pattern[str]:
    try:
        return re.compile(pattern)
    except re.error as error:
        raise LessonkitError(
            f"The pattern {pattern!r} is no regular expression: {error}.",
            where="overrides",
            remedy="Write a dot as \\. and a bracket as \\[.",
        ) from None


def _require_found(pattern: re.Pattern[str], names: Sequence[str]) -> None:
    """Hugging Face's names, or a typing error, would change nothing, and without a word."""
    if not any(pattern.search(name) for name in names):
        raise LessonkitError(
            f"The pattern {pattern.pattern!r} is found in no matrix's name.",
            where="overrides",
            remedy="Names are those of GGUF, such as "
            + ", ".join([*names[-1:], *names[:1]])
            + ": lessonkit info FILE.gguf --tensors.",
        )
