"""Combined adapters: PEFT's `add_weighted_adapter` is the twin; what is exact is shown so."""

from __future__ import annotations

import warnings

import pytest
import torch
from peft import PeftModel

from lessonkit.convert.combine import Pair, combine_cat, combine_linear, dare, ties
from lessonkit.errors import LessonkitError
from tests.convert.adapters import base_model, make_adapter
from tests.tiny import make_tiny_llama

WEIGHTS = [0.7, -0.4]
NAMES = ["one", "two"]


@pytest.fixture(scope="module")
def adapted(tmp_path_factory):
    """A PEFT model that holds two adapters of one layer kind."""
    root = tmp_path_factory.mktemp("combine")
    base = make_tiny_llama(root / "base", dtype=torch.float32)
    folders = [
        make_adapter(base, root / name, seed=seed, target_modules=["q_proj"], lora_alpha=8 + seed)
        for seed, name in enumerate(NAMES)
    ]
    with warnings.catch_warnings():
        warnings.simplefilter("ignore")
        model = PeftModel.from_pretrained(base_model(base), folders[0], adapter_name="one")
        model.load_adapter(folders[1], adapter_name="two")
    return model


def layer(model):
    return model.base_model.model.model.layers[0].self_attn.q_proj


def pairs_of(model) -> list[Pair]:
    found = layer(model)
    return [
        Pair(found.lora_A[n].weight.data, found.lora_B[n].weight.data, found.scaling[n])
        for n in NAMES
    ]


def theirs(model, **options):
    """A and B of PEFT's combination."""
    model.add_weighted_adapter(NAMES, WEIGHTS, "both", **options)
    found = layer(model)
    factors = found.lora_A["both"].weight.data.clone(), found.lora_B["both"].weight.data.clone()
    assert found.scaling["both"] == 1
    model.delete_adapter("both")
    return factors


def weighted_sum(pairs):
    each = zip(pairs, WEIGHTS, strict=True)
    return sum(weight * pair.scale * pair.b @ pair.a for pair, weight in each)


@pytest.mark.parametrize(
    ("ours", "options"),
    [
        (lambda pairs: combine_cat(pairs, WEIGHTS), {"combination_type": "cat"}),
        (lambda pairs: combine_linear(pairs, WEIGHTS), {"combination_type": "linear"}),
        (
            lambda pairs: ties(pairs, WEIGHTS, density=0.4),
            {"combination_type": "ties", "density": 0.4},
        ),
    ],
)
def test_the_same_factors_as_peft(adapted, ours, options):
    for mine, other in zip(ours(pairs_of(adapted)), theirs(adapted, **options), strict=True):
        torch.testing.assert_close(mine, other, rtol=0, atol=1e-7)


def test_cat_is_exact_and_linear_has_cross_terms(adapted):
    pairs = pairs_of(adapted)
    wanted = weighted_sum(pairs)
    a, b = combine_cat(pairs, WEIGHTS)
    torch.testing.assert_close(b @ a, wanted, rtol=1e-5, atol=1e-7)
    a, b = combine_linear(pairs, WEIGHTS)
    (a1, b1, s1), (a2, b2, s2) = pairs
    root1, root2 = (WEIGHTS[0] * s1) ** 0.5, (-WEIGHTS[1] * s2) ** 0.5
    cross = root1 * root2 * (b2 @ a1 - b1 @ a2)  # the minus sign went to A
    torch.testing.assert_close(b @ a, wanted + cross, rtol=1e-4, atol=1e-6)
    assert cross.norm() > 0.5 * wanted.norm()


def test_dare_is_peft_where_nothing_is_dropped_and_keeps_the_mean(adapted):
    pairs = pairs_of(adapted)
    for mine, other in zip(
        dare(pairs, WEIGHTS, density=1.0), combine_linear(pairs, WEIGHTS), strict=True
    ):
        assert torch.equal(mine, other)
    wanted = combine_linear(pairs, WEIGHTS)[0]
    drawn = [dare(pairs, WEIGHTS, density=0.5, seed=seed)[0] for seed in range(400)]
    error = (torch.stack(drawn).mean(dim=0) - wanted).norm() / wanted.norm()
    assert error < 0.1  # 1 / sqrt(400)
    torch.testing.assert_close(drawn[3], dare(pairs, WEIGHTS, density=0.5, seed=3)[0])
    assert not torch.equal(drawn[3], drawn[4])


def test_dare_with_pefts_own_draws(adapted, monkeypatch):
    """The same masks give the same factors."""
    state = torch.Generator().manual_seed(5)
    draw = torch.bernoulli
    monkeypatch.setattr(
        torch, "bernoulli", lambda chance, generator=None: draw(chance, generator=state)
    )
    expected = theirs(adapted, combination_type="dare_linear", density=0.5)
    state.manual_seed(5)
    for mine, other in zip(dare(pairs_of(adapted), WEIGHTS, density=0.5), expected, strict=True):
        torch.testing.assert_close(mine, other, rtol=0, atol=1e-7)


def test_dare_leaves_torchs_own_random_numbers_alone(adapted):
    torch.manual_seed(5)
    expected = torch.rand(3)
    torch.manual_seed(5)
    dare(pairs_of(adapted), WEIGHTS, density=0.5)
    assert torch.equal(torch.rand(3), expected)


def test_errors(adapted):
    pairs = pairs_of(adapted)
    with pytest.raises(LessonkitError, match="2 pairs and 1 weights"):
        combine_cat(pairs, [1.0])
    for density in (0.0, 1.5):
        with pytest.raises(LessonkitError, match="density"):
            ties(pairs, WEIGHTS, density=density)
    narrow = Pair(pairs[0].a[:2], pairs[0].b[:, :2], 1.0)
    assert combine_cat([narrow, pairs[1]], WEIGHTS)[0].shape[0] == 6
    with pytest.raises(LessonkitError, match="same rank"):
        combine_linear([narrow, pairs[1]], WEIGHTS)
