"""lessonkit.course.source and display: source as text here, as Markdown in a notebook."""

from __future__ import annotations

from typing import Any

import IPython.display
import pytest
from IPython.core.interactiveshell import InteractiveShell

from lessonkit.course.source import show_source, source_of
from lessonkit.errors import LessonkitError
from lessonkit.formats import floats


def test_without_a_notebook_the_text_is_printed(capsys: pytest.CaptureFixture[str]) -> None:
    show_source(floats.round_to)
    said = capsys.readouterr().out
    assert said.startswith("# lessonkit.formats.floats\n\ndef round_to(")
    assert said.endswith("return decode(encode(x, fmt, saturate=saturate), fmt)\n")


def test_in_a_notebook_markdown_goes_with_it(monkeypatch: pytest.MonkeyPatch) -> None:
    shown: list[Any] = []
    monkeypatch.setattr(InteractiveShell, "initialized", lambda: True)
    monkeypatch.setattr(IPython.display, "display", lambda *a, **k: shown.append((a, k)))
    show_source(floats.ulp)
    (((bundle,), options),) = shown
    assert options["raw"] is True
    assert bundle["text/markdown"] == f"```python\n{bundle['text/plain']}\n```"


def test_methods_lose_their_indentation() -> None:
    assert source_of(floats.FloatFormat.__post_init__).startswith("def __post_init__(self)")


@pytest.mark.parametrize("thing", [3, len, floats.FP16])
def test_what_has_no_source_is_told(thing: Any) -> None:
    with pytest.raises(LessonkitError, match="no Python source"):
        show_source(thing)
