"""Prepare photos for training: aligned in one frame, with people, landmarks and held-out photos."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass, field
from functools import cached_property

import cv2
import numpy as np

import detection
import utils
from checks import check_number
from datasets import Faces
from frame import EYE_LINE, Frame, paint_in, typical_texture, warp_photo

# Weights of pixels, relative to 1 on the face: in the photo outside the face, and in the padding around the photo. With
# a smaller weight in the padding, StyleGAN hides the blobs that steer its instance normalisation there (Karras et al.,
# CVPR 2020, section 2).
_OUTSIDE, _PADDING = 0.35, 0.25

# The typical face is learnt from at most this many photos and at most this many bytes of textures.
_TYPICAL_PHOTOS, _TYPICAL_BYTES = 1000, 512 << 20

# Index of each landmark's mirror image (iBUG 300-W order).
_MIRRORED = np.array(
    [*range(16, -1, -1), *range(26, 16, -1), *range(27, 31), *range(35, 30, -1), 45, 44, 43, 42, 47, 46, 39, 38, 37, 36,
     41, 40, *range(54, 47, -1), *range(59, 54, -1), *range(64, 59, -1), *range(67, 64, -1)]
)  # fmt: skip


@dataclass(frozen=True, eq=False, repr=False)
class TrainingSet:
    """Aligned photos of some people.

    Attributes
    ----------
    pictures : ndarray of uint8, shape (n, h, w, c)
        Aligned photos, upright, with all faces in the same place; the area outside a photo is filled in.
    people : ndarray of int, shape (n,)
        The person in each photo, as an index into `identities`.
    identities : list of str
        Sorted.
    names : list of str
        Names of the photos.
    held_out : ndarray of bool, shape (n,)
        Photos that are held out from training.
    shapes : ndarray of float64, shape (n, 68, 2)
        Landmarks of each aligned photo, x and y in pixels.
    source : str
        The name of the data set.
    frame : tuple of int
        Top, left, height and width of the photo without the padding.
    conditions : dict of str to ndarray of float32, shape (n, length)
        Known codes other than the identity, such as emotion and orientation.
    keys : list of str
        A key of the pixels of each original photo.
    """

    pictures: np.ndarray
    people: np.ndarray
    identities: list[str]
    names: list[str]
    held_out: np.ndarray
    shapes: np.ndarray
    source: str
    frame: tuple[int, int, int, int]
    conditions: dict[str, np.ndarray] = field(default_factory=dict)
    keys: list[str] = field(default_factory=list)

    def __len__(self) -> int:
        return len(self.pictures)

    @cached_property
    def landmarks(self) -> np.ndarray:
        """Mean landmarks of the training photos: float64 (68, 2)."""
        return self.shapes[~self.held_out].mean(axis=0)

    @cached_property
    def anchors(self) -> np.ndarray:
        """Each person's anchor, the training photo with landmarks nearest to the mean, calm and frontal: bool (n,)."""
        distance = np.linalg.norm(self.shapes - self.landmarks, axis=2).mean(axis=1)  # (n,)
        anchors = np.zeros(len(self), dtype=bool)
        for person in range(len(self.identities)):
            rows = np.flatnonzero((self.people == person) & ~self.held_out)
            anchors[rows[distance[rows].argmin()]] = True
        return anchors

    def landmark_codes(self, size: int) -> np.ndarray:
        """Describe how each photo's landmarks differ from those of its person's anchor.

        The codes are principal components of the differences, scaled so that the first has standard deviation 1. They
        represent head turns and facial movements, which have the same meaning for all people.

        Parameters
        ----------
        size : int
            Number of components.

        Returns
        -------
        ndarray of float32, shape (2n, size)
            Codes of the photos, then of their mirror images.
        """
        # Subtract the landmarks of the anchor. (2n, 136)
        anchor_of = np.zeros(len(self.identities), dtype=np.int64)
        anchor_of[self.people[self.anchors]] = np.flatnonzero(self.anchors)
        moved = self.shapes - self.shapes[anchor_of[self.people]]
        rows = np.concatenate([moved, mirror_landmarks(moved, width=1)]).reshape(2 * len(self), -1)
        # Project onto the principal components of the training photos. (2n, size)
        learnt = rows[np.tile(~self.held_out, 2)]
        _, strengths, basis = np.linalg.svd(learnt, full_matrices=False)
        codes = rows @ basis[:size].T / max(strengths[0] / np.sqrt(len(learnt)), 1e-9)
        return np.pad(codes, ((0, 0), (0, size - codes.shape[1]))).astype(np.float32)

    def pixel_weights(self) -> np.ndarray:
        """Weight of each pixel: 1 on the face, less around it, least in the padding: float32 (h, w, 1)."""
        top, left, height, width = self.frame
        weights = np.full((*self.pictures.shape[1:3], 1), _PADDING, dtype=np.float32)
        inner = face_weights(self.landmarks - [left, top], height, width)
        weights[top : top + height, left : left + width] = inner
        return weights


