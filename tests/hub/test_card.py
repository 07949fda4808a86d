"""The model card: what the Hub reads in its head, and all that the certificate knows."""

from __future__ import annotations

import json
from pathlib import Path
from typing import Any

import pytest
import yaml

from lessonkit.convert.gguf import to_gguf
from lessonkit.convert.lora import merge
from lessonkit.convert.nf4 import quantize_checkpoint
from lessonkit.hub.card import Facts, model_card, relation_of
from tests.convert.adapters import make_adapter
from tests.tiny import make_tiny_llama

FILE = ("model.gguf", 1234, "ab" * 32)


def head(card: str) -> dict[str, Any]:
    _, text, _ = card.split("---\n", 2)
    found: dict[str, Any] = yaml.safe_load(text)
    return found


def certificate(path: Path) -> dict[str, Any]:
    found: dict[str, Any] = json.loads(path.read_text())
    return found


def test_each_way_from_a_base_has_its_relation(tmp_path: Path) -> None:
    tiny = make_tiny_llama(tmp_path / "tiny")
    to_gguf(tiny, tmp_path / "t.gguf", outtype="q8_0")
    quantize_checkpoint(tiny, tmp_path / "nf4")
    merge(tiny, [make_adapter(tiny, tmp_path / "lora")], tmp_path / "merged")
    name = "lessonkit-certificate.json"
    for path, relation, method in (
        (tmp_path / "t.gguf.certificate.json", "quantized", "outtype | q8_0"),
        (tmp_path / "nf4" / name, "quantized", "nf4"),
        (tmp_path / "merged" / name, "finetune", "adapters 1 name | lora"),
    ):
        found = certificate(path)
        assert relation_of(found) == relation
        card = model_card("you/it", "gguf", found, [FILE], Facts("you/base"))
        assert head(card)["base_model_relation"] == relation
        assert method in card and found["conversion"] in card
    assert relation_of({}, is_adapter=True) == "adapter"
    assert relation_of({}) is None


def test_the_head_is_what_the_hub_reads() -> None:
    facts = Facts("owner/base", "merge", "apache-2.0")
    card = model_card("you/it", "transformers", {}, [FILE], facts)
    assert head(card) == {
        "library_name": "transformers",
        "pipeline_tag": "text-generation",
        "license": "apache-2.0",
        "base_model": "owner/base",
        "base_model_relation": "merge",
    }
    assert "base_model_relation" not in head(model_card("you/it", "peft", {}, [FILE], Facts()))


def test_the_body_says_files_hashes_settings_and_measurements() -> None:
    known = {
        "lessonkit": "1.0",
        "conversion": "Hugging Face to GPTQ",
        "options": {"bits": 4, "calibration": {"text": "island/train/en", "sha256": "cd" * 32},
                    "adapters": [{"name": "a | b"}], "order": ["x", "y"]},
        "notes": ["lm_head was left alone"],
        "tensors": {"a": {"verdict": "quantised: int4"}, "b": {"verdict": "bit-identical"},
                    "c": {"verdict": "quantised: int4"}},
    }  # fmt: skip
    card = model_card("you/it", "gguf", known, [FILE], Facts(measured=["12.3 (gptq, island)\n"]))
    for line in (
        "| bits | 4 |",
        "| calibration text | island/train/en |",
        f"| calibration sha256 | {'cd' * 32} |",
        "| adapters 1 name | a \\| b |",
        "| order | x, y |",
        "- lm_head was left alone",
        "| quantised | 2 |",
        "| bit-identical | 1 |",
        f"| model.gguf | 1,234 | `{'ab' * 32}` |",
        "12.3 (gptq, island)",
        "| made from | not stated |",
    ):
        assert line in card.splitlines(), line


@pytest.mark.parametrize("base", [None, "you/base"])
def test_how_to_check_names_commands_that_can_be_run(base: str | None) -> None:
    from lessonkit.cli import build_parser

    files = [FILE, ("model.gguf.certificate.json", 1, "00")]
    card = model_card("you/it", "gguf", {"conversion": "x", "tensors": {}}, files, Facts(base))
    lines = [line for line in card.splitlines() if line.startswith("lessonkit ")]
    assert len(lines) == (3 if base else 2)
    for line in lines:
        build_parser().parse_args(line.split()[1:])
