"""Grids: parameters and codes by hand, against the package's other quantisers, and GPTQModel's."""

from __future__ import annotations

import os
from types import SimpleNamespace

import numpy as np
import pytest
import torch

from lessonkit.errors import LessonkitError
from lessonkit.formats.blockwise import quantize_blockwise
from lessonkit.formats.codebooks import CODEBOOKS, FP4, NF4
from lessonkit.formats.integers import quantize_absmax
from lessonkit.quantize.grids import (
    AwqGrid,
    CodebookGrid,
    Grid,
    IntGrid,
    Q4_0Grid,
    round_to_nearest,
)

GRIDS = [
    *(IntGrid(bits, 32, symmetric) for bits in (2, 3, 4, 8) for symmetric in (True, False)),
    IntGrid(4, -1),
    IntGrid(3, 64, search_norm=2.4),
    AwqGrid(64),
    Q4_0Grid(),
    *(CodebookGrid(book, 64) for book in CODEBOOKS.values()),
]


def weight(out: int = 24, columns: int = 128, seed: int = 0) -> torch.Tensor:
    generator = torch.Generator().manual_seed(seed)
    return torch.randn(out, columns, generator=generator) * 0.02


def error(w: torch.Tensor, grid: Grid) -> float:
    return float((round_to_nearest(w, grid).dequantize() - w).square().mean())


def test_symmetric_by_hand() -> None:
    w = torch.tensor([[-0.75, 0.1, 0.74, 0.05]])
    quantized = round_to_nearest(w, IntGrid(4, -1))
    scale = float(torch.tensor(1.5 / 15).half())  # 0.1, rounded to fp16
    assert float(quantized.scales) == scale and int(quantized.zeros) == 8
    assert quantized.codes.tolist() == [[0, 9, 15, 9]]  # -7.5 is halfway: to -8, the even one
    assert quantized.codes.dtype == quantized.zeros.dtype == torch.uint8
    assert torch.equal(quantized.dequantize(), torch.tensor([[-8, 1, 7, 1]]) * scale)


def test_asymmetric_by_hand() -> None:
    quantized = round_to_nearest(torch.tensor([[-1.0, 0.0, 2.75, 0.6]]), IntGrid(4, -1, False))
    assert float(quantized.scales) == 0.25 and int(quantized.zeros) == 4
    assert quantized.codes.tolist() == [[0, 4, 15, 6]]


def test_a_zero_point_of_0_is_avoided_unless_asked_for() -> None:
    w = torch.tensor([[0.0, 0.5, 1.0, 1.5]])  # steps of 0.1, had it a zero-point of 0
    assert int(round_to_nearest(w, IntGrid(4, -1, False)).zeros) == 1
    free = round_to_nearest(w, IntGrid(4, -1, False, lowest_zero=0))
    assert int(free.zeros) == 0 and error(w, free.grid) < 1e-6 < error(w, IntGrid(4, -1, False))


def test_awq_range_need_not_contain_zero() -> None:
    w = torch.tensor([[1.0, 2.0, 3.0, 4.0]])
    quantized = round_to_nearest(w, AwqGrid(-1))
    scale = float(quantized.scales)
    assert scale == float(torch.tensor(3 / 15).half()) and int(quantized.zeros) == 0
    assert quantized.codes.tolist() == [[5, 10, 15, 15]]  # shifted out of reach: 4.0 is clipped
    assert float(round_to_nearest(torch.zeros(1, 4), AwqGrid(-1)).scales) == pytest.approx(
        1e-5 / 15, rel=0.05
    )


def test_q4_0_by_hand_with_either_sign() -> None:
    w = torch.zeros(2, 32)
    w[0, :3] = torch.tensor([-0.5, 1.0, -2.0])
    w[1] = -w[0]
    quantized = round_to_nearest(w, Q4_0Grid())
    assert quantized.scales.tolist() == [[0.25], [-0.25]]
    assert quantized.codes[0, :4].tolist() == quantized.codes[1, :4].tolist() == [6, 12, 0, 8]
    assert torch.equal(quantized.dequantize(), w)


