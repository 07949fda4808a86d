"""Drawings of GGUF: the map of a file, the bytes of a block, a mix, a search, loss against bits."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from typing import Any

from matplotlib.axes import Axes
from matplotlib.figure import Figure
from matplotlib.patches import Rectangle

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

__all__ = ["block_bytes", "file_map", "loss_against_bits", "mix_grid", "search_curve"]

_TINTS = ("#C6E3F5", "#F7E7B2", "#D5EBDD", "#F5D3E2", "#E3DCF0", "#E9E6DF")
_HATCHES = ("", "///", "...", "\\\\\\", "xx", "--")
_IN_A_ROW = 16  # bytes
_NARROW = 0.045  # of a strip: narrower parts get no words


def file_map(strips: Mapping[str, Sequence[tuple[str, int, int]]]) -> Figure:
    """Parts of a file to scale: title of a strip -> (words, first byte, byte after the last).

    Parts with the same words have the same tint and hatch. Each strip has the scale of its own
    first and last byte, which stand below it.
    """
    refuse_empty(strips, "strips")
    figure = new_figure(0.5 + 1.15 * len(strips))
    axes = figure.add_subplot()
    kinds: dict[str, int] = {}
    for row, (title, parts) in enumerate(strips.items()):
        refuse_empty(parts, f"strip {title}")
        first, last = parts[0][1], parts[-1][2]
        axes.text(0, -row + 0.3, title, weight="bold", va="bottom", fontsize=11.5)
        for words, start, end in parts:
            number = kinds.setdefault(words, len(kinds))
            left, width = (start - first) / (last - first), (end - start) / (last - first)
            shown = words if width > _NARROW else ""
            _box(axes, (left, -row - 0.22), (width, 0.48), shown, number)
        for place, byte, side in ((0.0, first, "left"), (1.0, last, "right")):
            axes.text(place, -row - 0.27, f"{byte:,}", ha=side, va="top", color=FAINT, fontsize=9.5)
    names = list(kinds)
    handles = [
        Rectangle((0, 0), 1, 1, facecolor=_tint(i), hatch=_hatch(i), edgecolor=BLUE)
        for i in range(len(names))
    ]
    figure.legend(handles, names, loc="outside lower center", ncols=6, fontsize=10)
    axes.set(xlim=(-0.01, 1.01), ylim=(0.45 - len(strips), 0.65))
    axes.set_axis_off()
    return figure


def block_bytes(fields: Sequence[tuple[str, bytes]]) -> Figure:
    """A block byte by byte, in hexadecimal, 16 in a row: (name, bytes) of each field in order."""
    refuse_empty(fields, "fields")
    total = sum(len(raw) for _, raw in fields)
    rows = -(-total // _IN_A_ROW)
    figure = new_figure(0.75 + 0.47 * rows)
    axes = figure.add_subplot()
    at = 0
    handles = []
    for number, (name, raw) in enumerate(fields):
        for byte in raw:
            row, column = divmod(at, _IN_A_ROW)
            _box(axes, (column + 0.04, -row - 0.45), (0.92, 0.9), f"{byte:02x}", number)
            at += 1
        style: dict[str, Any] = {
            "facecolor": _tint(number),
            "hatch": _hatch(number),
            "edgecolor": BLUE,
        }
        handles.append(Rectangle((0, 0), 1, 1, label=f"{name} ({len(raw)})", **style))
    for row in range(rows):
        words = f"{row * _IN_A_ROW}"
        axes.text(-0.25, -row, words, ha="right", va="center", color=FAINT, fontsize=9.5)
    figure.legend(handles=handles, loc="outside lower center", ncols=5, fontsize=10)
    axes.set(xlim=(-0.9, _IN_A_ROW), ylim=(-rows + 0.45, 0.55))
    axes.set_axis_off()
    return figure


def mix_grid(types: Mapping[str, Sequence[str]]) -> Figure:
    """Which type each tensor of each layer has: kind of tensor -> types, layer by layer."""
    refuse_empty(types, "types")
    layers = max(map(len, types.values()))
    kinds = {name: i for i, name in enumerate(sorted({t for row in types.values() for t in row}))}
    figure = new_figure(0.6 + 0.42 * len(types))
    axes = figure.add_subplot()
    for row, (kind, of_layers) in enumerate(types.items()):
        axes.text(-0.15, -row, kind, ha="right", va="center", fontsize=11)
        for layer, name in enumerate(of_layers):
            corner = (layer + 0.03, -row - 0.43)
            _box(axes, corner, (0.94, 0.86), name if layers <= 12 else "", kinds[name])
    for layer in range(layers):
        axes.text(layer + 0.5, 0.55, str(layer), ha="center", va="bottom", color=FAINT)
    axes.text(-0.15, 0.55, "layer", ha="right", va="bottom", color=FAINT)
    axes.set(xlim=(-0.34 * layers, layers), ylim=(-len(types) + 0.4, 1.1))
    axes.set_axis_off()
    return figure


def search_curve(tries: Sequence[float], errors: Sequence[float], plain: float) -> Figure:
    """The error of each tried step, in percent of the plain step's; the best is marked."""
    if len(tries) != len(errors) or not len(tries):
        raise LessonkitError(
            "Each try needs its error.",
            where=f"{len(tries)} tries, {len(errors)} errors",
            remedy="Give two lists of the same length, with one entry or more.",
        )
    shares = [100 * error / plain for error in errors]
    best = min(range(len(errors)), key=lambda i: errors[i])
    figure = new_figure(3.4)
    axes = figure.add_subplot()
    axes.plot(tries, shares, marker="o", color=BLUE, label="with this step, then fitted")
    axes.axhline(100, color=FAINT, linestyle="--", label="(max - min) / 15, not fitted")
    axes.plot([tries[best]], [shares[best]], marker="*", markersize=17, color=RED, linestyle="",
              label="kept")  # fmt: skip
    axes.set(
        xlabel="the step that is tried, divided by (max - min) / 15", ylabel="weighted error in %"
    )
    axes.set_ylim(bottom=0)
    axes.grid(True)
    axes.legend(loc="lower right")
    return figure


