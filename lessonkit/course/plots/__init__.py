"""The pictures of the course. Each function returns a figure; `show` puts it into the notebook."""

from lessonkit.course.plots.checkpoints import file_strips, shard_cuts, shared_heads
from lessonkit.course.plots.codebooks import (
    error_against_bits,
    level_shares,
    levels_under_bell,
    recall_against_bits,
)
from lessonkit.course.plots.gguf import (
    block_bytes,
    file_map,
    loss_against_bits,
    mix_grid,
    search_curve,
)
from lessonkit.course.plots.journey import journey_map
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

__all__ = [
    "bar_table",
    "block_bytes",
    "draw_bits",
    "error_against_bits",
    "file_map",
    "file_strips",
    "journey_map",
    "level_shares",
    "levels_under_bell",
    "loss_against_bits",
    "loss_curve",
    "low_rank_blocks",
    "mix_grid",
    "number_line",
    "recall_against_bits",
    "rotary_dials",
    "rotary_layouts",
    "search_curve",
    "shard_cuts",
    "shared_heads",
    "show",
    "spacing_plot",
    "use_style",
    "weight_histogram",
]
