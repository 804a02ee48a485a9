"""Find faces in photos: boxes, 68 landmarks, and aligned crops.

CenterFace (`centerface`) finds the faces of a photo with five points each. dlib's 68-point shape predictor (Kazemi and
Sullivan, "One millisecond face alignment with an ensemble of regression trees", CVPR 2014) then finds the landmarks in
an upright crop that the five points define; the crop is mirrored past the border of the photo.

Use `detect` for photos that show one face. A face that the detector misses is never dropped: its box is the whole
photo, its landmarks are predicted there, and its `found` flag is False.

Use `find_faces` for ordinary photos, with any number of faces of any size and rotation. A face can be replaced only if
the detector's points and the landmarks agree; any other face has a `reason`.
"""

from __future__ import annotations

import warnings
from collections.abc import Sequence
from dataclasses import dataclass, replace

import cv2
import dlib
import numpy as np

import centerface
import utils
from datasets import Faces, is_grey

#: Photos with names and people, or uint8 RGB arrays (h, w, 3) alone.
Images = Faces | Sequence[np.ndarray]

#: Rows of the 68 landmarks (iBUG 300-W order) that belong to one part of the face.
JAW = slice(0, 17)
_NOSE_TIP = 30
LEFT_EYE = slice(36, 42)  # on the left of the photo
RIGHT_EYE = slice(42, 48)
MOUTH_CORNERS = (48, 54)

#: Eyes, nose tip and mouth corners in a crop, as shares of its side: the five-point template that ArcFace
#: recognisers are trained on (Deng et al., CVPR 2019), which is given for 112 x 112 pixels.
_FIVE_POINTS = np.array(
    [[38.2946, 51.6963], [73.5318, 51.5014], [56.0252, 71.7366], [41.5493, 92.3655], [70.7299, 92.2041]]
) / 112.0  # fmt: skip

#: Landmarks are predicted in upright crops of this many pixels, in which the template has this zoom ...
_LANDMARK_CROP, _LANDMARK_ZOOM = 384, 0.5
#: ... of which the predictor reads this height and width; on 1,100 crops, other pixels outside changed no landmark ...
_LANDMARK_READ = 352, 336
#: ... within this square: centre and side as shares of the template, as dlib's own detector draws it on the ORL photos.
_SQUARE_CENTRE, _SQUARE_SIDE = (0.5, 0.632), 0.823
#: The first crop follows the detector's points, the second one the landmarks.
_LANDMARK_ROUNDS = 2
#: If the points agree with the landmarks to this share of the eye distance, no points of other searches are tried.
_GOOD_AGREEMENT = 0.12

# ----------------------------------------------------------------------------------------------------------
# Search
# ----------------------------------------------------------------------------------------------------------

#: Lowest score of a face, and of one that only a rotated photo shows.
_THRESHOLD, _ROTATED_THRESHOLD = 0.4, 0.55

#: Photos are searched at this many pixels on the longer side ...
_COARSE_SIDE = 640
#: ... and at up to this many for faces narrower than this, because large faces fall apart at a fine scale ...
_FINE_SIDE, _FINE_FACE = 2400, 200
#: ... and rotated by quarter turns, for faces that are far from upright.
_ROTATED_SIDE, _QUARTER_TURNS = 480, (1, 2, 3)
#: A quick search uses one size.
_QUICK_SIDE = 1280

#: Photos of one face are searched rotated only if no upright face covers this share of their area.
_LARGE_FACE = 0.05

#: Two boxes show one face if the other one covers more than this share of the smaller one.
_SAME_FACE = 0.5

#: Number of photos that a warning names; the rest are only counted.
_NAMED_PHOTOS = 3


@dataclass(frozen=True, eq=False)
class _Candidate:
    """A possible face: box (4,), score, and its five points (5, 2) by one or several searches, in pixels."""

    box: np.ndarray
    score: float
    points: tuple[np.ndarray, ...]


