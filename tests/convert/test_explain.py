"""Where did this file come from? Proved for honest files, refuted for altered ones."""

from __future__ import annotations

from pathlib import Path

import numpy as np
import pytest

from lessonkit.convert.explain import SOURCE, VIA_Q8, explain
from lessonkit.convert.from_gguf import from_gguf
from lessonkit.convert.gguf import to_gguf
from lessonkit.convert.imatrix import ImportanceMatrix
from lessonkit.files.gguf import open_gguf
from tests.convert.gguf_models import flip, small_llama


@pytest.fixture(scope="module")
def small(tmp_path_factory: pytest.TempPathFactory) -> Path:
    return small_llama(tmp_path_factory.mktemp("small") / "model")


def test_an_honest_file_is_proved_and_its_mix_named(small: Path, tmp_path: Path) -> None:
    out = tmp_path / "x.gguf"
    to_gguf(small, out, outtype="q4_k_m")
    found = explain(out, small)
    assert found.ok and found.mixes[0] == "q4_k_m"
    assert {origin.made_from for origin in found.origins} == {SOURCE}
    assert "21 of 21 tensors proved: made from this model" in str(found)


def test_one_flipped_bit_names_tensor_block_and_byte(small: Path, tmp_path: Path) -> None:
    out = tmp_path / "x.gguf"
    to_gguf(small, out, outtype="q4_k_m")
    place = open_gguf(out).place("blk.1.ffn_gate.weight")[1]
    at = place + 3 * 144 + 20  # in the fourth block
    flip(out, at)
    found = explain(out, small)
    (wrong,) = [origin for origin in found.origins if not origin.exact]
    assert wrong.name == "blk.1.ffn_gate.weight" and not found.ok
    assert wrong.detail.startswith("altered: 1 of 256 blocks")
    assert f"the first is block 3, at byte {at:,} of the file" in wrong.detail
    assert "NOT, or not only" in str(found)


def test_an_importance_matrix_must_be_given_to_prove_its_use(small: Path, tmp_path: Path) -> None:
    out = tmp_path / "x.gguf"
    columns = np.linspace(0.1, 9, 256).astype(np.float32)
    matrix = ImportanceMatrix({"blk.0.ffn_up.weight": columns}, {"blk.0.ffn_up.weight": 1.0}, "i")
    to_gguf(small, out, outtype="q4_k_m", imatrix=matrix)
    without, with_it = explain(out, small), explain(out, small, imatrix=matrix)
    assert [o.name for o in without.origins if not o.exact] == ["blk.0.ffn_up.weight"]
    assert "importance matrix 'i' was used" in without.notes[0]
    (proved,) = [o for o in with_it.origins if o.name == "blk.0.ffn_up.weight"]
    assert with_it.ok and proved.made_from == f"{SOURCE} with the importance matrix"


def test_a_requantised_file_is_found_out(small: Path, tmp_path: Path) -> None:
    to_gguf(small, tmp_path / "q8.gguf", outtype="q8_0")
    from_gguf(tmp_path / "q8.gguf", tmp_path / "back")
    to_gguf(tmp_path / "back", tmp_path / "x.gguf", outtype="q4_0")
    found = explain(tmp_path / "x.gguf", small)
    q4 = {origin.made_from for origin in found.origins if origin.dtype == "Q4_0"}
    assert found.ok and q4 == {VIA_Q8}


def test_another_models_file_is_refuted(small: Path, tmp_path: Path) -> None:
    other = small_llama(tmp_path / "other", seed=1)
    to_gguf(other, tmp_path / "x.gguf", outtype="q8_0")
    found = explain(tmp_path / "x.gguf", small)
    matrices = [origin for origin in found.origins if origin.dtype != "F32"]
    assert matrices and not any(origin.exact for origin in matrices)
    assert "made in another way" in matrices[0].detail


def test_models_of_other_sizes_do_not_match(small: Path, tmp_path: Path) -> None:
    other = small_llama(tmp_path / "other", num_hidden_layers=1, intermediate_size=512)
    to_gguf(other, tmp_path / "x.gguf")
    found = explain(tmp_path / "x.gguf", small)
    details = {origin.name: origin.detail for origin in found.origins}
    assert "its shape is" in details["blk.0.ffn_up.weight"]
    assert details["blk.1.attn_q.weight"] == "missing from the file"
    assert not found.mixes and "of no mix known here" in str(found)
