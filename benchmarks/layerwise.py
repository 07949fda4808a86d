"""GPTQ and AWQ of whole decoder layers: lessonkit and GPTQModel, side by side on the same threads.

    python benchmarks/layerwise.py gptq|awq [--layers N] [--samples N] [--seqlen N] [--threads N]
                                            [--width N] [--rounds N] [--real FOLDER]
                                            [--dtype bfloat16|float32]
                                            [--only lessonkit|GPTQModel]

A Llama of TinyLlama's widths (--width scales all of them down) and random weights is quantised to
4 bits in groups of 128, from a checkpoint on disk, on the same tokens. Each library runs in a
process of its own, in turns: its seconds for each layer, loading and writing left out, and its
peak memory. GPTQModel packs inside these seconds, lessonkit does not; lessonkit reads layers from
disk inside them, GPTQModel does not. GPTQModel computes in --dtype (its AWQ damages its weights in
float32, as fast as otherwise), lessonkit in float32. Run it on a machine that does nothing else.

Tokens are random, or with --real those of WikiText-2 in TinyLlama's pieces, from a folder that
holds `tinyllama` and `wikitext-2-raw`. Then the layers' outputs are compared as well, on windows
that neither has seen: what each quantised layer adds to the original's hidden states, and how far
that is off, relative and squared; beside it, rounding to the nearest.
"""

from __future__ import annotations

import argparse
import os
import resource
import shutil
import subprocess
import sys
import tempfile
import time
from pathlib import Path

from rows import note

LIBRARIES = ("lessonkit", "GPTQModel")
UNSEEN = 8  # windows on which outputs are compared


