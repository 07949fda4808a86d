"""A tokenizer whose ids are those of the SentencePiece model beside the weights.

`tokenizer.model` is what Llama was trained with, so its ids are the right ones. transformers 5
rebuilds a tokenizer from other files or other rules, and goes wrong without a word in three ways
(seen in 5.23):

- from a folder with `tokenizer.model` alone it orders the merges by id, not by score, so runs of
  spaces and added pieces come out differently;
- it leaves out the beginning token `<s>` unless the folder's configuration asks for it;
- it drops the space that SentencePiece puts before a text that itself begins with a space, as
  every wikitext title does.

`load_tokenizer` puts the rules of the folder's own `tokenizer.json` back, if they give
SentencePiece's ids, else those that `lessonkit.llama.tokenizer_json` makes; then it compares
ids on sample texts, so that a difference is an error and never a silent one.
"""

from __future__ import annotations

from pathlib import Path
from typing import TYPE_CHECKING, Any

from lessonkit.errors import LessonkitError
from lessonkit.llama.sentencepiece_model import SentencePieceModel, parse_sentencepiece
from lessonkit.llama.tokenizer import build_tokenizer, sample_texts
from lessonkit.llama.tokenizer_json import from_sentencepiece, read_tiktoken

if TYPE_CHECKING:
    from tokenizers import Tokenizer

_REMEDY = (
    "Use tokenizer files that belong together, all from one source. A Llama's SentencePiece "
    "model is BPE without Unicode normalisation, and no two pieces have the same score."
)
_RULES = ("normalizer", "pre_tokenizer", "model", "post_processor", "decoder")


def load_tokenizer(folder: Path) -> Any:
    """The tokenizer of a model folder, with the ids (beginning token included) of its
    `tokenizer.model` where there is one, else what its `tokenizer.json` says.

    Raises
    ------
    LessonkitError
        There is no tokenizer, it cannot be read, or the ids differ all the same.
    """
    model_file, json_file = folder / "tokenizer.model", folder / "tokenizer.json"
    if not model_file.is_file() and not json_file.is_file():
        raise LessonkitError(
            "The folder has no tokenizer: neither tokenizer.model nor tokenizer.json.",
            where=folder,
            remedy="Copy them from where the model came from; another tokenizer is of no use.",
        )
    source = _read_sentencepiece(model_file)
    if source is None:
        if not json_file.is_file():
            raise LessonkitError(
                "The tokenizer.model is Llama 3's, and there is no tokenizer.json beside it.",
                where=model_file,
                remedy="Fetch tokenizer.json too; transformers needs it for Llama 3.",
            )
        return _from_pretrained("AutoTokenizer", folder)
    tokenizer = _from_pretrained(
        "LlamaTokenizer",
        folder,
        add_bos_token="bos_token" in source.special(),
        add_eos_token=False,
    )
    _take_right_rules(tokenizer, source, json_file)
    if difference := _first_disagreement(tokenizer.encode, source):
        raise LessonkitError(
            f"The tokenizer and its SentencePiece model disagree {difference}.",
            where=model_file,
            remedy=_REMEDY,
        )
    return tokenizer


def _read_sentencepiece(path: Path) -> SentencePieceModel | None:
    """The SentencePiece model, or None where the file is absent or Llama 3's tiktoken table."""
    if not path.is_file():
        return None
    raw = path.read_bytes()
    return None if read_tiktoken(raw) is not None else parse_sentencepiece(raw, path)


def _from_pretrained(class_name: str, folder: Path, **options: Any) -> Any:
    import transformers

    try:
        return getattr(transformers, class_name).from_pretrained(
            folder, local_files_only=True, **options
        )
    except Exception as error:  # tokenizers raises bare Exception for a broken file
        raise LessonkitError(
            f"The tokenizer cannot be read: {error}",
            where=folder,
            remedy="Fetch tokenizer.json, tokenizer_config.json and tokenizer.model again.",
        ) from error


def _take_right_rules(tokenizer: Any, source: SentencePieceModel, json_file: Path) -> None:
    """Replace the rules that transformers made by ones that give SentencePiece's ids.

    Added tokens, the chat template and all else that the folder says are kept.
    """
    backend: Tokenizer = tokenizer.backend_tokenizer
    if backend.get_vocab(with_added_tokens=False) != source.vocabulary:
        raise LessonkitError(
            "tokenizer.json and tokenizer.model hold different vocabularies.",
            where=source.path,
            remedy=_REMEDY,
        )
    rules = _folders_own(json_file)
    if rules is None or _first_disagreement(lambda text: rules.encode(text).ids, source):
        rules = build_tokenizer(from_sentencepiece(source), source.path)
    for rule in _RULES:
        setattr(backend, rule, getattr(rules, rule))


def _folders_own(json_file: Path) -> Tokenizer | None:
    from tokenizers import Tokenizer

    return Tokenizer.from_file(str(json_file)) if json_file.is_file() else None


def _first_disagreement(encode: Any, source: SentencePieceModel) -> str | None:
    """Where a tokenizer first gives other ids than the SentencePiece model, in words."""
    for text in sample_texts(source.text_pieces):
        expected, found = source.encode(text), encode(text)
        if found != expected:
            return f"on {text[:60]!r}: {_first_difference(found, expected)}"
    return None


def _first_difference(found: list[int], expected: list[int]) -> str:
    both = enumerate(zip(found, expected, strict=False))
    at = next((i for i, (one, other) in both if one != other), min(len(found), len(expected)))
    return f"from token {at} on, ids {found[at : at + 4]} against {expected[at : at + 4]}"
