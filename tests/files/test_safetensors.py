"""The header reader accepts what the safetensors library accepts, and nothing damaged."""

from __future__ import annotations

import json
from pathlib import Path

import numpy as np
import pytest
import safetensors
import safetensors.numpy
from hypothesis import given, settings
from hypothesis import strategies as st

from lessonkit.errors import LessonkitError
from lessonkit.files.safetensors import TensorInfo, encode_header, read_header


def entry(begin: int, end: int, dtype: str = "U8", shape: list[int] | None = None) -> dict:
    return {"dtype": dtype, "shape": [end - begin] if shape is None else shape,
            "data_offsets": [begin, end]}  # fmt: skip


def write(path: Path, header: bytes | dict, data: bytes = b"", length: int | None = None) -> Path:
    raw = header if isinstance(header, bytes) else json.dumps(header).encode()
    path.write_bytes((len(raw) if length is None else length).to_bytes(8, "little") + raw + data)
    return path


def test_reads_what_the_library_writes(tmp_path: Path) -> None:
    tensors = {
        "b": np.arange(6, dtype=np.float32).reshape(2, 3),
        "a": np.ones(5, np.float16),
        "none": np.zeros((0, 4), np.int64),
        "scalar": np.array(True),
    }
    safetensors.numpy.save_file(tensors, tmp_path / "f", {"format": "np", "by": "us"})
    header = read_header(tmp_path / "f")
    assert header.metadata == {"format": "np", "by": "us"}
    assert {name: info.shape for name, info in header.tensors.items()} == {
        name: value.shape for name, value in tensors.items()
    }
    raw = (tmp_path / "f").read_bytes()
    for name, value in tensors.items():
        start = header.starts[name]
        assert raw[start : start + header.tensors[name].nbytes] == value.tobytes()


def test_the_library_reads_what_we_write(tmp_path: Path) -> None:
    infos = [
        TensorInfo("x", "F32", (2, 3)),
        TensorInfo("été", "U8", ()),
        TensorInfo("e", "I8", (0,)),
    ]
    head = encode_header(infos, {"format": "pt"})
    assert len(head) % 8 == 0
    (tmp_path / "f").write_bytes(head + bytes(25))
    with safetensors.safe_open(tmp_path / "f", "np") as file:
        assert sorted(file.keys()) == ["e", "x", "été"]
        assert file.metadata() == {"format": "pt"}
        assert file.get_tensor("x").shape == (2, 3)
    assert list(read_header(tmp_path / "f").tensors.values()) == infos


MALFORMED = {
    "has 3 bytes": b"abc",
    "claims 200,000,000 bytes": (200_000_000).to_bytes(8, "little") + bytes(50),
    "claims 99 bytes": (99).to_bytes(8, "little") + bytes(50),
    "not a JSON object": (2).to_bytes(8, "little") + b"[]",
}


@pytest.mark.parametrize("complaint", MALFORMED)
def test_files_that_are_no_safetensors(tmp_path: Path, complaint: str) -> None:
    (tmp_path / "f").write_bytes(MALFORMED[complaint])
    with pytest.raises(LessonkitError, match=complaint) as caught:
        read_header(tmp_path / "f")
    assert caught.value.where == str(tmp_path / "f")


@pytest.mark.parametrize(
    ("header", "data", "complaint"),
    [
        (b'{"a":', 0, "not valid JSON"),
        (b"{" * 50_000, 0, "not valid JSON"),
        (b'{"a":' + b'{"a":' * 50_000, 0, "not valid JSON"),
        (b'{"\xff":1}', 0, "not valid JSON"),
        (b'{"a":{},"a":{}}', 0, "'a' twice"),
        ({"__metadata__": {"a": 1}}, 0, "__metadata__"),
        ({"__metadata__": []}, 0, "__metadata__"),
        ({"a": 1}, 0, "must have dtype, shape"),
        ({"a": {**entry(0, 1), "more": 1}}, 1, "must have dtype, shape"),
        ({"a": entry(0, 1, dtype="F7")}, 1, "unknown dtype 'F7'"),
        ({"a": entry(0, 1, dtype=["U8"])}, 1, "unknown dtype"),
        ({"a": entry(0, 1, shape=[-1])}, 1, "impossible shape"),
        ({"a": entry(0, 1, shape=[True])}, 1, "impossible shape"),
        ({"a": entry(0, 1, shape=[1.0])}, 1, "impossible shape"),
        ({"a": entry(0, 1, shape=[1 << 70])}, 1, "impossible shape"),
        ({"a": {"dtype": "U8", "shape": [1], "data_offsets": [0]}}, 1, "impossible data_offsets"),
        ({"a": {"dtype": "U8", "shape": [1], "data_offsets": [2, 1]}}, 1, "impossible data_off"),
        ({"a": entry(0, 4, shape=[5])}, 4, "takes 5 bytes, its data_offsets span 4"),
        ({"a": entry(0, 4, shape=[1 << 40, 1 << 40])}, 4, "data_offsets span 4"),
        ({"a": entry(0, 4), "b": entry(3, 6)}, 6, "b overlaps the one before"),
        ({"a": entry(0, 4), "b": entry(5, 6)}, 6, "b follows a hole"),
        ({"a": entry(1, 4)}, 4, "a follows a hole"),
        ({"a": entry(0, 4)}, 3, "take 4 bytes, but the file holds 3"),
        ({"a": entry(0, 4)}, 5, "take 4 bytes, but the file holds 5"),
    ],
)
def test_malformed_headers(tmp_path: Path, header: bytes | dict, data: int, complaint: str) -> None:
    path = write(tmp_path / "f", header, bytes(data))
    with pytest.raises(LessonkitError, match=complaint):
        read_header(path)


@settings(max_examples=300, deadline=None)
@given(position=st.integers(0, 10_000), value=st.integers(0, 255), cut=st.integers(0, 40))
def test_damaged_files_are_refused_as_by_the_library(
    tmp_path_factory: pytest.TempPathFactory, position: int, value: int, cut: int
) -> None:
    """What we accept, the library accepts too, with the same shapes: we are never laxer."""
    head = encode_header([TensorInfo("a", "F32", (2, 1)), TensorInfo("b", "U8", (8,))], {})
    raw = bytearray(head + bytes(16))
    raw[position % len(raw)] = value
    path = tmp_path_factory.mktemp("fuzz") / "f"
    path.write_bytes(bytes(raw[: len(raw) - (cut if cut < 20 else 0)]))
    try:
        header = read_header(path)
    except LessonkitError:
        return
    with safetensors.safe_open(path, "np") as file:
        assert {k: tuple(file.get_slice(k).get_shape()) for k in file.keys()} == {  # noqa: SIM118
            name: info.shape for name, info in header.tensors.items()
        }
