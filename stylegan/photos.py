"""Photos made ready for training: aligned, on a square, varied from step to step."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass

import cv2
import numpy as np

import CNN.photos
import detection
import frame
import utils
from anonymizer import aam
from datasets import Faces
from frame import Mesh

#: Weight of the padding around the photo in the loss, against 1 on the face. With less, the network hides in it the
#: blobs by which it steers its instance normalisation (Karras et al., CVPR 2020, section 2).
PADDING = 0.25
#: The photo's longer side takes at least this share of the square; else the photo is enlarged to fill it.
LEAST_SHARE = 0.75

#: How photos are varied: standard deviations of shift (pixels at 128), turn (degrees), scale, brightness and contrast
#: (in the range -1..1).
SHIFT, TURN, SCALE, BRIGHTNESS, CONTRAST = 1.2, 1.2, 0.015, 0.05, 0.06

#: A reshaped photo's landmarks lie so far on the way to those of somebody else, whose shape is among the nearest share:
#: a frontal face bent to a turned one folds.
LEAST_RESHAPED, MOST_RESHAPED, NEAREST = 0.3, 0.9, 0.3

#: Sizes of the groups whose mixtures are taught; one of k people comes up in proportion to 1/k, as those differ most.
GROUP_SIZES = tuple(range(2, 11))


@dataclass(frozen=True, eq=False, repr=False)
class TrainingSet:
    """Aligned photos of some people, on squares.

    Attributes
    ----------
    pictures : ndarray of uint8, shape (n, r, r, 1)
        Grey, upright, all faces in one place; what a photo does not show is painted in, and its border continued over
        the rest of the square.
    people : ndarray of int, shape (n,)
        Who is on each: a place in `identities`.
    identities : list of str
    names : list of str
    held_out : ndarray of bool, shape (n,)
        Kept out of training.
    shapes : ndarray of float64, shape (n, 68, 2)
        The landmarks on each, in pixels of the square.
    frame : tuple of int
        Top, left, height and width of the photo on the square.
    source : str
    """

    pictures: np.ndarray
    people: np.ndarray
    identities: list[str]
    names: list[str]
    held_out: np.ndarray
    shapes: np.ndarray
    frame: tuple[int, int, int, int]
    source: str

    def __len__(self) -> int:
        return len(self.pictures)

    @property
    def landmarks(self) -> np.ndarray:
        """Mean landmarks of the training photos: (68, 2)."""
        return self.shapes[~self.held_out].mean(axis=0)

    def weights(self) -> np.ndarray:
        """How much each pixel counts: 1 on the face, less around it, least in the padding: (r, r, 1)."""
        top, left, height, width = self.frame
        inner = CNN.photos.face_weights(self.landmarks - [left, top], height, width)
        side = self.pictures.shape[1]
        result = np.full((side, side, 1), PADDING, dtype=np.float32)
        result[top : top + height, left : left + width] = inner
        return result


def prepare(faces: Faces, resolution: int = 128, held_out: int = 2, random_state=0) -> TrainingSet:
    """Align photos as the up-convolutional network's training does, and put them on squares.

    Photos that fit into the square and fill three quarters of its side keep their pixels; others are scaled.

    Parameters
    ----------
    faces : Faces
    resolution : int, default 128
        Side of the square.
    held_out : int, default 2
        Photos of each person that are kept out of training; see `CNN.photos.prepare`.
    random_state : int, RandomState or None, default 0

    Returns
    -------
    TrainingSet
    """
    seed = utils.check_random_state(random_state).randint(2**31 - 1) if random_state is None else random_state
    photos = CNN.photos.prepare(faces, held_out, random_state=seed)
    longest = max(photos.pictures.shape[1:3])
    if not LEAST_SHARE * resolution <= longest <= resolution:
        size = tuple(int(round(side * resolution / longest)) for side in photos.pictures.shape[1:3])
        photos = CNN.photos.prepare(faces, held_out, size=size, random_state=seed)
    grey = photos.pictures
    if grey.shape[3] == 3:
        grey = np.stack([cv2.cvtColor(picture, cv2.COLOR_RGB2GRAY) for picture in grey])[..., None]
    place = centred(grey.shape[1:3], resolution)
    return TrainingSet(
        np.stack([on_square(picture, place, resolution) for picture in grey]),
        photos.people, photos.identities, photos.names, photos.held_out,
        photos.shapes + [place[1], place[0]], place, photos.source,
    )  # fmt: skip


def centred(size: tuple[int, int], resolution: int) -> tuple[int, int, int, int]:
    """Top, left, height and width of a photo of this height and width in the middle of a square."""
    height, width = size
    return (resolution - height) // 2, (resolution - width) // 2, height, width


def on_square(picture: np.ndarray, place: tuple[int, int, int, int], resolution: int) -> np.ndarray:
    """Put a picture, uint8 (h, w, c), on a square, its border continued softly: uint8 (r, r, c)."""
    top, left, height, width = place
    if picture.shape[:2] != (height, width):
        raise ValueError(f"the picture must have {height} x {width} pixels, not {picture.shape[:2]}")
    values = np.zeros((resolution, resolution, picture.shape[2]), dtype=np.float32)
    known = np.zeros((resolution, resolution), dtype=np.float32)
    values[top : top + height, left : left + width] = picture
    known[top : top + height, left : left + width] = 1
    return np.clip(np.rint(frame.continue_outward(values, known)), 0, 255).astype(np.uint8)


def reshaped(photos: TrainingSet, variants: int, random_state=0) -> np.ndarray:
    """Training photos with other face shapes, so that there are more people than there are.

    Each photo is bent, piece-wise affinely, part of the way to the landmarks of somebody else's training photo.

    Parameters
    ----------
    photos : TrainingSet
    variants : int
        So many of each training photo.
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
    mesh = Mesh.over(photos.landmarks - corner, height, width)
    pictures, shapes = [np.zeros((0, side, side, 1), dtype=np.uint8)], [np.zeros((0, 68, 2))]
    for row in utils.progress(rows, "bending faces"):
        others = rows[photos.people[rows] != photos.people[row]]
        own = photos.shapes[row] - corner
        distances = np.linalg.norm(photos.shapes[others] - photos.shapes[row], axis=(1, 2))
        others = others[np.argsort(distances)[: max(1, int(NEAREST * len(others)))]]
        inner = photos.pictures[row, top : top + height, left : left + width].astype(np.float32)
        for other in random.choice(others if len(others) else rows, variants):
            share = random.uniform(LEAST_RESHAPED, MOST_RESHAPED)
            shape = own + share * (photos.shapes[other] - corner - own)
            x, y = (
                mesh.source_positions(shape, mesh.corners(own), height, width)
                .astype(np.float32)
                .transpose(2, 0, 1)
            )
            bent = cv2.remap(inner, x, y, cv2.INTER_CUBIC, borderMode=cv2.BORDER_REPLICATE).reshape(
                inner.shape
            )
            bent = np.clip(np.rint(bent), 0, 255).astype(np.uint8)
            pictures.append(on_square(bent, photos.frame, side)[None])
            shapes.append(shape[None] + corner)
    return np.concatenate(pictures), np.concatenate(shapes)


