"""Q4_0, Q4_1, Q5_0, Q5_1, Q8_0 and MXFP4: bytes of the gguf package, and by hand."""

from __future__ import annotations

import gguf
import numpy as np
import pytest

from lessonkit.formats.ggml import FORMATS, decode, encode
from tests.formats.ggml.samples import importance, samples

NAMES = ("Q4_0", "Q4_1", "Q5_0", "Q5_1", "Q8_0", "MXFP4")


def ramp() -> np.ndarray:
    """One block: -16 to 15, as float32 [1, 32]."""
    return np.arange(-16, 16, dtype=np.float32)[None]


@pytest.mark.parametrize("name", NAMES)
def test_same_bytes_as_the_gguf_package(name: str) -> None:
    kind = gguf.GGMLQuantizationType[name]
    # Not "pruned": it gives blocks of zeros of both signs a d or m of the other sign.
    for sample in ("normal", "heavy-tailed", "one outlier", "ties", "far from zero"):
        values = samples()[sample]
        assert np.array_equal(encode(values, name), gguf.quantize(values, kind)), sample


@pytest.mark.parametrize("name", NAMES)
def test_encoding_decoded_values_keeps_them(name: str) -> None:
    once = decode(encode(samples()["normal"], name), name)
    again = decode(encode(once, name), name)
    if name in ("Q4_0", "Q5_0", "MXFP4"):  # the largest value lies on the grid again
        assert np.array_equal(once, again)
    else:
        assert np.abs(again - once).max() <= 1e-3 * np.abs(once).max()


def test_a_q4_0_block_by_hand() -> None:
    """d = -16 / -8 = 2; code = trunc(x / 2 + 8.5), so -16 has code 0 and 15 has 15."""
    block = encode(ramp(), "Q4_0")[0]
    assert block[:2].view("<f2") == 2
    codes = np.minimum(np.trunc(ramp()[0] / 2 + 8.5), 15).astype(int)
    assert list(block[2:] & 15) == list(codes[:16])
    assert list(block[2:] >> 4) == list(codes[16:])


def test_the_sign_of_the_largest_value_decides_the_sign_of_d() -> None:
    """And of two equally large ones the first."""
    values = np.zeros((2, 32), np.float32)
    values[0, [3, 7]] = 4, -4
    values[1, [3, 7]] = -4, 4
    blocks = encode(values, "Q4_0").view(FORMATS["Q4_0"].layout)[:, 0]
    assert list(blocks["d"]) == [-0.5, 0.5]
    decoded = decode(encode(values, "Q4_0"), "Q4_0")
    assert list(decoded[0, [3, 7]]) == [4, -3.5]  # there is no code for the other end


def test_a_q5_1_block_by_hand() -> None:
    """32 levels for 32 numbers: d = 1, m = -16, nothing is lost; bit j of qh is 1 from 16 on."""
    data = encode(ramp(), "Q5_1")
    block = data.view(FORMATS["Q5_1"].layout)[0, 0]
    assert (block["d"], block["m"]) == (1, -16)
    assert list(block["qh"]) == [0, 0, 255, 255]
    assert np.array_equal(decode(data, "Q5_1"), ramp())


def test_q8_0_rounds_half_away_from_zero() -> None:
    values = np.zeros((1, 32), np.float32)
    values[0, :6] = 127, 0.5, -0.5, 1.5, -2.5, np.nextafter(np.float32(0.5), np.float32(0))
    codes = encode(values, "Q8_0").view(FORMATS["Q8_0"].layout)["qs"][0, 0]
    assert list(codes[:6]) == [127, 1, -1, 2, -3, 0]


def test_an_mxfp4_block_by_hand() -> None:
    """Largest 6, so the scale is 2^(2 - 2); half-way cases go toward zero; above 6 is cut."""
    values = np.zeros((1, 32), np.float32)
    values[0, :8] = 6, 7, 5, -2.5, 0.25, -0.25, 0.75, -1.6
    block = encode(values, "MXFP4")[0]
    assert block[0] == 127
    assert list(decode(encode(values, "MXFP4"), "MXFP4")[0, :8]) == [6, 6, 4, -2, 0, 0, 0.5, -1.5]
    assert block[1] & 15 == 7 and block[4] & 15 == 8 + 4


def test_mxfp4_exponents_are_those_of_a_float32_logarithm() -> None:
    """Just below 2^64 a float32 logarithm is 64: the scale is twice what it need be."""
    values = np.zeros((3, 32), np.float32)
    values[:, 0] = np.nextafter(np.float32(2**64), np.float32(0)), 2**64, 2**64 * 0.99
    assert list(encode(values, "MXFP4")[:, 0]) == [64 + 125, 64 + 125, 63 + 125]


@pytest.mark.parametrize("name", ["Q8_0", "MXFP4"])
def test_these_ignore_importance(name: str) -> None:
    values = samples()["heavy-tailed"]
    assert np.array_equal(encode(values, name), encode(values, name, importance()))


@pytest.mark.parametrize("name", ["Q4_0", "Q4_1", "Q5_0", "Q5_1"])
def test_importance_lowers_the_weighted_error(name: str) -> None:
    values, weights = samples()["normal"], importance()
    plain, weighed = (decode(encode(values, name, w), name) for w in (None, weights))
    loss = [float((weights * (x - values) ** 2).sum()) for x in (plain, weighed)]
    assert loss[1] < 0.95 * loss[0]
