"""Damaged and malicious files, thousands for each reader: read without harm, or refused by name.

A reader may end well or with LessonkitError; nothing else. `make soak` gives each 10,000 files of
a fresh seed, or of LESSONKIT_SEED; here it is a sample that stays the same.
"""

from __future__ import annotations

import json
import os
import random
import subprocess
import sys
from collections.abc import Callable, Iterator
from typing import Any

import pytest

from tests.faults.harness import ROOT, SOAK
from tests.hostile.readers import READERS

pytestmark = pytest.mark.skipif(sys.platform == "win32", reason="needs fork and resource limits")

COUNT = 10_000 if SOAK else 60
SEED = int(os.environ.get("LESSONKIT_SEED", random.randrange(10**9) if SOAK else 0))
Attack = Callable[..., dict[str, Any]]


@pytest.fixture(scope="module")
def attack(tmp_path_factory: pytest.TempPathFactory) -> Iterator[Attack]:
    environment = {
        **os.environ, "PYTHONPATH": str(ROOT), "PYTHONWARNINGS": "ignore", "OMP_NUM_THREADS": "1",
        "TOKENIZERS_PARALLELISM": "false", "LESSONKIT_PROGRESS": "0", "HF_HUB_OFFLINE": "1",
    }  # fmt: skip
    command = [sys.executable, "-m", "tests.hostile.attack", tmp_path_factory.mktemp("hostile")]
    with subprocess.Popen(
        command, env=environment, cwd=ROOT, text=True,
        stdin=subprocess.PIPE, stdout=subprocess.PIPE, stderr=subprocess.DEVNULL,
    ) as process:  # fmt: skip
        assert process.stdin and process.stdout
        assert process.stdout.readline() == "ready\n"

        def ask(**request: Any) -> dict[str, Any]:
            assert process.stdin and process.stdout
            print(json.dumps(request), file=process.stdin, flush=True)
            found: dict[str, Any] = json.loads(process.stdout.readline())
            return found

        yield ask
        process.stdin.close()


@pytest.mark.parametrize("reader", READERS)
def test_damaged_files_are_read_or_refused(attack: Attack, reader: str) -> None:
    found = attack(reader=reader, count=COUNT, seed=SEED)
    assert not found["failures"], "\n".join(found["failures"])
    assert found["tried"] == COUNT