@dataclass(frozen=True, eq=False, repr=False)
class Mixtures:
    """Pictures of groups of people, as another method mixes their training photos.

    Attributes
    ----------
    pictures : ndarray of uint8, shape (n, r, r, 1)
    members : ndarray of int, shape (n, largest group)
        Places among the training photos and, after them, their mirror images; smaller groups are filled up with their
        first member.
    weights : ndarray of float32, shape (n, largest group)
        Sum 1; 0 for what only fills up.
    """

    pictures: np.ndarray
    members: np.ndarray
    weights: np.ndarray

    def __len__(self) -> int:
        return len(self.pictures)


def mix_people(
    photos: TrainingSet, faces: Faces, count: int, sizes: Sequence[int] = GROUP_SIZES, random_state=0
) -> Mixtures:
    """Draw groups of different people, and the surrogate of each by the active appearance model.

    The model is fitted on the training photos alone, in whose frame it draws. Every other group, on average, is
    mirrored with all its members. The pictures are kept in the cache.

    Parameters
    ----------
    photos : TrainingSet
        All of `faces`, in their order.
    faces : Faces
    count : int
    sizes : sequence of int, default `GROUP_SIZES`
        Sizes of groups, each drawn in proportion to its inverse; groups are no larger than there are people.
    random_state : int, RandomState or None, default 0

    Returns
    -------
    Mixtures
    """
    random = utils.check_random_state(random_state)
    people = photos.people[~photos.held_out]
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
    training = faces.select(~photos.held_out)
    side = photos.pictures.shape[1]

    def draw() -> dict[str, np.ndarray]:
        model = aam.ActiveAppearanceModel(training, random_state=0)
        pictures = np.zeros((count, side, side, 1), dtype=np.uint8)
        for i in utils.progress(range(count), "mixing faces"):
            surrogate = model.surrogate(members[i, weights[i] > 0])
            picture = _fit_to(surrogate, photos.frame[2:])
            pictures[i] = on_square(picture[:, ::-1] if mirrored[i] else picture, photos.frame, side)
        return {"pictures": pictures}

    code = utils.source_key(__file__)
    key = utils.content_key(training.fingerprint, members, weights, mirrored, list(photos.frame), side, code)
    pictures = utils.cached_arrays("mixtures", key, draw)["pictures"]
    return Mixtures(pictures, members + len(people) * mirrored[:, None], weights)


