"""Prompts as strips of tokens: what the template says, and what the person said."""

from __future__ import annotations

from collections.abc import Mapping, Sequence

from matplotlib.axes import Axes
from matplotlib.figure import Figure
from matplotlib.patches import Rectangle

from lessonkit.course.plots.style import BLACK, FAINT, WIDTH, new_figure

Strip = Sequence[tuple[str, bool]]
"""Tokens as text, each with: does it belong to the template?"""
_LETTERS = 104  # in a row
_ROW, _GAP = 1.0, 0.9
_TEMPLATE, _HATCH, _PERSON = "#F7E7B2", "#CDB968", "#FFFFFF"


def template_strips(strips: Mapping[str, Strip]) -> Figure:
    """A strip of boxes for each named prompt; the template's own are filled and hatched."""
    placed = {name: _rows(strip) for name, strip in strips.items()}
    lines = sum(len(rows) for rows in placed.values())
    height = lines * _ROW + len(placed) * (_ROW + _GAP)
    figure = new_figure(0.27 * height, width=WIDTH)
    axes = figure.add_subplot()
    y = height
    for name, rows in placed.items():
        own = sum(is_template for _, is_template in strips[name])
        y -= _ROW
        axes.text(
            0, y + 0.25 * _ROW, f"{name}: {len(strips[name])} tokens, {own} of them the template's",
            fontsize=11, weight="bold", va="bottom",
        )  # fmt: skip
        for row in rows:
            y -= _ROW
            _draw(axes, row, y)
        y -= _GAP
    axes.set(xlim=(-0.5, _LETTERS + 0.5), ylim=(0, height))
    axes.set_axis_off()
    return figure


def _rows(strip: Strip) -> list[list[tuple[str, bool]]]:
    """The tokens in rows that fit the width; a token is a letter wider than its text."""
    rows: list[list[tuple[str, bool]]] = [[]]
    used = 0
    for text, is_template in strip:
        if rows[-1] and used + len(text) + 1 > _LETTERS:
            rows.append([])
            used = 0
        rows[-1].append((text, is_template))
        used += len(text) + 1
    return rows


def _draw(axes: Axes, row: Strip, y: float) -> None:
    x = 0.0
    for text, is_template in row:
        width = len(text) + 1
        axes.add_patch(
            Rectangle(
                (x, y), width, 0.9 * _ROW,
                edgecolor=_HATCH if is_template else FAINT, linewidth=0.8 if is_template else 1.6,
                facecolor=_TEMPLATE if is_template else _PERSON,
                hatch="///" if is_template else None, alpha=0.9,
            )
        )  # fmt: skip
        axes.text(
            x + width / 2, y + 0.42 * _ROW, text, ha="center", va="center", fontsize=7.6,
            family="DejaVu Sans Mono", color=BLACK, weight="normal" if is_template else "bold",
            parse_math=False,
        )  # fmt: skip
        x += width
