"""Released images -> what an adversary gets out of them: one function for each attack.

Every attack states its threat model and returns `AttackResult`: the share of people on whom it succeeds, what a blind
guess would reach, and a bootstrap interval. Protocols follow Todt, Hanisch and Strufe, "Fantômas: Understanding Face
Anonymization Reversibility" (arXiv 2210.10651), Hanisch et al., "A False Sense of Privacy" (arXiv 2304.01635) and
"SEBA" (arXiv 2407.06648); the attacker who trains on anonymized faces is the "parrot" of Newton, Sweeney and Malin,
"Preserving Privacy by De-identifying Face Images" (IEEE TKDE 17(2), 2005).

Three rules hold for all attacks:

- An image on which no face is found is a class of its own. ``rate`` leaves its people out, ``rate_all``
  attacks them all the same (with what the recogniser makes of the whole frame), ``rate_worst`` counts them as
  found out.
- Equal distances are broken by lot: what counts is the expected success, so that k people who share one image share
  one hit.
- Intervals resample people; at cluster level whole clusters, as their members succeed or fail together. Where
  all agree, the bootstrap would give an interval of width 0, and the exact binomial one (Clopper and Pearson
  1934) stands instead.
"""

from __future__ import annotations

import json
from collections.abc import Callable, Sequence
from dataclasses import dataclass, field, replace
from itertools import combinations

import numpy as np
import pandas as pd
from scipy.optimize import minimize_scalar
from scipy.sparse import csr_array
from scipy.sparse.csgraph import connected_components
from scipy.spatial.distance import cdist
from scipy.special import logsumexp
from scipy.stats import beta
from sklearn.linear_model import Ridge, RidgeCV
from sklearn.pipeline import make_pipeline
from sklearn.preprocessing import StandardScaler
from sklearn.svm import LinearSVC

import detection
import recognisers
import utils
from datasets import Faces

#: The distance under which the paper takes two of dlib's descriptors for one person: its choice, not a calibrated one.
PAPER_THRESHOLD = 0.6

RANKS = (1, 3, 5, 10)
FALSE_ACCEPT_RATES = (1e-2, 1e-3)

#: A false accept rate under this many pairs' worth is not estimated.
PAIRS_PER_RATE = 10

N_RESAMPLES = 1000  # of a rate
N_CURVE_RESAMPLES = 200  # of a threshold or a point on a curve, which take a pass over all pairs
CONFIDENCE = 0.95

#: Curves are drawn over at most about so many pairs.
MAX_PAIRS = 500_000

#: Attacks that train do so on a random half of the people and are tried on the other half, so many times.
N_SPLITS = 20

#: Surrogates that an attacker makes of people they know, to learn from.
N_PRACTICE = 168

#: Share of people that "the worst" are.
WORST_SHARE = 0.05


class NotApplicableError(ValueError):
    """An attack cannot be made on such data; the message says what it needs."""


# ----------------------------------------------------------------------------------------------------------
# What an attack reads and returns
# ----------------------------------------------------------------------------------------------------------


@dataclass(frozen=True, eq=False)
class DescribedRelease:
    """The descriptors of released images, and whom each one stands for.

    Attributes
    ----------
    descriptors : ndarray, shape (c, d)
        One row for each different image.
    found : ndarray of bool, shape (c,)
        Whether a face was found on the image.
    labels : ndarray of int, shape (n,)
        Which image each of n photos got, 0 to c - 1.
    identities : ndarray of str, shape (n,)
        Who is on each of these photos.
    """

    descriptors: np.ndarray
    found: np.ndarray
    labels: np.ndarray
    identities: np.ndarray

    def __post_init__(self):
        _check_descriptors("the release", self.descriptors)
        c, n = len(self.descriptors), len(self.labels)
        if np.shape(self.found) != (c,):
            raise ValueError(f"{c} images but found flags of shape {np.shape(self.found)}")
        if len(self.identities) != n:
            raise ValueError(f"{n} labels but {len(self.identities)} identities; give one of each a photo")
        if not np.array_equal(np.unique(self.labels), np.arange(c)):
            raise ValueError(f"labels must use every number from 0 to {c - 1}, one for each image")

    @property
    def cases(self) -> pd.DataFrame:
        """Who is behind which image, each once: columns ``person``, ``image``, ``failed``, ``group``.

        Groups share neither people nor images: the cluster of a shared image, else the person.
        """
        table = pd.DataFrame({"person": np.asarray(self.identities, dtype=str), "image": self.labels})
        table = table.drop_duplicates().sort_values(["image", "person"], ignore_index=True)
        people, person = np.unique(table["person"], return_inverse=True)
        n_images = len(self.descriptors)
        ends = (person, len(people) + table["image"].to_numpy())
        size = len(people) + n_images
        graph = csr_array((np.ones(len(table)), ends), shape=(size, size))
        groups = connected_components(graph, directed=False)[1][person]
        return table.assign(failed=~np.asarray(self.found)[table["image"]], group=groups)


@dataclass(frozen=True, eq=False)
class Gallery:
    """Photos with names on them that an adversary holds: clear ones, or anonymized ones.

    Attributes
    ----------
    descriptors : ndarray, shape (g, d)
    identities : ndarray of str, shape (g,)
    kind : str
        ``"other photos"`` than the anonymized ones, ``"same photos"``, ``"mixed"`` where only some people have
        others, or ``"anonymized"``.
    """

    descriptors: np.ndarray
    identities: np.ndarray
    kind: str = "other photos"

    def __post_init__(self):
        _check_descriptors("the gallery", self.descriptors)
        if len(self.descriptors) != len(self.identities):
            raise ValueError(
                f"the gallery has {len(self.descriptors)} descriptors and {len(self.identities)} identities; "
                "there must be one of each for each photo"
            )

    @classmethod
    def of(cls, faces: Faces, describe: Callable[[Faces], np.ndarray]) -> Gallery:
        """Describe what `gallery_faces` picks."""
        photos, kind = gallery_faces(faces)
        return cls(describe(photos), photos.identities, kind)

    @classmethod
    def anonymized(cls, release: DescribedRelease) -> Gallery:
        """A gallery of released images, each under the names of all people whom it stands for."""
        cases = release.cases
        return cls(release.descriptors[cases["image"]], cases["person"].to_numpy(dtype=str), "anonymized")

    def of_people(self, people: Sequence[str]) -> Gallery:
        """The photos of some people only."""
        rows = np.isin(self.identities, list(people))
        return Gallery(self.descriptors[rows], self.identities[rows], self.kind)


def gallery_faces(faces: Faces) -> tuple[Faces, str]:
    """Pick the photos an adversary holds: others of each person where there are any, else the person's own."""
    if faces.others is None:
        return faces, "same photos"
    lonely = ~np.isin(faces.identities, faces.others.identities)
    if not lonely.any():
        return faces.others, "other photos"
    return faces.others.joined(faces.select(lonely)), "mixed"


@dataclass(frozen=True, eq=False)
class Practice:
    """What an attacker made, with the method that they attack, of people whom they know.

    Attributes
    ----------
    descriptors : ndarray, shape (m, d)
    members : tuple of m frozensets of str
        Who went into each image.
    apart : tuple of frozensets of str
        People by groups that share no image of the release under attack; empty where this is not known.
    """

    descriptors: np.ndarray
    members: tuple[frozenset[str], ...]
    apart: tuple[frozenset[str], ...] = ()

    def __post_init__(self):
        _check_descriptors("the practice", self.descriptors)
        if len(self.descriptors) != len(self.members):
            raise ValueError(f"{len(self.descriptors)} images but {len(self.members)} sets of members")

    def among(self, people: frozenset[str]) -> Practice | None:
        """The images of some people only; None where there are none."""
        rows = [i for i, members in enumerate(self.members) if members <= people]
        if not rows:
            return None
        return Practice(
            self.descriptors[rows],
            tuple(self.members[i] for i in rows),
            tuple(group for group in self.apart if group <= people),
        )


