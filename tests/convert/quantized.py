"""A tiny Llama, its calibration, and settings that go with its widths; for several test files."""

from __future__ import annotations

from pathlib import Path
from typing import Any

import torch

from lessonkit.convert.calibration import Calibration

SAMPLES, TOKENS, VOCABULARY = 12, 24, 400
CALIBRATION = Calibration(
    torch.randint(3, VOCABULARY, (SAMPLES, TOKENS), generator=torch.Generator().manual_seed(5)),
    "random tokens",
)
UP = "model.layers.1.mlp.up_proj.weight"
IDS = torch.arange(3, 3 + 40)[None]


def logits_of(model: Any) -> torch.Tensor:
    """Scores of some tokens, float32."""
    with torch.no_grad():
        scores: torch.Tensor = model(IDS).logits.float()
    return scores


def difference(ours: torch.Tensor, theirs: torch.Tensor) -> float:
    """Relative RMS difference of logits. A kernel in half precision stays below .1 on a model as
    wild as the tiny one; codes in another order, or zero-points off by one, lead beyond .5."""
    return float((ours - theirs).square().mean().sqrt() / ours.square().mean().sqrt())


def contents(folder: Path) -> dict[str, bytes]:
    """Every file of a folder."""
    return {path.name: path.read_bytes() for path in folder.iterdir()}
