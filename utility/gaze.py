"""Read gaze and ethnicity by two optional networks, iris and gear, see `recognisers.faceres`.

iris (MediaPipe Iris, 64 x 64) marks the outline of an eye and its iris; gear (GEAR Predictor) guesses one of five
groups from appearance. `make recogniser` fetches both.
"""

from __future__ import annotations

import cv2
import numpy as np

import detection
import embedding
from recognisers import MissingRecogniserError, faceres
from utility.networks import MissingModelError

ETHNICITIES = ("white", "black", "asian", "indian", "other")

#: Side and zoom of the crops that gear reads.
GEAR_SIZE, GEAR_ZOOM = 198, 0.9

#: Side of iris's crops, and their width in widths of an eye.
_EYE_SIDE, _EYE_WIDTHS = 64, 2.3

#: Corners of the eyes among the landmarks, at the viewer's left and right; iris expects the left one.
_EYES = ((36, 39), (42, 45))

#: Radius of an eyeball, and height of the iris of level eyes above the corners, in widths of an eye.
_EYEBALL, _LEVEL = 0.42, 0.09

#: The centre of the iris among the points of iris.
_CENTRE = 71


def load(name: str):
    """Load ``"iris"`` or ``"gear"``.

    Raises
    ------
    MissingModelError
        If it has not been fetched.
    """
    try:
        return faceres.load(embedding.MODELS, name)
    except MissingRecogniserError as error:
        raise MissingModelError(str(error)) from error


def read_ethnicities(crops: np.ndarray) -> np.ndarray:
    """Probabilities of `ETHNICITIES` for upright crops: uint8 (b, 198, 198, 3) -> (b, 5)."""
    return load("gear").run(crops.astype(np.float32) / 255, "Identity_2")


def crop_eyes(image: np.ndarray, landmarks: np.ndarray) -> np.ndarray:
    """Crop both eyes with level corners, the second one mirrored: uint8 (2, 64, 64, 3)."""
    middle, half = (_EYE_SIDE - 1) / 2, _EYE_SIDE / _EYE_WIDTHS / 2
    target = np.array([[middle - half, middle], [middle + half, middle]])
    crops = []
    for corners in _EYES:
        transform = detection.similarity(landmarks[list(corners)].astype(float), target)
        size = (_EYE_SIDE, _EYE_SIDE)
        crops.append(
            cv2.warpAffine(image, transform, size, flags=cv2.INTER_CUBIC, borderMode=cv2.BORDER_REPLICATE)
        )
    return np.stack([crops[0], crops[1][:, ::-1]])


def read_irises(eyes: np.ndarray) -> np.ndarray:
    """Mean offset of both irises from the middle of the eye, in widths of an eye.

    Parameters
    ----------
    eyes : ndarray of uint8, shape (b, 2, 64, 64, 3)
        From `crop_eyes`.

    Returns
    -------
    ndarray, shape (b, 2)
        To the viewer's right, and down.
    """
    shape = (len(eyes) * 2, *eyes.shape[2:])
    points = load("iris").run(eyes.reshape(shape).astype(np.float32) / 255, "Identity")
    centres = points.reshape(len(eyes), 2, -1, 3)[:, :, _CENTRE, :2]  # (b, 2 eyes, 2)
    offsets = (centres - (_EYE_SIDE - 1) / 2) * _EYE_WIDTHS / _EYE_SIDE
    offsets[:, 1, 0] *= -1  # the second eye was mirrored
    return offsets.mean(axis=1)


def directions(offsets: np.ndarray, rotations: np.ndarray) -> np.ndarray:
    """Direction of the gaze: offsets (b, 2) of `read_irises` and head rotations (b, 3, 3) -> unit vectors (b, 3).

    The eyeball turns by the arcsine of the offset over its radius, and with the head. Axes of the image: x right, y
    down, z away from the camera.
    """
    right, down = np.clip(offsets / _EYEBALL + [0, _LEVEL / _EYEBALL], -0.9, 0.9).T
    forward = np.sqrt(np.maximum(1 - right**2 - down**2, 0.01))
    in_head = np.stack([right, -down, forward], axis=1)  # x right, y up, z to the camera
    in_head /= np.linalg.norm(in_head, axis=1, keepdims=True)
    return np.einsum("bij,bj->bi", rotations, in_head)


def angle_between(first: np.ndarray, second: np.ndarray) -> float:
    """Angle in degrees between two directions (3,)."""
    cosine = first @ second / max(np.linalg.norm(first) * np.linalg.norm(second), 1e-12)
    return float(np.degrees(np.arccos(np.clip(cosine, -1, 1))))