def _search(image: np.ndarray, thorough: bool = True, rotated: bool = True) -> list[_Candidate]:
    """Find every face in a photo once, the highest score first; `rotated` ones only in a thorough search."""
    largest = max(image.shape[:2])
    if not thorough:
        return _one_each(_search_at(image, min(1.0, _QUICK_SIDE / largest)))
    coarse, fine, scale = (min(1.0, side / largest) for side in (_COARSE_SIDE, _FINE_SIDE, _ROTATED_SIDE))
    candidates = _search_at(image, coarse)
    if fine > coarse:
        candidates += [c for c in _search_at(image, fine) if c.box[2] - c.box[0] < _FINE_FACE / fine]
    turned = _search_rotated(image, scale) if rotated else []
    faces = _one_each(candidates)
    faces += _one_each([c for c in turned if not any(_overlap(c, face) for face in faces)])
    # A rotated face is often found upright, too, but with wrong points: keep those of all searches.
    return [
        replace(face, points=face.points + tuple(c.points[0] for c in turned if _overlap(c, face)))
        for face in faces
    ]


def _search_at(image: np.ndarray, scale: float) -> list[_Candidate]:
    """Search a photo at one scale."""
    found = centerface.search(resize(image, scale), _THRESHOLD)
    return [
        _Candidate(box / scale, float(score), (move_points(points, _unscale(scale)),))
        for box, score, points in zip(*found, strict=True)
    ]


def _search_rotated(image: np.ndarray, scale: float) -> list[_Candidate]:
    """Search a photo at one scale, rotated by quarter turns."""
    small = resize(image, scale)
    height, width = small.shape[:2]
    # Pixel centres of the photo, rotated by 0 to 3 quarter turns -> of the photo. (4, 2, 3)
    transforms = np.array([
        [[1, 0, 0], [0, 1, 0]],
        [[0, -1, width - 1], [1, 0, 0]],
        [[-1, 0, width - 1], [0, -1, height - 1]],
        [[0, 1, 0], [-1, 0, height - 1]],
    ], dtype=float)  # fmt: skip
    candidates = []
    for turns in _QUARTER_TURNS:
        back = _chain(transforms[turns], _unscale(scale))
        found = centerface.search(np.rot90(small, turns), _ROTATED_THRESHOLD)
        for box, score, points in zip(*found, strict=True):
            corners = move_points(box.reshape(2, 2) - 0.5, back) + 0.5  # boxes count from pixel edges
            box = np.concatenate([corners.min(axis=0), corners.max(axis=0)])
            candidates.append(_Candidate(box, float(score), (move_points(points, back),)))
    return candidates


def _one_each(candidates: Sequence[_Candidate]) -> list[_Candidate]:
    """Keep the best candidate of each face."""
    kept: list[_Candidate] = []
    for candidate in sorted(candidates, key=lambda c: -c.score):
        if not any(_overlap(candidate, other) for other in kept):
            kept.append(candidate)
    return kept


def _overlap(a: _Candidate, b: _Candidate) -> bool:
    """Whether two boxes show one face."""
    shared = np.minimum(a.box[2:], b.box[2:]) - np.maximum(a.box[:2], b.box[:2])
    return bool((shared > 0).all()) and shared.prod() > _SAME_FACE * min(_area(a.box), _area(b.box))


def _area(box: np.ndarray) -> float:
    return float((box[2] - box[0]) * (box[3] - box[1]))


# ----------------------------------------------------------------------------------------------------------
# Photos of one face
# ----------------------------------------------------------------------------------------------------------


@dataclass(frozen=True, eq=False)
class Detections:
    """The location of the face in each of n photos.

    Attributes
    ----------
    boxes : ndarray of float32, shape (n, 4)
        left, top, right, bottom in pixels; right and bottom lie just outside. The whole photo where no
        face was found.
    landmarks : ndarray of float32, shape (n, 68, 2)
        x, y in pixels, in iBUG 300-W order; (0, 0) is the centre of the top left pixel.
    found : ndarray of bool, shape (n,)
        Whether the detector found a face.
    n_faces : ndarray of int64, shape (n,)
        Number of detected faces. The largest is used.
    """

    boxes: np.ndarray
    landmarks: np.ndarray
    found: np.ndarray
    n_faces: np.ndarray

    def __len__(self) -> int:
        return len(self.found)


