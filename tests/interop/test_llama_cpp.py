"""Our GGUF files in llama.cpp: tokens, logits, codes, importance matrices, adapters.

`make interop` builds it (see llama_cpp_library.py), and lets nothing be skipped. Elsewhere these
tests are skipped where it is missing, and say so.
"""

from __future__ import annotations

import os
import subprocess
from pathlib import Path

import numpy as np
import pytest
import torch
from peft import PeftModel

from lessonkit.convert.adapter_gguf import adapter_to_gguf
from lessonkit.convert.from_gguf import from_gguf
from lessonkit.convert.gguf import to_gguf
from lessonkit.convert.gguf_mix import MIXES
from lessonkit.convert.imatrix import collect_imatrix, read_imatrix
from lessonkit.files.gguf import open_gguf
from lessonkit.models import calibration_text, load
from tests.convert.adapters import make_adapter
from tests.interop import llama_cpp_library
from tests.interop.llama_cpp_library import IMATRIX, QUANTIZE, ask

HARD = (
    "The island", " two  spaces and   three", "a\nb\n\nc\n", "\ttab", "trailing ", "",
    "naïve café – “quotes” …", "数学 and 汉字，标点。", "한국어 العربية עברית", "🙂 👩‍👩‍👧 🇨🇭",
    "\x00\x01\x7f", "�", "<s>", "a</s>", "</s>", "<unk>", "1234567890.5e-3", "ﬁ ﬂ ½ ²",
    "▁ metaspace",
)  # fmt: skip
# The scores of F32 and F16 files, next to transformers in float32; the largest are about 27.
# llama.cpp rounds a matrix's input to the matrix's type, so an F16 file computes in half precision.
TOLERANCE = {"f32": 2e-4, "f16": 3e-2}
CHUNKS = 4  # of the importance matrix
TEXT = "The lighthouse of Port Saffron stands on the Northern Fells.\nIn the year 1782"


@pytest.fixture(scope="module", autouse=True)
def _built() -> None:
    if not llama_cpp_library.ready():
        if os.environ.get("LESSONKIT_INTEROP") != "required":
            pytest.skip("not compared: no llama.cpp (python tests/interop/llama_cpp_library.py)")
        llama_cpp_library.FOLDER.mkdir(parents=True, exist_ok=True)
        llama_cpp_library.build()


@pytest.fixture(scope="module")
def files(mini: Path, tmp_path_factory: pytest.TempPathFactory) -> dict[str, Path]:
    folder = tmp_path_factory.mktemp("gguf")
    out = {outtype: folder / f"{outtype}.gguf" for outtype in TOLERANCE}
    for outtype, path in out.items():
        to_gguf(mini, path, outtype=outtype)
    return out


@pytest.fixture(scope="module")
def importance(mini: Path, tmp_path_factory: pytest.TempPathFactory) -> Path:
    """Our importance matrix, as a file."""
    out = tmp_path_factory.mktemp("imatrix") / "island.gguf"
    text = calibration_text("island")
    collect_imatrix(*load(mini, dtype="float32"), text, chunks=CHUNKS).save(out)
    return out


def run(*command: object) -> str:
    """What a program of llama.cpp prints."""
    parts = [str(part) for part in command]
    done = subprocess.run(parts, capture_output=True, text=True, check=False)
    assert done.returncode == 0, done.stderr[-2000:]
    return done.stdout + done.stderr


def assert_same_tensors(ours: Path, theirs: Path) -> None:
    a, b = open_gguf(ours), open_gguf(theirs)
    assert a.names() == b.names()
    for name in a.names():
        assert a.info(name) == b.info(name)
        assert np.array_equal(a.array(name), b.array(name)), name


def test_hard_strings_become_the_original_s_tokens(mini: Path, files: dict[str, Path]) -> None:
    _, tokenizer = load(mini, dtype="float32")
    theirs = ask(model=str(files["f16"]), texts=HARD)
    ours = [tokenizer(text)["input_ids"] for text in HARD]
    wrong = {t: (a, b) for t, a, b in zip(HARD, ours, theirs, strict=True) if a != b}
    assert not wrong


def test_text_behind_a_special_token_gets_a_space_there(mini: Path, files: dict[str, Path]) -> None:
    """The one difference: llama.cpp begins anew, as transformers' tokenizers once did."""
    _, tokenizer = load(mini, dtype="float32")
    (theirs,) = ask(model=str(files["f16"]), texts=["a</s>b"])
    ours = tokenizer("a</s>b")["input_ids"]
    assert theirs[:-1] == ours[:-1]
    assert tokenizer.convert_ids_to_tokens([ours[-1], theirs[-1]]) == ["b", "▁b"]


@pytest.mark.parametrize("outtype", TOLERANCE)
def test_scores_are_transformers_s(mini: Path, files: dict[str, Path], outtype: str) -> None:
    model, tokenizer = load(mini, dtype="float32")
    ids = tokenizer(TEXT)["input_ids"]
    theirs = np.array(ask(model=str(files[outtype]), ids=ids))
    with torch.inference_mode():
        ours = model(torch.tensor([ids])).logits[0].numpy()
    difference = np.abs(theirs - ours).max()
    print(f"{outtype}: largest difference {difference:.2g}, largest score {np.abs(ours).max():.3g}")
    assert difference < TOLERANCE[outtype]


