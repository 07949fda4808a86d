"""Hugging Face to GGUF: values, rows, metadata, certificate; next to the gguf package and ggml."""

from __future__ import annotations

import json
from pathlib import Path

import gguf
import numpy as np
import pytest
import torch
from safetensors.torch import load_file, save_file

from lessonkit.convert.explain import explain
from lessonkit.convert.from_gguf import from_gguf
from lessonkit.convert.gguf import OUTTYPES, choose_types, to_gguf
from lessonkit.convert.gguf_model import GgufModel
from lessonkit.convert.imatrix import ImportanceMatrix
from lessonkit.convert.open import open_model
from lessonkit.convert.verification import verify_model
from lessonkit.errors import LessonkitError
from lessonkit.files.certificate import compare
from lessonkit.files.gguf import open_gguf
from lessonkit.files.safetensors import TensorInfo
from lessonkit.formats.ggml import encode
from lessonkit.llama.shape import LlamaShape
from tests.convert.gguf_models import flip, small_llama


@pytest.fixture(scope="module")
def small(tmp_path_factory: pytest.TempPathFactory) -> Path:
    return small_llama(tmp_path_factory.mktemp("small") / "model")


def change(folder: Path, out: Path, **tensors: torch.Tensor) -> Path:
    """A copy of a model with some tensors replaced; dots in names are double underscores."""
    import shutil

    shutil.copytree(folder, out)
    content = load_file(out / "model.safetensors")
    content |= {name.replace("__", "."): tensor for name, tensor in tensors.items()}
    save_file(content, out / "model.safetensors", metadata={"format": "pt"})
    return out


def test_auto_keeps_every_bit_of_the_matrices_and_widens_the_norms(
    small: Path, tmp_path: Path
) -> None:
    certificate = to_gguf(small, tmp_path / "x.gguf")
    assert certificate.verdicts == {"bit-identical": 16, "dtype cast": 5}
    assert certificate.rounding.changed == 0
    result = compare(open_model(small), open_model(tmp_path / "x.gguf"))
    assert not result.beyond(allow_cast=True)
    assert len(result.matches) == 21
    records = json.loads((tmp_path / "x.gguf.certificate.json").read_bytes())["tensors"]
    theirs = open_model(small)
    for name in theirs.names():
        record = records[name]
        assert record["dtype"] == "BF16" and record["shape"] == list(theirs.info(name).shape)


def test_the_gguf_package_reads_the_same_values_in_its_own_row_order(
    small: Path, tmp_path: Path
) -> None:
    to_gguf(small, tmp_path / "x.gguf", outtype="f32")
    read = {t.name: t.data for t in gguf.GGUFReader(tmp_path / "x.gguf").tensors}
    weights = {n: t.float().numpy() for n, t in load_file(small / "model.safetensors").items()}
    q = weights["model.layers.1.self_attn.q_proj.weight"]
    k = weights["model.layers.1.self_attn.k_proj.weight"]
    v = weights["model.layers.1.self_attn.v_proj.weight"]
    # llama.cpp's own formula (LlamaModel.permute), 4 heads and 2 key/value heads of 64.
    theirs = q.reshape(4, 2, 32, 256).swapaxes(1, 2).reshape(q.shape)
    assert np.array_equal(read["blk.1.attn_q.weight"], theirs)
    theirs = k.reshape(2, 2, 32, 256).swapaxes(1, 2).reshape(k.shape)
    assert np.array_equal(read["blk.1.attn_k.weight"], theirs)
    assert np.array_equal(read["blk.1.attn_v.weight"], v)
    assert np.array_equal(read["token_embd.weight"], weights["model.embed_tokens.weight"])


