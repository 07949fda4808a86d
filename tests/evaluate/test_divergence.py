"""Divergence: exactly 0 from oneself, the number of a float64 loop from another."""

from __future__ import annotations

import copy
import math
from contextlib import nullcontext

import numpy as np
import pytest
import torch

from lessonkit.errors import LessonkitError
from lessonkit.evaluate import engine
from lessonkit.evaluate.cut import cut
from lessonkit.evaluate.divergence import divergence, divergences, token_divergence
from lessonkit.evaluate.engine import losses
from lessonkit.evaluate.perplexity import perplexity
from lessonkit.models.tokenizer import load_tokenizer
from lessonkit.quantize.rtn import quantized_model
from tests.evaluate.common import TEXT, slow_log_probabilities, tiny_model
from tests.tiny import make_tokenizer

OPTIONS = {"window": 32, "max_windows": 4}


@pytest.fixture(scope="module")
def tokenizer(tmp_path_factory):
    return load_tokenizer(make_tokenizer(tmp_path_factory.mktemp("tokenizer")))


@pytest.fixture(scope="module")
def model():
    return tiny_model(max_position_embeddings=64)


@pytest.fixture(scope="module")
def other(model):
    other = copy.deepcopy(model)
    generator = torch.Generator().manual_seed(1)
    with torch.no_grad():
        for weight in other.parameters():
            weight += 0.02 * torch.randn(weight.shape, generator=generator)
    return other


def test_a_model_against_itself_is_exactly_zero(model, tokenizer):
    for protocol in ("gptq", "llama.cpp", "word_perplexity"):
        for base in (model, copy.deepcopy(model)):
            found = divergence(base, model, tokenizer, TEXT, protocol=protocol, window=32)
            assert found.mean == found.largest == found.error == found.delta_p_rms == 0
            assert found.kl.count_nonzero() == 0 and found.agreement == 1


def test_equals_the_slow_loop(model, other, tokenizer):
    found = divergence(model, other, tokenizer, TEXT, **OPTIONS)
    kl, delta, same = [], [], []
    for piece in cut(model, tokenizer, TEXT, **OPTIONS).pieces:
        for i in range(1, 32):
            p, q = (slow_log_probabilities(m, list(piece.ids[:i])) for m in (model, other))
            kl.append(float((p.exp() * (p - q)).sum()))
            delta.append(float(q[piece.ids[i]].exp() - p[piece.ids[i]].exp()))
            same.append(bool(p.argmax() == q.argmax()))
    assert found.kl.dtype == torch.float64 and len(found.kl) == 4 * 31
    assert found.kl.tolist() == pytest.approx(kl, rel=1e-4, abs=1e-6)
    assert found.delta_p.tolist() == pytest.approx(delta, abs=1e-6)
    assert found.same_top.tolist() == same and 0 < sum(same) < len(same)
    assert found.mean == pytest.approx(np.mean(kl), rel=1e-5) and found.mean > 0.01
    assert found.largest == pytest.approx(max(kl), rel=1e-5)
    assert found.agreement == pytest.approx(np.mean(same))
    assert found.error == pytest.approx(np.std(kl) / math.sqrt(len(kl) - 1), rel=1e-4)
    assert found.delta_p_rms == pytest.approx(math.sqrt(np.mean(np.square(delta))), rel=1e-4)
    assert found.kl_percentile(90) == pytest.approx(np.percentile(kl, 90), rel=1e-4)
    assert found.delta_p_percentile(5) == pytest.approx(np.percentile(delta, 5), abs=1e-6)
    assert found.kl_percentile(100) == found.largest


def test_it_is_torchs_own_divergence():
    generator = torch.Generator().manual_seed(0)
    base, other = (torch.log_softmax(torch.randn(7, 50, generator=generator), -1) for _ in range(2))
    kl, delta, same = token_divergence(base, other, torch.arange(7))
    theirs = torch.nn.functional.kl_div(
        other.double(), base.double(), reduction="none", log_target=True
    ).sum(-1)
    assert torch.allclose(kl, theirs, rtol=1e-12)
    assert same.dtype == torch.bool and delta.shape == (7,)


def test_an_impossible_token_adds_nothing():
    base = torch.tensor([[0.0, -math.inf]])
    kl, _, _ = token_divergence(base, torch.log(torch.tensor([[0.5, 0.5]])), torch.tensor([0]))
    assert kl.item() == pytest.approx(math.log(2))


