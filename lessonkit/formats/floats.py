"""Floating-point formats: sign, exponent, mantissa. FP32, FP16, BF16, FP8, FP4, and your own.

A number of such a format is stored as three whole numbers, the *fields* of its code::

    sign (1 bit)   exponent (e bits)   mantissa (m bits)

and they mean::

    exponent > 0    (-1)^sign * (1 + mantissa / 2^m) * 2^(exponent - bias)    normal
    exponent = 0    (-1)^sign * (0 + mantissa / 2^m) * 2^(1 - bias)           subnormal, or zero

Formats differ in e, in m, in the bias, and in whether they keep some codes for infinity and
NaN ("not a number"). Sources: IEEE 754-2019, section 3; the OCP specifications "8-bit floating
point (OFP8)" and "Microscaling formats (MX)" for FP8 and FP4.
"""

from __future__ import annotations

from collections.abc import Callable, Iterable
from dataclasses import dataclass
from typing import Any, Literal

import numpy as np
import numpy.typing as npt

from lessonkit.errors import LessonkitError

Specials = Literal["ieee", "fn", "finite"]

# Large arrays are worked through in pieces, so that the temporary arrays stay small.
_PIECE = 1 << 18


@dataclass(frozen=True)
class FloatFormat:
    """One format of sign, exponent and mantissa.

    Parameters
    ----------
    name:
        What the format is called in tables and figures.
    exponent_bits, mantissa_bits:
        Widths of two fields, 1 to 8 and 0 to 23. The sign always has one bit.
    bias:
        What is subtracted from the exponent field. Usually 2^(exponent_bits - 1) - 1.
    specials:
        Which codes do not stand for a finite number.
        `"ieee"`: the largest exponent is kept for infinity (mantissa 0) and NaN (any other).
        `"fn"`: only the code with all exponent and mantissa bits set is NaN; no infinity.
        `"finite"`: none; every code is a number.
    """

    name: str
    exponent_bits: int
    mantissa_bits: int
    bias: int
    specials: Specials = "ieee"

    def __post_init__(self) -> None:
        if not 1 <= self.exponent_bits <= 8 or not 0 <= self.mantissa_bits <= 23:
            raise LessonkitError(
                "A format has 1 to 8 exponent bits and 0 to 23 mantissa bits.",
                where=f"{self.name}: {self.exponent_bits} and {self.mantissa_bits}",
            )
        if self.specials not in ("ieee", "fn", "finite"):
            raise LessonkitError(
                f"Unknown coding of infinity and NaN: {self.specials!r}.",
                where=self.name,
                remedy="Use 'ieee', 'fn' or 'finite'.",
            )
        if self.specials == "ieee" and (self.exponent_bits < 2 or self.mantissa_bits < 1):
            raise LessonkitError(
                "Infinity and NaN in IEEE's manner need 2 exponent bits and 1 mantissa bit.",
                where=self.name,
                remedy="Use specials='finite'.",
            )
        if abs(self.bias) > 512:
            raise LessonkitError("The bias lies outside -512 to 512.", where=self.name)

    @property
    def bits(self) -> int:
        """Bits of one code."""
        return 1 + self.exponent_bits + self.mantissa_bits

    @property
    def code_dtype(self) -> np.dtype[Any]:
        """The smallest unsigned numpy type that holds a code: uint8, uint16 or uint32."""
        size = 8 if self.bits <= 8 else 16 if self.bits <= 16 else 32
        return np.dtype(f"uint{size}")

    @property
    def smallest_exponent(self) -> int:
        """The power of two of the smallest normal number, and of all subnormals."""
        return 1 - self.bias

    @property
    def max_code(self) -> int:
        """The code (sign 0) of the largest finite number."""
        all_ones = (1 << (self.bits - 1)) - 1
        if self.specials == "ieee":
            return all_ones - (1 << self.mantissa_bits)
        return all_ones - 1 if self.specials == "fn" else all_ones

    @property
    def infinity_code(self) -> int | None:
        """The code of +infinity, or None where the format has none."""
        return self.max_code + 1 if self.specials == "ieee" else None

    @property
    def nan_code(self) -> int | None:
        """The code of the quiet NaN with sign 0, or None where the format has none."""
        if self.specials == "ieee":
            return self.max_code + 1 + (1 << (self.mantissa_bits - 1))
        return self.max_code + 1 if self.specials == "fn" else None

    @property
    def max(self) -> float:
        """The largest finite number."""
        return float(decode(self.max_code, self))

    @property
    def smallest_normal(self) -> float:
        """The smallest positive number with a leading one: below it precision fades."""
        return 2.0**self.smallest_exponent

    @property
    def smallest_subnormal(self) -> float:
        """The smallest positive number (without mantissa bits, the smallest normal one)."""
        return 2.0 ** (self.smallest_exponent - self.mantissa_bits)

    @property
    def epsilon(self) -> float:
        """The gap between neighbours in [1, 2) if that range is normal: 2^-mantissa_bits."""
        return 2.0**-self.mantissa_bits


