"""Predicted sizes next to those of files that were really written."""

from __future__ import annotations

from pathlib import Path

import numpy as np
import pytest

from lessonkit.convert.gguf import OUTTYPES, to_gguf
from lessonkit.convert.imatrix import ImportanceMatrix
from lessonkit.convert.nf4 import quantize_checkpoint
from lessonkit.convert.plan import hf_tensors, plan
from lessonkit.errors import LessonkitError
from lessonkit.llama.shape import LlamaShape
from tests.convert.gguf_models import small_llama

TINYLLAMA = LlamaShape(2048, 22, 32, 4, 5632, 32000, 1e-5)


@pytest.fixture(scope="module")
def small(tmp_path_factory: pytest.TempPathFactory) -> Path:
    return small_llama(tmp_path_factory.mktemp("small") / "model")


@pytest.mark.parametrize("outtype", [name for name in OUTTYPES if name != "auto"])
def test_a_gguf_file_has_the_predicted_size(small: Path, tmp_path: Path, outtype: str) -> None:
    needs = {"imatrix": ImportanceMatrix({}, {})} if outtype == "q2_k_s" else {}
    to_gguf(small, tmp_path / "x.gguf", outtype=outtype, **needs)
    size = (tmp_path / "x.gguf").stat().st_size
    if needs:  # the file also says which importance matrix was used
        from lessonkit.files.gguf import open_gguf

        assert 0 < size - plan(small).outputs[outtype].nbytes < 256
        assert "quantize.imatrix.file" in open_gguf(tmp_path / "x.gguf").metadata
    else:
        assert size == plan(small).outputs[outtype].nbytes


@pytest.mark.parametrize("outtype", ["bf16", "q4_k_m"])
def test_the_embedded_models_file_has_the_predicted_size(
    mini: Path, tmp_path: Path, outtype: str
) -> None:
    to_gguf(mini, tmp_path / "x.gguf", outtype=outtype)
    assert (tmp_path / "x.gguf").stat().st_size == plan(mini).outputs[outtype].nbytes


@pytest.mark.parametrize("double", [False, True])
def test_nf4_has_the_predicted_size_but_for_its_json(
    small: Path, tmp_path: Path, double: bool
) -> None:
    quantize_checkpoint(small, tmp_path / "x", double_quant=double)
    from lessonkit.files.checkpoint import open_checkpoint

    written = open_checkpoint(tmp_path / "x")
    size = sum(written.info(n).nbytes for n in written.names() if "quant_state" not in n)
    assert size == plan(small).outputs["nf4 double" if double else "nf4"].nbytes


def test_sizes_alone_give_tinyllamas_figures() -> None:
    found = plan(TINYLLAMA, context=2048)
    assert found.parameters == 1_100_048_384 and not found.exact
    assert found.outputs["fp16, bf16"].nbytes == 2 * 1_100_048_384
    # 4 bits, and a float16 scale for 32 values; a better output; norms in F32.
    assert 4.5 < found.outputs["q4_0"].bits_per_weight < 4.7
    # By hand: 22 layers, keys and values, 4 heads of 64, 2048 tokens, 2 bytes.
    assert found.cache["16 bits"] == 22 * 2 * 4 * 64 * 2048 * 2 == 46_137_344
    assert found.cache["q8_0"] == 46_137_344 * 34 // 64
    assert found.cache["q4_0"] == 46_137_344 * 18 // 64
    used = found.memory("q4_k_m", "q8_0")
    assert used == found.outputs["q4_k_m"].nbytes + found.cache["q8_0"]
    assert "q4_k_m" in str(found) and "metadata comes on top" in str(found)


def test_gptq_and_awq_by_hand() -> None:
    # One layer of width 128: q, k, v, o, gate, up are 128 x 128, down too; embedding and head 10.
    found = plan(LlamaShape(128, 1, 2, 2, 128, 10, 1e-5))
    rest = 2 * (2 * 10 * 128 + 3 * 128)
    one = 128 * 128 // 2 + 2 * 128 + 128 // 2
    assert found.outputs["awq"].nbytes == rest + 7 * one
    assert found.outputs["gptq"].nbytes == rest + 7 * (one + 4 * 128)


def test_a_configuration_alone_is_enough(small: Path) -> None:
    whole, alone = plan(small), plan(small / "config.json")
    assert alone.parameters == whole.parameters and not alone.exact and whole.exact
    assert alone.outputs["q4_k_m"].nbytes < whole.outputs["q4_k_m"].nbytes
    assert alone.context == 128


def test_a_gguf_file_is_no_model_to_plan_from(tmp_path: Path) -> None:
    (tmp_path / "x.gguf").write_bytes(b"GGUF...")
    with pytest.raises(LessonkitError, match="This is a GGUF file"):
        plan(tmp_path / "x.gguf")


def test_tied_models_have_no_head() -> None:
    tied = LlamaShape(64, 1, 2, 2, 64, 10, 1e-5, tied=True)
    assert "lm_head.weight" not in {info.name for info in hf_tensors(tied)}


def test_an_unknown_output_is_told() -> None:
    with pytest.raises(LessonkitError, match="no output 'q9'"):
        plan(TINYLLAMA).memory("q9")
    assert np.isfinite(plan(TINYLLAMA).outputs["f32"].bits_per_weight)
