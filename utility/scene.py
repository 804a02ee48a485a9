"""Inputs and results of the measures of one release."""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass

import numpy as np

import utils
from datasets import Faces
from utility.appearance import FaceReadings

#: Number of repetitions of a measure with other people's images, and with other photos of the person.
N_DEALS = 5


@dataclass(frozen=True, eq=False)
class ComparedImages:
    """Photos and the images that replace them.

    Attributes
    ----------
    photos : FaceReadings
        n photos.
    images : FaceReadings
        c images.
    labels : ndarray of int, shape (n,)
        The image that replaces each photo.
    """

    photos: FaceReadings
    images: FaceReadings
    labels: np.ndarray

    @property
    def shown(self) -> np.ndarray:
        """Whether both photo and image show a face: bool (n,)."""
        return self.photos.found & self.images.found[self.labels]

    def pair(self, reading: str) -> tuple[np.ndarray, np.ndarray]:
        """One of the `FaceReadings` of the photos, and of the image of each: (n, ...), (n, ...)."""
        return getattr(self.photos, reading), getattr(self.images, reading)[self.labels]


@dataclass(frozen=True, eq=False)
class UtilityScene:
    """The inputs of the measures of one release.

    Attributes
    ----------
    faces : Faces
    release : ComparedImages
    dealt : tuple of ComparedImages
        Photos with random images of other people.
    clear : tuple of ComparedImages
        Photos with another original photo of the person instead of the image.
    clear_note : str
        Describes `clear`.
    embedding : str
        The embedding that measures naturalness.
    seed : int
    """

    faces: Faces
    release: ComparedImages
    dealt: tuple[ComparedImages, ...]
    clear: tuple[ComparedImages, ...]
    clear_note: str
    embedding: str
    seed: int

    @classmethod
    def of(cls, faces: Faces, images: Faces, labels: np.ndarray, embedding: str, seed: int) -> UtilityScene:
        """Choose other people's images, and other photos of the person, for each photo."""
        release = ComparedImages(FaceReadings(faces), FaceReadings(images), labels)
        photos, random = release.photos, utils.check_random_state(seed)
        dealt = [ComparedImages(photos, release.images, _deal(labels, random)) for _ in range(N_DEALS)]
        # Read only the chosen other photos; they are the same for each release.
        pool = faces.others if faces.others is not None else faces
        partners = _partners(faces, pool, utils.check_random_state(seed))  # (N_DEALS, n)
        rows, places = np.unique(partners, return_inverse=True)
        others = photos if pool is faces and len(rows) == len(faces) else FaceReadings(pool.select(rows))
        clear = [ComparedImages(photos, others, chosen) for chosen in places.reshape(partners.shape)]
        note = "baseline: another photo of the person"
        if pool is faces and (partners[0] == np.arange(len(faces))).all():
            note = "baseline: the photos themselves, because there are no other photos of these people"
        return cls(faces, release, tuple(dealt), tuple(clear), note, embedding, seed)


def _deal(labels: np.ndarray, random: np.random.RandomState) -> np.ndarray:
    """Give each photo the image of a random photo with a different image: (n,). A single image stays."""
    if len(np.unique(labels)) == 1:
        return labels
    return np.array([random.choice(labels[labels != label]) for label in labels])


def _partners(faces: Faces, pool: Faces, random: np.random.RandomState) -> np.ndarray:
    """Rows of `pool` with other photos of each person: (N_DEALS, n).

    If `pool` is `faces`, a person's only photo is its own partner. People who are not in the pool get a random photo.
    """
    result = np.empty((N_DEALS, len(faces)), dtype=np.int64)
    for row, person in enumerate(faces.identities):
        choice = np.flatnonzero(pool.identities == person)
        if pool is faces and len(choice) > 1:
            choice = choice[choice != row]
        result[:, row] = random.choice(choice if len(choice) else len(pool), size=N_DEALS)
    return result


@dataclass(frozen=True)
class UtilityResult:
    """One measure of one release; `utility.measure_utility` explains the fields."""

    value: float
    low: float
    high: float
    n: int
    n_failed: int
    value_worst: float = float("nan")
    baseline: float = float("nan")
    chance: float = float("nan")
    note: str = ""

    @classmethod
    def missing(cls, release: ComparedImages, note: str) -> UtilityResult:
        """A measure that does not apply; the note says why."""
        nan = float("nan")
        return cls(nan, nan, nan, n=0, n_failed=int((~release.shown).sum()), note=note)


#: A measure of a release.
Measure = Callable[[UtilityScene], UtilityResult]
