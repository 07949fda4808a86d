"""Meta's `tokenizer.model` as the files that Hugging Face's tokenizers read, with the same ids.

Llama 1 and 2 ship a SentencePiece model, Llama 3 a table of byte sequences for tiktoken under
the same file name. Both become `tokenizer.json`. The class written beside it is the plain
`PreTrainedTokenizerFast`, which uses that file as it stands; transformers 5's `LlamaTokenizer`
would put rules of its own in place of it, and lose a space that begins a text.
"""

from __future__ import annotations

import json
import os
import random
from collections.abc import Callable, Iterator, Sequence
from dataclasses import dataclass, field
from pathlib import Path
from typing import TYPE_CHECKING

from lessonkit.convert.tokenizer_json import (
    LLAMA_3_PATTERN,
    SPACE,
    Built,
    from_sentencepiece,
    from_tiktoken,
    read_tiktoken,
)
from lessonkit.errors import LessonkitError

if TYPE_CHECKING:
    from tokenizers import Tokenizer

_SENTENCES = (
    "Hello world, this is a test.",
    " a space first,  two inside, and one last ",
    "\n\n\ttabs\nand new lines\r\n",
    "naïve café, 日本語, 你好，世界。 🙂 ﬁ",
    "x = [3.14159, -2e10]; # code, it's I'LL don't 12345678",
    "",
)


@dataclass(frozen=True)
class TokenizerFiles:
    """The files to write, and what `config.json` must know.

    `size` counts all tokens, `ids` are the special ones (`bos_token_id`, ...), `notes` say
    what could not be carried over.
    """

    files: dict[str, bytes]
    size: int
    ids: dict[str, int]
    notes: list[str] = field(default_factory=list)


def convert_tokenizer(
    path: str | os.PathLike[str],
    *,
    context: int,
    added_tokens: Sequence[str] = (),
    later_llama_3: bool = False,
) -> TokenizerFiles:
    """Read a `tokenizer.model` of either kind and make Hugging Face's files from it.

    `context` is the longest text in tokens. `added_tokens` get the ids after the last piece
    (Alpaca's "[PAD]"). `later_llama_3` chooses the names that Llama 3.1 gave the special
    tokens. The new tokenizer's ids are compared with the original's on sample texts.
    """
    path = Path(path)
    try:
        raw = path.read_bytes()
    except OSError as error:
        raise LessonkitError(
            f"The tokenizer cannot be read: {error.strerror}.",
            where=path,
            remedy="Fetch tokenizer.model; it comes with the weights.",
        ) from error
    ranks = read_tiktoken(raw)
    if ranks is not None:
        built = from_tiktoken(ranks, later=later_llama_3, added_tokens=added_tokens)
        encode = _tiktoken_encoder(ranks, built)
    else:
        built, encode = from_sentencepiece(raw, path, added_tokens)
    tokenizer = _build(built, path)
    notes = _compare(tokenizer, encode, list(built.content["model"]["vocab"]))
    config = {
        "tokenizer_class": "PreTrainedTokenizerFast",
        "model_max_length": context,
        "clean_up_tokenization_spaces": False,
        **{name: built.names[name] for name in sorted(built.names)},
    }
    files = {
        "tokenizer.json": tokenizer.to_str(pretty=True).encode(),
        "tokenizer_config.json": (json.dumps(config, ensure_ascii=False, indent=2) + "\n").encode(),
        "tokenizer.model": raw,
    }
    return TokenizerFiles(files, built.size, built.ids, notes)


def _tiktoken_encoder(ranks: dict[bytes, int], built: Built) -> Callable[[str], list[int]] | None:
    try:
        import tiktoken
    except ImportError:
        return None
    encoding = tiktoken.Encoding(
        "llama 3", pat_str=LLAMA_3_PATTERN, mergeable_ranks=ranks, special_tokens={}
    )
    return lambda text: [built.ids["bos_token_id"], *encoding.encode_ordinary(text)]


def _build(built: Built, path: Path) -> Tokenizer:
    from tokenizers import Tokenizer

    try:
        return Tokenizer.from_str(json.dumps(built.content))
    except Exception as error:  # the library raises nothing more precise
        raise LessonkitError(
            f"No tokenizer can be made from these pieces ({error}).",
            where=path,
            remedy="Use the tokenizer.model that the model was trained with.",
        ) from error


def _compare(
    tokenizer: Tokenizer, encode: Callable[[str], list[int]] | None, pieces: list[str]
) -> list[str]:
    """Encode sample texts with both; a difference becomes a note, never a silent change."""
    if encode is None:
        return ["the tokenizer's ids were not compared: tiktoken is not installed"]
    texts = list(_samples(pieces))
    different = [text for text in texts if tokenizer.encode(text).ids != encode(text)]
    if not different:
        return []
    return [
        f"tokenizer.json gives other ids than tokenizer.model on {len(different)} of {len(texts)} "
        f"sample texts, first on {different[0][:40]!r}. Pieces with equal scores do this: "
        "SentencePiece joins the leftmost pair, which a list of merges cannot say"
    ]


def _samples(pieces: list[str]) -> Iterator[str]:
    """Fixed sentences, and pieces in random order: all over the vocabulary, and its end."""
    yield from _SENTENCES
    choose = random.Random(0)
    plain = [piece for piece in pieces if not piece.startswith("<")]
    for source in (plain, plain[-1000:]):
        for _ in range(40):
            yield "".join(choose.choices(source, k=25)).replace(SPACE, " ")
