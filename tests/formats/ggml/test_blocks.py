"""All block formats: next to the libraries; sizes, pieces, threads, refusals; the registry."""

from __future__ import annotations

import gguf
import numpy as np
import pytest
import torch

from lessonkit.errors import LessonkitError
from lessonkit.formats.ggml import FORMATS, block_format, decode, encode, row_bytes
from lessonkit.formats.ggml.blocks import by_element, by_group, ordered_sum, pack, unpack
from tests.formats.ggml.golden import MODES, differing
from tests.formats.ggml.samples import bell, importance, random_bytes, samples


@pytest.mark.parametrize("mode", MODES)
@pytest.mark.parametrize("name", FORMATS)
def test_same_bytes_as_ggml(name: str, mode: str) -> None:
    assert differing(name, mode) == []


@pytest.mark.parametrize("name", FORMATS)
def test_same_values_as_the_gguf_package(name: str) -> None:
    """On blocks of random bytes, so that every bit of the layout matters."""
    data = random_bytes(name)
    theirs = gguf.dequantize(data, gguf.GGMLQuantizationType[name])
    assert np.array_equal(decode(data, name), theirs)


@pytest.mark.parametrize("name", FORMATS)
def test_numbers_and_sizes_are_those_of_the_gguf_package(name: str) -> None:
    kind = gguf.GGMLQuantizationType[name]
    assert FORMATS[name].number == kind
    assert (FORMATS[name].values, FORMATS[name].bytes) == gguf.GGML_QUANT_SIZES[kind]
    assert row_bytes(1024, name) == 1024 // FORMATS[name].values * FORMATS[name].bytes


def test_bits_a_weight() -> None:
    bits = {name: kind.bits_per_weight for name, kind in FORMATS.items()}
    assert bits == {
        "Q4_0": 4.5, "Q4_1": 5, "Q5_0": 5.5, "Q5_1": 6, "Q8_0": 8.5, "MXFP4": 4.25,
        "Q2_K": 2.625, "Q3_K": 3.4375, "Q4_K": 4.5, "Q5_K": 5.5, "Q6_K": 6.5625,
        "IQ4_NL": 4.5, "IQ4_XS": 4.25,
    }  # fmt: skip


@pytest.mark.parametrize("threads", [1, 3])
@pytest.mark.parametrize("weighed", [False, True])
@pytest.mark.parametrize("name", FORMATS)
def test_pieces_and_threads_change_nothing(
    name: str, weighed: bool, threads: int, monkeypatch: pytest.MonkeyPatch
) -> None:
    values = samples()["normal"]
    weights = importance() if weighed else None
    whole = encode(values, name, weights)
    before = torch.get_num_threads()
    monkeypatch.setattr(type(FORMATS[name]), "piece", 600)  # a row, or two blocks
    torch.set_num_threads(threads)
    try:
        assert np.array_equal(encode(values, name, weights), whole)
        assert np.array_equal(
            decode(whole, name), np.vstack([decode(r[None], name) for r in whole])
        )
    finally:
        torch.set_num_threads(before)


@pytest.mark.parametrize("name", FORMATS)
def test_memory_order_does_not_matter(name: str) -> None:
    values = samples()["normal"]
    assert np.array_equal(encode(np.asfortranarray(values), name), encode(values, name))
    data = encode(values, name)
    assert np.array_equal(decode(np.asfortranarray(data), name), decode(data, name))


@pytest.mark.parametrize("bad", [np.nan, np.inf, -np.inf])
@pytest.mark.parametrize("weighed", [False, True])
@pytest.mark.parametrize("name", FORMATS)
def test_nan_and_infinity_are_refused_by_place(name: str, weighed: bool, bad: float) -> None:
    values = samples()["normal"].copy()
    values[7, 300] = bad
    with pytest.raises(LessonkitError) as caught:
        encode(values, name, importance() if weighed else None)
    assert caught.value.where == "row 7, column 300"
    with pytest.raises(LessonkitError) as caught:
        encode(values, name, importance() if weighed else None, first_row=100)
    assert caught.value.where == "row 107, column 300"


def test_a_finite_block_whose_sum_overflows_is_no_error() -> None:
    values = np.full((1, 32), 3e38, np.float32)
    assert np.isfinite(decode(encode(values, "MXFP4"), "MXFP4")).all()


