"""The stand-ins for other machines: named, checked, and started with their variables."""

from __future__ import annotations

import subprocess
from types import SimpleNamespace
from typing import Any

import pytest

from tools import portable
from tools.notebooks import reproducible_environment


def test_each_setting_is_started_with_its_variables(monkeypatch: pytest.MonkeyPatch) -> None:
    seen: list[dict[str, str]] = []

    def started(command: list[str], **options: Any) -> SimpleNamespace:
        assert command[1:4] == ["-m", "pytest", "notebooks"]
        seen.append(options["env"])
        return SimpleNamespace(returncode=len(seen) == 2)

    monkeypatch.setattr(subprocess, "run", started)
    assert portable.main([]) == 1  # the second of them fails
    assert len(seen) == len(portable.SETTINGS) > 5
    for wanted, environment in zip(portable.SETTINGS.values(), seen, strict=True):
        assert wanted.items() <= environment.items()
    assert portable.main(["avx2"]) == 0


def test_unknown_settings_are_refused(capsys: pytest.CaptureFixture[str]) -> None:
    with pytest.raises(SystemExit):
        portable.main(["nonsense"])
    assert "no such setting: nonsense" in capsys.readouterr().err
    assert portable.main(["--list"]) == 0
    assert capsys.readouterr().out.split()[0] == "avx2"


def test_the_number_of_threads_reaches_the_kernels(monkeypatch: pytest.MonkeyPatch) -> None:
    assert reproducible_environment()["OMP_NUM_THREADS"] == "1"
    monkeypatch.setenv("LESSONKIT_THREADS", "4")
    assert reproducible_environment()["OMP_NUM_THREADS"] == "4"
