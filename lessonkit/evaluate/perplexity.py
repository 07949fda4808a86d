"""Perplexity, with the protocol that makes the number mean something.

    perplexity = exp(mean negative log-likelihood of the scored tokens)

One model has many "perplexities": it matters how the text is joined, whether a beginning token
is there, how long the windows are and which of their tokens count. So the result carries its
protocol, and two results compare only where protocol, text and split are the same.
"""

from __future__ import annotations

import math
from collections.abc import Sequence
from dataclasses import dataclass, field
from typing import TYPE_CHECKING, Any
from typing import Protocol as StructuralType

from lessonkit.errors import LessonkitError
from lessonkit.models.size import is_small
from lessonkit.progress import bar

if TYPE_CHECKING:
    import torch

LONGEST_WINDOW = 2048  # what the GPTQ paper uses
_TOKENS_AT_ONCE = 2048  # in one forward pass
_LOGITS_AT_ONCE = 1 << 24  # 64 MiB of float32


class SomeText(StructuralType):
    """What is needed of a text; `lessonkit.models.texts.Text` is one."""

    @property
    def name(self) -> str:
        """The collection, or the file."""

    @property
    def language(self) -> str:
        """The code of the language, such as "en"."""

    @property
    def split(self) -> Any:
        """The split, printed with `str`."""

    def joined(self) -> str:
        """The rows, joined."""


@dataclass(frozen=True)
class Protocol:
    """How a perplexity is measured. The fields say it in words, `window` in tokens.

    `bos` is False for tokenizers that have no beginning token.
    """

    name: str
    window: int
    bos: bool
    join: str
    scored: str
    remainder: str

    def __str__(self) -> str:
        return f"{self.name} of {self.window:,}"


def windows(window: int, *, bos: bool = True) -> Protocol:
    r"""The protocol of the GPTQ paper, behind most published perplexities of quantised models.

    Join the rows with "\n\n", tokenise once with one beginning token at the very start, cut into
    windows that do not overlap, drop the remainder; every token of a window but its first is
    predicted from those before it in the window, and scored.
    """
    return Protocol(
        name="windows",
        window=window,
        bos=bos,
        join="rows joined with two line ends, tokenised once",
        scored="all but the first token of each window",
        remainder="dropped",
    )


@dataclass(frozen=True)
class Perplexity:
    """A perplexity and what it was measured on.

    `mean_nll` is in nats for each of the `scored` tokens; `text` is "name/split/language".
    `window_nll` has the mean of each window, for those who want to see where the text is hard.
    """

    value: float
    mean_nll: float
    scored: int
    windows: int
    protocol: Protocol
    text: str
    window_nll: tuple[float, ...] = field(repr=False)

    def __float__(self) -> float:
        return self.value

    def __str__(self) -> str:
        return f"{self.value:.2f} ({self.protocol}, {self.scored:,} tokens scored, {self.text})"


