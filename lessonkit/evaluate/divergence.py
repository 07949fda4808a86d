"""How far has a changed model moved from the original? Kullback-Leibler divergence, token by token.

Perplexity looks at the probability of one token, the right one; a model can trade losses here for
gains there and keep its perplexity. The divergence looks at the whole distribution:

    KL(base || model) = sum over the vocabulary of p_base * (log p_base - log p_model)

It is 0 only where both say exactly the same. Log-probabilities are float32, and the sum is
float64, so a model has a divergence of exactly 0 from itself.
"""

from __future__ import annotations

import math
from collections.abc import Callable, Mapping
from contextlib import AbstractContextManager
from dataclasses import asdict, dataclass, field
from typing import TYPE_CHECKING, Any

from lessonkit.errors import LessonkitError
from lessonkit.evaluate.cut import Cut, cut
from lessonkit.evaluate.documents import SomeText
from lessonkit.evaluate.engine import batches, hidden_states, logits_in_parts
from lessonkit.evaluate.perplexity import Perplexity, Sums, from_sums, sums
from lessonkit.evaluate.processes import gathered, share
from lessonkit.evaluate.protocols import Protocol
from lessonkit.models.size import is_small
from lessonkit.progress import bar

if TYPE_CHECKING:
    import torch

    Head = Callable[[torch.Tensor], torch.Tensor]

_FLOAT64_AT_ONCE = 1 << 18  # 2 MiB, for every step to find it in a processor's cache
_HIGH, _BOTH = (50, 90, 99, 99.9), (0.1, 1, 5, 50, 95, 99, 99.9)


@dataclass(frozen=True)
class Divergence:
    """What changed, for each scored token (tensors of that length, on the CPU).

    `kl` in nats and `delta_p`, the probability of the right token in the model minus that in the
    base, are float64; `same_top` says whether both put the same token first. `text`, `sha256` and
    `dtype` (the model's) are as in a `Perplexity`. `base` and `model` are the perplexities of the
    two, which the same pass through the text gives; None where the base is a file.
    """

    kl: torch.Tensor = field(repr=False)
    delta_p: torch.Tensor = field(repr=False)
    same_top: torch.Tensor = field(repr=False)
    protocol: Protocol
    text: str
    sha256: str
    dtype: str
    base: Perplexity | None = field(default=None, repr=False)
    model: Perplexity | None = field(default=None, repr=False)

    @property
    def mean(self) -> float:
        """Mean KL divergence in nats."""
        return float(self.kl.mean())

    @property
    def error(self) -> float:
        """Standard error of the mean KL, tokens taken as independent (llama.cpp's)."""
        return float(self.kl.std(correction=0)) / math.sqrt(max(1, len(self.kl) - 1))

    @property
    def largest(self) -> float:
        """The largest KL divergence of a token."""
        return float(self.kl.max())

    @property
    def agreement(self) -> float:
        """Share of the tokens where both models put the same token first, 0 to 1."""
        return float(self.same_top.double().mean())

    @property
    def delta_p_rms(self) -> float:
        """Root of the mean square of the right tokens' changes in probability."""
        return float(self.delta_p.square().mean().sqrt())

    def kl_percentile(self, percent: float) -> float:
        """The KL that so many per cent of the tokens stay below (linear between two)."""
        return _percentile(self.kl, percent)

    def delta_p_percentile(self, percent: float) -> float:
        """The change in probability that so many per cent of the tokens stay below."""
        return _percentile(self.delta_p, percent)

    def __str__(self) -> str:
        return (
            f"KL {self.mean:.5f} ± {self.error:.5f} nats a token, at most {self.largest:.3f}; "
            f"same top token {100 * self.agreement:.2f} %; right token's probability "
            f"± {100 * self.delta_p_rms:.2f} % ({self.protocol}, {len(self.kl):,} tokens scored, "
            f"{self.dtype}, {self.text}, sha256 {self.sha256[:8]})"
        )

    def percentiles(self) -> str:
        """Percentiles of the KL and of the change in the right token's probability, a line each.

        The mean hides what a user meets: a few tokens that changed a lot.
        """
        kl = ", ".join(f"{percent:g} %: {self.kl_percentile(percent):.5f}" for percent in _HIGH)
        delta = ", ".join(
            f"{percent:g} %: {100 * self.delta_p_percentile(percent):+.2f}" for percent in _BOTH
        )
        return f"KL below, of the tokens       {kl}\nΔp below, in points of 100    {delta}"

    def as_plain(self) -> dict[str, Any]:
        """The figures without the tokens, in dicts and numbers: as JSON takes it."""
        return {
            "kl": self.mean,
            "kl_error": self.error,
            "kl_largest": self.largest,
            "kl_percentiles": {f"{percent:g}": self.kl_percentile(percent) for percent in _HIGH},
            "same_top": self.agreement,
            "delta_p_rms": self.delta_p_rms,
            "delta_p_percentiles": {
                f"{percent:g}": self.delta_p_percentile(percent) for percent in _BOTH
            },
            "scored": len(self.kl),
            "protocol": asdict(self.protocol),
            "text": self.text,
            "sha256": self.sha256,
            "dtype": self.dtype,
        }


