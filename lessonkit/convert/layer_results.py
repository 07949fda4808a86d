"""What a method made of a layer, and a folder in which such results outlast an interruption."""

from __future__ import annotations

import json
import os
import shutil
from collections.abc import Iterator
from contextlib import contextmanager
from dataclasses import dataclass, field
from pathlib import Path
from typing import TYPE_CHECKING, Any, BinaryIO

from lessonkit.errors import LessonkitError
from lessonkit.files.atomic import lock_file
from lessonkit.files.checkpoint import Checkpoint, read_json
from lessonkit.quantize.grids import Grid, Quantized

if TYPE_CHECKING:
    import torch

_PARTS = ("codes", "scales", "zeros", "g_idx")  # of a `Quantized`


@dataclass
class LayerResult:
    """What a method made of one layer; all names are those of the checkpoint.

    Attributes
    ----------
    quantized:
        Codes and scales of each quantised weight.
    changed:
        Other tensors that are no longer those of the checkpoint.
    reports:
        For each quantised weight what there is to say of it, such as its `output_error`.
    """

    quantized: dict[str, Quantized] = field(default_factory=dict)
    changed: dict[str, torch.Tensor] = field(default_factory=dict)
    reports: dict[str, dict[str, float]] = field(default_factory=dict)

    def weights(self) -> dict[str, torch.Tensor]:
        """The values that a reader of the files computes with: weights as float32 [out, in]."""
        weights = {name: quantized.dequantize() for name, quantized in self.quantized.items()}
        return {**weights, **self.changed}


class FinishedLayers:
    """A folder with a safetensors file for each finished layer; one run uses it at a time.

        with FinishedLayers(folder) as finished:
            finished.begin(run)
            ...
            finished.forget()

    What was finished stays there when the block is left by an error.
    """

    def __init__(self, folder: str | os.PathLike[str]) -> None:
        self.folder = Path(folder)
        self._lock: BinaryIO | None = None

    def __enter__(self) -> FinishedLayers:
        with _told(self.folder):
            self.folder.mkdir(parents=True, exist_ok=True)
            self._lock = (self.folder / "lock").open("wb")
            try:
                lock_file(self._lock)
            except BlockingIOError as error:
                self._lock.close()
                raise LessonkitError(
                    "Another run is at work on the same output at this moment.",
                    where=self.folder,
                    remedy="Wait until it has ended, or choose another name.",
                ) from error
        return self

    def __exit__(self, *_: object) -> None:
        assert self._lock is not None
        # After `forget` the folder, if there is one, is another run's.
        if not self._lock.closed and not any(self.folder.glob("*.safetensors")):
            self.forget()
        self._lock.close()

    def begin(self, run: dict[str, Any]) -> None:
        """Make the folder, or go on with what is in it.

        `run` is all that the results depend on. A folder begun for another run is refused.
        """
        told = self.folder / "run.json"
        run = json.loads(json.dumps(run))  # tuples become lists, as in the file
        if told.is_file() and (begun := read_json(told)) != run:
            other = sorted(key for key in {*run, *begun} if run.get(key) != begun.get(key))
            raise LessonkitError(
                f"An interrupted run left finished layers here; it differs in {', '.join(other)}.",
                where=self.folder,
                remedy="Start it again as it was to go on with it, or delete this folder.",
            )
        _write(told, json.dumps(run, indent=1).encode())

    def load(self, index: int, grid: Grid) -> LayerResult | None:
        """The result of a layer; None if it is not finished yet."""
        path = self._path(index)
        if not path.is_file():
            return None
        file = Checkpoint(path)
        result = LayerResult(reports=json.loads(file.metadata["reports"]))
        for name in json.loads(file.metadata["quantized"]):
            parts: dict[str, Any] = {
                part: file.tensor(f"{name}:{part}").clone() if f"{name}:{part}" in file else None
                for part in _PARTS
            }
            result.quantized[name] = Quantized(grid, **parts)
        for name in json.loads(file.metadata["changed"]):
            result.changed[name] = file.tensor(name).clone()
        return result

    def save(self, index: int, result: LayerResult) -> None:
        """Keep a result; the file appears when it is complete."""
        from safetensors.torch import save

        tensors = {name: tensor.cpu() for name, tensor in result.changed.items()}
        for name, quantized in result.quantized.items():
            for part in _PARTS:
                if (tensor := getattr(quantized, part)) is not None:
                    tensors[f"{name}:{part}"] = tensor.cpu().contiguous()
        metadata = {
            "reports": json.dumps(result.reports),
            "quantized": json.dumps(list(result.quantized)),
            "changed": json.dumps(list(result.changed)),
        }
        _write(self._path(index), save(tensors, metadata))

    def forget(self) -> None:
        """Remove the folder, and let go of it."""
        shutil.rmtree(self.folder, ignore_errors=True)
        if self._lock:
            self._lock.close()

    def _path(self, index: int) -> Path:
        return self.folder / f"layer-{index:05}.safetensors"


def _write(path: Path, content: bytes) -> None:
    """A file is there whole, or not at all."""
    partial = path.with_suffix(".partial")
    with _told(path):
        partial.write_bytes(content)
        partial.replace(path)


@contextmanager
def _told(path: Path) -> Iterator[None]:
    """What the system refuses becomes a LessonkitError."""
    try:
        yield
    except OSError as error:
        raise LessonkitError(
            f"Finished layers cannot be kept: {error.strerror or error}.",
            where=path,
            remedy="Check the free space and the permissions, then start the same command again.",
        ) from error
