"""Whatever befalls a command that writes, no output looks whole that is not, and no input suffers.

Each command is killed, runs out of disk, meets a disk that it may not write to, an input that
changes under its hands, and another run on the same output. `make soak` does all of it at length:
LESSONKIT_SOAK=1 kills before every call that reaches the disk, and 30 times at any moment.
"""

from __future__ import annotations

import random
import shutil
import signal
import sys
from collections.abc import Iterator
from pathlib import Path

import pytest

from lessonkit.cli import build_parser
from tests.faults.harness import SOAK, WRITERS, Case, Server, is_sound, make_inputs, running_server
from tests.hub_server import running

pytestmark = pytest.mark.skipif(sys.platform == "win32", reason="needs fork and SIGKILL")

MOMENTS = None if SOAK else 4  # how many of the calls; None for all
KILLS = 30 if SOAK else 2
SIZES = 24 if SOAK else 5


@pytest.fixture(scope="module")
def server(tmp_path_factory: pytest.TempPathFactory) -> Iterator[Server]:
    with running_server(tmp_path_factory.mktemp("server")) as server:
        yield server


@pytest.fixture(scope="module")
def inputs(tmp_path_factory: pytest.TempPathFactory) -> Iterator[dict[str, str]]:
    made = make_inputs(tmp_path_factory.mktemp("inputs"))
    files = {path.name: path.read_bytes() for path in Path(made["hf"]).iterdir()}
    with running(files) as hub:
        yield {**made, "hub": hub.address}


@pytest.fixture(scope="module", params=WRITERS)
def case(
    request: pytest.FixtureRequest, server: Server, inputs: dict[str, str],
    tmp_path_factory: pytest.TempPathFactory,
) -> Case:  # fmt: skip
    return Case(server, request.param, inputs, tmp_path_factory.mktemp("out"))


@pytest.fixture(autouse=True)
def nothing_is_lost(request: pytest.FixtureRequest) -> Iterator[None]:
    """After every test: inputs as they were, and a run that succeeds and leaves nothing beside."""
    yield
    if "case" in request.fixturenames:
        case: Case = request.getfixturevalue("case")
        assert case.read_inputs() == case.before
        case.clear()
        case.sound_run()
        assert case.look() == case.whole
        case.clear()


ELSEWHERE = {
    "kl-base": "one file through atomic_file, as extend-vocab writes its own",
    "share": "it writes to the Hub: tests/hub/test_publish.py",
}
"""Commands with --force that have no row, and why."""


def test_every_command_that_writes_has_a_row() -> None:
    (commands,) = (action for action in build_parser()._actions if action.dest == "==SUPPRESS==")
    writing = {
        name
        for name, command in commands.choices.items()  # type: ignore[union-attr]
        if "--force" in command._option_string_actions
    }
    assert writing - ELSEWHERE.keys() == {row.split()[0] for row in WRITERS.values()}


def moments(case: Case, calls: int | None = None) -> list[int]:
    """Before which of its calls is the command struck? All, or some that stay the same."""
    every = range(calls or case.calls)
    count = len(every) if MOMENTS is None else min(MOMENTS, len(every))
    return sorted(random.Random(case.row).sample(every, count))


def test_killed_at_every_call(case: Case) -> None:
    for moment in moments(case):
        case.clear(leftovers=True)  # to remove them takes calls, too
        case.kill(at=moment)
        assert is_sound(case.visible(), case.whole, {}), f"killed before call {moment}"


def test_killed_at_every_call_over_an_older_output(case: Case) -> None:
    older = case.put_older()
    calls = case.sound_run()["calls"]
    for moment in moments(case, calls):
        case.put_older()
        case.kill(at=moment)
        assert is_sound(case.visible(), case.whole, older), f"killed before call {moment}"


def test_killed_at_any_moment(case: Case) -> None:
    chance = random.Random(case.row)
    longest = 0.005
    for _ in range(KILLS):
        case.kill(kill_after=chance.uniform(0, longest))
        # So that kills come late enough to fall into every part of a run, however fast it is here.
        longest *= 2 / 3 if case.visible() else 3 / 2
        assert is_sound(case.visible(), case.whole, {})
        case.clear()


def sizes(case: Case, below: int) -> list[int]:
    chance = random.Random(case.row)
    return [0, *sorted(chance.randrange(1, below) for _ in range(SIZES - 2)), below - 1]


