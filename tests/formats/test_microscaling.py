"""MXFP4 and NVFP4: against the gguf package and torch's FP8, to the bit."""

from __future__ import annotations

import gguf
import numpy as np
import pytest
import torch

from lessonkit.errors import LessonkitError
from lessonkit.formats.floats import FP4_E2M1, FP8_E4M3, encode
from lessonkit.formats.microscaling import (
    Microscaled,
    encode_e2m1,
    quantize_mxfp4,
    quantize_nvfp4,
)

MXFP4 = gguf.GGMLQuantizationType.MXFP4


def quantize(x: torch.Tensor, name: str) -> Microscaled:
    return quantize_mxfp4(x) if name == "mxfp4" else quantize_nvfp4(x)


def weights() -> np.ndarray:
    """Rows of many magnitudes, with zeros, powers of two, their neighbours and exact ties."""
    rng = np.random.default_rng(0)
    x = rng.standard_normal((300, 256)).astype(np.float32)
    x *= np.exp2(rng.integers(-40, 40, (300, 1))).astype(np.float32)
    x[0, :40] = 0
    powers = np.exp2(np.arange(256) % 100 - 50.0).astype(np.float32)
    x[1] = powers
    x[2] = np.nextafter(powers, np.float32(0))
    ties = np.array([0.25, 0.75, 1.25, 1.75, 2.5, 3.5, 5, 6], np.float32)
    x[3] = np.tile(ties, 32)
    x[4] = -x[3]
    return x


def test_gguf_rule_gives_the_gguf_packages_bytes() -> None:
    x = weights()
    theirs = gguf.quants.quantize(x, MXFP4)
    ours = quantize_mxfp4(x, rule="gguf")
    assert np.array_equal(ours.gguf_bytes(), theirs)
    values = gguf.quants.dequantize(theirs, MXFP4)
    assert np.array_equal(ours.dequantize().numpy(), values)


def test_every_scale_byte_decodes_as_in_gguf() -> None:
    codes = torch.arange(32, dtype=torch.uint8).remainder(16).repeat(254, 1)
    ours = quantize_mxfp4(torch.ones(254, 32))
    ours = type(ours)("mxfp4", codes, torch.arange(254, dtype=torch.uint8)[:, None], None)
    theirs = gguf.quants.dequantize(ours.gguf_bytes(), MXFP4)
    assert np.array_equal(ours.dequantize().numpy(), theirs)


def test_the_two_rules_differ_only_at_ties_and_just_below_powers_of_two() -> None:
    rng = np.random.default_rng(1)
    x = rng.standard_normal((200, 320)).astype(np.float32)
    assert torch.equal(quantize_mxfp4(x).dequantize(), quantize_mxfp4(x, rule="gguf").dequantize())
    # Its float32 logarithm is 20 already.
    below = np.full((1, 32), np.nextafter(np.float32(2**20), np.float32(0)))
    assert quantize_mxfp4(below).scales.item() == 127 + 19 - 2
    assert quantize_mxfp4(below, rule="gguf").scales.item() == 127 + 20 - 2
    ties = weights()[3:4, :32]
    assert quantize_mxfp4(ties).codes[0, :8].tolist() == [0, 2, 2, 4, 4, 6, 6, 7]
    assert quantize_mxfp4(ties, rule="gguf").codes[0, :8].tolist() == [0, 1, 2, 3, 4, 5, 6, 7]


def test_blocks_that_gguf_loses_are_kept() -> None:
    x = np.full((1, 32), 2.0**-126, np.float32)
    assert not gguf.quants.dequantize(gguf.quants.quantize(x, MXFP4), MXFP4).any()
    for rule in ("ocp", "gguf"):
        assert np.array_equal(quantize_mxfp4(x, rule=rule).dequantize().numpy(), x)


