"""The pickle reader: it knows the instructions of tensors only, and runs nothing at all."""

from __future__ import annotations

import pickletools
import sys
from pathlib import Path

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from lessonkit.errors import LessonkitError
from lessonkit.files.torch_pickle import (
    STORAGE_DTYPES,
    StoredTensor,
    read_tensors,
    write_tensors,
)

ONE = StoredTensor("F32", "0", 6, 0, (2, 3), (3, 1))
# What a table of tensors needs. GLOBAL, REDUCE, BUILD and BINPERSID are in it, but they only move
# names and numbers about: each has tests of its own below.
NEEDED = {
    "BINFLOAT", "BINGET", "BININT", "BININT1", "BININT2", "BINPERSID", "BINPUT", "BINUNICODE",
    "BUILD", "EMPTY_DICT", "EMPTY_TUPLE", "GLOBAL", "LONG1", "LONG_BINGET", "LONG_BINPUT", "MARK",
    "NEWFALSE", "NEWTRUE", "NONE", "PROTO", "REDUCE", "SETITEM", "SETITEMS", "STOP", "TUPLE",
    "TUPLE1", "TUPLE2", "TUPLE3",
}  # fmt: skip
OPCODES = {opcode.name: opcode for opcode in pickletools.opcodes}
LINES = {
    "stringnl": b"'a'\n",
    "stringnl_noescape": b"a\n",
    "stringnl_noescape_pair": b"os\nsystem\n",
}


def complaint(program: bytes) -> str:
    with pytest.raises(LessonkitError) as caught:
        read_tensors(program, where="w.pth")
    assert caught.value.where == "w.pth" and caught.value.remedy
    return caught.value.what


def text(value: str) -> bytes:
    return b"X" + len(value.encode()).to_bytes(4, "little") + value.encode()


def instruction(name: str) -> bytes:
    """The instruction with some valid argument, of length 0 where it has a length."""
    argument = OPCODES[name].arg
    code = OPCODES[name].code.encode("latin-1")
    if argument is None:
        return code
    lengths = {
        pickletools.TAKEN_FROM_ARGUMENT1: 1,
        pickletools.TAKEN_FROM_ARGUMENT4: 4,
        pickletools.TAKEN_FROM_ARGUMENT4U: 4,
        pickletools.TAKEN_FROM_ARGUMENT8U: 8,
    }
    if argument.n == pickletools.UP_TO_NEWLINE:
        return code + LINES.get(argument.name, b"1\n")
    return code + bytes(lengths.get(argument.n, argument.n))


# --- instructions -----------------------------------------------------------------------------


@pytest.mark.parametrize("name", sorted(OPCODES.keys() - NEEDED))
def test_every_other_instruction_is_refused_where_it_stands(name: str) -> None:
    for before in (b"", b"\x80\x02}", b"\x80\x02}(" + text("a")):
        assert complaint(before + instruction(name) + b".") == (
            f"The pickle uses the instruction {name}, which no tensor needs."
        )


@pytest.mark.parametrize("name", sorted(NEEDED - {"EMPTY_DICT", "GLOBAL"}))
def test_every_needed_instruction_is_known(name: str) -> None:
    assert "which no tensor needs" not in complaint(instruction(name) + b".")


# --- names ------------------------------------------------------------------------------------


@pytest.mark.parametrize(
    "name",
    [
        "os system",
        "posix system",
        "nt system",
        "subprocess Popen",
        "builtins eval",
        "builtins exec",
        "builtins getattr",
        "__builtin__ eval",
        "runpy _run_code",
        "importlib import_module",
        "functools partial",
        "operator attrgetter",
        "_codecs encode",
        "numpy.core.multiarray _reconstruct",
        "torch load",
        "torch.hub load",
        "torch.jit load",
        "torch.serialization load",
        "torch.storage _load_from_bytes",  # calls torch.load
        "torch._utils _rebuild_tensor",
        "torch._utils _rebuild_tensor_v3",
        "torch._utils _rebuild_qtensor",
        "torch._utils _rebuild_parameter_with_state",
        "torch UntypedStorage",
        "torch QUInt8Storage",
        "torch ComplexFloatStorage",
        "torch.cuda FloatStorage",
        "evil FloatStorage",
        "evil.torch FloatStorage",
        "collections OrderedDict.fromkeys",
        "collections Counter",
    ],
)
def test_every_other_name_is_refused(name: str) -> None:
    named = b"c" + name.replace(" ", "\n").encode() + b"\n"
    for call in (b".", b")R.", b"}" + text("a") + b"ts."):
        assert complaint(named + call) == (
            f"The pickle names {name.replace(' ', '.')}, which a table of tensors does not need."
        )


