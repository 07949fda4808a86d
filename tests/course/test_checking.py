"""lessonkit.course.checking: what passes, what does not, and what the line says."""

from __future__ import annotations

from typing import Any

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st
from hypothesis.extra import numpy as hnp

from lessonkit.course.checking import REQUIRE_ENGINES, CheckFailed, check
from lessonkit.errors import LessonkitError

WEIGHTS = np.random.default_rng(0).normal(size=(16, 64)).astype(np.float32)
NAN = float("nan")


def line(capsys: pytest.CaptureFixture[str], *args: Any, **options: Any) -> str:
    check(*args, **options)
    printed = capsys.readouterr()
    assert printed.err == "" and printed.out.count("\n") == 1
    return printed.out.strip()


def failure(*args: Any, **options: Any) -> str:
    with pytest.raises(CheckFailed) as caught:
        check(*args, **options)
    assert isinstance(caught.value, AssertionError) and isinstance(caught.value, LessonkitError)
    return str(caught.value)


def nan32(bits: int) -> np.ndarray:
    return np.array([bits], np.uint32).view(np.float32)


# --- identical -------------------------------------------------------------------------------


def test_identical_line_names_the_thing_and_counts(capsys: pytest.CaptureFixture[str]) -> None:
    assert line(capsys, WEIGHTS, WEIGHTS.copy()) == "check: identical (1,024 values)"
    said = line(capsys, WEIGHTS, WEIGHTS.copy(), name="weights", atol=1e-5)
    assert said == "check weights: identical (1,024 values)"


@pytest.mark.parametrize(
    ("ours", "theirs", "count"),
    [
        (b"\x00\x01", bytearray(b"\x00\x01"), "2 values"),
        ("text", "text", "4 values"),
        (3, 3, "1 value"),
        (4, np.uint8(4), "1 value"),
        (0.5, np.float16(0.5), "1 value"),
        ([1, 2, 3], np.array([1, 2, 3], np.int8), "3 values"),
        (True, np.bool_(True), "1 value"),
        (nan32(0x7FC00001), nan32(0x7FC00001), "1 value"),
        (np.array([1, 2], ">i4"), np.array([1, 2], "<i4"), "2 values"),
        ({"a": WEIGHTS, "b": [1, b"x"]}, {"b": [1, b"x"], "a": WEIGHTS}, "1,026 values in 3 parts"),
    ],
)
def test_kinds_that_are_identical(
    ours: Any, theirs: Any, count: str, capsys: pytest.CaptureFixture[str]
) -> None:
    assert line(capsys, ours, theirs) == f"check: identical ({count})"


def test_numpy_and_torch_are_compared_by_bits(capsys: pytest.CaptureFixture[str]) -> None:
    torch = pytest.importorskip("torch")
    tensor = torch.from_numpy(WEIGHTS.copy()).requires_grad_()
    assert line(capsys, WEIGHTS, tensor) == "check: identical (1,024 values)"
    assert line(capsys, WEIGHTS.T, tensor.T) == "check: identical (1,024 values)"
    for dtype in (torch.bfloat16, torch.float16, torch.float8_e4m3fn, torch.int8, torch.bool):
        low = tensor.detach().to(dtype)
        assert line(capsys, low, low.clone()) == "check: identical (1,024 values)"
    one_off = tensor.detach().bfloat16()
    one_off.view(torch.int16)[2, 3] ^= 1
    assert "1 of 1,024 values differ" in failure(one_off, tensor.detach().bfloat16())
    assert "index (2, 3)" in failure(one_off, tensor.detach().bfloat16())


# --- equal, but not identical ----------------------------------------------------------------


def test_signed_zeros_and_nan_bits_are_told(capsys: pytest.CaptureFixture[str]) -> None:
    said = line(capsys, np.array([0.0, 1.0]), np.array([-0.0, 1.0]))
    assert said == "check: equal, not identical (1 of 2 differ in bits: 0.0 and -0.0, or NaNs)"
    assert "equal, not identical" in line(capsys, nan32(0x7FC00000), nan32(0x7FC00001))


