"""The arithmetic of blockwise quantisation, twice: in numpy for a CPU, in torch for a GPU.

Both give the same bits. Work proceeds in pieces of whole blocks, so temporaries stay small
whatever the tensor's size; on a CPU the pieces also fit its cache, and are shared out over as
many threads as torch would use. (numpy compares and packs several times faster than torch on
a CPU, and its operations do not split over threads of their own.)
"""

from __future__ import annotations

from collections.abc import Iterator
from functools import cache
from typing import TYPE_CHECKING

import numpy as np

from lessonkit.formats.codebooks import Codebook
from lessonkit.formats.threads import share_out

if TYPE_CHECKING:
    import torch

SMALLEST_ABSMAX = 1e-38
"""A block is scaled as if its absmax were at least this: a smaller one has no reciprocal."""

# Weights worked on at a time. torch converts to and from half precision, and splits what is
# larger than this over threads of its own, which would get in the way of ours.
_CPU_PIECE = 1 << 18
_CPU_HALF_PIECE = (1 << 15) - 1
_GPU_PIECE = 1 << 24


def quantize_with_numpy(
    flat: torch.Tensor, codebook: Codebook, block_size: int
) -> tuple[torch.Tensor, torch.Tensor]:
    """Quantise a flat CPU tensor: packed codes, uint8, and absmax, float32 [blocks]."""
    import torch

    packed = np.empty(-(-flat.numel() // 2), dtype=np.uint8)
    absmax = np.empty(-(-flat.numel() // block_size), dtype=np.float32)

    def quantize_piece(start: int, stop: int) -> None:
        full = (stop - start) % block_size == 0
        blocks = flat[start:stop].float().numpy().reshape(-1, block_size if full else stop - start)
        # NaN and infinity are reported later, by their absmax.
        largest = np.abs(blocks).max(axis=1, keepdims=True)
        usable = np.maximum(largest, np.float32(SMALLEST_ABSMAX))
        scaled = blocks * (1 / usable) if full else blocks / usable
        positions = _positions(scaled.reshape(-1), codebook.thresholds)
        if len(positions) % 2:  # the code of 0 shares the last byte
            positions = np.append(
                positions, np.uint8(codebook.search_order.index(codebook.zero_code))
            )
        bytes_ = (positions[0::2] << 4) | positions[1::2]
        absmax[start // block_size : -(-stop // block_size)] = (largest if full else usable)[:, 0]
        packed[start // 2 : -(-stop // 2)] = _codes_from_positions(codebook)[bytes_]

    piece = _CPU_PIECE if flat.dtype == torch.float32 else _CPU_HALF_PIECE
    share_out(quantize_piece, _pieces(flat.numel(), block_size, piece))
    return torch.from_numpy(packed), torch.from_numpy(absmax)


def dequantize_with_numpy(
    packed: torch.Tensor,
    absmax: torch.Tensor,
    codebook: Codebook,
    block_size: int,
    size: int,
    dtype: torch.dtype,
) -> torch.Tensor:
    """Return `size` values of a CPU tensor, flat."""
    import torch

    bytes_, scales = packed.numpy(), absmax.numpy()
    # A byte stands for two float32 values, 64 bits in all: one look-up serves two weights.
    values = np.array(codebook.values, dtype=np.float32)
    codes = np.arange(256)
    pairs = np.stack((values[codes >> 4], values[codes & 15]), axis=-1).view(np.int64)[:, 0]
    # From numpy, which asks for huge pages: the first touch of so much memory takes longer
    # than the arithmetic.
    out = np.empty(size * dtype.itemsize, dtype=np.uint8)

    def dequantize_piece(start: int, stop: int) -> None:
        index = bytes_[start // 2 : -(-stop // 2)].astype(np.intp)
        # "clip" because an index is in range anyway, and the check would take a copy.
        piece = np.take(pairs, index, mode="clip").view(np.float32)[: stop - start]
        scale = scales[start // block_size : -(-stop // block_size), None]
        piece = piece.reshape(len(scale), -1)
        part = out[start * dtype.itemsize : stop * dtype.itemsize]
        if dtype == torch.float32:
            np.multiply(piece, scale, out=part.view(np.float32).reshape(piece.shape))
        else:
            rounded = torch.from_numpy(piece * scale).to(dtype)
            part[:] = rounded.view(torch.uint8).numpy().reshape(-1)

    piece = _CPU_PIECE if dtype == torch.float32 else _CPU_HALF_PIECE
    share_out(dequantize_piece, _pieces(size, block_size, piece))
    return torch.from_numpy(out).view(dtype)


def quantize_with_torch(
    flat: torch.Tensor, codebook: Codebook, block_size: int
) -> tuple[torch.Tensor, torch.Tensor]:
    """Quantise a flat tensor on any device: packed codes and absmax."""
    import torch

    size, device = flat.numel(), flat.device
    packed = torch.empty(-(-size // 2), dtype=torch.uint8, device=device)
    absmax = torch.empty(-(-size // block_size), dtype=torch.float32, device=device)
    thresholds = torch.from_numpy(codebook.thresholds).to(device)
    translation = torch.from_numpy(_codes_from_positions(codebook)).to(device)
    for start, stop in _pieces(size, block_size, _GPU_PIECE):
        full = (stop - start) % block_size == 0
        blocks = flat[start:stop].float().view(-1, block_size if full else stop - start)
        largest = blocks.abs().amax(dim=1, keepdim=True)
        usable = largest.clamp(min=SMALLEST_ABSMAX)
        scaled = (blocks * (1 / usable) if full else blocks / usable).view(-1)
        scaled = torch.nn.functional.pad(scaled, (0, len(scaled) % 2))
        positions = torch.bucketize(scaled, thresholds, out_int32=True)
        bytes_ = (positions[0::2] << 4) | positions[1::2]
        absmax[start // block_size : -(-stop // block_size)] = (largest if full else usable)[:, 0]
        packed[start // 2 : -(-stop // 2)] = translation[bytes_]
    return packed, absmax


def dequantize_with_torch(
    packed: torch.Tensor,
    absmax: torch.Tensor,
    codebook: Codebook,
    block_size: int,
    size: int,
    dtype: torch.dtype,
) -> torch.Tensor:
    """Return `size` values on the device of `packed`, flat."""
    import torch

    values = codebook.tensor(packed.device)
    out = torch.empty(size, dtype=dtype, device=packed.device)
    for start, stop in _pieces(size, block_size, _GPU_PIECE):
        bytes_ = packed[start // 2 : -(-stop // 2)].int()
        piece = values[torch.stack((bytes_ >> 4, bytes_ & 15), dim=-1)].view(-1)[: stop - start]
        scale = absmax[start // block_size : -(-stop // block_size), None]
        out[start:stop] = (piece.view(len(scale), -1) * scale).view(-1)
    return out


def _positions(scaled: np.ndarray, thresholds: np.ndarray) -> np.ndarray:
    """Count the thresholds below each number: its position among the levels, uint8.

    Fifteen plain comparisons vectorise, and beat a binary search tenfold.
    """
    above = np.empty(scaled.shape, dtype=bool)
    positions = np.zeros(scaled.shape, dtype=np.uint8)
    for threshold in thresholds:
        np.greater(scaled, threshold, out=above)
        positions += above.view(np.uint8)
    return positions


@cache
def _codes_from_positions(codebook: Codebook) -> np.ndarray:
    """Return, for each byte of two search positions, the byte of the two codes."""
    order = np.zeros(16, dtype=np.uint8)
    order[: len(codebook.search_order)] = codebook.search_order
    positions = np.arange(256)
    return (order[positions >> 4] << 4) | order[positions & 15]


def _pieces(size: int, block_size: int, target: int) -> Iterator[tuple[int, int]]:
    """Cut `range(size)` into pieces of whole blocks; a shorter last block comes alone."""
    step = max(1, target // block_size) * block_size
    full = size - size % block_size
    for start in range(0, full, step):
        yield start, min(start + step, full)
    if full < size:
        yield full, size
