r"""What a perplexity protocol reads: the rows joined, the raw file, or article after article.

    joined     the rows with "\n\n" between them (GPTQ's code, the Hugging Face documentation)
    raw        the file as it was published, without its last line end (llama.cpp)
    articles   one document for each level-1 heading, detokenised (lm-eval's task `wikitext`)

WikiText was cut into words long ago: "the lighthouse 's light , 3 @.@ 5 km". lm-eval shows the
model text without those seams, but counts words and bytes on the original.
"""

from __future__ import annotations

import re
from collections.abc import Sequence
from dataclasses import dataclass
from typing import Any, Literal
from typing import Protocol as StructuralType

Form = Literal["joined", "raw", "articles"]


class SomeText(StructuralType):
    """What is needed of a text; the course's `Text` is one."""

    @property
    def name(self) -> str:
        """The collection, or the file."""

    @property
    def language(self) -> str:
        """The code of the language, such as "en"."""

    @property
    def split(self) -> Any:
        """The split, printed with `str`."""

    @property
    def rows(self) -> Sequence[str]:
        """Lines with their ends ("" for a blank one), or whole articles without."""

    def joined(self) -> str:
        """The rows, joined."""


@dataclass(frozen=True)
class Document:
    """A stretch of text that is tokenised by itself.

    `seen` is what the model reads, `original` what words and bytes are counted on.
    """

    original: str
    seen: str

    @property
    def words(self) -> int:
        r"""Pieces between white space, empty ones at the two ends included (as lm-eval counts)."""
        return len(re.split(r"\s+", self.original))

    @property
    def bytes(self) -> int:
        """Bytes in UTF-8."""
        return len(self.original.encode("utf-8"))


def documents(text: SomeText, form: Form) -> list[Document]:
    """The documents of a text in the form that a protocol asks for."""
    if form == "articles":
        return [Document(page, detokenize(page)) for page in pages(raw_text(text.rows))]
    whole = text.joined() if form == "joined" else raw_text(text.rows).removesuffix("\n")
    return [Document(whole, whole)]


def raw_text(rows: Sequence[str]) -> str:
    r"""The file that the rows were read from.

    Blank lines come as "" from the Hub and from files. WikiText, known by its " @-@ ", writes them
    as " \n", other texts as "\n". Rows without line ends are articles, a blank line apart.
    """
    if not any(row.endswith("\n") for row in rows):
        return "\n\n".join(rows) + "\n"
    blank = " \n" if any(" @-@ " in row for row in rows) else "\n"
    return "".join(row or blank for row in rows)


def pages(raw: str) -> list[str]:
    r"""The articles of a raw text in WikiText's form, each from its heading ` = Title = ` on.

    The rows of the data set `EleutherAI/wikitext_document_level`: lines joined with "\n", so the
    line end before the next heading belongs to no page. WikiText-2's test split has 62.
    """
    found: list[list[str]] = [[]]
    for line in raw.removesuffix("\n").split("\n"):
        words = line.split()
        if len(words) > 2 and words[0] == words[-1] == "=" != words[1]:
            found.append([])
        found[-1].append(line)
    return [page for page in map("\n".join, found) if page.strip()]


# The rules of lm-eval's lm_eval/tasks/wikitext/preprocess_wikitext.py, in its order: the order
# matters, and so do its oddities (" N " comes from another corpus; the pattern in slashes never
# meets anything in a real text and is left out).
_PLAIN_FIRST = (
    ("s '", "s'"),
    (" @-@ ", "-"),
    (" @,@ ", ","),
    (" @.@ ", "."),
    *((f" {sign} ", f"{sign} ") for sign in ":;.!?,"),
)
_ENCLOSED = tuple(
    (re.compile(rf"{opening}\s*([^{closing}]*?)\s*{closing}"), left, right)
    for opening, closing, left, right in (
        (r"\(", r"\)", "(", ")"),
        (r"\[", r"\]", "[", "]"),
        (r"\{", r"\}", "{", "}"),
        ('"', '"', '"', '"'),
        ("'", "'", "'", "'"),
    )
)
_PLAIN_LAST = (
    ("= = = =", "===="),
    ("= = =", "==="),
    ("= =", "=="),
    (" ° ", "°"),
    (" \n", "\n"),
    ("\n ", "\n"),
    (" N ", " 1 "),
    (" 's", "'s"),
)


def detokenize(page: str) -> str:
    """WikiText's words put together again as people write them, by lm-eval's rules."""
    for old, new in _PLAIN_FIRST:
        page = page.replace(old, new)
    for pattern, left, right in _ENCLOSED:
        page = pattern.sub(rf"{left}\1{right}", page)
    for old, new in _PLAIN_LAST:
        page = page.replace(old, new)
    return page
