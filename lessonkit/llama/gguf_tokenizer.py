"""A tokenizer as GGUF's metadata: pieces, scores, types, special ids, chat template.

Two kinds: SentencePiece ("llama": each piece has a score) and byte-level BPE ("gpt2": a list of
merges). What llama.cpp's converter writes is followed (`conversion/base.py`,
`gguf-py/gguf/vocab.py`).
"""

from __future__ import annotations

from collections.abc import Mapping
from pathlib import Path
from typing import Any

import numpy as np

from lessonkit.errors import LessonkitError, malformed
from lessonkit.files.checkpoint import read_json
from lessonkit.llama.sentencepiece_model import SPACE, SentencePieceModel, parse_sentencepiece
from lessonkit.llama.tokenizer_json import LLAMA_3_PATTERN, read_tiktoken

NORMAL, UNKNOWN, CONTROL, USER_DEFINED, UNUSED, BYTE = 1, 2, 3, 4, 5, 6
"""GGUF's types of pieces; they are SentencePiece's."""

_QWEN_2_PATTERN = LLAMA_3_PATTERN.replace(r"\p{N}{1,3}", r"\p{N}")
_CUTS = {LLAMA_3_PATTERN: "llama-bpe", _QWEN_2_PATTERN: "qwen2"}
_SPECIAL = {"bos": "bos", "eos": "eos", "unk": "unknown", "pad": "padding"}
_PADDING_SCORE, _ADDED_SCORE = -10_000.0, -1_000.0


def tokenizer_metadata(folder: Path, config: Mapping[str, Any]) -> tuple[dict[str, Any], list[str]]:
    """The keys `tokenizer.*` for the tokenizer in a folder, and notes.

    The vocabulary gets as many pieces as the embedding has rows (`config["vocab_size"]`).
    """
    with malformed(
        "The tokenizer's files are not as transformers writes them",
        where=folder,
        remedy="Fetch tokenizer.json, tokenizer_config.json and what else there is again.",
    ):
        return _tokenizer_metadata(folder, config)


def _tokenizer_metadata(
    folder: Path, config: Mapping[str, Any]
) -> tuple[dict[str, Any], list[str]]:
    rows = config["vocab_size"]
    settings = _json(folder / "tokenizer_config.json")
    content = _json(folder / "tokenizer.json")
    file = folder / "tokenizer.model"
    notes: list[str] = []
    if file.is_file() and read_tiktoken(file.read_bytes()) is None:
        source = parse_sentencepiece(file.read_bytes(), file)
        keys = _sentencepiece(source, folder, settings, rows)
    elif content.get("model", {}).get("type") == "BPE":
        keys = _byte_level(content, folder / "tokenizer.json", rows)
    else:
        return {"tokenizer.ggml.model": "none"}, [
            "there is no tokenizer beside the weights: the file holds none, and runs on ids only"
        ]
    keys |= _special_ids(settings, content, config)
    begins, ends = _added(settings, content)
    for name, value in (("bos", begins), ("eos", ends)):
        if value is not None:
            keys[f"tokenizer.ggml.add_{name}_token"] = value
    template = _template(folder, settings)
    if isinstance(template, str):
        keys["tokenizer.chat_template"] = template
    elif template is not None:
        notes.append("of several chat templates only the one named default was kept")
        keys["tokenizer.chat_template"] = {t["name"]: t["template"] for t in template}["default"]
    return keys, notes


