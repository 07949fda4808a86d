"""Quantise a model layer by layer, each layer on what the layers before it really give.

    for result in quantize_layers("mini", calibration, Gptq(IntGrid(4, 128))):
        model.load_state_dict(result.weights(), strict=False)

One decoder layer and the hidden states of the calibration text are in memory at a time. A run
that is given a folder for finished layers may be interrupted: the next one finds them there, does
nothing but run the text through them, and goes on. The result is the same, to the byte, on the
same machine with the same number of threads.
"""

from __future__ import annotations

import os
from collections.abc import Iterator
from pathlib import Path
from typing import TYPE_CHECKING, Any, Protocol

from lessonkit.convert.calibration import Calibration
from lessonkit.convert.decoder import Decoder, DecoderLayer, new_hidden_states
from lessonkit.convert.hf_checkpoint import HfCheckpoint
from lessonkit.convert.layer_results import FinishedLayers, LayerResult
from lessonkit.convert.nf4 import linear_weights
from lessonkit.errors import LessonkitError
from lessonkit.files.dtypes import DTYPES, parse_dtype
from lessonkit.llama.configs import read_sizes
from lessonkit.llama.shape import LlamaShape
from lessonkit.models.folder import read_model_folder
from lessonkit.models.names import find_path
from lessonkit.models.size import SMALL
from lessonkit.progress import bar
from lessonkit.quantize.grids import Grid

if TYPE_CHECKING:
    import torch


class Method(Protocol):
    """A way to choose the codes of a layer's weights, such as GPTQ."""

    @property
    def grid(self) -> Grid:
        """The values that weights may take."""
        ...

    @property
    def follows_quantized(self) -> bool:
        """Do later layers see what the quantised layer gives (or what the original one gives)?"""
        ...

    def settings(self) -> dict[str, Any]:
        """All that the result depends on, as JSON can hold it."""
        ...

    def quantize(self, layer: DecoderLayer, hidden: torch.Tensor) -> LayerResult:
        """Quantise a layer whose inputs are `hidden`, and advance these to its outputs."""
        ...


def quantize_layers(
    source: str | os.PathLike[str],
    calibration: Calibration,
    method: Method,
    *,
    finished: FinishedLayers | None = None,
    device: torch.device | str | None = None,
    compute_dtype: str = "float32",
    activations_on_disk: bool = False,
) -> Iterator[LayerResult]:
    """Yield the result of each decoder layer, from the first to the last.

    Parameters
    ----------
    source:
        A Llama in Hugging Face's form, or "mini".
    calibration:
        The tokens to watch the layers on.
    method:
        How codes are chosen: `convert.gptq.Gptq` or `convert.awq.Awq`.
    finished:
        Where finished layers are kept, and found again after an interruption. Whoever opened it
        lets it `forget` them when the result is safe.
    device:
        None means CUDA where there is one, else the CPU.
    compute_dtype:
        What layers compute in. Gram matrices and codes are float32 in any case.
    activations_on_disk:
        Keep the hidden states in `finished`, not in memory.

    Raises LessonkitError for a model that is not a plain Llama, for tokens that it does not know,
    and for a folder of finished layers that belong to another run.
    """
    import torch

    target = torch.device(device or ("cuda" if torch.cuda.is_available() else "cpu"))
    dtype = _compute_dtype(compute_dtype)
    checkpoint, shape = open_source(source)
    _require_fit(calibration, checkpoint, shape)
    _require_groups(method.grid, checkpoint)
    if finished is not None:
        run = {
            "source": [
                [file.name, file.stat().st_size, file.stat().st_mtime_ns]
                for file in checkpoint.weight_files
            ],
            "calibration": calibration.sha256,
            "settings": method.settings(),
            "compute_dtype": compute_dtype,
        }
        finished.begin(run)
    if activations_on_disk and finished is None:
        raise LessonkitError(
            "There is no folder to keep the activations in.",
            where="activations_on_disk",
            remedy="Give a folder for finished layers too.",
        )
    file = finished.folder / "activations" if finished and activations_on_disk else None
    samples, tokens = calibration.ids.shape
    hidden = new_hidden_states((samples, tokens, shape.width), dtype, target, file)
    decoder = Decoder(checkpoint, target, dtype)
    decoder.embed(calibration.ids, hidden)
    with bar(shape.layers, "layers", large=checkpoint.parameters > SMALL) as progress:
        for index in range(shape.layers):
            layer = decoder.layer(index)
            result = finished.load(index, method.grid) if finished else None
            if result is None:
                result = method.quantize(layer, hidden)
                checkpoint.require_unchanged()
                if finished:
                    finished.save(index, result)
            else:
                if method.follows_quantized:
                    layer.replace(result.weights())
                layer.advance(hidden)
            del layer
            progress.update(1)
            yield result


def open_source(source: str | os.PathLike[str]) -> tuple[HfCheckpoint, LlamaShape]:
    """Open a Llama to be quantised; LessonkitError for anything else."""
    path = find_path(os.fspath(source)) if isinstance(source, str) else Path(source)
    folder = read_model_folder(path)
    checkpoint = HfCheckpoint(path)
    linear_weights(checkpoint, folder.config, path)
    return checkpoint, read_sizes(folder.config, checkpoint.config_file)


def _compute_dtype(name: str) -> torch.dtype:
    import torch

    dtype = parse_dtype(name)
    if dtype not in ("F32", "BF16", "F16"):
        raise LessonkitError(
            f"Layers cannot compute in {name}.",
            where="compute_dtype",
            remedy="Use float32, bfloat16 or float16.",
        )
    found: torch.dtype = getattr(torch, DTYPES[dtype].torch_name)
    return found


def _require_fit(calibration: Calibration, checkpoint: HfCheckpoint, shape: LlamaShape) -> None:
    """Ids need embeddings, positions need to have been learnt."""
    highest, tokens = int(calibration.ids.max()), calibration.ids.shape[1]
    if highest >= shape.vocabulary:
        raise LessonkitError(
            f"The calibration has the token {highest}, but the model has only "
            f"{shape.vocabulary:,} embeddings.",
            where=calibration.text,
            remedy="Tokenise with the tokenizer that belongs to the model.",
        )
    context = checkpoint.config.get("max_position_embeddings", tokens)
    if tokens > context:
        raise LessonkitError(
            f"Windows of {tokens:,} tokens are longer than the {context:,} that the model was made "
            "for.",
            where=calibration.text,
            remedy=f"Use a seqlen of at most {context}.",
        )


def _require_groups(grid: Grid, checkpoint: HfCheckpoint) -> None:
    """Groups must fill the rows of every weight: better told now than after hours."""
    for name in linear_weights(checkpoint, checkpoint.config, checkpoint.path):
        try:
            grid.groups_in(checkpoint.info(name).shape[1])
        except LessonkitError as error:
            raise LessonkitError(error.what, where=name, remedy=error.remedy) from error
