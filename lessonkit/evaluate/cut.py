"""A text, tokenised and cut by a protocol: the pieces that every model under comparison reads."""

from __future__ import annotations

import hashlib
from dataclasses import dataclass, field, replace
from typing import Any

from lessonkit.errors import LessonkitError
from lessonkit.evaluate.documents import Document, SomeText, documents
from lessonkit.evaluate.protocols import Piece, Protocol, named


@dataclass(frozen=True)
class Cut:
    """The pieces, and all that tells them from others.

    `text` is "name/split/language"; `sha256` is that of the text as the protocol reads it, before
    tokenising; `words` and `bytes` are counted on the same.
    """

    protocol: Protocol
    pieces: tuple[Piece, ...] = field(repr=False)
    text: str
    split: str
    sha256: str
    words: int
    bytes: int

    @property
    def scored(self) -> int:
        """Tokens scored, in all pieces together."""
        return sum(piece.scored for piece in self.pieces)


def cut(
    model: Any,
    tokenizer: Any,
    text: SomeText,
    *,
    protocol: str | Protocol = "gptq",
    window: int | None = None,
    max_windows: int | None = None,
) -> Cut:
    """Tokenise a text and cut it for a model.

    Parameters
    ----------
    protocol:
        A name of `protocols.PROTOCOLS`, or a `Protocol`, which has its window already.
    window:
        For a name: tokens in a window; by default the protocol's own, at most the model's context.
    max_windows:
        Only the first so many pieces; where words or bytes count, only as many whole articles.

    Raises
    ------
    LessonkitError
        An unknown protocol, a window longer than the model's context, a text that fills no
        window, a token without an embedding; a plain string, which has neither name nor split;
        words or bytes to be counted of a text that is read in part.
    """
    if not hasattr(text, "rows"):
        raise LessonkitError(
            f"The text is a {type(text).__name__}, of which neither name nor split is known.",
            where="text",
            remedy="Use evaluation_text('island'), or the path of a text file in place of "
            "'island': from lessonkit.models import evaluation_text.",
        )
    if max_windows is not None and max_windows < 1:
        raise LessonkitError(
            "max_windows must be at least 1.",
            where=f"max_windows={max_windows}",
            remedy="Leave it out to take all.",
        )
    label = f"{text.name}/{text.split}/{text.language}"
    how = _protocol_for(model, protocol, window)
    _require_all_read(how, max_windows)
    beginning = how.beginning(tokenizer)
    if beginning is None:
        how = _without_beginning(how)
    taken: list[Document] = []
    pieces: list[Piece] = []
    tokens = 0
    whole = documents(text, how.form)
    for document in whole:
        ids = tokenizer(document.seen, add_special_tokens=False, verbose=False).input_ids
        _require_embeddings(model, ids, label)
        new = list(how.pieces(ids, beginning))
        if max_windows is not None and len(pieces) + len(new) > max_windows:
            if how.form != "articles":
                pieces, taken = new[:max_windows], [document]
            break
        tokens += len(ids) + (beginning is not None)
        taken.append(document)
        pieces += new
    if not pieces:
        raise LessonkitError(
            f"The text has {tokens:,} tokens, less than one window of {how.window:,}."
            if max_windows is None or how.form != "articles"
            else f"No article of the text is read in {max_windows} windows or less.",
            where=label,
            remedy="Use a longer text, a smaller window, or more windows.",
        )
    return Cut(
        protocol=how,
        pieces=tuple(pieces),
        text=label,
        split=str(text.split),
        sha256=hashlib.sha256("\n".join(d.original for d in whole).encode()).hexdigest(),
        words=sum(document.words for document in taken),
        bytes=sum(document.bytes for document in taken),
    )


def _protocol_for(model: Any, protocol: str | Protocol, window: int | None) -> Protocol:
    context = int(model.config.max_position_embeddings)
    if isinstance(protocol, str):
        protocol = named(protocol, context=context, window=window)
    elif window is not None:
        raise LessonkitError(
            "A protocol that was made already has its window.",
            where=f"window={window}",
            remedy=f"Make it with that window, or give its name, protocol={protocol.name!r}.",
        )
    if not 2 <= protocol.window <= context:
        raise LessonkitError(
            f"A window of {protocol.window:,} tokens does not fit: "
            f"the model was made for 2 to {context:,}.",
            where="window",
            remedy=f"Use window={context} or less, or leave it out.",
        )
    return protocol


def _require_all_read(protocol: Protocol, max_windows: int | None) -> None:
    """Words and bytes are those of whole documents, so tokens must not be left out."""
    in_part = protocol.remainder == "dropped" or max_windows is not None
    if protocol.unit != "token" and protocol.form != "articles" and in_part:
        raise LessonkitError(
            f"Only a part of the text would be read, but a {protocol.unit} counts in all of it.",
            where=str(protocol),
            remedy="Use 'sliding', whose last window may be short, without max_windows; for less "
            "to read, shorten the text.",
        )


def _without_beginning(protocol: Protocol) -> Protocol:
    if protocol.bos == "before each document":
        raise LessonkitError(
            "The tokenizer has neither a beginning nor an end token, but this protocol scores a "
            "document's first token, so something must stand before it.",
            where=protocol.name,
            remedy="Use the protocol 'gptq' or 'sliding'.",
        )
    return replace(protocol, bos="none")


def _require_embeddings(model: Any, ids: list[int], label: str) -> None:
    rows = model.get_input_embeddings().num_embeddings
    if max(ids, default=0) >= rows:
        raise LessonkitError(
            f"The text has the token {max(ids)}, but the model has only {rows:,} embeddings.",
            where=label,
            remedy="Use the tokenizer that belongs to the model.",
        )