def _fit_to(surrogate: np.ndarray, size: tuple[int, int]) -> np.ndarray:
    """A face in its common frame, uint8 (h, w, 3), as `prepare` scales photos to a size: grey, uint8 (*size, 1)."""
    grey = cv2.cvtColor(surrogate, cv2.COLOR_RGB2GRAY)[..., None]
    if grey.shape[:2] == tuple(size):
        return grey
    scale = size[1] / grey.shape[1]  # the eyes stay on their line, whatever the proportions
    transform = np.array([[scale, 0, 0], [0, scale, frame.EYE_LINE * (size[0] - scale * grey.shape[0])]])
    return np.clip(np.rint(frame.warp_photo(grey, transform, *size)[0]), 0, 255).astype(np.uint8)


def vary(
    pictures: np.ndarray, shapes: np.ndarray, random: np.random.Generator
) -> tuple[np.ndarray, np.ndarray, np.ndarray]:
    """Mirror, shift, turn, scale and relight pictures at random, a little.

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
        Where the landmarks have come to lie.
    mirrored : ndarray of bool, shape (n,)
    """
    n, side = pictures.shape[:2]
    centre = (side - 1) / 2
    varied, moved = np.empty(pictures.shape, dtype=np.float32), np.empty(shapes.shape)
    mirrored = random.random(n) < 0.5
    turns = random.normal(scale=TURN, size=n)
    scales = np.exp(random.normal(scale=SCALE, size=n))
    shifts = random.normal(scale=SHIFT * side / 128, size=(n, 2))
    contrasts = np.exp(random.normal(scale=CONTRAST, size=n))
    offsets = random.normal(scale=BRIGHTNESS, size=n)
    for i, picture in enumerate(pictures):
        shape = shapes[i]
        if mirrored[i]:
            picture = np.ascontiguousarray(picture[:, ::-1])
            shape = shape[CNN.photos.MIRRORED] * [-1, 1] + [side - 1, 0]
        transform = cv2.getRotationMatrix2D((centre, centre), turns[i], scales[i])
        transform[:, 2] += shifts[i]
        bent = cv2.warpAffine(
            picture, transform, (side, side), flags=cv2.INTER_CUBIC, borderMode=cv2.BORDER_REPLICATE
        )
        varied[i, ..., 0] = (bent / 127.5 - 1) * contrasts[i] + offsets[i]
        moved[i] = detection.move_points(shape, transform)
    return np.clip(varied, -1, 1), moved, mirrored


def to_signed(pictures: np.ndarray) -> np.ndarray:
    """Pictures of 0..255 as float32 in -1..1."""
    return pictures.astype(np.float32) / 127.5 - 1
