"""Mixing weights that meet a privacy target at the least loss; and the best of many combinations.

The paper (Le et al., "AnonFACES: Anonymizing Faces Adjusted to Constraints on Efficacy and Security", WPES 2020)
shrinks mixtures until the re-identification rate over the data set is at most 1/k: see `anonymizer.styleGan`. Two
things are amiss. Re-identification and information loss are two readings of the same distances, so what is tuned is
also what judges; and an average hides clusters in which everybody is re-identified. Here a target holds for every
cluster and for the whole release, there on an upper confidence bound; the search is bounded and keeps the best; and the
outcome is checked by recognisers that took no part.
"""

from __future__ import annotations

import itertools
from collections.abc import Callable, Iterable, Sequence
from dataclasses import dataclass

import numpy as np
import pandas as pd
from scipy import stats

import anonymizer
import attacks
import detection
import embedding
import evaluation
import utils
from datasets import Faces

#: Shares of the way from everybody's average to the cluster's mixture that are tried, the least change first.
STRENGTHS = (1.0, 0.85, 0.7, 0.55, 0.4, 0.25, 0.1, 0.0)
#: How often the weights of members who are still recognised are halved, and the steps that refine a strength.
REWEIGHTINGS, REFINEMENTS = 4, 3
#: The others' average is taken over at most so many photos, drawn by the seed.
AVERAGE_OVER = 60

MET = "target met in every cluster and, by its upper confidence bound, over the release"
CLUSTERS_ONLY = (
    "target met in every cluster; too few people for the upper confidence bound over the release to meet it"
)
NOT_MET = "target not met in {} of {} clusters within the bound of the search; the best found is kept"


@dataclass(frozen=True, eq=False)
class Tuning:
    """What `tune` found.

    Attributes
    ----------
    weights : ndarray of float64, shape (c, n)
        For each cluster the weight of every photo; rows sum to 1. ``model.surrogate(rows, weights)`` with those above
        0 draws the image again.
    images : list of uint8 arrays (h, w, 3)
        One for each cluster.
    loss : float
        Information loss of the release: mean distance from a photo to its image.
    privacy : float
        Success rate of the target over all photos; those whose image shows no face count as recognised.
    upper : float
        Its upper confidence bound, see `release_upper_bound`. It is taken on the photos that were tuned on: what holds
        for other photos and recognisers is in `checks`.
    bound : float
        What was asked for.
    reason : str
        Why the search stopped.
    clusters : DataFrame
        A row for each cluster: ``label n_people strength loss success met found``.
    trace : DataFrame
        A row for everything that was tried: ``label round strength step loss success found chosen``.
    checks : DataFrame
        See `check_release`; ``role`` says whether the search saw the recogniser.
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


@dataclass(frozen=True, eq=False)
class _Task:
    """What a search knows: photos as the recogniser sees them, and the adversary's gallery."""

    faces: Faces
    model: anonymizer.Surrogates
    descriptors: np.ndarray
    gallery: attacks.Gallery
    recogniser: str
    threshold: float
    succeeds: Callable
    largest: float | None
    confidence: float


@dataclass(frozen=True, eq=False)
class _Candidate:
    """One image for a cluster, measured. `hits` (m,) says which members the attack succeeds for; all without a face."""

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


def _reidentified(task: _Task, descriptor: np.ndarray, members: np.ndarray) -> np.ndarray:
    """The paper's measure: which members' photos are nearer to the image than the threshold (m,)."""
    return np.linalg.norm(task.descriptors[members] - descriptor, axis=1) < task.threshold


def _led_to_cluster(task: _Task, descriptor: np.ndarray, members: np.ndarray) -> np.ndarray:
    """All members where the nearest gallery face belongs to the cluster, else none (m,)."""
    nearest = np.linalg.norm(task.gallery.descriptors - descriptor, axis=1).argmin()
    hit = task.gallery.identities[nearest] in set(task.faces.identities[members])
    return np.full(len(members), hit)


def _led_to_person(task: _Task, descriptor: np.ndarray, members: np.ndarray) -> np.ndarray:
    """The members whom the nearest gallery face shows (m,)."""
    nearest = np.linalg.norm(task.gallery.descriptors - descriptor, axis=1).argmin()
    return task.faces.identities[members] == task.gallery.identities[nearest]


