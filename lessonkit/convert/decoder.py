"""A Llama's decoder layers, one at a time: only one has its weights in memory.

A layer is two *blocks*, x + attention(norm(x)) and x + mlp(norm(x)). In each block some linear
layers share the block's normed input, and a last one takes what was made of it:

    attention   q_proj, k_proj, v_proj        o_proj
    mlp         gate_proj, up_proj            down_proj

The layers are transformers' own; x are *hidden states* [samples, tokens, width].
"""

from __future__ import annotations

import contextlib
import math
import os
from collections.abc import Callable, Iterator, Mapping, Sequence
from typing import TYPE_CHECKING, Any, NamedTuple

from lessonkit.convert.hf_checkpoint import HfCheckpoint
from lessonkit.errors import LessonkitError
from lessonkit.llama.layout import EMBEDDING

if TYPE_CHECKING:
    import torch

TOKENS_AT_ONCE = 4096
"""Of so many tokens at most the inner activations are in memory at a time (at least one sample)."""


Receivers = Mapping[str, Callable[["torch.Tensor"], None]]
"""For linear layers, by name, what takes their inputs [samples, tokens, in]."""


class Block(NamedTuple):
    """Half a layer: its norm, its module, and its linear layers by what they share as input."""

    norm: str
    module: str
    inputs: tuple[tuple[str, ...], ...]


BLOCKS = (
    Block(
        "input_layernorm",
        "self_attn",
        (("self_attn.q_proj", "self_attn.k_proj", "self_attn.v_proj"), ("self_attn.o_proj",)),
    ),
    Block(
        "post_attention_layernorm",
        "mlp",
        (("mlp.gate_proj", "mlp.up_proj"), ("mlp.down_proj",)),
    ),
)


class _Enough(Exception):
    """All inputs that were asked for have been seen: the rest of the block need not run."""


class Decoder:
    """The layers of a checkpoint on disk, loaded when asked for.

    Parameters
    ----------
    checkpoint:
        A Llama in Hugging Face's form.
    device, dtype:
        Where, and in what, layers compute.
    """

    def __init__(self, checkpoint: HfCheckpoint, device: torch.device, dtype: torch.dtype) -> None:
        from transformers import LlamaConfig
        from transformers.models.llama.modeling_llama import LlamaRotaryEmbedding

        self.checkpoint = checkpoint
        self.device, self.dtype = device, dtype
        self.config = LlamaConfig.from_dict(checkpoint.config)
        self.config._attn_implementation = "sdpa"  # causal without a mask
        self.layers: int = self.config.num_hidden_layers
        self._rotary = LlamaRotaryEmbedding(self.config).to(device)

    def embed(self, ids: torch.Tensor, hidden: torch.Tensor) -> None:
        """Put the embeddings of ids [samples, tokens] into `hidden`."""
        rows = self.checkpoint.tensor(EMBEDDING)
        for sample, target in zip(ids, hidden, strict=True):
            target.copy_(rows[sample.cpu()])
        self.checkpoint.release(EMBEDDING)

    def layer(self, index: int) -> DecoderLayer:
        """Load a layer."""
        import torch
        from transformers.models.llama.modeling_llama import LlamaDecoderLayer

        with torch.device("meta"):
            module = LlamaDecoderLayer(self.config, index)
        prefix = f"model.layers.{index}."
        weights = {}
        for name in module.state_dict():
            stored = self.checkpoint.tensor(prefix + name)
            weights[name] = stored.to(self.device, self.dtype, copy=True)
            self.checkpoint.release(prefix + name)
        module.load_state_dict(weights, assign=True)
        dtypes = {name: self.checkpoint.tensor(prefix + name).dtype for name in weights}
        return DecoderLayer(module.requires_grad_(False).eval(), prefix, dtypes, self._rotary)


