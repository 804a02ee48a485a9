"""Faces -> boxes, 68 landmarks, found flags and aligned crops: the one home of all four.

The detector is dlib's histogram-of-gradients frontal face detector, the landmarks come from dlib's 68-point
shape predictor (Kazemi and Sullivan, "One millisecond face alignment with an ensemble of regression trees",
CVPR 2014). A face that the detector misses is never dropped: its box is the whole frame, its landmarks are
predicted there, and its `found` flag is False.

`detect` is for photos of one face. `find_faces` is for ordinary photos, with any number of faces at any size and tilt.
What is overlooked there may be released in the clear, so it searches twice: with the same detector at several scales
and all around the circle, and with dlib's convolutional one (King, "Max-margin object detection", arXiv 1502.00046),
which also sees faces from the side. Each face found is turned upright into a crop and sought there once more; only
where landmarks come out the same both times can it be replaced, every other face has a `reason`.
"""

from __future__ import annotations

import warnings
from collections.abc import Iterator, Sequence
from dataclasses import dataclass, replace

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
    return dlib.shape_predictor(str(utils.find_dlib_model("shape_predictor_68_face_landmarks.dat")))


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
    return np.stack([*eye_centres(landmarks), landmarks[NOSE_TIP], *landmarks[list(MOUTH_CORNERS)]])


def eye_centres(landmarks: np.ndarray) -> np.ndarray:
    """Centres of both eyes, the one on the left of the picture first: (..., 68, 2) -> (..., 2, 2)."""
    eyes = [landmarks[..., side, :].mean(axis=-2) for side in (LEFT_EYE, RIGHT_EYE)]
    return np.stack(eyes, axis=-2)


def add_forehead(landmarks: np.ndarray) -> np.ndarray:
    """Add seven points over the forehead, which the 68 landmarks leave out: (68, 2) -> (75, 2).

    They lie on half an ellipse over the ends of the jaw line, as high as 0.62 of the way from the nose
    bridge to the chin.
    """
    left, right, bridge, chin = landmarks[[0, 16, 27, 8]]
    angles = np.linspace(np.pi, 0, 9)[1:-1, None]
    across, up = (right - left) / 2, 0.62 * (bridge - chin)
    arc = bridge + across * np.cos(angles) + up * np.sin(angles)  # (7, 2)
    return np.vstack([landmarks, arc])


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


# ----------------------------------------------------------------------------------------------------------
# All faces of a photo
# ----------------------------------------------------------------------------------------------------------

#: Photos are searched at up to twice their size and this many pixels on the longer side (faces from 40 pixels on) ...
FINE_SIDE = 2560
#: ... in a thorough search at up to four times their size and so many pixels (faces from 20 pixels on) ...
FINEST_SIDE = 4096
#: ... turned by these angles at up to so many pixels (dlib's detector itself bears about 25 degrees) ...
ROTATED_SIDE, ANGLES = 1280, (-135, -90, -45, 45, 90, 135, 180)
#: ... and by the second detector, which takes seconds a megapixel, at this many.
SECOND_LOOK_SIDE = 1000

#: A spot that the first detector rates lower, and the second does not see at all, is no face.
SURE_SCORE = 0.5

#: Two spots are one face where their centres are nearer than this share of the larger one's size.
SAME_SPOT = 0.4

#: Crops hold the head: so many eye distances wide and high, with the eyes on this line (a share of the height).
CROP_WIDTH, CROP_HEIGHT, CROP_EYE_LINE = 3.6, 4.4, 0.46
#: Eye distance in crops, in pixels: smaller faces are enlarged, larger ones reduced.
SMALLEST_CROP, LARGEST_CROP = 48, 130

#: A face with its eyes nearer than this (pixels) shows too little to tell people apart.
SMALLEST_EYES = 12.0
#: Landmarks found on photo and crop must agree to this share of the eye distance (median over the 68).
AGREEMENT = 0.12
#: The nose bridge lies between the eyes of a face that is seen from the front: at least at this share of the way.
SIDEWAYS = 0.2

TOO_SMALL = "too small"
AT_BORDER = "at the border of the photo"
NO_LANDMARKS = "turned away or covered: no sure landmarks"


