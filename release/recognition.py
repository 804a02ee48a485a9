"""Recognise people in the images of a release: is a face nearer to one person than a surrogate of k people can be?"""

from __future__ import annotations

from collections.abc import Callable, Sequence
from dataclasses import dataclass

import cv2
import numpy as np
from scipy.spatial.distance import cdist

import centerface
import detection
import recognisers
from datasets import Faces
from release.structure import layers

#: Recogniser -> k -> (limit of the distance to the nearest person, limit of its ratio to that to the second nearest).
#: Distances are shares of the median distance between photos of different people. A face counts as recognised below
#: either limit. The limits were set on the surrogates of `release.structure`, compared with one photo or all photos of
#: each ORL person. Of 900 other surrogates, one was below a limit of faceres for k = 2, which is lower since. By dlib,
#: a further photo of a person is recognised in 84 % (k = 2) to 99 % (k = 10), with one photo per person 45 to 91 %.
_LIMITS = {
    "dlib": {2: (0.3, 0.43), 3: (0.39, 0.57), 5: (0.44, 0.67), 10: (0.48, 0.74)},
    "faceres": {2: (0.43, 0.49), 3: (0.52, 0.65), 5: (0.58, 0.73), 10: (0.63, 0.79)},
}
#: The ratio counts only for faces nearer than this: behind it lie strangers.
_FARTHEST = 0.66
#: Median distance between ORL photos of different people, for originals of one person.
_STRANGERS = {"dlib": 0.755, "faceres": 1.098}

#: Faces whose boxes differ by this factor from the typical proportions are described unstretched, too. Images in which
#: no face is found are described with other widths.
_STRETCHED, _WIDTHS = 1.17, (1 / 1.5, 1.5)
#: Layers and changed images are described if the detector finds a face of this score.
_CLEAR_FACE = 0.5


@dataclass(frozen=True, eq=False)
class Gallery:
    """The descriptors of all original photos by one recogniser.

    Attributes
    ----------
    recogniser : str
    describe : callable
        Images -> descriptors (n, d).
    descriptors : ndarray, shape (g, d)
    identities : ndarray of str, shape (g,)
    """

    recogniser: str
    describe: Callable[[Sequence[np.ndarray]], np.ndarray]
    descriptors: np.ndarray
    identities: np.ndarray

    def distances(self, images: Sequence[np.ndarray]) -> np.ndarray:
        """Distances of the faces in c images to all photos: (c, g)."""
        return cdist(self.describe(images), self.descriptors)

    def recognised(self, images: Sequence[np.ndarray], k: int) -> np.ndarray:
        """Whether the face in each of c images is nearer to a person than surrogates of k people: bool (c,)."""
        limits, people = _LIMITS[self.recogniser], np.unique(self.identities)
        nearest_limit, ratio_limit = limits[max(known for known in limits if known <= max(k, 2))]
        distances = self.distances(images) / self._between_strangers()
        by_person = np.stack([distances[:, self.identities == person].min(axis=1) for person in people])
        nearest, second, *_ = np.sort(np.vstack([by_person, np.ones(len(distances))]), axis=0)
        return (nearest < nearest_limit) | (nearest < np.minimum(_FARTHEST, ratio_limit * second))

    def _between_strangers(self) -> float:
        """Median distance between photos of different people; about 200 photos are compared with all others."""
        some = slice(None, None, -(-len(self.identities) // 200))
        apart = cdist(self.descriptors[some], self.descriptors)
        apart = apart[self.identities[some, None] != self.identities]
        return float(np.median(apart)) if len(apart) else _STRANGERS[self.recogniser]


def galleries(parts: Sequence[Faces]) -> list[Gallery]:
    """Describe the photos by dlib, and by the strongest recogniser if its limits are known."""
    identities, result = np.concatenate([part.identities for part in parts]), []
    for name in dict.fromkeys(("dlib", recognisers.strongest())):
        if name in _LIMITS:
            describe = recognisers.prepare(name, parts[0])
            descriptors = np.concatenate([describe(part) for part in parts])
            result.append(Gallery(name, describe, descriptors, identities))
    return result


def recognised(
    images: Sequence[np.ndarray], known: Sequence[Gallery], photos: detection.Detections, k: int
) -> np.ndarray:
    """Whether anyone is recognised in each image, or in what it shows otherwise.

    Parameters
    ----------
    images : sequence of c uint8 arrays (h, w, 3)
    known : sequence of Gallery
    photos : detection.Detections
        The faces in the photos, for their typical proportions.
    k : int
        Number of people behind each surrogate.

    Returns
    -------
    ndarray of bool, shape (c,)
    """
    typical = float(np.median([_proportion(box) for box in photos.boxes]))
    seen = detection.detect(images)
    result = np.zeros(len(images), dtype=bool)
    for gallery in known:
        result |= seen.found & gallery.recognised(images, k)
    views = [
        (i, view)
        for i in np.flatnonzero(~result)
        for view in _views(images[i], _proportion(seen.boxes[i]) / typical if seen.found[i] else None)
        if _score(view) > _CLEAR_FACE
    ]
    if views:
        rows, shown = zip(*views, strict=True)
        for gallery in known:
            result[np.array(rows)[gallery.recognised(shown, k)]] = True
    return result


def _proportion(box: np.ndarray) -> float:
    """Width of a box (left, top, right, bottom) as a share of its height."""
    return float((box[2] - box[0]) / max(box[3] - box[1], 1e-6))


def _score(image: np.ndarray) -> float:
    """How sure the detector is of the clearest face."""
    return float(centerface.search(np.ascontiguousarray(image), 0.2)[1].max(initial=0.0))


def _views(image: np.ndarray, stretch: float | None) -> list[np.ndarray]:
    """What an image shows otherwise: its layers, and the image as a negative, narrower or wider.

    Parameters
    ----------
    image : ndarray of uint8, shape (h, w, 3)
    stretch : float or None
        Proportions of its face as a share of the typical ones; None if no face was found.
    """
    views = [_full_contrast(layer) for layer in layers(image)[1:]]
    widths = _WIDTHS if stretch is None else (1 / stretch,)
    views += [_widened(image, width) for width in widths if not 1 / _STRETCHED <= width <= _STRETCHED]
    if stretch is None or _score(255 - image) > _score(image):
        views.append(255 - image)
    return views


def _widened(image: np.ndarray, factor: float) -> np.ndarray:
    return cv2.resize(image, (max(1, round(image.shape[1] * min(factor, 4))), image.shape[0]))


def _full_contrast(layer: np.ndarray) -> np.ndarray:
    """A layer as a grey image: float32 (h, w) -> uint8 (h, w, 3)."""
    low, high = layer.min(), layer.max()
    grey = ((layer - low) * (255 / max(high - low, 1e-6))).astype(np.uint8)
    return np.repeat(grey[..., None], 3, axis=2)
