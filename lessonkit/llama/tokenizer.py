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

from lessonkit.errors import LessonkitError
from lessonkit.llama.sentencepiece_model import SPACE, parse_sentencepiece
from lessonkit.llama.tokenizer_json import (
    LLAMA_3_PATTERN,
    LLAMA_3_SPECIAL,
    Built,
    from_sentencepiece,
    from_tiktoken,
    read_tiktoken,
)

if TYPE_CHECKING:
    from tokenizers import Tokenizer

PROBES = (
    "Hello world, this is a test.",
    " = A title = \n\n The text , which was tokenised in 2024 , has ( some ) brackets .\n",
    " a space first,  two inside, and one last ",
    "\n\n\ttabs\nand new lines\r\n",
    "naïve café, 日本語, 你好，世界。 🙂 ﬁ",
    "x = [3.14159, -2e10]; # code, it's I'LL don't 12345678",
    "",
)


@dataclass(frozen=True)
class TokenizerFiles:
    """The files to write, and what `config.json` must know.

    `size` counts all tokens, `ids` are the special ones (`bos_token_id`, ...), `generation`
    the same for `generation_config.json`, where `eos_token_id` may be several; `notes` say
    what could not be carried over.
    """

    files: dict[str, bytes]
    size: int
    ids: dict[str, int]
    generation: dict[str, int | list[int]]
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
    return tokenizer_files(
        _read(path), path,
        context=context, added_tokens=added_tokens, later_llama_3=later_llama_3,
    )  # fmt: skip


def tokenizer_files(
    raw: bytes,
    path: Path,
    *,
    context: int,
    added_tokens: Sequence[str] = (),
    later_llama_3: bool = False,
) -> TokenizerFiles:
    """The same from the bytes of a `tokenizer.model`; `path` is named in errors."""
    ranks = read_tiktoken(raw)
    encode: Callable[[str], list[int]] | None
    if ranks is not None:
        built = from_tiktoken(ranks, later=later_llama_3, added_tokens=added_tokens)
        encode, pieces = _tiktoken_encoder(ranks, built), list(built.content["model"]["vocab"])
    else:
        source = parse_sentencepiece(raw, path)
        built = from_sentencepiece(source, added_tokens)
        encode, pieces = source.encode, source.text_pieces
    tokenizer = build_tokenizer(built, path)
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
    generation: dict[str, int | list[int]] = {**built.ids}
    if len(built.stops) > 1:
        generation["eos_token_id"] = list(built.stops)
    notes = _compare(tokenizer, encode, pieces)
    return TokenizerFiles(files, built.size, built.ids, generation, notes)


def count_tokens(path: str | os.PathLike[str]) -> int:
    """How many tokens a `tokenizer.model` of either kind has, the special ones included."""
    path = Path(path)
    raw = _read(path)
    ranks = read_tiktoken(raw)
    if ranks is not None:
        return len(ranks) + LLAMA_3_SPECIAL
    return len(parse_sentencepiece(raw, path).vocabulary)


def _read(path: Path) -> bytes:
    try:
        return path.read_bytes()
    except OSError as error:
        raise LessonkitError(
            f"The tokenizer cannot be read: {error.strerror}.",
            where=path,
            remedy="Fetch tokenizer.model; it comes with the weights.",
        ) from error


def _tiktoken_encoder(ranks: dict[bytes, int], built: Built) -> Callable[[str], list[int]] | None:
    try:
        import tiktoken
    except ImportError:
        return None
    encoding = tiktoken.Encoding(
        "llama 3", pat_str=LLAMA_3_PATTERN, mergeable_ranks=ranks, special_tokens={}
    )
    return lambda text: [built.ids["bos_token_id"], *encoding.encode_ordinary(text)]


def build_tokenizer(built: Built, path: Path) -> Tokenizer:
    """The tokenizer that `tokenizer.json` describes; `path` is named in errors."""
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
    texts = list(sample_texts(pieces))
    different = [text for text in texts if tokenizer.encode(text).ids != encode(text)]
    if not different:
        return []
    return [
        f"tokenizer.json gives other ids than tokenizer.model on {len(different)} of {len(texts)} "
        f"sample texts, first on {different[0][:40]!r}. Pieces with equal scores do this: "
        "SentencePiece joins the leftmost pair, which a list of merges cannot say"
    ]


def sample_texts(pieces: Sequence[str]) -> Iterator[str]:
    """Fixed sentences, then pieces in a row and in random order: from all over the vocabulary,
    and from its end, where an extended vocabulary has its new ones."""
    yield from PROBES
    choose = random.Random(0)
    plain = [piece for piece in pieces if not piece.startswith("<")]
    yield "".join(plain[-300:]).replace(SPACE, " ")
    for source in (plain, plain[-1000:]):
        for _ in range(40):
            yield "".join(choose.choices(source, k=25)).replace(SPACE, " ")
