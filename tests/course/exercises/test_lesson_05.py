"""The references of lesson 05 against the encoders, a written file and llama.cpp's rules."""

from __future__ import annotations

from pathlib import Path

import numpy as np
import pytest

from lessonkit.convert import to_gguf
from lessonkit.course.exercises import lesson_05
from lessonkit.course.exercises.attempts import Verdict, attempt
from lessonkit.files import open_gguf
from lessonkit.files.gguf import encode_gguf_header
from lessonkit.formats import block_format


def test_the_lesson_has_its_exercises() -> None:
    names = [exercise.name for exercise in lesson_05.EXERCISES]
    assert names == ["decode_q4_0", "gguf_size", "kept_better"]


@pytest.mark.parametrize("exercise", lesson_05.EXERCISES, ids=lambda e: e.name)
def test_solutions_pass_and_each_mistake_fails_with_its_hint(
    exercise, capsys: pytest.CaptureFixture[str]
) -> None:
    assert attempt(exercise.name, exercise.reference) is Verdict.RIGHT
    capsys.readouterr()
    for mistake in exercise.mistakes:
        assert attempt(exercise.name, mistake.answer) is Verdict.WRONG
        assert mistake.hint in capsys.readouterr().out


def test_blocks_decode_as_the_library_decodes_them() -> None:
    gguf = pytest.importorskip("gguf")
    for (raw,) in lesson_05._blocks():
        ours = np.array(lesson_05.decode_q4_0(raw), np.float32)
        data = np.frombuffer(raw, np.uint8)[None]
        assert np.array_equal(ours, block_format("Q4_0").decode(data)[0])
        theirs = gguf.quants.dequantize(data, gguf.GGMLQuantizationType.Q4_0)
        assert np.array_equal(ours, theirs[0])


def test_the_block_worked_by_hand_in_the_lesson() -> None:
    raw = np.float16(-0.1).tobytes() + bytes.fromhex("808f85") + 13 * b"\x88"
    values = lesson_05.decode_q4_0(raw)
    assert values[:4] == pytest.approx([0.8, -0.7, 0.3, 0.0], abs=1e-3)
    assert not any(values[3:])


@pytest.mark.parametrize("outtype", ["f16", "q4_0", "q4_k_m"])
def test_a_written_file_has_the_predicted_size(mini: Path, tmp_path: Path, outtype: str) -> None:
    path = tmp_path / "model.gguf"
    to_gguf(mini, path, outtype=outtype)
    found = open_gguf(path)
    infos = [found.info(name) for name in found.names()]
    header = len(encode_gguf_header(found.metadata, infos))
    tensors = [(info.count // info.shape[-1], info.shape[-1], info.dtype) for info in infos]
    assert lesson_05.gguf_size(header, tensors) == path.stat().st_size


def test_what_q4_k_m_keeps_better_in_mini(mini: Path, tmp_path: Path) -> None:
    path = tmp_path / "model.gguf"
    to_gguf(mini, path, outtype="q4_k_m")
    found = open_gguf(path)
    infos = [found.info(name) for name in found.names()]
    tensors = {i.name: (i.dtype, i.count // i.shape[-1], i.shape[-1]) for i in infos}
    assert lesson_05.kept_better(tensors) == {
        "output.weight",
        *(f"blk.{layer}.{part}.weight" for layer in (2, 4) for part in ("attn_v", "ffn_down")),
    }