def test_no_file_may_grow_further(case: Case) -> None:
    """As a full disk, or a quota, in the midst of a file: the write fails, not the check before."""
    case.sound_run()
    largest = max(path.stat().st_size for path in case.folder.rglob("*") if path.is_file())
    older = case.put_older()
    for size in sizes(case, largest):
        found = case.run(file_bytes=size)
        assert found["status"] == 2 and "Traceback" not in found["error"], found["error"]
        assert case.visible() == older  # the older output is still there, as it was
        assert not [name for name in case.look() if ".partial-" in name]


def on_the_disk(case: Case) -> tuple[list[str], int]:
    """The command, for an output on the small disk; and the bytes that it certainly needs."""
    if case.server.refused:
        pytest.skip(f"no small disk can be mounted here: {case.server.refused}")
    case.sound_run()
    needed = sum(path.stat().st_size for path in case.folder.rglob("*") if path.is_file())
    return case.row_with(case.server.disk), needed


def test_a_disk_that_is_full(case: Case) -> None:
    command, needed = on_the_disk(case)
    disk, succeeded = case.server.disk, False
    for size in [*sizes(case, needed), 4 * needed + (1 << 20)]:
        size = max(size, 4096)
        assert not case.server.ask(disk=str(disk), bytes=size, mode="rw")
        found = case.server.run(command)
        seen = case.server.look(disk)
        visible = {name: content for name, content in seen.items() if name[0] != "."}
        if found["status"] == 0:
            succeeded = visible == case.whole
            break
        assert found["status"] == 2 and "Traceback" not in found["error"], found["error"]
        assert not visible and not [name for name in seen if ".partial-" in name]
    assert succeeded


def test_a_disk_that_may_not_be_written(case: Case) -> None:
    command, needed = on_the_disk(case)
    disk = case.server.disk
    assert not case.server.ask(disk=str(disk), bytes=needed * 8 + (1 << 20), mode="ro")
    before = case.server.look(disk)
    found = case.server.run([*command, "--force"])
    assert found["status"] == 2 and "Traceback" not in found["error"], found["error"]
    assert case.server.look(disk) == before


def inputs_of(case: Case) -> list[Path]:
    """The large files that a command reads: those with weights, else all."""
    named = [Path(path) for name, path in case.inputs.items() if f"{{{name}}}" in case.row]
    files = [file for path in named for file in ([path] if path.is_file() else path.iterdir())]
    weights = [file for file in files if file.suffix in (".safetensors", ".pth", ".gguf")]
    return weights or [file for file in files if file.is_file()]


def with_flipped_bits(content: bytes) -> bytes:
    """Changed near the middle and at the end: in two tensors, so that half of a change shows."""
    changed = bytearray(content)
    changed[len(content) // 2] ^= 1
    changed[-100] ^= 1
    return bytes(changed)


@pytest.mark.parametrize("change", ["altered", "cut off"])
def test_an_input_that_changes_meanwhile(case: Case, change: str, tmp_path: Path) -> None:
    """The output is that of the old input or that of the new one, or there is none."""
    if "{hub}" in case.row:
        pytest.skip("its input is the network: see tests/hub")
    for file in inputs_of(case):
        old, new = tmp_path / "old", tmp_path / "new"
        shutil.copy2(file, old)
        content = old.read_bytes()
        half = content[: len(content) // 2]
        new.write_bytes(with_flipped_bits(content) if change == "altered" else half)
        shutil.copyfile(new, file)
        found = case.run()
        assert found["status"] in (0, 2), found["error"]
        wholes = [case.whole, case.visible()] if found["status"] == 0 else [case.whole]
        case.clear()
        for moment in moments(case):
            shutil.copy2(old, file)
            found = case.run(at=moment, file=str(file), becomes=str(new))
            if found["status"] == 0:
                assert case.visible() in wholes, f"{file.name} {change} before call {moment}"
            else:
                # A file that is cut off under a memory map ends the process, in every program.
                assert found["status"] in (2, -signal.SIGBUS), found["error"]
                assert not case.visible()
            case.clear()
        shutil.copy2(old, file)


def test_two_runs_at_once(case: Case) -> None:
    """The second is told so at once, or finds the output there; the first is not disturbed."""
    chance = random.Random(case.row)
    for _ in range(KILLS):
        harm = {"second_after": chance.uniform(0, 0.05)}
        found = case.server.ask(run=[case.arguments] * 2, harm=harm)
        assert sorted(one["status"] for one in found) == [0, 2], found
        assert all("Traceback" not in one["error"] for one in found)
        assert case.look() == case.whole
        case.clear()
