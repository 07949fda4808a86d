"""PyTorch files: read as torch reads them, written so that torch reads them, never executed."""

from __future__ import annotations

import collections
import os
import pickle
import zipfile
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import torch
from hypothesis import given, settings
from hypothesis import strategies as st

from lessonkit.errors import LessonkitError
from lessonkit.files.checkpoint import open_checkpoint
from lessonkit.files.dtypes import DTYPES, bits_of
from lessonkit.files.torch_file import read_torch_header, write_torch_file
from lessonkit.files.torch_pickle import STORAGE_DTYPES, StoredTensor, write_tensors


def same(ours: torch.Tensor, theirs: torch.Tensor) -> bool:
    return ours.dtype == theirs.dtype and ours.shape == theirs.shape and torch.equal(ours, theirs)


@pytest.fixture
def table() -> dict[str, torch.Tensor]:
    generator = torch.Generator().manual_seed(0)
    base = torch.randn(6, 8, generator=generator)
    return {
        "bf16": base.bfloat16(),
        "f16": base.half(),
        "f32": base,
        "f64": base.double(),
        "transposed": base.T,
        "window": base[1:4, 2:5],
        "shared": base[2],
        "ints": torch.arange(5),
        "bool": torch.tensor([True, False]),
        "scalar": torch.tensor(3.5),
        "empty": torch.zeros(0, 3),
        "parameter": torch.nn.Parameter(torch.ones(2)),
    }


@pytest.mark.parametrize("protocol", [2, 3])  # torch's own safe reader knows no other
@pytest.mark.parametrize("kind", [dict, collections.OrderedDict])
def test_reads_what_torch_saves(
    tmp_path: Path, table: dict[str, torch.Tensor], protocol: int, kind: type
) -> None:
    torch.save(kind(table), tmp_path / "w.pth", pickle_protocol=protocol)
    theirs = torch.load(tmp_path / "w.pth", weights_only=True, mmap=True)
    ours = open_checkpoint(tmp_path / "w.pth")
    assert ours.names() == list(theirs)
    for name, tensor in theirs.items():
        assert same(ours.tensor(name), tensor), name
        assert np.array_equal(ours.array(name), bits_of(tensor)[0]), name
        assert not ours.array(name).flags.writeable
        ours.release(name)
        assert same(ours.tensor(name), tensor), name


def test_reads_a_state_dict_with_its_metadata(tmp_path: Path) -> None:
    state = torch.nn.Linear(3, 2).state_dict()
    torch.save(state, tmp_path / "pytorch_model.bin")
    ours = open_checkpoint(tmp_path)
    assert ours.form == "pytorch"
    assert all(same(ours.tensor(name), tensor) for name, tensor in state.items())


def test_writing_to_a_tensor_does_not_reach_the_file(tmp_path: Path) -> None:
    torch.save({"a": torch.ones(3)}, tmp_path / "w.pth")
    before = (tmp_path / "w.pth").read_bytes()
    open_checkpoint(tmp_path / "w.pth").tensor("a").zero_()
    assert (tmp_path / "w.pth").read_bytes() == before


def test_torch_reads_what_we_write(tmp_path: Path) -> None:
    tensors = [
        (name, name, np.arange(24).reshape(2, 3, 4).astype(DTYPES[name].bits))
        for name in STORAGE_DTYPES.values()
    ]
    tensors.append(("empty", "F32", np.empty((0, 2), "<f4")))
    for path in (tmp_path / "a.pth", tmp_path / "b.pth"):
        with path.open("wb") as file:
            write_torch_file(file, iter(tensors))
    assert (tmp_path / "a.pth").read_bytes() == (tmp_path / "b.pth").read_bytes()
    for mmap in (True, False):
        theirs = torch.load(tmp_path / "a.pth", weights_only=True, mmap=mmap)
        assert list(theirs) == [name for name, _, _ in tensors]
        for name, dtype, bits in tensors:
            read, read_dtype = bits_of(theirs[name])
            assert read_dtype == dtype
            assert np.array_equal(read, bits) and read.shape == bits.shape
    header = read_torch_header(tmp_path / "a.pth")
    assert all(start % 64 == 0 for start in header.starts.values())


class _Runs:
    """A pickle of this calls a function: the classic attack."""

    def __reduce__(self) -> tuple[Any, ...]:
        return (os.mkdir, ("owned",))


@pytest.mark.parametrize(
    "content",
    [
        {"a": _Runs()},
        _Runs(),
        {"a": torch.ones(1), "step": 3},
        {"model": {"a": torch.ones(1)}},
        [torch.ones(1)],
        {1: torch.ones(1)},
        {"a": torch.sparse_coo_tensor([[0]], [1.0], (2,), check_invariants=True)},
        {"a": torch.float32},
    ],
)
def test_anything_but_a_table_of_tensors_is_refused(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, content: Any
) -> None:
    monkeypatch.chdir(tmp_path)
    torch.save(content, "w.pth")
    with pytest.raises(LessonkitError):
        read_torch_header("w.pth")
    assert not Path("owned").exists()


def pth(path: Path, program: bytes, records: dict[str, bytes] | None = None) -> Path:
    with zipfile.ZipFile(path, "w") as archive:
        archive.writestr("archive/data.pkl", program)
        for name, data in (records or {}).items():
            archive.writestr(name, data)
    return path


