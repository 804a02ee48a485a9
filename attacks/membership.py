"""Is a person in the release at all? The people who were left out are the control.

These attacks need a release of some people and a gallery that also holds others.
"""

from __future__ import annotations

from dataclasses import replace

import numpy as np

import checks
import intervals
from attacks.cases import AttackResult, DescribedRelease, Gallery, distances
from attacks.thresholds import sort_pairs

#: The share of people outside the release whom the attacker may wrongly report.
_FALSE_POSITIVES = 0.1


def _split(release: DescribedRelease, gallery: Gallery) -> tuple[np.ndarray, np.ndarray]:
    """Which people of the gallery are in the release, bool (p,), and the images with a face (all if none), (c', d)."""
    gallery.check_holds(release.cases["person"])
    members = np.isin(gallery.people, np.asarray(release.identities, dtype=str))
    if members.all():
        raise checks.NotApplicableError("needs people who are not in the release; pass part=")
    shown = release.found if np.any(release.found) else slice(None)
    return members, release.descriptors[shown]


def _counted(release: DescribedRelease, gallery: Gallery, members: np.ndarray) -> np.ndarray:
    """All people but the members whose images show no face: bool (p,)."""
    cases = release.cases
    return ~members | np.isin(gallery.people, cases.loc[~cases["failed"], "person"].to_numpy(dtype=str))


def membership(release: DescribedRelease, gallery: Gallery, *, random_state=0) -> list[AttackResult]:
    """Tell people in the release from people who were left out.

    Threat model: the attacker has named photos of a person and the whole release, and asks only whether this person is
    in it. Their evidence is the distance from the person's nearest photo to the nearest image, as in the membership
    test of Jeon et al., "k-SALSA" (ECCV 2022).

    Returns
    -------
    list of AttackResult
        - ``"membership"``: the chance that a member lies nearer to the release than a person who was left out (the area
          under the ROC curve). Chance: 0.5.
        - ``"membership at FPR 0.1"``: the share of members who are found if at most this share of the others is wrongly
          reported (false positive rate), which is also the chance.

        Intervals resample members and others.

    Raises
    ------
    NotApplicableError
        If everyone in the gallery is in the release.
    """
    members, images = _split(release, gallery)
    nearest = gallery.distances_from(images).min(axis=0)  # (p,)
    counted = _counted(release, gallery, members)
    curve = sort_pairs(nearest[counted], members[counted])

    def area(weights: np.ndarray | None = None) -> float:
        ends = curve(weights)
        return float(np.trapezoid(ends.true_accept_rate, ends.false_accept_rate))

    def found(weights: np.ndarray | None = None) -> float:
        return curve(weights).at(_FALSE_POSITIVES)[1]

    # The share of others who are farther than each member, ties count half. (m,)
    own, others = nearest[members, None], nearest[~members]
    farther = (others > own).mean(axis=1) + (others == own).mean(axis=1) / 2
    reported = own[:, 0] <= curve().at(_FALSE_POSITIVES)[0]
    note, results = f"{members.sum()} members, {(~members).sum()} others", []
    for name, success, statistic, chance in (
        ("membership", farther, area, 0.5),
        (f"membership at FPR {_FALSE_POSITIVES:g}", reported, found, _FALSE_POSITIVES),
    ):
        of_person = dict(zip(gallery.people[members], success.astype(float), strict=True))
        table = release.cases.assign(success=release.cases["person"].map(of_person))
        result = AttackResult.of_cases(name, "person", table, chance, random_state, note)
        if 0 < result.rate < 1:  # else the exact interval
            low, high = intervals.bootstrap_interval(statistic, gallery.people[counted], random_state)
            result = replace(result, low=low, high=high)
        results.append(result)
    return results


def control(
    release: DescribedRelease, gallery: Gallery, threshold: float, *, random_state=0
) -> list[AttackResult]:
    """Subtract what the same attack finds for people who are not in the release.

    Threat model: a face verification system compares each photo with the whole release and reports a match if any
    image is nearer than a threshold. For people outside the release every match is wrong, so only the rate that exceeds
    theirs is due to the release. Giomi et al., "A Unified Framework for Quantifying Privacy Risk in Synthetic Data"
    (Anonymeter, PoPETs 2023), equation 1.

    Returns
    -------
    list of one AttackResult
        ``"accepted, minus control"``: the accepted share of the members' photos minus that of the others' photos, from
        -1 to 1. Chance: 0. The note gives both rates and the risk, (rate - control) / (1 - control). The interval is
        Newcombe's for a difference ("Interval estimation for the difference between independent proportions",
        Statistics in Medicine 17, 1998, method 10).

    Raises
    ------
    NotApplicableError
        If everyone in the gallery is in the release, or the threshold is NaN.
    """
    members, images = _split(release, gallery)
    if np.isnan(threshold):
        raise checks.NotApplicableError("needs a threshold, got NaN")
    near = distances(gallery.descriptors, images).min(axis=1) < threshold  # (g,)
    person = np.searchsorted(gallery.people, np.asarray(gallery.identities, dtype=str))
    share = np.bincount(person, near) / np.bincount(person)  # (p,)
    rates, bounds = [], []
    for group in (members & _counted(release, gallery, members), ~members):
        rates.append(intervals.mean(share[group]))
        bounds.append(intervals.rate_interval(share[group], gallery.people[group], random_state))
    (rate, base), ((low, high), (base_low, base_high)) = rates, bounds
    excess = rate - base
    of_person = dict(zip(gallery.people[members], share[members] - base, strict=True))
    table = release.cases.assign(success=release.cases["person"].map(of_person))
    risk = f", risk {excess / (1 - base):.3f}" if base < 1 else ""
    note = f"members {rate:.3f}, control {base:.3f}{risk}"
    result = AttackResult.of_cases("accepted, minus control", "person", table, 0.0, random_state, note)
    low, high = (
        excess - np.hypot(rate - low, base_high - base),
        excess + np.hypot(high - rate, base - base_low),
    )
    worst = intervals.mean(np.where(table["failed"], 1 - base, table["success"]))
    return [replace(result, rate=excess, low=float(low), high=float(high), rate_worst=worst)]
