"""Recognise people in the images of a release: is a face nearer to one person than a surrogate of k people can be?"""

from __future__ import annotations

from collections.abc import Sequence

import cv2
import numpy as np
import scipy

import centerface
import detection
import recognisers
from datasets import Faces
from release.structure import layers

#: Recogniser -> k -> (limit of the distance to the nearest person, limit of its ratio to that to the second nearest).
#: Distances are shares of the median distance between photos of different people. A face counts as recognised below
#: either limit. The limits were set and tested with the surrogates of `release.structure`. By dlib, a further photo of
#: a person is recognised in 81 % (k = 2) to 99 % (k = 10) of cases, with one photo per person in 35 to 91 %.
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


class Recognisers:
    """Dlib, and the strongest recogniser if its limits are known, with descriptors of all photos.

    Parameters
    ----------
    parts : sequence of Faces
        The g photos.

    Attributes
    ----------
    strongest : str
        Name of the strongest one.
    """

    def __init__(self, parts: Sequence[Faces]):
        self._identities = np.concatenate([part.identities for part in parts])
        self._photos = [image for part in parts for image in part.images]
        self._describe, self._descriptors = {}, {}
        for name in dict.fromkeys(("dlib", recognisers.strongest())):
            if name in _LIMITS:
                describe = self._describe[name] = recognisers.prepare(name, parts[0])
                self._descriptors[name] = np.concatenate([describe(part) for part in parts])
                self.strongest = name

    def nearest(self, images: Sequence[np.ndarray]) -> np.ndarray:
        """The person in the photo nearest to each of c images, by the strongest recogniser: str (c,)."""
        return self._identities[self._distances(self.strongest, images).argmin(axis=1)]

    def recognise(self, images: Sequence[np.ndarray], k: int) -> np.ndarray:
        """Whether anyone is recognised in each of c images, or in what it shows otherwise: bool (c,).

        k is the number of people behind each surrogate.
        """
        typical = float(np.median([_proportion(box) for box in detection.detect(self._photos).boxes]))
        seen = detection.detect(images)
        result = seen.found & self._nearer(images, k)
        views = [
            (i, view)
            for i in np.flatnonzero(~result)
            for view in _views(images[i], _proportion(seen.boxes[i]) / typical if seen.found[i] else None)
            if _score(view) > _CLEAR_FACE
        ]
        if views:
            rows, shown = zip(*views, strict=True)
            result[np.array(rows)[self._nearer(shown, k)]] = True
        return result

    def _distances(self, name: str, images: Sequence[np.ndarray]) -> np.ndarray:
        return scipy.spatial.distance.cdist(self._describe[name](images), self._descriptors[name])  # (c, g)

    def _nearer(self, images: Sequence[np.ndarray], k: int) -> np.ndarray:
        """Whether the face in each of c images is nearer to a person than surrogates of k people: bool (c,)."""
        result = np.zeros(len(images), dtype=bool)
        for name in self._describe:
            limits = _LIMITS[name]
            most, ratio = limits[max(known for known in limits if known <= max(k, 2))]
            distances = self._distances(name, images) / self._between_strangers(name)
            people = np.unique(self._identities)
            by_person = np.stack([distances[:, self._identities == person].min(axis=1) for person in people])
            nearest, second, *_ = np.sort(np.vstack([by_person, np.ones(len(images))]), axis=0)
            result |= (nearest < most) | (nearest < np.minimum(_FARTHEST, ratio * second))
        return result

    def _between_strangers(self, name: str) -> float:
        """Median distance between photos of different people; about 200 photos are compared with all others."""
        some = slice(None, None, -(-len(self._identities) // 200))
        apart = scipy.spatial.distance.cdist(self._descriptors[name][some], self._descriptors[name])
        apart = apart[self._identities[some, None] != self._identities]
        return float(np.median(apart)) if len(apart) else _STRANGERS[name]


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
