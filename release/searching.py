"""Search photos and released images for faces, and fail closed where the detector does.

A photo is released only if a detector has searched it without an error, and if every face on the result is explained
by what the run did to it.
"""

from __future__ import annotations

from collections.abc import Mapping, Sequence

import numpy as np

import detection
from detection import Spot
from release.journal import KEPT

#: A face on the result is explained by an edited face if it is at most this many times as large.
_LARGEST = 2.0
#: It is a kept face if their centres are closer than this share of the larger one's size, and their sizes differ by at
#: most this factor.
_SAME_PLACE, _SAME_SIZE = 0.3, 1.6


class SearchError(RuntimeError):
    """The face detector failed, or what it returned cannot be a face; the message says how."""


def search(image: np.ndarray, thorough: bool = True) -> tuple[Spot, ...]:
    """Find all faces as `detection.find_faces` does, and check each of them.

    Parameters
    ----------
    image : ndarray of uint8, shape (h, w, 3)
    thorough : bool, default True

    Returns
    -------
    tuple of Spot

    Raises
    ------
    SearchError
        If the detector raises any error, or returns a box that is empty or outside the image, or a number that is not
        finite.
    """
    try:
        spots = tuple(detection.find_faces(image, thorough))
    except Exception as error:  # a photo that was not searched must not be released, whatever the reason
        text = f"{type(error).__name__}: {error}".splitlines()[0]
        raise SearchError(f"the face detector failed ({text})") from error
    for spot in spots:
        fault = _fault(spot, *image.shape[:2])
        if fault:
            raise SearchError(f"the face detector returned {fault}")
    return spots


def _fault(spot: Spot, height: int, width: int) -> str:
    """What is wrong with a face; empty if nothing is."""
    box, landmarks = np.asarray(spot.box, dtype=float), np.asarray(spot.landmarks, dtype=float)
    if box.shape != (4,) or landmarks.shape != (68, 2):
        return "a face without box or landmarks"
    numbers = [box, landmarks, spot.score] + ([] if spot.transform is None else [spot.transform])
    if not all(np.isfinite(values).all() for values in numbers):
        return "a face whose coordinates are not finite"
    left, top, right, bottom = box
    if right <= left or bottom <= top:
        return "an empty box"
    if right <= 0 or bottom <= 0 or left >= width or top >= height:
        return "a box outside the photo"
    return ""


def unexplained(spots: Sequence[Spot], faces: Sequence[Mapping]) -> list[Spot]:
    """Return the faces on a released image that the run did not edit or keep.

    A face is explained by an edited one if its centre lies in the ellipse inside that one's box, and it is not much
    larger. A kept face explains only itself.

    Parameters
    ----------
    spots : sequence of Spot
        The faces on the image.
    faces : sequence of mappings
        What the run did: each with ``outcome`` and ``box`` (left, top, right, bottom in pixels of the image).
    """
    kept = [_circle(face["box"]) for face in faces if face["outcome"] == KEPT]
    edited = [np.asarray(face["box"], dtype=float) for face in faces if face["outcome"] != KEPT]
    rest = []
    for spot in spots:
        if any(_covers(box, spot.box) for box in edited):
            continue
        own = next((i for i, circle in enumerate(kept) if _same_face(circle, _circle(spot.box))), None)
        if own is None:
            rest.append(spot)
        else:
            del kept[own]
    return rest


def _circle(box: Sequence[float]) -> tuple[np.ndarray, float]:
    """Centre (2,) and size of a box."""
    corners = np.reshape(np.asarray(box, dtype=float), (2, 2))
    return corners.mean(axis=0), float((corners[1] - corners[0]).mean())


def _covers(box: np.ndarray, other: Sequence[float]) -> bool:
    (centre, size), (other_centre, other_size) = _circle(box), _circle(other)
    radii = np.maximum((box[2:] - box[:2]) / 2, 1e-9)
    return bool(np.hypot(*((other_centre - centre) / radii)) <= 1 and other_size <= _LARGEST * size)


def _same_face(first: tuple[np.ndarray, float], second: tuple[np.ndarray, float]) -> bool:
    (centre, size), (other_centre, other_size) = first, second
    larger, smaller = max(size, other_size), min(size, other_size)
    apart = np.linalg.norm(centre - other_centre)
    return bool(apart < _SAME_PLACE * larger and larger < _SAME_SIZE * smaller)
