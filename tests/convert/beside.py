"""Quantisations of one model, side by side: their layers' outputs, and their perplexities."""

from __future__ import annotations

import contextlib
from collections.abc import Iterator, Mapping
from dataclasses import dataclass
from pathlib import Path

import torch

from lessonkit.convert.decoder import Decoder
from lessonkit.convert.hf_checkpoint import HfCheckpoint
from lessonkit.evaluate import compare, divergences
from lessonkit.models import evaluation_text, load

Weights = Mapping[str, torch.Tensor]
"""Tensors by the checkpoint's names; what is missing is as it was."""

WINDOWS = 32  # of 512 tokens, of a text that no quantisation has seen
CHANCE = 2.75  # standard errors of a mean of so many windows: beyond lies 1 % of Student's t


def layer_errors(source: Path, ids: torch.Tensor, weights: Weights) -> list[float]:
    """How far each decoder layer's outputs are off on the original's inputs: relative, squared."""
    decoder = Decoder(HfCheckpoint(source), torch.device("cpu"), torch.float32)
    hidden = torch.empty(*ids.shape, decoder.config.hidden_size)
    decoder.embed(ids, hidden)
    errors = []
    for index in range(decoder.layers):
        layer = decoder.layer(index)
        other, before = hidden.clone(), hidden.clone()
        layer.advance(hidden)
        layer.replace({n: t for n, t in weights.items() if n.startswith(layer.prefix)})
        layer.advance(other)
        added = (hidden - before).square().sum()
        errors.append(float((other - hidden).square().sum() / added))
    return errors


@dataclass(frozen=True)
class Gap:
    """A difference in pairs: its mean over windows, and the mean's standard error."""

    mean: float
    error: float

    @property
    def no_worse(self) -> bool:
        """Is it negative, or no more than chance?"""
        return self.mean < CHANCE * self.error

    @property
    def better(self) -> bool:
        """Is it negative, by more than chance?"""
        return self.mean < -CHANCE * self.error


class Unseen:
    """Variants of a model on a text that none of them was calibrated on."""

    def __init__(self, source: Path, variants: Mapping[str, Weights]) -> None:
        model, tokenizer = load(source, dtype="float32")
        own = {name: tensor.clone() for name, tensor in model.state_dict().items()}

        @contextlib.contextmanager
        def wearing(weights: Weights) -> Iterator[None]:
            model.load_state_dict({**own, **weights})
            yield
            model.load_state_dict(own)

        worn = {name: wearing(weights) for name, weights in variants.items()}
        text = evaluation_text("island")
        self.divergences = divergences(model, tokenizer, text, worn, max_windows=WINDOWS)

    def perplexity_gap(self, name: str, base: str) -> Gap:
        """How much worse than `base`, in nats a token."""
        before, after = self.divergences[base].model, self.divergences[name].model
        assert before and after
        found = compare(before, after)
        return Gap(found.mean, found.error)

    def divergence_gap(self, name: str, base: str) -> Gap:
        """How much further from the original than `base`, in nats a token."""
        gaps = (self.divergences[name].kl - self.divergences[base].kl).view(WINDOWS, -1).mean(1)
        return Gap(float(gaps.mean()), float(gaps.std()) / WINDOWS**0.5)
