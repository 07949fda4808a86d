"""Damage, by chance but repeatable: of bytes, of JSON, and of what lies inside a container."""

from __future__ import annotations

import copy
import io
import json
import tempfile
import zipfile
from collections.abc import Callable
from random import Random
from typing import Any

import safetensors.torch
import torch

from lessonkit.files.gguf import encode_gguf_header, read_gguf_header

Mutation = Callable[[bytes, Random], bytes]

NUMBERS = [0, 1, -1, 2, 7, 255, 256, 65_535, 1 << 31, (1 << 31) - 1, 1 << 32, (1 << 63) - 1,
           1 << 63, (1 << 64) - 1, 1 << 70, 10**400, -(1 << 63), 0.5, -0.0, 1e308, 5e-324,
           float("inf"), float("-inf"), float("nan")]  # fmt: skip
OTHERS = [None, True, False, "", "a", "BF16", "F7", "../../x", "/tmp/x", "model.norm.weight", "\0",
          "é" * 300, "\ud800", [], {}, [[]], [1, 2, 3], [None], [-1], {"a": 1}, [1 << 62] * 4,
          "1", "(a+)+$", "default", "llama", "linear"]  # fmt: skip
TEXTS = [
    b"\0",
    b"\xff" * 8,
    b"{",
    b"[" * 2000,
    b"}",
    b'"',
    b"\n",
    b"NaN",
    b"1e999",
    b"-",
    b"\\ud800",
]


def any_bytes(raw: bytes, chance: Random) -> bytes:
    """Flip, overwrite, insert, repeat, remove or cut off, one to four times."""
    content = bytearray(raw)
    for _ in range(chance.randint(1, 4)):
        at = chance.randrange(len(content) + 1)
        if chance.random() < 0.5:  # headers stand at the beginning, directories at the end
            at = min(len(content), chance.choice([at % 200, max(0, len(content) - at % 200)]))
        length = chance.choice([1, 2, 4, 8, chance.randint(1, 64)])
        kind = chance.randrange(7)
        if kind == 0 and at < len(content):
            content[at] ^= 1 << chance.randrange(8)
        elif kind == 1:
            number = int(chance.choice(NUMBERS[:17])) % (1 << 64)
            content[at : at + length] = number.to_bytes(8, "little")[:length]
        elif kind == 2:
            content[at:at] = chance.choice(TEXTS)
        elif kind == 3:
            content[at:at] = content[at : at + length] * chance.choice([1, 2, 50])
        elif kind == 4:
            del content[at : at + length]
        elif kind == 5 and chance.random() < 0.3:
            del content[at:]
        else:
            content[at : at + length] = chance.randbytes(length)
    return bytes(content)


def places(value: Any) -> list[tuple[Any, Any]]:
    """Every (container, key) inside a value from JSON."""
    found: list[tuple[Any, Any]] = []
    inner = value.items() if isinstance(value, dict) else enumerate(value)
    for key, part in inner:
        found.append((value, key))
        if isinstance(part, dict | list):
            found += places(part)
    return found


def any_value(value: Any, chance: Random) -> Any:
    """Replace, remove, rename, repeat or exchange parts of a value, one to three times."""
    value = copy.deepcopy(value)
    for _ in range(chance.randint(1, 3)):
        found = places(value)
        if not found:
            return chance.choice(OTHERS)
        container, key = chance.choice(found)
        kind = chance.randrange(8)
        if kind <= 1:
            container[key] = chance.choice(NUMBERS)
        elif kind == 2:
            container[key] = copy.deepcopy(chance.choice(OTHERS))
        elif kind == 3:
            del container[key]
        elif kind == 4:
            other, its_key = chance.choice(found)
            container[key] = copy.deepcopy(other[its_key])
        elif kind == 5 and isinstance(container, dict):
            container[chance.choice(["", "a", "__metadata__", key + "x"])] = container.pop(key)
        elif kind == 6 and type(container[key]) is int:
            container[key] += chance.choice([-2, -1, 1, 2, 8])
        elif isinstance(container, list):
            container += copy.deepcopy(container)
    return value


def any_json(raw: bytes, chance: Random) -> bytes:
    """Damage JSON as a text, a quarter of the time, else as a value."""
    if chance.random() < 0.25:
        return any_bytes(raw, chance)
    return as_bytes(any_value(json.loads(raw), chance))


def as_bytes(value: Any) -> bytes:
    """JSON, with whatever is in it; a lone half of a surrogate pair stays an escape."""
    try:
        return json.dumps(value).encode()
    except ValueError:  # a number of more digits than Python prints
        return b"9" * 5000


def any_safetensors(raw: bytes, chance: Random) -> bytes:
    """Damage the bytes, or the header as JSON with its length set right."""
    if chance.random() < 0.4:
        return any_bytes(raw, chance)
    length = int.from_bytes(raw[:8], "little")
    header = any_json(raw[8 : 8 + length], chance)
    return len(header).to_bytes(8, "little") + header + raw[8 + length :]


def json_tensors(prefix: str) -> Mutation:
    """Damage the JSON that lies in a safetensors file's tensors whose names hold `prefix`."""

    def mutate(raw: bytes, chance: Random) -> bytes:
        if chance.random() < 0.4:
            return any_safetensors(raw, chance)
        tensors = safetensors.torch.load(raw)
        name = chance.choice(sorted(name for name in tensors if prefix in name))
        content = any_json(tensors[name].numpy().tobytes(), chance)
        tensors[name] = torch.tensor(list(content), dtype=torch.uint8)
        return safetensors.torch.save(tensors)

    return mutate


def any_zip(raw: bytes, chance: Random) -> bytes:
    """Damage the bytes, or a member of the archive, which stays an archive."""
    if chance.random() < 0.4:
        return any_bytes(raw, chance)
    out = io.BytesIO()
    with zipfile.ZipFile(io.BytesIO(raw)) as old, zipfile.ZipFile(out, "w") as new:
        names = old.namelist()
        pickle = next(name for name in names if name.endswith("data.pkl"))
        victim = chance.choice([pickle, pickle, pickle, *names])
        for name in names:
            content = old.read(name)
            content = any_bytes(content, chance) if name == victim else content
            if name == victim and chance.random() < 0.1:
                name = chance.choice(["../../x", "/tmp/x", "archive/data/9", name + "x"])
            new.writestr(name, content)
    return out.getvalue()


def any_gguf(raw: bytes, chance: Random) -> bytes:
    """Damage the bytes, or the metadata as a value."""
    if chance.random() < 0.4:
        return any_bytes(raw, chance)
    with tempfile.NamedTemporaryFile() as whole:
        whole.write(raw)
        whole.flush()
        header = read_gguf_header(whole.name)
    plain = {
        key: value.tolist() if hasattr(value, "tolist") else value
        for key, value in header.metadata.items()
    }
    data = raw[min(header.starts.values()) :]
    metadata = any_value(plain, chance)
    try:
        return encode_gguf_header(metadata, list(header.tensors.values())) + data
    except Exception:  # what the form cannot hold at all
        return any_bytes(raw, chance)
