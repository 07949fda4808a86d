"""GPTQModel quantises a model on given tokens, in a process of its own: `quantised_by_gptqmodel`.

python -m tests.interop.gptqmodel_twin SOURCE OUT IDS.pt gptq|awq BITS
"""

from __future__ import annotations

import os
import subprocess
import sys
from pathlib import Path

import pytest
import torch

import lessonkit


def quantised_by_gptqmodel(
    source: Path, out: Path, ids: torch.Tensor, method: str, bits: int = 4
) -> Path:
    """Groups of 128; symmetric, with its default order, for GPTQ. Returns `out`."""
    if os.environ.get("LESSONKIT_INTEROP") != "required":
        pytest.importorskip("gptqmodel")
    torch.save(ids, out.with_suffix(".pt"))
    done = subprocess.run(
        [sys.executable, "-m", "tests.interop.gptqmodel_twin", source, out,
         out.with_suffix(".pt"), method, str(bits)],
        env={
            **os.environ,
            "PYTHONPATH": str(Path(lessonkit.__file__).parents[1]),
            "GPTQMODEL_CPU_WORKERS": "2",
            "CUDA_VISIBLE_DEVICES": "",
            "HF_HUB_OFFLINE": "1",
        },
        capture_output=True, text=True, check=False,
    )  # fmt: skip
    assert done.returncode == 0, done.stderr[-3000:]
    return out


def main(source: str, out: str, ids_file: str, method: str, bits: str) -> None:
    from gptqmodel import BACKEND, GPTQModel, QuantizeConfig

    ids = torch.load(ids_file, weights_only=True)
    common = {"group_size": 128, "offload_to_disk": False, "pack_impl": "original"}
    common["bits"] = int(bits)
    if method == "gptq":
        config = QuantizeConfig(sym=True, **common)
        assert config.act_group_aware and not config.desc_act
        how = {}
    else:
        config = QuantizeConfig(sym=False, quant_method="awq", format="gemm", **common)
        how = {"backend": BACKEND.AWQ_TORCH}
    # In float32 its AWQ search would change the model's own weights: an alias, not a copy.
    dtype = torch.float32 if method == "gptq" else torch.bfloat16
    model = GPTQModel.load(source, config, device="cpu", dtype=dtype)
    model.quantize(
        [{"input_ids": row, "attention_mask": [1] * len(row)} for row in ids.tolist()],
        batch_size=1,
        **how,
    )
    model.save(out)


if __name__ == "__main__":
    main(*sys.argv[1:])
