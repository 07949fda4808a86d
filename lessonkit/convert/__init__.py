"""A checkpoint in, a checkpoint out, streamed, with a certificate."""

from lessonkit.convert.adapter import Adapter, open_adapter
from lessonkit.convert.adapter_gguf import adapter_to_gguf
from lessonkit.convert.awq import Awq, to_awq
from lessonkit.convert.calibration import Calibration, cut_calibration
from lessonkit.convert.combine import Pair, combine_cat, combine_linear, dare, ties
from lessonkit.convert.explain import explain
from lessonkit.convert.from_gguf import from_gguf
from lessonkit.convert.gguf import to_gguf
from lessonkit.convert.gguf_mix import MIXES
from lessonkit.convert.gptq import Gptq, to_gptq
from lessonkit.convert.imatrix import ImportanceMatrix, collect_imatrix, read_imatrix
from lessonkit.convert.layerwise import quantize_layers
from lessonkit.convert.lora import merge
from lessonkit.convert.lora_math import add_dora, low_rank_delta
from lessonkit.convert.lora_tensor import deltas
from lessonkit.convert.meta import hf_to_meta, meta_to_hf
from lessonkit.convert.nf4 import quantize_checkpoint
from lessonkit.convert.open import open_model
from lessonkit.convert.plain import plain_weights, runnable, weights_of
from lessonkit.convert.plan import plan
from lessonkit.convert.verification import verify_model

__all__ = [
    "MIXES",
    "ImportanceMatrix",
    "Pair",
    "collect_imatrix",
    "explain",
    "from_gguf",
    "Adapter",
    "Awq",
    "Calibration",
    "Gptq",
    "adapter_to_gguf",
    "add_dora",
    "combine_cat",
    "combine_linear",
    "cut_calibration",
    "dare",
    "deltas",
    "hf_to_meta",
    "low_rank_delta",
    "merge",
    "meta_to_hf",
    "open_adapter",
    "open_model",
    "plain_weights",
    "plan",
    "quantize_checkpoint",
    "quantize_layers",
    "read_imatrix",
    "runnable",
    "to_awq",
    "to_gguf",
    "to_gptq",
    "ties",
    "verify_model",
    "weights_of",
]
