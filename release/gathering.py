"""A folder of ordinary photos -> the faces on them that can be replaced, and the people they show.

The faces are found by `detection.find_faces`. Who is who is told by descriptors, or by the names of sub-folders.
"""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import Path

import joblib
import numpy as np
from scipy.sparse.csgraph import connected_components
from scipy.spatial.distance import cdist

import utils
from datasets import Faces
from datasets.faces import read_image
from datasets.sources import IMAGE_SUFFIXES
from detection import Spot, find_faces

#: dlib descriptors nearer than this are taken for one person. Photos of one person are rarely farther apart, and
#: two people are at times as near: in doubt they count as one person, which cannot make a cluster too small.
SAME_PERSON = 0.5


@dataclass(frozen=True, eq=False)
class Photo:
    """One photo with all its faces, or why it cannot be read.

    Attributes
    ----------
    path : Path
    spots : tuple of Spot
        From left to right.
    damage : str
        Empty where the file is a photo.
    """

    path: Path
    spots: tuple[Spot, ...] = ()
    damage: str = ""


@dataclass(frozen=True, eq=False)
class FoundFaces:
    """The faces of a folder that can be replaced, with the way back to their photos.

    Attributes
    ----------
    faces : Faces
        Crops; ``faces.identities`` are the people, ``faces.names`` say photo and place on it (``"3/0"``).
    photo, place : ndarray of int, shape (n,)
        Face i is ``photos[photo[i]].spots[place[i]]``.
    """

    faces: Faces
    photo: np.ndarray
    place: np.ndarray


# ----------------------------------------------------------------------------------------------------------
# Files
# ----------------------------------------------------------------------------------------------------------


def list_files(folder: str | Path) -> tuple[list[Path], list[Path]]:
    """List what lies in a folder and its sub-folders, without hidden files.

    Returns
    -------
    photos, others : lists of Path
        By ending: files that should be images, and files that are none. Both sorted.

    Raises
    ------
    FileNotFoundError
        If there is no such folder.
    ValueError
        If no file ends as an image does.
    """
    folder = Path(folder)
    if not folder.is_dir():
        raise FileNotFoundError(f"{folder}: there is no such folder of photos")
    files = sorted(
        path
        for path in folder.rglob("*")
        if path.is_file() and not any(part.startswith(".") for part in path.relative_to(folder).parts)
    )
    photos = [path for path in files if path.suffix.lower() in IMAGE_SUFFIXES]
    if not photos:
        unread = next(filter(None, map(unread_kind, files)), "")
        hint = f". {unread}" if unread else ""
        raise ValueError(
            f"{folder}: holds no photo (files ending in {', '.join(sorted(IMAGE_SUFFIXES))}){hint}"
        )
    return photos, [path for path in files if path not in set(photos)]


#: What the files of phones and cameras begin with that are photos all the same: brand in an ISO container, or TIFF.
_HEIF_BRANDS = (b"heic", b"heix", b"hevc", b"heim", b"heis", b"mif1", b"msf1")
_RAW_SUFFIXES = (".cr2", ".cr3", ".nef", ".arw", ".dng", ".orf", ".rw2", ".raf")


def unread_kind(path: Path) -> str:
    """Say what a file is that shows a photo, but of a kind that is not read here; empty for any other."""
    try:
        with path.open("rb") as file:
            head = file.read(12)
    except OSError:
        return ""
    if not head:
        return f"{path}: is empty; remove it, or copy it again"
    if head[4:8] == b"ftyp" and head[8:12] in _HEIF_BRANDS:
        return f"{path}: is a HEIC photo, which is not read here; save it as JPEG or PNG first"
    if path.suffix.lower() in _RAW_SUFFIXES:
        return f"{path}: is a camera's raw photo, which is not read here; save it as JPEG or PNG first"
    return ""


# ----------------------------------------------------------------------------------------------------------
# All photos of a folder
# ----------------------------------------------------------------------------------------------------------


def open_photo(path: Path, thorough: bool = True) -> Photo:
    """Read one photo and find its faces; a file that cannot be read says so and raises nothing.

    What was found is kept in the cache, so that an interrupted run goes on where it stopped.
    """
    try:
        image = read_image(path)
    except (ValueError, OSError) as error:
        return Photo(path, damage=unread_kind(path) or str(error))
    return Photo(path, find_faces(image, thorough))