@dataclass(frozen=True, eq=False)
class AttackResult:
    """How often an attack succeeds.

    Attributes
    ----------
    attack : str
        Which one.
    level : str
        ``"person"``: the right person is named; ``"cluster"``: one of those who share the image is;
        ``"pair"``: two images are rightly told to show one person.
    rate, low, high : float
        Share of people whose image shows a face, and its 95 % interval. NaN with a `note` where it cannot be estimated.
    rate_all, rate_worst : float
        Of all people: those without a face attacked all the same; those counted as found out.
    chance : float
        What a blind guess reaches.
    n_people, n_failed : int
        Pairs of a person and an image, and how many of them have no face on the image. With one image a person:
        people.
    per_person : DataFrame
        ``person image failed success``, where success is the expected share of attempts, and more for some attacks.
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

    @property
    def worst_people(self) -> float:
        """Mean success against the worst protected 5 % of people (one person at least)."""
        success = np.sort(self._shown["success"].to_numpy())[::-1]
        return _mean(success[: max(1, round(WORST_SHARE * len(success)))])

    @property
    def worst_cluster(self) -> float:
        """Mean success against the people of the worst protected image."""
        shown = self._shown
        return float(shown.groupby("image")["success"].mean().max()) if len(shown) else float("nan")

    @property
    def _shown(self) -> pd.DataFrame:
        return self.per_person[~self.per_person["failed"]]

    def row(self) -> dict:
        """All but `per_person`, and the worst, as one row of a table."""
        plain = {name: value for name, value in vars(self).items() if name not in ("per_person", "note")}
        return {
            **plain,
            "worst_people": self.worst_people,
            "worst_cluster": self.worst_cluster,
            "note": self.note,
        }


def members_of(cases: pd.DataFrame, names: np.ndarray, n_images: int) -> np.ndarray:
    """Which of some names stand for people behind each image: `DescribedRelease.cases`, (g,) -> bool (n_images, g)."""
    people, place = np.unique(np.asarray(names, dtype=str), return_inverse=True)
    known = cases[cases["person"].isin(people)]
    behind = np.zeros((n_images, len(people)), dtype=bool)
    behind[known["image"], np.searchsorted(people, known["person"].to_numpy(dtype=str))] = True
    return behind[:, place]


def _check_closed_set(cases: pd.DataFrame, people: np.ndarray) -> None:
    unknown = set(cases["person"]) - set(people)
    if unknown:
        raise ValueError(
            f"{len(unknown)} released people are not in the gallery, such as {min(unknown)}; in closed-set "
            "identification everybody is"
        )


def _check_descriptors(what: str, descriptors: np.ndarray) -> None:
    shape = np.shape(descriptors)
    if len(shape) != 2 or 0 in shape:
        raise ValueError(f"{what} needs descriptors of shape (photos, values), not {shape}")
    if not np.isfinite(descriptors).all():
        raise ValueError(f"{what} has NaN or infinite descriptors; describe those photos anew or drop them")


def _mean(values: np.ndarray) -> float:
    return float(np.mean(values)) if len(values) else float("nan")


# ----------------------------------------------------------------------------------------------------------
# Intervals
# ----------------------------------------------------------------------------------------------------------


def bootstrap_interval(
    values: np.ndarray, units: np.ndarray, random_state=0, n_resamples: int = N_RESAMPLES
) -> tuple[float, float]:
    """95 % interval of a mean, by drawing whole units (people, clusters) with replacement.

    Parameters
    ----------
    values : ndarray, shape (n,)
    units : ndarray, shape (n,)
        What each value belongs to.
    random_state : int, RandomState or None, default 0
    n_resamples : int, default 1000

    Returns
    -------
    low, high : float
        NaN without values. Where all values are 0 or all are 1, the exact binomial interval for that many units.

    Notes
    -----
    Percentile bootstrap: Efron and Tibshirani, "An Introduction to the Bootstrap" (1993), chapter 13.
    """
    values = np.asarray(values, dtype=float)
    if len(values) == 0:
        return float("nan"), float("nan")
    _, unit = np.unique(units, return_inverse=True)
    counts = np.bincount(unit).astype(float)  # (u,)
    n_units, tail = len(counts), (1 - CONFIDENCE) / 2
    if (values <= 0).all():
        return 0.0, float(beta.ppf(1 - tail, 1, n_units))
    if (values >= 1).all():
        return float(beta.ppf(tail, n_units, 1)), 1.0
    weights = _resampling_weights(n_units, n_resamples, random_state)  # (n_resamples, u)
    means = weights @ np.bincount(unit, values) / (weights @ counts)
    low, high = np.quantile(means, [tail, 1 - tail])
    return float(low), float(high)


def _resampling_weights(n_units: int, n_resamples: int, random_state) -> np.ndarray:
    """How often each unit is drawn in each resample: (n_resamples, n_units), rows sum to n_units."""
    random = utils.check_random_state(random_state)
    return random.multinomial(n_units, np.full(n_units, 1 / n_units), size=n_resamples).astype(float)


def _summarise(
    attack: str, level: str, table: pd.DataFrame, chance: float, random_state, note=""
) -> AttackResult:
    """Turn successes of cases, columns ``person image failed group success``, into a result."""
    failed, success = table["failed"].to_numpy(), table["success"].to_numpy(dtype=float)
    units = table["group"] if level == "cluster" else table["person"]
    low, high = bootstrap_interval(success[~failed], units[~failed], random_state)
    if failed.all():
        note = "; ".join(filter(None, [note, "no image shows a face"]))
    return AttackResult(
        attack,
        level,
        _mean(success[~failed]),
        low,
        high,
        _mean(success),
        _mean(np.where(failed, 1.0, success)),
        chance,
        len(table),
        int(failed.sum()),
        table.drop(columns="group"),
        note,
    )


# ----------------------------------------------------------------------------------------------------------
# Closed-set identification
# ----------------------------------------------------------------------------------------------------------


def distances(a: np.ndarray, b: np.ndarray) -> np.ndarray:
    """Euclidean distances between rows: (c, d), (g, d) -> (c, g). Exactly 0 where rows are equal."""
    if a.shape[1] != b.shape[1]:
        raise ValueError(
            f"descriptors of {a.shape[1]} and of {b.shape[1]} values do not compare; use one recogniser for both"
        )
    return cdist(np.asarray(a, dtype=float), np.asarray(b, dtype=float))


def person_distances(to_photos: np.ndarray, identities: np.ndarray) -> tuple[np.ndarray, np.ndarray]:
    """Distance to each person, which is that to their nearest photo: (c, g) -> (c, p), and the people (p,)."""
    people, first = np.unique(np.sort(identities), return_index=True)
    order = np.argsort(identities, kind="stable")
    return np.minimum.reduceat(to_photos[:, order], first, axis=1), people


def hit_probability(better, tied, members, rank: int) -> np.ndarray:
    """Chance that one of some members is among the first `rank`, ties being broken by lot.

    Parameters
    ----------
    better : int or ndarray of int
        How many are ahead of the first member.
    tied : int or ndarray of int
        How many are as near as the first member, itself included.
    members : int or ndarray of int
        How many of these are members, at least 1.
    rank : int

    Returns
    -------
    ndarray of float
        ``1 - C(tied - members, s) / C(tied, s)`` with ``s = rank - better`` places left for the tied.
    """
    better, tied, members = np.broadcast_arrays(better, tied, members)
    places = np.clip(rank - better, 0, tied)
    missed = np.ones(better.shape)
    for i in range(int(members.max(initial=0))):
        factor = np.clip(tied - places - i, 0, None) / np.maximum(tied - i, 1)
        missed = np.where(i < members, missed * factor, missed)
    return 1.0 - missed


@dataclass(frozen=True, eq=False)
class _Ranking:
    """Where the people sought stand in a gallery search, a case a row: see `hit_probability`."""

    better: np.ndarray
    tied: np.ndarray
    members: np.ndarray

    def hits(self, rank: int) -> np.ndarray:
        return hit_probability(self.better, self.tied, self.members, rank)

    @property
    def expected_rank(self) -> np.ndarray:
        """Mean place of the first member: the tied ones stand in any order."""
        return self.better + (self.tied + 1) / (self.members + 1)


def _rank(to_people: np.ndarray, sought: np.ndarray) -> _Ranking:
    """Rank people by distance: both (m, p); the first of those `sought` counts in each row."""
    nearest = np.where(sought, to_people, np.inf).min(axis=1, keepdims=True)  # (m, 1)
    tied = to_people == nearest
    return _Ranking((to_people < nearest).sum(axis=1), tied.sum(axis=1), (tied & sought).sum(axis=1))


def _sought(cases: pd.DataFrame, people: np.ndarray, level: str) -> np.ndarray:
    """Which of the people count as a hit for each case: (m, p)."""
    if level == "person":
        return cases["person"].to_numpy(dtype=str)[:, None] == people
    return members_of(cases, people, int(cases["image"].max()) + 1)[cases["image"]]


LEVELS = ("person", "cluster")


def _search(to_people: np.ndarray, people: np.ndarray, cases: pd.DataFrame) -> dict[str, _Ranking]:
    """Rank people for each case at both levels: `to_people` (c, p) holds a row for each image."""
    _check_closed_set(cases, people)
    rows = to_people[cases["image"]]
    return {level: _rank(rows, _sought(cases, people, level)) for level in LEVELS}


def blind_chance(cases: pd.DataFrame, n_people: int, level: str, rank: int = 1) -> float:
    """Mean chance that one of those sought is among `rank` people drawn blindly."""
    sizes = cases.groupby("image")["person"].transform("size") if level == "cluster" else 1
    return float(np.mean(hit_probability(0, n_people, sizes, rank)))


def closed_set(release: DescribedRelease, gallery: Gallery, rank: int = 1) -> pd.DataFrame:
    """Search a gallery by each image: `DescribedRelease.cases` with the chance that a search finds somebody.

    Returns
    -------
    DataFrame
        Also ``hit_person`` and ``hit_cluster``: how likely the person, or anyone who shares the image, is among the
        first `rank` people, ties being broken by lot.
    """
    cases = release.cases
    to_people, people = person_distances(
        distances(release.descriptors, gallery.descriptors), gallery.identities
    )
    found = _search(to_people, people, cases)
    return cases.assign(**{f"hit_{level}": ranking.hits(rank) for level, ranking in found.items()})


def identification(
    release: DescribedRelease, gallery: Gallery, ranks: Sequence[int] = RANKS, *, random_state=0
) -> list[AttackResult]:
    """Search a gallery for the person behind each released image.

    Threat model: the attacker holds named photos of all people (and perhaps of others), clear ones or ones that they
    anonymized themselves, and a recogniser. They know neither clusters nor method.

    Parameters
    ----------
    release : DescribedRelease
    gallery : Gallery
        A person's distance is that of their nearest photo.
    ranks : sequence of int, default (1, 3, 5, 10)
        Success: the one sought is among so many nearest people. Ranks above the number of people are left out.
    random_state : int, RandomState or None, default 0
        For the intervals.

    Returns
    -------
    list of AttackResult
        ``"rank-1"`` ... for ``"person"`` and ``"cluster"``, where anyone who shares the image counts.
        ``per_person`` has the expected ``rank``. Chance: that of as many people drawn blindly.

    Raises
    ------
    ValueError
        If somebody is not in the gallery, or descriptors do not fit.

    Notes
    -----
    Of people who share one image, at most r are among its r nearest: at person level the rate is at most r / k. This
    is asserted.
    """
    to_people, people = person_distances(
        distances(release.descriptors, gallery.descriptors), gallery.identities
    )
    return _identification(release.cases, to_people, people, ranks, random_state)


def _identification(cases, to_people, people, ranks, random_state, prefix="") -> list[AttackResult]:
    results = []
    for level, ranking in _search(to_people, people, cases).items():
        for rank in [rank for rank in ranks if rank <= len(people)]:
            table = cases.assign(success=ranking.hits(rank), rank=ranking.expected_rank)
            if level == "person":
                _assert_person_bound(table, rank)
            chance = blind_chance(cases, len(people), level, rank)
            results.append(_summarise(f"{prefix}rank-{rank}", level, table, chance, random_state))
    return results


def _assert_person_bound(table: pd.DataFrame, rank: int) -> None:
    """A shared image cannot lead to more than `rank` people at once; anything else is a fault of ours."""
    most = table.groupby("image")["success"].sum().max()
    if most > rank + 1e-6:
        raise AssertionError(f"one image leads to {most:.3f} people among the first {rank}")


# ----------------------------------------------------------------------------------------------------------
# What is left of a person's anonymity
# ----------------------------------------------------------------------------------------------------------


def posterior(release: DescribedRelease, gallery: Gallery, *, random_state=0) -> list[AttackResult]:
    """What an attacker believes about who is behind each image, and how many people they are left to choose from.

    Threat model: as for `identification`, by an attacker who knows how far to trust a distance. Their belief in
    person j is the softmax of ``-slope * distance_j`` over the gallery. The slope is the one under which the
    true people are the most likely (maximum likelihood over this very release, never negative): an attacker
    cannot do better by distances of one slope, so the sizes below err on the side of the attacker. Images that
    tell nothing get slope 0, hence the whole gallery.

    Returns
    -------
    list of one AttackResult
        ``rate`` is the mean belief in the true person. ``per_person`` has ``rank``, ``success`` (that belief),
        ``entropy`` (bits) and ``set_size``, the effective size of the anonymity set, ``2 ** entropy`` people
        (Serjantov and Danezis, "Towards an information theoretic metric for anonymity", PET 2002). The note
        gives the median set, and that of the worst 5 %.
    """
    cases = release.cases
    to_people, people = person_distances(
        distances(release.descriptors, gallery.descriptors), gallery.identities
    )
    ranking = _search(to_people, people, cases)["person"]
    rows = to_people[cases["image"]]  # (m, p)
    own = np.where(_sought(cases, people, "person"), rows, 0).sum(axis=1)
    trusted = ~cases["failed"].to_numpy() if not cases["failed"].all() else np.ones(len(cases), bool)
    slope = _fit_slope(rows[trusted], own[trusted])
    log_belief = -slope * rows - logsumexp(-slope * rows, axis=1, keepdims=True)  # (m, p)
    entropy = -(np.exp(log_belief) * log_belief).sum(axis=1) / np.log(2)
    table = cases.assign(
        success=np.exp(-slope * own - logsumexp(-slope * rows, axis=1)),
        rank=ranking.expected_rank,
        entropy=entropy,
        set_size=2.0**entropy,
    )
    sizes = np.sort(table["set_size"][~table["failed"]])
    worst = _mean(sizes[: max(1, round(WORST_SHARE * len(sizes)))])
    note = (
        f"effective anonymity set: median {np.median(sizes):.1f} people, worst 5 % {worst:.1f}"
        if len(sizes)
        else ""
    )
    return [_summarise("posterior", "person", table, 1 / len(people), random_state, note)]


def _fit_slope(rows: np.ndarray, own: np.ndarray) -> float:
    """The slope of the softmax that makes the true people most likely: (m, p), (m,) -> a number of at least 0."""
    scale = rows.std() or 1.0
    scaled, target = rows / scale, own / scale

    def surprise(slope: float) -> float:  # convex in the slope
        return float(np.mean(slope * target + logsumexp(-slope * scaled, axis=1)))

    fitted = minimize_scalar(surprise, bounds=(0.0, 1000.0), method="bounded", options={"xatol": 1e-6})
    return float(fitted.x) / scale if fitted.fun < surprise(0.0) - 1e-9 else 0.0


# ----------------------------------------------------------------------------------------------------------
# Verification, and thresholds by false accept rate
# ----------------------------------------------------------------------------------------------------------


@dataclass(frozen=True, eq=False)
class Curve:
    """A receiver operating characteristic: what is accepted under each threshold, from nothing to all.

    Attributes
    ----------
    threshold : ndarray, shape (t,)
        Pairs at this distance or nearer are accepted; the first is -inf.
    false_accept_rate, true_accept_rate : ndarray, shape (t,)
        Shares of impostor and genuine pairs, rising.
    """

    threshold: np.ndarray
    false_accept_rate: np.ndarray
    true_accept_rate: np.ndarray

    @property
    def equal_error_rate(self) -> float:
        """Where as many genuine pairs are refused as impostors accepted, between the points by a straight line."""
        gap = self.false_accept_rate + self.true_accept_rate - 1  # rises from -1 to 1
        after = int(np.argmax(gap >= 0))
        before = max(after - 1, 0)
        share = -gap[before] / (gap[after] - gap[before]) if after else 0.0
        step = self.false_accept_rate[after] - self.false_accept_rate[before]
        return float(self.false_accept_rate[before] + share * step)

    def at(self, false_accept_rate: float) -> tuple[float, float]:
        """The loosest threshold that keeps a false accept rate, and the true accept rate there."""
        i = int(np.searchsorted(self.false_accept_rate, false_accept_rate + 1e-12, side="right")) - 1
        return float(self.threshold[i]), float(self.true_accept_rate[i])


@dataclass(frozen=True, eq=False)
class _SortedPairs:
    """Pairs by rising distance, so that curves under many weights take one sort."""

    distance: np.ndarray
    genuine: np.ndarray
    order: np.ndarray
    ends: np.ndarray  # the last of each run of equal distances

    @classmethod
    def of(cls, distance: np.ndarray, genuine: np.ndarray) -> _SortedPairs:
        order = np.argsort(distance, kind="stable")
        ordered = distance[order]
        ends = np.flatnonzero(np.append(ordered[1:] != ordered[:-1], True))
        return cls(ordered, genuine[order], order, ends)

    def curve(self, weights: np.ndarray | None = None) -> Curve:
        """The curve where each pair (in the order given to `of`) counts `weights` times."""
        w = np.ones(len(self.order)) if weights is None else weights[self.order]
        good = np.cumsum(w * self.genuine)[self.ends]
        bad = np.cumsum(w * ~self.genuine)[self.ends]
        return Curve(
            np.append(-np.inf, self.distance[self.ends]),
            np.append(0.0, bad / max(bad[-1], 1e-300)),
            np.append(0.0, good / max(good[-1], 1e-300)),
        )


def roc(genuine: np.ndarray, impostor: np.ndarray) -> Curve:
    """The curve of distances between images of one person and of different people.

    Raises
    ------
    ValueError
        If either is empty or not finite.
    """
    genuine, impostor = np.ravel(genuine).astype(float), np.ravel(impostor).astype(float)
    if not len(genuine) or not len(impostor):
        raise ValueError(
            f"{len(genuine)} genuine and {len(impostor)} impostor pairs; a curve needs some of each"
        )
    pairs = np.concatenate([genuine, impostor])
    if not np.isfinite(pairs).all():
        raise ValueError("there are NaN or infinite distances; leave those pairs out and count them")
    return _SortedPairs.of(pairs, np.arange(len(pairs)) < len(genuine)).curve()


def verification(
    release: DescribedRelease,
    gallery: Gallery,
    false_accept_rates: Sequence[float] = FALSE_ACCEPT_RATES,
    *,
    random_state=0,
) -> list[AttackResult]:
    """Tell whether a clear photo and a released image belong together (original to surrogate).

    Threat model: the attacker holds a named photo of one person and asks of a released image whether that
    person is behind it. A pair is genuine where the person is one of those who share the image.

    Returns
    -------
    list of AttackResult
        ``"EER"`` (0 is a perfect attacker, 0.5 a blind one), and for each false accept rate ``"TAR at FAR ..."``, whose
        chance is that rate. ``per_person``: the share of a person's genuine pairs that is accepted at the threshold
        there. A false accept rate under 10 / number of impostor pairs is "not estimable".

    Raises
    ------
    NotApplicableError
        If there are no genuine or no impostor pairs.
    """
    cases = release.cases
    genuine = members_of(cases, gallery.identities, len(release.descriptors)).T  # (g, c)
    to_images = distances(gallery.descriptors, release.descriptors)  # (g, c)
    return _verification(to_images, genuine, gallery.identities, release, false_accept_rates, random_state)


def verification_across(
    first: DescribedRelease,
    second: DescribedRelease,
    false_accept_rates: Sequence[float] = FALSE_ACCEPT_RATES,
    *,
    random_state=0,
) -> list[AttackResult]:
    """Tell whether images of two releases belong together (surrogate to surrogate).

    Threat model: two releases of the same people, made with another k, seed or photo; no clear photo at all. A pair is
    genuine where one person is behind both images. Returns and errors as `verification`; names end in "across".
    """
    cases = first.cases
    other = second.cases
    shared = cases.merge(other, on="person", suffixes=("", "_other"))
    genuine_images = np.zeros((len(first.descriptors), len(second.descriptors)), dtype=bool)
    genuine_images[shared["image"], shared["image_other"]] = True
    between = distances(first.descriptors, second.descriptors)
    rows = cases["image"].to_numpy()
    results = _verification(
        between[rows],
        genuine_images[rows],
        cases["person"].to_numpy(dtype=str),
        second,
        false_accept_rates,
        random_state,
        row_failed=cases["failed"].to_numpy(),
    )
    return [replace(result, attack=f"{result.attack} across") for result in results]


def _verification(
    distance, genuine, owners, release, false_accept_rates, random_state, row_failed=None
) -> list[AttackResult]:
    """Curves over pairs of a row, which has an owner, and a released image: `distance`, `genuine` (r, c)."""
    random = utils.check_random_state(random_state)
    row_failed = np.zeros(len(distance), dtype=bool) if row_failed is None else row_failed
    most = max(1, MAX_PAIRS // distance.shape[1])
    if len(distance) > most:
        rows = np.sort(random.choice(len(distance), most, replace=False))
        distance, genuine, owners = distance[rows], genuine[rows], owners[rows]
        row_failed = row_failed[rows]
    failed = row_failed[:, None] | ~np.asarray(release.found)  # (r, c)
    shown = ~failed
    if not (genuine & shown).any() or not (~genuine & shown).any():
        raise NotApplicableError(
            f"{int((genuine & shown).sum())} genuine and {int((~genuine & shown).sum())} impostor pairs with a face; "
            "verification needs some of each"
        )
    people, person = np.unique(owners, return_inverse=True)
    kept = _SortedPairs.of(distance[shown], genuine[shown])
    everything = _SortedPairs.of(distance.ravel(), genuine.ravel()).curve()
    curve, units = kept.curve(), np.broadcast_to(person[:, None], distance.shape)[shown]
    weights = _resampling_weights(len(people), N_CURVE_RESAMPLES, random)
    resampled = [kept.curve(w[units]) for w in weights]
    resampled = [c for c in resampled if c.true_accept_rate[-1] > 0 and c.false_accept_rate[-1] > 0]
    n_impostors = int((~genuine & shown).sum())
    readings = [("EER", None, lambda c: c.equal_error_rate, 0.5)]
    readings += [
        (f"TAR at FAR {far:g}", far, lambda c, far=far: c.at(far)[1], far) for far in false_accept_rates
    ]
    results = []
    for name, far, read, chance in readings:
        threshold = curve.at(curve.equal_error_rate if far is None else far)[0]
        table = _accepted(distance <= threshold, genuine, failed, owners, release)
        share_failed = float((genuine & failed).sum() / genuine.sum())
        if far is not None and far * n_impostors < PAIRS_PER_RATE:
            note = _too_few_pairs(far, n_impostors)
            rate = low = high = all_rate = worst = float("nan")
            table = table.assign(success=np.nan)
        else:
            rate, all_rate = read(curve), read(everything)
            low, high = np.quantile(
                [read(c) for c in resampled], [(1 - CONFIDENCE) / 2, (1 + CONFIDENCE) / 2]
            )
            worst = rate * (1 - share_failed) + (0.0 if far is None else share_failed)
            note = f"threshold {threshold:.3f}, {n_impostors} impostor pairs"
        counts = (len(table), int(table["failed"].sum()))
        results.append(
            AttackResult(
                name, "pair", rate, float(low), float(high), all_rate, worst, chance, *counts, table, note
            )
        )
    return results


def _too_few_pairs(rate: float, n_impostors: int) -> str:
    return f"not estimable: FAR {rate:g} needs {PAIRS_PER_RATE / rate:.0f} impostor pairs, there are {n_impostors}"


def _accepted(accepted, genuine, failed, owners, release) -> pd.DataFrame:
    """Share of each owner's genuine pairs that is accepted, for each image: ``person image failed success``."""
    row, image = np.nonzero(genuine)
    pairs = pd.DataFrame(
        {
            "person": owners[row],
            "image": image,
            "failed": failed[row, image],
            "success": accepted[row, image].astype(float),
        }
    )
    return pairs.groupby(["person", "image"], as_index=False).agg({"failed": "all", "success": "mean"})


