"""Is a model as sure as it may be? The temperature that would improve its predictions.

Dividing all scores by a temperature above 1 makes a model less sure of everything. If that lowers
its loss on a text, the model was too sure (overconfident), and then any noise in its weights,
which makes it less sure too, can look like an improvement.
"""

from __future__ import annotations

from typing import Any

from lessonkit.evaluate.cut import cut
from lessonkit.evaluate.documents import SomeText
from lessonkit.evaluate.engine import batches, hidden_states, logits_in_parts

_AROUND = (0.8, 0.9, 1.0, 1.1, 1.25)


def best_temperature(
    model: Any, tokenizer: Any, text: SomeText, *, max_windows: int | None = None
) -> float:
    """The temperature by which the scores must be divided to predict a text best.

    1 for a calibrated model. The losses at five temperatures, and the vertex of the parabola
    through the lowest of them and its neighbours, in 1 / temperature: good to about 0.005 between
    0.9 and 1.1. Outside 0.85 to 1.2 the end of the range is returned. Text and windows as in
    `perplexity` with the protocol "gptq".
    """
    import numpy as np
    import torch

    what = cut(model, tokenizer, text, protocol="gptq", window=None, max_windows=max_windows)
    head, vocabulary = model.get_output_embeddings(), model.config.vocab_size
    total = np.zeros(len(_AROUND))
    for group in batches(what.pieces):
        hidden, targets = hidden_states(model, [what.pieces[i] for i in group])
        for part, logits in logits_in_parts(head, hidden, vocabulary):
            total += [
                float(
                    torch.nn.functional.cross_entropy(
                        logits / temperature, targets[part], reduction="sum"
                    )
                )
                for temperature in _AROUND
            ]
    lowest = int(total.argmin())
    if lowest in (0, len(_AROUND) - 1):
        return _AROUND[lowest]
    near = slice(lowest - 1, lowest + 2)
    a, b, _ = np.polyfit(1 / np.array(_AROUND[near]), total[near], 2)
    return float(-2 * a / b)
