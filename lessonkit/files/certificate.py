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
from lessonkit.files.atomic import CERTIFICATE_NAME as CERTIFICATE_NAME
from lessonkit.files.checkpoint import TensorSource, read_json
from lessonkit.files.difference import Difference, is_cast, measure, same_bytes
from lessonkit.files.dtypes import FLOATS, Array, bytes_of
from lessonkit.progress import byte_bar

CERTIFICATE_START = b'{\n "lessonkit":'
"""How a certificate's file begins."""
IDENTICAL = "bit-identical"
OTHER_WAY = "cast the other way"


def tensor_sha256(bits: Array) -> str:
    """The SHA-256 of a tensor's canonical bytes; `bits` is in Hugging Face's layout."""
    return hashlib.sha256(bytes_of(bits)).hexdigest()


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
    """The records of one conversion, in the order of its tensors, and what it noticed.

    `rounding` counts the values of all tensors that were cast.
    """

    conversion: str
    options: dict[str, Any] = field(default_factory=dict)
    notes: list[str] = field(default_factory=list)
    records: dict[str, Record] = field(default_factory=dict)
    rounding: Difference = Difference(0)

    def kept(
        self, name: str, bits: Array, dtype: str, *, sha256: str | None = None,
        source: Sequence[str] = (),
    ) -> None:  # fmt: skip
        """Record a tensor whose values were not touched. `sha256`: if it is known already."""
        digest = sha256 or tensor_sha256(bits)
        self.records[name] = Record(IDENTICAL, dtype, bits.shape, digest, source)

    def cast(
        self, name: str, bits: Array, dtype: str, result: Array, result_dtype: str, *,
        sha256: str | None = None, source: Sequence[str] = (),
    ) -> None:  # fmt: skip
        """Record a tensor that was rounded to another dtype."""
        difference = measure(bits, dtype, result, result_dtype)
        self.rounding += difference
        self.records[name] = Record(
            f"dtype cast: {difference}", dtype, bits.shape, sha256 or tensor_sha256(bits), source,
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
        if self.rounding.count:
            lines.append(f"rounding: {self.rounding}")
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
    with byte_bar(_total_bytes(source), "verify") as bar:
        for name, record in tensors.items():
            if name not in present:
                verdicts[name] = "missing"
                continue
            verdicts[name] = "ok" if _is_as_recorded(source, name, record) else "altered"
            source.release(name)
            bar.update(source.info(name).nbytes)
    extra = dict.fromkeys(sorted(present - set(tensors)), "not in the certificate")
    return {**verdicts, **extra}


def _is_as_recorded(source: TensorSource, name: str, record: Mapping[str, Any]) -> bool:
    """Dtype, shape and bytes: the same bytes under another dtype are other values."""
    info = source.info(name)
    dtype = record.get("output_dtype", record.get("dtype"))
    shape = record.get("output_shape", record.get("shape"))
    if dtype != info.dtype or shape != list(info.shape):
        return False
    expected: str = record.get("output_sha256", record["sha256"])
    return tensor_sha256(source.array(name)) == expected


@dataclass(frozen=True)
class Match:
    """The comparison of one tensor. `kind` is "bit-identical", "dtype cast" (B is A, rounded),
    "cast the other way" (A is B, rounded), "different", "shape", "only in A" or "only in B"."""

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

    @property
    def common(self) -> int:
        """How many names both have."""
        return sum(match.kind not in ("only in A", "only in B") for match in self.matches)

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
                and not difference.unbounded
                and difference.largest <= tolerance
            )

        return [match for match in self.matches if not within(match)]

    def report(self, *, allow_cast: bool = False, tolerance: float = 0.0) -> str:
        """The tensors that differ by more than was asked for, a line each; then the sum."""
        beyond = self.beyond(allow_cast=allow_cast, tolerance=tolerance)
        if not self.common:
            hint = "name Meta's files by their folder, not one by one"
            return f"{self}\nthe two have no name in common: {hint}"
        lines = [*map(str, beyond), str(self)]
        if beyond:
            lines.append(f"{len(beyond)} tensors differ by more than was asked for")
        if any(match.kind == OTHER_WAY for match in beyond):
            lines.append("A is B, rounded: name the two the other way round, with --allow-cast")
        return "\n".join(lines)

    def __str__(self) -> str:
        kinds: dict[str, int] = {}
        for match in self.matches:
            kinds[match.kind] = kinds.get(match.kind, 0) + 1
        counts = ", ".join(f"{count} {kind}" for kind, count in kinds.items()) or "nothing"
        differences = [match.difference for match in self.matches if match.difference is not None]
        total = f"; {sum(differences, Difference(0))}" if differences else ""
        return f"{len(self.matches)} tensors: {counts}{total}"


def compare(a: TensorSource, b: TensorSource) -> Comparison:
    """Compare two checkpoints tensor by tensor; both in Hugging Face's names and layout."""
    names_a, names_b = a.names(), b.names()
    known_a, known_b = set(names_a), set(names_b)
    matches = []
    with byte_bar(_total_bytes(a), "compare") as bar:
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
    if info_a.dtype == info_b.dtype and same_bytes(bits_a, bits_b):
        return Match(name, IDENTICAL)
    if info_a.dtype not in FLOATS or info_b.dtype not in FLOATS:
        return Match(name, "different", f"the bits of {info_a.dtype} against {info_b.dtype}")
    difference = measure(bits_a, info_a.dtype, bits_b, info_b.dtype)
    detail = f"{info_a.dtype} to {info_b.dtype}: {difference}"
    if info_a.dtype != info_b.dtype:
        if is_cast(bits_a, info_a.dtype, bits_b, info_b.dtype):
            return Match(name, "dtype cast", detail, difference)
        if is_cast(bits_b, info_b.dtype, bits_a, info_a.dtype):
            return Match(name, OTHER_WAY, detail, difference)
    detail = f"{difference}, largest difference {difference.largest:.3g}"
    return Match(name, "different", detail, difference)


def certificate_of(folder: str | os.PathLike[str]) -> Path | None:
    """The certificate in a folder, if there is one."""
    path = Path(folder) / CERTIFICATE_NAME
    return path if path.is_file() else None


def certificate_beside(file: str | os.PathLike[str]) -> Path:
    """Where the certificate of a single file lies: beside it, NAME.certificate.json."""
    return Path(f"{os.fspath(file)}.certificate.json")
