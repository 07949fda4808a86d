"""The content of `tokenizer.json`, from a SentencePiece model or a tiktoken table.

A tokenizer there is a pipeline: normalise the text, cut it, merge letters into tokens, put the
beginning token before them; and a decoder for the way back.
"""

from __future__ import annotations

import base64
import binascii
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from typing import Any

from lessonkit.errors import LessonkitError
from lessonkit.llama.sentencepiece_model import (
    CONTROL,
    NORMAL,
    SPACE,
    UNKNOWN,
    SentencePieceModel,
)
from lessonkit.llama.vocabulary import require_new_tokens

# How tiktoken cuts a text for Llama 3 before it looks for byte sequences.
LLAMA_3_PATTERN = (
    r"(?i:'s|'t|'re|'ve|'m|'ll|'d)|[^\r\n\p{L}\p{N}]?\p{L}+|\p{N}{1,3}"
    r"| ?[^\s\p{L}\p{N}]+[\r\n]*|\s*[\r\n]+|\s+(?!\S)|\s+"
)
LLAMA_3_SPECIAL = 256  # tokens behind the byte sequences
# Those that end a turn of a conversation; in Meta's own code generation stops there too.
_LLAMA_3_STOPS = ("<|eom_id|>", "<|eot_id|>")


@dataclass(frozen=True)
class Built:
    """`content` of tokenizer.json; `names` of the special tokens ({"bos_token": "<s>"}) and
    their `ids` as config.json wants them ({"bos_token_id": 1}); `size` counts all tokens;
    after one of `stops` a generated text ends."""

    content: dict[str, Any]
    names: dict[str, str]
    ids: dict[str, int]
    size: int
    stops: tuple[int, ...]


def merges_by_score(scores: Mapping[str, float]) -> list[tuple[str, str]]:
    """The merges of a SentencePiece BPE model, most urgent first.

    The model stores a score for each piece, not its merges: it joins the neighbours whose
    union scores best. So every way to cut a piece into two known ones is a merge, ordered by
    the piece's score; `scores` is in order of ids, which breaks ties.
    """
    ids = {piece: index for index, piece in enumerate(scores)}
    found = [
        (-score, ids[piece], ids[piece[:cut]], piece[:cut], piece[cut:])
        for piece, score in scores.items()
        for cut in range(1, len(piece))
        if piece[:cut] in ids and piece[cut:] in ids
    ]
    return [(left, right) for *_, left, right in sorted(found)]


def read_tiktoken(raw: bytes) -> dict[bytes, int] | None:
    """The ranks of a tiktoken file (lines of base64, a space, a rank); None if it is none."""
    ranks: dict[bytes, int] = {}
    for line in raw.splitlines():
        if line:
            try:
                token, rank = line.split()
                ranks[base64.b64decode(token, validate=True)] = int(rank)
            except (ValueError, binascii.Error):
                return None
    if sorted(ranks.values()) != list(range(len(ranks))):
        return None
    return ranks or None


def from_sentencepiece(source: SentencePieceModel, added_tokens: Sequence[str] = ()) -> Built:
    """`tokenizer.json` for a SentencePiece model; an error for one that is not of Llama's kind."""
    source.require_plain()
    vocabulary, ids, pieces = source.vocabulary, source.special(), source.message.pieces
    require_new_tokens(added_tokens, vocabulary, where="added_tokens")
    first_space = source.message.normalizer_spec.add_dummy_prefix
    special = [
        (piece.piece, index)
        for index, piece in enumerate(pieces)
        if piece.type in (UNKNOWN, CONTROL)
    ]
    content = _content(
        special + [(token, len(vocabulary) + i) for i, token in enumerate(added_tokens)],
        normalizer=_sequence("normalizers", [
            *([{"type": "Prepend", "prepend": SPACE}] if first_space else []),
            {"type": "Replace", "pattern": {"String": " "}, "content": SPACE},
        ]),
        pre_tokenizer=None,
        post_processor=_begin_with(pieces[ids["bos_token"]].piece, ids["bos_token"])
        if "bos_token" in ids else None,
        decoder=_sequence("decoders", [
            {"type": "Replace", "pattern": {"String": SPACE}, "content": " "},
            {"type": "ByteFallback"},
            {"type": "Fuse"},
            *([{"type": "Strip", "content": " ", "start": 1, "stop": 0}] if first_space else []),
        ]),
        model={
            "type": "BPE", "dropout": None, "unk_token": pieces[ids["unk_token"]].piece,
            "continuing_subword_prefix": None, "end_of_word_suffix": None, "fuse_unk": True,
            "byte_fallback": source.message.trainer_spec.byte_fallback, "ignore_merges": False,
            "vocab": vocabulary,
            "merges": merges_by_score(
                {piece.piece: piece.score for piece in pieces if piece.type == NORMAL}
            ),
        },
    )  # fmt: skip
    return Built(
        content,
        {name: pieces[index].piece for name, index in ids.items()},
        {f"{name}_id": index for name, index in ids.items() if name != "unk_token"},
        len(vocabulary) + len(added_tokens),
        (ids["eos_token"],) if "eos_token" in ids else (),
    )


