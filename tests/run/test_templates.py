"""Templates: the very text that the models were trained with, and a warning where none was."""

from __future__ import annotations

import json

import pytest
from jinja2 import Environment

from lessonkit.errors import LessonkitError
from lessonkit.run.templates import TEMPLATES, as_jinja, find_template, template_warning

# Zephyr's own chat template, as in its tokenizer_config.json (system, user, assistant alike).
ZEPHYR = "{% for m in messages %}<|{{ m.role }}|>\n{{ m.content }}</s>\n{% endfor %}<|assistant|>\n"


def test_alpaca():
    assert find_template("alpaca").prompt("Name a river.") == (
        "Below is an instruction that describes a task. Write a response that appropriately "
        "completes the request.\n\n### Instruction:\nName a river.\n\n### Response:\n"
    )


def test_alpaca_names_its_task_once():
    text = find_template("alpaca").prompt("And a hill?", [("Name a river.", "The Sorrel.")])
    assert text.count("Below is") == 1
    assert text.endswith(
        "### Response:\nThe Sorrel.\n\n### Instruction:\nAnd a hill?\n\n### Response:\n"
    )


@pytest.mark.parametrize("system", ["", "Be brief."])
def test_zephyr_is_the_jinja_template(system):
    messages = [{"role": "system", "content": system}] if system else []
    for role, content in (("user", "Hi"), ("assistant", "Hello."), ("user", "A river?")):
        messages.append({"role": role, "content": content})
    expected = Environment(keep_trailing_newline=True).from_string(ZEPHYR).render(messages=messages)
    assert find_template("zephyr").prompt("A river?", [("Hi", "Hello.")], system) == expected


def test_llama_2():
    template = find_template("llama-2")
    assert template.prompt(" Hi ") == "[INST] Hi [/INST]"
    assert template.prompt("More", [("Hi", " Hello.")], "Be brief.") == (
        "[INST] <<SYS>>\nBe brief.\n<</SYS>>\n\nHi [/INST] Hello. </s><s>[INST] More [/INST]"
    )


def test_none_is_the_text_itself():
    assert find_template("none").prompt("The river") == "The river"


def test_an_unknown_template():
    with pytest.raises(LessonkitError, match="no template 'chatml'"):
        find_template("chatml")


def test_a_warning_for_a_model_that_was_never_instructed(tmp_path):
    base = tmp_path / "base"
    base.mkdir()
    for name in TEMPLATES:
        warning = template_warning(name, base)
        assert (warning is None) == (name == "none")
    assert "--template none" in template_warning("alpaca", base)


@pytest.mark.parametrize(
    ("file", "content"),
    [
        ("tokenizer_config.json", {"chat_template": "{{ messages }}"}),
        ("config.json", {"_name_or_path": "TinyLlama/TinyLlama-1.1B-Chat-v1.0"}),
        ("lessonkit-certificate.json", {"options": {"adapters": [{"name": "chinese-alpaca"}]}}),
        ("chat_template.jinja", {}),
    ],
)
def test_signs_of_instruction(tmp_path, file, content):
    base = tmp_path / "base"
    base.mkdir()
    (base / file).write_text(json.dumps(content))
    assert template_warning("alpaca", base) is None


def test_an_adapters_name_counts(tmp_path):
    assert template_warning("alpaca", tmp_path / "base", tmp_path / "zh")
    assert template_warning("alpaca", tmp_path / "base", tmp_path / "chat") is None


@pytest.mark.parametrize("system", ["", 'Be "brief".'])
@pytest.mark.parametrize("history", [[], [("Hi", "Hello."), (" a\nb ", "{{ c }}")]])
@pytest.mark.parametrize("name", TEMPLATES)
def test_in_jinja_a_talk_is_the_same_text(name, history, system):
    messages = [{"role": "system", "content": system}] if system else []
    for asked, answered in history:
        messages += [
            {"role": "user", "content": asked},
            {"role": "assistant", "content": answered},
        ]
    messages.append({"role": "user", "content": " Name a river.\n"})
    template = TEMPLATES[name]
    for options in ({}, {"trim_blocks": True, "lstrip_blocks": True}):  # jinja's, transformers'
        jinja = Environment(keep_trailing_newline=True, **options).from_string(as_jinja(template))
        rendered = jinja.render(messages=messages, add_generation_prompt=True)
        assert rendered == template.prompt(" Name a river.\n", history, system)
