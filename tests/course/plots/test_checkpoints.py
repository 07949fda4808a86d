"""The figures of checkpoints: the parts of a file, the cuts of a tensor, the shared heads."""

from __future__ import annotations

import pytest
from matplotlib.backends.backend_agg import FigureCanvasAgg
from matplotlib.patches import Rectangle

from lessonkit.course.plots import style as card
from lessonkit.course.plots.checkpoints import file_strips, shard_cuts, shared_heads
from lessonkit.errors import LessonkitError

FILES = {"a.pth": ["data/0", "*data.pkl"], "b.safetensors": ["*header", "values", "more values"]}


def boxes(figure) -> list[Rectangle]:
    return [patch for patch in figure.axes[0].patches if isinstance(patch, Rectangle)]


def test_the_parts_of_a_file_fill_its_strip_without_gaps() -> None:
    rows: dict[float, list[Rectangle]] = {}
    for box in boxes(file_strips(FILES)):
        rows.setdefault(box.get_y(), []).append(box)
    assert [len(row) for row in rows.values()] == [2, 3]
    for row in rows.values():
        ends = [box.get_x() + box.get_width() for box in row]
        assert [box.get_x() for box in row] == pytest.approx([0.0, *ends[:-1]])
        assert ends[-1] == pytest.approx(12)


def test_marked_parts_have_a_thick_frame_and_lose_their_star() -> None:
    figure = file_strips(FILES)
    thick = [box.get_linewidth() > 2 for box in boxes(figure)]
    assert thick == [False, True, True, False, False]
    assert not any("*" in text.get_text() for text in figure.axes[0].texts)


def test_the_words_of_a_part_lie_inside_it() -> None:
    figure = file_strips({"file": ["8 bytes: length\nof the header", "x", "names and shapes"]})
    FigureCanvasAgg(figure).draw()
    words = figure.axes[0].texts[1:]
    for box, text in zip(boxes(figure), words, strict=True):
        inner, outer = text.get_window_extent(), box.get_window_extent()
        assert outer.x0 <= inner.x0 and inner.x1 <= outer.x1


def test_a_matrix_is_cut_by_rows_or_columns_and_a_vector_copied() -> None:
    figure = shard_cuts({"wq": ((8, 4), 0), "wo": ((8, 4), 1), "norm": ((4,), None)}, 2)
    by_rows, by_columns, copies = (boxes(figure)[i : i + 2] for i in (0, 2, 4))
    assert by_rows[0].get_x() == by_rows[1].get_x()
    assert by_rows[0].get_y() == pytest.approx(by_rows[1].get_height())  # shard 0 on top
    assert by_columns[0].get_y() == by_columns[1].get_y() == 0
    assert by_columns[1].get_x() == pytest.approx(
        by_columns[0].get_x() + by_columns[0].get_width()
    )  # fmt: skip
    assert copies[0].get_height() == copies[1].get_height()
    assert copies[1].get_x() > copies[0].get_x() + copies[0].get_width()
    words = [text.get_text() for text in figure.axes[0].texts]
    assert words == [
        "0", "1", "wq\n8×4\nby rows", "0", "1", "wo\n8×4\nby columns",
        "0", "1", "norm\n4\ncopied",
    ]  # fmt: skip


def test_shards_differ_in_more_than_colour() -> None:
    figure = shard_cuts({"wq": ((8, 4), 0)}, 4)
    assert len({box.get_hatch() for box in boxes(figure)}) == 4


def test_neighbouring_query_heads_share() -> None:
    figure = shared_heads(4, 2)
    ends = [tuple(line.get_xdata()) for line in figure.axes[0].lines]
    assert ends == [(0, 0.5), (1, 0.5), (2, 2.5), (3, 2.5)]
    words = [text.get_text() for text in figure.axes[0].texts]
    assert words[:6] == ["q0", "q1", "q2", "q3", "k0  v0", "k1  v1"]
    hatches = [box.get_hatch() for box in boxes(figure)]
    assert hatches == ["", "", "///", "///", "", "///"]


def test_many_heads_are_drawn_without_numbers() -> None:
    words = [text.get_text() for text in shared_heads(64, 8).axes[0].texts]
    assert not any(word.startswith("q") and word[1:].isdigit() for word in words)
    assert "k7  v7" in words


@pytest.mark.parametrize(("heads", "kv_heads"), [(4, 3), (4, 0)])
def test_heads_that_cannot_be_shared_are_told(heads: int, kv_heads: int) -> None:
    with pytest.raises(LessonkitError, match="cannot be shared"):
        shared_heads(heads, kv_heads)


@pytest.mark.parametrize("draw", [file_strips, lambda tensors: shard_cuts(tensors, 2)])
def test_nothing_to_draw_is_told(draw) -> None:
    with pytest.raises(LessonkitError, match="nothing to draw"):
        draw({})


def test_the_same_figure_makes_the_same_bytes() -> None:
    assert card.png_of(file_strips(FILES)) == card.png_of(file_strips(FILES))
