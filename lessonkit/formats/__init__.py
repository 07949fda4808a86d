"""Numbers: pure arithmetic on arrays, without files and without models.

What is public; the modules say how each works. None of it loads torch before it is used.
"""

from lessonkit.formats.arrays import as_float_tensor, require_finite
from lessonkit.formats.blocks import bits_per_weight, relative_rms
from lessonkit.formats.blockwise import Blockwise, dequantize_blockwise, quantize_blockwise
from lessonkit.formats.codebooks import (
    CODEBOOKS,
    E1M2,
    E2M1,
    E3M0,
    FP4,
    INT4,
    NF4,
    NF4_OFFSET,
    Codebook,
    derive_nf4,
    dynamic_map,
)
from lessonkit.formats.double_quant import SCALE_BITS, DoubleQuantized, double_quantize
from lessonkit.formats.floats import (
    BF16,
    FP4_E1M2,
    FP4_E2M1,
    FP4_E3M0,
    FP8_E4M3,
    FP8_E5M2,
    FP16,
    FP32,
    TF32,
    FloatFormat,
    all_values,
    bits,
    decode,
    encode,
    finite_values,
    round_to,
    split_fields,
    table,
    ulp,
)
from lessonkit.formats.ggml import block_format
from lessonkit.formats.integers import IntQuantized, quantize_absmax, quantize_zero_point
from lessonkit.formats.microscaling import Microscaled, quantize_mxfp4, quantize_nvfp4
from lessonkit.formats.packing import AWQ_ORDER, pack_awq, pack_gptq, unpack_awq, unpack_gptq

__all__ = [
    "AWQ_ORDER",
    "BF16",
    "Blockwise",
    "CODEBOOKS",
    "Codebook",
    "DoubleQuantized",
    "E1M2",
    "E2M1",
    "E3M0",
    "FP16",
    "FP32",
    "FP4",
    "FP4_E1M2",
    "FP4_E2M1",
    "FP4_E3M0",
    "FP8_E4M3",
    "FP8_E5M2",
    "FloatFormat",
    "INT4",
    "IntQuantized",
    "Microscaled",
    "NF4",
    "NF4_OFFSET",
    "SCALE_BITS",
    "TF32",
    "all_values",
    "as_float_tensor",
    "bits",
    "bits_per_weight",
    "block_format",
    "decode",
    "dequantize_blockwise",
    "derive_nf4",
    "double_quantize",
    "dynamic_map",
    "encode",
    "finite_values",
    "pack_awq",
    "pack_gptq",
    "quantize_absmax",
    "quantize_blockwise",
    "quantize_mxfp4",
    "quantize_nvfp4",
    "quantize_zero_point",
    "relative_rms",
    "require_finite",
    "round_to",
    "split_fields",
    "table",
    "ulp",
    "unpack_awq",
    "unpack_gptq",
]