def _sentencepiece(
    source: SentencePieceModel, folder: Path, settings: Mapping[str, Any], rows: int
) -> dict[str, Any]:
    pieces = source.message.pieces
    if len(pieces) > rows:
        raise LessonkitError(
            f"The tokenizer has {len(pieces)} pieces, the embedding only {rows} rows.",
            where=source.path,
            remedy="Use the tokenizer.model that came with these weights.",
        )
    tokens = [piece.piece for piece in pieces]
    tokens += [f"[PAD{index}]" for index in range(len(pieces), rows)]
    scores = np.full(rows, _PADDING_SCORE, np.float32)
    scores[: len(pieces)] = [piece.score for piece in pieces]
    types = np.full(rows, UNUSED, np.int32)
    # SentencePiece's own "user defined" pieces count as normal there.
    types[: len(pieces)] = [NORMAL if p.type == USER_DEFINED else p.type for p in pieces]

    def add(index: int, text: str, kind: int) -> None:
        if index < rows:
            tokens[index], scores[index], types[index] = text, _ADDED_SCORE, kind

    for text, index in _json(folder / "added_tokens.json").items():
        add(index, text, USER_DEFINED)
    for index, entry in settings.get("added_tokens_decoder", {}).items():
        special = entry.get("special") or _looks_special(entry["content"])
        text = entry["content"] if special else entry["content"].replace(SPACE, " ")
        add(int(index), text, CONTROL if special else USER_DEFINED)
    keys: dict[str, Any] = {}
    prefix = settings.get("add_prefix_space")
    if isinstance(prefix, bool) or not source.message.normalizer_spec.add_dummy_prefix:
        keys["tokenizer.ggml.add_space_prefix"] = bool(prefix)
    return {
        **keys,
        "tokenizer.ggml.model": "llama",
        "tokenizer.ggml.pre": "default",
        "tokenizer.ggml.tokens": tokens,
        "tokenizer.ggml.scores": scores,
        "tokenizer.ggml.token_type": types,
    }


def _byte_level(content: Mapping[str, Any], path: Path, rows: int) -> dict[str, Any]:
    patterns = [cut for cut in _CUTS if cut in _patterns(content.get("pre_tokenizer"))]
    if not patterns:
        raise LessonkitError(
            "The tokenizer cuts texts in a way that is not known here, and llama.cpp must be told "
            "which of its own ways it is.",
            where=path,
            remedy="Known are SentencePiece (put tokenizer.model beside it), Llama 3 and Qwen 2; "
            "for others use llama.cpp's convert_hf_to_gguf.py.",
        )
    tokens = [f"[PAD{index}]" for index in range(rows)]
    types = np.full(rows, UNUSED, np.int32)
    added = {entry["id"]: entry for entry in content.get("added_tokens", [])}
    highest = max([*content["model"]["vocab"].values(), *added])
    if highest >= rows:
        raise LessonkitError(
            f"The tokenizer has the id {highest}, the embedding only {rows} rows.",
            where=path,
            remedy="Use the tokenizer that came with these weights.",
        )
    for text, index in content["model"]["vocab"].items():
        tokens[index], types[index] = text, NORMAL
    for index, entry in added.items():
        special = entry.get("special") or _looks_special(entry["content"])
        tokens[index] = entry["content"]
        types[index] = CONTROL if special else USER_DEFINED
    merges = [m if isinstance(m, str) else " ".join(m) for m in content["model"]["merges"]]
    return {
        "tokenizer.ggml.model": "gpt2",
        "tokenizer.ggml.pre": _CUTS[patterns[0]],
        "tokenizer.ggml.tokens": tokens,
        "tokenizer.ggml.token_type": types,
        "tokenizer.ggml.merges": merges,
    }


def _patterns(cutter: Any) -> list[str]:
    """The regular expressions of a pre-tokenizer."""
    if not isinstance(cutter, dict):
        return []
    parts = cutter.get("pretokenizers", [cutter])
    return [part.get("pattern", {}).get("Regex", "") for part in parts if "pattern" in part]


def _special_ids(
    settings: Mapping[str, Any], content: Mapping[str, Any], config: Mapping[str, Any]
) -> dict[str, int]:
    """The ids that the tokenizer's own settings name; else those of `config.json`."""
    known = {entry["content"]: entry["id"] for entry in content.get("added_tokens", [])}
    keys = {}
    for ours, theirs in _SPECIAL.items():
        entry = settings.get(f"{ours}_token")
        text = entry.get("content") if isinstance(entry, dict) else entry
        stated = config.get(f"{ours}_token_id")
        index = known.get(text, stated[0] if isinstance(stated, list) and stated else stated)
        if isinstance(index, int) and 0 <= index < config["vocab_size"]:
            keys[f"tokenizer.ggml.{theirs}_token_id"] = index
    return keys


