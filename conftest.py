"""Every test and every notebook runs offline, on one thread, with nothing from the user's home."""

from __future__ import annotations

from lessonkit.testing.notebooks import use_reproducible_environment

use_reproducible_environment()
