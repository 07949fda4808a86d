"""What a model's folder holds, read from its headers alone, and a description of a model."""

from __future__ import annotations

from collections import Counter
from dataclasses import dataclass
from pathlib import Path
from typing import TYPE_CHECKING, Any

from lessonkit.errors import LessonkitError
from lessonkit.files.checkpoint import open_checkpoint, read_json
from lessonkit.files.dtypes import DTYPES, FLOATS
from lessonkit.files.safetensors_header import TensorInfo

if TYPE_CHECKING:
    import torch


@dataclass(frozen=True)
class Description:
    """The size and shape of a Llama.

    `parameters` counts every stored value once (tied tensors once), `dtypes` says how many of
    them there are in each number format, `byte_count` is what they take. `width` is the length
    of the residual stream, `mlp_width` of the feed-forward layer, `context` the longest text in
    tokens.
    """

    parameters: int
    dtypes: dict[str, int]
    byte_count: int
    layers: int
    width: int
    mlp_width: int
    heads: int
    key_value_heads: int
    vocabulary: int
    context: int

    def __str__(self) -> str:
        formats = ", ".join(
            name if len(self.dtypes) == 1 else f"{name} ({count:,})"
            for name, count in self.dtypes.items()
        )
        heads = f"{self.heads} heads"
        if self.key_value_heads != self.heads:
            heads += f" that share {self.key_value_heads} key/value heads"
        return (
            f"{self.parameters:,} parameters in {formats}: {self.byte_count / 1e6:,.1f} MB\n"
            f"{self.layers} layers of width {self.width:,}, feed-forward width "
            f"{self.mlp_width:,}, {heads}\n"
            f"vocabulary of {self.vocabulary:,}, texts of up to {self.context:,} tokens"
        )


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


def describe_path(path: Path | str) -> Description:
    """Describe the model in a folder from its configuration and headers, without loading it."""
    folder = read_model_folder(Path(path))
    sizes: Counter[str] = Counter()
    for info in folder.tensors:
        sizes[DTYPES[info.dtype].torch_name] += info.count
    return _description(folder.config, dict(sizes), folder.bytes_as(None))


def describe(model: Any) -> Description:
    """Describe a loaded transformers model."""
    sizes: Counter[str] = Counter()
    byte_count = 0
    for parameter in model.parameters():
        sizes[str(parameter.dtype).removeprefix("torch.")] += parameter.numel()
        byte_count += parameter.numel() * parameter.element_size()
    return _description(model.config.to_dict(), dict(sizes), byte_count)


def _description(config: dict[str, Any], dtypes: dict[str, int], byte_count: int) -> Description:
    # Names that a config.json may leave out, with what transformers then assumes.
    heads = config.get("num_attention_heads", 32)
    return Description(
        parameters=sum(dtypes.values()),
        dtypes=dtypes,
        byte_count=byte_count,
        layers=config.get("num_hidden_layers", 32),
        width=config.get("hidden_size", 4096),
        mlp_width=config.get("intermediate_size", 11008),
        heads=heads,
        key_value_heads=config.get("num_key_value_heads") or heads,
        vocabulary=config.get("vocab_size", 32000),
        context=config.get("max_position_embeddings", 2048),
    )
