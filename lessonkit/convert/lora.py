"""Merge LoRA adapters into a base, one tensor at a time.

    W' = round(W + s1 B1 A1 + s2 B2 A2 + ...)

in float32 and rounded once, to the base's dtype. For one adapter this is, to the bit, what PEFT's
`merge_and_unload()` gives. For two in sequence PEFT rounds after each, unless the base is
float32. Its `safe_merge=True` rounds the change too, and then their sum: in bfloat16 1.7 % of the
values come out differently where the change is a hundredth of the weights' size, 10 % at a tenth.
(It also does so, by default, for a change of low rank of the embedding; here that is rounded once
like the rest.) What is not a sum (replaced embeddings, DoRA) is done in the order of the adapters.
"""

from __future__ import annotations

import os
import tempfile
from collections.abc import Iterator, Sequence
from pathlib import Path
from typing import Any, NamedTuple

from lessonkit.convert.adapter import Adapter
from lessonkit.convert.conversion import CheckpointPassage, Read, as_json, to_checkpoint
from lessonkit.convert.dequantized import Dequantized
from lessonkit.convert.hf_checkpoint import HfCheckpoint
from lessonkit.convert.lora_checks import (
    TOKENIZER_FILES,
    merged_before,
    require_fit,
    require_new,
    require_tokenizer,
    require_weights,
    tokenizer_folder,
)
from lessonkit.convert.lora_tensor import MERGEABLE, Merged, Workspace, merge_tensor
from lessonkit.convert.meta import hf_to_meta
from lessonkit.convert.meta_folder import is_meta
from lessonkit.convert.nf4 import FourBitCheckpoint
from lessonkit.errors import LessonkitError
from lessonkit.files.atomic import CERTIFICATE_NAME, atomic_folder
from lessonkit.files.certificate import Certificate, Record, tensor_sha256
from lessonkit.files.dtypes import DTYPES, cast, parse_float
from lessonkit.files.safetensors import TensorInfo
from lessonkit.files.writer import MAX_SHARD_BYTES
from lessonkit.formats.threads import one_torch_thread
from lessonkit.hub.companions import companions_in
from lessonkit.llama.layout import EMBEDDING


class _Recipe(NamedTuple):
    """What goes into one merge: the adapters in order, a weight for each, and memory."""

    adapters: Sequence[Adapter]
    weights: Sequence[float]
    workspace: Workspace

    def of(self, name: str) -> list[tuple[Adapter, float]]:
        """Those that change a tensor."""
        pairs = zip(self.adapters, self.weights, strict=True)
        return [(adapter, weight) for adapter, weight in pairs if adapter.touches(name)]


