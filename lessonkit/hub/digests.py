"""What huggingface_hub itself noted about the files that it downloaded: their digests.

The Hub names each file by a digest, its ETag: the SHA-256 of a large file, and for a small one
the SHA-1 that git gives it. The library keeps it in one of two places:

    its cache        snapshots/COMMIT/NAME is a link to blobs/DIGEST
    --local-dir      .cache/huggingface/download/NAME.metadata: commit, digest, time, a line each
"""

from __future__ import annotations

import re
from pathlib import Path

from lessonkit.files.integrity import GIT_BLOB

_METADATA = Path(".cache", "huggingface", "download")
_DIGEST = re.compile(r"[0-9a-f]{40}|[0-9a-f]{64}")


def hub_digests(folder: Path) -> dict[str, str]:
    """File name -> digest, as `integrity.verify` reads it; empty if the Hub left none here."""
    found: dict[str, str] = {}
    for path in sorted(folder.iterdir()):
        if path.is_symlink() and path.readlink().parent.name == "blobs":
            found[path.name] = path.readlink().name
    for path in sorted((folder / _METADATA).glob("*.metadata")):
        lines = path.read_text(encoding="utf-8", errors="replace").split("\n")
        if len(lines) > 1:
            found[path.name.removesuffix(".metadata")] = lines[1].strip()
    return {
        name: digest if len(digest) == 64 else f"{GIT_BLOB}:{digest}"
        for name, digest in found.items()
        if _DIGEST.fullmatch(digest)
    }
