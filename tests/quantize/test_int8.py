"""LLM.int8: codes against bitsandbytes to the bit, products within a stated tolerance."""

from __future__ import annotations

import pytest
import torch

from lessonkit.errors import LessonkitError
from lessonkit.quantize import int8
from lessonkit.quantize.int8 import integer_product, linear, quantize_rows

DTYPES = (torch.float16, torch.bfloat16, torch.float32)


def activations(rows: int, dtype: torch.dtype) -> torch.Tensor:
    """Random activations with a few outliers, one of them exactly at the threshold."""
    x = torch.randn(rows, 200, generator=torch.Generator().manual_seed(rows)) * 2
    x[0, 3], x[-1, 77] = 60.0, -6.0
    if rows > 2:
        x[2] = 0
    return x.to(dtype)


def bitsandbytes_layer(layer: torch.nn.Linear, threshold: float):
    import bitsandbytes as bnb

    twin = bnb.nn.Linear8bitLt(
        layer.in_features,
        layer.out_features,
        layer.bias is not None,
        has_fp16_weights=False,
        threshold=threshold,
    )
    twin.load_state_dict(layer.state_dict())
    return twin.to("cpu").eval()


@pytest.mark.parametrize("dtype", DTYPES, ids=str)
@pytest.mark.parametrize("threshold", [0.0, 3.0, 6.0, 100.0])
@pytest.mark.parametrize("rows", [1, 7, 64])
def test_codes_scales_and_outliers_equal_bitsandbytes(
    rows: int, threshold: float, dtype: torch.dtype
) -> None:
    import bitsandbytes.functional as bnb

    x = activations(rows, dtype)
    codes, absmax, columns = bnb.int8_vectorwise_quant(x.half().clone(), threshold=threshold)
    ours = quantize_rows(x, threshold=threshold)
    assert torch.equal(ours.codes, codes)
    assert torch.equal(ours.absmax, absmax)
    assert ours.outlier_columns.tolist() == ([] if columns is None else columns.tolist())
    assert torch.equal(ours.dequantize(), bnb.int8_vectorwise_dequant(codes, absmax))


def test_six_itself_is_an_outlier() -> None:
    assert 77 in quantize_rows(activations(7, torch.float32), threshold=6.0).outlier_columns


def the_processor_multiplies_right() -> bool:
    """Is torch's 8-bit product, on which bitsandbytes rests, exact here? Without VNNI it is not."""
    ones = torch.full((32, 64), 127, dtype=torch.int8)
    return bool((torch._int_mm(ones, ones.T) == 127 * 127 * 64).all())


needs_a_right_product = pytest.mark.skipif(
    not the_processor_multiplies_right(),
    reason="torch._int_mm saturates on this processor, so bitsandbytes' layer is wrong",
)


@needs_a_right_product
@pytest.mark.parametrize("threshold", [0.0, 3.0, 6.0])
@pytest.mark.parametrize("rows", [1, 7, 64])
@pytest.mark.parametrize("bias", [True, False])
def test_the_layer_equals_bitsandbytes_but_for_its_constant(
    rows: int, threshold: float, bias: bool, monkeypatch: pytest.MonkeyPatch
) -> None:
    """bitsandbytes' CPU path rescales by 6.200124e-05 where 1 / 127^2 is 6.200012e-05."""
    layer = torch.nn.Linear(200, 96, bias=bias)
    twin = bitsandbytes_layer(layer, threshold)
    x = activations(rows, torch.float32)
    weight = quantize_rows(layer.weight)
    with torch.no_grad():
        theirs = twin(x.clone())
        ours = linear(x, weight, layer.bias, threshold=threshold)
        monkeypatch.setattr(int8, "_RESCALE", 6.200124e-05)
        with_their_constant = linear(x, weight, layer.bias, threshold=threshold)
    assert float((ours - theirs).abs().max() / theirs.abs().max()) < 2e-5
    assert torch.allclose(with_their_constant, theirs, rtol=1e-6, atol=1e-6)
    if threshold == 0:  # no floating-point matrix product, so nothing may differ
        assert torch.equal(with_their_constant, theirs)
        assert not torch.equal(ours, theirs)


@needs_a_right_product
@pytest.mark.parametrize("dtype", [torch.float16, torch.bfloat16], ids=str)
@pytest.mark.parametrize("threshold", [0.0, 6.0])
def test_half_precision_layers_agree_within_their_rounding(
    dtype: torch.dtype, threshold: float
) -> None:
    layer = torch.nn.Linear(200, 96, dtype=dtype)
    twin = bitsandbytes_layer(layer, threshold)
    x = activations(64, dtype)
    with torch.no_grad():
        theirs = twin(x.clone()).float()
        ours = linear(x, quantize_rows(layer.weight), layer.bias, threshold=threshold).float()
    # Two roundings to the dtype: before the outliers are added, and after.
    allowed = 2 * torch.finfo(dtype).eps * float(theirs.abs().max())
    assert float((ours - theirs).abs().max()) <= allowed


def test_outliers_kept_apart_make_the_layer_better() -> None:
    layer = torch.nn.Linear(200, 96)
    x = activations(64, torch.float32)
    x[:, 3] = 60.0
    weight = quantize_rows(layer.weight)
    with torch.no_grad():
        exact = layer(x)
        apart = linear(x, weight, layer.bias, threshold=6.0) - exact
        together = linear(x, weight, layer.bias, threshold=0.0) - exact
    assert float(apart.square().mean()) < float(together.square().mean()) / 4


def test_batches_keep_their_shape() -> None:
    layer = torch.nn.Linear(200, 96)
    x = activations(12, torch.float32)
    weight = quantize_rows(layer.weight)
    flat = linear(x, weight, layer.bias)
    assert torch.equal(linear(x.reshape(3, 4, 200), weight, layer.bias).reshape(12, 96), flat)


def test_the_integer_product_is_exact() -> None:
    generator = torch.Generator().manual_seed(0)
    a = torch.randint(-127, 128, (9, 5000), generator=generator, dtype=torch.int8)
    b = torch.randint(-127, 128, (5, 5000), generator=generator, dtype=torch.int8)
    a[0], b[0] = 127, -127
    product = integer_product(a, b)
    assert product.dtype == torch.int32
    assert torch.equal(product, a.int() @ b.int().T)
    assert product[0, 0] == -127 * 127 * 5000


@pytest.mark.parametrize("bad", [float("nan"), float("inf"), 1e5])
def test_what_fp16_cannot_hold_is_an_error(bad: float) -> None:
    x = torch.ones(2, 8)
    x[1, 1] = bad
    with pytest.raises(LessonkitError, match="NaN or infinite"):
        quantize_rows(x)


def test_only_matrices_are_taken() -> None:
    with pytest.raises(LessonkitError, match="matrix"):
        quantize_rows(torch.ones(2, 3, 4))
