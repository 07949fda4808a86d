"""Perplexity protocols as data: which pieces of a text a model reads, and what counts.

One model has many "perplexities": Llama-2-7B on WikiText-2 has 5.47 in windows of 2048, 5.12 in
windows of 4096, 5.79 by llama.cpp's tool and 8.71 a word by lm-eval. All of them cut the text
into pieces and average the negative log-likelihoods; a `Protocol` says how. Named ones:

    gptq              windows that do not overlap: most tables of quantised models
    llama.cpp         the second halves of such windows: `llama-perplexity`
    sliding           windows that overlap: the Hugging Face documentation
    word_perplexity, byte_perplexity, bits_per_byte
                      article by article, counted in words or bytes: lm-eval's task `wikitext`
"""

from __future__ import annotations

from collections.abc import Callable, Iterator, Sequence
from dataclasses import dataclass, replace
from typing import Any, Literal

from lessonkit.errors import LessonkitError
from lessonkit.evaluate.documents import Form

Bos = Literal["at the start", "in each window", "before each document", "none"]
Unit = Literal["token", "word", "byte", "bit"]


@dataclass(frozen=True)
class Piece:
    """Tokens that a model reads at once; those from `first` on are scored.

    Each is predicted from all that stand before it in the piece, so `first` is at least 1.
    """

    ids: Sequence[int]
    first: int

    @property
    def scored(self) -> int:
        """How many tokens are scored."""
        return len(self.ids) - self.first


@dataclass(frozen=True)
class Protocol:
    """How a perplexity is measured.

    Attributes
    ----------
    name:
        As above.
    window:
        Tokens in a window, in the protocol's own way of counting.
    length:
        Tokens in a piece: `window`, or one more where the protocol counts only what is read.
    stride:
        A piece begins so many tokens after the one before it.
    first:
        No token before this position of a piece is scored; nor is one that was scored before.
    bos:
        Where the beginning token stands; "none" for tokenizers without one, or to leave it out.
    form:
        What is tokenised: "joined", "raw" or "articles" (see `documents`).
    remainder:
        What becomes of the last piece, if it is short: "dropped", "kept", or "filled" with the
        tokens before it, as context.
    unit:
        What the sum of negative log-likelihoods is divided by. With "bit" it is divided by the
        bytes, and stays in bits instead of becoming a perplexity.
    error_bars:
        Is the value printed with the protocol's own error?
    """

    name: str
    window: int
    length: int
    stride: int
    first: int = 1
    bos: Bos = "at the start"
    form: Form = "joined"
    remainder: Literal["dropped", "kept", "filled"] = "dropped"
    unit: Unit = "token"
    error_bars: bool = False

    def __str__(self) -> str:
        overlap = f" every {self.stride:,}" if self.stride < self.window else ""
        bos = "no BOS" if self.bos == "none" else f"BOS {self.bos}"
        # lm-eval's names say what they count; another protocol may be told to count it.
        named = self.unit == "token" or self.form == "articles"
        unit = (
            "" if named else ", in bits a byte" if self.unit == "bit" else f", by the {self.unit}"
        )
        return f"{self.name} windows of {self.window:,}{overlap}, {bos}{unit}"

    def beginning(self, tokenizer: Any) -> int | None:
        """The token put before the text or document, or None.

        lm-eval takes the end token where there is no beginning token: it must score a document's
        first token, so something has to stand before it.
        """
        if self.bos == "none":
            return None
        bos: int | None = tokenizer.bos_token_id
        if bos is None and self.bos == "before each document":
            bos = tokenizer.eos_token_id
        return bos

    def pieces(self, ids: Sequence[int], bos: int | None) -> Iterator[Piece]:
        """Cut a document's tokens (without a beginning token) into the pieces to be read."""
        ids = list(ids) if bos is None else [bos, *ids]
        done = 0  # so many tokens have had their turn
        for start in range(0, len(ids), self.stride):
            end = min(start + self.length, len(ids))
            if end - start < self.length:
                if self.remainder == "dropped":
                    return
                if self.remainder == "filled":
                    start = max(0, end - self.length)
            part = ids[start:end]
            if bos is not None and self.bos == "in each window":
                part[0] = bos
            piece = Piece(part, max(self.first, done - start))
            if piece.scored > 0:
                yield piece
            done = end
            if done == len(ids):
                return


