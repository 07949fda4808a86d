"""What follows from a Llama's sizes, against the sizes of the published models."""

from __future__ import annotations

from dataclasses import replace

import pytest
import torch
from transformers import LlamaConfig, LlamaForCausalLM

from lessonkit.llama.layout import pairs
from lessonkit.llama.shape import LlamaShape, context_of, meta_mlp_width

LLAMA_2_7B = LlamaShape(4096, 32, 32, 32, 11008, 32000, 1e-5)
TINY = LlamaShape(64, 3, 4, 2, 96, 400, 1e-5)


@pytest.mark.parametrize(
    ("width", "multiple_of", "multiplier", "expected"),
    [
        (4096, 256, None, 11008),  # Llama 1 and 2, 7B
        (5120, 256, None, 13824),  # 13B
        (6656, 256, None, 17920),  # 30B
        (8192, 256, None, 22016),  # Llama 1, 65B
        (8192, 4096, 1.3, 28672),  # Llama 2 and 3, 70B
        (4096, 1024, 1.3, 14336),  # Llama 3, 8B
        (2048, 256, 1.5, 8192),  # Llama 3.2, 1B
        (3072, 256, 1.0, 8192),  # Llama 3.2, 3B
        (16384, 4096, 1.2, 53248),  # Llama 3.1, 405B
    ],
)
def test_feed_forward_widths_of_the_published_models(
    width: int, multiple_of: int, multiplier: float | None, expected: int
) -> None:
    assert meta_mlp_width(width, multiple_of, multiplier) == expected


def test_shapes_are_the_librarys() -> None:
    config = LlamaConfig(
        vocab_size=400, hidden_size=64, intermediate_size=96, num_hidden_layers=3,
        num_attention_heads=4, num_key_value_heads=2,
    )  # fmt: skip
    with torch.device("meta"):
        theirs = LlamaForCausalLM(config).state_dict()
    assert {pair.hf: TINY.shape_of(pair) for pair in pairs(3)} == {
        name: tuple(tensor.shape) for name, tensor in theirs.items()
    }


def test_heads_of_a_rotary_matrix() -> None:
    heads = {pair.rotary: TINY.heads_of(pair) for pair in pairs(1) if pair.rotary}
    assert heads == {"query": 4, "key": 2}
    assert TINY.head_size == 16


@pytest.mark.parametrize(
    ("changes", "expected"),
    [
        ({"norm_eps": 1e-6}, (2048, "Llama 1")),
        ({"width": 8192, "layers": 80, "heads": 64, "kv_heads": 64}, (2048, "Llama 1")),
        ({}, (4096, "Llama 2")),
        ({"width": 8192, "layers": 80, "heads": 64, "kv_heads": 8}, (4096, "Llama 2")),
        ({"rope_theta": 1e6}, (16_384, "Code Llama")),
        ({"rope_theta": 5e5, "vocabulary": 128_256}, (8192, "Llama 3")),
        ({"rope_theta": 5e5, "rope_factor": 8.0}, (131_072, "Llama 3.1 or later")),
    ],
)
def test_the_usual_context(changes: dict[str, float], expected: tuple[int, str]) -> None:
    assert context_of(replace(LLAMA_2_7B, **changes)) == expected  # type: ignore[arg-type]


def test_in_words() -> None:
    assert str(LLAMA_2_7B) == (
        "32 layers of width 4096, feed-forward width 11008, 32 heads, vocabulary of 32000"
    )
    assert str(replace(TINY, tied=True)).endswith(
        "4 heads, 2 for keys and values, vocabulary of 400, tied embeddings"
    )
