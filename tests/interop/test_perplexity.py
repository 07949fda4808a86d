"""Perplexities against the tools whose protocols they follow: llama-perplexity and lm-eval.

`make interop` makes both tools, and lets nothing be skipped. Elsewhere each test is skipped where
its tool is not below `.interop`, and says so.
"""

from __future__ import annotations

import json
import os
import re
import subprocess
from pathlib import Path

import pytest
import torch

from lessonkit.convert import runnable, to_gguf
from lessonkit.evaluate.divergence import divergences
from lessonkit.evaluate.documents import detokenize, pages, raw_text
from lessonkit.evaluate.kl_base import divergence_from_base, read_kl_base, write_kl_base
from lessonkit.evaluate.perplexity import perplexity
from lessonkit.models.loading import load
from lessonkit.models.texts import evaluation_text
from lessonkit.quantize.rtn import quantized_model
from tests.interop import llama_cpp_library

ROOT = Path(__file__).resolve().parents[2]
PERPLEXITY = llama_cpp_library.PERPLEXITY
LM_EVAL = ROOT / ".interop" / "lm-eval-0.4.13" / "bin" / "python"
REQUIRED = os.environ.get("LESSONKIT_INTEROP") == "required"
CHUNKS = 6

needs_llama_cpp = pytest.mark.skipif(
    not PERPLEXITY.is_file() and not REQUIRED,
    reason="not compared: llama-perplexity is not here",
)
needs_lm_eval = pytest.mark.skipif(
    not LM_EVAL.is_file() and not REQUIRED,
    reason="not compared: lm-eval 0.4.13 is not here",
)


@pytest.fixture(scope="module")
def loaded(mini):
    return load(mini, dtype="float32", device="cpu")


@pytest.fixture(scope="module")
def file() -> Path:
    return ROOT / "data" / "texts" / "en" / "test.txt"


@pytest.fixture(scope="module")
def text(file):
    return evaluation_text(file)


# --- llama.cpp ---------------------------------------------------------------------------------


def run(*command, until: str = "") -> str:
    """What a program prints.

    llama-perplexity's logger now and then loses the end of its output when the program exits, so
    it is asked again until the line that is wanted has come.
    """
    for _ in range(8):
        done = subprocess.run(
            [str(part) for part in command], capture_output=True, text=True, check=False
        )
        assert done.returncode == 0, done.stderr[-2000:]
        if until in done.stdout + done.stderr:
            return done.stdout + done.stderr
    return pytest.fail(f"{until!r} is not in the output: {done.stdout[-2000:]}")


def compared_with(gguf: Path, base: Path) -> str:
    """The statistics that llama-perplexity prints for a model and a base file."""
    return run(
        PERPLEXITY, "-m", gguf, "-c", 512, "-b", 512, "--kl-divergence",
        "--kl-divergence-base", base, until="Same top p:",
    )  # fmt: skip


@pytest.fixture(scope="module")
def gguf(mini, tmp_path_factory):
    out = tmp_path_factory.mktemp("gguf") / "mini.gguf"
    to_gguf(mini, out, outtype="f32")
    return out


@pytest.fixture(scope="module")
def theirs(gguf, file):
    """What llama-perplexity prints for the first chunks, and its base file."""
    base = gguf.with_name("theirs.kld")
    printed = run(
        PERPLEXITY, "-m", gguf, "-f", file, "-c", 512, "-b", 512, "--chunks", CHUNKS,
        "--kl-divergence-base", base, until="Final estimate",
    )  # fmt: skip
    return printed, base


def numbers(label: str, printed: str) -> list[float]:
    line = re.search(rf"{re.escape(label)}\s*[:=](.*)", printed)
    assert line, printed[-2000:]
    return [float(number) for number in re.findall(r"-?\d+\.\d+", line[1])]


@needs_llama_cpp
def test_llama_perplexitys_value_and_error(loaded, text, theirs):
    value, error = numbers("Final estimate: PPL", theirs[0])
    found = perplexity(*loaded, text, protocol="llama.cpp", max_windows=CHUNKS)
    assert found.value == pytest.approx(value, abs=1e-3)
    assert found.error == pytest.approx(error, abs=1e-4)
    other = perplexity(*loaded, text, window=512, max_windows=CHUNKS)
    assert abs(other.value - value) > 0.02, "another protocol gives another number"


@needs_llama_cpp
@pytest.mark.parametrize("outtype", ["q8_0", "q4_k_m", "q2_k"])
def test_a_quantised_file_by_their_kernels_and_dequantised(mini, file, text, outtype, tmp_path):
    """Theirs rounds each layer's inputs to 8 bits too; that is another, smaller change."""
    to_gguf(mini, tmp_path / "x.gguf", outtype=outtype)
    printed = run(
        PERPLEXITY, "-m", tmp_path / "x.gguf", "-f", file, "-c", 512, "-b", 512,
        "--chunks", CHUNKS, until="Final estimate",
    )  # fmt: skip
    (value, _), ours = numbers("Final estimate: PPL", printed), runnable(tmp_path / "x.gguf")
    found = perplexity(ours.model, ours.tokenizer, text, protocol="llama.cpp", max_windows=CHUNKS)
    assert found.value == pytest.approx(value, rel=0.01)


@needs_llama_cpp
def test_we_read_their_base_file(loaded, text, theirs, tmp_path):
    read = read_kl_base(theirs[1])
    ours = read_kl_base(write_kl_base(tmp_path / "ours.kld", *loaded, text, max_windows=CHUNKS))
    assert read.rows.shape == ours.rows.shape
    assert read.pieces(1) == ours.pieces(1)
    for window in range(CHUNKS):
        gap = (read.log_probabilities(window) - ours.log_probabilities(window)).abs()
        assert float(gap.max()) < 0.05 and float(gap.mean()) < 1e-3


