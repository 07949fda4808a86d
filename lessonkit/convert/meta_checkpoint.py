"""Meta's folder, opened: where its files are, whether they fit, and its tensors under
Hugging Face's names and layout, each made when it is asked for.

The layouts that the download scripts and tutorials produce:

    llama/tokenizer.model, llama/7B/{params.json, consolidated.00.pth, checklist.chk}
    llama-2-7b/{params.json, consolidated.00.pth, tokenizer.model}
"""

from __future__ import annotations

import os
import re
from dataclasses import dataclass
from pathlib import Path

import numpy as np

from lessonkit.convert.llama_shape import read_meta_params
from lessonkit.convert.meta_layout import (
    HEAD,
    Pair,
    is_recomputed,
    join,
    pairs,
    pairs_to_halves,
)
from lessonkit.errors import LessonkitError
from lessonkit.files.checkpoint import open_checkpoint, read_json
from lessonkit.files.dtypes import Array
from lessonkit.files.safetensors_header import TensorInfo

_SHARD = re.compile(r"consolidated\.(\d+)\.pth")


@dataclass(frozen=True)
class MetaFolder:
    """The files of one model: `shards` in order, `tokenizer` where there is one."""

    folder: Path
    params: Path
    shards: tuple[Path, ...]
    tokenizer: Path | None


def is_meta(path: str | os.PathLike[str]) -> bool:
    """Does this look like a folder in Meta's form?"""
    folder = Path(path)
    return folder.is_dir() and (
        any(folder.glob("consolidated.*.pth"))
        or (not (folder / "config.json").is_file() and len(_model_folders(folder)) > 0)
    )


def find_meta(
    path: str | os.PathLike[str], tokenizer: str | os.PathLike[str] | None = None
) -> MetaFolder:
    """Find the files of a Meta model; `tokenizer` names one that lies elsewhere."""
    root = Path(path)
    if not root.is_dir():
        raise LessonkitError(
            "This is not a folder.",
            where=root,
            remedy="Name the folder that holds params.json and consolidated.00.pth.",
        )
    candidates = _model_folders(root)
    if len(candidates) != 1:
        names = ", ".join(folder.name for folder in candidates)
        raise LessonkitError(
            f"The folder holds several models: {names}."
            if candidates
            else "There are no consolidated.NN.pth files here.",
            where=root,
            remedy=f"Name one of them, for example {candidates[0]}."
            if candidates
            else "Name the folder that Meta's download made; look whether it is complete.",
        )
    folder = candidates[0]
    if not (folder / "params.json").is_file():
        raise LessonkitError(
            "params.json is missing; the tensors alone do not tell the number of heads.",
            where=folder,
            remedy="Fetch params.json; it comes with the weights.",
        )
    return MetaFolder(
        folder, folder / "params.json", _shards(folder), _tokenizer(folder, tokenizer)
    )


def open_meta(
    path: str | os.PathLike[str], tokenizer: str | os.PathLike[str] | None = None
) -> MetaCheckpoint:
    """Open a model in Meta's form and check that its files fit together."""
    return MetaCheckpoint(find_meta(path, tokenizer))


