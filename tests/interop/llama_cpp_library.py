"""llama.cpp itself, built from the source package of llama-cpp-python, with its Python bindings.

``python tests/interop/llama_cpp_library.py`` builds the library ``llama`` and some programs of the
sources that ``ggml_library.py`` fetches, into ``.interop/llama-cpp``: about five minutes on two
cores. The bindings are the package's own Python files, which are told where the library lies; the
one package that they need and the course has not, diskcache, is put beside it.
"""

from __future__ import annotations

import json
import os
import subprocess
import sys
import tempfile
from pathlib import Path
from typing import Any

sys.path.insert(0, str(Path(__file__).resolve().parents[2]))

from tests.interop import ggml_library

FOLDER = ggml_library.ROOT / ".interop" / "llama-cpp"
BUILD, PACKAGES = FOLDER / "build", FOLDER / "packages"
LIBRARY = BUILD / "bin" / "libllama.so"
PERPLEXITY, QUANTIZE, IMATRIX = (
    BUILD / "bin" / f"llama-{name}" for name in ("perplexity", "quantize", "imatrix")
)
PROGRAMS = (PERPLEXITY, QUANTIZE, IMATRIX)
OPTIONS = {
    **ggml_library.OPTIONS,
    **{f"LLAMA_BUILD_{part}": "ON" for part in ("COMMON", "TOOLS")},
    "LLAMA_BUILD_APP": "OFF",
    "LLAMA_OPENSSL": "OFF",
}


def build() -> None:
    """Build what is missing; CalledProcessError or RuntimeError where that fails."""
    ggml_library.build()
    tools = ggml_library.FOLDER / "tools" / "bin"
    if not all(file.is_file() for file in (LIBRARY, *PROGRAMS)):
        cmake = [str(tools / "python"), "-m", "cmake"]
        ninja = f"-DCMAKE_MAKE_PROGRAM={tools / 'ninja'}"
        options = [f"-D{name}={value}" for name, value in OPTIONS.items()]
        places = ["-S", str(ggml_library.source()), "-B", str(BUILD)]
        subprocess.run([*cmake, "-G", "Ninja", ninja, *places, *options], check=True)
        targets = ["--target", "llama", *(program.name for program in PROGRAMS)]
        subprocess.run([*cmake, "--build", str(BUILD), *targets], check=True)
    if not (PACKAGES / "diskcache").is_dir():
        pip = [sys.executable, "-m", "pip", "install", "-q", "--no-deps", "--target"]
        subprocess.run([*pip, str(PACKAGES), "diskcache==5.6.3"], check=True)


def ready() -> bool:
    """Whether all is there already."""
    built = all(file.is_file() for file in (LIBRARY, *PROGRAMS))
    return built and (PACKAGES / "diskcache").is_dir()


def ask(**request: Any) -> Any:
    """Answer a request by `llama_cpp_answers.py`, in a process of its own; it may crash."""
    bindings = ggml_library.source().parents[1]
    environment = {
        **os.environ,
        "PYTHONPATH": os.pathsep.join([str(bindings), str(PACKAGES)]),
        "LLAMA_CPP_LIB_PATH": str(LIBRARY.parent),
    }
    with tempfile.TemporaryDirectory() as folder:
        answer = Path(folder) / "answer.json"
        program = Path(__file__).with_name("llama_cpp_answers.py")
        command = [sys.executable, str(program), json.dumps(request), str(answer)]
        done = subprocess.run(command, env=environment, capture_output=True, text=True)
        assert done.returncode == 0, done.stderr[-3000:]
        return json.loads(answer.read_text("utf-8"))


if __name__ == "__main__":
    FOLDER.mkdir(parents=True, exist_ok=True)
    build()