def _whole(faces: Faces, clusters: Sequence[np.ndarray]) -> float:
    return 1.0


def _one_person(faces: Faces, clusters: Sequence[np.ndarray]) -> float:
    """Largest share of a cluster's photos that one person has."""
    counts = [np.unique(faces.identities[members], return_counts=True)[1] for members in clusters]
    return float(max(c.max() / c.sum() for c in counts))


#: Targets that an image meets or misses as a whole, and the share of its photos for which it can succeed at most.
LARGEST_SHARES: dict[str, Callable] = {"rank1_cluster": _whole, "rank1_person": _one_person}

#: What can be kept below a bound, by name: for each member, whether the attack succeeds.
TARGETS: dict[str, Callable] = {
    "reid": _reidentified,
    "rank1_cluster": _led_to_cluster,
    "rank1_person": _led_to_person,
}


def tune(
    faces: Faces,
    labels: np.ndarray,
    model: anonymizer.Surrogates,
    target: str = "reid",
    bound: float | None = None,
    *,
    recogniser: str = "dlib",
    threshold: float = evaluation.DLIB_THRESHOLD,
    confidence: float = 0.95,
    strengths: Sequence[float] = STRENGTHS,
    checks: Sequence[str] | None = None,
    random_state=0,
) -> Tuning:
    """Find for each cluster the mixture with the least loss that keeps an attack below a bound.

    Two levers are used: the mixture is pulled towards the average of all other people, and members who are still
    recognised count for less. The first pull that meets the bound is refined by bisection. As long as the upper
    confidence bound over the whole release is above the bound, clusters are searched for images with no success at all,
    and take another of their candidates, the cheapest step first.

    Parameters
    ----------
    faces : Faces
    labels : ndarray of int, shape (n,)
        The cluster of each photo.
    model : Surrogates
        Made for these faces.
    target : {"reid", "rank1_cluster", "rank1_person"}
        What is kept low: the paper's re-identification rate, or a gallery search that leads to the cluster or to the
        person.
    bound : float, optional
        Largest rate allowed, above 0 and at most 1; 1/k by default, with k the people of the smallest cluster.
    recogniser : str, default "dlib"
        The embedding by which target and loss are measured.
    threshold : float, default 0.6
        For ``"reid"``.
    confidence : float, default 0.95
        Of the bound over the release, one-sided.
    strengths : sequence of float
        Shares of the cluster's own mixture that are tried, from 0 to 1.
    checks : sequence of str, optional
        Recognisers for the check, see `recognisers.prepare`; by default all of `recognisers.available`.
    random_state : int, RandomState or None, default 0
        Whose photos make up the others' average, where there are very many.

    Returns
    -------
    Tuning

    Raises
    ------
    ValueError
        If labels or model do not fit the photos, or for options out of range.
    """
    if not isinstance(model, anonymizer.Surrogates):
        raise ValueError(f"the anonymizer {model.name!r} mixes nobody; tune one that makes surrogates")
    if target not in TARGETS:
        raise ValueError(f"unknown target {target!r}; there is {', '.join(map(repr, TARGETS))}")
    clusters = evaluation.clusters_of(faces, model, labels)
    sizes = [len(np.unique(faces.identities[members])) for members in clusters]
    bound = 1 / min(sizes) if bound is None else bound
    if not 0 < bound <= 1:
        raise ValueError(f"bound must be a rate above 0 and at most 1, not {bound!r}")
    if not 0 < confidence < 1:
        raise ValueError(f"confidence must lie between 0 and 1, not {confidence!r}")
    strengths = sorted({float(strength) for strength in strengths}, reverse=True)
    if not strengths or not 0 <= strengths[-1] <= strengths[0] <= 1:
        raise ValueError(f"strengths must be numbers from 0 to 1, at least one, not {strengths!r}")
    descriptors = embedding.embed(faces, recogniser)
    task = _Task(
        faces, model, descriptors, evaluation.clear_gallery(faces, recogniser), recogniser, threshold,
        TARGETS[target], LARGEST_SHARES[target](faces, clusters) if target in LARGEST_SHARES else None, confidence,
    )  # fmt: skip
    random = utils.check_random_state(random_state)
    averages = [_average_of_others(faces, members, random) for members in clusters]
    tried = [
        _search(task, members, bound, strengths, average)
        for members, average in utils.progress(list(zip(clusters, averages, strict=True)), "tuning clusters")
    ]
    chosen = [_best(candidates, bound) for candidates in tried]
    if _upper(task, chosen) > bound:
        further = [i for i, candidate in enumerate(chosen) if candidate.hits.any()]
        for i in utils.progress(further, "tuning further"):
            tried[i] += _search(task, clusters[i], 0.0, strengths, averages[i])
        chosen = _tighten(task, chosen, tried, bound)
    return _result(task, labels, clusters, sizes, tried, chosen, bound, checks)


