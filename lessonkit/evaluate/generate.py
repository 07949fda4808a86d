"""Let a model write: greedy or sampled continuation, token by token, with a key/value cache."""

from __future__ import annotations

from typing import TYPE_CHECKING, Any

from lessonkit.errors import LessonkitError

if TYPE_CHECKING:
    import torch


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

        with torch.inference_mode():
            output = self.model(
                input_ids=ids.to(self.model.device),
                past_key_values=self.cache,
                use_cache=True,
                logits_to_keep=1,
            )
        self.cache = output.past_key_values
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
