"""Perplexity, with the protocol that makes the number mean something.

    perplexity = exp(sum of negative log-likelihoods / tokens, words or bytes)

One model has many "perplexities": it matters how the text is joined, whether a beginning token
is there, how long the windows are and which of their tokens count (see `protocols`). So a result
carries its protocol and its text, and two results compare only where both are the same.
"""

from __future__ import annotations

import math
from collections.abc import Mapping, Sequence
from contextlib import AbstractContextManager
from dataclasses import asdict, dataclass, field, replace
from typing import TYPE_CHECKING, Any, TypeAlias

from lessonkit.errors import LessonkitError
from lessonkit.evaluate.cut import Cut, cut
from lessonkit.evaluate.documents import SomeText
from lessonkit.evaluate.engine import batches, losses, token_losses
from lessonkit.evaluate.processes import gathered, share
from lessonkit.evaluate.protocols import Protocol, Unit
from lessonkit.models.size import is_small
from lessonkit.progress import bar

if TYPE_CHECKING:
    import torch

__all__ = ["Perplexity", "perplexities", "perplexity", "require_comparable", "token_losses"]

Sums: TypeAlias = tuple[float, float]
"""Of the losses of a piece, in nats: their sum, and that of their squares."""

_NAMES: dict[Unit, str] = {
    "word": "word_perplexity",
    "byte": "byte_perplexity",
    "bit": "bits_per_byte",
}


@dataclass(frozen=True)
class Perplexity:
    """A perplexity and what it was measured on.

    Attributes
    ----------
    mean_nll, mean_square:
        Mean negative log-likelihood of the scored tokens, in nats, and mean of its square.
    scored:
        Tokens scored.
    words, bytes:
        Words and UTF-8 bytes of the text that was read, counted on the original.
    protocol:
        How it was measured, with the window and the place of the beginning token.
    text, split, sha256:
        The text as "name/split/language", its split, and the hash of what was tokenised.
    dtype:
        The model's.
    window_nll, window_scored:
        Mean negative log-likelihood and scored tokens of each window: where the text is hard.
    """

    mean_nll: float
    mean_square: float = field(repr=False)
    scored: int
    words: int = field(repr=False)
    bytes: int = field(repr=False)
    protocol: Protocol
    text: str
    split: str
    sha256: str
    dtype: str
    window_nll: tuple[float, ...] = field(repr=False)
    window_scored: tuple[int, ...] = field(repr=False)

    @property
    def windows(self) -> int:
        """How many windows were read."""
        return len(self.window_nll)

    @property
    def units(self) -> int:
        """What the protocol counts: tokens, words or bytes."""
        counts = {"token": self.scored, "word": self.words, "byte": self.bytes, "bit": self.bytes}
        return counts[self.protocol.unit]

    @property
    def value(self) -> float:
        """The perplexity; for `bits_per_byte` the bits. Infinite above exp(709)."""
        return self._from_nats(self.mean_nll * self.scored / self.units)

    @property
    def error(self) -> float:
        """llama.cpp's standard error of the value.

        value * sqrt((mean of squares - square of mean) / (tokens - 1)). It takes each token for
        an independent draw and says how well this text stands for others like it. It is far too
        wide for "did quantisation hurt on this text?": both models meet the same hard words, so
        compare them in pairs (`paired.compare`). Source: `tools/perplexity/perplexity.cpp`.
        """
        variance = max(0.0, self.mean_square - self.mean_nll**2) / max(1, self.scored - 1)
        nats = math.sqrt(variance) * self.scored / self.units
        return nats / math.log(2) if self.protocol.unit == "bit" else self.value * nats

    def per(self, unit: Unit) -> Perplexity:
        """The same measurement by word, by byte, or as bits per byte ("bit")."""
        if self.protocol.form != "articles" or unit not in _NAMES:
            raise LessonkitError(
                "Only a text read to its last token, article by article, counts in words or bytes.",
                where=f"{self.protocol}, per {unit}",
                remedy="Measure with protocol='word_perplexity'; the units are word, byte, bit.",
            )
        return replace(self, protocol=replace(self.protocol, name=_NAMES[unit], unit=unit))

    def as_plain(self) -> dict[str, Any]:
        """Value, error and all that is known, in dicts, lists and numbers: as JSON takes it.

        What is infinite is None.
        """
        figures = {"value": self.value, "error": self.error}
        finite = {key: each if math.isfinite(each) else None for key, each in figures.items()}
        return {**finite, **asdict(self)}

    def _from_nats(self, nats: float) -> float:
        if self.protocol.unit == "bit":
            return nats / math.log(2)
        return math.exp(nats) if nats < 709 else math.inf

    def __float__(self) -> float:
        return self.value

    def __sub__(self, other: Perplexity) -> float:
        require_comparable(self, other)
        return self.value - other.value

    def __lt__(self, other: Perplexity) -> bool:
        require_comparable(self, other)
        return self.value < other.value

    def __str__(self) -> str:
        digits = 4 if self.protocol.unit == "bit" else 2
        error = f" ± {self.error:.{digits}f}" if self.protocol.error_bars else ""
        return (
            f"{self.value:.{digits}f}{error} ({self.protocol}, {self.scored:,} tokens scored, "
            f"{self.dtype}, {self.text}, sha256 {self.sha256[:8]})"
        )


