"""Number formats: names, bits and rounding are those of safetensors and torch."""

from __future__ import annotations

import json
import re
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import torch
from safetensors import SafetensorError, deserialize
from safetensors.torch import save_file

from lessonkit.errors import LessonkitError
from lessonkit.files import dtypes
from lessonkit.files.checkpoint import open_checkpoint
from lessonkit.files.dtypes import (
    DTYPES,
    FLOATS,
    bits_of,
    bytes_of,
    cast,
    parse_dtype,
    to_float32,
)
from lessonkit.files.safetensors import TensorInfo, encode_header

ALL_16_BITS = np.arange(1 << 16, dtype=np.uint16)
# Formats with a value for each element of a torch tensor; others are carried along as bytes.
TORCH = {
    name: getattr(torch, dtype.torch_name) for name, dtype in DTYPES.items() if dtype.values == 1
}


def tensor_of(bits: np.ndarray, dtype: str) -> torch.Tensor:
    return torch.from_numpy(bits.copy()).view(TORCH[dtype])


def some_bits(dtype: str) -> np.ndarray:
    """Values of a float format from all over its range, with all edges, as bits."""
    if DTYPES[dtype].block_bytes == 2:
        return ALL_16_BITS.view(DTYPES[dtype].bits)
    width = 8 * DTYPES[dtype].block_bytes
    generator = np.random.default_rng(0)
    raw = generator.integers(0, 1 << width, 100_000, np.uint64, endpoint=False)
    near_one = generator.normal(0, 1, 100_000).astype(DTYPES[dtype].bits)
    # Ties between two bf16, and their neighbours: what rounding gets wrong most easily.
    ties = ALL_16_BITS.astype(np.uint32)[:, None] << 16 | np.array([0x7FFF, 0x8000, 0x8001])
    edges = ties.astype(np.uint32).reshape(-1).view(np.float32)
    with np.errstate(invalid="ignore"):
        parts = [raw.astype(f"<u{width // 8}").view(DTYPES[dtype].bits), near_one]
        return np.concatenate([*parts, edges.astype(DTYPES[dtype].bits)])


# --- the library's own table ------------------------------------------------------------------


def library_accepts(dtype: str, count: int, nbytes: int) -> bool:
    """Does the safetensors library read so many values of a dtype from so many bytes?"""
    entry = {"dtype": dtype, "shape": [count], "data_offsets": [0, nbytes]}
    header = json.dumps({"t": entry}).encode()
    try:
        deserialize(len(header).to_bytes(8, "little") + header + bytes(nbytes))
    except SafetensorError:
        return False
    return True


def test_the_table_is_the_librarys() -> None:
    with pytest.raises(SafetensorError) as caught:
        header = b'{"t":{"dtype":"NONE","shape":[1],"data_offsets":[0,1]}}'
        deserialize(len(header).to_bytes(8, "little") + header + b"0")
    known = re.findall(r"`(\w+)`", str(caught.value).partition("expected one of")[2])
    assert sorted(known) == sorted(DTYPES)


@pytest.mark.parametrize("name", DTYPES)
def test_bytes_of_a_block_are_the_librarys(name: str) -> None:
    dtype = DTYPES[name]
    count = 8 * dtype.values
    assert library_accepts(name, count, dtype.nbytes(count))
    assert not library_accepts(name, count, dtype.nbytes(count) + 1)


@pytest.mark.parametrize("name", ["F4", "F6_E2M3", "F8_E8M0", "C64", "F8_E4M3FNUZ"])
def test_formats_that_are_only_carried_along(name: str, tmp_path: Path) -> None:
    shape, dtype = (3, 8), DTYPES[name]
    info = TensorInfo("t", name, shape)
    raw = np.random.default_rng(0).integers(0, 256, info.nbytes, np.uint8)
    path = tmp_path / "t.safetensors"
    path.write_bytes(encode_header([info], {}) + raw.tobytes())
    opened = open_checkpoint(path)
    assert opened.info("t") == info
    assert opened.array("t").shape == dtype.stored_shape(shape)
    assert opened.array("t").tobytes() == raw.tobytes()
    assert bytes(bytes_of(opened.array("t"))) == raw.tobytes()


# --- names ------------------------------------------------------------------------------------


