"""The pickle inside a PyTorch file: read without running it, written without torch.

A pickle is a program for a small stack machine, and two of its instructions (GLOBAL and
REDUCE) can call any function: this is how a downloaded checkpoint can run code. The reader
here knows only the instructions that a table of tensors needs (those of torch's own
`weights_only` reader), and calls nothing. The few
function names that such a table contains are compared as text; any other name is refused.
"""

from __future__ import annotations

import io
import math
import pickle
import pickletools
import struct
from collections.abc import Callable, Iterable
from dataclasses import dataclass
from typing import Any

from lessonkit.errors import LessonkitError

LARGEST_PICKLE = 64 << 20  # bytes; 300 tensors take about 40 kB

STORAGE_DTYPES = {
    "DoubleStorage": "F64",
    "FloatStorage": "F32",
    "HalfStorage": "F16",
    "BFloat16Storage": "BF16",
    "LongStorage": "I64",
    "IntStorage": "I32",
    "ShortStorage": "I16",
    "CharStorage": "I8",
    "ByteStorage": "U8",
    "BoolStorage": "BOOL",
}
_STORAGE_OF = {dtype: name for name, dtype in STORAGE_DTYPES.items()}


@dataclass(frozen=True)
class StoredTensor:
    """A tensor as the pickle describes it: a window (`offset`, `shape`, `stride`, in values)
    into the record `data/<key>`, which holds `length` values of `dtype`."""

    dtype: str
    key: str
    length: int
    offset: int
    shape: tuple[int, ...]
    stride: tuple[int, ...]


@dataclass(frozen=True)
class _Global:
    """The name of a function or class: never imported, never called."""

    name: str


@dataclass(frozen=True)
class _Storage:
    dtype: str
    key: str
    length: int


class _Mark:
    """Where a run of items begins on the stack."""


def read_tensors(program: bytes, *, where: object) -> dict[str, StoredTensor]:
    """The tensors that a `data.pkl` describes, by name, without executing anything."""
    try:
        result = _run(program)
    except LessonkitError as error:
        raise LessonkitError(error.what, where=where, remedy=error.remedy) from None
    except (ValueError, IndexError, KeyError, TypeError, RecursionError, struct.error) as error:
        raise LessonkitError(
            f"The pickle in this file is damaged ({error}).",
            where=where,
            remedy="Fetch the file again.",
        ) from error
    if not isinstance(result, dict):
        raise _refusal("The file does not hold a table of tensors.", where)
    for name, value in result.items():
        if not isinstance(name, str) or not isinstance(value, StoredTensor):
            raise _refusal(f"The entry {name!r} is not a tensor with a name.", where)
    return result


def write_tensors(tensors: Iterable[tuple[str, StoredTensor]]) -> bytes:
    """The `data.pkl` of a file with these tensors, as torch.save would describe them."""
    out = io.BytesIO()
    out.write(b"\x80\x02}(")  # PROTO 2, EMPTY_DICT, MARK
    for name, tensor in tensors:
        out.write(_text(name))
        out.write(b"ctorch._utils\n_rebuild_tensor_v2\n((")
        out.write(_text("storage") + f"ctorch\n{_STORAGE_OF[tensor.dtype]}\n".encode())
        out.write(_text(tensor.key) + _text("cpu") + _integer(tensor.length))
        out.write(b"tQ" + _integer(tensor.offset))  # TUPLE, BINPERSID: this is the storage
        out.write(_integers(tensor.shape) + _integers(tensor.stride))
        out.write(b"\x89ccollections\nOrderedDict\n)RtR")  # no gradient, no hooks; rebuild
    out.write(b"u.")  # SETITEMS, STOP
    return out.getvalue()


def _text(text: str) -> bytes:
    raw = text.encode()
    return b"X" + len(raw).to_bytes(4, "little") + raw


def _integer(value: int) -> bytes:
    if value < 1 << 31:
        return b"J" + value.to_bytes(4, "little")
    raw = pickle.encode_long(value)
    return b"\x8a" + bytes([len(raw)]) + raw


def _integers(values: tuple[int, ...]) -> bytes:
    return b"(" + b"".join(map(_integer, values)) + b"t"


def _refusal(what: str, where: object = None) -> LessonkitError:
    return LessonkitError(
        what,
        where=where,
        remedy="Only plain tables of tensors are read, and nothing in them is executed. "
        "Use a safetensors file from a source that you trust.",
    )


def _run(program: bytes) -> Any:
    """Step through the program; the value on top of the stack at STOP is the result."""
    stack: list[Any] = []
    memo: dict[Any, Any] = {}
    for opcode, argument, _position in pickletools.genops(program):
        name = opcode.name
        if name == "STOP":
            return stack.pop()
        if name == "PROTO":
            continue
        if name in ("BINPUT", "LONG_BINPUT"):
            memo[argument] = stack[-1]
        elif name in ("BINGET", "LONG_BINGET"):
            stack.append(memo[argument])
        elif name in _LITERALS:
            stack.append(argument)
        elif name in _STEPS:
            _STEPS[name](stack, argument)
        else:
            raise _refusal(f"The pickle uses the instruction {name}, which no tensor needs.")
    raise ValueError("it has no end")


