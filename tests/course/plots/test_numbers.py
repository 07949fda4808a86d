"""The figures: what is drawn, whether it can be read, and how it gets into a notebook."""

from __future__ import annotations

import io
from collections.abc import Callable
from itertools import combinations
from typing import Any

import numpy as np
import pytest
from matplotlib.backends.backend_agg import FigureCanvasAgg
from matplotlib.colors import to_rgb
from matplotlib.figure import Figure
from matplotlib.text import Text
from PIL import Image

from lessonkit.course.plots import journey_map
from lessonkit.course.plots import numbers as plots
from lessonkit.course.plots import style as card
from lessonkit.errors import LessonkitError
from lessonkit.formats.floats import (
    BF16,
    FP4_E1M2,
    FP4_E2M1,
    FP4_E3M0,
    FP8_E4M3,
    FP8_E5M2,
    FP16,
    FP32,
    finite_values,
)

FIVE = [FP32, FP16, BF16, FP8_E4M3, FP8_E5M2]
FOUR_BITS = [FP4_E3M0, FP4_E2M1, FP4_E1M2]
WEIGHTS = np.random.default_rng(0).normal(0, 0.02, 20_000)
ALT = "A picture of numbers, for those who cannot see it."

FIGURES: dict[str, Callable[[], Figure]] = {
    "bits": lambda: plots.draw_bits([(f.name, f, 2.31384) for f in FIVE]),
    "bits, long": lambda: plots.draw_bits([("largest", BF16, -BF16.max), ("tiny", FP32, 1e-45)]),
    "bits, four": lambda: plots.draw_bits([(f.name, f, 2.31384) for f in FOUR_BITS]),
    "line": lambda: plots.number_line(
        {f.name: finite_values(f) for f in FOUR_BITS}, xlim=(-6.5, 6.5), mark=2.31384
    ),
    "line, whole": lambda: plots.number_line({"FP8": finite_values(FP8_E5M2)}),
    "histogram": lambda: plots.weight_histogram(
        WEIGHTS, {"FP8 E4M3": finite_values(FP8_E4M3), "INT4": np.arange(-8, 8) * 0.01}
    ),
    "histogram alone": lambda: plots.weight_histogram(WEIGHTS, xlim=(-0.05, 0.05)),
    "bars": lambda: plots.bar_table(
        ["FP32", "FP16", "INT8", "INT4, blocks of 64"], [28, 14, 7, 3.94],
        title="A model of 7 billion weights", unit="GB", highlight=["INT8"],
    ),
    "bars, wild": lambda: plots.bar_table(["a", "b", "c"], [1e-9, 2e-3, np.inf], log=True),
    "bars, negative": lambda: plots.bar_table(["up", "down", "none"], [3, -1, 0], unit="%"),
    "spacing": lambda: plots.spacing_plot(FIVE),
    "journey": journey_map,
}  # fmt: skip
each = pytest.mark.parametrize("make", FIGURES.values(), ids=FIGURES.keys())


def texts_of(figure: Figure) -> list[Text]:
    """All text that shows, once the figure is laid out."""
    FigureCanvasAgg(figure).draw()
    spare = spare_tick_labels(figure)
    found = figure.findobj(lambda artist: isinstance(artist, Text) and artist.get_visible())
    return [t for t in found if isinstance(t, Text) and t.get_text().strip() and t not in spare]


def spare_tick_labels(figure: Figure) -> set[Any]:
    """matplotlib keeps labels for ticks outside the limits of an axis, and does not draw them."""
    spare: set[Any] = set()
    for axis in [one for axes in figure.axes for one in (axes.xaxis, axes.yaxis)]:
        low, high = sorted(axis.get_view_interval())
        shown = axis.get_visible()
        for tick in [*axis.get_major_ticks(), *axis.get_minor_ticks()]:
            if not (shown and low <= tick.get_loc() <= high):
                spare |= {tick.label1, tick.label2}
    return spare


def words_of(figure: Figure) -> list[str]:
    return [text.get_text() for text in texts_of(figure)]


# --- can it be read? --------------------------------------------------------------------------


