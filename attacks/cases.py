"""Inputs and results of attacks: a described release, a gallery, practice images, and the result."""

from __future__ import annotations

from collections.abc import Callable, Sequence
from dataclasses import dataclass, field
from functools import cached_property

import numpy as np
import pandas as pd
import scipy

import checks
import intervals
from datasets import Faces

#: The target of a search: the person, or anyone who shares the image.
LEVELS = ("person", "cluster")

#: Share of people that count as the worst protected.
WORST_SHARE = 0.05


def check_descriptors(what: str, descriptors: np.ndarray, n_rows: int | None = None) -> None:
    """Raise ParameterError unless `descriptors` is a finite array of shape (n_rows, d)."""
    shape = np.shape(descriptors)
    if len(shape) != 2 or 0 in shape or n_rows not in (None, shape[0]):
        wanted = "n_rows" if n_rows is None else n_rows
        raise checks.ParameterError(
            f"{what} must have descriptors of shape ({wanted}, n_values), got {shape}"
        )
    if not np.isfinite(descriptors).all():
        raise checks.ParameterError(f"{what} must have finite descriptors; drop photos with NaN or infinity")


def distances(a: np.ndarray, b: np.ndarray) -> np.ndarray:
    """Euclidean distances between rows: (c, d), (g, d) -> (c, g). Exactly 0 where rows are equal."""
    if a.shape[1] != b.shape[1]:
        raise ValueError(
            f"descriptors of {a.shape[1]} and {b.shape[1]} values cannot be compared; use the same recogniser for both"
        )
    return scipy.spatial.distance.cdist(np.asarray(a, dtype=float), np.asarray(b, dtype=float))


@dataclass(frozen=True, eq=False)
class DescribedRelease:
    """The descriptors of released images, and the people behind each image.

    Attributes
    ----------
    descriptors : ndarray, shape (c, d)
        One row per distinct image.
    found : ndarray of bool, shape (c,)
        Whether a face was found in the image.
    labels : ndarray of int, shape (n,)
        The image that replaces each of n photos, 0 to c - 1.
    identities : ndarray of str, shape (n,)
        The person in each of these photos.
    """

    descriptors: np.ndarray
    found: np.ndarray
    labels: np.ndarray
    identities: np.ndarray

    def __post_init__(self):
        check_descriptors("the release", self.descriptors)
        c = len(self.descriptors)
        if np.shape(self.found) != (c,):
            raise checks.ParameterError(f"found must have shape ({c},), got {np.shape(self.found)}")
        checks.check_labels(self.labels, len(self.identities), n_clusters=c)

    @classmethod
    def unchanged(cls, descriptors: np.ndarray, identities: np.ndarray) -> DescribedRelease:
        """Release every photo unchanged: (n, d), (n,)."""
        n = len(descriptors)
        return cls(descriptors, np.ones(n, dtype=bool), np.arange(n), identities)

    @cached_property
    def cases(self) -> pd.DataFrame:
        """Each pair of person and image, once: columns ``person``, ``image``, ``failed``, ``group``.

        ``failed`` is True if no face was found in the image. Different groups have no people or images in common: a
        group is the cluster of a shared image, or one person if images are not shared.
        """
        table = pd.DataFrame({"person": np.asarray(self.identities, dtype=str), "image": self.labels})
        table = table.drop_duplicates().sort_values(["image", "person"], ignore_index=True)
        # Connect people with their images; the groups are the components of this graph.
        people, person = np.unique(table["person"], return_inverse=True)
        size = len(people) + len(self.descriptors)
        ends = (person, len(people) + table["image"].to_numpy())
        graph = scipy.sparse.csr_array((np.ones(len(table)), ends), shape=(size, size))
        groups = scipy.sparse.csgraph.connected_components(graph, directed=False)[1][person]
        return table.assign(failed=~np.asarray(self.found)[table["image"]], group=groups)


