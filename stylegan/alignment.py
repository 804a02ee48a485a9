"""Align photos to the frame in which a network draws faces.

Our networks record where they draw the 68 landmarks of a typical face, and photos are aligned to these. All other
networks are assumed to draw faces like the FFHQ crops: Karras, Laine and Aila, "A style-based generator architecture
for generative adversarial networks", CVPR 2019, appendix A, with the details of the data set's recreation procedure.
"""

from __future__ import annotations

import math
from collections.abc import Sequence
from dataclasses import dataclass

import cv2
import numpy as np

import detection
import frame
from checks import ParameterError, check_array, check_number
from stylegan.network import StyleNetwork, to_uint8

# Photos are sampled at up to this multiple of the crop's resolution, then averaged.
_FINEST = 4


@dataclass(frozen=True, eq=False)
class AlignedPhotos:
    """Photos in a network's frame.

    Attributes
    ----------
    images : ndarray of float32, shape (n, r, r, c)
        In -1..1, with as many channels as the network draws.
    landmarks : ndarray of float64, shape (n, 68, 2)
        The landmarks in pixels of the frame.
    visible : ndarray of bool, shape (n, r, r)
        The pixels that the photo covers; the rest is extrapolated.
    """

    images: np.ndarray
    landmarks: np.ndarray
    visible: np.ndarray

    def __len__(self) -> int:
        return len(self.images)


def align(photos: Sequence[np.ndarray], landmarks: np.ndarray, network: StyleNetwork) -> AlignedPhotos:
    """Align photos to the frame of a network.

    Parameters
    ----------
    photos : sequence of n uint8 arrays (h, w, 3)
    landmarks : ndarray, shape (n, 68, 2)
        x, y in pixels of each photo, as `detection.detect` finds them.
    network : StyleNetwork
        Its ``description["landmarks"]`` are the target landmarks; without them the FFHQ crop is used.

    Returns
    -------
    AlignedPhotos

    Raises
    ------
    ParameterError
        If a photo is not a uint8 RGB array, or has no 68 finite landmarks.
    """
    check_number("number of photos", len(photos), int, at_least=1)
    landmarks = check_array("landmarks", landmarks, (len(photos), 68, 2), np.float64)
    target, size = network.description.get("landmarks"), network.resolution
    if target is None:
        transforms = [ffhq_transform(points, size) for points in landmarks]
        crops = [_ffhq_crop(photo, points, size) for photo, points in zip(photos, landmarks, strict=True)]
        images, visible = np.stack(crops).astype(np.float32), np.ones((len(crops), size, size), dtype=bool)
    else:
        transforms = [detection.similarity(points, np.asarray(target)) for points in landmarks]
        images, visible = _warp(photos, transforms, network)
    if network.architecture.colours == 1:
        images = np.stack([cv2.cvtColor(image, cv2.COLOR_RGB2GRAY) for image in images])[..., None]
    moved = [detection.move_points(*pair) for pair in zip(landmarks, transforms, strict=True)]
    return AlignedPhotos(images / 127.5 - 1, np.stack(moved), visible)


def _warp(
    photos: Sequence[np.ndarray], transforms: Sequence[np.ndarray], network: StyleNetwork
) -> tuple[np.ndarray, np.ndarray]:
    """Images in 0..255, float32 (n, r, r, 3), and the pixels that the photo covers, bool (n, r, r).

    Inside the network's frame, the average face fills the pixels that a photo does not cover; around the frame the
    image is extrapolated smoothly.
    """
    # Draw the average face. (r, r, 3)
    size = network.resolution
    average = np.broadcast_to(network.average, (1, network.num_layers, network.w_dim))
    typical = to_uint8(network.synthesis(average))[0].astype(np.float32)
    # Mark the frame. (r, r)
    top, left, height, width = network.description.get("frame") or (0, 0, size, size)
    inner = np.zeros((size, size), dtype=bool)
    inner[top : top + height, left : left + width] = True
    # Warp each photo and fill the pixels that it does not cover. (n, r, r, 3)
    images, visible = [], []
    for photo, transform in zip(photos, transforms, strict=True):
        texture, seen = frame.warp_photo(detection.check_image(photo), transform, size, size)
        painted = frame.paint_in(texture, seen, typical)
        images.append(frame.continue_outward(painted, inner.astype(np.float32)))
        visible.append(seen & inner)
    return np.clip(np.stack(images), 0, 255), np.stack(visible)


# ----------------------------------------------------------------------------------------------------------
# FFHQ
# ----------------------------------------------------------------------------------------------------------


def _square(landmarks: np.ndarray) -> tuple[np.ndarray, np.ndarray, np.ndarray]:
    """Centre of the square that FFHQ crops, and the vectors from it to half its width and half its height."""
    points = check_array("landmarks", landmarks, (68, 2), np.float64)
    left, right = points[detection.LEFT_EYE].mean(axis=0), points[detection.RIGHT_EYE].mean(axis=0)
    eyes, between = (left + right) / 2, right - left
    down = points[list(detection.MOUTH_CORNERS)].mean(axis=0) - eyes
    across = between - np.array([-down[1], down[0]])  # the mean of the horizontals by eyes and by mouth
    if np.hypot(*across) < 1e-6:
        raise ParameterError("landmarks must form a face, got eyes and mouth at the same point")
    across *= max(2.0 * np.hypot(*between), 1.8 * np.hypot(*down)) / np.hypot(*across)
    return eyes + 0.1 * down, across, np.array([-across[1], across[0]])


