"""Choosing the codes of one matrix: round to nearest, and smarter ways."""

from lessonkit.quantize.gptq import (
    Hessian,
    gptq,
    inverse_factor,
    output_error,
    round_columns,
)
from lessonkit.quantize.grids import AwqGrid, CodebookGrid, IntGrid, Q4_0Grid, round_to_nearest
from lessonkit.quantize.int8 import Int8Rows, integer_product, linear, quantize_rows
from lessonkit.quantize.rtn import fake_quantize, linear_layers, quantized_model, relative_rms_error
from lessonkit.quantize.schemes import Scheme, scheme

__all__ = [
    "AwqGrid",
    "CodebookGrid",
    "Hessian",
    "Int8Rows",
    "IntGrid",
    "Q4_0Grid",
    "Scheme",
    "fake_quantize",
    "gptq",
    "integer_product",
    "inverse_factor",
    "linear",
    "linear_layers",
    "output_error",
    "quantize_rows",
    "quantized_model",
    "relative_rms_error",
    "round_columns",
    "round_to_nearest",
    "scheme",
]