@dataclass(frozen=True, eq=False)
class Spot:
    """One face on a photo.

    Attributes
    ----------
    box : ndarray, shape (4,)
        left, top, right, bottom in pixels of the photo.
    landmarks : ndarray, shape (68, 2)
        In pixels of the photo; a guess where `reason` is not empty.
    reason : str
        Why the face cannot be replaced; empty where it can.
    crop : ndarray of uint8, shape (h, w, 3), or None
        The face upright, where it can be replaced.
    transform : ndarray, shape (2, 3), or None
        From photo to crop.
    """

    box: np.ndarray
    landmarks: np.ndarray
    reason: str = ""
    crop: np.ndarray | None = None
    transform: np.ndarray | None = None


@dataclass(frozen=True, eq=False)
class _Candidate:
    """What one search says: landmarks (68, 2), box (4,), score, and by which detector."""

    landmarks: np.ndarray
    box: np.ndarray
    score: float
    second: bool = False

    @property
    def centre(self) -> np.ndarray:
        return (self.box[:2] + self.box[2:]) / 2


@utils.per_thread
def _second_detector():
    return dlib.cnn_face_detection_model_v1(str(utils.find_dlib_model("mmod_human_face_detector.dat")))


def find_faces(image: np.ndarray, thorough: bool = True) -> tuple[Spot, ...]:
    """Find all faces on a photo, and make crops of those that can be replaced; cached by the photo's content.

    Parameters
    ----------
    image : ndarray of uint8, shape (h, w, 3)
    thorough : bool, default True
        Look with the second detector, too, and for smaller faces, which takes seconds for each photo. Without it, faces
        seen from the side and faces of less than 40 pixels are mostly overlooked.

    Returns
    -------
    tuple of Spot
        From left to right; empty where no face is found.

    Raises
    ------
    TypeError, ValueError
        If it is not a uint8 array (h, w, 3).
    """
    key = utils.content_key(check_image(image), bool(thorough))
    store = utils.CacheStore("faces-" + utils.source_key(__file__)[:16])
    known = store.get([key])
    if key not in known:
        known[key] = _pack(_find_all(image, thorough))
        store.put({key: known[key]})
    return _unpack(image, known[key])


def _find_all(image: np.ndarray, thorough: bool) -> list[Spot]:
    candidates = [*_upright(image, thorough), *_turned(image), *(_second_look(image) if thorough else ())]
    spots = []
    for group in _same_face(candidates):
        best = max(group, key=lambda c: (not c.second, c.score))
        if _is_face(image, best, any(c.second for c in group)):
            spots.append(_inspect(image, best))
    return sorted(_one_each(spots), key=lambda spot: tuple(spot.box))


def _candidate(image: np.ndarray, box: np.ndarray, score: float, back: np.ndarray, second=False):
    """Predict landmarks in a box, and bring both from the searched image to the photo by `back` (2, 3)."""
    landmarks = move_points(predict_landmarks(image, box), back)
    corners = box[[[0, 1], [2, 1], [2, 3], [0, 3]]]
    centre = move_points(corners, back).mean(axis=0)
    half = np.sqrt(abs(np.linalg.det(back[:, :2]))) * (box[2:] - box[:2]) / 2
    return _Candidate(landmarks, np.concatenate([centre - half, centre + half]), score, second)


def _scaled(scale: float) -> np.ndarray:
    """The way back (2, 3) from an image that was scaled, pixel centres kept."""
    return np.array([[1, 0, 0.5 - 0.5 * scale], [0, 1, 0.5 - 0.5 * scale]]) / scale


def _upright(image: np.ndarray, thorough: bool) -> Iterator[_Candidate]:
    """Search a photo as it is and enlarged, as far as the bounds allow."""
    largest = max(image.shape[:2])
    sizes = [(1.0, FINE_SIDE), (2.0, FINE_SIDE), *([(4.0, FINEST_SIDE)] if thorough else ())]
    for scale in sorted({min(enlarged, side / largest) for enlarged, side in sizes}):
        searched = resize(image, scale)
        for box, score in _run(searched):
            yield _candidate(searched, box, score, _scaled(scale))