def _average_of_others(faces: Faces, members: np.ndarray, random: np.random.RandomState) -> np.ndarray:
    """Weights (n,) of all but the members, every person counting the same; of everybody if nobody else is there."""
    rows = np.setdiff1d(np.arange(len(faces)), members)
    rows = np.arange(len(faces)) if len(rows) == 0 else rows
    if len(rows) > AVERAGE_OVER:
        rows = random.choice(rows, AVERAGE_OVER, replace=False)
    return _own_weights(faces, rows, np.ones(len(rows)))


def _own_weights(faces: Faces, members: np.ndarray, shares: np.ndarray) -> np.ndarray:
    """Weights (n,) of a mixture of some photos, each person divided over theirs."""
    _, person, photos = np.unique(faces.identities[members], return_inverse=True, return_counts=True)
    weights = np.zeros(len(faces))
    weights[members] = shares / photos[person]
    return weights / weights.sum()


def _measure(task: _Task, members: np.ndarray, weights: np.ndarray, strength: float, step: str) -> _Candidate:
    rows = np.flatnonzero(weights)
    image = task.model.surrogate(rows, weights[rows])
    descriptor, found = _describe([image], task.recogniser)
    if not found[0]:
        return _Candidate(
            weights, strength, step, image, False, float("nan"), np.ones(len(members), dtype=bool)
        )
    loss = float(np.linalg.norm(task.descriptors[members] - descriptor[0], axis=1).mean())
    return _Candidate(weights, strength, step, image, True, loss, task.succeeds(task, descriptor[0], members))


def _describe(images: Sequence[np.ndarray], recogniser: str) -> tuple[np.ndarray, np.ndarray]:
    """Descriptors (c, d) of images, and which of them show a face (c,)."""
    return embedding.embed(images, recogniser), detection.detect(images).found


def _search(
    task: _Task, members: np.ndarray, bound: float, strengths: Sequence[float], average: np.ndarray
) -> list[_Candidate]:
    """Try mixtures for one cluster; returns all of them."""
    shares, tried = np.ones(len(members)), []

    def measure(strength: float, step: str) -> _Candidate:
        weights = strength * _own_weights(task.faces, members, shares) + (1 - strength) * average
        tried.append(_measure(task, members, weights, strength, step))
        return tried[-1]

    def meets(candidate: _Candidate) -> bool:
        return candidate.found and candidate.success <= bound

    above = None
    for strength in strengths:  # pull towards the average until the bound is met
        candidate = measure(strength, "shrink")
        if meets(candidate):
            break
        above = strength
    if meets(candidate) and above is not None:  # the least pull lies between the last two
        below = strength
        for _ in range(REFINEMENTS):
            middle = (above + below) / 2
            above, below = (above, middle) if meets(measure(middle, "refine")) else (middle, below)
    last = tried[0]
    for _ in range(REWEIGHTINGS):  # members who are still recognised count for half
        if meets(last) or not last.found or last.hits.all() or not last.hits.any():
            break
        shares = np.where(last.hits, shares / 2, shares)
        last = measure(strengths[0], "reweight")
    return tried


def _best(candidates: Sequence[_Candidate], bound: float) -> _Candidate:
    """Least loss among those that meet the bound; else the lowest success, a face coming first."""
    met = [c for c in candidates if c.found and c.success <= bound]
    if met:
        return min(met, key=lambda c: c.loss)
    return min(candidates, key=lambda c: (not c.found, c.success, c.loss if c.found else 0.0))


def upper_bound(successes: int, n: int, confidence: float = 0.95) -> float:
    """One-sided upper confidence bound of a rate (Clopper and Pearson, Biometrika 1934).

    Parameters
    ----------
    successes, n : int
    confidence : float, default 0.95

    Returns
    -------
    float
        At least ``successes / n``.
    """
    if not 0 <= successes <= n or n < 1:
        raise ValueError(f"{successes} successes of {n} trials are no rate")
    return 1.0 if successes == n else float(stats.beta.ppf(confidence, successes + 1, n - successes))


