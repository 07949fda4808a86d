"""GPTQ against a slow loop that cannot be wrong, against rounding, and against GPTQModel."""

from __future__ import annotations

import os

import pytest
import torch

from lessonkit.errors import LessonkitError
from lessonkit.formats.codebooks import NF4
from lessonkit.formats.packing import pack_gptq, unpack_gptq
from lessonkit.quantize.gptq import (
    Hessian,
    Order,
    column_order,
    gptq,
    inverse_factor,
    output_error,
)
from lessonkit.quantize.grids import (
    AwqGrid,
    CodebookGrid,
    Grid,
    IntGrid,
    Parameters,
    Q4_0Grid,
    round_to_nearest,
)

ORDERS: tuple[Order, ...] = ("natural", "desc_act", "act_group_aware")


def example(
    out: int = 96, columns: int = 256, tokens: int = 1024, seed: int = 0
) -> tuple[torch.Tensor, torch.Tensor]:
    """A weight and correlated inputs whose channels differ in size, as real ones do."""
    generator = torch.Generator().manual_seed(seed)
    weight = torch.randn(out, columns, generator=generator) * 0.02
    mix = torch.randn(columns // 4, columns, generator=generator) / (columns // 4) ** 0.5
    inputs = torch.randn(tokens, columns // 4, generator=generator) @ mix
    inputs += 0.3 * torch.randn(tokens, columns, generator=generator)
    return weight, inputs * torch.exp(torch.randn(columns, generator=generator) * 0.5)


def hessian_of(inputs: torch.Tensor) -> torch.Tensor:
    hessian = Hessian(inputs.shape[-1])
    hessian.add(inputs)
    return hessian.matrix


def slow_gptq(
    weight: torch.Tensor, hessian: torch.Tensor, grid: Grid, order: torch.Tensor, damping: float
) -> torch.Tensor:
    """Optimal brain quantisation, one column at a time, with the inverse updated openly.

    Groups are runs of columns in the order given. Everything in float64 but the rounding.
    """
    w = weight.double()[:, order]
    h = hessian.double()[order][:, order]
    h += damping * h.diagonal().mean() * torch.eye(len(h), dtype=torch.float64)
    inverse = torch.linalg.inv(h)
    size = len(h) // grid.groups_in(len(h))
    codes = torch.zeros(w.shape, dtype=torch.uint8)
    parameters = Parameters(torch.empty(0))
    for i in range(len(h)):
        if i % size == 0:
            parameters = grid.fit(w[:, i : i + size].float())
        codes[:, i] = grid.encode(w[:, i].float(), parameters)
        error = (w[:, i] - grid.decode(codes[:, i], parameters).double()) / inverse[i, i]
        w -= torch.outer(error, inverse[i])
        inverse -= torch.outer(inverse[:, i], inverse[i]) / inverse[i, i].clone()
    return codes[:, order.argsort()]


def rows_that_differ(fast: torch.Tensor, slow: torch.Tensor) -> int:
    """A weight half-way between two codes may go either way: one row, say, of twelve."""
    return int((fast != slow).any(dim=1).sum())


# --- what it computes -------------------------------------------------------------------------


def test_the_running_hessian_is_that_of_all_inputs() -> None:
    _, inputs = example(tokens=600)
    hessian = Hessian(256)
    for part in (inputs[:7], inputs[7:7], inputs[7:500].reshape(17, 29, 256), inputs[500:]):
        hessian.add(part)
    exact = 2 / 600 * inputs.double().T @ inputs.double()
    assert hessian.tokens == 600
    assert torch.allclose(hessian.matrix.double(), exact, rtol=1e-5, atol=1e-5)


@pytest.mark.parametrize("order", ORDERS)
def test_the_factor_is_that_of_the_damped_inverse(order: Order) -> None:
    hessian = hessian_of(example()[1])
    permutation = column_order(hessian.diagonal(), 4, order)
    factor, damping = inverse_factor(hessian, permutation, 0.01)
    exact = hessian.double()[permutation][:, permutation]
    exact += 0.01 * exact.diagonal().mean() * torch.eye(256, dtype=torch.float64)
    by_the_book = torch.linalg.cholesky(torch.linalg.inv(exact), upper=True)
    assert damping == 0.01 and torch.equal(factor, factor.triu())
    assert torch.allclose(factor.double(), by_the_book, rtol=0, atol=1e-5 * by_the_book.max())


GRIDS = [
    IntGrid(4, 8),
    IntGrid(3, 16, symmetric=False),
    IntGrid(4, -1),
    IntGrid(4, 8, search_norm=2.4),
    AwqGrid(16),
    CodebookGrid(NF4, 16),
    Q4_0Grid(),
]


@pytest.mark.parametrize("order", ORDERS)
@pytest.mark.parametrize("grid", GRIDS, ids=lambda grid: f"{type(grid).__name__}-{grid.bits}")
def test_the_codes_are_those_of_the_slow_loop(grid: Grid, order: Order) -> None:
    weight, inputs = example(out=12, columns=64, tokens=300)
    hessian = hessian_of(inputs)
    permutation = column_order(hessian.diagonal(), grid.groups_in(64), order)
    fast = gptq(weight, hessian, grid, order=order, damping=0.02).quantized.codes
    slow = slow_gptq(weight, hessian, grid, permutation, 0.02)
    assert rows_that_differ(fast, slow) <= 1


def test_codes_of_the_slow_loop_across_batches() -> None:
    weight, inputs = example(out=12, columns=320)  # 2.5 batches; groups of 160 need two each
    hessian = hessian_of(inputs)
    for grid in (IntGrid(4, 32), IntGrid(4, 40), IntGrid(4, 160), IntGrid(4, -1)):
        slow = slow_gptq(weight, hessian, grid, torch.arange(320), 0.05)
        fast = gptq(weight, hessian, grid, order="natural").quantized.codes
        assert rows_that_differ(fast, slow) <= 1


def test_orders() -> None:
    diagonal = torch.tensor([1.0, 3.0, 9.0, 2.0, 5.0, 5.0])
    assert column_order(diagonal, 3, "natural").tolist() == [0, 1, 2, 3, 4, 5]
    assert column_order(diagonal, 3, "desc_act").tolist() == [2, 4, 5, 1, 3, 0]
    assert column_order(diagonal, 3, "act_group_aware").tolist() == [2, 3, 4, 5, 1, 0]


def test_only_desc_act_scatters_groups_and_static_groups_undo_that() -> None:
    weight, inputs = example()
    hessian, contiguous = hessian_of(inputs), torch.arange(256, dtype=torch.int32) // 32
    for order, static in (("natural", False), ("act_group_aware", False), ("desc_act", True)):
        result = gptq(weight, hessian, IntGrid(4, 32), order=order, static_groups=static)
        assert torch.equal(result.quantized.g_idx, contiguous)
    scattered = gptq(weight, hessian, IntGrid(4, 32), order="desc_act").quantized.g_idx
    assert scattered.dtype == torch.int32 and not torch.equal(scattered, contiguous)
    assert scattered.bincount().tolist() == [32] * 8
    largest = hessian.diagonal().argsort(descending=True)
    assert scattered[largest[:32]].tolist() == [0] * 32


@pytest.mark.parametrize("order", ORDERS)
def test_static_groups_have_the_parameters_of_the_original_weight(order: Order) -> None:
    weight, inputs = example()
    grid = IntGrid(4, 64, symmetric=False)
    result = gptq(weight, hessian_of(inputs), grid, order=order, static_groups=True)
    rounded = round_to_nearest(weight, grid)
    assert torch.equal(result.quantized.scales, rounded.scales)
    assert rounded.zeros is not None and result.quantized.zeros is not None
    assert torch.equal(result.quantized.zeros, rounded.zeros)
    assert not torch.equal(result.quantized.codes, rounded.codes)


# --- what is stored, and how good it is -------------------------------------------------------

ALL_GRIDS = [
    *(IntGrid(bits, 64, symmetric) for bits in (2, 3, 4, 8) for symmetric in (True, False)),
    *(IntGrid(4, size) for size in (32, 128, -1)),
    IntGrid(4, 64, search_norm=2.4),
    AwqGrid(64),
    CodebookGrid(NF4, 64),
    Q4_0Grid(),
]


@pytest.mark.parametrize("order", ORDERS)
@pytest.mark.parametrize("grid", ALL_GRIDS, ids=repr)
def test_much_better_than_rounding_and_the_stored_weight_is_the_one_measured(
    grid: Grid, order: Order
) -> None:
    weight, inputs = example()
    hessian = hessian_of(inputs)
    result = gptq(weight, hessian, grid, order=order)
    rounded = round_to_nearest(weight, grid).dequantize()
    assert result.output_error < 0.5 * output_error(weight, rounded, hessian)
    assert torch.equal(result.quantized.dequantize(), result.weight)
    change, output = inputs @ (result.weight - weight).T, inputs @ weight.T
    directly = float(change.square().sum() / output.square().sum())
    assert result.output_error == pytest.approx(directly, rel=1e-3)
    assert float((result.weight - weight).square().mean()) > float(
        (rounded - weight).square().mean()
    ), "weights are further from the originals: what is smaller is the change of the output"


def test_taking_large_columns_first_helps() -> None:
    weight, inputs = example()
    hessian = hessian_of(inputs)
    error = {o: gptq(weight, hessian, IntGrid(4, 64), order=o).output_error for o in ORDERS}
    assert error["desc_act"] < error["act_group_aware"] < 0.95 * error["natural"]


def test_uncorrelated_inputs_leave_nothing_to_gain() -> None:
    weight, _ = example()
    for grid in (IntGrid(4, 64), CodebookGrid(NF4, 64)):
        result = gptq(weight, 2 * torch.eye(256), grid)
        assert torch.equal(result.quantized.codes, round_to_nearest(weight, grid).codes)


def test_the_same_input_gives_the_same_bytes_and_stays_as_it_was() -> None:
    weight, inputs = example()
    hessian = hessian_of(inputs)
    kept = weight.clone(), hessian.clone()
    first, second = (gptq(weight, hessian, IntGrid(4, 32)) for _ in range(2))
    assert torch.equal(first.quantized.codes, second.quantized.codes)
    assert torch.equal(first.quantized.scales, second.quantized.scales)
    assert torch.equal(first.weight, second.weight)
    assert torch.equal(weight, kept[0]) and torch.equal(hessian, kept[1])
    half = gptq(weight.half(), hessian, IntGrid(4, 32))
    assert torch.equal(half.weight, gptq(weight.half().float(), hessian, IntGrid(4, 32)).weight)


def test_the_result_can_be_packed_in_autogptqs_format() -> None:
    weight, inputs = example()
    for grid in (IntGrid(4, 64), IntGrid(3, 64, symmetric=False)):
        quantized = gptq(weight.abs(), hessian_of(inputs), grid).quantized
        assert quantized.zeros is not None and quantized.scales.dtype == torch.float16
        words = pack_gptq(quantized.codes, quantized.zeros, grid.bits)
        for ours, original in zip(
            unpack_gptq(*words, grid.bits), (quantized.codes, quantized.zeros), strict=True
        ):
            assert torch.equal(ours, original)


@pytest.mark.skipif(not torch.cuda.is_available(), reason="needs a GPU")
@pytest.mark.parametrize("grid", [IntGrid(4, 64), CodebookGrid(NF4, 64)], ids=repr)
def test_on_a_gpu(grid: Grid) -> None:
    weight, inputs = example()
    hessian = hessian_of(inputs)
    result = gptq(weight.cuda(), hessian.cuda(), grid)
    assert result.weight.is_cuda and result.quantized.codes.is_cuda
    assert result.output_error == pytest.approx(gptq(weight, hessian, grid).output_error, rel=0.05)


# --- awkward Hessians -------------------------------------------------------------------------


def test_dead_columns_become_zero_and_disturb_nothing() -> None:
    weight, inputs = example()
    inputs[:, 64:96] = 0
    inputs[:, 7] = 0
    hessian = hessian_of(inputs)
    live = hessian.diagonal() != 0
    for order in ORDERS:
        result = gptq(weight, hessian, IntGrid(4, 32), order=order)
        assert torch.equal(result.weight[:, ~live], torch.zeros(96, 33))
        assert result.damping == 0.05 and result.output_error < 0.01
    # Small activations: a diagonal of 1 for dead columns would drown them in damping.
    small = gptq(weight, hessian * 1e-6, IntGrid(4, 32))
    assert small.output_error == pytest.approx(
        gptq(weight, hessian, IntGrid(4, 32)).output_error, rel=0.02
    )


def test_damping_grows_until_the_hessian_can_be_factored() -> None:
    weight, inputs = example(columns=64)
    hessian = hessian_of(inputs)
    values, vectors = torch.linalg.eigh(hessian)
    values[0] = -0.033 * hessian.diagonal().mean()
    indefinite = vectors @ torch.diag(values) @ vectors.T
    result = gptq(weight, indefinite, IntGrid(4, 32), damping=0.005)
    assert 0.033 < result.damping < 0.05
    few = gptq(weight, hessian_of(inputs[:5]), IntGrid(4, 32))  # of rank 5
    assert few.damping == 0.05 and few.output_error < 1e-3


def test_bad_input_is_told() -> None:
    weight, inputs = example(columns=64)
    hessian = hessian_of(inputs)
    for call, said in (
        (lambda: gptq(weight, hessian[:32, :32], IntGrid(4, 32)), "does not go with 64"),
        (lambda: gptq(weight, hessian, IntGrid(4, 48)), "do not fill rows"),
        (lambda: gptq(weight, hessian, IntGrid(4, 32), order="random"), "no order"),
        (lambda: gptq(weight, hessian, IntGrid(4, 32), damping=1.0), "damping of 1"),
        (lambda: gptq(weight, hessian * 0, IntGrid(4, 32)), "inputs of this layer were 0"),
        (lambda: gptq(weight, hessian * float("nan"), IntGrid(4, 32)), "NaN"),
        (lambda: gptq(weight, -hessian, IntGrid(4, 32)), "not positive definite"),
        (lambda: gptq(weight * float("inf"), hessian, IntGrid(4, 32)), "NaN or infinite"),
        (lambda: gptq(weight[0], hessian, IntGrid(4, 32)), "no matrix"),
    ):
        with pytest.raises(LessonkitError, match=said):
            call()


# --- GPTQModel --------------------------------------------------------------------------------


def theirs(
    weight: torch.Tensor, inputs: torch.Tensor, order: Order, size: int, symmetric: bool
) -> tuple[torch.Tensor, torch.Tensor]:
    """GPTQModel's weight with its scales rounded to fp16, as its files hold them; and g_idx."""
    os.environ.setdefault("GPTQMODEL_CPU_WORKERS", "2")
    pytest.importorskip("gptqmodel")
    from gptqmodel import QuantizeConfig
    from gptqmodel.quantization.gptq import GPTQ

    layer = torch.nn.Linear(weight.shape[1], weight.shape[0], bias=False)
    layer.weight.data = weight.clone()
    config = QuantizeConfig(
        bits=4,
        group_size=size,
        sym=symmetric,
        desc_act=order == "desc_act",
        act_group_aware=order == "act_group_aware",
        damp_percent=0.05,
    )
    task = GPTQ(layer, config)
    task.quantizer.configure(perchannel=True)
    task.fallback = None
    task.add_batch(inputs.unsqueeze(0), None)
    quantized, scale, zero, g_idx, *_ = task.quantize()
    scale, zero = scale[:, g_idx.long()], zero[:, g_idx.long()]
    return torch.round(quantized / scale) * scale.half().float(), g_idx


@pytest.mark.parametrize("symmetric", [True, False])
@pytest.mark.parametrize("order", ORDERS)
@pytest.mark.parametrize("size", [32, 128])
def test_as_good_as_gptqmodel(size: int, order: Order, symmetric: bool) -> None:
    weight, inputs = example(out=256, columns=512, tokens=2048)
    hessian = hessian_of(inputs)
    result = gptq(weight, hessian, IntGrid(4, size, symmetric), order=order)
    other, g_idx = theirs(weight, inputs, order, size, symmetric)
    # Chance is good for some 0.5 %; the orders differ by 10 % and more, rounding by a factor 4.
    assert result.output_error < 1.01 * output_error(weight, other, hessian)
    assert torch.equal(result.quantized.g_idx, g_idx)
    if size == 128:
        same = (result.weight - other).abs() < 1e-3 * weight.abs().max()
        assert same.float().mean() > 0.9, "nearly all codes are the same"