@dataclass(frozen=True)
class Threshold:
    """A distance under which two photos count as one person, and what it was chosen for.

    Attributes
    ----------
    value, low, high : float
        The threshold, and its 95 % bootstrap interval. NaN with a `note` where it is not estimable.
    false_accept_rate : float
        What it was chosen for: the share of impostor pairs nearer than it is at most this.
    true_accept_rate : float
        Share of genuine pairs that are nearer; NaN without genuine pairs.
    n_impostors, n_genuine : int
        Pairs that it was read from.
    note : str
    """

    value: float
    low: float
    high: float
    false_accept_rate: float
    true_accept_rate: float
    n_impostors: int
    n_genuine: int
    note: str = ""


def calibrate_threshold(
    descriptors: np.ndarray, identities: np.ndarray, false_accept_rate: float = 1e-2, *, random_state=0
) -> Threshold:
    """Find the threshold of a recogniser on the data's own clear photos.

    The paper's 0.6 (`PAPER_THRESHOLD`) is dlib's for another population; what it accepts here is not known
    until measured.

    Parameters
    ----------
    descriptors : ndarray, shape (n, d)
    identities : ndarray of str, shape (n,)
    false_accept_rate : float, default 0.01
        Share of pairs of different people that may be nearer than the threshold.
    random_state : int, RandomState or None, default 0
        For the interval, and for the photos that are drawn where there are over 1000.

    Returns
    -------
    Threshold
        Resampled by person: a pair counts as often as both of its people were drawn.

    Raises
    ------
    ValueError
        For a rate not between 0 and 1, or without pairs of different people.
    """
    if not 0 < false_accept_rate < 1:
        raise ValueError(f"a false accept rate lies between 0 and 1, not at {false_accept_rate!r}")
    _check_descriptors("the calibration", descriptors)
    if len(descriptors) != len(identities):
        raise ValueError(f"{len(descriptors)} descriptors but {len(identities)} identities")
    random = utils.check_random_state(random_state)
    identities, most = np.asarray(identities, dtype=str), int(np.sqrt(2 * MAX_PAIRS))
    if len(descriptors) > most:
        rows = random.choice(len(descriptors), most, replace=False)
        descriptors, identities = descriptors[rows], identities[rows]
    people, person = np.unique(identities, return_inverse=True)
    first, second = np.triu_indices(len(descriptors), k=1)
    distance = distances(descriptors, descriptors)[first, second]
    alike = person[first] == person[second]
    n_impostors, n_genuine = int((~alike).sum()), int(alike.sum())
    if n_impostors == 0:
        raise ValueError("there is no pair of different people; a threshold needs photos of at least two")
    if false_accept_rate * n_impostors < PAIRS_PER_RATE:
        note = _too_few_pairs(false_accept_rate, n_impostors)
        nan = float("nan")
        return Threshold(nan, nan, nan, false_accept_rate, nan, n_impostors, n_genuine, note)
    impostors = np.sort(distance[~alike])
    value = float(impostors[int(false_accept_rate * n_impostors)])
    order = np.argsort(distance[~alike], kind="stable")
    ends = first[~alike][order], second[~alike][order]
    weights = _resampling_weights(len(people), N_CURVE_RESAMPLES, random)
    resampled = []
    for w in weights:
        share = np.cumsum(w[person[ends[0]]] * w[person[ends[1]]])
        if share[-1]:
            i = np.searchsorted(share, false_accept_rate * share[-1], side="right")
            resampled.append(impostors[min(i, n_impostors - 1)])
    low, high = np.quantile(resampled, [(1 - CONFIDENCE) / 2, (1 + CONFIDENCE) / 2])
    accepted = _mean(distance[alike] < value)
    return Threshold(value, float(low), float(high), false_accept_rate, accepted, n_impostors, n_genuine)