def from_tiktoken(ranks: dict[bytes, int], *, later: bool, added_tokens: Sequence[str]) -> Built:
    """`tokenizer.json` for a tiktoken table; `later` is Llama 3.1 and after."""
    if any(bytes([byte]) not in ranks for byte in range(256)):
        raise LessonkitError(
            "The table of the tokenizer lacks some single bytes: not every text can be written.",
            where="tokenizer.model",
            remedy="Fetch it again, from where the weights came from.",
        )
    letters = _byte_letters()
    vocabulary = {
        "".join(letters[byte] for byte in token): rank
        for token, rank in sorted(ranks.items(), key=lambda item: item[1])
    }
    special = _llama_3_special(later)
    require_new_tokens(added_tokens, [*vocabulary, *special], where="added_tokens")
    special += added_tokens
    ids = {token: len(ranks) + index for index, token in enumerate(special)}
    begin, end = special[0], special[1]
    byte_level = {"type": "ByteLevel", "add_prefix_space": False, "trim_offsets": False,
                  "use_regex": False}  # fmt: skip
    content = _content(
        list(ids.items()),
        normalizer=None,
        pre_tokenizer=_sequence("pretokenizers", [
            {"type": "Split", "pattern": {"Regex": LLAMA_3_PATTERN}, "behavior": "Isolated",
             "invert": False},
            {**byte_level, "trim_offsets": True},
        ]),
        post_processor=_sequence("processors", [byte_level, _begin_with(begin, ids[begin])]),
        decoder={**byte_level, "use_regex": True},
        model={
            "type": "BPE", "dropout": None, "unk_token": None, "continuing_subword_prefix": None,
            "end_of_word_suffix": None, "fuse_unk": False, "byte_fallback": False,
            "ignore_merges": True, "vocab": vocabulary,
            "merges": merges_by_score({token: -rank for token, rank in vocabulary.items()}),
        },
    )  # fmt: skip
    return Built(
        content,
        {"bos_token": begin, "eos_token": end},
        {"bos_token_id": ids[begin], "eos_token_id": ids[end]},
        len(ranks) + len(special),
        tuple(ids[token] for token in (end, *_LLAMA_3_STOPS) if token in ids),
    )


def _llama_3_special(later: bool) -> list[str]:
    """The names of Llama 3's 256 special tokens; 3.1 renamed three of the reserved ones."""

    def reserved(numbers: range) -> list[str]:
        return [f"<|reserved_special_token_{number}|>" for number in numbers]

    begin = ["<|begin_of_text|>", "<|end_of_text|>", *reserved(range(2))]
    header = ["<|start_header_id|>", "<|end_header_id|>"]
    if later:
        names = [*begin, "<|finetune_right_pad_id|>", *reserved(range(2, 3)), *header,
                 "<|eom_id|>", "<|eot_id|>", "<|python_tag|>"]  # fmt: skip
        return names + reserved(range(3, 3 + LLAMA_3_SPECIAL - len(names)))
    names = [*begin, *reserved(range(2, 4)), *header, *reserved(range(4, 5)), "<|eot_id|>"]
    return names + reserved(range(5, 5 + LLAMA_3_SPECIAL - len(names)))


def _byte_letters() -> dict[int, str]:
    """A printable letter for each byte, as GPT-2's vocabularies write them."""
    printable = [*range(33, 127), *range(161, 173), *range(174, 256)]
    others = [byte for byte in range(256) if byte not in printable]
    letters = {byte: chr(byte) for byte in printable}
    return {**letters, **{byte: chr(256 + index) for index, byte in enumerate(others)}}


def _content(special: list[tuple[str, int]], **parts: Any) -> dict[str, Any]:
    added = [
        {"id": index, "content": token, "single_word": False, "lstrip": False, "rstrip": False,
         "normalized": False, "special": True}
        for token, index in special
    ]  # fmt: skip
    return {"version": "1.0", "truncation": None, "padding": None, "added_tokens": added, **parts}


def _sequence(key: str, parts: list[dict[str, Any]]) -> dict[str, Any]:
    return {"type": "Sequence", key: parts}


def _begin_with(token: str, index: int) -> dict[str, Any]:
    """A post-processor that puts the beginning token before every text."""

    def part(kind: str, name: str, text: int) -> dict[str, Any]:
        return {kind: {"id": name, "type_id": text}}

    return {
        "type": "TemplateProcessing",
        "single": [part("SpecialToken", token, 0), part("Sequence", "A", 0)],
        "pair": [part("SpecialToken", token, 0), part("Sequence", "A", 0),
                 part("SpecialToken", token, 1), part("Sequence", "B", 1)],
        "special_tokens": {token: {"id": token, "ids": [index], "tokens": [token]}},
    }  # fmt: skip