def test_mxfp4_by_hand() -> None:
    x = torch.zeros(32)
    x[:4] = torch.tensor([7.0, -3.0, 0.2, 0.3])
    ours = quantize_mxfp4(x)
    assert ours.scales.tolist() == [[127]]  # absmax 7 lies in [4, 8): scale 1
    assert ours.codes[:4].tolist() == [7, 13, 0, 1]  # clipped at 6; -3; 0; 0.5
    assert ours.dequantize()[:4].tolist() == [6, -3, 0, 0.5]


def test_e2m1_equals_the_general_format() -> None:
    rng = np.random.default_rng(2)
    x = np.concatenate([rng.standard_normal(20000) * 3, weights()[3], -weights()[3]])
    x = x.astype(np.float32)
    assert np.array_equal(encode_e2m1(torch.from_numpy(x)).numpy(), encode(x, FP4_E2M1))


def test_nvfp4_scales_are_e4m3_of_torch_and_of_the_general_format() -> None:
    x = torch.from_numpy(weights()[5:105]) * 1e-3
    ours = quantize_nvfp4(x)
    assert ours.scales.dtype == torch.float8_e4m3fn and ours.tensor_scale is not None
    assert float(ours.scales.float().max()) == 448
    blocks = x.reshape(100, 16, 16).abs().amax(dim=-1)
    assert float(ours.tensor_scale) == float(x.abs().max() / (448 * 6))
    wanted = blocks / 6 / ours.tensor_scale
    assert np.array_equal(encode(wanted.numpy(), FP8_E4M3), ours.scales.view(torch.uint8).numpy())
    assert torch.equal(wanted.to(torch.float8_e4m3fn).float(), ours.scales.float())


def test_nvfp4_decodes_as_gguf_does_where_the_tensor_scale_is_one() -> None:
    x = torch.from_numpy(np.random.default_rng(4).standard_normal((20, 64)).astype(np.float32))
    x[0, 0] = 448 * 6
    ours = quantize_nvfp4(x)
    assert ours.tensor_scale is not None and float(ours.tensor_scale) == 1
    # GGUF: four scale bytes, then for each 16 values 8 bytes, the first 8 values in low nibbles.
    halves = ours.codes.reshape(20, 4, 2, 8)
    packed = (halves[:, :, 0] | (halves[:, :, 1] << 4)).flatten(1)
    data = torch.cat((ours.scales.view(torch.uint8), packed), dim=1).numpy()
    theirs = gguf.quants.dequantize(data, gguf.GGMLQuantizationType.NVFP4)
    assert np.array_equal(ours.dequantize().numpy(), theirs)


@pytest.mark.parametrize("name", ["mxfp4", "nvfp4"])
@pytest.mark.parametrize("shape", [(), (5,), (3, 33), (2, 3, 64)])
def test_any_shape_comes_back(name: str, shape: tuple[int, ...]) -> None:
    x = torch.randn(shape, generator=torch.Generator().manual_seed(0))
    back = quantize(x, name).dequantize()
    assert back.shape == x.shape
    assert torch.allclose(back, x, rtol=0.35, atol=0.3)


@pytest.mark.parametrize("name", ["mxfp4", "nvfp4"])
@pytest.mark.parametrize("value", [0.0, 1e-45, 1e-40, 3e38])
def test_extremes_stay_finite(name: str, value: float) -> None:
    back = quantize(torch.full((64,), value), name).dequantize()
    assert bool(torch.isfinite(back).all())
    assert torch.allclose(back, torch.full((64,), value), rtol=0.35)


@pytest.mark.parametrize("name", ["mxfp4", "nvfp4"])
@pytest.mark.parametrize("bad", [float("nan"), float("inf")])
def test_nan_and_infinity_are_errors(name: str, bad: float) -> None:
    x = torch.ones(64)
    x[40] = bad
    with pytest.raises(LessonkitError, match="NaN or infinite"):
        quantize(x, name)


def test_wrong_shapes_are_errors() -> None:
    with pytest.raises(LessonkitError, match="multiple of 32"):
        quantize_mxfp4(torch.ones(2, 33)).gguf_bytes()
    with pytest.raises(LessonkitError):
        quantize_nvfp4(torch.ones(2, 32)).gguf_bytes()
