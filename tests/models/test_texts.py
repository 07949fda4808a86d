"""Texts have rows and a split; splits never mix."""

from __future__ import annotations

import sys
from pathlib import Path
from types import SimpleNamespace

import pytest

from lessonkit.errors import LessonkitError
from lessonkit.models import embedded, texts
from lessonkit.models.texts import (
    Split,
    Text,
    calibration_text,
    evaluation_text,
    rows_of,
    text_for,
)
from lessonkit.models.tokenizer import load_tokenizer
from tests.tiny import make_data


@pytest.fixture(scope="module")
def root(tmp_path_factory) -> Path:
    folder = tmp_path_factory.mktemp("root")
    make_data(folder / "data")
    return folder


@pytest.fixture(autouse=True)
def pretended_data(root, monkeypatch):
    monkeypatch.setattr(embedded, "_PACKAGE", root / "lessonkit")
    monkeypatch.delenv("LESSONKIT_WIKITEXT", raising=False)


def error_of(call) -> LessonkitError:
    with pytest.raises(LessonkitError) as caught:
        call()
    assert caught.value.remedy
    return caught.value


# --- rows --------------------------------------------------------------------------------------


@pytest.mark.parametrize(
    ("content", "rows"),
    [
        ("", ()),
        ("a", ("a",)),
        ("a\n", ("a\n",)),
        (" \n = T = \n \n text \n", ("", " = T = \n", "", " text \n")),
        ("\n\na\n\t\nb", ("", "", "a\n", "", "b")),
        ("one\u2028row \x85 \x0c still\r\n", ("one\u2028row \x85 \x0c still\r\n",)),
    ],
)
def test_rows_are_lines_with_their_ends_and_blank_ones_are_empty(content, rows):
    assert rows_of(content) == rows


def test_the_join_is_exact():
    text = Text("x", "en", Split.TEST, rows_of(" \n = T = \n \n a \n b \n"))
    assert text.joined() == "\n\n = T = \n\n\n\n\n a \n\n\n b \n"


def test_wikitext_joined_has_the_published_number_of_tokens(monkeypatch, real_files):
    monkeypatch.setenv("LESSONKIT_WIKITEXT", str(real_files / "wikitext-2-raw"))
    text = evaluation_text("wikitext")
    assert len(text.rows) == 4358
    tokenizer = load_tokenizer(real_files / "tinyllama")
    assert len(tokenizer(text.joined(), verbose=False).input_ids) == 341_469


# --- the island --------------------------------------------------------------------------------


@pytest.mark.parametrize("language", ["en", "zh"])
@pytest.mark.parametrize("split", ["test", Split.VALIDATION])
def test_the_islands_texts_are_the_files_themselves(root, language, split):
    text = evaluation_text("island", split, language)
    file = root / "data" / "texts" / language / f"{text.split}.txt"
    content = file.read_text(encoding="utf-8")
    assert text.joined() == content.removesuffix("\n")
    assert len(text.rows) == content.count(" = Place ")
    assert (text.name, text.language, text.split) == ("island", language, Split(split))
    assert repr(text) == f"Text(island/{text.split}/{language}, {len(text.rows)} rows)"


def test_the_defaults():
    assert evaluation_text() == evaluation_text("island", Split.TEST, "en")
    assert calibration_text().split is Split.CALIBRATION
    assert calibration_text().rows != evaluation_text().rows


def test_an_altered_text_is_refused(root):
    file = root / "data" / "texts/en/test.txt"
    before = file.read_bytes()
    embedded._verified.cache_clear()
    file.write_bytes(before + b" ")
    try:
        assert "SHA-256" in error_of(evaluation_text).what
    finally:
        file.write_bytes(before)


def test_the_text_for_a_model(monkeypatch):
    monkeypatch.delenv("LESSONKIT_MODEL", raising=False)
    assert text_for("mini") == "island" and text_for("some/model") == "wikitext"
    monkeypatch.setenv("LESSONKIT_MODEL", "some/model")
    assert text_for("mini") == "wikitext"


def test_unknown_language_split_and_name():
    assert "'fr'" in error_of(lambda: evaluation_text(language="fr")).what
    assert "'dev'" in error_of(lambda: evaluation_text(split="dev")).what
    assert "'iceland'" in error_of(lambda: evaluation_text("iceland")).what


# --- splits never mix --------------------------------------------------------------------------


@pytest.mark.parametrize("name", ["island", "wikitext"])
@pytest.mark.parametrize("split", ["test", "validation"])
def test_calibrating_on_what_is_measured_is_refused_with_the_reason(name, split):
    error = error_of(lambda: calibration_text(name, split=split))
    assert "spoil the perplexity" in error.what
    assert "calibration" in str(error.remedy)


