"""The two kernels: the same bits, whatever the pieces and threads.

The comparison with bitsandbytes is in test_blockwise.py.
"""

from __future__ import annotations

import tracemalloc

import pytest
import torch

from lessonkit.formats import blockwise_kernels as kernels
from lessonkit.formats.codebooks import CODEBOOKS, FP4, NF4, Codebook

DTYPES = (torch.float32, torch.float16, torch.bfloat16)


def weights(*shape: int, dtype: torch.dtype = torch.float32) -> torch.Tensor:
    generator = torch.Generator().manual_seed(1)
    x = torch.randn(shape, generator=generator) * torch.rand(shape, generator=generator)
    x.view(-1)[64:200] = 0
    return x.view(-1).to(dtype)


@pytest.mark.parametrize("dtype", DTYPES, ids=str)
@pytest.mark.parametrize("book", CODEBOOKS.values(), ids=lambda book: book.name)
def test_the_torch_kernels_give_the_numpy_kernels_bits(book: Codebook, dtype: torch.dtype) -> None:
    for size in (1, 5, 64, 129, 100_000, 300_001):
        x = weights(size, dtype=dtype)
        packed, absmax = kernels.quantize_with_numpy(x, book, 64)
        packed_too, absmax_too = kernels.quantize_with_torch(x, book, 64)
        assert torch.equal(packed, packed_too) and torch.equal(absmax, absmax_too)
        a = kernels.dequantize_with_numpy(packed, absmax, book, 64, size, dtype)
        b = kernels.dequantize_with_torch(packed, absmax, book, 64, size, dtype)
        assert a.dtype == b.dtype == dtype and torch.equal(a, b)


@pytest.mark.skipif(not torch.cuda.is_available(), reason="there is no GPU")
@pytest.mark.parametrize("book", CODEBOOKS.values(), ids=lambda book: book.name)
def test_a_gpu_gives_the_same_bits(book: Codebook) -> None:
    x = weights(300_001)
    packed, absmax = kernels.quantize_with_numpy(x, book, 64)
    packed_too, absmax_too = kernels.quantize_with_torch(x.cuda(), book, 64)
    assert torch.equal(packed, packed_too.cpu()) and torch.equal(absmax, absmax_too.cpu())
    values = kernels.dequantize_with_torch(packed_too, absmax_too, book, 64, len(x), x.dtype)
    expected = kernels.dequantize_with_numpy(packed, absmax, book, 64, len(x), x.dtype)
    assert torch.equal(values.cpu(), expected)


@pytest.mark.parametrize("dtype", DTYPES, ids=str)
def test_threads_and_pieces_do_not_change_the_result(
    dtype: torch.dtype, monkeypatch: pytest.MonkeyPatch
) -> None:
    x = weights(300, 1001, dtype=dtype)
    results = []
    for threads, piece in ((1, 1 << 30), (3, 1 << 15), (2, 1 << 10), (1, 1)):
        for name in ("_CPU_PIECE", "_CPU_HALF_PIECE", "_GPU_PIECE"):
            monkeypatch.setattr(kernels, name, piece)
        monkeypatch.setattr(torch, "get_num_threads", lambda threads=threads: threads)
        for quantize, dequantize in (
            (kernels.quantize_with_numpy, kernels.dequantize_with_numpy),
            (kernels.quantize_with_torch, kernels.dequantize_with_torch),
        ):
            packed, absmax = quantize(x, FP4, 256)
            values = dequantize(packed, absmax, FP4, 256, len(x), dtype)
            results.append((packed, absmax, values))
    for other in results[1:]:
        assert all(torch.equal(a, b) for a, b in zip(results[0], other, strict=True))


def test_an_error_in_a_thread_is_raised(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(torch, "get_num_threads", lambda: 2)
    monkeypatch.setattr(kernels, "_CPU_PIECE", 1 << 10)
    x = weights(1 << 13)
    packed, absmax = kernels.quantize_with_numpy(x, NF4, 64)
    with pytest.raises((IndexError, ValueError)):
        kernels.dequantize_with_numpy(packed[:-100], absmax, NF4, 64, len(x), x.dtype)


def test_pieces_are_whole_blocks_and_cover_everything() -> None:
    for size, block, target in ((1000, 64, 100), (64, 64, 1), (63, 64, 1000), (128, 64, 128)):
        pieces = list(kernels._pieces(size, block, target))
        assert [start for start, _ in pieces] == [0, *(stop for _, stop in pieces[:-1])]
        assert pieces[-1][1] == size
        assert all(start % block == 0 for start, _ in pieces)
        assert all((stop - start) % block == 0 for start, stop in pieces[:-1])


def test_temporaries_stay_small(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(torch, "get_num_threads", lambda: 1)
    x = torch.ones(1 << 23)
    results = (1 << 22) + (1 << 19)  # bytes of the packed codes and of the scales
    tracemalloc.start()  # sees numpy's memory
    kernels.quantize_with_numpy(x, NF4, 64)
    peak = tracemalloc.get_traced_memory()[1]
    tracemalloc.stop()
    assert peak < results + (1 << 22)
