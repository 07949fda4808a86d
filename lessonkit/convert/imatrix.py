"""An importance matrix: how much each column of a weight matters, measured on a text.

What a linear layer multiplies its column j with is x_j; a rounding error in that column does
harm in proportion to x_j^2. So the mean of x_j^2 over a text's tokens weighs the squared errors
of the block formats' searches. Protocol and file form: llama.cpp's `tools/imatrix/imatrix.cpp`.
The text is read in chunks of 512 tokens, the first of each replaced by the beginning token;
every position counts; only matrices inside the layers are measured.
"""

from __future__ import annotations

import os
import struct
from collections.abc import Iterator
from contextlib import contextmanager
from dataclasses import dataclass
from pathlib import Path
from typing import TYPE_CHECKING, Any

import numpy as np

from lessonkit.errors import LessonkitError, malformed
from lessonkit.files.atomic import atomic_file
from lessonkit.files.dtypes import Array, bytes_of
from lessonkit.files.foreign import GGUF
from lessonkit.files.gguf import GgufFile, aligned, encode_gguf_header, open_gguf
from lessonkit.files.safetensors import TensorInfo
from lessonkit.llama.gguf_names import to_gguf_name
from lessonkit.models.size import is_small
from lessonkit.models.texts import FOR_CALIBRATION, Text
from lessonkit.progress import bar

if TYPE_CHECKING:
    import torch

CHUNK = 512  # tokens
_REMEDY = "Measure one: lessonkit imatrix MODEL TEXT OUT.gguf."
_SUMS, _COUNTS = ".in_sum2", ".counts"


@dataclass(frozen=True)
class ImportanceMatrix:
    """`entries`: GGUF's name of a weight -> mean square of its inputs, float32 [columns].

    `sums` and `counts` are what they were computed from: sums of squares and numbers of tokens.
    `name` is the file's name, `dataset` the text's; `chunks` of `chunk` tokens were read.
    """

    sums: dict[str, Array]
    counts: dict[str, float]
    name: str = "imatrix"
    dataset: str = ""
    chunks: int = 0
    chunk: int = CHUNK

    @property
    def entries(self) -> dict[str, Array]:
        """Mean squares; 1 everywhere for a weight that saw no token, as in llama.cpp."""
        return {
            name: sums / np.float32(self.counts[name])
            if self.counts[name] > 0
            else np.ones_like(sums)
            for name, sums in self.sums.items()
        }

    def as_metadata(self) -> dict[str, Any]:
        """What a quantised file says of the importance matrix that it was made with."""
        return {
            "quantize.imatrix.file": self.name,
            "quantize.imatrix.dataset": self.dataset,
            "quantize.imatrix.entries_count": len(self.sums),
            "quantize.imatrix.chunks_count": self.chunks,
        }

    def save(self, out: str | os.PathLike[str], *, force: bool = False) -> None:
        """Write the file that llama.cpp's tools read and write, as a whole or not at all."""
        tensors: list[tuple[TensorInfo, Array]] = []
        for name in sorted(self.sums):
            sums, count = self.sums[name], np.array([[self.counts[name]]], np.float32)
            tensors.append((TensorInfo(name + _SUMS, "F32", (1, len(sums))), sums))
            tensors.append((TensorInfo(name + _COUNTS, "F32", (1, 1)), count))
        metadata = {
            "general.type": "imatrix",
            "imatrix.datasets": [self.dataset],
            "imatrix.chunk_count": self.chunks,
            "imatrix.chunk_size": self.chunk,
        }
        with atomic_file(out, magic=GGUF, force=force) as file:
            file.write(encode_gguf_header(metadata, [info for info, _ in tensors]))
            for info, values in tensors:
                file.write(bytes_of(values.astype("<f4", copy=False)))
                file.write(bytes(aligned(info.nbytes) - info.nbytes))


def collect_imatrix(
    model: Any, tokenizer: Any, text: Text, *, chunks: int | None = None, chunk: int = CHUNK
) -> ImportanceMatrix:
    """Measure an importance matrix on a loaded Hugging Face model.

    Parameters
    ----------
    model, tokenizer:
        As `lessonkit.models.load` gives them.
    text:
        A text for calibration: `lessonkit.models.calibration_text`. Others are refused.
    chunks:
        How many chunks to read at most; all by default. An incomplete last one is left out.
    chunk:
        Tokens in a chunk.

    Sums are float32 in a chunk and float64 over chunks. Raises LessonkitError for a text of
    another split and for less than two chunks, which llama.cpp refuses too.
    """
    import torch

    if text.split not in FOR_CALIBRATION:
        raise LessonkitError(
            f"An importance matrix from the {text.split} split would spoil what is measured on it "
            "afterwards.",
            where=repr(text),
            remedy="Use lessonkit.models.calibration_text.",
        )
    if chunk < 2:
        raise LessonkitError(
            f"A chunk of {chunk} tokens says nothing.", where="chunk", remedy="Use 512."
        )
    ids = torch.tensor(tokenizer(text.joined(), verbose=False)["input_ids"])
    found = len(ids) // chunk
    if found < 2:
        raise LessonkitError(
            f"The text has {len(ids)} tokens: less than two chunks of {chunk}.",
            where=text.name,
            remedy="Take a longer text, or smaller chunks.",
        )
    count = found if chunks is None else min(chunks, found)
    windows = ids[: count * chunk].reshape(count, chunk).clone()
    if tokenizer.bos_token_id is not None and ids[0] == tokenizer.bos_token_id:
        windows[:, 0] = tokenizer.bos_token_id
    sums: dict[str, Array] = {}
    counts: dict[str, float] = {}
    with (
        _measured(model, sums, counts),
        bar(count, "imatrix", large=not is_small(model)) as progress,
    ):
        for window in windows:
            with torch.inference_mode():
                model.base_model(window[None].to(model.device), use_cache=False)
            progress.update(1)
    rounded = {name: total.astype(np.float32) for name, total in sums.items()}
    return ImportanceMatrix(rounded, counts, "imatrix", text.name, count, chunk)


