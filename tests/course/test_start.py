"""`course.begin`, and `course` itself: light to import, quiet, the same each time."""

from __future__ import annotations

import os
import random
import subprocess
import sys

import numpy as np
import pytest

from lessonkit import course


def run(code: str, **environment: str) -> subprocess.CompletedProcess[str]:
    """Run code in a fresh interpreter, where nothing is imported yet."""
    return subprocess.run(
        [sys.executable, "-W", "default", "-c", code],
        env={**os.environ, **environment},
        capture_output=True,
        text=True,
        check=True,
    )


def test_importing_course_imports_nothing_heavy() -> None:
    done = run(
        "import sys; from lessonkit import course\n"
        "print(sorted({'numpy', 'torch', 'transformers', 'matplotlib'} & set(sys.modules)))\n"
        "from lessonkit.course import checking, exercises, source\n"
        "print(sorted({'torch', 'transformers', 'matplotlib'} & set(sys.modules)))"
    )
    assert done.stdout.split("\n")[:2] == ["[]", "[]"]


def test_every_name_leads_somewhere() -> None:
    assert set(course._HOME) | {"exercises", "plots"} == set(course.__all__) == set(dir(course))
    for name in course._HOME:
        assert callable(getattr(course, name))
    assert course.plots.show is course.show and course.exercises.attempt is course.attempt
    with pytest.raises(AttributeError, match="no attribute 'nothing'"):
        course.nothing  # noqa: B018


def test_begin_in_a_fresh_interpreter() -> None:
    done = run(
        "from lessonkit import course; course.begin()\n"
        "import logging, warnings, matplotlib, numpy, os, torch, transformers\n"
        "from huggingface_hub.utils import are_progress_bars_disabled\n"
        "transformers.logging.get_logger('transformers.models').warning('noise')\n"
        "for logger in ('bitsandbytes.cextension', 'torch.utils._pytree', 'torchao'):\n"
        "    logging.getLogger(logger).warning('noise')\n"
        "    logging.getLogger(logger).error('broken %s', logger)\n"
        "for module in ('peft.tuners', 'tqdm.auto'):\n"
        "    warnings.warn_explicit('noise', UserWarning, 'f', 1, module=module)\n"
        "assert not transformers.utils.logging.is_progress_bar_enabled()\n"
        "assert not are_progress_bars_disabled()\n"
        "assert os.environ['TOKENIZERS_PARALLELISM'] == 'false'\n"
        "assert torch.initial_seed() == 0\n"
        "assert matplotlib.rcParams['axes.facecolor'] == '#FBFAF7'\n"
        "warnings.warn_explicit('mine', UserWarning, 'f', 1, module='__main__')\n"
    )
    assert done.stdout == "lessonkit 0.1.0 is ready.\n"
    assert "noise" not in done.stderr and "mine" in done.stderr
    for logger in ("bitsandbytes.cextension", "torch.utils._pytree", "torchao"):
        assert f"broken {logger}" in done.stderr  # errors still show


def test_begin_leaves_the_users_settings_alone() -> None:
    done = run(
        "from lessonkit import course; course.begin()\n"
        "import os\n"
        "from huggingface_hub.utils import are_progress_bars_disabled\n"
        "print(os.environ['TRANSFORMERS_VERBOSITY'], os.environ.get('HF_HUB_OFFLINE'),"
        " are_progress_bars_disabled())",
        TRANSFORMERS_VERBOSITY="info",
        HF_HUB_OFFLINE="0",
        HF_HUB_DISABLE_PROGRESS_BARS="1",
    )
    assert done.stdout.endswith("info 0 True\n")


def test_begin_twice_gives_the_same_random_numbers(capsys: pytest.CaptureFixture[str]) -> None:
    torch = pytest.importorskip("torch")
    drawn = []
    for _ in range(2):
        course.begin(7)
        drawn.append((random.random(), np.random.rand(), torch.rand(1).item()))  # noqa: NPY002
    assert drawn[0] == drawn[1]
    assert capsys.readouterr().err == ""
