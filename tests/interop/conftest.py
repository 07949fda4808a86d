"""The toy tokenizers of the conversion tests."""

from tests.convert.conftest import sentencepiece_model, tiktoken_model

__all__ = ["sentencepiece_model", "tiktoken_model"]
