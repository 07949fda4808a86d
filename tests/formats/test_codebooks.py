"""The tables: against bitsandbytes to the bit, and against their own definitions."""

from __future__ import annotations

import numpy as np
import pytest
import torch

from lessonkit.formats.codebooks import (
    CODEBOOKS,
    E1M2,
    E2M1,
    E3M0,
    FP4,
    INT4,
    NF4,
    NF4_OFFSET,
    Codebook,
    derive_nf4,
    dynamic_map,
    nf4_probabilities,
)


@pytest.mark.parametrize("book", [NF4, FP4], ids=lambda book: book.name)
def test_values_are_those_of_bitsandbytes_to_the_bit(book: Codebook) -> None:
    import bitsandbytes.functional as bnb

    theirs = bnb.get_4bit_type(book.name, device="cpu")
    assert torch.equal(book.tensor().view(torch.int32), theirs.view(torch.int32))


def test_nf4_is_derived_to_the_bit() -> None:
    assert torch.equal(derive_nf4().view(torch.int32), NF4.tensor().view(torch.int32))


def test_nf4_needs_float32_probabilities_and_the_seven_digits(
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    from lessonkit.formats import codebooks

    exact = (29 / 30 + 31 / 32) / 2
    assert round(exact - NF4_OFFSET, 9) == 3.3e-8
    monkeypatch.setattr(codebooks, "NF4_OFFSET", exact)
    assert not torch.equal(derive_nf4(), NF4.tensor())
    monkeypatch.undo()

    def float64_probabilities(points: int) -> torch.Tensor:
        return torch.linspace(NF4_OFFSET, 0.5, points, dtype=torch.float64)[:-1]

    monkeypatch.setattr(codebooks, "nf4_probabilities", float64_probabilities)
    assert not torch.equal(derive_nf4(), NF4.tensor())
    assert torch.allclose(derive_nf4(), NF4.tensor(), atol=1e-6)


def test_nf4_has_eight_positive_levels_seven_negative_ones_and_zero() -> None:
    assert nf4_probabilities(9).dtype == torch.float32
    assert np.sign(NF4.values).tolist() == [-1] * 7 + [0] + [1] * 8


def test_nf4_levels_are_not_evenly_spaced() -> None:
    gaps = np.diff(np.array(NF4.values))
    assert round(float(gaps.max() / gaps.min()), 2) == 3.82


def test_the_thresholds_of_fp4_are_bitsandbytes_own() -> None:
    from bitsandbytes.backends.default.ops import _get_4bit_quantize_bounds

    bounds, order = _get_4bit_quantize_bounds("fp4", torch.device("cpu"))
    assert FP4.thresholds.tolist() == bounds.tolist()
    assert list(FP4.search_order) == order.tolist()


@pytest.mark.parametrize("book", CODEBOOKS.values(), ids=lambda book: book.name)
def test_every_codebook_is_sound(book: Codebook) -> None:
    assert len(book.values) == 16 and max(map(abs, book.values)) == 1
    assert all(float(np.float32(value)) == value for value in book.values)
    levels = [book.values[code] for code in book.search_order]
    assert levels == sorted(levels)
    assert set(levels) == set(book.values)
    assert len(book.thresholds) == len(levels) - 1 and book.thresholds.dtype == np.float32
    assert book.values[book.zero_code] == 0
    assert CODEBOOKS[book.name] is book


def test_the_four_bit_floats_by_hand() -> None:
    assert [6 * v for v in E2M1.values[:8]] == pytest.approx([0, 0.5, 1, 1.5, 2, 3, 4, 6])
    assert [16 * v for v in E3M0.values[:8]] == [0, 0.25, 0.5, 1, 2, 4, 8, 16]
    assert [7 * v for v in E1M2.values[:8]] == pytest.approx(range(8))
    for book in (E2M1, E3M0, E1M2):
        assert [-v for v in book.values[8:]] == list(book.values[:8])
        assert 8 not in book.search_order


def test_int4_is_evenly_spaced_from_minus_one() -> None:
    assert INT4.values[0] == -1 and INT4.values[15] == 7 / 8
    assert set(np.diff(INT4.values)) == {1 / 8}


def test_the_dynamic_map_is_that_of_bitsandbytes_to_the_bit() -> None:
    import bitsandbytes.functional as bnb

    assert torch.equal(dynamic_map(), bnb.create_dynamic_map())
    assert len(set(dynamic_map().tolist())) == 256