def test_metadata_say_what_config_json_says(small: Path, tmp_path: Path) -> None:
    to_gguf(small, tmp_path / "x.gguf", outtype="q8_0")
    metadata = open_gguf(tmp_path / "x.gguf").metadata
    assert metadata["llama.embedding_length"] == 256
    assert metadata["llama.attention.head_count_kv"] == 2
    assert metadata["general.file_type"] == gguf.LlamaFileType.MOSTLY_Q8_0
    assert list(metadata)[-2:] == ["general.quantization_version", "general.file_type"]
    assert len(metadata["tokenizer.ggml.tokens"]) == metadata["llama.vocab_size"]


@pytest.mark.parametrize("outtype", ["q8_0", "q4_k_m"])
def test_blocks_are_those_of_the_encoder_and_transformers_decodes_them(
    small: Path, tmp_path: Path, outtype: str
) -> None:
    out = tmp_path / "x.gguf"
    certificate = to_gguf(small, out, outtype=outtype)
    model = GgufModel(out)
    weights = load_file(small / "model.safetensors")
    for name in model.names():
        info = model.info(name)
        if info.dtype == "F32":
            continue
        values = weights[name].float().numpy()
        assert np.array_equal(model.array(name), encode(values, info.dtype))
        decoded = gguf.dequantize(model.array(name), gguf.GGMLQuantizationType[info.dtype])
        error = np.sqrt(np.mean((decoded - values) ** 2) / np.mean(values**2))
        assert certificate.records[name].verdict == (
            f"quantised: {info.dtype}, relative RMS error {error:.3g}"
        )
    types = {model.info(name).dtype for name in model.names()}
    assert types == ({"F32", "Q8_0"} if outtype == "q8_0" else {"F32", "Q4_K", "Q6_K"})


def test_verify_finds_one_flipped_bit_and_names_its_tensor(small: Path, tmp_path: Path) -> None:
    out = tmp_path / "x.gguf"
    to_gguf(small, out, outtype="q4_0")
    assert verify_model(out).ok
    flip(out, open_gguf(out).place("blk.1.attn_q.weight")[1] + 5)
    found = verify_model(out)
    assert not found.ok
    assert "altered  model.layers.1.self_attn.q_proj.weight" in str(found)


def test_the_same_input_gives_the_same_bytes(small: Path, tmp_path: Path) -> None:
    for name in ("a.gguf", "b.gguf"):
        to_gguf(small, tmp_path / name, outtype="q5_0")
    assert (tmp_path / "a.gguf").read_bytes() == (tmp_path / "b.gguf").read_bytes()


def test_shards_give_the_same_file(small: Path, tmp_path: Path) -> None:
    sharded = small_llama(tmp_path / "model", max_shard_size="300KB")
    assert len(list(sharded.glob("*.safetensors"))) > 2
    for source, name in ((small, "a.gguf"), (sharded, "b.gguf")):
        to_gguf(source, tmp_path / name)
    assert (tmp_path / "a.gguf").read_bytes() == (tmp_path / "b.gguf").read_bytes()


def test_an_importance_matrix_changes_the_blocks_and_is_named(small: Path, tmp_path: Path) -> None:
    columns = np.linspace(1, 9, 256).astype(np.float32)
    importance = ImportanceMatrix(
        {"blk.0.ffn_up.weight": columns}, {"blk.0.ffn_up.weight": 1.0}, "some.gguf", "text", 2
    )
    to_gguf(small, tmp_path / "x.gguf", outtype="q4_k_s", imatrix=importance)
    to_gguf(small, tmp_path / "plain.gguf", outtype="q4_k_s")
    model, plain = open_gguf(tmp_path / "x.gguf"), open_gguf(tmp_path / "plain.gguf")
    differing = [n for n in model.names() if not np.array_equal(model.array(n), plain.array(n))]
    assert differing == ["blk.0.ffn_up.weight"]
    values = load_file(small / "model.safetensors")["model.layers.0.mlp.up_proj.weight"].float()
    expected = encode(values.numpy(), "Q4_K", columns)
    assert np.array_equal(model.array("blk.0.ffn_up.weight"), expected)
    assert model.metadata["quantize.imatrix.file"] == "some.gguf"
    assert model.metadata["quantize.imatrix.chunks_count"] == 2


