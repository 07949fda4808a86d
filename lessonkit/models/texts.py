"""Which text? The embedded wiki, WikiText-2, or any text file; with splits that never mix.

    island     the encyclopaedia of the invented island, in English and Chinese (embedded)
    wikitext   WikiText-2 raw: Salesforce/wikitext, wikitext-2-raw-v1, through `datasets`; or from
               the folder that LESSONKIT_WIKITEXT names, with wiki.test.raw and so on, as published
    a path     any UTF-8 text file

A text that has been used to choose weights (training, calibration) says nothing honest about
them afterwards. So a text knows its split, `evaluation_text` gives validation and test texts
only, and `calibration_text` training and calibration texts only.
"""

from __future__ import annotations

import os
import re
from dataclasses import dataclass
from enum import Enum
from pathlib import Path
from typing import Any, NoReturn

from lessonkit.errors import LessonkitError
from lessonkit.models.embedded import verified
from lessonkit.models.names import MINI, chosen

ISLAND, WIKITEXT = "island", "wikitext"
LANGUAGES = ("en", "zh")
VARIABLE = "LESSONKIT_WIKITEXT"
HUB_ID, HUB_CONFIGURATION = "Salesforce/wikitext", "wikitext-2-raw-v1"

_ARTICLE_START = re.compile(r"\n\n(?= = (?!= ))")


class Split(Enum):
    """What a part of a text collection is for."""

    TRAIN = "train"
    VALIDATION = "validation"
    TEST = "test"
    CALIBRATION = "calibration"

    def __str__(self) -> str:
        return self.value


FOR_EVALUATION = (Split.VALIDATION, Split.TEST)
FOR_CALIBRATION = (Split.CALIBRATION, Split.TRAIN)

_WIKITEXT_FILES = {
    Split.TRAIN: "wiki.train.raw",
    Split.VALIDATION: "wiki.valid.raw",
    Split.TEST: "wiki.test.raw",
}
_WORDS_IN_FILE_NAMES = {
    "train": Split.TRAIN,
    "training": Split.TRAIN,
    "valid": Split.VALIDATION,
    "validation": Split.VALIDATION,
    "test": Split.TEST,
    "calibration": Split.CALIBRATION,
}


@dataclass(frozen=True)
class Text:
    """A text in rows.

    WikiText and files have a row for each line, its line end kept, and the empty string for a
    blank line: that is how the Hub serves WikiText. The island has a row for each article.
    """

    name: str
    language: str
    split: Split
    rows: tuple[str, ...]

    def joined(self) -> str:
        r"""The rows joined with "\n\n": what the perplexity of the GPTQ paper is measured on.

        WikiText's rows keep their own line ends, so its lines end up two empty lines apart. That is
        odd, but everybody's published figures rest on it: its test split joined this way is 341,469
        Llama tokens with the beginning token. The island's articles joined are its file again,
        without the last line end: the form that `mini` was trained on.
        """
        return "\n\n".join(self.rows)

    def __repr__(self) -> str:
        return f"Text({self.name}/{self.split}/{self.language}, {len(self.rows):,} rows)"


def rows_of(content: str) -> tuple[str, ...]:
    """The rows of a raw text: its lines with their line ends; blank lines become ""."""
    lines = re.findall(r"[^\n]*\n|[^\n]+\Z", content)
    return tuple(line if line.strip() else "" for line in lines)


def evaluation_text(
    name: str | Path = ISLAND, split: Split | str = Split.TEST, language: str = "en"
) -> Text:
    """A text to measure a model on: the validation or the test split.

    Parameters
    ----------
    name:
        "island", "wikitext" or a file. A file whose name holds the word train, valid, test or
        calibration *is* that split, whatever is asked for.
    split:
        `Split.TEST` or `Split.VALIDATION`, or their names.
    language:
        "en" or "zh"; wikitext has English only. For a file it is only noted.

    Raises
    ------
    LessonkitError
        A split that was used to choose weights; an unknown name; no file; no network.
    """
    return text_of(name, as_split(split), language, FOR_EVALUATION)


def calibration_text(
    name: str | Path = ISLAND, language: str = "en", split: Split | str | None = None
) -> Text:
    """A text to choose quantised weights with: the calibration or the training split.

    `split` is by default `Split.TRAIN` for wikitext, which has no split of its own for
    calibration, and `Split.CALIBRATION` for everything else. The rest is as in
    `evaluation_text`.
    """
    if split is None:
        split = Split.TRAIN if name == WIKITEXT else Split.CALIBRATION
    return text_of(name, as_split(split), language, FOR_CALIBRATION)


def text_for(model_name: str | Path) -> str:
    """The text to score a model on: the island for `mini`, which has read of nothing else, and
    WikiText-2 for every other model. LESSONKIT_MODEL has its say, as in `models.load`.
    """
    return ISLAND if chosen(model_name) == MINI else WIKITEXT