def merge(
    base: str | os.PathLike[str],
    adapters: Sequence[str | os.PathLike[str]],
    out: str | os.PathLike[str],
    *,
    weights: Sequence[float] | None = None,
    dtype: str | None = None,
    form: str = "hf",
    replace_saved: bool = False,
    added: bool = True,
    max_shard_bytes: int = MAX_SHARD_BYTES,
    force: bool = False,
) -> Certificate:
    """Merge adapters, in order, into a base; `out` is then a model like any other.

    Parameters
    ----------
    base:
        A folder in Hugging Face's form. In bitsandbytes' 4 bits, the weights that its codes stand
        for are the base (what QLoRA trained on), and `out` is not quantised. The other school adds
        the change to the original 16-bit weights: name their folder instead. The two results
        differ by the error of the quantisation.
    adapters:
        PEFT folders: LoRA, rsLoRA, DoRA, with saved embeddings or without.
    out:
        The folder to make, replaced only with `force`.
    weights:
        A factor for each adapter's change.
    dtype:
        Round the result to float16, bfloat16, float32. By default the base's own dtype stays.
    form:
        "hf", or "meta" for `consolidated.00.pth`.
    replace_saved:
        Let an adapter replace a tensor (a saved embedding of the same size) that an earlier one
        changed: right only if it was trained on top of that one.
    added:
        False takes from the adapters only what they *replace* (a saved embedding, a larger
        vocabulary), and leaves out what they add. That is the base for a program which adds the
        rest by itself, such as llama.cpp.

    Returns the certificate that was also written into `out`: which adapters (SHA-256) went into
    which tensor, how many values changed and by how much at most. Memory: the largest tensor, a
    few times over. Raises LessonkitError if an adapter does not belong to the base, if the order
    cannot be right, if an adapter is merged twice, if the tokenizer does not fit, and if nothing
    changed.
    """
    if form == "meta":
        return _merge_to_meta(
            base, adapters, out, force,
            weights=weights, dtype=dtype, replace_saved=replace_saved, added=added,
        )  # fmt: skip
    if form != "hf":
        raise LessonkitError(
            f"There is no form {form!r} to write.", where="form", remedy='Use "hf" or "meta".'
        )
    source = _open_base(Path(base))
    opened = [Adapter(folder) for folder in adapters]
    used = opened if added else [adapter.replacing() for adapter in opened]
    recipe = _Recipe(used, require_weights(opened, weights), Workspace())
    target = None if dtype is None else parse_float(dtype, MERGEABLE)
    before, digests = merged_before(source), [adapter.sha256 for adapter in opened]
    require_new(opened, digests, before)
    shapes = require_fit(source, opened, replace_saved=replace_saved)
    plan = [_planned(source.info(name), shapes[name], target) for name in source.names()]
    certificate = Certificate("LoRA merge", _options(recipe, digests, before, target, added))
    files = _files(source, recipe, shapes, target, certificate)
    with to_checkpoint(
        source, out, certificate, "merge",
        plan=plan, max_shard_bytes=max_shard_bytes, force=force,
        protect=[file for each in opened for file in (each.path, *each.weights.weight_files)],
    ) as passage:  # fmt: skip
        with one_torch_thread():  # checksums and the writing are the others
            changed = sum(_write(passage, info, recipe) for info in plan)
        if added and not changed:
            raise LessonkitError(
                "The merge changed no value: every change is smaller than the rounding of "
                f"{', '.join(sorted({info.dtype for info in plan}))}.",
                where=", ".join(str(adapter.path) for adapter in opened),
                remedy="Write float32 (--dtype float32), or look at the adapter's scale.",
            )
        for adapter in opened:
            adapter.weights.require_unchanged()
        for name, content in files:
            passage.writer.add_file(name, content)
    return certificate


def _open_base(path: Path) -> HfCheckpoint:
    if path.is_dir() and is_meta(path):
        raise LessonkitError(
            "The base is in Meta's form, where the adapter's names and row order mean nothing.",
            where=path,
            remedy="Convert it first: lessonkit to-hf.",
        )
    if path.is_dir() and FourBitCheckpoint.recognises(path):
        return Dequantized(path)
    source = HfCheckpoint(path)
    if source.config.get("quantization_config"):
        raise LessonkitError(
            "The base is quantised; a change cannot be added to its codes.",
            where=path,
            remedy="Merge into the original weights, then quantise the result.",
        )
    return source


def _planned(info: TensorInfo, shape: tuple[int, ...], target: str | None) -> TensorInfo:
    dtype = target if target and info.dtype in MERGEABLE else info.dtype
    return TensorInfo(info.name, dtype, shape)


def _options(
    recipe: _Recipe,
    digests: Sequence[str],
    before: Sequence[dict[str, Any]],
    dtype: str | None,
    added: bool,
) -> dict[str, Any]:
    """What the certificate says of the merge; earlier ones of the base stay in the list."""
    each = zip(recipe.adapters, recipe.weights, digests, strict=True)
    merged = [{"name": a.name, "sha256": digest, "weight": weight} for a, weight, digest in each]
    told = {"dtype": dtype or "as the base"}
    if added:
        return told | {"adapters": [*before, *merged]}
    return told | {"adapters": [*before], "replaced_by": merged}  # these may still be merged