def divergence(
    base: Any,
    model: Any,
    tokenizer: Any,
    text: SomeText,
    *,
    protocol: str | Protocol = "gptq",
    window: int | None = None,
    max_windows: int | None = None,
    batch: int | None = None,
) -> Divergence:
    """Measure how far `model` is from `base`, two models of one vocabulary, side by side.

    The parameters are those of `perplexity`. Both read the text batch by batch; logits exist
    for 256 tokens at a time (more where the vocabulary is small). Raises LessonkitError as `cut`
    does, for two vocabularies of different size, and for scores that are not finite.
    """
    _require_one_vocabulary(base, model)
    pieces = cut(model, tokenizer, text, protocol=protocol, window=window, max_windows=max_windows)
    groups = share(batches(pieces.pieces, batch))
    collected = Collected(pieces, base, model)
    with bar(sum(map(len, groups)), "divergence", large=not is_small(model)) as progress:
        for group in groups:
            read = [pieces.pieces[i] for i in group]
            states, targets = hidden_states(base, read)
            hidden, _ = hidden_states(model, read)
            collected.add(group, states, base.get_output_embeddings(), hidden, targets)
            progress.update(len(group))
    return collected.result()


def divergences(
    model: Any,
    tokenizer: Any,
    text: SomeText,
    variants: Mapping[str, AbstractContextManager[Any]],
    *,
    protocol: str | Protocol = "gptq",
    window: int | None = None,
    max_windows: int | None = None,
    batch: int | None = None,
) -> dict[str, Divergence]:
    """Measure how far variants of a model are from the model as it is, with one model in memory.

    `variants` is as in `perplexities`. What is kept of the base are its last hidden states, a few
    hundred numbers for each scored token instead of the whole vocabulary's, and a copy of its
    head; logits are made of them again for every variant.
    """
    import torch

    pieces = cut(model, tokenizer, text, protocol=protocol, window=window, max_windows=max_windows)
    groups = share(batches(pieces.pieces, batch))
    kept = [hidden_states(model, [pieces.pieces[i] for i in group]) for group in groups]
    weight = model.get_output_embeddings().weight.detach().clone()

    def head(states: torch.Tensor) -> torch.Tensor:
        return torch.nn.functional.linear(states, weight)

    found = {}
    for name, variant in variants.items():
        collected = Collected(pieces, model, model)
        with variant, bar(sum(map(len, groups)), name, large=not is_small(model)) as progress:
            for group, (states, targets) in zip(groups, kept, strict=True):
                hidden, _ = hidden_states(model, [pieces.pieces[i] for i in group])
                collected.add(group, states, head, hidden, targets)
                progress.update(len(group))
        found[name] = collected.result()
    return found


