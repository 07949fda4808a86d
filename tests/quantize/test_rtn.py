"""Schemes by name, fake quantisation, and models that are quantised for a while."""

from __future__ import annotations

import pytest
import torch
from torch import nn

from lessonkit.errors import LessonkitError
from lessonkit.formats.blockwise import quantize_blockwise
from lessonkit.formats.codebooks import NF4
from lessonkit.formats.integers import quantize_absmax, quantize_zero_point
from lessonkit.formats.microscaling import quantize_nvfp4
from lessonkit.quantize.rtn import (
    fake_quantize,
    linear_layers,
    quantized_model,
    relative_rms_error,
    scheme,
    weight_errors,
)
from tests.tiny import tiny_config

BITS_OF_SCHEMES = {
    "fp32": 32,
    "fp16": 16,
    "bf16": 16,
    "fp8 e4m3": 8,
    "fp8 e5m2": 8,
    "int8 per tensor": 8 + 32 / (48 * 128),
    "int8 per channel": 8 + 32 / 128,
    "int8 per channel full": 8 + 32 / 128,
    "int8 per tensor zero-point": 8 + 40 / (48 * 128),
    "int4 block 64": 4.5,
    "int4 block 64 zero-point": 4 + 36 / 64,
    "int3 block 32": 4,
    "int4 codebook block 64": 4.5,
    "nf4 block 64": 4.5,
    "nf4 block 64 double quant": 4 + 8 / 64 + 32 / (64 * 256),
    "fp4 block 64": 4.5,
    "e2m1 block 32": 5,
    "e3m0 block 32": 5,
    "e1m2 block 32": 5,
    "mxfp4": 4.25,
    "nvfp4": 4.5,
}


def weight(dtype: torch.dtype = torch.float32) -> torch.Tensor:
    return (torch.randn(48, 128, generator=torch.Generator().manual_seed(0)) * 0.05).to(dtype)


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


@pytest.mark.parametrize(("name", "bits"), BITS_OF_SCHEMES.items())
def test_bits_per_weight(name: str, bits: float) -> None:
    assert scheme(name).bits_per_weight((48, 128)) == bits


def test_bits_per_weight_agree_with_what_is_held() -> None:
    x = weight()
    for name, held in (
        ("int8 per channel", quantize_absmax(x, 8, granularity="channel")),
        ("int8 per tensor zero-point", quantize_zero_point(x, 8)),
        ("int4 block 48", quantize_absmax(x, 4, granularity="block", block_size=48)),
        ("nf4 block 64", quantize_blockwise(x, NF4, 64)),
    ):
        assert scheme(name).bits_per_weight((48, 128)) == held.bits_per_weight()


def test_schemes_are_the_formats_they_name() -> None:
    x = weight()
    same = {
        "nf4 block 64": quantize_blockwise(x, NF4, 64).dequantize(),
        "nf4 block 32 double quant": quantize_blockwise(x, NF4, 32, double_quant=True).dequantize(),
        "int4 block 64": quantize_absmax(x, 4, granularity="block", block_size=64).dequantize(),
        "int8 per channel full": quantize_absmax(
            x, granularity="channel", convention="full"
        ).dequantize(),
        "int5 per tensor zero-point": quantize_zero_point(x, 5).dequantize(),
        "nvfp4": quantize_nvfp4(x).dequantize(),
        "bf16": x.to(torch.bfloat16).float(),
        "FP8  E4M3": x.to(torch.float8_e4m3fn).float(),
    }
    for name, expected in same.items():
        assert torch.equal(fake_quantize(x, name), expected), name


@pytest.mark.parametrize(
    "name", ["int9 per tensor", "nf4", "int4", "fp8", "nf4 block", "nf4 block 64 zero-point", ""]
)
def test_unknown_names_are_errors_with_examples(name: str) -> None:
    with pytest.raises(LessonkitError, match="no quantisation scheme") as error:
        scheme(name)
    assert "nf4 block 64" in str(error.value)


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


def test_weight_errors_by_layer(model: nn.Module) -> None:
    errors = weight_errors(model, "nf4 block 64")
    assert list(errors) == list(linear_layers(model))
    name = "model.layers.1.self_attn.q_proj"
    weight = model.get_submodule(name).weight
    assert errors[name] == relative_rms_error(weight, "nf4 block 64")
    assert all(0.08 < error < 0.1 for error in errors.values())
    finer = weight_errors(model, "int8 per channel")
    assert all(finer[name] < errors[name] / 5 for name in errors)
