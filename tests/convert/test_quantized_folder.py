"""A run that ends early leaves no output, but its layers to the next one; shards and dtypes."""

from __future__ import annotations

import json
import os
import signal
import subprocess
import sys
import time
from pathlib import Path

import pytest
import torch
from safetensors.torch import load_file

import lessonkit
from lessonkit.convert.gptq import Gptq, to_gptq
from lessonkit.convert.layerwise import quantize_layers
from lessonkit.errors import LessonkitError
from lessonkit.files.certificate import CERTIFICATE_NAME
from lessonkit.quantize.grids import IntGrid
from tests.convert.quantized import CALIBRATION, contents
from tests.tiny import make_tiny_llama

METHOD = Gptq(IntGrid(4, 32))
SLOW = """
import sys, time
from lessonkit.convert.gptq import Gptq, to_gptq
from tests.convert.quantized import CALIBRATION
from tests.convert.test_quantized_folder import METHOD
quantize = Gptq.quantize
def slow(self, layer, hidden):
    if layer.prefix == "model.layers.1.":
        time.sleep(600)
    return quantize(self, layer, hidden)
Gptq.quantize = slow
to_gptq(sys.argv[1], sys.argv[2], CALIBRATION, METHOD)
"""


@pytest.fixture(scope="module")
def source(tmp_path_factory: pytest.TempPathFactory) -> Path:
    return make_tiny_llama(tmp_path_factory.mktemp("quantized_folder") / "tiny")


@pytest.mark.skipif(sys.platform == "win32", reason="there is no such signal")
def test_a_killed_run_is_taken_up_where_it_ended(
    source: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    out = tmp_path / "out"
    root = str(Path(lessonkit.__file__).parents[1])
    run = subprocess.Popen(
        [sys.executable, "-c", SLOW, str(source), str(out)],
        env={**os.environ, "PYTHONPATH": root},
    )
    first = tmp_path / "out.unfinished" / "layer-00000.safetensors"
    while not first.is_file():
        assert run.poll() is None
        time.sleep(0.05)
    run.send_signal(signal.SIGKILL)
    run.wait()
    assert [path.name for path in tmp_path.iterdir()] == ["out.unfinished"]

    done = []
    quantize = Gptq.quantize
    monkeypatch.setattr(
        Gptq,
        "quantize",
        lambda self, layer, x: done.append(layer.prefix) or quantize(self, layer, x),
    )
    to_gptq(source, out, CALIBRATION, METHOD)
    assert done == ["model.layers.1."] and not first.exists()
    monkeypatch.undo()
    to_gptq(source, tmp_path / "whole", CALIBRATION, METHOD)
    assert contents(out) == contents(tmp_path / "whole")


def test_shards_and_dtypes(source: Path, tmp_path: Path) -> None:
    to_gptq(source, tmp_path / "out", CALIBRATION, METHOD)
    certificate = to_gptq(
        source, tmp_path / "shards", CALIBRATION, METHOD, dtype="fp16", max_shard_bytes=60_000
    )
    whole = load_file(tmp_path / "out" / "model.safetensors")
    files = sorted((tmp_path / "shards").glob("*.safetensors"))
    parts = {name: tensor for file in files for name, tensor in load_file(file).items()}
    assert len(files) > 1 and parts.keys() == whole.keys()
    for name, tensor in whole.items():
        expected = tensor.to(torch.float16) if tensor.dtype == torch.bfloat16 else tensor
        assert torch.equal(parts[name], expected), name
    assert certificate.records["lm_head.weight"].verdict.startswith("dtype cast")
    assert set(json.loads((tmp_path / "shards" / CERTIFICATE_NAME).read_text())["tensors"]) == set(
        whole
    )


def test_the_order_of_the_sources_tensors_does_not_matter(source: Path, tmp_path: Path) -> None:
    """Layers are asked for one after another, or back and forth."""
    from lessonkit.convert.layer_results import FinishedLayers
    from lessonkit.convert.quantized_folder import LayersByName

    with FinishedLayers(tmp_path) as finished:
        results = list(quantize_layers(source, CALIBRATION, METHOD, finished=finished))
        layers = LayersByName(finished, METHOD.grid)
        for index in (1, 0, 1):
            name = f"model.layers.{index}.mlp.up_proj.weight"
            found = layers.of(name).quantized[name]
            assert torch.equal(found.codes, results[index].quantized[name].codes)
        assert not layers.of("lm_head.weight").quantized


def test_meta_files_are_sent_to_the_right_command(tmp_path: Path) -> None:
    (tmp_path / "meta").mkdir()
    (tmp_path / "meta" / "params.json").write_text("{}")
    with pytest.raises(LessonkitError) as caught:
        to_gptq(tmp_path / "meta", tmp_path / "out", CALIBRATION, METHOD)
    assert "Meta" in str(caught.value)
