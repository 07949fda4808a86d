"""The mixes: against llama.cpp's own snapshots, and rule by rule where those have no case."""

from __future__ import annotations

import json
import random
from pathlib import Path

import gguf
import pytest

from lessonkit.convert.gguf_mix import MIXES, ModelFigures, is_quantised, tensor_types, that_divides
from lessonkit.errors import LessonkitError
from tests.convert.golden.gguf_mixes import MODELS, expand, tensors

GOLDEN = json.loads((Path(__file__).parent / "golden" / "gguf_mixes.json").read_text("utf-8"))
SMALL = ModelFigures(layers=16, heads=8, kv_heads=4)


def figures_of(model: str) -> tuple[ModelFigures, dict[str, int]]:
    figures = GOLDEN["models"][model]["figures"]
    architecture = "llama" if "llama" in model else "other"
    return (
        ModelFigures(figures["n_layer"], figures["n_head"], figures["n_head_kv"], architecture),
        figures,
    )


def small(width: int = 512, layers: int = 16, **extra: tuple[int, ...]):
    """A model's tensors: SMALL's, in an order that is not that of the layers."""
    out = [("token_embd.weight", (1000, width)), ("output.weight", (1000, width))]
    for layer in range(layers):
        for part in ("attn_q", "attn_v", "attn_output", "ffn_gate", "ffn_down"):
            out.append((f"blk.{layer}.{part}.weight", (width, width)))
    out += list(extra.items())
    random.Random(0).shuffle(out)
    return out


def layers_of(types: dict[str, str], part: str, kind: str) -> list[int]:
    return sorted(
        int(name.split(".")[1]) for name, t in types.items() if part in name and t == kind
    )


@pytest.mark.parametrize("mix", MIXES)
@pytest.mark.parametrize("model", MODELS)
def test_same_types_as_llama_cpp(model: str, mix: str) -> None:
    model_figures, figures = figures_of(model)
    section = GOLDEN["models"][model]["mixes"][mix]
    exceptions = expand(section["exceptions"])
    # Q2_K_S asks for a matrix, and its rules do not look at it.
    types = tensor_types(tensors(model, figures), mix, model_figures, imatrix=mix == "q2_k_s")
    wanted = {name: exceptions.get(name, section["kind"]).upper() for name in types}
    assert types == wanted
    assert exceptions.keys() <= types.keys()


@pytest.mark.parametrize("mix", MIXES)
def test_numbers_are_those_of_the_gguf_package(mix: str) -> None:
    names = {
        "q2_k": "MOSTLY_Q2_K", "mxfp4": "MOSTLY_MXFP4_MOE",
    }  # fmt: skip
    name = names.get(mix, f"MOSTLY_{mix.upper()}")
    assert gguf.LlamaFileType[name] == MIXES[mix].file_type


def test_q4_k_m_gives_more_to_the_first_and_last_eighth_and_every_third() -> None:
    types = tensor_types(small(), "q4_k_m", SMALL)
    assert layers_of(types, "ffn_down", "Q6_K") == [0, 1, 4, 7, 10, 13, 14, 15]
    assert layers_of(types, "attn_v", "Q6_K") == [0, 1, 4, 7, 10, 13, 14, 15]


@pytest.mark.parametrize(
    ("mix", "better", "with_matrix"),
    [("q4_0", "Q4_1", True), ("q5_0", "Q5_1", True),
     ("iq4_nl", "Q5_K", False), ("iq4_xs", "Q5_K", False)],
)  # fmt: skip
def test_an_importance_matrix_changes_the_first_layers(
    mix: str, better: str, with_matrix: bool
) -> None:
    for imatrix in (True, False):
        types = tensor_types(small(), mix, SMALL, imatrix=imatrix)
        expected = [0, 1] if imatrix == with_matrix else []
        assert layers_of(types, "ffn_down", better) == expected


def test_an_overridden_tensor_is_not_counted() -> None:
    """llama.cpp's counters stand still for it, so the layers after it move up."""
    types = tensor_types(small(), "q4_k_s", SMALL, overrides=[(r"blk\.0\.attn_v", "Q8_0")])
    assert types["blk.0.attn_v.weight"] == "Q8_0"
    assert layers_of(types, "attn_v", "Q5_K") == [1, 2, 3, 4]
    assert layers_of(types, "ffn_down", "Q5_K") == [0, 1]


def test_the_first_matching_override_counts_and_falls_back_where_rows_do_not_divide() -> None:
    types = tensor_types(
        small(width=288), "q4_k_m", SMALL, overrides=[("attn", "Q6_K"), ("attn_q", "Q4_0")]
    )
    assert types["blk.3.attn_q.weight"] == "Q8_0"


def test_output_and_embedding_types_are_used_as_they_are() -> None:
    types = tensor_types(small(), "q4_k_m", SMALL, output_type="Q8_0", embedding_type="Q4_0")
    assert types["output.weight"] == "Q8_0" and types["token_embd.weight"] == "Q4_0"
    tied = [t for t in small() if t[0] != "output.weight"]
    assert tensor_types(tied, "q4_k_m", SMALL)["token_embd.weight"] == "Q6_K"
    assert tensor_types(tied, "q4_k_m", SMALL, output_type="Q5_K")["token_embd.weight"] == "Q5_K"
    both = tensor_types(tied, "q4_k_m", SMALL, output_type="Q5_K", embedding_type="Q4_0")
    assert both["token_embd.weight"] == "Q4_0"


