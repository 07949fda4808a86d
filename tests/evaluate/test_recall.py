"""Recall counts what it should, and batches change nothing."""

from __future__ import annotations

import math
from types import SimpleNamespace

import pytest
import torch

from lessonkit.errors import LessonkitError
from lessonkit.evaluate.margins import RELIABLE
from lessonkit.evaluate.paired import mcnemar
from lessonkit.evaluate.recall import Question, Recall, is_right, recall
from lessonkit.models.loading import load
from lessonkit.run.generate import complete
from tests.tiny import SENTENCES, make_tiny_llama


def question(prompt: str, answer: str, language: str = "en", id_: str = "q") -> Question:
    return Question(id_, language, "?", prompt, answer, "entity", "attribute")


@pytest.fixture(scope="module")
def loaded(tmp_path_factory):
    folder = make_tiny_llama(tmp_path_factory.mktemp("model"), seed=3, dtype=torch.float32)
    loaded = load(folder, device="cpu")
    with torch.no_grad():
        loaded.model.lm_head.weight[:259] = 0  # it says words rather than odd bytes
    return loaded


class Parrot:
    """A "model" that knows some texts by heart and ends every other one.

    It keeps what it was fed, as a key/value cache would, so feeding it wrongly shows.
    """

    def __init__(self, tokenizer, texts, model):
        self.known = [[*tokenizer.encode(text), 2] for text in texts]
        self.config, self.generation_config = model.config, model.generation_config
        self.device = torch.device("cpu")
        self.batches = []

    def parameters(self):
        return iter(())

    def __call__(self, input_ids, use_cache, logits_to_keep, **cache):
        ((name, read),) = cache.items()  # the name hangs on the version of transformers
        if read is None:
            self.batches.append(tuple(input_ids.shape))
            seen = input_ids
        else:
            seen = torch.cat([read, input_ids], dim=1)
        logits = torch.zeros(len(seen), 1, self.config.vocab_size)
        for row, ids in enumerate(seen.tolist()):
            logits[row, 0, self.next_token(ids)] = 1.0
        return SimpleNamespace(logits=logits, **{name: seen})

    def next_token(self, ids):
        for known in self.known:
            if known[: len(ids)] == ids and len(known) > len(ids):
                return known[len(ids)]
        return 2


# --- the verdict -------------------------------------------------------------------------------


@pytest.mark.parametrize(
    ("completion", "answer", "language", "expected"),
    [
        (" 1842 on the cliffs", "1842", "en", True),
        (" 1842", "1842", "en", True),
        ("\n 1842.", "1842", "en", True),
        (" 18421", "1842", "en", False),
        (" 1842a", "1842", "en", False),
        (" 1842é", "1842", "en", False),
        (" 1842-43", "1842", "en", True),
        (" 184", "1842", "en", False),
        (" Marrow, a town", "Marrow", "en", True),
        (" Marrowby", "Marrow", "en", False),
        (" marrow", "Marrow", "en", False),
        (" the Marrow", "Marrow", "en", False),
        ("", "Marrow", "en", False),
        ("一八四二年", "一八四二", "zh", True),
        ("一八四", "一八四二", "zh", False),
        (" Port Amber", " Port Amber ", "en", True),
    ],
)
def test_the_verdict(completion, answer, language, expected):
    assert is_right(completion, question("p", answer, language)) is expected


# --- the whole ---------------------------------------------------------------------------------


def test_what_a_model_knows_by_heart_is_recalled(loaded):
    cases = [
        (SENTENCES[0], "The lighthouse of Port Amber was built in", "1842", True),
        (SENTENCES[0], "The lighthouse of Port Amber was built in", "1843", False),
        (SENTENCES[2], "Ada Quill, a maker of clocks, was born in", "Marrow", True),
        (SENTENCES[2], "Ada Quill, a maker of clocks, was born in", "Marr", False),
        (SENTENCES[4], "The bridge over the Sorrel has seven arches, and it is", "214", True),
        (SENTENCES[4], "The bridge over the Sorrel has seven arches, and it is", "21", False),
        (SENTENCES[0], "Something unknown stands in", "1842", False),
    ]
    asked = [question(prompt, answer, id_=str(i)) for i, (_, prompt, answer, _) in enumerate(cases)]
    model = Parrot(loaded.tokenizer, SENTENCES, loaded.model)
    found = recall(model, loaded.tokenizer, asked)
    assert found.asked == len(cases)
    assert [miss.question.id for miss in found.misses] == [
        str(i) for i, case in enumerate(cases) if not case[3]
    ]
    assert found.misses[0].completion.strip() == "1842"


def test_chinese_and_characters_made_of_bytes(loaded):
    """Not in the vocabulary, a character comes in three tokens; it must not be judged early."""
    texts = ("岛上的灯塔建于一八四二年。", "山的名字是鷹巢峰。")
    model = Parrot(loaded.tokenizer, texts, loaded.model)
    asked = [
        question("岛上的灯塔建于", "一八四二年", "zh"),
        question("岛上的灯塔建于", "一八四三年", "zh"),
        question("山的名字是", "鷹巢峰", "zh"),
        question("山的名字是", "鷹巢山", "zh"),
    ]
    found = recall(model, loaded.tokenizer, asked)
    assert found.right == 2
    assert [miss.question.answer for miss in found.misses] == ["一八四三年", "鷹巢山"]


def test_prompts_of_equal_length_share_a_batch(loaded):
    prompts = ["The river", "The cliffs", "The river Sorrel rises", "The town"]
    lengths = [len(loaded.tokenizer.encode(prompt)) for prompt in prompts]
    model = Parrot(loaded.tokenizer, (), loaded.model)
    recall(model, loaded.tokenizer, [question(p, "x") for p in prompts * 5], batch=8)
    assert sum(rows for rows, _ in model.batches) == 20
    assert max(rows for rows, _ in model.batches) <= 8
    assert {length for _, length in model.batches} == set(lengths)