def _turned(image: np.ndarray) -> Iterator[_Candidate]:
    scale = min(1.0, ROTATED_SIDE / max(image.shape[:2]))
    small = resize(image, scale)
    height, width = small.shape[:2]
    for angle in ANGLES:
        turn = cv2.getRotationMatrix2D(((width - 1) / 2, (height - 1) / 2), angle, 1.0)
        extent = np.abs(turn[:, :2]) @ [width, height]
        turn[:, 2] += (extent - [width, height]) / 2
        turned = cv2.warpAffine(
            small, turn, tuple(int(np.ceil(v)) for v in extent), borderMode=cv2.BORDER_REPLICATE
        )
        back = _chain(cv2.invertAffineTransform(turn), _scaled(scale))
        for box, score in _run(turned):
            candidate = _candidate(turned, box, score, back)
            if ((candidate.centre >= 0) & (candidate.centre < image.shape[1::-1])).all():
                yield candidate


def _chain(first: np.ndarray, second: np.ndarray) -> np.ndarray:
    """One affine transform (2, 3) after another."""
    linear = second[:, :2] @ first[:, :2]
    return np.column_stack([linear, second[:, :2] @ first[:, 2] + second[:, 2]])


def _run(image: np.ndarray) -> list[tuple[np.ndarray, float]]:
    """Boxes and scores of the first detector."""
    boxes, scores, _ = _detector().run(np.ascontiguousarray(image), 0, 0.0)
    return [(_corners(box), score) for box, score in zip(boxes, scores, strict=True)]


def _corners(box) -> np.ndarray:
    return np.array([box.left(), box.top(), box.right() + 1, box.bottom() + 1], dtype=float)


def _second_look(image: np.ndarray) -> Iterator[_Candidate]:
    scale = min(1.0, SECOND_LOOK_SIDE / max(image.shape[:2]))
    searched = resize(image, scale)
    for found in _second_detector()(searched, 0):
        yield _candidate(searched, _corners(found.rect), found.confidence, _scaled(scale), second=True)


def _same_face(candidates: list[_Candidate]) -> list[list[_Candidate]]:
    """Group what shows one face, the best rated first."""
    groups: list[list[_Candidate]] = []
    for candidate in sorted(candidates, key=lambda c: -c.score):
        for group in groups:
            if _overlap(candidate, group[0]):
                group.append(candidate)
                break
        else:
            groups.append([candidate])
    return groups


def _overlap(a, b) -> bool:
    size_a, size_b = (float((s.box[2:] - s.box[:2]).mean()) for s in (a, b))
    apart = np.linalg.norm((a.box[:2] + a.box[2:] - b.box[:2] - b.box[2:]) / 2)
    return apart < SAME_SPOT * max(size_a, size_b) and max(size_a, size_b) < 2.2 * min(size_a, size_b)


def _is_face(image: np.ndarray, best: _Candidate, seen_twice: bool) -> bool:
    """Whether the second detector agrees, on the photo or from close by, where the first is not sure."""
    if seen_twice or best.score >= SURE_SCORE:
        return True
    target = np.array([[80.0, 100.0], [160.0, 100.0]])  # eyes on a picture of 240 x 280
    closeup = cv2.warpAffine(
        image,
        similarity(eye_centres(best.landmarks), target),
        (240, 280),
        borderMode=cv2.BORDER_REPLICATE,
    )
    return len(_second_detector()(closeup, 0)) > 0


def _inspect(image: np.ndarray, candidate: _Candidate) -> Spot:
    """Make a crop of a face, or say why it cannot be replaced."""
    spot = Spot(candidate.box, candidate.landmarks)
    eyes = eye_centres(candidate.landmarks)
    distance = float(np.linalg.norm(eyes[1] - eyes[0]))
    if distance < SMALLEST_EYES:
        return replace(spot, reason=TOO_SMALL)
    crop, transform = _upright_crop(image, eyes, distance)
    found = detect([crop])
    moved = move_points(candidate.landmarks, transform)
    crop_distance = np.linalg.norm(np.subtract(*eye_centres(moved)))
    error = np.median(np.linalg.norm(found.landmarks[0] - moved, axis=1))
    if not found.found[0] or error > AGREEMENT * crop_distance or _sideways(found.landmarks[0]):
        return replace(spot, reason=NO_LANDMARKS)
    landmarks = move_points(found.landmarks[0], cv2.invertAffineTransform(transform))
    outline = add_forehead(landmarks)
    if (outline < 0).any() or (outline > np.array(image.shape[1::-1]) - 1).any():
        return replace(spot, landmarks=landmarks, reason=AT_BORDER)
    return Spot(candidate.box, landmarks, "", crop, transform)


