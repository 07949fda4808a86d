"""Free memory: the machine's, or what a container may still take."""

from __future__ import annotations

from pathlib import Path
from types import SimpleNamespace

import pytest

from lessonkit.models import memory


@pytest.fixture
def group(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Path:
    """A container that may take 1000 bytes and has taken 700, on a machine with 5000 free."""
    monkeypatch.setattr(memory.psutil, "virtual_memory", lambda: SimpleNamespace(available=5000))
    (tmp_path / "memory.max").write_text("1000\n")
    (tmp_path / "memory.current").write_text("700\n")
    (tmp_path / "memory.stat").write_text("anon 500\nfile 200\ninactive_file 150\n")
    return tmp_path


def test_a_containers_limit_counts_and_its_old_file_pages_do_not(group: Path) -> None:
    assert memory.free_memory(group) == 1000 - 700 + 150


def test_a_container_over_its_limit_has_nothing_left(group: Path) -> None:
    (group / "memory.current").write_text("1400\n")
    assert memory.free_memory(group) == 0


@pytest.mark.parametrize("limit", ["max\n", "9000\n", "", None])
def test_without_a_smaller_limit_the_machine_counts(group: Path, limit: str | None) -> None:
    if limit is None:
        (group / "memory.max").unlink()
    else:
        (group / "memory.max").write_text(limit)
    assert memory.free_memory(group) == 5000
