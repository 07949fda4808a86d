"""The frame of every conversion: hashes, records, the certificate last, nothing half done."""

from __future__ import annotations

import hashlib
import json
import time
from pathlib import Path

import numpy as np
import pytest
import torch

from lessonkit.convert.conversion import to_checkpoint, to_folder
from lessonkit.errors import LessonkitError
from lessonkit.files.certificate import CERTIFICATE_NAME, Certificate, Record
from lessonkit.files.checkpoint import open_checkpoint


@pytest.fixture
def source(tmp_path: Path) -> Path:
    folder = tmp_path / "source"
    folder.mkdir()
    tensors = {name: torch.arange(100.0) + i for i, name in enumerate("abc")}
    torch.save(tensors, folder / "pytorch_model.bin")
    return folder


def test_tensors_are_hashed_written_and_recorded(source: Path, tmp_path: Path) -> None:
    checkpoint, certificate = open_checkpoint(source), Certificate("a test")
    plan = [checkpoint.info(name) for name in checkpoint.names()]
    with to_checkpoint(checkpoint, tmp_path / "out", certificate, "test", plan=plan) as passage:
        for name in checkpoint.names():
            with passage.tensor(name) as read:
                passage.writer.add(name, read.bits, read.dtype)
                passage.keep(name, read)
    assert set(certificate.verdicts) == {"bit-identical"}
    written = json.loads((tmp_path / "out" / CERTIFICATE_NAME).read_text())["tensors"]
    expected = hashlib.sha256((np.arange(100, dtype="<f4") + 1).tobytes()).hexdigest()
    assert written["b"]["sha256"] == expected and written["b"]["source"] == ["b"]


def test_records_keep_the_order_and_what_they_raise(source: Path, tmp_path: Path) -> None:
    def slow(name: str) -> dict[str, Record]:
        time.sleep(0.05)
        return {name: Record("slow", "F32", (1,), "")}

    checkpoint, certificate = open_checkpoint(source), Certificate("a test")
    with to_folder(checkpoint, tmp_path / "out", certificate, "test", needed=10) as passage:
        for name in "abc":
            with passage.tensor(name) as read:
                if name == "b":
                    passage.keep(name, read)
                else:
                    passage.record(slow, name)
    assert list(certificate.records) == ["a", "b", "c"]
    with (
        pytest.raises(ZeroDivisionError),
        to_folder(checkpoint, tmp_path / "two", certificate, "test", needed=10) as passage,
    ):
        passage.record(lambda: [1 // 0])
    assert not (tmp_path / "two").exists()


def test_an_altered_source_stops_it_and_leaves_nothing(source: Path, tmp_path: Path) -> None:
    checkpoint = open_checkpoint(source)
    weights = source / "pytorch_model.bin"
    raw = bytearray(weights.read_bytes())
    place = raw.index((np.arange(100, dtype="<f4") + 1).tobytes())
    raw[place + 8] ^= 1
    weights.write_bytes(raw)
    checkpoint = open_checkpoint(source)
    with (
        pytest.raises(LessonkitError, match="The tensor b is not as it was written"),
        to_checkpoint(checkpoint, tmp_path / "out", Certificate("a test"), "test") as passage,
    ):
        for name in checkpoint.names():
            with passage.tensor(name) as read:
                passage.writer.add(name, read.bits, read.dtype)
                passage.keep(name, read)
    assert [path.name for path in tmp_path.iterdir()] == ["source"]


def test_folders_get_the_certificate_last(source: Path, tmp_path: Path) -> None:
    checkpoint, certificate = open_checkpoint(source), Certificate("a test")
    with to_folder(
        checkpoint, tmp_path / "out", certificate, "test", needed=10, passes=2
    ) as passage:
        for _ in range(2):
            with passage.tensor("a") as read:
                (passage.folder / "a.raw").write_bytes(read.bits.tobytes())
        passage.keep("a", read)
        assert not (passage.folder / CERTIFICATE_NAME).exists()
    assert {path.name for path in (tmp_path / "out").iterdir()} == {"a.raw", CERTIFICATE_NAME}


def test_too_little_room_is_told_first(source: Path, tmp_path: Path) -> None:
    with (
        pytest.raises(LessonkitError, match="GB are free"),
        to_folder(open_checkpoint(source), tmp_path / "out", Certificate("x"), "x", needed=1 << 60),
    ):
        raise AssertionError


def test_a_source_that_changes_meanwhile_is_refused(source: Path, tmp_path: Path) -> None:
    checkpoint = open_checkpoint(source)
    with (
        pytest.raises(LessonkitError, match="changed while it was read"),
        to_checkpoint(checkpoint, tmp_path / "out", Certificate("a test"), "test", needed=1) as way,
    ):
        way.writer.add("a", np.zeros(3, "<f4"), "F32")
        (source / "pytorch_model.bin").write_bytes((source / "pytorch_model.bin").read_bytes())
    assert [path.name for path in tmp_path.iterdir()] == ["source"]