def members_of(cases: pd.DataFrame, names: np.ndarray, n_images: int) -> np.ndarray:
    """Return which names are people behind each image: `DescribedRelease.cases`, (g,) -> bool (n_images, g)."""
    people, place = np.unique(np.asarray(names, dtype=str), return_inverse=True)
    person, image = (cases[name].to_numpy() for name in ("person", "image"))
    number = {name: i for i, name in enumerate(people.tolist())}
    column = np.array([number.get(name, -1) for name in person.tolist()], dtype=int)
    behind = np.zeros((n_images, len(people)), dtype=bool)
    behind[image[column >= 0], column[column >= 0]] = True
    return behind[:, place]


@dataclass(frozen=True, eq=False)
class Gallery:
    """Named photos that an adversary holds, original or anonymized.

    Attributes
    ----------
    descriptors : ndarray, shape (g, d)
    identities : ndarray of str, shape (g,)
    kind : str
        ``"other photos"`` than the anonymized ones, ``"same photos"``, ``"mixed"`` if only some people have other
        photos, or ``"anonymized"``.
    """

    descriptors: np.ndarray
    identities: np.ndarray
    kind: str = "other photos"

    def __post_init__(self):
        check_descriptors("the gallery", self.descriptors, len(self.identities))

    @classmethod
    def of(cls, faces: Faces, describe: Callable[[Faces], np.ndarray]) -> Gallery:
        """Describe the photos that `gallery_faces` selects."""
        photos, kind = gallery_faces(faces)
        return cls(describe(photos), photos.identities, kind)

    @classmethod
    def anonymized(cls, release: DescribedRelease) -> Gallery:
        """Make a gallery of released images, with one entry per image and person behind it."""
        cases = release.cases
        return cls(release.descriptors[cases["image"]], cases["person"].to_numpy(dtype=str), "anonymized")

    @cached_property
    def people(self) -> np.ndarray:
        """The distinct people, sorted: ndarray of str, shape (p,)."""
        return np.unique(self.identities)

    def of_people(self, people: Sequence[str]) -> Gallery:
        """Return only the photos of some people."""
        rows = np.isin(self.identities, list(people))
        return Gallery(self.descriptors[rows], self.identities[rows], self.kind)

    def check_holds(self, people: Sequence[str]) -> None:
        """Raise ValueError unless everyone in `people` has a photo here, as closed-set identification requires."""
        unknown = set(people) - set(self.identities)
        if unknown:
            raise ValueError(
                f"{len(unknown)} released people are not in the gallery, e.g. {min(unknown)}; "
                "closed-set identification needs a photo of everyone"
            )

    def person_distances(self, to_photos: np.ndarray) -> np.ndarray:
        """Reduce distances to photos to each person's nearest photo: (c, g) -> (c, p), ordered as `people`."""
        order, first = self._by_person
        return np.minimum.reduceat(to_photos[:, order], first, axis=1)

    @cached_property
    def _by_person(self) -> tuple[np.ndarray, np.ndarray]:
        """Rows of the photos, sorted by person, and the place of each person's first one: (g,), (p,)."""
        order = np.argsort(self.identities, kind="stable")
        return order, np.unique(self.identities[order], return_index=True)[1]

    def distances_from(self, descriptors: np.ndarray) -> np.ndarray:
        """Distances to the nearest photo of each of `people`: (c, d) -> (c, p)."""
        return self.person_distances(distances(descriptors, self.descriptors))


def gallery_faces(faces: Faces) -> tuple[Faces, str]:
    """Select the photos that an adversary holds, and return their kind, see `Gallery`.

    The gallery holds other photos of each person. People without other photos are in the gallery with the originals of
    the released images.
    """
    if faces.others is None:
        return faces, "same photos"
    lonely = ~np.isin(faces.identities, faces.others.identities)
    if not lonely.any():
        return faces.others, "other photos"
    return faces.others.joined(faces.select(lonely)), "mixed"


def are_behind(members: Sequence[frozenset[str]], names: np.ndarray) -> np.ndarray:
    """Return which names (g,) are among the people behind each of m images: bool (m, g)."""
    names = names.tolist()
    return np.array([[name in group for name in names] for group in members], dtype=bool)


