"""llama.cpp's base file: its layout byte by byte, what its codes lose, broken files."""

from __future__ import annotations

import copy
import math
import struct

import numpy as np
import pytest
import torch

from lessonkit.errors import LessonkitError
from lessonkit.evaluate.cut import cut
from lessonkit.evaluate.divergence import divergence
from lessonkit.evaluate.kl_base import (
    decode,
    divergence_from_base,
    encode,
    read_kl_base,
    row_length,
    write_kl_base,
)
from lessonkit.models.tokenizer import load_tokenizer
from tests.evaluate.common import TEXT, tiny_model
from tests.tiny import make_tokenizer

WINDOW = 32


@pytest.fixture(scope="module")
def tokenizer(tmp_path_factory):
    return load_tokenizer(make_tokenizer(tmp_path_factory.mktemp("tokenizer")))


@pytest.fixture(scope="module")
def model():
    return tiny_model(max_position_embeddings=64)


@pytest.fixture(scope="module")
def file(model, tokenizer, tmp_path_factory):
    out = tmp_path_factory.mktemp("base") / "base.kld"
    return write_kl_base(out, model, tokenizer, TEXT, window=WINDOW, max_windows=3)


# --- codes -------------------------------------------------------------------------------------


def c_row(logits: list[float]) -> bytes:
    """One row as the C code makes it, number by number in float32."""
    f = np.float32
    values = [f(x) for x in logits]
    best = max(values)
    least = max(min(values), f(best - f(16)))
    total = math.log(math.fsum(float(np.exp(f(x - best))) for x in values))
    step = f(f(best - least) / f(65535))
    row = struct.pack("<ff", step, f(f(least - best) - f(total)))
    for x in values:
        code = int(np.rint(f(f(f(1) / step) * f(x - least)))) if step and x > least else 0
        row += struct.pack("<H", code)
    return row + b"\0\0" * (len(logits) % 2)


@pytest.mark.parametrize("scale", [0.0, 0.1, 3.0, 30.0])
@pytest.mark.parametrize("vocabulary", [5, 400])
def test_rows_are_those_of_the_c_code(vocabulary, scale):
    logits = np.random.default_rng(0).normal(0, 1, (6, vocabulary)).astype(np.float32) * scale
    rows = encode(logits)
    assert rows.shape == (6, row_length(vocabulary)) and rows.dtype == np.dtype("<u2")
    for row, expected in zip(rows, logits.tolist(), strict=True):
        ours, theirs = row.tobytes(), c_row(expected)
        assert ours[:4] == theirs[:4] and ours[8:] == theirs[8:]
        smallest = [struct.unpack("<f", r[4:8])[0] for r in (ours, theirs)]
        assert smallest[0] == pytest.approx(smallest[1], rel=3e-7)  # the sum's order differs


def test_decoded_log_probabilities_are_off_by_half_a_step_at_most():
    logits = torch.randn(20, 999, generator=torch.Generator().manual_seed(0)) * 2
    exact = torch.log_softmax(logits.double(), -1).numpy()
    found = decode(encode(logits.numpy()), 999)
    assert found.dtype == np.float32 and found.shape == (20, 999)
    step = (logits.amax(1) - logits.amin(1)).numpy() / 65535
    assert (abs(found - exact) <= step[:, None] / 2 + 4e-6).all()
    assert abs(found - exact).max() > step.min() / 3, "it does round"


def test_what_is_more_than_16_below_the_best_is_raised():
    found = decode(encode(np.array([[0.0, -15.0, -17.0, -40.0]])), 4)[0]
    assert found[1] == pytest.approx(-15, abs=1e-3)
    assert found[2] == found[3] == pytest.approx(-16, abs=1e-3)


# --- the file ----------------------------------------------------------------------------------


def test_layout(file, model, tokenizer):
    content = file.read_bytes()
    assert content[:8] == b"_logits_"
    assert struct.unpack_from("<3i", content, 8) == (WINDOW, 400, 3)
    tokens = np.frombuffer(content, "<i4", 3 * WINDOW, 20).reshape(3, WINDOW)
    pieces = cut(model, tokenizer, TEXT, protocol="llama.cpp", window=WINDOW).pieces[:3]
    assert tokens.tolist() == [list(piece.ids) for piece in pieces]
    assert len(content) == 20 + 4 * 3 * WINDOW + 2 * 3 * 15 * 404


