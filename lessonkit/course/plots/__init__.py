"""The pictures of the course. Each function returns a figure; `show` puts it into the notebook."""

from lessonkit.course.plots.awq import (
    channel_magnitudes,
    method_by_container,
    searched_curves,
    word_order,
)
from lessonkit.course.plots.checkpoints import file_strips, shard_cuts, shared_heads
from lessonkit.course.plots.codebooks import (
    error_against_bits,
    level_shares,
    levels_under_bell,
    recall_against_bits,
)
from lessonkit.course.plots.evaluation import differences, pareto, pareto_front, surprise
from lessonkit.course.plots.gguf import (
    block_bytes,
    file_map,
    loss_against_bits,
    mix_grid,
    search_curve,
)
from lessonkit.course.plots.gptq import (
    compensation_steps,
    error_curves,
    error_ellipse,
    hessian_picture,
    packed_words,
)
from lessonkit.course.plots.journey import journey_map
from lessonkit.course.plots.layer import llama_layer
from lessonkit.course.plots.lora import loss_curve, low_rank_blocks
from lessonkit.course.plots.numbers import (
    bar_table,
    draw_bits,
    number_line,
    spacing_plot,
    weight_histogram,
)
from lessonkit.course.plots.rotary import rotary_dials, rotary_layouts
from lessonkit.course.plots.style import show, use_style
from lessonkit.course.plots.templates import template_strips

__all__ = [
    "bar_table",
    "block_bytes",
    "differences",
    "compensation_steps",
    "channel_magnitudes",
    "draw_bits",
    "error_against_bits",
    "error_curves",
    "error_ellipse",
    "file_map",
    "file_strips",
    "hessian_picture",
    "journey_map",
    "level_shares",
    "levels_under_bell",
    "llama_layer",
    "loss_against_bits",
    "method_by_container",
    "loss_curve",
    "low_rank_blocks",
    "mix_grid",
    "number_line",
    "pareto",
    "pareto_front",
    "packed_words",
    "recall_against_bits",
    "rotary_dials",
    "rotary_layouts",
    "search_curve",
    "searched_curves",
    "shard_cuts",
    "shared_heads",
    "show",
    "spacing_plot",
    "surprise",
    "template_strips",
    "use_style",
    "weight_histogram",
    "word_order",
]
