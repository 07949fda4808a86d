"""The perplexity is that of a slow loop that is obviously right, and of transformers' own loss."""

from __future__ import annotations

import copy
import math
import sys
from dataclasses import dataclass

import pytest
import torch
from transformers import LlamaForCausalLM

from lessonkit.errors import LessonkitError
from lessonkit.evaluate.perplexity import Perplexity, perplexity, token_losses, windows
from lessonkit.models.tokenizer import load_tokenizer
from tests.tiny import island_sentences, make_tokenizer, tiny_config

WINDOW = 32

module = sys.modules["lessonkit.evaluate.perplexity"]


@dataclass(frozen=True)
class Sample:
    content: str
    name: str = "sample"
    language: str = "en"
    split: str = "test"

    def joined(self) -> str:
        return self.content


TEXT = Sample(island_sentences(9))


@pytest.fixture(scope="module")
def tokenizer(tmp_path_factory):
    return load_tokenizer(make_tokenizer(tmp_path_factory.mktemp("tokenizer")))


@pytest.fixture(scope="module")
def model():
    torch.manual_seed(0)
    return LlamaForCausalLM(tiny_config(400, max_position_embeddings=64)).eval()


def slow_nll(model, ids: list[int], window: int) -> list[float]:
    """Token by token, in float64, each from its own forward pass over what stands before it."""
    scored = []
    for start in range(0, len(ids) - window + 1, window):
        for position in range(start + 1, start + window):
            with torch.no_grad():
                logits = model(torch.tensor([ids[start:position]])).logits[0, -1].double()
            scored.append(float(logits.logsumexp(0) - logits[ids[position]]))
    return scored


def test_equals_the_slow_loop(model, tokenizer):
    ids = [1] + tokenizer.encode(TEXT.content, add_special_tokens=False)
    expected = slow_nll(model, ids, WINDOW)
    found = perplexity(model, tokenizer, TEXT, window=WINDOW)
    assert len(ids) % WINDOW != 0, "the test wants a remainder to drop"
    assert found.windows == len(ids) // WINDOW
    assert found.scored == len(expected) == found.windows * (WINDOW - 1)
    assert found.mean_nll == pytest.approx(sum(expected) / len(expected), rel=1e-5)
    assert found.value == pytest.approx(math.exp(sum(expected) / len(expected)), rel=1e-4)


def test_each_window_equals_transformers_own_loss(model, tokenizer):
    ids = torch.tensor([1] + tokenizer.encode(TEXT.content, add_special_tokens=False))
    found = perplexity(model, tokenizer, TEXT, window=WINDOW)
    for window, mean in zip(ids.split(WINDOW), found.window_nll, strict=False):
        with torch.no_grad():
            loss = model(window[None], labels=window[None]).loss
        assert mean == pytest.approx(float(loss), rel=1e-6)


def test_the_protocol_of_the_gptq_paper(model, tokenizer):
    """As its code computes it: a whole window's loss times its length, divided in the end."""
    ids = torch.tensor([[1] + tokenizer.encode(TEXT.content, add_special_tokens=False)])
    count = ids.numel() // WINDOW
    total = torch.zeros(())
    for i in range(count):
        part = ids[:, i * WINDOW : (i + 1) * WINDOW]
        with torch.no_grad():
            logits = model(part).logits
        loss = torch.nn.CrossEntropyLoss()(logits[0, :-1], part[0, 1:])
        total += loss * WINDOW
    expected = torch.exp(total / (count * WINDOW))
    found = perplexity(model, tokenizer, TEXT, window=WINDOW)
    assert found.value == pytest.approx(float(expected), rel=1e-5)


def test_a_model_that_knows_nothing_scores_the_size_of_its_vocabulary(tokenizer):
    model = LlamaForCausalLM(tiny_config(400)).eval()
    torch.nn.init.zeros_(model.lm_head.weight)
    assert perplexity(model, tokenizer, TEXT).value == pytest.approx(400, rel=1e-6)


@pytest.mark.parametrize("batch", [1, 2, 3, 100])
@pytest.mark.parametrize("logits_at_once", [1, 400 * 7, 1 << 24])
def test_batch_and_piece_size_do_not_matter(model, tokenizer, monkeypatch, batch, logits_at_once):
    expected = perplexity(model, tokenizer, TEXT, window=WINDOW, batch=1)
    monkeypatch.setattr(module, "_LOGITS_AT_ONCE", logits_at_once)
    found = perplexity(model, tokenizer, TEXT, window=WINDOW, batch=batch)
    assert found.window_nll == pytest.approx(expected.window_nll, rel=1e-5)
    assert (found.scored, found.windows) == (expected.scored, expected.windows)