def loss_against_bits(points: Mapping[str, tuple[float, float]], ylabel: str) -> Figure:
    """A loss on a logarithmic axis against bits a weight: name -> (bits, loss above 0)."""
    refuse_empty(points, "points")
    if bad := [name for name, (_, loss) in points.items() if not loss > 0]:
        raise LessonkitError(
            "A logarithmic axis has no place for 0 and below.",
            where=", ".join(bad),
            remedy="Leave such points out, or draw another measure.",
        )
    figure = new_figure(4.2)
    axes = figure.add_subplot()
    ordered = sorted(points.items(), key=lambda item: item[1][0])
    for number, (name, (bits, loss)) in enumerate(ordered):
        marker, colour = MARKERS[number % len(MARKERS)], PALETTE[number % len(PALETTE)]
        axes.plot([bits], [loss], marker=marker, color=colour, markersize=9, linestyle="")
        axes.annotate(name, (bits, loss), (8, 4), textcoords="offset points", fontsize=10.5)
    axes.set_yscale("log")
    axes.set(xlabel="bits a weight, measured on the file", ylabel=ylabel)
    axes.margins(x=0.12, y=0.12)
    axes.grid(True)
    return figure


def _box(
    axes: Axes, corner: tuple[float, float], size: tuple[float, float], words: str, number: int
) -> None:
    """A box with words in it, whose tint and hatch stand for a number."""
    axes.add_patch(
        Rectangle(
            corner,
            *size,
            facecolor=_tint(number),
            hatch=_hatch(number),
            edgecolor=BLUE,
            linewidth=0.9,
        )  # fmt: skip
    )
    if words:
        middle = (corner[0] + size[0] / 2, corner[1] + size[1] / 2)
        ground = {"facecolor": _tint(number), "edgecolor": "none", "pad": 1.0}
        axes.text(*middle, words, ha="center", va="center", fontsize=10, bbox=ground)


def _tint(number: int) -> str:
    return _TINTS[number % len(_TINTS)]


def _hatch(number: int) -> str:
    return _HATCHES[number % len(_HATCHES)]