@dataclass(frozen=True, eq=False)
class Practice:
    """Images of known people that an attacker made with the method under attack.

    Attributes
    ----------
    descriptors : ndarray, shape (m, d)
    members : tuple of m frozensets of str
        The people behind each image.
    apart : tuple of frozensets of str
        Groups of people who share no image of the release under attack; empty if unknown.
    """

    descriptors: np.ndarray
    members: tuple[frozenset[str], ...]
    apart: tuple[frozenset[str], ...] = ()

    def __post_init__(self):
        check_descriptors("the practice", self.descriptors, len(self.members))

    def among(self, people: frozenset[str]) -> Practice | None:
        """Return the images whose members all belong to `people`; None if there are none."""
        rows = [i for i, members in enumerate(self.members) if members <= people]
        if not rows:
            return None
        apart = tuple(group for group in self.apart if group <= people)
        return Practice(self.descriptors[rows], tuple(self.members[i] for i in rows), apart)


@dataclass(frozen=True, eq=False)
class AttackResult:
    """The success rate of an attack.

    Attributes
    ----------
    attack : str
        Its name.
    level : str
        The definition of success. ``"person"``: the right person is named; ``"cluster"``: anyone who shares the image
        is named; ``"pair"``: two images are correctly matched to one person.
    rate, low, high : float
        Share of successes over people whose image shows a face, and its 95 % interval. NaN with a `note` if it cannot
        be estimated.
    rate_all, rate_worst : float
        The rate over all people: people without a face are attacked like the others, or counted as successes.
    chance : float
        The rate of a random guess.
    n_people, n_failed : int
        Number of pairs of person and image, and of those whose image shows no face. With one image per person, pairs
        are people.
    per_person : DataFrame
        ``person image failed success``; success is the expected share of successful attempts. Some attacks add columns.
    note : str
    """

    attack: str
    level: str
    rate: float
    low: float
    high: float
    rate_all: float
    rate_worst: float
    chance: float
    n_people: int
    n_failed: int
    per_person: pd.DataFrame = field(repr=False)
    note: str = ""

    @classmethod
    def of_cases(
        cls, attack: str, level: str, table: pd.DataFrame, chance: float, random_state, note: str = ""
    ) -> AttackResult:
        """Summarise the success for each case, columns ``person image failed group success``."""
        failed, success = table["failed"].to_numpy(), table["success"].to_numpy(dtype=float)
        units = table["group" if level == "cluster" else "person"]
        low, high = intervals.rate_interval(success[~failed], units[~failed], random_state)
        if failed.all():
            note = "; ".join(filter(None, [note, "no image shows a face"]))
        return cls(
            attack, level, intervals.mean(success[~failed]), low, high, rate_all=intervals.mean(success),
            rate_worst=intervals.mean(np.where(failed, 1.0, success)), chance=chance, n_people=len(table),
            n_failed=int(failed.sum()), per_person=table.drop(columns="group"), note=note,
        )  # fmt: skip

    @property
    def worst_people(self) -> float:
        """Mean success against the worst protected 5 % of people (at least one person)."""
        success = np.sort(self._shown["success"].to_numpy())[::-1]
        return intervals.mean(success[: max(1, round(WORST_SHARE * len(success)))])

    @property
    def worst_cluster(self) -> float:
        """Mean success against the people of the worst protected image."""
        shown = self._shown
        if not len(shown):
            return float("nan")
        _, image = np.unique(shown["image"], return_inverse=True)
        return float((np.bincount(image, shown["success"]) / np.bincount(image)).max())

    @property
    def _shown(self) -> pd.DataFrame:
        return self.per_person[~self.per_person["failed"]]

    def row(self) -> dict:
        """All fields except `per_person` as one row of a table, with `worst_people` and `worst_cluster`."""
        plain = {name: value for name, value in vars(self).items() if name != "per_person"}
        return {**plain, "worst_people": self.worst_people, "worst_cluster": self.worst_cluster}
