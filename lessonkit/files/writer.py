"""Write a safetensors checkpoint tensor by tensor, in shards of bounded size, atomically.

    with write_checkpoint(out) as writer:
        writer.add("model.norm.weight", array)          # numpy, or a torch tensor
        writer.add("lm_head.weight", bits, "BF16")      # bits, with the dtype's name
        writer.add_file("config.json", text.encode())

The files get the names that transformers expects: `model.safetensors`, or
`model-00001-of-00003.safetensors` and so on with an index.

A tensor is written on a thread of its own while the next one is made: leave its memory unchanged.
"""

from __future__ import annotations

import json
import os
import shutil
from collections.abc import Iterable, Iterator, Sequence
from concurrent.futures import Future, ThreadPoolExecutor
from contextlib import contextmanager
from pathlib import Path
from typing import TYPE_CHECKING, BinaryIO

from lessonkit.errors import LessonkitError
from lessonkit.files.atomic import atomic_folder, check_space
from lessonkit.files.dtypes import Array, bits_of, bytes_of
from lessonkit.files.integrity import inner_name
from lessonkit.files.safetensors import TensorInfo, encode_header

if TYPE_CHECKING:
    import torch

MAX_SHARD_BYTES = 5_000_000_000
INDEX_NAME = "model.safetensors.index.json"
_SYNC_BYTES = 1 << 28  # so much may wait for the disk: else all of it does, at the end


@contextmanager
def write_checkpoint(
    out: str | os.PathLike[str],
    *,
    max_shard_bytes: int = MAX_SHARD_BYTES,
    force: bool = False,
    plan: Sequence[TensorInfo] | None = None,
    protect: Iterable[str | os.PathLike[str]] = (),
) -> Iterator[ShardWriter]:
    """Yield a `ShardWriter`; `out` appears, complete and synced, when the block ends well.

    Parameters
    ----------
    out:
        The folder to make. With `force` an existing one is replaced, as a whole.
    max_shard_bytes:
        A shard is closed before it would hold more than this (a single larger tensor still
        gets a shard of its own).
    plan:
        The tensors to come, in order, if they are known. Then every byte is written once
        (without a plan, a shard's data waits in a spool file until its header is known),
        the free space is checked first, and each tensor is held to its plan. The files are
        the same with and without.
    protect:
        The sources, which `force` must never replace.
    """
    if max_shard_bytes < 1:
        raise LessonkitError(
            f"A shard of {max_shard_bytes} bytes holds nothing.",
            where="max_shard_bytes",
            remedy="Give a positive number of bytes.",
        )
    if plan is not None:
        check_space(out, sum(info.nbytes for info in plan))
    with atomic_folder(out, force=force, protect=protect) as folder:
        writer = ShardWriter(folder, max_shard_bytes, plan)
        try:
            yield writer
            writer.finish()
        finally:
            writer.close()