def test_logits_stay_bounded(model, monkeypatch):
    monkeypatch.setattr(module, "_LOGITS_AT_ONCE", 400 * 10)
    sizes = []
    hook = model.lm_head.register_forward_hook(lambda *call: sizes.append(call[2].numel()))
    try:
        losses = token_losses(model, torch.randint(0, 400, (3, 21)))
    finally:
        hook.remove()
    assert losses.shape == (3, 20)
    assert max(sizes) == 400 * 10 and sum(sizes) == 3 * 20 * 400


def test_log_probabilities_are_computed_in_float32(tokenizer):
    torch.manual_seed(1)
    model = LlamaForCausalLM(tiny_config(400)).to(torch.bfloat16).eval()
    ids = torch.randint(0, 400, (2, 40))
    with torch.no_grad():
        logits = model(ids).logits.float()[:, :-1]
    expected = logits.logsumexp(-1) - logits.gather(-1, ids[:, 1:, None])[..., 0]
    found = token_losses(model, ids)
    assert found.dtype == torch.float32
    assert torch.allclose(found, expected, rtol=1e-2, atol=5e-2)  # bf16 logits differ by shape
    assert len(found.unique()) > 70, "rounded to bfloat16 there would be fewer values"


def test_max_windows_takes_the_first(model, tokenizer):
    whole = perplexity(model, tokenizer, TEXT, window=WINDOW)
    part = perplexity(model, tokenizer, TEXT, window=WINDOW, max_windows=3)
    assert part.windows == 3 and part.scored == 3 * (WINDOW - 1)
    assert part.window_nll == pytest.approx(whole.window_nll[:3])
    more = perplexity(model, tokenizer, TEXT, window=WINDOW, max_windows=10_000)
    assert more.windows == whole.windows


def test_the_default_window_is_the_models_context(model, tokenizer):
    assert perplexity(model, tokenizer, TEXT, max_windows=1).protocol == windows(64)


def test_the_result_prints_its_protocol():
    found = Perplexity(7.3141, math.log(7.3141), 12_264, 24, windows(512), "island/test/en", ())
    assert str(found) == "7.31 (windows of 512, 12,264 tokens scored, island/test/en)"
    assert float(found) == 7.3141
    assert windows(512).remainder == "dropped" and windows(512).bos


def test_a_tokenizer_without_a_beginning_token(model, tokenizer):
    without = copy.deepcopy(tokenizer)
    without.bos_token = None
    ids = tokenizer.encode(TEXT.content, add_special_tokens=False)
    expected = slow_nll(model, ids[:WINDOW], WINDOW)
    found = perplexity(model, without, TEXT, window=WINDOW, max_windows=1)
    assert not found.protocol.bos
    assert found.mean_nll == pytest.approx(sum(expected) / len(expected), rel=1e-5)


def test_nothing_is_printed(model, tokenizer, capfd):
    tokenizer.model_max_length = 16  # transformers remarks on longer texts
    perplexity(model, tokenizer, TEXT, window=WINDOW)
    captured = capfd.readouterr()
    assert captured.out == "" and captured.err == ""


def error_of(*arguments, **options) -> LessonkitError:
    with pytest.raises(LessonkitError) as caught:
        perplexity(*arguments, **options)
    assert caught.value.remedy
    return caught.value


def test_a_text_shorter_than_a_window(model, tokenizer):
    for content in ("", "The river"):
        error = error_of(model, tokenizer, Sample(content), window=WINDOW)
        assert "less than one window" in error.what and error.where == "sample/test/en"


@pytest.mark.parametrize("window", [65, 10_000, 1, 0, -3])
def test_a_window_that_does_not_fit(model, tokenizer, window):
    assert "does not fit" in error_of(model, tokenizer, TEXT, window=window).what


@pytest.mark.parametrize("options", [{"batch": 0}, {"max_windows": 0}, {"max_windows": -1}])
def test_counts_below_one(model, tokenizer, options):
    assert next(iter(options)) in error_of(model, tokenizer, TEXT, **options).what


@pytest.mark.parametrize("bad", [math.nan, math.inf])
def test_scores_that_are_not_finite(tokenizer, bad):
    model = LlamaForCausalLM(tiny_config(400)).eval()
    with torch.no_grad():
        model.lm_head.weight[17] = bad
    error = error_of(model, tokenizer, TEXT, window=WINDOW)
    assert "not finite" in error.what and error.where == "window 0"


def test_a_token_without_an_embedding(tokenizer):
    model = LlamaForCausalLM(tiny_config(300)).eval()
    assert "embeddings" in error_of(model, tokenizer, TEXT, window=WINDOW).what


def test_a_hopeless_model_has_an_infinite_perplexity_not_a_crash(tokenizer):
    model = LlamaForCausalLM(tiny_config(400)).eval()
    with torch.no_grad():
        model.lm_head.weight *= 1e6
    found = perplexity(model, tokenizer, TEXT, window=WINDOW)
    assert found.value == math.inf and found.mean_nll > 709