@pytest.mark.parametrize("name", ["torch.FloatStorage", "torch._utils._rebuild_tensor_v2"])
def test_even_known_names_are_never_imported(name: str, monkeypatch: pytest.MonkeyPatch) -> None:
    module, _, attribute = name.rpartition(".")
    for loaded in [loaded for loaded in sys.modules if loaded.split(".")[0] == "torch"]:
        monkeypatch.setitem(sys.modules, loaded, None)  # importing it is an ImportError now
    named = f"c{module}\n{attribute}\n".encode()
    assert "entry 'a' is not a tensor" in complaint(b"}" + text("a") + named + b"s.")
    assert read_tensors(write_tensors([("a", ONE)]), where="w.pth") == {"a": ONE}


def test_a_module_that_a_pickle_names_is_not_imported(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    (tmp_path / "bait.py").write_text(f"open({str(tmp_path / 'owned')!r}, 'w')\n")
    monkeypatch.syspath_prepend(tmp_path)
    for program in (b"cbait\nfunction\n)R.", b"(ibait\nfunction\n.", text("bait") + b"Q."):
        complaint(program)
    assert "bait" not in sys.modules and not (tmp_path / "owned").exists()


# --- calls, attributes and storages -----------------------------------------------------------


PROGRAMS = {
    "builtins.eval": b"cbuiltins\neval\n(X\x01\x00\x00\x001tR.",
    "os.system": b"cos\nsystem\n(X\x02\x00\x00\x00lstR.",
    "the instruction INST": b"(ios\nsystem\n.",
    "the instruction SHORT_BINUNICODE": b"\x80\x04\x8c\x02os\x8c\x06system\x93.",
    "the instruction STRING": b"S'a'\n.",
    "the instruction EXT1": b"\x80\x02\x82\x01.",
    "the instruction OBJ": b"(ccollections\nOrderedDict\no.",
    "the instruction NEWOBJ": b"ccollections\nOrderedDict\n)\x81.",
    "the instruction BINBYTES8": b"\x80\x04\x8e\x01\x00\x00\x00\x00\x00\x00\x00a.",
    "not a function is called": b"})R.",
    "damaged": b"",
    "is damaged": b"}",
    "pickle in this file": b".",
    "damaged \\(": b"h\x01.",
    "does not hold a table": b"K\x01.",
    "set.*twice": b"}(X\x01\x00\x00\x00aK\x01X\x01\x00\x00\x00aK\x02u.",
    "exhausted": b"\x80\x04X\xff\xff\xff\x7fa.",
    "missing .* argument": b"ctorch._utils\n_rebuild_tensor_v2\n)R.",
}


@pytest.mark.parametrize("expected", PROGRAMS)
def test_hostile_and_broken_pickles(expected: str) -> None:
    pattern = "is damaged" if expected == "exhausted" else expected
    with pytest.raises(LessonkitError, match=pattern):
        read_tensors(PROGRAMS[expected], where="w.pth")


REBUILD = b"ctorch._utils\n_rebuild_tensor_v2\n"
FLOATS = b"ctorch\nFloatStorage\n"


def storage(
    kind: bytes = text("storage"),
    storage_type: bytes = FLOATS,
    key: bytes = text("0"),
    length: bytes = b"K\x06",
) -> bytes:
    return b"(" + kind + storage_type + key + text("cpu") + length + b"tQ"


def table(
    stored: bytes = storage(),
    offset: bytes = b"K\x00",
    shape: bytes = b"K\x02K\x03\x86",
    stride: bytes = b"K\x03K\x01\x86",
) -> bytes:
    """The program of {"a": a tensor}, with any of its parts replaced."""
    return b"}" + text("a") + REBUILD + b"(" + stored + offset + shape + stride + b"\x89NtRs."


def test_a_table_by_hand() -> None:
    assert read_tensors(table(), where="w.pth") == {"a": ONE}


@pytest.mark.parametrize(
    "program",
    [
        table(stored=b"N"),
        table(stored=FLOATS),
        table(storage(kind=text("module"))),
        table(storage(storage_type=text("FloatStorage"))),
        table(storage(storage_type=b"ccollections\nOrderedDict\n")),
        table(storage(key=b"K\x00")),
        table(storage(length=b"J\xff\xff\xff\xff")),
        table(storage(length=b"\x88")),
        table(storage(length=b"G" + bytes(8))),
        table(text("storage") + b"Q"),
        table(offset=b"J\xff\xff\xff\xff"),
        table(offset=b"\x89"),
        table(shape=b"K\x06\x85"),
        table(shape=b"K\x06"),
        table(shape=b"J\xff\xff\xff\xffJ\xff\xff\xff\xff\x86"),
        table(stride=b"J\xff\xff\xff\xffK\x01\x86"),
        table(stride=b"}"),
        FLOATS + b"K\x06\x85R.",  # a storage is described, never made
        FLOATS + b"}b.",
        REBUILD + b"}R.",
        b"})}R.",
        text("torch._utils._rebuild_tensor_v2") + b")R.",
        b"ccollections\nOrderedDict\n}\x85R.",
        b"K\x01" + text("a") + b"K\x02s.",
        b"}(" + text("a") + b"u.",
        b"}})K\x01ss.",
    ],
)
def test_what_is_not_put_together_as_a_tensor_is_refused(program: bytes) -> None:
    complaint(program)


def test_attributes_are_left_out_not_set() -> None:
    attributes = b"}" + text("__setstate__") + b"K\x01sb."
    assert read_tensors(table()[:-1] + attributes, where="w.pth") == {"a": ONE}
    empty = b"ccollections\nOrderedDict\n)R" + attributes
    assert read_tensors(empty, where="w.pth") == {}


def test_what_was_read_before_can_be_used_again() -> None:
    again = b"q\x07s" + text("b") + b"h\x07s" + text("c") + b"r\x01\x02\0\0" + b"h\x07s"
    assert read_tensors(table()[:-2] + again + b".", where="w.pth") == dict.fromkeys("abc", ONE)
    assert "damaged" in complaint(b"h\x07.")


def test_a_parameter_is_its_tensor() -> None:
    named = b"ctorch._utils\n_rebuild_parameter\n"
    program = table().replace(REBUILD, named + b"(" + REBUILD).replace(b"Rs.", b"R\x89NtRs.")
    assert read_tensors(program, where="w.pth") == {"a": ONE}


# --- writing ----------------------------------------------------------------------------------


def test_big_numbers_survive_the_pickle() -> None:
    stored = StoredTensor("F32", "0", 1 << 33, 1 << 32, (2, 5), (1 << 31, 1))
    assert read_tensors(write_tensors([("big", stored)]), where="here") == {"big": stored}


def test_the_writer_uses_few_instructions() -> None:
    big = StoredTensor("BF16", "1", 1 << 40, 1 << 39, (3,), (1,))
    program = write_tensors([("a", ONE), ("大", big)])
    used = {opcode.name for opcode, _, _ in pickletools.genops(program)}
    assert used == {
        "PROTO", "EMPTY_DICT", "MARK", "BINUNICODE", "GLOBAL", "BININT", "LONG1", "TUPLE",
        "BINPERSID", "NEWFALSE", "EMPTY_TUPLE", "REDUCE", "SETITEMS", "STOP",
    }  # fmt: skip
    assert read_tensors(program, where="w.pth") == {"a": ONE, "大": big}


STORED = st.builds(
    lambda dtype, key, shape, offset, spare: StoredTensor(
        dtype, key, offset + sum(shape) * 9**3 + spare, offset, shape, (1,) * len(shape)
    ),
    st.sampled_from(sorted(STORAGE_DTYPES.values())),
    st.text(min_size=1, max_size=5),
    st.lists(st.integers(1, 9), max_size=3).map(tuple),
    st.integers(1, 1 << 70),
    st.integers(1, 1 << 33),
)


@settings(max_examples=60, deadline=None)
@given(st.dictionaries(st.text(max_size=20), STORED, max_size=5))
def test_what_is_written_is_read(tensors: dict[str, StoredTensor]) -> None:
    assert read_tensors(write_tensors(tensors.items()), where="w.pth") == tensors


# --- damage -----------------------------------------------------------------------------------


def only_tensors_or_a_complaint(program: bytes) -> None:
    try:
        found = read_tensors(program, where="w.pth")
    except LessonkitError as error:
        assert error.where == "w.pth"
        return
    assert all(type(name) is str and type(t) is StoredTensor for name, t in found.items())


WHOLE = write_tensors([("a", ONE), ("b", StoredTensor("BF16", "1", 4, 0, (4,), (1,)))])


@settings(max_examples=250, deadline=None)
@given(st.lists(st.tuples(st.integers(0, len(WHOLE) - 1), st.integers(0, 255)), max_size=4),
       st.integers(0, len(WHOLE)))  # fmt: skip
def test_damaged_pickles_are_read_or_refused(changes: list[tuple[int, int]], length: int) -> None:
    program = bytearray(WHOLE)
    for place, byte in changes:
        program[place] = byte
    only_tensors_or_a_complaint(bytes(program))
    only_tensors_or_a_complaint(bytes(program[:length]))


PARTS = [instruction(name) for name in sorted(NEEDED - {"GLOBAL", "STOP"})]
PARTS += [REBUILD, FLOATS, b"ccollections\nOrderedDict\n", text("a"), text("storage"), storage()]
PARTS += [table()[1:-2], b"K\x01", b"(K\x01t"]


@settings(max_examples=250, deadline=None)
@given(st.lists(st.sampled_from(PARTS), max_size=25))
def test_any_program_of_known_instructions_is_read_or_refused(parts: list[bytes]) -> None:
    only_tensors_or_a_complaint(b"}" + b"".join(parts) + b".")


def nested(times: int) -> bytes:
    """A tuple that holds itself twice, over and over: 2^times values in a few bytes."""
    return b")q\x00" + b"h\x00\x86q\x00" * times


def test_nested_tuples_cost_no_time_and_no_crash() -> None:
    """Hashing or printing these would take hours, or overflow the stack of the process."""
    for wild in (nested(60), b")" + b"\x85" * 2_000_000):
        assert "not text" in complaint(b"}" + wild + b"K\x01s.")
    for hostile in (table(shape=nested(60)), table(storage(length=nested(60)))):
        assert "whole number" in complaint(hostile)