def detect(faces: Images, strict: bool = False) -> Detections:
    """Find the face in each photo; results are cached on disk by the photo's content.

    Parameters
    ----------
    faces : Faces or sequence of n uint8 arrays (h, w, 3)
    strict : bool, default False
        Raise an error if a photo does not show exactly one face. By default a photo without a face is
        flagged, and of several faces the largest is used; `report_photos` warns of both.

    Returns
    -------
    Detections

    Raises
    ------
    TypeError, ValueError
        If there are no photos, a photo is not a uint8 array (h, w, 3), or with `strict` a photo does not show exactly
        one face.
    """
    faces = as_faces(faces)
    rows = np.stack(
        utils.cached_rows(
            _place_of_rows(), faces.image_keys, _detect_row, lambda i: (faces.images[i],), "finding faces"
        )
    )  # (n, 141)
    n_faces = rows[:, -1].astype(np.int64)
    if strict:
        _check_counts(n_faces, faces.names)
    return Detections(rows[:, :4], rows[:, 4:-1].reshape(-1, 68, 2), n_faces > 0, n_faces)


def as_faces(faces: Images) -> Faces:
    """Return Faces unchanged, and convert images to Faces after `check_image` of each."""
    if isinstance(faces, Faces):
        return faces
    if isinstance(faces, np.ndarray) and faces.ndim != 4:
        raise ValueError(
            f"images must be a sequence of (h, w, 3) arrays, got one array of shape {faces.shape}"
        )
    images = [check_image(image) for image in faces]
    return Faces.of(images, names=[f"number {i}" for i in range(len(images))])


def check_image(image: np.ndarray) -> np.ndarray:
    """Return the image if it is a uint8 RGB array (h, w, 3), else raise TypeError or ValueError."""
    if not isinstance(image, np.ndarray) or image.dtype != np.uint8:
        kind = image.dtype if isinstance(image, np.ndarray) else type(image).__name__
        raise TypeError(f"an image must be a uint8 array of values 0 to 255, got {kind}")
    if image.ndim != 3 or image.shape[2] != 3 or min(image.shape) == 0:
        raise ValueError(f"an image must be RGB with shape (h, w, 3), got {image.shape}")
    return image


def _detect_row(image: np.ndarray) -> np.ndarray:
    """Box, landmarks and number of faces of one photo as one row, (141,), for the cache."""
    # Rotating the photo is slow, and only needed if the upright search finds no large face that fits its landmarks.
    for rotated in (False, True):
        candidates = _search(check_image(image), rotated=rotated)
        if candidates:
            largest = max(candidates, key=lambda c: _area(c.box))
            landmarks, error = _fit_landmarks(image, largest)
            if error < _GOOD_AGREEMENT and _area(largest.box) > _LARGE_FACE * image.shape[0] * image.shape[1]:
                break
    if candidates:
        box = largest.box
    else:
        box = np.array([0, 0, image.shape[1], image.shape[0]], dtype=float)
        landmarks = _predict_landmarks(image, _FIVE_POINTS * box[2:] - 0.5)
    return _as_row(box, landmarks, len(candidates))


def _as_row(box: np.ndarray, landmarks: np.ndarray, n_faces: int) -> np.ndarray:
    return np.concatenate([box, landmarks.ravel(), [n_faces]]).astype(np.float32)


def _place_of_rows() -> str:
    """Name of the cache store of `detect`."""
    return "detection-" + utils.source_key(__file__)[:16]


