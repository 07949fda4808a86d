"""The lane that stands in for Colab: what it reads, and what it would notice."""

from __future__ import annotations

import json
from pathlib import Path

import pytest

from tools.colab import THERE, constraints, ran, replaced, strip

FREEZE = """absl-py==1.4.0
en_core_web_sm @ https://example.org/en_core_web_sm-3.8.0-py3-none-any.whl#sha256=19
numpy==2.1.3
torch @ https://example.org/whl/cpu/torch-2.11.0%2Bcpu-cp313-cp313-manylinux_2_28_x86_64.whl
torchao==0.10.0
jaxlib==0.7.2+cuda12
"""


def test_constraints() -> None:
    assert constraints(FREEZE) == [
        "absl-py==1.4.0", "numpy==2.1.3", "torchao==0.10.0", "torch==2.11.0"
    ]  # fmt: skip
    assert constraints("numpy==2.1.3\ntorch==2.12.1+cu128\n")[-1] == "torch==2.12.1"
    assert constraints("torch==2.12.1\n") == ["torch==2.12.1"]
    with pytest.raises(ValueError, match="no version of torch"):
        constraints("<html>moved</html>")


def test_what_was_replaced_is_named_and_what_was_added_is_not() -> None:
    assert replaced("a==1\nb==2\n", "a==1\nb==2\nc==3\n") == []
    assert replaced("a==1\nb==2\n", "a==2\n") == ["a==1", "b==2"]


def test_lessonkit_itself_is_not_there_before() -> None:
    assert "lessonkit" not in THERE and "xllamacpp" not in THERE and "gguf" not in THERE


def test_a_notebook_begins_unrun(tmp_path: Path) -> None:
    cells = [
        {"cell_type": "markdown", "source": "# T"},
        {"cell_type": "code", "execution_count": 3, "outputs": [{"output_type": "stream"}]},
    ]
    path = tmp_path / "a.ipynb"
    path.write_text(json.dumps({"cells": cells}), encoding="utf-8")
    assert ran(path) == 1
    strip(path)
    assert ran(path) == 0 and json.loads(path.read_text())["cells"][1]["outputs"] == []
