"""One token after another: a model that remembers what it has read, and where a text ends."""

from __future__ import annotations

import functools
import inspect
from typing import TYPE_CHECKING, Any

from lessonkit.errors import LessonkitError

if TYPE_CHECKING:
    import torch


@functools.cache
def _cache_name() -> str:
    """What transformers calls a model's key/value cache, as argument and in the output.

    `cache` since 5.24, which warns of `past_key_values` and announces its end for 5.40.
    """
    from transformers import LlamaForCausalLM

    renamed = "cache" in inspect.signature(LlamaForCausalLM.forward).parameters
    return "cache" if renamed else "past_key_values"


class Continuation:
    """A batch of texts of equal length, in a model that remembers what it has read.

    `feed` takes new tokens and returns the scores of the next one; the model's key/value cache
    holds what came before, so each token is computed once.
    """

    def __init__(self, model: Any) -> None:
        self.model = model
        self.cache: Any = None

    def feed(self, ids: torch.Tensor) -> torch.Tensor:
        """Read `ids` (batch, new tokens); return float32 scores of the next, (batch, vocabulary).

        Raises LessonkitError where the scores are not numbers.
        """
        import torch

        name = _cache_name()
        with torch.inference_mode():
            output = self.model(
                input_ids=ids.to(self.model.device),
                use_cache=True,
                logits_to_keep=1,
                **{name: self.cache},
            )
        self.cache = getattr(output, name)
        scores: torch.Tensor = output.logits[:, -1].float()
        if torch.isnan(scores).any():
            raise LessonkitError(
                "The model's scores are not numbers (NaN).",
                where=type(self.model).__name__,
                remedy="Load it as dtype='float32' or 'bfloat16': float16 overflows in some "
                "models. If that does not help, the weights are damaged.",
            )
        return scores


def stop_tokens(model: Any, tokenizer: Any) -> frozenset[int]:
    """The ids that end a text: those of the generation settings, and the tokenizer's own."""
    settings = getattr(model, "generation_config", None)
    found = getattr(settings, "eos_token_id", None)
    ids = [*(found if isinstance(found, (list, tuple)) else [found]), tokenizer.eos_token_id]
    return frozenset(id_ for id_ in ids if id_ is not None)


def context_length(model: Any) -> int:
    """The longest text, in tokens, that the model was made for."""
    return int(model.config.max_position_embeddings)


def prompt_ids(tokenizer: Any, prompt: str) -> list[int]:
    """The token ids of a prompt, beginning token included; a prompt of no tokens is an error."""
    ids: list[int] = tokenizer(prompt, verbose=False).input_ids
    if not ids:
        raise LessonkitError(
            "The prompt has no tokens, so there is nothing to continue.",
            where="prompt",
            remedy="Give some text: this tokenizer adds no beginning token.",
        )
    return ids