def test_types_are_taken_in_small_letters_too() -> None:
    given = {"output_type": "q8_0", "embedding_type": "q4_0", "overrides": [("attn_v", "mxfp4")]}
    types = tensor_types(small(), "q4_k_m", SMALL, **given)
    found = [types[n] for n in ("output.weight", "token_embd.weight", "blk.0.attn_v.weight")]
    assert found == ["Q8_0", "Q4_0", "MXFP4"]


def test_a_pattern_that_finds_nothing_is_an_error() -> None:
    """Hugging Face's names are the likely mistake, and would change nothing."""
    with pytest.raises(LessonkitError, match="'v_proj' is found in no matrix's name") as caught:
        tensor_types(small(), "q4_k_m", SMALL, overrides=[("attn", "Q6_K"), ("v_proj", "Q8_0")])
    assert "blk.15.ffn_gate.weight" in str(caught.value.remedy)


def test_pure_is_one_type_everywhere() -> None:
    assert set(tensor_types(small(), "q3_k_m", SMALL, pure=True).values()) == {"Q3_K"}


def test_mxfp4_is_for_experts_alone() -> None:
    types = tensor_types(small(**{"blk.0.ffn_up_exps.weight": (8, 512, 512)}), "mxfp4", SMALL)
    assert types.pop("blk.0.ffn_up_exps.weight") == "MXFP4"
    assert set(types.values()) == {"Q8_0"}
    dense = tensor_types(small(), "mxfp4", SMALL, overrides=[("ffn", "MXFP4")])
    assert dense["blk.0.ffn_down.weight"] == "MXFP4"


def test_fused_attention_counts_as_values() -> None:
    fused = [(f"blk.{i}.attn_qkv.weight", (512, 512)) for i in range(16)]
    types = tensor_types(fused, "q3_k_m", SMALL)
    assert layers_of(types, "attn_qkv", "Q5_K") == [0, 1]
    assert layers_of(types, "attn_qkv", "Q4_K") == list(range(2, 16))


def test_the_70b_rule_needs_80_layers_and_shared_heads() -> None:
    rows = [(f"blk.{i}.attn_v.weight", (1024, 8192)) for i in range(80)]
    assert set(tensor_types(rows, "q3_k_s", ModelFigures(80, 64, 8)).values()) == {"Q5_K"}
    for other in (
        ModelFigures(80, 64, 64),
        ModelFigures(60, 64, 8),
        ModelFigures(80, 64, 8, "qwen3"),
    ):
        assert set(tensor_types(rows, "q3_k_s", other).values()) == {"Q3_K"}


@pytest.mark.parametrize(
    ("kind", "smaller"),
    [("Q2_K", "Q4_0"), ("Q3_K", "Q4_0"), ("Q4_K", "Q5_0"), ("Q5_K", "Q5_1"), ("Q6_K", "Q8_0"),
     ("IQ4_XS", "IQ4_NL"), ("Q4_0", "Q4_0"), ("MXFP4", "MXFP4")],
)  # fmt: skip
def test_fallbacks(kind: str, smaller: str) -> None:
    assert that_divides(kind, 512) == kind
    assert that_divides(kind, 288) == smaller
    assert that_divides(kind, 100) == "F16"


def test_an_output_whose_rows_do_not_divide_is_q8_0() -> None:
    assert tensor_types(small(width=288), "q4_k_m", SMALL)["output.weight"] == "Q8_0"
    assert (
        tensor_types(small(width=288), "q4_0", SMALL)["output.weight"] == "Q8_0"
    )  # Q6_K falls back


def test_what_is_touched() -> None:
    assert is_quantised("blk.0.attn_v.weight", (4, 512))
    for name, shape in (
        ("blk.0.attn_norm.weight", (4, 512)), ("blk.0.attn_v.bias", (4, 512)),
        ("blk.0.ffn_gate_inp.weight", (8, 512)), ("rope_freqs.weight", (64,)),
        ("blk.0.attn_v.weight", (1, 512)),
    ):  # fmt: skip
        assert not is_quantised(name, shape)


@pytest.mark.parametrize(
    ("options", "message"),
    [
        ({"mix": "q4_k"}, "no mix 'q4_k'"),
        ({"mix": "q2_k_s"}, "needs an importance matrix"),
        ({"overrides": [("attn", "Q9_9")]}, "no block format 'Q9_9'"),
        ({"overrides": [("attn(", "Q8_0")]}, "no regular expression"),
        ({"output_type": "q8"}, "no block format 'Q8'"),
    ],
)
def test_refusals(options: dict, message: str) -> None:
    with pytest.raises(LessonkitError, match=message):
        tensor_types(small(), **{"mix": "q4_k_m", "model": SMALL, **options})
