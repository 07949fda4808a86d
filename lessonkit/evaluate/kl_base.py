"""llama.cpp's file of base log-probabilities, and what its 16 bits cost.

`llama-perplexity --kl-divergence-base FILE` writes the log-probabilities of one model, so that
`--kl-divergence` can compare others with it. Little-endian, one thing after the other:

    8 bytes   "_logits_"
    int32     window, vocabulary, windows
    int32     the tokens, windows x window, before a beginning token replaces each first one
    uint16    for each scored token a row of 2 * ((vocabulary + 1) // 2) + 4: float32 step and
              float32 smallest log-probability (two uint16 each), then a code for each token

    log-probability = step * code + smallest

The scored tokens are those of the protocol `llama.cpp`: window - 1 - window // 2 in each window.
Two things are lost on the way:

* A code is off by up to half a step, at most 8/65535 = 0.00012 nats, so the decoded probabilities
  no longer add up to 1. A model against its own file has a divergence near 0 on average, but
  tokens of up to 0.0001 in either direction: even a negative mean is possible.
* Scores below the best one minus 16 are raised to that, and the comparison skips them. A right
  token that the base model thought nearly impossible looks likelier than it was, so a base's
  perplexity read from its file is too low.

So a figure from such a file cannot certify that nothing was lost; `divergence` of two models in
memory can. (llama.cpp's README reports .00055 for a model against itself, with 0.79 % change in
the right tokens' probability, as the cost of the codes. Codes off by 0.00012 cannot do that.)
Source: llama.cpp `tools/perplexity/perplexity.cpp`.
"""

from __future__ import annotations

import hashlib
import os
import struct
from dataclasses import dataclass, field
from pathlib import Path
from typing import TYPE_CHECKING, Any

import numpy as np

from lessonkit.errors import LessonkitError
from lessonkit.evaluate.cut import cut
from lessonkit.evaluate.divergence import Divergence, token_divergence
from lessonkit.evaluate.documents import SomeText
from lessonkit.evaluate.engine import hidden_states, logits_in_parts
from lessonkit.evaluate.protocols import Piece, llama_cpp
from lessonkit.files.atomic import atomic_file
from lessonkit.models.size import is_small
from lessonkit.progress import bar

if TYPE_CHECKING:
    import torch

    Array = np.ndarray[Any, Any]

MAGIC = b"_logits_"
_HEADER = struct.Struct("<8s3i")
RANGE = 16  # nats below the best score that codes reach