def release_upper_bound(
    hits: Sequence[np.ndarray], confidence: float = 0.95, largest: float | None = None
) -> float:
    """One-sided upper confidence bound of the success rate over a release, whose clusters are more alike inside.

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
        `upper_bound` of clusters times `largest`; or, without `largest`, for as many independent photos as have the
        variance that is seen between clusters, at most all of them (Korn and Graubard, "Confidence intervals for
        proportions with small expected number of positive counts estimated from survey data", Survey Methodology 24,
        1998).
    """
    sizes, successes = np.array([len(h) for h in hits]), np.array([h.sum() for h in hits])
    if largest is not None:
        return largest * upper_bound(int((successes > 0).sum()), len(hits), confidence)
    n, rate = sizes.sum(), successes.sum() / sizes.sum()
    if rate == 1:
        return 1.0
    spread = ((successes - rate * sizes) ** 2).sum() * len(hits) / max(len(hits) - 1, 1) / n**2
    effective = min(n, rate * (1 - rate) / spread) if spread > 0 else n
    return float(stats.beta.ppf(confidence, rate * effective + 1, (1 - rate) * effective))


def _upper(task: _Task, chosen: Sequence[_Candidate]) -> float:
    return release_upper_bound([c.hits for c in chosen], task.confidence, task.largest)


def _tighten(
    task: _Task, chosen: list[_Candidate], tried: Sequence[Sequence[_Candidate]], bound: float
) -> list[_Candidate]:
    """Let clusters take candidates with fewer successes, the cheapest first, until the release's bound holds."""
    chosen = list(chosen)
    while _upper(task, chosen) > bound:
        steps = []
        for i, candidates in enumerate(tried):
            for candidate in candidates:
                gain = int(chosen[i].hits.sum()) - int(candidate.hits.sum())
                if candidate.found and gain > 0:
                    cost = len(candidate.hits) * (candidate.loss - chosen[i].loss if chosen[i].found else 0.0)
                    steps.append((cost / gain, i, candidate))
        if not steps:
            break
        _, i, candidate = min(steps, key=lambda step: step[:2])
        chosen[i] = candidate
    return chosen


def _result(task, labels, clusters, sizes, tried, chosen, bound, checks) -> Tuning:
    hits = np.concatenate([c.hits for c in chosen])
    upper = _upper(task, chosen)
    met = [c.found and c.success <= bound for c in chosen]
    reason = MET if upper <= bound else CLUSTERS_ONLY
    if not all(met):
        reason = NOT_MET.format(len(met) - sum(met), len(met))
    own = np.concatenate([np.full(len(c.hits), c.loss) for c in chosen if c.found] or [np.array([np.nan])])
    table = pd.DataFrame(
        {
            "label": range(len(chosen)),
            "n_people": sizes,
            "strength": [c.strength for c in chosen],
            "loss": [c.loss for c in chosen],
            "success": [c.success if c.found else np.nan for c in chosen],
            "met": met,
            "found": [c.found for c in chosen],
        }
    )
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
    images = [c.image for c in chosen]
    return Tuning(
        weights=np.stack([c.weights for c in chosen]),
        images=images,
        loss=float(own.mean()),
        privacy=float(hits.mean()),
        upper=upper,
        bound=float(bound),
        reason=reason,
        clusters=table,
        trace=trace,
        checks=check_release(task.faces, labels, images, task.recogniser, task.threshold, checks),
    )


