"""From pieces of a text to scores: forward passes in batches, logits a bounded part at a time.

The output of a model's head is its largest array by far, (tokens, vocabulary). So pieces first
become hidden states, only those that predict a scored token, and logits are made of them part by
part. Perplexity and divergence share this.
"""

from __future__ import annotations

from collections.abc import Callable, Iterator, Sequence
from typing import TYPE_CHECKING, Any

from lessonkit.errors import LessonkitError
from lessonkit.evaluate.protocols import Piece

if TYPE_CHECKING:
    import torch

TOKENS_AT_ONCE = 2048  # in one forward pass
LOGITS_AT_ONCE = 1 << 22  # 16 MiB of float32: what a processor's cache holds,
ROWS_AT_ONCE = 256  # but no fewer tokens: with fewer, a matrix product runs far below its speed


def batches(pieces: Sequence[Piece], at_most: int | None = None) -> list[list[int]]:
    """The pieces' positions, in groups for one forward pass: the longest first, so that groups
    hold pieces of like length.

    A group has `at_most` pieces, or by default as many as make 2048 tokens, padding included.
    Raises LessonkitError for groups of less than one piece.
    """
    if at_most is not None and at_most < 1:
        raise LessonkitError(
            "batch must be at least 1.", where=f"batch={at_most}", remedy="Leave it out."
        )
    order = sorted(range(len(pieces)), key=lambda i: -len(pieces[i].ids))
    groups: list[list[int]] = []
    start = 0
    while start < len(order):
        count = at_most or max(1, TOKENS_AT_ONCE // len(pieces[order[start]].ids))
        groups.append(order[start : start + count])
        start += count
    return groups


def hidden_states(model: Any, pieces: Sequence[Piece]) -> tuple[torch.Tensor, torch.Tensor]:
    """The last hidden states that predict the pieces' scored tokens, and these tokens.

    Shapes (scored tokens of all pieces, width) and (scored tokens,), piece after piece. Shorter
    pieces are padded at their end, which no causal model's earlier tokens can see.
    """
    import torch

    longest = max(len(piece.ids) for piece in pieces)
    ids = torch.zeros(len(pieces), longest, dtype=torch.long)
    wanted = torch.zeros(len(pieces), longest, dtype=torch.bool)
    for row, piece in enumerate(pieces):
        ids[row, : len(piece.ids)] = torch.as_tensor(piece.ids)
        wanted[row, piece.first : len(piece.ids)] = True
    ids, wanted = ids.to(model.device), wanted.to(model.device)
    # The last token of a piece is only predicted, never read.
    with torch.inference_mode():
        hidden = model.get_decoder()(input_ids=ids[:, :-1], use_cache=False).last_hidden_state
        return hidden[wanted[:, 1:]], ids[wanted]


def logits_in_parts(
    head: Callable[[torch.Tensor], torch.Tensor], hidden: torch.Tensor, vocabulary: int
) -> Iterator[tuple[slice, torch.Tensor]]:
    """float32 logits of the hidden states, (some, vocabulary), and which states they belong to."""
    import torch

    size = max(ROWS_AT_ONCE, LOGITS_AT_ONCE // vocabulary)
    for start in range(0, len(hidden), size):
        part = slice(start, start + size)
        with torch.inference_mode():  # left before the caller goes on: generators may interleave
            logits = head(hidden[part]).float()
        yield part, logits


def losses(model: Any, pieces: Sequence[Piece]) -> torch.Tensor:
    """Negative log-likelihoods in nats of the pieces' scored tokens, float32 on the CPU, (scored,).

    Log-probabilities are computed in float32, whatever the model's dtype.
    """
    import torch

    hidden, targets = hidden_states(model, pieces)
    parts = logits_in_parts(model.get_output_embeddings(), hidden, model.config.vocab_size)
    return torch.cat(
        [
            torch.nn.functional.cross_entropy(logits, targets[part], reduction="none")
            for part, logits in parts
        ]
    ).cpu()


def token_losses(model: Any, ids: torch.Tensor) -> torch.Tensor:
    """Negative log-likelihood, in nats, of every token but the first of each row.

    `ids` is (rows, tokens); the result is float32 on the CPU, (rows, tokens - 1).
    """
    return losses(model, [Piece(row, 1) for row in ids.tolist()]).view(len(ids), -1)
