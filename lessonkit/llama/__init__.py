"""What a Llama is: sizes, configurations, tensor names and row order, tokenizers."""

from lessonkit.llama.configs import (
    hf_config,
    meta_params,
    read_hf_config,
    read_meta_params,
    read_sizes,
)
from lessonkit.llama.layout import Pair, halves_to_pairs, pairs, pairs_to_halves
from lessonkit.llama.shape import LlamaShape, meta_mlp_width
from lessonkit.llama.tokenizer import convert_tokenizer, count_tokens
from lessonkit.llama.vocabulary import ExtendedVocabulary, extend_vocabulary

__all__ = [
    "ExtendedVocabulary",
    "LlamaShape",
    "Pair",
    "convert_tokenizer",
    "count_tokens",
    "extend_vocabulary",
    "halves_to_pairs",
    "hf_config",
    "meta_mlp_width",
    "meta_params",
    "pairs",
    "pairs_to_halves",
    "read_hf_config",
    "read_meta_params",
    "read_sizes",
]
