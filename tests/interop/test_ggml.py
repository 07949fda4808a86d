"""Every block of every format next to llama.cpp's own quantiser, built from source.

`make interop` builds the library (see ggml_library.py), and lets nothing be skipped.
Elsewhere these tests are skipped where it is missing, and say so.
"""

from __future__ import annotations

import json
import os
from pathlib import Path

import numpy as np
import pytest

from lessonkit.files.checkpoint import open_checkpoint
from lessonkit.formats.ggml import FORMATS
from tests.convert.golden.gguf_mixes import MODELS, condense, read_snapshot
from tests.formats.ggml.samples import samples
from tests.interop.ggml_library import (
    FOLDER,
    VARIANTS,
    GgmlLibrary,
    build,
    golden,
    library,
    source,
)

ROOT = Path(__file__).resolve().parents[2]


@pytest.fixture(scope="module")
def libraries() -> dict[str, GgmlLibrary]:
    if not all(library(variant).is_file() for variant in VARIANTS):
        if os.environ.get("LESSONKIT_INTEROP") != "required":
            pytest.skip("not compared: ggml is not here (python tests/interop/ggml_library.py)")
        FOLDER.mkdir(parents=True, exist_ok=True)
        build()
    return {variant: GgmlLibrary(library(variant)) for variant in VARIANTS}


@pytest.fixture(scope="module")
def data() -> dict[str, np.ndarray]:
    """Rows to encode: the samples, larger random ones, and the embedded model's."""
    random = np.random.default_rng(7)

    def normal(*shape: int) -> np.ndarray:
        return random.standard_normal(shape, dtype=np.float32) * np.float32(0.02)

    out = samples()
    out["2048 wide"] = normal(96, 2048)
    out["5632 wide"] = normal(24, 5632)
    out["Student's t"] = (0.02 * random.standard_t(2, (96, 1024))).astype(np.float32)
    out["one row"] = normal(1, 256)
    checkpoint = open_checkpoint(ROOT / "data" / "mini")
    for name in checkpoint:
        if "layers.2." in name or "embed" in name:
            tensor = checkpoint.tensor(name)
            if tensor.ndim == 2:
                out[f"mini {name}"] = tensor.float().numpy()
    return out


def weights(kind: str, columns: int) -> np.ndarray | None:
    """No importance matrix, a wide one, one with many zeros, one of zeros alone."""
    random = np.random.default_rng(3)
    wide = np.exp(2 * random.standard_normal(columns)).astype(np.float32)
    return {
        "none": None,
        "wide": wide,
        "half zero": wide * (random.random(columns) > 0.5).astype(np.float32),
        "zero": np.zeros(columns, np.float32),
    }[kind]


@pytest.mark.parametrize("importance", ["none", "wide", "half zero", "zero"])
@pytest.mark.parametrize("name", FORMATS)
def test_every_block_is_the_same(
    name: str, importance: str, libraries: dict[str, GgmlLibrary], data: dict[str, np.ndarray]
) -> None:
    kind = FORMATS[name]
    compared, wrong = 0, {}
    for label, values in data.items():
        w = weights(importance, values.shape[1])
        theirs = libraries["plain"].quantize(kind, values, w).reshape(-1, kind.bytes)
        ours = kind.encode(values, w).reshape(-1, kind.bytes)
        differs = (ours != theirs).any(axis=1)
        compared += len(ours)
        if differs.any():
            wrong[label] = f"{differs.sum()} of {len(ours)} blocks, the first {differs.argmax()}"
    assert not wrong
    assert compared > 8000
    print(f"{name}, importance {importance}: {compared} of {compared} blocks the same")


def test_fused_multiply_add_changes_some_formats(libraries: dict[str, GgmlLibrary]) -> None:
    """So "byte-identical" needs "to a build without it", as x86-64 has by default."""
    values = np.random.default_rng(1).standard_normal((256, 2048), dtype=np.float32)
    values *= np.float32(0.02)
    shares = {}
    for name, kind in FORMATS.items():
        for importance in ("none", "wide"):
            w = weights(importance, values.shape[1])
            plain, fused = (
                libraries[variant].quantize(kind, values, w).reshape(-1, kind.bytes)
                for variant in ("plain", "fma")
            )
            shares[name, importance] = float((plain != fused).any(axis=1).mean())
            print(
                f"{name}, importance {importance}: {shares[name, importance]:.3%} of blocks differ"
            )
    assert shares["Q5_K", "none"] > 0.05
    assert shares["Q8_0", "none"] == shares["MXFP4", "none"] == shares["Q4_0", "none"] == 0


def test_mxfp4_exponents_near_every_power_of_two(libraries: dict[str, GgmlLibrary]) -> None:
    """The C library's logf decides there; ours is a rounded float64 logarithm."""
    powers = np.ldexp(np.float32(1), np.arange(-126, 128)).view(np.uint32)
    offsets = np.arange(-96, 97)
    largest = (powers[:, None].astype(np.int64) + offsets).astype(np.uint32).view(np.float32)
    largest = largest[np.isfinite(largest) & (largest > 0)]
    values = np.zeros((len(largest), 32), np.float32)
    values[:, 0] = largest
    kind = FORMATS["MXFP4"]
    assert np.array_equal(kind.encode(values), libraries["plain"].quantize(kind, values))


def test_the_stored_hashes_are_the_library_s(libraries: dict[str, GgmlLibrary]) -> None:
    stored = ROOT / "tests" / "formats" / "ggml" / "golden.json"
    assert json.loads(stored.read_text(encoding="utf-8")) == golden(FOLDER)


@pytest.mark.parametrize("model", MODELS)
def test_the_stored_mixes_are_llama_cpp_s(model: str, libraries: dict[str, GgmlLibrary]) -> None:
    """So tests/convert/test_gguf_mix.py compares with every line of the full files."""
    stored = json.loads((ROOT / "tests/convert/golden/gguf_mixes.json").read_text("utf-8"))
    snapshot = read_snapshot(source() / "tests" / "snapshots" / f"{model}.schema")
    assert stored["models"][model]["figures"] == snapshot["figures"]
    assert stored["models"][model]["mixes"] == {
        mix: {"kind": section["kind"], "exceptions": condense(section["exceptions"])}
        for mix, section in snapshot["mixes"].items()
    }
