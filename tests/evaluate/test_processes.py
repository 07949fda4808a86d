"""Two processes find what one finds, to the last bit; and alone there is nothing to join."""

from __future__ import annotations

import json
import os
import subprocess
import sys
from pathlib import Path

import pytest

from lessonkit.evaluate.divergence import divergence
from lessonkit.evaluate.perplexity import perplexity
from lessonkit.evaluate.processes import gathered, joined, share
from lessonkit.models.tokenizer import load_tokenizer
from tests.evaluate.common import TEXT, tiny_model
from tests.tiny import make_tokenizer

ROOT = Path(__file__).resolve().parents[2]

# What one process measures, and two: batches of different sizes, pieces of different lengths.
PROGRAM = """
import json, sys
from pathlib import Path
from lessonkit.evaluate.processes import joined, share
from tests.evaluate.test_processes import measured

with joined() as speaks:
    mine = len(share(range(7)))
    found = measured(Path(sys.argv[1]))
    with open(f"{sys.argv[2]}.{mine}", "w") as file:
        json.dump([speaks, mine, *found], file)
"""


def measured(folder: Path) -> list[list[str]]:
    """Every bit of a perplexity and of a divergence."""
    tokenizer = load_tokenizer(folder)
    model, other = (tiny_model(seed, max_position_embeddings=64) for seed in (0, 1))
    options = {"protocol": "word_perplexity", "window": 32, "batch": 2}
    loss = perplexity(model, tokenizer, TEXT, **options)
    far = divergence(model, other, tokenizer, TEXT, **options)
    numbers = [loss.mean_nll, loss.mean_square, *loss.window_nll]
    return [
        [number.hex() for number in numbers],
        [number.hex() for number in far.kl.tolist()],
        [number.hex() for number in far.delta_p.tolist()],
    ]


def test_two_gloo_processes_find_what_one_finds(tmp_path):
    folder = make_tokenizer(tmp_path / "tokenizer")
    script, out = tmp_path / "measure.py", tmp_path / "found"
    script.write_text(PROGRAM)
    done = subprocess.run(
        [sys.executable, "-m", "torch.distributed.run", "--standalone", "--nproc-per-node", "2",
         str(script), str(folder), str(out)],
        cwd=ROOT, env={**os.environ, "PYTHONPATH": str(ROOT), "OMP_NUM_THREADS": "1"},
        capture_output=True, text=True, check=False,
    )  # fmt: skip
    assert done.returncode == 0, done.stderr[-3000:]
    first, second = (json.loads(out.with_name(f"found.{mine}").read_text()) for mine in (4, 3))
    assert [first[0], second[0]] == [True, False], "one process speaks"
    assert first[2:] == second[2:], "both know all"
    alone = subprocess.run(
        [sys.executable, str(script), str(folder), str(out)],
        cwd=ROOT, env={**os.environ, "PYTHONPATH": str(ROOT), "OMP_NUM_THREADS": "1"},
        capture_output=True, text=True, check=False,
    )  # fmt: skip
    assert alone.returncode == 0, alone.stderr[-3000:]
    single = json.loads(out.with_name("found.7").read_text())
    assert single[0] is True and single[2:] == first[2:]
    assert len(single[2]) > 6 and len(single[3]) > 100


@pytest.mark.parametrize("launched", [{}, {"WORLD_SIZE": "1", "RANK": "0"}])
def test_a_process_alone_does_all_and_speaks(monkeypatch, launched):
    for name, value in launched.items():
        monkeypatch.setenv(name, value)
    with joined() as speaks:
        assert speaks
        assert list(share([3, 1, 2])) == [3, 1, 2]
        assert list(gathered({2: "b", 1: "a"}).items()) == [(1, "a"), (2, "b")]
