"""Blur, pixelate and mask: the usual baselines. Each changes one photo at a time, so none is k-anonymous.

Recognisers trained on filtered images can identify the people (McPherson, Shokri and Shmatikov, "Defeating image
obfuscation with deep learning", arXiv 1609.00408), so these filters are only baselines.
"""

from __future__ import annotations

import cv2
import numpy as np

import detection
from anonymizer.base import PhotoFilter
from checks import check_number
from datasets import Faces

_GREY = 127
#: Landmarks are of no use if one is further away than this many times the photo's longer side, or if the face that they
#: outline covers less than this share of the photo.
_FARTHEST, _LEAST_SHARE = 10, 1e-3


class _FaceFilter(PhotoFilter):
    """Changes the face including the forehead, or the whole photo if no face was found there."""

    def __init__(self, faces: Faces):
        super().__init__(faces)
        self.found = detection.detect(faces).found

    def _face(self, image: np.ndarray, i: int) -> tuple[np.ndarray, float]:
        """Return the mask of the face, float32 (h, w, 1) of 0 and 1, and its width in pixels."""
        height, width = image.shape[:2]
        area = np.zeros((height, width), dtype=np.uint8)
        points = detection.add_forehead(self.landmarks[i])
        if self.found[i] and (np.abs(points) < _FARTHEST * max(height, width)).all():  # not for NaN
            cv2.fillConvexPoly(area, cv2.convexHull(np.rint(points).astype(np.int32)), 1)
        if area.mean() < _LEAST_SHARE:
            return np.ones((height, width, 1), dtype=np.float32), float(width)
        return area[..., None].astype(np.float32), float(np.ptp(self.landmarks[i][:, 0]))


class Blur(_FaceFilter):
    """Gaussian blur of the face.

    Parameters
    ----------
    faces : Faces
    strength : float, default 0.1
        Standard deviation as a share of the face's width, above 0 and at most 10.
    """

    name = "blur"

    def __init__(self, faces: Faces, strength: float = 0.1):
        super().__init__(faces)
        self.strength = float(check_number("strength", strength, above=0, at_most=10))

    def _options(self) -> dict:
        return {"strength": self.strength}

    def _change(self, image: np.ndarray, i: int) -> np.ndarray:
        area, width = self._face(image, i)
        sigma = max(1.0, self.strength * width)
        blurred = cv2.GaussianBlur(image, (0, 0), sigma)
        edge = cv2.GaussianBlur(area, (0, 0), max(0.5, sigma / 4))[..., None]
        edge = np.maximum(edge, area)  # a soft edge outside the face, and full blur inside
        return np.rint(image * (1 - edge) + blurred * edge).astype(np.uint8)


class Pixelate(_FaceFilter):
    """The face as a mosaic.

    Parameters
    ----------
    faces : Faces
    blocks : int, default 8
        Number of blocks across the face's width, at least 1.
    """

    name = "pixelate"

    def __init__(self, faces: Faces, blocks: int = 8):
        super().__init__(faces)
        self.blocks = int(check_number("blocks", blocks, int, at_least=1))

    def _options(self) -> dict:
        return {"blocks": self.blocks}

    def _change(self, image: np.ndarray, i: int) -> np.ndarray:
        area, width = self._face(image, i)
        side = max(2, round(width / self.blocks))  # blocks of one pixel would leave the photo unchanged
        # Pad the photo to full blocks, average each, and crop the mosaic to the photo's size.
        rows, columns = -(-image.shape[0] // side), -(-image.shape[1] // side)
        padding = (0, rows * side - image.shape[0], 0, columns * side - image.shape[1])
        padded = cv2.copyMakeBorder(image, *padding, cv2.BORDER_REPLICATE)
        means = padded.reshape(rows, side, columns, side, 3).mean(axis=(1, 3))  # (rows, columns, 3)
        mosaic = np.repeat(np.repeat(means, side, axis=0), side, axis=1)[: image.shape[0], : image.shape[1]]
        return np.where(area > 0, np.rint(mosaic), image).astype(np.uint8)


class Mask(_FaceFilter):
    """A grey patch over the face."""

    name = "mask"

    def _change(self, image: np.ndarray, i: int) -> np.ndarray:
        area, _ = self._face(image, i)
        return np.where(area > 0, _GREY, image).astype(np.uint8)


class Unchanged(PhotoFilter):
    """The unchanged photo: the baseline that shows what an adversary can do without anonymization."""

    name = "none"

    def _change(self, image: np.ndarray, i: int) -> np.ndarray:
        return image.copy()
