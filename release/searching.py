"""Search photos and released images for faces, and fail closed where the detector does.

A photo is released only if a detector has searched it without an error, and if every face on the result is explained
by what the run did to it. A known face, drawn on a picture, shows whether the detector works.
"""

from __future__ import annotations

from collections.abc import Callable, Mapping, Sequence
from functools import lru_cache

import numpy as np

import datasets
import detection
from detection import Spot
from release.journal import KEPT

#: A face on the result is explained by an edited face if it is at most this many times as large.
_LARGEST = 2.0
#: It is a kept face if their centres are closer than this share of the larger one's size, and their sizes differ by at
#: most this factor.
_SAME_PLACE, _SAME_SIZE = 0.3, 1.6
#: The known face takes this share of a picture's smaller side, which has at least this many pixels.
_KNOWN_SHARE, _KNOWN_SIDE = 0.6, 320
#: The box of the known face in its photo.
_KNOWN_BOX = (9, 13, 83, 110)


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
    return _checked(lambda: tuple(detection.find_faces(image, thorough)), _fault, image)


def search_boxes(image: np.ndarray) -> np.ndarray:
    """Find the boxes (m, 4) of all upright faces as `detection.find_boxes` does, and check each of them.

    Raises
    ------
    SearchError
        As `search` does.
    """
    return _checked(lambda: np.asarray(detection.find_boxes(image), dtype=float), _fault_of_box, image)


def _checked(find: Callable, fault: Callable[..., str], image: np.ndarray):
    """What the detector finds; raise SearchError if it fails, or if anything that it found has a fault."""
    try:
        found = find()
    except Exception as error:  # a photo that was not searched must not be released, whatever the reason
        raise SearchError(f"the face detector failed ({in_words(error)})") from error
    for one in found:
        problem = fault(one, *image.shape[:2])
        if problem:
            raise SearchError(f"the face detector returned {problem}")
    return found


def in_words(error: Exception) -> str:
    """The kind of an error and the first line of its message."""
    return f"{type(error).__name__}: {error}".splitlines()[0]


def check_detector(picture: np.ndarray) -> None:
    """Check that a known face, drawn on the middle of a picture (h, w, 3), is found where it is.

    Raises
    ------
    SearchError
        If it is not, or the detector fails.
    """
    picture = detection.resize(picture, max(1.0, _KNOWN_SIDE / min(picture.shape[:2]))).copy()
    face, box = _known_face()
    scale = _KNOWN_SHARE * min(picture.shape[:2]) / face.shape[0]
    face = detection.resize(face, scale)
    left, top = (np.array(picture.shape[1::-1]) - face.shape[1::-1]) // 2
    picture[top : top + face.shape[0], left : left + face.shape[1]] = face
    place = _circle(box * scale + [left, top, left, top])
    if not any(_same_face(place, _circle(spot.box)) for spot in search(picture)):
        raise SearchError("the face detector did not find a known face")


@lru_cache(maxsize=1)
def _known_face() -> tuple[np.ndarray, np.ndarray]:
    """A photo of the built-in people, uint8 (112, 92, 3), and the box of its face."""
    return datasets.built_in("orl").images[0], np.array(_KNOWN_BOX, dtype=float)


def _fault(spot: Spot, height: int, width: int) -> str:
    """What is wrong with a face; empty if nothing is."""
    box, landmarks = np.asarray(spot.box, dtype=float), np.asarray(spot.landmarks, dtype=float)
    if box.shape != (4,) or landmarks.shape != (68, 2):
        return "a face without box or landmarks"
    numbers = [box, landmarks, spot.score] + ([] if spot.transform is None else [spot.transform])
    if not all(np.isfinite(values).all() for values in numbers):
        return "a face whose coordinates are not finite"
    return _fault_of_box(box, height, width)


def _fault_of_box(box: np.ndarray, height: int, width: int) -> str:
    """What is wrong with a box (4,); empty if nothing is."""
    if box.shape != (4,) or not np.isfinite(box).all():
        return "a face without box, or whose coordinates are not finite"
    left, top, right, bottom = box
    if right <= left or bottom <= top:
        return "an empty box"
    if right <= 0 or bottom <= 0 or left >= width or top >= height:
        return "a box outside the photo"
    return ""


def unexplained(boxes: Sequence[Sequence[float]], faces: Sequence[Mapping]) -> list[int]:
    """Return which faces on a released image the run did not edit or keep.

    A face is explained by an edited one if its centre lies in the ellipse inside that one's box, and it is not much
    larger. A kept face explains only itself.

    Parameters
    ----------
    boxes : sequence of m sequences of float
        left, top, right, bottom of the faces on the image, in pixels.
    faces : sequence of mappings
        What the run did: each with ``outcome`` and ``box``.

    Returns
    -------
    list of int
        Indices of boxes.
    """
    kept = [_circle(face["box"]) for face in faces if face["outcome"] == KEPT]
    edited = [np.asarray(face["box"], dtype=float) for face in faces if face["outcome"] != KEPT]
    rest = []
    for number, box in enumerate(boxes):
        if any(_covers(other, box) for other in edited):
            continue
        own = next((i for i, circle in enumerate(kept) if _same_face(circle, _circle(box))), None)
        if own is None:
            rest.append(number)
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