def text_of(name: str | Path, split: Split, language: str, allowed: tuple[Split, ...]) -> Text:
    """A text of one of the splits allowed; `evaluation_text` and `calibration_text` say which."""
    if name == ISLAND:
        require_use(split, allowed, name)
        require_language(language)
        if split is Split.TRAIN:
            raise LessonkitError(
                "The island's training text is not part of the data; a script generates it.",
                where=f"{name}/{split}",
                remedy="Calibrate on the calibration split. data/README.md tells how to generate "
                "the training text.",
            )
        file = verified(f"texts/{language}/{split}.txt")
        return Text(ISLAND, language, split, _article_rows(read_text(file)))
    if name == WIKITEXT:
        require_use(split, allowed, name)
        if language != "en" or split not in _WIKITEXT_FILES:
            raise LessonkitError(
                "WikiText-2 is English, and has the splits train, validation and test.",
                where=f"{name}/{split}/{language}",
                remedy="Use language='en' and one of these splits, or the text 'island'.",
            )
        return Text(WIKITEXT, language, split, _wikitext_rows(split))
    path = Path(name).expanduser()
    if not path.is_file():
        raise LessonkitError(
            f"There is no text {str(name)!r}: it is neither 'island', nor 'wikitext', nor a file.",
            where=path,
            remedy="Use one of the two names, or the path of a UTF-8 text file.",
        )
    split = split_in_name(path) or split
    require_use(split, allowed, path)
    return Text(path.name, language, split, rows_of(read_text(path)))


def as_split(split: Split | str) -> Split:
    """A split from its name; LessonkitError for a name that is none."""
    try:
        return Split(split)
    except ValueError:
        raise LessonkitError(
            f"There is no split {split!r}.",
            where="split",
            remedy="Use one of " + ", ".join(one.value for one in Split) + ".",
        ) from None


def split_in_name(path: Path) -> Split | None:
    """The split that a file's name speaks of, if it does."""
    words = re.split(r"[^a-z]+", path.name.lower())
    return next((_WORDS_IN_FILE_NAMES[w] for w in words if w in _WORDS_IN_FILE_NAMES), None)


def require_use(split: Split, allowed: tuple[Split, ...], name: object) -> None:
    """Raise LessonkitError, with the reason, unless a split is among those that are allowed."""
    if split in allowed:
        return
    if Split.TRAIN in allowed:
        what = (
            f"Calibrating on the {split} split would spoil the perplexity that is reported on it "
            "afterwards: the weights would have been chosen to do well on just that text."
        )
    else:
        what = (
            f"A perplexity on the {split} split says nothing: weights were chosen to do well on "
            "just that text."
        )
    raise LessonkitError(
        what, where=f"{name}/{split}", remedy="Use " + " or ".join(s.value for s in allowed) + "."
    )


def require_language(language: str) -> None:
    """Raise LessonkitError unless the island's texts are written in this language."""
    if language not in LANGUAGES:
        raise LessonkitError(
            f"The island's texts are not written in {language!r}.",
            where="language",
            remedy="Use 'en' or 'zh'.",
        )


def read_text(path: Path) -> str:
    """The content of a UTF-8 file; LessonkitError for any other."""
    try:
        return path.read_text(encoding="utf-8")
    except (OSError, UnicodeDecodeError) as error:
        raise LessonkitError(
            f"The text cannot be read: {error}.", where=path, remedy="Give a UTF-8 text file."
        ) from error


def _article_rows(content: str) -> tuple[str, ...]:
    """The articles of an island text, which stand a blank line apart."""
    return tuple(_ARTICLE_START.split(content.removesuffix("\n")))


def _wikitext_rows(split: Split) -> tuple[str, ...]:
    folder = os.environ.get(VARIABLE, "").strip()
    if not folder:
        return _wikitext_from_hub(split)
    path = Path(folder).expanduser() / _WIKITEXT_FILES[split]
    if not path.is_file():
        raise LessonkitError(
            f"The folder that {VARIABLE} names has no {path.name}.",
            where=path,
            remedy=f"Put WikiText-2's raw file there, or unset {VARIABLE} to use the Hub.",
        )
    return rows_of(read_text(path))


def _wikitext_from_hub(split: Split) -> tuple[str, ...]:
    try:
        import datasets
    except ImportError as error:
        raise LessonkitError(
            "WikiText-2 is read from the Hub with the package datasets, which is not installed.",
            where="import datasets",
            remedy=f"`pip install datasets`, or set {VARIABLE} to a folder with the raw files.",
        ) from error
    bars = datasets.are_progress_bars_disabled()
    datasets.disable_progress_bars()
    try:
        table: Any = datasets.load_dataset(HUB_ID, HUB_CONFIGURATION, split=split.value)
        return tuple(table["text"])
    except Exception as error:  # datasets lets its many libraries' errors through
        _refuse_download(error)
    finally:
        if not bars:
            datasets.enable_progress_bars()


def _refuse_download(error: Exception) -> NoReturn:
    raise LessonkitError(
        f"WikiText-2 could not be had from the Hub: {type(error).__name__}.",
        where=f"{HUB_ID}, {HUB_CONFIGURATION}",
        remedy="Check the network and try again; or set HF_ENDPOINT to a mirror; or fetch the raw "
        f"files yourself and set {VARIABLE} to their folder; or use the text 'island'.",
    ) from error
