"""Training examples for StyleGAN: photos padded to squares, warped to other shapes, varied, and mixed by a teacher."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass, replace
from typing import Protocol

import cv2
import numpy as np

import detection
import frame
import utils
from datasets import Faces
from training.training_set import TrainingSet, mirror_landmarks, prepare

# A photo's longer side covers at least this share of the square; smaller photos are enlarged to fill it.
_LEAST_SHARE = 0.75

# Standard deviations of the random shift (pixels at a side of 128), rotation (degrees), log scale, brightness, and log
# contrast (for images in -1..1).
_SHIFT, _TURN, _SCALE, _BRIGHTNESS, _CONTRAST = 1.2, 1.2, 0.015, 0.05, 0.06

# A photo is warped by this share of the way to the landmarks of another person, drawn from the nearest share of the
# others, because warping a frontal face to a turned face would fold it.
_LEAST_BENT, _MOST_BENT, _NEAREST = 0.3, 0.9, 0.3

# Sizes of the mixed groups; size k has a probability proportional to 1/k, because small groups vary most.
_GROUP_SIZES = tuple(range(2, 11))


class SurrogateModel(Protocol):
    """A surrogate generator that is fitted to the training photos, such as ``anonymizer.load("aam", faces)``."""

    faces: Faces
    fingerprint: str

    def surrogate(self, members: Sequence[int]) -> np.ndarray:
        """Mix some photos: uint8 (h, w, 3)."""


def prepare_squares(faces: Faces, resolution: int = 128, held_out: int = 2, random_state=0) -> TrainingSet:
    """Align photos, convert them to grey, and pad them to squares.

    Photos that fit into the square and cover three quarters of its side keep their pixels; others are scaled. The
    photo's border is extrapolated over the rest of the square.

    Parameters
    ----------
    faces : Faces
    resolution : int, default 128
        Side of the square in pixels.
    held_out : int, default 2
        Photos held out per person; see `training_set.prepare`.
    random_state : int, RandomState or None, default 0

    Returns
    -------
    TrainingSet
    """
    photos = prepare(faces, held_out, random_state=random_state)
    longest = max(photos.pictures.shape[1:3])
    if not _LEAST_SHARE * resolution <= longest <= resolution:
        size = tuple(int(round(side * resolution / longest)) for side in photos.pictures.shape[1:3])
        photos = prepare(faces, held_out, size, random_state)
    height, width = photos.pictures.shape[1:3]
    top, left = (resolution - height) // 2, (resolution - width) // 2
    place = (top, left, height, width)
    pictures = np.stack([to_square(_grey(picture), place, resolution) for picture in photos.pictures])
    return replace(photos, pictures=pictures, shapes=photos.shapes + [left, top], frame=place)


def _grey(picture: np.ndarray) -> np.ndarray:
    return cv2.cvtColor(picture, cv2.COLOR_RGB2GRAY)[..., None] if picture.shape[2] == 3 else picture


def to_square(picture: np.ndarray, place: tuple[int, int, int, int], resolution: int) -> np.ndarray:
    """Pad a picture to a square, extrapolating its border smoothly.

    Parameters
    ----------
    picture : ndarray of uint8, shape (h, w, c)
    place : tuple of int
        Top, left, height and width of the picture on the square.
    resolution : int
        Side of the square, r.

    Returns
    -------
    ndarray of uint8, shape (r, r, c)
    """
    top, left, height, width = place
    if picture.shape[:2] != (height, width):
        raise ValueError(f"the picture must have {height} x {width} pixels, got {picture.shape[:2]}")
    values = np.zeros((resolution, resolution, picture.shape[2]), dtype=np.float32)
    known = np.zeros((resolution, resolution), dtype=np.float32)
    values[top : top + height, left : left + width] = picture
    known[top : top + height, left : left + width] = 1
    return np.clip(np.rint(frame.continue_outward(values, known)), 0, 255).astype(np.uint8)


def bend(photos: TrainingSet, variants: int, random_state=0) -> tuple[np.ndarray, np.ndarray]:
    """Warp training photos to other face shapes, which adds people to the training set.

    Each photo is warped, piecewise affinely, part of the way to the landmarks of another person's training photo.

    Parameters
    ----------
    photos : TrainingSet
        Photos padded to squares.
    variants : int
        Number of warped variants per training photo.
    random_state : int, RandomState or None, default 0

    Returns
    -------
    pictures : ndarray of uint8, shape (variants * training photos, r, r, 1)
        Variants of the first training photo, then of the second, ...
    shapes : ndarray of float64, shape (variants * training photos, 68, 2)
    """
    random = utils.check_random_state(random_state)
    rows = np.flatnonzero(~photos.held_out)
    top, left, height, width = photos.frame
    corner, side = np.array([left, top]), photos.pictures.shape[1]
    mesh = frame.Mesh.over(photos.landmarks - corner, height, width)
    pictures, shapes = [np.zeros((0, side, side, 1), dtype=np.uint8)], [np.zeros((0, 68, 2))]
    for row in utils.progress(rows, "bending faces"):
        # Find other people with the nearest shapes.
        others = rows[photos.people[rows] != photos.people[row]]
        own = photos.shapes[row] - corner
        distances = np.linalg.norm(photos.shapes[others] - photos.shapes[row], axis=(1, 2))
        others = others[np.argsort(distances)[: max(1, int(_NEAREST * len(others)))]]
        inner = photos.pictures[row, top : top + height, left : left + width].astype(np.float32)
        for other in random.choice(others if len(others) else rows, variants):
            # Move the landmarks part of the way, and sample the photo at their original positions.
            share = random.uniform(_LEAST_BENT, _MOST_BENT)
            shape = own + share * (photos.shapes[other] - corner - own)
            positions = mesh.source_positions(shape, mesh.corners(own), height, width).astype(np.float32)
            bent = cv2.remap(
                inner, *cv2.split(positions), cv2.INTER_CUBIC, borderMode=cv2.BORDER_REPLICATE
            ).reshape(inner.shape)
            bent = np.clip(np.rint(bent), 0, 255).astype(np.uint8)
            pictures.append(to_square(bent, photos.frame, side)[None])
            shapes.append(shape[None] + corner)
    return np.concatenate(pictures), np.concatenate(shapes)


@dataclass(frozen=True, eq=False, repr=False)
class Mixtures:
    """Surrogates of groups of people, mixed from their training photos by a teacher.

    Attributes
    ----------
    pictures : ndarray of uint8, shape (n, r, r, 1)
    members : ndarray of int, shape (n, largest group)
        Indices of training photos or, after these, of their mirror images; smaller groups repeat their first member.
    weights : ndarray of float32, shape (n, largest group)
        Each row sums to 1; 0 for repeated members.
    """

    pictures: np.ndarray
    members: np.ndarray
    weights: np.ndarray


def mix_people(
    photos: TrainingSet,
    teacher: SurrogateModel,
    count: int,
    sizes: Sequence[int] = _GROUP_SIZES,
    random_state=0,
) -> Mixtures:
    """Draw random groups of different people, and a teacher's surrogate of each group.

    About half of the groups are mirrored, with all members. The pictures are cached.

    Parameters
    ----------
    photos : TrainingSet
        Photos padded to squares.
    teacher : SurrogateModel
        Fitted to the training photos among `photos`, in their order.
    count : int
        Number of groups.
    sizes : sequence of int, default 2 to 10
        Sizes of groups, with probabilities proportional to their inverses; limited by the number of people.
    random_state : int, RandomState or None, default 0

    Returns
    -------
    Mixtures
    """
    random = utils.check_random_state(random_state)
    people = photos.people[~photos.held_out]
    if len(teacher.faces) != len(people):
        raise ValueError(f"the teacher must know the {len(people)} training photos, got {len(teacher.faces)}")
    # Draw the members of each group, one training photo of each person. (count, largest size)
    sizes = np.minimum(sizes, len(photos.identities))
    chances = 1 / sizes / (1 / sizes).sum()
    members = np.zeros((count, sizes.max()), dtype=np.int64)
    weights = np.zeros(members.shape, dtype=np.float32)
    mirrored = random.rand(count) < 0.5
    for group, shares in zip(members, weights, strict=True):
        k = random.choice(sizes, p=chances)
        chosen = random.choice(len(photos.identities), k, replace=False)
        group[:k] = [random.choice(np.flatnonzero(people == person)) for person in chosen]
        group[k:], shares[:k] = group[0], 1 / k
    side = photos.pictures.shape[1]

    def draw() -> dict[str, np.ndarray]:
        pictures = np.zeros((count, side, side, 1), dtype=np.uint8)
        for i in utils.progress(range(count), "mixing faces"):
            picture = _fit_to(teacher.surrogate(members[i, weights[i] > 0]), photos.frame[2:])
            pictures[i] = to_square(picture[:, ::-1] if mirrored[i] else picture, photos.frame, side)
        return {"pictures": pictures}

    code = utils.source_key(frame, __file__)
    key = utils.content_key(teacher.fingerprint, members, weights, mirrored, list(photos.frame), side, code)
    pictures = utils.cached_arrays("mixtures", key, draw)["pictures"]
    return Mixtures(pictures, members + len(people) * mirrored[:, None], weights)


def _fit_to(surrogate: np.ndarray, size: tuple[int, int]) -> np.ndarray:
    """Scale a face (h, w, 3) in the common frame as `training_set.prepare` scales photos: grey, (*size, 1)."""
    grey = _grey(surrogate)
    if grey.shape[:2] == tuple(size):
        return grey
    scale = size[1] / grey.shape[1]  # the eyes stay on their line for any proportions
    transform = np.array([[scale, 0, 0], [0, scale, frame.EYE_LINE * (size[0] - scale * grey.shape[0])]])
    return np.clip(np.rint(frame.warp_photo(grey, transform, *size)[0]), 0, 255).astype(np.uint8)


def vary(
    pictures: np.ndarray, shapes: np.ndarray, random: np.random.Generator
) -> tuple[np.ndarray, np.ndarray, np.ndarray]:
    """Apply small random mirroring, shifts, rotations, scalings and lighting changes.

    Parameters
    ----------
    pictures : ndarray of uint8, shape (n, r, r, 1)
    shapes : ndarray, shape (n, 68, 2)
    random : numpy.random.Generator

    Returns
    -------
    pictures : ndarray of float32, shape (n, r, r, 1)
        In -1..1.
    shapes : ndarray of float64, shape (n, 68, 2)
        The landmarks in the new pictures.
    mirrored : ndarray of bool, shape (n,)
    """
    n, side = pictures.shape[:2]
    centre = (side - 1) / 2
    varied, moved = np.empty(pictures.shape, dtype=np.float32), np.empty(shapes.shape)
    mirrored = random.random(n) < 0.5
    turns = random.normal(scale=_TURN, size=n)
    scales = np.exp(random.normal(scale=_SCALE, size=n))
    shifts = random.normal(scale=_SHIFT * side / 128, size=(n, 2))
    contrasts = np.exp(random.normal(scale=_CONTRAST, size=n))
    offsets = random.normal(scale=_BRIGHTNESS, size=n)
    for i, (picture, shape) in enumerate(zip(pictures, shapes, strict=True)):
        if mirrored[i]:
            picture, shape = np.ascontiguousarray(picture[:, ::-1]), mirror_landmarks(shape, side)
        transform = cv2.getRotationMatrix2D((centre, centre), turns[i], scales[i])
        transform[:, 2] += shifts[i]
        bent = cv2.warpAffine(
            picture, transform, (side, side), flags=cv2.INTER_CUBIC, borderMode=cv2.BORDER_REPLICATE
        )
        varied[i, ..., 0] = (bent / 127.5 - 1) * contrasts[i] + offsets[i]
        moved[i] = detection.move_points(shape, transform)
    return np.clip(varied, -1, 1), moved, mirrored


def to_signed(pictures: np.ndarray) -> np.ndarray:
    """Scale uint8 pictures to float32 in -1..1."""
    return pictures.astype(np.float32) / 127.5 - 1