def check_release(
    faces: Faces,
    labels: np.ndarray,
    images: Sequence[np.ndarray],
    seen: str = "dlib",
    threshold: float = evaluation.DLIB_THRESHOLD,
    recognisers: Sequence[str] | None = None,
) -> pd.DataFrame:
    """Measure a release by several recognisers, to see whether a target holds for those that did not steer it.

    Parameters
    ----------
    faces : Faces
    labels : ndarray of int, shape (n,)
    images : sequence of c uint8 arrays (h, w, 3)
    seen : str
        The recogniser that steered.
    threshold : float
        For it. Others get the one at which 1 % of the impostor pairs of the clear photos are accepted.
    recognisers : sequence of str, optional
        By default all of `recognisers.available`, which take no part in clustering either.

    Returns
    -------
    DataFrame
        ``recogniser role note threshold re_identification re_identification_gallery rank1_cluster chance_cluster
        rank1_person stranger_share``, see `evaluation.measure`: ``_gallery`` is by other photos of the same people,
        where there are any, which no search has seen. ``clear_re_identification`` and ``clear_rank1`` are what clear
        photos give in place of the images. A recogniser that is missing, or cannot be fitted on this gallery, has NaN
        and a note.
    """
    photos, kind = attacks.gallery_faces(faces)
    names = list(dict.fromkeys([seen, *(recognisers.available() if recognisers is None else recognisers)]))
    kept = (
        "re_identification", "re_identification_gallery", "rank1_cluster", "chance_cluster", "rank1_person",
        "stranger_share",
    )  # fmt: skip
    columns = ("threshold", *kept, "clear_re_identification", "clear_rank1")
    found, rows = detection.detect(images).found, []
    for name in names:
        row = {"recogniser": name, "role": "steered" if name == seen else "unseen", "note": ""}
        try:
            describe = recognisers.prepare(name, photos)
        except (recognisers.MissingRecogniserError, recognisers.UnfitGalleryError) as error:
            rows.append({**row, **dict.fromkeys(columns, np.nan), "note": str(error)})
            continue
        descriptors, held = describe(faces), describe(photos)
        limit, note = threshold, ""
        if name != seen:
            both = kind != "same photos"
            calibrated = attacks.clear_threshold(
                np.concatenate([descriptors, held]) if both else held,
                np.concatenate([faces.identities, photos.identities]) if both else photos.identities,
            )
            limit, note = calibrated.value, calibrated.note
        gallery = attacks.Gallery(held, photos.identities, kind)
        release = attacks.DescribedRelease(describe(images), found, np.asarray(labels), faces.identities)
        every = np.arange(len(faces))
        plain = attacks.DescribedRelease(
            descriptors, np.ones(len(faces), dtype=bool), every, faces.identities
        )
        scores = evaluation.measure(release, descriptors, gallery, limit)
        clear = evaluation.measure(plain, descriptors, gallery, limit)
        if np.isnan(limit):  # nothing is nearer than no threshold
            for one in (scores, clear):
                one |= dict.fromkeys(("re_identification", "re_identification_gallery"), np.nan)
        baselines = {
            "clear_re_identification": clear["re_identification_gallery"],
            "clear_rank1": clear["rank1_person"],
        }
        rows.append(
            {**row, "note": note, "threshold": limit, **{key: scores[key] for key in kept}, **baselines}
        )
    return pd.DataFrame(rows)


def pareto_front(table: pd.DataFrame, loss: str = "information_loss", privacy: str = "re_identification"):
    """Which rows no other row beats in both columns; smaller is better in each.

    Parameters
    ----------
    table : DataFrame
        Such as `evaluation.sweep` returns.
    loss, privacy : str
        Columns.

    Returns
    -------
    ndarray of bool, shape (len(table),)
        Rows with NaN in either column are never on the front; equal rows all are.

    Raises
    ------
    ValueError
        If there is no such column.
    """
    missing = sorted({loss, privacy} - set(table.columns))
    if missing:
        raise ValueError(f"the table has no column {missing[0]!r}; it has {', '.join(table.columns)}")
    points = table[[loss, privacy]].to_numpy(dtype=np.float64)  # (n, 2)
    order = np.lexsort((points[:, 1], points[:, 0]))
    front, best, last = np.zeros(len(points), dtype=bool), np.inf, (np.nan, np.nan)
    for i in order:
        if np.isnan(points[i]).any():
            continue
        if points[i, 1] < best or tuple(points[i]) == last:
            front[i], best, last = True, points[i, 1], tuple(points[i])
    return front


