"""How fast is blockwise NF4, here and in bitsandbytes, side by side on the same threads?

Run ``python benchmarks/four_bit.py [--threads N] [--rounds N]``. The two libraries take
turns, so that whatever else the machine does falls on both; a ratio is between medians.
Both results are compared bit by bit first. Rates are megabytes of float32 a second.
"""

from __future__ import annotations

import argparse
import statistics
import time
from collections.abc import Callable

import bitsandbytes.functional as bnb
import torch
from rows import note

from lessonkit.formats.blockwise import quantize_blockwise
from lessonkit.formats.codebooks import CODEBOOKS

SHAPE = (5632, 2048)  # the largest matrix of TinyLlama's decoder layers
BLOCK_SIZE = 64


def seconds(function: Callable[[], object]) -> float:
    """Time one call."""
    start = time.perf_counter()
    function()
    return time.perf_counter() - start


def compare(label: str, ours: Callable[[], object], theirs: Callable[[], object], rounds: int):
    """Time the two in turns and print the medians and their ratio."""
    ours(), theirs()
    times = [(seconds(ours), seconds(theirs)) for _ in range(rounds)]
    mine, other = (statistics.median(column) for column in zip(*times, strict=True))
    note(label, "lessonkit", mine)
    note(label, "bitsandbytes", other)
    megabytes = SHAPE[0] * SHAPE[1] * 4 / 1e6
    print(
        f"{label:<16} lessonkit {megabytes / mine:7.0f} MB/s   "
        f"bitsandbytes {megabytes / other:7.0f} MB/s   ratio {other / mine:5.2f}"
    )


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("--threads", type=int, default=torch.get_num_threads())
    parser.add_argument("--rounds", type=int, default=9)
    arguments = parser.parse_args()
    torch.set_num_threads(arguments.threads)
    torch.manual_seed(0)
    weight = torch.randn(SHAPE) * 0.02
    print(f"{SHAPE[0]} x {SHAPE[1]} float32, blocks of {BLOCK_SIZE}, {arguments.threads} threads")
    for name in ("nf4", "fp4"):
        ours = quantize_blockwise(weight, CODEBOOKS[name], BLOCK_SIZE)
        packed, state = bnb.quantize_4bit(weight, blocksize=BLOCK_SIZE, quant_type=name)
        assert torch.equal(ours.packed, packed.view(-1)), "packed bytes differ"
        assert torch.equal(ours.absmax, state.absmax), "absmax differs"
        assert torch.equal(ours.dequantize(), bnb.dequantize_4bit(packed, state)), "values differ"
        compare(
            f"{name} quantise",
            lambda name=name: quantize_blockwise(weight, CODEBOOKS[name], BLOCK_SIZE),
            lambda name=name: bnb.quantize_4bit(weight, blocksize=BLOCK_SIZE, quant_type=name),
            arguments.rounds,
        )
        compare(
            f"{name} dequantise",
            lambda ours=ours: ours.dequantize(),
            lambda packed=packed, state=state: bnb.dequantize_4bit(packed, state),
            arguments.rounds,
        )


if __name__ == "__main__":
    main()
