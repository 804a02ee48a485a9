"""Choose the faces that surrogates are mixed from in ``per_photo`` mode: clear ones.

Sunglasses, a mask, a hand or a head turned away spoil the surrogate of the whole cluster, and so every photo into which
it is pasted. Such faces still get a surrogate, but others lend its looks. A surrogate is mixed from at least k people
all the same: where a cluster has fewer people with clear faces, the most similar people of other clusters step in.
This is for ``per_photo`` mode, which claims no k-anonymity; a shared surrogate is always mixed from all its members.
"""

from __future__ import annotations

import cv2
import numpy as np

import detection
import embedding
from datasets import Faces
from release import pasting
from release.pose import Pose

#: Side and zoom of the grey crops that are compared (see `detection.aligned_crop`), and two parts of them, as rows and
#: columns: eyes with brows, and mouth with nostrils.
_CROP, _ZOOM = 64, 0.85
_EYES, _MOUTH = np.s_[18:34, 12:52], np.s_[36:58, 16:48]
#: Lowest correlation of each part with the median face; sunglasses, hands and the shadows of caps are below it, and so
#: are about a third of the other faces on photos of groups.
_LEAST_EYES, _LEAST_MOUTH = 0.48, 0.35
#: Standard deviations, in pixels of the crop, that define local brightness and contrast, and the least contrast.
_LOCAL, _CONTRAST, _LEAST_CONTRAST = 8, 12, 4.0
#: Largest share of the skin that is covered (see `pasting.covered_share`).
_MOST_COVERED = 0.15
#: Largest turn of a clear face to the side, and up or down, in degrees.
_YAW, _PITCH = 20, 16
#: Each person lends at most this many photos: the clearest.
_PHOTOS_EACH = 2


def clearness(faces: Faces) -> np.ndarray:
    """How clear each face is: its similarity to the median face.

    Parameters
    ----------
    faces : Faces
        n photos.

    Returns
    -------
    ndarray of float64, shape (n,)
        The smaller correlation of eyes and mouth, at most 1; -inf for a face that is turned away, covered or unlike a
        face.
    """
    crops = embedding.crops(faces, _CROP, _ZOOM).mean(axis=3, dtype=np.float32)  # (n, 64, 64)
    crops = np.stack([_flatten_light(crop) for crop in crops])
    median = np.median(crops, axis=0)
    eyes, mouth = (
        np.array([_correlation(crop[part], median[part]) for crop in crops]) for part in (_EYES, _MOUTH)
    )
    landmarks = detection.detect(faces).landmarks
    turned = np.abs([Pose.fit(points).angles for points in landmarks])  # (n, 2)
    pairs = zip(faces.images, landmarks, strict=True)
    clear = (eyes >= _LEAST_EYES) & (mouth >= _LEAST_MOUTH) & (turned <= [_YAW, _PITCH]).all(axis=1)
    clear &= np.array([pasting.covered_share(*pair) for pair in pairs]) <= _MOST_COVERED
    return np.where(clear, np.minimum(eyes, mouth), -np.inf)


def _flatten_light(crop: np.ndarray) -> np.ndarray:
    """Remove local brightness and contrast from a grey crop: float32 (h, w)."""
    detail = crop - cv2.GaussianBlur(crop, (0, 0), _LOCAL)
    return detail / (np.sqrt(cv2.GaussianBlur(detail**2, (0, 0), _CONTRAST)) + _LEAST_CONTRAST)


def _correlation(a: np.ndarray, b: np.ndarray) -> float:
    a, b = a - a.mean(), b - b.mean()
    return float((a * b).sum() / max(np.linalg.norm(a) * np.linalg.norm(b), 1e-9))


def lenders(
    labels: np.ndarray, identities: np.ndarray, descriptors: np.ndarray, clear: np.ndarray, k: int
) -> list[np.ndarray]:
    """Choose the photos from which the surrogate of each cluster is mixed.

    Parameters
    ----------
    labels : ndarray of int, shape (n,)
        The cluster of each photo, 0 to c - 1.
    identities : ndarray of str, shape (n,)
    descriptors : ndarray, shape (n, d)
    clear : ndarray, shape (n,)
        From `clearness`.
    k : int
        Least number of people.

    Returns
    -------
    list of c ndarray of int
        Rows of at least k people with clear faces; all rows of the cluster if there are no k such people at all.
    """
    best = _clearest(identities, clear)
    clusters = [np.flatnonzero(labels == label) for label in range(labels.max() + 1)]
    if len(np.unique(identities[best])) < k:
        return clusters
    chosen = []
    for label, rows in enumerate(clusters):
        # The cluster's own people first, then others by distance from its centre.
        distance = np.linalg.norm(descriptors[best] - descriptors[rows].mean(axis=0), axis=1)
        order = best[np.lexsort((distance, labels[best] != label))]
        people = list(dict.fromkeys(identities[order]))
        n_own = len(np.unique(identities[best][labels[best] == label]))
        chosen.append(np.sort(order[np.isin(identities[order], people[: max(k, n_own)])]))
    return chosen


def _clearest(identities: np.ndarray, clear: np.ndarray) -> np.ndarray:
    """Rows of the clearest photos of each person, without unclear ones: (m,)."""
    order = np.argsort(-clear, kind="stable")
    rows: list[int] = []
    taken: dict[str, int] = {}
    for i in order[np.isfinite(clear[order])]:
        person = identities[i]
        taken[person] = taken.get(person, 0) + 1
        if taken[person] <= _PHOTOS_EACH:
            rows.append(i)
    return np.array(rows, dtype=np.int64)