FP32 = FloatFormat("FP32", 8, 23, 127)
TF32 = FloatFormat("TF32", 8, 10, 127)
FP16 = FloatFormat("FP16", 5, 10, 15)
BF16 = FloatFormat("BF16", 8, 7, 127)
FP8_E4M3 = FloatFormat("FP8 E4M3", 4, 3, 7, "fn")
FP8_E5M2 = FloatFormat("FP8 E5M2", 5, 2, 15)
FP4_E3M0 = FloatFormat("FP4 E3M0", 3, 0, 3, "finite")
FP4_E2M1 = FloatFormat("FP4 E2M1", 2, 1, 1, "finite")
FP4_E1M2 = FloatFormat("FP4 E1M2", 1, 2, 0, "finite")


def encode(x: npt.ArrayLike, fmt: FloatFormat, *, saturate: bool = False) -> Any:
    """The code of the number of `fmt` nearest to each x; of two equally near, the even one.

    Of two powers of two in a format without mantissa bits neither is even: the larger one, as
    IEEE 754-2019, 4.3.1, says.

    Any shape; float64, float32, float16 or whole numbers in, unsigned integers of the same shape
    out. x is rounded once: float64 holds all these inputs exactly.

    What rounds to more than `fmt.max` becomes infinity (`"ieee"`), NaN (`"fn"`) or the
    largest number (`"finite"`, or `saturate=True`; infinity too). OFP8 allows both ways for
    E4M3, and torch has gone both: 2.13 saturates, older versions give NaN. NaN becomes the quiet
    NaN with the sign of x; a format without NaN raises LessonkitError.
    """
    array = _as_float64(x)
    if fmt.nan_code is None and np.isnan(array).any():
        raise LessonkitError(
            f"{fmt.name} has no code for NaN.",
            where=f"{int(np.isnan(array).sum()):,} of {array.size:,} values",
            remedy="Find out where the NaN comes from, or choose a format that has one.",
        )
    return _in_pieces(lambda piece: _encode(piece, fmt, saturate), array, fmt.code_dtype)


def _encode(x: np.ndarray, fmt: FloatFormat, saturate: bool) -> np.ndarray:
    finite = np.isfinite(x)
    magnitude = np.where(finite, np.abs(x), 0.0)

    exponent = _binade(magnitude, fmt)
    # Measured in steps of that binade, the neighbours are whole numbers. ldexp is exact here,
    # so rint (half to even) is the only rounding.
    steps = np.rint(np.ldexp(magnitude, fmt.mantissa_bits - exponent)).astype(np.int64)
    # A step up from the last number of a binade carries into the exponent field by itself.
    code = ((exponent - fmt.smallest_exponent).astype(np.int64) << fmt.mantissa_bits) + steps

    overflow = (code > fmt.max_code) | np.isinf(x)
    if saturate or fmt.specials == "finite":
        code[overflow] = fmt.max_code
    else:
        # IEEE: infinity. "fn" has none, and gives NaN.
        code[overflow] = fmt.max_code + 1
    if fmt.nan_code is not None:
        code[np.isnan(x)] = fmt.nan_code
    code |= np.signbit(x).astype(np.int64) << (fmt.bits - 1)
    return code.astype(fmt.code_dtype)


