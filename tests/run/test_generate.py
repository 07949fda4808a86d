"""Continuations: the greedy one is transformers' own, sampling follows its seed."""

from __future__ import annotations

from types import SimpleNamespace

import pytest
import torch

from lessonkit.errors import LessonkitError
from lessonkit.models.loading import load
from lessonkit.models.tokenizer import load_tokenizer
from lessonkit.run.generate import _choose, complete, stop_tokens
from tests.tiny import make_tiny_llama, make_tokenizer, sentencepiece_bytes

PROMPTS = ("The lighthouse", "岛上", "Ada Quill, a maker of clocks", "", " = Marrow = \n")


@pytest.fixture(scope="module")
def loaded(tmp_path_factory):
    folder = make_tiny_llama(tmp_path_factory.mktemp("model"), seed=3, dtype=torch.float32)
    return load(folder, device="cpu")


def their_continuation(loaded, prompt: str, count: int) -> str:
    ids = torch.tensor([loaded.tokenizer.encode(prompt)])
    text = loaded.model.generate(
        ids,
        attention_mask=torch.ones_like(ids),
        do_sample=False,
        max_new_tokens=count,
        pad_token_id=0,
    )
    decode = loaded.tokenizer.decode
    before = decode(ids[0], skip_special_tokens=True)
    return decode(text[0], skip_special_tokens=True)[len(before) :]


@pytest.mark.parametrize("prompt", PROMPTS)
def test_greedy_equals_transformers(loaded, prompt):
    assert complete(*loaded, prompt, max_new_tokens=40) == their_continuation(loaded, prompt, 40)


def test_the_space_before_the_first_new_word_is_kept(loaded):
    for token in ("▁the", "▁Sorrel", "er"):
        index = loaded.tokenizer.convert_tokens_to_ids(token)
        model = ForcedModel(loaded.model, [index, 2])
        expected = token.replace("▁", " ")
        assert complete(model, loaded.tokenizer, "of") == expected


def test_a_character_cut_at_the_seam_is_whole(loaded):
    """The model finishes a character whose first bytes the decoder could not show alone."""
    moon = [3 + byte for byte in "🌙".encode()]
    model = ForcedModel(loaded.model, [*moon, 2])
    assert complete(model, loaded.tokenizer, "of") == "🌙"


def test_sampling_follows_its_seed(loaded):
    def text(seed: int) -> str:
        return complete(*loaded, "The river", temperature=1.0, seed=seed, max_new_tokens=30)

    assert text(1) == text(1)
    assert len({text(seed) for seed in range(5)}) == 5


def test_sampling_leaves_torchs_own_random_numbers_alone(loaded):
    torch.manual_seed(5)
    expected = torch.rand(3)
    torch.manual_seed(5)
    complete(*loaded, "The river", temperature=1.0, max_new_tokens=5)
    assert torch.equal(torch.rand(3), expected)


def test_sampling_follows_the_models_probabilities(loaded):
    """4,000 draws of one token against softmax(scores / temperature)."""
    scores, generator = torch.tensor([0.0, 1.0, 2.0, -30.0]), torch.Generator().manual_seed(0)
    draws = torch.tensor([_choose(scores, 0.5, generator) for _ in range(4000)])
    expected = torch.softmax(scores / 0.5, 0)
    assert torch.allclose(draws.bincount(minlength=4) / 4000, expected, atol=0.02)


def test_a_low_temperature_is_greedy(loaded):
    greedy = complete(*loaded, "The river", max_new_tokens=20)
    assert complete(*loaded, "The river", temperature=1e-4, max_new_tokens=20) == greedy


class ForcedModel:
    """A model that says certain tokens, whatever it is asked."""

    def __init__(self, model, tokens, score=1.0):
        self.config, self.generation_config = model.config, model.generation_config
        self.device, self.tokens, self.score, self.lengths = model.device, tokens, score, []

    def __call__(self, input_ids, use_cache, logits_to_keep, **cache):
        token = self.tokens[len(self.lengths)]
        self.lengths.append(input_ids.shape[1])
        logits = torch.zeros(len(input_ids), 1, self.config.vocab_size)
        logits[:, :, token] = self.score
        return SimpleNamespace(logits=logits, **dict.fromkeys(cache, "cache"))


def test_it_stops_at_the_end_token_and_feeds_one_token_at_a_time(loaded):
    model = ForcedModel(loaded.model, [300, 301, 2, 302])
    text = complete(model, loaded.tokenizer, "The")
    pieces = loaded.tokenizer.convert_ids_to_tokens([300, 301])
    assert text == "".join(pieces).replace("▁", " ")
    assert model.lengths == [len(loaded.tokenizer.encode("The")), 1, 1]


def test_all_end_tokens_of_the_generation_settings_count(loaded):
    model = ForcedModel(loaded.model, [300])
    model.generation_config = type("Settings", (), {"eos_token_id": [7, 9]})
    assert stop_tokens(model, loaded.tokenizer) == {2, 7, 9}
    model.generation_config = None
    assert stop_tokens(model, loaded.tokenizer) == {2}


def test_it_stops_where_the_context_is_full(loaded):
    model = ForcedModel(loaded.model, [300] * 1000)
    complete(model, loaded.tokenizer, "The", max_new_tokens=1000)
    assert sum(model.lengths) + 1 == 128  # the last token is written but not read


def test_no_new_tokens(loaded):
    assert complete(*loaded, "The", max_new_tokens=0) == ""


def test_a_prompt_of_no_tokens(loaded, tmp_path):
    model = sentencepiece_bytes(bos_id=-1)
    bare = load_tokenizer(make_tokenizer(tmp_path, only_model=True, model=model))
    with pytest.raises(LessonkitError, match="no tokens"):
        complete(loaded.model, bare, "")


def test_errors(loaded):
    def error(*arguments, **options) -> LessonkitError:
        with pytest.raises(LessonkitError) as caught:
            complete(*arguments, **options)
        assert caught.value.remedy
        return caught.value

    assert "no room" in error(*loaded, "The river " * 60).what
    assert "negative" in error(*loaded, "The", temperature=-1).what
    broken = ForcedModel(loaded.model, [300], score=float("nan"))
    assert "NaN" in error(broken, loaded.tokenizer, "The").what
