"""The drawings of GPTQ show what they are given."""

from __future__ import annotations

import numpy as np
import pytest
from matplotlib.colors import to_hex
from matplotlib.figure import Figure
from matplotlib.patches import Ellipse, Rectangle

from lessonkit.course.plots import (
    compensation_steps,
    error_curves,
    error_ellipse,
    hessian_picture,
    packed_words,
)
from lessonkit.errors import LessonkitError

HESSIAN = np.array([[6.0, 5.0], [5.0, 6.0]])


def boxes(figure: Figure) -> list[Rectangle]:
    return [patch for patch in figure.axes[0].patches if isinstance(patch, Rectangle)]


def test_each_point_lies_on_its_ellipse() -> None:
    figure = error_ellipse((1.3, 2.4), HESSIAN, {"near": (1, 2), "far": (1, 3)})
    ellipses = [patch for patch in figure.axes[0].patches if isinstance(patch, Ellipse)]
    for ellipse, (point, loss) in zip(ellipses, [((1, 2), 2.70), ((1, 3), 0.90)], strict=True):
        away = np.array(point) - np.array(ellipse.center)
        turn = np.deg2rad(ellipse.angle)
        along = away @ [np.cos(turn), np.sin(turn)], away @ [-np.sin(turn), np.cos(turn)]
        halves = ellipse.width / 2, ellipse.height / 2
        assert sum((a / b) ** 2 for a, b in zip(along, halves, strict=True)) == pytest.approx(1)
        assert away @ HESSIAN @ away == pytest.approx(loss)
    texts = [text.get_text() for text in figure.legends[0].get_texts()]
    assert texts[2:] == ["near: loss 2.70", "far: loss 0.90"]


@pytest.mark.parametrize("matrix", [np.eye(3), np.array([[1.0, 2.0], [2.0, 1.0]])])
def test_an_ellipse_needs_two_weights_and_a_positive_definite_matrix(matrix: np.ndarray) -> None:
    with pytest.raises(LessonkitError, match="positive definite"):
        error_ellipse((1.3, 2.4), matrix, {"near": (1, 2)})


def test_a_hessian_shows_correlations_and_its_inputs_and_directions_without_dead_ones() -> None:
    hessian = np.diag([4.0, 0.0, 9.0, 1.0])
    hessian[0, 2] = hessian[2, 0] = -3.0
    figure = hessian_picture(hessian, shown=3)
    left, right = figure.axes[:2]
    assert np.allclose(left.images[0].get_array(), [[1, 0, 0.5], [0, 0, 0], [0.5, 0, 1]])
    assert list(right.lines[0].get_ydata()) == pytest.approx([9, 4, 1])
    eigenvalues = sorted([1, *np.linalg.eigvalsh([[4, -3], [-3, 9]])], reverse=True)
    assert list(right.lines[1].get_ydata()) == pytest.approx(eigenvalues)
    assert right.get_yscale() == "log"


def test_steps_show_changes_on_one_scale_and_where_rounding_stands() -> None:
    start = np.zeros((2, 4))
    later = np.array([[0.5, -0.25, 0, 0], [0, 0, 0, 1.0]])
    figure = compensation_steps(start, {0: start, 2: later}, limit=1)
    panels = [axes for axes in figure.axes if axes.images and axes.lines]
    assert [axes.lines[0].get_xdata()[0] for axes in panels] == [-0.5, 1.5]
    assert np.array_equal(panels[1].images[0].get_array(), later)
    assert all(axes.images[0].get_clim() == (-1, 1) for axes in panels)
    many = np.linspace(-1, 1, 2001)[None]
    image = compensation_steps(0 * many, {1: many}).axes[0].images[0]
    assert image.get_clim() == pytest.approx((-0.99, 0.99))


def test_curves_have_their_points() -> None:
    figure = error_curves({"a": [(0.01, 2.0), (0.1, 1.0)], "b": [(0.01, 3.0)]}, "damping")
    assert list(figure.axes[0].lines[0].get_ydata()) == [2.0, 1.0]
    assert figure.axes[0].get_xscale() == "log"


def test_a_word_of_four_bits_has_eight_whole_codes_the_first_at_the_right() -> None:
    found = boxes(packed_words({"4 bits": 4}))
    assert [(box.get_x(), box.get_width()) for box in found] == [(28 - 4 * i, 4) for i in range(8)]
    assert not any(box.get_hatch() for box in found)


def test_three_words_of_three_bits_cut_two_codes() -> None:
    figure = packed_words({"3 bits": 3})
    found = boxes(figure)
    assert sum(box.get_width() for box in found) == 96 and len(found) == 34
    cut = [box for box in found if box.get_hatch()]
    assert [box.get_width() for box in cut] == [2, 1, 1, 2]
    numbers = [text.get_text() for text in figure.axes[0].texts]
    assert numbers.count("10") == 2 and numbers.count("21") == 2
    assert len({to_hex(box.get_facecolor()) for box in cut[:2]}) == 1


def test_nothing_to_draw_is_refused() -> None:
    for draw in (
        lambda: error_ellipse((0, 0), HESSIAN, {}),
        lambda: hessian_picture(np.empty((0, 0))),
        lambda: compensation_steps(np.zeros((1, 1)), {}),
        lambda: error_curves({}, "x"),
        lambda: packed_words({}),
    ):
        with pytest.raises(LessonkitError, match="nothing to draw"):
            draw()
