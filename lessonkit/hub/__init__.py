"""What travels: files on the Hugging Face Hub or a mirror of it, listed, fetched, checked."""

from lessonkit.hub.access import list_files
from lessonkit.hub.cache import download
from lessonkit.hub.digests import hub_digests
from lessonkit.hub.download import fetch

__all__ = [
    "download",
    "fetch",
    "hub_digests",
    "list_files",
]
