"""A LoRA adapter in PEFT's form, opened: which tensor of which model does each of its keys change?

    adapter_config.json        rank, alpha, and the options that change what the numbers mean
    adapter_model.safetensors  base_model.model.model.layers.0.self_attn.q_proj.lora_A.weight ...

PEFT reads a key that fits nothing without a word, and several options change what a merge must
do. Here every key finds its place or is named in an error; what cannot be merged is refused.
"""

from __future__ import annotations

import copy
import hashlib
import math
import os
import re
from contextlib import AbstractContextManager
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from lessonkit.errors import LessonkitError, malformed
from lessonkit.files.certificate import tensor_sha256
from lessonkit.files.checkpoint import Checkpoint, read_json
from lessonkit.files.dtypes import FLOATS

CONFIG_NAME = "adapter_config.json"
_PREFIX = "base_model.model."
_KINDS = ("lora_A", "lora_B", "lora_embedding_A", "lora_embedding_B", "lora_magnitude_vector")


@dataclass(frozen=True)
class LowRank:
    """The change of one weight: the keys of its tensors in the adapter's file, and its scale.

    `a` is (rank, in) and `b` (out, rank); for an embedding (rank, rows) and (width, rank). The
    change is scale * b @ a, turned over where `transposed` (embeddings, GPT-2's layers).
    `magnitude` is DoRA's vector; `bias` is added, scaled, to the layer's own bias.
    """

    module: str
    a: str
    b: str
    rank: int
    scale: float
    transposed: bool = False
    magnitude: str | None = None
    bias: str | None = None


class Adapter:
    """An adapter folder: what it changes, by the names of the base's tensors.

    `low_rank` are added, `saved` take a tensor's place, `rows` replace some rows of the embedding
    (the row numbers and the key). `weights` are the tensors themselves.
    """

    def __init__(self, folder: str | os.PathLike[str]) -> None:
        self.path = Path(folder)
        self.config_file = self.path / CONFIG_NAME
        if not self.config_file.is_file():
            raise LessonkitError(
                f"The folder is no adapter: it has no {CONFIG_NAME}.",
                where=self.path,
                remedy="Name a folder that PEFT's save_pretrained wrote; a whole model needs no "
                "merge.",
            )
        self.config = read_json(self.config_file)
        with self._as_peft_writes():
            _require_mergeable(self.config, self.config_file)
        self.weights = Checkpoint(self.path)
        self.low_rank: dict[str, LowRank] = {}
        self.saved: dict[str, str] = {}
        self.rows: dict[str, tuple[list[int], str]] = {}
        with self._as_peft_writes():
            self._sort_keys()

    def _as_peft_writes(self) -> AbstractContextManager[None]:
        return malformed(
            "The adapter's configuration is not as PEFT writes it",
            where=self.config_file,
            remedy="Fetch the adapter again.",
        )

    @property
    def name(self) -> str:
        """The folder's name."""
        return self.path.resolve().name

    @property
    def targets(self) -> list[str]:
        """Every tensor of the base that the adapter changes; biases too."""
        biases = [f"{part.module}.bias" for part in self.low_rank.values() if part.bias]
        return list(dict.fromkeys([*self.low_rank, *self.saved, *self.rows, *biases]))

    @property
    def sha256(self) -> str:
        """Of names, dtypes and values: the same for a `.bin` and a safetensors file."""
        total = hashlib.sha256()
        for key in sorted(self.weights):
            info = self.weights.info(key)
            digest = tensor_sha256(self.weights.array(key))
            total.update(f"{key} {info.dtype} {list(info.shape)} {digest}\n".encode())
        return total.hexdigest()

    def touches(self, name: str) -> bool:
        """Does the adapter change this tensor of the base?"""
        return name in self.targets

    def adding(self) -> Adapter:
        """The part of the adapter that is added: without what takes a tensor's place."""
        part = copy.copy(self)
        part.saved, part.rows = {}, {}
        return part

    def replacing(self) -> Adapter:
        """The part of the adapter that takes the place of whole tensors, or of rows."""
        part = copy.copy(self)
        part.low_rank = {}
        return part

    def grown_rows(self, name: str) -> int | None:
        """The rows of a tensor that takes the base's place."""
        return self.weights.info(self.saved[name]).shape[0] if name in self.saved else None

    def _sort_keys(self) -> None:
        parts: dict[str, dict[str, str]] = {}
        for key in self.weights:
            dtype = self.weights.info(key).dtype
            if dtype not in FLOATS:
                raise self._error(f"{key} is {dtype}, not a floating-point tensor")
            module, kind, leaf = _parse(key)
            if kind == "saved":
                self.saved[f"{module}.{leaf}"] = key
            elif kind == "rows":
                self.rows[f"{module}.weight"] = (self._indices(module), key)
            elif kind != "base":
                parts.setdefault(module, {})[kind if leaf == "weight" else f"{kind}.{leaf}"] = key
        for module, found in parts.items():
            self.low_rank[f"{module}.weight"] = self._pair(module, found)
        if not self.targets:
            raise self._error("The file holds no tensor that changes anything")

    def _pair(self, module: str, found: dict[str, str]) -> LowRank:
        embedding = "lora_embedding_A" in found or "lora_embedding_B" in found
        names = ("lora_embedding_A", "lora_embedding_B") if embedding else ("lora_A", "lora_B")
        for name in names:
            if name not in found:
                raise self._error(f"{module} has no {name}: only half of the pair is there")
        a, b = (found[name] for name in names)
        rank = int(_match(self.config.get("rank_pattern"), module, self.config.get("r", 8)))
        shapes = self.weights.info(a).shape, self.weights.info(b).shape
        if any(len(shape) != 2 for shape in shapes) or (shapes[0][0], shapes[1][1]) != (rank, rank):
            raise self._error(
                f"{module} has tensors of the shapes {list(shapes[0])} and {list(shapes[1])}; "
                f"{CONFIG_NAME} says rank {rank}"
            )
        alpha = float(
            _match(self.config.get("alpha_pattern"), module, self.config.get("lora_alpha", 8))
        )
        root = math.sqrt(rank) if self.config.get("use_rslora") else rank
        magnitude = found.get("lora_magnitude_vector")
        if bool(self.config.get("use_dora")) != (magnitude is not None):
            raise self._error(
                f"{module} has {'a' if magnitude else 'no'} DoRA magnitude, against {CONFIG_NAME}"
            )
        return LowRank(
            module, a, b, rank, alpha / root,
            transposed=embedding or bool(self.config.get("fan_in_fan_out")),
            magnitude=magnitude, bias=found.get("lora_B.bias"),
        )  # fmt: skip

    def _indices(self, module: str) -> list[int]:
        """Which rows of the embedding `trainable_token_indices` means."""
        said = self.config.get("trainable_token_indices")
        if isinstance(said, dict):
            matching = [v for k, v in said.items() if re.search(rf"(^|\.){k}$", module)]
            # A tied head shares the embedding's rows, and is not named of its own.
            said = matching[0] if matching else None
        if not isinstance(said, list) or not all(type(index) is int for index in said):
            raise self._error(f"{CONFIG_NAME} does not say which rows of {module} were trained")
        return said

    def _error(self, what: str) -> LessonkitError:
        return LessonkitError(
            f"{what}.",
            where=self.path,
            remedy="Fetch the adapter again; its two files must belong together.",
        )


