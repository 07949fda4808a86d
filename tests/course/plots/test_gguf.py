"""The figures of GGUF: the map of a file, a block's bytes, a mix, a search, loss against bits."""

from __future__ import annotations

import pytest
from matplotlib.patches import Rectangle

from lessonkit.course.plots.gguf import (
    block_bytes,
    file_map,
    loss_against_bits,
    mix_grid,
    search_curve,
)
from lessonkit.errors import LessonkitError


def boxes(figure) -> list[Rectangle]:
    return [patch for patch in figure.axes[0].patches if isinstance(patch, Rectangle)]


def words(figure) -> list[str]:
    return [text.get_text() for text in figure.axes[0].texts]


def test_the_parts_of_a_file_are_to_scale_and_leave_no_gap() -> None:
    figure = file_map({"file": [("head", 0, 100), ("Q4_K", 100, 700), ("Q6_K", 700, 1000)]})
    found = [(box.get_x(), box.get_width()) for box in boxes(figure)]
    assert found == [pytest.approx(pair) for pair in [(0, 0.1), (0.1, 0.6), (0.7, 0.3)]]
    assert {"0", "1,000"} <= set(words(figure))


def test_a_strip_begins_at_its_own_first_byte_and_narrow_parts_have_no_words() -> None:
    figure = file_map({"middle": [("a", 1000, 1001), ("b", 1001, 1100)]})
    assert boxes(figure)[0].get_x() == 0
    assert "b" in words(figure) and "a" not in words(figure)
    assert [text.get_text() for text in figure.legends[0].get_texts()] == ["a", "b"]


def test_the_same_words_have_the_same_look() -> None:
    first, second, third = boxes(file_map({"f": [("a", 0, 1), ("b", 1, 2), ("a", 2, 3)]}))
    assert first.get_facecolor() == third.get_facecolor() != second.get_facecolor()
    assert first.get_hatch() == third.get_hatch() != second.get_hatch()


def test_a_block_shows_every_byte_in_order_sixteen_in_a_row() -> None:
    raw = bytes(range(18))
    figure = block_bytes([("d", raw[:2]), ("qs", raw[2:])])
    assert [w for w in words(figure) if len(w) == 2 and w != "16"] == [f"{b:02x}" for b in raw]
    assert len({round(box.get_y(), 3) for box in boxes(figure)}) == 2
    assert [text.get_text() for text in figure.legends[0].get_texts()] == ["d (2)", "qs (16)"]


def test_a_mix_has_a_box_for_each_layer() -> None:
    figure = mix_grid({"attn_v": ["Q4_K", "Q6_K"], "ffn_up": ["Q4_K", "Q4_K"]})
    looks = [box.get_facecolor() for box in boxes(figure)]
    assert len(looks) == 4 and looks[0] == looks[2] == looks[3] != looks[1]


def test_a_search_marks_its_smallest_error() -> None:
    figure = search_curve([0.8, 0.9, 1.0], [3.0, 1.0, 2.0], plain=4.0)
    star = next(line for line in figure.axes[0].lines if line.get_marker() == "*")
    assert (list(star.get_xdata()), list(star.get_ydata())) == ([0.9], [25.0])
    with pytest.raises(LessonkitError, match="Each try needs its error"):
        search_curve([1.0], [1.0, 2.0], plain=1.0)


def test_loss_has_a_point_for_each_name_on_a_logarithmic_axis() -> None:
    figure = loss_against_bits({"b": (4.5, 1e-3), "a": (2.6, 1e-2)}, "KL")
    axes = figure.axes[0]
    assert axes.get_yscale() == "log"
    assert [text.get_text() for text in axes.texts] == ["a", "b"]
    with pytest.raises(LessonkitError, match="no place for 0"):
        loss_against_bits({"same": (32.0, 0.0)}, "KL")


def test_nothing_to_draw_is_refused() -> None:
    for draw in (file_map, mix_grid, block_bytes):
        with pytest.raises(LessonkitError, match="nothing to draw"):
            draw({} if draw is not block_bytes else [])
