"""Find mixing weights that meet a privacy target with the least loss, and compare combinations.

The paper (Le et al., "AnonFACES: Anonymizing Faces Adjusted to Constraints on Efficacy and Security", WPES 2020)
shrinks mixtures until the re-identification rate over the data set is at most 1/k: see `anonymizer.styleGan`. That has
two weaknesses. Re-identification and information loss use the same distances, so the tuned measure also serves for
evaluation; and an average hides clusters in which everyone is re-identified. Here a target holds for every cluster and,
by an upper confidence bound, for the whole release. The search is bounded and keeps the best result, and recognisers
that the search did not use check it.
"""

from __future__ import annotations

import itertools
from collections.abc import Callable, Iterable, Sequence
from dataclasses import dataclass

import numpy as np
import pandas as pd

import anonymizer
import attacks
import detection
import intervals
import measures
import utils
from checks import ParameterError, check_known, check_number
from datasets import Faces
from jobs import run_jobs
from measures import ClearPhotos
from recognisers import MissingRecogniserError, UnfitGalleryError
from recognisers import available as available_recognisers
from recognisers import prepare as prepare_recogniser
from releases import Combination, Table, load_model, partition_for, release_jobs

#: Candidate shares of the cluster's own mixture, the least change first; the rest is the others' average.
_STRENGTHS = (1.0, 0.85, 0.7, 0.55, 0.4, 0.25, 0.1, 0.0)
#: The others' average is taken over at most this many photos, drawn by the seed.
AVERAGE_OVER = 60
#: Number of halvings of the weights of members who are still recognised, and of steps that refine a strength.
_REWEIGHTINGS, _REFINEMENTS = 4, 3

_MET = "target met in every cluster and, by its upper confidence bound, over the release"
_CLUSTERS_ONLY = (
    "target met in every cluster; too few people for the upper confidence bound over the release to meet it"
)
_NOT_MET = "target not met in {} of {} clusters within the limits of the search; the best found is kept"


@dataclass(frozen=True, eq=False)
class Tuning:
    """The result of `tune`.

    Attributes
    ----------
    weights : ndarray of float64, shape (c, n)
        For each cluster the weight of every photo; rows sum to 1. ``model.surrogate(rows, weights)`` with the weights
        above 0 draws the image again.
    images : list of uint8 arrays (h, w, 3)
        One image per cluster.
    loss : float
        Information loss of the release: mean distance from a photo to its image.
    privacy : float
        Success rate of the target over all photos; a photo whose image shows no face counts as recognised.
    upper : float
        Its upper confidence bound, see `release_upper_bound`. It is taken on the photos that were tuned on; `checks`
        has the results for other photos and recognisers.
    bound : float
        The largest rate allowed.
    reason : str
        Why the search stopped.
    clusters : DataFrame
        One row per cluster: ``label n_people strength loss success met found``.
    trace : DataFrame
        A row for every candidate: ``label round strength step loss success found chosen``.
    checks : DataFrame
        See `check_release`; ``role`` says whether the search saw the recogniser.
    target : str
        The rate that was bounded.
    """

    weights: np.ndarray
    images: list[np.ndarray]
    loss: float
    privacy: float
    upper: float
    bound: float
    reason: str
    clusters: pd.DataFrame
    trace: pd.DataFrame
    checks: pd.DataFrame
    target: str = "reid"

    @property
    def caveat(self) -> str:
        """The recognisers not used in the search for which the rate is above the bound, in words; empty without any."""
        rates = self.checks[self.checks["role"] == "unseen"].set_index("recogniser")[_COLUMNS[self.target]]
        above = rates[rates > self.bound].sort_values(ascending=False)
        found = ", ".join(f"{rate:.0%} with {name}" for name, rate in above.items())
        return f"the bound of {self.bound:.0%} does not carry over: {found}" if found else ""


@dataclass(frozen=True, eq=False)
class _View:
    """The photos and the adversary's gallery, described by one recogniser, and its threshold."""

    clear: ClearPhotos
    threshold: float