def face_weights(landmarks: np.ndarray, height: int, width: int, outside: float = _OUTSIDE) -> np.ndarray:
    """Weight of each pixel: 1 in the hull of the landmarks (68, 2), `outside` elsewhere: float32 (height, width, 1)."""
    hull = cv2.convexHull(np.rint(detection.add_forehead(landmarks)).astype(np.int32))
    inside = np.zeros((height, width), dtype=np.float32)
    cv2.fillConvexPoly(inside, hull, 1.0)
    inside = cv2.GaussianBlur(inside, (0, 0), 0.04 * width)
    return (outside + (1 - outside) * inside)[..., None]


def mirror_landmarks(landmarks: np.ndarray, width: int) -> np.ndarray:
    """Landmarks (..., 68, 2) of the mirror image of an image of this width in pixels."""
    return landmarks[..., _MIRRORED, :] * [-1, 1] + [width - 1, 0]


def prepare(
    faces: Faces, held_out: int = 2, size: tuple[int, int] | None = None, random_state=0
) -> TrainingSet:
    """Align photos, and choose the photos to hold out from training.

    The frame, the mean face and the filling are learnt from the training photos alone.

    Parameters
    ----------
    faces : Faces
    held_out : int, default 2
        Photos held out per person; each person keeps at least one for training.
    size : (int, int), optional
        Height and width of the aligned photos, 16 to 2048 each; by default those of the common frame, see
        `frame.Frame.fit`.
    random_state : int, RandomState or None, default 0
        Chooses the held-out photos.

    Returns
    -------
    TrainingSet

    Raises
    ------
    ParameterError
        If an option is out of range.
    """
    check_number("held_out", held_out, int, at_least=0)
    for side in size or ():
        check_number("size", side, int, at_least=16, at_most=2048)
    # Draw the held-out photos of each person. (n,)
    random = utils.check_random_state(random_state)
    people = np.searchsorted(faces.people, faces.identities)
    apart = np.zeros(len(faces), dtype=bool)
    for person in range(len(faces.people)):
        rows = np.flatnonzero(people == person)
        apart[random.choice(rows, size=min(held_out, len(rows) - 1), replace=False)] = True
    # Learn the frame from the training photos, and align all photos to it. (n, h, w, c)
    detection.report_photos(faces)
    landmarks = detection.detect(faces).landmarks
    training = faces.select(~apart)
    channels = 1 if training.grey else 3
    frame, typical, known = _typical_face(training.images, landmarks[~apart], channels)
    if size is not None:
        frame, typical, known = _resized(frame, typical, known, *map(int, size))
    pictures = np.zeros((len(faces), *typical.shape), dtype=np.uint8)
    shapes = np.zeros((len(faces), 68, 2))
    for i in utils.progress(range(len(faces)), "aligning faces"):
        transform = frame.transform(landmarks[i])
        shapes[i] = detection.move_points(landmarks[i], transform)
        texture, seen = warp_photo(faces.images[i][..., :channels], transform, frame.height, frame.width)
        pictures[i] = np.clip(np.rint(paint_in(texture, seen & known, typical)), 0, 255)
    identities, names = list(map(str, faces.people)), list(map(str, faces.names))
    place = (0, 0, frame.height, frame.width)
    return TrainingSet(
        pictures, people, identities, names, apart, shapes, faces.source, place, keys=faces.image_keys
    )


def _typical_face(
    images: Sequence[np.ndarray], landmarks: np.ndarray, channels: int
) -> tuple[Frame, np.ndarray, np.ndarray]:
    """Fit a frame to photos; return it with the mean texture (h, w, channels) and the mask of known pixels (h, w)."""
    chosen = np.random.RandomState(0).permutation(len(images))[:_TYPICAL_PHOTOS]
    measured = np.sort(chosen)
    frame = Frame.fit(landmarks[measured], np.array([images[i].shape[:2] for i in measured]))
    n_fitting = max(1, _TYPICAL_BYTES // (4 * frame.height * frame.width * channels))
    warped = [
        warp_photo(images[i][..., :channels], frame.transform(landmarks[i]), frame.height, frame.width)
        for i in np.sort(chosen[:n_fitting])
    ]
    return frame, *typical_texture(*map(np.stack, zip(*warped, strict=True)))


def _resized(
    frame: Frame, typical: np.ndarray, known: np.ndarray, height: int, width: int
) -> tuple[Frame, np.ndarray, np.ndarray]:
    """Scale a frame, the mean texture (h, w, c) and the mask of known pixels (h, w); the eyes stay on their line."""
    scale = width / frame.width
    shift = [0, EYE_LINE * (height - scale * frame.height)]
    if typical.shape[:2] != (height, width):
        typical = cv2.resize(typical, (width, height)).reshape(height, width, -1)
        known = cv2.resize(known.astype(np.uint8), (width, height)).astype(bool)
    return Frame(height, width, scale * frame.shape + shift), typical, known