def remember(faces: Faces, landmarks: np.ndarray) -> None:
    """Let `detect` return known landmarks, such as those of crops that `find_faces` cut out.

    This saves a second search, and no neighbour who reaches into a crop can be mistaken for its face.

    Parameters
    ----------
    faces : Faces
        n photos.
    landmarks : ndarray, shape (n, 68, 2)
        In pixels of each photo. The boxes are drawn around them.
    """
    boxes = np.concatenate([landmarks.min(axis=1), landmarks.max(axis=1) + 1], axis=1)  # (n, 4)
    rows = [_as_row(box, points, 1).tobytes() for box, points in zip(boxes, landmarks, strict=True)]
    utils.CacheStore(_place_of_rows()).put(dict(zip(faces.image_keys, rows, strict=True)))


def _check_counts(n_faces: np.ndarray, names: Sequence[str]) -> None:
    """Raise an error if a photo does not show exactly one face."""
    missed, several = np.flatnonzero(n_faces == 0), np.flatnonzero(n_faces > 1)
    if len(missed):
        raise ValueError(
            f"no face was found in {len(missed)} of {len(n_faces)} photos (first: {names[missed[0]]}); "
            "remove them, or use strict=False to keep and flag them"
        )
    if len(several):
        raise ValueError(
            f"{len(several)} of {len(n_faces)} photos show several faces (first: {names[several[0]]}); crop them to "
            "one face, or use strict=False to use the largest face"
        )


def report_photos(faces: Faces) -> None:
    """Warn of photos, gallery included, in which no face or several faces are found: one warning for each kind.

    Experiments and trainings call this before they start. `detect` itself never warns, because all their parts call it.
    """
    parts = [faces] if faces.others is None else [faces, faces.others]
    names = np.concatenate([part.names for part in parts])
    n_faces = np.concatenate([detect(part).n_faces for part in parts])
    missed, several = names[n_faces == 0], names[n_faces > 1]
    if len(missed):
        warnings.warn(
            f"no face was found in {len(missed)} of {len(names)} photos ({_name_some(missed)}): the whole photo is "
            "used as the face, which spoils surrogates and measures; remove these photos, or crop them to one face",
            stacklevel=2,
        )
    if len(several):
        warnings.warn(
            f"{len(several)} of {len(names)} photos show several faces ({_name_some(several)}): the largest face in "
            "each is used",
            stacklevel=2,
        )


def _name_some(names: Sequence[str]) -> str:
    return ", ".join(names[:_NAMED_PHOTOS]) + (", ..." if len(names) > _NAMED_PHOTOS else "")


def resize(image: np.ndarray, scale: float) -> np.ndarray:
    """Scale an image (h, w, 3) by a factor, without aliasing when it shrinks."""
    if scale == 1.0:
        return np.ascontiguousarray(image)
    method = cv2.INTER_AREA if scale < 1 else cv2.INTER_CUBIC
    return cv2.resize(image, None, fx=scale, fy=scale, interpolation=method)


@utils.per_thread
def _predictor():
    return dlib.shape_predictor(str(utils.find_dlib_model("shape_predictor_68_face_landmarks.dat")))


def _fit_landmarks(image: np.ndarray, candidate: _Candidate) -> tuple[np.ndarray, float]:
    """Predict landmarks (68, 2) from the points that agree with them best.

    Also returns the disagreement: the median distance of the five points, as a share of the eye distance.
    """
    best, least = None, np.inf
    for points in candidate.points:
        landmarks = _predict_landmarks(image, points)
        distance = max(_eye_distance(landmarks), 1e-6)
        error = float(np.median(np.linalg.norm(points - _five_points(landmarks), axis=1))) / distance
        if best is None or error < least:
            best, least = landmarks, error
        if least < _GOOD_AGREEMENT:
            break
    return best, least


