"""The number formats that tensors are stored in, under the names that safetensors uses.

numpy has no bfloat16 and no 8-bit floats. Their tensors travel through lessonkit as their
bits, in unsigned integers of the same width; a dtype name such as "BF16" goes with them.
"""

from __future__ import annotations

import math
from collections.abc import Collection
from functools import cache
from typing import TYPE_CHECKING, Any, NamedTuple

import numpy as np

from lessonkit.errors import LessonkitError
from lessonkit.formats.floats import bf16_bits, bf16_values
from lessonkit.formats.threads import pieces, share_out

if TYPE_CHECKING:
    import torch

Array = np.ndarray[Any, Any]


class DType(NamedTuple):
    """One storage format: numpy's type for its bits, torch's name, is numpy's type the value?

    `values` of them take `block` bytes together; for most formats that is one value and its own
    bytes. A format smaller than a byte, or one whose values share a scale, has larger blocks.
    """

    bits: np.dtype[Any]
    torch_name: str
    native: bool = True
    values: int = 1
    block: int = 0

    @property
    def block_bytes(self) -> int:
        """Bytes of one block of `values`."""
        return self.block or self.bits.itemsize

    def nbytes(self, count: int) -> int:
        """Bytes of `count` values; a block that they do not fill counts as whole."""
        return -(-count // self.values) * self.block_bytes

    def stored_shape(self, shape: tuple[int, ...]) -> tuple[int, ...]:
        """The shape of the array of bits: that of the values where each has bits of its own."""
        if self.values == 1:
            return shape
        rows, columns = shape[:-1], shape[-1] if shape else 1
        if columns % self.values:
            return (self.nbytes(math.prod(shape)) // self.bits.itemsize,)
        return (*rows, self.nbytes(columns) // self.bits.itemsize)


def _opaque(torch_name: str, values: int = 1, block: int = 1) -> DType:
    """A format whose bits are carried along but not read as numbers here."""
    return DType(np.dtype("u1"), torch_name, native=False, values=values, block=block)


# All that the safetensors library knows; a test holds the two together.
DTYPES: dict[str, DType] = {
    "BOOL": DType(np.dtype("?"), "bool"),
    "F4": _opaque("float4_e2m1fn_x2", values=2),
    "F6_E2M3": _opaque("float6_e2m3", values=4, block=3),
    "F6_E3M2": _opaque("float6_e3m2", values=4, block=3),
    "U8": DType(np.dtype("u1"), "uint8"),
    "I8": DType(np.dtype("i1"), "int8"),
    "F8_E5M2": _opaque("float8_e5m2"),
    "F8_E4M3": _opaque("float8_e4m3fn"),
    "F8_E8M0": _opaque("float8_e8m0fnu"),
    "F8_E4M3FNUZ": _opaque("float8_e4m3fnuz"),
    "F8_E5M2FNUZ": _opaque("float8_e5m2fnuz"),
    "I16": DType(np.dtype("<i2"), "int16"),
    "U16": DType(np.dtype("<u2"), "uint16"),
    "F16": DType(np.dtype("<f2"), "float16"),
    "BF16": DType(np.dtype("<u2"), "bfloat16", native=False),
    "I32": DType(np.dtype("<i4"), "int32"),
    "U32": DType(np.dtype("<u4"), "uint32"),
    "F32": DType(np.dtype("<f4"), "float32"),
    "C64": DType(np.dtype("<c8"), "complex64"),
    "F64": DType(np.dtype("<f8"), "float64"),
    "I64": DType(np.dtype("<i8"), "int64"),
    "U64": DType(np.dtype("<u8"), "uint64"),
}

# GGUF's types that safetensors lacks: values and bytes of a block, from ggml's `ggml-common.h`.
# A test holds the two numbers to those of the gguf package.
BLOCKS: dict[str, DType] = {
    name: _opaque(name.lower(), values, block)
    for name, values, block in (
        ("Q4_0", 32, 18), ("Q4_1", 32, 20), ("Q5_0", 32, 22), ("Q5_1", 32, 24),
        ("Q8_0", 32, 34), ("Q8_1", 32, 40), ("Q2_K", 256, 84), ("Q3_K", 256, 110),
        ("Q4_K", 256, 144), ("Q5_K", 256, 176), ("Q6_K", 256, 210), ("Q8_K", 256, 292),
        ("IQ1_S", 256, 50), ("IQ1_M", 256, 56), ("IQ2_XXS", 256, 66), ("IQ2_XS", 256, 74),
        ("IQ2_S", 256, 82), ("IQ3_XXS", 256, 98), ("IQ3_S", 256, 110), ("IQ4_NL", 32, 18),
        ("IQ4_XS", 256, 136), ("TQ1_0", 256, 54), ("TQ2_0", 256, 66), ("MXFP4", 32, 17),
        ("NVFP4", 64, 36), ("Q1_0", 128, 18), ("Q2_0", 64, 18),
    )
}  # fmt: skip
_PIECE = 1 << 17
_TABLE = 1 << 16
FLOATS = ("F16", "BF16", "F32", "F64")

_OF_NUMPY = {dtype.bits: name for name, dtype in DTYPES.items() if dtype.native}
_OF_TORCH = {dtype.torch_name: name for name, dtype in DTYPES.items()}


def storage(name: str) -> DType:
    """How values of a dtype lie on the disk: one of safetensors' (DTYPES) or GGUF's (BLOCKS)."""
    return DTYPES[name] if name in DTYPES else BLOCKS[name]


def parse_dtype(name: str) -> str:
    """The safetensors name for "BF16", "bf16", "fp16" or torch's "bfloat16"."""
    upper = name.upper()
    short = f"F{upper[2:]}" if upper.startswith("FP") else upper
    found = _OF_TORCH.get(name.removeprefix("torch.").lower()) or short
    if found not in DTYPES:
        raise LessonkitError(
            f"{name!r} is not a number format that is known here.",
            remedy=f"Use one of {', '.join(DTYPES)}.",
        )
    return found


def parse_float(name: str, allowed: Collection[str] = FLOATS) -> str:
    """The safetensors name of a number format that weights can be rounded to, one of `allowed`.

    Raises LessonkitError for any other name.
    """
    try:
        found = parse_dtype(name)
    except LessonkitError:
        found = ""
    if found not in allowed:
        known = ", ".join(DTYPES[each].torch_name for each in allowed)
        raise LessonkitError(
            f"Weights cannot be rounded to {name!r} here.",
            where="dtype",
            remedy=f"Use {known}; 8 and 4 bits need quantisation.",
        )
    return found


def bits_of(data: Array | torch.Tensor, dtype: str | None = None) -> tuple[Array, str]:
    """A tensor as a little-endian array of its bits, and its dtype name.

    `data` is a numpy array (with `dtype`, where numpy's own type does not say it all) or a
    torch tensor on any device. Bytes are shared where possible, never converted.
    """
    if isinstance(data, np.ndarray):
        name = dtype or _OF_NUMPY.get(data.dtype.newbyteorder("<"))
        if name is None or DTYPES[parse_dtype(name)].bits != data.dtype.newbyteorder("<"):
            raise LessonkitError(
                f"An array of {data.dtype} cannot be stored as {dtype or 'any known format'}.",
                remedy="Pass the bits: uint16 with dtype='BF16', for example.",
            )
        return data.astype(data.dtype.newbyteorder("<"), copy=False), parse_dtype(name)
    name = parse_dtype(str(data.dtype))
    if dtype is not None and parse_dtype(dtype) != name:
        raise LessonkitError(
            f"The tensor is {name}, not {dtype}.", remedy="Cast it first, or leave dtype out."
        )
    tensor = data.detach().cpu().contiguous()
    if not DTYPES[name].native:
        import torch

        tensor = tensor.view(torch.uint16 if DTYPES[name].bits.itemsize == 2 else torch.uint8)
    return tensor.numpy(), name


def as_torch(bits: Array, dtype: str) -> torch.Tensor:
    """The torch tensor whose bits these are, in the same memory: the way back from `bits_of`.

    A format that torch lacks, or packs several values of into one, stays bytes.
    """
    import torch
    from torch.utils.dlpack import from_dlpack

    # torch warns of read-only memory, even where nothing will write to it; DLPack hands it over.
    tensor = torch.from_numpy(bits) if bits.flags.writeable else from_dlpack(bits)
    wanted: torch.dtype = getattr(torch, DTYPES[dtype].torch_name, torch.uint8)
    return tensor if tensor.dtype == wanted else tensor.view(wanted)


def bytes_of(bits: Array) -> memoryview:
    """The canonical bytes of a tensor: little-endian, row by row. Copied only if they must be."""
    return np.ascontiguousarray(bits).reshape(-1).view(np.uint8).data


def to_float32(bits: Array, dtype: str) -> Array:
    """The values of F16, BF16 or F32 as float32, exactly; F64 stays float64."""
    if dtype not in FLOATS:
        raise LessonkitError(
            f"{dtype} does not hold floating-point values.", remedy=f"Use one of {FLOATS}."
        )
    if dtype == "BF16":
        return bf16_values(bits)
    if dtype == "F16" and bits.size > _TABLE:
        return _look_up(bits, _table("F16", "F32"))
    return bits if dtype == "F64" else bits.astype(np.float32, copy=False)


def cast(bits: Array, source: str, target: str) -> Array:
    """Round values to another float format, to nearest, ties to even; NaN stays NaN.

    Values beyond the target's range become infinite, as everywhere in IEEE 754; the caller
    counts them. F64 to BF16 rounds twice (through F32), as torch does.
    """
    if source == target:
        return bits
    if target not in FLOATS:
        raise LessonkitError(
            f"Values cannot be rounded to {target}.", remedy=f"Use one of {FLOATS}."
        )
    result = np.empty(bits.shape, DTYPES[target].bits)
    flat, flat_result = bits.reshape(-1), result.reshape(-1)
    table = None
    if flat.size > _TABLE and DTYPES[source].bits.itemsize == 2 and target != "F32":
        table = _table(source, target)

    def cast_piece(start: int, stop: int) -> None:
        if table is not None:
            _look_up(flat[start:stop], table, flat_result[start:stop])
        else:
            flat_result[start:stop] = _round(to_float32(flat[start:stop], source), target)

    # In pieces, so that memory for the steps between stays small.
    share_out(cast_piece, pieces(flat.size, _PIECE))
    return result


@cache
def _table(source: str, target: str) -> Array:
    """What each of the 65,536 codes of a 16-bit format becomes in another format."""
    codes = np.arange(_TABLE, dtype=np.uint16).view(DTYPES[source].bits)
    return _round(to_float32(codes, source), target)


def _look_up(bits: Array, table: Array, out: Array | None = None) -> Array:
    """Replace the codes of a 16-bit format: several times as fast as numpy's own half floats."""
    if out is None:
        out = np.empty(bits.shape, table.dtype)
    codes, found = bits.reshape(-1).view(np.uint16), out.reshape(-1)
    for start, stop in pieces(codes.size, 1 << 14):  # numpy makes 64-bit numbers of them first
        np.take(table, codes[start:stop], out=found[start:stop], mode="clip")
    return out


def _round(values: Array, target: str) -> Array:
    with np.errstate(over="ignore", invalid="ignore"):
        if target != "BF16":
            return values.astype(DTYPES[target].bits)
        return bf16_bits(values.astype(np.float32, copy=False))