@pytest.mark.parametrize("name", [name for name in FORMATS if name != "MXFP4"])
def test_scales_too_large_for_float16_are_refused(name: str) -> None:
    values = bell(1, (2, 256)).copy()
    values[1] *= np.float32(1e9)
    with pytest.raises(LessonkitError, match="overflows float16") as caught:
        encode(values, name)
    assert caught.value.where is not None and caught.value.where.startswith("row 1")


@pytest.mark.parametrize("name", FORMATS)
def test_a_row_must_have_whole_blocks(name: str) -> None:
    with pytest.raises(LessonkitError, match="no whole number"):
        encode(np.zeros((2, FORMATS[name].values + 16), np.float32), name)


@pytest.mark.parametrize(
    "values", [np.zeros((2, 256)), np.zeros(256, np.float32), np.zeros((1, 1, 256), np.float32)]
)
def test_only_float32_matrices_are_encoded(values: np.ndarray) -> None:
    with pytest.raises(LessonkitError, match="Only float32 matrices"):
        encode(values, "Q4_0")


@pytest.mark.parametrize(
    "data", [np.zeros((2, 17), np.uint8), np.zeros(18, np.uint8), np.zeros((1, 18), np.int8)]
)
def test_only_whole_blocks_are_decoded(data: np.ndarray) -> None:
    with pytest.raises(LessonkitError, match="a multiple of 18"):
        decode(data, "Q4_0")


def test_importance_must_fit() -> None:
    values = samples()["normal"]
    for wrong in (importance()[:-1], importance().astype(np.float64)):
        with pytest.raises(LessonkitError, match="for 512 columns"):
            encode(values, "Q4_K", wrong)
    for bad in (np.nan, -1):
        weights = importance().copy()
        weights[9] = bad
        with pytest.raises(LessonkitError) as caught:
            encode(values, "Q8_0", weights)
        assert caught.value.where == "importance, column 9"


def test_an_unknown_format_is_refused_with_the_known_ones() -> None:
    with pytest.raises(LessonkitError, match="'q4'") as caught:
        block_format("q4")
    assert caught.value.remedy is not None and "Q4_K" in caught.value.remedy


def test_no_rows_are_no_work() -> None:
    assert encode(np.zeros((0, 256), np.float32), "Q4_K").shape == (0, 144)
    assert decode(np.zeros((0, 144), np.uint8), "Q4_K").shape == (0, 256)


@pytest.mark.parametrize("count", [1, 2, 7])
def test_sums_are_added_in_order(count: int) -> None:
    """1 + 2^-24 rounds to 1, however often: pairs would add the small ones first."""
    x = np.full((32, count), 2.0**-24, np.float32)
    x[0] = 1
    assert (ordered_sum(x) == 1).all()
    assert np.add.reduce(np.ascontiguousarray(x.T), axis=1)[0] > 1  # what this is for


@pytest.mark.parametrize("bits", [1, 2, 4])
def test_packing(bits: int) -> None:
    codes = (np.arange(3 * 8 // bits * 5) % (1 << bits)).astype(np.uint8).reshape(3, 8 // bits, 5)
    packed = pack(codes, bits)
    assert packed.shape == (3, 5)
    assert np.array_equal(unpack(packed, bits), codes)
    assert packed[0, 0] == sum(int(c) << (bits * i) for i, c in enumerate(codes[0, :, 0]))


def test_layouts_of_elements_and_groups() -> None:
    x = np.arange(64, dtype=np.float32).reshape(2, 32)
    assert list(by_element(x, 32)[3]) == [3, 35]
    assert np.array_equal(by_group(by_element(x, 32)), x.astype(np.uint8))


@pytest.mark.parametrize("blocks", [1, 3])
@pytest.mark.parametrize("name", FORMATS)
def test_the_callers_values_are_left_as_they_are(name: str, blocks: int) -> None:
    x = np.random.default_rng(0).normal(size=(1, blocks * FORMATS[name].values))
    x = x.astype(np.float32)
    before = x.copy()
    encode(x, name)
    encode(x, name, np.ones(x.shape[1], np.float32))
    assert np.array_equal(x, before)