def _predict_landmarks(image: np.ndarray, points: np.ndarray) -> np.ndarray:
    """Predict the 68 landmarks of the face with these five points.

    Parameters
    ----------
    image : ndarray of uint8, shape (h, w, 3)
    points : ndarray, shape (5, 2)
        Approximate eye centres, nose tip and mouth corners in pixels.

    Returns
    -------
    ndarray of float64, shape (68, 2)
        x, y in pixels; points may lie outside the photo.
    """
    target = _template(_LANDMARK_CROP, _LANDMARK_ZOOM)  # (5, 2)
    centre = ((np.array(_SQUARE_CENTRE) - 0.5) * _LANDMARK_ZOOM + 0.5) * _LANDMARK_CROP
    half = _SQUARE_SIDE * _LANDMARK_ZOOM * _LANDMARK_CROP / 2
    square = dlib.rectangle(*np.rint([*(centre - half), *(centre + half - 1)]).astype(int).tolist())
    if is_grey(image):
        image = image[..., 0]  # a third of the work, and the predictor takes the mean of the channels anyway
    for _ in range(_LANDMARK_ROUNDS):
        # Crop the face upright, predict integer landmarks there, and map them back to the photo. (68, 2)
        transform = similarity(points, target)
        crop = cut(image, transform, *_LANDMARK_READ)
        found = np.array([(point.x, point.y) for point in _predictor()(crop, square).parts()], dtype=float)
        landmarks = move_points(found, cv2.invertAffineTransform(transform))
        points = _five_points(landmarks)
    return landmarks


# ----------------------------------------------------------------------------------------------------------
# Landmarks and transforms
# ----------------------------------------------------------------------------------------------------------


def _template(size: int, zoom: float) -> np.ndarray:
    """The five points in an aligned crop: (5, 2)."""
    return ((_FIVE_POINTS - 0.5) * zoom + 0.5) * size - 0.5


def _five_points(landmarks: np.ndarray) -> np.ndarray:
    """Eye centres, nose tip and mouth corners of 68 landmarks: (68, 2) -> (5, 2)."""
    return np.stack([*eye_centres(landmarks), landmarks[_NOSE_TIP], *landmarks[list(MOUTH_CORNERS)]])


def eye_centres(landmarks: np.ndarray) -> np.ndarray:
    """Centres of both eyes, with the left eye in the photo first: (..., 68, 2) -> (..., 2, 2)."""
    eyes = [landmarks[..., side, :].mean(axis=-2) for side in (LEFT_EYE, RIGHT_EYE)]
    return np.stack(eyes, axis=-2)


def _eye_distance(landmarks: np.ndarray) -> float:
    return float(np.linalg.norm(np.subtract(*eye_centres(landmarks))))


def add_forehead(landmarks: np.ndarray) -> np.ndarray:
    """Add seven points over the forehead, which the 68 landmarks do not cover: (68, 2) -> (75, 2).

    The points lie on half an ellipse over the ends of the jaw line. Its height is 0.62 of the distance from the nose
    bridge to the chin.
    """
    left, right, bridge, chin = landmarks[[0, 16, 27, 8]]
    angles = np.linspace(np.pi, 0, 9)[1:-1, None]
    across, up = (right - left) / 2, 0.62 * (bridge - chin)
    arc = bridge + across * np.cos(angles) + up * np.sin(angles)  # (7, 2)
    return np.vstack([landmarks, arc])


