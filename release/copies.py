"""Is an image a photo, or a changed copy of one? Each function compares c images with g photos: bool (c,)."""

from __future__ import annotations

from collections.abc import Sequence

import cv2
import numpy as np

import detection
from release.writing import pixel_key

#: Number of keypoints of a picture, and its longer side in pixels when they are computed.
_KEYPOINTS, _KEYPOINT_SIDE = 120, 240
#: An image counts as a copy, even if rotated, cropped or inverted, if this many keypoints, and this share of the
#: smaller set, match a photo's layout. The share is 0.55 to 0.62 for rotated photos, 1 for negatives, and at least 0.42
#: for mixtures of 70 and 30 %; at most 0.25 for other photos of the person, and 0.31 for mean photos of two people.
_AGREEING, _AGREEING_SHARE = 15, 0.49
#: Largest distance, in pixels, between keypoints that agree.
_AGREEING_PIXELS = 5.0
#: Number of most similar photos whose keypoints are compared one by one with an image's.
_LIKELY_PHOTOS = 3
#: Keypoints are compared for at most this many pairs of image and photo.
_KEYPOINT_PAIRS = 400_000


def same_pixels(images: Sequence[np.ndarray], photos: Sequence[np.ndarray]) -> np.ndarray:
    """Whether an image has the same pixels as a photo, possibly mirrored or rotated by quarter turns: bool (c,)."""
    known = set()
    for photo in photos:
        for turned in (np.rot90(photo, quarter) for quarter in range(4)):
            known |= {pixel_key(np.ascontiguousarray(one)) for one in (turned, turned[:, ::-1])}
    return np.array([pixel_key(image) in known for image in images])


def same_keypoints(
    images: Sequence[np.ndarray], photos: Sequence[np.ndarray], landmarks: np.ndarray
) -> np.ndarray | None:
    """Whether an image's keypoints match the layout of those on a photo's face, also mirrored or as a negative.

    Hair and background are left out: filters and pasting leave them as they are.

    Parameters
    ----------
    images, photos : sequence of c and g uint8 arrays (h, w, 3)
    landmarks : ndarray, shape (g, 68, 2)
        Landmarks of the photos.

    Returns
    -------
    ndarray of bool, shape (c,), or None
        None if there are too many pairs to compare.

    References
    ----------
    Lowe, "Distinctive image features from scale-invariant keypoints",
    IJCV 60(2), 2004, compared as in Arandjelović and Zisserman, "Three things everyone should know to improve object
    retrieval", CVPR 2012.
    """
    if len(images) * len(photos) > _KEYPOINT_PAIRS:
        return None
    # Four variants of each image: as it is, mirrored, and the negatives of both.
    variants = [
        (i, _keypoints(one))
        for i, image in enumerate(images)
        for turned in (image, np.ascontiguousarray(image[:, ::-1]))
        for one in (turned, 255 - turned)
    ]
    variants = [(i, found) for i, found in variants if len(found[0]) >= _AGREEING]
    if not variants:
        return np.zeros(len(images), dtype=bool)
    # Similarity of each variant to each photo: the sum of its keypoints' best matches. (variants, g)
    described = np.concatenate([found[1] for _, found in variants])
    starts = np.cumsum([0, *(len(found[1]) for _, found in variants[:-1])])
    held = [_on_face(photo, points) for photo, points in zip(photos, landmarks, strict=True)]
    similarity = np.zeros((len(variants), len(photos)))
    for g, (points, descriptors) in enumerate(held):
        if len(points) >= _AGREEING:
            similarity[:, g] = np.add.reduceat((described @ descriptors.T).max(axis=1), starts)
    # Compare keypoint positions with those of the most similar photos.
    result = np.zeros(len(images), dtype=bool)
    for (i, found), row in zip(variants, similarity, strict=True):
        likely = [g for g in np.argsort(-row, kind="stable")[:_LIKELY_PHOTOS] if row[g] > 0]
        result[i] |= any(_placed_alike(found, held[g]) for g in likely)
    return result


def _keypoints(image: np.ndarray) -> tuple[np.ndarray, np.ndarray]:
    """Positions (m, 2) and unit-length descriptors (m, 128) of an image's keypoints."""
    grey = cv2.cvtColor(image, cv2.COLOR_RGB2GRAY)
    grey = detection.resize(grey, _KEYPOINT_SIDE / max(grey.shape))
    detector = cv2.SIFT_create(nfeatures=_KEYPOINTS, contrastThreshold=0.02)
    points, descriptors = detector.detectAndCompute(grey, None)
    if descriptors is None:
        return np.zeros((0, 2), np.float32), np.zeros((0, 128), np.float32)
    shares = descriptors / np.maximum(descriptors.sum(axis=1, keepdims=True), 1e-9)
    return np.float32([point.pt for point in points]), np.sqrt(shares)


def _on_face(photo: np.ndarray, landmarks: np.ndarray) -> tuple[np.ndarray, np.ndarray]:
    """Keypoints on the face of a photo, as of `_keypoints`."""
    points, descriptors = _keypoints(photo)
    outline = cv2.convexHull(detection.add_forehead(landmarks).astype(np.float32))
    scale = max(photo.shape[:2]) / _KEYPOINT_SIDE
    inside = [cv2.pointPolygonTest(outline, tuple(map(float, point)), False) >= 0 for point in points * scale]
    rows = np.flatnonzero(inside)
    return points[rows], descriptors[rows]


def _placed_alike(first: tuple[np.ndarray, np.ndarray], second: tuple[np.ndarray, np.ndarray]) -> bool:
    """Whether one shift, rotation and scale maps enough keypoints to their mutual best matches."""
    products = first[1] @ second[1].T
    there, back = products.argmax(axis=1), products.argmax(axis=0)
    mutual = np.flatnonzero(back[there] == np.arange(len(there)))
    if len(mutual) < _AGREEING:
        return False
    cv2.setRNGSeed(0)
    _, agreeing = cv2.estimateAffinePartial2D(
        first[0][mutual], second[0][there[mutual]], method=cv2.RANSAC, ransacReprojThreshold=_AGREEING_PIXELS
    )
    count = 0 if agreeing is None else int(agreeing.sum())
    return count >= max(_AGREEING, _AGREEING_SHARE * min(len(first[0]), len(second[0])))
