"""The figures of AWQ: channels, searches, the order of a word, method by container."""

from __future__ import annotations

import pytest
from matplotlib.patches import Rectangle

from lessonkit.course.plots.awq import (
    channel_magnitudes,
    method_by_container,
    searched_curves,
    word_order,
)
from lessonkit.errors import LessonkitError


def boxes(figure) -> list[Rectangle]:
    return [patch for patch in figure.axes[0].patches if isinstance(patch, Rectangle)]


def words(figure) -> list[str]:
    return [text.get_text() for text in figure.axes[0].texts]


def test_marked_channels_have_a_dot_at_their_height() -> None:
    figure = channel_magnitudes({"a": [1.0, 5.0, 2.0, 1.0], "b": [1.0]}, {"a": [1]}, "mean |x|")
    dots = next(line for line in figure.axes[0].lines if line.get_marker() == "o")
    assert (list(dots.get_xdata()), list(dots.get_ydata())) == ([1], [5.0])
    assert figure.axes[0].get_title("left") == "a: largest / median 2.5"
    assert not list(next(x for x in figure.axes[1].lines if x.get_marker() == "o").get_xdata())


def test_an_odd_number_of_panels_leaves_the_last_place_empty() -> None:
    figure = channel_magnitudes({name: [1.0, 2.0] for name in "abc"}, {}, "mean |x|")
    assert [axes.axison for axes in figure.axes] == [True, True, True, False]


def test_each_search_has_a_star_at_its_lowest_point() -> None:
    curves = {"one": [(0.0, 3.0), (0.5, 1.0), (1.0, 2.0)], "two": [(0.0, 1.0), (0.5, 4.0)]}
    figure = searched_curves(curves, xlabel="r", ylabel="loss", lines={"plain": 3.0})
    stars = [line for line in figure.axes[0].lines if line.get_marker() == "*"]
    assert [(*star.get_xdata(), *star.get_ydata()) for star in stars] == [(0.5, 1.0), (0.0, 1.0)]
    assert "plain" in words(figure)


def test_a_word_is_drawn_as_it_is_written() -> None:
    order = (0, 2, 4, 6, 1, 3, 5, 7)
    figure = word_order(order, list(range(8)))
    lower = {round(b.get_x()): i for i, b in enumerate(boxes(figure)) if b.get_y() == 0}
    codes = [text.get_text() for text in figure.axes[0].texts]
    assert len(lower) == 8 and "31..28" in codes and "3..0" in codes
    places = {
        t.get_position()[0]: t.get_text()
        for t in figure.axes[0].texts
        if 0 < t.get_position()[1] < 1
    }
    assert "".join(places[x + 0.5] for x in range(8)) == "75316420"
    with pytest.raises(LessonkitError, match="Each column must go into one field"):
        word_order((0, 0), [1, 2])


def test_the_best_of_each_container_is_framed_and_empty_cells_have_a_dash() -> None:
    table = {"nearest": [3.0, None], "searched": [1.0, 2.0]}
    figure = method_by_container(table, ["INT4", "Q4_K"], "KL")
    widths = [box.get_linewidth() for box in boxes(figure)]
    assert widths[1] == widths[3] > widths[0] == widths[2]
    assert words(figure).count("–") == 1 and {"3.00", "1.00", "2.00"} <= set(words(figure))
    with pytest.raises(LessonkitError, match="each of 2 containers"):
        method_by_container({"nearest": [1.0]}, ["INT4", "Q4_K"], "KL")


def test_nothing_to_draw_is_refused() -> None:
    for draw in (
        lambda: channel_magnitudes({}, {}, "x"),
        lambda: searched_curves({}, xlabel="x", ylabel="y"),
        lambda: searched_curves({"a": []}, xlabel="x", ylabel="y"),
        lambda: method_by_container({}, [], "KL"),
        lambda: method_by_container({"a": [None]}, ["b"], "KL"),
    ):
        with pytest.raises(LessonkitError, match="nothing to draw"):
            draw()
