"""A model with an adapter beside it answers as the merged one; what does not fit is refused."""

from __future__ import annotations

import pytest
import torch

from lessonkit.convert.lora import merge
from lessonkit.errors import LessonkitError
from lessonkit.llama.vocabulary import extend_vocabulary
from lessonkit.models.loading import load
from lessonkit.run.adapted import with_adapter
from lessonkit.run.generate import stream
from tests.convert.adapters import edit_tensors, make_adapter, their_merge
from tests.tiny import make_tiny_llama, make_tokenizer

SAVED = ["embed_tokens", "lm_head"]


@pytest.fixture(scope="module")
def folder(tmp_path_factory):
    return make_tiny_llama(tmp_path_factory.mktemp("model"), seed=3, dtype=torch.float32)


@pytest.fixture(scope="module")
def loaded(folder):
    return load(folder, device="cpu")


def test_an_unmerged_adapter_answers_as_the_merged_model(folder, tmp_path, capsys):
    model = extend_vocabulary(folder / "tokenizer.model", tokens=["<A>", "<B>"]).model
    rows = len(load(folder).tokenizer) + 8
    adapter = make_adapter(folder, tmp_path / "a", rows=rows, modules_to_save=SAVED)
    make_tokenizer(adapter, only_model=True, model=model)
    plain = load(folder, device="cpu")
    capsys.readouterr()
    adapted = with_adapter(plain, adapter)
    assert capsys.readouterr() == ("", ""), "a script reads what is printed"
    assert adapted.model.get_input_embeddings().weight.shape[0] == rows
    assert "<A>" in adapted.tokenizer.get_vocab()
    merged = load(folder, device="cpu").model
    merged.resize_token_embeddings(rows, mean_resizing=False)
    merged.load_state_dict(their_merge(folder, adapter, rows=rows))
    ids = torch.tensor([[1, 300, 301, rows - 1]])
    with torch.inference_mode():
        assert torch.allclose(adapted.model(ids).logits, merged(ids).logits, atol=1e-3)
    assert "".join(stream(*adapted, "The river", max_new_tokens=10))


def test_one_adapter_on_top_of_another_answers_as_both_merged(folder, tmp_path, capsys):
    first = make_adapter(folder, tmp_path / "first", modules_to_save=SAVED)
    second = make_adapter(folder, tmp_path / "second", seed=1, modules_to_save=SAVED)
    both = load(folder, device="cpu")
    for adapter in (first, second):
        both = with_adapter(both, adapter)
    merge(folder, [first, second], tmp_path / "merged", replace_saved=True)
    merged = load(tmp_path / "merged", device="cpu").model
    ids = torch.tensor([[1, 300, 301, 17]])
    with torch.inference_mode():
        logits = both.model(ids).logits
        assert torch.allclose(logits, merged(ids).logits, atol=1e-3)
        assert not torch.allclose(logits, load(folder, device="cpu").model(ids).logits, atol=1e-2)
    assert capsys.readouterr().out == ""  # that is for answers


def test_adapters_that_cannot_be_applied(folder, tmp_path):
    def error(adapter) -> str:
        with pytest.raises(LessonkitError) as caught:
            with_adapter(load(folder, device="cpu"), adapter)
        return caught.value.what

    assert "no adapter" in error(tmp_path)
    small = make_adapter(folder, tmp_path / "small", rows=100, modules_to_save=SAVED)
    assert "100 rows, fewer" in error(small)
    lacking = make_adapter(folder, tmp_path / "lacking")
    edit_tensors(lacking, lambda old: {k: v for k, v in old.items() if "layers.1." in k})
    assert "lacks tensors" in error(lacking)
    wide = make_tiny_llama(tmp_path / "wide", hidden_size=96)
    assert "PEFT cannot apply" in error(make_adapter(wide, tmp_path / "other"))
