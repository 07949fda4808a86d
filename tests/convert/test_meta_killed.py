"""A conversion that is killed at any moment leaves nothing that looks whole.

A helper process runs the conversion again and again in children of its own. Each child is killed
before another one of the calls by which a conversion reaches the disk (open, write, sync,
rename, ...), so that together they die at every moment that makes a difference.
"""

from __future__ import annotations

import json
import os
import subprocess
import sys
from pathlib import Path

import pytest

import lessonkit
from lessonkit.convert.meta import meta_to_hf
from tests.convert.toy import Toy, file_bytes

pytestmark = pytest.mark.skipif(sys.platform == "win32", reason="needs fork and SIGKILL")

HELPER = """
import json, os, shutil, signal, sys
from pathlib import Path
from lessonkit.convert.meta import hf_to_meta, meta_to_hf

CALLS = {"open", "write", "mkdir", "rename", "fsync", "flock", "rmdir", "unlink", "close"}
convert = {"meta": meta_to_hf, "hf": hf_to_meta}[sys.argv[1]]
source, out, options = sys.argv[2], Path(sys.argv[3]), json.loads(sys.argv[4])


def dies_before(moment):
    '''Run the conversion in a child that kills itself before its call number `moment`.'''
    child = os.fork()
    if child:
        return os.waitpid(child, 0)[1] == signal.SIGKILL
    left = moment

    def profile(frame, event, call):
        nonlocal left
        if event == "c_call" and call.__name__ in CALLS:
            left -= 1
            if left < 0:
                os.kill(os.getpid(), signal.SIGKILL)

    sys.setprofile(profile)
    convert(source, out, **options)
    os._exit(0)


convert(source, sys.argv[5])  # so that everything is imported
moment, killed = 0, True
while killed:
    shutil.rmtree(out, ignore_errors=True)
    if options.get("force"):
        out.mkdir(parents=True)
        (out / "lessonkit-certificate.json").write_text("!")
    killed = dies_before(moment)
    print(json.dumps(sorted(path.name for path in out.iterdir()) if out.exists() else None))
    moment += 1
"""


def moments(form: str, source: Path, out: Path, **options: object) -> list[list[str] | None]:
    """What stood under the output's name after each kill; the last run was not killed."""
    environment = {**os.environ, "PYTHONPATH": str(Path(lessonkit.__file__).parents[1]),
                   "PYTHONWARNINGS": "ignore", "TOKENIZERS_PARALLELISM": "false"}  # fmt: skip
    run = subprocess.run(
        [sys.executable, "-c", HELPER, form, source, out, json.dumps(options), f"{source}-first"],
        env=environment, capture_output=True, text=True, check=False,
    )  # fmt: skip
    assert run.returncode == 0 and not run.stderr, run.stderr[-2000:]
    return [json.loads(line) for line in run.stdout.splitlines()]


@pytest.fixture
def forms(sentencepiece_model: Path, tmp_path: Path) -> dict[str, Path]:
    toy = Toy(dim=8, heads=2, kv_heads=2, layers=1, mlp=16)
    meta_to_hf(toy.write(tmp_path / "meta", sentencepiece_model), tmp_path / "hf")
    return {"meta": tmp_path / "meta", "hf": tmp_path / "hf"}


@pytest.mark.parametrize("form", ["meta", "hf"])
def test_nothing_stands_under_the_name_until_it_is_whole(
    forms: dict[str, Path], tmp_path: Path, form: str
) -> None:
    before = file_bytes(forms[form])
    out = tmp_path / "outputs" / "model"
    seen = moments(form, forms[form], out)
    whole = sorted(file_bytes(out))
    assert len(seen) > 50  # the calls of such a small conversion
    first_whole = seen.index(whole)
    assert seen == [None] * first_whole + [whole] * (len(seen) - first_whole)
    assert first_whole > len(seen) / 2  # only tidying up comes after the name
    assert file_bytes(forms[form]) == before
    # The last run has removed what the others left, and wrote what any run writes.
    assert [path.name for path in out.parent.iterdir()] == ["model"]
    assert file_bytes(out) == file_bytes(Path(f"{forms[form]}-first"))


def test_an_older_output_is_replaced_as_a_whole(forms: dict[str, Path], tmp_path: Path) -> None:
    out = tmp_path / "outputs" / "model"
    seen = moments("meta", forms["meta"], out, force=True)
    whole = sorted(file_bytes(out))
    assert seen[0] == ["lessonkit-certificate.json"] and seen[-1] == whole
    assert all(names in (["lessonkit-certificate.json"], None, whole) for names in seen)
    assert seen.count(None) <= 2  # between the two renames
    assert [path.name for path in out.parent.iterdir()] == ["model"]
