"""Verdicts: nothing that changed may be called identical, and numbers are counted right."""

from __future__ import annotations

import json
from pathlib import Path

import numpy as np
import pytest
import torch

from lessonkit.errors import LessonkitError
from lessonkit.files.certificate import (
    CERTIFICATE_NAME,
    Certificate,
    certificate_of,
    compare,
    tensor_sha256,
    verify_tensors,
)
from lessonkit.files.checkpoint import Checkpoint, open_checkpoint
from lessonkit.files.dtypes import bits_of, cast
from lessonkit.files.writer import write_checkpoint


def test_hashes_are_of_canonical_bytes() -> None:
    array = np.arange(6, dtype="<u2").reshape(2, 3)
    assert tensor_sha256(array) == tensor_sha256(array.T.copy().T)
    assert tensor_sha256(array) != tensor_sha256(array.T)


def checkpoint(path: Path, **tensors: torch.Tensor) -> Checkpoint:
    with write_checkpoint(path) as writer:
        for name, tensor in tensors.items():
            writer.add(name, tensor)
    return open_checkpoint(path)


def test_compare_tells_every_kind_of_difference(tmp_path: Path) -> None:
    base = torch.randn(3, 5, generator=torch.Generator().manual_seed(1))
    nudged = base.clone()
    nudged[1, 1] += 0.25
    half = base.half()
    a = checkpoint(
        tmp_path / "a", same=base, cast=half, wider=half, value=base, shape=base, gone=base,
        ints=torch.arange(3), off=half,
    )  # fmt: skip
    b = checkpoint(
        tmp_path / "b", same=base, cast=half.bfloat16(), wider=half.float(), value=nudged,
        shape=base.T, new=base, ints=torch.arange(3) + 1, off=half.bfloat16() * 2,
    )  # fmt: skip
    result = compare(a, b)
    kinds = {match.name: match.kind for match in result.matches}
    assert kinds == {
        "same": "bit-identical", "cast": "dtype cast", "wider": "dtype cast", "value": "different",
        "shape": "shape", "gone": "only in A", "new": "only in B", "ints": "different",
        "off": "different",
    }  # fmt: skip
    by_name = {match.name: match for match in result.matches}
    assert "0 of 15 values changed" in str(by_name["wider"])
    assert "1 of 15 values changed" in str(by_name["value"])
    assert "[3, 5] against [5, 3]" in str(by_name["shape"])
    assert str(result).startswith("9 tensors: 1 bit-identical, 2 dtype cast")
    assert " of 60 values changed, at most" in str(result)  # cast, wider, value, off
    assert str(compare(a, a)) == "8 tensors: 8 bit-identical"

    def beyond(**options: object) -> set[str]:
        return {match.name for match in result.beyond(**options)}  # type: ignore[arg-type]

    assert beyond() == set(kinds) - {"same"}
    assert beyond(allow_cast=True) == {"value", "shape", "gone", "new", "ints", "off"}
    assert beyond(allow_cast=True, tolerance=0.25) == {"shape", "gone", "new", "ints", "off"}
    assert not compare(a, a).beyond()


def test_one_flipped_bit_is_seen(tmp_path: Path) -> None:
    values = torch.zeros(3_000_000, dtype=torch.int8)
    flipped = values.clone()
    flipped[2_999_999] = 1
    a, b = checkpoint(tmp_path / "a", x=values), checkpoint(tmp_path / "b", x=flipped)
    assert [match.kind for match in compare(a, b).matches] == ["different"]


def test_minus_zero_is_not_zero(tmp_path: Path) -> None:
    a, b = (
        checkpoint(tmp_path / "a", x=torch.zeros(2)),
        checkpoint(tmp_path / "b", x=-torch.zeros(2)),
    )
    (match,) = compare(a, b).matches
    assert match.kind == "different" and "0 of 2 values changed" in match.detail


def test_a_tolerance_lets_no_nan_and_no_infinity_pass(tmp_path: Path) -> None:
    base = torch.tensor([1.0, torch.inf, torch.nan])
    a = checkpoint(tmp_path / "a", nan=base, inf=base, back=base, fine=base)
    b = checkpoint(
        tmp_path / "b",
        nan=torch.tensor([torch.nan, torch.inf, torch.nan]),
        inf=torch.tensor([torch.inf, torch.inf, torch.nan]),
        back=torch.tensor([1.0, 3e38, torch.nan]),
        fine=torch.tensor([1.5, torch.inf, torch.nan]),
    )
    beyond = compare(a, b).beyond(tolerance=1e30)
    assert sorted(match.name for match in beyond) == ["back", "inf", "nan"]


def test_nothing_in_common(tmp_path: Path) -> None:
    a = checkpoint(tmp_path / "a", x=torch.ones(2), y=torch.ones(2))
    b = checkpoint(tmp_path / "b", y=torch.ones(3), z=torch.ones(2))
    assert compare(a, b).common == 1
    assert compare(a, checkpoint(tmp_path / "c", z=torch.ones(2))).common == 0


def test_the_same_bytes_under_another_dtype_or_shape_are_altered(tmp_path: Path) -> None:
    ones = torch.ones(2, 3).half()
    certificate = Certificate("a test")
    bits, dtype = bits_of(ones)
    for name in ("same", "dtype", "shape"):
        certificate.kept(name, bits, dtype)
    path = tmp_path / CERTIFICATE_NAME
    path.write_bytes(certificate.to_bytes())
    other = checkpoint(
        tmp_path / "out", same=ones, dtype=ones.view(torch.bfloat16), shape=ones.view(3, 2)
    )
    assert verify_tensors(other, path) == {"same": "ok", "dtype": "altered", "shape": "altered"}


def test_a_certificate_is_written_and_checked(tmp_path: Path) -> None:
    half = torch.randn(4, 4, generator=torch.Generator().manual_seed(2)).half()
    bits, dtype = bits_of(half)
    rounded = cast(bits, "F16", "BF16")
    certificate = Certificate("a test", {"dtype": "BF16"}, ["something was noticed"])
    certificate.kept("kept", bits, dtype, source=["wq"])
    certificate.cast("rounded", bits, dtype, rounded, "BF16")
    assert certificate.verdicts == {"bit-identical": 1, "dtype cast": 1}
    assert str(certificate) == (
        "a test: 2 tensors: 1 bit-identical, 1 dtype cast\n"
        f"rounding: {certificate.rounding}\nnote: something was noticed"
    )
    assert certificate.rounding.count == 16 and certificate.rounding.changed > 8
    with write_checkpoint(tmp_path / "out") as writer:
        writer.add("kept", bits)
        writer.add("rounded", rounded, "BF16")
        writer.add_file(CERTIFICATE_NAME, certificate.to_bytes())
    path = certificate_of(tmp_path / "out")
    assert path is not None and certificate_of(tmp_path) is None
    record = json.loads(path.read_text())["tensors"]["rounded"]
    assert record["sha256"] == tensor_sha256(bits)
    assert record["output_sha256"] == tensor_sha256(rounded)
    assert record["verdict"].startswith("dtype cast: ")
    ours = open_checkpoint(tmp_path / "out")
    assert verify_tensors(ours, path) == {"kept": "ok", "rounded": "ok"}
    other = checkpoint(tmp_path / "other", rounded=half, extra=half)
    assert verify_tensors(other, path) == {
        "kept": "missing", "rounded": "altered", "extra": "not in the certificate",
    }  # fmt: skip
    for content in ("{}", '{"tensors": {"a": {}}}'):
        path.write_text(content)
        with pytest.raises(LessonkitError, match="not a certificate"):
            verify_tensors(ours, path)
