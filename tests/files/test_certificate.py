"""Verdicts: nothing that changed may be called identical, and numbers are counted right."""

from __future__ import annotations

import json
from pathlib import Path

import numpy as np
import pytest
import torch
from hypothesis import given, settings
from hypothesis import strategies as st

from lessonkit.errors import LessonkitError
from lessonkit.files.certificate import (
    CERTIFICATE_NAME,
    Certificate,
    certificate_of,
    compare,
    measure,
    tensor_sha256,
    verify_tensors,
)
from lessonkit.files.checkpoint import Checkpoint, open_checkpoint
from lessonkit.files.dtypes import bits_of, cast
from lessonkit.files.shard_writer import write_checkpoint

DTYPES = {"F16": torch.float16, "BF16": torch.bfloat16, "F32": torch.float32, "F64": torch.float64}


@settings(max_examples=100, deadline=None)
@given(
    st.lists(st.floats(width=32), min_size=1, max_size=30),
    st.sampled_from(sorted(DTYPES)),
    st.sampled_from(sorted(DTYPES)),
)
def test_casts_are_torchs(values: list[float], source: str, target: str) -> None:
    tensor = torch.tensor(values, dtype=torch.float64).to(DTYPES[source])
    expected = tensor.to(DTYPES[target])
    bits, dtype = bits_of(tensor)
    ours = cast(bits, dtype, target)
    nan = torch.isnan(expected).numpy()
    assert np.array_equal(ours[~nan], bits_of(expected)[0][~nan])
    back = torch.from_numpy(ours[nan].copy()).view(DTYPES[target])
    assert torch.isnan(back).all()


def test_every_half_precision_number_is_cast_as_torch_casts_it() -> None:
    every = np.arange(1 << 16, dtype=np.uint16)
    for source, target in [("F16", "BF16"), ("BF16", "F16"), ("F16", "F32"), ("BF16", "F32")]:
        tensor = torch.from_numpy(every.copy()).view(DTYPES[source])
        expected = tensor.to(DTYPES[target])
        bits = bits_of(tensor)[0]
        nan = torch.isnan(expected).numpy()
        assert np.array_equal(cast(bits, source, target)[~nan], bits_of(expected)[0][~nan])


def test_measure_counts_by_hand() -> None:
    a = np.array([1.0, 1.0, 2.0, np.nan, 65504.0, 0.0], "<f4")
    b = np.array([1.0, 1.0 + 2**-22, 2.0 - 2**-20, np.nan, np.inf, -0.0], "<f4")
    difference = measure(a, "F32", b, "F32")
    assert (difference.count, difference.changed, difference.overflowed) == (6, 3, 1)
    assert difference.largest == 2**-20
    assert difference.ulps == 4  # at 2.0 one ulp is 2**-22
    assert str(difference) == "3 of 6 values changed, at most 4 ulp, 1 overflowed"


def test_the_dtype_trap_of_the_field_notes() -> None:
    """fp16 to bf16 drops three mantissa bits: 7 of 8 values change, by at most 4 ulp."""
    normal = torch.randn(200_000, generator=torch.Generator().manual_seed(0)) * 0.02
    half = bits_of(normal.half())[0]
    there = measure(half, "F16", cast(half, "F16", "BF16"), "BF16")
    assert there.changed / there.count == pytest.approx(0.874, abs=0.005)
    assert there.ulps == 4
    brain = bits_of(normal.bfloat16())[0]
    back = measure(brain, "BF16", cast(brain, "BF16", "F16"), "F16")
    assert back.changed / back.count < 0.0005


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


def test_a_certificate_is_written_and_checked(tmp_path: Path) -> None:
    half = torch.randn(4, 4, generator=torch.Generator().manual_seed(2)).half()
    bits, dtype = bits_of(half)
    rounded = cast(bits, "F16", "BF16")
    certificate = Certificate("a test", {"dtype": "BF16"}, ["something was noticed"])
    certificate.kept("kept", bits, dtype, source=["wq"])
    certificate.cast("rounded", bits, dtype, rounded, "BF16")
    assert certificate.verdicts == {"bit-identical": 1, "dtype cast": 1}
    assert str(certificate) == (
        "a test: 2 tensors: 1 bit-identical, 1 dtype cast\nnote: something was noticed"
    )
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
