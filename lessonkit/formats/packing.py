"""The int32 words of GPTQ and AWQ files.

Codes of 2, 3, 4 or 8 bits follow one another in a stream of bits, the first code lowest, and
the stream is cut into 32-bit words. 2, 4 and 8 divide 32; a code of 3 bits may lie across two
words, so that 32 codes fill exactly 3 words: ten codes and the low two bits of the eleventh,
its high bit and ten more codes, and so on.

======  ==============================  ================================  =====================
file    qweight                         qzeros                            a zero-point is stored
======  ==============================  ================================  =====================
GPTQ    [in * bits / 32, out]           [groups, out * bits / 32]         v1: minus 1; v2: as is
AWQ     [in, out / 8]                   [groups, out / 8]                 as is
======  ==============================  ================================  =====================

A GPTQ word holds neighbours along the input axis, a word of zero-points and every AWQ word
neighbours along the output axis. AWQ ("gemm") takes the eight columns of a word in the order
0, 2, 4, 6, 1, 3, 5, 7. Here codes are [out, in], zero-points [out, groups], as a layer's
weight has them.

Sources: AutoGPTQ's `qlinear_cuda_old.py` (v1), GPTQModel's `BaseQuantLinear` (v2) and
AutoAWQ's `WQLinear_GEMM`; words compared bit by bit with those of GPTQModel 7.6.
"""

from __future__ import annotations

from collections.abc import Iterator
from math import gcd
from typing import TYPE_CHECKING, Literal

from lessonkit.errors import LessonkitError

if TYPE_CHECKING:
    import torch

BITS = (2, 3, 4, 8)
"""Widths of a code that GPTQ files know."""

AWQ_ORDER = (0, 2, 4, 6, 1, 3, 5, 7)
"""Which of eight neighbouring columns lies in each 4-bit field of an AWQ word, lowest first."""

Version = Literal[1, 2]


