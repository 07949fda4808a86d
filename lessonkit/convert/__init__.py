"""A checkpoint in, a checkpoint out, streamed, with a certificate."""

from lessonkit.convert.meta import hf_to_meta, meta_to_hf
from lessonkit.convert.nf4 import quantize_checkpoint
from lessonkit.convert.open import open_model
from lessonkit.convert.verification import verify_model

__all__ = [
    "hf_to_meta",
    "meta_to_hf",
    "open_model",
    "quantize_checkpoint",
    "verify_model",
]