def test_dtypes_count_without_a_tolerance(capsys: pytest.CaptureFixture[str]) -> None:
    message = failure(WEIGHTS, WEIGHTS.astype(np.float64))
    assert "dtypes differ: ours float32, theirs float64" in message
    said = line(capsys, WEIGHTS, WEIGHTS.astype(np.float64), atol=1e-9)
    assert said == "check: equal, not identical (same values; float32 against float64)"
    said = line(capsys, WEIGHTS, WEIGHTS.astype(np.float64) + 1e-7, atol=1e-5)
    assert said == "check: within 1e-05 (largest difference 1e-07; float32 against float64)"


# --- within ----------------------------------------------------------------------------------


def test_within_prints_the_contract_and_the_largest_difference(
    capsys: pytest.CaptureFixture[str],
) -> None:
    a = np.array([1.0, 100.0])
    b = a + np.array([3.14e-7, 0])
    assert line(capsys, b, a, atol=1e-5) == "check: within 1e-05 (largest difference 3.1e-07)"
    assert line(capsys, b, a, rtol=1e-5).startswith("check: within 1e-05 of the value (")
    assert "within 0.01 + 1e-05 of the value" in line(capsys, b, a, rtol=1e-5, atol=0.01)


def test_without_figures_the_line_is_the_same_on_every_machine(
    capsys: pytest.CaptureFixture[str],
) -> None:
    wanted = "check: within 1e-05"
    assert line(capsys, WEIGHTS, WEIGHTS + np.float32(1e-7), atol=1e-5, figures=False) == wanted
    assert line(capsys, WEIGHTS, WEIGHTS.copy(), atol=1e-5, figures=False) == wanted
    assert "identical" in line(capsys, WEIGHTS, WEIGHTS.copy(), figures=False)


@settings(max_examples=200, deadline=None)
@given(
    pair=hnp.arrays(np.float64, (2, 5), elements=st.floats(-1e6, 1e6)),
    rtol=st.sampled_from([0, 1e-3, 0.5]),
    atol=st.sampled_from([0, 1e-3, 10]),
)
def test_the_contract_is_numpys(pair: np.ndarray, rtol: float, atol: float) -> None:
    ours, theirs = pair
    if np.allclose(ours, theirs, rtol=rtol, atol=atol):
        check(ours, theirs, rtol=rtol, atol=atol)
    else:
        failure(ours, theirs, rtol=rtol, atol=atol)


# --- outside the contract --------------------------------------------------------------------


def test_the_worst_place_is_shown() -> None:
    other = WEIGHTS.copy()
    other[3, 17] += 0.5
    other[9, 0] += 0.25
    message = failure(other, WEIGHTS, block=32, name="weights", atol=1e-3)
    assert message.startswith("check weights: 2 of 1,024 values differ (0.2 %), in 2 of 32 blocks")
    assert f"ours:   {float(other[3, 17])!r} (float32)" in message
    assert f"theirs: {float(WEIGHTS[3, 17])!r} (float32)" in message
    assert "apart:  0.5, allowed 0.001" in message
    assert "worst at index (3, 17), block 6, place 17 in it" in message


def test_the_worst_place_is_worst_by_the_contract() -> None:
    # 1000.2 is further from its twin, but rtol allows it 10; 0.1 is allowed 0.01.
    assert "worst at index 1" in failure(
        np.array([1005.0, 0.2]), np.array([1000.0, 0.1]), rtol=0.01
    )


