"""Under every protocol the perplexity is that of a slow loop that is obviously right."""

from __future__ import annotations

import math
from contextlib import nullcontext
from dataclasses import replace

import pytest
import torch

from lessonkit.errors import LessonkitError
from lessonkit.evaluate.cut import cut
from lessonkit.evaluate.documents import detokenize, pages, raw_text
from lessonkit.evaluate.perplexity import perplexities, perplexity
from lessonkit.evaluate.protocols import gptq, sliding
from lessonkit.models.tokenizer import load_tokenizer
from lessonkit.quantize.rtn import quantized_model
from tests.evaluate.common import TEXT, sample, slow_log_probabilities, tiny_model
from tests.tiny import make_tokenizer

WINDOW = 32


@pytest.fixture(scope="module")
def tokenizer(tmp_path_factory):
    return load_tokenizer(make_tokenizer(tmp_path_factory.mktemp("tokenizer")))


@pytest.fixture(scope="module")
def model():
    return tiny_model(max_position_embeddings=64)


@pytest.fixture(scope="module")
def ids(tokenizer):
    return [1, *tokenizer.encode(TEXT.joined(), add_special_tokens=False)]


def nll(model, context: list[int], token: int) -> float:
    return -float(slow_log_probabilities(model, context)[token])


def mean(values: list[float]) -> float:
    return math.fsum(values) / len(values)


# --- each protocol, by a loop of its own that shares no code with ours ------------------------


def test_gptq(model, tokenizer, ids):
    expected = [
        nll(model, ids[start:i], ids[i])
        for start in range(0, len(ids) - WINDOW + 1, WINDOW)
        for i in range(start + 1, start + WINDOW)
    ]
    found = perplexity(model, tokenizer, TEXT, window=WINDOW)
    assert len(ids) % WINDOW != 0, "the test wants a remainder to drop"
    assert found.windows == len(ids) // WINDOW
    assert found.scored == len(expected) == found.windows * (WINDOW - 1)
    assert found.mean_nll == pytest.approx(mean(expected), rel=1e-6)
    assert found.value == pytest.approx(math.exp(mean(expected)), rel=1e-5)


def test_without_a_beginning_token(model, tokenizer, ids):
    expected = [
        nll(model, ids[start:i], ids[i])
        for start in range(1, len(ids) - WINDOW + 1, WINDOW)
        for i in range(start + 1, start + WINDOW)
    ]
    protocol = replace(gptq(WINDOW), bos="none")
    found = perplexity(model, tokenizer, TEXT, protocol=protocol)
    assert found.mean_nll == pytest.approx(mean(expected), rel=1e-6)
    assert "no BOS" in str(found)


def test_the_code_of_the_gptq_paper(model, tokenizer, ids):
    """A whole window's loss times its length, divided in the end."""
    count = len(ids) // WINDOW
    total = torch.zeros(())
    for i in range(count):
        part = torch.tensor([ids[i * WINDOW : (i + 1) * WINDOW]])
        with torch.no_grad():
            logits = model(part).logits
        total += torch.nn.CrossEntropyLoss()(logits[0, :-1], part[0, 1:]) * WINDOW
    expected = torch.exp(total / (count * WINDOW))
    found = perplexity(model, tokenizer, TEXT, window=WINDOW)
    assert found.value == pytest.approx(float(expected), rel=1e-5)


