"""Meta to Hugging Face and back: the same bits, the same function, in every form."""

from __future__ import annotations

import json
import tracemalloc
from pathlib import Path
from typing import Any

import pytest
import torch
from safetensors.torch import save_file
from transformers import AutoConfig, AutoModelForCausalLM, AutoTokenizer

from lessonkit.convert.meta import hf_to_meta, meta_to_hf
from lessonkit.convert.open import open_model
from lessonkit.errors import LessonkitError
from lessonkit.files.certificate import CERTIFICATE_NAME, compare, tensor_sha256, verify_tensors
from lessonkit.files.checkpoint import open_checkpoint
from lessonkit.files.dtypes import bits_of
from lessonkit.llama.layout import halves_to_pairs
from tests.convert.meta_forward import logits
from tests.convert.toy import Toy, file_bytes

LLAMA_3 = Toy(vocabulary=556, llama_3=True)
FORMS = {
    "llama 2": Toy(),
    "llama 2, two shards": Toy(shards=2),
    "llama 1, as many key heads as query heads, fp16": Toy(kv_heads=4, dtype=torch.float16,
        params={"norm_eps": 1e-6, "vocab_size": -1, "n_kv_heads": None}),
    "llama 3": LLAMA_3,
    "llama 3, two shards": LLAMA_3.with_(shards=2),
    "llama 3.1": LLAMA_3.with_(params={"use_scaled_rope": True}),
    "llama 3.2, tied": LLAMA_3.with_(params={"use_scaled_rope": True}, tied=True),
    "eight shards, fp32": Toy(dim=128, heads=8, kv_heads=8, shards=8, dtype=torch.float32),
}  # fmt: skip


@pytest.fixture(params=FORMS, ids=lambda name: name.replace(" ", "-"))
def form(request: pytest.FixtureRequest) -> Toy:
    return FORMS[request.param]


@pytest.fixture
def words(sentencepiece_model: Path, tiktoken_model: Path) -> Any:
    return lambda toy: tiktoken_model if toy.llama_3 else sentencepiece_model


def test_every_tensor_is_the_same_to_the_bit(form: Toy, words: Any, tmp_path: Path) -> None:
    source = form.write(tmp_path / "meta", words(form))
    certificate = meta_to_hf(source, tmp_path / "hf", max_shard_bytes=100_000)
    expected = form.hf_tensors()
    ours = open_checkpoint(tmp_path / "hf")
    assert sorted(ours) == sorted(expected)
    for name, tensor in expected.items():
        assert ours.tensor(name).dtype == tensor.dtype
        assert torch.equal(ours.tensor(name), tensor), name
        assert certificate.records[name].sha256 == tensor_sha256(bits_of(tensor)[0])
    assert certificate.verdicts == {"bit-identical": len(expected)}


def test_the_library_computes_the_same_function(form: Toy, words: Any, tmp_path: Path) -> None:
    """Rotary layout, head counts, scaling, epsilon: any mistake there changes the logits."""
    source = form.write(tmp_path / "meta", words(form))
    meta_to_hf(source, tmp_path / "hf")
    model, report = AutoModelForCausalLM.from_pretrained(
        tmp_path / "hf", local_files_only=True, dtype=torch.float64, output_loading_info=True
    )
    assert not report["missing_keys"] and not report["unexpected_keys"]
    ids = AutoTokenizer.from_pretrained(tmp_path / "hf", local_files_only=True)(
        "The harbour of Arvelle has 12 boats, 岛屿."
    )["input_ids"]
    assert ids[0] == model.config.bos_token_id
    params = {**form.params_json(), "n_kv_heads": form.kv_heads}
    factor = None
    if "use_scaled_rope" in params:
        factor = 32.0 if form.tied else 8.0
    expected = logits(form.meta_tensors(), params, ids, factor)
    with torch.no_grad():
        found = model(torch.tensor([ids])).logits[0]
    torch.testing.assert_close(found, expected, rtol=1e-4, atol=1e-5)
    # Forgetting the permutation would be seen here:
    wrong = {k: v for k, v in model.state_dict().items() if "q_proj" in k or "k_proj" in k}
    for name, tensor in wrong.items():
        heads = form.heads if "q_proj" in name else form.kv_heads
        tensor.copy_(torch.from_numpy(halves_to_pairs(tensor.numpy().copy(), heads)))
    with torch.no_grad():
        forgot = model(torch.tensor([ids])).logits[0]
    assert (forgot - expected).abs().max() > 1e-3


