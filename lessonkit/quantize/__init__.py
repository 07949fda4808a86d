"""Choosing the codes of one matrix: round to nearest, and smarter ways."""

from lessonkit.quantize.awq import (
    RATIOS,
    InputCollector,
    InputStatistics,
    candidate_scales,
    clip,
    fold_into_norm,
    fold_into_rows,
    mean_weight_magnitude,
    scale_columns,
    search_clip,
    search_scales,
    tie_heads,
)
from lessonkit.quantize.gptq import (
    Hessian,
    gptq,
    inverse_factor,
    output_error,
    round_columns,
)
from lessonkit.quantize.grids import (
    AwqGrid,
    CodebookGrid,
    IntGrid,
    Parameters,
    Q4_0Grid,
    round_to_nearest,
)
from lessonkit.quantize.int8 import Int8Rows, integer_product, linear, quantize_rows
from lessonkit.quantize.rtn import fake_quantize, linear_layers, quantized_model, relative_rms_error
from lessonkit.quantize.schemes import Scheme, scheme

__all__ = [
    "AwqGrid",
    "candidate_scales",
    "clip",
    "CodebookGrid",
    "fake_quantize",
    "fold_into_norm",
    "fold_into_rows",
    "gptq",
    "Hessian",
    "InputCollector",
    "InputStatistics",
    "Int8Rows",
    "integer_product",
    "inverse_factor",
    "linear",
    "linear_layers",
    "output_error",
    "IntGrid",
    "linear",
    "linear_layers",
    "mean_weight_magnitude",
    "Parameters",
    "Q4_0Grid",
    "quantize_rows",
    "quantized_model",
    "RATIOS",
    "relative_rms_error",
    "round_columns",
    "round_to_nearest",
    "scale_columns",
    "Scheme",
    "scheme",
    "search_clip",
    "search_scales",
    "tie_heads",
]
