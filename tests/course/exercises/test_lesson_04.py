"""The references of lesson 04 against PEFT and the project's own writer; each mistake's hint."""

from __future__ import annotations

import json
from pathlib import Path
from typing import Any

import numpy as np
import pytest

from lessonkit.convert import adapter_to_gguf, deltas, open_adapter
from lessonkit.course.exercises import attempt, lesson_04
from tests.tiny import make_tiny_llama

peft = pytest.importorskip("peft")
torch = pytest.importorskip("torch")

EACH = [(e, m) for e in lesson_04.EXERCISES for m in e.mistakes]


def linear(rows: int, columns: int) -> Any:
    return torch.nn.Sequential(torch.nn.Linear(columns, rows, bias=False).double())


def test_the_lesson_has_its_exercises() -> None:
    names = [exercise.name for exercise in lesson_04.EXERCISES]
    assert names == ["merged_weight", "adapter_size", "gguf_alpha"]


def test_a_merge_worked_by_hand() -> None:
    a, b = np.array([[3.0, -1.0]]), np.array([[1.0], [2.0]])
    merged = lesson_04.merged_weight(np.eye(2), a, b, alpha=2, rslora=False)
    assert merged.tolist() == [[7, -2], [12, -3]]


@pytest.mark.parametrize("case", lesson_04._merge_cases())
def test_merges_are_pefts(case: tuple) -> None:
    weight, a, b, alpha, rslora = case
    config = peft.LoraConfig(r=len(a), lora_alpha=alpha, use_rslora=rslora, target_modules=["0"])
    model = peft.get_peft_model(linear(*weight.shape), config)
    layer = model.base_model.model[0]
    with torch.no_grad():
        layer.weight.copy_(torch.from_numpy(weight))
        layer.lora_A.default.weight.data = torch.from_numpy(a)
        layer.lora_B.default.weight.data = torch.from_numpy(b)
    theirs = model.merge_and_unload()[0].weight.detach().numpy()
    assert np.allclose(lesson_04.merged_weight(*case), theirs, atol=1e-12)


@pytest.mark.parametrize(("rows", "columns", "rank"), [(12, 8, 3), (8, 12, 2)])
def test_sizes_are_what_peft_trains(rows: int, columns: int, rank: int) -> None:
    config = peft.LoraConfig(r=rank, target_modules=["0"])
    model = peft.get_peft_model(linear(rows, columns), config)
    trained = sum(p.numel() for p in model.parameters() if p.requires_grad)
    assert lesson_04.adapter_size({"0": (rows, columns)}, rank, set()) == trained
    assert lesson_04.adapter_size({"0": (rows, columns)}, rank, {"0"}) == rows * columns


@pytest.mark.parametrize("rslora", [False, True])
def test_alpha_is_what_the_writer_writes(tmp_path: Path, rslora: bool) -> None:
    gguf = pytest.importorskip("gguf")
    from transformers import AutoModelForCausalLM

    base = make_tiny_llama(tmp_path / "llama")
    config = peft.LoraConfig(
        r=4, lora_alpha=8, use_rslora=rslora, target_modules=["v_proj"], init_lora_weights=False
    )
    model = peft.get_peft_model(AutoModelForCausalLM.from_pretrained(base), config)
    model.save_pretrained(tmp_path / "adapter")
    adapter_to_gguf(tmp_path / "adapter", tmp_path / "a.gguf", base=base)
    reader = gguf.GGUFReader(tmp_path / "a.gguf")
    alpha = reader.get_field("adapter.lora.alpha").contents()
    assert alpha == pytest.approx(lesson_04.gguf_alpha(4, 8.0, rslora))
    found = {t.name: np.array(t.data) for t in reader.tensors}
    name = "blk.0.attn_v.weight"
    change = alpha / 4 * found[f"{name}.lora_b"] @ found[f"{name}.lora_a"]
    true = dict(deltas(open_adapter(tmp_path / "adapter")))[
        "model.layers.0.self_attn.v_proj.weight"
    ]
    assert np.allclose(change, true, atol=1e-5)
    assert json.loads((tmp_path / "adapter" / "adapter_config.json").read_text())["lora_alpha"] == 8


@pytest.mark.parametrize("exercise", lesson_04.EXERCISES, ids=lambda e: e.name)
def test_the_solution_is_right(exercise: Any, capsys: pytest.CaptureFixture[str]) -> None:
    attempt(exercise.name, exercise.reference)
    assert f"{exercise.name}: right" in capsys.readouterr().out


@pytest.mark.parametrize(("exercise", "mistake"), EACH, ids=lambda x: getattr(x, "name", ""))
def test_each_mistake_gets_its_own_hint(
    exercise: Any, mistake: Any, capsys: pytest.CaptureFixture[str]
) -> None:
    attempt(exercise.name, mistake.answer)
    told = capsys.readouterr().out
    assert "wrong" in told and mistake.hint in told