def stranger_share(release: DescribedRelease, gallery: Gallery, threshold: float) -> float:
    """Share of pairs of an image with a face and a gallery photo of somebody else that are nearer than a threshold.

    NaN where there are no such pairs, or the threshold is NaN. How often strangers are taken for one behind the image
    is what a re-identification rate must be held against.
    """
    strangers = ~members_of(release.cases, gallery.identities, len(release.descriptors))
    strangers &= np.asarray(release.found)[:, None]
    if np.isnan(threshold) or not strangers.any():
        return float("nan")
    return _mean(distances(release.descriptors, gallery.descriptors)[strangers] < threshold)


def acceptance(
    release: DescribedRelease,
    gallery: Gallery,
    threshold: float,
    name: str = "accepted",
    note="",
    *,
    random_state=0,
) -> list[AttackResult]:
    """Take a clear photo and a released image for one person where they are nearer than a threshold.

    Threat model: a system that verifies people, with a threshold that was set on clear photos (`calibrate_threshold`)
    or that its maker recommends (`PAPER_THRESHOLD`), is shown a released image. With one's own photos as the gallery
    this is the paper's re-identification rate.

    Returns
    -------
    list of one AttackResult
        Success: share of a person's gallery photos that are accepted beside their image. Chance: `stranger_share`.

    Raises
    ------
    ValueError
        If somebody is not in the gallery.
    NotApplicableError
        If there is no threshold (NaN).
    """
    if np.isnan(threshold):
        raise NotApplicableError(note or "there is no threshold")
    cases = release.cases
    _check_closed_set(cases, gallery.identities)
    nearer = distances(release.descriptors, gallery.descriptors) < threshold  # (c, g)
    own = cases["person"].to_numpy(dtype=str)[:, None] == gallery.identities  # (m, g)
    table = cases.assign(success=(nearer[cases["image"]] & own).sum(axis=1) / own.sum(axis=1))
    chance = stranger_share(release, gallery, threshold)
    return [_summarise(name, "pair", table, chance, random_state, note)]


# ----------------------------------------------------------------------------------------------------------
# Several releases of the same people
# ----------------------------------------------------------------------------------------------------------


def linkability(first: DescribedRelease, second: DescribedRelease, *, random_state=0) -> list[AttackResult]:
    """Find a person's image of one release in another.

    Threat model: two releases of the same people (another k, seed or photo), no clear photo. The attacker looks for the
    nearest image of the second release.

    Returns
    -------
    list of one AttackResult
        ``"linkability"``: share of people for whom that image is one of theirs. Images are shared, so a hit
        links clusters, not people. A person fails if the image in the first release, or all in the second,
        show no face. Chance: one image drawn blindly.

    Raises
    ------
    NotApplicableError
        If the releases share nobody.
    """
    other = second.cases
    cases = first.cases
    cases = cases[cases["person"].isin(other["person"])].reset_index(drop=True)
    if cases.empty:
        raise NotApplicableError("the two releases share nobody; linking needs people who are in both")
    theirs = members_of(other, cases["person"].to_numpy(dtype=str), len(second.descriptors)).T  # (m, c2)
    rows = distances(first.descriptors, second.descriptors)[cases["image"]]
    lost = other.groupby("person")["failed"].all().reindex(cases["person"]).to_numpy()
    table = cases.assign(success=_rank(rows, theirs).hits(1), failed=cases["failed"].to_numpy() | lost)
    chance = float(np.mean(theirs.sum(axis=1) / theirs.shape[1]))
    return [_summarise("linkability", "cluster", table, chance, random_state)]


def composition(
    releases: Sequence[DescribedRelease], gallery: Gallery, *, random_state=0
) -> list[AttackResult]:
    """Put together what several releases say about one person.

    Threat model: the attacker knows which image each release has for the one they look for (by a record's
    other fields), and holds a clear gallery. From each release they keep as candidates as many nearest people
    as share the image.

    Returns
    -------
    list of AttackResult
        - ``"composition: intersection"``: they name one of the candidates that all releases leave, drawn
          blindly; where none is left, the person of the least mean distance.
        - ``"composition: mean distance"``: they name the person of the least mean distance over the releases.
        - ``"composition: known clusters"``: the worst case, in which they know who shares each image, and name
          one of those who share all. It reads no descriptor.

        Images without a face say nothing; a person fails who has only such. With several images a person in a release,
        the first counts.

    Raises
    ------
    NotApplicableError
        If there is one release only, or nobody who is in all.
    """
    if len(releases) < 2:
        raise NotApplicableError("composition needs at least two releases")
    tables = [r.cases.drop_duplicates("person").set_index("person") for r in releases]
    common = sorted(set.intersection(*(set(t.index) for t in tables)))
    if not common:
        raise NotApplicableError("the releases share nobody; composition needs people who are in all")
    people = np.unique(gallery.identities)
    own = np.asarray(common)[:, None] == people  # (m, p)
    _check_closed_set(pd.DataFrame({"person": common}), people)
    candidates, together = np.ones(own.shape), np.ones(own.shape, dtype=bool)
    total, n_shown = np.zeros(own.shape), np.zeros(len(common))
    for release, table in zip(releases, tables, strict=True):
        image = table.loc[common, "image"].to_numpy()
        to_people, _ = person_distances(
            distances(release.descriptors, gallery.descriptors), gallery.identities
        )
        shown = release.found[image]
        sharing = members_of(release.cases, people, len(release.descriptors))  # (c, p)
        together &= sharing[image]
        likely = _among_first(to_people, sharing.sum(axis=1))[image]
        candidates *= np.where(shown[:, None], likely, 1.0)
        total += np.where(shown[:, None], to_people[image], 0.0)
        n_shown += shown
    nearest = _rank(total, own).hits(1)
    left = candidates.sum(axis=1)
    intersected = np.where(left > 0, (candidates * own).sum(axis=1) / np.maximum(left, 1e-300), nearest)
    base = tables[0].loc[common].reset_index().assign(failed=n_shown == 0)
    sizes = together.sum(axis=1)
    attempts = {
        "intersection": (
            intersected,
            f"candidates left: median {np.median(left):.1f}, none for {(left == 0).sum()} people",
        ),
        "mean distance": (nearest, ""),
        "known clusters": (1.0 / sizes, f"people left: median {np.median(sizes):.1f}, least {sizes.min()}"),
    }
    return [
        _summarise(
            f"composition: {name}",
            "person",
            base.assign(success=success),
            1 / len(people),
            random_state,
            note,
        )
        for name, (success, note) in attempts.items()
    ]


def _among_first(to_people: np.ndarray, counts: np.ndarray) -> np.ndarray:
    """Chance of each person to be among the `counts` nearest, ties broken by lot: (c, p), (c,) -> (c, p)."""
    ordered = np.sort(to_people, axis=1)
    better, until = np.empty(to_people.shape, dtype=int), np.empty(to_people.shape, dtype=int)
    for i, row in enumerate(ordered):
        better[i] = np.searchsorted(row, to_people[i], side="left")
        until[i] = np.searchsorted(row, to_people[i], side="right")
    return np.clip((counts[:, None] - better) / (until - better), 0.0, 1.0)


