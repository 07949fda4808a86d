"""Let a model write: greedy or sampled continuation of a text."""

from __future__ import annotations

from typing import TYPE_CHECKING, Any

from lessonkit.errors import LessonkitError
from lessonkit.models.decoding import Continuation, context_length, prompt_ids, stop_tokens

if TYPE_CHECKING:
    import torch


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
    import torch

    ids = prompt_ids(tokenizer, prompt)
    room = context_length(model) - len(ids)
    if room <= 0:
        raise LessonkitError(
            f"The prompt has {len(ids):,} tokens; the model's context of "
            f"{context_length(model):,} leaves no room for an answer.",
            where="prompt",
            remedy="Shorten the prompt.",
        )
    if temperature < 0 or max_new_tokens < 0:
        raise LessonkitError(
            "Temperature and max_new_tokens cannot be negative.",
            where=f"temperature={temperature}, max_new_tokens={max_new_tokens}",
            remedy="Use temperature=0 for the most likely text, about 0.8 for variety.",
        )
    generator = torch.Generator().manual_seed(seed)
    stops = stop_tokens(model, tokenizer)
    text = Continuation(model)
    new: list[int] = []
    fed = ids
    while len(new) < min(max_new_tokens, room):
        scores = text.feed(torch.tensor([fed]))[0].cpu()
        token = _choose(scores, temperature, generator)
        if token in stops:
            break
        new.append(token)
        fed = [token]
    return _added_text(tokenizer, ids, new)


def _choose(scores: torch.Tensor, temperature: float, generator: torch.Generator) -> int:
    import torch

    if temperature == 0:
        return int(scores.argmax())
    probabilities = torch.softmax(scores.double() / temperature, dim=-1)
    return int(torch.multinomial(probabilities, 1, generator=generator))


def _added_text(tokenizer: Any, ids: list[int], new: list[int]) -> str:
    """The text of `new` as it stands behind `ids`: decoded alone it would lose a first space."""
    before: str = tokenizer.decode(ids, skip_special_tokens=True)
    both: str = tokenizer.decode(ids + new, skip_special_tokens=True)
    # A character cut into bytes at the seam shows as "�" in `before` but is whole in `both`.
    return both[len(before.rstrip("�")) :]
