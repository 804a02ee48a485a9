"""Decide by a threshold whether two photos show one person: verification, calibration and acceptance."""

from __future__ import annotations

from collections.abc import Callable, Sequence
from dataclasses import dataclass, replace

import numpy as np
import pandas as pd

import checks
import intervals
import utils
from attacks.cases import AttackResult, DescribedRelease, Gallery, distances, members_of

#: A false accept rate is not estimated if it corresponds to fewer impostor pairs than this.
_PAIRS_PER_RATE = 10

#: Number of bootstrap resamples of a threshold or a point on a curve; each takes a pass over all pairs.
_N_CURVE_RESAMPLES = 200

#: Curves are drawn over about this many pairs at most.
_MAX_PAIRS = 500_000


@dataclass(frozen=True, eq=False)
class Curve:
    """A receiver operating characteristic: accepted shares for each threshold, from none to all pairs.

    Attributes
    ----------
    threshold : ndarray, shape (t,)
        Pairs at this distance or nearer are accepted; the first is -inf.
    false_accept_rate, true_accept_rate : ndarray, shape (t,)
        Accepted shares of impostor and genuine pairs, increasing.
    """

    threshold: np.ndarray
    false_accept_rate: np.ndarray
    true_accept_rate: np.ndarray

    @property
    def equal_error_rate(self) -> float:
        """The error rate at which false rejections equal false acceptances, interpolated linearly between points."""
        gap = self.false_accept_rate + self.true_accept_rate - 1  # rises from -1 to 1
        after = int(np.argmax(gap >= 0))
        before = max(after - 1, 0)
        share = -gap[before] / (gap[after] - gap[before]) if after else 0.0
        step = self.false_accept_rate[after] - self.false_accept_rate[before]
        return float(self.false_accept_rate[before] + share * step)

    def at(self, false_accept_rate: float) -> tuple[float, float]:
        """Return the largest threshold with at most this false accept rate, and its true accept rate."""
        i = int(np.searchsorted(self.false_accept_rate, false_accept_rate + 1e-12, side="right")) - 1
        return float(self.threshold[i]), float(self.true_accept_rate[i])


def sort_pairs(distance: np.ndarray, genuine: np.ndarray) -> Callable[..., Curve]:
    """Sort pairs by distance, once for all curves; return ``curve(weights)``, which weights each pair."""
    order = np.argsort(distance, kind="stable")
    distance, genuine = distance[order], genuine[order]
    ends = np.flatnonzero(np.append(distance[1:] != distance[:-1], True))  # of each run of equal distances

    def curve(weights: np.ndarray | None = None) -> Curve:
        w = np.ones(len(order)) if weights is None else weights[order]
        good, bad = np.cumsum(w * genuine)[ends], np.cumsum(w * ~genuine)[ends]
        return Curve(
            np.append(-np.inf, distance[ends]),
            np.append(0.0, bad / max(bad[-1], 1e-300)),
            np.append(0.0, good / max(good[-1], 1e-300)),
        )

    return curve


def roc(genuine: np.ndarray, impostor: np.ndarray) -> Curve:
    """Compute the curve from distances between images of one person and of different people.

    Raises
    ------
    ValueError
        If either is empty or not finite.
    """
    genuine, impostor = np.ravel(genuine).astype(float), np.ravel(impostor).astype(float)
    pairs = np.concatenate([genuine, impostor])
    if not len(genuine) or not len(impostor) or not np.isfinite(pairs).all():
        raise ValueError(
            f"a curve needs genuine and impostor pairs at finite distances, got {len(genuine)} and {len(impostor)} "
            f"pairs, {int((~np.isfinite(pairs)).sum())} of them not finite"
        )
    return sort_pairs(pairs, np.arange(len(pairs)) < len(genuine))()


def verification(
    release: DescribedRelease,
    gallery: Gallery,
    false_accept_rates: Sequence[float] = (1e-2, 1e-3),
    *,
    random_state=0,
) -> list[AttackResult]:
    """Decide whether an original photo and a released image show the same person (original to surrogate).

    Threat model: the attacker has a named photo of one person and asks whether this person is behind a released
    image. A pair is genuine if the person is among those who share the image.

    Returns
    -------
    list of AttackResult
        ``"EER"`` (0 for a perfect attacker, 0.5 for a random one), and ``"TAR at FAR ..."`` for each false accept
        rate, which is also its chance. ``per_person``: the share of a person's genuine pairs that is accepted at that
        threshold. A false accept rate below 10 / number of impostor pairs is "not estimable".

    Raises
    ------
    NotApplicableError
        If there are no genuine or no impostor pairs.
    """
    distance = distances(gallery.descriptors, release.descriptors)  # (g, c)
    genuine = members_of(release.cases, gallery.identities, len(release.descriptors)).T  # (g, c)
    failed = np.broadcast_to(~np.asarray(release.found), genuine.shape)
    return _verify(distance, genuine, failed, gallery.identities, false_accept_rates, random_state)


