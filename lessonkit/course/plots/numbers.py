"""Numbers drawn: their bits, their spacing, their levels, bars beside their names."""

from __future__ import annotations

from collections.abc import Callable, Mapping, Sequence
from typing import Any

import numpy as np
import numpy.typing as npt
from matplotlib.axes import Axes
from matplotlib.figure import Figure
from matplotlib.patches import Patch, Rectangle
from matplotlib.ticker import FixedLocator, FuncFormatter

from lessonkit.course.plots.style import (
    BLACK,
    BLUE,
    DASHES,
    FAINT,
    MARKERS,
    ORANGE,
    PALETTE,
    SKY,
    new_figure,
    refuse_empty,
)
from lessonkit.errors import LessonkitError
from lessonkit.formats.floats import FloatFormat, bits, round_to, ulp

# Each field of a number: name, tint, edge and hatch.
_FIELDS = (
    ("sign", "#F2B58C", "#A8642F", ""),
    ("exponent", "#C6E3F5", "#7FB2D3", "///"),
    ("mantissa", "#F7E7B2", "#B99D4E", ""),
)


def draw_bits(rows: Sequence[tuple[str, FloatFormat, float]]) -> Figure:
    """Numbers as the bits that store them: one row each of (label, format, value).

    Above each row stands its label, behind it the number that is really stored.
    """
    refuse_empty(rows, "rows")
    width = max(16, *(fmt.bits for _, fmt, _ in rows))
    figure = new_figure(0.55 + 0.78 * len(rows))
    axes = figure.add_subplot()
    for row, (label, fmt, value) in enumerate(rows):
        axes.text(0, row - 0.12, label, weight="bold", va="bottom", fontsize=11.5)
        _draw_row(axes, row, bits(value, fmt))
        stored = f"= {float(round_to(value, fmt)):.9g}"
        axes.text(fmt.bits + 0.015 * width, row + 0.15, stored, va="center", fontsize=11.5)
    axes.set(xlim=(-0.1, 1.22 * width), ylim=(len(rows) - 0.3, -0.5))
    axes.set_axis_off()
    handles = [Patch(facecolor=c, edgecolor=e, hatch=h, label=name) for name, c, e, h in _FIELDS]
    figure.legend(handles=handles, loc="outside lower center", ncols=3)
    return figure


def _draw_row(axes: Axes, row: int, groups: str) -> None:
    """The boxes of one number, from the text of its fields."""
    top, height, place = row - 0.08, 0.46, 0
    for (_, tint, edge, hatch), field in zip(_FIELDS, groups.split(" "), strict=False):
        area: dict[str, Any] = {
            "facecolor": tint,
            "edgecolor": edge,
            "hatch": hatch,
            "linewidth": 1.4,
        }
        axes.add_patch(Rectangle((place, top), len(field), height, **area))
        inner = range(place + 1, place + len(field))
        axes.vlines(inner, top, top + height, color="white", linewidth=1.4)
        for digit in field:
            ground = {"facecolor": tint, "edgecolor": "none", "pad": 0.8}  # no hatch behind a digit
            axes.text(
                place + 0.5, row + 0.15, digit, ha="center", va="center", fontsize=11, bbox=ground
            )
            place += 1