def perplexity(
    model: Any,
    tokenizer: Any,
    text: SomeText,
    *,
    protocol: str | Protocol = "gptq",
    window: int | None = None,
    max_windows: int | None = None,
    batch: int | None = None,
) -> Perplexity:
    """Measure a model's perplexity on a text.

    Parameters
    ----------
    protocol:
        A name of `protocols.PROTOCOLS`, or a `Protocol`, such as `sliding(512, stride=128)`.
    window:
        Tokens in a window; by default the protocol's own, at most the model's context.
    max_windows:
        Only the first so many windows. A figure from fewer windows is another figure: the number
        of scored tokens tells.
    batch:
        Windows in one forward pass; by default as many as make 2048 tokens. It changes speed and
        memory, not the result (beyond the last bits).

    Log-probabilities are computed in float32 and added up in float64, 256 tokens at a time (more
    where the vocabulary is small): for a vocabulary of 32,000 the logits and what is made of them
    take 66 MB, however long the window.

    Raises
    ------
    LessonkitError
        The text is shorter than a window, the window longer than the model's context, a token
        has no embedding, or the model's scores are not finite.
    """
    pieces = cut(model, tokenizer, text, protocol=protocol, window=window, max_windows=max_windows)
    return score(model, pieces, batch=batch)


def perplexities(
    model: Any,
    tokenizer: Any,
    text: SomeText,
    variants: Mapping[str, AbstractContextManager[Any]],
    *,
    protocol: str | Protocol = "gptq",
    window: int | None = None,
    max_windows: int | None = None,
    batch: int | None = None,
) -> dict[str, Perplexity]:
    """Measure several variants of one model on a text that is tokenised and cut once.

    `variants` maps names to context managers that change the model while they are open, such as
    `quantized_model(model, "int4 block 64")`, or `contextlib.nullcontext()` for the model as it
    is. The other parameters are those of `perplexity`.
    """
    pieces = cut(model, tokenizer, text, protocol=protocol, window=window, max_windows=max_windows)
    found = {}
    for name, variant in variants.items():
        with variant:
            found[name] = score(model, pieces, batch=batch)
    return found


def score(model: Any, what: Cut, *, batch: int | None = None) -> Perplexity:
    """Measure a model on a text that was cut before."""
    found: dict[int, Sums] = {}
    mine = share(batches(what.pieces, batch))
    with bar(sum(map(len, mine)), "perplexity", large=not is_small(model)) as progress:
        for group in mine:
            pieces = [what.pieces[i] for i in group]
            parts = losses(model, pieces).split([piece.scored for piece in pieces])
            for i, part in zip(group, parts, strict=True):
                found[i] = sums(part)
                _require_finite(found[i][0], i)
            progress.update(len(group))
    return from_sums(what, list(gathered(found).values()), model)


def sums(losses: torch.Tensor) -> Sums:
    """What a perplexity needs of the losses of a piece."""
    exact = losses.double()
    return float(exact.sum()), float(exact.square().sum())


def from_sums(what: Cut, found: Sequence[Sums], model: Any) -> Perplexity:
    """The perplexity of a model, from its losses' sums in every piece of a text, in order."""
    totals, squares = zip(*found, strict=True)
    counts = [piece.scored for piece in what.pieces]
    return Perplexity(
        mean_nll=math.fsum(totals) / what.scored,
        mean_square=math.fsum(squares) / what.scored,
        scored=what.scored,
        words=what.words,
        bytes=what.bytes,
        protocol=what.protocol,
        text=what.text,
        split=what.split,
        sha256=what.sha256,
        dtype=str(model.dtype).removeprefix("torch."),
        window_nll=tuple(total / count for total, count in zip(totals, counts, strict=True)),
        window_scored=tuple(counts),
    )


def require_comparable(a: Perplexity, b: Perplexity) -> None:
    """Raise LessonkitError unless two results have one protocol, one text, and equal counts.

    Models with different tokenizers compare only by word or byte: their tokens are not the same.
    """
    for what, ours, theirs in (
        ("protocols", a.protocol, b.protocol),
        ("texts", f"{a.text} {a.sha256[:8]}", f"{b.text} {b.sha256[:8]}"),
        (f"counts of {a.protocol.unit}s", a.units, b.units),
    ):
        if ours != theirs:
            raise LessonkitError(
                f"These perplexities have different {what}, so their difference means nothing.",
                where=f"{ours} and {theirs}",
                remedy="Measure both with the same protocol, window, text and number of windows.",
            )


def _require_finite(total: float, window: int) -> None:
    if not math.isfinite(total):
        raise LessonkitError(
            f"The model's scores are not finite ({total}), so there is no perplexity.",
            where=f"window {window}",
            remedy="Load the model as dtype='float32' or 'bfloat16': float16 overflows in some "
            "models. If that does not help, the weights are damaged.",
        )