# ----------------------------------------------------------------------------------------------------------
# An insider
# ----------------------------------------------------------------------------------------------------------

#: Sets of known members that are tried for each image, where there are more.
N_INSIDER_DRAWS = 20


def insider(
    release: DescribedRelease,
    photos: np.ndarray,
    gallery: Gallery,
    n_known: int = 1,
    *,
    random_state=0,
) -> list[AttackResult]:
    """Subtract the members whom the attacker knows, and identify the others.

    Threat model: the attacker is one of the k, or knows `n_known` of them with the very photos that went in, and knows
    that the method mixes all members by their mean. They estimate the others' mean as ``(k * image - sum of
    known) / (k - n_known)`` and search the gallery for it, without those they know. In a recogniser that is
    linear in the pixels (``"fisherfaces"``) this is subtraction of pixels.

    Parameters
    ----------
    release : DescribedRelease
    photos : ndarray, shape (n, d)
        Descriptors of the photos that went in, in the order of ``release.labels``.
    gallery : Gallery
    n_known : int, default 1
        Less than the number who share an image; images shared by fewer are counted out, in the note.
    random_state : int, RandomState or None, default 0
        All sets of known members are tried, at most about 20 of them, drawn at random.

    Returns
    -------
    list of AttackResult
        ``"insider knows m"``, rank 1 at both levels. The rate at person level is at most 1 / (k - n_known).
        Chance: one of the gallery's other people drawn blindly.

    Raises
    ------
    NotApplicableError
        If no image is shared by more than `n_known` people.
    """
    if isinstance(n_known, bool) or not isinstance(n_known, int | np.integer) or n_known < 1:
        raise ValueError(f"n_known must be a whole number of at least 1, not {n_known!r}")
    _check_descriptors("the insider's photos", photos)
    if len(photos) != len(release.labels):
        raise ValueError(f"{len(photos)} descriptors of photos for {len(release.labels)} labels")
    random = utils.check_random_state(random_state)
    cases = release.cases
    people = np.unique(gallery.identities)
    column = {person: i for i, person in enumerate(people)}
    _check_closed_set(cases, people)
    tried = np.zeros(len(cases))
    hits = {level: np.zeros(len(cases)) for level in LEVELS}
    blind = {level: np.zeros(len(cases)) for level in LEVELS}
    for image, rows in cases.groupby("image").groups.items():
        k = len(rows)
        if k <= n_known:
            continue
        members = cases.loc[rows, "person"].to_numpy(dtype=str)
        columns = np.array([column[person] for person in members])
        means = np.stack([_member_mean(release, photos, image, person) for person in members])  # (k, d)
        known = _known_sets(k, n_known, random)  # (draws, k)
        rest = (k * release.descriptors[image] - known @ means) / (k - n_known)  # (draws, d)
        to_people, _ = person_distances(distances(rest, gallery.descriptors), gallery.identities)
        for row, is_known in zip(to_people, known, strict=True):
            row[columns[is_known]] = np.inf
            remaining = columns[~is_known]
            sought = np.zeros((len(remaining) + 1, len(people)), dtype=bool)
            sought[np.arange(len(remaining)), remaining] = True
            sought[-1, remaining] = True  # the cluster's row comes last
            found = _rank(np.broadcast_to(row, sought.shape), sought).hits(1)
            places = rows[~is_known]
            hits["person"][places] += found[:-1]
            hits["cluster"][places] += found[-1]
            blind["person"][places] += 1 / (len(people) - n_known)
            blind["cluster"][places] += len(remaining) / (len(people) - n_known)
            tried[places] += 1
    reached = tried > 0
    if not reached.any():
        raise NotApplicableError(
            f"no image is shared by more than {n_known} people; an insider needs somebody left to find"
        )
    out = int((~reached).sum())
    note = f"{out} people share their image with too few" if out else ""
    return [
        _summarise(
            f"insider knows {n_known}",
            level,
            cases[reached].assign(success=hits[level][reached] / tried[reached]),
            float(np.mean(blind[level][reached] / tried[reached])),
            random_state,
            note,
        )
        for level in LEVELS
    ]


def _member_mean(release: DescribedRelease, photos: np.ndarray, image: int, person: str) -> np.ndarray:
    rows = (release.labels == image) & (np.asarray(release.identities, dtype=str) == person)
    return photos[rows].mean(axis=0)


def _known_sets(k: int, n_known: int, random) -> np.ndarray:
    """Which members are known in each try: bool (tries, k). In at least one try each member is not."""
    most = max(N_INSIDER_DRAWS, k)
    count = 1
    for i in range(n_known):
        count = count * (k - i) // (i + 1)
    if count <= most:
        chosen = list(combinations(range(k), n_known))
    else:
        chosen = []
        while len(chosen) < most:
            order = random.permutation(k)
            for start in range(0, k, k - n_known):  # everybody is among the rest in turn
                chosen.append(np.roll(order, start)[:n_known])
    known = np.zeros((len(chosen), k), dtype=bool)
    for row, members in zip(known, chosen, strict=True):
        row[list(members)] = True
    return known


# ----------------------------------------------------------------------------------------------------------
# Attackers who learn from people of their own
# ----------------------------------------------------------------------------------------------------------

#: ``(practice, gallery of the same people, random) -> function(images (c, d), photos (g, d)) -> distances (c, g)``.
Learn = Callable[[Practice, Gallery, np.random.RandomState], Callable[[np.ndarray, np.ndarray], np.ndarray]]


def parrot(
    release: DescribedRelease,
    gallery: Gallery,
    practice: Practice | None = None,
    *,
    n_splits=N_SPLITS,
    random_state=0,
) -> list[AttackResult]:
    """Search with a recogniser that was trained on anonymized faces: linear discriminants on descriptors.

    Threat model: the attacker anonymizes people of their own with the method under attack, and looks for
    directions in which an image and clear photos of its members lie together and people apart. None of these
    people is among those they then identify: half of the clusters (of the people, where images are not shared)
    are the attacker's, the others are attacked, over `n_splits` random halves, every second one being the one
    before with sides changed. A generator fitted on all people is taken as public.

    Parameters
    ----------
    release : DescribedRelease
    gallery : Gallery
        Clear photos of everybody.
    practice : Practice, optional
        Further images that the attacker made. Those are used whose members are all on the attacker's side,
        besides the release's own images of that side.
    n_splits : int, default 20
    random_state : int, RandomState or None, default 0
        Chooses the halves.

    Returns
    -------
    list of AttackResult
        Rank 1 at both levels among the people who are attacked, who are half of the gallery: compare with the
        note, which has the rate of the untrained distance in the same halves.

    Raises
    ------
    NotApplicableError
        If there are fewer than four clusters.
    """
    return _disjoint(
        "parrot", _blended(_learn_discriminants), release, gallery, practice, n_splits, random_state
    )


def parrot_pairs(
    release: DescribedRelease,
    gallery: Gallery,
    practice: Practice | None = None,
    *,
    n_splits=N_SPLITS,
    random_state=0,
) -> list[AttackResult]:
    """As `parrot`, with principal components and a linear support vector machine; meant for pixels.

    The machine is trained to tell pairs of an image and a photo of one of its members from other pairs, by the absolute
    differences of their components, their distance and their cosine, so that it also judges people whom it has
    never seen.
    """
    return _disjoint(
        "parrot pairs", _blended(_learn_pairs), release, gallery, practice, n_splits, random_state
    )


def reversal(
    release: DescribedRelease,
    gallery: Gallery,
    practice: Practice | None = None,
    *,
    n_splits=N_SPLITS,
    random_state=0,
) -> list[AttackResult]:
    """Undo the anonymization by a linear map that was fitted on people of one's own, then search.

    Threat model, parameters and results as for `parrot`. The map is ridge regression from an image to what it lacks to
    the mean of its members' clear photos; its strength is chosen by leave-one-out.
    """
    return _disjoint(
        "reversal", _blended(_learn_linear_reversal), release, gallery, practice, n_splits, random_state
    )


def reversal_pixels(
    release: DescribedRelease,
    gallery: Gallery,
    practice: Practice | None = None,
    *,
    n_splits=N_SPLITS,
    random_state=0,
) -> list[AttackResult]:
    """As `reversal`, on principal components of pixels, searched with Fisherfaces of the attacker's own people."""
    return _disjoint(
        "reversal pixels", _blended(_learn_pixel_reversal), release, gallery, practice, n_splits, random_state
    )


def _disjoint(
    name: str,
    learn: Learn,
    release: DescribedRelease,
    gallery: Gallery,
    practice: Practice | None,
    n_splits: int,
    random_state,
    untrained: str = "untrained",
) -> list[AttackResult]:
    if isinstance(n_splits, bool) or not isinstance(n_splits, int | np.integer) or n_splits < 1:
        raise ValueError(f"n_splits must be a whole number of at least 1, not {n_splits!r}")
    random = utils.check_random_state(random_state)
    cases = release.cases
    _check_closed_set(cases, gallery.identities)
    groups = np.unique(cases["group"])
    if len(groups) < 4:
        raise NotApplicableError(
            f"{len(groups)} clusters cannot be halved between attacker and attacked; it takes at least 4"
        )
    made = _all_practice(release, practice)
    tried = np.zeros(len(cases))
    hits = {level: np.zeros(len(cases)) for level in LEVELS}
    plain = {level: np.zeros(len(cases)) for level in LEVELS}
    blind = {level: [] for level in LEVELS}
    for split in range(n_splits):
        if split % 2 == 0:
            order, half = random.permutation(groups), len(groups) // 2
        theirs = (
            order[:half] if split % 2 == 0 else order[half:]
        )  # then the other way round: all are attacked
        known = cases["group"].isin(theirs).to_numpy()
        attackers = frozenset(cases.loc[known, "person"])
        measure = learn(made.among(attackers), gallery.of_people(attackers), random)
        places = np.flatnonzero(~known)
        attacked = cases.iloc[places]
        images, row = np.unique(attacked["image"], return_inverse=True)
        photos = gallery.of_people(attacked["person"])
        for method, counts in ((measure, hits), (distances, plain)):
            to_photos = method(release.descriptors[images], photos.descriptors)
            to_people, people = person_distances(to_photos, photos.identities)
            for level, ranking in _search(to_people, people, attacked.assign(image=row)).items():
                counts[level][places] += ranking.hits(1)
        for level in LEVELS:
            blind[level].append(blind_chance(attacked, len(people), level))
        tried[places] += 1
    reached = tried > 0
    results = []
    for level in LEVELS:
        table = cases[reached].assign(success=hits[level][reached] / tried[reached])
        shown = ~table["failed"].to_numpy()
        before = _mean((plain[level][reached] / tried[reached])[shown])
        note = f"half of the people, mean of {n_splits} halves; {untrained} {before:.3f}"
        if not reached.all():
            note += f"; {(~reached).sum()} people were never attacked"
        results.append(_summarise(name, level, table, float(np.mean(blind[level])), random, note))
    return results


