"""A model with a LoRA adapter beside it, unmerged: PEFT computes both and adds."""

from __future__ import annotations

import io
import warnings
from contextlib import redirect_stdout
from pathlib import Path
from typing import Any

from lessonkit.errors import LessonkitError
from lessonkit.files.checkpoint import open_checkpoint
from lessonkit.models.loading import Loaded
from lessonkit.models.tokenizer import load_tokenizer


def with_adapter(loaded: Loaded, folder: str | Path) -> Loaded:
    """Apply a PEFT adapter to a loaded model; its tokenizer counts, where it brings one.

    An adapter that extends the vocabulary carries the new embedding. PEFT cannot load it into a
    smaller one, so the model is resized first. One that the model has already is merged, in memory
    and in the model's dtype: PEFT's model holds adapters beside, not on top of one another.
    """
    from peft import PeftModel

    folder = Path(folder)
    if not (folder / "adapter_config.json").is_file():
        raise LessonkitError(
            "The folder is no adapter: it has no adapter_config.json.",
            where=folder,
            remedy="Name a folder that PEFT's save_pretrained wrote.",
        )
    rows = _saved_rows(folder)
    model = loaded.model
    if isinstance(model, PeftModel):
        model = model.merge_and_unload()
    if rows is not None and rows != model.get_input_embeddings().num_embeddings:
        if rows < model.get_input_embeddings().num_embeddings:
            raise LessonkitError(
                f"The adapter's embedding has {rows} rows, fewer than the model's.",
                where=folder,
                remedy="Use the base that the adapter was trained on.",
            )
        model.resize_token_embeddings(rows, mean_resizing=False)
    try:
        # PEFT looks for engines, and one of them greets on stdout, where answers belong.
        with warnings.catch_warnings(record=True) as told, redirect_stdout(io.StringIO()):
            warnings.simplefilter("always")
            adapted = PeftModel.from_pretrained(model, str(folder), local_files_only=True)
    except (ValueError, RuntimeError, OSError, KeyError, ImportError) as error:
        raise LessonkitError(
            f"PEFT cannot apply the adapter: {str(error).strip().splitlines()[0]}",
            where=folder,
            remedy="Use the base that the adapter was trained on.",
        ) from error
    missing = [str(each.message) for each in told if "missing adapter keys" in str(each.message)]
    if missing:
        raise LessonkitError(
            "The adapter lacks tensors for layers that its configuration names.",
            where=folder,
            remedy="Fetch it again; its two files must belong together.",
        )
    has_words = any((folder / name).is_file() for name in ("tokenizer.model", "tokenizer.json"))
    words = load_tokenizer(folder) if has_words else loaded.tokenizer
    _require_rows(words, adapted, folder)
    return Loaded(adapted.eval(), words)


def _saved_rows(folder: Path) -> int | None:
    """The rows of the embedding that an adapter brings."""
    weights = open_checkpoint(folder)
    for key in weights:
        if "embed_tokens" in key and key.endswith(".weight") and "original_module" not in key:
            return weights.info(key).shape[0]
    return None


def _require_rows(tokenizer: Any, model: Any, folder: Path) -> None:
    rows = model.get_input_embeddings().weight.shape[0]
    if len(tokenizer) > rows:
        raise LessonkitError(
            f"The tokenizer knows {len(tokenizer)} tokens, the embedding has {rows} rows.",
            where=folder,
            remedy="Apply the adapter that extends the vocabulary first, or merge it.",
        )
