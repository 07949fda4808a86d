"""Strips of tokens: every token is drawn once, in order, and the template's own differ in hatch."""

from __future__ import annotations

from matplotlib.patches import Rectangle

from lessonkit.course.plots import template_strips


def test_every_token_is_drawn_once_and_the_rows_fit() -> None:
    strip = [(f"token{n}", n % 3 == 0) for n in range(60)] + [("$x$", False)]
    figure = template_strips({"one": strip, "two": [("a", True)]})
    (axes,) = figure.axes
    texts = [text.get_text() for text in axes.texts]
    assert texts == [
        "one: 61 tokens, 20 of them the template's", *(text for text, _ in strip),
        "two: 1 tokens, 1 of them the template's", "a",
    ]  # fmt: skip
    boxes = [patch for patch in axes.patches if isinstance(patch, Rectangle)]
    assert [bool(box.get_hatch()) for box in boxes] == [own for _, own in [*strip, ("a", True)]]
    left, right = axes.get_xlim()
    assert all(left <= box.get_x() and box.get_x() + box.get_width() <= right for box in boxes)
    assert len({box.get_y() for box in boxes}) > 4
    figure.canvas.draw()  # "$x$" is no formula