@pytest.mark.parametrize(
    ("ours", "theirs", "words"),
    [
        (b"abcd", b"abXY", "first at index 2"),
        (b"abcd", b"abXY", "ours:   0x63"),
        ("abcd", "abXY", "'c'"),
        (b"ab", b"abc", "shapes differ: ours (2,), theirs (3,)"),
        (WEIGHTS, WEIGHTS.T, "shapes differ"),
        (np.ones((1, 3)), np.ones(3), "shapes differ"),
        ([NAN, 1.0], [NAN, 2.0], "1 of 1 values differ"),
        (np.array([NAN, 1.0]), np.array([1.0, 1.0]), "apart:  inf"),
        (np.array([np.inf]), np.array([-np.inf]), "1 of 1 values differ"),
        (np.array([np.inf]), np.array([3e38]), "apart:  inf"),
        ({"a": 1}, {"b": 1}, "only ours has a; only theirs has b"),
        ([1, 2], [1], "lengths differ: ours 2, theirs 1"),
        ({"layer": [1, 2]}, {"layer": [1, 3]}, "check['layer'][1]: 1 of 1"),
        (0.1, np.float32(0.1), "0.10000000149011612 (float32)"),
        (300, np.uint8(44), "300"),
        (np.uint64(2**64 - 1), np.uint64(2**64 - 2), "apart:  1"),
        (np.int8(-128), np.int8(127), "apart:  255"),
        (np.uint8(200), np.int8(-56), "apart:  256"),
    ],
)
def test_what_does_not_pass(ours: Any, theirs: Any, words: str) -> None:
    assert words in failure(ours, theirs)


@pytest.mark.parametrize("atol", [0.0, 1.0, 1e30])
def test_no_tolerance_hides_a_nan_or_an_infinity(atol: float) -> None:
    for wild in (NAN, np.inf, -np.inf):
        failure(np.array([wild]), np.array([0.0]), atol=atol, rtol=1.0)
        failure(np.array([0.0]), np.array([wild]), atol=atol, rtol=1.0)


# --- absent engines and bad calls ------------------------------------------------------------


def not_installed() -> object:
    import bitsandbytes_of_another_world.functional

    return bitsandbytes_of_another_world.functional


def test_an_absent_engine_is_said(
    capsys: pytest.CaptureFixture[str], monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.delenv(REQUIRE_ENGINES, raising=False)
    said = line(capsys, WEIGHTS, not_installed, name="codes")
    assert said == "check codes: not compared: bitsandbytes_of_another_world is not installed"
    monkeypatch.setenv(REQUIRE_ENGINES, "1")
    with pytest.raises(LessonkitError, match="bitsandbytes_of_another_world is not installed, and"):
        check(WEIGHTS, not_installed)


@pytest.mark.parametrize(
    ("args", "options", "words"),
    [
        ((1, 1), {"atol": -1}, "atol must be"),
        ((1, 1), {"rtol": NAN}, "rtol must be"),
        ((1, 1), {"block": 0}, "at least one value"),
        ((None, 1), {}, "cannot compare this NoneType"),
        ((1j, 1j), {}, "cannot compare this complex"),
        (([[1], [1, 2]], np.ones(3)), {}, "cannot compare this list"),
        ((np.array(["a"]), np.array(["a"])), {}, "cannot compare this <U1 array"),
        (({}, {}), {}, "nothing to compare"),
        ((np.empty(0), np.empty(0)), {}, "nothing to compare"),
    ],
)
def test_bad_calls_are_told(args: tuple[Any, Any], options: dict[str, Any], words: str) -> None:
    with pytest.raises(LessonkitError, match=words):
        check(*args, **options)


def test_a_tensor_without_plain_values_is_refused() -> None:
    torch = pytest.importorskip("torch")
    for tensor in (torch.eye(2).to_sparse(), torch.empty(2, device="meta")):
        with pytest.raises(LessonkitError, match="not stored as a plain array"):
            check(tensor, tensor)


def test_a_twin_that_is_installed_is_asked(capsys: pytest.CaptureFixture[str]) -> None:
    assert line(capsys, WEIGHTS, lambda: WEIGHTS, name="twin").startswith("check twin: identical")
    with pytest.raises(ZeroDivisionError):  # only a missing library is forgiven
        check(WEIGHTS, lambda: 1 // 0)
