"""The references of lesson 06 against the package's GPTQ, its packing and a written folder."""

from __future__ import annotations

import math
from pathlib import Path

import numpy as np
import pytest
import torch

from lessonkit.convert import Gptq, cut_calibration, to_gptq
from lessonkit.course.exercises import lesson_06
from lessonkit.course.exercises.attempts import Verdict, attempt
from lessonkit.files import open_checkpoint
from lessonkit.formats.packing import pack_words
from lessonkit.models import calibration_text, load
from lessonkit.quantize import IntGrid
from lessonkit.quantize.gptq import inverse_factor


def test_the_lesson_has_its_exercises() -> None:
    names = [exercise.name for exercise in lesson_06.EXERCISES]
    assert names == ["round_in_turn", "pack_by_hand", "gptq_bits"]


@pytest.mark.parametrize("exercise", lesson_06.EXERCISES, ids=lambda e: e.name)
def test_solutions_pass_and_each_mistake_fails_with_its_hint(
    exercise, capsys: pytest.CaptureFixture[str]
) -> None:
    assert attempt(exercise.name, exercise.reference) is Verdict.RIGHT
    capsys.readouterr()
    for mistake in exercise.mistakes:
        assert attempt(exercise.name, mistake.answer) is Verdict.WRONG
        assert mistake.hint in capsys.readouterr().out


def by_factor(row: np.ndarray, hessian: np.ndarray) -> tuple[np.ndarray, float]:
    """Rounded in turn with the triangular factor, as the package does; and the closest call."""
    columns = torch.arange(len(row))
    factor, _ = inverse_factor(torch.tensor(hessian, dtype=torch.float32), columns, 0.0)
    upper, row, margin = factor.double().numpy(), row.copy(), math.inf
    for i in range(len(row)):
        margin = min(margin, abs(abs(row[i] % 1) - 0.5))
        error = (row[i] - np.rint(row[i])) / upper[i, i]
        row[i] = np.rint(row[i])
        row[i + 1 :] -= error * upper[i, i + 1 :]
    return row, margin


def test_rounding_in_turn_is_what_the_package_does_with_its_factor() -> None:
    for row, hessian in lesson_06._rows():
        expected, margin = by_factor(row, hessian)
        assert margin > 0.005, "a case must not hang on the last bits"
        assert np.array_equal(lesson_06.round_in_turn(row, hessian), expected)


def test_rounding_in_turn_loses_less_than_rounding() -> None:
    for row, hessian in lesson_06._rows():
        ours, plain = lesson_06.round_in_turn(row, hessian) - row, np.rint(row) - row
        assert ours @ hessian @ ours < plain @ hessian @ plain


def test_words_are_those_of_the_package() -> None:
    for codes, bits in lesson_06._codes():
        if len(codes) * bits % 32 == 0 and (bits != 3 or len(codes) == 32):
            theirs = pack_words(torch.tensor(codes, dtype=torch.uint8), bits)
            unsigned = [word & 0xFFFFFFFF for word in theirs.tolist()]
            assert lesson_06.pack_by_hand(codes, bits) == unsigned


def test_the_word_worked_by_hand_in_the_lesson() -> None:
    assert lesson_06.pack_by_hand(list(range(8)), 4) == [0x76543210]


@pytest.mark.parametrize(("bits", "group_size"), [(4, 128), (3, 64)])
def test_a_written_folder_has_the_predicted_bits(
    mini: Path, tmp_path: Path, bits: int, group_size: int
) -> None:
    _, tokenizer = load("mini")
    calibration = cut_calibration(tokenizer, calibration_text(), num_samples=1, seqlen=64)
    to_gptq(mini, tmp_path / "out", calibration, Gptq(IntGrid(bits, group_size)))
    written = open_checkpoint(tmp_path / "out")
    before = open_checkpoint(mini)
    for part in ("self_attn.k_proj", "mlp.down_proj"):
        name = f"model.layers.0.{part}"
        rows, columns = before.info(f"{name}.weight").shape
        stored = sum(written.info(f"{name}.{piece}").nbytes
                     for piece in ("qweight", "qzeros", "scales", "g_idx"))  # fmt: skip
        predicted = lesson_06.gptq_bits(bits, group_size, rows)
        assert 8 * stored / (rows * columns) == pytest.approx(predicted)