def test_batches_and_parts_do_not_matter(model, other, tokenizer, monkeypatch):
    options = {"protocol": "word_perplexity", "window": 32}
    expected = divergence(model, other, tokenizer, TEXT, batch=1, **options)
    monkeypatch.setattr(engine, "LOGITS_AT_ONCE", 400 * 5)
    monkeypatch.setattr(engine, "ROWS_AT_ONCE", 1)
    found = divergence(model, other, tokenizer, TEXT, batch=5, **options)
    assert torch.allclose(found.kl, expected.kl, rtol=1e-3, atol=1e-6)


def test_inference_mode_ends_with_the_measurement(model, other, tokenizer):
    divergence(model, other, tokenizer, TEXT, **OPTIONS)
    assert not torch.is_inference_mode_enabled()


def test_logits_stay_bounded(model, other, tokenizer, monkeypatch):
    monkeypatch.setattr(engine, "LOGITS_AT_ONCE", 400 * 5)
    monkeypatch.setattr(engine, "ROWS_AT_ONCE", 1)
    sizes = []
    hook = other.lm_head.register_forward_hook(lambda *call: sizes.append(call[2].shape))
    try:
        divergence(model, other, tokenizer, TEXT, **OPTIONS)
    finally:
        hook.remove()
    assert max(rows for rows, _ in sizes) == 5 and sum(rows for rows, _ in sizes) == 124


def test_variants_of_one_model(model, tokenizer):
    base = copy.deepcopy(model)
    variants = {
        "as it is": nullcontext(),
        "int4": quantized_model(model, "int4 per tensor"),
        "int4 with head": quantized_model(model, "int4 per tensor", lm_head=True),
    }
    found = divergences(model, tokenizer, TEXT, variants, **OPTIONS)
    assert list(found) == list(variants)
    assert found["as it is"].largest == 0
    for name, head in (("int4", False), ("int4 with head", True)):
        with quantized_model(model, "int4 per tensor", lm_head=head):
            expected = divergence(base, model, tokenizer, TEXT, **OPTIONS)
        assert torch.equal(found[name].kl, expected.kl), name
    assert found["int4 with head"].mean > found["int4"].mean > 0
    assert torch.equal(model.lm_head.weight, base.lm_head.weight)


def test_it_scores_the_tokens_that_perplexity_scores(model, other, tokenizer):
    found = divergence(model, other, tokenizer, TEXT, **OPTIONS)
    pieces = cut(model, tokenizer, TEXT, **OPTIONS).pieces
    before, after = (losses(m, pieces).double().neg().exp() for m in (model, other))
    assert torch.allclose(found.delta_p, after - before, atol=1e-6)


def test_the_same_pass_gives_both_perplexities(model, other, tokenizer):
    for options in (OPTIONS, {"protocol": "word_perplexity", "window": 32}):
        found = divergence(model, other, tokenizer, TEXT, **options)
        assert found.base == perplexity(model, tokenizer, TEXT, **options)
        assert found.model == perplexity(other, tokenizer, TEXT, **options)
    variants = {"int4": quantized_model(model, "int4 per tensor", lm_head=True)}
    found = divergences(model, tokenizer, TEXT, variants, **options)["int4"]
    assert found.base == perplexity(model, tokenizer, TEXT, **options) < found.model


def test_printing(model, other, tokenizer):
    line = str(divergence(model, other, tokenizer, TEXT, **OPTIONS))
    assert line.startswith("KL 0.") and "same top token" in line and "124 tokens" in line
    assert "gptq windows of 32" in line and "\n" not in line
    assert "float32, sample/test/en, sha256 " in line


def test_percentiles_in_lines(model, other, tokenizer):
    found = divergence(model, other, tokenizer, TEXT, **OPTIONS)
    high, both = found.percentiles().splitlines()
    assert f"99 %: {found.kl_percentile(99):.5f}" in high
    assert f"5 %: {100 * found.delta_p_percentile(5):+.2f}" in both
    assert both.count("%") == 7


def test_errors(model, tokenizer):
    small = tiny_model()
    small.resize_token_embeddings(500)
    with pytest.raises(LessonkitError, match="one vocabulary"):
        divergence(model, small, tokenizer, TEXT, **OPTIONS)
    broken = copy.deepcopy(model)
    with torch.no_grad():
        broken.lm_head.weight[7] = math.nan
    with pytest.raises(LessonkitError, match="not finite"):
        divergence(model, broken, tokenizer, TEXT, **OPTIONS)
