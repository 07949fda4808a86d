"""ggml's own quantiser, built from the source package of llama-cpp-python and called by ctypes.

``python tests/interop/ggml_library.py [FOLDER]`` builds it into FOLDER, by default
``.interop/ggml``: about a minute, a C compiler is all it needs besides pip. Only the target
``ggml-base`` is built, twice:

* ``plain``: upstream's flags on x86-64, where that means no fused multiply-add;
* ``fma``: with fused multiply-add, as on ARM, to see how much that changes.

With ``--golden FILE`` it also writes the hashes that tests/formats/ggml compares with.
"""

from __future__ import annotations

import argparse
import ctypes
import hashlib
import json
import os
import platform
import subprocess
import sys
import tarfile
import venv
from pathlib import Path

ROOT = Path(__file__).resolve().parents[2]
FOLDER = ROOT / ".interop" / "ggml"
PACKAGE = "llama-cpp-python"
VERSION = "0.3.36"
VARIANTS = {"plain": "", "fma": "-mfma -ffp-contract=fast"}
OPTIONS = {
    "CMAKE_BUILD_TYPE": "Release",
    "BUILD_SHARED_LIBS": "ON",
    "GGML_NATIVE": "OFF",
    "LLAMA_CURL": "OFF",
    **{f"LLAMA_BUILD_{part}": "OFF" for part in ("COMMON", "EXAMPLES", "SERVER", "TESTS", "TOOLS")},
}


def source(folder: Path = FOLDER) -> Path:
    """Where llama.cpp's tree lies, once downloaded."""
    return folder / f"llama_cpp_python-{VERSION}" / "vendor" / "llama.cpp"


def library(variant: str, folder: Path = FOLDER) -> Path:
    """Where a built library lies."""
    return folder / variant / "bin" / "libggml-base.so"


def build(folder: Path = FOLDER) -> None:
    """Download and build what is missing; CalledProcessError or RuntimeError where that fails."""
    if platform.machine() not in ("x86_64", "AMD64") or sys.platform != "linux":
        raise RuntimeError("the reference is a build for Linux on x86-64")
    if all(library(variant, folder).is_file() for variant in VARIANTS):
        return
    tools = folder / "tools"
    if not (tools / "bin" / "ninja").is_file():
        venv.create(tools, with_pip=True)
        _run(tools / "bin" / "pip", "install", "-q", "scikit-build-core", "cmake", "ninja")
    if not source(folder).is_dir():
        _run(
            tools / "bin" / "pip", "download", "-q", f"{PACKAGE}=={VERSION}", "--no-deps",
            "--no-binary", PACKAGE, "--no-build-isolation", "--dest", folder,
        )  # fmt: skip
        with tarfile.open(next(folder.glob("llama_cpp_python-*.tar.gz"))) as archive:
            archive.extractall(folder, filter="data")
    environment = {**os.environ, "PATH": f"{tools / 'bin'}{os.pathsep}{os.environ['PATH']}"}
    for variant, flags in VARIANTS.items():
        options = {**OPTIONS, "CMAKE_C_FLAGS": flags, "CMAKE_CXX_FLAGS": flags}
        _run(
            "cmake", "-G", "Ninja", "-S", source(folder), "-B", folder / variant,
            *(f"-D{name}={value}" for name, value in options.items()), env=environment,
        )  # fmt: skip
        _run("cmake", "--build", folder / variant, "--target", "ggml-base", env=environment)


def _run(*command: object, env: dict[str, str] | None = None) -> None:
    subprocess.run([str(part) for part in command], check=True, env=env)


class GgmlLibrary:
    """The built library. ``quantize`` has the shape of ``BlockFormat.encode``."""

    def __init__(self, path: Path) -> None:
        self._quantize = ctypes.CDLL(str(path)).ggml_quantize_chunk
        self._quantize.restype = ctypes.c_size_t
        pointer, whole = ctypes.c_void_p, ctypes.c_int64
        self._quantize.argtypes = [ctypes.c_int, pointer, pointer, whole, whole, whole, pointer]

    def quantize(self, kind, values, importance=None):
        """Encode float32 [rows, columns] as ``kind``, a BlockFormat: uint8 [rows, bytes]."""
        import numpy as np

        rows, columns = values.shape
        assert values.dtype == np.float32 and values.flags.c_contiguous
        out = np.zeros((rows, kind.row_bytes(columns)), dtype=np.uint8)
        written = self._quantize(
            kind.number, values.ctypes.data, out.ctypes.data, 0, rows, columns,
            None if importance is None else importance.ctypes.data,
        )  # fmt: skip
        assert written == out.size
        return out


def golden(folder: Path) -> dict[str, object]:
    """The hashes of what the plain library makes of the samples, with and without importance."""
    from lessonkit.formats.ggml import FORMATS
    from tests.formats.ggml.samples import importance, samples

    ggml = GgmlLibrary(library("plain", folder))
    weights = {"plain": None, "importance": importance()}
    return {
        "made by": f"ggml_quantize_chunk of {PACKAGE} {VERSION}, x86-64 without FMA",
        "sha256, first 16 digits": {
            name: {
                mode: {
                    sample: hashlib.sha256(ggml.quantize(kind, values, w).tobytes()).hexdigest()[
                        :16
                    ]
                    for sample, values in samples().items()
                }
                for mode, w in weights.items()
            }
            for name, kind in FORMATS.items()
        },
    }


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("folder", nargs="?", type=Path, default=FOLDER)
    parser.add_argument("--golden", type=Path)
    arguments = parser.parse_args()
    arguments.folder.mkdir(parents=True, exist_ok=True)
    build(arguments.folder)
    if arguments.golden:
        sys.path.insert(0, str(ROOT))
        text = json.dumps(golden(arguments.folder), indent=1)
        arguments.golden.write_text(text + "\n", encoding="utf-8")


if __name__ == "__main__":
    main()