def _binade(magnitude: np.ndarray, fmt: FloatFormat) -> np.ndarray:
    """The exponent of the binade [2^exponent, 2^(exponent + 1)) that each magnitude lies in.

    Zero and the subnormals share the lowest binade's spacing, so they count as in it.
    """
    exponent = (
        np.frexp(magnitude)[1] - 1
    )  # frexp says x = f * 2^e with .5 <= f < 1, and e = 0 for 0
    return np.where(magnitude < fmt.smallest_normal, fmt.smallest_exponent, exponent)


def decode(codes: npt.ArrayLike, fmt: FloatFormat, dtype: npt.DTypeLike = np.float64) -> Any:
    """The number that each code stands for. Any shape; float64 holds every one exactly.

    Ask for `dtype=np.float32` to save memory: exact too for all formats named in this module.
    Raises LessonkitError for codes that are not whole numbers from 0 to 2^bits - 1.
    """
    return _in_pieces(lambda piece: _decode(piece, fmt), _checked(codes, fmt), np.dtype(dtype))


def _decode(codes: np.ndarray, fmt: FloatFormat) -> np.ndarray:
    sign, exponent, mantissa = split_fields(codes, fmt)
    # Whole steps of the binade: a normal number has the leading one that is not stored.
    steps = mantissa + np.where(exponent > 0, 1 << fmt.mantissa_bits, 0)
    power = np.maximum(exponent, 1) - fmt.bias - fmt.mantissa_bits
    value = np.ldexp(steps.astype(np.float64), power)

    magnitude_code = codes.astype(np.int64) & ((1 << (fmt.bits - 1)) - 1)
    value[magnitude_code > fmt.max_code] = np.nan
    if fmt.infinity_code is not None:
        value[magnitude_code == fmt.infinity_code] = np.inf
    return np.where(sign == 1, -value, value)


def round_to(x: npt.ArrayLike, fmt: FloatFormat, *, saturate: bool = False) -> Any:
    """The number of `fmt` nearest to each x, as float64: encode, then decode."""
    return decode(encode(x, fmt, saturate=saturate), fmt)


def bf16_bits(values: np.ndarray) -> np.ndarray:
    """The BF16 codes (uint16) of float32 values, the same as `encode` gives, but fast.

    BF16 is the upper half of FP32. Adding 0x7fff to the bits, and one more where the half that is
    kept is odd, carries into it just where rounding to nearest, ties to even, goes up. A NaN, from
    which the carry would make an infinity or a zero, becomes the quiet NaN without its sign, as
    in torch.
    """
    raw = values.view(np.uint32)
    odd = (raw >> np.uint32(16)) & np.uint32(1)
    with np.errstate(over="ignore"):  # only NaNs are large enough
        rounded = (raw + np.uint32(0x7FFF) + odd) >> np.uint32(16)
    nan = (raw & np.uint32(0x7FFFFFFF)) > np.uint32(0x7F800000)
    return np.where(nan, np.uint32(0x7FC0), rounded).astype(np.uint16)


def bf16_values(codes: np.ndarray) -> np.ndarray:
    """The float32 values that BF16 codes (uint16) stand for, exactly."""
    return (codes.astype(np.uint32) << np.uint32(16)).view(np.float32)


def split_fields(codes: npt.ArrayLike, fmt: FloatFormat) -> tuple[Any, Any, Any]:
    """The three fields of each code: sign, exponent, mantissa, as int64 of the same shape."""
    code = _checked(codes, fmt).astype(np.int64)
    sign = code >> (fmt.bits - 1)
    exponent = (code >> fmt.mantissa_bits) & ((1 << fmt.exponent_bits) - 1)
    mantissa = code & ((1 << fmt.mantissa_bits) - 1)
    return sign, exponent, mantissa


def all_values(fmt: FloatFormat) -> np.ndarray:
    """What every code means, in the order of the codes: 2^bits values, infinities and NaN too.

    For formats of up to 16 bits; others raise LessonkitError.
    """
    if fmt.bits > 16:
        raise LessonkitError(
            f"{fmt.name} has {2**fmt.bits:,} codes: too many to list.",
            remedy="List a format of up to 16 bits.",
        )
    return np.asarray(decode(np.arange(2**fmt.bits), fmt))


def finite_values(fmt: FloatFormat) -> np.ndarray:
    """The finite numbers of a format of up to 16 bits, in rising order, zero once."""
    values = all_values(fmt)
    return np.unique(values[np.isfinite(values)] + 0.0)  # -0.0 + 0.0 is 0.0


