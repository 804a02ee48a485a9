"""What every anonymizer has in common: checked members and weights, and a key for the cache."""

from __future__ import annotations

from abc import ABC, abstractmethod
from collections.abc import Iterable, Sequence
from functools import cached_property

import numpy as np

import detection
import utils
from datasets import Faces


class Anonymizer(ABC):
    """Something that is made for a set of faces and gives images that shall protect the people on them.

    Attributes
    ----------
    name : str
        Its name in `anonymizer.ANONYMIZERS`.
    faces : Faces
        The set that rows refer to.
    k_anonymous : bool
        Whether one image can stand for a whole cluster, byte for byte.
    """

    name: str
    k_anonymous: bool

    def __init__(self, faces: Faces):
        self.faces = faces

    @classmethod
    def fits(cls, faces: Faces) -> bool:
        """Whether it can be made for these faces without options or further files."""
        return True

    @cached_property
    def landmarks(self) -> np.ndarray:
        """The 68 landmarks on each photo: float32 (n, 68, 2)."""
        return detection.detect(self.faces).landmarks

    @cached_property
    def fingerprint(self) -> str:
        """Changes with the faces, the options, and the code: the key under which results are cached."""
        modules = [kind.__module__ for kind in type(self).__mro__]
        # `evaluation` adds the source of classes from elsewhere.
        code = utils.source_key(*(module for module in modules if module.startswith("anonymizer.")))
        return utils.content_key(self.name, self.faces.fingerprint, self._options(), code)

    def _options(self) -> dict:
        """What was chosen when it was made, as plain values."""
        return {}

    def _row(self, i) -> int:
        """Check one row number."""
        if isinstance(i, bool | np.bool_) or not isinstance(i, int | np.integer):
            raise TypeError(f"a photo is named by its row number, a whole number, not {i!r}")
        if not 0 <= i < len(self.faces):
            raise ValueError(f"there is no photo {i}; the rows go from 0 to {len(self.faces) - 1}")
        return int(i)


class Surrogates(Anonymizer):
    """An anonymizer that gives all members of a cluster one synthetic face."""

    k_anonymous = True

    def surrogate(
        self, members: Sequence[int], weights: Sequence[float] | None = None, like: int | None = None
    ) -> np.ndarray:
        """Make the face that stands for some photos.

        Parameters
        ----------
        members : sequence of int
            Rows of the photos in the cluster, each once.
        weights : sequence of float, optional
            One for each member, not negative, not all zero; they are brought to sum 1. By default every
            *person* among the members counts the same, however many photos they have.
        like : int, optional
            Follow the expression of this photo (``per_photo`` mode). Such images differ between members, so
            no k-anonymity is claimed for them.

        Returns
        -------
        ndarray of uint8, shape (h, w, 3)
            Without `like`: the same bytes for the same members and weights, in whatever order they come.

        Raises
        ------
        TypeError, ValueError
            For members or weights that do not fit, or `like` where this anonymizer cannot follow a photo.
        """
        members, weights = self._checked_members(members, weights)
        if like is None:
            return self._mix(members, weights)
        return self._mix_like(members, weights, self._row(like))

    def surrogates(self, clusters: Sequence[Sequence[int]]) -> list[np.ndarray]:
        """Make the faces of all clusters of a release: one image for each, as `surrogate` makes it."""
        return [self.surrogate(members) for members in clusters]

    def _checked_members(
        self, members: Sequence[int], weights: Sequence[float] | None
    ) -> tuple[np.ndarray, np.ndarray]:
        """Members in ascending order, and weights that sum to 1: (m,), (m,)."""
        if not isinstance(members, Iterable):
            raise TypeError(f"members must be a list of row numbers, not {members!r}")
        members = np.array([self._row(i) for i in members], dtype=np.int64)
        if len(members) == 0:
            raise ValueError("a surrogate needs at least one member")
        if len(np.unique(members)) != len(members):
            raise ValueError(
                "a photo is named twice among the members; give each row once and use weights instead"
            )
        if weights is None:
            weights = person_weights(self.faces.identities[members])
        else:
            weights = _checked_weights(weights, len(members))
        order = np.argsort(members)  # sums depend on the order in the last bit, bytes must not
        return members[order], weights[order]

    def reconstruct(self, i: int) -> np.ndarray:
        """The face that this anonymizer makes of one photo alone: uint8 (h, w, 3)."""
        return self.surrogate([i])

    @abstractmethod
    def _mix(self, members: np.ndarray, weights: np.ndarray) -> np.ndarray:
        """The surrogate of sorted members with weights that sum to 1."""

    def _mix_like(self, members: np.ndarray, weights: np.ndarray, like: int) -> np.ndarray:
        raise ValueError(
            f"the anonymizer {self.name!r} cannot follow the expression of a photo; leave out `like`"
        )


def person_weights(identities: np.ndarray, shares: np.ndarray | float = 1.0) -> np.ndarray:
    """Weights of photos that sum to 1: each person's share is divided over their photos.

    Parameters
    ----------
    identities : ndarray, shape (m,)
        Who is on each photo.
    shares : ndarray, shape (m,), or float
        The share of the person on each photo; equal for all by default.

    Returns
    -------
    ndarray of float64, shape (m,)
    """
    _, person, photos = np.unique(identities, return_inverse=True, return_counts=True)
    weights = shares / photos[person]
    return weights / weights.sum()


def _checked_weights(weights: Sequence[float], n: int) -> np.ndarray:
    try:
        weights = np.array(weights, dtype=np.float64)
    except (TypeError, ValueError) as error:
        raise ValueError(f"weights must be numbers, one for each member ({error})") from error
    if weights.shape != (n,):
        raise ValueError(f"{n} members need {n} weights, not an array of shape {weights.shape}")
    if not np.isfinite(weights).all() or (weights < 0).any() or not weights.any():
        raise ValueError("weights must be finite and not negative, and at least one above 0")
    weights = weights / weights.max()  # or the sum of huge ones overflows
    return weights / weights.sum()


class PhotoFilter(Anonymizer):
    """A baseline that changes each photo by itself. It is not k-anonymous, whatever it hides."""

    k_anonymous = False

    def apply(self, i: int) -> np.ndarray:
        """Return photo `i` with its face changed: uint8 (h, w, 3), the photo's own size."""
        return self._change(self.faces.images[self._row(i)], self._row(i))

    @abstractmethod
    def _change(self, image: np.ndarray, i: int) -> np.ndarray:
        """Change one photo (h, w, 3)."""
