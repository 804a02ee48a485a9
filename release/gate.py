"""The last gate: a face that counts as hidden must have changed, and no surrogate may show a single photo.

Both compare the structure of faces, whatever their brightness and contrast; a negative counts as unchanged.
"""

from __future__ import annotations

from collections.abc import Sequence

import cv2
import numpy as np

import detection
from datasets import Faces
from release.journal import BLURRED, FILTERED, REPLACED

#: A face is compared at this many pixels per side, by its detail (up to this standard deviation in these pixels) in
#: windows of this standard deviation.
_SIDE, _DETAIL, _WINDOW = 64, 5.0, 4.0
#: Detail below this many grey levels cannot be told from rounding.
_NOISE = 0.6
#: Outcome -> correlation above which detail counts as left. A surrogate resembles its members, a blurred face nobody.
_SAME_DETAIL = {REPLACED: 0.98, FILTERED: 0.95, BLURRED: 0.95}
#: The same where a surrogate is compared with photos.
_SAME_PHOTO = 0.97
#: A face is not hidden if this share of any half of it is left. On 150 photos of groups and single people, surrogates
#: of two people reach 0.22, filters 0.27 and blurred faces 0.00; an unchanged face has 1, one pasted over itself at
#: least 0.72, and half a face at least 0.38.
_LARGEST_SHARE = 0.35
#: Surrogates are compared with the photos whose detail, as a whole, has at least this correlation with theirs.
_WORTH_COMPARING = 0.8
#: Side of the aligned crops in which surrogates are compared, and their zoom (see `detection.aligned_crop`).
_CROP, _ZOOM = 96, 0.85


def is_left(before: np.ndarray, after: np.ndarray, box: Sequence[float], outcome: str) -> bool:
    """Whether a face can still be seen on the image to be released, at least by half.

    Parameters
    ----------
    before, after : ndarray of uint8, shape (h, w, 3)
        The photo and the image, of the same size.
    box : sequence of float
        left, top, right, bottom of the face in pixels.
    outcome : str
        What was done to the face: replaced, filtered or blurred out.

    Returns
    -------
    bool
        True also if the box does not lie on the image, or the sizes differ.
    """
    box = np.asarray(box, dtype=float)
    if before.shape != after.shape or before.dtype != after.dtype or not np.isfinite(box).all():
        return True
    size = before.shape[1::-1]
    left, top = np.clip(np.floor(box[:2]), 0, size).astype(int)
    right, bottom = np.clip(np.ceil(box[2:]), 0, size).astype(int)
    if right <= left or bottom <= top:
        return True
    first, second = (_detail(image[top:bottom, left:right]) for image in (before, after))
    return _share_left(first, second, _SAME_DETAIL[outcome]) > _LARGEST_SHARE


def single_photos(images: Sequence[np.ndarray], faces: Faces) -> list[bool]:
    """Whether each surrogate shows a single photo, also mirrored, instead of a mixture.

    Parameters
    ----------
    images : sequence of c uint8 arrays (h, w, 3)
        The surrogates.
    faces : Faces
        The photos.
    """
    held = _detail_of_faces(faces)
    return [
        any(
            _share_left(photo, drawn, _SAME_PHOTO) > _LARGEST_SHARE
            for view, photos in zip(_detail_of_faces([image]), held, strict=True)
            for drawn in (view[0], view[0][:, ::-1])
            for photo in photos[_correlations(photos, drawn) > _WORTH_COMPARING]
        )
        for image in images
    ]


def _detail_of_faces(images: Faces | Sequence[np.ndarray]) -> tuple[np.ndarray, np.ndarray]:
    """The detail of n aligned faces and of the whole images: (n, 64, 64) each."""
    faces = detection.as_faces(images)
    landmarks = detection.detect(faces).landmarks
    crops = [
        detection.aligned_crop(image, points, _CROP, _ZOOM)
        for image, points in zip(faces.images, landmarks, strict=True)
    ]
    return np.stack([_detail(crop) for crop in crops]), np.stack([_detail(image) for image in faces.images])


def _correlations(photos: np.ndarray, drawn: np.ndarray) -> np.ndarray:
    """Size of the correlation of the detail of n photos (n, 64, 64) with that of an image (64, 64): (n,)."""
    rows, row = photos.reshape(len(photos), -1), drawn.ravel()
    return np.abs(rows @ row) / np.maximum(np.linalg.norm(rows, axis=1) * np.linalg.norm(row), 1e-9)


def _detail(part: np.ndarray) -> np.ndarray:
    """The detail of a part of a photo, without brightness and gradients: float32 (64, 64)."""
    grey = cv2.cvtColor(part, cv2.COLOR_RGB2GRAY).astype(np.float32)
    method = cv2.INTER_AREA if min(part.shape[:2]) > _SIDE else cv2.INTER_LINEAR
    grey = cv2.resize(grey, (_SIDE, _SIDE), interpolation=method)
    return grey - cv2.GaussianBlur(grey, (0, 0), _DETAIL)


def _share_left(before: np.ndarray, after: np.ndarray, same: float) -> float:
    """Largest share of a half of a face whose detail (64, 64) is left, by the correlation in small windows."""
    strengths = [_smooth(detail * detail) for detail in (before, after)]
    clear = [strength > _NOISE**2 for strength in strengths]
    correlation = np.abs(_smooth(before * after)) / np.sqrt(np.maximum(strengths[0] * strengths[1], 1e-9))
    left = clear[0] & clear[1] & (correlation > same)
    return max(float((left & half).sum() / max((clear[0] & half).sum(), 1)) for half in _HALVES)


def _smooth(values: np.ndarray) -> np.ndarray:
    return cv2.GaussianBlur(values, (0, 0), _WINDOW)


def _halves() -> np.ndarray:
    """The left, right, upper and lower half of a face in its box: bool (4, 64, 64)."""
    rows, columns = (np.mgrid[:_SIDE, :_SIDE] + 0.5) / _SIDE - 0.5
    face = np.hypot(rows, columns) < 0.45
    return np.stack([face & half for half in (columns < 0, columns > 0, rows < 0, rows > 0)])


_HALVES = _halves()