def ulp(x: npt.ArrayLike, fmt: FloatFormat) -> Any:
    """The gap between neighbours at x ("unit in the last place"), always positive.

    At a power of two it is the gap above. NaN where `fmt` has no neighbours: |x| > `fmt.max`.
    """
    magnitude = np.abs(_as_float64(x))
    inside = magnitude <= fmt.max
    exponent = _binade(np.where(inside, magnitude, 0.0), fmt)
    return np.where(inside, np.ldexp(1.0, exponent - fmt.mantissa_bits), np.nan)[()]


def bits(x: float, fmt: FloatFormat) -> str:
    """The code of one number as text, one group a field: `"0 10000000 0010100..."`."""
    sign, exponent, mantissa = split_fields(encode(float(x), fmt), fmt)
    groups = [f"{sign:b}", f"{exponent:0{fmt.exponent_bits}b}"]
    if fmt.mantissa_bits:
        groups.append(f"{mantissa:0{fmt.mantissa_bits}b}")
    return " ".join(groups)


def describe(fmt: FloatFormat) -> dict[str, str | int | float]:
    """The figures of a format, one row of a table."""
    return {
        "format": fmt.name,
        "bits": fmt.bits,
        "exponent": fmt.exponent_bits,
        "mantissa": fmt.mantissa_bits,
        "largest": fmt.max,
        "smallest normal": fmt.smallest_normal,
        "smallest": fmt.smallest_subnormal,
        "gap at 1": float(ulp(1.0, fmt)),
    }


def table(formats: Iterable[FloatFormat]) -> str:
    """The figures of several formats as a table of text, to print."""
    columns = list(describe(FP32))
    lines = [columns]
    for row in map(describe, formats):
        lines.append([f"{v:.5g}" if isinstance(v, float) else str(v) for v in row.values()])
    widths = [max(len(cell) for cell in column) for column in zip(*lines, strict=True)]
    return "\n".join(
        "  ".join(
            cell.rjust(width) if i else cell.ljust(width)
            for i, (cell, width) in enumerate(zip(line, widths, strict=True))
        )
        for line in lines
    )


def _as_float64(x: npt.ArrayLike) -> np.ndarray:
    """x as float64, refused where that would round it already."""
    array = np.asarray(x)
    is_float = array.dtype.kind == "f" and array.dtype.itemsize <= 8
    is_whole = array.dtype.kind in "iub"
    if not (is_float or is_whole):
        raise LessonkitError(
            f"Cannot encode values of type {array.dtype}.",
            remedy="Pass float64, float32, float16 or whole numbers (a tensor: x.float().numpy()).",
        )
    if is_whole and ((array > 2**53) | (array < -(2**53))).any():
        raise LessonkitError(
            "Whole numbers beyond 2^53 would be rounded twice.",
            remedy="Pass float64, rounded as you want it.",
        )
    with np.errstate(invalid="ignore"):  # a signalling NaN becomes a quiet one: no harm
        return array.astype(np.float64, copy=False)


def _checked(codes: npt.ArrayLike, fmt: FloatFormat) -> np.ndarray:
    """The codes as an integer array, every one of them within the format."""
    array = np.asarray(codes)
    if array.dtype.kind not in "iu":
        raise LessonkitError(
            f"Codes are whole numbers, not {array.dtype}.",
            where=fmt.name,
            remedy="Encode the numbers first.",
        )
    if array.size and (int(array.min()) < 0 or int(array.max()) >= 2**fmt.bits):
        raise LessonkitError(
            f"A code of {fmt.name} lies between 0 and {2**fmt.bits - 1:,}.",
            where=f"codes from {int(array.min()):,} to {int(array.max()):,}",
            remedy="Were they encoded for another format?",
        )
    return array


def _in_pieces(
    function: Callable[[np.ndarray], np.ndarray], array: np.ndarray, dtype: np.dtype[Any]
) -> Any:
    """Apply an elementwise function piece by piece; a single number in, a single number out."""
    flat = array.reshape(-1)
    out = np.empty(flat.shape, dtype)
    for start in range(0, flat.size, _PIECE):
        out[start : start + _PIECE] = function(flat[start : start + _PIECE])
    return out.reshape(array.shape)[()]
