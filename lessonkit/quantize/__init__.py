"""Choosing the codes of one matrix: round to nearest, and smarter ways."""

from lessonkit.quantize.int8 import Int8Rows, linear, quantize_rows
from lessonkit.quantize.rtn import fake_quantize, linear_layers, quantized_model, relative_rms_error
from lessonkit.quantize.schemes import Scheme, scheme

__all__ = [
    "Int8Rows",
    "Scheme",
    "fake_quantize",
    "linear",
    "linear_layers",
    "quantize_rows",
    "quantized_model",
    "relative_rms_error",
    "scheme",
]
