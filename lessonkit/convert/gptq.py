"""GPTQ on a whole model, and the files that hold the result.

A linear layer's weight becomes

    qweight   codes in int32 words         scales   fp16 [groups, out]
    qzeros    zero-points in int32 words   g_idx    int32 [in], the group of each input

(see `formats.packing`). Everything else is copied bit by bit, or rounded to `dtype`.
"""

from __future__ import annotations

import os
from collections.abc import Mapping
from dataclasses import dataclass
from typing import TYPE_CHECKING, Any

import lessonkit
from lessonkit.convert.calibration import Calibration
from lessonkit.convert.decoder import BLOCKS, Block, DecoderLayer
from lessonkit.convert.layer_results import LayerResult
from lessonkit.convert.quantized_folder import Container, write_quantized
from lessonkit.errors import LessonkitError
from lessonkit.files.certificate import Certificate
from lessonkit.files.writer import MAX_SHARD_BYTES
from lessonkit.formats.blocks import relative_rms
from lessonkit.formats.packing import Version, pack_gptq
from lessonkit.quantize.gptq import Hessian, Order, gptq
from lessonkit.quantize.grids import Grid, IntGrid, Quantized

if TYPE_CHECKING:
    import torch

CHECKPOINT_FORMATS: Mapping[Version, str] = {1: "gptq", 2: "gptq_v2"}
"""The names that files give to the versions of `formats.packing`."""


def to_gptq(
    source: str | os.PathLike[str],
    out: str | os.PathLike[str],
    calibration: Calibration,
    method: Gptq | None = None,
    *,
    version: Version = 1,
    dtype: str | None = None,
    device: torch.device | str | None = None,
    compute_dtype: str = "float32",
    activations_on_disk: bool = False,
    max_shard_bytes: int = MAX_SHARD_BYTES,
    force: bool = False,
) -> Certificate:
    """Quantise a Llama with GPTQ; `out` loads in transformers, GPTQModel, AutoGPTQ and vLLM.

    Parameters
    ----------
    source:
        A folder in Hugging Face's form, or "mini".
    out:
        The folder to make; it appears when it is complete. Replaced only with `force`. Finished
        layers wait in OUT.unfinished: after an interruption the same call goes on from there.
    calibration:
        The tokens to keep the layers' outputs on; see `cut_calibration`.
    method:
        The grid and all other settings; by default 4 bits, symmetric, groups of 128.
    version:
        1: AutoGPTQ's format, which every reader knows; 2: GPTQModel's "gptq_v2".
    dtype:
        Round what is not quantised to float16 or another dtype (AutoGPTQ's kernels want
        float16). By default the source's own dtype stays.
    device, compute_dtype, activations_on_disk:
        As in `quantize_layers`.

    Returns the certificate that was also written into `out`: for each weight its relative RMS
    error, and that of its layer's output on the calibration text. Memory: one decoder layer a
    few times over, and the hidden states. Raises LessonkitError for what cannot be quantised
    or packed, before any work where that can be told.
    """
    method = method or Gptq()
    grid = method.grid
    if not isinstance(grid, IntGrid):
        raise LessonkitError(
            f"A GPTQ file cannot hold codes on a {type(grid).__name__}.",
            where="method.grid",
            remedy="Use an IntGrid; with other grids, `quantize_layers` gives the weights.",
        )
    if version == 1 and not grid.symmetric and grid.lowest_zero < 1:
        raise LessonkitError(
            "Version 1 of GPTQ's format cannot hold a zero-point of 0.",
            where="method.grid",
            remedy="Leave lowest_zero at 1, or write version 2.",
        )

    def pack(quantized: Quantized) -> dict[str, torch.Tensor]:
        assert quantized.zeros is not None
        qweight, qzeros = pack_gptq(quantized.codes, quantized.zeros, grid.bits, version)
        scales = quantized.scales.T.contiguous()
        return {"qweight": qweight, "qzeros": qzeros, "scales": scales, "g_idx": quantized.g_idx}

    container = Container(
        "GPTQ", _quantization_config(method, grid, version), pack, "quantize_config.json"
    )
    return write_quantized(
        source, out, calibration, method, container,
        dtype=dtype, device=device, compute_dtype=compute_dtype,
        activations_on_disk=activations_on_disk, max_shard_bytes=max_shard_bytes, force=force,
    )  # fmt: skip