def open_adapter(folder: str | os.PathLike[str]) -> Adapter:
    """Open a PEFT LoRA folder; raises LessonkitError for what cannot be merged as it stands."""
    return Adapter(folder)


def family_of(name: str) -> str | None:
    """The family of models that a tensor's name comes from, where it is not Llama's."""
    for pattern, family in (
        (r"(^|\.)gpt_neox\.|attention\.query_key_value|dense_h_to_4h", "GPT-NeoX"),
        (r"model\.decoder\.layers\.", "OPT"),
        (r"(^|\.)h\.\d+\.(attn|mlp)\.c_(attn|proj|fc)", "GPT-2"),
        (r"self_attn\.(dense|qkv_proj)\b|mlp\.(fc1|fc2|gate_up_proj)\b|mixer\.Wqkv", "Phi"),
    ):
        if re.search(pattern, name):
            return family
    return None


def _parse(key: str) -> tuple[str, str, str]:
    """The module, the kind and the leaf (weight, bias) of a key, in all of PEFT's spellings.

    The adapter's name ("default") stands in some files and not in others.
    """
    parts = key.removeprefix(_PREFIX).split(".")
    leaf = parts[-1] if parts[-1] in ("weight", "bias") else "weight"
    for place, part in enumerate(parts):
        module = ".".join(parts[:place])
        if part in _KINDS:
            return module, part, leaf
        if part == "token_adapter" or part == "trainable_tokens_delta":
            kind = "rows" if "trainable_tokens_delta" in parts[place:] else "base"
            return module, kind, leaf
        if part == "modules_to_save":
            return module, "saved", leaf
        if part == "original_module":
            return module, "base", leaf
    if parts[-2:-1] == ["base_layer"]:
        return ".".join(parts[:-2]), "saved", leaf
    return ".".join(parts[:-1]), "saved", parts[-1]


def _match(patterns: Any, module: str, otherwise: Any) -> Any:
    """The value of the first pattern that fits a module's name (PEFT's `get_pattern_key`)."""
    for pattern, value in (patterns or {}).items():
        if re.match(rf"(.*\.)?({pattern})$", module):
            return value
    return otherwise


_CHANGES_BASE = ("pissa", "olora", "corda", "loftq", "lora_ga")
_CONVERT = (
    "Save it again with PEFT: save_pretrained(..., path_initial_model_for_weight_conversion=...) "
    "turns it into a plain LoRA for the original base."
)
_OTHERS = {
    "alora_invocation_tokens": "is an activated LoRA (aLoRA): it acts on part of a text only",
    "use_qalora": "is a QALoRA: its A reads pooled inputs",
    "target_parameters": "changes parameters that are no layers' weights (target_parameters)",
    "layer_replication": "repeats layers of the base (layer_replication)",
    "arrow_config": "is an Arrow router over other adapters",
    "kasa_config": "is a KaSA adapter",
    "use_bdlora": "is a block-diagonal LoRA",
    "monteclora_config": "is a MonteCLoRA adapter",
    "megatron_config": "was made for Megatron's parallel layers",
}


def _require_mergeable(config: dict[str, Any], where: Path) -> None:
    kind = config.get("peft_type")
    if kind != "LORA":
        raise LessonkitError(
            f"The adapter is of type {kind}; only LoRA (with rsLoRA and DoRA) is merged here.",
            where=where,
            remedy="Merge it with PEFT: model.merge_and_unload(), where that type can be merged.",
        )
    start = config.get("init_lora_weights")
    if isinstance(start, str) and start.lower().startswith(_CHANGES_BASE):
        raise LessonkitError(
            f"The adapter began as {start}, which changes the base too: on the original base it "
            "would be wrong.",
            where=where,
            remedy=_CONVERT,
        )
    for option, what in _OTHERS.items():
        if config.get(option):
            raise LessonkitError(
                f"The adapter {what}: it does not come down to one matrix added to a weight.",
                where=where,
                remedy="Use it unmerged, through PEFT.",
            )
