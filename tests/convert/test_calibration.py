"""Windows of a text: how many, how long, which ones, and what is refused."""

from __future__ import annotations

import pytest
import torch

from lessonkit.convert.calibration import cut_calibration
from lessonkit.errors import LessonkitError
from lessonkit.models import Split, Text


class Letters:
    """A tokenizer whose ids are code points; with a beginning token, or without one."""

    def __init__(self, bos: int | None = None) -> None:
        self.bos_token_id = bos

    def __call__(self, text: str, *, add_special_tokens: bool = True, verbose: bool = True):
        beginning = [] if self.bos_token_id is None or not add_special_tokens else [1]
        return {"input_ids": [*beginning, *map(ord, text)]}


TEXT = Text("letters", "en", Split.CALIBRATION, tuple("abcdefghijklmnopqrstuvwxyz"))
ALL = "\n\n".join(TEXT.rows)  # 76 tokens


def test_windows_are_parts_of_the_text_without_overlap() -> None:
    calibration = cut_calibration(Letters(), TEXT, num_samples=7, seqlen=10)
    assert calibration.ids.shape == (7, 10) and calibration.ids.dtype == torch.int64
    found = sorted("".join(map(chr, row)) for row in calibration.ids.tolist())
    assert found == sorted(ALL[start : start + 10] for start in range(0, 70, 10))
    assert str(calibration) == "7 x 10 tokens of letters/calibration/en"


def test_each_begins_with_the_beginning_token_where_texts_do() -> None:
    ids = cut_calibration(Letters(1), TEXT, num_samples=7, seqlen=10).ids
    assert ids[:, 0].tolist() == [1] * 7
    assert sorted("".join(map(chr, row)) for row in ids[:, 1:].tolist())[-1] in ALL


def test_the_seed_chooses() -> None:
    first, again, other = (
        cut_calibration(Letters(), TEXT, num_samples=3, seqlen=5, seed=seed) for seed in (0, 0, 1)
    )
    assert first.sha256 == again.sha256 != other.sha256
    assert len(first.sha256) == 64


def test_too_little_text_says_how_much_is_missing() -> None:
    with pytest.raises(LessonkitError) as caught:
        cut_calibration(Letters(1), TEXT, num_samples=10, seqlen=11)
    assert "The text has 76 tokens" in caught.value.what
    assert "10 windows of 11 take 100: 24 are missing" in caught.value.what
    assert "at most 7 of these" in str(caught.value.remedy)
    with pytest.raises(LessonkitError) as caught:
        cut_calibration(Letters(), TEXT, num_samples=10, seqlen=100)
    assert caught.value.remedy == "Take a longer text, or shorter windows."


def test_what_is_refused() -> None:
    spoilt = Text("letters", "en", Split.TEST, TEXT.rows)
    with pytest.raises(LessonkitError, match="spoil"):
        cut_calibration(Letters(), spoilt, num_samples=1, seqlen=5)
    asked = Text("letters", "en", Split.VALIDATION, TEXT.rows)
    assert cut_calibration(Letters(), asked, num_samples=1, seqlen=5).text.endswith("validation/en")
    for samples, seqlen in ((0, 5), (1, 1)):
        with pytest.raises(LessonkitError, match="say nothing"):
            cut_calibration(Letters(), TEXT, num_samples=samples, seqlen=seqlen)