@pytest.mark.parametrize("name", TORCH)
def test_name_width_and_bits_are_those_of_safetensors(tmp_path: Path, name: str) -> None:
    assert TORCH[name].itemsize == DTYPES[name].block_bytes == DTYPES[name].bits.itemsize
    tensor = torch.arange(6).reshape(2, 3).to(TORCH[name])
    save_file({"t": tensor}, tmp_path / "t.safetensors")
    raw = (tmp_path / "t.safetensors").read_bytes()
    length = int.from_bytes(raw[:8], "little")
    assert json.loads(raw[8 : 8 + length])["t"]["dtype"] == name
    bits, found = bits_of(tensor)
    assert found == name and bits.dtype == DTYPES[name].bits and bits.shape == (2, 3)
    assert bytes(bytes_of(bits)) == raw[8 + length :]


def test_names_are_read_in_every_spelling() -> None:
    for name, dtype in DTYPES.items():
        for spelling in (name, name.lower(), dtype.torch_name, f"torch.{dtype.torch_name}"):
            assert parse_dtype(spelling) == name
    assert [parse_dtype(name) for name in ("fp16", "FP32", "fp8_e5m2")] == ["F16", "F32", "F8_E5M2"]
    for wrong in ("", "float", "fp", "fp15", "torch.", "bf-16"):
        with pytest.raises(LessonkitError, match="not a number format") as caught:
            parse_dtype(wrong)
        assert "BF16" in str(caught.value.remedy)


# --- bits -------------------------------------------------------------------------------------


def test_numpys_own_types_need_no_name() -> None:
    for name, dtype in DTYPES.items():
        array = np.zeros(2, dtype.bits)
        assert bits_of(array, name)[1] == name
        if dtype.native:
            assert bits_of(array)[1] == name
    assert bits_of(np.zeros(2, np.uint16), "bfloat16")[1] == "BF16"


def test_big_endian_arrays_keep_their_values() -> None:
    bits, name = bits_of(np.array([1, 2], ">i4"))
    assert name == "I32" and bits.tolist() == [1, 2]
    assert bytes(bytes_of(bits)) == b"\x01\0\0\0\x02\0\0\0"


def test_bits_are_shared_not_copied() -> None:
    array = np.ones(3, np.float32)
    assert np.shares_memory(bits_of(array)[0], array)
    tensor = torch.ones(3, dtype=torch.bfloat16)
    bits_of(tensor)[0][0] = 0x4000
    assert tensor[0] == 2.0
    raw = bytes_of(array)
    array[0] = 0
    assert bytes(raw[:4]) == bytes(4)


def test_views_are_stored_row_by_row() -> None:
    table = np.arange(6, dtype=np.int16).reshape(2, 3)
    assert (
        bytes(bytes_of(table.T))
        == table.T.tobytes()
        == b"".join(int(v).to_bytes(2, "little") for v in (0, 3, 1, 4, 2, 5))
    )
    tensor = torch.from_numpy(table).bfloat16().T.requires_grad_()
    assert bits_of(tensor)[0].tolist() == tensor.detach().contiguous().view(torch.int16).tolist()
    assert bytes(bytes_of(np.array(1.0, "<f2"))) == b"\x00\x3c"


@pytest.mark.parametrize(
    ("data", "dtype"),
    [
        (np.ones(1, np.complex128), None),
        (np.array(["x"]), None),
        (np.ones(1, np.longdouble), None),
        (np.ones(1, np.float32), "BF16"),  # bits are asked for, not values to be rounded
        (np.ones(1, np.float32), "F16"),
        (np.ones(1, np.int16), "BF16"),
        (torch.ones(1), "BF16"),
        (torch.ones(1, dtype=torch.complex128), None),
    ],
)
def test_what_cannot_be_stored_is_refused(data: Any, dtype: str | None) -> None:
    with pytest.raises(LessonkitError) as caught:
        bits_of(data, dtype)
    assert caught.value.remedy


# --- values -----------------------------------------------------------------------------------


@pytest.mark.parametrize("source", ["BF16", "F16", "F32"])
def test_to_float32_is_exact_and_torchs(source: str) -> None:
    bits = some_bits(source)
    theirs = tensor_of(bits, source).float().numpy()
    ours = to_float32(bits, source)
    assert ours.dtype == np.float32
    assert np.array_equal(ours, theirs, equal_nan=True)
    assert np.array_equal(np.signbit(ours), np.signbit(theirs))


