"""The map of the course: how a weight travels through formats, and which lesson is where."""

from __future__ import annotations

from dataclasses import dataclass

from matplotlib.axes import Axes
from matplotlib.figure import Figure
from matplotlib.patches import FancyArrowPatch, FancyBboxPatch

from lessonkit.course.plots.style import BLACK, FAINT, new_figure

_BOX_WIDTH, _BOX_HEIGHT = 1.58, 0.86


@dataclass(frozen=True)
class _Stop:
    """One box of the map: where its middle is, what it says, which lesson explains it."""

    x: float
    y: float
    title: str
    detail: str
    lesson: str = ""
    colour: str = "#FFFFFF"
    width: float = _BOX_WIDTH


_SOURCE, _CHANGE, _CODES, _JUDGE = "#E4E1D9", "#BFE0F5", "#F7E7B2", "#CDE9DF"
_STOPS = {
    "meta": _Stop(0.85, 2, "Meta's files", ".pth shards", "03", _SOURCE),
    "hf": _Stop(2.85, 2, "Hugging Face", "bf16 safetensors", "03", _SOURCE),
    "lora": _Stop(4.85, 2, "LoRA merge", "add adapters", "04", _CHANGE),
    "gguf": _Stop(7.05, 3.5, "GGUF", "Q8_0 … Q4_K", "05", _CODES),
    "gptq": _Stop(7.05, 2.5, "GPTQ", "4 bits by error", "06", _CODES),
    "awq": _Stop(7.05, 1.5, "AWQ", "rescale, round", "07", _CODES),
    "nf4": _Stop(7.05, 0.5, "4-bit formats", "INT4, FP4, NF4", "02", _CODES),
    "perplexity": _Stop(9.2, 2, "Perplexity", "what was lost?", "08", _JUDGE),
    "run": _Stop(11.2, 2, "Run and share", "chat, serve, card", "09", _JUDGE),
    "start": _Stop(1.1, 0.5, "Start here", "is my machine ready?", "00", "#FFFFFF", 2.08),
    "numbers": _Stop(4.2, 0.5, "Number formats", "FP32, BF16, FP16, FP8, INT8", "01", _CODES, 2.88),
}
_ROADS = [
    ("meta", "hf"),
    ("hf", "lora"),
    ("lora", "gguf"),
    ("lora", "gptq"),
    ("lora", "awq"),
    ("lora", "nf4"),
    ("gguf", "perplexity"),
    ("gptq", "perplexity"),
    ("awq", "perplexity"),
    ("nf4", "perplexity"),
    ("perplexity", "run"),
    ("start", "numbers"),
    ("numbers", "nf4"),
]


def journey_map() -> Figure:
    """The map of the course as a figure: boxes with lesson numbers, joined by arrows."""
    figure = new_figure(4.3, width=10.5)
    axes = figure.add_subplot()
    for start, end in _ROADS:
        _draw_road(axes, _STOPS[start], _STOPS[end])
    for stop in _STOPS.values():
        _draw_stop(axes, stop)
    axes.text(0.06, 3.75, "How a weight travels", fontsize=15, weight="bold", va="center")
    axes.text(0.06, 3.28, "In the circles: the lesson that explains it.", fontsize=11, va="center")
    axes.set(xlim=(-0.15, 12.05), ylim=(0, 4.1))
    axes.set_axis_off()
    return figure


def _draw_stop(axes: Axes, stop: _Stop) -> None:
    left, bottom = stop.x - stop.width / 2, stop.y - _BOX_HEIGHT / 2
    axes.add_patch(
        FancyBboxPatch(
            (left, bottom), stop.width, _BOX_HEIGHT, boxstyle="round,pad=0,rounding_size=0.09",
            facecolor=stop.colour, edgecolor=FAINT,
        )
    )  # fmt: skip
    axes.text(
        stop.x, stop.y + 0.13, stop.title, ha="center", va="center", fontsize=11, weight="bold"
    )
    axes.text(stop.x, stop.y - 0.17, stop.detail, ha="center", va="center", fontsize=10)
    axes.text(
        left + 0.02, bottom + _BOX_HEIGHT, stop.lesson, ha="center", va="center", fontsize=10,
        weight="bold", color="white",
        bbox={"boxstyle": "circle,pad=0.25", "facecolor": BLACK, "edgecolor": "none"},
    )  # fmt: skip


def _draw_road(axes: Axes, start: _Stop, end: _Stop) -> None:
    axes.add_patch(
        FancyArrowPatch(
            (start.x + start.width / 2 + 0.03, start.y), (end.x - end.width / 2 - 0.05, end.y),
            arrowstyle="-|>", mutation_scale=14, color=FAINT, linewidth=1.5, zorder=0,
        )
    )  # fmt: skip