def test_a_foreign_importance_matrix_is_refused(small: Path, tmp_path: Path) -> None:
    for name, length in (("blk.0.ffn_up.weight", 128), ("blk.9.ffn_up.weight", 256)):
        importance = ImportanceMatrix({name: np.ones(length, np.float32)}, {name: 1.0})
        with pytest.raises(LessonkitError, match="importance matrix speaks of"):
            to_gguf(small, tmp_path / "x.gguf", outtype="q4_0", imatrix=importance)
    assert not any(tmp_path.iterdir())


def test_exceptions_from_the_mix(small: Path, tmp_path: Path) -> None:
    out = tmp_path / "x.gguf"
    to_gguf(
        small, out, outtype="q4_0", tensor_types=[("attn_v", "Q8_0")], output_type="Q5_K",
        embedding_type="Q6_K",
    )  # fmt: skip
    file = open_gguf(out)
    assert file.info("blk.0.attn_v.weight").dtype == "Q8_0"
    assert file.info("output.weight").dtype == "Q5_K"
    assert file.info("token_embd.weight").dtype == "Q6_K"
    assert file.info("blk.0.attn_k.weight").dtype == "Q4_0"
    with pytest.raises(LessonkitError, match="need a mix"):
        to_gguf(small, tmp_path / "y.gguf", outtype="f16", output_type="Q8_0")


def test_capitals_do_not_matter(small: Path, tmp_path: Path) -> None:
    """llama.cpp's users write Q4_K_M and mxfp4."""
    certificates = [
        to_gguf(small, tmp_path / f"{mix}.gguf", outtype=mix, tensor_types=[("attn_v", kind)])
        for mix, kind in [("q4_k_m", "MXFP4"), ("Q4_K_M", "mxfp4")]
    ]
    assert certificates[0].options == certificates[1].options
    files = [tmp_path / f"{mix}.gguf" for mix in ("q4_k_m", "Q4_K_M")]
    assert files[0].read_bytes() == files[1].read_bytes()
    assert open_gguf(files[1]).info("blk.0.attn_v.weight").dtype == "MXFP4"


def test_a_value_beyond_f16_is_an_error_and_not_infinity(small: Path, tmp_path: Path) -> None:
    large = load_file(small / "model.safetensors")["model.layers.0.mlp.up_proj.weight"]
    large[3, 7] = 1e5
    source = change(small, tmp_path / "m", model__layers__0__mlp__up_proj__weight=large)
    with pytest.raises(LessonkitError, match=r"blk.0.ffn_up.weight holds .*F16 cannot") as caught:
        to_gguf(source, tmp_path / "x.gguf", outtype="f16")
    assert caught.value.where == "blk.0.ffn_up.weight, value 775"
    assert not (tmp_path / "x.gguf").exists()
    assert not (tmp_path / "x.gguf.certificate.json").exists()
    to_gguf(source, tmp_path / "x.gguf", outtype="bf16")


def test_nan_is_refused_where_blocks_are_made(small: Path, tmp_path: Path) -> None:
    bad = load_file(small / "model.safetensors")["model.layers.1.mlp.down_proj.weight"]
    bad[0, 0] = float("nan")
    source = change(small, tmp_path / "m", model__layers__1__mlp__down_proj__weight=bad)
    with pytest.raises(LessonkitError, match="NaN") as caught:
        to_gguf(source, tmp_path / "x.gguf", outtype="q4_k_m")
    assert "blk.1.ffn_down.weight" in str(caught.value.where)


def test_f32_is_never_rounded_without_being_asked(tmp_path: Path) -> None:
    source = small_llama(tmp_path / "m", dtype=torch.float32)
    certificate = to_gguf(source, tmp_path / "x.gguf")
    assert certificate.verdicts == {"bit-identical": 21}
    assert open_gguf(tmp_path / "x.gguf").metadata["general.file_type"] == 0


