"""Write a GPTQ or AWQ folder: run a method layer by layer, then put the checkpoint together.

Finished layers wait in OUT.unfinished, beside the output, until all of it is written. Whatever
ends a run before that, the same command goes on from there.
"""

from __future__ import annotations

import os
import re
from collections.abc import Callable, Iterator
from dataclasses import dataclass
from pathlib import Path
from typing import TYPE_CHECKING, Any

from lessonkit.convert.calibration import Calibration
from lessonkit.convert.conversion import CheckpointPassage, Read, as_json, to_checkpoint
from lessonkit.convert.hf_checkpoint import HfCheckpoint
from lessonkit.convert.layer_results import FinishedLayers, LayerResult
from lessonkit.convert.layerwise import Method, open_source, quantize_layers
from lessonkit.files.atomic import check_space, check_target
from lessonkit.files.certificate import Certificate, Record, tensor_sha256
from lessonkit.files.dtypes import DTYPES, Array, bits_of, cast, parse_float
from lessonkit.hub.companions import companions_in
from lessonkit.quantize.grids import Grid, Quantized

if TYPE_CHECKING:
    import torch

_LAYER = re.compile(r"model\.layers\.(\d+)\.")


@dataclass(frozen=True)
class Container:
    """A form of file for quantised weights.

    Attributes
    ----------
    name:
        "GPTQ" or "AWQ".
    config:
        What `config.json` says under "quantization_config".
    pack:
        The tensors that are stored for one weight, by the last part of their names.
    config_file:
        Where `config` is to stand as well.
    """

    name: str
    config: dict[str, Any]
    pack: Callable[[Quantized], dict[str, torch.Tensor]]
    config_file: str | None = None

    @property
    def scheme(self) -> str:
        """In words, for the certificate."""
        size = self.config["group_size"]
        groups = "one group a row" if size == -1 else f"groups of {size}"
        return f"{self.name} {self.config['bits']} bits, {groups}"


def write_quantized(
    source: str | os.PathLike[str],
    out: str | os.PathLike[str],
    calibration: Calibration,
    method: Method,
    container: Container,
    *,
    dtype: str | None,
    device: torch.device | str | None,
    compute_dtype: str,
    activations_on_disk: bool,
    max_shard_bytes: int,
    force: bool,
) -> Certificate:
    """Quantise a checkpoint and write the folder; `convert.gptq.to_gptq` has the parameters."""
    target = None if dtype is None else parse_float(dtype, ("F32", "F16", "BF16"))
    checkpoint, _ = open_source(source)
    check_target(Path(out), force=force, protect=[checkpoint.path, *checkpoint.weight_files])
    needed = sum(checkpoint.info(name).nbytes for name in checkpoint.names())
    check_space(out, 2 * needed)  # the finished layers, and the output: less than this
    with FinishedLayers(f"{os.fspath(out)}.unfinished") as finished:
        for _ in quantize_layers(
            source, calibration, method, finished=finished, device=device,
            compute_dtype=compute_dtype, activations_on_disk=activations_on_disk,
        ):  # fmt: skip
            pass
        options = {
            **method.settings(),
            "calibration": str(calibration),
            "calibration_sha256": calibration.sha256,
            "compute_dtype": compute_dtype,
        }
        certificate = Certificate(f"Hugging Face to {container.name}", options)
        layers = LayersByName(finished, method.grid)
        with to_checkpoint(
            checkpoint, out, certificate, f"to {container.name}",
            needed=needed, max_shard_bytes=max_shard_bytes, force=force,
        ) as passage:  # fmt: skip
            for name in checkpoint.names():
                with passage.tensor(name) as read:
                    result = layers.of(name)
                    if name in result.quantized:
                        _write_weight(passage, container, name, read, result)
                    elif name in result.changed:
                        _write_changed(passage, name, read, result.changed[name])
                    else:
                        _write_plain(passage, name, read, target)
            _write_configs(passage, checkpoint, container, target)
        finished.forget()
    return certificate