def strength_grid(
    faces: Faces,
    embeddings: Sequence[str] = ("dlib",),
    partitioners: Sequence[str] = ("balanced", "ward"),
    anonymizers: Sequence[str] = ("aam",),
    k_values: Iterable[int] = (5,),
    strengths: Sequence[float] = STRENGTHS,
    *,
    recogniser: str = "dlib",
    threshold: float = evaluation.DLIB_THRESHOLD,
    privacy: str = "rank1_cluster",
    random_state: int = 0,
) -> pd.DataFrame:
    """Measure every combination at every strength: the trade-off between privacy and loss, and its Pareto front.

    Parameters
    ----------
    faces : Faces
    embeddings, partitioners, anonymizers, k_values
        As for `evaluation.sweep`.
    strengths : sequence of float
        Shares of the clusters' own mixtures, the same for all clusters; the rest is the average of all others.
    recogniser, threshold
        As for `evaluation.sweep`.
    privacy : str, default "rank1_cluster"
        Which measure makes the front with the information loss.
    random_state : int, default 0

    Returns
    -------
    DataFrame
        A row for each: which, ``strength``, what `evaluation.measure` returns, and ``front``.
    """
    rows, descriptors = [], embedding.embed(faces, recogniser)
    gallery = evaluation.clear_gallery(faces, recogniser)
    grid = list(itertools.product(embeddings, partitioners, anonymizers, k_values))
    models = {name: anonymizer.load(name, faces) for name in dict.fromkeys(anonymizers)}
    for name, partitioner, generator, k in utils.progress(grid, "strengths"):
        labels = evaluation.partition_people(
            faces, embedding.embed(faces, name), partitioner, k, random_state
        )
        clusters = evaluation.clusters_of(faces, models[generator], labels)
        random = utils.check_random_state(random_state)
        ends = [
            (_own_weights(faces, members, np.ones(len(members))), _average_of_others(faces, members, random))
            for members in clusters
        ]
        for strength in strengths:
            mixtures = [strength * own + (1 - strength) * others for own, others in ends]
            images = [models[generator].surrogate(np.flatnonzero(w), w[w > 0]) for w in mixtures]
            release = attacks.DescribedRelease(*_describe(images, recogniser), labels, faces.identities)
            which = {"embedding": name, "partitioner": partitioner, "anonymizer": generator, "k": int(k)}
            scores = evaluation.measure(release, descriptors, gallery, threshold)
            rows.append({**which, "strength": float(strength), **scores})
    table = pd.DataFrame(rows)
    return table.assign(front=pareto_front(table, "information_loss", privacy))


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
    **options,
) -> pd.DataFrame:
    """Tune every combination, and mark those that nothing beats.

    Parameters
    ----------
    faces : Faces
    embeddings, partitioners, anonymizers, k_values
        As for `evaluation.sweep`.
    target, bound, **options
        As for `tune`.
    random_state : int, default 0

    Returns
    -------
    DataFrame
        A row for each combination: which, the untuned and tuned ``loss`` and ``privacy``, ``upper``, ``bound``, ``met``
        (by the upper bound), ``reason``, ``unseen`` (the highest re-identification by a recogniser that took no part),
        and ``front``: on the Pareto front of tuned loss against the worse of tuned and unseen rate. Sorted: those that
        meet the target first, then by loss.
    """
    rows = []
    grid = list(itertools.product(embeddings, partitioners, anonymizers, k_values))
    models = {name: anonymizer.load(name, faces) for name in dict.fromkeys(anonymizers)}
    for name, partitioner, generator, k in utils.progress(grid, "tuning combinations"):
        labels = evaluation.partition_people(
            faces, embedding.embed(faces, name), partitioner, k, random_state
        )
        result = tune(faces, labels, models[generator], target, bound, random_state=random_state, **options)
        plain = result.trace[(result.trace["round"] == 0) & result.trace["found"]]
        weights = np.bincount(labels)[plain["label"]]
        rows.append(
            {
                "embedding": name, "partitioner": partitioner, "anonymizer": generator, "k": int(k),
                "plain_loss": float(np.average(plain["loss"], weights=weights)) if len(plain) else np.nan,
                "plain_privacy": float(np.average(plain["success"], weights=weights)) if len(plain) else np.nan,
                "loss": result.loss, "privacy": result.privacy, "upper": result.upper, "bound": result.bound,
                "met": result.reason == MET, "reason": result.reason,
                "unseen": result.checks.loc[result.checks["role"] == "unseen", "re_identification"].max(),
            }
        )  # fmt: skip
    table = pd.DataFrame(rows)
    table["worst"] = table[["privacy", "unseen"]].max(axis=1)
    table["front"] = pareto_front(table, "loss", "worst")
    return table.drop(columns="worst").sort_values(
        ["met", "loss"], ascending=[False, True], ignore_index=True
    )