def test_a_tied_head_is_left_out_as_it_is_in_the_source(tmp_path: Path) -> None:
    source = small_llama(tmp_path / "m", tie_word_embeddings=True)
    to_gguf(source, tmp_path / "x.gguf", outtype="q4_k_m")
    file = open_gguf(tmp_path / "x.gguf")
    assert "output.weight" not in file.names()
    assert file.info("token_embd.weight").dtype == "Q6_K"
    assert set(open_model(tmp_path / "x.gguf").names()) == set(open_model(source).names())


def test_a_tied_head_that_is_stored_all_the_same(tmp_path: Path) -> None:
    source = small_llama(tmp_path / "m", tie_word_embeddings=True)
    embedding = load_file(source / "model.safetensors")["model.embed_tokens.weight"]
    same = change(source, tmp_path / "same", lm_head__weight=embedding.clone())
    other = change(source, tmp_path / "other", lm_head__weight=embedding * 2)
    certificate = to_gguf(same, tmp_path / "same.gguf")
    assert "lm_head.weight is the embedding" in certificate.notes[0]
    assert "output.weight" not in open_gguf(tmp_path / "same.gguf").names()
    to_gguf(other, tmp_path / "other.gguf")
    assert "output.weight" in open_gguf(tmp_path / "other.gguf").names()


def test_llama_3s_rotation_becomes_a_tensor(tmp_path: Path) -> None:
    rope = {
        "rope_type": "llama3", "rope_theta": 500000.0, "factor": 8.0, "low_freq_factor": 1.0,
        "high_freq_factor": 4.0, "original_max_position_embeddings": 8192,
    }  # fmt: skip
    source = small_llama(tmp_path / "m", rope_parameters=rope, max_position_embeddings=131072)
    to_gguf(source, tmp_path / "x.gguf")
    factors = open_gguf(tmp_path / "x.gguf").array("rope_freqs.weight")
    assert factors.shape == (32,) and factors[0] == 1 and factors[-1] == 8
    assert "rope_freqs.weight" not in open_model(tmp_path / "x.gguf").names()
    assert verify_model(tmp_path / "x.gguf").ok


def test_what_is_no_plain_model_is_refused(small: Path, tmp_path: Path) -> None:
    extra = change(small, tmp_path / "extra", model__layers__0__mlp__gate__weight=torch.ones(2, 2))
    with pytest.raises(LessonkitError, match="has no place"):
        to_gguf(extra, tmp_path / "x.gguf")
    codes = torch.ones(256, 256, dtype=torch.uint8)
    coded = change(small, tmp_path / "codes", model__layers__0__mlp__up_proj__weight=codes)
    with pytest.raises(LessonkitError, match="is U8"):
        to_gguf(coded, tmp_path / "x.gguf")
    wrong = change(
        small, tmp_path / "wrong", model__norm__weight=torch.ones(128, dtype=torch.bfloat16)
    )
    with pytest.raises(LessonkitError, match=r"has the shape \[128\]; config.json leads to"):
        to_gguf(wrong, tmp_path / "x.gguf")
    with pytest.raises(LessonkitError, match="no outtype 'q4'"):
        to_gguf(small, tmp_path / "x.gguf", outtype="q4")
    for name, content in [("a.gguf", b"GGUF..."), ("words.txt", b"words")]:
        (tmp_path / name).write_bytes(content)
        already = "is a GGUF file already" if name == "a.gguf" else "is a file"
        with pytest.raises(LessonkitError, match=f"This {already}; a folder"):
            to_gguf(tmp_path / name, tmp_path / "x.gguf")
    assert not (tmp_path / "x.gguf").exists()


