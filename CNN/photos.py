"""Photos made ready for training: brought into one frame, with their codes' known parts."""

from __future__ import annotations

from dataclasses import dataclass

import cv2
import numpy as np
from sklearn.utils import check_random_state

import detection
import frame
import utils
from anonymizer.pixel import PixelMean
from CNN.model import EMOTIONS
from datasets import Faces

#: Weight of what lies outside the face, against 1 inside.
OUTSIDE = 0.35

#: Which landmark comes to lie where, in a mirror (iBUG 300-W order).
MIRRORED = np.array(
    [*range(16, -1, -1), *range(26, 16, -1), *range(27, 31), *range(35, 30, -1), 45, 44, 43, 42, 47, 46, 39, 38, 37, 36,
     41, 40, *range(54, 47, -1), *range(59, 54, -1), *range(64, 59, -1), *range(67, 64, -1)]
)  # fmt: skip


@dataclass(frozen=True, eq=False, repr=False)
class TrainingSet:
    """Aligned photos of some people.

    Attributes
    ----------
    pictures : ndarray of uint8, shape (n, h, w, c)
        Upright, all faces in one place, what a photo does not show painted in.
    people : ndarray of int, shape (n,)
        Who is on each: a place in `identities`.
    identities : list of str
        Sorted.
    names : list of str
    held_out : ndarray of bool, shape (n,)
        Kept out of training.
    anchors : ndarray of bool, shape (n,)
        The one training photo of each person whose landmarks are nearest to the mean: frontal and calm. The nuisance
        code 0 shows it.
    conditions : dict of str to ndarray of float32, shape (n, length)
        Known codes besides the identity: emotion and orientation; empty where nuisance codes are learnt.
    shapes : ndarray of float64, shape (n, 68, 2)
        The landmarks of each photo in the frame.
    landmarks : ndarray of float64, shape (68, 2)
        Their mean over the training photos.
    source : str
    """

    pictures: np.ndarray
    people: np.ndarray
    identities: list[str]
    names: list[str]
    held_out: np.ndarray
    anchors: np.ndarray
    conditions: dict[str, np.ndarray]
    shapes: np.ndarray
    landmarks: np.ndarray
    source: str

    def __len__(self) -> int:
        return len(self.pictures)

    def landmark_codes(self, size: int) -> np.ndarray:
        """How each photo's landmarks differ from those of its person's anchor: float32 (2n, size).

        Principal components of the differences, the strongest with standard deviation 1: turns of the head and
        movements of the face that mean the same for all people. The second half is for the mirrored photos.
        """
        anchor_of = np.zeros(len(self.identities), dtype=np.int64)
        anchor_of[self.people[self.anchors]] = np.flatnonzero(self.anchors)
        moved = self.shapes - self.shapes[anchor_of[self.people]]  # (n, 68, 2)
        mirrored = moved[:, MIRRORED] * [-1, 1]
        rows = np.concatenate([moved, mirrored]).reshape(2 * len(self), -1)
        learnt = rows[np.tile(~self.held_out, 2)]
        _, strengths, basis = np.linalg.svd(learnt, full_matrices=False)
        codes = rows @ basis[:size].T / max(strengths[0] / np.sqrt(len(learnt)), 1e-9)
        return np.pad(codes, ((0, 0), (0, size - codes.shape[1]))).astype(np.float32)

    def face_weights(self) -> np.ndarray:
        """How much each pixel counts: 1 on the face, less around it, softly: float32 (h, w, 1)."""
        return face_weights(self.landmarks, *self.pictures.shape[1:3])


def face_weights(landmarks: np.ndarray, height: int, width: int) -> np.ndarray:
    """Weights of pixels, 1 within the hull of the landmarks (68, 2) and `OUTSIDE` far from it: (h, w, 1)."""
    hull = cv2.convexHull(np.rint(detection.add_forehead(landmarks)).astype(np.int32))
    inside = np.zeros((height, width), dtype=np.float32)
    cv2.fillConvexPoly(inside, hull, 1.0)
    inside = cv2.GaussianBlur(inside, (0, 0), 0.04 * width)
    return (OUTSIDE + (1 - OUTSIDE) * inside)[..., None]


def align(
    images, landmarks: np.ndarray, mean: np.ndarray, height: int, width: int, channels: int
) -> tuple[np.ndarray, np.ndarray]:
    """Bring photos into the frame of a network.

    Parameters
    ----------
    images : sequence of n uint8 arrays (h, w, 3)
    landmarks : ndarray, shape (n, 68, 2)
    mean : ndarray, shape (68, 2)
        The landmarks that the network draws on average.
    height, width, channels : int
        Of the network.

    Returns
    -------
    pictures : ndarray of float32, shape (n, height, width, channels)
        In 0..1.
    visible : ndarray of bool, shape (n, height, width)
        Where the photo shows something.
    """
    pictures, visible = [], []
    for image, points in zip(images, landmarks, strict=True):
        if channels == 1:
            image = cv2.cvtColor(image, cv2.COLOR_RGB2GRAY)[..., None]
        texture, seen = frame.warp_photo(image, detection.similarity(points, mean), height, width)
        pictures.append(texture / 255)
        visible.append(seen)
    return np.stack(pictures).astype(np.float32), np.stack(visible)