def open_photos(paths: Sequence[Path], thorough: bool = True, workers: int = 1) -> list[Photo]:
    """Read all photos and find their faces, with so many processes; see `open_photo`."""
    if workers == 1:
        found = (open_photo(path, thorough) for path in paths)
    else:
        tasks = (joblib.delayed(open_photo)(path, thorough) for path in paths)
        found = joblib.Parallel(n_jobs=workers, return_as="generator")(tasks)
    return list(utils.progress(found, "looking for faces", total=len(paths)))


def gather_faces(photos: Sequence[Photo]) -> FoundFaces | None:
    """Put the faces that can be replaced into one set, each a person of its own; None where there is none."""
    rows = [
        (i, j)
        for i, photo in enumerate(photos)
        for j, spot in enumerate(photo.spots)
        if spot.crop is not None
    ]
    if not rows:
        return None
    crops = [photos[i].spots[j].crop for i, j in rows]
    names = [f"{i}/{j}" for i, j in rows]
    photo, place = np.array(rows, dtype=np.int64).T
    return FoundFaces(Faces(crops, names, names, source="photos"), photo, place)


# ----------------------------------------------------------------------------------------------------------
# Who is who
# ----------------------------------------------------------------------------------------------------------


def group_people(
    descriptors: np.ndarray, threshold: float = SAME_PERSON, folders: Sequence[str | None] | None = None
) -> np.ndarray:
    """Tell which faces show one person: those that a chain of small distances joins.

    In doubt faces are joined. Two people who pass for one are hidden together; one person who passes for two would
    stand twice in a cluster, which then hides fewer people than it seems to.

    Parameters
    ----------
    descriptors : ndarray, shape (n, d)
    threshold : float, default 0.5
        Distance under which two faces are joined.
    folders : sequence of n str or None, optional
        The person whom somebody named, or None for a face without a name. Faces of one name are one person and
        different names are different people, whatever the distances; a face without a name joins the nearest
        person under the threshold.

    Returns
    -------
    ndarray of str, shape (n,)
        ``"person 1"`` ... in the order in which they first appear.

    Raises
    ------
    ValueError
        For a threshold that is no positive number, or a number of folders that does not fit.
    """
    if isinstance(threshold, bool) or not isinstance(threshold, int | float) or not threshold > 0:
        raise ValueError(f"the distance for one person must be a number above 0, not {threshold!r}")
    n = len(descriptors)
    names = [None] * n if folders is None else list(folders)
    if len(names) != n:
        raise ValueError(f"{n} faces but {len(names)} folders; give one for each face, or None")
    near = cdist(descriptors, descriptors)
    joined = near < threshold
    named = np.array([name is not None for name in names], dtype=bool)
    if named.any():
        own = np.array([name or "" for name in names])
        joined[np.ix_(named, named)] = own[named][:, None] == own[named][None]
        for i in np.flatnonzero(~named):
            candidates = np.where(named & (near[i] < threshold), near[i], np.inf)
            joined[i, named] = joined[named, i] = False
            if np.isfinite(candidates).any():  # it belongs to one named person, and to no other nameless face
                joined[i], joined[:, i] = False, False
                joined[i, np.argmin(candidates)] = True
    _, label = connected_components(joined, directed=False)
    _, first, person = np.unique(label, return_index=True, return_inverse=True)
    order = np.empty(len(first), dtype=int)
    order[np.argsort(first)] = np.arange(len(first))
    return np.array([f"person {order[p] + 1}" for p in person])


def doubtful_pairs(descriptors: np.ndarray, people: np.ndarray, doubt: float = 0.6) -> int:
    """How many pairs of different people are nearer than `doubt`: who might after all be one.

    Parameters
    ----------
    descriptors : ndarray, shape (n, d)
    people : ndarray of str, shape (n,)
    doubt : float, default 0.6
        dlib's own threshold.
    """
    names, person = np.unique(people, return_inverse=True)
    rows, columns = np.nonzero(cdist(descriptors, descriptors) < doubt)
    a, b = person[rows], person[columns]
    pairs = np.unique(a[a < b] * len(names) + b[a < b])
    return len(pairs)
