"""Pictures of lesson 04: low rank as blocks, and a loss that falls."""

from __future__ import annotations

from collections.abc import Sequence

from matplotlib.axes import Axes
from matplotlib.figure import Figure
from matplotlib.patches import Rectangle

from lessonkit.course.plots.style import BLACK, BLUE, FAINT, GREEN, ORANGE, new_figure, refuse_empty
from lessonkit.errors import LessonkitError

__all__ = ["loss_curve", "low_rank_blocks"]

_THINNEST = 0.22  # a side of rank 1 must still be seen
_GAP = 0.75  # room for a sign between two blocks


def low_rank_blocks(outputs: int, inputs: int, rank: int) -> Figure:
    """W, B and A as blocks with their shapes and their numbers of values, to scale.

    The side of `rank` is drawn thicker than it is where it would be too thin to see.
    """
    if min(outputs, inputs, rank) < 1 or rank > min(outputs, inputs):
        raise LessonkitError(
            "These blocks cannot be drawn.",
            where=f"outputs={outputs}, inputs={inputs}, rank={rank}",
            remedy="Choose a rank from 1 to the smaller of the two sizes.",
        )
    unit = 3.2 / max(outputs, inputs)
    height, width, thin = outputs * unit, inputs * unit, max(rank * unit, _THINNEST)
    figure = new_figure(4.3)
    axes = figure.add_subplot()
    blocks = [
        ("W", "frozen", outputs, inputs, width, height, BLUE, "", ""),
        ("B", "trained", outputs, rank, thin, height, ORANGE, "///", "+  scale ×"),
        ("A", "trained", rank, inputs, width, thin, GREEN, "...", "×"),
    ]
    left = 0.0
    for name, state, rows, columns, wide, high, colour, hatch, sign in blocks:
        if sign:
            room = _GAP if sign == "×" else 2.2 * _GAP
            axes.text(
                left + room / 2, 0, sign, ha="center", va="center", fontsize=15, weight="bold"
            )
            left += room
        _draw(axes, (left, -high / 2, wide, high), colour, hatch)
        words = f"{name}, {state}\n{rows:,} × {columns:,}\n= {rows * columns:,} values"
        centre = left + wide / 2
        axes.text(centre, -height / 2 - 0.15, words, ha="center", va="top", fontsize=11)
        left += wide
    axes.set(xlim=(-0.6, left + 0.6), ylim=(-height / 2 - 1.05, height / 2 + 0.15))
    axes.set_aspect("equal")
    axes.set_axis_off()
    return figure


def loss_curve(losses: Sequence[float]) -> Figure:
    """The loss at each step of a training, in nats a token, from step 1."""
    refuse_empty(losses, "losses")
    figure = new_figure(2.8)
    axes = figure.add_subplot()
    axes.plot(range(1, len(losses) + 1), losses, color=BLUE, marker="o", markersize=4)
    axes.set(xlabel="step", ylabel="loss, nats a token", ylim=(0, None))
    return figure


def _draw(axes: Axes, place: tuple[float, float, float, float], colour: str, hatch: str) -> None:
    x, y, wide, high = place
    axes.add_patch(
        Rectangle((x, y), wide, high, facecolor=colour, alpha=0.25, edgecolor="none", zorder=1)
    )
    edge = BLACK if not hatch else FAINT
    axes.add_patch(
        Rectangle((x, y), wide, high, fill=False, hatch=hatch, edgecolor=edge, linewidth=1.6)
    )
