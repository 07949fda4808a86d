"""What happened to every tensor: hashes that survive a change of form, and verdicts.

The same tensor has the same SHA-256 in Meta's files and in Hugging Face's, because the hash
is taken over canonical bytes: Hugging Face's layout, the source's dtype, little-endian, row
by row. A conversion writes one record a tensor into `lessonkit-certificate.json`.
"""

from __future__ import annotations

import hashlib
import json
import os
from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

import numpy as np

import lessonkit
from lessonkit.errors import LessonkitError
from lessonkit.files.checkpoint import TensorSource, read_json
from lessonkit.files.dtypes import DTYPES, FLOATS, Array, bytes_of, cast, to_float32
from lessonkit.files.integrity import progress_bar

CERTIFICATE_NAME = "lessonkit-certificate.json"
IDENTICAL = "bit-identical"

_MANTISSA_AND_SMALLEST_EXPONENT = {
    "F16": (10, -14),
    "BF16": (7, -126),
    "F32": (23, -126),
    "F64": (52, -1022),
}
_CHUNK = 1 << 20  # values compared at a time, so that memory stays small


def tensor_sha256(bits: Array) -> str:
    """The SHA-256 of a tensor's canonical bytes; `bits` is in Hugging Face's layout."""
    return hashlib.sha256(bytes_of(bits)).hexdigest()


@dataclass(frozen=True)
class Difference:
    """How far the values of B are from those of A.

    `changed` values differ; by at most `largest`, which is `ulps` units in the last place of
    A's format, rounded up; `overflowed` values were finite and became infinite.
    """

    count: int
    changed: int = 0
    largest: float = 0.0
    ulps: int = 0
    overflowed: int = 0

    def __str__(self) -> str:
        text = f"{self.changed:,} of {self.count:,} values changed"
        if self.changed:
            text += f", at most {self.ulps} ulp"
        return text + (f", {self.overflowed:,} overflowed" if self.overflowed else "")


def measure(a: Array, a_dtype: str, b: Array, b_dtype: str) -> Difference:
    """Compare two float tensors value by value; NaN equals NaN."""
    a, b = a.reshape(-1), b.reshape(-1)
    changed = overflowed = ulps = 0
    largest = 0.0
    for start in range(0, a.size, _CHUNK):
        piece_a, piece_b = a[start : start + _CHUNK], b[start : start + _CHUNK]
        if a_dtype == b_dtype and np.array_equal(piece_a.view("u1"), piece_b.view("u1")):
            continue
        x = to_float32(piece_a, a_dtype).astype(np.float64)
        y = to_float32(piece_b, b_dtype).astype(np.float64)
        differs = ~((x == y) | (np.isnan(x) & np.isnan(y)))
        x, y = x[differs], y[differs]
        changed += x.size
        overflowed += int(np.count_nonzero(np.isfinite(x) & np.isinf(y)))
        finite = np.isfinite(x) & np.isfinite(y)
        error = np.abs(y[finite] - x[finite])
        if error.size:
            largest = max(largest, float(error.max()))
            ulps = max(ulps, int(np.ceil((error / _ulp(x[finite], a_dtype)).max())))
    return Difference(a.size, changed, largest, ulps, overflowed)


def _ulp(values: Array, dtype: str) -> Array:
    """The distance between neighbouring numbers of a format, at these values (float64)."""
    mantissa, smallest = _MANTISSA_AND_SMALLEST_EXPONENT[dtype]
    _, exponent = np.frexp(values)  # values = m * 2**exponent with m in [0.5, 1)
    ulp: Array = np.ldexp(1.0, np.maximum(exponent - 1, smallest) - mantissa)
    return ulp


@dataclass(frozen=True)
class Record:
    """What became of one tensor.

    `sha256` is that of the canonical source; `source` names the tensors it was made from;
    `details` holds what else there is to say (output dtype and hash, scheme, error).
    """

    verdict: str
    dtype: str
    shape: tuple[int, ...]
    sha256: str
    source: Sequence[str] = ()
    details: Mapping[str, Any] = field(default_factory=dict)

    def as_json(self) -> dict[str, Any]:
        """The record as it stands in the file."""
        plain = {"verdict": self.verdict, "dtype": self.dtype, "shape": list(self.shape),
                 "sha256": self.sha256, "source": list(self.source)}  # fmt: skip
        return {**plain, **self.details}


