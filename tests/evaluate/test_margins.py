"""Margins of greedy decisions: the gap of a slow loop, at the right token."""

from __future__ import annotations

import math

import pytest
import torch

from lessonkit.errors import LessonkitError
from lessonkit.evaluate.margins import RELIABLE, Margin, continuation_margins, gaps
from lessonkit.models.loading import load
from lessonkit.run.generate import complete
from tests.tiny import make_tiny_llama

PROMPTS = ("The lighthouse", "岛上", "Ada Quill, a maker of clocks")


@pytest.fixture(scope="module")
def loaded(tmp_path_factory):
    folder = make_tiny_llama(tmp_path_factory.mktemp("model"), seed=3, dtype=torch.float32)
    return load(folder, device="cpu")


def slow_margin(loaded, prompt: str, count: int) -> Margin:
    """Every token from a forward pass of its own, in float64."""
    ids, found = loaded.tokenizer.encode(prompt), Margin(math.inf, 0, -1, -1)
    for position in range(count):
        with torch.no_grad():
            logits = loaded.model(torch.tensor([ids])).logits[0, -1].double()
        values, order = logits.sort(descending=True)
        gap = float(values[0] - values[1])
        if gap < found.gap:
            found = Margin(gap, position, int(order[0]), int(order[1]))
        if int(order[0]) == 2:
            break
        ids.append(int(order[0]))
    return found


def test_equals_the_slow_loop(loaded):
    for prompt, found in zip(
        PROMPTS, continuation_margins(*loaded, PROMPTS, max_new_tokens=30), strict=True
    ):
        expected = slow_margin(loaded, prompt, 30)
        assert found.gap == pytest.approx(expected.gap, abs=1e-4)
        assert (found.position, found.best, found.second) == (
            expected.position,
            expected.best,
            expected.second,
        )


def test_a_margin_is_what_it_takes_to_turn_the_text(loaded):
    """Lift the runner-up by a little more than the gap, and the text becomes another."""
    (margin,) = continuation_margins(*loaded, PROMPTS[:1], max_new_tokens=30)
    text = complete(*loaded, PROMPTS[0], max_new_tokens=30)

    def lifted(by: float) -> str:
        def lift(_module, _inputs, logits):
            logits[..., margin.second] += by

        hook = loaded.model.lm_head.register_forward_hook(lift)
        try:
            return complete(*loaded, PROMPTS[0], max_new_tokens=30)
        finally:
            hook.remove()

    assert lifted(margin.gap / 2) == text
    assert lifted(margin.gap * 1.01 + 1e-4) != text


def test_reliable():
    assert Margin(2 * RELIABLE, 0, 5, 6).reliable and not Margin(RELIABLE / 2, 0, 5, 6).reliable
    assert RELIABLE >= 1e-2


def test_gaps():
    scores = torch.tensor([[1.0, 5.0, 4.5], [2.0, 2.0, -1.0]])
    assert gaps(scores).tolist() == [0.5, 0.0]


def test_nothing_to_decide(loaded):
    (found,) = continuation_margins(*loaded, ["The"], max_new_tokens=0)
    assert found.gap == math.inf and found.reliable


def test_scores_that_are_not_numbers(tmp_path):
    broken = load(make_tiny_llama(tmp_path, dtype=torch.float32), device="cpu")
    with torch.no_grad():
        broken.model.lm_head.weight[3] = math.nan
    with pytest.raises(LessonkitError, match="NaN"):
        continuation_margins(*broken, ["The"])
