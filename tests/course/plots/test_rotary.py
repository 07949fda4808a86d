"""The figures of rotary embeddings: the order of the rows, the pairs, the angles."""

from __future__ import annotations

import numpy as np
import pytest
from matplotlib.backends.backend_agg import FigureCanvasAgg
from matplotlib.colors import to_rgb
from matplotlib.patches import Circle, Rectangle

from lessonkit.course.plots import style as card
from lessonkit.course.plots.rotary import rotary_dials, rotary_layouts
from lessonkit.errors import LessonkitError
from lessonkit.llama.layout import pairs_to_halves


def boxes(figure) -> list[Rectangle]:
    return [patch for patch in figure.axes[0].patches if isinstance(patch, Rectangle)]


@pytest.mark.parametrize("size", [2, 8, 12])
def test_the_lower_row_is_the_order_of_the_conversion(size: int) -> None:
    axes = rotary_layouts(size).axes[0]
    placed = {text.get_position(): text.get_text() for text in axes.texts}
    heights = sorted({y for (x, y), words in placed.items() if words.isdigit()})
    below, above = ([placed[x, y] for x in range(size)] for y in heights)
    assert above == [str(row) for row in range(size)]
    order = pairs_to_halves(np.arange(size).reshape(size, 1), heads=1).flatten()
    assert below == [str(row) for row in order]


def test_the_rows_of_a_pair_look_alike_and_unlike_the_others() -> None:
    looks = {}
    axes = rotary_layouts(8).axes[0]
    numbers = [text for text in axes.texts if text.get_text().isdigit()]
    for box, text in zip(boxes(axes.figure), numbers, strict=True):
        look = (to_rgb(box.get_edgecolor()[:3]), box.get_hatch())
        looks.setdefault(int(text.get_text()) // 2, set()).add(look)
    assert all(len(found) == 1 for found in looks.values())
    assert len({hatch for found in looks.values() for _, hatch in found}) == 4


def test_each_bracket_joins_a_pair_in_both_rows() -> None:
    axes = rotary_layouts(8).axes[0]
    brackets = [line.get_xdata() for line in axes.lines if len(line.get_xdata()) == 4]
    spans = sorted((int(min(x)), int(max(x))) for x in brackets)
    assert spans == sorted([(0, 1), (2, 3), (4, 5), (6, 7), (0, 4), (1, 5), (2, 6), (3, 7)])


def test_the_names_of_the_pairs_lie_clear_of_each_other() -> None:
    figure = rotary_layouts(12)
    FigureCanvasAgg(figure).draw()
    names = [t.get_window_extent() for t in figure.axes[0].texts if t.get_text().startswith("pair")]
    assert len(names) == 12
    assert not any(a.overlaps(b) for i, a in enumerate(names) for b in names[:i])


@pytest.mark.parametrize("size", [0, 7, 14])
def test_a_head_that_cannot_be_drawn_is_told(size: int) -> None:
    with pytest.raises(LessonkitError, match="cannot be drawn"):
        rotary_layouts(size)


def test_a_hand_points_where_the_pair_has_turned() -> None:
    axes = rotary_dials([1.0, 0.1], [0, 3]).axes[0]
    assert sum(isinstance(patch, Circle) for patch in axes.patches) == 4
    hands = [text for text in axes.texts if getattr(text, "arrow_patch", None) is not None]
    angles = [float(np.arctan2(*(np.subtract(hand.xy, hand.xyann)[::-1]))) for hand in hands]
    assert np.allclose(angles, [0.0, 3.0, 0.0, 0.3])
    words = [text.get_text() for text in axes.texts]
    assert "pair 1\n0.1 rad a token" in words and "token 3" in words


@pytest.mark.parametrize(("frequencies", "tokens"), [([], [0]), ([1.0], [])])
def test_dials_of_nothing_are_told(frequencies: list[float], tokens: list[int]) -> None:
    with pytest.raises(LessonkitError, match="nothing to draw"):
        rotary_dials(frequencies, tokens)


def test_the_same_figure_makes_the_same_bytes() -> None:
    assert card.png_of(rotary_layouts(8)) == card.png_of(rotary_layouts(8))
