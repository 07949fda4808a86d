"""GPTQ and AWQ of whole decoder layers: lessonkit and GPTQModel, side by side on the same threads.

    python benchmarks/layerwise.py gptq|awq [--layers N] [--samples N] [--seqlen N] [--threads N]
                                            [--width N] [--folder F] [--only lessonkit|GPTQModel]

A Llama of TinyLlama's widths (--width scales all of them down) and random weights is quantised to
4 bits in groups of 128, from a checkpoint on disk, on the same tokens. Each library runs in a
process of its own: its seconds for each layer, loading and writing left out, and its peak memory.
GPTQModel packs inside these seconds, lessonkit does not; lessonkit reads layers from disk inside
them, GPTQModel does not. Run it on a machine that does nothing else.
"""

from __future__ import annotations

import argparse
import os
import resource
import subprocess
import sys
import tempfile
import time
from pathlib import Path

LIBRARIES = ("lessonkit", "GPTQModel")


def make_model(folder: Path, layers: int, width: int) -> None:
    """A random Llama of TinyLlama's proportions, in bfloat16."""
    import torch
    from transformers import LlamaConfig, LlamaForCausalLM, LlamaTokenizer
    from transformers.utils import logging

    from tests.tiny import sentencepiece_bytes

    logging.disable_progress_bar()
    (folder / "tokenizer.model").write_bytes(sentencepiece_bytes())
    LlamaTokenizer.from_pretrained(folder).save_pretrained(folder)
    config = LlamaConfig(
        vocab_size=400,
        hidden_size=width,
        intermediate_size=width * 11 // 4,
        num_hidden_layers=layers,
        num_attention_heads=width // 64,
        num_key_value_heads=max(1, width // 512),
        max_position_embeddings=2048,
        tie_word_embeddings=False,
    )
    torch.manual_seed(0)
    LlamaForCausalLM(config).to(torch.bfloat16).save_pretrained(folder)


def tokens(options: argparse.Namespace):  # noqa: ANN201
    import torch

    generator = torch.Generator().manual_seed(1)
    return torch.randint(3, 400, (options.samples, options.seqlen), generator=generator)


def lessonkit_seconds(options: argparse.Namespace) -> float:
    from lessonkit.convert import Awq, Calibration, Gptq, quantize_layers

    calibration = Calibration(tokens(options), "random tokens")
    method = Gptq() if options.method == "gptq" else Awq()
    start = time.perf_counter()
    for _ in quantize_layers(Path(options.folder), calibration, method, device="cpu"):
        pass
    return time.perf_counter() - start


def gptqmodel_seconds(options: argparse.Namespace) -> float:
    os.environ["GPTQMODEL_CPU_WORKERS"] = "2"
    import torch
    from gptqmodel import BACKEND, GPTQModel, QuantizeConfig

    common = {"bits": 4, "group_size": 128, "offload_to_disk": False, "pack_impl": "original"}
    if options.method == "gptq":
        config, how = QuantizeConfig(sym=True, **common), {}
    else:
        config = QuantizeConfig(sym=False, quant_method="awq", format="gemm", **common)
        how = {"backend": BACKEND.AWQ_TORCH}
    model = GPTQModel.load(options.folder, config, device="cpu", dtype=torch.bfloat16)
    data = [
        {"input_ids": row.tolist(), "attention_mask": [1] * len(row)} for row in tokens(options)
    ]
    start = time.perf_counter()
    model.quantize(data, batch_size=1, **how)
    return time.perf_counter() - start


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0])
    parser.add_argument("method", choices=["gptq", "awq"])
    parser.add_argument("--layers", type=int, default=2)
    parser.add_argument("--samples", type=int, default=32)
    parser.add_argument("--seqlen", type=int, default=512)
    parser.add_argument("--threads", type=int, default=os.cpu_count())
    parser.add_argument("--width", type=int, default=2048)
    parser.add_argument("--folder", help="a model made before")
    parser.add_argument("--only", choices=LIBRARIES)
    options = parser.parse_args()
    if options.only and options.folder:
        import torch

        torch.set_num_threads(options.threads)
        measure = lessonkit_seconds if options.only == "lessonkit" else gptqmodel_seconds
        seconds = measure(options) / options.layers
        peak = resource.getrusage(resource.RUSAGE_SELF).ru_maxrss / 1e6
        print(f"{options.only:<9} {seconds:8.1f} s a layer   {peak:5.2f} GB at most", flush=True)
        return
    print(
        f"{options.method}: {options.layers} layers of width {options.width}, {options.samples} x "
        f"{options.seqlen} tokens, {options.threads} threads",
        flush=True,
    )
    with tempfile.TemporaryDirectory() as folder:
        make_model(Path(folder), options.layers, options.width)
        for library in [options.only] if options.only else LIBRARIES:
            command = [sys.executable, __file__, *sys.argv[1:], "--folder", folder]
            done = subprocess.run(
                [*command, "--only", library], capture_output=True, text=True, check=False
            )
            lines = [line for line in done.stdout.splitlines() if line.startswith(library)]
            print(lines[-1] if lines else f"{library} failed:\n{done.stderr[-2000:]}", flush=True)


if __name__ == "__main__":
    main()