def _upright_crop(image: np.ndarray, eyes: np.ndarray, distance: float) -> tuple[np.ndarray, np.ndarray]:
    """Head in a crop of its own (h, w, 3), and the transform (2, 3) from the photo."""
    unit = float(np.clip(distance, SMALLEST_CROP, LARGEST_CROP))
    width, height = round(CROP_WIDTH * unit), round(CROP_HEIGHT * unit)
    middle = np.array([(width - 1) / 2, CROP_EYE_LINE * (height - 1)])
    transform = similarity(eyes, np.stack([middle - [unit / 2, 0], middle + [unit / 2, 0]]))
    return cut(image, transform, height, width), transform


def cut(image: np.ndarray, transform: np.ndarray, height: int, width: int) -> np.ndarray:
    """Cut a crop out of a photo, without aliasing where it is reduced.

    Parameters
    ----------
    image : ndarray of uint8, shape (h, w, 3)
    transform : ndarray, shape (2, 3)
        The similarity from photo to crop.
    height, width : int
        Of the crop. Past the photo's border it is mirrored.

    Returns
    -------
    ndarray of uint8, shape (height, width, 3)
    """
    scale = float(np.sqrt(abs(np.linalg.det(transform[:, :2]))))
    if scale < 0.5:  # a plain warp would skip pixels: reduce the photo first
        image, transform = resize(image, 2 * scale), _chain(_scaled(2 * scale), transform)
    method = cv2.INTER_LINEAR if scale < 1 else cv2.INTER_CUBIC
    return cv2.warpAffine(image, transform, (width, height), flags=method, borderMode=cv2.BORDER_REFLECT_101)


def _sideways(landmarks: np.ndarray) -> bool:
    """Whether the face is turned so far that its nose bridge lies near one eye's side of the face."""
    left, right = landmarks[[0, 16]]
    along = (right - left) / max(float(((right - left) ** 2).sum()), 1e-12)
    share = float((landmarks[28] - left) @ along)
    return not SIDEWAYS <= share <= 1 - SIDEWAYS


def _one_each(spots: list[Spot]) -> list[Spot]:
    """Leave out spots that turned out to be a face that is there already, those with a crop first."""
    kept: list[Spot] = []
    for spot in sorted(spots, key=lambda s: bool(s.reason)):
        if not any(_overlap(spot, other) for other in kept):
            kept.append(spot)
    return kept


_REASONS = ("", TOO_SMALL, AT_BORDER, NO_LANDMARKS)


def _pack(spots: Sequence[Spot]) -> bytes:
    """What is known of the spots of a photo, but the pixels, as bytes."""
    rows = [
        np.concatenate(
            [
                spot.box,
                spot.landmarks.ravel(),
                [_REASONS.index(spot.reason)],
                np.zeros(8) if spot.crop is None else [*spot.transform.ravel(), *spot.crop.shape[:2]],
            ]
        )
        for spot in spots
    ]
    return np.array(rows, dtype="<f8").tobytes()


def _unpack(image: np.ndarray, data: bytes) -> tuple[Spot, ...]:
    spots = []
    for row in np.frombuffer(data, dtype="<f8").reshape(-1, 149):
        spot = Spot(row[:4], row[4:140].reshape(68, 2), _REASONS[int(row[140])])
        if not spot.reason:
            transform = row[141:147].reshape(2, 3)
            spot = replace(
                spot, transform=transform, crop=cut(image, transform, int(row[147]), int(row[148]))
            )
        spots.append(spot)
    return tuple(spots)
