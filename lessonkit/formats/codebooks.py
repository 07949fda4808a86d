"""Tables of sixteen values: NF4, FP4 in its several senses, INT4; and the 8-bit dynamic map.

A 4-bit code is an index into such a table. Weights are scaled block by block into
[-1, 1] (see `formats.blockwise`), so each table is divided by its largest magnitude.

Sources: NF4 and double quantisation, Dettmers et al. 2023 (QLoRA,
https://arxiv.org/abs/2305.14314); the dynamic map, Dettmers 2015
(https://arxiv.org/abs/1511.04561); E2M1, OCP Microscaling Formats 1.0. The values of
NF4, of bitsandbytes' FP4 and of the dynamic map are those of bitsandbytes 0.50.
"""

from __future__ import annotations

from dataclasses import dataclass
from functools import cache, cached_property
from statistics import NormalDist
from typing import TYPE_CHECKING

import numpy as np

from lessonkit.formats.floats import FP4_E1M2, FP4_E2M1, FP4_E3M0, FloatFormat, decode

if TYPE_CHECKING:
    import torch

NF4_OFFSET = 0.9677083
"""The outermost quantile of NF4, as bitsandbytes writes it.

It is (29/30 + 31/32) / 2, cut off after seven digits; with all its digits the table
comes out different in the last bits.
"""


@dataclass(frozen=True)
class Codebook:
    """Sixteen values and how a number finds its code.

    Attributes
    ----------
    name:
        Short name, bitsandbytes' own where it has one.
    values:
        The value of each code, 0 to 15: exact float32 numbers in [-1, 1].
    search_order:
        Codes by rising value, for the search. A code left out is never chosen: the
        second of two zeros, say.
    source:
        Where the values come from.
    """

    name: str
    values: tuple[float, ...]
    search_order: tuple[int, ...]
    source: str

    @property
    def label(self) -> str:
        """The name in schemes: "int4" alone is integers with a scale, not a table of values."""
        return "int4 codebook" if self.name == "int4" else self.name

    @cached_property
    def thresholds(self) -> np.ndarray:
        """Float32 midpoints between neighbours in search order: one fewer than the levels.

        A number takes the level above a midpoint only if it is greater, so ties go down.
        """
        levels = np.array([self.values[code] for code in self.search_order], dtype=np.float32)
        return (levels[:-1] + levels[1:]) / np.float32(2)

    @cached_property
    def zero_code(self) -> int:
        """The code that the number 0 receives."""
        return self.search_order[int((self.thresholds < 0).sum())]

    def tensor(self, device: torch.device | str = "cpu") -> torch.Tensor:
        """Return the values by code as float32 [16]."""
        import torch

        return torch.tensor(self.values, dtype=torch.float32, device=device)


def derive_nf4() -> torch.Tensor:
    """Derive NF4's sixteen levels from the normal distribution, as float32 [16].

    1. Nine probabilities, evenly spaced from the offset down to 1/2, and eight from the
       offset to 1/2: the last of each, 1/2, is the quantile 0 and is dropped.
    2. Their quantiles: 8 positive levels, and 7 that are made negative. With one exact
       zero between them that is 16.
    3. Divide by the largest, so that the levels span [-1, 1].

    The probabilities must be float32 as `torch.linspace` rounds them, the quantiles
    computed in float64, and the division done in float32: otherwise the last bits differ.
    """
    import torch

    positive = normal_quantiles(nf4_probabilities(9))
    negative = [-quantile for quantile in normal_quantiles(nf4_probabilities(8))]
    levels = torch.tensor(negative + [0.0] + positive, dtype=torch.float32).sort().values
    return levels / levels.max()


def nf4_probabilities(points: int) -> torch.Tensor:
    """Return `points` float32 probabilities from the offset to 1/2, without the 1/2."""
    import torch

    return torch.linspace(NF4_OFFSET, 0.5, points)[:-1]


def normal_quantiles(probabilities: torch.Tensor) -> list[float]:
    """Return where the standard normal distribution reaches each probability (float64)."""
    return [NormalDist().inv_cdf(float(p)) for p in probabilities]


@cache
def dynamic_map() -> torch.Tensor:
    """Return bitsandbytes' signed dynamic 8-bit map: 256 rising float32 values.

    For i = 0 .. 6 the decade from 10^(i-7) to 10^(i-6) gets 2^i values, the midpoints of
    2^i equal steps, and as many negative ones: small numbers get a finer grid, large ones
    more digits. With 0 and 1 added that is 256. Note that -1 is not among them.
    """
    import torch

    values = [0.0, 1.0]
    for i in range(7):
        edges = torch.linspace(0.1, 1, 2**i + 1, dtype=torch.float32)
        middles = 10 ** (i - 6) * ((edges[:-1] + edges[1:]) / 2)
        values += middles.tolist() + (-middles).tolist()
    return torch.tensor(sorted(values), dtype=torch.float32)


def _from_float_format(fmt: FloatFormat, name: str) -> Codebook:
    """Turn a 4-bit floating-point format into a codebook; -0 (code 8) is never chosen."""
    values = decode(np.arange(16), fmt, np.float32)
    scaled = (values / values.max()).astype(np.float32)
    order = sorted((code for code in range(16) if code != 8), key=lambda code: scaled[code])
    return Codebook(
        name,
        tuple(scaled.tolist()),
        tuple(order),
        f"{fmt.name}: {fmt.exponent_bits} exponent bits, {fmt.mantissa_bits} mantissa bits, "
        f"bias {fmt.bias}, divided by {fmt.max:g}",
    )


NF4 = Codebook(
    "nf4",
    (
        -1.0,
        -0.6961928009986877,
        -0.5250730514526367,
        -0.39491748809814453,
        -0.28444138169288635,
        -0.18477343022823334,
        -0.09105003625154495,
        0.0,
        0.07958029955625534,
        0.16093020141124725,
        0.24611230194568634,
        0.33791524171829224,
        0.44070982933044434,
        0.5626170039176941,
        0.7229568362236023,
        1.0,
    ),
    tuple(range(16)),
    "quantiles of the normal distribution (QLoRA); derive_nf4() computes them",
)

_FP4_TWELFTHS = (0.0, 0.0625, 8.0, 12.0, 4.0, 6.0, 2.0, 3.0)

FP4 = Codebook(
    "fp4",
    tuple(
        sign * float(np.float32(value) / np.float32(12)) if value else 0.0  # no -0 here
        for sign in (1, -1)
        for value in _FP4_TWELFTHS
    ),
    (11, 10, 13, 12, 15, 14, 9, 0, 8, 1, 6, 7, 4, 5, 2, 3),
    "bitsandbytes' own table, codes out of value order; of the two zeros, code 8 takes the "
    "numbers just above 0. Not OCP's E2M1",
)

E2M1 = _from_float_format(FP4_E2M1, "e2m1")
E3M0 = _from_float_format(FP4_E3M0, "e3m0")
E1M2 = _from_float_format(FP4_E1M2, "e1m2")

INT4 = Codebook(
    "int4",
    tuple((code - 8) / 8 for code in range(16)),
    tuple(range(16)),
    "-8 to 7, divided by 8; the largest positive weight of a block is clipped to 7/8",
)

CODEBOOKS = {book.name: book for book in (NF4, FP4, E2M1, E3M0, E1M2, INT4)}
