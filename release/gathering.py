"""Read a folder of photos: all photos with their faces, and the faces that can be replaced."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import Path

import joblib
import numpy as np

import detection
import utils
from datasets import Faces
from datasets.faces import read_image
from datasets.sources import IMAGE_SUFFIXES
from detection import Spot, find_faces

#: Unsupported phone and camera formats: brands of an ISO container (HEIC), and suffixes of raw files.
_HEIF_BRANDS = (b"heic", b"heix", b"hevc", b"heim", b"heis", b"mif1", b"msf1")
_RAW_SUFFIXES = (".cr2", ".cr3", ".nef", ".arw", ".dng", ".orf", ".rw2", ".raf")


@dataclass(frozen=True, eq=False)
class Photo:
    """One photo with all its faces, or why it cannot be read.

    Attributes
    ----------
    path : Path
    spots : tuple of Spot
        The faces, from left to right.
    damage : str
        Why the file cannot be read; empty if it can.
    """

    path: Path
    spots: tuple[Spot, ...] = ()
    damage: str = ""


@dataclass(frozen=True, eq=False)
class FoundFaces:
    """The faces in a folder that can be replaced, and where they are.

    Attributes
    ----------
    faces : Faces
        Upright crops; ``faces.names`` give the photo and the face's place in it (``"3/0"``).
    photo, place : ndarray of int, shape (n,)
        Face i is ``photos[photo[i]].spots[place[i]]``.
    """

    faces: Faces
    photo: np.ndarray
    place: np.ndarray


def list_files(folder: str | Path) -> tuple[list[Path], list[Path]]:
    """List the files in a folder and its sub-folders, without hidden files.

    Returns
    -------
    photos, others : lists of Path
        Files with an image suffix, and all other files. Both are sorted.

    Raises
    ------
    FileNotFoundError
        If the folder does not exist.
    ValueError
        If no file has an image suffix.
    """
    folder = Path(folder)
    if not folder.is_dir():
        raise FileNotFoundError(f"{folder}: no such folder of photos")
    files = sorted(
        path
        for path in folder.rglob("*")
        if path.is_file() and not any(part.startswith(".") for part in path.relative_to(folder).parts)
    )
    photos = [path for path in files if path.suffix.lower() in IMAGE_SUFFIXES]
    others = [path for path in files if path.suffix.lower() not in IMAGE_SUFFIXES]
    if not photos:
        unread = next(filter(None, map(unread_kind, files)), "")
        hint = f". {unread}" if unread else ""
        raise ValueError(f"{folder}: no photos (suffixes {', '.join(sorted(IMAGE_SUFFIXES))}){hint}")
    return photos, others


def unread_kind(path: Path) -> str:
    """Say why a file that is a photo, or named like one, cannot be read; empty for any other file."""
    try:
        with path.open("rb") as file:
            head = file.read(12)
    except OSError:
        return ""
    if not head:
        return f"{path}: file is empty; remove it or copy it again"
    if head[4:8] == b"ftyp" and head[8:12] in _HEIF_BRANDS:
        return f"{path}: HEIC is not supported; save the photo as JPEG or PNG first"
    if path.suffix.lower() in _RAW_SUFFIXES:
        return f"{path}: raw camera files are not supported; save the photo as JPEG or PNG first"
    return ""


def _open_photo(path: Path, thorough: bool = True) -> Photo:
    """Read one photo and find its faces. For an unreadable file, set `damage` instead of raising.

    The faces are cached, so that a resumed run does not detect them again.
    """
    try:
        image = read_image(path)
    except (ValueError, OSError) as error:
        return Photo(path, damage=unread_kind(path) or str(error))
    return Photo(path, find_faces(image, thorough))


def open_photos(paths: Sequence[Path], thorough: bool = True, workers: int = 1) -> list[Photo]:
    """Read all photos and find their faces in `workers` processes; see `_open_photo`."""
    tasks = (joblib.delayed(_open_photo)(path, thorough) for path in paths)
    found = joblib.Parallel(n_jobs=workers, return_as="generator")(tasks)
    return list(utils.progress(found, "looking for faces", total=len(paths)))


def gather_faces(photos: Sequence[Photo]) -> FoundFaces | None:
    """Collect the faces that can be replaced, each a person of its own; None if there are none."""
    spots = [(i, j, spot) for i, photo in enumerate(photos) for j, spot in enumerate(photo.spots)]
    rows = [(i, j) for i, j, spot in spots if spot.crop is not None]
    if not rows:
        return None
    crops, names = [photos[i].spots[j].crop for i, j in rows], [f"{i}/{j}" for i, j in rows]
    photo, place = np.array(rows, dtype=np.int64).T
    faces = Faces.of(crops, names=names, source="photos")
    landmarks = np.stack([spot.landmarks_in_crop for _, _, spot in spots if spot.crop is not None])
    detection.remember(faces, landmarks)
    return FoundFaces(faces, photo, place)