def row_length(vocabulary: int) -> int:
    """uint16 numbers in a row: the codes, one more where their count is odd, and four."""
    return 2 * ((vocabulary + 1) // 2) + 4


def encode(logits: Array) -> Array:
    """Rows of a base file for float32 logits, (tokens, vocabulary) -> (tokens, row) uint16.

    Codes are rounded to even in float32, as by the C code.
    """
    logits = np.ascontiguousarray(logits, dtype=np.float32)
    best = logits.max(axis=1, keepdims=True)
    least = np.maximum(logits.min(axis=1, keepdims=True), best - np.float32(RANGE))
    total = np.exp(logits - best).sum(axis=1, keepdims=True, dtype=np.float64)
    smallest = least - best - np.log(total).astype(np.float32)
    step = (best - least) / np.float32(65535)
    inverse = np.divide(np.float32(1), step, out=np.zeros_like(step), where=step > 0)
    rows = np.zeros((len(logits), row_length(logits.shape[1])), dtype="<u2")
    rows[:, :4] = np.concatenate([step, smallest], axis=1).astype("<f4").view("<u2")
    codes = np.rint(inverse * np.maximum(logits - least, 0))
    rows[:, 4 : 4 + logits.shape[1]] = codes
    return rows


def decode(rows: Array, vocabulary: int) -> Array:
    """The float32 log-probabilities of rows, (tokens, row) uint16 -> (tokens, vocabulary)."""
    scale = np.ascontiguousarray(rows[:, :4]).view("<f4")
    codes = rows[:, 4 : 4 + vocabulary].astype(np.float32)
    return np.asarray(scale[:, :1] * codes + scale[:, 1:], dtype=np.float32)


@dataclass(frozen=True)
class KLBase:
    """A base file: `tokens` is (windows, window) int32, `rows` (windows, scored, row) uint16.

    Both are mapped from the file, not read.
    """

    path: Path
    window: int
    vocabulary: int
    tokens: Array = field(repr=False)
    rows: Array = field(repr=False)

    def pieces(self, bos: int | None) -> list[Piece]:
        """The windows as the model read them: the first token replaced, where there is a BOS."""
        first = llama_cpp(self.window).first
        begin = [] if bos is None else [bos]
        return [Piece([*begin, *row[len(begin) :].tolist()], first) for row in self.tokens]

    def log_probabilities(self, window: int) -> torch.Tensor:
        """What the base model thought in one window: float32 (scored, vocabulary)."""
        import torch

        return torch.from_numpy(decode(self.rows[window], self.vocabulary))


def read_kl_base(path: str | os.PathLike[str]) -> KLBase:
    """Open a base file. Raises LessonkitError for what is none, or not whole."""
    path = Path(path)
    try:
        with path.open("rb") as file:
            head = file.read(_HEADER.size)
        size = path.stat().st_size
    except OSError as error:
        raise LessonkitError(
            f"The file cannot be read: {error.strerror}.", where=path, remedy="Check the path."
        ) from error
    if len(head) < _HEADER.size or not head.startswith(MAGIC):
        raise LessonkitError(
            "This is no file of base log-probabilities: it does not begin with '_logits_'.",
            where=path,
            remedy="Make one with write_kl_base, or llama-perplexity --kl-divergence-base.",
        )
    _, window, vocabulary, windows = _HEADER.unpack(head)
    shape = (windows, window - 1 - window // 2, row_length(vocabulary))
    start = _HEADER.size + 4 * windows * window
    if min(window, vocabulary, windows) < 1 or size != start + 2 * int(
        np.prod(shape, dtype=object)
    ):
        raise LessonkitError(
            f"The file has {size:,} bytes, which do not fit {windows:,} windows of {window:,} "
            f"tokens and a vocabulary of {vocabulary:,}.",
            where=path,
            remedy="The run that wrote it was probably cut off: write it again.",
        )
    tokens = np.memmap(path, "<i4", "r", _HEADER.size, (windows, window))
    rows = np.memmap(path, "<u2", "r", start, shape)
    return KLBase(path, window, vocabulary, tokens, rows)


def write_kl_base(
    out: str | os.PathLike[str],
    model: Any,
    tokenizer: Any,
    text: SomeText,
    *,
    window: int | None = None,
    max_windows: int | None = None,
    force: bool = False,
) -> Path:
    """Write a model's log-probabilities on a text, window by window, and return the path.

    The parameters are those of `perplexity` with the protocol `llama.cpp`. The file takes about
    two bytes a scored token and token of the vocabulary: 8 MB a window for 32,000 tokens. An
    existing file is only replaced with `force`; an interrupted run leaves none.
    """
    what = cut(model, tokenizer, text, protocol="llama.cpp", window=window, max_windows=max_windows)
    vocabulary = model.config.vocab_size
    tokens = np.array([piece.ids for piece in what.pieces], dtype="<i4")
    header = _HEADER.pack(MAGIC, what.protocol.window, vocabulary, len(what.pieces))
    with (
        atomic_file(out, magic=MAGIC, force=force) as file,
        bar(len(what.pieces), "base", large=not is_small(model)) as progress,
    ):
        file.write(header + tokens.tobytes())
        for piece in what.pieces:
            hidden, _ = hidden_states(model, [piece])
            for _, logits in logits_in_parts(model.get_output_embeddings(), hidden, vocabulary):
                file.write(encode(logits.cpu().numpy()).tobytes())
            progress.update()
    return Path(out)


def divergence_from_base(
    base: str | os.PathLike[str] | KLBase, model: Any, bos: int | None
) -> Divergence:
    """How far a model is from the one that wrote a base file, as llama.cpp measures it.

    `bos` is the tokenizer's `bos_token_id`. Base probabilities below exp(-16) add nothing, as in
    the C code. Raises LessonkitError where the file's vocabulary is not the model's.
    """
    import torch

    opened = base if isinstance(base, KLBase) else read_kl_base(base)
    if opened.vocabulary != model.config.vocab_size:
        raise LessonkitError(
            f"The file has a vocabulary of {opened.vocabulary:,}, the model one of "
            f"{model.config.vocab_size:,}.",
            where=opened.path,
            remedy="Write the file with the full-precision form of this model.",
        )
    found: list[tuple[torch.Tensor, ...]] = []
    with bar(len(opened.rows), "divergence", large=not is_small(model)) as progress:
        for window, piece in enumerate(opened.pieces(bos)):
            hidden, targets = hidden_states(model, [piece])
            theirs = opened.log_probabilities(window).to(hidden.device)
            parts = logits_in_parts(model.get_output_embeddings(), hidden, opened.vocabulary)
            for at, logits in parts:
                known = theirs[at]
                known = known.masked_fill(known <= -RANGE, -torch.inf)
                found.append(token_divergence(known, torch.log_softmax(logits, -1), targets[at]))
            progress.update()
    kl, delta_p, same_top = (torch.cat(column).cpu() for column in zip(*found, strict=True))
    read = hashlib.sha256(np.ascontiguousarray(opened.tokens).tobytes())  # of tokens, not letters
    return Divergence(
        kl, delta_p, same_top, llama_cpp(opened.window), opened.path.name, read.hexdigest(),
        str(model.dtype).removeprefix("torch."),
    )  # fmt: skip
