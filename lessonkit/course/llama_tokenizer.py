"""A tokenizer whose ids are those of the SentencePiece model beside the weights.

`tokenizer.model` is what Llama was trained with, so its ids are the right ones. transformers 5
rebuilds a tokenizer from other files or other rules, and goes wrong without a word in three ways
(seen in 5.23):

- from a folder with `tokenizer.model` alone it orders the merges by id, not by score, so runs of
  spaces and added pieces come out differently;
- it leaves out the beginning token `<s>` unless the folder's configuration asks for it;
- it drops the space that SentencePiece puts before a text that itself begins with a space, as
  every wikitext title does.

`load_tokenizer` mends the three, then compares ids on probe texts, so that a difference is an
error and never a silent one.
"""

from __future__ import annotations

import json
from pathlib import Path
from typing import TYPE_CHECKING, Any

from lessonkit.errors import LessonkitError

if TYPE_CHECKING:
    from sentencepiece import SentencePieceProcessor
    from tokenizers import Tokenizer

_REMEDY = (
    "Use tokenizer files that belong together, all from one source. A Llama's SentencePiece "
    "model is BPE without Unicode normalisation, and no two pieces have the same score."
)
SPACE = "▁"  # how SentencePiece writes a space

PROBES = (
    "Hello world, this is a test.",
    " = A title = \n\n The text , which was tokenised in 2024 , has ( some ) brackets .\n",
    "  two spaces before,   three inside, two after  ",
    "\n\n\ttabs\nand new lines\n",
    "naïve café, 日本語, 你好，世界。 🙂",
    "x = [3.14159, -2e10]; # code",
    "",
)


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
    pieces = _read_pieces(model_file)
    if pieces is None:
        if not json_file.is_file():
            raise LessonkitError(
                "The file is not a SentencePiece model, and there is no tokenizer.json.",
                where=model_file,
                remedy="Fetch tokenizer.model again, or add tokenizer.json (Llama 3 needs it).",
            )
        return _from_pretrained("AutoTokenizer", folder)
    tokenizer = _from_pretrained(
        "LlamaTokenizer", folder, add_bos_token=pieces.bos_id() >= 0, add_eos_token=False
    )
    _follow_sentencepiece(tokenizer.backend_tokenizer, pieces, model_file)
    _compare(tokenizer, pieces, model_file)
    return tokenizer


def _read_pieces(path: Path) -> SentencePieceProcessor | None:
    """The SentencePiece model, or None where the file is absent or of another kind."""
    import sentencepiece

    if not path.is_file():
        return None
    try:
        return sentencepiece.SentencePieceProcessor(model_file=str(path))
    except (RuntimeError, OSError):
        return None  # Llama 3 ships a tiktoken table under the same name


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


def _follow_sentencepiece(backend: Tokenizer, pieces: SentencePieceProcessor, path: Path) -> None:
    """Give the fast tokenizer SentencePiece's merges and its rule for the first space."""
    from tokenizers import normalizers, pre_tokenizers
    from tokenizers.models import BPE

    vocabulary = {pieces.id_to_piece(i): i for i in range(pieces.get_piece_size())}
    if json.loads(backend.to_str())["model"]["vocab"] != vocabulary:
        raise LessonkitError(
            "tokenizer.json and tokenizer.model hold different vocabularies.",
            where=path,
            remedy=_REMEDY,
        )
    backend.model = BPE(vocab=vocabulary, merges=_merges(pieces), fuse_unk=True, byte_fallback=True)
    # A Metaspace adds its sign only where the text does not begin with that sign already.
    # So spaces are turned into "▁" first, then a plain space is put before the text, whatever
    # it begins with, then that space is turned into "▁" as well.
    scheme = "first" if _adds_first_space(pieces) else "never"
    backend.normalizer = normalizers.Replace(" ", SPACE)
    backend.pre_tokenizer = pre_tokenizers.Sequence(
        [
            pre_tokenizers.Metaspace(replacement=" ", prepend_scheme=scheme, split=False),
            pre_tokenizers.Metaspace(replacement=SPACE, prepend_scheme="never", split=False),
        ]
    )


def _merges(pieces: SentencePieceProcessor) -> list[tuple[str, str]]:
    """The pairs of pieces that join into a piece, the best score first.

    SentencePiece stores scores, not merges: of all neighbours it joins the pair whose union has
    the highest score. Equal scores (runs of spaces) go by id here.
    """
    normal = {
        pieces.id_to_piece(i): i
        for i in range(pieces.get_piece_size())
        if not (pieces.is_control(i) or pieces.is_unknown(i) or pieces.is_byte(i))
    }
    found = [
        (-pieces.get_score(index), index, cut, piece[:cut], piece[cut:])
        for piece, index in normal.items()
        for cut in range(1, len(piece))
        if piece[:cut] in normal and piece[cut:] in normal
    ]
    return [(left, right) for _, _, _, left, right in sorted(found)]


def _adds_first_space(pieces: SentencePieceProcessor) -> bool:
    return bool(pieces.encode("a", out_type=str)[0].startswith(SPACE))


def _compare(tokenizer: Any, pieces: SentencePieceProcessor, path: Path) -> None:
    """Raise where the tokenizer and the SentencePiece model give different ids."""
    start = [pieces.bos_id()] if pieces.bos_id() >= 0 else []
    for probe in (*PROBES, _text_of_last_pieces(pieces)):
        expected = start + pieces.encode(probe)
        found = tokenizer.encode(probe)
        if found != expected:
            raise LessonkitError(
                f"The tokenizer and its SentencePiece model disagree on {probe[:60]!r}: "
                f"{_first_difference(found, expected)}.",
                where=path,
                remedy=_REMEDY,
            )


def _text_of_last_pieces(pieces: SentencePieceProcessor, count: int = 300) -> str:
    """The last pieces in a row: where a vocabulary was extended, the new ones are among them.

    Added pieces often all have the score 0. SentencePiece then joins the leftmost pair first,
    which a list of merges cannot express; such a tokenizer must not pass unseen.
    """
    last = range(max(0, pieces.get_piece_size() - count), pieces.get_piece_size())
    names = [pieces.id_to_piece(i) for i in last if not (pieces.is_control(i) or pieces.is_byte(i))]
    return "".join(name for name in names if name.strip(SPACE)).replace(SPACE, " ")


def _first_difference(found: list[int], expected: list[int]) -> str:
    both = enumerate(zip(found, expected, strict=False))
    at = next((i for i, (one, other) in both if one != other), min(len(found), len(expected)))
    return f"from token {at} on, ids {found[at : at + 4]} against {expected[at : at + 4]}"