def gptq(window: int = 2048) -> Protocol:
    r"""The protocol of the GPTQ paper, behind most published perplexities of quantised models.

    Join the rows with "\n\n", tokenise once with one beginning token at the very start, cut into
    windows that do not overlap, drop the remainder; every token of a window but its first is
    predicted from those before it in the window, and scored. Source: IST-DASLab/gptq, `llama.py`.
    """
    return Protocol("gptq", window, length=window, stride=window)


def llama_cpp(window: int = 512) -> Protocol:
    """The protocol of llama.cpp's `llama-perplexity`, whose default window is 512.

    The raw file without its last line end is tokenised once and cut into windows that do not
    overlap; the first token of each is replaced by the beginning token. Only what has half a
    window of context is scored: of 512, the tokens 257 to 511. The tool wants two windows of text
    at least. Source: `tools/perplexity/perplexity.cpp`.
    """
    return Protocol(
        "llama.cpp",
        window,
        length=window,
        stride=window,
        first=window // 2 + 1,
        bos="in each window",
        form="raw",
        error_bars=True,
    )


def sliding(window: int = 1024, stride: int | None = None) -> Protocol:
    """The protocol of the Hugging Face documentation: windows that overlap.

    A window begins `stride` tokens after the one before it (by default half a window) and scores
    only what is new: the first window all but its first token, the others their last `stride`.
    The last window may be shorter. So all tokens but the first of the windows' first have at least
    `window - stride` tokens of context. Source: transformers, `docs/source/en/perplexity.md`, whose
    own loop counts each window after the first one token short; the tokens are the same.
    """
    stride = max(1, window // 2) if stride is None else stride
    if not 1 <= stride <= window:
        raise LessonkitError(
            f"A stride of {stride:,} leaves tokens out, or does not move on.",
            where=f"window={window}, stride={stride}",
            remedy="Use a stride from 1 to the window; half the window is usual.",
        )
    return Protocol("sliding", window, length=window, stride=stride, remainder="kept")


def word_perplexity(window: int = 2048) -> Protocol:
    """lm-eval's `word_perplexity` of its task `wikitext`.

    The text is cut into articles. Each is detokenised, tokenised, and read in windows that score
    every token: the first window begins with the beginning token (that is lm-eval's setting
    `add_bos_token=False`; by default it may double it), the others with the last token of the one
    before, the last one reaches back to fill a window. The sum over all articles is divided by the
    words of the originals. lm-eval's window is the model's context, whatever that is.
    Source: `lm_eval/tasks/wikitext/`, `lm_eval/utils.py`, `lm_eval/models/huggingface.py`.
    """
    return Protocol(
        "word_perplexity",
        window,
        length=window + 1,
        stride=window,
        bos="before each document",
        form="articles",
        remainder="filled",
        unit="word",
    )


def byte_perplexity(window: int = 2048) -> Protocol:
    """As `word_perplexity`, divided by the UTF-8 bytes of the originals."""
    return replace(word_perplexity(window), name="byte_perplexity", unit="byte")


def bits_per_byte(window: int = 2048) -> Protocol:
    """The logarithm to base 2 of `byte_perplexity`."""
    return replace(word_perplexity(window), name="bits_per_byte", unit="bit")


PROTOCOLS: dict[str, Callable[..., Protocol]] = {
    "gptq": gptq,
    "llama.cpp": llama_cpp,
    "sliding": sliding,
    "word_perplexity": word_perplexity,
    "byte_perplexity": byte_perplexity,
    "bits_per_byte": bits_per_byte,
}


def named(name: str, *, context: int, window: int | None = None) -> Protocol:
    """The protocol of a name, with a window for a model of `context` tokens.

    The window is by default the protocol's own, or the context where that is shorter.
    Raises LessonkitError for a name that is not in `PROTOCOLS`.
    """
    make = PROTOCOLS.get(name)
    if make is None:
        raise LessonkitError(
            f"There is no perplexity protocol {name!r}.",
            where="protocol",
            remedy="Use one of " + ", ".join(PROTOCOLS) + ".",
        )
    return make(min(make().window, context) if window is None else window)