@dataclass(frozen=True)
class Gptq:
    """GPTQ, layer by layer: a `Method` for `quantize_layers`.

    Parameters
    ----------
    grid, order, static_groups, damping:
        As in `quantize.gptq.gptq`. Any grid will do; GPTQ's files hold an `IntGrid`.
    true_sequential:
        Inside a layer, let o_proj see what the quantised q_proj, k_proj and v_proj lead to, and
        so on. Otherwise all of a layer's inputs come from its original weights, and are computed
        once.
    """

    grid: Grid = IntGrid()
    order: Order = "act_group_aware"
    static_groups: bool = False
    damping: float = 0.05
    true_sequential: bool = True

    follows_quantized = True

    def settings(self) -> dict[str, Any]:
        """All parameters, as JSON can hold them."""
        return {
            "method": "gptq",
            "grid": repr(self.grid),
            "order": self.order,
            "static_groups": self.static_groups,
            "damping": self.damping,
            "true_sequential": self.true_sequential,
        }

    def quantize(self, layer: DecoderLayer, hidden: torch.Tensor) -> LayerResult:
        """Quantise a layer whose inputs are `hidden`, and advance these to its outputs."""
        result = LayerResult()
        for blocks, steps in self._passes():
            for linears in steps:
                hessians = {inputs[0]: _hessian(layer.weight(inputs[0])) for inputs in linears}
                layer.collect(hidden, blocks, {name: h.add for name, h in hessians.items()})
                for inputs in linears:
                    self._round(layer, inputs, hessians.pop(inputs[0]), result)
            layer.advance(hidden, blocks)
        return result

    def _passes(self) -> list[tuple[tuple[Block, ...], list[list[tuple[str, ...]]]]]:
        """Blocks that are run together, and which linear layers are rounded after which run."""
        if self.true_sequential:
            return [((block,), [[inputs] for inputs in block.inputs]) for block in BLOCKS]
        return [(BLOCKS, [[inputs for block in BLOCKS for inputs in block.inputs]])]

    def _round(
        self, layer: DecoderLayer, linears: tuple[str, ...], hessian: Hessian, result: LayerResult
    ) -> None:
        """Round the weights of linear layers that share their inputs."""
        for linear in linears:
            name = f"{layer.prefix}{linear}.weight"
            try:
                one = gptq(
                    layer.weight(linear), hessian.matrix, self.grid,
                    order=self.order, static_groups=self.static_groups, damping=self.damping,
                )  # fmt: skip
            except LessonkitError as error:
                raise LessonkitError(
                    error.what, where=f"{name}: {error.where}", remedy=error.remedy
                ) from error
            original = layer.weight(linear)
            result.quantized[name] = one.quantized
            result.reports[name] = {
                "output_error": one.output_error,
                "relative_rms_error": relative_rms(one.weight - original, original),
                "damping": one.damping,
            }
            layer.replace({name: one.weight})


def _hessian(weight: torch.Tensor) -> Hessian:
    return Hessian(weight.shape[1], weight.device)


def _quantization_config(method: Gptq, grid: IntGrid, version: Version) -> dict[str, Any]:
    """What files say of themselves, in AutoGPTQ's words and order."""
    return {
        "bits": grid.bits,
        "group_size": grid.group_size,
        "damp_percent": method.damping,
        "desc_act": method.order == "desc_act",
        "static_groups": method.static_groups,
        "sym": grid.symmetric,
        "true_sequential": method.true_sequential,
        "model_name_or_path": None,
        "model_file_base_name": "model",
        "quant_method": "gptq",
        "checkpoint_format": CHECKPOINT_FORMATS[version],
        "meta": {
            "quantizer": [f"lessonkit:{lessonkit.__version__}"],
            "act_group_aware": method.order == "act_group_aware",
            "mse": grid.search_norm or 0,
        },
    }
