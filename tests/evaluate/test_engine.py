"""Batches, padding and bounded parts change nothing."""

from __future__ import annotations

import pytest
import torch

from lessonkit.errors import LessonkitError
from lessonkit.evaluate import engine
from lessonkit.evaluate.engine import batches, losses, token_losses
from lessonkit.evaluate.protocols import Piece
from tests.evaluate.common import slow_log_probabilities, tiny_model


@pytest.fixture(scope="module")
def model():
    return tiny_model()


def pieces_of(*lengths: int, first: int = 1) -> list[Piece]:
    generator = torch.Generator().manual_seed(0)
    return [
        Piece(torch.randint(3, 400, (length,), generator=generator).tolist(), first)
        for length in lengths
    ]


def test_padded_pieces_equal_the_slow_loop(model):
    pieces = [*pieces_of(9, 30, 4, 17), *pieces_of(20, first=13)]
    expected = [
        -float(slow_log_probabilities(model, list(p.ids[:i]))[p.ids[i]])
        for p in pieces
        for i in range(p.first, len(p.ids))
    ]
    found = losses(model, pieces)
    assert found.dtype == torch.float32
    assert found.tolist() == pytest.approx(expected, rel=1e-5)


def test_batches_take_every_piece_once_the_longest_first(monkeypatch):
    monkeypatch.setattr(engine, "TOKENS_AT_ONCE", 40)
    pieces = pieces_of(5, 20, 7, 20, 3, 90)
    groups = list(batches(pieces))
    assert groups == [[5], [1, 3], [2, 0, 4]]
    assert sorted(i for group in batches(pieces, 4) for i in group) == list(range(6))
    assert [len(group) for group in batches(pieces, 4)] == [4, 2]


@pytest.mark.parametrize("at_most", [0, -1])
def test_a_batch_of_nothing_is_an_error(at_most):
    with pytest.raises(LessonkitError, match="batch must be at least 1"):
        batches(pieces_of(5, 20), at_most)


def test_logits_stay_bounded_and_only_scored_tokens_have_some(model, monkeypatch):
    monkeypatch.setattr(engine, "LOGITS_AT_ONCE", 400 * 10)
    monkeypatch.setattr(engine, "ROWS_AT_ONCE", 1)
    sizes = []
    hook = model.lm_head.register_forward_hook(lambda *call: sizes.append(call[2].numel()))
    try:
        found = losses(model, pieces_of(21, 21, 21, first=11))
    finally:
        hook.remove()
    assert len(found) == 30
    assert max(sizes) == 400 * 10 and sum(sizes) == 400 * 30


def test_a_part_is_never_so_narrow_that_the_product_is_slow():
    head, vocabulary = torch.nn.Linear(2, 40_000), 40_000
    parts = [at for at, _ in engine.logits_in_parts(head, torch.zeros(600, 2), vocabulary)]
    assert parts == [slice(0, 256), slice(256, 512), slice(512, 768)]


@pytest.mark.parametrize("logits_at_once", [1, 400 * 7, 1 << 24])
def test_the_size_of_a_part_does_not_matter(model, monkeypatch, logits_at_once):
    pieces = pieces_of(20, 20, first=4)
    expected = losses(model, pieces)
    monkeypatch.setattr(engine, "LOGITS_AT_ONCE", logits_at_once)
    monkeypatch.setattr(engine, "ROWS_AT_ONCE", 1)
    assert torch.allclose(losses(model, pieces), expected, rtol=1e-5)


def test_token_losses_are_transformers_own(model):
    ids = torch.tensor([piece.ids for piece in pieces_of(30, 30, 30)])
    found = token_losses(model, ids)
    assert found.shape == (3, 29)
    for row, loss in zip(ids, found, strict=True):
        with torch.no_grad():
            assert float(model(row[None], labels=row[None]).loss) == pytest.approx(
                float(loss.double().mean()), rel=1e-6
            )


def test_log_probabilities_are_computed_in_float32():
    model = tiny_model(seed=1).to(torch.bfloat16)
    ids = torch.tensor([piece.ids for piece in pieces_of(40, 40)])
    with torch.no_grad():
        logits = model(ids).logits.float()[:, :-1]
    expected = logits.logsumexp(-1) - logits.gather(-1, ids[:, 1:, None])[..., 0]
    found = token_losses(model, ids)
    assert found.dtype == torch.float32
    assert torch.allclose(found, expected, rtol=1e-2, atol=5e-2)  # bf16 logits differ by shape
    assert len(found.unique()) > 70, "rounded to bfloat16 there would be fewer values"
