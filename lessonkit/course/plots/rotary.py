"""Drawings of rotary embeddings: which rows of a head form a pair, and how far each pair turns."""

from __future__ import annotations

from collections.abc import Sequence
from typing import Any

import numpy as np
from matplotlib.axes import Axes
from matplotlib.figure import Figure
from matplotlib.patches import Circle, Rectangle

from lessonkit.course.plots.style import BLACK, FAINT, PALETTE, new_figure
from lessonkit.errors import LessonkitError

__all__ = ["rotary_dials", "rotary_layouts"]

_META, _HF = 1.0, -1.0  # the heights of the two rows of boxes
_HALF = 0.24  # half a box's height
_HATCHES = ("", "///", "...", "\\\\\\", "xxx", "---", "ooo")


def rotary_layouts(head_size: int = 8) -> Figure:
    """The rows of one head in Meta's order and in Hugging Face's, and which two make a pair.

    Each box bears the number of its row in Meta's file; lines show where it goes. A bracket joins
    the two rows of a pair. `head_size` is even, from 2 to 12.
    """
    if head_size % 2 or not 2 <= head_size <= 12:
        raise LessonkitError(
            "A head of this size cannot be drawn.",
            where=f"head_size={head_size}",
            remedy="Choose an even number from 2 to 12.",
        )
    half = head_size // 2
    order = [*range(0, head_size, 2), *range(1, head_size, 2)]
    figure = new_figure(3.5 + 0.25 * half)
    axes = figure.add_subplot()
    between = (_META - _HALF, _HF + _HALF)
    for place, row in enumerate(order):
        axes.plot((row, place), between, color=_colour(row // 2), linewidth=1.6)
    for row in range(head_size):
        _draw_box(axes, row, _META, row)
        _draw_box(axes, row, _HF, order[row])
    for pair in range(half):
        _draw_bracket(axes, 2 * pair, 2 * pair + 1, _META + _HALF, 0.3, pair)
        _draw_bracket(axes, pair, pair + half, _HF - _HALF, -0.3 - 0.3 * pair, pair)
    for height, text in ((_META, "Meta:\nneighbours"), (_HF, "Hugging Face:\nhalves")):
        axes.text(-0.75, height, text, ha="right", va="center", weight="bold", fontsize=11.5)
    axes.set(xlim=(-2.6, head_size + 0.1), ylim=(_HF - 0.4 - 0.3 * half, _META + 0.85))
    axes.set_axis_off()
    return figure


def rotary_dials(frequencies: Sequence[float], tokens: Sequence[int]) -> Figure:
    """One dial for each pair (row) and token (column): how far the pair has turned there.

    `frequencies` are in radians a token. The hand begins at the right and turns anticlockwise.
    """
    if len(frequencies) == 0 or len(tokens) == 0:
        raise LessonkitError("There is nothing to draw.", where="frequencies or tokens is empty")
    figure = new_figure(0.7 + 1.16 * len(frequencies))
    axes = figure.add_subplot()
    for row, frequency in enumerate(frequencies):
        label = f"pair {row}\n{frequency:.3g} rad a token"
        axes.text(-0.75, -row, label, ha="right", va="center", fontsize=11)
        for column, token in enumerate(tokens):
            _draw_dial(axes, column, -row, token * frequency, _colour(row))
    for column, token in enumerate(tokens):
        axes.text(column, 0.62, f"token {token}", ha="center", fontsize=11)
    axes.set(xlim=(-2.2, len(tokens) - 0.4), ylim=(0.55 - len(frequencies), 0.85))
    axes.set_aspect("equal")
    axes.set_axis_off()
    return figure


def _colour(pair: int) -> str:
    return PALETTE[pair % len(PALETTE)]


def _draw_box(axes: Axes, place: int, height: float, row: int) -> None:
    """The box of one row, hatched for its pair, with its number in Meta's order."""
    style: dict[str, Any] = {"edgecolor": _colour(row // 2), "linewidth": 1.6}
    hatch = _HATCHES[row // 2 % len(_HATCHES)]
    corner = (place - 0.38, height - _HALF)
    axes.add_patch(Rectangle(corner, 0.76, 2 * _HALF, facecolor="white", hatch=hatch, **style))
    ground = {"facecolor": "white", "edgecolor": "none", "pad": 1.2}  # no hatch behind a number
    axes.text(place, height, str(row), ha="center", va="center", weight="bold", bbox=ground)


def _draw_bracket(
    axes: Axes, left: float, right: float, start: float, reach: float, pair: int
) -> None:
    """A bracket from box to box, with the pair's number where the line is free."""
    ends = [start, start + reach, start + reach, start]
    axes.plot([left, left, right, right], ends, color=_colour(pair), linewidth=1.8)
    above = reach > 0
    place = ((left + right) / 2, start + reach) if above else (right, start + reach)
    axes.annotate(
        f"pair {pair}", place, (0, 4) if above else (6, 0), textcoords="offset points",
        ha="center" if above else "left", va="bottom" if above else "center", fontsize=10.5,
    )  # fmt: skip


def _draw_dial(axes: Axes, x: float, y: float, angle: float, colour: str) -> None:
    axes.add_patch(Circle((x, y), 0.4, facecolor="white", edgecolor=FAINT, linewidth=1.2))
    axes.plot([x, x + 0.4], [y, y], color=FAINT, linewidth=1, linestyle=":")
    hand = (x + 0.34 * np.cos(angle), y + 0.34 * np.sin(angle))
    style = {"arrowstyle": "-|>", "color": colour, "linewidth": 2, "shrinkA": 0, "shrinkB": 0}
    axes.annotate("", hand, (x, y), arrowprops=style)
    axes.plot(x, y, marker="o", markersize=3, color=BLACK)
