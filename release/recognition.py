"""Recognise people in the images of a release: is a face nearer to one person than a surrogate of k people can be?"""

from __future__ import annotations

from collections.abc import Callable, Sequence
from dataclasses import dataclass

import cv2
import numpy as np

import centerface
import detection
import recognisers
from datasets import Faces
from release.structure import layers

#: k -> (limit of the distance to the nearest person, limit of its ratio to that of the second nearest). Distances are
#: shares of the median distance between photos of different people. A face counts as recognised below either limit. Of
#: the 633 surrogates of 2, 3, 5 or 10 ORL people that the limits were set on or tested with, none is below them.
_LIMITS = {2: (0.34, 0.42), 3: (0.43, 0.57), 5: (0.51, 0.70), 10: (0.56, 0.74)}
#: The ratio counts only for faces nearer than this: behind it lie strangers.
_FARTHEST = 0.66
#: Median distance between dlib's descriptors of different ORL people, for originals of one person.
_DLIB_STRANGERS = 0.755

#: Faces whose boxes differ by this factor from the typical proportions are described unstretched, too.
_STRETCHED = 1.17
#: Images in which no face is found are searched again with these widths, rotations in degrees, and as negatives.
_WIDTHS, _ROTATIONS = (1 / 1.5, 1.5), (-45, 45)
#: Views are searched for faces of this score, and at most this many in all.
_CLEAR_FACE, _MOST_SEARCHES = 0.5, 1000


@dataclass(frozen=True, eq=False)
class Gallery:
    """The descriptors of all original photos by one recogniser.

    Attributes
    ----------
    describe : callable
        Images -> descriptors (n, d).
    descriptors : ndarray, shape (g, d)
    identities : ndarray of str, shape (g,)
    """

    describe: Callable[[Sequence[np.ndarray]], np.ndarray]
    descriptors: np.ndarray
    identities: np.ndarray

    @classmethod
    def of(cls, parts: Sequence[Faces], recogniser: str) -> Gallery:
        """Describe the photos of Faces by a recogniser of `recognisers.prepare` that needs no fitting."""
        describe = recognisers.prepare(recogniser, parts[0])
        descriptors = np.concatenate([describe(part) for part in parts])
        return cls(describe, descriptors, np.concatenate([part.identities for part in parts]))

    def recognised(self, drawn: np.ndarray, k: int) -> np.ndarray:
        """Whether faces with these descriptors (c, d) are nearer to a person than surrogates of k people: bool (c,)."""
        if len(drawn) == 0:
            return np.zeros(0, dtype=bool)
        people, person = np.unique(self.identities, return_inverse=True)
        rows = np.stack([self.distances(row) for row in drawn])
        nearest = np.stack([rows[:, person == p].min(axis=1) for p in range(len(people))], axis=1)
        nearest = np.sort(nearest, axis=1) / self._between_strangers()
        second = nearest[:, 1] if len(people) > 1 else np.ones(len(drawn))
        most, ratio = _LIMITS[max(known for known in _LIMITS if known <= max(k, 2))]
        return (nearest[:, 0] < most) | (nearest[:, 0] < np.minimum(_FARTHEST, ratio * second))

    def distances(self, row: np.ndarray) -> np.ndarray:
        """Distances of one descriptor to all photos: (g,)."""
        return np.linalg.norm(self.descriptors - row, axis=1)

    def _between_strangers(self) -> float:
        """Median distance between photos of different people; up to 200 photos are compared with all others."""
        some = np.linspace(0, len(self.identities) - 1, min(200, len(self.identities))).astype(int)
        apart = [self.distances(self.descriptors[i])[self.identities != self.identities[i]] for i in some]
        every = np.concatenate(apart)
        return float(np.median(every)) if len(every) else _DLIB_STRANGERS


def recognised(
    images: Sequence[np.ndarray],
    seen: detection.Detections,
    galleries: Sequence[Gallery],
    typical: float,
    k: int,
) -> tuple[np.ndarray, int]:
    """Whether anyone is recognised in each image or in what it hides, and the number of views that were not searched.

    Parameters
    ----------
    images : sequence of c uint8 arrays (h, w, 3)
    seen : detection.Detections
        The faces in the images.
    galleries : sequence of Gallery
        The first one by dlib, which describes all views; the others describe the images.
    typical : float
        Width of the photos' boxes as a share of their height.
    k : int
        Number of people behind each surrogate.

    Returns
    -------
    result : ndarray of bool, shape (c,)
    n_skipped : int
    """
    result = np.zeros(len(images), dtype=bool)
    for gallery in galleries:
        result |= seen.found & gallery.recognised(gallery.describe(images), k)
    views = [
        (i, view)
        for i in np.flatnonzero(~result)
        for view in _views(images[i], proportion(seen.boxes[i]) / typical if seen.found[i] else None)
    ]
    n_skipped = max(0, len(views) - _MOST_SEARCHES)
    views = [(i, view) for i, view in views[:_MOST_SEARCHES] if _score(view) > _CLEAR_FACE]
    if views:
        rows, clear = zip(*views, strict=True)
        nearer = galleries[0].recognised(galleries[0].describe(clear), k)
        result[np.array(rows)[nearer]] = True
    return result, n_skipped


def proportion(box: np.ndarray) -> float:
    """Width of a box (left, top, right, bottom) as a share of its height."""
    return float((box[2] - box[0]) / max(box[3] - box[1], 1e-6))


def _score(image: np.ndarray) -> float:
    """How sure the detector is of the clearest face."""
    return float(centerface.search(np.ascontiguousarray(image), 0.2)[1].max(initial=0.0))


def _views(image: np.ndarray, stretch: float | None) -> list[np.ndarray]:
    """What else an image could show: its layers, and the image as a negative, unstretched or rotated.

    Parameters
    ----------
    image : ndarray of uint8, shape (h, w, 3)
    stretch : float or None
        Proportions of its face as a share of the typical ones; None if no face was found.
    """
    plain, hidden = layers(image)
    views = [_stretch(layer) for layer in (*plain[1:], *hidden)]
    if stretch is None:
        return [*views, *_image_views(image)]
    if not 1 / _STRETCHED <= stretch <= _STRETCHED:
        views.append(_widened(image, 1 / stretch))
    if _score(255 - image) > _score(image):  # the image is a negative
        views.append(255 - image)
    return views


def _widened(image: np.ndarray, factor: float) -> np.ndarray:
    width = int(np.clip(round(image.shape[1] * factor), 1, 4 * image.shape[1]))
    return cv2.resize(image, (width, image.shape[0]))


def _image_views(image: np.ndarray) -> list[np.ndarray]:
    """An image without a face as a negative, narrower and wider, and rotated."""
    height, width = image.shape[:2]
    views = [255 - image]
    views += [_widened(image, factor) for factor in _WIDTHS]
    for degrees in _ROTATIONS:
        turn = cv2.getRotationMatrix2D((width / 2, height / 2), degrees, 1.0)
        views.append(cv2.warpAffine(image, turn, (width, height), borderMode=cv2.BORDER_REPLICATE))
    return views


def _stretch(layer: np.ndarray) -> np.ndarray:
    """A layer as a grey image of full contrast: float32 (h, w) -> uint8 (h, w, 3)."""
    low, high = layer.min(), layer.max()
    grey = ((layer - low) * (255 / max(high - low, 1e-6))).astype(np.uint8)
    return np.repeat(grey[..., None], 3, axis=2)
