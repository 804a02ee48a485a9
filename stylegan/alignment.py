"""Photos -> the frame in which a network draws faces.

Networks of ours say where they draw the 68 landmarks of a typical face, and photos are brought there. All others are
taken to draw faces as the FFHQ photos were cut: Karras, Laine and Aila, "A style-based generator architecture for
generative adversarial networks", CVPR 2019, appendix A, in the detail of the data set's recreation procedure.
"""

from __future__ import annotations

import math
from collections.abc import Sequence
from dataclasses import dataclass

import cv2
import numpy as np

import detection
import frame
from stylegan.network import StyleNetwork, to_uint8

MOUTH_OUTSIDE = slice(48, 60)
#: Photos are sampled so many times finer than the crop before they are averaged, at most.
FINENESS = 4


@dataclass(frozen=True, eq=False)
class Aligned:
    """Photos in a network's frame.

    Attributes
    ----------
    pictures : ndarray of float32, shape (n, r, r, c)
        In -1..1, with as many channels as the network draws.
    landmarks : ndarray of float64, shape (n, 68, 2)
        Where the landmarks have come to lie.
    visible : ndarray of bool, shape (n, r, r)
        Where the photo shows something; elsewhere it is continued.
    """

    pictures: np.ndarray
    landmarks: np.ndarray
    visible: np.ndarray

    def __len__(self) -> int:
        return len(self.pictures)


def align(images: Sequence[np.ndarray], landmarks: np.ndarray, network: StyleNetwork) -> np.ndarray:
    """Bring photos into the frame of a network: float32 (n, r, r, c) in -1..1; see `place`."""
    return place(images, landmarks, network).pictures


def place(images: Sequence[np.ndarray], landmarks: np.ndarray, network: StyleNetwork) -> Aligned:
    """Bring photos into the frame of a network.

    Parameters
    ----------
    images : sequence of n uint8 arrays (h, w, 3)
    landmarks : ndarray, shape (n, 68, 2)
        x, y in pixels of each photo, as `detection.detect` finds them.
    network : StyleNetwork
        Its ``description["landmarks"]`` say where the landmarks shall lie; without them the FFHQ crop is taken.

    Returns
    -------
    Aligned

    Raises
    ------
    TypeError, ValueError
        If a photo is no uint8 RGB array, or there are not 68 finite landmarks for each.
    """
    landmarks = np.asarray(landmarks, dtype=np.float64)
    if len(images) == 0 or landmarks.shape != (len(images), 68, 2):
        raise ValueError(
            f"each of the {len(images)} photos needs 68 landmarks, shape (n, 68, 2), not {landmarks.shape}"
        )
    target = network.description.get("landmarks")
    size = network.resolution
    if target is None:
        transforms = [ffhq_transform(points, size) for points in landmarks]
        crops = [ffhq_crop(image, points, size) for image, points in zip(images, landmarks, strict=True)]
        pictures, visible = np.stack(crops).astype(np.float32), np.ones((len(crops), size, size), dtype=bool)
    else:
        transforms = [detection.similarity(_checked(points), np.asarray(target)) for points in landmarks]
        pictures, visible = _warp(images, transforms, network)
    moved = [
        detection.move_points(points, transform)
        for points, transform in zip(landmarks, transforms, strict=True)
    ]
    if network.architecture.colours == 1:
        pictures = np.stack([cv2.cvtColor(picture, cv2.COLOR_RGB2GRAY) for picture in pictures])[..., None]
    return Aligned(pictures / 127.5 - 1, np.stack(moved), visible)


def _warp(
    images: Sequence[np.ndarray], transforms: Sequence[np.ndarray], network: StyleNetwork
) -> tuple[np.ndarray, np.ndarray]:
    """Pictures of 0..255, float32 (n, r, r, 3), and where they show the photo.

    Within the network's frame the network's average face stands in for what a photo does not show; around the frame
    the picture is continued smoothly.
    """
    size = network.resolution
    average = np.broadcast_to(network.average, (1, network.num_layers, network.w_dim))
    typical = to_uint8(network.synthesis(average))[0].astype(np.float32)
    top, left, height, width = network.description.get("frame") or (0, 0, size, size)
    inner = np.zeros((size, size), dtype=bool)
    inner[top : top + height, left : left + width] = True
    pictures, visible = [], []
    for image, transform in zip(images, transforms, strict=True):
        texture, seen = frame.warp_photo(detection.check_image(image), transform, size, size)
        painted = frame.paint_in(texture, seen, typical)
        pictures.append(frame.continue_outward(painted, inner.astype(np.float32)))
        visible.append(seen & inner)
    return np.clip(np.stack(pictures), 0, 255), np.stack(visible)


def _checked(landmarks: np.ndarray) -> np.ndarray:
    points = np.asarray(landmarks, dtype=np.float64)
    if points.shape != (68, 2) or not np.isfinite(points).all():
        raise ValueError(f"landmarks must be 68 finite points (68, 2), not of shape {points.shape}")
    return points


# ----------------------------------------------------------------------------------------------------------
# FFHQ
# ----------------------------------------------------------------------------------------------------------


