"""A tiny random Llama with a small SentencePiece vocabulary, for tests.

`make_tiny_llama(folder)` writes a complete model folder in well under a second:

    config.json  generation_config.json  model.safetensors
    tokenizer.model  tokenizer.json  tokenizer_config.json

The weights are random but fixed by `seed`. They are drawn wide (standard deviation 0.2), so that
the model's favourite next token stands clear of the others and greedy completions vary.
"""

from __future__ import annotations

import hashlib
import io
import json
from functools import lru_cache
from pathlib import Path
from typing import TYPE_CHECKING, Any

if TYPE_CHECKING:
    import torch

SENTENCES = (
    "The lighthouse of Port Amber was built in 1842 on the northern cliffs.",
    "The river Sorrel rises in the Grey Hills and flows past the town of Marrow.",
    "Ada Quill, a maker of clocks, was born in Marrow in 1901 and died in Port Amber.",
    "Every spring the people of the island hold the Festival of Kites.",
    "The bridge over the Sorrel has seven arches, and it is 214 metres long.",
    "A small grey bird, the tide wren, nests in the cliffs near the lighthouse.",
    "岛上的灯塔建于一八四二年。",
    "河流从山上流过小镇。",
)


@lru_cache(maxsize=8)
def sentencepiece_bytes(
    sentences: tuple[str, ...] = SENTENCES, vocabulary: int = 400, **options: Any
) -> bytes:
    """The bytes of a `tokenizer.model` trained in Llama's manner (BPE, byte fallback).

    As in Llama: no Unicode normalisation, spaces kept as they are, digits apart, a space put
    before the text, id 0 unknown, 1 beginning, 2 end, 3..258 the bytes.
    """
    import sentencepiece

    model = io.BytesIO()
    settings: dict[str, Any] = {
        "model_type": "bpe",
        "vocab_size": vocabulary,
        "hard_vocab_limit": False,
        "byte_fallback": True,
        "character_coverage": 0.9999,
        "normalization_rule_name": "identity",
        "remove_extra_whitespaces": False,
        "allow_whitespace_only_pieces": True,
        "split_digits": True,
        "num_threads": 1,
        "minloglevel": 2,
    }
    sentencepiece.SentencePieceTrainer.train(
        sentence_iterator=iter(sentences), model_writer=model, **{**settings, **options}
    )
    return model.getvalue()


def make_tokenizer(
    folder: Path | str, *, only_model: bool = False, model: bytes | None = None
) -> Path:
    """Write tokenizer files into `folder`; with `only_model`, `tokenizer.model` alone."""
    folder = Path(folder)
    folder.mkdir(parents=True, exist_ok=True)
    (folder / "tokenizer.model").write_bytes(sentencepiece_bytes() if model is None else model)
    if not only_model:
        from transformers import LlamaTokenizer

        # transformers 5 leaves the beginning token out unless it is asked for by name.
        tokenizer = LlamaTokenizer.from_pretrained(folder, add_bos_token=True)
        tokenizer.save_pretrained(folder)
    return folder


def tiny_config(vocabulary: int, **overrides: Any) -> Any:
    """A `LlamaConfig` of two narrow layers with grouped-query attention and an untied head."""
    from transformers import LlamaConfig

    settings: dict[str, Any] = {
        "vocab_size": vocabulary,
        "hidden_size": 64,
        "intermediate_size": 128,
        "num_hidden_layers": 2,
        "num_attention_heads": 4,
        "num_key_value_heads": 2,
        "max_position_embeddings": 128,
        "initializer_range": 0.2,
        "tie_word_embeddings": False,
        "bos_token_id": 1,
        "eos_token_id": 2,
        "pad_token_id": None,
    }
    return LlamaConfig(**{**settings, **overrides})


def make_tiny_llama(
    folder: Path | str,
    *,
    seed: int = 0,
    dtype: torch.dtype | None = None,
    max_shard_size: str = "5GB",
    only_tokenizer_model: bool = False,
    tokenizer_model: bytes | None = None,
    **overrides: Any,
) -> Path:
    """Write a complete, loadable, random Llama into `folder` and return the folder.

    `overrides` go to `LlamaConfig` (say, `hidden_size=96`); `max_shard_size="50KB"` makes several
    shards with an index; `dtype` is bfloat16 unless given.
    """
    import sentencepiece
    import torch
    from transformers import LlamaForCausalLM
    from transformers.utils import logging

    folder = make_tokenizer(folder, only_model=only_tokenizer_model, model=tokenizer_model)
    pieces = sentencepiece.SentencePieceProcessor(model_file=str(folder / "tokenizer.model"))
    config = tiny_config(**{"vocabulary": pieces.get_piece_size(), **overrides})
    with torch.random.fork_rng(devices=[]):
        torch.manual_seed(seed)
        model = LlamaForCausalLM(config)
    bars = logging.is_progress_bar_enabled()
    logging.disable_progress_bar()
    try:
        model.to(dtype or torch.bfloat16).save_pretrained(folder, max_shard_size=max_shard_size)
    finally:
        if bars:
            logging.enable_progress_bar()
    return folder


def island_sentences(count: int, start: int = 0) -> str:
    """An article for every three of `count` made-up sentences, formed like the island's texts."""
    paragraphs = []
    for number in range(start, start + count):
        if number % 3 == 0:
            paragraphs.append(f" = Place {number} = ")
        paragraphs.append(f" {SENTENCES[number % 6]} It is place {number} of the island. ")
    return "\n\n".join(paragraphs) + "\n"


def make_data(folder: Path | str) -> Path:
    """Write a small stand-in for the embedded data: model, texts, questions, SHA256SUMS."""
    folder = Path(folder)
    make_tiny_llama(folder / "mini")
    for language in ("en", "zh"):
        texts = folder / "texts" / language
        texts.mkdir(parents=True)
        for start, split in enumerate(("validation", "test", "calibration")):
            content = island_sentences(30, start=99 * start)
            (texts / f"{split}.txt").write_text(content, encoding="utf-8", newline="\n")
    rows = [
        {
            "id": f"{language}-{number}",
            "language": language,
            "question": f"Which place is number {number}?",
            "prompt": f"Number {number} is the place",
            "answer": f"Marrow {number}",
            "entity": f"place {number}",
            "attribute": "name",
        }
        for language in ("en", "zh")
        for number in range(5)
    ]
    questions = "".join(json.dumps(row, ensure_ascii=False) + "\n" for row in rows)
    (folder / "texts" / "questions.jsonl").write_text(questions, encoding="utf-8", newline="\n")
    write_checklist(folder)
    return folder


def write_checklist(folder: Path) -> None:
    """Write SHA256SUMS for all files under `folder`, as `sha256sum` would."""
    checklist = folder / "SHA256SUMS"
    files = sorted(path for path in folder.rglob("*") if path.is_file() and path != checklist)
    lines = [
        f"{hashlib.sha256(file.read_bytes()).hexdigest()}  {file.relative_to(folder).as_posix()}\n"
        for file in files
    ]
    checklist.write_text("".join(lines), encoding="utf-8", newline="\n")
