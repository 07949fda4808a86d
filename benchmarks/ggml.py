"""How fast are the GGUF block formats, here and elsewhere, and how much do they lose?

Run ``python benchmarks/ggml.py [--rounds N] [--rows N] [NAMES ...]``. The encoders take
turns, so that whatever else the machine does falls on all; ratios are between medians.
Rates are megabytes of float32 a second. llama.cpp's C library takes part if it is built
(``python tests/interop/ggml_library.py``), on one thread, which is how it is called; so do
the encoders of auto-round and gptqmodel, where they can be imported. The table at the end
has the rates of lessonkit on one thread and on two cores, where `to-gguf` takes threads or
processes, and how many times one thread's that is.
"""

from __future__ import annotations

import argparse
import statistics
import sys
import time
from collections.abc import Callable
from pathlib import Path

import gguf
import numpy as np
import torch

sys.path.insert(0, str(Path(__file__).resolve().parents[1]))

from rows import note

from lessonkit.convert.gguf_tensor import encode_tensor
from lessonkit.files.safetensors import TensorInfo
from lessonkit.formats.ggml import FORMATS, decode, encode
from tests.interop.ggml_library import GgmlLibrary, library

COLUMNS = 2048  # the row length of most of TinyLlama's matrices
ONE, TWO = "lessonkit", "lessonkit, 2 cores"
Encoder = Callable[[np.ndarray, str], np.ndarray]


def with_threads(encoder: Encoder, threads: int) -> Encoder:
    """Run an encoder under torch's number of threads."""

    def run(values: np.ndarray, name: str) -> np.ndarray:
        torch.set_num_threads(threads)
        return encoder(values, name)

    return run


def as_in_a_file(values: np.ndarray, name: str) -> np.ndarray:
    bits = np.ascontiguousarray(values.view(np.uint16)[:, 1::2])  # the upper halves: bfloat16
    return encode_tensor(bits, "BF16", TensorInfo("blk.0.attn_q.weight", name, values.shape), None)


def by_gguf(values: np.ndarray, name: str) -> np.ndarray:
    return gguf.quantize(values, gguf.GGMLQuantizationType[name])


def encoders() -> dict[str, Encoder]:
    """All that can be had here, by name; each raises for a format that it does not know."""
    out: dict[str, Encoder] = {
        ONE: with_threads(encode, 1),
        TWO: with_threads(as_in_a_file, 2),
        "gguf": by_gguf,
    }
    if library("plain").is_file():
        ggml = GgmlLibrary(library("plain"))
        out["llama.cpp"] = lambda values, name: ggml.quantize(FORMATS[name], values)
    try:
        from auto_round.export.export_to_gguf.packing import ggml_quant

        def by_auto_round(values: np.ndarray, name: str) -> np.ndarray:
            data = ggml_quant(torch.from_numpy(values), name.lower(), device="cpu", original=True)
            return np.asarray(data).view(np.uint8).reshape(len(values), -1)

        out["auto-round"] = with_threads(by_auto_round, 1)
    except ImportError:
        print("not compared: auto-round is not here")
    try:
        from gptqmodel.nn_modules.qlinear import gguf as gptqmodel_gguf

        def by_gptqmodel(values: np.ndarray, name: str) -> np.ndarray:
            return np.asarray(gptqmodel_gguf._gguf_quantize(values, name))

        out["gptqmodel"] = with_threads(by_gptqmodel, 1)
    except ImportError:
        print("not compared: gptqmodel is not here")
    return out


def measure(
    name: str, values: np.ndarray, known: dict[str, Encoder], rounds: int
) -> dict[str, float]:
    """Print a line for each encoder that knows the format; returns their median seconds."""
    able, loss = {}, {}
    reference = encode(values, name)
    same = {}
    for label, encoder in known.items():
        try:
            data = encoder(values, name)
        except (NotImplementedError, AttributeError, KeyError, RuntimeError, TypeError, ValueError):
            continue  # it has no such format
        if data.shape != reference.shape:
            continue
        able[label] = encoder
        loss[label] = float(np.square(decode(data, name) - values).mean())
        blocks = (len(values) * COLUMNS // FORMATS[name].values, -1)
        same[label] = float((data.reshape(blocks) == reference.reshape(blocks)).all(axis=1).mean())
    seconds: dict[str, list[float]] = {label: [] for label in able}
    for _ in range(rounds):
        for label, encoder in able.items():
            start = time.perf_counter()
            encoder(values, name)
            seconds[label].append(time.perf_counter() - start)
    medians = {label: statistics.median(found) for label, found in seconds.items()}
    for label, median in medians.items():
        if label != TWO:
            note(f"GGUF blocks, {name}", label, median, error=loss[label])
        print(
            f"{name:<7} {label:<21} {values.nbytes / 1e6 / median:7.1f} MB/s   "
            f"lessonkit/this {median / medians[ONE]:6.2f}   blocks as ours {same[label]:8.3%}   "
            f"mean squared error {loss[label]:.4g}",
            flush=True,
        )
    return medians


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("names", nargs="*", default=list(FORMATS))
    parser.add_argument("--rounds", type=int, default=5)
    parser.add_argument("--rows", type=int, default=2048)  # a matrix of TinyLlama's
    arguments = parser.parse_args()
    random = np.random.default_rng(0)
    values = random.standard_normal((arguments.rows, COLUMNS), dtype=np.float32)
    values *= np.float32(0.02)
    values.view(np.uint32)[:] &= np.uint32(0xFFFF0000)  # what bfloat16 can hold, as in a checkpoint
    print(f"{arguments.rows} x {COLUMNS} float32, N(0, 0.02), no importance matrix")
    known = encoders()
    found = {name: measure(name, values, known, arguments.rounds) for name in arguments.names}
    print(f"\n{'':8}{'1 thread, MB/s':>16}{'2 cores, MB/s':>17}{'times as fast':>15}")
    for name, medians in found.items():
        one, two = (values.nbytes / 1e6 / medians[label] for label in (ONE, TWO))
        print(f"{name:8}{one:16.1f}{two:17.1f}{two / one:15.2f}")


if __name__ == "__main__":
    main()
