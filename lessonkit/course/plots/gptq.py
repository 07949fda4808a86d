"""Drawings of GPTQ: ellipses of equal loss, a Hessian, compensation step by step, int32 words."""

from __future__ import annotations

import math
from collections.abc import Mapping, Sequence
from typing import Any

import numpy as np
import numpy.typing as npt
from matplotlib import colormaps
from matplotlib.axes import Axes
from matplotlib.figure import Figure
from matplotlib.patches import Ellipse, Rectangle

from lessonkit.course.plots.style import (
    BLACK,
    BLUE,
    DASHES,
    FAINT,
    GRID,
    MARKERS,
    PALETTE,
    RED,
    new_figure,
    refuse_empty,
)
from lessonkit.errors import LessonkitError

__all__ = ["compensation_steps", "error_curves", "error_ellipse", "hessian_picture", "packed_words"]

_TINTS = ("#C6E3F5", "#F7E7B2")
_WORD = 32
_SIGNED = colormaps["RdBu_r"].resampled(17)  # few colours: pictures are stored with 64


def error_ellipse(
    weight: Sequence[float], hessian: npt.ArrayLike, points: Mapping[str, Sequence[float]]
) -> Figure:
    """Two weights and the points of a grid of whole numbers around them.

    Through each named point goes the ellipse of all points with the same loss e H e^T, e the
    distance from the weight. `hessian` is [2, 2] and positive definite.
    """
    refuse_empty(points, "points")
    matrix, middle = np.asarray(hessian, np.float64), np.asarray(weight, np.float64)
    if matrix.shape != (2, 2) or middle.shape != (2,) or np.linalg.eigvalsh(matrix).min() <= 0:
        raise LessonkitError(
            "Two weights need a positive definite matrix of two rows and two columns.",
            where=f"weight {middle.shape}, hessian {matrix.shape}",
        )
    figure = new_figure(4.6)
    axes = figure.add_subplot()
    low, high = np.floor(middle) - 1, np.ceil(middle) + 1
    across, up = np.meshgrid(*(np.arange(a, b + 1) for a, b in zip(low, high, strict=True)))
    axes.plot(across.ravel(), up.ravel(), ".", color=FAINT, markersize=7, label="the grid")
    axes.plot(*middle, "*", color=BLACK, markersize=15, label="the weights")
    for number, (name, point) in enumerate(points.items()):
        away = np.asarray(point, np.float64) - middle
        loss, colour = float(away @ matrix @ away), PALETTE[number % len(PALETTE)]
        style = DASHES[number % len(DASHES)]
        axes.add_patch(_ellipse(middle, matrix, loss, edgecolor=colour, linestyle=style))
        axes.plot(*point, MARKERS[number % len(MARKERS)], color=colour, markersize=10,
                  label=f"{name}: loss {loss:.2f}")  # fmt: skip
    axes.set(xlabel="first weight", ylabel="second weight", aspect="equal")
    axes.set(xlim=(low[0] - 1.2, high[0] + 1.2), ylim=(low[1] - 0.3, high[1] + 0.3))
    axes.set_xticks(np.arange(low[0] - 1, high[0] + 2))
    axes.set_yticks(np.arange(low[1], high[1] + 1))
    figure.legend(loc="outside right upper")
    return figure


def hessian_picture(hessian: npt.ArrayLike, shown: int = 64) -> Figure:
    """A Hessian in two parts: how pairs of inputs go together, and how all of them do.

    Left, the correlations of the first `shown` inputs, without sign. Right, on a logarithmic
    axis, the sizes of the inputs (the diagonal) and of the directions that they move in (the
    eigenvalues), each from the largest down. Were the inputs independent, the two curves would
    be one. Inputs that were always 0 are left out there.
    """
    matrix = np.asarray(hessian, np.float64)
    refuse_empty(matrix, "hessian")
    diagonal = np.diagonal(matrix)
    live = diagonal > 0
    size = np.sqrt(np.where(live, diagonal, 1))
    together = np.abs(matrix / size / size[:, None])[:shown, :shown]
    figure = new_figure(3.9)
    left, right = figure.subplots(1, 2, width_ratios=(1, 1.15))
    image = left.imshow(together, cmap=colormaps["Greys"].resampled(5), vmin=0, vmax=0.5)
    left.set(xlabel="input", ylabel="input", title="correlation of two inputs")
    figure.colorbar(image, ax=left, shrink=0.85, extend="max")
    directions = np.linalg.eigvalsh(matrix[np.ix_(live, live)])
    for name, values, colour, style in (
        ("inputs (diagonal)", diagonal[live], BLUE, "-"),
        ("directions (eigenvalues)", directions[directions > 0], RED, "--"),
    ):
        falling = np.sort(values)[::-1]
        right.plot(np.arange(1, len(falling) + 1), falling, color=colour, ls=style, label=name)
    right.set_yscale("log")
    right.set(xlabel="largest first", title="how large they are")
    right.grid(True)
    right.legend()
    return figure


