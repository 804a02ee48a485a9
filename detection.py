"""Find faces in photos: boxes, 68 landmarks, and aligned crops.

Use `detect` for photos that show one face. It runs dlib's frontal face detector (histograms of oriented gradients); the
landmarks come from dlib's 68-point shape predictor (Kazemi and Sullivan, "One millisecond face alignment with an
ensemble of regression trees", CVPR 2014). A face that the detector misses is never dropped: its box is the whole
photo, its landmarks are predicted there, and its `found` flag is False.

Use `find_faces` for ordinary photos, with any number of faces of any size and tilt. A missed face would be released
unchanged, so the photo is searched twice: with the same detector at several scales and rotations, and with dlib's
convolutional detector (King, "Max-margin object detection", arXiv 1502.00046), which also finds profile faces. Each
face is then rotated upright into a crop and detected again there. It can be replaced only if the landmarks agree; any
other face has a `reason`.
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

#: Photos with names and people, or uint8 RGB arrays (h, w, 3) alone.
Images = Faces | Sequence[np.ndarray]

#: Rows of the 68 landmarks (iBUG 300-W order) that belong to one part of the face.
JAW = slice(0, 17)
_NOSE_TIP = 30
LEFT_EYE = slice(36, 42)  # on the left of the photo
RIGHT_EYE = slice(42, 48)
MOUTH_CORNERS = (48, 54)

#: dlib's landmarks have integer coordinates: faces narrower than this are enlarged first, up to 4 times.
LANDMARK_BOX = 300

#: `detect` shrinks photos to at most this many pixels on the longer side.
_SEARCH_SIDE = 1280

#: Eyes, nose tip and mouth corners in a crop, as shares of its side: the five-point template that ArcFace
#: recognisers are trained on (Deng et al., CVPR 2019), which is given for 112 x 112 pixels.
_FIVE_POINTS = np.array(
    [[38.2946, 51.6963], [73.5318, 51.5014], [56.0252, 71.7366], [41.5493, 92.3655], [70.7299, 92.2041]]
) / 112.0  # fmt: skip

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
        flagged, and of several faces the largest is used, with one warning for the whole set.

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
    place = "detection-" + utils.source_key(__file__)[:16]
    rows = np.stack(
        utils.cached_rows(place, faces.image_keys, _detect_row, lambda i: (faces.images[i],), "finding faces")
    )  # (n, 141)
    n_faces = rows[:, -1].astype(np.int64)
    _report_counts(n_faces, faces.names, strict)
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
    boxes = _find_boxes(image)
    height, width = image.shape[:2]
    box = boxes[0] if len(boxes) else np.array([0, 0, width, height], dtype=float)
    return np.concatenate([box, _predict_landmarks(image, box).ravel(), [len(boxes)]]).astype(np.float32)


def _report_counts(n_faces: np.ndarray, names: Sequence[str], strict: bool) -> None:
    """Raise an error, or warn, about photos that do not show exactly one face."""
    missed, several = np.flatnonzero(n_faces == 0), np.flatnonzero(n_faces > 1)
    if strict and len(missed):
        raise ValueError(
            f"no face was found in {len(missed)} of {len(n_faces)} photos (first: {names[missed[0]]}); "
            "remove them, or use strict=False to keep and flag them"
        )
    if len(several):
        problem = f"{len(several)} of {len(n_faces)} photos show several faces (first: {names[several[0]]})"
        if strict:
            raise ValueError(f"{problem}; crop them to one face, or use strict=False to use the largest face")
        warnings.warn(f"{problem}; the largest face in each is used", stacklevel=3)


def _find_boxes(image: np.ndarray) -> np.ndarray:
    """Find all faces in one photo: (m, 4), the largest first; left, top, right, bottom in pixels.

    The photo is searched at its own scale (large photos are shrunk to 1280 pixels). If nothing is found, it is searched
    again at twice that scale and with its border extended, for small and cropped faces.
    """
    check_image(image)
    scale = min(1.0, _SEARCH_SIDE / max(image.shape[:2]))
    searched = resize(image, scale)
    boxes = _boxes_and_scores(searched)[0] / scale
    if len(boxes) == 0:
        margin = max(searched.shape[:2]) // 4
        wider = cv2.copyMakeBorder(searched, margin, margin, margin, margin, cv2.BORDER_REPLICATE)
        boxes = (_boxes_and_scores(resize(wider, 2.0))[0] / 2.0 - margin) / scale
    areas = (boxes[:, 2] - boxes[:, 0]) * (boxes[:, 3] - boxes[:, 1])
    return boxes[np.argsort(-areas, kind="stable")]


def resize(image: np.ndarray, scale: float) -> np.ndarray:
    """Scale an image (h, w, 3) by a factor, without aliasing when it shrinks."""
    if scale == 1.0:
        return np.ascontiguousarray(image)
    method = cv2.INTER_AREA if scale < 1 else cv2.INTER_CUBIC
    return cv2.resize(image, None, fx=scale, fy=scale, interpolation=method)


def _boxes_and_scores(image: np.ndarray) -> tuple[np.ndarray, list[float]]:
    """Boxes (m, 4) and scores that the first detector finds in an image."""
    boxes, scores, _ = _detector().run(np.ascontiguousarray(image), 0, 0.0)
    return np.array([_corners(box) for box in boxes], dtype=float).reshape(-1, 4), scores


def _corners(box) -> tuple[int, int, int, int]:
    return box.left(), box.top(), box.right() + 1, box.bottom() + 1


@utils.per_thread
def _detector():
    return dlib.get_frontal_face_detector()


@utils.per_thread
def _predictor():
    return dlib.shape_predictor(str(utils.find_dlib_model("shape_predictor_68_face_landmarks.dat")))


def _predict_landmarks(image: np.ndarray, box: np.ndarray) -> np.ndarray:
    """Predict the 68 landmarks of the face in a box, to about a quarter of a pixel.

    Parameters
    ----------
    image : ndarray of uint8, shape (h, w, 3)
    box : ndarray, shape (4,)
        left, top, right, bottom in pixels, as dlib's detector draws it: from the brows to the chin.

    Returns
    -------
    ndarray of float64, shape (68, 2)
        x, y in pixels; points may lie outside the photo.
    """
    # Cut out the box with a margin, and enlarge it if it is small.
    left, top, right, bottom = (float(side) for side in box)
    margin = 0.5 * max(right - left, bottom - top)
    x0, y0 = int(max(0, left - margin)), int(max(0, top - margin))
    part = image[y0 : int(bottom + margin) + 1, x0 : int(right + margin) + 1]
    scale = float(np.clip(np.ceil(LANDMARK_BOX / (right - left)), 1, 4))
    # Predict integer landmarks on the part, and map them back to the photo. (68, 2)
    edges = [
        round((side - offset) * scale)
        for side, offset in zip((left, top, right, bottom), (x0, y0) * 2, strict=True)
    ]
    region = dlib.rectangle(edges[0], edges[1], edges[2] - 1, edges[3] - 1)
    points = _predictor()(resize(part, scale), region).parts()
    found = np.array([(point.x, point.y) for point in points], dtype=float)
    return (found + 0.5) / scale - 0.5 + np.array([x0, y0])


# ----------------------------------------------------------------------------------------------------------
# Landmarks and transforms
# ----------------------------------------------------------------------------------------------------------


def _five_points(landmarks: np.ndarray) -> np.ndarray:
    """Eye centres, nose tip and mouth corners of 68 landmarks: (68, 2) -> (5, 2)."""
    return np.stack([*eye_centres(landmarks), landmarks[_NOSE_TIP], *landmarks[list(MOUTH_CORNERS)]])


def eye_centres(landmarks: np.ndarray) -> np.ndarray:
    """Centres of both eyes, with the left eye in the photo first: (..., 68, 2) -> (..., 2, 2)."""
    eyes = [landmarks[..., side, :].mean(axis=-2) for side in (LEFT_EYE, RIGHT_EYE)]
    return np.stack(eyes, axis=-2)


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
    target = ((_FIVE_POINTS - 0.5) * zoom + 0.5) * size - 0.5
    points = _five_points(landmarks)
    transform = similarity(points, target)
    scale = _zoom_of(transform)
    method = cv2.INTER_AREA if scale < 1 else cv2.INTER_CUBIC
    if scale < 0.5:  # a plain warp would skip pixels: shrink the photo first
        image = resize(image, 2 * scale)
        transform = similarity((points + 0.5) * 2 * scale - 0.5, target)
    return cv2.warpAffine(image, transform, (size, size), flags=method, borderMode=cv2.BORDER_REPLICATE)


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
    scale = _zoom_of(transform)
    if scale < 0.5:  # a plain warp would skip pixels: shrink the photo first
        image, transform = resize(image, 2 * scale), _chain(_unscale(2 * scale), transform)
    method = cv2.INTER_LINEAR if scale < 1 else cv2.INTER_CUBIC
    return cv2.warpAffine(image, transform, (width, height), flags=method, borderMode=cv2.BORDER_REFLECT_101)


# ----------------------------------------------------------------------------------------------------------
# Photos of any number of faces
# ----------------------------------------------------------------------------------------------------------

#: (enlargement, longer side in pixels at most): an ordinary search finds faces from 40 pixels on ...
_SCALES = ((1.0, 2560), (2.0, 2560))
#: ... a thorough one from 20 pixels on ...
_THOROUGH_SCALES = (*_SCALES, (4.0, 4096))
#: ... rotated photos are searched at this size (dlib's detector itself tolerates about 25 degrees) ...
_ROTATED_SIDE, _ANGLES = 1280, (-135, -90, -45, 45, 90, 135, 180)
#: ... and the second detector, which takes seconds per megapixel, at this one.
_SECOND_LOOK_SIDE = 1000

#: A spot with a lower score counts as a face only if the second detector also finds it.
_SURE_SCORE = 0.5

#: Two spots are one face if their centres are closer than this share of the larger one's size.
_SAME_SPOT = 0.4

#: Crops hold the head: this many eye distances wide and high, with the eyes on this line (a share of the height).
_CROP_WIDTH, _CROP_HEIGHT, _CROP_EYE_LINE = 3.6, 4.4, 0.46
#: Limits of the eye distance in crops, in pixels: smaller faces are enlarged, larger ones shrunk.
_SMALLEST_CROP, _LARGEST_CROP = 48, 130

#: A face with a smaller eye distance (pixels) has too little detail to tell people apart.
_SMALLEST_EYES = 12.0
#: Landmarks in the photo and the crop must agree to this share of the eye distance (median over the 68).
_AGREEMENT = 0.12
#: On a frontal face the nose bridge lies between the ends of the jaw line, at least this share of the way from each.
_SIDEWAYS = 0.2

_TOO_SMALL = "too small"
_AT_BORDER = "at the border of the photo"
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
        Confidence of the detector; 0 is the threshold for a face.
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


@dataclass(frozen=True, eq=False)
class _Candidate:
    """A face found by one search: landmarks (68, 2), box (4,), score, and whether the second detector found it."""

    landmarks: np.ndarray
    box: np.ndarray
    score: float
    second: bool = False


@utils.per_thread
def _second_detector():
    return dlib.cnn_face_detection_model_v1(str(utils.find_dlib_model("mmod_human_face_detector.dat")))


def find_faces(image: np.ndarray, thorough: bool = True) -> tuple[Spot, ...]:
    """Find all faces in a photo, and crop those that can be replaced; cached by the photo's content.

    Parameters
    ----------
    image : ndarray of uint8, shape (h, w, 3)
    thorough : bool, default True
        Also search with the second detector and for smaller faces, which takes seconds per photo. Without it, most
        faces seen from the side or under 40 pixels are overlooked.

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
        known[key] = _pack(_find_all(image, thorough))
        store.put({key: known[key]})
    return _unpack(image, known[key])