class LayersByName:
    """The finished layers, the last one asked for at hand."""

    def __init__(self, finished: FinishedLayers, grid: Grid) -> None:
        self._finished, self._grid = finished, grid
        self._index: int | None = None
        self._result = LayerResult()

    def of(self, name: str) -> LayerResult:
        """The result of the layer that a tensor belongs to; an empty one for other tensors."""
        layer = _LAYER.match(name)
        if layer is None:
            return LayerResult()
        if self._index != int(layer[1]):
            self._index = int(layer[1])
            self._result = self._finished.load(self._index, self._grid) or LayerResult()
        return self._result


def _write_weight(
    passage: CheckpointPassage, container: Container, name: str, read: Read, result: LayerResult
) -> None:
    """Write what is stored for a quantised weight, and one record for each tensor."""
    stored = {
        f"{name.removesuffix('weight')}{part}": tensor
        for part, tensor in container.pack(result.quantized[name]).items()
    }
    for stored_name, tensor in stored.items():
        passage.writer.add(stored_name, tensor)
    passage.record(_records, container, name, read, stored, result.reports[name])


def _records(
    container: Container,
    name: str,
    read: Read,
    stored: dict[str, torch.Tensor],
    report: dict[str, Any],
) -> Iterator[tuple[str, Record]]:
    error = report["output_error"] ** 0.5
    size = sum(tensor.nbytes for tensor in stored.values())
    details = {
        "bits_per_weight": round(8 * size / read.bits.size, 4),
        "relative_output_rms_error": error,
        **{key: value for key, value in report.items() if key != "output_error"},
    }
    for number, (stored_name, tensor) in enumerate(stored.items()):
        bits, dtype = bits_of(tensor)
        if number:
            record = Record(
                "made for a quantised weight", dtype, bits.shape, tensor_sha256(bits), [name]
            )
        else:
            details |= {
                "output_dtype": dtype,
                "output_shape": list(bits.shape),
                "output_sha256": tensor_sha256(bits),
            }
            record = Record(
                f"quantised: {container.scheme}, relative RMS error of the output {error:.4f}",
                read.dtype, read.bits.shape, read.sha256.result(), [name], details,
            )  # fmt: skip
        yield stored_name, record


def _write_changed(passage: CheckpointPassage, name: str, read: Read, tensor: torch.Tensor) -> None:
    """Write a tensor into which a method folded something."""
    bits, dtype = bits_of(tensor)
    passage.writer.add(name, bits, dtype)
    passage.record(_folded, name, read, bits, dtype)


def _folded(name: str, read: Read, bits: Array, dtype: str) -> Iterator[tuple[str, Record]]:
    yield name, Record(
        "scales folded in", read.dtype, read.bits.shape, read.sha256.result(), [name],
        {"output_dtype": dtype, "output_sha256": tensor_sha256(bits)},
    )  # fmt: skip


def _write_plain(passage: CheckpointPassage, name: str, read: Read, target: str | None) -> None:
    """Copy a tensor bit by bit, or round it to another dtype."""
    if target is None or target == read.dtype:
        passage.writer.add(name, read.bits, read.dtype)
        passage.keep(name, read)
        return
    result = cast(read.bits, read.dtype, target)
    passage.writer.add(name, result, target)
    passage.cast(name, read, result, target)


def _write_configs(
    passage: CheckpointPassage, checkpoint: HfCheckpoint, container: Container, target: str | None
) -> None:
    """config.json says what the weights are; some readers ask a file of its own."""
    config = {**checkpoint.config, "quantization_config": container.config}
    if target is not None:  # transformers 5 asks for the one, earlier versions for the other
        config["dtype"] = config["torch_dtype"] = DTYPES[target].torch_name
    passage.writer.add_file("config.json", as_json(config))
    if container.config_file is not None:
        passage.writer.add_file(container.config_file, as_json(container.config))
    for file in companions_in(checkpoint.config_file.parent, without=["config.json"]):
        passage.writer.add_file(file.name, file.read_bytes())
