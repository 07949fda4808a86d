"""`show_bundle`: rich in a notebook, plain text wherever there is none."""

from __future__ import annotations

import sys
from types import SimpleNamespace
from typing import Any

import pytest
from IPython.core.interactiveshell import InteractiveShell

from lessonkit.course.display import show_bundle

BUNDLE = {"text/plain": "a text", "text/markdown": "**a text**"}


def test_outside_a_notebook_the_text_is_printed(capsys: pytest.CaptureFixture[str]) -> None:
    show_bundle(BUNDLE, {"text/markdown": {"width": 3}})
    assert capsys.readouterr().out == "a text\n"


@pytest.mark.parametrize("module", ["IPython.display", "IPython.core.interactiveshell"])
def test_without_ipython_the_text_is_printed(
    module: str, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    monkeypatch.setattr(InteractiveShell, "initialized", lambda: True)
    monkeypatch.setitem(sys.modules, module, None)  # importing it is an ImportError now
    show_bundle(BUNDLE)
    assert capsys.readouterr().out == "a text\n"


@pytest.mark.parametrize("metadata", [None, {"text/markdown": {"width": 3}}])
def test_a_notebook_gets_all_forms_once(
    metadata: dict[str, Any] | None,
    monkeypatch: pytest.MonkeyPatch,
    capsys: pytest.CaptureFixture[str],
) -> None:
    published: list[dict[str, Any]] = []
    shell = SimpleNamespace(
        display_pub=SimpleNamespace(publish=lambda **sent: published.append(sent))
    )
    monkeypatch.setattr(InteractiveShell, "initialized", lambda: True)
    monkeypatch.setattr(InteractiveShell, "instance", lambda: shell)
    show_bundle(BUNDLE, metadata)
    (sent,) = published
    assert sent["data"] == BUNDLE and sent["metadata"] == (metadata or {})
    assert capsys.readouterr().out == ""


def test_a_bundle_needs_its_text() -> None:
    with pytest.raises(KeyError, match="text/plain"):
        show_bundle({"text/markdown": "**a text**"})
