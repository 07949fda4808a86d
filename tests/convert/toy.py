"""Small Llamas in Meta's form, made without lessonkit."""

from __future__ import annotations

import json
import shutil
from dataclasses import dataclass, field, replace
from pathlib import Path
from typing import Any

import torch


@dataclass(frozen=True)
class Toy:
    """The sizes of a toy Llama; `params` are put over those that are derived from them."""

    dim: int = 64
    layers: int = 2
    heads: int = 4
    kv_heads: int = 2
    mlp: int = 96
    vocabulary: int = 400
    shards: int = 1
    dtype: torch.dtype = torch.bfloat16
    llama_3: bool = False
    tied: bool = False
    params: dict[str, Any] = field(default_factory=dict)

    def with_(self, **changes: Any) -> Toy:
        return replace(self, **changes)

    def params_json(self) -> dict[str, Any]:
        params: dict[str, Any] = {
            "dim": self.dim, "n_layers": self.layers, "n_heads": self.heads,
            "n_kv_heads": self.kv_heads, "vocab_size": self.vocabulary, "multiple_of": 96,
            "ffn_dim_multiplier": 0.5, "norm_eps": 1e-5,
        }  # fmt: skip
        if self.llama_3:
            params["rope_theta"] = 500000.0
        return {**params, **self.params}

    def meta_tensors(self) -> dict[str, torch.Tensor]:
        """The whole tensors, in Meta's names and row order."""
        generator = torch.Generator().manual_seed(3)
        kv = self.dim // self.heads * self.kv_heads

        def matrix(*shape: int) -> torch.Tensor:
            return (torch.randn(*shape, generator=generator) * 0.05).to(self.dtype)

        tensors = {"tok_embeddings.weight": matrix(self.vocabulary, self.dim)}
        for layer in range(self.layers):
            name = f"layers.{layer}."
            tensors |= {
                name + "attention.wq.weight": matrix(self.dim, self.dim),
                name + "attention.wk.weight": matrix(kv, self.dim),
                name + "attention.wv.weight": matrix(kv, self.dim),
                name + "attention.wo.weight": matrix(self.dim, self.dim),
                name + "feed_forward.w1.weight": matrix(self.mlp, self.dim),
                name + "feed_forward.w2.weight": matrix(self.dim, self.mlp),
                name + "feed_forward.w3.weight": matrix(self.mlp, self.dim),
                name + "attention_norm.weight": 1 + matrix(self.dim),
                name + "ffn_norm.weight": 1 + matrix(self.dim),
            }
        tensors["norm.weight"] = 1 + matrix(self.dim)
        tensors["output.weight"] = matrix(self.vocabulary, self.dim)
        if self.tied:
            tensors["output.weight"] = tensors["tok_embeddings.weight"].clone()
        return tensors

    def shard(self, rank: int) -> dict[str, torch.Tensor]:
        """What Meta stores for one of the GPUs."""
        shard = {}
        for name, tensor in self.meta_tensors().items():
            part = name.split(".")[-2]
            if part in ("wo", "w2") or (part == "tok_embeddings" and not self.llama_3):
                tensor = tensor.chunk(self.shards, dim=1)[rank].clone()
            elif "norm" not in part:
                tensor = tensor.chunk(self.shards, dim=0)[rank].clone()
            shard[name] = tensor
        size = self.dim // self.heads
        theta = self.params_json().get("rope_theta", 10000.0)
        shard["rope.freqs"] = theta ** -(torch.arange(0, size, 2).float() / size)
        return shard

    def hf_tensors(self) -> dict[str, torch.Tensor]:
        """What Hugging Face's form must hold, by the formula of the field: view, swap, flatten."""
        names = {
            "attention.wq": "self_attn.q_proj", "attention.wk": "self_attn.k_proj",
            "attention.wv": "self_attn.v_proj", "attention.wo": "self_attn.o_proj",
            "feed_forward.w1": "mlp.gate_proj", "feed_forward.w2": "mlp.down_proj",
            "feed_forward.w3": "mlp.up_proj", "attention_norm": "input_layernorm",
            "ffn_norm": "post_attention_layernorm",
        }  # fmt: skip
        outer = {"tok_embeddings.weight": "model.embed_tokens.weight",
                 "norm.weight": "model.norm.weight", "output.weight": "lm_head.weight"}  # fmt: skip
        tensors = {}
        for name, tensor in self.meta_tensors().items():
            if name in outer:
                tensors[outer[name]] = tensor
                continue
            _, layer, part = name.removesuffix(".weight").split(".", 2)
            if part in ("attention.wq", "attention.wk"):
                heads = self.heads if part == "attention.wq" else self.kv_heads
                pairs = tensor.view(heads, tensor.shape[0] // heads // 2, 2, self.dim)
                tensor = pairs.transpose(1, 2).reshape(tensor.shape)
            tensors[f"model.layers.{layer}.{names[part]}.weight"] = tensor
        if self.tied:
            del tensors["lm_head.weight"]
        return tensors

    def write(self, folder: Path, tokenizer: Path | None) -> Path:
        folder.mkdir(parents=True, exist_ok=True)
        for rank in range(self.shards):
            torch.save(self.shard(rank), folder / f"consolidated.{rank:02}.pth")
        (folder / "params.json").write_text(json.dumps(self.params_json()))
        if tokenizer is not None:
            shutil.copy(tokenizer, folder / "tokenizer.model")
        return folder


def file_bytes(folder: Path) -> dict[str, bytes]:
    """The content of every file in a folder."""
    return {path.name: path.read_bytes() for path in folder.iterdir()}