def _square(landmarks: np.ndarray) -> tuple[np.ndarray, np.ndarray, np.ndarray]:
    """Centre of the square that FFHQ cuts out, and from there half its width and half its height, as vectors."""
    points = _checked(landmarks)
    left, right = points[detection.LEFT_EYE].mean(axis=0), points[detection.RIGHT_EYE].mean(axis=0)
    eyes, between = (left + right) / 2, right - left
    down = points[list(detection.MOUTH_CORNERS)].mean(axis=0) - eyes
    across = between - np.array([-down[1], down[0]])  # the mean of what eyes and mouth say is horizontal
    if np.hypot(*across) < 1e-6:
        raise ValueError("the landmarks are of no face: eyes and mouth lie in one place")
    across *= max(2.0 * np.hypot(*between), 1.8 * np.hypot(*down)) / np.hypot(*across)
    return eyes + 0.1 * down, across, np.array([-across[1], across[0]])


def ffhq_transform(landmarks: np.ndarray, size: int) -> np.ndarray:
    """The similarity, (2, 3), from pixels of the photo to those of its FFHQ crop."""
    centre, across, down = _square(landmarks)
    corners = np.stack([centre, centre + across, centre + down])
    middle = (size - 1) / 2
    return detection.similarity(
        corners, np.array([[middle, middle], [middle + size / 2, middle], [middle, middle + size / 2]])
    )


def ffhq_crop(image: np.ndarray, landmarks: np.ndarray, size: int = 1024) -> np.ndarray:
    """Cut out one face as the FFHQ data set does.

    A square is laid around the face: upright by eyes and mouth, as wide as 4 distances between the eyes or 3.6 from
    eyes to mouth, whichever is more. Past its border the photo is mirrored, blurred, and fades to its median colour.

    Parameters
    ----------
    image : ndarray of uint8, shape (h, w, 3)
    landmarks : ndarray, shape (68, 2)
        x, y in pixels.
    size : int, default 1024
        Side of the crop in pixels.

    Returns
    -------
    ndarray of uint8, shape (size, size, 3)

    Raises
    ------
    TypeError, ValueError
        If the photo is no uint8 RGB array, the landmarks are no face's, or lie far from the photo.
    """
    detection.check_image(image)
    if isinstance(size, bool) or not isinstance(size, int | np.integer) or size < 4:
        raise ValueError(f"the size of a crop must be a whole number of at least 4, not {size!r}")
    centre, across, down = _square(landmarks)
    corners = np.stack([centre + a * across + b * down for b in (-1, 1) for a in (-1, 1)])
    side = 2 * np.hypot(*across)
    shrink = int(side / size * 0.5)
    if shrink > 1:
        height, width = (max(1, round(length / shrink)) for length in image.shape[:2])
        image = cv2.resize(image, (width, height), interpolation=cv2.INTER_AREA)
        corners, side = corners / shrink, side / shrink
    image, corners = _cut(image, corners, max(round(0.1 * side), 3))
    image, corners = _pad(image, corners, side)
    fineness = min(FINENESS, 1 << max(0, math.ceil(math.log2(side / size))))
    fine = fineness * size
    top_left, right, down = corners[0], corners[1] - corners[0], corners[2] - corners[0]
    first = top_left + (right + down) / (2 * fine)  # the centre of the first pixel
    sampled = cv2.warpAffine(
        image,
        np.column_stack([right / fine, down / fine, first]),
        (fine, fine),
        flags=cv2.INTER_LINEAR | cv2.WARP_INVERSE_MAP,
        borderMode=cv2.BORDER_REPLICATE,
    )
    return sampled if fineness == 1 else cv2.resize(sampled, (size, size), interpolation=cv2.INTER_AREA)


def _cut(image: np.ndarray, corners: np.ndarray, border: int) -> tuple[np.ndarray, np.ndarray]:
    """Leave out what lies far from the square."""
    size = image.shape[1::-1]
    start = np.clip(np.floor(corners.min(axis=0)).astype(int) - border, 0, None)
    end = np.minimum(np.ceil(corners.max(axis=0)).astype(int) + border, size)
    if (end - start < 2).any():
        raise ValueError(
            "the landmarks lie outside the photo or far beyond its borders; detect the face on this very photo"
        )
    return image[start[1] : end[1], start[0] : end[0]], corners - start


def _pad(image: np.ndarray, corners: np.ndarray, side: float) -> tuple[np.ndarray, np.ndarray]:
    """Continue the photo past its border where the square reaches beyond it."""
    border = max(round(0.1 * side), 3)
    before = np.maximum(border - np.floor(corners.min(axis=0)).astype(int), 0)  # x, y
    after = np.maximum(np.ceil(corners.max(axis=0)).astype(int) - image.shape[1::-1] + border, 0)
    if max(*before, *after) <= border - 4:
        return image, corners
    before, after = (np.maximum(sides, round(0.3 * side)) for sides in (before, after))
    total = image.shape[1::-1] + before + after
    padded = np.pad(
        image.astype(np.float32), [(before[1], after[1]), (before[0], after[0]), (0, 0)], mode="reflect"
    )
    x, y = np.arange(total[0]), np.arange(total[1])[:, None]
    inside_x = np.minimum(x / before[0], (total[0] - 1 - x) / after[0])
    inside_y = np.minimum(y / before[1], (total[1] - 1 - y) / after[1])
    outside = np.maximum(1 - inside_x, 1 - inside_y)[..., None].astype(
        np.float32
    )  # 1 at the rim, 0 on the photo
    blurred = cv2.GaussianBlur(padded, (0, 0), 0.02 * side, borderType=cv2.BORDER_REFLECT)
    padded += (blurred - padded) * np.clip(3 * outside + 1, 0, 1)
    padded += (np.median(padded, axis=(0, 1)) - padded) * np.clip(outside, 0, 1)
    return np.clip(np.rint(padded), 0, 255).astype(np.uint8), corners + before
