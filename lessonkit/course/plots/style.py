"""The look of every figure of the course, and how a figure gets into the notebook.

Figures stand on an opaque light card, so they read the same in a light and in a dark notebook.
Colours are those of Okabe and Ito ("Color Universal Design", 2008), which people with any kind of
colour vision can tell apart; and colour never carries a meaning alone: there is always a label, a
marker or a hatch beside it.
"""

from __future__ import annotations

import io
import sys
from collections.abc import Sized

import matplotlib as mpl
from cycler import cycler
from matplotlib.backends.backend_agg import FigureCanvasAgg
from matplotlib.figure import Figure
from PIL import Image

from lessonkit.course.display import show_bundle
from lessonkit.errors import LessonkitError

BLUE, ORANGE, GREEN, PURPLE = "#0072B2", "#E69F00", "#009E73", "#CC79A7"
RED, SKY, BLACK = "#D55E00", "#56B4E9", "#1A1A1A"
PALETTE = (BLUE, RED, GREEN, ORANGE, PURPLE, SKY, BLACK)
MARKERS = ("o", "s", "^", "D", "v", "P", "X")
DASHES = ("-", "--", "-.", ":", (0, (5, 1, 1, 1, 1, 1)), (0, (1, 1)), (0, (8, 2)))

CARD, GRID, FAINT = "#FBFAF7", "#D9D6CE", "#5F5B53"
WIDTH = 9.0
"""The width of a figure in inches: what fits a notebook's column."""

_DOTS_PER_INCH = 120
_SHORTEST_ALT = 20


def use_style() -> None:
    """Give matplotlib the look of the course, also for figures that a learner draws."""
    mpl.rcParams.update(
        {
            "figure.figsize": (WIDTH, 4.0),
            "figure.dpi": _DOTS_PER_INCH,
            "figure.constrained_layout.use": True,
            "figure.facecolor": CARD,
            "savefig.facecolor": CARD,
            "axes.facecolor": CARD,
            "axes.edgecolor": FAINT,
            "axes.labelcolor": BLACK,
            "axes.titlelocation": "left",
            "axes.titlesize": 13,
            "axes.titleweight": "bold",
            "axes.labelsize": 11.5,
            "axes.spines.top": False,
            "axes.spines.right": False,
            "axes.axisbelow": True,
            "axes.prop_cycle": cycler(color=PALETTE),
            "grid.color": GRID,
            "grid.linewidth": 0.8,
            "xtick.color": FAINT,
            "ytick.color": FAINT,
            "xtick.labelcolor": BLACK,
            "ytick.labelcolor": BLACK,
            "font.family": "DejaVu Sans",
            "font.size": 11,
            "legend.frameon": False,
            "legend.fontsize": 11,
            "lines.linewidth": 2,
            "hatch.linewidth": 0.7,
            "text.color": BLACK,
        }
    )


def new_figure(height: float, width: float = WIDTH) -> Figure:
    """An empty figure in the look of the course, known to no window system."""
    use_style()
    return Figure(figsize=(width, height), dpi=_DOTS_PER_INCH, layout="constrained")


def refuse_empty(things: Sized, name: str) -> None:
    """Raise LessonkitError where there is nothing to draw."""
    if len(things) == 0:
        raise LessonkitError("There is nothing to draw.", where=f"{name} is empty")


def png_of(figure: Figure) -> bytes:
    """The figure as a small PNG: at most 64 colours, the same bytes for the same figure."""
    buffer = io.BytesIO()
    FigureCanvasAgg(figure)
    figure.savefig(buffer, format="png", dpi=_DOTS_PER_INCH, facecolor=CARD)
    # Flat colours and their soft edges need few colours, which makes the file several times
    # smaller. Without dithering, so that flat areas stay flat.
    picture = Image.open(buffer).convert("RGB").quantize(64, dither=Image.Dither.NONE)
    compact = io.BytesIO()
    picture.save(compact, format="png", optimize=True)
    return compact.getvalue()


def show(figure: Figure, alt: str) -> None:
    """Show a figure in the notebook, with a text for those who cannot see it.

    `alt` says what the picture shows and what to see in it, in a sentence or two. It is written
    into the notebook beside the picture. Raises LessonkitError if it is missing or too short.
    """
    text = " ".join(str(alt or "").split())
    if len(text) < _SHORTEST_ALT:
        raise LessonkitError(
            f"A figure needs an alternative text of at least {_SHORTEST_ALT} characters.",
            where=f"alt={alt!r}",
            remedy="Say in a sentence what the picture shows and what to see in it.",
        )
    width = round(figure.get_figwidth() * 96)  # a CSS inch has 96 pixels, whatever the PNG has
    show_bundle(
        {"image/png": png_of(figure), "text/plain": f"Figure: {text}"},
        {"image/png": {"alt": text, "width": width}},
    )
    if "matplotlib.pyplot" in sys.modules:  # or the notebook would show it a second time
        sys.modules["matplotlib.pyplot"].close(figure)