def _added(
    settings: Mapping[str, Any], content: Mapping[str, Any]
) -> tuple[bool | None, bool | None]:
    """Are the beginning and the end token put around a text? tokenizer.json knows best."""
    stated = [settings.get(f"add_{name}_token") for name in ("bos", "eos")]
    begins, ends = (value if isinstance(value, bool) else None for value in stated)
    processor = content.get("post_processor") or {}
    for part in processor.get("processors", [processor]):
        if part.get("type") == "TemplateProcessing":
            single = part.get("single", [])
            if len(single) > 1:
                begins = "SpecialToken" in single[0] or begins
                ends = "SpecialToken" in single[-1] or ends
    return begins, ends


def _template(folder: Path, settings: Mapping[str, Any]) -> Any:
    if settings.get("chat_template") is not None:
        return settings["chat_template"]
    if (folder / "chat_template.jinja").is_file():
        return (folder / "chat_template.jinja").read_text(encoding="utf-8")
    return _json(folder / "chat_template.json").get("chat_template")


def _looks_special(text: str) -> bool:
    """As llama.cpp's `does_token_look_special`: <|so|>, <｜so｜>, and a few known ones."""
    return text in ("<pad>", "<mask>", "<2mass>", "[@BOS@]") or (
        text.startswith(("<|", "<｜")) and text.endswith(("|>", "｜>"))
    )


def _json(path: Path) -> dict[str, Any]:
    return read_json(path) if path.is_file() else {}


def special_ids_of(metadata: Mapping[str, Any]) -> dict[str, int | None]:
    """`bos_token_id` and so on for `config.json`, from a GGUF file's metadata."""
    return {
        f"{ours}_token_id": metadata.get(f"tokenizer.ggml.{theirs}_token_id")
        for ours, theirs in _SPECIAL.items()
        if ours != "unk"
    }


def sentencepiece_of(metadata: Mapping[str, Any]) -> bytes | None:
    """A `tokenizer.model` made from a GGUF file's pieces; None where they are of another kind.

    It gives the same ids as the one that the file was made from. What GGUF does not carry, such
    as how the model was trained, is not in it. Padding at the end is left out.
    """
    if metadata.get("tokenizer.ggml.model") != "llama":
        return None
    with malformed(
        "The tokenizer in the file is not as llama.cpp writes it",
        where="tokenizer.ggml",
        remedy="Fetch the file again, or convert the original model again.",
    ):
        return _sentencepiece_of(metadata)


def _sentencepiece_of(metadata: Mapping[str, Any]) -> bytes:
    from sentencepiece import sentencepiece_model_pb2

    model = sentencepiece_model_pb2.ModelProto()  # type: ignore[attr-defined]
    pieces = list(
        zip(
            metadata["tokenizer.ggml.tokens"],
            metadata["tokenizer.ggml.scores"].tolist(),
            metadata["tokenizer.ggml.token_type"].tolist(),
            strict=True,
        )
    )
    while pieces and pieces[-1][2] == UNUSED:
        pieces.pop()
    for text, score, kind in pieces:
        model.pieces.add(piece=text, score=score, type=kind)
    trainer, normal = model.trainer_spec, model.normalizer_spec
    trainer.model_type = 2  # BPE
    trainer.vocab_size = len(pieces)
    trainer.byte_fallback = any(kind == BYTE for _, _, kind in pieces)
    for name, default in (("unk", 0), ("bos", -1), ("eos", -1), ("pad", -1)):
        index = metadata.get(f"tokenizer.ggml.{_SPECIAL[name]}_token_id", default)
        setattr(trainer, f"{name}_id", index)
        if 0 <= index < len(pieces):
            setattr(trainer, f"{name}_piece", pieces[index][0])
    normal.name = "identity"
    normal.add_dummy_prefix = metadata.get("tokenizer.ggml.add_space_prefix", True)
    normal.remove_extra_whitespaces = False
    raw: bytes = model.SerializeToString()
    return raw
