"""Which region of the face gives people away?"""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import replace

import cv2
import numpy as np

import checks
import detection
import intervals
from attacks.cases import AttackResult, DescribedRelease, Gallery
from attacks.search import identification

#: Region -> its landmarks. The outline is all that is not inside the brows, eyes, nose and mouth.
_LANDMARKS = {
    "eyes": [*range(17, 27), *range(36, 48)],
    "nose": [*range(27, 36)],
    "mouth": [*range(48, 68)],
    "outline": [*range(17, 68)],
}

#: Margin around a region, and deviation of the blur that hides it, in distances between the outer eye corners.
_MARGIN, _BLUR = 0.08, 0.3


def mask_regions(images: Sequence[np.ndarray]) -> dict[str, list[np.ndarray]]:
    """Hide each region in turn: name -> images, uint8 (h, w, 3).

    A region is replaced by a strong blur of the image, so that the face can still be found and aligned.
    """
    places = detection.detect(images).landmarks
    masked = [_mask_each(image, points) for image, points in zip(images, places, strict=True)]
    return {name: [one[name] for one in masked] for name in _LANDMARKS}


def _mask_each(image: np.ndarray, landmarks: np.ndarray) -> dict[str, np.ndarray]:
    eyes = max(float(np.linalg.norm(landmarks[45] - landmarks[36])), 1.0)
    blurred = cv2.GaussianBlur(image, (0, 0), _BLUR * eyes)
    margin = max(1, round(_MARGIN * eyes))
    masked = {}
    for name, places in _LANDMARKS.items():
        outline = cv2.convexHull(np.rint(landmarks[places]).astype(np.int32))
        inside = cv2.fillConvexPoly(np.zeros(image.shape[:2], np.uint8), outline, 1)
        inside = cv2.dilate(inside, np.ones((2 * margin + 1, 2 * margin + 1), np.uint8))
        hidden = (inside == 0) if name == "outline" else (inside > 0)
        masked[name] = np.where(hidden[..., None], blurred, image)
    return masked


def region(
    release: DescribedRelease,
    masked: Sequence[tuple[str, DescribedRelease]],
    gallery: Gallery,
    *,
    random_state=0,
) -> list[AttackResult]:
    """Search by images in which one region is hidden: what the search loses, the region had given away.

    Threat model: as for `attacks.identification`; the attacker sees less than the release.

    Parameters
    ----------
    release : DescribedRelease
    masked : sequence of (str, DescribedRelease)
        Region and the same release without it, see `mask_regions`; it may lack the last images.
    gallery : Gallery
        Original photos, not masked.
    random_state : int, RandomState or None, default 0

    Returns
    -------
    list of AttackResult
        ``"without the eyes"`` ..., rank 1 at cluster level. The note gives the change from the whole face, over people
        whose image shows a face in both.

    Raises
    ------
    NotApplicableError
        If `masked` is empty.
    """
    if not masked:
        raise checks.NotApplicableError("needs images with hidden regions")

    def search(images: DescribedRelease) -> AttackResult:
        return identification(images, gallery, [1], random_state=random_state)[1]

    whole, results = search(release).per_person, []
    for name, images in masked:
        result = search(images)
        both = whole.merge(result.per_person, on=["person", "image"])
        both = both[~(both["failed_x"] | both["failed_y"])]
        note = f"{intervals.mean(both['success_y'] - both['success_x']):+.3f} from the whole face"
        results.append(replace(result, attack=f"without the {name}", note=note))
    return results
