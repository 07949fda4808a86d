"""One layer of a Llama: every tensor is there with its shape, and no two boxes touch."""

from __future__ import annotations

from itertools import combinations

import pytest
from matplotlib.backends.backend_agg import FigureCanvasAgg
from matplotlib.patches import FancyBboxPatch

from lessonkit.course.plots import layer, llama_layer
from lessonkit.errors import LessonkitError

SHAPES: dict[str, tuple[int, ...]] = {
    "input_layernorm": (4096,),
    "q_proj": (4096, 4096),
    "k_proj": (1024, 4096),
    "v_proj": (1024, 4096),
    "o_proj": (4096, 4096),
    "post_attention_layernorm": (4096,),
    "gate_proj": (14336, 4096),
    "up_proj": (14336, 4096),
    "down_proj": (4096, 14336),
}


def test_every_tensor_has_its_name_and_shape_in_a_box_of_its_own() -> None:
    figure = llama_layer(SHAPES)
    FigureCanvasAgg(figure).draw()
    axes = figure.axes[0]
    words = [text.get_text() for text in axes.texts]
    matrices = [name for name, shape in SHAPES.items() if len(shape) == 2]
    assert set(matrices) <= set(words)
    assert words.count("14,336 × 4,096") == 2 and words.count("4,096 × 14,336") == 1
    frames = [p.get_window_extent() for p in axes.patches if isinstance(p, FancyBboxPatch)]
    assert len(frames) == len(layer._TENSORS) == 9
    for one, other in combinations(frames, 2):
        assert not one.overlaps(other)
    for text in axes.texts:
        if text.get_text() in matrices or "×" in text.get_text()[1:]:
            inner = text.get_window_extent()
            assert any(f.x0 <= inner.x0 and inner.x1 <= f.x1 for f in frames), text.get_text()


def test_a_missing_tensor_is_named() -> None:
    with pytest.raises(LessonkitError, match="v_proj"):
        llama_layer({name: shape for name, shape in SHAPES.items() if name != "v_proj"})
