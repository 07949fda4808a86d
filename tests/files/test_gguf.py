"""GGUF files: read as the gguf package writes them, written so that it reads them, or refused."""

from __future__ import annotations

import struct
from pathlib import Path

import gguf
import numpy as np
import pytest

from lessonkit.errors import LessonkitError
from lessonkit.files.dtypes import BLOCKS, storage
from lessonkit.files.gguf import (
    TYPES,
    aligned,
    encode_gguf_header,
    is_gguf,
    open_gguf,
    read_gguf_header,
)
from lessonkit.files.safetensors import TensorInfo

INFOS = [
    TensorInfo("a.weight", "F32", (3, 5)),
    TensorInfo("b.weight", "Q8_0", (2, 64)),
    TensorInfo("c.weight", "BF16", (7,)),
]
METADATA = {
    "general.architecture": "llama",
    "yes": True,
    "count": 7,
    "below": -3,
    "large": 1 << 40,
    "half": 0.5,
    "words": ["ein", "zwei", ""],
    "numbers": np.array([1, -2, 3], np.int32),
    "fractions": np.array([0.5, -2], np.float32),
}


def content(metadata: dict = METADATA, infos: list[TensorInfo] = INFOS) -> bytes:
    """A file whose tensors hold bytes that count up."""
    parts = [encode_gguf_header(metadata, infos)]
    for info in infos:
        raw = bytes(i % 251 for i in range(info.nbytes))
        parts.append(raw + bytes(aligned(len(raw)) - len(raw)))
    return b"".join(parts)


def write(path: Path, raw: bytes) -> Path:
    path.write_bytes(raw)
    return path


def test_the_types_are_those_of_the_gguf_package() -> None:
    newer = {"Q2_0"}  # in ggml, not yet in the package
    for kind, (values, nbytes) in gguf.GGML_QUANT_SIZES.items():
        assert TYPES[kind.value] == kind.name
        assert (storage(kind.name).values, storage(kind.name).block_bytes) == (values, nbytes)
    assert set(TYPES.values()) - {kind.name for kind in gguf.GGML_QUANT_SIZES} == newer
    assert set(BLOCKS) <= set(TYPES.values())


def test_what_we_write_the_gguf_package_reads(tmp_path: Path) -> None:
    reader = gguf.GGUFReader(write(tmp_path / "x.gguf", content()))
    for key, value in METADATA.items():
        assert np.array_equal(reader.fields[key].contents(), value)
    assert [t.name for t in reader.tensors] == [info.name for info in INFOS]
    ours = open_gguf(tmp_path / "x.gguf")
    for tensor in reader.tensors:
        assert tensor.tensor_type.name == ours.info(tensor.name).dtype
        assert tensor.shape.tolist() == list(reversed(ours.info(tensor.name).shape))
        ours_bytes = ours.array(tensor.name).tobytes()
        assert tensor.data.tobytes() == ours_bytes


def test_what_the_gguf_package_writes_we_read(tmp_path: Path) -> None:
    path = tmp_path / "x.gguf"
    writer = gguf.GGUFWriter(path, "llama")
    writer.add_uint8("small", 200)
    writer.add_float64("double", 0.1)
    writer.add_array("flags", [True, False])
    writer.add_custom_alignment(64)
    values = np.arange(12, dtype=np.float32).reshape(3, 4)
    writer.add_tensor("a", values)
    writer.add_tensor("b", values.astype(np.float16))
    writer.write_header_to_file()
    writer.write_kv_data_to_file()
    writer.write_tensors_to_file()
    writer.close()
    file = open_gguf(path)
    assert file.version == 3 and file.form == "gguf" and file.weight_files == [path]
    assert (file.metadata["small"], file.metadata["double"]) == (200, 0.1)
    assert file.metadata["flags"].tolist() == [True, False]
    assert np.array_equal(file.array("a"), values)
    assert np.array_equal(file.array("b"), values.astype(np.float16))
    assert file.place("b")[1] % 64 == 0 and not file.check("b")
    file.release("b")
    assert file.array("b")[2, 3] == 11
    assert not file.array("b").flags.writeable


def test_metadata_survives(tmp_path: Path) -> None:
    header = read_gguf_header(write(tmp_path / "x.gguf", content()))
    assert list(header.metadata) == list(METADATA)
    for key, value in METADATA.items():
        assert np.array_equal(header.metadata[key], value)
    assert header.tensors == {info.name: info for info in INFOS}
    assert header.end <= len(content())


@pytest.mark.parametrize("length", [0, 3, 23, 24, 60, 200, 400])
def test_a_file_that_is_cut_off_is_refused(tmp_path: Path, length: int) -> None:
    with pytest.raises(LessonkitError):
        open_gguf(write(tmp_path / "x.gguf", content()[:length]))


def test_every_shorter_file_is_refused_and_no_header_byte_crashes_the_reader(
    tmp_path: Path,
) -> None:
    raw = content({"general.architecture": "llama", "words": ["a"]}, INFOS[:2])
    path = tmp_path / "x.gguf"
    data = read_gguf_header(write(path, raw)).starts["a.weight"]
    for length in range(0, len(raw) - 32, 7):
        with pytest.raises(LessonkitError):
            read_gguf_header(write(path, raw[:length]))
    for at in range(data):
        damaged = bytearray(raw)
        damaged[at] ^= 0xFF if at % 2 else 0x01
        try:
            read_gguf_header(write(path, bytes(damaged)))
        except LessonkitError as error:
            assert error.where == str(path)


