"""Schemes: ways to store the weights of one matrix, each known by its name in words.

A name is a format, then what shares a scale, then options::

    fp32  fp16  bf16  fp8 e4m3  fp8 e5m2        a cast, no scale
    int2 .. int8 + per tensor | per channel | block N (+ full | zero-point)
    nf4  fp4  e2m1  e3m0  e1m2  int4 codebook + block N (+ double quant)
    mxfp4  nvfp4                                blocks and scales are part of the format

Each family of schemes is a class that reads its own names; defining the class registers it.
"""

from __future__ import annotations

import math
import re
from abc import ABC, abstractmethod
from dataclasses import dataclass
from typing import TYPE_CHECKING, ClassVar

from lessonkit.errors import LessonkitError
from lessonkit.formats import double_quant, integers, microscaling
from lessonkit.formats.arrays import require_finite
from lessonkit.formats.blocks import bits_per_weight
from lessonkit.formats.blockwise import quantize_blockwise
from lessonkit.formats.codebooks import CODEBOOKS

if TYPE_CHECKING:
    import torch

_FAMILIES: list[type[Scheme]] = []


@dataclass(frozen=True)
class Scheme(ABC):
    """A way to store weights. A subclass is a family of such ways, and registers itself."""

    name: str

    pattern: ClassVar[re.Pattern[str]]
    """What the names of the family look like."""

    def __init_subclass__(cls) -> None:
        """Put the family on the list that `scheme` asks."""
        _FAMILIES.append(cls)

    @classmethod
    @abstractmethod
    def read(cls, match: re.Match[str]) -> Scheme:
        """The scheme whose name matched the pattern."""

    @abstractmethod
    def dequantized(self, values: torch.Tensor) -> torch.Tensor:
        """Quantise float32 values of any shape and return what comes back, float32."""

    @abstractmethod
    def bits_per_weight(self, shape: tuple[int, ...]) -> float:
        """Bits stored for each weight of a tensor of `shape`, scales (float32) included.

        The exceptions to float32 are part of the format: MXFP4, NVFP4, double quantisation.
        """


def scheme(name: str | Scheme) -> Scheme:
    """Read a scheme's name (see the top of this module); a Scheme is returned unchanged.

    Raises LessonkitError if the name is not one of those described there.
    """
    if isinstance(name, Scheme):
        return name
    words = " ".join(name.lower().split())
    for family in _FAMILIES:
        if match := family.pattern.fullmatch(words):
            return family.read(match)
    raise LessonkitError(
        f"There is no quantisation scheme {name!r}.",
        where="scheme",
        remedy="Names look like 'bf16', 'fp8 e4m3', 'int8 per channel', 'int4 block 64 "
        "zero-point', 'nf4 block 64 double quant', 'mxfp4'.",
    )


@dataclass(frozen=True)
class Cast(Scheme):
    """A number format of torch's, without scales. Out of range is an error, not infinity."""

    dtype: str
    bits: int

    known: ClassVar = {
        "fp32": ("float32", 32),
        "fp16": ("float16", 16),
        "bf16": ("bfloat16", 16),
        "fp8 e4m3": ("float8_e4m3fn", 8),
        "fp8 e5m2": ("float8_e5m2", 8),
    }
    pattern: ClassVar = re.compile("|".join(known))

    @classmethod
    def read(cls, match: re.Match[str]) -> Scheme:
        """One of the known formats."""
        return cls(match[0], *cls.known[match[0]])

    def dequantized(self, values: torch.Tensor) -> torch.Tensor:
        """Round to the format and back."""
        import torch

        dtype = getattr(torch, self.dtype)
        largest = values.abs().amax().float()
        require_finite(largest)
        if largest > torch.finfo(dtype).max:
            raise LessonkitError(
                f"{float(largest):g} is beyond the largest {self.dtype}, "
                f"{torch.finfo(dtype).max:g}.",
                where="weight",
                remedy="Choose a format with a wider range, such as bf16, or one with scales.",
            )
        return values.to(dtype).float()

    def bits_per_weight(self, shape: tuple[int, ...]) -> float:
        """The width of the format."""
        return float(self.bits)


