"""llama.cpp's snapshots of its mixes, read and condensed.

``python tests/convert/golden/gguf_mixes.py LLAMA_CPP_FOLDER`` writes gguf_mixes.json from
``tests/snapshots`` in llama.cpp's tree. Data only: names of tensors, and types.
"""

from __future__ import annotations

import json
import re
import sys
from pathlib import Path

MODELS = ("meta-llama-3.1-70b-instruct", "qwen3-0.6b", "qwen3-14b", "gemma-3-4b-it")
"""The dense models of Llama's kind among them."""

MIX_NAMES = {"MXFP4_MOE": "mxfp4"}
HEAD_SIZES = {"gemma-3-4b-it": 256}


def read_snapshot(path: Path) -> dict:
    """A model's figures, and for each mix the main type and the exceptions by name."""
    figures: dict[str, int] = {}
    mixes: dict[str, dict] = {}
    for line in path.read_text(encoding="utf-8").splitlines():
        if line.startswith("#"):
            figures |= {k: int(v) for k, v in re.findall(r"(n_\w+)=(\d+)", line)}
        elif line.startswith("["):
            mix, kind = line[1:].split("] ")
            exceptions: dict[str, str] = {}
            mixes[MIX_NAMES.get(mix, mix.lower())] = {"kind": kind, "exceptions": exceptions}
        elif line:
            name, kind = line.split()
            exceptions[name] = kind
    return {"figures": figures, "mixes": mixes}


def condense(exceptions: dict[str, str]) -> dict[str, dict[str, list[int]]]:
    """Exceptions as {"attn_v.weight": {"q6_K": [0, 2, 5]}}; outside the layers: []."""
    out: dict[str, dict[str, list[int]]] = {}
    for name, kind in exceptions.items():
        layer, part = re.fullmatch(r"(?:blk\.(\d+)\.)?(.+)", name).groups()
        layers = out.setdefault(part, {}).setdefault(kind, [])
        if layer is not None:
            layers.append(int(layer))
    return out


def expand(condensed: dict[str, dict[str, list[int]]]) -> dict[str, str]:
    """Undo :func:`condense`."""
    return {
        f"blk.{layer}.{part}" if layer is not None else part: kind
        for part, kinds in condensed.items()
        for kind, layers in kinds.items()
        for layer in (layers or [None])
    }


def tensors(model: str, figures: dict[str, int]) -> list[tuple[str, tuple[int, ...]]]:
    """The names and shapes of the model's tensors."""
    width, ff = figures["n_embd"], figures["n_ff"]
    head = HEAD_SIZES.get(model, 128)
    queries, keys = head * figures["n_head"], head * figures["n_head_kv"]
    out: list[tuple[str, tuple[int, ...]]] = [
        ("token_embd.weight", (figures["n_vocab"], width)),
        ("output_norm.weight", (width,)),
    ]
    if model != "gemma-3-4b-it":  # the snapshot's one model without
        out.append(("output.weight", (figures["n_vocab"], width)))
    for layer in range(figures["n_layer"]):
        out += [
            (f"blk.{layer}.{part}.weight", shape)
            for part, shape in {
                "attn_norm": (width,),
                "attn_q": (queries, width),
                "attn_k": (keys, width),
                "attn_v": (keys, width),
                "attn_output": (width, queries),
                "ffn_norm": (width,),
                "ffn_gate": (ff, width),
                "ffn_up": (ff, width),
                "ffn_down": (width, ff),
            }.items()
        ]
    return out


def main() -> None:
    tree = Path(sys.argv[1])
    golden = {
        "source": "tests/snapshots of llama.cpp as in llama-cpp-python 0.3.36's source package",
        "licence": (tree / "LICENSE").read_text(encoding="utf-8"),
        "models": {
            model: {
                "figures": snapshot["figures"],
                "mixes": {
                    mix: {"kind": section["kind"], "exceptions": condense(section["exceptions"])}
                    for mix, section in snapshot["mixes"].items()
                },
            }
            for model in MODELS
            for snapshot in [read_snapshot(tree / "tests" / "snapshots" / f"{model}.schema")]
        },
    }
    out = Path(__file__).with_suffix(".json")
    out.write_text(json.dumps(golden, separators=(",", ":")) + "\n", encoding="utf-8")


if __name__ == "__main__":
    main()