def test_f64_is_not_made_smaller_and_codes_are_no_values() -> None:
    wide = np.array([1e300, 0.1])
    assert to_float32(wide, "F64") is wide
    for name in DTYPES:
        if name not in FLOATS:
            with pytest.raises(LessonkitError, match="floating-point"):
                to_float32(np.zeros(1, DTYPES[name].bits), name)


@pytest.mark.parametrize("target", FLOATS)
@pytest.mark.parametrize("source", FLOATS)
def test_cast_rounds_as_torch_does(source: str, target: str) -> None:
    bits = some_bits(source)
    if (source, target) == ("F64", "F16"):  # torch rounds twice here, through float32
        with np.errstate(over="ignore", invalid="ignore"):
            bits = bits.astype(np.float32).astype(np.float64)
    theirs = tensor_of(bits, source).to(TORCH[target])
    ours = cast(bits, source, target)
    assert ours.dtype == DTYPES[target].bits
    nan = theirs.isnan().numpy()
    assert np.array_equal(tensor_of(ours, target).isnan().numpy(), nan)
    whole = f"<u{DTYPES[target].block_bytes}"
    assert np.array_equal(ours.view(whole)[~nan], bits_of(theirs)[0].view(whole)[~nan])


def test_cast_by_hand() -> None:
    ones = np.array([0x3F808000, 0x3F818000, 0x7F7FFFFF, 0x80000000], np.uint32).view(np.float32)
    assert cast(ones, "F32", "BF16").tolist() == [0x3F80, 0x3F82, 0x7F80, 0x8000]
    assert cast(np.array([0x4780], np.uint16), "BF16", "F16").tolist() == [np.inf]  # 65536
    # 1 + 2^-8 + 2^-30 lies above a tie of bf16; as float32 it is that tie, and goes to 1.
    assert cast(np.array([1 + 2**-8 + 2**-30]), "F64", "BF16").tolist() == [0x3F80]
    # In the same place, F16 is rounded once: up.
    assert cast(np.array([1 + 2**-11 + 2**-40]), "F64", "F16").tolist() == [1 + 2**-10]


def test_cast_in_pieces_is_cast_at_once(monkeypatch: pytest.MonkeyPatch) -> None:
    table = np.random.default_rng(0).normal(size=(5, 9)).astype(np.float32)
    for array in (table, table.T, table[:, ::2], np.empty((0, 3), np.float32), np.float32(0.1)):
        values = np.asarray(array)
        whole = cast(values, "F32", "BF16")
        with monkeypatch.context() as patch:
            patch.setattr(dtypes, "_PIECE", 7)
            pieces = cast(values, "F32", "BF16")
        assert whole.shape == pieces.shape == values.shape
        assert np.array_equal(whole, pieces)
        theirs = torch.from_numpy(np.ascontiguousarray(values)).bfloat16().view(torch.uint16)
        assert whole.tolist() == theirs.reshape(values.shape).tolist()


@pytest.mark.parametrize("source", ["BF16", "F16"])
def test_many_half_floats_are_looked_up_and_come_out_as_few(source: str) -> None:
    bits = np.random.default_rng(0).permutation(np.tile(ALL_16_BITS, 3)).view(DTYPES[source].bits)
    few = np.split(bits.reshape(3, -1), 64, axis=1)  # below the size from which a table is used
    for target in FLOATS:
        looked_up = cast(bits.reshape(3, -1), source, target)
        whole = f"<u{DTYPES[target].block_bytes}"
        one_by_one = np.concatenate([cast(part, source, target) for part in few], axis=1)
        assert np.array_equal(looked_up.view(whole), one_by_one.view(whole))
    values = np.concatenate([to_float32(part, source) for part in few], axis=1)
    looked_up = to_float32(bits.reshape(3, -1), source)
    assert np.array_equal(looked_up.view(np.uint32), values.view(np.uint32))


def test_cast_to_the_same_or_to_codes() -> None:
    nan = np.array([0x7F81], np.uint16)  # a NaN whose bits rounding would change
    assert cast(nan, "BF16", "BF16") is nan
    with pytest.raises(LessonkitError, match="cannot be rounded to I8"):
        cast(np.ones(1, np.float32), "F32", "I8")
    with pytest.raises(LessonkitError, match="U8 does not hold"):
        cast(np.ones(1, np.uint8), "U8", "F32")
