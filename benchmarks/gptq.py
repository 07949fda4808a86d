"""GPTQ of one TinyLlama-shaped layer: lessonkit and GPTQModel, side by side on the same threads.

    python benchmarks/gptq.py [--threads N] [--rounds N] [--group-size N] [--tokens N]

A square matrix (q_proj, o_proj: 2048 x 2048) and a tall one (gate_proj, up_proj: 5632 x 2048)
are quantised to 4 symmetric bits, in GPTQModel's default order, for 32 x 512 tokens of inputs
that are correlated and of different sizes. The two take turns, so that whatever else the
machine does falls on both; times are medians, and a ratio is between medians. "hessian" is the
collection of the inputs, 2048 tokens at a time; "quantise" is all the rest, for lessonkit with
the measurement of the output's error. Errors are relative, squared, in the metric of the
Hessian, of weights with fp16 scales, as files store them.
"""

from __future__ import annotations

import argparse
import os
import statistics
import time
from itertools import pairwise

os.environ.setdefault("GPTQMODEL_CPU_WORKERS", "2")

import torch
from gptqmodel import QuantizeConfig
from gptqmodel.quantization.gptq import GPTQ
from rows import note

from lessonkit.quantize.gptq import Hessian, gptq, output_error
from lessonkit.quantize.grids import IntGrid, round_to_nearest

COLUMNS = 2048
ROWS = {"q_proj": 2048, "up_proj": 5632}
DAMPING = 0.05
PIECE = 2048


def correlated_inputs(tokens: int) -> torch.Tensor:
    """Inputs [tokens, 2048] near a space of 512 dimensions; channels of very different sizes."""
    mix = torch.randn(COLUMNS // 4, COLUMNS) / (COLUMNS // 4) ** 0.5
    inputs = torch.randn(tokens, COLUMNS // 4) @ mix + 0.3 * torch.randn(tokens, COLUMNS)
    return inputs * torch.exp(torch.randn(COLUMNS) * 0.5)


def gptqmodel_task(weight: torch.Tensor, group_size: int) -> GPTQ:
    """Return GPTQModel's task for a layer with this weight, at its default settings."""
    layer = torch.nn.Linear(weight.shape[1], weight.shape[0], bias=False)
    layer.weight.data = weight.clone()
    config = QuantizeConfig(
        bits=4, group_size=group_size, sym=True, damp_percent=DAMPING, offload_to_disk=False
    )
    assert config.act_group_aware and not config.desc_act
    task = GPTQ(layer, config)
    task.quantizer.configure(perchannel=True)
    task.fallback = None
    return task


def one_round(
    weight: torch.Tensor, inputs: torch.Tensor, grid: IntGrid
) -> tuple[list[float], list[float]]:
    """Return four times (collecting, ours and theirs; quantising, ours and theirs); two errors."""
    clock = [time.perf_counter()]
    hessian = Hessian(COLUMNS)
    for piece in inputs.split(PIECE):
        hessian.add(piece)
    clock.append(time.perf_counter())
    task = gptqmodel_task(weight, grid.group_size)
    for piece in inputs.split(PIECE):
        task.add_batch(piece.unsqueeze(0), None)
    task.finalize_hessian()
    clock.append(time.perf_counter())
    ours = gptq(weight, hessian.matrix, grid, damping=DAMPING)
    clock.append(time.perf_counter())
    quantized, scales, _, g_idx, *_ = task.quantize()
    clock.append(time.perf_counter())
    scales = scales[:, g_idx.long()]
    as_stored = torch.round(quantized / scales) * scales.half().float()
    errors = [ours.output_error, output_error(weight, as_stored, hessian.matrix)]
    return [after - before for before, after in pairwise(clock)], errors


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0])
    parser.add_argument("--threads", type=int, default=torch.get_num_threads())
    parser.add_argument("--rounds", type=int, default=5)
    parser.add_argument("--group-size", type=int, default=128)
    parser.add_argument("--tokens", type=int, default=32 * 512)
    arguments = parser.parse_args()
    torch.set_num_threads(arguments.threads)
    torch.manual_seed(0)
    inputs = correlated_inputs(arguments.tokens)
    grid = IntGrid(4, arguments.group_size)
    print(
        f"{arguments.tokens} tokens, 4 bits, symmetric, groups of {grid.group_size}, "
        f"act_group_aware, damping {DAMPING}, {arguments.threads} threads"
    )
    for name, rows in ROWS.items():
        weight = torch.randn(rows, COLUMNS) * 0.02
        rounds = [one_round(weight, inputs, grid) for _ in range(arguments.rounds)]
        times = [statistics.median(column) for column in zip(*(r[0] for r in rounds), strict=True)]
        print(f"{name}: {rows} x {COLUMNS}")
        errors = rounds[0][1]
        for contender, took, error in zip(
            ("lessonkit", "GPTQModel"), ((times[0], times[2]), (times[1], times[3])), errors,
            strict=True,
        ):  # fmt: skip
            note(f"GPTQ of {name}, {rows} x {COLUMNS}", contender, sum(took), error=error)
        for label, mine, other in (("hessian", *times[:2]), ("quantise", *times[2:])):
            print(
                f"  {label:<9} lessonkit {mine:8.2f} s   GPTQModel {other:8.2f} s   "
                f"ratio {other / mine:.2f}"
            )
        hessian = Hessian(COLUMNS)
        hessian.add(inputs)
        plain = output_error(weight, round_to_nearest(weight, grid).dequantize(), hessian.matrix)
        mine, other = errors
        print(
            f"  error     lessonkit {mine:.6f}     GPTQModel {other:.6f}     "
            f"round to nearest {plain:.6f}"
        )


if __name__ == "__main__":
    main()
