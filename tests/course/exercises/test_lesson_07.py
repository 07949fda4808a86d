"""The references of lesson 07 against the package's AWQ, which is compared with GPTQModel's."""

from __future__ import annotations

import pytest
import torch

from lessonkit.course.exercises import lesson_07
from lessonkit.course.exercises.attempts import Verdict, attempt
from lessonkit.formats.packing import AWQ_ORDER, unpack_awq
from lessonkit.quantize.awq import candidate_scales, fold_into_rows, tie_heads


def test_the_lesson_has_its_exercises() -> None:
    names = [exercise.name for exercise in lesson_07.EXERCISES]
    assert names == ["channel_scales", "codes_of_word", "value_row_scales"]


@pytest.mark.parametrize("exercise", lesson_07.EXERCISES, ids=lambda e: e.name)
def test_solutions_pass_and_each_mistake_fails_with_its_hint(
    exercise, capsys: pytest.CaptureFixture[str]
) -> None:
    assert attempt(exercise.name, exercise.reference) is Verdict.RIGHT
    capsys.readouterr()
    for mistake in exercise.mistakes:
        assert attempt(exercise.name, mistake.answer) is Verdict.WRONG
        assert mistake.hint in capsys.readouterr().out


def test_scales_are_those_of_the_package() -> None:
    for magnitudes, ratio in lesson_07._magnitudes():
        theirs = candidate_scales(torch.tensor(magnitudes), ratio)
        assert lesson_07.channel_scales(magnitudes, ratio) == pytest.approx(theirs.tolist())


def test_words_are_read_as_the_package_reads_them() -> None:
    assert lesson_07._ORDER == AWQ_ORDER
    for (word,) in lesson_07._words():
        signed = torch.tensor([[word]]).to(torch.int32)
        codes, _ = unpack_awq(signed, signed)
        assert lesson_07.codes_of_word(word) == codes.flatten().tolist()
    assert lesson_07.codes_of_word(0x75316420) == list(range(8))


def test_rows_of_v_proj_get_what_the_package_folds_into_them() -> None:
    for scales, heads, key_value_heads in lesson_07._heads():
        tied = tie_heads(torch.tensor(scales), heads, key_value_heads)
        ones = torch.ones(len(scales) * key_value_heads // heads, 1)
        folded = fold_into_rows(ones, tied, (heads, key_value_heads))
        ours = lesson_07.value_row_scales(scales, heads, key_value_heads)
        assert ours == pytest.approx((1 / folded).flatten().tolist())