@pytest.mark.parametrize("batch", [1, 3, 64])
def test_batches_change_nothing_and_greedy_completion_agrees(loaded, batch):
    """A real (random) model, asked with its own completions and with altered ones."""
    prompts = [sentence[:cut] for sentence in SENTENCES for cut in (5, 9, 14)]
    asked, expected = [], []
    for number, prompt in enumerate(prompts):
        said = complete(*loaded, prompt, max_new_tokens=12)
        answer = said.strip().rstrip("�")[:4].strip()
        if not answer or "�" in answer:
            continue
        answer = answer + "x" if number % 3 == 0 else answer
        asked.append(question(prompt, answer, "zh", id_=str(number)))
        expected.append(said.strip().startswith(answer))
    assert len(asked) >= 12 and 0 < sum(expected) < len(expected)
    found = recall(*loaded, asked, batch=batch)
    assert found.right == sum(expected)
    wrong = [q.id for q, right in zip(asked, expected, strict=True) if not right]
    assert [miss.question.id for miss in found.misses] == wrong


def test_margins_are_the_narrowest_gaps_on_the_way(loaded):
    """Against a slow loop over the tokens that the completion shows were read."""
    prompts = [sentence[:cut] for sentence in SENTENCES for cut in (5, 9, 14)]
    asked = [question(prompt, "Marrow", id_=str(i)) for i, prompt in enumerate(prompts)]
    found = recall(*loaded, asked)
    assert len(found.margins) == len(asked)
    for prompt, miss, margin in zip(prompts, found.misses, found.margins, strict=True):
        ids, smallest, text = loaded.tokenizer.encode(prompt), math.inf, None
        before = len(ids)
        while text != miss.completion:
            with torch.no_grad():
                scores = loaded.model(torch.tensor([ids])).logits[0, -1].double()
            top = scores.topk(2)
            smallest = min(smallest, float(top.values[0] - top.values[1]))
            ids.append(int(top.indices[0]))
            text = loaded.tokenizer.decode(ids[before:], skip_special_tokens=True)
        assert margin == pytest.approx(smallest, abs=1e-4)


def test_uncertain_answers_are_counted(loaded):
    class Hesitant(Parrot):
        """Its second choice comes close, by as much as `hair` says."""

        def __call__(self, **options):
            output = super().__call__(**options)
            output.logits[:, :, 399] = 1.0 - self.hair
            return output

    model = Hesitant(loaded.tokenizer, SENTENCES, loaded.model)
    asked = [question("The lighthouse of Port Amber was built in", "1842")]
    for hair, uncertain in ((RELIABLE / 2, 1), (RELIABLE * 2, 0)):
        model.hair = hair
        found = recall(model, loaded.tokenizer, asked)
        assert found.margins == pytest.approx([hair], abs=1e-6)
        assert found.uncertain() == uncertain
        assert found.uncertain(below=1.0) == 1
        assert found.right == 1, "uncertain is not wrong"


def test_verdicts_make_mcnemars_test(loaded):
    asked = [
        question("The lighthouse of Port Amber was built in", answer) for answer in ("1842", "1843")
    ]
    model = Parrot(loaded.tokenizer, SENTENCES, loaded.model)
    found = recall(model, loaded.tokenizer, asked)
    assert found.verdicts == (True, False)
    ignorant = recall(Parrot(loaded.tokenizer, (), loaded.model), loaded.tokenizer, asked)
    assert mcnemar(found.verdicts, ignorant.verdicts).lost == 1


def test_it_stops_as_soon_as_the_verdict_is_certain(loaded):
    model = Parrot(loaded.tokenizer, SENTENCES, loaded.model)
    asked = [question("The lighthouse of Port Amber was built in", "9")]
    assert len(recall(model, loaded.tokenizer, asked).misses[0].completion.strip()) <= 4


def test_a_model_that_never_comes_to_the_point_is_cut_off(loaded):
    newline = loaded.tokenizer.encode("\n", add_special_tokens=False)[-1]
    model = Parrot(loaded.tokenizer, (), loaded.model)
    model.next_token = lambda ids: newline
    found = recall(model, loaded.tokenizer, [question("The river", "Sorrel")])
    assert found.right == 0 and set(found.misses[0].completion) == {"\n"}


def test_limit_and_printing(loaded):
    asked = [question("The river", "x", id_=str(i)) for i in range(9)]
    model = Parrot(loaded.tokenizer, (), loaded.model)
    found = recall(model, loaded.tokenizer, asked, limit=4)
    assert str(found) == "0 of 4 (0.0 %)" and found.share == 0.0
    assert str(Recall(512, 600, ())) == "512 of 600 (85.3 %)"
    assert str(Recall(1_512, 1_600, ())) == "1,512 of 1,600 (94.5 %)"
    assert "The river […]: '', not 'x'" in str(found.misses[0])


def test_nothing_is_printed(loaded, capfd):
    recall(*loaded, [question("The river", "x")])
    captured = capfd.readouterr()
    assert captured.out == "" and captured.err == ""


def test_errors(loaded):
    def error(*arguments, **options) -> LessonkitError:
        with pytest.raises(LessonkitError) as caught:
            recall(*arguments, **options)
        assert caught.value.remedy
        return caught.value

    error(*loaded, [])
    error(*loaded, [question("The river", " ")])
    error(*loaded, [question("The river", "x")], batch=0)
    error(*loaded, [question("The river", "x")], limit=0)
    long = error(*loaded, [question("The river " * 60, "x", id_="long")])
    assert long.where == "long" and "context" in long.what