@dataclass(frozen=True, eq=False)
class _Task:
    """The inputs of a search: views by one or several recognisers, the first of which measures loss, and the target."""

    model: anonymizer.Surrogates
    views: tuple[_View, ...]
    succeeds: Callable
    largest: float | None
    confidence: float


@dataclass(frozen=True, eq=False)
class _Candidate:
    """A measured image of a cluster. `hits` (m,): members for whom the attack succeeds; all if there is no face."""

    weights: np.ndarray  # (n,)
    strength: float
    step: str
    image: np.ndarray
    found: bool
    loss: float
    hits: np.ndarray

    @property
    def success(self) -> float:
        return float(self.hits.mean())

    def meets(self, bound: float) -> bool:
        return self.found and self.success <= bound


def _reidentified(view: _View, descriptor: np.ndarray, members: np.ndarray) -> np.ndarray:
    """The paper's measure: which members' photos are nearer to the image than the threshold, (m,)."""
    return np.linalg.norm(view.clear.descriptors[members] - descriptor, axis=1) < view.threshold


def _nearest_person(view: _View, descriptor: np.ndarray) -> str:
    """The person of the nearest gallery face."""
    gallery = view.clear.gallery
    return gallery.identities[np.linalg.norm(gallery.descriptors - descriptor, axis=1).argmin()]


def _led_to_cluster(view: _View, descriptor: np.ndarray, members: np.ndarray) -> np.ndarray:
    """All members if the nearest gallery face belongs to the cluster, else none, (m,)."""
    hit = _nearest_person(view, descriptor) in set(view.clear.faces.identities[members])
    return np.full(len(members), hit)


def _led_to_person(view: _View, descriptor: np.ndarray, members: np.ndarray) -> np.ndarray:
    """The members whom the nearest gallery face shows, (m,)."""
    return view.clear.faces.identities[members] == _nearest_person(view, descriptor)


def _one_person(faces: Faces, clusters: Sequence[np.ndarray]) -> float:
    """Largest share of a cluster's photos that one person has."""
    counts = [np.unique(faces.identities[members], return_counts=True)[1] for members in clusters]
    return float(max(c.max() / c.sum() for c in counts))


#: Targets: the members for whom the attack succeeds; and, if an image meets or misses the target as a whole, the
#: largest share of a cluster's photos for which it can succeed.
_TARGETS: dict[str, tuple[Callable, Callable | None]] = {
    "reid": (_reidentified, None),
    "rank1_cluster": (_led_to_cluster, lambda faces, clusters: 1.0),
    "rank1_person": (_led_to_person, _one_person),
}

#: Target -> its column of `check_release`.
_COLUMNS = {"reid": "re_identification", "rank1_cluster": "rank1_cluster", "rank1_person": "rank1_person"}


