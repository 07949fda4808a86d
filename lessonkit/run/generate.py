"""Let a model write: greedy or sampled continuation of a text."""

from __future__ import annotations

from collections.abc import Iterator, Sequence
from typing import TYPE_CHECKING, Any, NamedTuple

from lessonkit.errors import LessonkitError
from lessonkit.models.decoding import Continuation, context_length, prompt_ids, stop_tokens

if TYPE_CHECKING:
    import torch


class Sampling(NamedTuple):
    """How the next token is chosen.

    `temperature` 0 takes the likeliest. `top_p` draws from the likeliest tokens whose
    probabilities reach it together. `repeat_penalty` makes tokens that the text holds already
    less likely: their scores are divided by it if positive, else multiplied (CTRL, arXiv
    1909.05858). The draws are made on the CPU with `seed`.
    """

    temperature: float = 0.0
    top_p: float = 1.0
    repeat_penalty: float = 1.0
    seed: int = 0

    def require_valid(self) -> None:
        """Raise LessonkitError for numbers that mean nothing."""
        if self.temperature < 0 or not 0 < self.top_p <= 1 or self.repeat_penalty <= 0:
            raise LessonkitError(
                "Temperature cannot be negative, top_p is above 0 and at most 1, and a penalty "
                "is above 0.",
                where=", ".join(f"{name}={value}" for name, value in self._asdict().items()),
                remedy="Use temperature=0 for the most likely text, about 0.8 for variety; "
                "repeat_penalty=1.1 against repetition.",
            )


def complete(
    model: Any,
    tokenizer: Any,
    prompt: str,
    *,
    max_new_tokens: int = 120,
    temperature: float = 0.0,
    seed: int = 0,
) -> str:
    """Continue a text; return what was added, without the prompt.

    Parameters
    ----------
    max_new_tokens:
        At most so many tokens. The text ends sooner at an end token, or where the model's
        context is full.
    temperature:
        0 takes the most likely token each time (greedy). Otherwise tokens are drawn with
        probability softmax(scores / temperature).
    seed:
        Seed of the draws. They are made on the CPU, so the same scores give the same text on
        any device.

    Raises
    ------
    LessonkitError
        A prompt that fills the context, a negative temperature, scores that are not numbers.
    """

    if temperature < 0 or max_new_tokens < 0:
        raise LessonkitError(
            "Temperature and max_new_tokens cannot be negative.",
            where=f"temperature={temperature}, max_new_tokens={max_new_tokens}",
            remedy="Use temperature=0 for the most likely text, about 0.8 for variety.",
        )
    ids = prompt_ids(tokenizer, prompt)
    sampling = Sampling(temperature, seed=seed)
    return _added_text(
        tokenizer, ids, list(_tokens(model, tokenizer, ids, max_new_tokens, sampling))
    )


def stream(
    model: Any,
    tokenizer: Any,
    prompt: str,
    *,
    max_new_tokens: int = 120,
    sampling: Sampling | None = None,
    stops: Sequence[str] = (),
) -> Iterator[str]:
    """Continue a text, piece by piece: whole characters only, never half a UTF-8 sequence.

    The text ends before the first of the strings `stops`, of which no part is shown, at an end
    token, after `max_new_tokens`, or where the context is full. With no stops the pieces together
    are what `complete` returns, less an unfinished last character. (Bytes that are no text at all,
    as a random model says them, may show as other signs than there.)
    """
    sampling = sampling or Sampling()
    sampling.require_valid()
    ids = prompt_ids(tokenizer, prompt)
    new: list[int] = []
    text, shown = "", 0
    for token in _tokens(model, tokenizer, ids, max_new_tokens, sampling):
        new.append(token)
        text = _added_text(tokenizer, ids, new).rstrip("\N{REPLACEMENT CHARACTER}")
        found = min((place for stop in stops if (place := text.find(stop)) >= 0), default=-1)
        if found >= 0:
            text = text[:found]
            break
        end = len(text) - _begun(text, stops)
        if end > shown:
            yield text[shown:end]
            shown = end
    if len(text) > shown:
        yield text[shown:]


def _begun(text: str, stops: Sequence[str]) -> int:
    """The length of the longest end of `text` with which one of the stops begins."""
    lengths = (n for stop in stops for n in range(1, len(stop)) if text.endswith(stop[:n]))
    return max(lengths, default=0)


def _tokens(
    model: Any, tokenizer: Any, ids: list[int], max_new_tokens: int, sampling: Sampling
) -> Iterator[int]:
    """The new tokens, up to an end token, the limit or the end of the context."""
    import torch

    room = context_length(model) - len(ids)
    if room <= 0:
        raise LessonkitError(
            f"The prompt has {len(ids):,} tokens; the model's context of "
            f"{context_length(model):,} leaves no room for an answer.",
            where="prompt",
            remedy="Shorten the prompt.",
        )
    generator = torch.Generator().manual_seed(sampling.seed)
    ends = stop_tokens(model, tokenizer)
    text = Continuation(model)
    read, fed = list(ids), ids
    for _ in range(min(max_new_tokens, room)):
        scores = text.feed(torch.tensor([fed]))[0].cpu()
        scores = _penalised(scores, read, sampling.repeat_penalty)
        token = _choose(scores, sampling.temperature, generator, sampling.top_p)
        if token in ends:
            return
        yield token
        fed = [token]
        read.append(token)


def _penalised(scores: torch.Tensor, read: list[int], penalty: float) -> torch.Tensor:
    import torch

    if penalty == 1:
        return scores
    seen = torch.tensor(sorted(set(read)))
    held = scores[seen]
    return scores.index_copy(0, seen, torch.where(held < 0, held * penalty, held / penalty))


def _choose(
    scores: torch.Tensor, temperature: float, generator: torch.Generator, top_p: float = 1.0
) -> int:
    import torch

    if temperature == 0:
        return int(scores.argmax())
    probabilities = torch.softmax(scores.double() / temperature, dim=-1)
    if top_p < 1:
        ordered, places = probabilities.sort(descending=True)
        before = ordered.cumsum(dim=0) - ordered
        probabilities[places[before >= top_p]] = 0
    return int(torch.multinomial(probabilities, 1, generator=generator))


def _added_text(tokenizer: Any, ids: list[int], new: list[int]) -> str:
    """The text of `new` as it stands behind `ids`: decoded alone it would lose a first space."""
    before: str = tokenizer.decode(ids, skip_special_tokens=True)
    both: str = tokenizer.decode(ids + new, skip_special_tokens=True)
    # A character cut into bytes at the seam shows as "�" in `before` but is whole in `both`.
    return both[len(before.rstrip("�")) :]
