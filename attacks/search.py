"""Search a gallery for the person behind each image: closed-set identification, and the remaining anonymity.

Ties are broken at random; we report the expected success rate, so k people who share one image share one hit.
"""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass

import numpy as np
import pandas as pd
import scipy

import intervals
from attacks.cases import LEVELS, WORST_SHARE, AttackResult, DescribedRelease, Gallery, members_of


def _hit_probability(better, tied, members, rank: int) -> np.ndarray:
    """Chance that at least one member is among the first `rank`.

    Parameters
    ----------
    better : int or ndarray of int
        Number of people ahead of the first member.
    tied : int or ndarray of int
        Number of people as near as the first member, including this member.
    members : int or ndarray of int
        Number of members among the tied people, at least 1.
    rank : int

    Returns
    -------
    ndarray of float
        ``1 - C(tied - members, s) / C(tied, s)`` with ``s = rank - better`` places left for tied people.
    """
    better, tied, members = np.broadcast_arrays(better, tied, members)
    places = np.clip(rank - better, 0, tied)
    # Multiply the chances that the first, second, ... member gets none of the places.
    missed = np.ones(better.shape)
    for i in range(int(members.max(initial=0))):
        factor = np.clip(tied - places - i, 0, None) / np.maximum(tied - i, 1)
        missed = np.where(i < members, missed * factor, missed)
    return 1.0 - missed


@dataclass(frozen=True, eq=False)
class Ranking:
    """Rank of the first wanted person in each of m searches.

    Attributes
    ----------
    better : ndarray of int, shape (m,)
        Number of people who are nearer.
    tied : ndarray of int, shape (m,)
        Number of people who are as near, including this person.
    members : ndarray of int, shape (m,)
        Number of wanted people among the tied people.
    """

    better: np.ndarray
    tied: np.ndarray
    members: np.ndarray

    @classmethod
    def of(cls, to_people: np.ndarray, wanted: np.ndarray) -> Ranking:
        """Rank people by distance, (m, p), and find the first `wanted` person, bool (m, p)."""
        nearest = np.where(wanted, to_people, np.inf).min(axis=1, keepdims=True)  # (m, 1)
        tied = to_people == nearest
        return cls((to_people < nearest).sum(axis=1), tied.sum(axis=1), (tied & wanted).sum(axis=1))

    def hits(self, rank: int) -> np.ndarray:
        """Chance that a wanted person is among the first `rank`: (m,)."""
        return _hit_probability(self.better, self.tied, self.members, rank)

    @property
    def expected_rank(self) -> np.ndarray:
        """Mean rank of the first wanted person over all orders of tied people: (m,)."""
        return self.better + (self.tied + 1) / (self.members + 1)


def rank_cases(cases: pd.DataFrame, to_people: np.ndarray, people: np.ndarray) -> dict[str, Ranking]:
    """Rank `people` (p,) for each case at both levels, by their distances to each image, (c, p)."""
    image = cases["image"].to_numpy()
    wanted = {
        "person": cases["person"].to_numpy(dtype=str)[:, None] == people,  # (m, p)
        "cluster": members_of(cases, people, int(image.max()) + 1)[image],
    }
    return {level: Ranking.of(to_people[image], wanted[level]) for level in LEVELS}


def blind_chance(cases: pd.DataFrame, n_people: int, level: str, rank: int = 1) -> float:
    """Mean chance that a wanted person is among `rank` people drawn at random."""
    sizes = cases.groupby("image")["person"].transform("size") if level == "cluster" else 1
    return float(np.mean(_hit_probability(0, n_people, sizes, rank)))


def closed_set(release: DescribedRelease, gallery: Gallery, rank: int = 1) -> pd.DataFrame:
    """Search a gallery for each image.

    Returns
    -------
    DataFrame
        `DescribedRelease.cases` with ``hit_person`` and ``hit_cluster``: the chance that the person, or anyone who
        shares the image, is among the first `rank` people.
    """
    cases = release.cases
    gallery.check_holds(cases["person"])
    found = rank_cases(cases, gallery.distances_from(release.descriptors), gallery.people)
    return cases.assign(**{f"hit_{level}": ranking.hits(rank) for level, ranking in found.items()})


