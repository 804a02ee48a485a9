"""The review of a release by eye: what to look at first, and faces outlined by what became of them."""

from __future__ import annotations

from collections import Counter
from collections.abc import Mapping, Sequence
from dataclasses import dataclass

import cv2
import numpy as np

from detection import Spot
from release.journal import BLURRED, FILTERED, KEPT, REPLACED
from release.pose import Pose

#: Outcome of a face -> colour of its outline (Okabe and Ito, which colour-blind people can tell apart, too).
COLOURS = {REPLACED: (0, 158, 115), FILTERED: (0, 114, 178), BLURRED: (230, 159, 0), KEPT: (204, 51, 160)}

#: A face is doubtful if its score is below this ...
_LOW_SCORE = 0.6
#: ... if it is narrower than this, in pixels of the photo ...
_SMALL = 40
#: ... or if its head is turned by more than this, in degrees.
_TURNED = 35.0
#: A photo with at least this many faces may hide a further one.
_MANY = 8

#: What may concern a photo -> its words, the most urgent first.
_CONCERNS = {
    BLURRED: "faces blurred out", "uncertain": "doubtful faces", "small": "small faces", "turned": "turned faces",
    "many": "many faces",
}  # fmt: skip


def doubts(spot: Spot) -> list[str]:
    """Why a face should be looked at; empty if the detector and its landmarks are sure."""
    forward = Pose.fit(spot.landmarks).rotation[2, 2]
    found = {
        "small": spot.box[2] - spot.box[0] < _SMALL,
        "uncertain": spot.score < _LOW_SCORE,
        "turned": np.degrees(np.arccos(np.clip(forward, -1, 1))) > _TURNED,
    }
    return [doubt for doubt, applies in found.items() if applies]


@dataclass(frozen=True)
class Reviewed:
    """A released photo, and why to look at it.

    Attributes
    ----------
    number : int
        Its row in the plan.
    faces : list of dict
        The journal's records.
    concerns : tuple of str
        Empty if nothing is special.
    """

    number: int
    faces: list[dict]
    concerns: tuple[str, ...]


def review(records: Mapping[int, dict]) -> list[Reviewed]:
    """Sort the released photos, those to look at first in front.

    Parameters
    ----------
    records : mapping of int to dict
        The journal's record of each released photo.
    """
    photos = [Reviewed(i, record["faces"], _concerns(record["faces"])) for i, record in records.items()]
    return sorted(photos, key=lambda photo: (-_weight(photo), photo.number))


def _concerns(faces: Sequence[dict]) -> tuple[str, ...]:
    if not faces:
        return ("no face",)
    found = {doubt for face in faces for doubt in (*face["doubts"], face["outcome"])}
    if len(faces) >= _MANY:
        found.add("many")
    return tuple(words for concern, words in _CONCERNS.items() if concern in found)


def _weight(photo: Reviewed) -> int:
    """Number of faces to look at, or of all faces where a further one may be hidden."""
    if not photo.concerns:
        return 0
    doubtful = sum(bool(face["doubts"]) or face["outcome"] == BLURRED for face in photo.faces)
    return max(doubtful, len(photo.faces) if len(photo.faces) >= _MANY else 1)


def advise(photos: Sequence[Reviewed]) -> str:
    """Say how many photos to look at first, and why; empty without photos."""
    kinds = Counter(concern for photo in photos for concern in photo.concerns)
    if not kinds:
        return f"Look through the photos in the report ({len(photos)}); none stands out." if photos else ""
    why = ", ".join(f"{number} with {kind}" for kind, number in kinds.most_common())
    n_first = sum(bool(photo.concerns) for photo in photos)
    return f"Look at {n_first} of {len(photos)} photos in the report first: {why}."


def outlined(image: np.ndarray, boxes: Sequence[Sequence[float]], faces: Sequence[dict]) -> np.ndarray:
    """Outline and number the faces on a picture in the colours of their outcomes.

    Parameters
    ----------
    image : ndarray of uint8, shape (h, w, 3)
    boxes : sequence of (left, top, right, bottom)
        In pixels of the image.
    faces : sequence of dict
        The journal's records.

    Returns
    -------
    ndarray of uint8, shape (h, w, 3)
    """
    result, width = image.copy(), max(2, round(max(image.shape) / 450))
    for number, (box, face) in enumerate(zip(boxes, faces, strict=True), start=1):
        colour = COLOURS[face["outcome"]]
        left, top, right, bottom = (round(side) for side in box)
        cv2.rectangle(result, (left, top), (right, bottom), colour, width)
        corner = (max(left, 0), max(top - 2 * width, 8 * width))
        for thickness, ink in ((3 * width, (255, 255, 255)), (width, colour)):
            cv2.putText(result, str(number), corner, cv2.FONT_HERSHEY_SIMPLEX, 0.3 * width, ink, thickness)
    return result
