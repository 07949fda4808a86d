"""Decisions that survive another processor: by how much did the best token win?

A greedy text takes the token of the largest score each time. Processors, thread counts and batch
sizes add numbers up in different orders, so scores differ in their last bits; where two tokens
are as close as that, the text may turn, and everything after it is another text. The smallest
gap between best and second-best score tells whether that can happen.
"""

from __future__ import annotations

import math
from collections.abc import Sequence
from dataclasses import dataclass
from typing import TYPE_CHECKING, Any

from lessonkit.models.decoding import Continuation, context_length, prompt_ids, stop_tokens

if TYPE_CHECKING:
    import torch

RELIABLE = 1e-2  # far above float32 rounding in the scores, which is some 1e-5


@dataclass(frozen=True)
class Margin:
    """The narrowest decision of a greedy continuation.

    `gap` is best minus second-best score, `position` the token it decided (0 is the first new
    one), `best` and `second` the two tokens' ids. No new token at all is an infinite margin.
    """

    gap: float
    position: int
    best: int
    second: int

    @property
    def reliable(self) -> bool:
        """Is the gap far above the rounding of a float32 model?"""
        return self.gap > RELIABLE


def gaps(scores: torch.Tensor) -> torch.Tensor:
    """Best minus second-best of float32 scores, (batch, vocabulary) -> (batch,)."""
    top = scores.topk(2, dim=-1).values
    return top[..., 0] - top[..., 1]


def continuation_margins(
    model: Any, tokenizer: Any, prompts: Sequence[str], *, max_new_tokens: int = 120
) -> list[Margin]:
    """The narrowest decision on the way to each prompt's greedy continuation.

    The continuation is the one that `complete` writes at temperature 0; the decision to end it
    counts too. Scores are compared as float32: use a float32 model, for the scores of a bfloat16
    one are themselves rounded, by up to 1/512 of their size, and ties are common.
    Raises LessonkitError for a prompt without tokens or scores that are not numbers.
    """
    return [_narrowest(model, tokenizer, prompt, max_new_tokens) for prompt in prompts]


def _narrowest(model: Any, tokenizer: Any, prompt: str, max_new_tokens: int) -> Margin:
    import torch

    fed = prompt_ids(tokenizer, prompt)
    room = context_length(model) - len(fed)
    stops = stop_tokens(model, tokenizer)
    text = Continuation(model)
    found = Margin(math.inf, 0, -1, -1)
    for position in range(min(max_new_tokens, room)):
        top = text.feed(torch.tensor([fed]))[0].topk(2)
        gap = float(top.values[0] - top.values[1])
        best, second = top.indices.tolist()
        if gap < found.gap:
            found = Margin(gap, position, best, second)
        if best in stops:
            break
        fed = [best]
    return found
