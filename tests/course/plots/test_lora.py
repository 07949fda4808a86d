"""The figure of low rank: three blocks, to scale, with their shapes and counts."""

from __future__ import annotations

import pytest
from matplotlib.backends.backend_agg import FigureCanvasAgg
from matplotlib.patches import Rectangle

from lessonkit.course.plots import style as card
from lessonkit.course.plots.lora import loss_curve, low_rank_blocks
from lessonkit.errors import LessonkitError


def sizes(figure) -> list[tuple[float, float]]:
    """Width and height of W, B and A."""
    filled = [p for p in figure.axes[0].patches if isinstance(p, Rectangle) and p.get_fill()]
    return [(block.get_width(), block.get_height()) for block in filled]


def test_the_blocks_are_to_scale() -> None:
    w, b, a = sizes(low_rank_blocks(400, 200, 50))
    assert w[1] / w[0] == pytest.approx(2)
    assert b == pytest.approx((w[1] / 8, w[1]))
    assert a == pytest.approx((w[0], w[1] / 8))


def test_a_thin_side_can_still_be_seen() -> None:
    _, b, a = sizes(low_rank_blocks(4096, 4096, 1))
    assert b[0] == a[1] > 0.2


def test_the_shapes_and_counts_are_written() -> None:
    words = [text.get_text() for text in low_rank_blocks(768, 256, 4).axes[0].texts]
    assert "W, frozen\n768 × 256\n= 196,608 values" in words
    assert "B, trained\n768 × 4\n= 3,072 values" in words
    assert "A, trained\n4 × 256\n= 1,024 values" in words


@pytest.mark.parametrize("shape", [(256, 256, 4), (768, 256, 8), (256, 768, 8)])
def test_no_two_texts_overlap(shape: tuple[int, int, int]) -> None:
    figure = low_rank_blocks(*shape)
    FigureCanvasAgg(figure).draw()
    places = [text.get_window_extent() for text in figure.axes[0].texts]
    assert not any(a.overlaps(b) for i, a in enumerate(places) for b in places[:i])


@pytest.mark.parametrize("shape", [(0, 4, 1), (4, 4, 5), (4, 2, 3), (4, 4, 0)])
def test_what_cannot_be_drawn_is_told(shape: tuple[int, int, int]) -> None:
    with pytest.raises(LessonkitError, match="cannot be drawn"):
        low_rank_blocks(*shape)


def test_the_same_figure_makes_the_same_bytes() -> None:
    assert card.png_of(low_rank_blocks(8, 4, 2)) == card.png_of(low_rank_blocks(8, 4, 2))


def test_the_loss_curve_begins_at_step_one() -> None:
    (line,) = loss_curve([3.0, 2.0, 1.5]).axes[0].lines
    assert list(line.get_xdata()) == [1, 2, 3]
    assert list(line.get_ydata()) == [3.0, 2.0, 1.5]
    with pytest.raises(LessonkitError):
        loss_curve([])
