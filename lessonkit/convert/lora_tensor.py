"""What adapters make of one tensor: change, round, compare.

A change of low rank is added where its values are rounded and compared, in pieces that fit into a
processor's cache: a pass over a whole tensor takes longer than the arithmetic in it. What is no
sum (a saved tensor, saved rows, DoRA) is done on the whole.
"""

from __future__ import annotations

from collections.abc import Iterator, Sequence
from typing import TYPE_CHECKING, NamedTuple

import numpy as np

from lessonkit.convert.adapter import Adapter, LowRank
from lessonkit.convert.lora_math import add_dora, low_rank_delta, low_rank_product
from lessonkit.errors import LessonkitError
from lessonkit.files.dtypes import DTYPES, Array, as_torch
from lessonkit.formats.threads import pieces

if TYPE_CHECKING:
    import torch

MERGEABLE = ("F32", "F16", "BF16")
"""The formats that a change can be added to."""
_PIECE = 1 << 17  # values


class Merged(NamedTuple):
    """The new bits; how many values differ from the base's, rounded alike; by how much at most.

    Rows beyond the base's are new, and count as changed.
    """

    bits: Array
    changed: int
    largest: float


class Workspace:
    """Memory for products, kept from one tensor to the next.

    The system hands out large pieces of memory page by page: that takes longer than the arithmetic.
    """

    def __init__(self) -> None:
        self._buffers: list[torch.Tensor] = []
        self._taken = 0

    def begin(self) -> None:
        """Whatever was taken is free again."""
        self._taken = 0

    def take(self, rows: int, columns: int) -> torch.Tensor:
        """A float32 matrix with anything in it, until the next `begin`."""
        import torch

        size, number = rows * columns, self._taken
        self._taken += 1
        if number == len(self._buffers):
            self._buffers.append(torch.empty(size))
        elif len(self._buffers[number]) < size:
            self._buffers[number] = torch.empty(size)
        return self._buffers[number][:size].view(rows, columns)


class _Values:
    """Values of a tensor, and what is still to be added to them, each change with a factor."""

    def __init__(self, values: torch.Tensor) -> None:
        self.replace(values)

    def replace(self, values: torch.Tensor) -> None:
        """Forget what was, and what was to be added."""
        self.shape, self.of = values.shape, values.reshape(-1)
        self._waiting: list[tuple[torch.Tensor, float]] = []

    def add(self, change: torch.Tensor, factor: float) -> None:
        """Add ``factor * change`` when the values are asked for."""
        self._waiting.append((change.reshape(-1), factor))

    def piece(
        self, start: int, stop: int, out: torch.Tensor, spare: torch.Tensor,
        known: torch.Tensor | None = None,
    ) -> torch.Tensor:  # fmt: skip
        """Some of the values, counted row by row, as float32, with everything added: in `out`.

        `spare` is as large; `known` are the values before anything is added, if they are at hand.
        """
        import torch

        values = out.copy_(self.of[start:stop]) if known is None else known
        for change, factor in self._waiting:
            torch.mul(change[start:stop], factor, out=spare)
            values = torch.add(values, spare, out=out)
        return out if values is out else out.copy_(values)

    def whole(self) -> torch.Tensor:
        """All of them, float32, with everything added: a copy."""
        import torch

        memory = torch.empty(2, len(self.of))
        return self.piece(0, len(self.of), *memory).view(self.shape)