@dataclass
class Certificate:
    """The records of one conversion, in the order of its tensors, and what it noticed."""

    conversion: str
    options: dict[str, Any] = field(default_factory=dict)
    notes: list[str] = field(default_factory=list)
    records: dict[str, Record] = field(default_factory=dict)

    def kept(
        self, name: str, bits: Array, dtype: str, *, sha256: str | None = None,
        source: Sequence[str] = (),
    ) -> None:  # fmt: skip
        """Record a tensor whose values were not touched. `sha256`: if it is known already."""
        digest = sha256 or tensor_sha256(bits)
        self.records[name] = Record(IDENTICAL, dtype, bits.shape, digest, source)

    def cast(
        self, name: str, bits: Array, dtype: str, result: Array, result_dtype: str, *,
        source: Sequence[str] = (),
    ) -> None:  # fmt: skip
        """Record a tensor that was rounded to another dtype."""
        difference = measure(bits, dtype, result, result_dtype)
        self.records[name] = Record(
            f"dtype cast: {difference}", dtype, bits.shape, tensor_sha256(bits), source,
            {"output_dtype": result_dtype, "output_sha256": tensor_sha256(result)},
        )  # fmt: skip

    @property
    def verdicts(self) -> dict[str, int]:
        """How many tensors got which kind of verdict (the part before the colon)."""
        counts: dict[str, int] = {}
        for record in self.records.values():
            kind = record.verdict.split(":")[0]
            counts[kind] = counts.get(kind, 0) + 1
        return counts

    def __str__(self) -> str:
        kinds = ", ".join(f"{count} {kind}" for kind, count in self.verdicts.items())
        lines = [f"{self.conversion}: {len(self.records)} tensors: {kinds}"]
        return "\n".join([*lines, *(f"note: {note}" for note in self.notes)])

    def to_bytes(self) -> bytes:
        """The certificate as a JSON file; the same conversion gives the same bytes."""
        head = {
            "lessonkit": lessonkit.__version__,
            "conversion": self.conversion,
            "options": self.options,
            "notes": self.notes,
        }
        # One line for each tensor, so that people can read the file and tools can compare lines.
        tensors = ",\n".join(
            f"  {_json(name)}: {_json(record.as_json())}" for name, record in self.records.items()
        )
        lines = [f" {_json(key)}: {_json(value)},\n" for key, value in head.items()]
        return f'{{\n{"".join(lines)} "tensors": {{\n{tensors}\n }}\n}}\n'.encode()


def _json(value: Any) -> str:
    return json.dumps(value, ensure_ascii=False)


def verify_tensors(source: TensorSource, path: str | os.PathLike[str]) -> dict[str, str]:
    """Hash every tensor again and compare with a certificate file.

    `source` gives the tensors in canonical layout. Returns name -> "ok", "altered", "missing"
    or "not in the certificate".
    """
    tensors = read_json(path).get("tensors")
    if not isinstance(tensors, dict) or not all(
        isinstance(record, dict) and isinstance(record.get("sha256"), str)
        for record in tensors.values()
    ):
        raise LessonkitError(
            "This is not a certificate.", where=path, remedy="Name a lessonkit-certificate.json."
        )
    present = set(source.names())
    verdicts = {}
    with progress_bar("verify", _total_bytes(source)) as bar:
        for name, record in tensors.items():
            if name not in present:
                verdicts[name] = "missing"
                continue
            expected = record.get("output_sha256", record["sha256"])
            verdicts[name] = "ok" if tensor_sha256(source.array(name)) == expected else "altered"
            source.release(name)
            bar.update(source.info(name).nbytes)
    extra = dict.fromkeys(sorted(present - set(tensors)), "not in the certificate")
    return {**verdicts, **extra}