def test_parts_are_scored_as_one_file(mini: Path, files: dict[str, Path], tmp_path: Path) -> None:
    _, tokenizer = load(mini, dtype="float32")
    to_gguf(mini, tmp_path / "x.gguf", outtype="f16", max_part_bytes=4_000_000)
    first, *others = sorted(tmp_path.glob("*.gguf"))
    assert others
    ids = tokenizer(TEXT)["input_ids"]
    assert ask(model=str(first), ids=ids) == ask(model=str(files["f16"]), ids=ids)


@pytest.mark.parametrize("outtype", ["q8_0", "q4_0", "q3_k_m", "q4_k_m", "q5_k_m", "iq4_xs"])
def test_llama_cpp_quantises_our_f32_file_to_our_tensors(
    mini: Path, files: dict[str, Path], tmp_path: Path, outtype: str
) -> None:
    theirs, ours = tmp_path / "theirs.gguf", tmp_path / "ours.gguf"
    request = [str(files["f32"]), str(theirs), MIXES[outtype].file_type]
    assert ask(quantise=request) == 0
    to_gguf(mini, ours, outtype=outtype)
    assert_same_tensors(ours, theirs)


@pytest.mark.parametrize("outtype", ["q8_0", "q5_1", "q4_k_m", "iq4_nl"])
def test_llama_cpp_quantises_our_f16_file_to_our_tensors(
    mini: Path, tmp_path: Path, outtype: str
) -> None:
    """Its codes follow the rounded values; so do ours, of the model that the F16 file holds."""
    uneven, f16, theirs = (tmp_path / f"{name}.gguf" for name in ("uneven", "f16", "theirs"))
    to_gguf(mini, uneven, outtype="q6_k")
    from_gguf(uneven, tmp_path / "uneven")  # F32 values that F16 cannot hold
    to_gguf(tmp_path / "uneven", f16, outtype="f16")
    assert ask(quantise=[str(f16), str(theirs), MIXES[outtype].file_type]) == 0
    from_gguf(f16, tmp_path / "rounded")
    for source in ("rounded", "uneven"):
        to_gguf(tmp_path / source, tmp_path / f"from_{source}.gguf", outtype=outtype)
    assert_same_tensors(tmp_path / "from_rounded.gguf", theirs)
    with pytest.raises(AssertionError):
        assert_same_tensors(tmp_path / "from_uneven.gguf", theirs)


@pytest.mark.parametrize("outtype", ["q2_k_s", "q4_0", "q3_k_m", "q4_k_m", "q5_1", "iq4_xs"])
def test_llama_quantize_reads_our_importance_matrix(
    mini: Path, files: dict[str, Path], importance: Path, tmp_path: Path, outtype: str
) -> None:
    theirs, ours = tmp_path / "theirs.gguf", tmp_path / "ours.gguf"
    said = run(QUANTIZE, "--imatrix", importance, files["f32"], theirs, outtype, 1)
    assert "importance matrix entries" in said
    to_gguf(mini, ours, outtype=outtype, imatrix=importance)
    assert_same_tensors(ours, theirs)
    for key in ("dataset", "entries_count", "chunks_count"):
        a, b = (open_gguf(f).metadata[f"quantize.imatrix.{key}"] for f in (ours, theirs))
        assert a == b, key


def test_llama_imatrix_measures_what_we_measure(
    files: dict[str, Path], importance: Path, tmp_path: Path
) -> None:
    """On the same text, from the F32 file: every sum of squares within 0.1 %."""
    text, out = tmp_path / "text.txt", tmp_path / "theirs.gguf"
    text.write_text(calibration_text("island").joined(), encoding="utf-8", newline="")
    run(
        IMATRIX, "-m", files["f32"], "-f", text, "-o", out, "-c", 512, "-b", 512,
        "--chunks", CHUNKS, "-ctk", "f32", "-ctv", "f32", "-fa", "off", "-t", 1,
    )  # fmt: skip
    ours, theirs = read_imatrix(importance), read_imatrix(out)
    assert ours.counts == theirs.counts
    assert theirs.chunks == ours.chunks == CHUNKS
    largest = 0.0
    for name, sums in ours.sums.items():
        relative = np.abs(sums - theirs.sums[name]) / sums
        largest = max(largest, float(relative.max()))
    print(f"{len(ours.sums)} weights, largest relative difference of a column {largest:.2g}")
    assert largest < 1e-3


@pytest.mark.parametrize("options", [{}, {"use_rslora": True}, {"alpha_pattern": {"v_proj": 32}}])
def test_our_adapters_give_pefts_scores(
    mini: Path, files: dict[str, Path], tmp_path: Path, options: dict[str, object]
) -> None:
    """Scales that llama.cpp does not know are folded into B; unfolded, they would be missed."""
    model, tokenizer = load(mini, dtype="float32")
    ids = tokenizer(TEXT)["input_ids"]
    adapter = make_adapter(mini, tmp_path / "lora", r=16, size=0.1, **options)
    adapter_to_gguf(adapter, tmp_path / "lora.gguf", base=mini)
    with torch.inference_mode():
        plain = model(torch.tensor([ids])).logits[0].double().numpy()
        adapted = PeftModel.from_pretrained(model, adapter).eval()
        expected = adapted(torch.tensor([ids])).logits[0].double().numpy()
    theirs = np.array(ask(model=str(files["f32"]), ids=ids, adapter=str(tmp_path / "lora.gguf")))
    assert np.abs(theirs - expected).max() < 2e-3
    assert np.abs(expected - plain).max() > 1  # what the adapter does is far more than that
