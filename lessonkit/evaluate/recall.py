"""Closed-book recall: what does the model know, and what has quantisation made it forget?

Each question is the beginning of a sentence, such as "The lighthouse of Port Amber was built
in", and an answer, "1842". The model completes the sentence greedily; the answer is right when
the completion begins with it, letter for letter.

Another processor rounds differently, and so does another batch. An answer whose every token won
clearly stays; one that hung on a hair may turn. So each verdict comes with its margin.
"""

from __future__ import annotations

import math
from collections.abc import Iterator, Sequence
from dataclasses import dataclass, field
from typing import TYPE_CHECKING, Any

from lessonkit.errors import LessonkitError
from lessonkit.evaluate.margins import RELIABLE, gaps
from lessonkit.models.decoding import (
    Continuation,
    context_length,
    prompt_ids,
    stop_tokens,
)
from lessonkit.models.questions import Question
from lessonkit.models.size import is_small
from lessonkit.progress import bar

if TYPE_CHECKING:
    import torch

EXTRA_TOKENS = 4  # beyond the answer's own: a model may cut it otherwise, or begin with a space
UNFINISHED = "�"  # the tokenizer's sign for the first bytes of a character


@dataclass(frozen=True)
class Miss:
    """A question that the model got wrong, and what it said."""

    question: Question
    completion: str

    def __str__(self) -> str:
        return f"{self.question.prompt} […]: {self.completion!r}, not {self.question.answer!r}"


@dataclass(frozen=True)
class Recall:
    """How many questions were answered right, and which were not (in the order asked).

    `verdicts` says of each question whether it was answered right: two of them make McNemar's
    test (`paired.mcnemar`). `margins` has the smallest gap between the best and the second-best
    score among the tokens that decided each answer.
    """

    right: int
    asked: int
    misses: tuple[Miss, ...] = field(repr=False)
    verdicts: tuple[bool, ...] = field(repr=False, default=())
    margins: tuple[float, ...] = field(repr=False, default=())

    @property
    def share(self) -> float:
        """The right ones' share of all, 0 to 1."""
        return self.right / self.asked

    def uncertain(self, below: float = RELIABLE) -> int:
        """How many answers hang on a margin below a threshold, in the units of the scores.

        The default suits a float32 model. The scores of a bfloat16 model are themselves rounded,
        by up to 1/512 of their size, and ties are common: ask for a float32 one.
        """
        return sum(margin < below for margin in self.margins)

    def __str__(self) -> str:
        return f"{self.right:,} of {self.asked:,} ({100 * self.share:.1f} %)"


def recall(
    model: Any,
    tokenizer: Any,
    questions: Sequence[Question],
    *,
    batch: int = 64,
    limit: int | None = None,
) -> Recall:
    """Ask a model what it knows: greedy completion of every question's prompt.

    A completion, stripped of white space, is right when it begins with the answer, and the
    character after that is not a letter or digit (for Chinese, which has no spaces between
    words, any character may follow). The model may say at most the answer's tokens and four more.

    Prompts of equal length share a batch, so nothing is padded and the result does not depend on
    `batch`, beyond the rounding that `Recall.margins` guards against. Scores are compared as
    float32. `limit` asks the first questions only.

    Raises
    ------
    LessonkitError
        No questions; an empty answer; a prompt that does not fit the model's context.
    """
    asked = list(questions if limit is None else questions[:limit])
    if not asked or batch < 1 or any(not question.answer.strip() for question in asked):
        raise LessonkitError(
            "Recall needs at least one question, an answer to each, and a batch of at least one.",
            where="questions",
            remedy="Use lessonkit.models.texts.questions(language).",
        )
    prompts = [prompt_ids(tokenizer, question.prompt) for question in asked]
    allowed = [_allowed_tokens(tokenizer, question) for question in asked]
    _require_room(model, asked, prompts, allowed)
    completions: dict[int, str] = {}
    margins: dict[int, float] = {}
    with bar(len(asked), "recall", large=not is_small(model)) as progress:
        for group in _groups(prompts, batch):
            said, gap = _complete_group(
                model,
                tokenizer,
                [asked[i] for i in group],
                [prompts[i] for i in group],
                [allowed[i] for i in group],
            )
            completions.update(zip(group, said, strict=True))
            margins.update(zip(group, gap, strict=True))
            progress.update(len(group))
    verdicts = tuple(is_right(completions[i], question) for i, question in enumerate(asked))
    misses = tuple(
        Miss(question, completions[i]) for i, question in enumerate(asked) if not verdicts[i]
    )
    in_order = tuple(margins[i] for i in range(len(asked)))
    return Recall(sum(verdicts), len(asked), misses, verdicts, in_order)


def is_right(completion: str, question: Question) -> bool:
    """Does the completion begin with the answer, as a whole word?"""
    said, answer = completion.strip(), question.answer.strip()
    if not said.startswith(answer):
        return False
    following = said[len(answer) : len(answer) + 1]
    return question.language == "zh" or not following.isalnum()


def _allowed_tokens(tokenizer: Any, question: Question) -> int:
    answer = tokenizer(question.answer, add_special_tokens=False, verbose=False).input_ids
    return len(answer) + EXTRA_TOKENS


def _require_room(
    model: Any, asked: list[Question], prompts: list[list[int]], allowed: list[int]
) -> None:
    for question, ids, more in zip(asked, prompts, allowed, strict=True):
        if len(ids) + more > context_length(model):
            raise LessonkitError(
                f"The prompt and its answer take {len(ids) + more} tokens, more than the model's "
                f"context of {context_length(model)}.",
                where=question.id,
                remedy="Shorten the prompt or leave the question out.",
            )


def _groups(prompts: list[list[int]], batch: int) -> Iterator[list[int]]:
    """Positions of prompts of equal length, at most `batch` together."""
    of_length: dict[int, list[int]] = {}
    for position, ids in enumerate(prompts):
        of_length.setdefault(len(ids), []).append(position)
    for _, positions in sorted(of_length.items()):
        for start in range(0, len(positions), batch):
            yield positions[start : start + batch]


def _complete_group(
    model: Any,
    tokenizer: Any,
    questions: list[Question],
    prompts: list[list[int]],
    allowed: list[int],
) -> tuple[list[str], list[float]]:
    """Greedy completions of prompts of equal length, each until its verdict is certain.

    With each comes the smallest gap between best and second-best score on the way.
    """
    import torch

    stops = stop_tokens(model, tokenizer)
    text = Continuation(model)
    new: list[list[int]] = [[] for _ in questions]
    said = [""] * len(questions)
    margins = [math.inf] * len(questions)
    open_rows = set(range(len(questions)))
    fed = torch.tensor(prompts)
    while open_rows:
        scores = text.feed(fed)
        best: torch.Tensor = scores.argmax(dim=-1).cpu()
        gap = gaps(scores).tolist()
        for row in sorted(open_rows):
            margins[row] = min(margins[row], gap[row])
            token = int(best[row])
            if token in stops:
                open_rows.discard(row)
                continue
            new[row].append(token)
            said[row] = tokenizer.decode(new[row], skip_special_tokens=True)
            if len(new[row]) == allowed[row] or _is_certain(said[row], questions[row]):
                open_rows.discard(row)
        fed = best[:, None]  # finished rows run along unread: the batch keeps its shape
    return said, margins


def _is_certain(completion: str, question: Question) -> bool:
    """Would no further token change the verdict?"""
    said, answer = completion.rstrip(UNFINISHED).strip(), question.answer.strip()
    return len(said) > len(answer) or not answer.startswith(said)
