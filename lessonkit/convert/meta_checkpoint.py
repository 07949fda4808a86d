"""A model in Meta's form, opened: do its files fit together, and its tensors under Hugging
Face's names and layout, each made when it is asked for.
"""

from __future__ import annotations

import os
from pathlib import Path
from typing import Any

import numpy as np

from lessonkit.convert.meta_folder import MetaFolder, find_meta
from lessonkit.errors import LessonkitError
from lessonkit.files.certificate import certificate_of
from lessonkit.files.checkpoint import open_checkpoint, read_json
from lessonkit.files.difference import same_bytes
from lessonkit.files.dtypes import FLOATS, Array, to_float32
from lessonkit.files.safetensors import TensorInfo
from lessonkit.llama.configs import read_meta_params
from lessonkit.llama.layout import (
    HEAD,
    Pair,
    is_recomputed,
    join,
    pairs,
    pairs_to_halves,
)


def open_meta(
    path: str | os.PathLike[str], tokenizer: str | os.PathLike[str] | None = None
) -> MetaCheckpoint:
    """Open a model in Meta's form and check that its files fit together."""
    return MetaCheckpoint(find_meta(path, tokenizer))


class MetaCheckpoint:
    """A model in Meta's form, seen through Hugging Face's names, shapes and row order.

    `shape` are its sizes, `notes` what the files left open and how it was settled, `options`
    what the certificate of `hf_to_meta` says, where there is one, about things for which
    Meta's own files have no place.
    """

    def __init__(self, files: MetaFolder) -> None:
        self.files = files
        self.path = files.folder
        self.form = "Meta, shown under Hugging Face's names"
        self.weight_files = list(files.shards)
        self.options = _noted_options(files.folder)
        self._ranks = [open_checkpoint(shard) for shard in files.shards]
        self._require_same_tensors()
        first = self._ranks[0]
        params = read_json(files.params)
        self._require_all_shards(params.get("dim"))
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
        self._require_last_layer()
        self._pairs = {pair.hf: pair for pair in pairs(self.shape.layers, embedding_axis=axis)}
        if tied:
            del self._pairs[HEAD]
            self.notes.append("the output head equals the embedding: the two are stored once")
        self._require_shapes()
        self._look_at_copies()
        self._look_at_frequencies()

    @property
    def parameters(self) -> int:
        """How many weights."""
        return sum(self.info(name).count for name in self.names())

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

    def check(self, name: str) -> bool:
        """Compare all slices of a tensor with the checksums in their files; False without any."""
        checked = [rank.check(self._pair(name).meta) for rank in self._ranks]
        return all(checked)

    def release(self, name: str) -> None:
        """Give the pages of a tensor's slices back."""
        for rank in self._ranks:
            rank.release(self._pair(name).meta)

    def require_unchanged(self) -> None:
        """Raise LessonkitError if a shard was changed since it was opened."""
        for rank in self._ranks:
            rank.require_unchanged()

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
        first = self._ranks[0]
        embedding, _, head = pairs(0, embedding_axis=axis)
        if self.options.get("tied") is False or head.meta not in first:
            return False
        ours, theirs = first.info(embedding.meta), first.info(head.meta)
        if ours.dtype != theirs.dtype or len(theirs.shape) != 2:
            return False
        slices = [rank.array(embedding.meta) for rank in self._ranks]
        first_row = join([matrix[:1] for matrix in slices], axis) if axis == 1 else slices[0][:1]
        if not np.array_equal(first_row, first.array(head.meta)[:1]):
            return False
        heads = [rank.array(head.meta) for rank in self._ranks]
        same = same_bytes(join(slices, axis).reshape(-1), join(heads, head.axis).reshape(-1))
        for rank in self._ranks:
            rank.release(embedding.meta)
            rank.release(head.meta)
        return same

    def _require_last_layer(self) -> None:
        """An absurd number of layers is refused before a table of them is made."""
        name = f"layers.{self.shape.layers - 1}.attention.wq.weight"
        if name not in self._ranks[0]:
            raise _misfit(
                f"The tensor {name} is missing; params.json promises {self.shape.layers} layers",
                self._ranks[0].path,
            )

    def _require_all_shards(self, width: object) -> None:
        """As many files as the slices in them say. `width` is what params.json gives."""
        rows, count = self._ranks[0].info("layers.0.attention.wq.weight").shape[0], len(self._ranks)
        if type(width) is int and rows and rows * count != width and width % rows == 0:
            raise LessonkitError(
                f"A shard holds {rows} of {width} query rows, so the number of shards should be "
                f"{width // rows}; found: {count}.",
                where=self.files.folder,
                remedy="Fetch the consolidated.NN.pth files that are missing, or remove those "
                "that belong to another model.",
            )

    def _require_shapes(self) -> None:
        """Every tensor of such a Llama is there, in the right slices, and no other."""
        count, first = len(self._ranks), self._ranks[0]
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

    def _look_at_frequencies(self) -> None:
        """Tables of rotary frequencies are left out; do they follow from `rope_theta`?"""
        tables = [name for name in self._ranks[0] if is_recomputed(name)]
        size = self.shape.head_size
        expected = self.shape.rope_theta ** (-np.arange(0, size, 2) / size)
        follow = True
        for name in tables:
            dtype, bits = self._ranks[0].info(name).dtype, self._ranks[0].array(name)
            values = to_float32(bits, dtype) if dtype in FLOATS else bits
            # They may be in half precision. (Llama 3.1 stretches them later, in its code.)
            if values.shape != expected.shape or not np.allclose(values, expected, 0.01, 1e-7):
                follow = False
        if tables:
            self.notes.append(
                "rope.freqs was left out: it follows from rope_theta"
                if follow
                else "rope.freqs was left out, although it does not follow from the rope_theta of "
                f"{self.shape.rope_theta:g}: check params.json"
            )


def _noted_options(folder: Path) -> dict[str, Any]:
    path = certificate_of(folder)
    options = read_json(path).get("options") if path else None
    return options if isinstance(options, dict) else {}


def _misfit(what: str, path: Path) -> LessonkitError:
    return LessonkitError(
        f"{what}.",
        where=path,
        remedy="The files do not belong together, or one is damaged: verify them against "
        "checklist.chk, and look at params.json.",
    )