def perplexity(
    model: Any,
    tokenizer: Any,
    text: SomeText,
    *,
    window: int | None = None,
    max_windows: int | None = None,
    batch: int | None = None,
) -> Perplexity:
    """Measure a model's perplexity on a text by the protocol `windows`.

    Parameters
    ----------
    window:
        Tokens in a window; by default the model's context, at most 2048.
    max_windows:
        Only the first so many windows. A figure from fewer windows is another figure: the number
        of scored tokens tells.
    batch:
        Windows in one forward pass; by default as many as make 2048 tokens. It changes speed and
        memory, not the result (beyond the last bits).

    Log-probabilities are computed in float32 and added up in float64, a bounded piece at a time,
    so memory for the logits stays below some 200 MB whatever the vocabulary.

    Raises
    ------
    LessonkitError
        The text is shorter than a window, the window longer than the model's context, a token
        has no embedding, or the model's scores are not finite.
    """
    protocol = _protocol_for(model, tokenizer, window)
    for name, value in {"max_windows": max_windows, "batch": batch}.items():
        if value is not None and value < 1:
            raise LessonkitError(
                f"{name} must be at least 1.", where=f"{name}={value}", remedy="Leave it out."
            )
    cut = _cut(_token_ids(model, tokenizer, text), protocol, max_windows, _label(text))
    at_once = batch or max(1, _TOKENS_AT_ONCE // protocol.window)
    means: list[float] = []
    with bar(len(cut), "perplexity", large=not is_small(model)) as progress:
        for start in range(0, len(cut), at_once):
            losses = token_losses(model, cut[start : start + at_once])
            means += losses.double().mean(dim=1).tolist()
            _require_finite(means, start)
            progress.update(len(losses))
    # All windows score equally many tokens, so the mean of their means is the mean over tokens.
    mean = math.fsum(means) / len(means)
    return Perplexity(
        value=_exp(mean),
        mean_nll=mean,
        scored=len(cut) * (protocol.window - 1),
        windows=len(cut),
        protocol=protocol,
        text=_label(text),
        window_nll=tuple(means),
    )


def token_losses(model: Any, ids: torch.Tensor) -> torch.Tensor:
    """Negative log-likelihood, in nats, of every token but the first of each row.

    `ids` is (rows, tokens); the result is float32 on the CPU, (rows, tokens - 1).
    """
    import torch

    with torch.inference_mode():
        ids = ids.to(model.device)
        hidden = model.get_decoder()(input_ids=ids, use_cache=False).last_hidden_state
        # The head's output is the largest array by far: (tokens, vocabulary). Piece by piece.
        inputs, targets = hidden[:, :-1].flatten(0, 1), ids[:, 1:].flatten()
        head = model.get_output_embeddings()
        size = max(1, _LOGITS_AT_ONCE // model.config.vocab_size)
        pieces = [
            torch.nn.functional.cross_entropy(
                head(inputs[at : at + size]).float(), targets[at : at + size], reduction="none"
            )
            for at in range(0, len(targets), size)
        ]
        return torch.cat(pieces).cpu().view(len(ids), -1)


def _protocol_for(model: Any, tokenizer: Any, window: int | None) -> Protocol:
    context = int(model.config.max_position_embeddings)
    if window is None:
        window = min(context, LONGEST_WINDOW)
    if not 2 <= window <= context:
        raise LessonkitError(
            f"A window of {window:,} tokens does not fit: the model was made for 2 to {context:,}.",
            where="window",
            remedy=f"Use window={min(context, LONGEST_WINDOW)}, or leave it out.",
        )
    return windows(window, bos=tokenizer.bos_token_id is not None)


def _token_ids(model: Any, tokenizer: Any, text: SomeText) -> list[int]:
    ids: list[int] = tokenizer(text.joined(), add_special_tokens=False, verbose=False).input_ids
    if tokenizer.bos_token_id is not None:
        ids = [tokenizer.bos_token_id, *ids]
    rows = model.get_input_embeddings().num_embeddings
    if max(ids, default=0) >= rows:
        raise LessonkitError(
            f"The text has the token {max(ids)}, but the model has only {rows:,} embeddings.",
            where=_label(text),
            remedy="Use the tokenizer that belongs to the model.",
        )
    return ids


def _cut(ids: Sequence[int], protocol: Protocol, at_most: int | None, label: str) -> torch.Tensor:
    """The text's whole windows as (windows, tokens)."""
    import torch

    count = len(ids) // protocol.window
    if count == 0:
        raise LessonkitError(
            f"The text has {len(ids):,} tokens, less than one window of {protocol.window:,}.",
            where=label,
            remedy=f"Use a longer text, or window={max(2, len(ids))} or less.",
        )
    count = min(count, at_most or count)
    return torch.tensor(ids[: count * protocol.window]).view(count, protocol.window)


def _require_finite(means: list[float], start: int) -> None:
    for number, mean in enumerate(means[start:], start=start):
        if not math.isfinite(mean):
            raise LessonkitError(
                f"The model's scores are not finite ({mean}), so there is no perplexity.",
                where=f"window {number}",
                remedy="Load the model as dtype='float32' or 'bfloat16': float16 overflows in some "
                "models. If that does not help, the weights are damaged.",
            )


def _exp(mean: float) -> float:
    try:
        return math.exp(mean)
    except OverflowError:  # a mean above 709 nats
        return math.inf


def _label(text: SomeText) -> str:
    return f"{text.name}/{text.split}/{text.language}"
