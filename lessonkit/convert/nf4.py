"""Hugging Face to a checkpoint already in NF4 or FP4, as bitsandbytes keeps it.

Quantising at every load takes time, and the full-size files. The checkpoint written here
loads with `from_pretrained` and no further argument, and gives, on a CPU, the logits of a
model quantised while loading, to the bit. A linear layer's weight becomes

    weight                                  packed codes, uint8 [values / 2, 1]
    weight.absmax                           scales, float32 [blocks]; double: uint8
    weight.quant_map                        the codes' 16 values, float32
    weight.nested_absmax, .nested_quant_map double quantisation's own scales and 256 values
    weight.quant_state.bitsandbytes__nf4    the rest, as the bytes of a JSON object

Everything else is copied bit by bit: embeddings, norms, biases, and the output layer, which
transformers leaves unquantised too.
"""

from __future__ import annotations

import json
import math
import os
import re
from collections.abc import Iterator
from pathlib import Path
from typing import TYPE_CHECKING, Any

from lessonkit.convert.conversion import Read, as_json, to_checkpoint
from lessonkit.convert.hf_checkpoint import HfCheckpoint
from lessonkit.convert.meta_folder import is_meta
from lessonkit.errors import LessonkitError
from lessonkit.files.certificate import Certificate, Record, tensor_sha256
from lessonkit.files.checkpoint import Checkpoint, read_json
from lessonkit.files.dtypes import DTYPES, bits_of, parse_dtype
from lessonkit.files.writer import MAX_SHARD_BYTES
from lessonkit.formats.blocks import relative_rms
from lessonkit.formats.blockwise import Blockwise, quantize_blockwise
from lessonkit.formats.codebooks import CODEBOOKS, dynamic_map
from lessonkit.formats.double_quant import NESTED_BLOCK, DoubleQuantized
from lessonkit.hub.companions import companions_in

if TYPE_CHECKING:
    import torch

_QUANT_TYPES = ("nf4", "fp4")
_BLOCK_SIZES = (32, 64, 128, 256, 512, 1024, 2048, 4096)  # those that bitsandbytes reads
_SOURCE_DTYPES = ("F32", "F16", "BF16")
# In Llama and its relatives: model.layers.3.self_attn.q_proj.weight
_LINEAR = re.compile(r"model\.layers\.\d+\.(self_attn|mlp)\.\w+_proj\.weight")
_STATE = ".quant_state.bitsandbytes__"


def quantize_checkpoint(
    source: str | os.PathLike[str],
    out: str | os.PathLike[str],
    *,
    quant_type: str = "nf4",
    double_quant: bool = False,
    block_size: int = 64,
    compute_dtype: str | None = None,
    max_shard_bytes: int = MAX_SHARD_BYTES,
    force: bool = False,
) -> Certificate:
    """Quantise the linear layers of a Hugging Face Llama; `out` then loads with transformers.

    Parameters
    ----------
    source:
        A folder with `config.json` and weights: safetensors or PyTorch, in shards or not.
    out:
        The folder to make; it appears when it is complete. Replaced only with `force`.
    quant_type:
        "nf4" or "fp4".
    double_quant:
        Quantise the scales too: 4.127 bits a weight instead of 4.5, for blocks of 64.
    block_size:
        32, 64, 128 .. 4096. (transformers itself quantises in blocks of 64 only.)
    compute_dtype:
        What bitsandbytes multiplies in ("float16", "bfloat16", "float32"). By default the
        model's own dtype. This is `bnb_4bit_compute_dtype`, which in transformers is float32
        unless given; give both sides the same to get the same logits.

    The dtype of the files is kept. If `config.json` names another, to which transformers would
    cast before quantising, the new one names that of the files, and the certificate says so.
    (transformers loads the rest of such a checkpoint in the files' dtype, whatever is asked for.)
    Returns the certificate that was also written into `out`: for each quantised weight its
    scheme and relative RMS error. Memory: the largest tensor, a few times over; no model class
    is loaded. Raises LessonkitError for a model that is quantised already, for layers that are
    not Llama's, and for weights that are not finite.
    """
    source = Path(source)
    _check_options(quant_type, block_size)
    if is_meta(source):
        raise LessonkitError(
            "The folder is in Meta's form.",
            where=source,
            remedy="Convert it first: lessonkit to-hf.",
        )
    config = read_json(source / "config.json")
    checkpoint = HfCheckpoint(source)
    targets = linear_weights(checkpoint, config, source)
    dtype = _one_dtype(checkpoint, targets)
    scheme = f"{quant_type} block {block_size}" + (" double quant" if double_quant else "")
    certificate = Certificate("Hugging Face to bitsandbytes 4-bit", {"scheme": scheme})
    compute = DTYPES[_compute_dtype(compute_dtype or dtype)].torch_name
    config["quantization_config"] = _quantization_config(quant_type, double_quant, compute)
    _state_dtype(config, DTYPES[dtype].torch_name, certificate)
    size = sum(checkpoint.info(name).nbytes for name in checkpoint)
    reduced = sum(checkpoint.info(name).nbytes for name in targets)
    with to_checkpoint(
        checkpoint, out, certificate, "to 4 bits",
        # Four bits and a scale take at most 6 of a value's 16 or 32 bits.
        needed=size - reduced + reduced * 6 // 16,
        max_shard_bytes=max_shard_bytes, force=force,
    ) as passage:  # fmt: skip
        for name in checkpoint.names():
            with passage.tensor(name) as read:
                if name not in targets:
                    passage.writer.add(name, read.bits, read.dtype)
                    passage.keep(name, read)
                    continue
                weight = checkpoint.tensor(name)
                quantized = _quantize(name, weight, quant_type, double_quant, block_size)
                stored = stored_tensors(quantized, dtype)
                for suffix, tensor in stored.items():
                    passage.writer.add(name + suffix, tensor)
                passage.record(_records, name, read, weight, quantized, stored)
        passage.writer.add_file("config.json", as_json(config))
        for file in companions_in(source, without=["config.json"]):
            passage.writer.add_file(file.name, file.read_bytes())
    return certificate


