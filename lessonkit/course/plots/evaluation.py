"""Drawings of measurements: surprise by token, loss against size, differences with intervals."""

from __future__ import annotations

from collections.abc import Mapping, Sequence

from matplotlib.figure import Figure
from matplotlib.lines import Line2D

from lessonkit.course.plots.style import (
    BLUE,
    FAINT,
    MARKERS,
    PALETTE,
    RED,
    new_figure,
    refuse_empty,
)
from lessonkit.errors import LessonkitError

__all__ = ["differences", "pareto", "pareto_front", "surprise"]


def surprise(tokens: Sequence[str], bits: Sequence[float]) -> Figure:
    """A bar for each token of a text: the bits by which it surprised the model."""
    refuse_empty(tokens, "tokens")
    if len(tokens) != len(bits):
        raise LessonkitError(
            "Each token needs its surprise.",
            where=f"{len(tokens)} tokens, {len(bits)} numbers",
            remedy="Leave out the first token: nothing predicts it.",
        )
    figure = new_figure(3.6)
    axes = figure.add_subplot()
    axes.bar(range(len(tokens)), bits, color=BLUE, width=0.8)
    axes.set_xticks(range(len(tokens)), tokens, rotation=60, ha="right", rotation_mode="anchor")
    axes.tick_params(axis="x", length=0, labelsize=10)
    axes.axhline(sum(bits) / len(bits), color=FAINT, linestyle="--", label="mean")
    axes.set(ylabel="surprise in bits", xlim=(-0.7, len(tokens) - 0.3))
    axes.grid(True, axis="y")
    axes.legend(loc="upper right")
    return figure


def pareto_front(points: Mapping[str, tuple[float, float]]) -> list[str]:
    """The names that nobody beats, from small to large: fewer bits always cost more loss.

    `points` maps a name to (bits, loss). Of two with the same bits the smaller loss counts, and
    what has more bits must have less loss than all before it.
    """
    front: list[str] = []
    for name, (_, loss) in sorted(points.items(), key=lambda item: item[1]):
        if not front or loss < points[front[-1]][1]:
            front.append(name)
    return front


def pareto(families: Mapping[str, Mapping[str, tuple[float, float]]], ylabel: str) -> Figure:
    """Loss against bits a weight, by family, and the front of those that nobody beats.

    `families` maps a family to its formats, name -> (bits, loss above 0). The loss has a
    logarithmic axis. Names stand beside the points of the front.
    """
    refuse_empty(families, "families")
    points = {name: point for members in families.values() for name, point in members.items()}
    refuse_empty(points, "families")
    if bad := [name for name, (_, loss) in points.items() if not loss > 0]:
        raise LessonkitError(
            "A logarithmic axis has no place for 0 and below.",
            where=", ".join(bad),
            remedy="Leave such points out, or draw another measure.",
        )
    front = pareto_front(points)
    figure = new_figure(5.0)
    axes = figure.add_subplot()
    corners = [points[name] for name in front]
    axes.step(*zip(*corners, strict=True), where="post", color=FAINT, linestyle="--", linewidth=1.2)
    for number, (family, members) in enumerate(families.items()):
        marker, colour = MARKERS[number % len(MARKERS)], PALETTE[number % len(PALETTE)]
        axes.plot(*zip(*members.values(), strict=True), marker=marker, color=colour, markersize=9,
                  linestyle="", label=family)  # fmt: skip
    for name in front:
        axes.annotate(name, points[name], (-7, -5), textcoords="offset points", fontsize=9.5,
                      ha="right", va="top")  # fmt: skip
    axes.set_yscale("log")
    axes.set(xlabel="bits a weight, all tensors of the model", ylabel=ylabel)
    axes.margins(x=0.16, y=0.12)
    axes.grid(True)
    handles = [*axes.get_legend_handles_labels()[0]]
    handles.append(Line2D([], [], color=FAINT, linestyle="--", label="nobody is better"))
    axes.legend(handles=handles, loc="upper right")
    return figure


def differences(rows: Mapping[str, tuple[float, float, float, bool]], xlabel: str) -> Figure:
    """A row for each difference: its estimate, its interval, and whether it is real.

    `rows` maps a name to (estimate, low, high, real). Real ones are filled, others hollow; the
    line at 0 means no difference.
    """
    refuse_empty(rows, "rows")
    figure = new_figure(1.0 + 0.27 * len(rows))
    axes = figure.add_subplot()
    axes.axvline(0, color=FAINT, linewidth=1.2)
    for position, (middle, low, high, real) in enumerate(rows.values()):
        colour = RED if real else BLUE
        axes.plot([low, high], [position, position], color=colour, linewidth=2.0)
        axes.plot([middle], [position], marker="D" if real else "o", color=colour,
                  markerfacecolor=colour if real else "white", markersize=7)  # fmt: skip
    axes.set_yticks(range(len(rows)), list(rows))
    axes.tick_params(axis="y", length=0)
    axes.invert_yaxis()
    axes.set(xlabel=xlabel)
    axes.grid(True, axis="x")
    looks = [("real", "D", RED, RED), ("may be chance", "o", BLUE, "white")]
    figure.legend(
        handles=[
            Line2D([], [], marker=marker, color=colour, markerfacecolor=face, label=label)
            for label, marker, colour, face in looks
        ],
        loc="outside upper right",
        ncols=2,
    )
    return figure