def similarity(source: np.ndarray, target: np.ndarray) -> np.ndarray:
    """Fit the rotation, scale and shift that take one set of points onto another, by least squares.

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


def _chain(first: np.ndarray, second: np.ndarray) -> np.ndarray:
    """Combine two affine transforms (2, 3) into one, `first` applied first."""
    linear = second[:, :2] @ first[:, :2]
    return np.column_stack([linear, second[:, :2] @ first[:, 2] + second[:, 2]])


def _unscale(scale: float) -> np.ndarray:
    """Transform (2, 3) from a resized image to the original; pixel centres correspond."""
    return np.array([[1, 0, 0.5 - 0.5 * scale], [0, 1, 0.5 - 0.5 * scale]]) / scale


def _zoom_of(transform: np.ndarray) -> np.float64:
    """Scale factor of a similarity (2, 3)."""
    return np.sqrt(abs(np.linalg.det(transform[:, :2])))


def aligned_crop(image: np.ndarray, landmarks: np.ndarray, size: int = 112, zoom: float = 1.0) -> np.ndarray:
    """Crop one face upright, with eyes, nose and mouth at the positions that ArcFace recognisers expect.

    Parameters
    ----------
    image : ndarray of uint8, shape (h, w, 3)
    landmarks : ndarray, shape (68, 2)
    size : int, default 112
        Side of the crop in pixels.
    zoom : float, default 1.0
        Values below 1 show more around the face.

    Returns
    -------
    ndarray of uint8, shape (size, size, 3)
        Edge pixels continue past the photo's border.
    """
    target = _template(size, zoom)
    points = _five_points(landmarks)
    transform = similarity(points, target)
    scale = _zoom_of(transform)
    method = cv2.INTER_AREA if scale < 1 else cv2.INTER_CUBIC
    if scale < 0.5:  # a plain warp would skip pixels: shrink the photo first
        image = resize(image, 2 * scale)
        transform = similarity((points + 0.5) * 2 * scale - 0.5, target)
    return cv2.warpAffine(image, transform, (size, size), flags=method, borderMode=cv2.BORDER_REPLICATE)


#: Crops that reach further beyond the photo than this many times its smaller side are not mirrored.
_MOST_REFLECTIONS = 20


def cut(image: np.ndarray, transform: np.ndarray, height: int, width: int) -> np.ndarray:
    """Cut a crop out of a photo, without aliasing when it shrinks.

    Parameters
    ----------
    image : ndarray of uint8, shape (h, w, 3)
    transform : ndarray, shape (2, 3)
        The similarity from photo to crop.
    height, width : int
        Of the crop. It is mirrored past the photo's border.

    Returns
    -------
    ndarray of uint8, shape (height, width, 3)
    """
    corners = np.array([[0, 0], [width, 0], [0, height], [width, height]])
    reached = move_points(corners, cv2.invertAffineTransform(transform))  # (4, 2)
    side = min(image.shape[:2])
    # OpenCV reflects step by step, which takes forever on a photo that is much smaller than the crop.
    mirrored = side > 1 and np.abs(reached).max() < _MOST_REFLECTIONS * side
    scale = _zoom_of(transform)
    if scale < 0.5:  # a plain warp would skip pixels: shrink the photo first
        image, corner = _part_around(image, reached, margin=2 / scale)
        transform = _chain(np.column_stack([np.eye(2), corner]), transform)
        image, transform = resize(image, 2 * scale), _chain(_unscale(2 * scale), transform)
    method = cv2.INTER_LINEAR if scale < 1 else cv2.INTER_CUBIC
    border = cv2.BORDER_REFLECT_101 if mirrored else cv2.BORDER_REPLICATE
    return cv2.warpAffine(image, transform, (width, height), flags=method, borderMode=border)


def _part_around(image: np.ndarray, points: np.ndarray, margin: float) -> tuple[np.ndarray, np.ndarray]:
    """Cut out the part of a photo that holds some points, mirrored at the border, and return its first x and y, too."""
    size = np.array(image.shape[1::-1])
    low, high = np.floor(points.min(axis=0) - margin), np.ceil(points.max(axis=0) + margin) + 1
    # The mirrored border shows the photo as far inside it as the points lie outside.
    first = np.clip(np.minimum(low, 2 * size - high), 0, size - 1).astype(int)
    last = np.clip(np.maximum(high, -low), first + 1, size).astype(int)
    return image[first[1] : last[1], first[0] : last[0]], first


# ----------------------------------------------------------------------------------------------------------
# Photos of any number of faces
# ----------------------------------------------------------------------------------------------------------

#: Crops hold the head: this many eye distances wide and high, with the eyes on this line (a share of the height).
_CROP_WIDTH, _CROP_HEIGHT, _CROP_EYE_LINE = 3.6, 4.4, 0.46
#: Largest eye distance in crops, in pixels: larger faces are shrunk. Smaller ones are not enlarged, so that a crop's
#: landmarks tell how much detail the photo has.
_LARGEST_CROP = 130

#: A face with a smaller eye distance (pixels) has too little detail to tell people apart.
_SMALLEST_EYES = 12.0
#: The detector's five points and the landmarks must agree to this share of the eye distance (median over the five).
_AGREEMENT = 0.25
#: Eye centres, nose tip and mouth corners must lie inside the photo by this share of the eye distance.
_INSIDE = 0.05
#: On a frontal face the nose bridge lies between the ends of the jaw line, at least this share of the way from each.
_SIDEWAYS = 0.2

_TOO_SMALL = "too small"
_AT_BORDER = "cut by the border of the photo"
_NO_LANDMARKS = "turned away or covered: landmarks are uncertain"
_REASONS = ("", _TOO_SMALL, _AT_BORDER, _NO_LANDMARKS)


@dataclass(frozen=True, eq=False)
class Spot:
    """One face in a photo.

    Attributes
    ----------
    box : ndarray, shape (4,)
        left, top, right, bottom in pixels of the photo.
    landmarks : ndarray, shape (68, 2)
        In pixels of the photo; unreliable if `reason` is not empty.
    score : float
        Confidence of the detector, from 0.4 to 1.
    reason : str
        Why the face cannot be replaced; empty if it can.
    crop : ndarray of uint8, shape (h, w, 3), or None
        The upright face, if it can be replaced.
    transform : ndarray, shape (2, 3), or None
        From photo to crop.
    """

    box: np.ndarray
    landmarks: np.ndarray
    score: float
    reason: str = ""
    crop: np.ndarray | None = None
    transform: np.ndarray | None = None

    @property
    def landmarks_in_crop(self) -> np.ndarray:
        """The landmarks in pixels of the crop: (68, 2)."""
        return move_points(self.landmarks, self.transform)

    def scaled(self, scale: float) -> Spot:
        """Return where the face is after `resize` of the photo by `scale`."""
        transform = None if self.transform is None else _chain(_unscale(scale), self.transform)
        landmarks = (self.landmarks + 0.5) * scale - 0.5
        return replace(self, box=self.box * scale, landmarks=landmarks, transform=transform)


def find_faces(image: np.ndarray, thorough: bool = True) -> tuple[Spot, ...]:
    """Find all faces in a photo, and crop those that can be replaced; cached by the photo's content.

    Parameters
    ----------
    image : ndarray of uint8, shape (h, w, 3)
    thorough : bool, default True
        Search at two scales and rotated by quarter turns. Otherwise the photo is searched once, and small or rotated
        faces may be overlooked.

    Returns
    -------
    tuple of Spot
        From left to right; empty if no face is found.

    Raises
    ------
    TypeError, ValueError
        If the image is not a uint8 array (h, w, 3).
    """
    key = utils.content_key(check_image(image), bool(thorough))
    store = utils.CacheStore("faces-" + utils.source_key(__file__)[:16])
    known = store.get([key])
    if key not in known:
        spots = [_inspect(image, candidate) for candidate in _search(image, thorough)]
        known[key] = _pack(sorted(spots, key=lambda spot: tuple(spot.box)))
        store.put({key: known[key]})
    return _unpack(image, known[key])


def find_upright(image: np.ndarray, scale: float) -> tuple[Spot, ...]:
    """Find the upright faces in a frame of a video, searched at one scale only; not cached.

    Parameters
    ----------
    image : ndarray of uint8, shape (h, w, 3)
    scale : float
        The image is searched at this many times its size.
    """
    return tuple(_inspect(image, candidate) for candidate in _one_each(_search_at(image, scale)))


def find_boxes(image: np.ndarray) -> np.ndarray:
    """Find the boxes of the upright faces in a photo; cached by the photo's content.

    This takes about half the time of `find_faces`, which also rotates the photo and finds landmarks.

    Parameters
    ----------
    image : ndarray of uint8, shape (h, w, 3)

    Returns
    -------
    ndarray of float64, shape (m, 4)
        left, top, right, bottom in pixels; from left to right.

    Raises
    ------
    TypeError, ValueError
        If the image is not a uint8 array (h, w, 3).
    """
    key = utils.content_key(check_image(image))

    def compute() -> list:
        return sorted(candidate.box.tolist() for candidate in _search(image, rotated=False))

    place = "boxes-" + utils.source_key(__file__)[:16]
    return np.reshape(utils.cached_json(place, key, compute), (-1, 4)).astype(float)


def _inspect(image: np.ndarray, candidate: _Candidate) -> Spot:
    """Crop a face, or say why it cannot be replaced."""
    landmarks, disagreement = _fit_landmarks(image, candidate)
    spot = Spot(candidate.box, landmarks, candidate.score)
    if _eye_distance(landmarks) < _SMALLEST_EYES:
        return replace(spot, reason=_TOO_SMALL)
    if disagreement > _AGREEMENT or _sideways(landmarks):
        return replace(spot, reason=_NO_LANDMARKS)
    points, margin = _five_points(landmarks), _INSIDE * _eye_distance(landmarks)
    if (points < margin).any() or (points > np.array(image.shape[1::-1]) - 1 - margin).any():
        return replace(spot, reason=_AT_BORDER)
    crop, transform = upright_crop(image, landmarks)
    return replace(spot, crop=crop, transform=transform)


def upright_crop(image: np.ndarray, landmarks: np.ndarray) -> tuple[np.ndarray, np.ndarray]:
    """Crop the head with landmarks (68, 2) upright, (h, w, 3), and return the transform (2, 3) from the photo, too."""
    unit = min(float(_eye_distance(landmarks)), _LARGEST_CROP)
    width, height = round(_CROP_WIDTH * unit), round(_CROP_HEIGHT * unit)
    middle = np.array([(width - 1) / 2, _CROP_EYE_LINE * (height - 1)])
    transform = similarity(eye_centres(landmarks), np.stack([middle - [unit / 2, 0], middle + [unit / 2, 0]]))
    return cut(image, transform, height, width), transform


def _sideways(landmarks: np.ndarray) -> bool:
    """Whether the face is turned so far that its nose bridge lies close to one end of the jaw line."""
    left, right = landmarks[[0, 16]]
    along = (right - left) / max(float(((right - left) ** 2).sum()), 1e-12)
    share = float((landmarks[28] - left) @ along)
    return not _SIDEWAYS <= share <= 1 - _SIDEWAYS


def _pack(spots: Sequence[Spot]) -> bytes:
    """The spots of a photo without the pixels, for the cache: 150 numbers per spot."""
    rows = [
        np.concatenate(
            [
                spot.box,
                spot.landmarks.ravel(),
                [spot.score, _REASONS.index(spot.reason)],
                np.zeros(8) if spot.crop is None else [*spot.transform.ravel(), *spot.crop.shape[:2]],
            ]
        )
        for spot in spots
    ]
    return np.array(rows, dtype="<f8").tobytes()


def _unpack(image: np.ndarray, data: bytes) -> tuple[Spot, ...]:
    """Undo `_pack`, with crops cut out of the photo again."""
    spots = []
    for row in np.frombuffer(data, dtype="<f8").reshape(-1, 150):
        spot = Spot(row[:4], row[4:140].reshape(68, 2), float(row[140]), _REASONS[int(row[141])])
        if not spot.reason:
            transform = row[142:148].reshape(2, 3)
            crop = cut(image, transform, *row[148:].astype(int))
            spot = replace(spot, transform=transform, crop=crop)
        spots.append(spot)
    return tuple(spots)
