"""The report on the machine: it names what is missing, and only that."""

from __future__ import annotations

from dataclasses import replace
from pathlib import Path
from types import SimpleNamespace

import pytest

from lessonkit.course import machine


def test_this_machine_is_ready() -> None:
    found = machine.look()
    assert found.ready, found.problems
    assert found.versions["torch"]
    assert "This machine is ready." in str(found)


def test_each_problem_is_named_with_its_remedy() -> None:
    good = machine.look()
    bad = replace(
        good,
        python=(3, 9, 1),
        memory_gb=0.5,
        disk_gb=0.2,
        versions={**good.versions, "sentencepiece": None},
    )
    text = str(bad)
    assert not bad.ready
    assert len(bad.problems) == 4
    for part in ("Python 3.9 is too old", "pip install sentencepiece", "memory", "disk"):
        assert part in text
    assert "ready" not in text


def test_an_optional_library_is_a_note_and_not_a_problem() -> None:
    good = machine.look()
    without = replace(good, versions={**good.versions, "bitsandbytes": None})
    assert without.ready
    assert any("bitsandbytes" in note for note in without.notes)


@pytest.fixture
def group(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Path:
    """A container that may take 1000 bytes and has taken 700, on a machine with 5000 free."""
    monkeypatch.setattr(machine.psutil, "virtual_memory", lambda: SimpleNamespace(available=5000))
    (tmp_path / "memory.max").write_text("1000\n")
    (tmp_path / "memory.current").write_text("700\n")
    (tmp_path / "memory.stat").write_text("anon 500\nfile 200\ninactive_file 150\n")
    return tmp_path


def test_a_containers_limit_counts_and_its_old_file_pages_do_not(group: Path) -> None:
    assert machine.free_memory(group) == 1000 - 700 + 150


def test_a_container_over_its_limit_has_nothing_left(group: Path) -> None:
    (group / "memory.current").write_text("1400\n")
    assert machine.free_memory(group) == 0


@pytest.mark.parametrize("limit", ["max\n", "9000\n", "", None])
def test_without_a_smaller_limit_the_machine_counts(group: Path, limit: str | None) -> None:
    if limit is None:
        (group / "memory.max").unlink()
    else:
        (group / "memory.max").write_text(limit)
    assert machine.free_memory(group) == 5000