def identification(
    release: DescribedRelease, gallery: Gallery, ranks: Sequence[int] = (1, 3, 5, 10), *, random_state=0
) -> list[AttackResult]:
    """Search a gallery for the person behind each released image.

    Threat model: the attacker has a recogniser and named photos of everyone in the release (and perhaps of others),
    original or anonymized by the attacker. They know neither the clusters nor the method.

    Parameters
    ----------
    release : DescribedRelease
    gallery : Gallery
        The distance to a person is the distance to their nearest photo.
    ranks : sequence of int, default (1, 3, 5, 10)
        A search succeeds if the wanted person is among this many nearest people. Ranks above the number of people
        are left out.
    random_state : int, RandomState or None, default 0
        Seed for the intervals.

    Returns
    -------
    list of AttackResult
        ``"rank-1"`` ... at the levels ``"person"`` and ``"cluster"``. ``per_person`` has the expected ``rank``.
        Chance: the same number of people drawn at random.

    Raises
    ------
    ValueError
        If a released person is not in the gallery, or the descriptors have different lengths.

    Notes
    -----
    At most r of the people who share an image are among its r nearest people, so the rate at person level is at most
    r / k. An assertion checks this.
    """
    cases, people = release.cases, gallery.people
    gallery.check_holds(cases["person"])
    results = []
    for level, ranking in rank_cases(cases, gallery.distances_from(release.descriptors), people).items():
        for rank in [rank for rank in ranks if rank <= len(people)]:
            table = cases.assign(success=ranking.hits(rank), rank=ranking.expected_rank)
            most = table.groupby("image")["success"].sum().max()
            if level == "person" and most > rank + 1e-6:
                raise AssertionError(f"one image leads to {most:.3f} people among the first {rank}")
            chance = blind_chance(cases, len(people), level, rank)
            results.append(AttackResult.of_cases(f"rank-{rank}", level, table, chance, random_state))
    return results


def posterior(release: DescribedRelease, gallery: Gallery, *, random_state=0) -> list[AttackResult]:
    """Compute an attacker's posterior over the people behind each image, and the size of the anonymity set.

    Threat model: as for `identification`, but the attacker also knows how far to trust a distance. Their belief in
    person j is the softmax of ``-slope * distance_j`` over the gallery. The slope maximises the likelihood of the true
    people in this release and is never negative. No attacker can choose a better single slope, so the set sizes err
    in the attacker's favour. For uninformative images the slope is 0, and the whole gallery remains.

    Returns
    -------
    list of one AttackResult
        ``rate`` is the mean belief in the true person. ``per_person`` has ``rank``, ``success`` (the belief),
        ``entropy`` (bits) and ``set_size``, the effective size of the anonymity set, ``2 ** entropy`` people
        (Serjantov and Danezis, "Towards an information theoretic metric for anonymity", PET 2002). The note
        gives the median set size, and the size for the worst 5 %.
    """
    cases, people = release.cases, gallery.people
    gallery.check_holds(cases["person"])
    to_people = gallery.distances_from(release.descriptors)
    # Distances from each case's image to all people (m, p), and to the true person (m,).
    rows = to_people[cases["image"]]
    own = rows[np.arange(len(cases)), np.searchsorted(people, cases["person"].to_numpy(dtype=str))]
    # Fit the slope on the images with a face, or on all if there are none.
    trusted = ~cases["failed"].to_numpy() if not cases["failed"].all() else np.ones(len(cases), bool)
    slope = _fit_slope(rows[trusted], own[trusted])
    # Convert distances to beliefs, and beliefs to entropies in bits. (m, p) -> (m,)
    log_total = scipy.special.logsumexp(-slope * rows, axis=1)
    log_belief = -slope * rows - log_total[:, None]
    entropy = -(np.exp(log_belief) * log_belief).sum(axis=1) / np.log(2)
    table = cases.assign(
        success=np.exp(-slope * own - log_total),
        rank=rank_cases(cases, to_people, people)["person"].expected_rank,
        entropy=entropy,
        set_size=2.0**entropy,
    )
    sizes, note = np.sort(table["set_size"][~table["failed"]]), ""
    if len(sizes):
        worst = intervals.mean(sizes[: max(1, round(WORST_SHARE * len(sizes)))])
        note = f"effective anonymity set: median {np.median(sizes):.1f} people, worst 5 % {worst:.1f}"
    return [AttackResult.of_cases("posterior", "person", table, 1 / len(people), random_state, note)]


def _fit_slope(rows: np.ndarray, own: np.ndarray) -> float:
    """Find the softmax slope, at least 0, that makes the true people most likely: (m, p), (m,) -> float."""
    scale = rows.std() or 1.0
    scaled, target = rows / scale, own / scale

    def surprise(slope: float) -> float:  # convex in the slope
        return float(np.mean(slope * target + scipy.special.logsumexp(-slope * scaled, axis=1)))

    fitted = scipy.optimize.minimize_scalar(
        surprise, bounds=(0.0, 1000.0), method="bounded", options={"xatol": 1e-6}
    )
    return float(fitted.x) / scale if fitted.fun < surprise(0.0) - 1e-9 else 0.0
