"""How much memory a program may still take."""

from __future__ import annotations

from pathlib import Path

import psutil


def free_memory(group: Path = Path("/sys/fs/cgroup")) -> int:
    """The bytes that a program may still take: of the machine's, or of a container's limit.

    Inside a container `group` is its own control group (Linux, version 2). Pages of files that
    it read long ago count as used there, but are given back when needed.
    """
    available: int = psutil.virtual_memory().available
    try:
        limit = int((group / "memory.max").read_text())  # "max" where there is no limit
        used = int((group / "memory.current").read_text())
        details = (group / "memory.stat").read_text().split()
    except (OSError, ValueError):
        return available
    cached = dict(zip(details[::2], details[1::2], strict=False)).get("inactive_file", "0")
    return min(available, max(0, limit - used + int(cached)))
