"""How much to measure: enough on the small model to be sure, little enough on a large one to wait.

A lesson scores the same model many times over. On two cores `mini` reads 20,000 tokens in about
a second; a model of a billion weights needs that long for a few dozen.
"""

from __future__ import annotations

from typing import Any

from lessonkit.models.size import is_small


def windows_for(model: Any) -> int:
    """Windows of text to score: 40 for a small model, 2 for a large one."""
    return 40 if is_small(model) else 2


def questions_for(model: Any) -> int:
    """Questions to ask: 300 of a small model, 20 of a large one."""
    return 300 if is_small(model) else 20


def layers_for(model: Any) -> int:
    """Decoder layers to quantise again and again: all of a small model, 2 of a large one."""
    layers: int = model.config.num_hidden_layers
    return layers if is_small(model) else min(2, layers)