def test_config(form: Toy, words: Any, tmp_path: Path) -> None:
    meta_to_hf(form.write(tmp_path / "meta", words(form)), tmp_path / "hf")
    config = AutoConfig.from_pretrained(tmp_path / "hf", local_files_only=True)
    assert config.dtype == form.dtype
    assert config.tie_word_embeddings == form.tied
    assert config.vocab_size == form.vocabulary
    rope = config.rope_parameters
    scaled = "use_scaled_rope" in form.params
    if scaled:
        assert rope["factor"] == (32.0 if form.tied else 8.0)
        assert rope["original_max_position_embeddings"] == 8192
    assert rope["rope_type"] == ("llama3" if scaled else "default")
    assert rope["rope_theta"] == (500000.0 if form.llama_3 else 10000.0)
    llama_1 = form.params.get("norm_eps") == 1e-6
    expected = 131072 if scaled else 8192 if form.llama_3 else 2048 if llama_1 else 4096
    assert config.max_position_embeddings == expected


def test_meta_to_hf_to_meta_is_the_identity(form: Toy, words: Any, tmp_path: Path) -> None:
    source = form.write(tmp_path / "meta", words(form))
    meta_to_hf(source, tmp_path / "hf")
    hf_to_meta(tmp_path / "hf", tmp_path / "back", shards=form.shards)
    for rank in range(form.shards):
        name = f"consolidated.{rank:02}.pth"
        before = torch.load(source / name, weights_only=True)
        after = torch.load(tmp_path / "back" / name, weights_only=True, mmap=True)
        before.pop("rope.freqs")
        assert sorted(after) == sorted(before)
        for key, tensor in before.items():
            assert after[key].dtype == tensor.dtype and torch.equal(after[key], tensor), key
    assert (tmp_path / "back" / "tokenizer.model").read_bytes() == words(form).read_bytes()
    again = json.loads((tmp_path / "back" / "params.json").read_text())
    given = form.params_json()
    for key in ("dim", "n_layers", "n_heads", "norm_eps"):
        assert again[key] == given[key]
    assert again["vocab_size"] == form.vocabulary
    meta_to_hf(tmp_path / "back", tmp_path / "hf2")
    first, second = file_bytes(tmp_path / "hf"), file_bytes(tmp_path / "hf2")
    del first[CERTIFICATE_NAME], second[CERTIFICATE_NAME]
    assert first == second  # weights, config and tokenizer, byte by byte


@pytest.mark.parametrize("shards", [1, 2, 4])
def test_hf_to_meta_to_hf_is_the_identity(
    tmp_path: Path, sentencepiece_model: Path, shards: int
) -> None:
    toy = Toy(kv_heads=4)
    meta_to_hf(
        toy.write(tmp_path / "m", sentencepiece_model), tmp_path / "hf", max_shard_bytes=50_000
    )
    certificate = hf_to_meta(tmp_path / "hf", tmp_path / "meta", shards=shards)
    assert len(list((tmp_path / "meta").glob("*.pth"))) == shards
    meta_to_hf(tmp_path / "meta", tmp_path / "again", max_shard_bytes=50_000)
    a, b = file_bytes(tmp_path / "hf"), file_bytes(tmp_path / "again")
    del a[CERTIFICATE_NAME], b[CERTIFICATE_NAME]
    assert a == b
    result = compare(open_model(tmp_path / "hf"), open_model(tmp_path / "meta"))
    assert {match.kind for match in result.matches} == {"bit-identical"}
    # One hash for a tensor, whatever the form it is in.
    back = json.loads((tmp_path / "again" / CERTIFICATE_NAME).read_text())["tensors"]
    for name, record in certificate.records.items():
        assert record.sha256 == back[name]["sha256"]
    verdicts = verify_tensors(open_model(tmp_path / "meta"), tmp_path / "meta" / CERTIFICATE_NAME)
    assert set(verdicts.values()) == {"ok"}


