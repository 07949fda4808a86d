"""The tokens on which GPTQ and AWQ watch a model's layers: windows of one length, cut at random."""

from __future__ import annotations

import hashlib
from dataclasses import dataclass
from typing import TYPE_CHECKING, Any

from lessonkit.errors import LessonkitError
from lessonkit.models.calibration_sources import IF_ASKED
from lessonkit.models.texts import Text, require_use

if TYPE_CHECKING:
    import torch

NUM_SAMPLES = 128
"""Windows read unless another number is asked for, as in GPTQ's paper and in AutoGPTQ."""

SEQLEN = 2048
"""Tokens in a window unless asked for otherwise, and at most what the model can read."""


@dataclass(frozen=True)
class Calibration:
    """What a model reads while it is quantised.

    Attributes
    ----------
    ids:
        int64 [samples, seqlen].
    text:
        Where the tokens are from, as in "wikitext/train/en".
    """

    ids: torch.Tensor
    text: str

    @property
    def sha256(self) -> str:
        """Of the tokens: the same for the same calibration."""
        return hashlib.sha256(self.ids.cpu().numpy().astype("<i8").tobytes()).hexdigest()

    def __str__(self) -> str:
        samples, seqlen = self.ids.shape
        return f"{samples} x {seqlen} tokens of {self.text}"


def cut_calibration(
    tokenizer: Any, text: Text, *, num_samples: int = NUM_SAMPLES, seqlen: int = SEQLEN,
    seed: int = 0,
) -> Calibration:  # fmt: skip
    """Tokenise a text and choose windows of it.

    The text is cut into windows without overlap, and `num_samples` of them are chosen by `seed`:
    the same on every machine. Each begins with the beginning token, where the tokenizer puts
    one before a text: the model then sees what it sees in use.

    Raises LessonkitError for a test split, and for too short a text, with the number of tokens
    that are missing.
    """
    import torch

    require_use(text.split, IF_ASKED, text.name)
    if num_samples < 1 or seqlen < 2:
        raise LessonkitError(
            f"{num_samples} windows of {seqlen} tokens say nothing.",
            where="num_samples, seqlen",
            remedy=f"{NUM_SAMPLES} windows of {SEQLEN} tokens are usual.",
        )
    beginning = _beginning(tokenizer)
    own = seqlen - len(beginning)  # what a window takes of the text
    ids = tokenizer(text.joined(), add_special_tokens=False, verbose=False)["input_ids"]
    windows = len(ids) // own
    if windows < num_samples:
        raise LessonkitError(
            f"The text has {len(ids):,} tokens. {num_samples} windows of {seqlen} take "
            f"{num_samples * own:,}: {num_samples * own - len(ids):,} are missing.",
            where=repr(text),
            remedy=f"Take a longer text, shorter windows, or at most {windows} of these."
            if windows
            else "Take a longer text, or shorter windows.",
        )
    rows = torch.tensor(ids[: windows * own]).view(windows, own)
    order = torch.randperm(windows, generator=torch.Generator().manual_seed(seed))
    chosen = rows[order[:num_samples]]
    first = torch.tensor(beginning, dtype=torch.int64).expand(num_samples, -1)
    label = f"{text.name}/{text.split}/{text.language}"
    return Calibration(torch.cat([first, chosen], dim=1), label)


def _beginning(tokenizer: Any) -> list[int]:
    """The token that the tokenizer puts before every text, if it does."""
    bos = tokenizer.bos_token_id
    ids = tokenizer("a", verbose=False)["input_ids"]
    return [bos] if bos is not None and ids[:1] == [bos] else []