def _files(
    source: HfCheckpoint,
    recipe: _Recipe,
    shapes: dict[str, tuple[int, ...]],
    target: str | None,
    certificate: Certificate,
) -> list[tuple[str, bytes]]:
    """Configuration and tokenizer of the merged model: the last tokenizer that was brought."""
    folder = source.config_file.parent
    config = {k: v for k, v in source.config.items() if k != "quantization_config"}
    words = tokenizer_folder(recipe.adapters)
    if EMBEDDING in shapes:
        rows, old = shapes[EMBEDDING][0], source.info(EMBEDDING).shape[0]
        note = require_tokenizer(words or folder, rows, rows != old)
        certificate.notes += [note] if note else []
        if rows != old:
            certificate.notes.append(f"the vocabulary grew from {old} to {rows}")
            config["vocab_size"] = rows
    if target:
        config.pop("torch_dtype", None)
        config["dtype"] = DTYPES[target].torch_name
    if isinstance(source, Dequantized):
        certificate.notes.append(
            "the base was in 4 bits: the change was added to the weights that its codes stand for"
        )
    without = ["config.json", *(TOKENIZER_FILES if words else ())]
    kept = companions_in(folder, without=without)
    brought = (
        [words / name for name in TOKENIZER_FILES if (words / name).is_file()] if words else []
    )
    files = [(path.name, path.read_bytes()) for path in [*kept, *brought]]
    return [("config.json", as_json(config)), *files] if config else files


def _write(passage: CheckpointPassage, info: TensorInfo, recipe: _Recipe) -> int:
    """Write one tensor as planned; returns how many values the adapters changed."""
    steps = recipe.of(info.name)
    with passage.tensor(info.name) as read:
        if steps:
            merged = merge_tensor(
                info.name, read.bits, read.dtype, info.dtype, steps, recipe.workspace
            )
            passage.writer.add(info.name, merged.bits, info.dtype)
            passage.record(_record, info, read, merged, steps)
            return merged.changed
        result = cast(read.bits, read.dtype, info.dtype)
        passage.writer.add(info.name, result, info.dtype)
        if result is read.bits:
            passage.keep(info.name, read)
        else:
            passage.cast(info.name, read, result, info.dtype)
    return 0


def _record(
    info: TensorInfo, read: Read, merged: Merged, steps: list[tuple[Adapter, float]]
) -> Iterator[tuple[str, Record]]:
    """What became of a tensor."""
    names = [adapter.name for adapter, _ in steps]
    shape, new = merged.bits.shape, len(merged.bits) - len(read.bits)
    verdict = (
        f"merged: {' and '.join(names)}, {merged.changed:,} of {info.count:,} values changed, "
        f"by at most {merged.largest:.3g}" + (f", {new} rows new" if new else "")
    )
    details = {
        "adapters": names,
        "largest_change": merged.largest,
        "output_dtype": info.dtype,
        "output_shape": list(shape),
        "output_sha256": tensor_sha256(merged.bits),
    }
    source = read.sha256.result()
    yield info.name, Record(verdict, read.dtype, read.bits.shape, source, [info.name], details)


def _merge_to_meta(
    base: str | os.PathLike[str],
    adapters: Sequence[str | os.PathLike[str]],
    out: str | os.PathLike[str],
    force: bool,
    **options: Any,
) -> Certificate:
    """Merge beside the output, then convert; the certificate tells of the merge."""
    protect = [base, *adapters]
    with atomic_folder(out, force=force, protect=protect) as folder:
        with tempfile.TemporaryDirectory(prefix="merged-", dir=folder.parent) as place:
            merged, meta = Path(place) / "hf", Path(place) / "meta"
            certificate = merge(base, adapters, merged, **options)
            converted = hf_to_meta(merged, meta)
            certificate.conversion += ", then Hugging Face to Meta"
            certificate.options |= converted.options
            certificate.notes += converted.notes
            for path in meta.iterdir():
                if path.name != CERTIFICATE_NAME:
                    path.rename(folder / path.name)
        (folder / CERTIFICATE_NAME).write_bytes(certificate.to_bytes())
    return certificate
