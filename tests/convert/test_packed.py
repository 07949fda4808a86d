"""GPTQ and AWQ folders, opened: sizes, values, and files that cannot be right."""

from __future__ import annotations

import json
from pathlib import Path

import pytest
import torch
from safetensors.torch import load_file, save_file

from lessonkit.convert.awq import Awq, to_awq
from lessonkit.convert.gptq import Gptq, to_gptq
from lessonkit.convert.open import open_model, overview
from lessonkit.convert.packed import PackedCheckpoint, UnpackedCheckpoint
from lessonkit.convert.verification import verify_model
from lessonkit.errors import LessonkitError
from lessonkit.quantize.grids import AwqGrid, IntGrid
from tests.convert.quantized import CALIBRATION, UP
from tests.tiny import make_tiny_llama


@pytest.fixture(scope="module")
def folders(tmp_path_factory: pytest.TempPathFactory) -> dict[str, Path]:
    root = tmp_path_factory.mktemp("packed")
    source = make_tiny_llama(root / "tiny", attention_bias=True)
    to_gptq(source, root / "gptq", CALIBRATION, Gptq(IntGrid(3, 32), order="desc_act"))
    to_awq(source, root / "awq", CALIBRATION, Awq(AwqGrid(32)))
    return {"source": source, "gptq": root / "gptq", "awq": root / "awq"}


@pytest.mark.parametrize("kind", ["gptq", "awq"])
def test_sizes_names_and_form(folders: dict[str, Path], kind: str) -> None:
    plain, packed = open_model(folders["source"]), open_model(folders[kind])
    shown = UnpackedCheckpoint(folders[kind])
    assert isinstance(packed, PackedCheckpoint) and packed.parameters == plain.parameters
    assert sorted(shown.names()) == sorted(plain.names())
    for name in plain.names():
        assert shown.info(name).shape == plain.info(name).shape == shown.array(name).shape
    assert shown.info(UP).dtype == "F32" and shown.info(UP).nbytes == shown.array(UP).nbytes
    form = {"gptq": "GPTQ (3 bits, groups of 32, act-order)", "awq": "AWQ (4 bits, groups of 32)"}
    assert form[kind] in overview(packed)
    assert verify_model(folders[kind]).ok


def test_the_values_are_scale_times_code_minus_zero_point(folders: dict[str, Path]) -> None:
    shown = UnpackedCheckpoint(folders["gptq"])
    q = shown.quantized(UP)
    out, column = 5, 40
    group = int(q.g_idx[column])
    assert q.zeros is not None and q.g_idx.diff().any()
    by_hand = float(q.scales[out, group]) * (int(q.codes[out, column]) - int(q.zeros[out, group]))
    assert float(shown.tensor(UP)[out, column]) == by_hand
    assert torch.equal(torch.from_numpy(shown.array(UP)), shown.tensor(UP))


def altered(folder: Path, out: Path, tensors=None, **said) -> Path:
    """A copy of a folder with other tensors, or with other words in its configuration."""
    out.mkdir()
    for path in folder.iterdir():
        (out / path.name).write_bytes(path.read_bytes())
    if tensors:
        save_file({**load_file(folder / "model.safetensors"), **tensors}, out / "model.safetensors")
    config = json.loads((folder / "config.json").read_text())
    config["quantization_config"] |= said
    (out / "config.json").write_text(json.dumps(config))
    return out


def test_other_forms_and_damaged_parts_are_told(folders: dict[str, Path], tmp_path: Path) -> None:
    def error_of(kind: str, number: int, tensors=None, **said) -> str:
        folder = altered(folders[kind], tmp_path / str(number), tensors, **said)
        with pytest.raises(LessonkitError) as caught:
            PackedCheckpoint(folder).quantized(UP)
        return caught.value.what

    g_idx = UP.replace("weight", "g_idx")
    assert "'marlin'" in error_of("gptq", 1, checkpoint_format="marlin")
    plain = PackedCheckpoint(folders["gptq"]).quantized(UP).dequantize()
    for number, kind in enumerate(["", None, "GPTQ"], start=20):
        same = altered(folders["gptq"], tmp_path / str(number), checkpoint_format=kind)
        assert torch.equal(PackedCheckpoint(same).quantized(UP).dequantize(), plain)
    assert "'gemv'" in error_of("awq", 2, version="gemv")
    assert "do not fit" in error_of("gptq", 3, {g_idx: torch.full((64,), 2, dtype=torch.int32)})
    assert "do not fit" in error_of("gptq", 4, {g_idx: torch.zeros(32, dtype=torch.int32)})
    for number, (kind, said) in enumerate([
        ("gptq", {"bits": 5}), ("awq", {"bits": 3}), ("gptq", {"bits": None}),
        ("gptq", {"bits": "4"}), ("gptq", {"group_size": 0}), ("awq", {"group_size": -2}),
        ("awq", {"group_size": True}),
    ], start=5):  # fmt: skip
        (key,) = said
        assert error_of(kind, number, **said).startswith(f"{key} is {said[key]!r} in the")


def test_files_without_g_idx_have_groups_as_they_stand(
    folders: dict[str, Path], tmp_path: Path
) -> None:
    out = tmp_path / "out"
    to_gptq(folders["source"], out, CALIBRATION, Gptq(IntGrid(4, 32)))
    whole = PackedCheckpoint(out).quantized(UP).dequantize()
    tensors = load_file(out / "model.safetensors")
    bare = {name: tensor for name, tensor in tensors.items() if not name.endswith("g_idx")}
    save_file(bare, out / "model.safetensors")
    assert torch.equal(PackedCheckpoint(out).quantized(UP).dequantize(), whole)