def tune(
    faces: Faces,
    labels: np.ndarray,
    model: anonymizer.Surrogates,
    target: str = "reid",
    bound: float | None = None,
    *,
    recogniser: str = "dlib",
    also: Sequence[str] = (),
    threshold: float = attacks.PAPER_THRESHOLD,
    confidence: float = 0.95,
    strengths: Sequence[float] = _STRENGTHS,
    checks: Sequence[str] | None = None,
    random_state=0,
) -> Tuning:
    """Find the mixture with the least loss for each cluster that keeps an attack below a bound.

    The search shrinks the mixture towards the average of all other people, and halves the weights of members who are
    still recognised. It refines the first strength that meets the bound by bisection. While the upper confidence bound
    over the whole release is above the bound, it searches clusters for images without any success, and replaces the
    images of clusters by other candidates, the cheapest replacement first.

    Parameters
    ----------
    faces : Faces
    labels : ndarray of int, shape (n,)
        The cluster of each photo.
    model : Surrogates
        Made for these faces.
    target : {"reid", "rank1_cluster", "rank1_person"}
        The rate to bound: the paper's re-identification rate, or that of a gallery search that finds the cluster or
        the person.
    bound : float, optional
        Largest rate allowed, above 0 and at most 1; 1/k by default, with k the people of the smallest cluster.
    recogniser : str, default "dlib"
        The embedding that measures target and loss.
    also : sequence of str
        Further recognisers, see `recognisers.prepare`: a member for whom the attack succeeds with any of them counts,
        so the search meets the bound for the worst case. Their thresholds accept 1 % of the impostor pairs.
    threshold : float, default 0.6
        Distance threshold of `recogniser` for ``"reid"``.
    confidence : float, default 0.95
        Confidence level of the one-sided bound over the release.
    strengths : sequence of float
        Candidate shares of the cluster's own mixture, from 0 to 1.
    checks : sequence of str, optional
        Recognisers for the check, see `recognisers.prepare`; by default all of `recognisers.available`.
    random_state : int, RandomState or None, default 0
        Draws the photos of the others' average if there are more than 60.

    Returns
    -------
    Tuning

    Raises
    ------
    ValueError
        If labels or model do not match the photos, or for options out of range.
    """
    if not isinstance(model, anonymizer.Surrogates):
        raise ValueError(
            f"the anonymizer {model.name!r} does not mix members; tune one that makes surrogates"
        )
    check_known("target", target, _TARGETS)
    clusters = measures.clusters_of(faces, model, labels)
    sizes = [len(np.unique(faces.identities[members])) for members in clusters]
    bound = check_number("bound", 1 / min(sizes) if bound is None else bound, above=0, at_most=1)
    check_number("confidence", confidence, above=0, below=1)
    strengths = {float(check_number("each of strengths", s, at_least=0, at_most=1)) for s in strengths}
    if not strengths:
        raise ParameterError("strengths must hold at least one number")
    strengths = sorted(strengths, reverse=True)
    succeeds, largest_share = _TARGETS[target]
    views = [_View(measures.clear_photos(faces, recogniser), threshold)]
    for name in also:
        clear = ClearPhotos.of(faces, prepare_recogniser(name, attacks.gallery_faces(faces)[0]))
        if target == "reid" and np.isnan(clear.threshold.value):
            raise ValueError(f"{name!r} has no threshold on these photos: {clear.threshold.note}")
        views.append(_View(clear, clear.threshold.value))
    largest = None if largest_share is None else largest_share(faces, clusters)
    task = _Task(model, tuple(views), succeeds, largest, confidence)
    random = utils.check_random_state(random_state)
    averages = [_average_of_others(faces, members, random) for members in clusters]
    # Search every cluster separately.
    tried = [
        _search(task, members, bound, strengths, average)
        for members, average in utils.progress(list(zip(clusters, averages, strict=True)), "tuning clusters")
    ]
    chosen = [_best(candidates, bound) for candidates in tried]
    # Search further while the bound over the release does not hold.
    if _upper(task, chosen) > bound:
        further = [i for i, candidate in enumerate(chosen) if candidate.hits.any()]
        for i in utils.progress(further, "tuning further"):
            tried[i] += _search(task, clusters[i], 0.0, strengths, averages[i])
        chosen = _tighten(task, chosen, tried, bound)
    images = [c.image for c in chosen]
    checked = check_release(faces, labels, images, [recogniser, *also], threshold, checks)
    return _result(task, sizes, tried, chosen, bound, checked, target)


def _average_of_others(faces: Faces, members: np.ndarray, random: np.random.RandomState) -> np.ndarray:
    """Weights (n,) of everyone except the members, equal for every person; of everyone if there is no one else."""
    rows = np.setdiff1d(np.arange(len(faces)), members)
    rows = np.arange(len(faces)) if len(rows) == 0 else rows
    if len(rows) > AVERAGE_OVER:
        rows = random.choice(rows, AVERAGE_OVER, replace=False)
    return _mixture(faces, rows)