def _find_all(image: np.ndarray, thorough: bool) -> list[Spot]:
    candidates = [*_upright(image, thorough), *_rotated(image), *(_second_look(image) if thorough else ())]
    spots = []
    for group in _same_face(candidates):
        best = max(group, key=lambda c: (not c.second, c.score))
        if _is_face(image, best, any(c.second for c in group)):
            spots.append(_inspect(image, best))
    return sorted(_one_each(spots), key=lambda spot: tuple(spot.box))


def _upright(image: np.ndarray, thorough: bool) -> Iterator[_Candidate]:
    """Search a photo at its own size and enlarged."""
    largest = max(image.shape[:2])
    sizes = _THOROUGH_SCALES if thorough else _SCALES
    for scale in sorted({min(enlarged, side / largest) for enlarged, side in sizes}):
        searched = resize(image, scale)
        for box, score in zip(*_boxes_and_scores(searched), strict=True):
            yield _candidate(searched, box, score, _unscale(scale))


def _rotated(image: np.ndarray) -> Iterator[_Candidate]:
    """Search a photo rotated by each of `_ANGLES`."""
    scale = min(1.0, _ROTATED_SIDE / max(image.shape[:2]))
    small = resize(image, scale)
    height, width = small.shape[:2]
    for angle in _ANGLES:
        # Rotate, with enough room for all of the photo.
        turn = cv2.getRotationMatrix2D(((width - 1) / 2, (height - 1) / 2), angle, 1.0)
        extent = np.abs(turn[:, :2]) @ [width, height]
        turn[:, 2] += (extent - [width, height]) / 2
        size = tuple(int(np.ceil(side)) for side in extent)
        turned = cv2.warpAffine(small, turn, size, borderMode=cv2.BORDER_REPLICATE)
        # Search, and keep faces that lie inside the photo.
        back = _chain(cv2.invertAffineTransform(turn), _unscale(scale))
        for box, score in zip(*_boxes_and_scores(turned), strict=True):
            candidate = _candidate(turned, box, score, back)
            centre = (candidate.box[:2] + candidate.box[2:]) / 2
            if ((centre >= 0) & (centre < image.shape[1::-1])).all():
                yield candidate


