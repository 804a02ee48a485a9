"""Read a folder of photos: all photos with their faces, and the faces that can be replaced."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import Path

import numpy as np

import detection
import utils
from checks import ParameterError
from datasets import Faces
from datasets.faces import read_image
from datasets.formats import IMAGE_SUFFIXES, count_frames, explain_unread, is_video
from detection import Spot
from release.searching import SearchError, in_words, search


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
    failure : str
        Why its faces could not be searched; empty if they were.
    n_frames : int
        Number of images in the file; the first or main one is used.
    pixels : str
        Key of the image that was searched.
    """

    path: Path
    spots: tuple[Spot, ...] = ()
    damage: str = ""
    failure: str = ""
    n_frames: int = 1
    pixels: str = ""

    def read(self) -> np.ndarray:
        """Read the image again, uint8 (h, w, 3); raise ChangedError if it is not the one that was searched."""
        image = read_image(self.path)
        if utils.content_key(image) != self.pixels:
            raise ChangedError("the photo was changed during the run")
        return image


class ChangedError(RuntimeError):
    """A photo is not the one that was searched for faces."""


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

    def select(self, rows: np.ndarray) -> FoundFaces:
        """Return some of the faces."""
        return FoundFaces(self.faces.select(rows), self.photo[rows], self.place[rows])


def list_files(source: str | Path) -> tuple[list[Path], list[Path], list[Path]]:
    """List the files in a folder and its sub-folders, without hidden files; a single file is a folder of one.

    Returns
    -------
    photos, videos, others : lists of Path
        Files with an image suffix, with that of a video (or animated GIFs), and all other files. All are sorted.

    Raises
    ------
    FileNotFoundError
        If there is no such folder or file.
    ValueError
        If there is no photo and no video.
    """
    source = Path(source)
    if not source.exists():
        raise FileNotFoundError(f"{source}: no such file or folder")
    files = [source] if source.is_file() else _visible_files(source)
    videos = [path for path in files if is_video(path)]
    photos = [path for path in files if path.suffix.lower() in IMAGE_SUFFIXES and path not in videos]
    if not photos and not videos:
        reasons = [f"{source}: no photos or videos (suffixes {', '.join(sorted(IMAGE_SUFFIXES))})"]
        reasons += filter(None, map(explain_unread, files))
        raise ValueError(reasons[-1] if source.is_file() else ". ".join(reasons[:2]))
    return photos, videos, [path for path in files if path not in {*photos, *videos}]


def _visible_files(folder: Path) -> list[Path]:
    return sorted(
        path
        for path in folder.rglob("*")
        if path.is_file() and not any(part.startswith(".") for part in path.relative_to(folder).parts)
    )


def _open_photo(path: Path, thorough: bool = True) -> Photo:
    """Read one photo and find its faces; an unreadable file gets `damage`, and any other error is a `failure`.

    The faces are cached, so that a resumed run does not detect them again.
    """
    try:
        image = read_image(path)
        spots = search(image, thorough)
        return Photo(path, spots, n_frames=count_frames(path), pixels=utils.content_key(image))
    except SearchError as error:
        return Photo(path, failure=str(error))
    except (ValueError, OSError) as error:
        return Photo(path, damage=str(error))
    except Exception as error:  # the other photos can still be released
        return Photo(path, failure=f"it could not be read ({in_words(error)})")


def list_photos(folder: Path, option: str) -> list[Path]:
    """List the photos in the folder of an option; raise ParameterError if there are none."""
    photos = list_files(folder)[0]
    if not photos:
        raise ParameterError(f"{folder}: no photos for --{option}, only videos")
    return photos


def open_photos(paths: Sequence[Path], thorough: bool = True, workers: int = 1) -> list[Photo]:
    """Read all photos and find their faces in `workers` processes; see `_open_photo`."""
    import joblib  # slow to import

    tasks = (joblib.delayed(_open_photo)(path, thorough) for path in paths)
    found = utils.run_parallel(tasks, workers)
    return list(utils.progress(found, "looking for faces", total=len(paths)))


def gather_faces(photos: Sequence[Photo]) -> FoundFaces | None:
    """Collect the faces that can be replaced, each a person of its own; None if there are none."""
    spots = [(i, j, spot) for i, photo in enumerate(photos) for j, spot in enumerate(photo.spots)]
    rows = [(i, j) for i, j, spot in spots if spot.crop is not None]
    if not rows:
        return None
    photo, place = np.array(rows, dtype=np.int64).T
    names = [f"{i}/{j}" for i, j in rows]
    return FoundFaces(as_faces([photos[i].spots[j] for i, j in rows], names), photo, place)


def as_faces(spots: Sequence[Spot], names: Sequence[str]) -> Faces:
    """Make Faces of the crops of n spots, whose landmarks `detection.detect` then knows."""
    faces = Faces.of([spot.crop for spot in spots], names=names, source="photos")
    detection.remember(faces, np.stack([spot.landmarks_in_crop for spot in spots]))
    return faces
