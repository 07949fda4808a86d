"""The card: one look for every figure, small opaque pictures, and a text beside each."""

from __future__ import annotations

import io
from typing import Any

import IPython.display
import matplotlib as mpl
import numpy as np
import pytest
from IPython.core.interactiveshell import InteractiveShell
from matplotlib.colors import to_rgb
from matplotlib.figure import Figure
from PIL import Image

from lessonkit.course.plots import style as card
from lessonkit.errors import LessonkitError

ALT = "A picture of numbers, for those who cannot see it."


def drawing() -> Figure:
    """A figure with lines, filled areas and text in many colours."""
    figure = card.new_figure(3.0)
    axes = figure.add_subplot(title="All colours")
    for number, colour in enumerate(card.PALETTE):
        axes.plot([0, 1, 2], [number, number + 1, number], color=colour)
        axes.bar(number, 1, color=colour, alpha=0.5)
    return figure


def luminance(colour: Any) -> float:
    """Relative luminance as in WCAG 2.1."""
    linear = [c / 12.92 if c <= 0.04045 else ((c + 0.055) / 1.055) ** 2.4 for c in to_rgb(colour)]
    return float(np.dot(linear, [0.2126, 0.7152, 0.0722]))


# --- the look ---------------------------------------------------------------------------------


def test_every_figure_after_use_style_has_the_look() -> None:
    with mpl.rc_context():
        mpl.rcParams.update({"axes.facecolor": "black", "axes.spines.top": True, "font.size": 5})
        card.use_style()
        axes = Figure().add_subplot()
        assert to_rgb(axes.get_facecolor()) == to_rgb(card.CARD)
        assert not axes.spines["top"].get_visible() and axes.spines["left"].get_visible()
        drawn = [axes.plot([0, 1])[0].get_color() for _ in range(len(card.PALETTE) + 1)]
        assert drawn == [*card.PALETTE, card.PALETTE[0]]
        axes.set_title("t")
        assert axes.get_title(loc="left") == "t"
        assert float(axes.xaxis.label.get_fontsize()) >= 10


def test_a_line_can_be_told_by_colour_by_marker_or_by_dash() -> None:
    for series in (card.PALETTE, card.MARKERS, card.DASHES):
        assert len({str(one) for one in series}) == len(card.PALETTE)


def test_text_has_contrast_with_the_card() -> None:
    for colour in (card.BLACK, card.FAINT):
        assert (luminance(card.CARD) + 0.05) / (luminance(colour) + 0.05) >= 4.5


def test_a_new_figure_is_known_to_no_window_system() -> None:
    pyplot = pytest.importorskip("matplotlib.pyplot")
    before = pyplot.get_fignums()
    figure = card.new_figure(2.5, width=4)
    assert pyplot.get_fignums() == before
    assert figure.get_size_inches().tolist() == [4, 2.5]
    assert card.new_figure(1).get_figwidth() == card.WIDTH


# --- the picture ------------------------------------------------------------------------------


def test_the_png_is_compact_and_looks_the_same() -> None:
    figure = drawing()
    png = card.png_of(figure)
    plain = io.BytesIO()
    figure.savefig(plain, format="png", dpi=120, facecolor=card.CARD)
    assert len(png) < len(plain.getvalue()) / 1.8
    small, large = Image.open(io.BytesIO(png)), Image.open(plain)
    assert small.mode == "P" and len(small.getcolors() or []) <= 64
    assert small.size == large.size == (9 * 120, 3 * 120)
    apart = np.abs(
        np.asarray(small.convert("RGB"), np.int64) - np.asarray(large.convert("RGB"), np.int64)
    )
    assert apart.mean() < 1 and np.percentile(apart, 99) <= 24


def test_the_png_holds_no_date_and_no_version() -> None:
    assert not Image.open(io.BytesIO(card.png_of(drawing()))).info.keys() - {"transparency"}


def test_a_transparent_figure_becomes_opaque() -> None:
    figure = card.new_figure(1)
    figure.patch.set_alpha(0)
    picture = Image.open(io.BytesIO(card.png_of(figure))).convert("RGBA")
    assert (np.asarray(picture)[..., 3] == 255).all()


# --- into the notebook ------------------------------------------------------------------------


def test_show_puts_picture_and_text_into_the_notebook(monkeypatch: pytest.MonkeyPatch) -> None:
    shown: list[Any] = []
    monkeypatch.setattr(InteractiveShell, "initialized", lambda: True)
    monkeypatch.setattr(IPython.display, "display", lambda *a, **k: shown.append((a, k)))
    figure = drawing()
    card.show(figure, f"  {ALT}\n")
    (((bundle,), options),) = shown
    assert bundle["text/plain"] == f"Figure: {ALT}"
    assert bundle["image/png"].startswith(b"\x89PNG")
    assert options == {"raw": True, "metadata": {"image/png": {"alt": ALT, "width": 864}}}


def test_show_prints_the_text_elsewhere(capsys: pytest.CaptureFixture[str]) -> None:
    card.show(drawing(), ALT)
    assert capsys.readouterr().out == f"Figure: {ALT}\n"


def test_show_closes_a_pyplot_figure() -> None:
    pyplot = pytest.importorskip("matplotlib.pyplot")
    pyplot.switch_backend("agg")
    figure = pyplot.figure()
    card.show(figure, ALT)
    assert not pyplot.fignum_exists(figure.number)


@pytest.mark.parametrize("alt", ["", "   ", "short", None])
def test_a_figure_without_a_text_is_refused(alt: Any) -> None:
    with pytest.raises(LessonkitError, match="alternative text"):
        card.show(drawing(), alt)


def test_the_alternative_text_has_twenty_characters_without_counting_spaces_twice() -> None:
    with pytest.raises(LessonkitError) as caught:
        card.show(drawing(), "a" * 10 + " " * 10 + "b" * 8)  # 19, once spaces are one
    assert caught.value.remedy and str(caught.value.where).startswith("alt='aaaa")
    card.show(drawing(), "a" * 10 + " " * 10 + "b" * 9)


def test_a_figure_without_a_text_is_not_shown(capsys: pytest.CaptureFixture[str]) -> None:
    with pytest.raises(LessonkitError):
        card.show(drawing(), "short")
    assert capsys.readouterr().out == ""
