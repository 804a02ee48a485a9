"""Clusters of people who look alike in age or sex.

Networks guess both from the faces, so neither is more than an appearance. People are grouped by these guesses and
partitioned within each group.
"""

from __future__ import annotations

from collections.abc import Callable, Sequence

import numpy as np

from datasets import Faces
from people import number_people
from utility import appearance, networks

#: Ages in years at which a new group begins.
_AGE_GROUPS = (13, 25, 40, 60)
#: Groups that differ by this many years are as far apart as groups of different sex.
_SEX_YEARS = 30.0

#: Trait -> the networks' reading of n faces, in years: (n,).
TRAITS: dict[str, Callable[[appearance.FaceReadings], np.ndarray]] = {
    "age": lambda readings: readings.ages.astype(float),
    "sex": lambda readings: _SEX_YEARS * readings.sexes,
}

#: Trait -> the values at which a new group begins.
_LIMITS = {"age": _AGE_GROUPS, "sex": (_SEX_YEARS / 2,)}


def check_traits_known() -> None:
    """Raise `networks.MissingModelError` if the networks that guess age and sex are not installed."""
    for name in (networks.AGE, networks.SEX):
        networks.load_session(name)


def partition_alike(
    partition: Callable[..., np.ndarray],
    descriptors: np.ndarray,
    k: int,
    faces: Faces,
    traits: Sequence[str],
    random_state: int = 0,
) -> tuple[np.ndarray, str]:
    """Partition people within groups of the same age or sex.

    Parameters
    ----------
    partition : callable
        An entry of `partitioning.PARTITIONERS`.
    descriptors : ndarray, shape (n, d)
    k : int
    faces : Faces
        The n faces, of at least k people.
    traits : sequence of str
        Names in `TRAITS`.
    random_state : int, default 0

    Returns
    -------
    labels : ndarray of int, shape (n,)
        As from the partition: every cluster has at least k people.
    note : str
        How many groups there are, and how many were merged because they had fewer than k people.
    """
    readings = appearance.FaceReadings(faces)
    person = number_people(faces.identities, len(faces))
    values = np.column_stack([TRAITS[name](readings) for name in traits])  # (n, t)
    # One point per person: the median over the person's faces. (p, t)
    points = np.stack([np.median(values[person == i], axis=0) for i in range(person.max() + 1)])
    cells = [np.digitize(points[:, t], _LIMITS[name]) for t, name in enumerate(traits)]
    own_group = np.unique(np.column_stack(cells), axis=0, return_inverse=True)[1].ravel()
    group, n_merged = merge_small_groups(points, own_group, k)
    labels = np.full(len(faces), -1)
    for number in np.unique(group):
        rows = np.flatnonzero(group[person] == number)
        own = partition(descriptors[rows], k, identities=faces.identities[rows], random_state=random_state)
        labels[rows] = own + labels.max() + 1
    note = f"People were partitioned within {len(np.unique(group))} groups by guessed {' and '.join(traits)}"
    merged = (
        f"; {n_merged} groups of fewer than {k} people were merged with the nearest group" if n_merged else ""
    )
    return labels, f"{note}{merged}."


def merge_small_groups(points: np.ndarray, group: np.ndarray, k: int) -> tuple[np.ndarray, int]:
    """Merge each group of fewer than k people with the nearest group, the smallest first.

    Parameters
    ----------
    points : ndarray, shape (p, t)
    group : ndarray of int, shape (p,)
    k : int
        At most p.

    Returns
    -------
    group : ndarray of int, shape (p,)
    n_merged : int
        Number of merges.
    """
    group, n_merged = group.copy(), 0
    while True:
        names, sizes = np.unique(group, return_counts=True)
        if sizes.min() >= k or len(names) == 1:
            return group, n_merged
        small = names[sizes.argmin()]
        means = np.stack([points[group == name].mean(axis=0) for name in names])
        apart = np.linalg.norm(means - means[names == small], axis=1)
        apart[names == small] = np.inf
        group[group == small] = names[apart.argmin()]
        n_merged += 1
