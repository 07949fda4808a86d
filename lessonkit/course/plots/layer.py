"""One layer of a Llama: its seven matrices and two norms, in the order in which numbers pass."""

from __future__ import annotations

from collections.abc import Mapping
from typing import Any

from matplotlib.axes import Axes
from matplotlib.figure import Figure
from matplotlib.patches import FancyArrowPatch, FancyBboxPatch

from lessonkit.course.plots.style import BLUE, FAINT, new_figure
from lessonkit.errors import LessonkitError

__all__ = ["llama_layer"]

_WIDTH, _HEIGHT = 1.56, 0.74
_MATRIX, _PLAIN = "#BFE0F5", "#FFFFFF"
_ABOVE = 1.85  # the height of the two lines that go past the boxes
_TENSORS = {  # where the middle of each tensor's box is
    "input_layernorm": (1.15, 0.0),
    "q_proj": (3.1, 1.0),
    "k_proj": (3.1, 0.0),
    "v_proj": (3.1, -1.0),
    "o_proj": (6.9, 0.0),
    "post_attention_layernorm": (9.65, 0.0),
    "gate_proj": (11.4, 0.6),
    "up_proj": (11.4, -0.6),
    "down_proj": (14.05, 0.0),
}
_STEPS = {  # what is done without weights: the place, and the words
    "attention": (5.0, 0.0, "attention"),
    "first sum": (8.2, 0.0, "+"),
    "product": (12.7, 0.0, "×"),
    "second sum": (15.4, 0.0, "+"),
}
_ROADS = [
    ("input_layernorm", "q_proj"),
    ("input_layernorm", "k_proj"),
    ("input_layernorm", "v_proj"),
    ("q_proj", "attention"),
    ("k_proj", "attention"),
    ("v_proj", "attention"),
    ("attention", "o_proj"),
    ("o_proj", "first sum"),
    ("first sum", "post_attention_layernorm"),
    ("post_attention_layernorm", "gate_proj"),
    ("post_attention_layernorm", "up_proj"),
    ("gate_proj", "product"),
    ("up_proj", "product"),
    ("product", "down_proj"),
    ("down_proj", "second sum"),
]
_WRITTEN = {"input_layernorm": "input\nnorm", "post_attention_layernorm": "second\nnorm"}


def llama_layer(shapes: Mapping[str, tuple[int, ...]]) -> Figure:
    """The seven matrices and two norms of a layer, with their shapes: short name -> shape.

    Tinted boxes with a thick frame are matrices. The lines above are what is added again behind
    the attention and behind the feed-forward part.
    """
    if missing := sorted(set(_TENSORS) - set(shapes)):
        raise LessonkitError(
            "A layer of a Llama has nine tensors.", where=f"missing: {', '.join(missing)}"
        )
    figure = new_figure(3.5, width=10.5)
    axes = figure.add_subplot()
    for name, (x, y) in _TENSORS.items():
        size = " × ".join(f"{length:,}" for length in shapes[name])
        _draw_tensor(axes, x, y, _WRITTEN.get(name, name), size, matrix=len(shapes[name]) == 2)
    for x, y, words in _STEPS.values():
        axes.text(x, y, words, ha="center", va="center", fontsize=11, bbox=_ROUND)
    for start, end in _ROADS:
        _draw_arrow(axes, _edge(start, 1), _edge(end, -1))
    _draw_arrow(axes, (-0.35, 0), _edge("input_layernorm", -1))
    _draw_arrow(axes, _edge("second sum", 1), (16.4, 0))
    for start_x, end in ((0.1, "first sum"), (8.82, "second sum")):
        x = _STEPS[end][0]
        axes.plot([start_x, start_x, x], [0, _ABOVE, _ABOVE], color=FAINT, linewidth=1.4, zorder=0)
        _draw_arrow(axes, (x, _ABOVE), (x, 0.3))
    parts = ((4.0, "attention: look at earlier tokens"), (12.0, "feed-forward: each alone"))
    for x, words in parts:
        axes.text(x, -1.75, words, ha="center", va="center", fontsize=11, weight="bold")
    axes.set(xlim=(-0.5, 16.5), ylim=(-2.0, 2.05))
    axes.set_axis_off()
    return figure


_ROUND: dict[str, Any] = {
    "boxstyle": "round,pad=0.35", "facecolor": _PLAIN, "edgecolor": FAINT, "linewidth": 1.1,
}  # fmt: skip


def _draw_tensor(axes: Axes, x: float, y: float, name: str, size: str, *, matrix: bool) -> None:
    width = _WIDTH if matrix else 0.95
    axes.add_patch(
        FancyBboxPatch(
            (x - width / 2, y - _HEIGHT / 2), width, _HEIGHT,
            boxstyle="round,pad=0,rounding_size=0.06",
            facecolor=_MATRIX if matrix else _PLAIN, edgecolor=BLUE if matrix else FAINT,
            linewidth=2.2 if matrix else 1.1,
        )
    )  # fmt: skip
    if matrix:
        axes.text(x, y + 0.14, name, ha="center", va="center", fontsize=10.5, weight="bold")
        small = 9.5 if len(size) < 13 else 8.5
        axes.text(x, y - 0.18, size, ha="center", va="center", fontsize=small)
    else:
        axes.text(x, y, f"{name}\n{size}", ha="center", va="center", fontsize=9)


def _edge(name: str, side: int) -> tuple[float, float]:
    """The middle of a box's right (1) or left (-1) edge."""
    if name in _TENSORS:
        x, y = _TENSORS[name]
        return x + side * ((_WIDTH if name.endswith("proj") else 0.95) / 2 + 0.03), y
    x, y, words = _STEPS[name]
    return x + side * (0.68 if len(words) > 1 else 0.28), y


def _draw_arrow(axes: Axes, start: tuple[float, float], end: tuple[float, float]) -> None:
    axes.add_patch(
        FancyArrowPatch(
            start, end, arrowstyle="-|>", mutation_scale=11, color=FAINT, linewidth=1.4, zorder=0,
            shrinkA=0, shrinkB=0,
        )
    )  # fmt: skip
