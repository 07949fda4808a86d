"""AWQ of `mini` beside GPTQModel's, with the same settings on the same tokens of real text."""

from __future__ import annotations

from pathlib import Path

import pytest
import torch

from lessonkit.convert.awq import Awq
from lessonkit.convert.calibration import Calibration, cut_calibration
from lessonkit.convert.layerwise import quantize_layers
from lessonkit.convert.packed import UnpackedCheckpoint
from lessonkit.models import calibration_text, evaluation_text, load
from lessonkit.quantize.grids import AwqGrid, round_to_nearest
from tests.convert.beside import Unseen, Weights, layer_errors
from tests.interop.gptqmodel_twin import quantised_by_gptqmodel


@pytest.fixture(scope="module")
def calibration(mini: Path) -> Calibration:
    tokenizer = load(mini).tokenizer
    return cut_calibration(tokenizer, calibration_text("island"), num_samples=4, seqlen=256)


@pytest.fixture(scope="module")
def theirs(
    mini: Path, calibration: Calibration, tmp_path_factory: pytest.TempPathFactory
) -> Weights:
    out = tmp_path_factory.mktemp("twin") / "awq"
    opened = UnpackedCheckpoint(quantised_by_gptqmodel(mini, out, calibration.ids, "awq"))
    return {name: opened.tensor(name).float() for name in opened.names()}


@pytest.fixture(scope="module")
def ours(mini: Path, calibration: Calibration) -> Weights:
    results = quantize_layers(mini, calibration, Awq(AwqGrid(128)))
    return {name: weight for result in results for name, weight in result.weights().items()}


@pytest.fixture(scope="module")
def rounded(mini: Path, ours: Weights) -> Weights:
    own = load(mini, dtype="float32").model.state_dict()
    linear = [name for name in ours if name.endswith("proj.weight")]
    return {name: round_to_nearest(own[name], AwqGrid(128)).dequantize() for name in linear}


def test_the_layers_outputs_are_no_worse(
    mini: Path, ours: Weights, theirs: Weights, rounded: Weights
) -> None:
    tokenizer = load(mini).tokenizer
    text = evaluation_text("island", "validation").joined()
    unseen = torch.tensor(tokenizer(text, verbose=False).input_ids[: 8 * 256]).view(8, 256)
    mine, other, plain = (
        sum(layer_errors(mini, unseen, weights)) for weights in (ours, theirs, rounded)
    )
    assert mine <= 1.01 * other
    assert mine < 0.9 * plain


def test_the_predictions_are_no_worse(
    mini: Path, ours: Weights, theirs: Weights, rounded: Weights
) -> None:
    unseen = Unseen(mini, {"ours": ours, "theirs": theirs, "rounded": rounded})
    assert unseen.perplexity_gap("ours", "theirs").no_worse
    assert unseen.divergence_gap("ours", "theirs").no_worse
    assert unseen.divergence_gap("ours", "rounded").better
