"""What a release folder holds: PNG and MP4 files under random names, and ``manifest.json``."""

from __future__ import annotations

import re

FORMAT, VERSION = "AnonFACES release", 1
MANIFEST = "manifest.json"
MODES = ("shared", "per_photo")

#: The entries of a manifest and their types.
MANIFEST_KEYS = {
    "format": str,
    "version": int,
    "mode": str,
    "k": int | None,
    "n_files": int,
    "n_images": int,
    "files": dict,
}

#: A file name is 128 random bits.
NAME = re.compile(r"[0-9a-f]{32}\.(png|mp4)")
#: The end of the names of videos.
VIDEO = ".mp4"
NAME_BYTES = 16

#: Every file gets this time (1980-01-01, the earliest that archives can hold): other times could identify people.
FILE_TIME = 315532800