def test_reading(file, model, tokenizer):
    found = read_kl_base(file)
    assert (found.window, found.vocabulary, found.rows.shape) == (WINDOW, 400, (3, 15, 404))
    pieces = cut(model, tokenizer, TEXT, protocol="llama.cpp", window=WINDOW).pieces[:3]
    assert found.pieces(1) == list(pieces)
    with torch.no_grad():
        logits = model(torch.tensor([pieces[1].ids])).logits[0, 16:-1]
    assert torch.allclose(found.log_probabilities(1), logits.log_softmax(-1), atol=2e-4)


def test_a_first_token_that_llama_cpp_left_in_place_is_replaced(file):
    """llama-perplexity stores the text's own tokens and reads a beginning token instead."""
    content = bytearray(file.read_bytes())
    struct.pack_into("<i", content, 20 + 4 * WINDOW, 77)
    file = file.with_name("theirs.kld")
    file.write_bytes(content)
    opened = read_kl_base(file)
    assert opened.tokens[1, 0] == 77 and opened.pieces(1)[1].ids[0] == 1
    assert opened.pieces(None)[1].ids[0] == 77


def test_a_model_against_its_own_file_is_near_zero_but_not_zero(file, model, tokenizer):
    found = divergence_from_base(file, model, 1)
    exact = divergence(
        model, model, tokenizer, TEXT, protocol="llama.cpp", window=WINDOW, max_windows=3
    )
    assert exact.largest == 0 == exact.mean
    assert 0 < float(found.kl.abs().max()) < 2e-4, "half a step, and no more"
    assert found.agreement > 0.97


def test_another_model_against_the_file(file, model, tokenizer):
    other = copy.deepcopy(model)
    with torch.no_grad():
        other.lm_head.weight *= 0.9
    exact = divergence(
        model, other, tokenizer, TEXT, protocol="llama.cpp", window=WINDOW, max_windows=3
    )
    found = divergence_from_base(file, other, 1)
    assert exact.mean > 1e-3
    assert torch.allclose(found.kl, exact.kl, atol=3e-4)
    assert torch.allclose(found.delta_p, exact.delta_p, atol=3e-4)


def test_the_file_is_whole_or_not_there(model, tokenizer, tmp_path):
    out = tmp_path / "base.kld"
    broken = copy.deepcopy(model)
    broken.lm_head.register_forward_hook(lambda *_: 1 / 0)
    with pytest.raises(ZeroDivisionError):
        write_kl_base(out, broken, tokenizer, TEXT, window=WINDOW)
    assert list(tmp_path.iterdir()) == []
    write_kl_base(out, model, tokenizer, TEXT, window=WINDOW, max_windows=1)
    with pytest.raises(LessonkitError):
        write_kl_base(out, model, tokenizer, TEXT, window=WINDOW, max_windows=1)
    write_kl_base(out, model, tokenizer, TEXT, window=WINDOW, max_windows=2, force=True)
    assert len(read_kl_base(out).tokens) == 2


@pytest.mark.parametrize(
    ("spoil", "message"),
    [
        (lambda c: b"", "_logits_"),
        (lambda c: b"GGUF" + c[4:], "_logits_"),
        (lambda c: c[:-2], "do not fit"),
        (lambda c: c + b"\0\0", "do not fit"),
        (lambda c: c[:8] + struct.pack("<3i", -1, 400, 3) + c[20:], "do not fit"),
        (lambda c: c[:8] + struct.pack("<3i", 2**31 - 1, 2**31 - 1, 2**31 - 1), "do not fit"),
    ],
)
def test_files_that_are_none(file, tmp_path, spoil, message):
    bad = tmp_path / "bad.kld"
    bad.write_bytes(spoil(file.read_bytes()))
    with pytest.raises(LessonkitError, match=message) as caught:
        read_kl_base(bad)
    assert caught.value.remedy and caught.value.where == str(bad)


def test_a_missing_file_and_another_vocabulary(file, model, tmp_path):
    with pytest.raises(LessonkitError, match="cannot be read"):
        read_kl_base(tmp_path / "none.kld")
    other = tiny_model()
    other.resize_token_embeddings(500)
    with pytest.raises(LessonkitError, match="vocabulary"):
        divergence_from_base(file, other, 1)
