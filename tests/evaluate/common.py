"""What the tests of evaluation share: a text, a tiny model, an obvious loop."""

from __future__ import annotations

from dataclasses import dataclass

import torch
from transformers import LlamaForCausalLM

from tests.tiny import island_sentences, tiny_config


@dataclass(frozen=True)
class Sample:
    """A text as the course's own are."""

    rows: tuple[str, ...]
    name: str = "sample"
    language: str = "en"
    split: str = "test"

    def joined(self) -> str:
        return "\n\n".join(self.rows)


def sample(content: str) -> Sample:
    """A text of one row."""
    return Sample((content,))


TEXT = sample(island_sentences(9))


def tiny_model(seed: int = 0, **overrides) -> LlamaForCausalLM:
    with torch.random.fork_rng(devices=[]):
        torch.manual_seed(seed)
        return LlamaForCausalLM(tiny_config(400, **overrides)).eval()


def slow_log_probabilities(model, context: list[int]) -> torch.Tensor:
    """What the model expects after some tokens, in float64, from a forward pass of its own."""
    with torch.no_grad():
        logits = model(torch.tensor([context])).logits[0, -1].double()
    return logits - logits.logsumexp(0)
