"""IQ4_NL and IQ4_XS: the levels by hand, and what the search chooses."""

from __future__ import annotations

import numpy as np
import pytest

from lessonkit.formats.ggml import FORMATS, decode, encode
from lessonkit.formats.ggml.iquants import LEVELS
from tests.formats.ggml.samples import importance, samples

NAMES = ("IQ4_NL", "IQ4_XS")


def test_the_levels_are_exact() -> None:
    """A block of the levels themselves, scaled by a power of two, loses nothing."""
    values = np.tile(LEVELS, 2)[None] / 1024
    data = encode(values.astype(np.float32), "IQ4_NL")
    assert np.array_equal(decode(data, "IQ4_NL"), values)
    assert float(data.view(FORMATS["IQ4_NL"].layout)["d"][0, 0]) == 1 / 1024
    codes = data[0, 2:]
    assert list(codes & 15) == list(range(16)) and list(codes >> 4) == list(range(16))


def test_between_two_levels_the_nearer_one_and_half_way_the_higher() -> None:
    """The levels themselves fix the scale; the values tested have no weight."""
    middle = (LEVELS[1:] + LEVELS[:-1]) / 2
    weights = np.repeat([np.float32(1), np.float32(0)], 16)
    for offset, codes in ((0, range(1, 16)), (-1, range(15)), (1, range(1, 16))):
        tested = np.nextafter(middle, np.float32(offset * 1000)) if offset else middle
        values = np.concatenate((LEVELS, tested, [np.float32(0)])) / np.float32(1024)
        block = encode(values[None], "IQ4_NL", weights)[0]
        assert block[:2].view("<f2")[0] == np.float16(1 / 1024)
        assert list(block[2:17] >> 4) == list(codes)


@pytest.mark.parametrize("name", NAMES)
def test_zeros_have_scale_zero_and_the_code_of_level_one(name: str) -> None:
    data = encode(np.zeros((1, 256), np.float32), name)
    blocks = data.view(FORMATS[name].layout)[0]
    assert (blocks["qs"] == 0x88).all() and (blocks["d"] == 0).all()
    assert not decode(data, name).any()


@pytest.mark.parametrize("name", NAMES)
def test_importance_lowers_the_weighted_error(name: str) -> None:
    values, weights = samples()["normal"], importance()
    plain, weighed = (decode(encode(values, name, w), name) for w in (None, weights))
    loss = [float((weights * (x - values) ** 2).sum()) for x in (plain, weighed)]
    assert loss[1] < 0.95 * loss[0]


def test_iq4_nl_loses_less_than_q4_0_on_a_bell_curve() -> None:
    values = samples()["normal"]
    losses = [((decode(encode(values, n), n) - values) ** 2).mean() for n in ("IQ4_NL", "Q4_0")]
    assert losses[0] < 0.9 * losses[1]
