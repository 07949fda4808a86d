"""Schemes by name, fake quantisation, and models that are quantised for a while."""

from __future__ import annotations

import pytest
import torch
from torch import nn

from lessonkit.errors import LessonkitError
from lessonkit.quantize.rtn import (
    fake_quantize,
    linear_layers,
    quantized_model,
    relative_rms_error,
)
from tests.quantize.test_schemes import BITS_OF_SCHEMES, weight
from tests.tiny import tiny_config


@pytest.fixture
def model() -> nn.Module:
    from transformers import LlamaForCausalLM

    torch.manual_seed(0)
    return LlamaForCausalLM(tiny_config(300)).eval()


@pytest.mark.parametrize("name", BITS_OF_SCHEMES)
def test_every_scheme_keeps_shape_and_dtype_and_comes_near(name: str) -> None:
    for dtype in (torch.float32, torch.bfloat16):
        result = fake_quantize(weight(dtype), name)
        assert result.dtype == dtype and result.shape == (48, 128)
        error = (result.float() - weight(dtype).float()).square().mean().sqrt() / 0.05
        assert error < 0.3
        # These numbers are not so small that bf16's would fall out of fp16's range.
        lossless = name == "fp32" or (dtype == torch.bfloat16 and name in ("bf16", "fp16"))
        assert (error == 0) == lossless


def test_a_cast_out_of_range_is_an_error() -> None:
    with pytest.raises(LessonkitError, match="beyond the largest float16"):
        fake_quantize(torch.tensor([70000.0], dtype=torch.bfloat16), "fp16")
    with pytest.raises(LessonkitError, match="beyond the largest float8_e4m3fn"):
        fake_quantize(torch.tensor([500.0]), "fp8 e4m3")
    with pytest.raises(LessonkitError, match="NaN or infinite"):
        fake_quantize(torch.tensor([float("nan")]), "bf16")


def test_relative_rms_error_by_hand() -> None:
    x = torch.tensor([127.0, 0.25])  # the second becomes 0
    assert relative_rms_error(x, "int8 per tensor") == pytest.approx(0.25 / 127.00025, rel=1e-5)
    assert relative_rms_error(torch.zeros(4), "int8 per tensor") == 0


def test_the_error_is_measured_before_the_cast_to_the_weights_dtype() -> None:
    x = weight(torch.bfloat16)
    assert relative_rms_error(x, "nf4 block 64") == relative_rms_error(x.float(), "nf4 block 64")


# --- models -----------------------------------------------------------------------------------


def test_linear_layers_are_those_of_the_decoder(model: nn.Module) -> None:
    names = list(linear_layers(model))
    assert len(names) == 2 * 7 and all(name.startswith("model.layers.") for name in names)
    assert list(linear_layers(model, lm_head=True)) == [*names, "lm_head"]


def test_a_model_is_quantised_inside_and_itself_again_outside(model: nn.Module) -> None:
    before = {name: p.data for name, p in model.named_parameters()}
    copies = {name: p.clone() for name, p in model.named_parameters()}
    tokens = torch.arange(20)[None]
    with torch.no_grad():
        logits = model(tokens).logits
        with quantized_model(model, "nf4 block 64") as quantised:
            assert quantised is model
            for name, layer in linear_layers(model, lm_head=True).items():
                original = copies[f"{name}.weight"]
                expected = (
                    original if name == "lm_head" else fake_quantize(original, "nf4 block 64")
                )
                assert torch.equal(layer.weight, expected), name
            inside = model(tokens).logits
        after = model(tokens).logits
    assert not torch.equal(inside, logits)
    assert torch.equal(after, logits)
    for name, parameter in model.named_parameters():
        assert parameter.data.data_ptr() == before[name].data_ptr(), "the same tensor, no copy"
        assert torch.equal(parameter, copies[name])


def test_the_output_layer_joins_if_asked(model: nn.Module) -> None:
    original = model.lm_head.weight.clone()
    with quantized_model(model, "int4 block 64", lm_head=True):
        assert torch.equal(model.lm_head.weight, fake_quantize(original, "int4 block 64"))
    assert torch.equal(model.lm_head.weight, original)


def test_an_exception_restores_the_model(model: nn.Module) -> None:
    copies = {name: p.clone() for name, p in model.named_parameters()}
    with pytest.raises(ZeroDivisionError), quantized_model(model, "fp4 block 64"):
        _ = 1 / 0
    assert all(torch.equal(p, copies[name]) for name, p in model.named_parameters())


def test_a_bad_weight_is_named_and_the_model_restored(model: nn.Module) -> None:
    copies = {name: p.clone() for name, p in model.named_parameters()}
    bad = model.model.layers[1].mlp.up_proj.weight
    with torch.no_grad():
        bad[0, 0] = float("nan")
    with (
        pytest.raises(LessonkitError, match=r"model\.layers\.1\.mlp\.up_proj\.weight"),
        quantized_model(model, "fp4 block 64"),
    ):
        pytest.fail("the body must not run")
    with torch.no_grad():
        bad[0, 0] = copies["model.layers.1.mlp.up_proj.weight"][0, 0]
    assert all(torch.equal(p, copies[name]) for name, p in model.named_parameters())


def test_quantised_models_nest(model: nn.Module) -> None:
    original = model.model.layers[0].mlp.up_proj.weight.clone()
    layer = model.model.layers[0].mlp.up_proj
    with quantized_model(model, "int8 per channel"):
        outer = layer.weight.clone()
        with quantized_model(model, "nf4 block 64"):
            assert torch.equal(layer.weight, fake_quantize(outer, "nf4 block 64"))
        assert torch.equal(layer.weight, outer)
    assert torch.equal(layer.weight, original)


def test_tied_embeddings_are_not_touched() -> None:
    from transformers import LlamaForCausalLM

    tied = LlamaForCausalLM(tiny_config(300, tie_word_embeddings=True))
    embeddings = tied.model.embed_tokens.weight.clone()
    with quantized_model(tied, "nf4 block 64"):
        assert torch.equal(tied.model.embed_tokens.weight, embeddings)
    with pytest.raises(LessonkitError, match="shares its weight"):
        linear_layers(tied, lm_head=True)


def test_a_weight_shared_by_two_layers_is_quantised_once() -> None:
    a, b = nn.Linear(64, 64, bias=False), nn.Linear(64, 64, bias=False)
    b.weight = a.weight
    pair = nn.Sequential(a, b)
    original = a.weight.clone()
    with quantized_model(pair, "nf4 block 64"):
        assert torch.equal(b.weight, fake_quantize(original, "nf4 block 64"))
    assert torch.equal(a.weight, original)
