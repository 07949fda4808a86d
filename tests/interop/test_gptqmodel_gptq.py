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
from lessonkit.models import calibration_text, load
from lessonkit.quantize.gptq import Hessian, output_error
from lessonkit.quantize.grids import IntGrid, round_to_nearest
from tests.convert.beside import Unseen, Weights
from tests.interop.gptqmodel_twin import quantised_by_gptqmodel


@pytest.fixture(scope="module")
def calibration(mini: Path) -> Calibration:
    tokenizer = load(mini).tokenizer
    return cut_calibration(tokenizer, calibration_text("island"), num_samples=16, seqlen=256)


def by_gptqmodel(mini: Path, calibration: Calibration, out: Path, bits: int) -> Weights:
    opened = UnpackedCheckpoint(quantised_by_gptqmodel(mini, out, calibration.ids, "gptq", bits))
    return {name: opened.tensor(name) for name in opened.packed}


def by_us(mini: Path, calibration: Calibration, bits: int) -> Weights:
    results = quantize_layers(mini, calibration, Gptq(IntGrid(bits, 128)))
    return {name: weight for result in results for name, weight in result.weights().items()}


@pytest.fixture(scope="module")
def theirs(
    mini: Path, calibration: Calibration, tmp_path_factory: pytest.TempPathFactory
) -> Weights:
    return by_gptqmodel(mini, calibration, tmp_path_factory.mktemp("twin") / "gptq", 4)


@pytest.fixture(scope="module")
def ours(mini: Path, calibration: Calibration) -> Weights:
    return by_us(mini, calibration, 4)


@pytest.fixture(scope="module")
def hessians(mini: Path, calibration: Calibration) -> Weights:
    """Of the unquantised model's inputs, for every linear weight."""
    decoder = Decoder(HfCheckpoint(mini), torch.device("cpu"), torch.float32)
    hidden = torch.empty(16, 256, 256)
    decoder.embed(calibration.ids, hidden)
    found = {}
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
    unseen = Unseen(mini, {"ours": ours, "theirs": theirs})
    assert unseen.perplexity_gap("ours", "theirs").no_worse
    assert unseen.divergence_gap("ours", "theirs").no_worse


def test_at_3_bits_they_are_no_worse_and_better_than_rounding(
    mini: Path, calibration: Calibration, tmp_path: Path
) -> None:
    """Even rounded, `mini`'s perplexity hardly moves at 3 bits; the divergence tells them apart."""
    ours = by_us(mini, calibration, 3)
    theirs = by_gptqmodel(mini, calibration, tmp_path / "gptq", 3)
    before = original(mini)
    rounded = {n: round_to_nearest(before[n], IntGrid(3, 128)).dequantize() for n in ours}
    unseen = Unseen(mini, {"ours": ours, "theirs": theirs, "rounded": rounded})
    assert unseen.perplexity_gap("ours", "theirs").no_worse
    assert unseen.divergence_gap("ours", "theirs").no_worse
    assert unseen.perplexity_gap("ours", "rounded").no_worse
    assert unseen.divergence_gap("ours", "rounded").better
