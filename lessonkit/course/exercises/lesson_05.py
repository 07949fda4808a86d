"""Exercises of lesson 05: a Q4_0 block, the size of a file, what a mix keeps at more bits."""

from __future__ import annotations

import numpy as np

from lessonkit.course.exercises.attempts import Exercise, Mistake
from lessonkit.formats import block_format

Tensor = tuple[int, int, str]
"""Rows, columns and type."""
Typed = tuple[str, int, int]
"""Type, rows and columns."""
_FLOATS = {"F32": 32.0, "F16": 16.0, "BF16": 16.0}
_ALIGNMENT = 32


def decode_q4_0(raw: bytes) -> list[float]:
    """The 32 values of a Q4_0 block of 18 bytes."""
    scale = float(np.frombuffer(raw[:2], "<f2")[0])
    codes = [byte & 15 for byte in raw[2:]] + [byte >> 4 for byte in raw[2:]]
    return [scale * (code - 8) for code in codes]


def gguf_size(header: int, tensors: list[Tensor]) -> int:
    """Bytes of a GGUF file whose header has so many before padding, and these tensors."""
    sizes = [header, *(_tensor_bytes(*tensor) for tensor in tensors)]
    return sum(-(-size // _ALIGNMENT) * _ALIGNMENT for size in sizes)


def kept_better(tensors: dict[str, Typed]) -> set[str]:
    """The matrices with more bits than the type that most of the weights have."""
    most = _most_common({name: t[1] * t[2] for name, t in tensors.items()}, tensors)
    return _above(tensors, most)


def _tensor_bytes(rows: int, columns: int, kind: str) -> int:
    return int(rows * columns * _bits(kind) / 8)


def _bits(kind: str) -> float:
    return _FLOATS[kind] if kind in _FLOATS else block_format(kind).bits_per_weight


def _most_common(weight: dict[str, int], tensors: dict[str, Typed]) -> str:
    totals: dict[str, int] = {}
    for name, (kind, _, _) in tensors.items():
        totals[kind] = totals.get(kind, 0) + weight[name]
    return max(totals, key=lambda kind: totals[kind])


def _above(tensors: dict[str, Typed], main: str) -> set[str]:
    return {
        name for name, (kind, rows, _) in tensors.items() if rows > 1 and _bits(kind) > _bits(main)
    }


def _blocks() -> list[tuple[bytes]]:
    rng = np.random.default_rng(5)
    weights = (0.02 * rng.standard_normal((3, 32))).astype(np.float32)
    kind = block_format("Q4_0")
    largest = np.zeros((1, 32), np.float32)
    largest[0, :3] = 0.75, -0.75, 0.25
    every_code = np.float16(0.5).tobytes() + bytes(range(0, 256, 17))
    encoded = [kind.encode(row[None]).tobytes() for row in [*weights, largest[0]]]
    return [(raw,) for raw in [every_code, *encoded]]


def _files() -> list[tuple[int, list[Tensor]]]:
    return [
        (96_467, [(4096, 256, "Q6_K"), (1, 256, "F32"), (4096, 256, "Q4_K")]),
        (64, [(1, 32, "Q8_0")]),
        (65, [(3, 32, "Q4_0"), (1, 1, "F32"), (5, 64, "Q8_0")]),
        (1000, [(7, 96, "Q5_0"), (2, 3, "F16"), (768, 256, "Q2_K")]),
    ]


def _mixes() -> list[tuple[dict[str, Typed]]]:
    layer: dict[str, Typed] = {
        "attn_norm.weight": ("F32", 1, 256),
        "attn_q.weight": ("Q4_K", 256, 256),
        "attn_v.weight": ("Q6_K", 128, 256),
        "ffn_down.weight": ("Q6_K", 256, 768),
        "ffn_up.weight": ("Q4_K", 768, 256),
    }
    mixes: list[dict[str, Typed]] = [
        {
            "output.weight": ("Q6_K", 1024, 256),
            "token_embd.weight": ("Q4_K", 4096, 256),
            **{f"blk.0.{name}": typed for name, typed in layer.items()},
        },
        {  # many small matrices in one type, most weights in another
            "output.weight": ("Q6_K", 32000, 4096),
            "token_embd.weight": ("Q2_K", 32000, 4096),
            "blk.0.ffn_up.weight": ("Q2_K", 11008, 4096),
            "blk.0.attn_v.weight": ("Q3_K", 512, 4096),
            "blk.0.attn_output.weight": ("Q3_K", 512, 4096),
            "blk.0.ffn_down.weight": ("Q3_K", 512, 4096),
            "blk.0.ffn_norm.weight": ("F32", 1, 4096),
        },
        {  # Q4_0 beside a smaller type
            "output.weight": ("Q6_K", 512, 256),
            "blk.0.ffn_up.weight": ("Q4_0", 2048, 256),
            "blk.0.ffn_down.weight": ("Q3_K", 256, 256),
        },
        {"output.weight": ("Q8_0", 512, 256), "output_norm.weight": ("F32", 1, 256)},
    ]
    return [(tensors,) for tensors in mixes]


def _pairs_of_neighbours(raw: bytes) -> list[float]:
    scale = float(np.frombuffer(raw[:2], "<f2")[0])
    codes = [code for byte in raw[2:] for code in (byte & 15, byte >> 4)]
    return [scale * (code - 8) for code in codes]


def _upper_first(raw: bytes) -> list[float]:
    values = decode_q4_0(raw)
    return values[16:] + values[:16]


def _without_offset(raw: bytes) -> list[float]:
    scale = float(np.frombuffer(raw[:2], "<f2")[0])
    return [value + 8 * scale for value in decode_q4_0(raw)]


def _scale_as_bf16(raw: bytes) -> list[float]:
    right = float(np.frombuffer(raw[:2], "<f2")[0])
    wrong = float(np.frombuffer(b"\0\0" + raw[:2], "<f4")[0])
    return [value / right * wrong for value in decode_q4_0(raw)]


def _without_padding(header: int, tensors: list[Tensor]) -> int:
    return header + sum(_tensor_bytes(*tensor) for tensor in tensors)


def _header_padded_only(header: int, tensors: list[Tensor]) -> int:
    return gguf_size(header, []) + sum(_tensor_bytes(*tensor) for tensor in tensors)


def _sum_padded(header: int, tensors: list[Tensor]) -> int:
    return gguf_size(_without_padding(header, tensors), [])


def _header_not_padded(header: int, tensors: list[Tensor]) -> int:
    return header + gguf_size(0, tensors)


def _last_not_padded(header: int, tensors: list[Tensor]) -> int:
    return gguf_size(header, tensors[:-1]) + _tensor_bytes(*tensors[-1])


def _whole_bits(header: int, tensors: list[Tensor]) -> int:
    named = [
        rows * columns * (int(_FLOATS.get(kind, 0)) or int(kind[1])) // 8
        for rows, columns, kind in tensors
    ]
    return sum(-(-size // _ALIGNMENT) * _ALIGNMENT for size in [header, *named])


def _norms_too(tensors: dict[str, Typed]) -> set[str]:
    norms = {name for name, (_, rows, _) in tensors.items() if rows == 1}
    return kept_better(tensors) | norms


def _counting_tensors(tensors: dict[str, Typed]) -> set[str]:
    return _above(tensors, _most_common(dict.fromkeys(tensors, 1), tensors))


def _any_other_type(tensors: dict[str, Typed]) -> set[str]:
    most = _most_common({name: t[1] * t[2] for name, t in tensors.items()}, tensors)
    return {name for name, (kind, rows, _) in tensors.items() if rows > 1 and kind != most}


EXERCISES = [
    Exercise(
        name="decode_q4_0",
        prompt=(
            "Write decode_q4_0(raw): `raw` are the 18 bytes of a Q4_0 block, a scale (F16, "
            "lowest byte first) and 16 bytes of codes. Return the 32 values as a list of floats."
        ),
        reference=decode_q4_0,
        make_cases=_blocks,
        hint=(
            "struct.unpack('<e', raw[:2])[0] is the scale. Byte j of the others holds value j in "
            "its lower four bits and value j + 16 in its upper four; a code stands for code - 8."
        ),
        nudge="What are the first two bytes, and which two values share the third?",
        mistakes=(
            Mistake(
                _pairs_of_neighbours,
                "The right values in another order: the two codes of a byte are no neighbours, "
                "but values j and j + 16.",
            ),
            Mistake(
                _upper_first,
                "The halves are exchanged: the lower four bits come first (byte & 15).",
            ),
            Mistake(
                _without_offset,
                "All values are too far on one side: a code of 0 to 15 stands for -8 to 7.",
            ),
            Mistake(
                _scale_as_bf16,
                "The scale is an F16, not the upper half of an F32 (that would be BF16).",
            ),
        ),
    ),
    Exercise(
        name="gguf_size",
        prompt=(
            "Write gguf_size(header, tensors): return the size of a GGUF file in bytes. `header` "
            "is where the table ends, `tensors` is a list of (rows, columns, type). Everything "
            "is padded to 32 bytes."
        ),
        reference=gguf_size,
        make_cases=_files,
        hint=(
            "Round up with -(-size // 32) * 32: once for the header, once for every tensor. "
            "A tensor has rows * columns * bits / 8 bytes; block_format('Q4_K').bits_per_weight, "
            "and F32 has 32, F16 and BF16 have 16."
        ),
        nudge="Which parts does the file have, and where must each of them end?",
        mistakes=(
            Mistake(_without_padding, "Nothing is padded yet: each part ends at a multiple of 32."),
            Mistake(
                _header_padded_only,
                "The header is right. Every tensor is padded too.",
            ),
            Mistake(
                _sum_padded,
                "You pad the sum. Each tensor begins at a multiple of 32, so each is padded alone.",
            ),
            Mistake(_header_not_padded, "The tensors are right. The header is padded too."),
            Mistake(_last_not_padded, "Almost: the last tensor is padded like the others."),
            Mistake(
                _whole_bits,
                "You took the number in the type's name for its bits: the scales count as well.",
            ),
        ),
    ),
    Exercise(
        name="kept_better",
        prompt=(
            "Write kept_better(tensors): `tensors` is a dict, name -> (type, rows, columns). "
            "Return the set of names of the matrices that have more bits a weight than the type "
            "that most of the weights have. What has one row is no matrix."
        ),
        reference=kept_better,
        make_cases=_mixes,
        hint=(
            "Add up rows * columns for each type; the largest sum names the main type. Then "
            "compare bits_per_weight, and leave out what has a single row."
        ),
        nudge="What does a matrix count by: by being one, or by its weights?",
        mistakes=(
            Mistake(
                _norms_too, "Norms are F32 in every file; they are no matrices, leave them out."
            ),
            Mistake(
                _counting_tensors,
                "You counted tensors. Count weights: one large matrix outweighs many small ones.",
            ),
            Mistake(
                _any_other_type,
                "Another type may also have fewer bits: compare bits_per_weight.",
            ),
        ),
    ),
]
