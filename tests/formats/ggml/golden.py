"""The bytes that llama.cpp's own library made of the samples, as hashes.

``golden.json`` comes from ``python tests/interop/ggml_library.py --golden FILE`` and names
the version. `make interop` compares with the library itself, and with more data.
"""

from __future__ import annotations

import hashlib
import json
from pathlib import Path

from lessonkit.formats.ggml import encode
from tests.formats.ggml.samples import importance, samples

HASHES = json.loads(Path(__file__).with_name("golden.json").read_text(encoding="utf-8"))[
    "sha256, first 16 digits"
]
MODES = {"plain": None, "importance": importance()}


def differing(name: str, mode: str) -> list[str]:
    """The samples whose bytes differ from the library's: none, if all is well."""
    wanted = HASHES[name][mode]
    found = {
        sample: hashlib.sha256(encode(values, name, MODES[mode]).tobytes()).hexdigest()[:16]
        for sample, values in samples().items()
    }
    assert found.keys() == wanted.keys()
    return [sample for sample in wanted if found[sample] != wanted[sample]]
