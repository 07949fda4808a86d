"""The words of GPTQ and AWQ files: by hand, there and back, and against GPTQModel's packers."""

from __future__ import annotations

import os
from types import ModuleType

import pytest
import torch

from lessonkit.errors import LessonkitError
from lessonkit.formats.packing import (
    BITS,
    pack_awq,
    pack_gptq,
    pack_words,
    unpack_awq,
    unpack_gptq,
    unpack_words,
)

OUT, IN, GROUP = 64, 96, 32


def random_codes(bits: int, *shape: int, low: int = 0) -> torch.Tensor:
    generator = torch.Generator().manual_seed(bits)
    return torch.randint(low, 1 << bits, shape, generator=generator, dtype=torch.uint8)


def unsigned(words: torch.Tensor) -> list[int]:
    return [int(word) & 0xFFFFFFFF for word in words]


def test_words_by_hand() -> None:
    nibbles = torch.arange(1, 9, dtype=torch.uint8)
    assert unsigned(pack_words(nibbles, 4)) == [0x87654321]
    assert unsigned(pack_words(torch.tensor([1, 2, 3, 255], dtype=torch.uint8), 8)) == [0xFF030201]
    assert unsigned(pack_words(torch.tensor([3, 0] * 8, dtype=torch.uint8), 2)) == [0x33333333]


def test_three_bits_lie_across_the_borders_of_words() -> None:
    codes = torch.zeros(32, dtype=torch.uint8)
    codes[10] = 0b101  # low two bits end word 0, the high bit begins word 1
    assert unsigned(pack_words(codes, 3)) == [0b01 << 30, 1, 0]
    codes[10], codes[21] = 0, 0b110  # the low bit ends word 1, the high two begin word 2
    assert unsigned(pack_words(codes, 3)) == [0, 0, 0b11]
    codes[21], codes[11], codes[22] = 0, 1, 1
    assert unsigned(pack_words(codes, 3)) == [0, 1 << 1, 1 << 2]


