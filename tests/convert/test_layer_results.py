"""Finished layers outlast an interruption, and only the run that they belong to takes them up."""

from __future__ import annotations

from pathlib import Path

import pytest
import torch

from lessonkit.convert.layer_results import FinishedLayers, LayerResult
from lessonkit.errors import LessonkitError
from lessonkit.formats.codebooks import NF4
from lessonkit.quantize.grids import CodebookGrid, Grid, IntGrid, round_to_nearest

NAME = "model.layers.0.mlp.up_proj.weight"
NORM = "model.layers.0.input_layernorm.weight"
WEIGHT = torch.randn(16, 64, generator=torch.Generator().manual_seed(0))


@pytest.mark.parametrize("grid", [IntGrid(3, 32), CodebookGrid(NF4, 32)])
def test_what_is_kept_is_what_comes_back(grid: Grid, tmp_path: Path) -> None:
    quantized = round_to_nearest(WEIGHT, grid)
    norm = torch.arange(4, dtype=torch.bfloat16)
    result = LayerResult({NAME: quantized}, {NORM: norm}, {NAME: {"output_error": 0.25}})
    with FinishedLayers(tmp_path / "work") as finished:
        finished.begin({})
        assert finished.load(0, grid) is None
        finished.save(0, result)
        back = FinishedLayers(tmp_path / "work").load(0, grid)
        assert back is not None and back.reports == result.reports
        assert torch.equal(back.weights()[NAME], quantized.dequantize())
        assert torch.equal(back.weights()[NORM], norm) and back.weights()[NORM].dtype == norm.dtype
        for part in ("codes", "scales", "zeros", "g_idx"):
            ours, theirs = getattr(back.quantized[NAME], part), getattr(quantized, part)
            assert (ours is None and theirs is None) or torch.equal(ours, theirs)
        assert sorted(path.name for path in (tmp_path / "work").iterdir()) == [
            "layer-00000.safetensors", "lock", "run.json",
        ]  # fmt: skip
        finished.forget()
    assert not (tmp_path / "work").exists()


def test_another_run_is_refused_and_told_what_differs(tmp_path: Path) -> None:
    run = {"settings": {"bits": 4}, "shape": (1, 2)}
    with FinishedLayers(tmp_path) as finished:
        finished.begin(run)
        finished.begin(run)
        with pytest.raises(LessonkitError) as caught:
            finished.begin({**run, "settings": {"bits": 3}, "more": 1})
    assert "differs in more, settings" in caught.value.what
    assert "delete this folder" in str(caught.value.remedy)


def test_one_run_at_a_time_and_nothing_is_left_of_one_that_finished_nothing(tmp_path: Path) -> None:
    folder = tmp_path / "work"
    with FinishedLayers(folder):
        with pytest.raises(LessonkitError, match="Another run is at work"):
            FinishedLayers(folder).__enter__()
        assert folder.is_dir()
    assert not folder.exists()


def test_a_folder_that_cannot_be_made_is_told(tmp_path: Path) -> None:
    (tmp_path / "file").touch()
    with pytest.raises(LessonkitError, match="Finished layers cannot be kept"):
        FinishedLayers(tmp_path / "file" / "work").__enter__()