class DecoderLayer:
    """One layer with its weights.

    Attributes
    ----------
    module:
        transformers' `LlamaDecoderLayer`.
    prefix:
        What stands before its tensors' names in the checkpoint: "model.layers.3.".
    dtypes:
        The checkpoint's dtype of each of its tensors, by names without the prefix.
    """

    def __init__(
        self, module: Any, prefix: str, dtypes: Mapping[str, torch.dtype], rotary: Any
    ) -> None:
        self.module = module
        self.prefix = prefix
        self.dtypes = dtypes
        self._rotary = rotary

    def weight(self, linear: str) -> torch.Tensor:
        """The weight [out, in] of a linear layer, such as "mlp.up_proj"."""
        found: torch.Tensor = self.module.get_submodule(linear).weight.data
        return found

    def replace(self, tensors: Mapping[str, torch.Tensor]) -> None:
        """Compute with other tensors from now on; names are those of the checkpoint."""
        parameters = dict(self.module.named_parameters())
        for name, tensor in tensors.items():
            own = parameters[name.removeprefix(self.prefix)]
            own.data = tensor.to(own.data)

    def collect(
        self,
        hidden: torch.Tensor,
        blocks: Sequence[Block],
        receivers: Receivers,
    ) -> None:
        """Run blocks on hidden states, which stay as they are, and hand out what layers receive.

        `receivers` maps a linear layer's name to a function that takes its inputs
        [samples, tokens, in], a few samples at a time. Nothing runs beyond the last of them.
        """
        with self._watched(receivers, stop_at=list(receivers)[-1]):
            for batch in self._batches(hidden):
                with contextlib.suppress(_Enough):
                    self._run(blocks, batch)

    def advance(
        self,
        hidden: torch.Tensor,
        blocks: Sequence[Block] = BLOCKS,
        receivers: Receivers | None = None,
    ) -> None:
        """Run blocks on hidden states and put what comes out in their place.

        On the way hand out what layers receive, as `collect` does.
        """
        with self._watched(receivers or {}):
            for batch in self._batches(hidden):
                batch.copy_(self._run(blocks, batch))

    def outputs(
        self, hidden: torch.Tensor, beside: torch.Tensor, blocks: Sequence[Block]
    ) -> Iterator[tuple[torch.Tensor, torch.Tensor]]:
        """Run blocks; give what comes out, a few samples at a time, with those of `beside`."""
        for batch, other in zip(self._batches(hidden), self._batches(beside), strict=True):
            yield self._run(blocks, batch), other

    @contextlib.contextmanager
    def _watched(self, receivers: Receivers, stop_at: str = "") -> Iterator[None]:
        """Inside a with block, linear layers hand out what they receive."""
        handles = [
            self.module.get_submodule(name).register_forward_pre_hook(
                _give_to(receive, stop=name == stop_at)
            )
            for name, receive in receivers.items()
        ]
        try:
            yield
        finally:
            for handle in handles:
                handle.remove()

    def _batches(self, hidden: torch.Tensor) -> Iterator[torch.Tensor]:
        return iter(hidden.split(max(1, TOKENS_AT_ONCE // hidden.shape[1])))

    def _run(self, blocks: Sequence[Block], x: torch.Tensor) -> torch.Tensor:
        import torch

        with torch.no_grad():
            norm_weight = self.module.get_submodule(blocks[0].norm).weight
            x = x.to(norm_weight)
            positions = torch.arange(x.shape[1], device=x.device)[None]
            rotary = self._rotary(x, positions)
            for block in blocks:
                module = self.module.get_submodule(block.module)
                inner = self.module.get_submodule(block.norm)(x)
                if block.module == "self_attn":
                    inner, _ = module(inner, position_embeddings=rotary, attention_mask=None)
                else:
                    inner = module(inner)
                x = x + inner
        return x


def _give_to(receive: Callable[[torch.Tensor], None], *, stop: bool) -> Callable[..., None]:
    def hook(module: Any, inputs: tuple[torch.Tensor, ...]) -> None:
        receive(inputs[0])
        if stop:
            raise _Enough

    return hook


def new_hidden_states(
    shape: tuple[int, int, int],
    dtype: torch.dtype,
    device: torch.device,
    file: str | os.PathLike[str] | None = None,
) -> torch.Tensor:
    """Room for hidden states: on the device, or in a file of which memory holds what it can."""
    import torch

    if file is None:
        return torch.empty(shape, dtype=dtype, device=device)
    try:
        mapped = torch.from_file(os.fspath(file), shared=True, size=math.prod(shape), dtype=dtype)
    except RuntimeError as error:
        raise LessonkitError(
            f"The activations cannot be kept on disk: {error}.",
            where=file,
            remedy="Free some space, or keep them in memory.",
        ) from error
    return mapped.view(shape)
