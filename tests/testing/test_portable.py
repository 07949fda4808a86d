"""The stand-ins for other machines: each is started with its variables, and its verdict counts."""

from __future__ import annotations

import subprocess
from pathlib import Path
from types import SimpleNamespace
from typing import Any

import pytest

from lessonkit.testing import portable


def test_a_run_gets_the_variables_of_its_setting(monkeypatch: pytest.MonkeyPatch) -> None:
    seen: list[dict[str, str]] = []

    def started(command: list[str], **options: Any) -> SimpleNamespace:
        assert command[1:4] == ["-m", "pytest", "somewhere"] and "--nbval" in command
        seen.append(options["env"])
        return SimpleNamespace(returncode=len(seen) == 2)

    monkeypatch.setattr(subprocess, "run", started)
    paths = [Path("somewhere")]
    passed = [portable.run(paths, name) for name in portable.SETTINGS]
    assert passed == [number != 1 for number in range(len(passed))] and len(passed) > 5
    for name, environment in zip(portable.SETTINGS, seen, strict=True):
        wanted = portable.SETTINGS[name]
        assert wanted.items() <= environment.items()
        assert environment["OMP_NUM_THREADS"] == wanted.get("LESSONKIT_THREADS", "1")
        assert environment["HF_HUB_OFFLINE"] == "1"
    assert portable.run(paths, workers=3)
