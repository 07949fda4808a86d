"""Rows divided and divided back; a block's output as the judge of its weights."""

from __future__ import annotations

import pytest
import torch

from lessonkit.convert.awq_scaling import (
    ScaledWeight,
    by_name,
    divided_bias,
    output_loss,
    repeated_heads,
)
from lessonkit.convert.decoder import BLOCKS, Decoder, DecoderLayer
from lessonkit.convert.hf_checkpoint import HfCheckpoint
from lessonkit.quantize.awq import InputStatistics
from tests.tiny import make_tiny_llama


@pytest.fixture(scope="module")
def layer(tmp_path_factory: pytest.TempPathFactory) -> DecoderLayer:
    folder = make_tiny_llama(tmp_path_factory.mktemp("scaling") / "tiny", attention_bias=True)
    return Decoder(HfCheckpoint(folder), torch.device("cpu"), torch.float32).layer(0)


def test_rows_of_a_shared_value_head_are_divided_once() -> None:
    """Two heads of size 2 on one key-value head: four scales, in pairs, for two rows."""
    inputs = InputStatistics(torch.ones(3), torch.eye(3))
    scaled = ScaledWeight(torch.ones(2, 3), torch.ones(3), inputs, 0.5)
    scaled.divide_rows(torch.tensor([2.0, 4, 2, 4]), (2, 1))
    assert scaled.weight.tolist() == [[0.5] * 3, [0.25] * 3]
    assert scaled.rows is not None and scaled.rows.tolist() == [2.0, 4.0]


def test_a_bias_is_divided_as_its_rows_are(layer: DecoderLayer) -> None:
    assert repeated_heads(layer) == (4, 2)
    layer.module.self_attn.v_proj.bias.data.copy_(torch.arange(1.0, 33))
    pairs = torch.arange(1.0, 33).view(2, 1, 16).expand(2, 2, 16).reshape(-1)
    divided = divided_bias(layer, "self_attn.v_proj", pairs, (4, 2))
    assert divided is not None and torch.equal(divided, torch.ones(32))
    assert divided_bias(layer, "mlp.up_proj", torch.ones(128), None) is None


def test_a_blocks_loss_is_the_mean_squared_change_of_its_output(layer: DecoderLayer) -> None:
    hidden = torch.randn(3, 8, 64, generator=torch.Generator().manual_seed(0))
    linears, block = ("mlp.gate_proj", "mlp.up_proj"), BLOCKS[1]
    weights = [layer.weight(linear).clone() for linear in linears]
    loss = output_loss(layer, block, linears, hidden)
    assert loss(weights) == 0
    found = loss([weights[0], 2 * weights[1]])  # a doubled MLP adds itself once more
    layer.replace(by_name(layer, linears, weights))
    expected = layer.module.mlp(layer.module.post_attention_layernorm(hidden)).square().mean()
    assert found == pytest.approx(float(expected), rel=1e-4)


def test_names_are_those_of_the_checkpoint(layer: DecoderLayer) -> None:
    names = by_name(layer, ["mlp.up_proj"], [torch.zeros(128, 64)])
    assert list(names) == ["model.layers.0.mlp.up_proj.weight"]
