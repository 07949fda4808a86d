"""AWQ on a whole model, and the files that hold the result.

Of each layer's linear layers those that share their inputs are scaled together, and the division
that undoes it goes into what makes these inputs:

    q_proj, k_proj, v_proj    into input_layernorm
    o_proj                    into v_proj's rows
    gate_proj, up_proj        into post_attention_layernorm
    down_proj                 into up_proj's rows

A weight becomes `qweight`, `qzeros` and `scales` in AutoAWQ's "gemm" order (`formats.packing`).
"""

from __future__ import annotations

import os
from collections.abc import Iterator
from dataclasses import dataclass, replace
from typing import TYPE_CHECKING, Any, Literal

from lessonkit.convert.awq_scaling import (
    ScaledWeight,
    by_name,
    divided_bias,
    output_loss,
    repeated_heads,
)
from lessonkit.convert.calibration import Calibration
from lessonkit.convert.decoder import BLOCKS, Block, DecoderLayer
from lessonkit.convert.layer_results import LayerResult
from lessonkit.convert.quantized_folder import Container, write_quantized
from lessonkit.errors import LessonkitError
from lessonkit.files.certificate import Certificate
from lessonkit.files.dtypes import DTYPES, parse_dtype
from lessonkit.files.writer import MAX_SHARD_BYTES
from lessonkit.formats.blocks import relative_rms
from lessonkit.formats.packing import pack_awq
from lessonkit.quantize.awq import (
    InputCollector,
    InputStatistics,
    clip,
    fold_into_norm,
    scale_columns,
    search_clip,
    search_scales,
)
from lessonkit.quantize.gptq import output_error
from lessonkit.quantize.grids import AwqGrid, Grid, Quantized, round_to_nearest

if TYPE_CHECKING:
    import torch

_INTO = {"self_attn.o_proj": "self_attn.v_proj", "mlp.down_proj": "mlp.up_proj"}
_NEVER_CLIPPED = ("self_attn.q_proj", "self_attn.k_proj")  # their errors meet in a product


def to_awq(
    source: str | os.PathLike[str],
    out: str | os.PathLike[str],
    calibration: Calibration,
    method: Awq | None = None,
    *,
    dtype: str | None = None,
    device: torch.device | str | None = None,
    compute_dtype: str = "float32",
    activations_on_disk: bool = False,
    max_shard_bytes: int = MAX_SHARD_BYTES,
    force: bool = False,
) -> Certificate:
    """Quantise a Llama with AWQ; `out` loads in transformers, GPTQModel, AutoAWQ and vLLM.

    `method` is by default 4 bits in groups of 128, as AutoAWQ has them; norms into which scales
    were folded keep the source's dtype, or `dtype`. Everything else is as in `convert.to_gptq`.
    """
    method = replace(method or Awq(), folded_dtype=dtype)
    grid = method.grid
    if not isinstance(grid, AwqGrid) or grid.bits != 4:
        raise LessonkitError(
            f"An AWQ file cannot hold codes on {grid}.",
            where="method.grid",
            remedy="Use an AwqGrid of 4 bits; with other grids, `quantize_layers` gives the "
            "weights.",
        )
    container = Container("AWQ", _quantization_config(grid), _pack)
    return write_quantized(
        source, out, calibration, method, container,
        dtype=dtype, device=device, compute_dtype=compute_dtype,
        activations_on_disk=activations_on_disk, max_shard_bytes=max_shard_bytes, force=force,
    )  # fmt: skip