class Collected:
    """The numbers for each scored token, brought into the text's order."""

    def __init__(self, pieces: Cut, base: Any, model: Any) -> None:
        self.pieces, self.base, self.model = pieces, base, model
        self.of_piece: dict[int, tuple[torch.Tensor, torch.Tensor, torch.Tensor, Sums, Sums]] = {}

    def add(
        self,
        group: list[int],
        states: torch.Tensor,
        base_head: Head,
        hidden: torch.Tensor,
        targets: torch.Tensor,
    ) -> None:
        """Compare base and model on the pieces of a group, from their last hidden states."""
        import torch

        size = self.model.config.vocab_size
        ours = logits_in_parts(base_head, states, size)
        theirs = logits_in_parts(self.model.get_output_embeddings(), hidden, size)
        parts = []
        for (at, base_logits), (_, logits) in zip(ours, theirs, strict=True):
            base, other = torch.log_softmax(base_logits, -1), torch.log_softmax(logits, -1)
            losses = (-each.gather(1, targets[at, None])[:, 0] for each in (base, other))
            parts.append((*token_divergence(base, other, targets[at]), *losses))
        counts = [self.pieces.pieces[i].scored for i in group]
        columns = [torch.cat(column).cpu().split(counts) for column in zip(*parts, strict=True)]
        pieces = zip(*columns, strict=True)
        for i, (kl, delta_p, same_top, before, after) in zip(group, pieces, strict=True):
            self.of_piece[i] = kl, delta_p, same_top, sums(before), sums(after)

    def result(self) -> Divergence:
        """All tokens' numbers; an error where they are not numbers."""
        import torch

        *three, before, after = zip(*gathered(self.of_piece).values(), strict=True)
        kl, delta_p, same_top = map(torch.cat, three)
        if not torch.isfinite(kl).all():
            raise LessonkitError(
                "The models' scores are not finite, so there is no divergence.",
                where=f"{int((~torch.isfinite(kl)).sum()):,} of {len(kl):,} tokens",
                remedy="Load the models as dtype='float32' or 'bfloat16'.",
            )
        base = from_sums(self.pieces, before, self.base)
        model = from_sums(self.pieces, after, self.model)
        return Divergence(
            kl, delta_p, same_top, self.pieces.protocol, self.pieces.text, self.pieces.sha256,
            model.dtype, base, model,
        )  # fmt: skip


def token_divergence(
    base: torch.Tensor, other: torch.Tensor, targets: torch.Tensor
) -> tuple[torch.Tensor, torch.Tensor, torch.Tensor]:
    """KL(base || other), change in the target's probability, and same top token, for each row.

    `base` and `other` are float32 log-probabilities, (tokens, vocabulary); products and sums are
    float64. A probability of 0 in `base` adds nothing, as its limit does.
    """
    import torch

    few = max(1, _FLOAT64_AT_ONCE // base.shape[-1]) if base.device.type == "cpu" else len(base)
    parts = zip(base.split(few), other.split(few), strict=True)
    kl = torch.cat([_divergence_of_rows(*part) for part in parts])
    at = targets[:, None]
    delta = other.gather(1, at).double().exp() - base.gather(1, at).double().exp()
    return kl, delta[:, 0], base.argmax(-1) == other.argmax(-1)


def _divergence_of_rows(base: torch.Tensor, other: torch.Tensor) -> torch.Tensor:
    exact = base.double()
    p = exact.exp()
    return exact.sub_(other).mul_(p).masked_fill_(p == 0, 0.0).sum(-1)


def _percentile(values: torch.Tensor, percent: float) -> float:
    import numpy as np

    return float(np.percentile(values.numpy(), percent))


def _require_one_vocabulary(base: Any, model: Any) -> None:
    if base.config.vocab_size != model.config.vocab_size:
        raise LessonkitError(
            "Only models of one vocabulary can be compared token by token.",
            where=f"{base.config.vocab_size:,} and {model.config.vocab_size:,} tokens",
            remedy="Compare them by bits per byte: perplexity(…, protocol='bits_per_byte').",
        )
