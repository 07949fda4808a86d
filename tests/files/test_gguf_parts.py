"""A model cut into parts: sizes, names, what each part says; the gguf package reads them."""

from __future__ import annotations

from pathlib import Path

import gguf
import numpy as np
import pytest

from lessonkit.errors import LessonkitError
from lessonkit.files.gguf import aligned, encode_gguf_header, open_gguf
from lessonkit.files.gguf_parts import MOST_PARTS, cut, part_paths
from lessonkit.files.safetensors import TensorInfo

METADATA = {"general.architecture": "llama", "words": ["a", "b"]}
TENSORS = [TensorInfo(f"t{i}", "F32", (rows, 100)) for i, rows in enumerate((3, 5, 2, 9, 1))]


def write(path: Path, metadata: dict, tensors: list[TensorInfo]) -> None:
    with path.open("wb") as file:
        file.write(encode_gguf_header(metadata, tensors))
        for info in tensors:
            values = np.full(info.shape, int(info.name[1:]), np.float32).tobytes()
            file.write(values + bytes(aligned(len(values)) - len(values)))


@pytest.mark.parametrize("most", [2600, 3300, 4500, 8100])
def test_parts_keep_the_order_and_the_size(most: int, tmp_path: Path) -> None:
    parts = cut(METADATA, TENSORS, most)
    assert len(parts) > 1
    assert [info for part in parts for info in part.tensors] == TENSORS
    paths = part_paths(tmp_path / "x.gguf", len(parts))
    for part, path in zip(parts, paths, strict=True):
        write(path, part.metadata, part.tensors)
        assert path.stat().st_size == part.nbytes
        assert part.nbytes <= most or len(part.tensors) == 1
    opened = open_gguf(paths[-1])
    assert opened.names() == [info.name for info in TENSORS]
    assert opened.metadata["words"] == ["a", "b"]
    for info in TENSORS:
        assert (opened.array(info.name) == int(info.name[1:])).all()


def test_the_keys_have_llama_cpp_s_types(tmp_path: Path) -> None:
    """u16, u16 and i32: llama.cpp refuses others. Read with the gguf package."""
    parts = cut(METADATA, TENSORS, 4500)
    for number, part in enumerate(parts):
        write(tmp_path / "part.gguf", part.metadata, part.tensors)
        fields = gguf.GGUFReader(tmp_path / "part.gguf").fields
        u16, i32 = gguf.GGUFValueType.UINT16, gguf.GGUFValueType.INT32
        for key, kind, value in (
            (gguf.Keys.Split.LLM_KV_SPLIT_NO, u16, number),
            (gguf.Keys.Split.LLM_KV_SPLIT_COUNT, u16, len(parts)),
            (gguf.Keys.Split.LLM_KV_SPLIT_TENSORS_COUNT, i32, len(TENSORS)),
        ):
            assert (fields[key].types, fields[key].contents()) == ([kind], value)
        assert ("words" in fields) == (number == 0)


def test_what_fits_stays_whole() -> None:
    (whole,) = cut(METADATA, TENSORS, 10**6)
    assert (whole.metadata, whole.tensors) == (METADATA, TENSORS)
    assert cut(METADATA, TENSORS) == [whole]
    assert part_paths(Path("a/x.gguf"), 1) == [Path("a/x.gguf")]


def test_names_are_llama_cpp_s() -> None:
    names = [str(path) for path in part_paths(Path("a/x.gguf"), 12)]
    assert names[0] == str(Path("a/x-00001-of-00012.gguf"))
    assert names[11] == str(Path("a/x-00012-of-00012.gguf"))


def test_too_many_parts_and_no_room_are_refused() -> None:
    many = [TensorInfo(f"t{i}", "F32", (1,)) for i in range(MOST_PARTS + 1)]
    with pytest.raises(LessonkitError, match="are possible"):
        cut(METADATA, many, 100)
    with pytest.raises(LessonkitError, match="hold nothing"):
        cut(METADATA, TENSORS, 0)
