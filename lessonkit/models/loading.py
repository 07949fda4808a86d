"""Load a model and its tokenizer: `model, tokenizer = load(MODEL)`.

`MODEL` is "mini", a folder, or a Hub id such as "TinyLlama/TinyLlama-1.1B-Chat-v1.0": see
`lessonkit.models.names`.
"""

from __future__ import annotations

import warnings
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path
from typing import TYPE_CHECKING, Any, NamedTuple

from lessonkit.errors import LessonkitError
from lessonkit.models.folder import ModelFolder, read_model_folder
from lessonkit.models.memory import free_memory
from lessonkit.models.names import MINI, resolve
from lessonkit.models.tokenizer import load_tokenizer

if TYPE_CHECKING:
    import torch

_SPARE = 1.1  # loading needs a little more than the weights themselves


class Loaded(NamedTuple):
    """A model, ready for inference, and its tokenizer."""

    model: Any
    tokenizer: Any


def load(
    name: str | Path = MINI,
    *,
    dtype: torch.dtype | str | None = None,
    device: torch.device | str | None = None,
    revision: str | None = None,
) -> Loaded:
    """Load a model and its tokenizer, in silence.

    Parameters
    ----------
    name:
        "mini", a folder, or a Hub id (see the head of this module).
    dtype:
        A floating-point dtype such as `torch.float32` or "float32". None keeps the source's.
    device:
        None means CUDA where there is one, else the CPU.
    revision:
        For a Hub id: a commit, tag or branch.

    Returns
    -------
    Loaded
        The model in evaluation mode, and a tokenizer whose ids (beginning token included) are
        those of the folder's `tokenizer.model`, where it has one.

    Raises
    ------
    LessonkitError
        Whatever is wrong with the name, the files, the memory; with what to do about it.
    """
    import torch

    folder = read_model_folder(resolve(name, revision=revision))
    wanted = as_dtype(dtype)
    target = torch.device(device or ("cuda" if torch.cuda.is_available() else "cpu"))
    with silence():
        tokenizer = load_tokenizer(folder.path)
        _require_vocabulary(folder, tokenizer)
        _require_memory(folder, wanted, target)
        model = _load_weights(folder, wanted, target)
    return Loaded(model, tokenizer)


def as_dtype(dtype: torch.dtype | str | None) -> torch.dtype | None:
    """A floating-point dtype by its name, or itself; None stays. LessonkitError for others."""
    import torch

    found = getattr(torch, dtype.removeprefix("torch."), None) if isinstance(dtype, str) else dtype
    if dtype is None or (isinstance(found, torch.dtype) and found.is_floating_point):
        return found
    raise LessonkitError(
        f"{dtype!r} is not a floating-point dtype of torch.",
        where="dtype",
        remedy="Use 'float32', 'float16' or 'bfloat16', or None to keep the source's.",
    )


def _require_vocabulary(folder: ModelFolder, tokenizer: Any) -> None:
    """Every id of the tokenizer needs a row in the embedding."""
    rows, ids = folder.config.get("vocab_size", 32000), len(tokenizer)
    if ids > rows:
        raise LessonkitError(
            f"The tokenizer knows {ids:,} tokens, but the model has only {rows:,} embeddings.",
            where=folder.path,
            remedy="Use the tokenizer that the model was trained with; never edit vocab_size.",
        )


def _require_memory(folder: ModelFolder, dtype: torch.dtype | None, device: torch.device) -> None:
    import torch

    available = torch.cuda.mem_get_info(device)[0] if device.type == "cuda" else free_memory()
    needed = int(folder.bytes_as(None if folder.quantised else dtype or folder.dtype()) * _SPARE)
    if needed > available:
        raise LessonkitError(
            f"The model needs about {needed / 1e9:.2f} GB of memory, "
            f"but only {available / 1e9:.2f} GB are free on {device.type}.",
            where=folder.path,
            remedy="Close other programs and notebooks, load it as dtype='bfloat16', "
            "or choose a smaller model ('mini').",
        )


def _load_weights(folder: ModelFolder, dtype: torch.dtype | None, device: torch.device) -> Any:
    from transformers import AutoModelForCausalLM

    options: dict[str, Any] = {"dtype": dtype or folder.dtype()}
    if folder.quantised:
        # Codes cannot be cast or moved afterwards: the scheme's own loader places them.
        options = {"dtype": dtype or "auto", "device_map": {"": device}}
    try:
        model, report = AutoModelForCausalLM.from_pretrained(
            folder.path,
            local_files_only=True,
            use_safetensors=folder.form == "safetensors",
            weights_only=True,
            output_loading_info=True,
            **options,
        )
    except (OSError, RuntimeError, ValueError, KeyError, TypeError, ImportError) as error:
        raise LessonkitError(
            f"transformers cannot load the model: {str(error).strip().splitlines()[0]}",
            where=folder.path,
            remedy="Check that config.json and the weights belong together; fetch both again.",
        ) from error
    _require_all_tensors(folder, report)
    return (model if folder.quantised else model.to(device)).eval()


def _require_all_tensors(folder: ModelFolder, report: dict[str, Any]) -> None:
    """transformers fills missing tensors with random numbers and drops those it does not know."""
    lost = {"missing": report["missing_keys"], "of another shape": report["mismatched_keys"]}
    if not folder.quantised:
        lost["unknown to the model"] = report["unexpected_keys"]
    for problem, names in lost.items():
        if names:
            example = sorted(str(name) for name in names)[0]
            raise LessonkitError(
                f"{len(names)} tensors are {problem}, the first of them {example}.",
                where=folder.path,
                remedy="Check that config.json and the weights belong together; fetch both again.",
            )


@contextmanager
def silence() -> Iterator[None]:
    """No bars and no warnings from transformers: what matters is raised as an error above.

    Nor from bitsandbytes, which is imported here for a 4-bit model: it recommends a package of
    kernels that the course can do without.
    """
    import logging as python_logging

    from transformers.utils import logging

    advisor = python_logging.getLogger("bitsandbytes")
    its_level = advisor.level
    advisor.setLevel(python_logging.ERROR)
    level, bars = logging.get_verbosity(), logging.is_progress_bar_enabled()
    logging.set_verbosity_error()
    logging.disable_progress_bar()
    try:
        with warnings.catch_warnings():
            warnings.simplefilter("ignore")
            yield
    finally:
        advisor.setLevel(its_level)
        logging.set_verbosity(level)
        if bars:
            logging.enable_progress_bar()