def _mixture(faces: Faces, rows: np.ndarray, shares: np.ndarray | float = 1.0) -> np.ndarray:
    """Weights (n,) of a mixture of some photos, each person's share divided over their photos."""
    weights = np.zeros(len(faces))
    weights[rows] = anonymizer.person_weights(faces.identities[rows], shares)
    return weights


def _measure(task: _Task, members: np.ndarray, weights: np.ndarray, strength: float, step: str) -> _Candidate:
    rows = np.flatnonzero(weights)
    image = task.model.surrogate(rows, weights[rows])
    found = bool(detection.detect([image]).found[0])
    loss, hits = float("nan"), np.ones(len(members), dtype=bool)
    if found:
        descriptors = [view.clear.describe([image])[0] for view in task.views]
        loss = float(np.linalg.norm(task.views[0].clear.descriptors[members] - descriptors[0], axis=1).mean())
        seen = zip(task.views, descriptors, strict=True)
        hits = np.any([task.succeeds(view, descriptor, members) for view, descriptor in seen], axis=0)
    return _Candidate(weights, strength, step, image, found, loss, hits)


def _search(
    task: _Task, members: np.ndarray, bound: float, strengths: Sequence[float], average: np.ndarray
) -> list[_Candidate]:
    """Try mixtures for one cluster and return all of them."""
    shares, tried = np.ones(len(members)), []

    def measure(strength: float, step: str) -> _Candidate:
        weights = strength * _mixture(task.views[0].clear.faces, members, shares) + (1 - strength) * average
        tried.append(_measure(task, members, weights, strength, step))
        return tried[-1]

    # Pull towards the average until the bound is met.
    above = None
    for strength in strengths:
        candidate = measure(strength, "shrink")
        if candidate.meets(bound):
            break
        above = strength
    # Refine: the least pull lies between the last two strengths.
    if candidate.meets(bound) and above is not None:
        below = strength
        for _ in range(_REFINEMENTS):
            middle = (above + below) / 2
            above, below = (above, middle) if measure(middle, "refine").meets(bound) else (middle, below)
    # Halve the shares of members who are still recognised.
    last = tried[0]
    for _ in range(_REWEIGHTINGS):
        if last.meets(bound) or not last.found or last.hits.all() or not last.hits.any():
            break
        shares = np.where(last.hits, shares / 2, shares)
        last = measure(strengths[0], "reweight")
    return tried


def _best(candidates: Sequence[_Candidate], bound: float) -> _Candidate:
    """The least loss among candidates that meet the bound; else the lowest success, those with a face first."""
    met = [c for c in candidates if c.meets(bound)]
    if met:
        return min(met, key=lambda c: c.loss)
    return min(candidates, key=lambda c: (not c.found, c.success, c.loss if c.found else 0.0))


def release_upper_bound(
    hits: Sequence[np.ndarray], confidence: float = 0.95, largest: float | None = None
) -> float:
    """One-sided upper confidence bound of the success rate over a release; photos of one cluster are not independent.

    Parameters
    ----------
    hits : sequence of c ndarrays of bool
        For each cluster, which of its photos the attack succeeds for.
    confidence : float, default 0.95
    largest : float, optional
        For attacks that give one answer for each image: the largest share of a cluster's photos for which it can be
        right. Clusters are counted then, not photos.

    Returns
    -------
    float
        `intervals.upper_bound` of clusters times `largest`; or, without `largest`, of the number of independent photos
        with the same variance as between the clusters, at most all of them (Korn and Graubard, "Confidence intervals
        for proportions with small expected number of positive counts estimated from survey data", Survey Methodology
        24, 1998).
    """
    sizes, successes = np.array([len(h) for h in hits]), np.array([h.sum() for h in hits])
    if largest is not None:
        return largest * intervals.upper_bound(int((successes > 0).sum()), len(hits), confidence)
    n, rate = sizes.sum(), successes.sum() / sizes.sum()
    spread = ((successes - rate * sizes) ** 2).sum() * len(hits) / max(len(hits) - 1, 1) / n**2
    effective = min(n, rate * (1 - rate) / spread) if spread > 0 else n
    return intervals.upper_bound(rate * effective, effective, confidence)


