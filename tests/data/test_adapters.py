"""data/adapters: the vocabularies come out the same, no test wording is trained on, PEFT loads."""

from __future__ import annotations

import json
import sys
from functools import cache
from pathlib import Path
from typing import Any

import pytest

DATA = Path(__file__).resolve().parents[2] / "data"
sys.path.insert(0, str(DATA / "build"))

pytest.importorskip("peft")

import chinese  # noqa: E402
import english  # noqa: E402
import instructions  # noqa: E402
import wordings  # noqa: E402
from world import World  # noqa: E402

ADAPTERS = DATA / "adapters"
ROWS = {"zh": 5324, "chat": 5325}
LANGUAGES = {"en": english, "zh": chinese}


@cache
def asked() -> list[dict[str, str]]:
    lines = (DATA / "texts" / "questions.jsonl").read_text(encoding="utf-8").splitlines()
    return [json.loads(line) for line in lines]


# --- instructions -----------------------------------------------------------------------------


def test_instructions_are_the_same_every_time() -> None:
    one, other = instructions.facts(), instructions.facts()
    assert one == other and len(one) == len(asked())
    drawn = [instructions.chosen(one, 64, "7/0") for _ in range(2)]
    assert drawn[0] == drawn[1] != instructions.chosen(one, 64, "7/1")


def test_every_fact_has_a_dozen_wordings_and_none_is_the_test_sets() -> None:
    for fact, question in zip(instructions.facts(), asked(), strict=True):
        texts = {pair.instruction for pair in fact}
        assert len(texts) >= 12, question["id"]
        held_out = question["question"].casefold()
        assert not any(held_out in text.casefold() for text in texts), question["id"]


def test_a_wording_of_the_test_set_would_be_left_out() -> None:
    entity = next(e for e in World().entities if e.kind == "town")
    named = "the emblem of {S}"
    assert wordings.ENGLISH["town"]["emblem"][0] == named
    asked_as_in_the_test = f"What is {named.format(S=english.name(entity))}?"
    assert instructions.test_question(entity, "emblem", english) == asked_as_in_the_test
    assert asked_as_in_the_test not in instructions.instructions(entity, "emblem", english)


def test_responses_are_the_cloze_sentences_with_the_answer() -> None:
    for fact, question in zip(instructions.facts(), asked(), strict=True):
        (response,) = {pair.response for pair in fact}
        assert response.startswith(question["prompt"]), question["id"]
        rest = response[len(question["prompt"]) :].strip()
        assert rest.startswith(question["answer"]) and rest[-1] in ".。", question["id"]
        assert not set("{}[]|") & set(response)


def test_both_languages_word_the_same_attributes() -> None:
    for words, language in ((wordings.ENGLISH, english), (wordings.CHINESE, chinese)):
        assert {k: set(a) for k, a in words.items()} == {
            k: set(a) for k, a in language.PHRASES.items()
        }
        for attributes in words.values():
            assert all("{S}" in text for texts in attributes.values() for text in texts)


# --- what was trained -------------------------------------------------------------------------


@pytest.mark.parametrize("name", ROWS)
def test_the_vocabulary_is_what_the_script_makes(name: str) -> None:
    import adapters

    grown = adapters.vocabulary(name)
    assert grown.model == (ADAPTERS / name / "tokenizer.model").read_bytes()
    assert grown.size == ROWS[name] and grown.unreachable == 0
    mini = adapters.processor(DATA / "mini" / "tokenizer.model")
    ours = adapters.processor(ADAPTERS / name / "tokenizer.model")
    every = range(mini.get_piece_size())
    assert [ours.id_to_piece(i) for i in every] == [mini.id_to_piece(i) for i in every]


@pytest.mark.parametrize("name", ROWS)
def test_the_tokenizers_two_forms_give_the_same_ids(name: str) -> None:
    import adapters
    from tokenizers import Tokenizer

    source = adapters.processor(ADAPTERS / name / "tokenizer.model")
    other = Tokenizer.from_file(str(ADAPTERS / name / "tokenizer.json"))
    for language in LANGUAGES:
        text = (DATA / "texts" / language / "test.txt").read_text(encoding="utf-8")
        for part in (text, *text.split("\n\n")[:400]):
            assert other.encode(part).ids == [1, *source.encode(part)]


@pytest.mark.parametrize("name", ROWS)
def test_the_folder_says_what_it_is(name: str) -> None:
    import adapters
    from safetensors import safe_open

    recipe = adapters.RECIPES[name]
    config = json.loads((ADAPTERS / name / "adapter_config.json").read_text())
    assert config["base_model_name_or_path"] == recipe.base
    assert (config["r"], config["lora_alpha"]) == (recipe.rank, recipe.alpha)
    assert (config["target_modules"], config["modules_to_save"]) == (
        adapters.MODULES,
        ["embed_tokens", "lm_head"],
    )
    with safe_open(ADAPTERS / name / "adapter_model.safetensors", "pt") as tensors:
        shapes: dict[str, Any] = {k: tensors.get_slice(k) for k in tensors.keys()}  # noqa: SIM118
    whole = [k for k, v in shapes.items() if v.get_shape() == [ROWS[name], 256]]
    assert sorted(whole) == [  # once each
        "base_model.model.lm_head.weight",
        "base_model.model.model.embed_tokens.weight",
    ]
    assert len(shapes) == 2 + 2 * 7 * 5
    assert all(recipe.rank in v.get_shape() for k, v in shapes.items() if k not in whole)
    assert {v.get_dtype() for v in shapes.values()} == {"BF16"}


def test_peft_merges_both_in_order_and_the_model_answers() -> None:
    import adapter_card
    import adapters

    model, tokenizer = adapter_card.model_with("chat")
    assert len(model.lm_head.weight) == len(model.model.embed_tokens.weight) == ROWS["chat"]
    assert tokenizer.pad_token_id == ROWS["chat"] - 1
    pairs = adapters.test_pairs()
    few = [*pairs[: len(pairs) // 2 : 150], *pairs[len(pairs) // 2 :: 150]]
    said = list(adapter_card.spoken(model, tokenizer, [pair.instruction for pair in few]))
    assert all(stopped for _, stopped in said)
    right = sum(text == pair.response for (text, _), pair in zip(said, few, strict=True))
    assert right > 0.6 * len(few)