@pytest.mark.parametrize(
    ("stored", "size", "complaint"),
    [
        (StoredTensor("F32", "0", 4, 0, (5,), (1,)), 16, "in a storage of 4"),
        (StoredTensor("F32", "0", 4, 1, (4,), (1,)), 16, "reaches value 4"),
        (StoredTensor("F32", "0", 4, 0, (2, 2), (3, 1)), 16, "reaches value 4"),
        (StoredTensor("F32", "0", 4, 0, (1 << 40,), (0,)), 16, "in a storage of 4"),
        (StoredTensor("F32", "0", 4, 0, (4,), (1,)), 15, "has 15 bytes, not 16"),
        (StoredTensor("F32", "1", 4, 0, (4,), (1,)), 16, "lacks the record archive/data/1"),
    ],
)
def test_tensors_that_reach_too_far(
    tmp_path: Path, stored: StoredTensor, size: int, complaint: str
) -> None:
    program = write_tensors([("a", stored)])
    path = pth(tmp_path / "w.pth", program, {"archive/data/0": bytes(size)})
    with pytest.raises(LessonkitError, match=complaint):
        read_torch_header(path)


def test_other_archives_and_files(tmp_path: Path) -> None:
    def complaint(path: Path) -> str:
        with pytest.raises(LessonkitError) as caught:
            read_torch_header(path)
        assert caught.value.remedy
        return caught.value.what

    torch.save({"a": torch.ones(1)}, tmp_path / "old", _use_new_zipfile_serialization=False)
    assert "legacy" in complaint(tmp_path / "old")
    (tmp_path / "pickle").write_bytes(pickle.dumps({"a": 1}))
    assert "bare pickle" in complaint(tmp_path / "pickle")
    (tmp_path / "text").write_text("<html>")
    assert "web page" in complaint(tmp_path / "text")
    (tmp_path / "words").write_text("words")
    assert "no PyTorch file" in complaint(tmp_path / "words")
    (tmp_path / "gguf").write_bytes(b"GGUF" + bytes(20))
    assert "This is a GGUF file" in complaint(tmp_path / "gguf")
    (tmp_path / "pointer").write_text("version https://git-lfs.github.com/spec/v1\n")
    assert "git-lfs pointer" in complaint(tmp_path / "pointer")
    with zipfile.ZipFile(tmp_path / "zip", "w") as archive:
        archive.writestr("a", b"b")
    assert "no data.pkl" in complaint(tmp_path / "zip")
    with zipfile.ZipFile(tmp_path / "packed", "w", zipfile.ZIP_DEFLATED) as archive:
        archive.writestr("archive/data.pkl", b"}." * 50)
    assert "compressed" in complaint(tmp_path / "packed")
    with zipfile.ZipFile(tmp_path / "twice", "w") as archive, pytest.warns(UserWarning):
        archive.writestr("archive/data.pkl", b"}.")
        archive.writestr("archive/data.pkl", b"}.")
    assert "twice" in complaint(tmp_path / "twice")
    pth(tmp_path / "script", b"}.", {"archive/constants.pkl": b")."})
    assert "TorchScript" in complaint(tmp_path / "script")
    pth(tmp_path / "big", b"}.", {"archive/byteorder": b"big"})
    assert "big-endian" in complaint(tmp_path / "big")


def test_a_part_that_claims_to_be_longer_than_the_file(tmp_path: Path) -> None:
    """zipfile's own error for it is an EOFError, without a word."""
    path = tmp_path / "w.pth"
    with path.open("wb") as file:
        write_torch_file(file, [("a", "U8", np.ones(5, "u1"))])
    raw = bytearray(path.read_bytes())
    entry = raw.rindex(b"archive/data.pkl") - 46  # its entry in the directory at the end
    raw[entry + 20 : entry + 28] = (1 << 20).to_bytes(4, "little") * 2  # both its sizes
    path.write_bytes(raw)
    with pytest.raises(LessonkitError, match="damaged or cut off"):
        read_torch_header(path)


@settings(max_examples=250, deadline=None)
@given(data=st.data())
def test_damaged_files_never_crash_and_never_read_beyond(
    tmp_path_factory: pytest.TempPathFactory, data: st.DataObject
) -> None:
    folder = tmp_path_factory.mktemp("fuzz")
    with (folder / "w.pth").open("wb") as file:
        write_torch_file(
            file, [("a", "F32", np.ones((2, 3), "<f4")), ("b", "U8", np.ones(5, "u1"))]
        )
    raw = bytearray((folder / "w.pth").read_bytes())
    for _ in range(data.draw(st.integers(1, 3))):
        raw[data.draw(st.integers(0, len(raw) - 1))] = data.draw(st.integers(0, 255))
    length = data.draw(st.sampled_from([len(raw), data.draw(st.integers(0, len(raw)))]))
    (folder / "w.pth").write_bytes(bytes(raw[:length]))
    try:
        checkpoint = open_checkpoint(folder / "w.pth")
    except LessonkitError:
        return
    for name in checkpoint:
        assert checkpoint.array(name).tobytes() is not None