def verification_across(
    first: DescribedRelease,
    second: DescribedRelease,
    false_accept_rates: Sequence[float] = (1e-2, 1e-3),
    *,
    random_state=0,
) -> list[AttackResult]:
    """Decide whether images of two releases show the same person (surrogate to surrogate).

    Threat model: two releases of the same people, made with another k, seed or photo, and no original photos. A pair is
    genuine if one person is behind both images. Returns and raises as `verification`; names end in "across".
    """
    cases = first.cases
    shared = cases.merge(second.cases, on="person", suffixes=("", "_other"))
    genuine = np.zeros((len(first.descriptors), len(second.descriptors)), dtype=bool)
    genuine[shared["image"], shared["image_other"]] = True
    # Compare each case of the first release with each image of the second. (m, c2)
    image, people = cases["image"].to_numpy(), cases["person"].to_numpy(dtype=str)
    distance = distances(first.descriptors, second.descriptors)[image]
    failed = cases["failed"].to_numpy()[:, None] | ~np.asarray(second.found)
    results = _verify(distance, genuine[image], failed, people, false_accept_rates, random_state)
    return [replace(result, attack=f"{result.attack} across") for result in results]


def _verify(distance, genuine, failed, owners, false_accept_rates, random_state) -> list[AttackResult]:
    """Verify pairs of c images and r photos or cases, each with one owner (r,); the other arrays are (r, c)."""
    random = utils.check_random_state(random_state)
    # Draw rows if there are too many pairs.
    most = max(1, _MAX_PAIRS // distance.shape[1])
    if len(distance) > most:
        rows = np.sort(random.choice(len(distance), most, replace=False))
        distance, genuine, failed, owners = distance[rows], genuine[rows], failed[rows], owners[rows]
    n_genuine, n_impostors = (int((kind & ~failed).sum()) for kind in (genuine, ~genuine))
    if not n_genuine or not n_impostors:
        raise checks.NotApplicableError(
            f"verification needs genuine and impostor pairs with a face, got {n_genuine} and {n_impostors}"
        )
    # Compute the curves over pairs with a face, and over all pairs.
    curve_under = sort_pairs(distance[~failed], genuine[~failed])
    curve, everything = curve_under(), sort_pairs(distance.ravel(), genuine.ravel())()
    # Resample the owners of the pairs.
    people, owner = np.unique(owners, return_inverse=True)
    owner = np.broadcast_to(owner[:, None], genuine.shape)[~failed]  # (pairs,)
    weights = intervals.resampling_weights(len(people), _N_CURVE_RESAMPLES, random)
    resampled = [curve_under(w[owner]) for w in weights]
    resampled = [c for c in resampled if c.true_accept_rate[-1] > 0 and c.false_accept_rate[-1] > 0]
    # List the genuine pairs, which show how well each person is recognised.
    row, image = np.nonzero(genuine)
    own = pd.DataFrame({"person": owners[row], "image": image, "failed": failed[row, image]})
    share_failed = float((genuine & failed).sum() / genuine.sum())
    results, nan = [], float("nan")
    for far in (None, *false_accept_rates):  # None reads the equal error rate

        def read(c: Curve, far: float | None = far) -> float:
            return c.equal_error_rate if far is None else c.at(far)[1]

        rate = read(curve)
        threshold = curve.at(rate if far is None else far)[0]
        own["success"] = (distance[row, image] <= threshold).astype(float)
        table = own.groupby(["person", "image"], as_index=False).agg({"failed": "all", "success": "mean"})
        if far is not None and far * n_impostors < _PAIRS_PER_RATE:
            table["success"] = nan
            rates, note = [nan] * 5, _too_few_pairs(far, n_impostors)
        else:
            # A genuine pair without a face is no error at worst, or accepted.
            worst = rate * (1 - share_failed) + (0.0 if far is None else share_failed)
            bounds = intervals.percentile_interval([read(c) for c in resampled])
            rates = [rate, *bounds, read(everything), worst]
            note = f"threshold {threshold:.3f}, {n_impostors} impostor pairs"
        name, chance = ("EER", 0.5) if far is None else (f"TAR at FAR {far:g}", far)
        n_failed = int(table["failed"].sum())
        results.append(AttackResult(name, "pair", *rates, chance, len(table), n_failed, table, note))
    return results


def _too_few_pairs(rate: float, n_impostors: int) -> str:
    return f"not estimable: FAR {rate:g} needs {_PAIRS_PER_RATE / rate:.0f} impostor pairs, got {n_impostors}"


@dataclass(frozen=True)
class Threshold:
    """A distance below which two photos count as one person, and the target of its calibration.

    Attributes
    ----------
    value, low, high : float
        The threshold, and its 95 % bootstrap interval. NaN with a `note` if it cannot be estimated.
    false_accept_rate : float
        The target: at most this share of impostor pairs is nearer than the threshold.
    true_accept_rate : float
        Share of genuine pairs that are nearer; NaN without genuine pairs.
    n_impostors, n_genuine : int
        Number of pairs used for the estimate.
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
    """Calibrate the threshold of a recogniser on original photos of the data at hand.

    The paper's 0.6 (`PAPER_THRESHOLD`) was chosen for dlib on another population; its error rates here must be
    measured.

    Parameters
    ----------
    descriptors : ndarray, shape (n, d)
    identities : ndarray of str, shape (n,)
    false_accept_rate : float, default 0.01
        Share of pairs of different people that may be nearer than the threshold, between 0 and 1.
    random_state : int, RandomState or None, default 0
        Seed for the interval, and for drawing 1000 photos if there are more.

    Returns
    -------
    Threshold
        The interval resamples people: the weight of a pair is the product of its people's counts.

    Raises
    ------
    ValueError
        For a false accept rate out of range, or without pairs of different people.
    """
    checks.check_number("false_accept_rate", false_accept_rate, above=0, below=1)
    photos = Gallery(descriptors, np.asarray(identities, dtype=str))
    random = utils.check_random_state(random_state)
    # Draw photos if there are too many pairs.
    rows, most = slice(None), int(np.sqrt(2 * _MAX_PAIRS))
    if len(descriptors) > most:
        rows = random.choice(len(descriptors), most, replace=False)
    # Split all pairs into genuine and impostor pairs. (n * (n - 1) / 2,)
    people, person = np.unique(photos.identities[rows], return_inverse=True)
    first, second = np.triu_indices(len(person), k=1)
    distance = distances(descriptors[rows], descriptors[rows])[first, second]
    genuine = person[first] == person[second]
    n_impostors, n_genuine = int((~genuine).sum()), int(genuine.sum())
    if n_impostors == 0:
        raise ValueError("a threshold needs photos of at least two people, got one person")
    if false_accept_rate * n_impostors < _PAIRS_PER_RATE:
        note, nan = _too_few_pairs(false_accept_rate, n_impostors), float("nan")
        return Threshold(nan, nan, nan, false_accept_rate, nan, n_impostors, n_genuine, note)
    # Read the threshold off the sorted impostor distances.
    order = np.argsort(distance[~genuine], kind="stable")
    impostors = distance[~genuine][order]
    ends = person[first[~genuine][order]], person[second[~genuine][order]]
    value = float(impostors[int(false_accept_rate * n_impostors)])
    # Repeat this with pairs weighted by the product of their people's counts.
    resampled = []
    for w in intervals.resampling_weights(len(people), _N_CURVE_RESAMPLES, random):
        share = np.cumsum(w[ends[0]] * w[ends[1]])
        if share[-1]:
            i = np.searchsorted(share, false_accept_rate * share[-1], side="right")
            resampled.append(impostors[min(i, n_impostors - 1)])
    accepted = intervals.mean(distance[genuine] < value)
    return Threshold(
        value, *intervals.percentile_interval(resampled), false_accept_rate, accepted, n_impostors, n_genuine
    )


def stranger_share(release: DescribedRelease, gallery: Gallery, threshold: float) -> float:
    """Share of pairs of an image and a stranger's photo that a threshold accepts: a baseline for re-identification.

    Only images with a face count. A stranger is anyone in the gallery who is not behind the image. NaN if there are no
    pairs, or if the threshold is NaN.
    """
    strangers = ~members_of(release.cases, gallery.identities, len(release.descriptors))
    strangers &= np.asarray(release.found)[:, None]
    if np.isnan(threshold) or not strangers.any():
        return float("nan")
    return intervals.mean(distances(release.descriptors, gallery.descriptors)[strangers] < threshold)


def acceptance(
    release: DescribedRelease, gallery: Gallery, threshold: float, *, random_state=0
) -> list[AttackResult]:
    """Match an original photo and a released image if they are nearer than a threshold.

    Threat model: a face verification system is shown a released image. Its threshold was calibrated on original photos
    (`calibrate_threshold`) or recommended by its maker (`PAPER_THRESHOLD`). If the gallery holds the originals of the
    released images, this is the paper's re-identification rate.

    Returns
    -------
    list of one AttackResult
        ``"accepted"``. Success: accepted share of a person's gallery photos. Chance: `stranger_share`.

    Raises
    ------
    ValueError
        If a released person is not in the gallery.
    NotApplicableError
        If the threshold is NaN.
    """
    if np.isnan(threshold):
        raise checks.NotApplicableError("acceptance needs a threshold, got NaN")
    cases = release.cases
    gallery.check_holds(cases["person"])
    nearer = distances(release.descriptors, gallery.descriptors) < threshold  # (c, g)
    own = cases["person"].to_numpy(dtype=str)[:, None] == gallery.identities  # (m, g)
    table = cases.assign(success=(nearer[cases["image"]] & own).sum(axis=1) / own.sum(axis=1))
    chance = stranger_share(release, gallery, threshold)
    return [AttackResult.of_cases("accepted", "pair", table, chance, random_state)]
