"""Schemes by name: what each costs, and that it is the format it names."""

from __future__ import annotations

import pytest
import torch

from lessonkit.errors import LessonkitError
from lessonkit.formats.blockwise import quantize_blockwise
from lessonkit.formats.codebooks import NF4
from lessonkit.formats.integers import quantize_absmax, quantize_zero_point
from lessonkit.formats.microscaling import quantize_nvfp4
from lessonkit.quantize.rtn import fake_quantize
from lessonkit.quantize.schemes import scheme

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