def test_q4_0_is_as_good_as_ggmls_own_rounding() -> None:
    gguf = pytest.importorskip("gguf")
    w = weight(64, 256)
    kind = gguf.GGMLQuantizationType.Q4_0
    theirs = torch.from_numpy(gguf.dequantize(gguf.quantize(w.numpy(), kind), kind))
    ours = round_to_nearest(w, Q4_0Grid()).dequantize()
    # The same sixteen levels; codes differ where fp16 moved a level past a weight.
    d = np.array(gguf.quantize(w.numpy(), kind)).reshape(64, 8, 18)[..., :2].copy().view("<f2")
    assert np.array_equal(d[..., 0], round_to_nearest(w, Q4_0Grid()).scales.numpy())
    same = (ours == theirs).float().mean()
    assert 0.99 < same < 1
    assert (ours - w).square().mean() < (theirs - w).square().mean()


@pytest.mark.parametrize("book", [NF4, FP4], ids=lambda book: book.name)
def test_codebooks_are_those_of_blockwise(book) -> None:
    w = weight()
    w[3, 64:] = 0
    quantized = round_to_nearest(w, CodebookGrid(book, 64))
    blockwise = quantize_blockwise(w, book, 64)
    assert torch.equal(quantized.codes, blockwise.codes())
    assert torch.equal(quantized.scales.flatten(), blockwise.scales)
    assert torch.equal(quantized.dequantize(), blockwise.dequantize())
    assert quantized.zeros is None


def test_8_bits_agree_with_the_full_convention_of_integers() -> None:
    w = (weight() * 4096).round().clamp(-254, 254) / 4096
    w[:, 0] = 127.5 / 4096 * 2  # scale 2 / 4096: exact in fp16
    ours = round_to_nearest(w, IntGrid(8, -1))
    theirs = quantize_absmax(w, 8, granularity="channel", convention="full")
    assert torch.equal(ours.codes.int() - 128, theirs.codes.int())


@pytest.mark.parametrize("grid", GRIDS, ids=repr)
def test_every_grid_returns_its_nearest_value(grid: Grid) -> None:
    w = weight()
    quantized = round_to_nearest(w, grid)
    parameters = grid.fit(w.unflatten(1, (grid.groups_in(128), -1))).for_each_weight()
    codes = torch.arange(1 << grid.bits, dtype=torch.uint8).view(-1, 1, 1, 1)
    distance = (grid.decode(codes, parameters) - w.view(1, 24, grid.groups_in(128), -1)).abs()
    reached = (quantized.dequantize() - w).abs()
    assert torch.allclose(reached, distance.amin(dim=0).flatten(1), rtol=0, atol=1e-7)
    assert quantized.scales.dtype == grid.scale_dtype
    assert quantized.scales.shape == (24, grid.groups_in(128))
    # Values on the grid stay where they are, with their parameters.
    again = grid.encode(quantized.dequantize().view(24, grid.groups_in(128), -1), parameters)
    same = grid.decode(again, parameters).flatten(1)
    assert torch.equal(same, quantized.dequantize())


@pytest.mark.parametrize("symmetric", [True, False])
def test_scales_are_rounded_before_the_codes_are_chosen(symmetric: bool) -> None:
    w, grid = weight(256, 128), IntGrid(8, 64, symmetric)
    careful = round_to_nearest(w, grid)
    low, high = w.view(256, 2, 64).amin(-1).clamp(max=0), w.view(256, 2, 64).amax(-1).clamp(min=0)
    if symmetric:
        low, high = -torch.maximum(-low, high), torch.maximum(-low, high)
    exact = ((high - low) / 255).unsqueeze(-1)
    zero = torch.full_like(exact, 128) if symmetric else torch.round(-low.unsqueeze(-1) / exact)
    codes = (torch.round(w.view(256, 2, 64) / exact) + zero).clamp(0, 255)
    careless = ((codes - zero) * exact.half().float()).flatten(1)
    assert error(w, grid) < (careless - w).square().mean()
    assert torch.equal(careful.dequantize(), round_to_nearest(w.double(), grid).dequantize())


