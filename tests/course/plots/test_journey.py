"""The map of the course: every lesson once, every box readable, every road clear."""

from __future__ import annotations

from itertools import combinations

import numpy as np
import pytest
from matplotlib.backends.backend_agg import FigureCanvasAgg
from matplotlib.figure import Figure
from matplotlib.patches import FancyArrowPatch, FancyBboxPatch

from lessonkit.course.plots import journey
from lessonkit.course.plots.journey import journey_map


@pytest.fixture(scope="module")
def figure() -> Figure:
    figure = journey_map()
    FigureCanvasAgg(figure).draw()
    return figure


def boxes(figure: Figure) -> list[FancyBboxPatch]:
    return [patch for patch in figure.axes[0].patches if isinstance(patch, FancyBboxPatch)]


def test_the_map_names_every_lesson_once(figure: Figure) -> None:
    words = [text.get_text() for text in figure.axes[0].texts]
    lessons = sorted(word for word in words if word.isdigit())
    # Lesson 03 has two boxes: it leads from Meta's files to Hugging Face's.
    assert lessons == ["00", "01", "02", "03", "03", *(f"{n:02}" for n in range(4, 10))]
    assert {"GGUF", "GPTQ", "AWQ", "LoRA merge", "Perplexity"} <= set(words)


def test_every_text_of_a_box_fits_into_it(figure: Figure) -> None:
    frames = [box.get_window_extent() for box in boxes(figure)]
    stops = {text for stop in journey._STOPS.values() for text in (stop.title, stop.detail)}
    fitted = 0
    for text in figure.axes[0].texts:
        if text.get_text() in stops:
            inner = text.get_window_extent()
            assert any(
                f.x0 <= inner.x0 and inner.x1 <= f.x1 and f.y0 <= inner.y0 and inner.y1 <= f.y1
                for f in frames
            ), text.get_text()
            fitted += 1
    assert fitted == 2 * len(frames) == 2 * len(journey._STOPS)


def test_no_two_boxes_touch(figure: Figure) -> None:
    for one, other in combinations([box.get_window_extent() for box in boxes(figure)], 2):
        assert not one.overlaps(other)


def test_every_road_leads_right_and_through_no_other_box(figure: Figure) -> None:
    frames = [box.get_window_extent() for box in boxes(figure)]
    arrows = [patch for patch in figure.axes[0].patches if isinstance(patch, FancyArrowPatch)]
    assert len(arrows) == len(journey._ROADS) == len(set(journey._ROADS))
    for arrow in arrows:
        (start, end) = figure.axes[0].transData.transform(arrow._posA_posB)  # type: ignore[attr-defined]
        assert start[0] < end[0]
        for share in np.linspace(0, 1, 50):
            x, y = start + share * (end - start)
            assert not any(f.x0 < x < f.x1 and f.y0 < y < f.y1 for f in frames)


def test_every_format_is_judged_and_every_box_is_on_a_road() -> None:
    on_roads = {name for road in journey._ROADS for name in road}
    assert on_roads == set(journey._STOPS)
    for name in ("gguf", "gptq", "awq", "nf4"):
        assert ("lora", name) in journey._ROADS and (name, "perplexity") in journey._ROADS