@pytest.mark.parametrize("bits", BITS)
def test_there_and_back(bits: int) -> None:
    codes, zeros = random_codes(bits, OUT, IN), random_codes(bits, OUT, IN // GROUP)
    assert torch.equal(unpack_words(pack_words(codes, bits), bits), codes)
    qweight, qzeros = pack_gptq(codes, zeros, bits, version=2)
    assert qweight.shape == (IN * bits // 32, OUT) and qzeros.shape == (3, OUT * bits // 32)
    for ours, original in zip(unpack_gptq(qweight, qzeros, bits, 2), (codes, zeros), strict=True):
        assert ours.dtype == torch.uint8 and torch.equal(ours, original)
    zeros = random_codes(bits, OUT, IN // GROUP, low=1)
    codes_again, zeros_again = unpack_gptq(*pack_gptq(codes, zeros, bits), bits)
    assert torch.equal(codes_again, codes) and torch.equal(zeros_again, zeros)


@pytest.mark.parametrize("bits", BITS)
def test_random_words_are_kept_too(bits: int) -> None:
    generator = torch.Generator().manual_seed(0)
    words = torch.randint(-(2**31), 2**31, (5, 6), generator=generator, dtype=torch.int32)
    assert torch.equal(pack_words(unpack_words(words, bits), bits), words)


def test_awq_there_and_back() -> None:
    codes, zeros = random_codes(4, OUT, IN), random_codes(4, OUT, IN // GROUP)
    qweight, qzeros = pack_awq(codes, zeros)
    assert qweight.shape == (IN, OUT // 8) and qzeros.shape == (IN // GROUP, OUT // 8)
    for ours, original in zip(unpack_awq(qweight, qzeros), (codes, zeros), strict=True):
        assert torch.equal(ours, original)


def test_an_awq_word_by_hand() -> None:
    columns = torch.arange(8, dtype=torch.uint8).reshape(8, 1)  # column 8c + i holds code i
    qweight, _ = pack_awq(columns, columns)
    assert unsigned(qweight.flatten()) == [0x75316420]


def test_the_first_format_refuses_a_zero_point_of_0() -> None:
    codes, zeros = random_codes(4, OUT, IN), random_codes(4, OUT, IN // GROUP, low=1)
    zeros[5, 2] = 0
    with pytest.raises(LessonkitError, match="three different ways") as raised:
        pack_gptq(codes, zeros, 4)
    assert raised.value.where == "zero-point of row 5, group 2"
    qweight, qzeros = pack_gptq(codes, zeros, 4, version=2)
    # What a careless writer makes of it, and what no reader can be sure about.
    wrapped = pack_gptq(codes, (zeros - 1) & 15, 4, version=2)[1]
    with pytest.raises(LessonkitError, match="no agreed meaning") as raised:
        unpack_gptq(qweight, wrapped, 4)
    assert raised.value.where == "qzeros, row 5, group 2"
    assert torch.equal(unpack_gptq(qweight, qzeros, 4, version=2)[1], zeros)


def test_a_file_read_in_the_wrong_version_has_other_zero_points() -> None:
    codes, zeros = random_codes(4, OUT, IN), torch.full((OUT, IN // GROUP), 8, dtype=torch.uint8)
    assert torch.equal(unpack_gptq(*pack_gptq(codes, zeros, 4), 4, version=2)[1], zeros - 1)


@pytest.mark.parametrize(
    ("call", "said"),
    [
        (lambda: pack_words(random_codes(4, 32), 5), "no packing of 5 bits"),
        (lambda: pack_words(random_codes(3, 31), 3), "do not fill whole 32-bit words"),
        (lambda: pack_words(random_codes(4, 32), 3), "do not fit into 3 bits"),
        (lambda: unpack_words(torch.zeros(4, dtype=torch.int32), 3), "no whole number"),
        (lambda: unpack_words(torch.zeros(3, dtype=torch.int64), 3), "no whole number"),
        (lambda: pack_awq(random_codes(4, 12, 8), random_codes(4, 12, 1)), "words of eight"),
        (lambda: pack_gptq(random_codes(4, 8, 8), random_codes(4, 8, 1), 4, 3), "no version 3"),
    ],
)
def test_bad_input_is_told(call, said: str) -> None:
    with pytest.raises(LessonkitError, match=said):
        call()


# --- GPTQModel's packers ----------------------------------------------------------------------


@pytest.fixture(scope="module")
def gptqmodel() -> ModuleType:
    os.environ.setdefault("GPTQMODEL_CPU_WORKERS", "2")
    return pytest.importorskip("gptqmodel")


def layer_of(codes: torch.Tensor, zeros: torch.Tensor) -> tuple[torch.nn.Linear, torch.Tensor]:
    """A float layer with exactly these codes when the scales are 2^-6: the packers take one."""
    scales = torch.full(zeros.shape, 2.0**-6)
    linear = torch.nn.Linear(IN, OUT, bias=False)
    centred = codes.float() - zeros.float().repeat_interleave(GROUP, dim=1)
    linear.weight.data = centred * 2.0**-6
    return linear, scales


@pytest.mark.parametrize("bits", BITS)
def test_gptq_words_are_those_of_gptqmodel(bits: int, gptqmodel: ModuleType) -> None:
    from gptqmodel import QuantizeConfig
    from gptqmodel.nn_modules.qlinear.torch import TorchLinear
    from gptqmodel.utils.model import convert_gptq_v2_to_v1_format_module

    codes, zeros = random_codes(bits, OUT, IN), random_codes(bits, OUT, IN // GROUP, low=1)
    linear, scales = layer_of(codes, zeros)
    g_idx = torch.arange(IN, dtype=torch.int32) // GROUP
    theirs = TorchLinear(bits, GROUP, False, False, IN, OUT, register_buffers=False)
    theirs.pack_original(linear, scales, zeros.float(), g_idx)
    qweight, qzeros = pack_gptq(codes, zeros, bits, version=2)
    assert torch.equal(qweight, theirs.qweight) and torch.equal(qzeros, theirs.qzeros)
    convert_gptq_v2_to_v1_format_module(theirs, QuantizeConfig(bits=bits, group_size=GROUP))
    assert torch.equal(pack_gptq(codes, zeros, bits, version=1)[1], theirs.qzeros)


def test_awq_words_are_those_of_gptqmodel(gptqmodel: ModuleType) -> None:
    from gptqmodel.nn_modules.qlinear.torch_awq import AwqTorchLinear

    codes, zeros = random_codes(4, OUT, IN), random_codes(4, OUT, IN // GROUP)
    linear, scales = layer_of(codes, zeros)
    theirs = AwqTorchLinear(4, GROUP, False, False, IN, OUT)
    theirs.pack(linear, scales, zeros.float())
    qweight, qzeros = pack_awq(codes, zeros)
    assert torch.equal(qweight, theirs.qweight) and torch.equal(qzeros, theirs.qzeros)
