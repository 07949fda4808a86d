"""What AutoGPTQ 0.7.1 computes from a GPTQ folder on the CPU: run by test_auto_gptq.py.

    python auto_gptq_answers.py FOLDER IDS.safetensors OUT.safetensors

The tensor `ids` goes in; out come `logits` in float32, and, for each weight that AutoGPTQ took for
quantised, an empty tensor under the name of its layer.
"""

from __future__ import annotations

import sys
from types import ModuleType
from typing import Any

import torch
import transformers  # noqa: F401  (first: it looks for some of these itself)
import transformers.models.llama  # noqa: F401
from safetensors.torch import load_file, save_file

# AutoGPTQ imports them at once, for calibration data, its own tasks, a compiled CPU kernel and
# training; nothing here loads or runs a model with them.
_UNUSED = (
    "datasets", "rouge", "gekko", "peft", "peft.mapping", "peft.peft_model", "peft.tuners",
    "peft.tuners.adalora", "peft.tuners.lora",
)  # fmt: skip


class _Unused(ModuleType):
    """A module of which any name can be imported: an empty class."""

    def __getattr__(self, name: str) -> Any:
        if name.startswith("__"):
            raise AttributeError(name)
        return type(name, (), {})


def main(folder: str, ids_file: str, out: str) -> None:
    sys.modules.update({name: _Unused(name) for name in _UNUSED})
    from auto_gptq import AutoGPTQForCausalLM

    loaded = AutoGPTQForCausalLM.from_quantized(folder, device="cpu", torch_dtype=torch.float32)
    with torch.no_grad():
        logits = loaded.model(load_file(ids_file)["ids"]).logits
    quantised = {
        name: torch.empty(0)
        for name, module in loaded.model.named_modules()
        if type(module).__module__.startswith("auto_gptq.nn_modules.qlinear")
    }
    save_file({"logits": logits.contiguous(), **quantised}, out)


if __name__ == "__main__":
    main(*sys.argv[1:])