def compensation_steps(
    original: npt.ArrayLike, steps: Mapping[int, npt.ArrayLike], limit: float | None = None
) -> Figure:
    """A weight at several moments of GPTQ: columns already rounded -> the weight then.

    Every panel shows how far each weight is from the original: blue below, red above, white for
    no change, at full colour from `limit` on (by default what 99 % of the changes stay below).
    Columns to the left of the line are rounded and stay; those to its right have taken up their
    errors.
    """
    refuse_empty(steps, "steps")
    start = np.asarray(original, np.float64)
    changes = {done: np.asarray(weight, np.float64) - start for done, weight in steps.items()}
    most = limit or float(np.percentile(np.abs(list(changes.values())), 99)) or 1.0
    across = min(3, len(changes))
    down = math.ceil(len(changes) / across)
    figure = new_figure(0.5 + 1.75 * down)
    panels = figure.subplots(down, across, squeeze=False).ravel()
    for axes in panels[len(changes) :]:
        axes.set_axis_off()
    for axes, (done, change) in zip(panels, changes.items(), strict=False):
        image = axes.imshow(
            change, cmap=_SIGNED, vmin=-most, vmax=most, aspect="auto", interpolation="nearest"
        )
        axes.axvline(done - 0.5, color=BLACK, linewidth=2)
        axes.set_title(f"{done} of {start.shape[1]} columns rounded", fontsize=11)
        axes.set_xticks([])
        axes.set_yticks([])
    figure.colorbar(image, ax=list(panels), shrink=0.8, label="change of a weight")
    return figure


def error_curves(curves: Mapping[str, Sequence[tuple[float, float]]], xlabel: str) -> Figure:
    """Output errors in percent against a setting on a logarithmic axis: name -> (x, error)."""
    refuse_empty(curves, "curves")
    figure = new_figure(3.8)
    axes = figure.add_subplot()
    for number, (name, curve) in enumerate(curves.items()):
        axes.plot(
            *zip(*curve, strict=True),
            color=PALETTE[number % len(PALETTE)],
            linestyle=DASHES[number % len(DASHES)],
            marker=MARKERS[number % len(MARKERS)],
            label=name,
        )
    axes.set_xscale("log")
    axes.set(xlabel=xlabel, ylabel="error of the output in %")
    axes.set_ylim(bottom=0)
    axes.grid(True)
    axes.legend()
    return figure


def packed_words(rows: Mapping[str, int]) -> Figure:
    """How codes lie in 32-bit words: words about a row -> bits of a code.

    A row has as many words as it takes until a code begins at the border of a word again. The
    highest bit of a word is at its left, as one writes a number.
    """
    refuse_empty(rows, "rows")
    words = {name: bits // math.gcd(_WORD, bits) for name, bits in rows.items()}
    figure = new_figure(0.35 + 0.62 * sum(words.values()) + 0.25 * len(rows))
    axes = figure.add_subplot()
    at = 0.0
    for name, bits in rows.items():
        axes.text(0, at + 0.28, name, weight="bold", va="bottom")
        for word in range(words[name]):
            at -= 0.62
            _draw_word(axes, at, word, bits)
            axes.text(-0.4, at + 0.25, f"word {word}", ha="right", va="center", color=FAINT)
        at -= 0.75
    axes.text(0, 0.95, "bit 31", ha="left", color=FAINT, fontsize=9.5)
    axes.text(_WORD, 0.95, "bit 0", ha="right", color=FAINT, fontsize=9.5)
    axes.set(xlim=(-4, _WORD + 0.2), ylim=(at + 0.6, 1.3))
    axes.set_axis_off()
    return figure


def _draw_word(axes: Axes, bottom: float, word: int, bits: int) -> None:
    """One strip of 32 bits: a box for each code, or part of a code, with the code's number."""
    first, last = word * _WORD // bits, ((word + 1) * _WORD - 1) // bits
    for code in range(first, last + 1):
        low = max(code * bits, word * _WORD) - word * _WORD
        high = min((code + 1) * bits, (word + 1) * _WORD) - word * _WORD
        cut = high - low < bits
        corner = (_WORD - high, bottom)
        axes.add_patch(
            Rectangle(
                corner,
                high - low,
                0.5,
                facecolor=_TINTS[code % 2],
                hatch="///" if cut else "",
                edgecolor=RED if cut else BLUE,
                linewidth=0.9,
            )  # fmt: skip
        )
        middle = _WORD - (low + high) / 2
        ground = {"facecolor": _TINTS[code % 2], "edgecolor": "none", "pad": 0.6}
        axes.text(middle, bottom + 0.25, str(code), ha="center", va="center", fontsize=9.5,
                  bbox=ground if cut else None)  # fmt: skip
    for bit in range(1, _WORD):
        axes.plot([bit, bit], [bottom, bottom + 0.06], color=GRID, linewidth=0.6)


def _ellipse(
    middle: npt.NDArray[np.float64], matrix: npt.NDArray[np.float64], loss: float, **style: Any
) -> Ellipse:
    """All points e from the middle with e M e^T = loss."""
    values, directions = np.linalg.eigh(matrix)
    width, height = 2 * np.sqrt(loss / values)
    angle = math.degrees(math.atan2(directions[1, 0], directions[0, 0]))
    return Ellipse(
        (float(middle[0]), float(middle[1])), width, height,
        angle=angle, fill=False, linewidth=2, **style,
    )  # fmt: skip