def _all_practice(release: DescribedRelease, practice: Practice | None) -> Practice:
    """What the attacker made, and the release's own images, of which they may know all members."""
    cases = release.cases
    members = tuple(cases.groupby("image")["person"].agg(frozenset))
    apart = tuple(cases.groupby("group")["person"].agg(frozenset))
    if practice is None:
        return Practice(release.descriptors, members, apart)
    both = np.concatenate([practice.descriptors, release.descriptors])
    return Practice(both, (*practice.members, *members), apart)


def _named_images(practice: Practice) -> tuple[np.ndarray, np.ndarray]:
    """Each image once for each of its members: descriptors (m, d) and names (m,)."""
    rows = np.repeat(np.arange(len(practice.members)), [len(members) for members in practice.members])
    names = np.array([person for members in practice.members for person in sorted(members)])
    return practice.descriptors[rows], names


#: Shares of what was learnt in the distance that an attacker searches by; the rest is the untrained distance.
BLENDS = (0.0, 0.25, 0.5, 0.75, 1.0)

#: The share where the attacker's people are too few to try it on.
UNTRIED_BLEND = 0.5


def _blended(learn: Learn) -> Learn:
    """Let an attacker trust what they learn as far as it helps with people of their own.

    Twenty people teach little: what is learnt of them alone often finds strangers worse than no learning at all. So
    the attacker learns from half of their people, tries the other half, and the reverse, and then searches by that
    mixture of both distances, each brought to mean 0 and deviation 1, under which the fewest other people came before
    one of those behind an image; if less of what was learnt does as well within one standard error, by that.
    """

    def learn_blend(practice: Practice, gallery: Gallery, random):
        share = _best_blend(learn, practice, gallery, random)
        measure = learn(practice, gallery, random) if share else distances
        return lambda a, b: _mixture(distances(a, b), measure(a, b), share)

    return learn_blend


def _mixture(plain: np.ndarray, learnt: np.ndarray, share: float) -> np.ndarray:
    return (1 - share) * _standardised(plain) + share * _standardised(learnt)


def _standardised(values: np.ndarray) -> np.ndarray:
    return (values - values.mean()) / (values.std() or 1.0)


def _best_blend(learn: Learn, practice: Practice, gallery: Gallery, random) -> float:
    middle = len(practice.apart) // 2
    halves = [frozenset().union(*part) for part in (practice.apart[:middle], practice.apart[middle:])]
    losses = [[] for _ in BLENDS]
    for taught, tried in (halves, halves[::-1]):
        lesson, test = practice.among(taught), practice.among(tried)
        if lesson is None or test is None:
            return UNTRIED_BLEND
        photos = gallery.of_people(tried)
        try:
            measure = learn(lesson, gallery.of_people(taught), random)
        except (NotApplicableError, recognisers.UnfitGalleryError):
            return UNTRIED_BLEND
        parts = [one(test.descriptors, photos.descriptors) for one in (distances, measure)]
        for share, loss in zip(BLENDS, losses, strict=True):
            loss += _ahead(_mixture(*parts, share), photos.identities, test.members)
    table = np.array(losses)  # (blends, images)
    if not table.shape[1]:
        return UNTRIED_BLEND
    more = table - table[table.mean(axis=1).argmin()]
    as_good = more.mean(axis=1) <= more.std(axis=1) / np.sqrt(table.shape[1])
    return BLENDS[int(as_good.argmax())]


def _ahead(to_photos: np.ndarray, identities: np.ndarray, members: Sequence[frozenset[str]]) -> list[float]:
    """For each image the share of the other people who come before the first of its members, ties counting half."""
    to_people, people = person_distances(to_photos, identities)
    shares = []
    for row, those in zip(to_people, members, strict=True):
        own = np.isin(people, list(those))
        if not own.all():
            first, others = row[own].min(), row[~own]
            shares.append(float(np.mean(others < first) + np.mean(others == first) / 2))
    return shares


def _learn_discriminants(practice: Practice, gallery: Gallery, random):
    images, names = _named_images(practice)
    space = recognisers.WithinSpace.fit(
        np.concatenate([gallery.descriptors, images]), np.concatenate([gallery.identities, names])
    )
    return lambda a, b: distances(space.transform(a), space.transform(b))


#: Principal components of pixels that attackers learn on.
PIXEL_COMPONENTS = 50

#: Pairs of each kind that the machine is trained on, at most.
TRAINING_PAIRS = 2000


@dataclass(frozen=True, eq=False)
class _Components:
    """Principal components of some descriptors."""

    mean: np.ndarray
    axes: np.ndarray

    @classmethod
    def of(cls, *parts: np.ndarray) -> _Components:
        return cls(*recognisers.principal_axes(np.concatenate(parts), PIXEL_COMPONENTS))

    def transform(self, descriptors: np.ndarray) -> np.ndarray:
        return (descriptors - self.mean) @ self.axes


def _learn_pairs(practice: Practice, gallery: Gallery, random):
    pca = _Components.of(gallery.descriptors, practice.descriptors)
    images, photos = pca.transform(practice.descriptors), pca.transform(gallery.descriptors)
    genuine = np.stack([np.isin(gallery.identities, list(members)) for members in practice.members])  # (m, g)
    chosen = [_some(np.argwhere(kind), TRAINING_PAIRS, random) for kind in (genuine, ~genuine)]
    if not all(map(len, chosen)):
        raise NotApplicableError("the attacker's people give no pairs of both kinds; it takes more clusters")
    pairs = np.concatenate(chosen)
    labels = np.repeat([True, False], [len(kind) for kind in chosen])
    machine = make_pipeline(
        StandardScaler(), LinearSVC(C=1e-3, class_weight="balanced", dual="auto", random_state=0)
    ).fit(_pair_features(images[pairs[:, 0]], photos[pairs[:, 1]]), labels)

    def measure(a: np.ndarray, b: np.ndarray) -> np.ndarray:
        a, b = pca.transform(a), pca.transform(b)
        return np.stack(
            [-machine.decision_function(_pair_features(np.broadcast_to(row, b.shape), b)) for row in a]
        )

    return measure


def _pair_features(a: np.ndarray, b: np.ndarray) -> np.ndarray:
    """What tells pairs apart: differences of each component, distance, and cosine, (m, r) twice -> (m, r + 2)."""
    lengths = np.linalg.norm(a, axis=1) * np.linalg.norm(b, axis=1)
    cosine = (a * b).sum(axis=1) / np.maximum(lengths, 1e-12)
    return np.column_stack([np.abs(a - b), np.linalg.norm(a - b, axis=1), cosine])


def _some(rows: np.ndarray, most: int, random) -> np.ndarray:
    return rows if len(rows) <= most else rows[random.choice(len(rows), most, replace=False)]


def _learn_linear_reversal(practice: Practice, gallery: Gallery, random):
    reverse = _linear_map(practice.descriptors, practice.members, gallery)
    return lambda a, b: distances(reverse(a), b)


def _linear_map(images: np.ndarray, members, gallery: Gallery) -> Callable[[np.ndarray], np.ndarray]:
    """Ridge regression from images to the mean of their members' photos less the images: no change without evidence."""
    people, person = np.unique(gallery.identities, return_inverse=True)
    means = np.zeros((len(people), gallery.descriptors.shape[1]))
    np.add.at(means, person, gallery.descriptors)
    means /= np.bincount(person)[:, None]
    target = np.stack([means[np.isin(people, list(m))].mean(axis=0) for m in members])  # (m, d)
    spread = max(float(images.var(axis=0).sum()), 1e-12)
    ridge = RidgeCV(alphas=spread * np.logspace(-3, 3, 13))
    if len(images) < 3:  # with one left out, one is left, and every strength does as well
        ridge = Ridge(alpha=spread)
    fitted = ridge.fit(images, target - images)
    return lambda a: a + fitted.predict(a)


def _learn_pixel_reversal(practice: Practice, gallery: Gallery, random):
    pca = _Components.of(gallery.descriptors, practice.descriptors)
    photos = Gallery(pca.transform(gallery.descriptors), gallery.identities, gallery.kind)
    reverse = _linear_map(pca.transform(practice.descriptors), practice.members, photos)
    try:
        space = recognisers.DiscriminantSpace.fit(photos.descriptors, photos.identities)
    except recognisers.UnfitGalleryError as error:
        raise NotApplicableError(f"Fisherfaces of the attacker's people: {error}") from error

    def measure(a: np.ndarray, b: np.ndarray) -> np.ndarray:
        return distances(space.transform(reverse(pca.transform(a))), space.transform(pca.transform(b)))

    return measure


# ----------------------------------------------------------------------------------------------------------
# A network that undoes the anonymization
# ----------------------------------------------------------------------------------------------------------

#: Side of the grey crops that the network reads and draws.
NETWORK_SIDE = 64

#: Halves over which the network is trained anew; each takes about a minute.
N_NETWORK_SPLITS = 2


def reversal_network(
    release: DescribedRelease,
    gallery: Gallery,
    describe: Callable[[list[np.ndarray]], np.ndarray],
    described: Gallery,
    practice: Practice | None = None,
    *,
    n_splits: int = N_NETWORK_SPLITS,
    epochs: int = 12,
    random_state=0,
) -> list[AttackResult]:
    """Undo the anonymization by a small convolutional network, then recognise what it draws.

    Threat model and results as for `parrot`: the network is trained on images and clear photos of the
    attacker's own people, half of all, and draws a clear face for each image of the others.

    Parameters
    ----------
    release, gallery, practice : DescribedRelease, Gallery, Practice
        With crops of 64 x 64 grey pixels from 0 to 1 as descriptors: see `recognisers.grey_crops`.
    describe : callable
        A recogniser: see `recognisers.prepare`. It is given 64 x 64 crops, four times enlarged.
    described : Gallery
        The gallery's photos by this recogniser.
    n_splits : int, default 2
        Random halves, for each of which a network is trained.
    epochs : int, default 12
    random_state : int, RandomState or None, default 0

    Notes
    -----
    U-shaped, as in Ronneberger et al. 2015: three halvings, a bottleneck, three doublings with the layers of the way
    down beside them; it draws what the image lacks. Mean absolute error, Adam.
    """
    if release.descriptors.shape[1] != NETWORK_SIDE**2:
        raise ValueError(
            f"the network takes crops of {NETWORK_SIDE} x {NETWORK_SIDE} pixels, {NETWORK_SIDE**2} values a row, "
            f"not {release.descriptors.shape[1]}"
        )
    if not np.array_equal(gallery.identities, described.identities):
        raise ValueError(
            "the crops and the descriptors of the gallery must be of the same photos in the same order"
        )
    clear = {
        row.tobytes(): descriptor
        for row, descriptor in zip(gallery.descriptors, described.descriptors, strict=True)
    }

    def learn(lesson: Practice, theirs: Gallery, random) -> Callable:
        network = _train_reversal(lesson, theirs, epochs, random)

        def measure(a: np.ndarray, b: np.ndarray) -> np.ndarray:
            drawn = network.predict_on_batch(a.reshape(-1, NETWORK_SIDE, NETWORK_SIDE, 1))
            pixels = np.clip(np.rint(255 * drawn), 0, 255).astype(np.uint8)  # (c, 64, 64, 1)
            images = [detection.resize(np.repeat(image, 3, axis=2), 4.0) for image in pixels]
            return distances(describe(images), np.stack([clear[row.tobytes()] for row in b]))

        return measure

    return _disjoint(
        "reversal network", learn, release, gallery, practice, n_splits, random_state, "pixels unchanged"
    )


