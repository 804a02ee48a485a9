"""Image files: which formats are read, and why a file cannot be read."""

from __future__ import annotations

import re
import warnings
from pathlib import Path

import pi_heif
from PIL import Image

from storage.kinds import explain_kind, read_head

#: Suffixes of the files that are read as photos.
IMAGE_SUFFIXES = {
    ".jpg", ".jpeg", ".jpe", ".jfif", ".mpo", ".png", ".apng", ".bmp", ".tif", ".tiff", ".webp", ".pgm", ".ppm", ".pnm",
    ".pfm", ".gif", ".heic", ".heif", ".hif", ".avif",
}  # fmt: skip

#: Files of cameras that are not read, and what to do about them.
UNREAD = {
    "raw file": "raw camera files are not supported; save the photo as JPEG or PNG first",
    "video": "videos are not photos; save frames as JPEG or PNG, or anonymize the video with python -m anonymizer",
}

#: What Pillow and libheif may raise on a damaged file: also TypeError, struct.error, KeyError and others.
READ_ERRORS = Exception

_RAW_SUFFIXES = (".cr2", ".cr3", ".nef", ".arw", ".dng", ".orf", ".rw2", ".raf")
_VIDEO_SUFFIXES = (
    ".mp4", ".m4v", ".mov", ".avi", ".mkv", ".webm", ".wmv", ".mpg", ".mpeg", ".mts", ".m2ts", ".3gp",
)  # fmt: skip

# Pillow would run a PostScript file in Ghostscript, and has many rarely used decoders; only these formats are opened.
_FORMATS = ("JPEG", "PNG", "WEBP", "TIFF", "BMP", "GIF", "PPM", "HEIF", "AVIF")

# Limit on the memory to read a photo, and bytes that its pixels take at most: of plain photos, and of all others,
# which have transparency, 16 bits, or a decoder that keeps several copies.
_READING_BYTES, _PLAIN_PIXEL, _OTHER_PIXEL = 1_300_000_000, 11, 26
_PLAIN_FORMATS, _PLAIN_MODES = ("JPEG", "MPO", "PNG", "TIFF", "BMP", "PPM", "AVIF"), ("1", "L", "RGB")

# Marks of an image that must be turned or mirrored (EXIF tag 274) -> how.
_ORIENTATION = 274
_TURNS = {
    2: Image.Transpose.FLIP_LEFT_RIGHT, 3: Image.Transpose.ROTATE_180, 4: Image.Transpose.FLIP_TOP_BOTTOM,
    5: Image.Transpose.TRANSPOSE, 6: Image.Transpose.ROTATE_270, 7: Image.Transpose.TRANSVERSE,
    8: Image.Transpose.ROTATE_90,
}  # fmt: skip

# How decoders say that a file ends too early.
_ENDS_EARLY = re.compile("truncated|unexpected end of file", re.IGNORECASE)

# Pillow reads AVIF itself. Both apply the rotation that the container asks for.
pi_heif.register_heif_opener()

# `open_image` has a limit of its own.
warnings.filterwarnings("ignore", category=Image.DecompressionBombWarning)


def open_image(path: Path) -> Image.Image:
    """Open an image file of a known format whose pixels fit into memory; they are not decoded yet.

    Raises
    ------
    ValueError
        If it has too many pixels.
    OSError, SyntaxError
        If it is no image, or damaged.
    """
    image = Image.open(path, formats=_FORMATS)
    plain = image.format in _PLAIN_FORMATS and image.mode in _PLAIN_MODES
    most = _READING_BYTES // (_PLAIN_PIXEL if plain else _OTHER_PIXEL)
    if image.width * image.height > most:
        image.close()
        raise ValueError(
            f"it has {image.width * image.height / 1e6:.0f} megapixels, of which at most {most / 1e6:.0f} are read; "
            "make it smaller"
        )
    return image


def upright(image: Image.Image) -> Image.Image:
    """Decode an image and turn it as its EXIF data says, of which no other tag is read."""
    image.load()
    try:
        orientation = image.getexif().get(_ORIENTATION)
    except (
        Exception
    ):  # damaged EXIF data makes Pillow raise its own and others' exceptions; the pixels are intact
        orientation = None
    known = isinstance(orientation, int) and orientation in _TURNS
    return image.transpose(_TURNS[orientation]) if known else image


def is_video(path: Path) -> bool:
    """Return whether a path has the suffix of a video, or is an animated GIF."""
    suffix = path.suffix.lower()
    return suffix in _VIDEO_SUFFIXES or (suffix == ".gif" and count_frames(path) > 1)


def is_photo(path: Path) -> bool:
    """Return whether a path is a file with the suffix of a photo."""
    return path.suffix.lower() in IMAGE_SUFFIXES and path.is_file()


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
    if kind := explain_kind(read_head(path), ("image",)):
        return f"{path}: cannot be read as an image ({kind})"
    if isinstance(error, Image.UnidentifiedImageError):
        return f"{path}: cannot be read as an image (it has no known format); replace or remove it"
    reason = "it has far too many pixels" if isinstance(error, Image.DecompressionBombError) else error
    return f"{path}: cannot be read as an image ({reason or type(error).__name__}); replace or remove it"


def count_frames(path: Path) -> int:
    """Count the images in a file: the frames of an animation, or the pages of a document; 1 if it cannot be read."""
    try:
        with open_image(path) as image:
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
