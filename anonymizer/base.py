"""The base classes of all anonymizers: checks of rows and weights, and a cache key."""

from __future__ import annotations

from abc import ABC, abstractmethod
from collections.abc import Iterable, Mapping, Sequence
from functools import cached_property
from pathlib import Path
from types import MappingProxyType

import numpy as np

import datasets
import detection
import utils
from checks import ParameterError, check_array, check_number
from datasets import Faces


def person_weights(identities: Sequence, shares: np.ndarray | None = None) -> np.ndarray:
    """Weights of photos that sum to 1, with each person's share divided among their photos.

    Parameters
    ----------
    identities : sequence, shape (n,)
        The person in each photo.
    shares : ndarray, shape (n,), optional
        The share of the person in each photo; by default every person counts equally.

    Returns
    -------
    ndarray of float64, shape (n,)
    """
    _, person, n_photos = np.unique(identities, return_inverse=True, return_counts=True)
    if shares is None:
        return 1.0 / (n_photos[person] * len(n_photos))
    weights = shares / n_photos[person]
    return weights / weights.sum()


class Anonymizer(ABC):
    """Turns photos of faces into images that are meant to protect the people in them.

    Attributes
    ----------
    name : str
        Its name in `anonymizer.ANONYMIZERS`.
    faces : Faces
        The photos to anonymize.
    k_anonymous : bool
        Whether all members of a cluster can share one image, byte for byte.
    trained_on : str or None
        The only data set whose photos it fits with its bundled network; None if it fits all photos.
    files : dict of str to tuple of Path
        Each option that names files, and the bundled files that are read if it is not given.
    """

    name: str
    k_anonymous: bool
    trained_on: str | None = None
    files: Mapping[str, tuple[Path, ...]] = MappingProxyType({})

    def __init__(self, faces: Faces):
        self.faces = faces

    @classmethod
    def fits(cls, faces: Faces) -> bool:
        """Return whether it can be made for these faces without options or further files."""
        return cls.trained_on is None or datasets.is_built_in(faces, cls.trained_on)

    @cached_property
    def landmarks(self) -> np.ndarray:
        """The 68 landmarks of each photo: float32 (n, 68, 2)."""
        return detection.detect(self.faces).landmarks

    @cached_property
    def fingerprint(self) -> str:
        """Key under which results are cached; it changes with the faces, the options and the code."""
        return utils.content_key(self.name, self.faces.fingerprint, self._options(), self.code_key())

    @classmethod
    def code_key(cls) -> str:
        """Key of the code of its classes in this package; `releases` adds the source of classes from other modules."""
        modules = [kind.__module__ for kind in cls.__mro__]
        return utils.source_key(*(module for module in modules if module.startswith("anonymizer.")))

    def _options(self) -> dict:
        """The options as plain values."""
        return {}

    def _row(self, i) -> int:
        """Check one row number."""
        return int(check_number("photo index", i, int, at_least=0, below=len(self.faces)))


class Surrogates(Anonymizer):
    """An anonymizer that gives all members of a cluster the same synthetic face."""

    k_anonymous = True

    def surrogate(
        self, members: Sequence[int], weights: Sequence[float] | None = None, like: int | None = None
    ) -> np.ndarray:
        """Make the face that replaces all members of a cluster.

        Parameters
        ----------
        members : sequence of int
            Rows of the photos in the cluster, without duplicates.
        weights : sequence of float, optional
            One per member, at least 0 and not all 0; they are normalised to sum to 1. By default every *person* among
            the members counts equally, however many photos they have.
        like : int, optional
            Follow the expression of this photo (``per_photo`` mode). Such images differ between members, so they are
            not k-anonymous.

        Returns
        -------
        ndarray of uint8, shape (h, w, 3)
            Without `like`, the same members and weights in any order give the same bytes.

        Raises
        ------
        TypeError, ValueError
            If members or weights are invalid, or if this anonymizer cannot follow a photo.
        """
        members, weights = self._checked_members(members, weights)
        if like is None:
            return self._mix(members, weights)
        return self._mix_like(members, weights, self._row(like))

    def surrogates(self, clusters: Sequence[Sequence[int]]) -> list[np.ndarray]:
        """Make one image per cluster of a release, as `surrogate` does."""
        return [self.surrogate(members) for members in clusters]

    def reconstruct(self, i: int) -> np.ndarray:
        """Reconstruct one photo, to show what the anonymizer can represent: uint8 (h, w, 3)."""
        return self.surrogate([i])

    def reconstructions(self, rows: Sequence[int]) -> list[np.ndarray]:
        """Reconstruct several photos, as `reconstruct` does."""
        return [self.reconstruct(i) for i in rows]

    def _checked_members(
        self, members: Sequence[int], weights: Sequence[float] | None
    ) -> tuple[np.ndarray, np.ndarray]:
        """Return the members in ascending order, (m,), and weights that sum to 1, (m,)."""
        if not isinstance(members, Iterable):
            raise ParameterError(f"members must be a list of row numbers, got {members!r}")
        members = np.array([self._row(i) for i in members], dtype=np.int64)
        if len(members) == 0:
            raise ParameterError("members must name at least one photo, got none")
        if len(np.unique(members)) != len(members):
            raise ParameterError("members must not repeat a photo; use weights instead")
        if weights is None:
            weights = person_weights(self.faces.identities[members])
        else:
            weights = _normalised(weights, len(members))
        order = np.argsort(members)  # a sum's last bit depends on the order, but the image must not
        return members[order], weights[order]

    @abstractmethod
    def _mix(self, members: np.ndarray, weights: np.ndarray) -> np.ndarray:
        """Make the surrogate of sorted members (m,), with weights (m,) that sum to 1."""

    def _mix_like(self, members: np.ndarray, weights: np.ndarray, like: int) -> np.ndarray:
        raise ValueError(f"the anonymizer {self.name!r} cannot follow the expression of a photo; omit `like`")


def _normalised(weights: Sequence[float], n: int) -> np.ndarray:
    """Check n weights and scale them to sum 1: float64 (n,)."""
    weights = check_array("weights", weights, (n,), np.float64)
    if (weights < 0).any() or not weights.any():
        raise ParameterError(f"weights must be at least 0, and not all 0, got {weights!r}")

    weights = weights / weights.max()  # a sum of huge weights would overflow
    return weights / weights.sum()


class PhotoFilter(Anonymizer):
    """A baseline that changes each photo separately. It is never k-anonymous."""

    k_anonymous = False

    def apply(self, i: int) -> np.ndarray:
        """Return photo `i` with its face changed: uint8 (h, w, 3), the photo's own size."""
        return self._change(self.faces.images[self._row(i)], self._row(i))

    @abstractmethod
    def _change(self, image: np.ndarray, i: int) -> np.ndarray:
        """Change photo `i`, an image (h, w, 3)."""
