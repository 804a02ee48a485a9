"""Is an image a photo, or a changed copy of one? Each function compares c images with g photos: bool (c,)."""

from __future__ import annotations

from collections.abc import Sequence

import cv2
import numpy as np

import detection
from release.writing import pixel_key
from utility import appearance

#: An image counts as a copy if the similarity of its coarse structure to a photo's exceeds this. On the built-in faces,
#: photos under strong compression, noise or a slight blur reach 0.94 to 0.99, surrogates of two people at most 0.80,
#: different photos of the same person 0.91.
_NEAR_SIMILARITY = 0.94
#: Structure is compared after a blur that removes noise and blocking artefacts, at this side and contrast.
_COARSE_SIDE, _COARSE_BLUR, _COARSE_CONTRAST = 56, 1.5, 40.0
#: Side of the thumbnails that select pairs worth comparing, and the correlation that a pair needs.
_THUMBNAIL, _WORTH_COMPARING = 32, 0.85

#: Number of keypoints of a picture, and its longer side in pixels when they are computed.
_KEYPOINTS, _KEYPOINT_SIDE = 120, 240
#: An image counts as a copy, even if rotated, cropped or inverted, if this many keypoints, and this share of the
#: smaller set, match a photo's layout. The share is 0.55 to 0.62 for rotated photos, 1 for negatives, and at least 0.42
#: for mixtures of 70 and 30 %; at most 0.25 for other photos of the person, and 0.31 for mean photos of two people.
_AGREEING, _AGREEING_SHARE = 15, 0.36
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


# ----------------------------------------------------------------------------------------------------------
# Structure
# ----------------------------------------------------------------------------------------------------------


def same_structure(
    images: Sequence[np.ndarray], photos: Sequence[np.ndarray], landmarks: np.ndarray
) -> np.ndarray:
    """Whether an image has the structure of a photo or of its mirror image, around the face: bool (c,).

    Parameters
    ----------
    images, photos : sequence of uint8 arrays (h, w, 3)
    landmarks : ndarray, shape (g, 68, 2)
        Landmarks of the photos.
    """
    seen = detection.detect(images)
    # Aligned grey crops of the photos (g, 112, 112), and thumbnails of crops and whole photos. (g, 1024) each
    held = np.stack([_crop(photo, points) for photo, points in zip(photos, landmarks, strict=True)])
    thumbnails, wholes = _thumbnails(held), _thumbnails([_grey(photo) for photo in photos])
    result = np.zeros(len(images), dtype=bool)
    for i, image in enumerate(images):
        # Choose the pairs (photo, crop of the image) that are worth comparing.
        if seen.found[i]:
            crop = _crop(image, seen.landmarks[i])
            pairs = [(g, turned) for turned in (crop, crop[:, ::-1]) for g in _similar(turned, thumbnails)]
        else:  # the face is covered: crop the image where similar photos have theirs
            places = [g for g in _similar(_grey(image), wholes) if photos[g].shape == image.shape]
            pairs = [(g, _crop(image, landmarks[g])) for g in places]
        result[i] = any(
            appearance.structural_similarity(_coarse(held[g]), _coarse(crop)) > _NEAR_SIMILARITY
            for g, crop in pairs
        )
    return result


def _crop(image: np.ndarray, landmarks: np.ndarray) -> np.ndarray:
    """The aligned face in greyscale: uint8 (112, 112)."""
    return _grey(detection.aligned_crop(image, landmarks, appearance.CROP_SIZE, appearance.CROP_ZOOM))


def _grey(image: np.ndarray) -> np.ndarray:
    return cv2.cvtColor(image, cv2.COLOR_RGB2GRAY)


def _thumbnails(crops: Sequence[np.ndarray]) -> np.ndarray:
    """Thumbnails of n grey images, with mean 0 and length 1: (n, 1024)."""
    small = [cv2.resize(crop, (_THUMBNAIL, _THUMBNAIL), interpolation=cv2.INTER_AREA) for crop in crops]
    rows = np.stack(small).reshape(len(small), -1).astype(np.float64)
    rows -= rows.mean(axis=1, keepdims=True)
    return rows / np.maximum(np.linalg.norm(rows, axis=1, keepdims=True), 1e-9)


def _similar(crop: np.ndarray, thumbnails: np.ndarray) -> np.ndarray:
    """Rows of the thumbnails (n, 1024) that are similar to a grey image."""
    return np.flatnonzero(thumbnails @ _thumbnails(crop[None])[0] > _WORTH_COMPARING)


def _coarse(crop: np.ndarray) -> np.ndarray:
    """Remove noise, compression artefacts and brightness from a grey crop: (56, 56), mean 128."""
    size = (_COARSE_SIDE, _COARSE_SIDE)
    small = cv2.resize(cv2.GaussianBlur(crop, (0, 0), _COARSE_BLUR), size, interpolation=cv2.INTER_AREA)
    centred = small.astype(np.float64) - small.mean()
    return centred / max(centred.std(), 1e-9) * _COARSE_CONTRAST + 128


# ----------------------------------------------------------------------------------------------------------
# Keypoints
# ----------------------------------------------------------------------------------------------------------


def same_keypoints(images: Sequence[np.ndarray], photos: Sequence[np.ndarray]) -> np.ndarray | None:
    """Whether an image's keypoints match a photo's layout, also mirrored or as a negative: bool (c,).

    None if there are too many pairs to compare. Lowe, "Distinctive image features from scale-invariant keypoints",
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
    held, similarity = [_keypoints(photo) for photo in photos], np.zeros((len(variants), len(photos)))
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
    grey = _grey(image)
    grey = detection.resize(grey, _KEYPOINT_SIDE / max(grey.shape))
    detector = cv2.SIFT_create(nfeatures=_KEYPOINTS, contrastThreshold=0.02)
    points, descriptors = detector.detectAndCompute(grey, None)
    if descriptors is None:
        return np.zeros((0, 2), np.float32), np.zeros((0, 128), np.float32)
    shares = descriptors / np.maximum(descriptors.sum(axis=1, keepdims=True), 1e-9)
    return np.float32([point.pt for point in points]), np.sqrt(shares)


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