@pytest.mark.parametrize("name", ["island", "wikitext"])
@pytest.mark.parametrize("split", ["train", "calibration"])
def test_measuring_on_what_was_calibrated_on_is_refused(name, split):
    error = error_of(lambda: evaluation_text(name, split))
    assert "weights were chosen" in error.what and "test" in str(error.remedy)


def test_the_islands_training_text_is_elsewhere():
    assert "script" in error_of(lambda: calibration_text(split="train")).what


# --- wikitext ----------------------------------------------------------------------------------


@pytest.fixture
def wikitext_folder(tmp_path, monkeypatch) -> Path:
    for part in ("train", "valid", "test"):
        (tmp_path / f"wiki.{part}.raw").write_text(f" \n = {part} = \n")
    monkeypatch.setenv("LESSONKIT_WIKITEXT", str(tmp_path))
    return tmp_path


def test_wikitext_from_a_folder(wikitext_folder):
    assert evaluation_text("wikitext").rows == ("", " = test = \n")
    assert evaluation_text("wikitext", "validation").rows == ("", " = valid = \n")
    calibration = calibration_text("wikitext")
    assert calibration.split is Split.TRAIN and calibration.rows == ("", " = train = \n")
    (wikitext_folder / "wiki.test.raw").unlink()
    assert "wiki.test.raw" in error_of(lambda: evaluation_text("wikitext")).what


def test_wikitext_is_english_and_has_three_splits(wikitext_folder):
    assert "English" in error_of(lambda: evaluation_text("wikitext", language="zh")).what
    error = error_of(lambda: calibration_text("wikitext", split="calibration"))
    assert "train, validation and test" in error.what


def test_wikitext_from_the_hub_through_datasets(monkeypatch):
    asked = []

    def load_dataset(*arguments, **options):
        asked.append((arguments, options))
        return {"text": ["", " = T = \n"]}

    monkeypatch.setitem(
        sys.modules,
        "datasets",
        SimpleNamespace(
            load_dataset=load_dataset,
            are_progress_bars_disabled=lambda: True,
            disable_progress_bars=lambda: None,
        ),
    )
    assert evaluation_text("wikitext").rows == ("", " = T = \n")
    assert asked == [(("Salesforce/wikitext", "wikitext-2-raw-v1"), {"split": "test"})]


def test_no_network_and_no_datasets_are_told_with_remedies(monkeypatch):
    pytest.importorskip("datasets")
    import datasets

    def unreachable(*arguments, **options):
        raise ConnectionError("no route to host")

    monkeypatch.setattr(datasets, "load_dataset", unreachable)
    error = error_of(lambda: evaluation_text("wikitext"))
    assert "HF_ENDPOINT" in str(error.remedy) and "LESSONKIT_WIKITEXT" in str(error.remedy)
    monkeypatch.setitem(sys.modules, "datasets", None)
    assert "pip install datasets" in str(error_of(lambda: evaluation_text("wikitext")).remedy)


# --- files -------------------------------------------------------------------------------------


def test_any_text_file(tmp_path):
    file = tmp_path / "novel.txt"
    file.write_text("Erste Zeile\n\nzweite\n", encoding="utf-8")
    text = evaluation_text(file, language="de")
    assert (text.name, text.language, text.split) == ("novel.txt", "de", Split.TEST)
    assert text.rows == ("Erste Zeile\n", "", "zweite\n")
    assert calibration_text(str(file)).split is Split.CALIBRATION


@pytest.mark.parametrize(
    ("name", "split", "may_calibrate"),
    [
        ("wiki.test.raw", Split.TEST, False),
        ("wiki.valid.raw", Split.VALIDATION, False),
        ("wiki.train.raw", Split.TRAIN, True),
        ("my_calibration-2.txt", Split.CALIBRATION, True),
    ],
)
def test_a_files_name_tells_its_split_whatever_is_asked(tmp_path, name, split, may_calibrate):
    file = tmp_path / name
    file.write_text("text")
    if may_calibrate:
        assert calibration_text(file).split is split
        error_of(lambda: evaluation_text(file))
    else:
        assert evaluation_text(file, "test").split is split
        assert "spoil" in error_of(lambda: calibration_text(file)).what


def test_a_file_that_is_no_text(tmp_path):
    file = tmp_path / "weights.bin"
    file.write_bytes(b"\xff\xfe\x00")
    assert "UTF-8" in str(error_of(lambda: evaluation_text(file)).remedy)


def test_texts_does_not_load_torch_or_datasets():
    assert not {"torch", "datasets"} & set(vars(texts))
