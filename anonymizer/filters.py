"""Blur, pixelate and mask: the baselines that every reader asks for. One photo in, one out; never k-anonymous.

Recognisers trained on such images see through them (McPherson, Shokri and Shmatikov, "Defeating image
obfuscation with deep learning", arXiv 1609.00408), which is why they are baselines here.
"""

from __future__ import annotations

import cv2
import numpy as np

import detection
from anonymizer.base import PhotoFilter
from datasets import Faces

GREY = 127


class FaceFilter(PhotoFilter):
    """Changes what lies inside the outline of the face, forehead included; the whole photo where none is found."""

    def __init__(self, faces: Faces):
        super().__init__(faces)
        self.found = detection.detect(faces).found

    def _face(self, image: np.ndarray, i: int) -> tuple[np.ndarray, float]:
        """The face's area as a mask of 0 and 1, float32 (h, w, 1), and its width in pixels."""
        height, width = image.shape[:2]
        if not self.found[i]:
            return np.ones((height, width, 1), dtype=np.float32), float(width)
        outline = cv2.convexHull(np.rint(detection.add_forehead(self.landmarks[i])).astype(np.int32))
        area = np.zeros((height, width), dtype=np.uint8)
        cv2.fillConvexPoly(area, outline, 1)
        return area[..., None].astype(np.float32), float(np.ptp(self.landmarks[i][:, 0]))


class Blur(FaceFilter):
    """Gaussian blur of the face.

    Parameters
    ----------
    strength : float, default 0.1
        Standard deviation as a share of the face's width.
    """

    name = "blur"

    def __init__(self, faces: Faces, strength: float = 0.1):
        super().__init__(faces)
        if isinstance(strength, bool) or not isinstance(strength, int | float) or not 0 < strength <= 10:
            raise ValueError(f"strength must be a number above 0 and at most 10, not {strength!r}")
        self.strength = float(strength)

    def _options(self) -> dict:
        return {"strength": self.strength}

    def _change(self, image: np.ndarray, i: int) -> np.ndarray:
        area, width = self._face(image, i)
        sigma = max(1.0, self.strength * width)
        blurred = cv2.GaussianBlur(image, (0, 0), sigma)
        edge = cv2.GaussianBlur(area, (0, 0), max(0.5, sigma / 4))[..., None]
        edge = np.maximum(edge, area)  # soft outside, but nothing clear inside
        return np.rint(image * (1 - edge) + blurred * edge).astype(np.uint8)


class Pixelate(FaceFilter):
    """The face as a mosaic.

    Parameters
    ----------
    blocks : int, default 8
        How many blocks span the face's width.
    """

    name = "pixelate"

    def __init__(self, faces: Faces, blocks: int = 8):
        super().__init__(faces)
        if isinstance(blocks, bool) or not isinstance(blocks, int | np.integer) or blocks < 1:
            raise ValueError(f"blocks must be a whole number of at least 1, not {blocks!r}")
        self.blocks = int(blocks)

    def _options(self) -> dict:
        return {"blocks": self.blocks}

    def _change(self, image: np.ndarray, i: int) -> np.ndarray:
        area, width = self._face(image, i)
        side = max(2, round(width / self.blocks))  # blocks of one pixel would be the photo itself
        rows, columns = -(-image.shape[0] // side), -(-image.shape[1] // side)
        padding = (0, rows * side - image.shape[0], 0, columns * side - image.shape[1])
        padded = cv2.copyMakeBorder(image, *padding, cv2.BORDER_REPLICATE)
        means = padded.reshape(rows, side, columns, side, 3).mean(axis=(1, 3))
        mosaic = np.repeat(np.repeat(means, side, axis=0), side, axis=1)[: image.shape[0], : image.shape[1]]
        return np.where(area > 0, np.rint(mosaic), image).astype(np.uint8)


class Mask(FaceFilter):
    """A grey patch over the face."""

    name = "mask"

    def _change(self, image: np.ndarray, i: int) -> np.ndarray:
        area, _ = self._face(image, i)
        return np.where(area > 0, GREY, image).astype(np.uint8)


class Unchanged(PhotoFilter):
    """The photo itself: the baseline that shows what an adversary can do without anonymization."""

    name = "none"

    def _change(self, image: np.ndarray, i: int) -> np.ndarray:
        return image.copy()