@dataclass(frozen=True)
class Match:
    """The comparison of one tensor. `kind` is "bit-identical", "dtype cast" (B is A, rounded),
    "different", "shape", "only in A" or "only in B"."""

    name: str
    kind: str
    detail: str = ""
    difference: Difference | None = None

    def __str__(self) -> str:
        return f"{self.name}: {self.kind}" + (f" ({self.detail})" if self.detail else "")


@dataclass(frozen=True)
class Comparison:
    """The matches of all tensors of two checkpoints."""

    matches: tuple[Match, ...]

    def beyond(self, *, allow_cast: bool = False, tolerance: float = 0.0) -> list[Match]:
        """The tensors that differ by more than was asked for.

        Bit-identical ones never do; casts do unless allowed; values may differ by `tolerance`.
        """

        def within(match: Match) -> bool:
            if match.kind == IDENTICAL or (match.kind == "dtype cast" and allow_cast):
                return True
            difference = match.difference
            return (
                difference is not None
                and tolerance > 0
                and not difference.overflowed
                and difference.largest <= tolerance
            )

        return [match for match in self.matches if not within(match)]

    def __str__(self) -> str:
        kinds: dict[str, int] = {}
        for match in self.matches:
            kinds[match.kind] = kinds.get(match.kind, 0) + 1
        counts = ", ".join(f"{count} {kind}" for kind, count in kinds.items()) or "nothing"
        return f"{len(self.matches)} tensors: {counts}"


def compare(a: TensorSource, b: TensorSource) -> Comparison:
    """Compare two checkpoints tensor by tensor; both in Hugging Face's names and layout."""
    names_a, names_b = a.names(), b.names()
    known_a, known_b = set(names_a), set(names_b)
    matches = []
    with progress_bar("compare", _total_bytes(a)) as bar:
        for name in names_a:
            if name not in known_b:
                matches.append(Match(name, "only in A"))
                continue
            matches.append(_match(name, a, b))
            a.release(name)
            b.release(name)
            bar.update(a.info(name).nbytes)
    matches += [Match(name, "only in B") for name in names_b if name not in known_a]
    return Comparison(tuple(matches))


def _total_bytes(source: TensorSource) -> int:
    return sum(source.info(name).nbytes for name in source.names())


def _match(name: str, a: TensorSource, b: TensorSource) -> Match:
    info_a, info_b = a.info(name), b.info(name)
    if info_a.shape != info_b.shape:
        return Match(name, "shape", f"{list(info_a.shape)} against {list(info_b.shape)}")
    bits_a, bits_b = (np.ascontiguousarray(source.array(name)).reshape(-1) for source in (a, b))
    if info_a.dtype == info_b.dtype and _same_bytes(bits_a, bits_b):
        return Match(name, IDENTICAL)
    if info_a.dtype not in FLOATS or info_b.dtype not in FLOATS:
        return Match(name, "different", f"the bits of {info_a.dtype} against {info_b.dtype}")
    difference = measure(bits_a, info_a.dtype, bits_b, info_b.dtype)
    if info_a.dtype != info_b.dtype and _is_cast(bits_a, info_a.dtype, bits_b, info_b.dtype):
        detail = f"{info_a.dtype} to {info_b.dtype}: {difference}"
        return Match(name, "dtype cast", detail, difference)
    detail = f"{difference}, largest difference {difference.largest:.3g}"
    return Match(name, "different", detail, difference)


def _same_bytes(a: Array, b: Array) -> bool:
    return all(
        np.array_equal(a[start : start + _CHUNK].view("u1"), b[start : start + _CHUNK].view("u1"))
        for start in range(0, a.size, _CHUNK)
    )


def _is_cast(a: Array, a_dtype: str, b: Array, b_dtype: str) -> bool:
    """Is B what rounding A gives?"""
    bits = DTYPES[b_dtype].bits
    return all(
        _same_bytes(
            cast(a[start : start + _CHUNK], a_dtype, b_dtype),
            b[start : start + _CHUNK].astype(bits, copy=False),
        )
        for start in range(0, a.size, _CHUNK)
    )


def certificate_of(folder: str | os.PathLike[str]) -> Path | None:
    """The certificate in a folder, if there is one."""
    path = Path(folder) / CERTIFICATE_NAME
    return path if path.is_file() else None
