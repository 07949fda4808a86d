"""Our GGUF files in llama.cpp: they load, and write what transformers writes.

xllamacpp is llama.cpp as a prebuilt wheel (34 MB). `make interop` puts it into a folder of its
own, .interop/xllamacpp, and lets nothing be skipped; elsewhere these tests are skipped where it
is missing, and say so.
"""

from __future__ import annotations

import json
import os
import subprocess
import sys
from pathlib import Path
from typing import Any

import pytest
import torch

from lessonkit.convert.gguf import to_gguf
from lessonkit.models import load

ROOT = Path(__file__).resolve().parents[2]
FOLDER = ROOT / ".interop" / "xllamacpp"
PROMPTS = ("The lighthouse of", "The capital of", "In the year")
NEW_TOKENS = 24
# A greedy choice is compared only where the best token leads by this much (natural log).
MARGIN = {"f32": 0.01, "f16": 0.02, "q8_0": 0.3, "q4_k_m": 2.0}

RUN = """
import json, sys
import xllamacpp
parameters = xllamacpp.CommonParams()
parameters.model.path = sys.argv[1]
parameters.n_ctx, parameters.n_parallel, parameters.warmup, parameters.verbosity = 512, 1, False, 0
server = xllamacpp.Server(parameters)
answers = []
for prompt in json.loads(sys.argv[2]):
    asked = {"prompt": prompt, "n_predict": int(sys.argv[3]), "temperature": 0, "n_probs": 2,
             "cache_prompt": False, "ignore_eos": True}
    answers.append(server.handle_completions(asked))
with open(sys.argv[4], "w") as file:
    json.dump(answers, file)
"""


@pytest.fixture(scope="module")
def xllamacpp() -> Path:
    if not (FOLDER / "xllamacpp").is_dir():
        if os.environ.get("LESSONKIT_INTEROP") != "required":
            pytest.skip("not compared: xllamacpp is not in .interop (make interop)")
        command = [sys.executable, "-m", "pip", "install", "--quiet", "--no-deps", "--target"]
        subprocess.run([*command, str(FOLDER), "xllamacpp==2026.10.11549"], check=True)
    return FOLDER


def written_by_llama_cpp(folder: Path, file: Path, out: Path) -> list[dict[str, Any]]:
    """What llama.cpp writes after each prompt, greedily, with the two best tokens at each step."""
    command = [sys.executable, "-c", RUN, str(file), json.dumps(PROMPTS), str(NEW_TOKENS), str(out)]
    environment = {**os.environ, "PYTHONPATH": str(folder)}
    subprocess.run(command, check=True, env=environment, capture_output=True)
    return json.loads(out.read_text())


@pytest.mark.parametrize("outtype", MARGIN)
def test_llama_cpp_writes_what_transformers_writes(
    xllamacpp: Path, mini: Path, tmp_path: Path, outtype: str
) -> None:
    to_gguf(mini, tmp_path / "x.gguf", outtype=outtype)
    answers = written_by_llama_cpp(xllamacpp, tmp_path / "x.gguf", tmp_path / "answers.json")
    model, tokenizer = load(mini, dtype="float32")
    compared = 0
    for prompt, answer in zip(PROMPTS, answers, strict=True):
        steps = answer["choices"][0]["logprobs"]["content"]
        ids = tokenizer(prompt)["input_ids"]
        assert answer["usage"]["prompt_tokens"] == len(ids)
        for step in steps:
            with torch.inference_mode():
                logits = model(torch.tensor([ids])).logits[0, -1].double()
            best, second = logits.log_softmax(-1).topk(2).values.tolist()
            if best - second > MARGIN[outtype]:
                compared += 1
                assert step["id"] == int(logits.argmax()), (prompt, tokenizer.decode(ids))
                if outtype in ("f32", "f16"):
                    assert abs(step["logprob"] - best) < 0.02
            ids = [*ids, step["id"]]
    assert compared > len(PROMPTS) * NEW_TOKENS // 3
