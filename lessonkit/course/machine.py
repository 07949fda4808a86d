"""Is this machine ready for the course? What it has, and what is missing."""

from __future__ import annotations

import importlib.metadata
import os
import platform
import shutil
import sys
from dataclasses import dataclass

from lessonkit.models.memory import free_memory

OLDEST_PYTHON = (3, 11)
NEEDED_GB = {"memory": 2.0, "disk": 1.0}
"""What the embedded model needs, in units of 10^9 bytes. TinyLlama needs 12 and 10."""

# Distribution, and what is lost without it. None: nothing works without it.
LIBRARIES: dict[str, str | None] = {
    "torch": None,
    "transformers": None,
    "safetensors": None,
    "sentencepiece": None,
    "matplotlib": None,
    "bitsandbytes": "the comparisons with bitsandbytes (lessons 01 and 02)",
    "gguf": "the comparisons with ggml (lessons 02 and 05)",
    "peft": "fine-tuning and the comparisons with PEFT (lessons 02 and 04)",
    "xllamacpp": "llama.cpp and its server (lesson 09)",
    "openai": "talking to that server with OpenAI's client (lesson 09)",
    "datasets": "WikiText-2 (the embedded texts work without it)",
}


@dataclass(frozen=True)
class Machine:
    """What a machine offers, as `look` found it.

    Attributes
    ----------
    versions:
        Version of each library of `LIBRARIES`; None where it is not installed.
    memory_gb, disk_gb:
        Free memory, and free disk in the current folder, in units of 10^9 bytes.
    gpu:
        The name of the CUDA device that torch sees, or None.
    """

    python: tuple[int, int, int]
    system: str
    cores: int
    memory_gb: float
    disk_gb: float
    gpu: str | None
    versions: dict[str, str | None]

    @property
    def problems(self) -> list[str]:
        """What stops the course from working here; empty if nothing does."""
        found = []
        if self.python[:2] < OLDEST_PYTHON:
            found.append(f"Python {self.python[0]}.{self.python[1]} is too old: use 3.11 or newer")
        for name, loss in LIBRARIES.items():
            if loss is None and self.versions[name] is None:
                found.append(f"{name} is missing: run the set-up cell, or `pip install {name}`")
        for name, have in (("memory", self.memory_gb), ("disk", self.disk_gb)):
            if have < NEEDED_GB[name]:
                found.append(
                    f"only {have:.1f} GB of {name} are free, {NEEDED_GB[name]:.0f} are needed: "
                    "close other programs or make room"
                )
        return found

    @property
    def notes(self) -> list[str]:
        """What will be missing, without stopping anything."""
        return [
            f"{name} is not installed: you will miss {loss}"
            for name, loss in LIBRARIES.items()
            if loss is not None and self.versions[name] is None
        ]

    @property
    def ready(self) -> bool:
        """True where nothing stops the course from working."""
        return not self.problems

    def __str__(self) -> str:
        rows = [
            ("Python", f"{'.'.join(map(str, self.python))} on {self.system}"),
            ("processor", f"{self.cores} cores"),
            ("free memory", f"{self.memory_gb:.1f} GB"),
            ("free disk", f"{self.disk_gb:.1f} GB"),
            ("GPU", self.gpu or "none (none is needed)"),
            *((name, version or "not installed") for name, version in self.versions.items()),
        ]
        lines = [f"{name:<14}{text}" for name, text in rows]
        lines += [f"note: {note}" for note in self.notes]
        lines += [f"PROBLEM: {problem}" for problem in self.problems] or ["This machine is ready."]
        return "\n".join(lines)


def look() -> Machine:
    """Look at this machine: a second or two, because torch is asked for a GPU."""
    return Machine(
        python=sys.version_info[:3],
        system=f"{platform.system()} {platform.machine()}",
        cores=os.cpu_count() or 1,
        memory_gb=free_memory() / 1e9,
        disk_gb=shutil.disk_usage(os.curdir).free / 1e9,
        gpu=_gpu_name(),
        versions={name: _version(name) for name in LIBRARIES},
    )


def _version(distribution: str) -> str | None:
    try:
        return importlib.metadata.version(distribution)
    except importlib.metadata.PackageNotFoundError:
        return None


def _gpu_name() -> str | None:
    try:
        import torch
    except ImportError:
        return None
    return torch.cuda.get_device_name() if torch.cuda.is_available() else None
