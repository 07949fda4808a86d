"""A talk: whole characters as they come, stop strings, history, odd input, an adapter beside."""

from __future__ import annotations

import io

import pytest
import torch

from lessonkit.errors import LessonkitError
from lessonkit.models.loading import load
from lessonkit.run.chat import Chat, talk, whole_characters
from lessonkit.run.generate import Sampling, _choose, _penalised, _tokens, complete, stream
from lessonkit.run.templates import find_template
from tests.run.test_generate import ForcedModel
from tests.tiny import make_tiny_llama

SAVED = ["embed_tokens", "lm_head"]


@pytest.fixture(scope="module")
def folder(tmp_path_factory):
    return make_tiny_llama(tmp_path_factory.mktemp("model"), seed=3, dtype=torch.float32)


@pytest.fixture(scope="module")
def loaded(folder):
    return load(folder, device="cpu")


def forced(loaded, text: str):
    """The model that says a text, byte by byte: every character comes in parts."""
    return ForcedModel(loaded.model, [*(3 + byte for byte in text.encode()), 2])


# --- the stream -----------------------------------------------------------------------------------


@pytest.mark.parametrize("prompt", ["The lighthouse", "岛上", " = Marrow = \n"])
def test_the_pieces_are_the_completion(loaded, prompt):
    text = " of the river was built, 灯塔 in 1842. The hill"
    ids = [*loaded.tokenizer(text, add_special_tokens=False).input_ids, 2]
    pieces = list(stream(ForcedModel(loaded.model, ids), loaded.tokenizer, prompt))
    whole = complete(ForcedModel(loaded.model, ids), loaded.tokenizer, prompt)
    assert "".join(pieces) == whole and "灯塔 in 1842" in whole
    assert len(pieces) > 10


def test_never_half_a_character(loaded):
    pieces = list(stream(forced(loaded, "灯a🌙"), loaded.tokenizer, "of"))
    assert pieces == ["灯", "a", "🌙"]


def test_an_unfinished_character_at_the_end_is_not_shown(loaded):
    model = ForcedModel(loaded.model, [*(3 + byte for byte in "a灯".encode()[:-1]), 2])
    assert "".join(stream(model, loaded.tokenizer, "of")) == "a"


def test_a_stop_string_and_no_part_of_it(loaded):
    pieces = list(stream(forced(loaded, "Yes.\n### Instruction: No"), loaded.tokenizer, "of",
                         stops=["### Instruction:"]))  # fmt: skip
    assert "".join(pieces) == "Yes.\n" and "#" not in "".join(pieces)


def test_what_only_looks_like_a_stop_is_shown(loaded):
    for text in ("a ## b", "a ###"):
        pieces = stream(forced(loaded, text), loaded.tokenizer, "of", stops=["### Instruction:"])
        assert "".join(pieces) == text


def test_the_repeat_penalty_is_transformers(loaded):
    ids = torch.tensor([loaded.tokenizer.encode("The river")])
    theirs = loaded.model.generate(
        ids, attention_mask=torch.ones_like(ids), do_sample=False, max_new_tokens=30,
        repetition_penalty=1.3, pad_token_id=0,
    )[0]  # fmt: skip
    ours = _tokens(*loaded, ids[0].tolist(), 30, Sampling(repeat_penalty=1.3))
    assert list(ours) == [token for token in theirs[ids.shape[1] :].tolist() if token != 2]
    scores = torch.tensor([2.0, -2.0, 1.0])
    assert _penalised(scores, [0, 1, 1], 2.0).tolist() == [1.0, -4.0, 1.0]


def test_top_p_keeps_the_likeliest(loaded):
    scores = torch.tensor([0.5, 0.3, 0.15, 0.05]).log()
    for top_p, kept in ((0.4, {0}), (0.6, {0, 1}), (0.9, {0, 1, 2}), (1.0, {0, 1, 2, 3})):
        generator = torch.Generator().manual_seed(0)
        drawn = {_choose(scores, 1.0, generator, top_p) for _ in range(300)}
        assert drawn == kept


@pytest.mark.parametrize(
    "sampling", [Sampling(-1.0), Sampling(top_p=0.0), Sampling(top_p=2), Sampling(repeat_penalty=0)]
)
def test_numbers_that_mean_nothing(loaded, sampling):
    with pytest.raises(LessonkitError, match="cannot be negative"):
        list(stream(*loaded, "The", sampling=sampling))


# --- the talk -------------------------------------------------------------------------------------


def typed(*lines):
    """An `input` that gives these lines and then ends."""
    left = list(lines)

    def read(prompt: str) -> str:
        if not left:
            raise EOFError
        line = left.pop(0)
        if isinstance(line, Exception):
            raise line
        return line

    return read


def test_a_talk_remembers(loaded):
    chat, out = Chat(loaded, find_template("alpaca"), max_new_tokens=5), io.StringIO()
    talk(chat, read=typed("Name a river.", "", "And a hill?"), write=out)
    assert [asked for asked, _ in chat.history] == ["Name a river.", "And a hill?"]
    assert out.getvalue().count("\n") >= 2
    talk(chat, read=typed("/clear", "/exit", "never asked"), write=out)
    assert chat.history == []


def test_a_long_talk_forgets_its_beginning(loaded):
    chat = Chat(loaded, find_template("none"), max_new_tokens=40)
    for _ in range(4):
        list(chat.ask("The lighthouse of Port Amber was built in 1842 on the cliffs."))
    assert len(chat.history) == 4  # and none of them failed for want of room


def test_half_a_deleted_character_does_not_crash(loaded):
    """A terminal that deletes one byte of 灯: Python reads what is left as lone surrogates."""
    broken = "灯".encode()[:2].decode("utf-8", "surrogateescape")
    assert whole_characters(f"a{broken}b灯") == "ab灯"
    error = UnicodeDecodeError("utf-8", b"\xe7\x81", 0, 2, "unexpected end of data")
    out = io.StringIO()
    chat = Chat(loaded, find_template("none"), max_new_tokens=3)
    talk(chat, read=typed(f"The {broken}river", error, "The hill"), write=out)
    assert [asked for asked, _ in chat.history] == ["The river", "The hill"]
    assert "left out" in out.getvalue()