@each
def test_no_text_is_cut_off_small_or_on_top_of_another(make: Callable[[], Figure]) -> None:
    figure = make()
    texts = texts_of(figure)
    boxes = []
    for text in texts:
        box = text.get_window_extent()
        assert figure.bbox.x0 - 1 <= box.x0 and box.x1 <= figure.bbox.x1 + 1, text
        assert figure.bbox.y0 - 1 <= box.y0 and box.y1 <= figure.bbox.y1 + 1, text
        assert float(text.get_fontsize()) >= 10, text
        boxes.append((text, box))
    for (one, a), (other, b) in combinations(boxes, 2):
        apart = a.x1 <= b.x0 or b.x1 <= a.x0 or a.y1 <= b.y0 or b.y1 <= a.y0
        assert apart, (one.get_text(), other.get_text())


@each
def test_the_picture_is_opaque_small_and_the_same_each_time(make: Callable[[], Figure]) -> None:
    png = card.png_of(make())
    assert png == card.png_of(make())
    assert len(png) < 60_000
    picture = Image.open(io.BytesIO(png))
    assert 860 <= picture.width <= 1300
    corner = np.asarray(picture.convert("RGBA"), np.int64)[0, 0]
    assert corner[3] == 255
    assert np.abs(corner[:3] - 255 * np.array(to_rgb(card.CARD))).max() <= 2


# --- what is drawn? ---------------------------------------------------------------------------


def test_draw_bits_shows_every_bit_and_what_is_stored() -> None:
    words = words_of(plots.draw_bits([("number", BF16, 2.31384)]))
    assert "".join(word for word in words if word in ("0", "1")) == "0100000000010100"
    assert "number" in words and "= 2.3125" in words
    assert {"sign", "exponent", "mantissa"} <= set(words)


def test_number_line_counts_what_lies_inside() -> None:
    words = words_of(plots.number_line({"E2M1": finite_values(FP4_E2M1)}, xlim=(0, 3), mark=2.3))
    assert "6 values" in words and "2.3" in words


def test_bars_are_labelled_and_marked_by_more_than_colour() -> None:
    figure = FIGURES["bars"]()
    assert {"28 GB", "3.94 GB"} <= set(words_of(figure))
    assert [bar.get_hatch() or "" for bar in figure.axes[0].patches] == ["", "", "//", ""]
    assert "inf" in words_of(FIGURES["bars, wild"]())


def test_histogram_draws_the_values_of_each_format() -> None:
    figure = plots.weight_histogram(WEIGHTS, {"two": [-0.01, 0.01, 5.0]}, xlim=(-0.05, 0.05))
    top, below = figure.axes
    inside = np.abs(WEIGHTS) <= 0.05
    assert sum(bar.get_height() for bar in top.patches) == inside.sum()  # type: ignore[attr-defined]
    (ticks,) = below.collections
    assert [segment[0, 0] for segment in ticks.get_segments()] == [-0.01, 0.01]  # type: ignore[attr-defined]


def test_spacing_lines_differ_by_more_than_colour() -> None:
    lines = plots.spacing_plot(FIVE).axes[0].get_lines()
    named = [line for line in lines if line.get_label() in {f.name for f in FIVE}]
    assert len({line.get_marker() for line in named}) == len(FIVE)
    x, y = np.asarray(named[1].get_data())
    assert x[0] == FP16.smallest_subnormal and x[-1] == FP16.max
    assert y[0] == FP16.smallest_subnormal and y[-1] == 32


@pytest.mark.parametrize(
    "draw",
    [
        lambda: plots.draw_bits([]),
        lambda: plots.number_line({}),
        lambda: plots.weight_histogram([]),
        lambda: plots.bar_table([], []),
        lambda: plots.spacing_plot([]),
    ],
)
def test_nothing_to_draw_is_told(draw: Callable[[], Figure]) -> None:
    with pytest.raises(LessonkitError, match="nothing to draw"):
        draw()


def test_wild_weights_are_told_and_equal_ones_are_drawn() -> None:
    with pytest.raises(LessonkitError, match="1 of 2 weights"):
        plots.weight_histogram([1.0, np.inf])
    card.png_of(plots.weight_histogram([1.0, 1.0], {"one": [1.0]}))
    card.png_of(plots.number_line({"one": [1.0]}))


def test_bars_without_labels_are_refused() -> None:
    with pytest.raises(LessonkitError, match="needs a label"):
        plots.bar_table(["a"], [1, 2])
