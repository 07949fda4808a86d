"""Q2_K to Q6_K: properties of the layouts and of what is chosen."""

from __future__ import annotations

import numpy as np
import pytest

from lessonkit.formats.ggml import FORMATS, block_format, decode, encode
from lessonkit.formats.ggml.kquants import KQuant, OffsetKQuant
from tests.formats.ggml.samples import importance, random_bytes, samples

NAMES = ("Q2_K", "Q3_K", "Q4_K", "Q5_K", "Q6_K")


def kquant(name: str) -> KQuant:
    kind = block_format(name)
    assert isinstance(kind, KQuant)
    return kind


@pytest.mark.parametrize("name", NAMES)
def test_storing_codes_undoes_loading_them(name: str) -> None:
    blocks = random_bytes(name).reshape(-1).view(FORMATS[name].layout)
    again = blocks.copy()
    kquant(name).store_codes(again, kquant(name).load_codes(blocks))
    assert np.array_equal(again, blocks)


@pytest.mark.parametrize("name", ["Q2_K", "Q4_K", "Q5_K"])
def test_packing_scales_undoes_unpacking_them(name: str) -> None:
    blocks = random_bytes(name).reshape(-1).view(FORMATS[name].layout)
    kind = kquant(name)
    assert isinstance(kind, OffsetKQuant)
    assert np.array_equal(kind.pack_scales(*kind.unpack_scales(blocks["scales"])), blocks["scales"])


@pytest.mark.parametrize("name", NAMES)
def test_codes_are_the_nearest_to_the_scales_as_stored(name: str) -> None:
    """Rounded again at the end: no code next to it comes closer to the value."""
    values = samples()["normal"]
    kind = kquant(name)
    data = encode(values, name)
    blocks = data.reshape(-1).view(kind.layout)
    errors = np.abs(decode(data, name) - values)
    codes = kind.load_codes(blocks)
    highest = {"Q2_K": 3, "Q3_K": 7, "Q4_K": 15, "Q5_K": 31, "Q6_K": 63}[name]
    for step in (-1, 1):
        moved = blocks.copy()
        kind.store_codes(moved, np.clip(codes.astype(int) + step, 0, highest).astype(np.uint8))
        other = np.abs(kind.decode_blocks(moved).reshape(values.shape) - values)
        assert (errors <= other * (1 + 1e-4) + 1e-7).all()


@pytest.mark.parametrize("name", NAMES)
def test_importance_lowers_the_weighted_error(name: str) -> None:
    values, weights = samples()["normal"], importance()
    plain, weighed = (decode(encode(values, name, w), name) for w in (None, weights))
    loss = [float((weights * (x - values) ** 2).sum()) for x in (plain, weighed)]
    assert loss[1] < 0.97 * loss[0]


def test_more_bits_lose_less() -> None:
    values = samples()["normal"]
    losses = [float(((decode(encode(values, name), name) - values) ** 2).mean()) for name in NAMES]
    assert losses == sorted(losses, reverse=True)
    assert losses[0] > 100 * losses[-1]


def test_the_third_bit_of_q3_k_and_its_scales() -> None:
    """One sub-block of a ramp: scale code -32 + 0 for the largest, the others' scales 0."""
    values = np.zeros((1, 256), np.float32)
    values[0, :8] = np.arange(-4, 4)
    data = encode(values, "Q3_K")
    block = data.view(FORMATS["Q3_K"].layout)[0]
    assert np.array_equal(decode(data, "Q3_K"), values)
    assert float(block["d"][0]) == -1 / 32  # 1 = d * (0 - 32)
    assert list(block["hmask"][0, :8]) == [0, 0, 0, 0, 1, 1, 1, 1]


@pytest.mark.parametrize("name", NAMES)
def test_zeros_stay_zeros(name: str) -> None:
    zeros = np.zeros((2, 256), np.float32)
    assert np.array_equal(decode(encode(zeros, name), name), zeros)
