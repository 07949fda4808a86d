"""Drawings for few-bit formats: levels, how full they are, error and recall against bits."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from statistics import NormalDist
from typing import Any

import numpy as np
import numpy.typing as npt
from matplotlib.figure import Figure

from lessonkit.course.plots.style import (
    BLACK,
    BLUE,
    CARD,
    DASHES,
    FAINT,
    MARKERS,
    ORANGE,
    PALETTE,
    SKY,
    new_figure,
    refuse_empty,
)

__all__ = ["error_against_bits", "level_shares", "levels_under_bell", "recall_against_bits"]


def levels_under_bell(levels: npt.ArrayLike) -> Figure:
    """The standard normal curve, and each level as a line from the axis up to the curve.

    `levels` are in standard deviations. Each line bears its number from the left.
    """
    places = np.sort(np.asarray(levels, np.float64).reshape(-1))
    refuse_empty(places, "levels")
    density = np.vectorize(NormalDist().pdf)
    reach = 1.25 * max(float(np.abs(places).max()), 1.0)
    x = np.linspace(-reach, reach, 301)
    figure = new_figure(3.6)
    axes = figure.add_subplot()
    axes.fill_between(x, density(x), color=SKY, alpha=0.45, linewidth=0)
    axes.plot(x, density(x), color=BLUE)
    heights = density(places)
    axes.vlines(places, 0, heights, color=ORANGE, linewidth=2)
    for number, (place, height) in enumerate(zip(places, heights, strict=True)):
        axes.annotate(str(number), (place, height), (0, 4), textcoords="offset points", ha="center")
    axes.set(xlim=(-reach, reach), ylim=(0, 0.46), xlabel="standard deviations")
    axes.set_yticks([])
    axes.spines["left"].set_visible(False)
    return figure


def level_shares(shares: Mapping[str, Sequence[float]], *, even: float | None = None) -> Figure:
    """How many of the weights each level gets: a panel of bars for each name -> shares (0 to 1).

    `even` draws a dashed line at the share that each would have if all were equally full.
    """
    refuse_empty(shares, "shares")
    figure = new_figure(0.6 + 1.75 * len(shares))
    panels = figure.subplots(len(shares), 1, sharey=True, squeeze=False)[:, 0]
    for axes, (name, values) in zip(panels, shares.items(), strict=True):
        percents = 100 * np.asarray(values, np.float64)
        ground = {"facecolor": CARD, "edgecolor": "none", "pad": 0.6}  # no line behind a number
        axes.bar(range(percents.size), percents, width=0.78, color=SKY, edgecolor=BLUE)
        if even is not None:
            axes.axhline(100 * even, color=BLACK, linestyle="--", linewidth=1.4)
        for place, percent in enumerate(percents):
            axes.annotate(
                f"{percent:.1f}", (place, percent), (0, 4), textcoords="offset points",
                ha="center", fontsize=9.5, bbox=ground,
            )  # fmt: skip
        axes.set_title(name, loc="left", fontsize=11.5)
        axes.set_xticks(range(percents.size))
        axes.set_ylabel("% of weights")
        axes.margins(y=0.22)
    panels[-1].set_xlabel("level, from the lowest to the highest")
    return figure


def error_against_bits(
    curves: Mapping[str, Sequence[tuple[float, float]]], points: Sequence[str] = ()
) -> Figure:
    """Error in percent against bits a weight: name -> (bits, error) for each point of a curve.

    `points` are words for the points of the first curve, a block size for example.
    """
    figure = _against_bits(curves, points)
    axes = figure.axes[0]
    axes.set_ylabel("error in %")
    axes.legend(loc="upper right")
    return figure


def recall_against_bits(curves: Mapping[str, Sequence[tuple[float, float]]]) -> Figure:
    """Recall against bits a weight: name -> (bits, share from 0 to 1) for each point of a curve.

    The bits shrink to the right, so that the loss looks like what it is: a cliff.
    """
    percents = {name: [(b, 100 * share) for b, share in curve] for name, curve in curves.items()}
    figure = _against_bits(percents)
    axes = figure.axes[0]
    axes.set(ylim=(-4, 108), ylabel="recall in %")
    axes.invert_xaxis()
    axes.legend(loc="lower left")
    return figure


def _against_bits(
    curves: Mapping[str, Sequence[tuple[float, float]]], points: Sequence[str] = ()
) -> Figure:
    """A line with markers for each name -> (bits, value), the first with words at its points."""
    refuse_empty(curves, "curves")
    figure = new_figure(4.2)
    axes = figure.add_subplot()
    for index, (name, values) in enumerate(curves.items()):
        bits, errors = np.asarray(values, np.float64).T
        style: dict[str, Any] = {
            "color": PALETTE[index % len(PALETTE)],
            "linestyle": DASHES[index % len(DASHES)],
            "marker": MARKERS[index % len(MARKERS)],
        }
        axes.plot(bits, errors, label=name, **style)
        if index == 0:
            for word, at in zip(points, zip(bits, errors, strict=True), strict=False):
                axes.annotate(word, at, (6, 6), textcoords="offset points", color=FAINT)
    axes.set_xlabel("bits a weight")
    axes.margins(x=0.1, y=0.12)
    axes.grid(True)
    return figure