def _train_reversal(practice: Practice, gallery: Gallery, epochs: int, random):
    """Fit the network to pairs of an image and each photo of its members."""
    utils.import_quietly("tensorflow", "keras")
    import keras

    pairs = np.concatenate(
        [
            np.column_stack([np.full(n, i), rows])
            for i, members in enumerate(practice.members)
            for rows in [np.flatnonzero(np.isin(gallery.identities, list(members)))]
            for n in [len(rows)]
        ]
    )
    shape = (-1, NETWORK_SIDE, NETWORK_SIDE, 1)
    images, photos = practice.descriptors.reshape(shape), gallery.descriptors.reshape(shape)
    keras.utils.set_random_seed(int(random.randint(2**31)))
    network = _reversal_network(keras)
    network.compile(keras.optimizers.Adam(2e-3), "mean_absolute_error")
    for _ in utils.progress(range(epochs), "training the reversal"):
        order = random.permutation(len(pairs))
        for start in range(0, len(order), 32):
            chosen = pairs[order[start : start + 32]]
            x, y = images[chosen[:, 0]], photos[chosen[:, 1]]
            if random.randint(2):  # a mirrored face is a face
                x, y = x[:, :, ::-1], y[:, :, ::-1]
            network.train_on_batch(x, y)
    return network


def _reversal_network(keras):
    layers = keras.layers
    given = x = keras.Input((NETWORK_SIDE, NETWORK_SIDE, 1))
    down = []
    for filters in (16, 32, 64):
        down.append(x)
        x = layers.Conv2D(filters, 3, strides=2, padding="same", activation="relu")(x)
    x = layers.Conv2D(64, 3, padding="same", activation="relu")(x)  # (8, 8, 64)
    for filters, beside in zip((64, 32, 16), reversed(down), strict=True):
        x = layers.Concatenate()([layers.UpSampling2D()(x), beside])
        x = layers.Conv2D(filters, 3, padding="same", activation="relu")(x)
    lacking = layers.Conv2D(1, 3, padding="same", kernel_initializer="zeros")(x)
    return keras.Model(given, layers.Add()([given, lacking]))


# ----------------------------------------------------------------------------------------------------------
# The simulated case
# ----------------------------------------------------------------------------------------------------------


def simulated_release(
    descriptors: np.ndarray, labels: np.ndarray, threshold: float = PAPER_THRESHOLD, *, random_state=0
) -> DescribedRelease:
    """Surrogates that pass the paper's measure and still lead to their cluster.

    Each stands at its cluster's centroid, moved in a random direction until every member is at `threshold` or
    beyond: no member counts as re-identified. In many dimensions the move is nearly square to what tells
    people apart, so the members stay nearer than anybody else.

    Parameters
    ----------
    descriptors : ndarray, shape (n, d)
        One of each person.
    labels : ndarray of int, shape (n,)
    threshold : float, default 0.6
    random_state : int, RandomState or None, default 0

    Returns
    -------
    DescribedRelease
        Of people called by their row's number, such as ``"7"``.
    """
    _check_descriptors("the simulation", descriptors)
    random = utils.check_random_state(random_state)
    surrogates = []
    for label in range(int(labels.max()) + 1):
        members = np.asarray(descriptors[labels == label], dtype=float)  # (k, d)
        centre = members.mean(axis=0)
        direction = random.normal(size=len(centre))
        direction /= np.linalg.norm(direction)
        away = centre - members
        along = away @ direction  # |away + t direction| = threshold is quadratic in t
        root = np.sqrt(np.maximum(along**2 + threshold**2 - (away**2).sum(axis=1), 0.0))
        surrogates.append(centre + 1.000001 * max(float((root - along).max()), 0.0) * direction)
    people = np.arange(len(descriptors)).astype(str)
    return DescribedRelease(
        np.array(surrogates), np.ones(len(surrogates), dtype=bool), np.asarray(labels), people
    )


# ----------------------------------------------------------------------------------------------------------
# All attacks on one release
# ----------------------------------------------------------------------------------------------------------


@dataclass(frozen=True, eq=False)
class Published:
    """The images of one release.

    Attributes
    ----------
    images : sequence of c uint8 arrays (h, w, 3)
    labels : ndarray of int, shape (n,)
        Which image each of n photos got.
    identities : ndarray of str, shape (n,)
    what : str
        In words, such as ``"other photos"``: names attacks by several further releases.
    """

    images: Sequence[np.ndarray]
    labels: np.ndarray
    identities: np.ndarray
    what: str = ""

    def described(self, describe: Callable[[Sequence[np.ndarray]], np.ndarray]) -> DescribedRelease:
        """The release as one recogniser sees it."""
        found = detection.detect(self.images).found
        return DescribedRelease(describe(self.images), found, np.asarray(self.labels), self.identities)


