"""A SentencePiece `tokenizer.model`, read: its pieces, and the ids that it gives itself.

It is what a Llama 1 or 2 was trained with, so its ids are the right ones; every other form of
the tokenizer is compared with them.
"""

from __future__ import annotations

from dataclasses import dataclass
from functools import cached_property
from pathlib import Path
from typing import TYPE_CHECKING, Any

from lessonkit.errors import LessonkitError

if TYPE_CHECKING:
    from sentencepiece import SentencePieceProcessor

SPACE = "▁"  # how SentencePiece writes a space
BPE = 2  # sentencepiece's number for this kind of model
NORMAL, UNKNOWN, CONTROL, USER_DEFINED = 1, 2, 3, 4  # and for kinds of pieces


@dataclass(frozen=True)
class SentencePieceModel:
    """The `message` holds pieces, scores and settings; the `processor` encodes."""

    path: Path
    message: Any
    processor: SentencePieceProcessor

    @cached_property
    def vocabulary(self) -> dict[str, int]:
        """Piece -> id, in the order of ids."""
        return {piece.piece: index for index, piece in enumerate(self.message.pieces)}

    @cached_property
    def text_pieces(self) -> list[str]:
        """The pieces that text is cut into: no bytes, and no control pieces such as [PAD]."""
        return [piece.piece for piece in self.message.pieces if piece.type == NORMAL]

    def special(self) -> dict[str, int]:
        """The ids of the special tokens that there are: "bos_token", "eos_token", ..."""
        of = self.processor
        ids = {"bos_token": of.bos_id(), "eos_token": of.eos_id(), "unk_token": of.unk_id(),
               "pad_token": of.pad_id()}  # fmt: skip
        return {name: index for name, index in ids.items() if index >= 0}

    def encode(self, text: str) -> list[int]:
        """The model's own ids, behind the beginning token (if it has one)."""
        begin = [self.processor.bos_id()] if self.processor.bos_id() >= 0 else []
        return begin + list(self.processor.encode(text))

    def require_plain(self) -> None:
        """Refuse what no Llama's model has, and a `tokenizer.json` would not carry over."""
        normal, trainer = self.message.normalizer_spec, self.message.trainer_spec
        problem = (
            "its kind is not BPE" if trainer.model_type != BPE
            else "it normalises Unicode" if normal.precompiled_charsmap
            else "it removes extra spaces" if normal.remove_extra_whitespaces
            else "it puts spaces behind words" if trainer.treat_whitespace_as_suffix
            else "it has user-defined pieces"
            if any(piece.type == USER_DEFINED for piece in self.message.pieces)
            else ""
        )  # fmt: skip
        if problem:
            raise LessonkitError(
                f"This SentencePiece model is not one of Llama's kind: {problem}.",
                where=self.path,
                remedy="Use the tokenizer.model that the Llama was trained with.",
            )


def parse_sentencepiece(raw: bytes, path: Path) -> SentencePieceModel:
    """Read the bytes of a SentencePiece model; `path` is named in errors."""
    import sentencepiece
    from google.protobuf.message import DecodeError
    from sentencepiece import sentencepiece_model_pb2

    message = sentencepiece_model_pb2.ModelProto()  # type: ignore[attr-defined]
    try:
        message.ParseFromString(raw)
        if not message.pieces:
            raise DecodeError("no pieces")
        if any(isinstance(piece.piece, bytes) for piece in message.pieces):
            raise DecodeError("a piece is not text")  # newer protobuf raises ValueError instead
        processor = sentencepiece.SentencePieceProcessor(model_proto=raw)
    except (DecodeError, RuntimeError, ValueError) as error:
        raise LessonkitError(
            "This is neither a SentencePiece model nor a tiktoken file.",
            where=path,
            remedy="Fetch tokenizer.model again; it may be a web page or a git-lfs pointer.",
        ) from error
    return SentencePieceModel(path, message, processor)
