"""Drawings for AWQ: input channels, searched scales, a word's order, method by container."""

from __future__ import annotations

import math
from collections.abc import Collection, Mapping, Sequence

from matplotlib.figure import Figure
from matplotlib.patches import Rectangle

from lessonkit.course.plots.style import (
    BLUE,
    DASHES,
    FAINT,
    MARKERS,
    PALETTE,
    RED,
    new_figure,
    refuse_empty,
)
from lessonkit.errors import LessonkitError

__all__ = ["channel_magnitudes", "method_by_container", "searched_curves", "word_order"]

_PANELS_IN_A_ROW = 2
_LIGHT, _DARK = (0.97, 0.98, 1.0), (0.42, 0.66, 0.85)  # of a cell: the least and the most


def channel_magnitudes(
    panels: Mapping[str, Sequence[float]], marked: Mapping[str, Collection[int]], label: str
) -> Figure:
    """One panel for each name: how large each channel is, in place, the marked ones with a dot.

    `panels` holds the magnitudes, `marked` the numbers of the channels to point out. A dashed line
    shows the panel's median.
    """
    refuse_empty(panels, "panels")
    rows = -(-len(panels) // _PANELS_IN_A_ROW)
    figure = new_figure(0.3 + 2.1 * rows)
    grid = figure.subplots(rows, _PANELS_IN_A_ROW, squeeze=False)
    for axes in grid.flat[len(panels) :]:
        axes.set_axis_off()
    for axes, (name, values) in zip(grid.flat, panels.items(), strict=False):
        refuse_empty(values, name)
        few = sorted(marked.get(name, ()))
        axes.vlines(range(len(values)), 0, values, color=BLUE, linewidth=0.8)
        tops = [values[i] for i in few]
        axes.vlines(few, 0, tops, color=RED, linewidth=1.6)
        axes.plot(few, tops, marker="o", color=RED, markersize=5.5, linestyle="")
        middle = sorted(values)[len(values) // 2]
        axes.axhline(middle, color=FAINT, linestyle="--", linewidth=1.2)
        axes.set_title(f"{name}: largest / median {max(values) / middle:.1f}", fontsize=11.5)
        axes.set_ylim(bottom=0)
        axes.margins(x=0.01)
    for axes in grid[:, 0]:
        axes.set_ylabel(label)
    for axes in grid[-1]:
        axes.set_xlabel("input channel")
    return figure


def searched_curves(
    curves: Mapping[str, Sequence[tuple[float, float]]],
    *,
    xlabel: str,
    ylabel: str,
    lines: Mapping[str, float] | None = None,
) -> Figure:
    """What a search found: (tried, loss) for each point of a curve; the lowest has a star.

    `lines` are losses to compare with, drawn as dashed lines with their names.
    """
    refuse_empty(curves, "curves")
    figure = new_figure(4.0)
    axes = figure.add_subplot()
    for index, (name, points) in enumerate(curves.items()):
        refuse_empty(points, name)
        colour = PALETTE[index % len(PALETTE)]
        tried, losses = zip(*points, strict=True)
        axes.plot(tried, losses, label=name, color=colour, marker=MARKERS[index % len(MARKERS)],
                  markersize=5, linestyle=DASHES[index % len(DASHES)])  # fmt: skip
        best = losses.index(min(losses))
        axes.plot([tried[best]], [losses[best]], marker="*", markersize=17, color=colour,
                  linestyle="")  # fmt: skip
    for index, (name, level) in enumerate((lines or {}).items()):
        axes.axhline(level, color=FAINT, linestyle=DASHES[1 + index % 3], linewidth=1.4)
        axes.annotate(name, (1, level), (-4, 4), xycoords=("axes fraction", "data"),
                      textcoords="offset points", ha="right", color=FAINT)  # fmt: skip
    axes.set(xlabel=xlabel, ylabel=ylabel)
    axes.set_ylim(bottom=0)
    axes.grid(True)
    axes.legend(loc="upper left")
    return figure


def word_order(order: Sequence[int], codes: Sequence[int]) -> Figure:
    """Where eight neighbouring columns' codes go in a word of eight 4-bit fields.

    Field i of the word, counted from the lowest, holds the code of column `order[i]`. The word is
    drawn as it is written, the highest field first.
    """
    if sorted(order) != list(range(len(codes))):
        raise LessonkitError(
            "Each column must go into one field.",
            where=f"order={list(order)}, {len(codes)} codes",
            remedy="Give a permutation of the columns' numbers.",
        )
    count = len(codes)
    figure = new_figure(3.0)
    axes = figure.add_subplot()
    for column, code in enumerate(codes):
        field = list(order).index(column)
        place = count - 1 - field
        odd = column % 2 == 1
        tint, hatch = ("#F7E7B2", "///") if odd else ("#C6E3F5", "")
        for x, y in ((column, 2.2), (place, 0.0)):
            box = Rectangle((x + 0.06, y), 0.88, 0.62, facecolor=tint, hatch=hatch, edgecolor=BLUE)
            axes.add_patch(box)
            ground = {"facecolor": tint, "edgecolor": "none", "pad": 1.0}
            axes.text(x + 0.5, y + 0.31, f"{code:X}", ha="center", va="center", bbox=ground)
        arrow = {"arrowstyle": "->", "color": FAINT, "linewidth": 1.1}
        axes.annotate("", (place + 0.5, 0.66), (column + 0.5, 2.16), arrowprops=arrow)
        axes.text(column + 0.5, 2.92, f"{column}", ha="center", color=FAINT)
        axes.text(place + 0.5, -0.12, f"{4 * field + 3}..{4 * field}", ha="center", va="top",
                  color=FAINT, fontsize=9.5)  # fmt: skip
    axes.text(-0.15, 2.51, "column's code", ha="right", va="center")
    axes.text(-0.15, 0.31, "word", ha="right", va="center")
    axes.text(-0.15, -0.12, "bits", ha="right", va="top", color=FAINT, fontsize=9.5)
    axes.set(xlim=(-1.9, count), ylim=(-0.5, 3.25))
    axes.set_axis_off()
    return figure


def method_by_container(
    table: Mapping[str, Sequence[float | None]], containers: Sequence[str], title: str
) -> Figure:
    """A table of losses: method -> one loss above 0 for each container, None where there is none.

    Darker cells have the larger loss, on a logarithmic scale; the best cell of each column has a
    thick frame and bold figures.
    """
    refuse_empty(table, "table")
    if bad := [name for name, row in table.items() if len(row) != len(containers)]:
        raise LessonkitError(
            f"Each method needs an entry for each of {len(containers)} containers.",
            where=", ".join(bad),
            remedy="Put None where a method and a container do not go together.",
        )
    known = [loss for row in table.values() for loss in row if loss is not None]
    refuse_empty(known, "table")
    low, high = math.log(min(known)), math.log(max(known))
    figure = new_figure(0.9 + 0.55 * len(table))
    axes = figure.add_subplot()
    for column, container in enumerate(containers):
        axes.text(column + 0.5, 0.62, container, ha="center", va="bottom")
        losses = [row[column] for row in table.values()]
        best = min((loss for loss in losses if loss is not None), default=None)
        for row, loss in enumerate(losses):
            share = 0.0 if loss is None or high == low else (math.log(loss) - low) / (high - low)
            tint = tuple(a + share * (b - a) for a, b in zip(_LIGHT, _DARK, strict=True))
            first = loss is not None and loss == best
            axes.add_patch(
                Rectangle(
                    (column + 0.04, -row - 0.42),
                    0.92,
                    0.84,
                    facecolor="none" if loss is None else tint,
                    edgecolor=BLUE if first else FAINT,
                    linewidth=2.4 if first else 0.6,
                    linestyle=":" if loss is None else "-",
                    zorder=3 if first else 1,
                )  # fmt: skip
            )
            axes.text(column + 0.5, -row, "–" if loss is None else f"{loss:.2f}", ha="center",
                      va="center", weight="bold" if first else "normal", zorder=4)  # fmt: skip
    for row, name in enumerate(table):
        axes.text(-0.1, -row, name, ha="right", va="center")
    axes.set_title(title, fontsize=11.5)
    axes.set(xlim=(-0.36 * len(containers), len(containers)), ylim=(-len(table) + 0.45, 1.1))
    axes.set_axis_off()
    return figure