def _upper(task: _Task, chosen: Sequence[_Candidate]) -> float:
    return release_upper_bound([c.hits for c in chosen], task.confidence, task.largest)


def _tighten(
    task: _Task, chosen: list[_Candidate], tried: Sequence[Sequence[_Candidate]], bound: float
) -> list[_Candidate]:
    """Replace images by candidates with fewer successes, the cheapest first, until the release's bound holds."""
    chosen = list(chosen)
    while _upper(task, chosen) > bound:
        steps = []
        for i, candidate in ((i, c) for i, candidates in enumerate(tried) for c in candidates if c.found):
            gain = int(chosen[i].hits.sum()) - int(candidate.hits.sum())
            if gain > 0:
                cost = len(candidate.hits) * (candidate.loss - chosen[i].loss if chosen[i].found else 0.0)
                steps.append((cost / gain, i, candidate))
        if not steps:
            break
        _, i, candidate = min(steps, key=lambda step: step[:2])
        chosen[i] = candidate
    return chosen


def _result(
    task: _Task, sizes, tried, chosen: Sequence[_Candidate], bound: float, checked: pd.DataFrame, target: str
) -> Tuning:
    trace = pd.DataFrame(
        [
            {
                "label": label, "round": number, "strength": c.strength, "step": c.step, "loss": c.loss,
                "success": c.success if c.found else np.nan, "found": c.found, "chosen": c is chosen[label],
            }
            for label, candidates in enumerate(tried)
            for number, c in enumerate(candidates)
        ]
    )  # fmt: skip
    met = [c.meets(bound) for c in chosen]
    clusters = trace[trace["chosen"]].assign(n_people=sizes, met=met).reset_index(drop=True)
    upper = _upper(task, chosen)
    reason = _MET if upper <= bound else _CLUSTERS_ONLY
    if not all(met):
        reason = _NOT_MET.format(len(met) - sum(met), len(met))
    own = np.repeat([c.loss for c in chosen], [len(c.hits) for c in chosen])  # (n,)
    found = np.isfinite(own)
    return Tuning(
        weights=np.stack([c.weights for c in chosen]),
        images=[c.image for c in chosen],
        loss=float(own[found].mean()) if found.any() else float("nan"),
        privacy=float(np.concatenate([c.hits for c in chosen]).mean()),
        upper=upper,
        bound=float(bound),
        reason=reason,
        clusters=clusters[["label", "n_people", "strength", "loss", "success", "met", "found"]],
        trace=trace,
        checks=checked,
        target=target,
    )