def test_same_input_gives_the_same_bytes(
    toy: Toy, sentencepiece_model: Path, tmp_path: Path
) -> None:
    source = toy.write(tmp_path / "meta", sentencepiece_model)
    meta_to_hf(source, tmp_path / "a")
    meta_to_hf(source, tmp_path / "b")
    assert file_bytes(tmp_path / "a") == file_bytes(tmp_path / "b")
    for out in ("c", "d"):
        hf_to_meta(tmp_path / "a", tmp_path / out)
    assert file_bytes(tmp_path / "c") == file_bytes(tmp_path / "d")


def test_values_are_rounded_only_when_asked(sentencepiece_model: Path, tmp_path: Path) -> None:
    toy = Toy(dtype=torch.float16)
    source = toy.write(tmp_path / "meta", sentencepiece_model)
    certificate = meta_to_hf(source, tmp_path / "hf", dtype="bfloat16")
    ours = open_checkpoint(tmp_path / "hf")
    for name, tensor in toy.hf_tensors().items():
        assert torch.equal(ours.tensor(name), tensor.bfloat16()), name
    record = certificate.records["model.embed_tokens.weight"]
    assert record.verdict.startswith("dtype cast: ") and "at most 4 ulp" in record.verdict
    assert (
        AutoConfig.from_pretrained(tmp_path / "hf", local_files_only=True).dtype == torch.bfloat16
    )
    path = tmp_path / "hf" / CERTIFICATE_NAME
    assert set(verify_tensors(ours, path).values()) == {"ok"}
    for bad in ("int8", "F7", "q4"):
        with pytest.raises(LessonkitError, match=f"cannot be rounded to '{bad}'") as caught:
            meta_to_hf(source, tmp_path / "no", dtype=bad)
        assert "float16" in str(caught.value.remedy)


def test_the_embedded_model_there_and_back(mini: Path, tmp_path: Path) -> None:
    """The lesson's walk: mini as if Meta had published it in two shards, and back again."""
    hf_to_meta(mini, tmp_path / "meta", shards=2)
    certificate = meta_to_hf(tmp_path / "meta", tmp_path / "hf")
    assert certificate.verdicts == {"bit-identical": len(open_checkpoint(mini))}
    assert not certificate.notes
    assert not compare(open_model(mini), open_model(tmp_path / "hf")).beyond()
    a, b = (AutoConfig.from_pretrained(f, local_files_only=True) for f in (mini, tmp_path / "hf"))
    assert a.to_diff_dict() == b.to_diff_dict()
    a, b = (
        AutoTokenizer.from_pretrained(f, local_files_only=True) for f in (mini, tmp_path / "hf")
    )
    for text in (" = Port Amber = \n", "岛上的灯塔", "  two spaces"):
        assert a(text)["input_ids"] == b(text)["input_ids"]


@pytest.mark.parametrize("options", ["[]", '{"context": "long"}', '{"context": true}'])
def test_a_strange_certificate_changes_nothing(
    toy: Toy, sentencepiece_model: Path, tmp_path: Path, options: str
) -> None:
    source = toy.write(tmp_path / "meta", sentencepiece_model)
    (source / CERTIFICATE_NAME).write_text(f'{{"options": {options}}}')
    assert any("4096 tokens, as in Llama 2" in n for n in meta_to_hf(source, tmp_path / "o").notes)


