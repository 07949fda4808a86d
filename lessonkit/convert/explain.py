"""Was this GGUF file made from that model, and how? Every tensor is made again and compared.

llama.cpp's encoders are deterministic, and lessonkit's give the same bytes (x86-64 builds). So
whether a file is what it claims to be can be proved, tensor by tensor: from the source itself,
from the source rounded to F16 first (llama.cpp's usual intermediate file), from a Q8_0 file
(requantised), each with the importance matrix and without.
"""

from __future__ import annotations

import os
from collections.abc import Iterator
from dataclasses import dataclass

import numpy as np

from lessonkit.convert.gguf import GgufPlan, choose_types, open_source, plan_gguf
from lessonkit.convert.gguf_mix import MIXES
from lessonkit.convert.gguf_model import GgufModel, dequantised
from lessonkit.convert.gguf_tensor import encode_tensor
from lessonkit.convert.hf_checkpoint import HfCheckpoint
from lessonkit.convert.imatrix import ImportanceMatrix, read_imatrix
from lessonkit.errors import LessonkitError
from lessonkit.files.dtypes import FLOATS, Array, bytes_of, storage
from lessonkit.files.safetensors import TensorInfo
from lessonkit.formats.ggml import FORMATS, block_format
from lessonkit.llama.gguf_metadata import rope_factors
from lessonkit.llama.gguf_names import ROPE_FACTORS, to_pairs
from lessonkit.progress import byte_bar

SOURCE, VIA_F16, VIA_Q8 = "the source", "the source rounded to F16", "a Q8_0 file of the source"
_WITH = " with the importance matrix"
_ALTERED = 0.05  # of a tensor's blocks: fewer that differ speak of damage, not of another recipe


@dataclass(frozen=True)
class Origin:
    """What one tensor was made from: `made_from` says it in words, "" where nothing fits.

    `detail` tells then how far the nearest guess is off, with the first differing byte.
    """

    name: str
    dtype: str
    made_from: str
    detail: str = ""

    @property
    def exact(self) -> bool:
        """Whether the very bytes come out again."""
        return bool(self.made_from)

    def __str__(self) -> str:
        return f"{self.name} ({self.dtype}): " + (
            f"exactly as from {self.made_from}" if self.exact else self.detail
        )


@dataclass(frozen=True)
class Explanation:
    """`origins` of all tensors; `mixes` that choose just these types; `notes` on the rest."""

    mixes: tuple[str, ...]
    origins: tuple[Origin, ...]
    notes: tuple[str, ...] = ()

    @property
    def ok(self) -> bool:
        """Whether every tensor is proved to come from the source."""
        return all(origin.exact for origin in self.origins)

    def __str__(self) -> str:
        counts: dict[str, int] = {}
        for origin in self.origins:
            if origin.exact:
                counts[origin.made_from] = counts.get(origin.made_from, 0) + 1
        lines = [
            "types       " + (" or ".join(self.mixes) if self.mixes else "of no mix known here"),
            *(f"exact       {count} tensors, from {how}" for how, count in counts.items()),
            *(f"different   {origin}" for origin in self.origins if not origin.exact),
            *(f"note        {note}" for note in self.notes),
        ]
        exact = sum(origin.exact for origin in self.origins)
        verdict = "made from this model" if self.ok else "NOT, or not only, made from this model"
        return "\n".join([*lines, f"{exact} of {len(self.origins)} tensors proved: {verdict}"])


def explain(
    file: str | os.PathLike[str],
    source: str | os.PathLike[str],
    *,
    imatrix: str | os.PathLike[str] | ImportanceMatrix | None = None,
) -> Explanation:
    """Make every tensor of a GGUF file again from a Hugging Face model, and compare.

    `imatrix` is the importance matrix that the file may have been made with. A tensor that
    nothing gives is told with the number of differing blocks and the first differing byte's
    position in the file. Raises LessonkitError where the two are no models of one kind.
    """
    importance = imatrix if isinstance(imatrix, ImportanceMatrix) or imatrix is None else (
        read_imatrix(imatrix)
    )  # fmt: skip
    model = GgufModel(file)
    checkpoint, config = open_source(source)
    plan = plan_gguf(checkpoint, config, "f32")
    expected = {info.name: info for info in plan.tensors}
    entries = importance.entries if importance else {}
    origins = []
    total = sum(model.info(name).nbytes for name in model.names())
    with byte_bar(total, "explain") as bar:
        for name in model.file.names():
            info = model.file.info(name)
            origins.append(_origin(info, expected, model, checkpoint, plan, entries))
            model.file.release(name)
            bar.update(info.nbytes)
    missing = [name for name in expected if name not in model.file.names()]
    origins += [Origin(name, "-", "", "missing from the file") for name in missing]
    return Explanation(_mixes(model, plan, checkpoint), tuple(origins), _notes(model, importance))


