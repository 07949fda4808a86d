"""Write a Llama tokenizer in both forms: tokenizer.model, and what transformers reads."""

from __future__ import annotations

import json
import shutil
import tempfile
from pathlib import Path

from lessonkit.course.llama_tokenizer import load_tokenizer


def write_tokenizer(model_file: Path, folder: Path) -> None:
    """Copy `model_file` to `folder` and write tokenizer.json and its configuration beside it.

    transformers' `save_pretrained` drops tokenizer.model, which GGUF writers and Meta's format
    need: it is kept. The tokenizer that is saved gives SentencePiece's own ids, <s> included.
    """
    folder.mkdir(parents=True, exist_ok=True)
    with tempfile.TemporaryDirectory() as temporary:
        alone = Path(temporary)
        shutil.copyfile(model_file, alone / "tokenizer.model")
        load_tokenizer(alone).save_pretrained(folder)
    shutil.copyfile(model_file, folder / "tokenizer.model")
    # transformers' own LlamaTokenizer rebuilds the rules and gets a leading space wrong. This
    # class takes tokenizer.json as it stands.
    config = {
        "tokenizer_class": "PreTrainedTokenizerFast",
        "bos_token": "<s>",
        "eos_token": "</s>",
        "unk_token": "<unk>",
        "clean_up_tokenization_spaces": False,
    }
    (folder / "tokenizer_config.json").write_text(json.dumps(config, indent=2) + "\n")