def test_searching_the_scale_lowers_the_error() -> None:
    w = weight(64, 256)
    for bits, share in ((2, 0.6), (3, 0.85), (4, 0.95)):
        plain, searched = IntGrid(bits, 128), IntGrid(bits, 128, search_norm=2.0)
        assert error(w, searched) < share * error(w, plain)
        assert error(w, IntGrid(bits, 128, search_norm=2.4)) >= error(w, searched)


@pytest.mark.parametrize("symmetric", [True, False])
@pytest.mark.parametrize("norm", [0.0, 2.4])
def test_parameters_are_those_of_gptqmodel(symmetric: bool, norm: float) -> None:
    os.environ.setdefault("GPTQMODEL_CPU_WORKERS", "2")
    pytest.importorskip("gptqmodel")
    from gptqmodel.quantization.quantizer import Quantizer

    for bits in (3, 4, 8):
        config = SimpleNamespace(bits=bits, sym=symmetric, mse=norm, format="gptq", method="gptq")
        theirs = Quantizer(config)
        theirs.configure(perchannel=True)
        theirs.find_params(weight(200, 64), weight=True)
        ours = IntGrid(bits, 64, symmetric, norm or None, 0).fit(weight(200, 64).unsqueeze(1))
        scale, zero = theirs.scale.flatten(), theirs.zero.flatten()
        assert ours.zeros is not None
        differ = (ours.scales.flatten() - scale).abs() > 5e-4 * scale  # fp16 rounds by 4.9e-4
        # The search compares errors under fp16 scales, and so may stop at another step.
        assert differ.float().mean() <= (0.1 if norm else 0)
        assert (ours.zeros.flatten() == zero)[~differ].float().mean() > 0.95


def test_a_group_without_negative_weights_is_not_clipped_when_symmetric() -> None:
    w = torch.linspace(0, 1, 32).reshape(1, 32)
    assert (round_to_nearest(w, IntGrid(4, 32)).dequantize() - w).abs().max() < 0.08
    assert float(round_to_nearest(-w, IntGrid(4, 32)).scales) == float(
        round_to_nearest(w, IntGrid(4, 32)).scales
    )


@pytest.mark.parametrize("grid", GRIDS, ids=repr)
def test_zeros_and_tiny_weights_stay_finite(grid: Grid) -> None:
    w = torch.zeros(3, 128)
    assert torch.equal(round_to_nearest(w, grid).dequantize(), w)
    w[1] = 1e-12
    w[2, 5] = -1e-30
    assert round_to_nearest(w, grid).dequantize().abs().max() < 1e-6


def test_bad_input_is_told() -> None:
    w = weight()
    for call, said in (
        (lambda: round_to_nearest(w, IntGrid(4, 48)), "do not fill rows"),
        (lambda: round_to_nearest(w, IntGrid(4, 0)), "do not fill rows"),
        (lambda: round_to_nearest(w.flatten(), IntGrid(4, 32)), "no matrix"),
        (lambda: round_to_nearest(w.int(), IntGrid(4, 32)), "floating-point"),
        (lambda: round_to_nearest(w * 1e9, IntGrid(4, 32)), "beyond fp16"),
        (lambda: round_to_nearest(w * float("nan"), IntGrid(4, 32)), "NaN"),
        (lambda: round_to_nearest(w * float("inf"), CodebookGrid(NF4)), "NaN or infinite"),
        (lambda: IntGrid(5), "no codes of 5 bits"),
        (lambda: Q4_0Grid(4, 64), "blocks of 32"),
    ):
        with pytest.raises(LessonkitError, match=said):
            call()