def number_line(
    formats: Mapping[str, npt.ArrayLike],
    xlim: tuple[float, float] | None = None,
    mark: float | None = None,
) -> Figure:
    """The numbers that each format can hold, as ticks on stacked lines: name -> values.

    `xlim` is the stretch to draw; how many values lie in it stands at the right. `mark` draws
    a dashed line through all of them, at a number to be rounded.
    """
    refuse_empty(formats, "formats")
    arrays = {name: np.unique(np.asarray(v, np.float64)) for name, v in formats.items()}
    low, high = xlim or (min(a[0] for a in arrays.values()), max(a[-1] for a in arrays.values()))
    figure = new_figure(0.75 + 0.6 * len(arrays))
    axes = figure.add_subplot()
    for row, (values, colour) in enumerate(zip(arrays.values(), _cycle(PALETTE), strict=False)):
        inside = values[(values >= low) & (values <= high)]
        axes.hlines(row, low, high, color=FAINT, linewidth=1)
        axes.vlines(inside, row - 0.3, row + 0.3, color=colour, linewidth=_tick_width(inside))
        count = f"{inside.size:,} {'value' if inside.size == 1 else 'values'}"
        axes.text(1.01, row, count, va="center", transform=axes.get_yaxis_transform(), color=FAINT)
    if mark is not None:
        axes.axvline(mark, color=BLACK, linestyle="--", linewidth=1.4)
        above = axes.get_xaxis_transform()
        axes.text(mark, 1.0, f"{mark:g}", ha="center", va="bottom", weight="bold", transform=above)
    margin = 0.015 * (high - low) or 1.0
    axes.set(xlim=(low - margin, high + margin), ylim=(len(arrays) - 0.45, -0.55))
    axes.set_yticks(range(len(arrays)), list(arrays))
    axes.tick_params(axis="y", length=0, labelsize=11.5)
    axes.spines["left"].set_visible(False)
    return figure


def weight_histogram(
    weights: npt.ArrayLike,
    levels: Mapping[str, npt.ArrayLike] | None = None,
    *,
    xlim: tuple[float, float] | None = None,
    label: str = "weight",
    log: bool = False,
) -> Figure:
    """Where the weights lie, and below, where each format has values to offer them.

    `levels` maps a format's name to its values, in the same unit as the weights. Without
    `xlim` the picture ends at the outermost weight, on both sides of zero where there are levels.
    `log` counts on a logarithmic scale, so that a single weight far out can be seen.
    """
    flat = np.asarray(weights, np.float64).reshape(-1)
    refuse_empty(flat, "weights")
    if not np.isfinite(flat).all():
        raise LessonkitError(
            "Cannot draw weights that are NaN or infinite.",
            where=f"{int((~np.isfinite(flat)).sum()):,} of {flat.size:,} weights",
            remedy="Find out where they come from: a whole model has none.",
        )
    rows = dict(levels or {})
    low, high = float(flat.min()), float(flat.max())
    if rows:  # a format that is symmetric has its outermost value on either side
        high = max(-low, high)
        low = -high
    low, high = xlim or (low, high)
    figure = new_figure(3.2 + 0.42 * len(rows))
    grid = figure.add_gridspec(2, 1, height_ratios=[3, 0.46 * len(rows) + 0.001], hspace=0.02)
    top = figure.add_subplot(grid[0])
    top.hist(flat, bins=120, range=(low, high), color=SKY, edgecolor=BLUE, linewidth=0.4, log=log)
    margin = 0.01 * (high - low) or 1.0
    top.set(xlim=(low - margin, high + margin), ylabel="number of weights")
    top.yaxis.set_major_formatter(FuncFormatter(lambda count, _: f"{count:,.0f}"))
    if not rows:
        top.set_xlabel(label)
        return figure
    below = figure.add_subplot(grid[1], sharex=top)
    top.tick_params(axis="x", labelbottom=False)
    for row, (values, colour) in enumerate(zip(rows.values(), _cycle(PALETTE[1:]), strict=False)):
        inside = np.unique(np.asarray(values, np.float64))
        inside = inside[(inside >= low) & (inside <= high)]
        below.vlines(inside, row - 0.34, row + 0.34, color=colour, linewidth=_tick_width(inside))
    below.set(ylim=(len(rows) - 0.45, -0.55), xlabel=label)
    below.set_yticks(range(len(rows)), list(rows))
    below.tick_params(axis="y", length=0)
    return figure