def _origin(
    info: TensorInfo, expected: dict[str, TensorInfo], model: GgufModel, checkpoint: HfCheckpoint,
    plan: GgufPlan, entries: dict[str, Array],
) -> Origin:  # fmt: skip
    name = info.name
    if name not in expected:
        return Origin(name, info.dtype, "", "the source has no such tensor")
    if info.shape != expected[name].shape:
        return Origin(
            name, info.dtype, "",
            f"its shape is {list(info.shape)}, the source's {list(expected[name].shape)}",
        )  # fmt: skip
    if info.dtype not in FLOATS and info.dtype not in FORMATS:
        return Origin(name, info.dtype, "", "blocks of this type are not made here")
    found = np.frombuffer(bytes_of(model.file.array(name)), np.uint8)
    nearest: tuple[int, str] | None = None
    for how, made in _guesses(info, checkpoint, plan, entries):
        ours = np.frombuffer(bytes_of(made), np.uint8)
        if np.array_equal(ours, found):
            return Origin(name, info.dtype, how)
        size = storage(info.dtype).block_bytes
        wrong = (ours.reshape(-1, size) != found.reshape(-1, size)).any(axis=1)
        if nearest is None or wrong.sum() < nearest[0]:
            nearest = (
                int(wrong.sum()),
                _detail(how, wrong, ours, found, size, *model.file.place(name)),
            )
    return Origin(name, info.dtype, "", nearest[1] if nearest else "it cannot be made here")


def _detail(
    how: str, wrong: Array, ours: Array, found: Array, size: int, file: object, start: int
) -> str:
    at = int((ours != found).argmax())
    unit = "blocks" if size > 4 else "values"
    kind = "altered" if wrong.mean() < _ALTERED else "made in another way"
    return (
        f"{kind}: {int(wrong.sum()):,} of {len(wrong):,} {unit} are not those from {how}; the "
        f"first is {unit[:-1]} {at // size:,}, at byte {start + at:,} of the file"
    )


def _guesses(
    info: TensorInfo, checkpoint: HfCheckpoint, plan: GgufPlan, entries: dict[str, Array]
) -> Iterator[tuple[str, Array]]:
    """Ways to make a tensor, the likeliest first: in words, and the bits in the file's order."""
    if info.name == ROPE_FACTORS:
        yield "config.json", np.asarray(rope_factors(checkpoint.config))
        return
    name = plan.source_of[info.name]
    bits, dtype = checkpoint.array(name), checkpoint.info(name).dtype
    weights = entries.get(info.name)
    uses_importance = info.dtype in FORMATS and block_format(info.dtype).uses_importance
    try:
        for how, values, its_dtype in _values(bits, dtype, info):
            if weights is not None and uses_importance:
                made = encode_tensor(values, its_dtype, info, weights)
                yield how + _WITH, to_pairs(info.name, made, plan.architecture, plan.shape)
            made = encode_tensor(values, its_dtype, info, None)
            yield how, to_pairs(info.name, made, plan.architecture, plan.shape)
    except LessonkitError:
        return  # NaN, infinity or overflow: not made in this way
    finally:
        checkpoint.release(name)


def _values(bits: Array, dtype: str, info: TensorInfo) -> Iterator[tuple[str, Array, str]]:
    yield SOURCE, bits, dtype
    if len(info.shape) < 2:
        return
    if dtype != "F16" and info.dtype != "F16":
        rounded = TensorInfo(info.name, "F16", info.shape)
        yield VIA_F16, encode_tensor(bits, dtype, rounded, None), "F16"
    if info.dtype != "Q8_0" and info.shape[-1] % 32 == 0:
        rounded = TensorInfo(info.name, "Q8_0", info.shape)
        blocks = encode_tensor(bits, dtype, rounded, None)
        yield VIA_Q8, dequantised(blocks, rounded), "F32"


def _mixes(model: GgufModel, plan: GgufPlan, checkpoint: HfCheckpoint) -> tuple[str, ...]:
    """Which outtypes choose just the types in the file? Several may, in a small model."""
    found = {info.name: info.dtype for info in map(model.file.info, model.file.names())}
    tensors = [info for info in plan.tensors if info.name != ROPE_FACTORS]
    stated = model.metadata.get("general.file_type")
    fitting = []
    for name in ("f32", "f16", "bf16", *MIXES):
        for imatrix in (False, True):
            try:
                chosen = choose_types(tensors, name, plan.architecture, plan.shape, imatrix=imatrix)
            except LessonkitError:
                continue  # q2_k_s without an importance matrix
            if all(found.get(info.name) == info.dtype for info in chosen):
                fitting.append(name)
                break
    # Where several fit, the one that the file states comes first.
    return tuple(sorted(fitting, key=lambda n: n in MIXES and MIXES[n].file_type != stated))


def _notes(model: GgufModel, importance: ImportanceMatrix | None) -> tuple[str, ...]:
    said = model.metadata.get("quantize.imatrix.file")
    if said is None or importance is not None:
        return ()
    return (f"the file says that the importance matrix {said!r} was used: give it to compare",)
