"""The figures of few-bit formats: what is drawn, and whether its words lie clear."""

from __future__ import annotations

import pytest
from matplotlib.backends.backend_agg import FigureCanvasAgg

from lessonkit.course.plots import style as card
from lessonkit.course.plots.codebooks import (
    error_against_bits,
    level_shares,
    levels_under_bell,
    recall_against_bits,
)
from lessonkit.errors import LessonkitError

CURVES = {"NF4": [(5.0, 7.0), (4.5, 8.0), (4.25, 9.5)], "INT4": [(5.0, 9.0), (4.5, 10.0)]}


def test_each_level_stands_under_the_bell_with_its_number() -> None:
    figure = levels_under_bell([0.5, -1.0, 0.0])
    axes = figure.axes[0]
    lines = next(c for c in axes.collections if len(c.get_paths()) == 3)
    ends = [path.vertices for path in lines.get_paths()]
    assert [end[0][0] for end in ends] == [-1.0, 0.0, 0.5]
    assert ends[1][1][1] == pytest.approx(0.39894, abs=1e-5)
    assert [text.get_text() for text in axes.texts] == ["0", "1", "2"]


def test_sixteen_levels_keep_their_numbers_apart() -> None:
    figure = levels_under_bell([k / 4 for k in range(-8, 8)])
    FigureCanvasAgg(figure).draw()
    boxes = [text.get_window_extent() for text in figure.axes[0].texts]
    assert not any(a.overlaps(b) for a, b in zip(boxes, boxes[1:], strict=False))


def test_shares_are_percents_with_a_panel_each() -> None:
    figure = level_shares({"NF4": [0.25, 0.75], "INT4": [0.5, 0.5]}, even=0.5)
    assert [axes.get_title(loc="left") for axes in figure.axes] == ["NF4", "INT4"]
    assert [bar.get_height() for bar in figure.axes[0].patches] == [25.0, 75.0]
    assert [text.get_text() for text in figure.axes[0].texts] == ["25.0", "75.0"]
    assert [line.get_ydata()[0] for axes in figure.axes for line in axes.lines] == [50.0, 50.0]


def test_without_an_even_share_there_is_no_line() -> None:
    assert not level_shares({"NF4": [0.5, 0.5]}).axes[0].lines


def test_curves_differ_in_more_than_colour() -> None:
    figure = error_against_bits(CURVES, points=["32", "64", "128"])
    lines = figure.axes[0].lines
    assert [line.get_label() for line in lines] == ["NF4", "INT4"]
    assert len({(line.get_linestyle(), line.get_marker()) for line in lines}) == 2
    assert lines[0].get_xydata().tolist() == [[5.0, 7.0], [4.5, 8.0], [4.25, 9.5]]
    assert [text.get_text() for text in figure.axes[0].texts] == ["32", "64", "128"]


def test_recall_is_in_percent_and_bits_shrink_to_the_right() -> None:
    figure = recall_against_bits({"blocks": [(8.5, 1.0), (2.5, 0.25)], "tensor": [(3.0, 0.5)]})
    axes = figure.axes[0]
    assert [line.get_xydata().tolist() for line in axes.lines] == [
        [[8.5, 100.0], [2.5, 25.0]],
        [[3.0, 50.0]],
    ]
    assert axes.get_ylabel() == "recall in %"
    left, right = axes.get_xlim()
    assert left > right
    low, high = axes.get_ylim()
    assert low < 0 and high > 100  # no marker is cut in half


@pytest.mark.parametrize(
    "draw", [levels_under_bell, level_shares, error_against_bits, recall_against_bits]
)
def test_nothing_to_draw_is_told(draw) -> None:
    with pytest.raises(LessonkitError, match="nothing to draw"):
        draw({} if draw is not levels_under_bell else [])


def test_the_same_figure_makes_the_same_bytes() -> None:
    assert card.png_of(error_against_bits(CURVES)) == card.png_of(error_against_bits(CURVES))