@dataclass(frozen=True)
class Integers(Scheme):
    """Small integers with a scale, and perhaps a zero-point: see `formats.integers`."""

    bits: int
    granularity: integers.Granularity
    block_size: int | None
    option: str | None

    pattern: ClassVar = re.compile(
        r"int([2-8]) (?:per (tensor|channel)|block (\d+))(?: (full|zero-point))?"
    )

    @classmethod
    def read(cls, match: re.Match[str]) -> Scheme:
        """Width, what shares a scale, and the option."""
        bits, per, block, option = match.groups()
        where: integers.Granularity = (
            "block" if block else "tensor" if per == "tensor" else "channel"
        )
        return cls(match[0], int(bits), where, int(block) if block else None, option)

    def dequantized(self, values: torch.Tensor) -> torch.Tensor:
        """Symmetric unless the option is a zero-point."""
        if self.option == "zero-point":
            return integers.quantize_zero_point(
                values, self.bits, granularity=self.granularity, block_size=self.block_size
            ).dequantize()
        return integers.quantize_absmax(
            values,
            self.bits,
            granularity=self.granularity,
            block_size=self.block_size,
            convention="full" if self.option == "full" else "restricted",
        ).dequantize()

    def bits_per_weight(self, shape: tuple[int, ...]) -> float:
        """The width of a code, and its share of what is stored for each group."""
        columns = shape[-1] if shape else 1
        size: float = math.prod(shape) if self.granularity == "tensor" else columns
        if self.block_size:  # a shorter last block costs as much as a whole one
            size = columns / -(-columns // self.block_size)
        zero_bits = self.bits if self.option == "zero-point" else 0
        return bits_per_weight(self.bits, size, zero_bits=zero_bits)


_BOOKS = {book.label: book for book in CODEBOOKS.values()}


@dataclass(frozen=True)
class CodebookBlocks(Scheme):
    """Sixteen values and a scale a block: `formats.codebooks` and `formats.blockwise`."""

    book: str
    block_size: int
    double_quant: bool

    pattern: ClassVar = re.compile(rf"({'|'.join(_BOOKS)}) block (\d+)( double quant)?")

    @classmethod
    def read(cls, match: re.Match[str]) -> Scheme:
        """The code book, the block, and whether the scales are quantised too."""
        return cls(match[0], match[1], int(match[2]), match[3] is not None)

    def dequantized(self, values: torch.Tensor) -> torch.Tensor:
        """Nearest value of the code book, times the block's absmax."""
        return quantize_blockwise(
            values, _BOOKS[self.book], self.block_size, double_quant=self.double_quant
        ).dequantize()

    def bits_per_weight(self, shape: tuple[int, ...]) -> float:
        """Four bits, and the share of the scale."""
        scale_bits = double_quant.SCALE_BITS if self.double_quant else 32
        return bits_per_weight(4, self.block_size, scale_bits=scale_bits)


@dataclass(frozen=True)
class Microscaling(Scheme):
    """E2M1 with a small float as scale: see `formats.microscaling`."""

    pattern: ClassVar = re.compile("mxfp4|nvfp4")

    @classmethod
    def read(cls, match: re.Match[str]) -> Scheme:
        """Its name says all."""
        return cls(match[0])

    def dequantized(self, values: torch.Tensor) -> torch.Tensor:
        """By the format's own rule."""
        if self.name == "mxfp4":
            return microscaling.quantize_mxfp4(values).dequantize()
        return microscaling.quantize_nvfp4(values).dequantize()

    def bits_per_weight(self, shape: tuple[int, ...]) -> float:
        """4 + 8/32 for MXFP4, 4 + 8/16 for NVFP4."""
        size = microscaling.MXFP4_BLOCK if self.name == "mxfp4" else microscaling.NVFP4_BLOCK
        return bits_per_weight(4, size, scale_bits=8)