def _second_look(image: np.ndarray) -> Iterator[_Candidate]:
    """Search a photo with the second detector."""
    scale = min(1.0, _SECOND_LOOK_SIDE / max(image.shape[:2]))
    searched = resize(image, scale)
    for found in _second_detector()(searched, 0):
        box = np.array(_corners(found.rect), dtype=float)
        yield _candidate(searched, box, found.confidence, _unscale(scale), second=True)


def _candidate(image: np.ndarray, box: np.ndarray, score: float, back: np.ndarray, second=False):
    """Predict landmarks in a box, and map both from the searched image to the photo by `back` (2, 3)."""
    landmarks = move_points(_predict_landmarks(image, box), back)
    corners = box[[[0, 1], [2, 1], [2, 3], [0, 3]]]
    centre = move_points(corners, back).mean(axis=0)
    half = _zoom_of(back) * (box[2:] - box[:2]) / 2
    return _Candidate(landmarks, np.concatenate([centre - half, centre + half]), score, second)


def _same_face(candidates: list[_Candidate]) -> list[list[_Candidate]]:
    """Group the candidates that show one face, the best score first."""
    groups: list[list[_Candidate]] = []
    for candidate in sorted(candidates, key=lambda c: -c.score):
        group = next((group for group in groups if _overlap(candidate, group[0])), None)
        if group is None:
            groups.append([candidate])
        else:
            group.append(candidate)
    return groups