def ffhq_transform(landmarks: np.ndarray, size: int) -> np.ndarray:
    """The similarity, (2, 3), from pixels of the photo to those of its FFHQ crop."""
    centre, across, down = _square(landmarks)
    middle = (size - 1) / 2
    target = np.array([[middle, middle], [middle + size / 2, middle], [middle, middle + size / 2]])
    return detection.similarity(np.stack([centre, centre + across, centre + down]), target)


def _ffhq_crop(photo: np.ndarray, landmarks: np.ndarray, size: int = 1024) -> np.ndarray:
    """Crop one face as the FFHQ data set does.

    The crop is a square around the face, upright by the eyes and mouth. Its width is 4 times the distance between the
    eyes or 3.6 times the distance from eyes to mouth, whichever is larger. Beyond its border the photo is mirrored,
    blurred, and faded to its median colour.

    Parameters
    ----------
    photo : ndarray of uint8, shape (h, w, 3)
    landmarks : ndarray, shape (68, 2)
        x, y in pixels.
    size : int, default 1024
        Side of the crop in pixels, at least 4.

    Returns
    -------
    ndarray of uint8, shape (size, size, 3)

    Raises
    ------
    TypeError, ValueError
        If the photo is not a uint8 RGB array, or the landmarks do not form a face in it.
    """
    detection.check_image(photo)
    check_number("size", size, int, at_least=4)
    # Place the square: its corners top left, top right, bottom left, bottom right. (4, 2)
    centre, across, down = _square(landmarks)
    corners = np.stack([centre + a * across + b * down for b in (-1, 1) for a in (-1, 1)])
    side = 2 * np.hypot(*across)
    # Downscale photos that are much larger than the crop. (h, w, 3)
    shrink = int(side / size * 0.5)
    if shrink > 1:
        height, width = (max(1, round(length / shrink)) for length in photo.shape[:2])
        photo = cv2.resize(photo, (width, height), interpolation=cv2.INTER_AREA)
        corners, side = corners / shrink, side / shrink
    # Crop the photo to the square and a margin, and extrapolate it where the square extends beyond it. (h, w, 3)
    border = max(round(0.1 * side), 3)
    photo, corners = _cut(photo, corners, border)
    photo, corners = _pad(photo, corners, border, side)
    # Sample the square, more finely than the crop if the photo allows it. (fine, fine, 3)
    fineness = min(_FINEST, 1 << max(0, math.ceil(math.log2(side / size))))
    fine = fineness * size
    right, down = corners[1] - corners[0], corners[2] - corners[0]
    first = corners[0] + (right + down) / (2 * fine)  # the centre of the first pixel
    matrix = np.column_stack([right / fine, down / fine, first])
    how = {"flags": cv2.INTER_LINEAR | cv2.WARP_INVERSE_MAP, "borderMode": cv2.BORDER_REPLICATE}
    sampled = cv2.warpAffine(photo, matrix, (fine, fine), **how)
    # Average down to the crop. (size, size, 3)
    return sampled if fineness == 1 else cv2.resize(sampled, (size, size), interpolation=cv2.INTER_AREA)


def _cut(photo: np.ndarray, corners: np.ndarray, border: int) -> tuple[np.ndarray, np.ndarray]:
    """Crop the photo to the square and its margin; return the photo and the corners in it."""
    start = np.clip(np.floor(corners.min(axis=0)).astype(int) - border, 0, None)
    end = np.minimum(np.ceil(corners.max(axis=0)).astype(int) + border, photo.shape[1::-1])
    if (end - start < 2).any():
        raise ParameterError("landmarks must lie inside the photo; detect the face in this photo")
    return photo[start[1] : end[1], start[0] : end[0]], corners - start


def _pad(photo: np.ndarray, corners: np.ndarray, border: int, side: float) -> tuple[np.ndarray, np.ndarray]:
    """Extrapolate the photo where the square extends beyond it; return the photo and the corners in it."""
    # Count the missing pixels before and after the photo: x, y. (2,)
    before = np.maximum(border - np.floor(corners.min(axis=0)).astype(int), 0)
    after = np.maximum(np.ceil(corners.max(axis=0)).astype(int) - photo.shape[1::-1] + border, 0)
    if max(*before, *after) <= border - 4:
        return photo, corners
    # Mirror the photo. (h, w, 3)
    before, after = (np.maximum(sides, round(0.3 * side)) for sides in (before, after))
    sides = [(before[1], after[1]), (before[0], after[0]), (0, 0)]
    padded = np.pad(photo.astype(np.float32), sides, mode="reflect")
    # Measure how far outside each pixel lies: 1 at the rim, at most 0 inside the photo. (h, w, 1)
    height, width = padded.shape[:2]
    x, y = np.arange(width), np.arange(height)[:, None]
    inside_x = np.minimum(x / before[0], (width - 1 - x) / after[0])
    inside_y = np.minimum(y / before[1], (height - 1 - y) / after[1])
    outside = np.maximum(1 - inside_x, 1 - inside_y)[..., None].astype(np.float32)
    # Blend into the blurred photo, then into the median colour. (h, w, 3)
    blurred = cv2.GaussianBlur(padded, (0, 0), 0.02 * side, borderType=cv2.BORDER_REFLECT)
    padded += (blurred - padded) * np.clip(3 * outside + 1, 0, 1)
    padded += (np.median(padded, axis=(0, 1)) - padded) * np.clip(outside, 0, 1)
    return np.clip(np.rint(padded), 0, 255).astype(np.uint8), corners + before