class FourBitCheckpoint(HfCheckpoint):
    """A checkpoint in bitsandbytes' 4 bits: packed codes, and tensors that help to read them."""

    @staticmethod
    def recognises(path: Path) -> bool:
        """Does the `config.json` of a folder say so?"""
        config = path / "config.json"
        if not config.is_file():
            return False
        said = read_json(config).get("quantization_config")
        return isinstance(said, dict) and bool(said.get("load_in_4bit"))

    def __init__(self, path: str | os.PathLike[str]) -> None:
        super().__init__(path)
        self._states = {
            name.partition(_STATE)[0]: self._state(name) for name in self if _STATE in name
        }
        said = self.config.get("quantization_config")
        said = said if isinstance(said, dict) else {}
        double = "double quantisation" if said.get("bnb_4bit_use_double_quant") else "plain scales"
        kinds = {str(state.get("quant_type")).upper() for state in self._states.values()}
        self.form += f", bitsandbytes {' and '.join(sorted(kinds)) or '4-bit'} ({double})"

    @property
    def parameters(self) -> int:
        """How many weights: packed ones by the shape they had, without what helps to read them."""
        packed = sum(math.prod(state["shape"]) for state in self._states.values())
        helpers = tuple(f"{name}." for name in self._states)
        plain = (n for n in self if n not in self._states and not n.startswith(helpers or ("\0",)))
        return packed + sum(self.info(name).count for name in plain)

    def _state(self, name: str) -> dict[str, Any]:
        """The JSON that bitsandbytes keeps in a tensor."""
        try:
            state: dict[str, Any] = json.loads(self.array(name).tobytes())
            if not all(type(size) is int for size in state["shape"]):
                raise ValueError("its shape is no list of whole numbers")
        except (ValueError, KeyError, TypeError, RecursionError) as error:
            raise LessonkitError(
                f"{name} does not describe a quantised weight ({error}).",
                where=self.file_of(name),
                remedy="Fetch the file again, or quantise the original: lessonkit nf4.",
            ) from error
        return state


def stored_tensors(quantized: Blockwise, dtype: str) -> dict[str, torch.Tensor]:
    """The tensors that bitsandbytes stores for one weight, by what follows its name.

    `dtype` ("BF16") is that of the weight, to which it will be dequantised.
    """
    import torch

    rest: dict[str, Any] = {
        "quant_type": quantized.codebook.name,
        "blocksize": quantized.block_size,
        "dtype": DTYPES[dtype].torch_name,
        "shape": list(quantized.shape),
    }
    tensors = {"": quantized.packed.view(-1, 1), ".quant_map": quantized.codebook.tensor()}
    if isinstance(quantized.absmax, DoubleQuantized):
        nested = quantized.absmax
        tensors[".absmax"] = nested.codes
        tensors[".nested_absmax"] = nested.absmax
        tensors[".nested_quant_map"] = dynamic_map()
        rest["nested_blocksize"] = NESTED_BLOCK
        rest["nested_dtype"] = "float32"
        rest["nested_offset"] = nested.offset.item()
    else:
        tensors[".absmax"] = quantized.absmax
    encoded = torch.tensor(list(json.dumps(rest).encode()), dtype=torch.uint8)
    tensors[_STATE + quantized.codebook.name] = encoded
    return tensors