@contextmanager
def _measured(model: Any, sums: dict[str, Array], counts: dict[str, float]) -> Iterator[None]:
    """While this lasts, every linear layer inside the layers adds up the squares of its inputs."""
    import torch

    def hook(name: str) -> Any:
        def add(module: torch.nn.Module, inputs: tuple[torch.Tensor, ...]) -> None:
            x = inputs[0].detach().float().flatten(0, -2)
            squares = x.square().sum(0).double().cpu().numpy()
            sums[name] = sums.get(name, 0.0) + squares
            counts[name] = counts.get(name, 0.0) + len(x)

        return add

    hooks = []
    for name, module in model.named_modules():
        ours = to_gguf_name(f"{name}.weight")
        if isinstance(module, torch.nn.Linear) and ours and ours.startswith("blk."):
            hooks.append(module.register_forward_pre_hook(hook(ours)))
    try:
        yield
    finally:
        for handle in hooks:
            handle.remove()


def read_imatrix(path: str | os.PathLike[str]) -> ImportanceMatrix:
    """Read llama.cpp's GGUF imatrix file, or the older `.dat` form."""
    path = Path(path)
    if not path.is_file():
        raise LessonkitError(
            "There is no such file.", where=path, remedy="Measure one: lessonkit imatrix."
        )
    with path.open("rb") as opened:
        if opened.read(4) != GGUF:
            return _read_dat(path)
    file = open_gguf(path)
    with malformed("This is no importance matrix", where=path, remedy=_REMEDY):
        return _read_gguf(file, path)


def _read_gguf(file: GgufFile, path: Path) -> ImportanceMatrix:
    if file.metadata.get("general.type") != "imatrix":
        raise _no_imatrix(path)
    sums: dict[str, Array] = {}
    counts: dict[str, float] = {}
    for name in file.names():
        if not name.endswith(_SUMS):
            continue
        weight = name.removesuffix(_SUMS)
        if weight + _COUNTS not in file.names():
            raise _no_imatrix(path)
        values, seen = file.array(name), file.array(weight + _COUNTS)
        if file.info(name).dtype != "F32" or len(values.reshape(-1, values.shape[-1])) != 1:
            raise LessonkitError(
                f"{weight} has several matrices: those of experts.",
                where=path,
                remedy="Only dense models are quantised here.",
            )
        sums[weight], counts[weight] = values.reshape(-1).copy(), float(seen.reshape(-1)[0])
    datasets = file.metadata.get("imatrix.datasets", [])
    return ImportanceMatrix(
        sums, counts, path.name, datasets[0] if len(datasets) else "",
        int(file.metadata.get("imatrix.chunk_count", 0)),
        int(file.metadata.get("imatrix.chunk_size", CHUNK)),
    )  # fmt: skip


def _read_dat(path: Path) -> ImportanceMatrix:
    """i32 entries; for each: i32 length, name, i32 calls, i32 values, f32 sums; i32 chunks, text.

    There a sum is the mean square times the number of calls, one for each chunk.
    """
    raw, at = path.read_bytes(), 0

    def number() -> int:
        nonlocal at
        at += 4
        found: int = struct.unpack_from("<i", raw, at - 4)[0]
        if found < 0:
            raise ValueError
        return found

    def take(length: int) -> bytes:
        nonlocal at
        at += length
        if at > len(raw):
            raise ValueError
        return raw[at - length : at]

    sums: dict[str, Array] = {}
    counts: dict[str, float] = {}
    chunks, dataset = 0, ""
    try:
        for _ in range(number()):
            name = take(number()).decode()
            counts[name] = float(number())
            sums[name] = np.frombuffer(take(4 * number()), "<f4").copy()
        if at < len(raw):
            chunks, dataset = number(), take(number()).decode()
    except (struct.error, ValueError) as error:
        raise _no_imatrix(path) from error
    return ImportanceMatrix(sums, counts, path.name, dataset, chunks)


def _no_imatrix(path: Path) -> LessonkitError:
    return LessonkitError(
        "This is no importance matrix.",
        where=path,
        remedy=_REMEDY,
    )