def _overlap(a: Spot | _Candidate, b: Spot | _Candidate) -> bool:
    """Whether two boxes show the same face: close to each other and of similar size."""
    size_a, size_b = (float((s.box[2:] - s.box[:2]).mean()) for s in (a, b))
    apart = np.linalg.norm((a.box[:2] + a.box[2:] - b.box[:2] - b.box[2:]) / 2)
    return apart < _SAME_SPOT * max(size_a, size_b) and max(size_a, size_b) < 2.2 * min(size_a, size_b)


def _is_face(image: np.ndarray, best: _Candidate, seen_twice: bool) -> bool:
    """Whether the first detector is confident, or the second agrees, in the photo or in a close-up."""
    if seen_twice or best.score >= _SURE_SCORE:
        return True
    eyes = np.array([[80.0, 100.0], [160.0, 100.0]])  # in a closeup of 240 x 280
    transform = similarity(eye_centres(best.landmarks), eyes)
    closeup = cv2.warpAffine(image, transform, (240, 280), borderMode=cv2.BORDER_REPLICATE)
    return len(_second_detector()(closeup, 0)) > 0


def _inspect(image: np.ndarray, candidate: _Candidate) -> Spot:
    """Crop a face, or say why it cannot be replaced."""
    spot = Spot(candidate.box, candidate.landmarks, candidate.score)
    eyes = eye_centres(candidate.landmarks)
    distance = float(np.linalg.norm(eyes[1] - eyes[0]))
    if distance < _SMALLEST_EYES:
        return replace(spot, reason=_TOO_SMALL)
    # Detect the face again in its upright crop, and compare the landmarks.
    crop, transform = _upright_crop(image, eyes, distance)
    found = detect([crop])
    moved = move_points(candidate.landmarks, transform)
    crop_distance = np.linalg.norm(np.subtract(*eye_centres(moved)))
    error = np.median(np.linalg.norm(found.landmarks[0] - moved, axis=1))
    if not found.found[0] or error > _AGREEMENT * crop_distance or _sideways(found.landmarks[0]):
        return replace(spot, reason=_NO_LANDMARKS)
    # Map the landmarks of the crop, which are more precise, to the photo.
    landmarks = move_points(found.landmarks[0], cv2.invertAffineTransform(transform))
    outline = add_forehead(landmarks)
    if (outline < 0).any() or (outline > np.array(image.shape[1::-1]) - 1).any():
        return replace(spot, landmarks=landmarks, reason=_AT_BORDER)
    return replace(spot, landmarks=landmarks, crop=crop, transform=transform)


