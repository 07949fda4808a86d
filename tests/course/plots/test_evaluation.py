"""The figures of measurements: surprise by token, the front, differences with intervals."""

from __future__ import annotations

import pytest

from lessonkit.course.plots.evaluation import differences, pareto, pareto_front, surprise
from lessonkit.errors import LessonkitError

FAMILIES = {
    "rounding": {"int4": (4.5, 2e-3), "int8": (8.5, 1e-5)},
    "GGUF": {"q4": (4.4, 1e-3), "q8": (8.6, 1e-5), "q2": (2.6, 1e-2)},
}


def test_a_bar_for_each_token() -> None:
    axes = surprise(["The", "isle"], [1.0, 3.0]).axes[0]
    assert [bar.get_height() for bar in axes.patches] == [1.0, 3.0]
    assert [label.get_text() for label in axes.get_xticklabels()] == ["The", "isle"]
    assert list(axes.lines[0].get_ydata()) == [2.0, 2.0], "the mean"
    with pytest.raises(LessonkitError, match="needs its surprise"):
        surprise(["The"], [1.0, 2.0])


def test_the_front_is_what_nobody_beats() -> None:
    points = {name: point for members in FAMILIES.values() for name, point in members.items()}
    assert pareto_front(points) == ["q2", "q4", "int8"]
    for name, (bits, loss) in points.items():
        better = [
            other
            for other, (b, x) in points.items()
            if other != name and b <= bits and x <= loss and (b, x) != (bits, loss)
        ]
        assert (name in pareto_front(points)) == (not better)


def test_families_have_markers_of_their_own_and_the_front_its_names() -> None:
    axes = pareto(FAMILIES, "KL").axes[0]
    assert axes.get_yscale() == "log"
    assert sorted(text.get_text() for text in axes.texts) == ["int8", "q2", "q4"]
    drawn = [line for line in axes.lines if line.get_marker() not in ("None", None, "")]
    assert len({line.get_marker() for line in drawn}) == len(drawn) == 2
    with pytest.raises(LessonkitError, match="no place for 0"):
        pareto({"a": {"same": (16.0, 0.0)}}, "KL")


def test_real_differences_are_filled_and_others_hollow() -> None:
    axes = differences({"a": (0.1, 0.05, 0.15, True), "b": (0.0, -0.1, 0.1, False)}, "x").axes[0]
    dots = [line for line in axes.lines if line.get_marker() in ("D", "o")]
    assert [dot.get_marker() for dot in dots] == ["D", "o"]
    assert dots[1].get_markerfacecolor() == "white" != dots[0].get_markerfacecolor()
    assert [label.get_text() for label in axes.get_yticklabels()] == ["a", "b"]
    assert [list(line.get_xdata()) for line in axes.lines if len(line.get_xdata()) == 2][1:] == [
        [0.05, 0.15],
        [-0.1, 0.1],
    ]


def test_nothing_to_draw_is_refused() -> None:
    for draw in (
        lambda: surprise([], []),
        lambda: pareto({}, "KL"),
        lambda: pareto({"a": {}}, "KL"),
        lambda: differences({}, "x"),
    ):
        with pytest.raises(LessonkitError, match="nothing to draw"):
            draw()