_LITERALS = ("BINUNICODE", "BININT", "BININT1", "BININT2", "LONG1", "BINFLOAT")


def _pop_run(stack: list[Any]) -> list[Any]:
    """Take everything above the last mark."""
    items: list[Any] = []
    while not isinstance(item := stack.pop(), _Mark):
        items.append(item)
    return items[::-1]


def _set_items(stack: list[Any], items: list[Any]) -> None:
    table = stack[-1]
    if not isinstance(table, dict):
        raise TypeError("items are put into something that is not a dict")
    for key, value in zip(items[::2], items[1::2], strict=True):
        if not isinstance(key, str):  # hashing nested tuples can take forever, or crash
            raise _refusal("The pickle has an entry whose name is not text.")
        if key in table:
            raise _refusal(f"The pickle sets the entry {key!r} twice.")
        table[key] = value


def _global(stack: list[Any], argument: str) -> None:
    name = argument.replace(" ", ".")
    storage = name.removeprefix("torch.")
    if name not in _KNOWN_CALLS and storage not in STORAGE_DTYPES:
        raise _refusal(f"The pickle names {name}, which a table of tensors does not need.")
    stack.append(_Global(name))


def _storage(stack: list[Any]) -> None:
    kind, storage, key, _device, length = stack.pop()
    if kind != "storage" or not isinstance(storage, _Global) or not isinstance(key, str):
        raise TypeError("a storage is described in an unknown way")
    if type(length) is not int or length < 0:
        raise TypeError("a storage whose length is no whole number")
    dtype = STORAGE_DTYPES[storage.name.removeprefix("torch.")]
    stack.append(_Storage(dtype, key, length))


def _reduce(stack: list[Any]) -> None:
    arguments, function = stack.pop(), stack.pop()
    if not isinstance(function, _Global) or not isinstance(arguments, tuple):
        raise TypeError("something that is not a function is called")
    stack.append(_KNOWN_CALLS[function.name](*arguments))


def _rebuild_tensor(
    storage: Any, offset: Any, shape: Any, stride: Any, _gradient: Any, _hooks: Any
) -> StoredTensor:
    if not isinstance(storage, _Storage):
        raise TypeError("a tensor without storage")
    if not isinstance(shape, tuple) or not isinstance(stride, tuple):
        raise TypeError("a tensor without shape")
    if len(shape) != len(stride) or any(
        type(n) is not int or n < 0 for n in (offset, *shape, *stride)
    ):
        raise TypeError("a tensor whose shape, stride or offset are no whole numbers")
    if math.prod(shape) > storage.length:
        raise ValueError(f"a tensor of shape {shape} in a storage of {storage.length} values")
    last = offset + sum((n - 1) * step for n, step in zip(shape, stride, strict=True))
    if 0 not in shape and last >= storage.length:
        raise ValueError(f"a tensor reaches value {last} of a storage of {storage.length}")
    return StoredTensor(storage.dtype, storage.key, storage.length, offset, shape, stride)


def _rebuild_parameter(tensor: Any, _gradient: Any, _hooks: Any) -> Any:
    return tensor


def _ordered_dict() -> dict[Any, Any]:
    return {}


_KNOWN_CALLS: dict[str, Callable[..., Any]] = {
    "torch._utils._rebuild_tensor_v2": _rebuild_tensor,
    "torch._utils._rebuild_parameter": _rebuild_parameter,
    "collections.OrderedDict": _ordered_dict,
}

_STEPS: dict[str, Callable[[list[Any], Any], None]] = {
    "MARK": lambda stack, _: stack.append(_Mark()),
    "NONE": lambda stack, _: stack.append(None),
    "NEWTRUE": lambda stack, _: stack.append(True),
    "NEWFALSE": lambda stack, _: stack.append(False),
    "EMPTY_DICT": lambda stack, _: stack.append({}),
    "EMPTY_TUPLE": lambda stack, _: stack.append(()),
    "TUPLE": lambda stack, _: stack.append(tuple(_pop_run(stack))),
    "TUPLE1": lambda stack, _: stack.append((stack.pop(),)),
    "TUPLE2": lambda stack, _: stack.append((stack.pop(-2), stack.pop())),
    "TUPLE3": lambda stack, _: stack.append((stack.pop(-3), stack.pop(-2), stack.pop())),
    "SETITEM": lambda stack, _: _set_items(stack, [stack.pop(-2), stack.pop()]),
    "SETITEMS": lambda stack, _: _set_items(stack, _pop_run(stack)),
    "BUILD": lambda stack, _: stack.pop(),  # attributes such as `_metadata`: not needed
    "GLOBAL": _global,
    "BINPERSID": lambda stack, _: _storage(stack),
    "REDUCE": lambda stack, _: _reduce(stack),
}