@needs_llama_cpp
def test_they_read_our_base_file_and_find_the_same_divergence(loaded, text, gguf, tmp_path):
    """Base: the model in 4 bits; compared with it: the model as it is."""
    with quantized_model(loaded.model, "int4 block 64"):
        base = write_kl_base(tmp_path / "int4.kld", *loaded, text, max_windows=CHUNKS)
    printed = compared_with(gguf, base)
    found = divergence_from_base(base, loaded.model, loaded.tokenizer.bos_token_id)
    assert found.mean > 1e-3
    assert [found.mean, found.error] == pytest.approx(numbers("Mean    KLD", printed), abs=2e-5)
    assert found.largest == pytest.approx(numbers("Maximum KLD", printed)[0], abs=1e-3)
    assert found.kl_percentile(90) == pytest.approx(numbers("90.0%   KLD", printed)[0], abs=1e-4)
    assert 100 * found.delta_p_rms == pytest.approx(numbers("RMS Δp", printed)[0], abs=0.01)
    assert 100 * found.agreement == pytest.approx(numbers("Same top p", printed)[0], abs=0.1)


@needs_llama_cpp
def test_a_model_against_its_own_file_in_both_programs(loaded, text, gguf, theirs):
    """Not the .00055 of llama.cpp's README; and exactly 0 without the file."""
    printed = compared_with(gguf, theirs[1])
    assert abs(numbers("Mean    KLD", printed)[0]) < 1e-5
    assert numbers("Maximum KLD", printed)[0] < 3e-4
    found = divergences(
        *loaded, text, {"itself": torch.inference_mode()}, protocol="llama.cpp", max_windows=2
    )
    assert found["itself"].largest == 0


# --- lm-eval -----------------------------------------------------------------------------------

TASK = """
task: articles
dataset_path: json
dataset_kwargs: {data_files: {test: PAGES}}
output_type: loglikelihood_rolling
test_split: test
doc_to_text: ""
doc_to_target: !function preprocess.wikitext_detokenizer
process_results: !function preprocess.process_results
metric_list: [{metric: word_perplexity}, {metric: byte_perplexity}, {metric: bits_per_byte}]
"""
# The task `wikitext` itself, on other documents.
PREPROCESS = "from lm_eval.tasks.wikitext.preprocess_wikitext import *\n"
PROGRAM = """
import json, sys
import lm_eval
from lm_eval.models.huggingface import HFLM
from lm_eval.tasks import TaskManager
from lm_eval.tasks.wikitext.preprocess_wikitext import wikitext_detokenizer

model = HFLM(pretrained=sys.argv[1], dtype="float32", device="cpu", add_bos_token=False)
tasks = TaskManager(include_path=sys.argv[2])
found = lm_eval.simple_evaluate(model, tasks=["articles"], task_manager=tasks, bootstrap_iters=0)
seen = [wikitext_detokenizer(json.loads(line)) for line in open(sys.argv[3], encoding="utf-8")]
print("RESULT", json.dumps([found["results"]["articles"], seen]))
"""
WIKITEXT = (
    " = Lamp = \n \n The lamp 's light , built in 1842 , reaches 3 @.@ 5 km ; \" it is ( as they "
    "say ) seen from the sailors ' town \" . 5 ° N of it [ sic ] lie 1 @,@ 000 whale @-@ bones : "
    "' old ' ones ! \n \n = = Oil = = \n \n It burned oil . \n "
)


@needs_lm_eval
def test_lm_evals_three_metrics(loaded, mini, tmp_path):
    """Articles shorter and longer than the model's context, and one full of WikiText's seams."""
    island = raw_text(evaluation_text(ROOT / "data" / "texts" / "en" / "test.txt").rows)
    some = sorted(pages(island), key=len)[::40]
    documents = [*some, " = Long = \n \n " + " ".join(some).replace("=", ""), WIKITEXT]
    content = "\n".join(documents) + "\n"
    file = tmp_path / "articles.test.txt"
    file.write_text(content, encoding="utf-8", newline="\n")
    ours = pages(raw_text(evaluation_text(file).rows))

    task = tmp_path / "task"
    task.mkdir()
    listed = tmp_path / "pages.jsonl"
    listed.write_text("".join(json.dumps({"page": page}) + "\n" for page in ours))
    (task / "articles.yaml").write_text(TASK.replace("PAGES", str(listed)))
    (task / "preprocess.py").write_text(PREPROCESS)
    environment = {
        **os.environ, "HF_HUB_OFFLINE": "1", "HF_DATASETS_CACHE": str(tmp_path), "PYTHONPATH": "",
    }  # fmt: skip
    done = subprocess.run(
        [LM_EVAL, "-c", PROGRAM, mini, task, listed],
        env=environment, capture_output=True, text=True, check=False,
    )  # fmt: skip
    assert done.returncode == 0, done.stderr[-2000:]
    theirs, seen = json.loads(done.stdout.rpartition("RESULT")[2])

    assert [detokenize(page) for page in ours] == seen
    found = perplexity(*loaded, evaluation_text(file), protocol="word_perplexity")
    assert max(found.window_scored) == 512 and found.windows > len(ours), "some need two windows"
    for unit, metric in {
        "word": "word_perplexity", "byte": "byte_perplexity", "bit": "bits_per_byte",
    }.items():  # fmt: skip
        assert found.per(unit).value == pytest.approx(theirs[f"{metric},none"], rel=2e-5), metric