def practise(
    model, labels: np.ndarray | None, n_images: int = N_PRACTICE, random_state=0
) -> tuple[list[np.ndarray], tuple[frozenset[str], ...]]:
    """Make images of people one knows, as an attacker with the same method would.

    Surrogates are made for groups that are drawn from two clusters at a time, so that of any two halves of the
    clusters each has some whose members are all its own.

    Parameters
    ----------
    model : anonymizer.Anonymizer
        With ``faces``, ``k_anonymous`` and ``surrogate(rows)``.
    labels : ndarray of int, shape (n,), or None
        The release's clusters; a model that changes each photo by itself takes none, and nothing is made: the release
        itself is the practice.
    n_images : int, default 168
    random_state : int, RandomState or None, default 0

    Returns
    -------
    images : list of ndarray
    members : tuple of frozensets of str
    """
    if not model.k_anonymous or labels is None:
        return [], ()
    random = utils.check_random_state(random_state)
    identities, labels = model.faces.identities, np.asarray(labels)
    clusters = [np.unique(identities[labels == label]) for label in range(int(labels.max()) + 1)]
    k = min(map(len, clusters))
    two = list(combinations(range(len(clusters)), 2)) or [(0, 0)]
    order = np.concatenate([random.permutation(len(two)) for _ in range(-(-n_images // len(two)))])
    images, members = [], []
    for pair in utils.progress(
        order[:n_images], "practising", disable=None if n_images > N_PRACTICE else True
    ):
        people = np.unique(np.concatenate([clusters[i] for i in two[pair]]))
        group = random.choice(people, k, replace=False)
        images.append(model.surrogate(np.flatnonzero(np.isin(identities, group))))
        members.append(frozenset(map(str, group)))
    return images, tuple(members)


@dataclass(frozen=True, eq=False)
class Scene:
    """All that attacks may need, as one recogniser sees it.

    Attributes
    ----------
    release : DescribedRelease
    photos : ndarray, shape (n, d)
        The photos that went in.
    gallery : Gallery
        Clear photos.
    anonymized : Gallery or None
        A gallery that the attacker anonymized themselves.
    further : tuple of (str, DescribedRelease)
        More releases of the same people, and what they are, in words or "".
    practice : Practice or None
    threshold : Threshold
        Set by a false accept rate of `CALIBRATED_RATE` on the clear photos.
    recommended : float or None
        The threshold that is customary for the recogniser.
    """

    release: DescribedRelease
    photos: np.ndarray
    gallery: Gallery
    threshold: Threshold
    anonymized: Gallery | None = None
    further: tuple[tuple[str, DescribedRelease], ...] = ()
    practice: Practice | None = None
    recommended: float | None = None


#: The false accept rate for which thresholds are set on clear photos.
CALIBRATED_RATE = 1e-2

#: Thresholds that are customary for a recogniser.
RECOMMENDED = {"dlib": PAPER_THRESHOLD}


def _against_anonymized(scene: Scene, seed: int) -> list[AttackResult]:
    if scene.anonymized is None:
        raise NotApplicableError("needs a gallery that the attacker anonymized: give anonymized=")
    results = identification(scene.release, scene.anonymized, random_state=seed)
    return [replace(result, attack=f"{result.attack} (anonymized gallery)") for result in results]


def _against_others(attack: Callable) -> Callable[[Scene, int], list[AttackResult]]:
    def run(scene: Scene, seed: int) -> list[AttackResult]:
        if not scene.further:
            raise NotApplicableError("needs a second release of the same people: give further=")
        results = []
        for what, other in scene.further:
            found = attack(scene.release, other, random_state=seed)
            results += [
                replace(one, attack=f"{one.attack} ({what})" if what else one.attack) for one in found
            ]
        return results

    return run


def _acceptances(scene: Scene, seed: int) -> list[AttackResult]:
    limit = scene.threshold
    note = limit.note or (
        f"threshold {limit.value:.3f} ({limit.low:.3f} to {limit.high:.3f}) by {limit.n_impostors} clear impostor pairs"
    )
    name = f"accepted at FAR {limit.false_accept_rate:g}"
    results = []
    if scene.recommended is not None:
        named = f"accepted at {scene.recommended:g} (paper)"
        of_paper = "threshold of the paper, not calibrated"
        results = acceptance(
            scene.release, scene.gallery, scene.recommended, named, of_paper, random_state=seed
        )
    if np.isnan(limit.value) and results:
        return results
    return results + acceptance(scene.release, scene.gallery, limit.value, name, note, random_state=seed)


def _insiders(scene: Scene, seed: int) -> list[AttackResult]:
    smallest = int(scene.release.cases.groupby("image").size().min())
    numbers = dict.fromkeys([1, max(smallest - 1, 1)])
    return [
        result
        for n in numbers
        for result in insider(scene.release, scene.photos, scene.gallery, n, random_state=seed)
    ]


#: Name -> attack on a scene, with a seed.
ATTACKS: dict[str, Callable[[Scene, int], list[AttackResult]]] = {
    "identification": lambda s, seed: identification(s.release, s.gallery, random_state=seed),
    "identification (anonymized gallery)": _against_anonymized,
    "posterior": lambda s, seed: posterior(s.release, s.gallery, random_state=seed),
    "acceptance": _acceptances,
    "verification": lambda s, seed: verification(s.release, s.gallery, random_state=seed),
    "verification across": _against_others(verification_across),
    "linkability": _against_others(linkability),
    "composition": lambda s, seed: composition(
        [s.release, *(r for _, r in s.further)], s.gallery, random_state=seed
    ),
    "insider": _insiders,
    "parrot": lambda s, seed: parrot(s.release, s.gallery, s.practice, random_state=seed),
    "reversal": lambda s, seed: reversal(s.release, s.gallery, s.practice, random_state=seed),
}

#: Those that read pixels, without any recogniser's descriptors.
PIXEL_ATTACKS: dict[str, Callable[[Scene, int], list[AttackResult]]] = {
    "parrot pairs": lambda s, seed: parrot_pairs(s.release, s.gallery, s.practice, random_state=seed),
    "reversal pixels": lambda s, seed: reversal_pixels(s.release, s.gallery, s.practice, random_state=seed),
}

#: The one that takes minutes: asked for by its name.
NETWORK_ATTACK = "reversal network"

#: What `attack_release` says in place of a recogniser where pixels are attacked.
PIXELS = "pixels"

RECOGNISERS = ("dlib", "fisherfaces", "lbp", "faceres")


@utils.one_thread
def attack_release(
    faces: Faces,
    images: Sequence[np.ndarray],
    labels: np.ndarray,
    *,
    model=None,
    recognisers: Sequence[str] = RECOGNISERS,
    attacks: Sequence[str] = (*ATTACKS, *PIXEL_ATTACKS),
    anonymized: Published | None = None,
    further: Sequence[Published] = (),
    random_state: int = 0,
) -> pd.DataFrame:
    """Make all attacks on one release.

    Parameters
    ----------
    faces : Faces
        The photos that went in. With `others`, those are the attacker's gallery; else the very photos.
    images : sequence of c uint8 arrays (h, w, 3)
        The released images.
    labels : ndarray of int, shape (n,)
        Which image each photo got.
    model : anonymizer.Anonymizer, optional
        What made them, so that attackers who learn can practise; without it they have the release alone.
    recognisers : sequence of str
        See `recognisers.prepare`. The fitted ones know the whole gallery, also where an attack learns from half of the
        people: only what is learnt of the method is then disjoint. One that is not installed, or cannot be
        made for this gallery, gets a row that says so.
    attacks : sequence of str
        Names in `ATTACKS` and `PIXEL_ATTACKS`, which are the default, or ``"reversal network"``, which takes minutes.
    anonymized : Published, optional
        Gallery photos as the attacker anonymized them.
    further : sequence of Published
        More releases of the same people, for linking (each by itself) and composition (all together).
    random_state : int, default 0

    Returns
    -------
    DataFrame
        A row for each attack and recogniser: ``attack recogniser gallery level rate low high rate_all rate_worst chance
        clear n_people n_failed worst_people worst_cluster threshold threshold_low threshold_high stranger_share
        note``, see `AttackResult`. ``clear`` is the rate of the same attack on the clear photos themselves, where there
        is such an attack: with it a low rate can be told from a weak attacker. ``threshold`` is that at which 1 % of
        the impostor pairs of clear photos are accepted, with its interval, and ``stranger_share`` the share of
        strangers whom a released image would be taken for at it. An attack that cannot be made has NaN and the
        reason. Kept on disk for each attack, by the content of all that it reads.

    Raises
    ------
    ValueError
        For unknown names, or labels that do not fit, before any work is done.
    """
    _check_attacks(faces, images, labels, attacks, random_state)
    release = Published(images, np.asarray(labels), faces.identities)
    photos, kind = gallery_faces(faces)
    practice = practise(model, labels, N_PRACTICE, random_state) if model is not None else ([], ())
    given = (release, photos, kind, anonymized, further, practice)
    rows = []
    for name in dict.fromkeys(recognisers):
        chosen = [attack for attack in attacks if attack in ATTACKS]
        try:
            describe = recognisers.prepare(name, photos)
        except (recognisers.MissingRecogniserError, recognisers.UnfitGalleryError) as error:
            rows.append({"attack": "all", "recogniser": name, **_nothing(str(error))})
            continue
        scene = _scene(faces, describe, *given, recommended=RECOMMENDED.get(name))
        rows += _rows(chosen, ATTACKS, name, scene, random_state)
        if NETWORK_ATTACK in attacks:
            made = {NETWORK_ATTACK: _network_on(faces, given, scene, describe)}
            rows += _rows([NETWORK_ATTACK], made, name, scene, random_state)
    chosen = [attack for attack in attacks if attack in PIXEL_ATTACKS]
    if chosen:
        scene = _scene(faces, recognisers.grey_crops, *given)
        rows += _rows(chosen, PIXEL_ATTACKS, PIXELS, scene, random_state)
    return pd.DataFrame(rows).reindex(columns=COLUMNS)


COLUMNS = [
    "attack",
    "recogniser",
    "gallery",
    "level",
    "rate",
    "low",
    "high",
    "rate_all",
    "rate_worst",
    "chance",
    "clear",
    "n_people",
    "n_failed",
    "worst_people",
    "worst_cluster",
    "threshold",
    "threshold_low",
    "threshold_high",
    "stranger_share",
    "note",
]


def _check_attacks(faces, images, labels, attacks, random_state) -> None:
    known = [*ATTACKS, *PIXEL_ATTACKS, NETWORK_ATTACK]
    if isinstance(attacks, str) or set(attacks) - set(known):
        raise ValueError(
            f"attacks must be a list of names out of {', '.join(map(repr, known))}, not {attacks!r}"
        )
    if isinstance(random_state, bool) or not isinstance(random_state, int | np.integer):
        raise TypeError(
            f"random_state must be a whole number, by which results are kept, not {random_state!r}"
        )
    if np.shape(labels) != (len(faces),):
        raise ValueError(
            f"{len(faces)} photos need {len(faces)} labels, not an array of shape {np.shape(labels)}"
        )
    if not np.array_equal(np.unique(labels), np.arange(len(images))):
        raise ValueError(f"labels must use every number from 0 to {len(images) - 1}, one for each image")


def _scene(faces, describe, release, photos, kind, anonymized, further, practice, recommended=None) -> Scene:
    images, members = practice
    own, held = describe(faces), describe(photos)
    gallery = Gallery(held, photos.identities, kind)
    clear, people = (own, faces.identities) if kind == "same photos" else (
        np.concatenate([own, held]), np.concatenate([faces.identities, photos.identities])
    )  # fmt: skip
    return Scene(
        release.described(describe),
        own,
        gallery,
        clear_threshold(clear, people),
        Gallery.anonymized(anonymized.described(describe)) if anonymized is not None else None,
        tuple((one.what, one.described(describe)) for one in further),
        Practice(describe(images), members) if images else None,
        recommended,
    )


def clear_threshold(descriptors: np.ndarray, identities: np.ndarray) -> Threshold:
    """`calibrate_threshold` at `CALIBRATED_RATE`; kept on disk."""
    store = utils.CacheStore("thresholds-" + _code_key())
    key = utils.content_key(descriptors, identities, CALIBRATED_RATE)
    known = store.get([key])
    if key in known:
        return Threshold(**json.loads(known[key]))
    found = calibrate_threshold(descriptors, identities, CALIBRATED_RATE)
    store.put({key: json.dumps(vars(found)).encode()})
    return found


def _clear(scene: Scene) -> Scene:
    """The same scene without any anonymization: every photo is released as it is.

    Of the gallery one photo of each person is the second release, where everybody has another one left.
    """
    people = scene.release.identities
    plain = DescribedRelease(scene.photos, np.ones(len(people), dtype=bool), np.arange(len(people)), people)
    held = scene.gallery.identities
    _, first, photos = np.unique(held, return_index=True, return_counts=True)
    if photos.min() < 2 or scene.gallery.kind != "other photos":
        return replace(scene, release=plain, anonymized=None, further=(), practice=None)
    rest = np.setdiff1d(np.arange(len(held)), first)
    second = DescribedRelease(
        scene.gallery.descriptors[first], np.ones(len(first), bool), np.arange(len(first)), held[first]
    )
    gallery = Gallery(scene.gallery.descriptors[rest], held[rest], scene.gallery.kind)
    further = tuple((what, second) for what, _ in scene.further)
    return replace(scene, release=plain, gallery=gallery, anonymized=None, further=further, practice=None)


def _rows(
    names: Sequence[str], functions: dict[str, Callable], recogniser: str, scene: Scene, seed: int
) -> list[dict]:
    """Rows of some attacks on a scene, each beside the rate of the same attack on the clear photos."""
    rows = [row for name in names for row in _attack_rows(name, functions[name], recogniser, scene, seed)]
    with_clear = [name for name in names if name != NETWORK_ATTACK]  # a second network takes minutes
    plain = _clear(scene)
    on_clear = {
        (row["attack"], row["level"]): row.get("rate")
        for name in with_clear
        for row in _attack_rows(name, functions[name], recogniser, plain, seed)
    }
    limit = scene.threshold
    constant = {
        "recogniser": recogniser,
        "gallery": scene.gallery.kind,
        "threshold": limit.value,
        "threshold_low": limit.low,
        "threshold_high": limit.high,
        "stranger_share": stranger_share(scene.release, scene.gallery, limit.value),
    }
    return [{**constant, "clear": on_clear.get((row["attack"], row["level"])), **row} for row in rows]


def _network_on(faces, given, scene: Scene, describe) -> Callable[[Scene, int], list[AttackResult]]:
    def run(_: Scene, seed: int) -> list[AttackResult]:
        crops = _scene(faces, recognisers.grey_crops, *given)
        return reversal_network(
            crops.release, crops.gallery, describe, scene.gallery, crops.practice, random_state=seed
        )

    return run


def _attack_rows(name: str, attack: Callable, recogniser: str, scene: Scene, seed: int) -> list[dict]:
    """Rows of one attack, from the cache where it has them."""
    store = utils.CacheStore("attacks-" + _code_key())
    key = utils.content_key(name, recogniser, _content(scene), int(seed))
    known = store.get([key])
    if key in known:
        rows = json.loads(known[key])
    else:
        try:
            rows = [result.row() for result in attack(scene, seed)]
        except NotApplicableError as error:
            rows = [{"attack": name, **_nothing(str(error))}]
        store.put({key: json.dumps(rows).encode()})
    return rows


def _content(part):
    """A scene as plain values for `utils.content_key`."""
    if isinstance(part, DescribedRelease | Gallery | Practice | Scene | Threshold):
        return [_content(value) for value in vars(part).values()]
    if isinstance(part, tuple):
        return [_content(value) for value in part]
    return sorted(part) if isinstance(part, frozenset) else part


def _nothing(note: str) -> dict:
    """The part of a row that an attack leaves empty which was not made."""
    return {"level": "-", "note": note}


def _code_key() -> str:
    return utils.source_key(__file__)[:16]
