"""What the wheel carries besides code, as `lessonkit/_data/`: model, adapters and texts.

An editable install must not copy them, it reads the repository's `data/`: hence a hook, and not
the `force-include` table of pyproject.toml, which holds for both kinds of install.
"""

from __future__ import annotations

from pathlib import Path
from typing import Any

from hatchling.builders.hooks.plugin.interface import BuildHookInterface

CARRIED = ("mini", "texts", "adapters", "SHA256SUMS", "README.md")


class DataHook(BuildHookInterface):
    """Adds `data/`, without the scripts that made it, to a wheel that is no editable install."""

    def initialize(self, version: str, build_data: dict[str, Any]) -> None:
        """Called by hatchling before each build."""
        if version == "editable":
            return
        data = Path(self.root) / "data"
        missing = [name for name in CARRIED if not (data / name).exists()]
        if missing:
            raise FileNotFoundError(
                f"{data} lacks {', '.join(missing)}: the wheel would carry no model or texts. "
                "Run `make texts model adapters` first."
            )
        for name in CARRIED:
            build_data["force_include"][str(data / name)] = f"lessonkit/_data/{name}"
