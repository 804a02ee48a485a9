"""Find given people among the faces of a folder: whom to keep as they are, or whom alone to replace.

The user gives photos of these people, one face on each. Distances are those of dlib's descriptor, because the limits
below were measured with it. Both rules fail closed: in doubt, a face is hidden.
"""

from __future__ import annotations

from collections.abc import Callable
from pathlib import Path

import numpy as np
import scipy

import embedding
from checks import ParameterError
from datasets import Faces
from release.gathering import list_photos, open_photos
from release.people import group_people

#: A face is kept only if it is closer than this to a person's photos; people are joined up to 0.5.
KEEP_DISTANCE = 0.45
#: ... and if all other people, and all other faces on the photo, are further away by this much.
_KEEP_MARGIN = 0.05
#: A face is left as it is only if all its person's faces are further than this from the people to replace.
ONLY_DISTANCE = 0.65


def read_references(folder: Path, option: str, thorough: bool = True, workers: int = 1) -> Faces:
    """Read photos of given people, and tell the people apart.

    Parameters
    ----------
    folder : Path
        Photos of one or several people, one face on each.
    option : str
        The option that names it, for messages.
    thorough, workers
        See `release.gathering.open_photos`.

    Returns
    -------
    Faces
        Upright crops, with ``"person 1"``, ``"person 2"``, ... as identities.

    Raises
    ------
    ParameterError
        If a photo cannot be read, or does not show exactly one face that can be compared; the message names it.
    """
    photos = open_photos(list_photos(folder, option), thorough, workers)
    for photo in photos:
        fault = photo.damage or photo.failure
        if not fault and len(photo.spots) != 1:
            fault = f"{len(photo.spots) or 'no'} faces were found"
        if not fault and photo.spots[0].reason:
            fault = f"the face cannot be compared ({photo.spots[0].reason})"
        if fault:
            raise ParameterError(f"{photo.path}: {fault}; {folder} must hold photos with one clear face each")
    crops = [photo.spots[0].crop for photo in photos]
    return Faces.of(crops, group_people(embedding.embed(crops, "dlib")), source="references")


def reference_distances(faces: Faces, references: Faces) -> np.ndarray:
    """Distance of each of n faces to the nearest photo of each of r people: (n, r)."""
    held = embedding.embed(references, "dlib")
    near = scipy.spatial.distance.cdist(embedding.embed(faces, "dlib"), held)
    return np.stack(
        [near[:, references.identities == name].min(axis=1) for name in references.people], axis=1
    )


def _keep(distances: np.ndarray, people: np.ndarray, photo: np.ndarray) -> np.ndarray:
    """Which faces surely show a person to keep; see `RULES`."""
    kept = np.zeros(len(people), dtype=bool)
    for near in np.nan_to_num(distances, nan=np.inf).T:
        names, person = np.unique(people, return_inverse=True)
        nearest = np.full(len(names), np.inf)
        np.minimum.at(nearest, person, near)
        first, *others = np.argsort(nearest, kind="stable")
        if len(near) > 1 and np.ptp(near) == 0:
            continue  # no description tells the faces apart
        if nearest[first] >= KEEP_DISTANCE:
            continue
        if len(others) and nearest[others[0]] - nearest[first] < _KEEP_MARGIN:
            continue  # two people are about as near
        for i in np.flatnonzero((person == first) & (near < KEEP_DISTANCE)):
            beside = (photo == photo[i]) & (np.arange(len(people)) != i)
            kept[i] |= near[beside].min(initial=np.inf) - near[i] >= _KEEP_MARGIN
    return kept


def _only(distances: np.ndarray, people: np.ndarray, photo: np.ndarray) -> np.ndarray:
    """Which faces surely do not show a person to replace; see `RULES`."""
    meant = people[~(distances >= ONLY_DISTANCE).all(axis=1)]  # NaN counts as near
    return ~np.isin(people, meant)


#: Option -> function (distances (n, r), people (n,), photo (n,)) that says which faces stay as they are: bool (n,).
RULES: dict[str, Callable[[np.ndarray, np.ndarray, np.ndarray], np.ndarray]] = {"keep": _keep, "only": _only}
