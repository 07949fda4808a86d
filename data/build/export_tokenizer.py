"""Write a Llama tokenizer in both forms: tokenizer.model, and what transformers reads."""

from __future__ import annotations

import json
import shutil
from pathlib import Path

from lessonkit.llama.sentencepiece_model import SPACE, parse_sentencepiece
from lessonkit.llama.tokenizer import build_tokenizer
from lessonkit.llama.tokenizer_json import from_sentencepiece

# The class takes tokenizer.json as it stands. transformers' own LlamaTokenizer rebuilds the
# rules and gets a leading space wrong.
CONFIG = {
    "tokenizer_class": "PreTrainedTokenizerFast",
    "bos_token": "<s>",
    "eos_token": "</s>",
    "unk_token": "<unk>",
    "clean_up_tokenization_spaces": False,
}


def write_tokenizer(model_file: Path, folder: Path) -> None:
    """Copy `model_file` to `folder` and write tokenizer.json and its configuration beside it.

    transformers' `save_pretrained` drops tokenizer.model, which GGUF writers and Meta's format
    need: it is kept. The tokenizer that is saved gives SentencePiece's own ids, <s> included.
    """
    source = parse_sentencepiece(model_file.read_bytes(), model_file)
    built = from_sentencepiece(source)
    # Llama's own files put a space behind every special token; here it is put before the text
    # only, by turning a plain space there, and nowhere else, into SentencePiece's sign.
    built.content["normalizer"] = _replace_spaces()
    built.content["pre_tokenizer"] = {
        "type": "Sequence",
        "pretokenizers": [_metaspace(" ", "first"), _metaspace(SPACE, "never")],
    }
    model = built.content["model"]
    model["unk_token"] = None
    rank = {piece: place for place, piece in enumerate(_joined(model["merges"]))}
    model["merges"].sort(key=lambda merge: (rank["".join(merge)], len(merge[0])))
    folder.mkdir(parents=True, exist_ok=True)
    tokenizer = build_tokenizer(built, model_file).to_str(pretty=True)
    (folder / "tokenizer.json").write_text(tokenizer, encoding="utf-8", newline="\n")
    (folder / "tokenizer_config.json").write_text(json.dumps(CONFIG, indent=2) + "\n")
    shutil.copyfile(model_file, folder / "tokenizer.model")


def _joined(merges: list[tuple[str, str]]) -> list[str]:
    """The pieces that the merges make, each once, in their order."""
    return list(dict.fromkeys(left + right for left, right in merges))


def _replace_spaces() -> dict[str, object]:
    return {"type": "Replace", "pattern": {"String": " "}, "content": SPACE}


def _metaspace(replacement: str, scheme: str) -> dict[str, object]:
    return {
        "type": "Metaspace",
        "replacement": replacement,
        "prepend_scheme": scheme,
        "split": False,
    }
