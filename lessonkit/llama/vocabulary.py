"""Extend a SentencePiece vocabulary: append the pieces that another model has and this one lacks.

Chinese-LLaMA teaches Llama Chinese in this way: the pieces of a Chinese SentencePiece model that
Llama's does not have follow its own 32,000, in their order and all with score 0 (the project's
`merge_tokenizers.py`). Old ids keep their meaning; every new id needs a new row in the embedding
and in the head.
"""

from __future__ import annotations

import os
from collections.abc import Callable, Collection, Iterator, Sequence
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any, Literal

from lessonkit.errors import LessonkitError
from lessonkit.llama.sentencepiece_model import (
    CONTROL,
    NORMAL,
    SentencePieceModel,
    parse_sentencepiece,
)

Source = str | os.PathLike[str] | bytes
Scores = Literal["zero", "ranked"]


@dataclass(frozen=True)
class ExtendedVocabulary:
    """The new `tokenizer.model`, and what is new in it.

    `pieces` are the appended ones in order of their ids, which begin at `before`. `unreachable`
    counts those that no two known pieces make: SentencePiece builds a piece by joining two, so
    these can never come out of a text.
    """

    model: bytes = field(repr=False)
    before: int
    pieces: tuple[str, ...] = field(repr=False)
    unreachable: int

    @property
    def size(self) -> int:
        """All pieces, old and new: the rows that embedding and head need."""
        return self.before + len(self.pieces)

    def __str__(self) -> str:
        dead = f", {self.unreachable:,} of them out of reach" if self.unreachable else ""
        first, last, count = self.pieces[0], self.pieces[-1], len(self.pieces)
        new = f"one new one, {first!r}" if count == 1 else (
            f"{count:,} new ones, from {first!r} to {last!r}"
        )  # fmt: skip
        return f"{self.before:,} pieces and {new}{dead}: {self.size:,}"


def extend_vocabulary(
    base: Source,
    added: Source | None = None,
    *,
    tokens: Sequence[str] = (),
    scores: Scores = "zero",
) -> ExtendedVocabulary:
    """Append to `base` the pieces of `added` that it lacks, then `tokens`.

    Parameters
    ----------
    base, added:
        Paths of SentencePiece models, or their bytes. Only plain pieces of `added` are taken: its
        byte, control and unknown pieces are not. All settings remain those of `base`.
    tokens:
        Pieces such as "[PAD]" that stand for themselves: control pieces like `<s>`, which no text
        ever becomes.
    scores:
        "zero" is what Chinese-LLaMA does: all new pieces are equally urgent, and more so than the
        old ones; where two overlap, SentencePiece joins the leftmost pair. No `tokenizer.json`
        can say that: its merges have an order. "ranked" gives every new piece a score of its own,
        below all old ones and in the order of `added`: then the old pieces come first, the new
        ones are joined as `added` joins them, and a `tokenizer.json` gives the same ids.

    Returns
    -------
    ExtendedVocabulary
        The same input gives the same bytes.

    Raises
    ------
    LessonkitError
        A file is no SentencePiece model, `base` is not a BPE model of Llama's kind, a token is
        there already, or nothing would be new.
    """
    old = _read(base, "base")
    old.require_plain()
    fresh = [] if added is None else _unseen(_read(added, "added"), old)
    require_new_tokens(tokens, [*old.vocabulary, *fresh], where="tokens")
    if not fresh and not tokens:
        raise LessonkitError(
            "There is nothing to add: every piece of the second model is in the first.",
            where="added",
            remedy="Give the model of another language, or tokens.",
        )
    message = type(old.message).FromString(old.message.SerializeToString())
    score = _score(message, scores)
    for number, piece in enumerate(fresh):
        message.pieces.add(piece=piece, score=score(number))
    for token in tokens:
        message.pieces.add(piece=token, score=0.0, type=CONTROL)
    known = {piece.piece for piece in message.pieces if piece.type == NORMAL}
    return ExtendedVocabulary(
        model=message.SerializeToString(deterministic=True),
        before=len(old.vocabulary),
        pieces=(*fresh, *tokens),
        unreachable=sum(not _reachable(piece, known) for piece in fresh),
    )


def require_new_tokens(tokens: Sequence[str], known: Collection[str], *, where: str) -> None:
    """A token that is there already would keep its id, and leave a row without a name.

    Raises LessonkitError, which names the parameter `where`, for that and for an empty token.
    """
    taken = set(known)
    for token in tokens:
        if not token or token in taken:
            raise LessonkitError(
                f"The token {token!r} cannot be added: "
                + ("it is there already." if token else "it is empty."),
                where=where,
                remedy="Name only tokens that the vocabulary lacks, in the order of their rows.",
            )
        taken.add(token)


def _read(source: Source, name: str) -> SentencePieceModel:
    if isinstance(source, bytes):
        return parse_sentencepiece(source, Path(name))
    path = Path(source)
    try:
        return parse_sentencepiece(path.read_bytes(), path)
    except OSError as error:
        raise LessonkitError(
            f"The SentencePiece model cannot be read: {error.strerror}.",
            where=path,
            remedy="Give the path of a tokenizer.model.",
        ) from error


def _unseen(added: SentencePieceModel, old: SentencePieceModel) -> list[str]:
    """The plain pieces that only `added` has, in its order."""
    return [
        piece.piece
        for piece in added.message.pieces
        if piece.type == NORMAL and piece.piece not in old.vocabulary
    ]


def _score(message: Any, scores: Scores) -> Callable[[int], float]:
    """The score of the new piece with a certain number."""
    if scores == "zero":
        return lambda number: 0.0
    if scores == "ranked":
        lowest: float = min(piece.score for piece in message.pieces if piece.type == NORMAL)
        return lambda number: lowest - 1 - number
    raise LessonkitError(
        f"There is no way {scores!r} to score pieces.",
        where="scores",
        remedy='Use "zero" (as Chinese-LLaMA does) or "ranked".',
    )


def _reachable(piece: str, known: set[str]) -> bool:
    return len(piece) == 1 or any(left in known and right in known for left, right in _cuts(piece))


def _cuts(piece: str) -> Iterator[tuple[str, str]]:
    return ((piece[:cut], piece[cut:]) for cut in range(1, len(piece)))
