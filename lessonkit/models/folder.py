"""What a model's folder holds, read from its headers alone."""

from __future__ import annotations

from dataclasses import dataclass
from pathlib import Path
from typing import TYPE_CHECKING, Any

from lessonkit.errors import LessonkitError
from lessonkit.files.checkpoint import open_checkpoint, read_json
from lessonkit.files.dtypes import DTYPES, FLOATS
from lessonkit.files.safetensors import TensorInfo

if TYPE_CHECKING:
    import torch


@dataclass(frozen=True)
class ModelFolder:
    """A folder whose configuration and weights were found whole: nothing but headers is read."""

    path: Path
    config: dict[str, Any]
    tensors: tuple[TensorInfo, ...]
    form: str  # "safetensors" or "pytorch"

    @property
    def quantised(self) -> bool:
        """Do the weights hold the codes of a quantisation scheme?"""
        return "quantization_config" in self.config

    def dtype(self) -> torch.dtype:
        """The one floating-point format that holds all of the weights without loss."""
        import torch

        found = {info.dtype for info in self.tensors if info.dtype in FLOATS}
        result: torch.dtype | None = None
        for name in found:
            one: torch.dtype = getattr(torch, DTYPES[name].torch_name)
            result = one if result is None else torch.promote_types(result, one)
        return result or torch.get_default_dtype()

    def bytes_as(self, dtype: torch.dtype | None) -> int:
        """Bytes of all tensors once loaded, floating-point ones as `dtype` (None: as stored)."""
        return sum(
            info.count * dtype.itemsize if dtype and info.dtype in FLOATS else info.nbytes
            for info in self.tensors
        )


def read_model_folder(folder: Path) -> ModelFolder:
    """Read a model folder's configuration and the headers of its weights.

    Raises
    ------
    LessonkitError
        `config.json` or weights are missing or damaged, a shard is missing or cut short, or the
        model is not a Llama.
    """
    if not (folder / "config.json").is_file():
        raise LessonkitError(
            "The folder has no config.json, so it is not a Hugging Face model.",
            where=folder,
            remedy="Name the folder that holds config.json. Meta's own files (params.json, "
            "consolidated.00.pth) are converted first: lesson 03.",
        )
    config = read_json(folder / "config.json")
    if config.get("model_type") != "llama":
        raise LessonkitError(
            f"The model is of the type {config.get('model_type')!r}, not a Llama.",
            where=folder / "config.json",
            remedy='Choose a model whose config.json says `"model_type": "llama"`, '
            "such as TinyLlama/TinyLlama-1.1B-Chat-v1.0.",
        )
    checkpoint = open_checkpoint(folder)
    tensors = tuple(checkpoint.info(name) for name in checkpoint.names())
    return ModelFolder(folder, config, tensors, checkpoint.form)