def bar_table(
    labels: Sequence[str],
    values: Sequence[float],
    *,
    title: str = "",
    unit: str = "",
    write: Callable[[float], str] = "{:,.3g}".format,
    highlight: Sequence[str] = (),
    log: bool = False,
) -> Figure:
    """A table drawn as horizontal bars, each with its number written out.

    `write` turns a value into text. Bars named in `highlight` are hatched and orange. A bar
    whose value is not finite is left out, and its number says why.
    """
    refuse_empty(labels, "labels")
    numbers = np.asarray(values, np.float64)
    if len(labels) != numbers.size:
        raise LessonkitError(
            "Every bar needs a label.", where=f"{len(labels)} labels, {numbers.size} values"
        )
    figure = new_figure(0.4 + 0.4 * len(labels) + 0.3 * bool(title) + 0.5 * log)
    axes = figure.add_subplot()
    finite = np.isfinite(numbers)
    lengths = np.where(finite, numbers, 0.0)
    marked = [label in highlight for label in labels]
    axes.barh(
        range(len(labels)),
        lengths,
        height=0.66,
        color=[ORANGE if on else SKY for on in marked],
        edgecolor=BLUE,
        hatch=["//" if on else "" for on in marked],
        log=log,
    )
    beside_axis = axes.get_yaxis_transform()
    for row, value in enumerate(numbers):
        at, frame = ((max(value, 0), row), "data") if finite[row] else ((0, row), beside_axis)
        text = f"{write(value)} {unit}".rstrip()
        axes.annotate(text, at, (5, 0), frame, "offset points", va="center", fontsize=11)
    axes.set_yticks(range(len(labels)), labels)
    axes.invert_yaxis()
    axes.tick_params(axis="y", length=0, labelsize=11.5)
    if log:  # the lengths of these bars mean nothing without their axis
        axes.margins(x=0.16)
        axes.set_xlabel("logarithmic scale")
    else:
        longest, most_negative = float(lengths.max()), float(lengths.min())
        reach = max(longest, -most_negative) or 1.0
        room_for_text = max(longest, 0.0) + 0.18 * reach
        axes.set_xlim(min(most_negative, 0.0), room_for_text)
        axes.axvline(0, color=FAINT, linewidth=1)
        axes.xaxis.set_visible(False)
        axes.spines[["bottom", "left"]].set_visible(False)
    if title:
        axes.set_title(title)
    return figure


def spacing_plot(
    formats: Sequence[FloatFormat], xlim: tuple[float, float] = (2**-30, 2**20)
) -> Figure:
    """The gap between neighbours against magnitude, both by powers of two, for each format.

    Flat to the left: subnormals, where the gap no longer shrinks. A cross: the largest number.
    """
    refuse_empty(formats, "formats")
    figure = new_figure(4.6)
    axes = figure.add_subplot()
    low, high = (float(np.log2(end)) for end in xlim)
    # Two points a binade draw the steps: its first number, and just below the next binade.
    starts = np.exp2(np.arange(np.floor(low), np.ceil(high)))
    x = np.sort(np.concatenate([starts, np.nextafter(2 * starts, 0)]))
    for index, fmt in enumerate(formats):
        style: dict[str, Any] = {
            "color": PALETTE[index % len(PALETTE)],
            "linestyle": DASHES[index % len(DASHES)],
            "marker": MARKERS[index % len(MARKERS)],
        }
        inside = x[(x >= fmt.smallest_subnormal) & (x < fmt.max)]
        if fmt.max <= xlim[1]:
            inside = np.append(inside, fmt.max)
        axes.plot(inside, ulp(inside, fmt), markevery=(2 * index, 14), label=fmt.name, **style)
        if fmt.max <= xlim[1]:
            end = ulp(fmt.max, fmt)
            axes.plot(
                fmt.max, end, marker="x", markersize=11, markeredgewidth=3, color=style["color"]
            )
    axes.set_xscale("log", base=2)
    axes.set_yscale("log", base=2)
    axes.set_xticks(np.exp2(np.arange(np.ceil(low / 5) * 5, high + 1, 5)))
    axes.yaxis.set_major_locator(FixedLocator(list(np.exp2(np.arange(-160, 140, 10)))))
    axes.minorticks_off()
    axes.set(xlim=xlim, xlabel="magnitude of the number", ylabel="gap to the next number")
    axes.grid(True)
    axes.plot(
        [], [], marker="x", linestyle="", markeredgewidth=3, color=FAINT, label="largest number"
    )
    axes.legend(loc="upper left")
    return figure


def _tick_width(values: np.ndarray) -> float:
    """Thin ticks for many values, or they run together."""
    return 1.6 if values.size <= 120 else 0.7


def _cycle(colours: Sequence[str]) -> list[str]:
    """Colours for as many rows as a figure may sensibly have."""
    return list(colours) * 10
