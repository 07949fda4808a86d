"""Layer by layer: the right inputs, resumed where a run ended, and nothing that cannot work."""

from __future__ import annotations

import json
import shutil
from pathlib import Path

import pytest
import torch

from lessonkit.convert.awq import Awq
from lessonkit.convert.calibration import Calibration
from lessonkit.convert.gptq import Gptq
from lessonkit.convert.layer_results import FinishedLayers
from lessonkit.convert.layerwise import Method, quantize_layers
from lessonkit.errors import LessonkitError
from lessonkit.quantize.grids import AwqGrid, IntGrid
from tests.convert.quantized import CALIBRATION
from tests.tiny import make_tiny_llama

METHODS = [
    Gptq(IntGrid(4, 32)),
    Gptq(IntGrid(4, 32), true_sequential=False),
    Awq(AwqGrid(32)),
    Awq(AwqGrid(32), inputs="quantized"),
]
NAMES = ["gptq", "gptq, not sequential", "awq", "awq on quantised inputs"]


@pytest.fixture(scope="module")
def source(tmp_path_factory: pytest.TempPathFactory) -> Path:
    return make_tiny_llama(tmp_path_factory.mktemp("layerwise") / "tiny")


def weights_of(results) -> dict[str, torch.Tensor]:
    return {name: tensor for result in results for name, tensor in result.weights().items()}


def assert_equal(ours: dict[str, torch.Tensor], theirs: dict[str, torch.Tensor]) -> None:
    assert ours.keys() == theirs.keys()
    for name in ours:
        assert torch.equal(ours[name], theirs[name]), name


@pytest.mark.parametrize("method", METHODS, ids=NAMES)
@pytest.mark.parametrize("on_disk", [False, True], ids=["memory", "disk"])
def test_an_interrupted_run_goes_on_to_the_same_bytes(
    source: Path, method: Method, on_disk: bool, tmp_path: Path
) -> None:
    whole = weights_of(quantize_layers(source, CALIBRATION, method))
    with FinishedLayers(tmp_path / "work") as finished:
        run = quantize_layers(
            source, CALIBRATION, method, finished=finished, activations_on_disk=on_disk
        )
        next(run)
        run.close()  # and nothing of it is left in memory
    assert (tmp_path / "work" / "layer-00000.safetensors").is_file()
    with FinishedLayers(tmp_path / "work") as finished:
        again = quantize_layers(
            source, CALIBRATION, method, finished=finished, activations_on_disk=on_disk
        )
        assert_equal(weights_of(again), whole)


def test_finished_layers_are_not_done_again(
    source: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    with FinishedLayers(tmp_path / "work") as finished:
        list(quantize_layers(source, CALIBRATION, METHODS[0], finished=finished))
        monkeypatch.setattr(Gptq, "quantize", lambda *_: pytest.fail("it was done again"))
        found = list(quantize_layers(source, CALIBRATION, METHODS[0], finished=finished))
    assert len(found) == 2


def test_a_source_that_changes_meanwhile_leaves_no_layer(source: Path, tmp_path: Path) -> None:
    """Its layers would be taken up by the next run, if the file were put back."""
    copied = shutil.copytree(source, tmp_path / "source")
    with FinishedLayers(tmp_path / "work") as finished:
        run = quantize_layers(copied, CALIBRATION, METHODS[0], finished=finished)
        next(run)
        (copied / "model.safetensors").touch()
        with pytest.raises(LessonkitError, match="changed"):
            next(run)
        assert finished.load(0, METHODS[0].grid) and not finished.load(1, METHODS[0].grid)


def test_another_calibration_or_setting_is_not_taken_up(source: Path, tmp_path: Path) -> None:
    with FinishedLayers(tmp_path) as finished:
        next(quantize_layers(source, CALIBRATION, METHODS[0], finished=finished))
        other = Calibration(CALIBRATION.ids.flip(0), "the same in another order")
        with pytest.raises(LessonkitError, match="calibration"):
            next(quantize_layers(source, other, METHODS[0], finished=finished))
        with pytest.raises(LessonkitError, match="settings"):
            next(quantize_layers(source, CALIBRATION, METHODS[1], finished=finished))


def test_later_layers_see_what_the_quantised_ones_give(source: Path) -> None:
    """At 2 bits the first layer's output is another; the second layer is rounded for that."""
    from transformers import AutoModelForCausalLM

    from lessonkit.quantize.gptq import Hessian

    first, second = quantize_layers(source, CALIBRATION, Gptq(IntGrid(2, 32)))
    model = AutoModelForCausalLM.from_pretrained(source, dtype=torch.float32).eval()
    model.load_state_dict(first.weights(), strict=False)
    hessian = Hessian(64)
    model.model.layers[1].self_attn.q_proj.register_forward_pre_hook(
        lambda module, inputs: hessian.add(inputs[0])
    )
    with torch.no_grad():
        model(CALIBRATION.ids)
    from lessonkit.quantize.gptq import gptq

    name = "model.layers.1.self_attn.q_proj.weight"
    expected = gptq(model.model.layers[1].self_attn.q_proj.weight, hessian.matrix, IntGrid(2, 32))
    same = (second.weights()[name] == expected.weight).float().mean()
    assert float(same) > 0.99  # another summation order moves a code now and then


def test_a_bfloat16_run_differs_and_works(source: Path) -> None:
    results = list(quantize_layers(source, CALIBRATION, METHODS[0], compute_dtype="bf16"))
    assert all(weight.isfinite().all() for weight in weights_of(results).values())


def test_what_is_refused(source: Path, tmp_path: Path) -> None:
    def error_of(model: Path, ids: torch.Tensor, **options) -> str:
        with pytest.raises(LessonkitError) as caught:
            next(quantize_layers(model, Calibration(ids, "test"), METHODS[0], **options))
        return caught.value.what

    ids = CALIBRATION.ids
    assert "400 embeddings" in error_of(source, ids + 300)
    assert "longer than the 128" in error_of(source, ids.reshape(2, 144))
    assert "cannot compute in int8" in error_of(source, ids, compute_dtype="int8")
    assert "no folder" in error_of(source, ids, activations_on_disk=True)
    quantised = make_tiny_llama(tmp_path / "quantised")
    config = json.loads((quantised / "config.json").read_text())
    config["quantization_config"] = {"quant_method": "gptq"}
    (quantised / "config.json").write_text(json.dumps(config))
    assert "quantised already" in error_of(quantised, ids)
