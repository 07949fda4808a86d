"""GPTQ of `mini` beside GPTQModel's, with the same settings on the same tokens of real text."""

from __future__ import annotations

from pathlib import Path

import pytest
import torch

from lessonkit.convert.calibration import Calibration, cut_calibration
from lessonkit.convert.decoder import BLOCKS, Decoder
from lessonkit.convert.gptq import Gptq
from lessonkit.convert.hf_checkpoint import HfCheckpoint
from lessonkit.convert.layerwise import quantize_layers
from lessonkit.convert.packed import UnpackedCheckpoint
from lessonkit.models import calibration_text, evaluation_text, load
from lessonkit.quantize.gptq import Hessian, output_error
from lessonkit.quantize.grids import IntGrid, round_to_nearest
from tests.convert.gptqmodel_twin import quantised_by_gptqmodel

Weights = dict[str, torch.Tensor]


@pytest.fixture(scope="module")
def calibration(mini: Path) -> Calibration:
    tokenizer = load(mini).tokenizer
    return cut_calibration(tokenizer, calibration_text("island"), num_samples=16, seqlen=256)


@pytest.fixture(scope="module")
def theirs(
    mini: Path, calibration: Calibration, tmp_path_factory: pytest.TempPathFactory
) -> Weights:
    pytest.importorskip("gptqmodel")
    out = tmp_path_factory.mktemp("twin") / "gptq"
    opened = UnpackedCheckpoint(quantised_by_gptqmodel(mini, out, calibration.ids, "gptq"))
    return {name: opened.tensor(name) for name in opened.packed}


@pytest.fixture(scope="module")
def ours(mini: Path, calibration: Calibration) -> Weights:
    results = quantize_layers(mini, calibration, Gptq(IntGrid(4, 128)))
    return {name: weight for result in results for name, weight in result.weights().items()}


@pytest.fixture(scope="module")
def hessians(mini: Path, calibration: Calibration) -> Weights:
    """Of the unquantised model's inputs, for every linear weight."""
    decoder = Decoder(HfCheckpoint(mini), torch.device("cpu"), torch.float32)
    hidden = torch.empty(16, 256, 256)
    decoder.embed(calibration.ids, hidden)
    found: Weights = {}
    for index in range(decoder.layers):
        layer = decoder.layer(index)
        groups = [linears for block in BLOCKS for linears in block.inputs]
        each = {linears[0]: Hessian(layer.weight(linears[0]).shape[1]) for linears in groups}
        layer.collect(hidden, BLOCKS, {name: one.add for name, one in each.items()})
        layer.advance(hidden)
        for linears in groups:
            for linear in linears:
                found[f"{layer.prefix}{linear}.weight"] = each[linears[0]].matrix
    return found


def original(mini: Path) -> Weights:
    model = load(mini, dtype="float32").model
    return {name: parameter.data for name, parameter in model.named_parameters()}


def test_the_layers_outputs_are_no_worse(
    mini: Path, ours: Weights, theirs: Weights, hessians: Weights
) -> None:
    before = original(mini)

    def total(weights: Weights) -> float:
        errors = (output_error(before[n], weights[n], hessian) for n, hessian in hessians.items())
        return sum(errors)

    rounded = {n: round_to_nearest(before[n], IntGrid(4, 128)).dequantize() for n in hessians}
    assert total(ours) <= 1.01 * total(theirs)
    assert total(ours) < 0.7 * total(rounded)


def test_the_predictions_are_no_worse(mini: Path, ours: Weights, theirs: Weights) -> None:
    """Divergence from the original on a text that neither has seen, paired."""
    model, tokenizer = load(mini, dtype="float32")
    text = evaluation_text("island", "validation").joined()
    ids = torch.tensor(tokenizer(text, verbose=False).input_ids[: 16 * 256]).view(16, 256)

    def log_probabilities(weights: Weights) -> torch.Tensor:
        model.load_state_dict(weights, strict=False)
        with torch.no_grad():
            scores: torch.Tensor = model(ids).logits.log_softmax(-1)
        return scores

    base = log_probabilities({})

    def divergence(weights: Weights) -> torch.Tensor:
        return (base.exp() * (base - log_probabilities(weights))).sum(-1).flatten()

    difference = divergence(ours) - divergence(theirs)
    error = difference.std() / len(difference) ** 0.5
    assert float(difference.mean()) < 2 * float(error)