class ShardWriter:
    """The writing half of `write_checkpoint`: use that, which makes the result appear whole."""

    def __init__(
        self, folder: Path, max_shard_bytes: int, plan: Sequence[TensorInfo] | None
    ) -> None:
        self.folder = folder
        self._max_shard_bytes = max_shard_bytes
        self._planned = None if plan is None else self._split(plan)
        self._shards: list[list[TensorInfo]] = []
        self._shard_of: dict[str, int] = {}
        self._bytes = 0  # in the open shard
        self._file: BinaryIO | None = None
        self._beside = ThreadPoolExecutor(1)
        self._under_way: Future[None] | None = None
        self._unsynced = 0  # bytes

    def add(self, name: str, data: Array | torch.Tensor, dtype: str | None = None) -> None:
        """Write the next tensor: begin to, once the one before is written.

        `data` is a torch tensor, or a numpy array; `dtype` names the format ("BF16") where
        the array holds bits that numpy has no type for.
        """
        bits, dtype = bits_of(data, dtype)
        info = TensorInfo(name, dtype, bits.shape)
        if name in self._shard_of:
            raise LessonkitError(
                f"The tensor {name} was written already.",
                where=self.folder,
                remedy="Every name may come once.",
            )
        if self._file is None or self._bytes + info.nbytes > self._max_shard_bytes:
            self._next_shard()
        assert self._file is not None
        if self._planned is not None:
            self._hold_to_plan(info)
        self._shards[-1].append(info)
        self._shard_of[name] = len(self._shards) - 1
        self._bytes += info.nbytes
        self._wait()
        self._under_way = self._beside.submit(self._write, self._file, bytes_of(bits))

    def add_file(self, name: str, content: bytes) -> None:
        """Put a further file (config.json, ...) beside the weights."""
        path = self.folder / inner_name(name, where=self.folder)
        path.parent.mkdir(parents=True, exist_ok=True)
        with path.open("xb") as file:
            file.write(content)

    def finish(self) -> None:
        """Complete the last shard, name the shards and write the index."""
        self._close_shard()
        if self._planned is not None and self._shards != self._planned:
            planned = {info.name for shard in self._planned for info in shard}
            missing = sorted(planned - set(self._shard_of))
            raise LessonkitError(
                f"{len(missing)} planned tensors were never written; the first is {missing[0]}.",
                where=self.folder,
                remedy="This is a mistake in the conversion, not in your files.",
            )
        names = _shard_names(len(self._shards))
        for number, name in enumerate(names):
            self._path(number).rename(self.folder / name)
        if len(names) > 1:
            self.add_file(INDEX_NAME, self._index(names))

    def close(self) -> None:
        """Close what is open, after an error too."""
        self._beside.shutdown()
        if self._file is not None:
            self._file.close()
            self._file = None

    def _write(self, file: BinaryIO, data: memoryview) -> None:
        file.write(data)
        self._unsynced += len(data)
        if self._unsynced >= _SYNC_BYTES:
            file.flush()
            os.fsync(file.fileno())
            self._unsynced = 0

    def _wait(self) -> None:
        """Until all that was added is written; raises what the writing raised."""
        under_way, self._under_way = self._under_way, None
        if under_way is not None:
            under_way.result()

    def _split(self, plan: Sequence[TensorInfo]) -> list[list[TensorInfo]]:
        shards: list[list[TensorInfo]] = []
        room = -1
        for info in plan:
            if info.nbytes > room:
                shards.append([])
                room = self._max_shard_bytes
            shards[-1].append(info)
            room -= info.nbytes
        return shards

    def _hold_to_plan(self, info: TensorInfo) -> None:
        assert self._planned is not None
        shard, place = len(self._shards) - 1, len(self._shards[-1])
        planned = self._planned[shard][place : place + 1] if shard < len(self._planned) else []
        if planned != [info]:
            raise LessonkitError(
                f"The tensor {info.name} ({info.dtype} {list(info.shape)}) is not what was planned "
                f"at this place.",
                where=self.folder,
                remedy="This is a mistake in the conversion, not in your files.",
            )

    def _path(self, number: int) -> Path:
        return self.folder / f"shard-{number:05}.incomplete"

    def _next_shard(self) -> None:
        self._close_shard()
        self._bytes = 0
        number = len(self._shards)
        self._file = self._path(number).open("xb")
        self._shards.append([])
        if self._planned is not None and number < len(self._planned):
            self._file.write(encode_header(self._planned[number], {"format": "pt"}))

    def _close_shard(self) -> None:
        if self._file is None:
            return
        self._wait()
        self._file.close()
        self._file = None
        if self._planned is None:
            self._put_header_first(len(self._shards) - 1)

    def _put_header_first(self, number: int) -> None:
        """The header is known at last: copy the spooled data behind it."""
        spool = self._path(number).rename(self._path(number).with_suffix(".spool"))
        with spool.open("rb") as data, self._path(number).open("xb") as shard:
            shard.write(encode_header(self._shards[number], {"format": "pt"}))
            shutil.copyfileobj(data, shard, 1 << 20)
        spool.unlink()

    def _index(self, names: list[str]) -> bytes:
        total = sum(_nbytes(shard) for shard in self._shards)
        weight_map = {name: names[self._shard_of[name]] for name in sorted(self._shard_of)}
        index = {"metadata": {"total_size": total}, "weight_map": weight_map}
        return (json.dumps(index, indent=2) + "\n").encode()


def _nbytes(shard: list[TensorInfo]) -> int:
    return sum(info.nbytes for info in shard)


def _shard_names(count: int) -> list[str]:
    if count == 1:
        return ["model.safetensors"]
    return [f"model-{number:05}-of-{count:05}.safetensors" for number in range(1, count + 1)]
