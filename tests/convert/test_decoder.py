"""Layers one at a time give what transformers' whole model gives."""

from __future__ import annotations

from pathlib import Path

import pytest
import torch

from lessonkit.convert.decoder import BLOCKS, Decoder, DecoderLayer, new_hidden_states
from lessonkit.convert.hf_checkpoint import HfCheckpoint
from lessonkit.errors import LessonkitError
from tests.tiny import make_tiny_llama

IDS = torch.arange(3, 3 + 5 * 24).view(5, 24)


@pytest.fixture(scope="module")
def folder(tmp_path_factory: pytest.TempPathFactory) -> Path:
    return make_tiny_llama(tmp_path_factory.mktemp("decoder") / "tiny")


@pytest.fixture
def decoder(folder: Path, monkeypatch: pytest.MonkeyPatch) -> Decoder:
    monkeypatch.setattr("lessonkit.convert.decoder.TOKENS_AT_ONCE", 50)  # two samples
    return Decoder(HfCheckpoint(folder), torch.device("cpu"), torch.float32)


def whole_model(folder: Path):
    from transformers import AutoModelForCausalLM

    return AutoModelForCausalLM.from_pretrained(folder, dtype=torch.float32).eval()


def embedded(decoder: Decoder, file: Path | None = None) -> torch.Tensor:
    hidden = new_hidden_states((5, 24, 64), torch.float32, torch.device("cpu"), file)
    decoder.embed(IDS, hidden)
    return hidden


@pytest.mark.parametrize("on_disk", [False, True])
def test_hidden_states_are_those_of_the_whole_model(
    folder: Path, decoder: Decoder, on_disk: bool, tmp_path: Path
) -> None:
    hidden = embedded(decoder, tmp_path / "hidden" if on_disk else None)
    with torch.no_grad():
        theirs = whole_model(folder).model(IDS, output_hidden_states=True).hidden_states
    assert torch.equal(hidden, theirs[0])
    decoder.layer(0).advance(hidden)
    assert torch.allclose(hidden, theirs[1], atol=1e-4)
    if on_disk:
        assert (tmp_path / "hidden").stat().st_size == hidden.numel() * 4


def test_the_inputs_of_linear_layers_are_those_of_the_whole_model(
    folder: Path, decoder: Decoder
) -> None:
    names = [linears[0] for block in BLOCKS for linears in block.inputs]
    ours: dict[str, list[torch.Tensor]] = {name: [] for name in names}
    theirs = {}
    model = whole_model(folder)
    for name in names:
        model.model.layers[0].get_submodule(name).register_forward_pre_hook(
            lambda module, inputs, name=name: theirs.update({name: inputs[0]})
        )
    hidden = embedded(decoder)
    before = hidden.clone()
    decoder.layer(0).collect(hidden, BLOCKS, {name: ours[name].append for name in names})
    with torch.no_grad():
        model(IDS)
    assert torch.equal(hidden, before)
    for name in names:
        assert [len(part) for part in ours[name]] == [2, 2, 1]
        assert torch.allclose(torch.cat(ours[name]), theirs[name], atol=1e-4)
    on_the_way: dict[str, list[torch.Tensor]] = {name: [] for name in names}
    layer = decoder.layer(0)
    layer.advance(hidden, receivers={name: on_the_way[name].append for name in names})
    layer.advance(before)
    assert torch.equal(hidden, before)  # watching changes nothing
    for name in names:
        assert torch.equal(torch.cat(on_the_way[name]), torch.cat(ours[name]))
    assert not layer.module.mlp.down_proj._forward_pre_hooks


def test_nothing_runs_beyond_the_last_layer_that_was_asked_for(decoder: Decoder) -> None:
    layer = decoder.layer(1)
    layer.module.mlp.down_proj.register_forward_pre_hook(lambda *_: pytest.fail("it ran"))
    seen: list[torch.Tensor] = []
    layer.collect(embedded(decoder), BLOCKS, {"mlp.up_proj": seen.append})
    assert len(seen) == 3 and not layer.module.mlp.up_proj._forward_pre_hooks


def test_the_files_are_not_touched_by_a_replacement(folder: Path, decoder: Decoder) -> None:
    layer = decoder.layer(0)
    before = layer.weight("mlp.up_proj").clone()
    layer.replace({"model.layers.0.mlp.up_proj.weight": torch.zeros_like(before)})
    assert not layer.weight("mlp.up_proj").any()
    assert torch.equal(decoder.layer(0).weight("mlp.up_proj"), before)


def test_float32_files_are_copied_not_shared(tmp_path: Path) -> None:
    folder = make_tiny_llama(tmp_path / "tiny", dtype=torch.float32)
    decoder = Decoder(HfCheckpoint(folder), torch.device("cpu"), torch.float32)
    decoder.layer(0).weight("mlp.up_proj").zero_()
    assert decoder.layer(0).weight("mlp.up_proj").any()


def test_biases_and_their_dtypes_are_known(tmp_path: Path) -> None:
    folder = make_tiny_llama(tmp_path / "tiny", attention_bias=True)
    layer: DecoderLayer = Decoder(
        HfCheckpoint(folder), torch.device("cpu"), torch.float32
    ).layer(1)  # fmt: skip
    assert layer.dtypes["self_attn.v_proj.bias"] == torch.bfloat16
    assert layer.prefix == "model.layers.1."


def test_a_disk_without_room_is_told(tmp_path: Path) -> None:
    with pytest.raises(LessonkitError, match="cannot be kept on disk"):
        new_hidden_states(
            (1, 1, 8), torch.float32, torch.device("cpu"), tmp_path / "no such folder" / "x"
        )
