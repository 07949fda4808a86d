"""The closed-book questions about the island: one for every fact, in English and Chinese."""

from __future__ import annotations

import json
from dataclasses import dataclass

from lessonkit.errors import LessonkitError
from lessonkit.models.embedded import verified
from lessonkit.models.texts import require_language


@dataclass(frozen=True)
class Question:
    """One fact: the text that leads up to it, without a space at its end, and what follows."""

    id: str
    language: str
    question: str
    prompt: str
    answer: str
    entity: str
    attribute: str


def questions(language: str = "en") -> list[Question]:
    """The closed-book questions about the island, in one language, in the file's order."""
    require_language(language)
    path = verified("texts/questions.jsonl")
    found = []
    for number, line in enumerate(path.read_text(encoding="utf-8").split("\n"), start=1):
        if not line.strip():
            continue
        try:
            row = json.loads(line)
            question = Question(**{field: row[field] for field in Question.__dataclass_fields__})
        except (ValueError, KeyError, TypeError) as error:
            raise LessonkitError(
                f"This line is not a question: {error}.",
                where=f"{path}, line {number}",
                remedy="Each line is a JSON object with " + ", ".join(Question.__annotations__),
            ) from error
        if question.language == language:
            found.append(question)
    return found
