"""A conversion that is killed at any moment leaves nothing that looks whole."""

from __future__ import annotations

import os
import random
import shutil
import signal
import subprocess
import sys
import time
from pathlib import Path

import lessonkit
from lessonkit.convert.meta import hf_to_meta, meta_to_hf
from tests.convert.toy import Toy, file_bytes

SCRIPT = """
import sys
from lessonkit.convert.meta import hf_to_meta, meta_to_hf
print("ready", flush=True)
sys.stdin.readline()
{"meta": meta_to_hf, "hf": hf_to_meta}[sys.argv[1]](sys.argv[2], sys.argv[3])
"""


def test_a_killed_conversion_leaves_nothing_that_looks_whole(
    sentencepiece_model: Path, tmp_path: Path
) -> None:
    toy = Toy(dim=512, layers=4, mlp=1024, params={"ffn_dim_multiplier": 0.75, "multiple_of": 256})
    meta_to_hf(toy.write(tmp_path / "meta", sentencepiece_model), tmp_path / "hf")
    whole = {"meta": sorted(file_bytes(tmp_path / "hf"))}
    hf_to_meta(tmp_path / "hf", tmp_path / "whole")
    whole["hf"] = sorted(file_bytes(tmp_path / "whole"))
    environment = {**os.environ, "PYTHONPATH": str(Path(lessonkit.__file__).parents[1])}
    choose = random.Random(5)
    killed = 0
    for number in range(8):
        form = ("meta", "hf")[number % 2]
        out = tmp_path / "outputs" / form
        with subprocess.Popen(
            [sys.executable, "-c", SCRIPT, form, str(tmp_path / form), str(out)],
            stdin=subprocess.PIPE, stdout=subprocess.PIPE, env=environment,
        ) as run:  # fmt: skip
            assert run.stdout is not None and run.stdin is not None
            assert run.stdout.readline() == b"ready\n"
            run.stdin.write(b"go\n")
            run.stdin.flush()
            time.sleep(choose.uniform(0.0, 0.35))
            run.send_signal(signal.SIGKILL)
        if out.exists():  # finished before it was killed: then it must be whole
            assert sorted(file_bytes(out)) == whole[form]
            shutil.rmtree(out)
        else:
            killed += 1
    assert killed
    for form in ("meta", "hf"):
        {"meta": meta_to_hf, "hf": hf_to_meta}[form](tmp_path / form, tmp_path / "outputs" / form)
    assert sorted(path.name for path in (tmp_path / "outputs").iterdir()) == ["hf", "meta"]
    assert file_bytes(tmp_path / "outputs" / "hf") == file_bytes(tmp_path / "whole")