def check_release(
    faces: Faces,
    labels: np.ndarray,
    images: Sequence[np.ndarray],
    seen: str | Sequence[str] = "dlib",
    threshold: float = attacks.PAPER_THRESHOLD,
    recognisers: Sequence[str] | None = None,
) -> pd.DataFrame:
    """Measure a release with several recognisers, to check whether a target also holds for those not searched with.

    Parameters
    ----------
    faces : Faces
    labels : ndarray of int, shape (n,)
    images : sequence of c uint8 arrays (h, w, 3)
    seen : str or sequence of str
        The recognisers that the search used.
    threshold : float
        For the first of them. All other thresholds accept 1 % of the impostor pairs of the original photos.
    recognisers : sequence of str, optional
        By default all of `recognisers.available`, which take no part in clustering either.

    Returns
    -------
    DataFrame
        ``recogniser role note threshold re_identification re_identification_gallery rank1_cluster chance_cluster
        rank1_person stranger_share``, see `evaluation.measure`: ``_gallery`` is by other photos of the same people, if
        there are any, which no search has seen. ``clear_re_identification`` and ``clear_rank1`` are the same for
        clear photos in place of the images. A recogniser that is missing, or cannot be fitted on this gallery, has NaN
        and a note.
    """
    photos, _ = attacks.gallery_faces(faces)
    seen = [seen] if isinstance(seen, str) else list(seen)
    names = [*seen, *(available_recognisers() if recognisers is None else recognisers)]
    kept = (
        "re_identification", "re_identification_gallery", "rank1_cluster", "chance_cluster", "rank1_person",
        "stranger_share",
    )  # fmt: skip
    rows = []
    for name in dict.fromkeys(names):
        row = {"recogniser": name, "role": "steered" if name in seen else "unseen", "note": ""}
        try:
            clear = ClearPhotos.of(faces, prepare_recogniser(name, photos))
        except (MissingRecogniserError, UnfitGalleryError) as error:
            rows.append({**row, "note": str(error)})
            continue
        limit = threshold
        if name != seen[0]:
            limit, row["note"] = clear.threshold.value, clear.threshold.note
        released, unchanged = (
            measures.measure(release, clear.descriptors, clear.gallery, limit)
            for release in (clear.release(images, labels), clear.unchanged)
        )
        if np.isnan(limit):  # without a threshold nobody is re-identified or not
            for scores in (released, unchanged):
                scores |= dict.fromkeys(("re_identification", "re_identification_gallery"), np.nan)
        rows.append(
            {
                **row,
                "threshold": limit,
                **{measure: released[measure] for measure in kept},
                "clear_re_identification": unchanged["re_identification_gallery"],
                "clear_rank1": unchanged["rank1_person"],
            }
        )
    columns = ("recogniser", "role", "note", "threshold", *kept, "clear_re_identification", "clear_rank1")
    return pd.DataFrame(rows, columns=columns)


def pareto_front(
    table: pd.DataFrame, loss: str = "information_loss", privacy: str = "re_identification"
) -> np.ndarray:
    """Find the rows that no other row beats in both columns; smaller is better in each.

    Parameters
    ----------
    table : DataFrame
        Such as `evaluation.sweep` returns.
    loss, privacy : str
        Columns.

    Returns
    -------
    ndarray of bool, shape (len(table),)
        Rows with NaN in either column are never on the front; of equal rows all or none are.

    Raises
    ------
    ValueError
        If the table lacks a column.
    """
    missing = sorted({loss, privacy} - set(table.columns))
    if missing:
        raise ValueError(f"the table has no column {missing[0]!r}; it has {', '.join(table.columns)}")
    points = table[[loss, privacy]].astype(float)
    # By increasing loss, each point on the front has a lower privacy value than all before it.
    front = points.dropna().drop_duplicates().sort_values([loss, privacy])
    front = front[front[privacy] < front[privacy].cummin().shift(fill_value=np.inf)]
    return pd.MultiIndex.from_frame(points).isin(pd.MultiIndex.from_frame(front))


def distinct_releases(table: pd.DataFrame) -> pd.DataFrame:
    """Keep one row for each release of a sweep, that with the largest k; equal clusters have equal measures.

    Parameters
    ----------
    table : DataFrame
        From `evaluation.sweep`.

    Returns
    -------
    DataFrame
        Rows with k above 1, sorted by k, that differ in anonymizer, number of clusters, seed or measures.
    """
    same = ["anonymizer", "n_clusters", "seed", "information_loss", "re_identification", "rank1_cluster"]
    rows = table[table["k"] > 1].sort_values("k", kind="stable")
    return rows.drop_duplicates(same, keep="last").reset_index(drop=True)


