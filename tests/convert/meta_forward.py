"""A Llama as Meta's own code computes it (neighbouring pairs are rotated), for comparison.

Written from the papers' formulas, in float64, without a cache: short and obviously right.
"""

from __future__ import annotations

import math
from typing import Any

import torch


def frequencies(params: dict[str, Any], factor: float | None) -> torch.Tensor:
    """The rotary frequencies of a head; with `factor`, stretched as in Llama 3.1."""
    size = params["dim"] // params["n_heads"]
    theta = params.get("rope_theta", 10000.0)
    freqs = theta ** -(torch.arange(0, size, 2, dtype=torch.float64) / size)
    if factor is None:
        return freqs
    stretched = []
    for freq in freqs:
        wavelength = 2 * math.pi / freq
        if wavelength < 8192 / 4:
            stretched.append(freq)
        elif wavelength > 8192 / 1:
            stretched.append(freq / factor)
        else:
            smooth = (8192 / wavelength - 1) / (4 - 1)
            stretched.append((1 - smooth) * freq / factor + smooth * freq)
    return torch.stack(stretched)


def rotate(x: torch.Tensor, freqs: torch.Tensor) -> torch.Tensor:
    """x: (tokens, heads, size). Values 2i and 2i+1 form a complex number, turned by its angle."""
    angles = torch.outer(torch.arange(x.shape[0], dtype=torch.float64), freqs)[:, None, :]
    even, odd = x[..., 0::2], x[..., 1::2]
    turned = torch.stack(
        [even * angles.cos() - odd * angles.sin(), even * angles.sin() + odd * angles.cos()], -1
    )
    return turned.flatten(-2)


def logits(
    tensors: dict[str, torch.Tensor], params: dict[str, Any], ids: list[int],
    factor: float | None = None,
) -> torch.Tensor:  # fmt: skip
    """The logits (tokens, vocabulary) of a model given by Meta's tensors and params.json."""
    w = {name: tensor.double() for name, tensor in tensors.items()}
    heads, kv_heads = params["n_heads"], params["n_kv_heads"]
    size, count = params["dim"] // heads, len(ids)
    freqs = frequencies(params, factor)

    def norm(x: torch.Tensor, name: str) -> torch.Tensor:
        scale = torch.rsqrt(x.pow(2).mean(-1, keepdim=True) + params["norm_eps"])
        return x * scale * w[f"{name}.weight"]

    h = w["tok_embeddings.weight"][ids]
    hidden = torch.full((count, count), -math.inf, dtype=torch.float64).triu(1)
    for layer in range(params["n_layers"]):
        at, ff = f"layers.{layer}.attention", f"layers.{layer}.feed_forward"
        x = norm(h, f"{at}_norm")
        q = rotate((x @ w[f"{at}.wq.weight"].T).view(count, heads, size), freqs)
        k = rotate((x @ w[f"{at}.wk.weight"].T).view(count, kv_heads, size), freqs)
        v = (x @ w[f"{at}.wv.weight"].T).view(count, kv_heads, size)
        k, v = (t.repeat_interleave(heads // kv_heads, dim=1) for t in (k, v))
        scores = torch.einsum("qhd,khd->hqk", q, k) / math.sqrt(size) + hidden
        mixed = torch.einsum("hqk,khd->qhd", scores.softmax(-1), v).reshape(count, -1)
        h = h + mixed @ w[f"{at}.wo.weight"].T
        x = norm(h, f"layers.{layer}.ffn_norm")
        gate = torch.nn.functional.silu(x @ w[f"{ff}.w1.weight"].T)
        h = h + (gate * (x @ w[f"{ff}.w3.weight"].T)) @ w[f"{ff}.w2.weight"].T
    return norm(h, "norm") @ w["output.weight"].T