def merge_tensor(
    name: str,
    bits: Array,
    dtype: str,
    target: str,
    steps: Sequence[tuple[Adapter, float]],
    workspace: Workspace,
) -> Merged:
    """Change a tensor of the base by adapters, in order, each with its weight; round to `target`.

    `bits` are the base's, of the format `dtype`. All arithmetic is float32, and rounded once.
    Raises LessonkitError if nothing can be added to `dtype`, and if finite values become infinite
    or NaN.
    """
    if dtype not in MERGEABLE:
        raise LessonkitError(
            f"{name} is {dtype}; a change can be added to F32, F16 and BF16 only.",
            where=name,
            remedy="Start from a base in one of them.",
        )
    before = as_torch(bits, dtype)
    values = _Values(before)
    old = values.of
    workspace.begin()
    for adapter, weight in steps:
        _apply(values, name, adapter, weight, workspace)
    result = np.empty(values.shape, DTYPES[target].bits)
    after = as_torch(result, target)
    changed, largest = _finish(values, old, after.view(-1))
    finite = np.isfinite(largest) and bool(after[len(before) :].isfinite().all())
    if not finite and before.isfinite().all():
        raise LessonkitError(
            f"{name} is not finite after the merge.",
            where=", ".join(adapter.name for adapter, _ in steps),
            remedy="The adapter is damaged, or its values are too large for "
            f"{DTYPES[target].torch_name}: try --dtype bfloat16.",
        )
    return Merged(result, changed, largest)


def _finish(values: _Values, old: torch.Tensor, new: torch.Tensor) -> tuple[int, float]:
    """Round all values into `new`; count those that `old`, rounded alike, has not, and measure.

    The largest difference is infinite or NaN where one of the values is.
    """
    import torch

    changed, largest = 0, [0.0]
    memory = torch.empty(3, _PIECE)
    for start, stop in pieces(len(new), _PIECE):
        was, now, spare = memory[:, : stop - start]
        was = was[: max(0, len(old) - start)].copy_(old[start:stop])
        values.piece(start, stop, now, spare, known=was if values.of is old else None)
        now.copy_(new[start:stop].copy_(now))
        changed += stop - start - len(was)
        if len(was):
            now = now[: len(was)]
            rounded = was if old.dtype == new.dtype else was.to(new.dtype).float()
            differs = now.numpy() != rounded.numpy()  # numpy's is several times as fast as torch's
            changed += int(np.count_nonzero(differs))
            largest += [abs(float(end)) for end in torch.sub(now, was, out=was).aminmax()]
    return changed, float(np.max(largest))


def deltas(adapter: Adapter) -> Iterator[tuple[str, torch.Tensor]]:
    """The change of each weight, float32, by the base's name: what `merge` adds.

    For DoRA it is the change before the rescaling. Saved tensors are no changes and are left out.
    """
    for name, part in adapter.low_rank.items():
        yield name, _delta(adapter, part, 1.0)


def _apply(
    values: _Values, name: str, adapter: Adapter, weight: float, workspace: Workspace
) -> None:
    """One adapter's change of one tensor: first what takes its place, then what is added."""
    if name in adapter.saved:
        values.replace(_float(adapter, adapter.saved[name]))
    if name in adapter.rows:
        rows, key = adapter.rows[name]
        whole = values.whole()
        whole[rows] = _float(adapter, key)
        values.replace(whole)
    part = adapter.low_rank.get(name)
    if part is not None and part.magnitude is None:
        a, b = _float(adapter, part.a), _float(adapter, part.b)
        product = low_rank_product(a, b, out=workspace.take(len(b), a.shape[1]))
        values.add(product.T if part.transposed else product, part.scale * weight)
    elif part is not None and part.magnitude is not None:
        magnitude = _float(adapter, part.magnitude)
        delta = _delta(adapter, part, weight)
        values.replace(add_dora(values.whole(), delta, magnitude, transposed=part.transposed))
    part = adapter.low_rank.get(f"{name.removesuffix('.bias')}.weight")
    if part is not None and part.bias and name.endswith(".bias"):
        values.add(_float(adapter, part.bias), part.scale * weight)


def _delta(adapter: Adapter, part: LowRank, weight: float) -> torch.Tensor:
    a, b = _float(adapter, part.a), _float(adapter, part.b)
    return low_rank_delta(a, b, part.scale * weight, transposed=part.transposed)


def _float(adapter: Adapter, key: str) -> torch.Tensor:
    return adapter.weights.tensor(key).float()