def pack_words(codes: torch.Tensor, bits: int) -> torch.Tensor:
    """Pack codes along the last axis: uint8 [.., n] -> int32 [.., n * bits / 32].

    Raises LessonkitError for other widths than 2, 3, 4 and 8, for a code that does not fit,
    and for an `n` that does not fill whole words.
    """
    import torch

    count = _codes_in_a_period(bits)
    if codes.shape[-1] % count:
        raise LessonkitError(
            f"{codes.shape[-1]} codes of {bits} bits do not fill whole 32-bit words.",
            where="last axis of the codes",
            remedy=f"It must be a multiple of {count}.",
        )
    if codes.numel() and (int(codes.max()) >= 1 << bits or int(codes.min()) < 0):
        raise LessonkitError(
            f"Codes from {int(codes.min())} to {int(codes.max())} do not fit into {bits} bits.",
            where="codes",
            remedy=f"They must lie between 0 and {(1 << bits) - 1}.",
        )
    periods = codes.unflatten(-1, (-1, count))
    words = torch.zeros(
        (*periods.shape[:-1], count * bits // 32), dtype=torch.int32, device=codes.device
    )
    for i, word, shift in _places(bits):
        code = periods[..., i].to(torch.int32)
        words[..., word] |= code << shift
        if shift + bits > 32:  # the high bits go on in the next word
            words[..., word + 1] |= code >> (32 - shift)
    return words.flatten(-2)


def unpack_words(words: torch.Tensor, bits: int) -> torch.Tensor:
    """Undo `pack_words`: int32 [.., words] -> uint8 [.., words * 32 / bits]."""
    import torch

    count = _codes_in_a_period(bits)
    if words.dtype != torch.int32 or words.shape[-1] % (count * bits // 32):
        raise LessonkitError(
            f"{words.dtype} words [{', '.join(map(str, words.shape))}] are no whole number of "
            f"{bits}-bit codes.",
            where="words",
            remedy="They must be int32, and for 3 bits a multiple of three.",
        )
    periods = words.unflatten(-1, (-1, count * bits // 32))
    codes = torch.empty((*periods.shape[:-1], count), dtype=torch.uint8, device=words.device)
    for i, word, shift in _places(bits):
        code = (periods[..., word] >> shift) & ((1 << min(bits, 32 - shift)) - 1)
        if shift + bits > 32:
            code |= periods[..., word + 1] << (32 - shift)
        codes[..., i] = (code & ((1 << bits) - 1)).to(torch.uint8)
    return codes.flatten(-2)


def pack_gptq(
    codes: torch.Tensor, zeros: torch.Tensor, bits: int, version: Version = 1
) -> tuple[torch.Tensor, torch.Tensor]:
    """Return a GPTQ file's `qweight` and `qzeros` (shapes: top of this module).

    Parameters
    ----------
    codes:
        uint8 [out, in]; both sizes must fill whole words.
    zeros:
        uint8 [out, groups], the zero-points themselves.
    bits:
        2, 3, 4 or 8.
    version:
        1: "gptq", the checkpoint format of AutoGPTQ; 2: "gptq_v2".

    Raises LessonkitError for a zero-point of 0 in version 1: minus 1 it wraps round, to a word
    that AutoGPTQ, GPTQModel and llama.cpp read in three ways.
    """
    _check_version(version)
    if version == 1:
        if bool((zeros == 0).any()):
            row, group = (int(i) for i in (zeros == 0).nonzero()[0])
            raise LessonkitError(
                "A zero-point of 0 cannot be written in GPTQ's first format, which stores the "
                "zero-point minus 1: it would wrap round to the largest code, and AutoGPTQ, "
                "GPTQModel and llama.cpp read that in three different ways.",
                where=f"zero-point of row {row}, group {group}",
                remedy="Quantise with zero-points of at least 1 (the default here), or write "
                "version 2.",
            )
        zeros = zeros - 1
    return _transpose(pack_words(codes, bits)), pack_words(_transpose(zeros), bits)


def unpack_gptq(
    qweight: torch.Tensor, qzeros: torch.Tensor, bits: int, version: Version = 1
) -> tuple[torch.Tensor, torch.Tensor]:
    """Undo `pack_gptq`: return codes uint8 [out, in] and zero-points uint8 [out, groups].

    Raises LessonkitError where version 1 holds the largest code as a zero-point: a 0 that
    wrapped round when it was written, whose meaning depends on the reader.
    """
    _check_version(version)
    codes = unpack_words(_transpose(qweight), bits)
    zeros = _transpose(unpack_words(qzeros, bits))
    if version == 1:
        wrapped = zeros == (1 << bits) - 1
        if bool(wrapped.any()):
            row, group = (int(i) for i in wrapped.nonzero()[0])
            raise LessonkitError(
                f"The stored zero-point {(1 << bits) - 1} has no agreed meaning in GPTQ's first "
                "format: it is what a zero-point of 0 wraps round to, and AutoGPTQ, GPTQModel "
                "and llama.cpp read it in three different ways.",
                where=f"qzeros, row {row}, group {group}",
                remedy="Quantise the model again, or read it with the library that wrote it.",
            )
        zeros = zeros + 1
    return codes, zeros


def pack_awq(codes: torch.Tensor, zeros: torch.Tensor) -> tuple[torch.Tensor, torch.Tensor]:
    """Return an AWQ file's `qweight` and `qzeros`: version "gemm", 4 bits.

    `codes` is uint8 [out, in], `zeros` uint8 [out, groups]; `out` a multiple of 8.
    """
    return _pack_awq(codes), _pack_awq(zeros)


def unpack_awq(qweight: torch.Tensor, qzeros: torch.Tensor) -> tuple[torch.Tensor, torch.Tensor]:
    """Undo `pack_awq`: return codes uint8 [out, in] and zero-points uint8 [out, groups]."""
    return _unpack_awq(qweight), _unpack_awq(qzeros)


def _pack_awq(values: torch.Tensor) -> torch.Tensor:
    if values.shape[0] % 8:
        raise LessonkitError(
            f"{values.shape[0]} output channels do not fill whole words of eight.",
            where="codes",
            remedy="An AWQ file needs a multiple of 8.",
        )
    eights = _transpose(values).unflatten(-1, (-1, 8))
    return pack_words(eights[..., list(AWQ_ORDER)].flatten(-2), 4)


def _unpack_awq(words: torch.Tensor) -> torch.Tensor:
    eights = unpack_words(words, 4).unflatten(-1, (-1, 8))
    place_of_column = [AWQ_ORDER.index(column) for column in range(8)]
    return _transpose(eights[..., place_of_column].flatten(-2))


def _codes_in_a_period(bits: int) -> int:
    """Return after how many codes the stream is at the border of a word again."""
    if bits not in BITS:
        raise LessonkitError(
            f"There is no packing of {bits} bits.",
            where="bits",
            remedy="GPTQ files hold 2, 3, 4 or 8 bits.",
        )
    return 32 // gcd(32, bits)


def _places(bits: int) -> Iterator[tuple[int, int, int]]:
    """Yield for each code of a period its index, its word and its lowest bit in that word."""
    for i in range(_codes_in_a_period(bits)):
        yield i, *divmod(i * bits, 32)


def _check_version(version: int) -> None:
    if version not in (1, 2):
        raise LessonkitError(
            f"There is no version {version!r} of GPTQ's format.",
            where="version",
            remedy="Use 1 ('gptq') or 2 ('gptq_v2').",
        )


def _transpose(matrix: torch.Tensor) -> torch.Tensor:
    return matrix.T.contiguous()
