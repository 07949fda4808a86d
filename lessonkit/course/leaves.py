"""One value of any kind that `check` accepts, as bits and as numbers.

numpy and torch name and store the same things differently, and numpy has no bfloat16 or float8.
A `Leaf` holds what both have in common: the dtype's name, the shape, the bits, the numbers.
"""

from __future__ import annotations

import sys
from dataclasses import dataclass
from typing import Any

import numpy as np

from lessonkit.errors import LessonkitError


@dataclass(frozen=True)
class Leaf:
    """One array, tensor, number, text or bytes, ready to be compared.

    `bits` are unsigned integers and `values` are numbers, both of the given shape (a text's
    values are its characters' code points). `path` says where in a dict or list it was.
    """

    dtype: str
    shape: tuple[int, ...]
    bits: np.ndarray
    values: np.ndarray
    path: str = ""

    @property
    def count(self) -> int:
        """How many values there are."""
        return int(self.bits.size)

    @property
    def is_text(self) -> bool:
        """True for bytes and text, whose differences have no size."""
        return self.dtype in ("bytes", "str")

    def show(self, place: int) -> str:
        """The value at a flat index, so exactly that two different ones look different."""
        value = self.values.reshape(-1)[place]
        if self.dtype == "bytes":
            return f"0x{int(value):02x}"
        if self.dtype == "str":
            return repr(chr(int(value)))
        if self.values.dtype.kind == "f":
            return f"{float(value)!r} ({self.dtype})"
        return f"{int(value)} ({self.dtype})"


def leaf_pair(ours: Any, theirs: Any, path: str, label: str) -> tuple[Leaf, Leaf]:
    """Both sides as leaves. A plain Python number takes the other side's dtype if it fits."""
    if _is_plain(ours) and not _is_plain(theirs):
        right = _leaf(theirs, path, label)
        return _plain_as(ours, right, path, label), right
    if _is_plain(theirs) and not _is_plain(ours):
        left = _leaf(ours, path, label)
        return left, _plain_as(theirs, left, path, label)
    return _leaf(ours, path, label), _leaf(theirs, path, label)


def _is_plain(value: Any) -> bool:
    return isinstance(value, (bool, int, float, list, tuple)) and not isinstance(value, np.generic)


def _plain_as(value: Any, other: Leaf, path: str, label: str) -> Leaf:
    """Python's numbers carry no dtype: read them as the other side's, unless that changes them."""
    array = _numbers(value, f"{label}{path}")
    plain = _leaf(array, path, label)
    try:
        wanted = np.dtype(other.dtype)
    except TypeError:  # bfloat16 and float8 are torch's alone
        return plain
    with np.errstate(all="ignore"):
        cast = array.astype(wanted)
    if np.array_equal(cast, array, equal_nan=wanted.kind == "f"):
        return _leaf(cast, path, label)
    return plain


def _leaf(value: Any, path: str, label: str) -> Leaf:
    torch = sys.modules.get("torch")  # a tensor can only exist where torch was imported
    if torch is not None and isinstance(value, torch.Tensor):
        return _tensor_leaf(value, torch, path, label)
    if isinstance(value, (bytes, bytearray, memoryview)):
        codes = np.frombuffer(bytes(value), np.uint8)
        return Leaf("bytes", codes.shape, codes, codes, path)
    if isinstance(value, str):
        codes = np.array([ord(character) for character in value], np.uint32)
        return Leaf("str", codes.shape, codes, codes, path)
    array = _numbers(value, f"{label}{path}")
    return _array_leaf(array, array.dtype.name, path)


def _numbers(value: Any, label: str) -> np.ndarray:
    """The value as an array of real numbers."""
    try:
        array = np.asarray(value)
    except ValueError:  # a list of lists of several lengths
        array = np.empty(0, object)
    if array.dtype.kind not in "fiub" or array.dtype.itemsize > 8:
        kind = f"{array.dtype} array" if isinstance(value, np.ndarray) else type(value).__name__
        raise LessonkitError(
            f"{label}: cannot compare this {kind}.",
            remedy="Pass arrays, tensors, numbers, bytes, text, or dicts and lists of these.",
        )
    return array


def _array_leaf(array: np.ndarray, dtype: str, path: str) -> Leaf:
    native = array.astype(array.dtype.newbyteorder("="), order="C", copy=False)
    bits = native.view(np.dtype(f"uint{8 * native.itemsize}"))
    values = native.astype(np.uint8) if native.dtype.kind == "b" else native
    return Leaf(dtype, array.shape, bits, values, path)


def _tensor_leaf(tensor: Any, torch: Any, path: str, label: str) -> Leaf:
    if tensor.layout != torch.strided or tensor.is_quantized or tensor.is_meta:
        raise LessonkitError(
            f"{label}{path}: cannot compare this tensor: it is not stored as a plain array.",
            remedy="Make it dense (to_dense(), dequantize()) and load its values first.",
        )
    tensor = tensor.detach().cpu().contiguous()
    dtype = str(tensor.dtype).removeprefix("torch.")
    try:
        return _array_leaf(tensor.numpy(), dtype, path)
    except TypeError:  # numpy has no such type: take the bits as integers, the values as float32
        whole = {1: torch.uint8, 2: torch.int16}[tensor.element_size()]
        raw = tensor.view(whole).numpy()
        bits = raw.view(np.dtype(f"uint{8 * raw.itemsize}"))
        return Leaf(dtype, tuple(tensor.shape), bits, tensor.float().numpy(), path)