def _check_options(quant_type: str, block_size: int) -> None:
    if quant_type not in _QUANT_TYPES:
        raise LessonkitError(
            f"bitsandbytes has no 4-bit type {quant_type!r}.",
            where="quant_type",
            remedy="Use 'nf4' or 'fp4'.",
        )
    if block_size not in _BLOCK_SIZES:
        raise LessonkitError(
            f"bitsandbytes does not read blocks of {block_size}.",
            where="block_size",
            remedy=f"Use one of {', '.join(map(str, _BLOCK_SIZES))}.",
        )


def _compute_dtype(name: str) -> str:
    dtype = parse_dtype(name)
    if dtype not in _SOURCE_DTYPES:
        raise LessonkitError(
            f"bitsandbytes does not compute in {name}.",
            where="compute_dtype",
            remedy="Use float32, float16 or bfloat16.",
        )
    return dtype


def _quantization_config(quant_type: str, double_quant: bool, compute: str) -> dict[str, Any]:
    """What config.json has to say; the names are transformers'."""
    return {
        "quant_method": "bitsandbytes",
        "load_in_4bit": True,
        "load_in_8bit": False,
        "bnb_4bit_quant_type": quant_type,
        "bnb_4bit_use_double_quant": double_quant,
        "bnb_4bit_compute_dtype": compute,
        "bnb_4bit_quant_storage": "uint8",
    }


def _state_dtype(config: dict[str, Any], dtype: str, certificate: Certificate) -> None:
    """Let the configuration name the dtype of the files."""
    stated = config.pop("torch_dtype", None) or config.get("dtype")
    config["dtype"] = dtype
    if stated != dtype:
        certificate.notes.append(f"config.json said {stated}; the files hold {dtype}")


def linear_weights(checkpoint: Checkpoint, config: dict[str, Any], source: Path) -> set[str]:
    """The weights to quantise: every linear layer but the output layer, as in transformers.

    Raises LessonkitError for a model that is quantised already, and for other layers than Llama's.
    """
    if "quantization_config" in config:
        raise LessonkitError(
            "The model is quantised already.",
            where=source / "config.json",
            remedy="Start from the original checkpoint: quantising twice adds the errors up.",
        )
    targets = {name for name in checkpoint.names() if _LINEAR.fullmatch(name)}
    others = [
        name
        for name in checkpoint.names()
        if name not in targets and ".layers." in name and len(checkpoint.info(name).shape) > 1
    ]
    if others or not targets:
        raise LessonkitError(
            f"The layers are not those of a Llama: {others[0]}."
            if others
            else "There is no layer of a Llama (model.layers.0.mlp.up_proj.weight).",
            where=source,
            remedy="Only Llama and models with its tensor names are supported; Meta's form is "
            "converted by `lessonkit to-hf`.",
        )
    return targets


def _one_dtype(checkpoint: Checkpoint, targets: set[str]) -> str:
    """The one dtype of the weights to quantise."""
    dtypes = sorted({checkpoint.info(name).dtype for name in targets})
    if len(dtypes) > 1 or dtypes[0] not in _SOURCE_DTYPES:
        raise LessonkitError(
            f"Weights in {' and '.join(dtypes)} cannot be quantised.",
            where=checkpoint.path,
            remedy="Start from a checkpoint in one of float32, float16 and bfloat16.",
        )
    return dtypes[0]


def _quantize(
    name: str, weight: torch.Tensor, quant_type: str, double_quant: bool, block_size: int
) -> Blockwise:
    """Quantise, and say which tensor an error belongs to."""
    try:
        return quantize_blockwise(
            weight, CODEBOOKS[quant_type], block_size, double_quant=double_quant
        )
    except LessonkitError as error:
        raise LessonkitError(error.what, where=name, remedy=error.remedy) from error


def _records(
    name: str,
    read: Read,
    weight: torch.Tensor,
    quantized: Blockwise,
    stored: dict[str, torch.Tensor],
) -> Iterator[tuple[str, Record]]:
    """One record for the weight, and one for each tensor that helps to read it."""
    relative = relative_rms(quantized.dequantize().sub_(weight), weight)
    yield (
        name,
        Record(
            f"quantised: {quantized.codebook.name}, relative RMS error {relative:.4f}",
            read.dtype,
            read.bits.shape,
            read.sha256.result(),
            [name],
            {
                "bits_per_weight": round(quantized.bits_per_weight(), 4),
                "relative_rms_error": relative,
                "output_dtype": "U8",
                "output_shape": list(stored[""].shape),
                "output_sha256": tensor_sha256(bits_of(stored[""])[0]),
            },
        ),
    )
    for suffix, tensor in stored.items():
        if suffix:
            bits, dtype = bits_of(tensor)
            yield (
                name + suffix,
                Record(
                    "made for a quantised weight", dtype, bits.shape, tensor_sha256(bits), [name]
                ),
            )