def _upright_crop(image: np.ndarray, eyes: np.ndarray, distance: float) -> tuple[np.ndarray, np.ndarray]:
    """Crop the head upright, (h, w, 3), and return the transform (2, 3) from the photo, too."""
    unit = float(np.clip(distance, _SMALLEST_CROP, _LARGEST_CROP))
    width, height = round(_CROP_WIDTH * unit), round(_CROP_HEIGHT * unit)
    middle = np.array([(width - 1) / 2, _CROP_EYE_LINE * (height - 1)])
    transform = similarity(eyes, np.stack([middle - [unit / 2, 0], middle + [unit / 2, 0]]))
    return cut(image, transform, height, width), transform


def _sideways(landmarks: np.ndarray) -> bool:
    """Whether the face is turned so far that its nose bridge lies close to one end of the jaw line."""
    left, right = landmarks[[0, 16]]
    along = (right - left) / max(float(((right - left) ** 2).sum()), 1e-12)
    share = float((landmarks[28] - left) @ along)
    return not _SIDEWAYS <= share <= 1 - _SIDEWAYS


def _one_each(spots: list[Spot]) -> list[Spot]:
    """Keep one spot of each face; those with a crop take precedence."""
    kept: list[Spot] = []
    for spot in sorted(spots, key=lambda s: bool(s.reason)):
        if not any(_overlap(spot, other) for other in kept):
            kept.append(spot)
    return kept


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