class MetaCheckpoint:
    """A model in Meta's form, seen through Hugging Face's names, shapes and row order.

    `shape` are its sizes, `notes` what the files left open and how it was settled.
    """

    def __init__(self, files: MetaFolder) -> None:
        self.files = files
        self._ranks = [open_checkpoint(shard) for shard in files.shards]
        self._require_same_tensors()
        first = self._ranks[0]
        params = read_json(files.params)
        axis = self._embedding_axis(params.get("dim"))
        rows = first.info("tok_embeddings.weight").shape[0]
        tied = self._is_tied(axis)
        self.shape, self.notes = read_meta_params(
            params,
            files.params,
            mlp_width=first.info("layers.0.feed_forward.w1.weight").shape[0] * len(self._ranks),
            vocabulary=rows * len(self._ranks) if axis == 0 else rows,
            tied=tied,
        )
        self._pairs = {pair.hf: pair for pair in pairs(self.shape.layers, embedding_axis=axis)}
        if tied:
            del self._pairs[HEAD]
            self.notes.append("the output head equals the embedding: the two are stored once")
        self._require_shapes()
        self._look_at_copies()
        if "rope.freqs" in first:
            self.notes.append("rope.freqs was left out: it follows from rope_theta")

    def names(self) -> list[str]:
        """The tensors' names in Hugging Face's form."""
        return list(self._pairs)

    def info(self, name: str) -> TensorInfo:
        """Dtype and whole shape, under Hugging Face's name."""
        pair = self._pair(name)
        return TensorInfo(name, self._ranks[0].info(pair.meta).dtype, self.shape.shape_of(pair))

    def array(self, name: str) -> Array:
        """The bits of a whole tensor in Hugging Face's layout: a view where that is possible."""
        pair = self._pair(name)
        whole = join([rank.array(pair.meta) for rank in self._ranks], pair.axis)
        return pairs_to_halves(whole, self.shape.heads_of(pair)) if pair.rotary else whole

    def release(self, name: str) -> None:
        """Give the pages of a tensor's slices back."""
        for rank in self._ranks:
            rank.release(self._pair(name).meta)

    def source_of(self, name: str) -> str:
        """The tensor's name in Meta's form."""
        return self._pair(name).meta

    def _pair(self, name: str) -> Pair:
        if name not in self._pairs:
            raise LessonkitError(
                f"There is no tensor {name}.",
                where=self.files.folder,
                remedy="`lessonkit info --tensors` lists what is there.",
            )
        return self._pairs[name]

    def _require_same_tensors(self) -> None:
        first = self._ranks[0]
        for name in ("tok_embeddings.weight", "layers.0.feed_forward.w1.weight",
                     "layers.0.attention.wq.weight"):  # fmt: skip
            if name not in first or len(first.info(name).shape) != 2:
                raise LessonkitError(
                    f"The file does not hold the matrix {name}, so it is not a Llama of Meta's.",
                    where=first.path,
                    remedy="Fetch it again, or name the folder of a Llama.",
                )
        for rank in self._ranks[1:]:
            for name in sorted(set(first) ^ set(rank)):
                raise _misfit(f"The tensor {name} is not in every shard", rank.path)
            for name in first:
                ours, theirs = first.info(name), rank.info(name)
                if ours != theirs:
                    raise _misfit(
                        f"The shards disagree on {name}: {ours.dtype} {list(ours.shape)} against "
                        f"{theirs.dtype} {list(theirs.shape)}", rank.path,
                    )  # fmt: skip

    def _embedding_axis(self, width: object) -> int:
        """Llama 3 cuts the embedding by rows, so that a slice has the full width."""
        columns = self._ranks[0].info("tok_embeddings.weight").shape[1]
        return 0 if len(self._ranks) > 1 and columns == width else 1

    def _is_tied(self, axis: int) -> bool:
        """Is the output head the embedding? Looks at one row before it reads everything."""
        if "output.weight" not in self._ranks[0]:
            return True
        embedding, _, head = pairs(0, embedding_axis=axis)
        slices = [rank.array(embedding.meta) for rank in self._ranks]
        first_row = join([matrix[:1] for matrix in slices], axis) if axis == 1 else slices[0][:1]
        if not np.array_equal(first_row, self._ranks[0].array(head.meta)[:1]):
            return False
        heads = [rank.array(head.meta) for rank in self._ranks]
        return bool(np.array_equal(join(slices, axis), join(heads, head.axis)))

    def _require_shapes(self) -> None:
        """Every tensor of such a Llama is there, in the right slices, and no other."""
        count, first = len(self._ranks), self._ranks[0]
        rows = first.info("layers.0.attention.wq.weight").shape[0]
        if rows * count != self.shape.width and self.shape.width % rows == 0:
            raise LessonkitError(
                f"A shard holds {rows} of {self.shape.width} query rows, so there should be "
                f"{self.shape.width // rows} shards; {count} were found.",
                where=self.files.folder,
                remedy="Fetch the missing consolidated.NN.pth files.",
            )
        wanted = {pair.meta for pair in self._pairs.values()} | {"output.weight"}
        for name in first:
            if name not in wanted and not is_recomputed(name):
                raise _misfit(f"The tensor {name} has no place in this Llama", first.path)
        for pair in self._pairs.values():
            if pair.meta not in first:
                raise _misfit(f"The tensor {pair.meta} is missing", first.path)
            shape = list(self.shape.shape_of(pair))
            if pair.axis is not None:
                shape[pair.axis] //= count
            found = list(first.info(pair.meta).shape)
            if found != shape:
                hint = "; is n_kv_heads missing in params.json?" if pair.rotary == "key" else ""
                raise _misfit(
                    f"{pair.meta} has the shape {found}, expected {shape} in {count} shards{hint}",
                    first.path,
                )

    def _look_at_copies(self) -> None:
        """Norms are copied into every shard; the copies should agree."""
        for pair in self._pairs.values():
            if pair.axis is None:
                copies = [rank.array(pair.meta) for rank in self._ranks]
                if not all(np.array_equal(copies[0], copy) for copy in copies[1:]):
                    self.notes.append(
                        f"the shards' copies of {pair.meta} differ; the first was used"
                    )


def _model_folders(root: Path) -> list[Path]:
    """`root` itself or its direct subfolders, where they hold weights."""
    if any(root.glob("consolidated.*.pth")):
        return [root]
    return sorted(path.parent for path in root.glob("*/consolidated.00.pth"))


def _shards(folder: Path) -> tuple[Path, ...]:
    found = {int(m[1]): path for path in folder.iterdir() if (m := _SHARD.fullmatch(path.name))}
    for number in range(max(found) + 1 if found else 1):
        if number not in found:
            raise LessonkitError(
                f"The shard consolidated.{number:02}.pth is missing.",
                where=folder,
                remedy="Fetch it; all shards are needed, each holds a slice of every tensor.",
            )
    return tuple(found[number] for number in sorted(found))


def _tokenizer(folder: Path, given: str | os.PathLike[str] | None) -> Path | None:
    if given is not None:
        if not Path(given).is_file():
            raise LessonkitError(
                "There is no such tokenizer file.", where=given, remedy="Check the path."
            )
        return Path(given)
    for place in (folder, folder.absolute().parent):
        if (place / "tokenizer.model").is_file():
            return place / "tokenizer.model"
    return None


def _misfit(what: str, path: Path) -> LessonkitError:
    return LessonkitError(
        f"{what}.",
        where=path,
        remedy="The files do not belong together, or one is damaged: verify them against "
        "checklist.chk, and look at params.json.",
    )
