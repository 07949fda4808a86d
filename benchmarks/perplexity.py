"""How fast, and in how much memory, is a text scored? Ours, and a plain Hugging Face loop.

    python benchmarks/perplexity.py [--layers N] [--vocabulary N] [--window N] [--windows N]

A random float32 Llama of TinyLlama's widths (with fewer layers, so that a round takes seconds)
scores the same windows. The loop is that of the Hugging Face documentation: one window, one call
of the model with labels, its loss. Each runs in a process of its own, in turns; printed are the
medians of tokens a second and of tokens a second of processor time (which a busy machine disturbs
less), and the peak of resident memory above that of the loaded model. What happens once, such as
imports, is not measured.
"""

from __future__ import annotations

import argparse
import json
import resource
import statistics
import subprocess
import sys
import time
from pathlib import Path
from typing import Any

from rows import note

ROOT = Path(__file__).resolve().parents[1]
sys.path.insert(0, str(ROOT))


def random_model(layers: int, vocabulary: int, window: int) -> Any:
    """Random weights, from a fixed seed."""
    import torch
    from transformers import LlamaConfig, LlamaForCausalLM

    torch.manual_seed(0)
    config = LlamaConfig(
        vocab_size=vocabulary, hidden_size=2048, intermediate_size=5632, num_hidden_layers=layers,
        num_attention_heads=32, num_key_value_heads=4, max_position_embeddings=window,
        tie_word_embeddings=False,
    )  # fmt: skip
    return LlamaForCausalLM(config).eval()


def plain_loop(model: Any, windows: Any) -> float:
    """The documentation's loop: a window at a time, logits of all its tokens at once."""
    import torch

    total = 0.0
    with torch.no_grad():
        for window in windows:
            total += float(model(window[None], labels=window[None]).loss)
    return total / len(windows)


def ours(model: Any, windows: Any) -> float:
    """Through `lessonkit.evaluate`."""
    from lessonkit.evaluate.cut import Cut
    from lessonkit.evaluate.perplexity import score
    from lessonkit.evaluate.protocols import Piece, gptq

    pieces = tuple(Piece(window.tolist(), 1) for window in windows)
    return score(model, Cut(gptq(windows.shape[1]), pieces, "random", "test", "", 1, 1)).mean_nll


def measure(name: str, options: argparse.Namespace) -> None:
    """Run one of them in this process, and print what was found."""
    import torch

    model = random_model(options.layers, options.vocabulary, options.window)
    windows = torch.randint(0, options.vocabulary, (options.windows, options.window))
    run = {"loop": plain_loop, "lessonkit": ours}[name]
    run(model, windows[:1, :32])  # modules are imported and threads are started: not measured
    before = resource.getrusage(resource.RUSAGE_SELF).ru_maxrss
    started = time.perf_counter(), time.process_time()
    loss = run(model, windows)
    seconds, processor = time.perf_counter() - started[0], time.process_time() - started[1]
    above = resource.getrusage(resource.RUSAGE_SELF).ru_maxrss - before
    result = {"speed": windows.numel() / seconds, "by CPU": windows.numel() / processor}
    print(json.dumps({**result, "above": above * 1024, "loss": loss}))


def main() -> None:
    """Measure in turns, and print."""
    parser = argparse.ArgumentParser(description=(__doc__ or "").splitlines()[0])
    parser.add_argument("--layers", type=int, default=2)
    parser.add_argument("--vocabulary", type=int, default=32000)
    parser.add_argument("--window", type=int, default=2048)
    parser.add_argument("--windows", type=int, default=4)
    parser.add_argument("--rounds", type=int, default=3)
    parser.add_argument("--only", choices=["loop", "lessonkit"], help=argparse.SUPPRESS)
    options = parser.parse_args()
    if options.only:
        measure(options.only, options)
        return
    found: dict[str, list[dict[str, float]]] = {"loop": [], "lessonkit": []}
    for _ in range(options.rounds):
        for name, results in found.items():
            command = [sys.executable, *sys.argv, "--only", name]
            told = subprocess.run(command, check=True, capture_output=True, text=True).stdout
            results.append(json.loads(told.splitlines()[-1]))
    for name, results in found.items():
        speed, by_cpu = _medians(results)
        note("perplexity, 1,000 tokens", name, 1000 / speed,
             peak=max(result["above"] for result in results))  # fmt: skip
        above = max(result["above"] for result in results) / 1e6
        print(f"{name:<10} {speed:8,.0f} tokens/s  {by_cpu:8,.0f} a second of CPU  "
              f"{above:6,.0f} MB  loss {results[0]['loss']:.5f}")  # fmt: skip
    pairs = zip(_medians(found["lessonkit"]), _medians(found["loop"]), strict=True)
    print("ratios     " + ", ".join(f"{mine / plain:.2f}" for mine, plain in pairs))


def _medians(results: list[dict[str, float]]) -> tuple[float, ...]:
    return tuple(
        statistics.median(result[key] for result in results) for key in ("speed", "by CPU")
    )


if __name__ == "__main__":
    main()
