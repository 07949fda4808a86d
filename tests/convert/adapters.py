"""Small random adapters in PEFT's form, written by PEFT itself, for the tests of several files."""

from __future__ import annotations

import json
import warnings
from pathlib import Path
from typing import Any

import torch
from peft import LoraConfig, PeftModel, get_peft_model
from safetensors.torch import load_file, save_file
from transformers import AutoModelForCausalLM

LINEARS = ["q_proj", "k_proj", "v_proj", "o_proj", "gate_proj", "up_proj", "down_proj"]


def base_model(folder: Path, rows: int | None = None) -> Any:
    """The base in the dtype of its files, resized where an adapter needs more rows."""
    model = AutoModelForCausalLM.from_pretrained(folder, dtype="auto", local_files_only=True)
    if rows:
        model.resize_token_embeddings(rows, mean_resizing=False)
    return model


def make_adapter(
    base: Path, folder: Path, *, seed: int = 0, rows: int | None = None,
    dtype: torch.dtype = torch.float32, size: float = 0.1, **options: Any,
) -> Path:  # fmt: skip
    """Write an adapter whose every tensor is random, as after training."""
    model = base_model(base, rows)
    settings = {"r": 4, "lora_alpha": 8, "target_modules": LINEARS, "task_type": "CAUSAL_LM"}
    with torch.random.fork_rng(devices=[]), warnings.catch_warnings():
        warnings.simplefilter("ignore")
        torch.manual_seed(seed)
        adapted = get_peft_model(model, LoraConfig(**{**settings, **options}))
        for name, tensor in adapted.named_parameters():
            if tensor.requires_grad:
                noise = torch.randn_like(tensor) * size
                # A magnitude is a norm: it stays positive.
                tensor.data = tensor.data * (1 + noise) if "magnitude" in name else noise
        adapted.to(dtype).save_pretrained(folder, save_embedding_layers=False)
    return folder


def their_merge(base: Path, *adapters: Path, rows: int | None = None, **options: Any) -> Any:
    """PEFT's own merge, one adapter after the other; the state dict."""
    model = base_model(base, rows)
    with warnings.catch_warnings():
        warnings.simplefilter("ignore")
        for adapter in adapters:
            model = PeftModel.from_pretrained(model, adapter).merge_and_unload(**options)
    return model.state_dict()


def edit_config(folder: Path, **changes: Any) -> None:
    """Change what adapter_config.json says."""
    file = folder / "adapter_config.json"
    file.write_text(json.dumps({**json.loads(file.read_text()), **changes}))


def edit_tensors(folder: Path, change: Any) -> None:
    """Rewrite the adapter's tensors: `change` takes their dict and returns another."""
    file = folder / "adapter_model.safetensors"
    save_file(change(load_file(file)), file)
