"""The writer: right bytes, bounded shards, and nothing that looks whole before it is."""

from __future__ import annotations

import os
import signal
import subprocess
import sys
from pathlib import Path

import numpy as np
import pytest
import torch
from safetensors.torch import load_file

from lessonkit.errors import LessonkitError
from lessonkit.files import atomic
from lessonkit.files import writer as writer_module
from lessonkit.files.checkpoint import open_checkpoint
from lessonkit.files.safetensors import TensorInfo
from lessonkit.files.writer import write_checkpoint


def tensors() -> dict[str, torch.Tensor]:
    kinds = [torch.bfloat16, torch.float16, torch.float32, torch.float8_e4m3fn, torch.int8]
    table = {f"t{i}": torch.arange(i * 7.0).reshape(i, 7).to(kinds[i % 5]) for i in range(1, 9)}
    return {**table, "scalar": torch.tensor(2.5), "transposed": torch.arange(6.0).reshape(2, 3).T}


def files(folder: Path) -> dict[str, bytes]:
    return {path.name: path.read_bytes() for path in folder.iterdir()}


@pytest.mark.parametrize("limit", [1, 100, 300, 10**9])
def test_the_library_reads_every_byte_back(tmp_path: Path, limit: int) -> None:
    table = tensors()
    with write_checkpoint(tmp_path / "out", max_shard_bytes=limit) as writer:
        for name, tensor in table.items():
            writer.add(name, tensor)
        writer.add_file("config.json", b"{}")
    checkpoint = open_checkpoint(tmp_path / "out")
    assert checkpoint.names() == list(table)
    for shard in checkpoint.weight_files:
        read = load_file(shard)
        total = sum(tensor.nbytes for tensor in read.values())
        assert len(read) == 1 or total <= limit
        for name, tensor in read.items():
            assert tensor.dtype == table[name].dtype
            assert np.array_equal(tensor.float(), table[name].float()), name
    plan = [checkpoint.info(name) for name in table]
    with write_checkpoint(tmp_path / "planned", max_shard_bytes=limit, plan=plan) as writer:
        for name in table:
            writer.add(name, checkpoint.array(name), checkpoint.info(name).dtype)
        writer.add_file("config.json", b"{}")
    assert files(tmp_path / "planned") == files(tmp_path / "out")
    assert sorted(path.name for path in tmp_path.iterdir()) == ["out", "planned"]


def test_no_tensors_at_all(tmp_path: Path) -> None:
    with write_checkpoint(tmp_path / "out") as writer:
        writer.add_file("tokenizer/config.json", b"{}")
    assert (tmp_path / "out" / "tokenizer" / "config.json").read_bytes() == b"{}"


def test_wrong_tensors_are_refused_and_leave_nothing(tmp_path: Path) -> None:
    def attempt(*adds: tuple[object, ...], **options: object) -> str:
        with (
            pytest.raises(LessonkitError) as caught,
            write_checkpoint(tmp_path / "out", **options) as writer,  # type: ignore[arg-type]
        ):
            for arguments in adds:
                writer.add(*arguments)  # type: ignore[arg-type]
        assert not list(tmp_path.iterdir())
        return caught.value.what

    one, plan = np.ones(2, np.float32), [TensorInfo("a", "F32", (2,)), TensorInfo("b", "F32", (2,))]
    assert "written already" in attempt(("a", one), ("a", one))
    assert "cannot be stored" in attempt(("a", one, "BF16"))
    assert "cannot be stored" in attempt(("a", np.array(["x"])))
    assert "not a number format" in attempt(("a", one, "F7"))
    assert "is F32, not F16" in attempt(("a", torch.ones(2), "F16"))
    assert "not what was planned" in attempt(("b", one), plan=plan)
    assert "not what was planned" in attempt(("a", np.ones(3, np.float32)), plan=plan)
    assert "not what was planned" in attempt(("a", one), ("b", one), ("c", one), plan=plan)
    assert "1 planned tensors were never written; the first is b" in attempt(("a", one), plan=plan)
    assert "holds nothing" in attempt(max_shard_bytes=0)
    assert "only" in attempt(plan=[TensorInfo("a", "F32", (1 << 50,))])


def test_what_the_writing_raises_ends_it(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    def full(file: object) -> None:
        raise OSError(28, "No space left on device")

    monkeypatch.setattr(writer_module, "_SYNC_BYTES", 1)
    monkeypatch.setattr(writer_module.os, "fsync", full)
    with pytest.raises(LessonkitError), write_checkpoint(tmp_path / "out") as writer:
        writer.add("a", np.ones(3, np.uint8))
    assert not list(tmp_path.iterdir())


KILLED = """
import signal, sys, time, numpy as np
signal.signal(signal.SIGINT, signal.default_int_handler)  # a background job begins without
from lessonkit.files.writer import write_checkpoint
with write_checkpoint(sys.argv[1], max_shard_bytes=4000) as writer:
    for number in range(100):
        writer.add(f"t{number}", np.ones(1000, np.uint8))
        if number == 10:
            print("writing", flush=True)
            time.sleep(60)
"""


@pytest.mark.parametrize("how", [signal.SIGKILL, signal.SIGINT])
def test_a_killed_run_leaves_nothing_that_looks_whole(tmp_path: Path, how: signal.Signals) -> None:
    out = tmp_path / "out"
    with subprocess.Popen(
        [sys.executable, "-c", KILLED, str(out)], stdout=subprocess.PIPE, stderr=subprocess.DEVNULL,
        env={**os.environ, "PYTHONPATH": str(Path(atomic.__file__).parents[2])},
    ) as run:  # fmt: skip
        assert run.stdout is not None and run.stdout.readline() == b"writing\n"
        # A second run, started meanwhile, is refused and does not touch the first one's work.
        with pytest.raises(LessonkitError, match="Another run"), write_checkpoint(out):
            raise AssertionError
        assert len(list(tmp_path.glob(".out.partial-*"))) == 1
        run.send_signal(how)
    assert not out.exists()
    assert len(list(tmp_path.glob(".out.partial-*"))) == (1 if how == signal.SIGKILL else 0)
    with write_checkpoint(out) as writer:
        writer.add("a", np.ones(3, np.uint8))
    assert [path.name for path in tmp_path.iterdir()] == ["out"]