def test_llama_cpp(model, tokenizer, ids):
    expected = []
    for chunk in range(len(ids) // WINDOW):
        tokens = ids[chunk * WINDOW : (chunk + 1) * WINDOW]
        tokens[0] = 1
        expected += [nll(model, tokens[:i], tokens[i]) for i in range(WINDOW // 2 + 1, WINDOW)]
    found = perplexity(model, tokenizer, TEXT, protocol="llama.cpp", window=WINDOW)
    assert found.scored == len(expected) == (WINDOW // 2 - 1) * found.windows
    assert found.mean_nll == pytest.approx(mean(expected), rel=1e-6)
    squares = mean([x * x for x in expected])
    error = math.sqrt((squares - mean(expected) ** 2) / (len(expected) - 1))
    assert found.error == pytest.approx(math.exp(mean(expected)) * error, rel=1e-4)
    assert f" ± {found.error:.2f} (" in str(found)


@pytest.mark.parametrize("stride", [5, 16, 32])
def test_sliding(model, tokenizer, stride):
    text = sample(TEXT.joined()[:400])
    ids = [1, *tokenizer.encode(text.joined(), add_special_tokens=False)]
    expected, before = [], 0
    for begin in range(0, len(ids), stride):
        end = min(begin + WINDOW, len(ids))
        for i in range(max(before, begin + 1), end):
            expected.append(nll(model, ids[begin:i], ids[i]))
        before = end
        if end == len(ids):
            break
    found = perplexity(model, tokenizer, text, protocol=sliding(WINDOW, stride))
    assert found.scored == len(expected)
    assert found.mean_nll == pytest.approx(mean(expected), rel=1e-6)


def test_lm_eval_by_word_byte_and_bit(model, tokenizer):
    total, size = 0.0, 0
    documents = pages(raw_text(TEXT.rows))
    for page in documents:
        tokens = tokenizer.encode(detokenize(page), add_special_tokens=False)
        for i, token in enumerate(tokens):
            first = i // WINDOW * WINDOW  # its window's first token
            if len(tokens) - first < WINDOW <= len(tokens):
                first = len(tokens) - WINDOW  # the last window is filled with what was before
            context = [1, *tokens[:i]] if first == 0 else tokens[first - 1 : i]
            total += nll(model, context, token)
        size += len(page.encode())
    assert len(documents) == 3
    found = perplexity(model, tokenizer, TEXT, protocol="word_perplexity", window=WINDOW)
    words = found.words  # checked by eye in test_documents
    assert found.bytes == size > words > 50
    assert found.value == pytest.approx(math.exp(total / words), rel=1e-4)
    assert found.per("byte").value == pytest.approx(math.exp(total / size), rel=1e-5)
    bits = found.per("bit")
    assert bits.value == pytest.approx(total / size / math.log(2), rel=1e-6)
    direct = perplexity(model, tokenizer, TEXT, protocol="bits_per_byte", window=WINDOW)
    assert direct == bits
    assert bits.error == pytest.approx(found.error / found.value * words / size / math.log(2))
    with pytest.raises(LessonkitError, match="words or bytes"):
        perplexity(model, tokenizer, TEXT, window=WINDOW).per("word")
    with pytest.raises(LessonkitError, match="words or bytes"):
        found.per("token")


# --- the result --------------------------------------------------------------------------------


def test_windows_are_in_the_texts_order_whatever_the_batches(model, tokenizer):
    options = {"protocol": "word_perplexity", "window": WINDOW}
    expected = perplexity(model, tokenizer, TEXT, batch=1, **options)
    pieces = cut(model, tokenizer, TEXT, **options).pieces
    assert expected.window_scored == tuple(piece.scored for piece in pieces)
    assert len(set(expected.window_scored)) > 2
    for batch in (None, 2, 3, 100):
        found = perplexity(model, tokenizer, TEXT, batch=batch, **options)
        assert found.window_nll == pytest.approx(expected.window_nll, rel=1e-5)
        assert found.window_scored == expected.window_scored
    whole = math.fsum(
        m * n for m, n in zip(expected.window_nll, expected.window_scored, strict=True)
    )
    assert whole / expected.scored == pytest.approx(expected.mean_nll, rel=1e-12)


def test_a_model_that_knows_nothing_scores_the_size_of_its_vocabulary(tokenizer):
    model = tiny_model()
    torch.nn.init.zeros_(model.lm_head.weight)
    assert perplexity(model, tokenizer, TEXT).value == pytest.approx(400, rel=1e-6)


def test_the_default_is_the_models_context(model, tokenizer):
    assert perplexity(model, tokenizer, TEXT, max_windows=1).protocol == gptq(64)


def test_the_result_prints_where_it_comes_from(model, tokenizer):
    found = perplexity(model, tokenizer, TEXT, window=WINDOW, max_windows=2)
    assert str(found) == (
        f"{found.value:.2f} (gptq windows of 32, BOS at the start, 62 tokens scored, float32, "
        f"sample/test/en, sha256 {found.sha256[:8]})"
    )
    assert float(found) == found.value


def test_variants_share_one_cut_and_leave_the_model_as_it_was(model, tokenizer):
    before = perplexity(model, tokenizer, TEXT, window=WINDOW)
    variants = {
        "as it is": nullcontext(),
        "int4": quantized_model(model, "int4 per tensor"),
        "again": nullcontext(),
    }
    found = perplexities(model, tokenizer, TEXT, variants, window=WINDOW)
    assert list(found) == list(variants)
    assert found["as it is"] == found["again"] == before
    with quantized_model(model, "int4 per tensor"):
        assert found["int4"] == perplexity(model, tokenizer, TEXT, window=WINDOW)
    assert found["int4"] - before == found["int4"].value - before.value != 0


def test_nothing_is_printed(model, tokenizer, capfd):
    tokenizer.model_max_length = 16  # transformers remarks on longer texts
    perplexity(model, tokenizer, TEXT, window=WINDOW)
    captured = capfd.readouterr()
    assert captured.out == "" and captured.err == ""


# --- what does not compare, what is not finite -------------------------------------------------


def test_results_compare_only_on_the_same_ground(model, tokenizer):
    one = perplexity(model, tokenizer, TEXT, window=WINDOW)
    worse = replace(one, mean_nll=one.mean_nll + 1, dtype="bfloat16")
    assert one < worse and worse > one and worse - one > 0
    assert min(worse, one) is one
    others = {
        "protocols": perplexity(model, tokenizer, TEXT, window=16),
        "texts": replace(one, sha256="0" * 64),
        "counts of tokens": perplexity(model, tokenizer, TEXT, window=WINDOW, max_windows=2),
    }
    for what, other in others.items():
        with pytest.raises(LessonkitError, match=f"different {what}") as caught:
            one - other
        assert caught.value.remedy
        with pytest.raises(LessonkitError):
            one < other  # noqa: B015


def error_of(*arguments, **options) -> LessonkitError:
    with pytest.raises(LessonkitError) as caught:
        perplexity(*arguments, **options)
    assert caught.value.remedy
    return caught.value


def test_a_batch_below_one(model, tokenizer):
    assert "batch" in error_of(model, tokenizer, TEXT, batch=0).what


@pytest.mark.parametrize("bad", [math.nan, math.inf])
def test_scores_that_are_not_finite(tokenizer, bad):
    model = tiny_model()
    with torch.no_grad():
        model.lm_head.weight[17] = bad
    error = error_of(model, tokenizer, TEXT, window=WINDOW)
    assert "not finite" in error.what and error.where == "window 0"


def test_a_hopeless_model_has_an_infinite_perplexity_not_a_crash(tokenizer):
    model = tiny_model()
    with torch.no_grad():
        model.lm_head.weight *= 1e6
    found = perplexity(model, tokenizer, TEXT, window=WINDOW)
    assert found.value == math.inf and found.mean_nll > 709
    assert found.as_plain()["value"] is None, "JSON has no infinity"
