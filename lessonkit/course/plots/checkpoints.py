"""Drawings of checkpoints: the order inside a file, the cuts into shards, the shared heads."""

from __future__ import annotations

import math
from collections.abc import Mapping, Sequence
from typing import Any

from matplotlib.axes import Axes
from matplotlib.figure import Figure
from matplotlib.patches import Rectangle

from lessonkit.course.plots.style import BLUE, FAINT, new_figure, refuse_empty
from lessonkit.errors import LessonkitError

__all__ = ["file_strips", "shard_cuts", "shared_heads"]

_TINTS = ("#C6E3F5", "#F7E7B2", "#D5EBDD", "#F5D3E2")
_HATCHES = ("", "///", "...", "\\\\\\")
_MOST_NUMBERED = 16  # more boxes than this get no numbers
_VECTOR, _GAP = 0.42, 0.25  # the width of a vector, and the gap between its copies


def file_strips(files: Mapping[str, Sequence[str]]) -> Figure:
    """The parts of files in the order in which they lie: name -> the words for each part.

    Not to scale. A part whose words begin with "*" gets a tint and a thick frame.
    """
    refuse_empty(files, "files")
    figure = new_figure(0.2 + 1.05 * len(files))
    axes = figure.add_subplot()
    for row, (name, parts) in enumerate(files.items()):
        axes.text(0, -row + 0.34, name, weight="bold", va="bottom", fontsize=11.5)
        widths = [1.0 + 0.11 * max(map(len, part.split("\n"))) for part in parts]
        place, scale = 0.0, 12 / sum(widths)
        for part, width in zip(parts, widths, strict=True):
            style: dict[str, Any] = {"facecolor": "white", "linewidth": 1.1, "zorder": 1}
            if part.startswith("*"):
                style = {"facecolor": _TINTS[1], "linewidth": 3, "zorder": 2}
            corner = (place, -row - 0.3)
            axes.add_patch(Rectangle(corner, width * scale, 0.6, edgecolor=BLUE, **style))
            middle = place + width * scale / 2
            axes.text(middle, -row, part.lstrip("*"), ha="center", va="center", fontsize=10)
            place += width * scale
    axes.set(xlim=(-0.05, 12.05), ylim=(0.62 - len(files), 0.68))
    axes.set_axis_off()
    return figure


def shard_cuts(tensors: Mapping[str, tuple[tuple[int, ...], int | None]], shards: int) -> Figure:
    """How each tensor is cut into shards: name -> (shape, axis); None: a copy in each.

    Sides grow with the logarithm of their length. Each piece bears the number of its shard.
    """
    refuse_empty(tensors, "tensors")
    shortest = min(length for shape, _ in tensors.values() for length in shape)

    def side(length: int) -> float:
        return 1.0 + 0.38 * math.log2(length / shortest)

    figure = new_figure(3.0)
    axes = figure.add_subplot()
    left, tallest = 0.0, 0.0
    for name, (shape, axis) in tensors.items():
        matrix = len(shape) == 2
        height, width = side(shape[0]), side(shape[1]) if matrix else _VECTOR
        for shard in range(shards):
            corner, size = _piece(left, width, height, axis, shard, shards)
            _draw_box(axes, corner, size, str(shard), shard)
        if axis is None:  # the copies stand side by side
            width = shards * width + (shards - 1) * _GAP
        words = {0: "by rows", 1: "by columns", None: "copied"}[axis]
        size_text = "×".join(f"{length:,}" for length in shape)
        axes.text(
            left + width / 2, -0.18, f"{name}\n{size_text}\n{words}", ha="center", va="top",
            fontsize=10, linespacing=1.45,
        )  # fmt: skip
        left += max(width, 1.75) + 0.75
        tallest = max(tallest, height)
    axes.set(xlim=(-0.5, left - 0.3), ylim=(-1.4, tallest + 0.1))
    axes.set_aspect("equal")
    axes.set_axis_off()
    return figure


def shared_heads(heads: int, kv_heads: int) -> Figure:
    """Which query heads use which key/value head: query heads above, key/value heads below."""
    if kv_heads < 1 or heads % kv_heads:
        raise LessonkitError(
            f"{kv_heads} key/value heads cannot be shared by {heads} query heads.",
            where="heads, kv_heads",
            remedy="The number of query heads is a multiple of that of key/value heads.",
        )
    group, tall, wide = heads // kv_heads, 0.56, 0.8
    figure = new_figure(2.5)
    axes = figure.add_subplot()
    for head in range(heads):
        shared = head // group
        axes.plot([head, _middle(shared, group)], [0.72, -0.72], color=FAINT, linewidth=1.4)
        words = f"q{head}" if heads <= _MOST_NUMBERED else ""
        _draw_box(axes, (head - wide / 2, 1 - tall / 2), (wide, tall), words, shared)
    for shared in range(kv_heads):
        width = max(wide, 0.5 * group)
        words = f"k{shared}  v{shared}" if kv_heads <= _MOST_NUMBERED else ""
        corner = (_middle(shared, group) - width / 2, -1 - tall / 2)
        _draw_box(axes, corner, (width, tall), words, shared)
    for height, words in ((1.0, "query heads"), (-1.0, "key/value heads")):
        axes.text(-0.8, height, words, ha="right", va="center", weight="bold", fontsize=11.5)
    axes.set(xlim=(-0.8 - 0.32 * max(heads, 4), heads - 0.4), ylim=(-1.4, 1.4))
    axes.set_axis_off()
    return figure


def _middle(shared: int, group: int) -> float:
    """The place of a key/value head: under the middle of its group of query heads."""
    return shared * group + (group - 1) / 2


def _piece(
    left: float, width: float, height: float, axis: int | None, shard: int, shards: int
) -> tuple[tuple[float, float], tuple[float, float]]:
    """Lower left corner and size of one shard's part; the first shard is at the top or left."""
    if axis == 0:
        return (left, height * (1 - (shard + 1) / shards)), (width, height / shards)
    if axis == 1:
        return (left + width * shard / shards, 0.0), (width / shards, height)
    return (left + shard * (width + _GAP), 0.0), (width, height)


def _draw_box(
    axes: Axes, corner: tuple[float, float], size: tuple[float, float], words: str, number: int
) -> None:
    """A box with words in it, whose tint and hatch stand for a number."""
    tint, hatch = _TINTS[number % len(_TINTS)], _HATCHES[number % len(_HATCHES)]
    style: dict[str, Any] = {"facecolor": tint, "edgecolor": BLUE, "linewidth": 1.3}
    axes.add_patch(Rectangle(corner, *size, hatch=hatch, **style))
    if words:
        middle = (corner[0] + size[0] / 2, corner[1] + size[1] / 2)
        ground = {"facecolor": tint, "edgecolor": "none", "pad": 1.0}  # no hatch behind words
        axes.text(*middle, words, ha="center", va="center", fontsize=11, bbox=ground)