def tune_releases(
    faces: Faces, combinations: Sequence[Combination], *, random_state: int = 0, n_jobs: int = -1, **options
) -> list[Tuning]:
    """Tune several releases, or read the results from the cache.

    Parameters
    ----------
    faces : Faces
    combinations : sequence of Combination
        See `evaluation.Combination`.
    random_state : int, default 0
    n_jobs : int, default -1
        Processes, as for `evaluation.sweep`.
    **options
        As for `tune`.
    """
    plain = run_jobs(release_jobs(TUNED, faces, combinations, random_state, **options), n_jobs, "tuning")
    return [
        Tuning(
            **{
                **one,
                **{name: pd.DataFrame(**one[name]) for name in _FRAMES},
                "weights": np.array(one["weights"]),
                "images": [np.array(image, dtype=np.uint8) for image in one["images"]],
            }
        )
        for one in plain
    ]


def _tune_release(faces: Faces, combination: Combination, random_state: int, options: dict) -> dict:
    """A `Tuning` as plain values."""
    labels = partition_for(faces, combination, random_state)
    model = load_model(combination.anonymizer, faces)
    result = tune(faces, labels, model, random_state=random_state, **options)
    return {
        **vars(result),
        **{name: getattr(result, name).to_dict("split", index=False) for name in _FRAMES},
        "weights": result.weights.tolist(),
        "images": [image.tolist() for image in result.images],
    }


#: The tables of a `Tuning`, and how it is computed for a release, see `releases.release_jobs`.
_FRAMES = ("clusters", "trace", "checks")
TUNED = Table(_tune_release, 15, ("utility",))


def tune_grid(
    faces: Faces,
    embeddings: Sequence[str] = ("dlib",),
    partitioners: Sequence[str] = ("balanced", "ward"),
    anonymizers: Sequence[str] = ("aam",),
    k_values: Iterable[int] = (5,),
    *,
    target: str = "reid",
    bound: float | None = None,
    random_state: int = 0,
    n_jobs: int = -1,
    **options,
) -> pd.DataFrame:
    """Tune every combination, and mark the Pareto front.

    Parameters
    ----------
    faces : Faces
    embeddings, partitioners, anonymizers, k_values
        As for `evaluation.sweep`.
    target, bound, **options
        As for `tune`.
    random_state : int, default 0
    n_jobs : int, default -1
        Processes, as for `evaluation.sweep`.

    Returns
    -------
    DataFrame
        A row for each combination: ``embedding partitioner anonymizer k``, ``plain_loss`` and ``plain_privacy`` before
        tuning, ``loss`` and ``privacy`` after it, ``upper``, ``bound``, ``met`` (by the upper bound), ``reason``,
        ``unseen`` (the highest re-identification rate of a recogniser that the search did not use), and ``front``: on
        the Pareto front of tuned loss against the worse of tuned and unseen rate. Those that meet the target come
        first, then by loss.
    """
    rows = []
    grid = [
        Combination(*names, int(k))
        for *names, k in itertools.product(embeddings, partitioners, anonymizers, k_values)
    ]
    how = {"random_state": random_state, "n_jobs": n_jobs, "target": target, "bound": bound}
    for c, result in zip(grid, tune_releases(faces, grid, **how, **options), strict=True):
        labels = partition_for(faces, c, random_state)
        plain = result.trace[(result.trace["round"] == 0) & result.trace["found"]]
        weights = np.bincount(labels)[plain["label"]]
        rows.append(
            {
                **c._asdict(),
                "plain_loss": float(np.average(plain["loss"], weights=weights)) if len(plain) else np.nan,
                "plain_privacy": float(np.average(plain["success"], weights=weights)) if len(plain) else np.nan,
                "loss": result.loss, "privacy": result.privacy, "upper": result.upper, "bound": result.bound,
                "met": result.reason == _MET, "reason": result.reason,
                "unseen": result.checks.loc[result.checks["role"] == "unseen", "re_identification"].max(),
            }
        )  # fmt: skip
    table = pd.DataFrame(rows)
    table["worst"] = table[["privacy", "unseen"]].max(axis=1)
    table["front"] = pareto_front(table, "loss", "worst")
    return table.drop(columns="worst").sort_values(
        ["met", "loss"], ascending=[False, True], ignore_index=True
    )
