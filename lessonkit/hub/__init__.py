"""What travels: files on the Hugging Face Hub or a mirror, listed, fetched, checked, published."""

from lessonkit.hub.access import list_files
from lessonkit.hub.cache import download
from lessonkit.hub.card import Facts, model_card
from lessonkit.hub.digests import hub_digests
from lessonkit.hub.download import fetch
from lessonkit.hub.publish import Parcel, prepare, publish

__all__ = [
    "Facts",
    "Parcel",
    "download",
    "fetch",
    "hub_digests",
    "list_files",
    "model_card",
    "prepare",
    "publish",
]