def prepare(
    faces: Faces,
    held_out: int = 2,
    attributes: bool = False,
    size: tuple[int, int] | None = None,
    random_state=0,
) -> TrainingSet:
    """Align photos and choose which are kept out of training.

    Frame, mean face and painting are learnt from the training photos alone.

    Parameters
    ----------
    faces : Faces
    held_out : int, default 2
        Photos of each person that are kept out; a person keeps at least one for training.
    attributes : bool, default False
        Take emotion and orientation from RaFD's attributes ``expression`` and ``pose`` instead of learning a nuisance
        code for each photo.
    size : (int, int), optional
        Height and width of the pictures; by default as the photos have them, see `frame`.
    random_state : int, RandomState or None, default 0
        Chooses what is held out.

    Raises
    ------
    ValueError
        For options that do not fit the photos.
    """
    if isinstance(held_out, bool) or not isinstance(held_out, int | np.integer) or held_out < 0:
        raise ValueError(f"held_out must be a whole number of at least 0, not {held_out!r}")
    random = check_random_state(random_state)
    identities = [str(person) for person in faces.people]
    people = np.searchsorted(faces.people, faces.identities)
    apart = np.zeros(len(faces), dtype=bool)
    for person in range(len(identities)):
        rows = np.flatnonzero(people == person)
        apart[random.choice(rows, size=min(held_out, len(rows) - 1), replace=False)] = True
    conditions = conditions_of(faces) if attributes else {}
    aligned = PixelMean(faces.select(~apart), random_state=0)
    mean = aligned.frame
    if size is not None:
        if len(size) != 2 or not all(
            isinstance(side, int | np.integer) and 16 <= side <= 2048 for side in size
        ):
            raise ValueError(f"size must be height and width, each from 16 to 2048 pixels, not {size!r}")
        height, width = map(int, size)
        scale = width / mean.width  # the eyes stay on their line, whatever the proportions
        shift = [0, frame.EYE_LINE * (height - scale * mean.height)]
        mean = frame.Frame(height, width, scale * mean.shape + shift)
    pictures, shapes = _aligned_pictures(faces, aligned, mean)
    typical = np.linalg.norm(shapes - shapes[~apart].mean(axis=0), axis=2).mean(axis=1)  # (n,)
    anchors = np.zeros(len(faces), dtype=bool)
    for person in range(len(identities)):
        rows = np.flatnonzero((people == person) & ~apart)
        anchors[rows[typical[rows].argmin()]] = True
    return TrainingSet(
        pictures, people, identities, [str(name) for name in faces.names], apart, anchors, conditions, shapes,
        shapes[~apart].mean(axis=0), faces.source,
    )  # fmt: skip


def _aligned_pictures(faces: Faces, aligned: PixelMean, mean: frame.Frame) -> tuple[np.ndarray, np.ndarray]:
    """Pictures, uint8 (n, h, w, c), and landmarks in the frame, (n, 68, 2)."""
    channels = aligned.channels
    typical, known = aligned.typical, aligned._known
    if typical.shape[:2] != (mean.height, mean.width):
        typical = cv2.resize(typical, (mean.width, mean.height)).reshape(mean.height, mean.width, channels)
        known = cv2.resize(known.astype(np.uint8), (mean.width, mean.height)).astype(bool)
    landmarks = detection.detect(faces).landmarks
    pictures = np.zeros((len(faces), mean.height, mean.width, channels), dtype=np.uint8)
    shapes = np.zeros((len(faces), 68, 2))
    for i in utils.progress(range(len(faces)), "aligning faces"):
        transform = mean.transform(landmarks[i])
        shapes[i] = detection.move_points(landmarks[i], transform)
        texture, seen = frame.warp_photo(faces.images[i][..., :channels], transform, mean.height, mean.width)
        painted = frame.paint_in(texture, seen & known, typical)
        pictures[i] = np.clip(np.rint(painted), 0, 255)
    return pictures, shapes


def conditions_of(faces: Faces) -> dict[str, np.ndarray]:
    """Emotion (n, 8) and orientation (n, 2) from RaFD's attributes."""
    missing = {"expression", "pose"} - set(faces.attributes.columns)
    if missing:
        raise ValueError(
            f"the photos of {faces.source} have no {' and '.join(sorted(missing))}; learn nuisance codes instead"
        )
    emotions = [str(value).lower() for value in faces.attributes["expression"]]
    unknown = sorted(set(emotions) - set(EMOTIONS))
    if unknown:
        raise ValueError(f"unknown expression {unknown[0]!r}; there is {', '.join(EMOTIONS)}")
    emotion = np.eye(len(EMOTIONS), dtype=np.float32)[[EMOTIONS.index(value) for value in emotions]]
    angle = np.deg2rad(faces.attributes["pose"].to_numpy(dtype=float) - 90)  # RaFD calls the frontal view 90
    orientation = np.stack([np.sin(angle), np.cos(angle)], axis=1).astype(np.float32)
    return {"emotion": emotion, "orientation": orientation}