@pytest.mark.parametrize("tied", [False, True])
def test_equal_embedding_and_head_stay_as_they_were(
    sentencepiece_model: Path, tmp_path: Path, tied: bool
) -> None:
    """Meta's files do not say whether two equal matrices are one: the certificate does."""
    toy = Toy(tied=True)
    meta_to_hf(toy.write(tmp_path / "m", sentencepiece_model), tmp_path / "hf")
    if not tied:
        table = {n: t.contiguous() for n, t in toy.hf_tensors().items()}
        table["lm_head.weight"] = table["model.embed_tokens.weight"].clone()
        save_file(table, tmp_path / "hf" / "model.safetensors")
        path = tmp_path / "hf" / "config.json"
        path.write_text(json.dumps({**json.loads(path.read_text()), "tie_word_embeddings": False}))
    hf_to_meta(tmp_path / "hf", tmp_path / "meta")
    meta_to_hf(tmp_path / "meta", tmp_path / "again")
    assert ("lm_head.weight" in open_checkpoint(tmp_path / "again")) != tied
    result = compare(open_checkpoint(tmp_path / "hf"), open_checkpoint(tmp_path / "again"))
    assert {match.kind for match in result.matches} == {"bit-identical"}


@pytest.mark.parametrize("shards", [1, 2])
def test_memory_follows_the_largest_tensor_not_the_model(
    sentencepiece_model: Path, tmp_path: Path, shards: int
) -> None:
    toy = Toy(dim=512, layers=8, heads=4, kv_heads=4, mlp=1024, shards=shards,
              params={"ffn_dim_multiplier": 0.75, "multiple_of": 256})  # fmt: skip
    source = toy.write(tmp_path / "meta", sentencepiece_model)
    largest = 2 * 1024 * 512

    def peak(convert: Any, *arguments: Path, **options: int) -> int:
        tracemalloc.start()
        convert(*arguments, **options)
        highest = tracemalloc.get_traced_memory()[1]
        tracemalloc.stop()
        return highest

    meta_to_hf(source, tmp_path / "first")  # so that everything is imported
    assert peak(meta_to_hf, source, tmp_path / "hf") < 4 * largest
    assert peak(hf_to_meta, tmp_path / "hf", tmp_path / "back", shards=shards) < 4 * largest
    assert (tmp_path / "hf" / "model.safetensors").stat().st_size > 40 * largest


def test_hf_to_meta_reads_what_the_library_saves(
    toy: Toy, sentencepiece_model: Path, tmp_path: Path
) -> None:
    """transformers 5 writes rope_parameters, and no tokenizer.model."""
    meta_to_hf(toy.write(tmp_path / "meta", sentencepiece_model), tmp_path / "hf")
    model = AutoModelForCausalLM.from_pretrained(tmp_path / "hf", local_files_only=True)
    model.save_pretrained(tmp_path / "saved")
    certificate = hf_to_meta(tmp_path / "saved", tmp_path / "again")
    assert "the source has no tokenizer.model, which Meta's code needs" in certificate.notes
    ours = torch.load(tmp_path / "again" / "consolidated.00.pth", weights_only=True)
    for name, tensor in toy.meta_tensors().items():
        assert torch.equal(ours[name], tensor), name


def test_shapes_in_either_form(
    toy: Toy, sentencepiece_model: Path, tmp_path: Path, mini: Path
) -> None:
    source = toy.write(tmp_path / "meta", sentencepiece_model)
    meta_to_hf(source, tmp_path / "hf")
    shapes = [open_model(path).shape for path in (source, tmp_path / "hf")]
    assert shapes[0] == shapes[1] and shapes[0] is not None and shapes[0].layers == 2
    (tmp_path / "hf" / "config.json").write_text('{"model_type": "mistral"}')
    assert open_model(tmp_path / "hf").shape is None
    (tmp_path / "hf" / "config.json").unlink()
    assert open_model(tmp_path / "hf").shape is None
