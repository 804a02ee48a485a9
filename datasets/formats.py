"""Image files: which formats are read, and why a file cannot be read."""

from __future__ import annotations

import re
from pathlib import Path

import pi_heif
from PIL import Image

#: Suffixes of the files that are read as photos.
IMAGE_SUFFIXES = {
    ".jpg", ".jpeg", ".jfif", ".mpo", ".png", ".apng", ".bmp", ".tif", ".tiff", ".webp", ".pgm", ".ppm", ".gif",
    ".heic", ".heif", ".hif", ".avif",
}  # fmt: skip

#: Files of cameras that are not read, and what to do about them.
UNREAD = {
    "raw file": "raw camera files are not supported; save the photo as JPEG or PNG first",
    "video": "videos are not supported yet; save frames as JPEG or PNG first",
}

#: What Pillow and libheif may raise on a damaged file.
READ_ERRORS = (OSError, ValueError, SyntaxError, EOFError, RuntimeError, Image.DecompressionBombError)

_RAW_SUFFIXES = (".cr2", ".cr3", ".nef", ".arw", ".dng", ".orf", ".rw2", ".raf")
_VIDEO_SUFFIXES = (
    ".mp4", ".m4v", ".mov", ".avi", ".mkv", ".webm", ".wmv", ".mpg", ".mpeg", ".mts", ".m2ts", ".3gp",
)  # fmt: skip

# How decoders say that a file ends too early.
_ENDS_EARLY = re.compile("truncated|unexpected end of file", re.IGNORECASE)

# Pillow reads AVIF itself. Both apply the rotation that the container asks for.
pi_heif.register_heif_opener()


def unread_kind(path: Path) -> str:
    """Return the kind of a camera's file that is not read, a key of `UNREAD`; empty for any other file."""
    suffix = path.suffix.lower()
    if suffix in _RAW_SUFFIXES:
        return "raw file"
    if suffix in _VIDEO_SUFFIXES:
        return "video"
    return ""


def explain_unread(path: Path) -> str:
    """Say why a file is not read whose kind is in `UNREAD`; empty for any other file."""
    kind = unread_kind(path)
    return f"{path}: {UNREAD[kind]}" if kind else ""


def explain_damage(path: Path, error: Exception) -> str:
    """Say why an image file cannot be read, from the error that a decoder raised."""
    if path.stat().st_size == 0:
        return f"{path}: file is empty; remove it or copy it again"
    if _ENDS_EARLY.search(str(error)) or _is_shorter_than_stated(path):
        return f"{path}: file is cut short; copy it again, or remove it"
    return f"{path}: cannot be read as an image ({error}); replace or remove it"


def count_frames(path: Path) -> int:
    """Count the images in a file: the frames of an animation, or the pages of a document; 1 if it cannot be read."""
    try:
        with Image.open(path) as image:
            return getattr(image, "n_frames", 1)
    except READ_ERRORS:
        return 1


def _is_shorter_than_stated(path: Path) -> bool:
    """Whether a WebP, HEIC or AVIF file ends before its last block; their decoders do not tell."""
    size = path.stat().st_size
    with path.open("rb") as file:
        head = file.read(8)
        if head.startswith(b"RIFF"):
            return size < 8 + int.from_bytes(head[4:], "little")
        if head[4:] != b"ftyp":
            return False
        end = 0
        # A block starts with its length: 0 up to the end of the file, 1 before a longer number.
        while end < size:
            file.seek(end)
            block = file.read(16)
            length = int.from_bytes(block[:4], "big")
            length = int.from_bytes(block[8:], "big") if length == 1 else length or size - end
            end += max(length, 8)
        return end > size