def make_model(folder: Path, layers: int, width: int, tokenizer: Path | None = None) -> None:
    """A random Llama of TinyLlama's proportions, in bfloat16."""
    import torch
    from transformers import LlamaConfig, LlamaForCausalLM, LlamaTokenizer
    from transformers.utils import logging

    from tests.tiny import sentencepiece_bytes

    logging.disable_progress_bar()
    if tokenizer is None:
        (folder / "tokenizer.model").write_bytes(sentencepiece_bytes())
        LlamaTokenizer.from_pretrained(folder).save_pretrained(folder)
    else:
        for file in tokenizer.glob("*token*"):
            shutil.copy(file, folder)
    config = LlamaConfig(
        vocab_size=400 if tokenizer is None else 32000,
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


def tokens(options: argparse.Namespace, *, unseen: bool = False):  # noqa: ANN201
    """Windows to calibrate on, or the windows of the same text that follow them."""
    import torch

    if not options.real:
        generator = torch.Generator().manual_seed(1)
        return torch.randint(3, 400, (options.samples, options.seqlen), generator=generator)
    from transformers import AutoTokenizer

    tokenizer = AutoTokenizer.from_pretrained(Path(options.real) / "tinyllama")
    text = (Path(options.real) / "wikitext-2-raw" / "wiki.test.raw").read_text(encoding="utf-8")
    ids = torch.tensor(tokenizer(text, verbose=False).input_ids)
    windows = ids[: len(ids) // options.seqlen * options.seqlen].view(-1, options.seqlen)
    first = options.samples if unseen else 0
    return windows[first : first + (UNSEEN if unseen else options.samples)]


def lessonkit_seconds(options: argparse.Namespace) -> float:
    import torch
    import transformers.models.llama.modeling_llama  # noqa: F401  (its import is not timed)

    from lessonkit.convert import Awq, Calibration, Gptq, quantize_layers

    calibration = Calibration(tokens(options), "random tokens")
    method = Gptq() if options.method == "gptq" else Awq()
    source, kept = Path(options.folder) / "model", {}
    start = time.perf_counter()
    for result in quantize_layers(source, calibration, method, device="cpu"):
        if options.real:
            kept.update(result.quantized)
            kept.update(result.changed)
    seconds = time.perf_counter() - start
    if options.real:
        weights = {n: t if isinstance(t, torch.Tensor) else t.dequantize() for n, t in kept.items()}
        torch.save(weights, Path(options.folder) / "lessonkit.pt")
    return seconds


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
    source = str(Path(options.folder) / "model")
    dtype = getattr(torch, options.dtype)
    model = GPTQModel.load(source, config, device="cpu", dtype=dtype)
    data = [
        {"input_ids": row.tolist(), "attention_mask": [1] * len(row)} for row in tokens(options)
    ]
    start = time.perf_counter()
    model.quantize(data, batch_size=1, **how)
    seconds = time.perf_counter() - start
    if options.real:
        model.save(Path(options.folder) / "GPTQModel")
    return seconds


def compare_outputs(options: argparse.Namespace, folder: Path) -> None:
    """Print how far the layers' outputs are off, for what the libraries left in the folder."""
    import torch

    from lessonkit.convert.packed import UnpackedCheckpoint
    from lessonkit.files.checkpoint import open_checkpoint
    from lessonkit.quantize import AwqGrid, IntGrid, round_to_nearest
    from tests.convert.beside import layer_errors

    source = open_checkpoint(folder / "model")
    grid = IntGrid(4, 128) if options.method == "gptq" else AwqGrid(128)
    found = {
        "nearest": {
            name: round_to_nearest(source.tensor(name).float(), grid).dequantize()
            for name in source.names()
            if name.endswith("_proj.weight")
        }
    }
    if (folder / "lessonkit.pt").is_file():
        found["lessonkit"] = torch.load(folder / "lessonkit.pt")
    if (folder / "GPTQModel").is_dir():
        theirs = UnpackedCheckpoint(folder / "GPTQModel")
        found["GPTQModel"] = {name: theirs.tensor(name) for name in theirs.names()}
    for name, weights in found.items():
        errors = layer_errors(folder / "model", tokens(options, unseen=True), weights)
        print(
            f"{name:<9} errors of the layers' outputs: ", *(f"{e:.5f}" for e in errors), flush=True
        )


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0])
    parser.add_argument("method", choices=["gptq", "awq"])
    parser.add_argument("--layers", type=int, default=2)
    parser.add_argument("--samples", type=int, default=32)
    parser.add_argument("--seqlen", type=int, default=512)
    parser.add_argument("--threads", type=int, default=os.cpu_count())
    parser.add_argument("--width", type=int, default=2048)
    parser.add_argument("--rounds", type=int, default=1)
    parser.add_argument("--dtype", default="bfloat16", choices=["bfloat16", "float32"])
    parser.add_argument("--real", help="a folder with tinyllama and wikitext-2-raw")
    parser.add_argument("--only", choices=LIBRARIES)
    parser.add_argument("--folder", help=argparse.SUPPRESS)  # for the processes it starts
    options = parser.parse_args()
    if options.only and options.folder:
        import torch

        torch.set_num_threads(options.threads)
        measure = lessonkit_seconds if options.only == "lessonkit" else gptqmodel_seconds
        seconds = measure(options) / options.layers
        peak = resource.getrusage(resource.RUSAGE_SELF).ru_maxrss / 1e6
        note(
            f"{options.method.upper()} of a layer of width {options.width}",
            options.only,
            seconds,
            peak=peak * 1e9,
        )
        print(f"{options.only:<9} {seconds:8.1f} s a layer   {peak:5.2f} GB at most", flush=True)
        return
    print(
        f"{options.method}: {options.layers} layers of width {options.width}, {options.samples} x "
        f"{options.seqlen} {'real' if options.real else 'random'} tokens, "
        f"{options.threads} threads",
        flush=True,
    )
    with tempfile.TemporaryDirectory() as folder:
        (Path(folder) / "model").mkdir()
        tokenizer = Path(options.real) / "tinyllama" if options.real else None
        make_model(Path(folder) / "model", options.layers, options.width, tokenizer)
        for library in ([options.only] if options.only else LIBRARIES) * options.rounds:
            command = [sys.executable, __file__, *sys.argv[1:], "--folder", folder]
            done = subprocess.run(
                [*command, "--only", library], capture_output=True, text=True, check=False
            )
            lines = [line for line in done.stdout.splitlines() if line.startswith(library)]
            print(lines[-1] if lines else f"{library} failed:\n{done.stderr[-2000:]}", flush=True)
            if not lines and library == "lessonkit":
                sys.exit(1)
        if options.real:
            compare_outputs(options, Path(folder))


if __name__ == "__main__":
    main()