@dataclass(frozen=True)
class Awq:
    """AWQ, layer by layer: a `Method` for `quantize_layers`.

    Parameters
    ----------
    grid:
        What weights are rounded to. Any will do; AWQ's files hold an `AwqGrid`.
    duo_scaling:
        Let the weights' own magnitudes count in the scales too.
    clip:
        Search each group's range as well; for all but q_proj and k_proj, as AutoAWQ does.
    repeated_heads:
        What becomes of o_proj where several heads share a v_proj's: "average" gives their
        channels one scale, "leave" leaves it unscaled, as AutoAWQ does.
    inputs:
        Whose activations later layers are searched on: those of the "unquantized" model, as
        AutoAWQ does, or of the "quantized" one so far.
    score:
        What a candidate's scales are judged by: the "outputs" of the linear layers that share
        these inputs, or, slowly, of the whole "block", attention or MLP, around them (as
        AutoAWQ does for q, k, v and for gate and up).
    folded_dtype:
        The dtype of norms and biases that scales were folded into; None: the source's own.
    """

    grid: Grid = AwqGrid()
    duo_scaling: bool = True
    clip: bool = True
    repeated_heads: Literal["average", "leave"] = "average"
    inputs: Literal["unquantized", "quantized"] = "unquantized"
    score: Literal["outputs", "block"] = "outputs"
    folded_dtype: str | None = None

    def __post_init__(self) -> None:
        choices = {
            "repeated_heads": ("average", "leave"),
            "inputs": ("unquantized", "quantized"),
            "score": ("outputs", "block"),
        }
        for name, known in choices.items():
            if getattr(self, name) not in known:
                raise LessonkitError(
                    f"There is no {name} {getattr(self, name)!r}.",
                    where=name,
                    remedy=f"Use {' or '.join(map(repr, known))}.",
                )

    @property
    def follows_quantized(self) -> bool:
        """Do later layers see what the quantised layer gives?"""
        return self.inputs == "quantized"

    def settings(self) -> dict[str, Any]:
        """All parameters, as JSON can hold them."""
        return {
            "method": "awq",
            "grid": repr(self.grid),
            "duo_scaling": self.duo_scaling,
            "clip": self.clip,
            "repeated_heads": self.repeated_heads,
            "inputs": self.inputs,
            "score": self.score,
            "folded_dtype": self.folded_dtype,
        }

    def quantize(self, layer: DecoderLayer, hidden: torch.Tensor) -> LayerResult:
        """Quantise a layer whose inputs are `hidden`, and advance these to its outputs."""
        watched = [linears[0] for block in BLOCKS for linears in block.inputs]
        collectors = {}
        for linear in watched:
            weight = layer.weight(linear)
            collectors[linear] = InputCollector(weight.shape[1], weight.device)
        receivers = {name: one.add for name, one in collectors.items()}
        before_layer = hidden.clone() if self.score == "block" else None
        if self.follows_quantized:
            layer.collect(hidden, BLOCKS, receivers)
        else:
            layer.advance(hidden, receivers=receivers)
        result = LayerResult()
        scaled: dict[str, ScaledWeight] = {}
        for block, before in self._blocks(layer, before_layer):
            for linears in block.inputs:
                statistics = collectors.pop(linears[0]).statistics()
                self._scale(layer, block, linears, statistics, before, scaled, result)
        for linear in list(scaled):
            self._round(layer, linear, scaled.pop(linear), result)
        if self.follows_quantized:
            layer.replace(result.weights())
            layer.advance(hidden)
        return result

    def _blocks(
        self, layer: DecoderLayer, before: torch.Tensor | None
    ) -> Iterator[tuple[Block, torch.Tensor | None]]:
        """The layer's blocks, each with its inputs if whole blocks are to be compared."""
        for block in BLOCKS:
            yield block, before
            if before is not None:
                layer.advance(before, [block])

    def _scale(
        self, layer: DecoderLayer, block: Block, linears: tuple[str, ...],
        inputs: InputStatistics, before: torch.Tensor | None,
        scaled: dict[str, ScaledWeight], result: LayerResult,
    ) -> None:  # fmt: skip
        """Find the scales of linear layers that share their inputs, and fold them away."""
        import torch

        weights = [layer.weight(linear).float() for linear in linears]
        heads = repeated_heads(layer) if linears == ("self_attn.o_proj",) else None
        scales = torch.ones_like(inputs.mean_magnitude)
        ratio = 0.0
        if heads is None or self.repeated_heads == "average":
            loss = None
            if before is not None and len(linears) > 1:
                loss = output_loss(layer, block, linears, before)
            found = search_scales(
                weights, inputs, self.grid, duo_scaling=self.duo_scaling, repeated_heads=heads,
                block_loss=loss,
            )  # fmt: skip
            layer.replace(by_name(layer, linears, weights))  # a block's loss has tried others
            scales, ratio = found.scales, found.ratio
        if (into := _INTO.get(linears[0])) is not None:
            scaled[into].divide_rows(scales, heads)
            bias = divided_bias(layer, into, scales, heads)
            if bias is not None:
                dtype = self._stored_dtype(layer, f"{into}.bias")
                result.changed[f"{layer.prefix}{into}.bias"] = bias.to(dtype)
        else:
            scales = self._fold_into_norm(layer, block.norm, scales, result)
        for linear, weight in zip(linears, weights, strict=True):
            scaled[linear] = ScaledWeight(
                scale_columns(weight, scales), scales, inputs.divided_by(scales), ratio
            )

    def _fold_into_norm(
        self, layer: DecoderLayer, norm: str, scales: torch.Tensor, result: LayerResult
    ) -> torch.Tensor:
        """Divide a norm's weight; return the scales that it has really been divided by.

        It is rounded to its file's dtype. Scaling by the quotient of before and after leaves the
        layer's function exactly as it was.
        """
        import torch

        name = f"{norm}.weight"
        before = layer.module.get_parameter(name).data.float()
        stored = self._stored_dtype(layer, name)
        after = fold_into_norm(before, scales).to(stored)
        usable = after.isfinite() & (after != 0)
        after = torch.where(usable, after, before.to(stored))
        result.changed[layer.prefix + name] = after
        return torch.where(usable, before / after.float(), 1.0)

    def _stored_dtype(self, layer: DecoderLayer, name: str) -> torch.dtype:
        """The dtype that the file will have for a tensor into which scales are folded."""
        import torch

        if self.folded_dtype is None:
            return layer.dtypes[name]
        found: torch.dtype = getattr(torch, DTYPES[parse_dtype(self.folded_dtype)].torch_name)
        return found

    def _round(
        self, layer: DecoderLayer, linear: str, scaled: ScaledWeight, result: LayerResult
    ) -> None:
        name = f"{layer.prefix}{linear}.weight"
        weight, inputs = scaled.weight, scaled.inputs
        if self.clip and linear not in _NEVER_CLIPPED:
            weight = clip(weight, search_clip(weight, inputs, self.grid))
        quantized = round_to_nearest(weight, self.grid)
        original = layer.weight(linear).float()
        undone = quantized.dequantize() / scaled.columns
        if scaled.rows is not None:
            undone = undone * scaled.rows[:, None]
        gram = inputs.divided_by(1 / scaled.columns).gram
        result.quantized[name] = quantized
        result.reports[name] = {
            "output_error": output_error(original, undone, gram),
            "relative_rms_error": relative_rms(undone - original, original),
            "ratio": scaled.ratio,
        }


def _pack(quantized: Quantized) -> dict[str, torch.Tensor]:
    assert quantized.zeros is not None
    qweight, qzeros = pack_awq(quantized.codes, quantized.zeros)
    return {"qweight": qweight, "qzeros": qzeros, "scales": quantized.scales.T.contiguous()}


def _quantization_config(grid: AwqGrid) -> dict[str, Any]:
    """What config.json says, in AutoAWQ's words."""
    return {
        "quant_method": "awq",
        "bits": grid.bits,
        "group_size": grid.group_size,
        "zero_point": True,
        "version": "gemm",
        "modules_to_not_convert": None,
    }