def with_bytes(raw: bytes, old: bytes, new: bytes) -> bytes:
    assert raw.count(old) == 1
    return raw.replace(old, new)


def entry(info: TensorInfo) -> bytes:
    """How a tensor's name stands in the table."""
    return struct.pack("<Q", len(info.name)) + info.name.encode()


BAD = {
    "does not begin": lambda raw: b"GGUX" + raw[4:],
    "version 1": lambda raw: raw[:4] + struct.pack("<I", 1) + raw[8:],
    "big-endian": lambda raw: raw[:4] + struct.pack(">I", 3) + raw[8:],
    "tensors: 1,099": lambda raw: raw[:8] + struct.pack("<Q", 1 << 40) + raw[16:],
    "keys: 1,099": lambda raw: raw[:16] + struct.pack("<Q", 1 << 40) + raw[24:],
    "'yes' stands there twice": lambda raw: raw.replace(b"half", b"yes_").replace(
        struct.pack("<Q", 4) + b"yes_" + struct.pack("<If", 6, 0.5),
        struct.pack("<Q", 3) + b"yes" + struct.pack("<If", 6, 0.5),
    ),
    "table twice": lambda raw: raw.replace(b"c.weight", b"a.weight"),
    "begins at": lambda raw: with_bytes(
        raw, struct.pack("<IQQIQ", 2, 64, 2, 8, 64), struct.pack("<IQQIQ", 2, 64, 2, 8, 96)
    ),
    "type number 99": lambda raw: with_bytes(
        raw, struct.pack("<IQQI", 2, 64, 2, 8), struct.pack("<IQQI", 2, 64, 2, 99)
    ),
    "no whole number": lambda raw: with_bytes(
        raw, struct.pack("<IQQI", 2, 64, 2, 8), struct.pack("<IQQI", 2, 63, 2, 8)
    ),
    "ends at byte": lambda raw: with_bytes(
        raw, struct.pack("<IQI", 1, 7, 30), struct.pack("<IQI", 1, 1 << 30, 30)
    ),
    "impossible shape": lambda raw: with_bytes(
        raw, struct.pack("<IQQI", 2, 64, 2, 8), struct.pack("<IQQI", 2, 1 << 62, 1 << 62, 8)
    ),
    "5 dimensions": lambda raw: with_bytes(
        raw, struct.pack("<IQI", 1, 7, 30), struct.pack("<IQI", 5, 7, 30)
    ),
    "unknown type 13": lambda raw: with_bytes(
        raw, b"yes" + struct.pack("<I", 7), b"yes" + struct.pack("<I", 13)
    ),
}


@pytest.mark.parametrize("problem", BAD)
def test_a_header_that_does_not_fit_is_refused_by_name(tmp_path: Path, problem: str) -> None:
    with pytest.raises(LessonkitError, match=problem):
        open_gguf(write(tmp_path / "x.gguf", BAD[problem](content())))


def test_an_alignment_must_be_a_power_of_two(tmp_path: Path) -> None:
    raw = content({"general.alignment": 24})
    with pytest.raises(LessonkitError, match="not a power of two"):
        open_gguf(write(tmp_path / "x.gguf", raw))


def test_names_too_long_for_ggml_are_not_written() -> None:
    with pytest.raises(LessonkitError, match="no room"):
        encode_gguf_header({}, [TensorInfo("x" * 64, "F32", (1,))])


def parts(folder: Path, count: int = 3) -> list[Path]:
    """A model in as many files as tensors."""
    paths = []
    for number, info in enumerate(INFOS):
        said = {"split.no": number, "split.count": count, "split.tensors.count": len(INFOS)}
        first = {"general.architecture": "llama"} if number == 0 else {}
        path = folder / f"m-{number + 1:05}-of-00003.gguf"
        paths.append(write(path, content({**first, **said}, [info])))
    return paths


def test_parts_open_as_one_whichever_is_named(tmp_path: Path) -> None:
    paths = parts(tmp_path)
    for path in paths:
        file = open_gguf(path)
        assert file.names() == [info.name for info in INFOS]
        assert file.weight_files == paths
        assert file.metadata["general.architecture"] == "llama"
        assert file.array("c.weight").tobytes() == bytes(range(14))


def test_a_missing_part_a_wrong_number_and_a_wrong_name_are_refused(tmp_path: Path) -> None:
    paths = parts(tmp_path)
    moved = paths[1].rename(tmp_path / "elsewhere.gguf")
    with pytest.raises(LessonkitError, match="00002-of-00003.gguf is missing"):
        open_gguf(paths[0])
    with pytest.raises(LessonkitError, match="does not say which"):
        open_gguf(moved)
    write(paths[1], paths[2].read_bytes())
    with pytest.raises(LessonkitError, match="number 2 of 3"):
        open_gguf(paths[0])


def test_a_gguf_file_is_told_by_its_first_bytes(tmp_path: Path) -> None:
    assert is_gguf(write(tmp_path / "any.bin", content()))
    assert not is_gguf(write(tmp_path / "x.gguf", b"GGU"))
    assert not is_gguf(tmp_path)


def test_an_unknown_tensor_is_named(tmp_path: Path) -> None:
    with pytest.raises(LessonkitError, match="no tensor zzz"):
        open_gguf(write(tmp_path / "x.gguf", content())).info("zzz")


def test_a_missing_file_is_told(tmp_path: Path) -> None:
    with pytest.raises(LessonkitError, match="cannot be read"):
        open_gguf(tmp_path / "none.gguf")