def test_an_existing_file_is_replaced_only_by_force(small: Path, tmp_path: Path) -> None:
    out = tmp_path / "x.gguf"
    to_gguf(small, out)
    with pytest.raises(LessonkitError, match="exists already"):
        to_gguf(small, out, outtype="q8_0")
    to_gguf(small, out, outtype="q8_0", force=True)
    assert open_gguf(out).metadata["general.file_type"] == 7
    out.write_bytes(b"a diary")
    with pytest.raises(LessonkitError, match="not written by lessonkit"):
        to_gguf(small, out, force=True)


def test_rows_that_no_block_divides_become_f16() -> None:
    tensors = [TensorInfo("blk.0.ffn_up.weight", "BF16", (48, 80))]
    shape = LlamaShape(80, 1, 4, 4, 48, 100, 1e-5)
    chosen = {t: choose_types(tensors, t, "llama", shape)[0].dtype for t in ("q4_k_m", "q8_0")}
    assert chosen == {"q4_k_m": "F16", "q8_0": "F16"}


def test_every_outtype_has_a_plan() -> None:
    tensors = [TensorInfo("blk.0.ffn_up.weight", "BF16", (256, 256))]
    shape = LlamaShape(256, 1, 4, 4, 256, 100, 1e-5)
    for outtype in OUTTYPES:
        (chosen,) = choose_types(tensors, outtype, "llama", shape, imatrix=True)
        assert chosen.shape == (256, 256)


def test_parts_hold_what_one_file_holds(small: Path, tmp_path: Path) -> None:
    """Read by lessonkit, explained, turned back, and verified; the whole file is the reference."""
    to_gguf(small, tmp_path / "whole.gguf", outtype="q4_0")
    size = (tmp_path / "whole.gguf").stat().st_size
    folder = tmp_path / "parts"
    certificate = to_gguf(
        small, folder / "x.gguf", outtype="q4_0", max_part_bytes=size // 3 + 20_000
    )
    names = sorted(path.name for path in folder.iterdir())
    count = len(names) - 1
    assert count > 2 and names == [
        *(f"x-00001-of-{count:05}.gguf{end}" for end in ("", ".certificate.json")),
        *(f"x-{n:05}-of-{count:05}.gguf" for n in range(2, count + 1)),
    ]
    assert any(f"in {count} parts" in note for note in certificate.notes)
    whole, parts = open_gguf(tmp_path / "whole.gguf"), open_gguf(folder / names[2])
    assert parts.names() == whole.names()
    for name in whole.names():
        assert np.array_equal(parts.array(name), whole.array(name))
    assert whole.metadata.keys() == parts.metadata.keys() - {
        "split.no", "split.count", "split.tensors.count"
    }  # fmt: skip
    assert verify_model(folder).ok and verify_model(folder / names[0]).ok
    assert explain(folder, small).ok
    from_gguf(folder, tmp_path / "back")
    from_gguf(tmp_path / "whole.gguf", tmp_path / "back of whole")
    first, second = (
        load_file(tmp_path / b / "model.safetensors") for b in ("back", "back of whole")
    )
    assert first.keys() == second.keys()
    assert all(torch.equal(first[name], second[name]) for name in first)


def test_parts_are_written_all_or_none(small: Path, tmp_path: Path) -> None:
    broken = change(small, tmp_path / "nan", lm_head__weight=torch.full((400, 256), float("nan")))
    with pytest.raises(LessonkitError, match="NaN"):
        to_gguf(broken, tmp_path / "x.gguf", outtype="q4_0", max_part_bytes=100_000)
    assert list(tmp_path.iterdir()) == [broken]
    to_gguf(small, tmp_path / "y.gguf", outtype="q4_0", max_part_bytes=100_000)
    count = len(list(tmp_path.glob("y-*.gguf")))
    taken = tmp_path / f"x-00002-of-{count:05}.gguf"
    taken.write_bytes(b"mine")
    with pytest.raises(LessonkitError, match="exists already"):
        to_gguf(small, tmp_path / "x.gguf", outtype="q4_0", max_part_bytes=100_000)
    assert list(tmp_path.glob("x*")) == [taken]
