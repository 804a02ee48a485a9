"""Search a gallery that also holds people who are not in the release."""

from __future__ import annotations

from collections.abc import Sequence

import numpy as np
import pandas as pd

import checks
import intervals
import utils
from attacks.cases import AttackResult, DescribedRelease, Gallery, distances, members_of
from attacks.search import Ranking, blind_chance

#: Random orders of the outsiders that a gallery grows by.
_N_ORDERS = 20

#: The share of searches for people outside the gallery that may return somebody.
_FALSE_POSITIVES = 0.1


def _search(
    release: DescribedRelease, gallery: Gallery, distractors: np.ndarray | None
) -> tuple[np.ndarray, np.ndarray]:
    """Distances to everybody (c, n), and who of them is behind each image, bool (c, n).

    The people in the gallery come first, then the distractors, who are a different person each.
    """
    gallery.check_holds(release.cases["person"])
    to_all = gallery.distances_from(release.descriptors)
    behind = members_of(release.cases, gallery.people, len(to_all))
    if distractors is not None:
        further = distances(release.descriptors, distractors)
        to_all = np.concatenate([to_all, further], axis=1)
        behind = np.concatenate([behind, np.zeros(further.shape, dtype=bool)], axis=1)
    if behind.any(axis=0).all():
        raise checks.NotApplicableError("needs people who are not in the release; pass part= or distractors=")
    return to_all, behind


def open_set(
    release: DescribedRelease, gallery: Gallery, distractors: np.ndarray | None = None, *, random_state=0
) -> list[AttackResult]:
    """Search a gallery of members and outsiders, and return nobody if the nearest person is too far.

    Threat model: the attacker's gallery holds the people in the release and many others, and the attacker does not know
    who is who.

    Parameters
    ----------
    release : DescribedRelease
    gallery : Gallery
    distractors : ndarray, shape (m, d), optional
        Descriptors of photos of further people, one photo each.
    random_state : int, RandomState or None, default 0

    Returns
    -------
    list of AttackResult
        - ``"open set: rank-1"`` (cluster): a member is nearest of all. Chance: a random person.
        - ``"open set: found at FPIR 0.1"`` (cluster): a member is nearest, and nearer than a threshold. Searches for
          each image without its own members in the gallery set the threshold: at most this share of them may return
          somebody (false-positive identification rate). The note gives the miss rate (FNIR), which is 1 - rate. Chance:
          a random person in this share of searches.
        - ``"k-map"`` (person): 1 / number of people who lie at least as near to the image as its farthest member, the
          success of an attacker who draws one of them. Chance: 1 / number of people. An image in a release is
          *k*-map anonymous if at least k people of the population match it (Sweeney 2001).

    Raises
    ------
    NotApplicableError
        If everyone in the gallery is in the release and there are no distractors.
    """
    to_all, behind = _search(release, gallery, distractors)
    cases, n = release.cases, to_all.shape[1]
    image, found = cases["image"].to_numpy(), np.asarray(release.found)
    hits = Ranking.of(to_all[image], behind[image]).hits(1)
    blind = blind_chance(cases, n, "cluster")
    # Search for each image without its members, and allow a share of these searches to return somebody.
    unmated = np.sort(np.where(behind, np.inf, to_all).min(axis=1)[found if found.any() else slice(None)])
    allowed = int(_FALSE_POSITIVES * len(unmated) + 1e-9)
    returned = to_all.min(axis=1)[image] < unmated[allowed]
    rate = intervals.mean((hits * returned)[~cases["failed"]])
    # Count the people who lie as near as the farthest member.
    radius = np.where(behind, to_all, -np.inf).max(axis=1, keepdims=True)
    matches = (to_all <= radius).sum(axis=1)  # (c,)
    outsiders = matches - behind.sum(axis=1)
    everybody = f"{n} people in the gallery"
    named = (
        ("open set: rank-1", "cluster", hits, blind, everybody),
        (
            f"open set: found at FPIR {_FALSE_POSITIVES:g}", "cluster", hits * returned, _FALSE_POSITIVES * blind,
            f"{everybody}; FNIR {1 - rate:.3f}; {allowed} of {len(unmated)} searches without mates return somebody",
        ),
        (
            "k-map", "person", 1 / matches[image], 1 / n,
            f"outsiders as near as the members: median {np.median(outsiders):.0f}, at least {outsiders.min()}",
        ),
    )  # fmt: skip
    return [
        AttackResult.of_cases(name, level, cases.assign(success=success), chance, random_state, note)
        for name, level, success, chance, note in named
    ]


def rank1_over_gallery(
    release: DescribedRelease,
    gallery: Gallery,
    distractors: np.ndarray | None = None,
    sizes: Sequence[int] | None = None,
    *,
    random_state=0,
) -> pd.DataFrame:
    """How the success of a search falls as outsiders are added to the gallery.

    Parameters
    ----------
    release, gallery, distractors
        As for `open_set`.
    sizes : sequence of int, optional
        Numbers of people in the gallery, from the number of members to that of everybody; by default five, evenly
        spaced on a logarithmic scale.
    random_state : int, RandomState or None, default 0
        Draws 20 orders in which outsiders join.

    Returns
    -------
    DataFrame
        ``n_people``, ``rank1_cluster`` (share of people whose image leads to a member) and ``chance_cluster``. Images
        without a face are left out.
    """
    to_all, behind = _search(release, gallery, distractors)
    random, cases = utils.check_random_state(random_state), release.cases[~release.cases["failed"]]
    if cases.empty:
        raise checks.NotApplicableError("no image shows a face")
    image = cases["image"].to_numpy()
    member = behind.any(axis=0)
    order = np.concatenate([np.flatnonzero(member), np.flatnonzero(~member)])
    least, most = int(member.sum()), len(order)
    if sizes is None:
        sizes = np.unique(np.geomspace(least, most, 5).round().astype(int))
    for size in sizes:
        checks.check_number("each of sizes", size, int, at_least=least, at_most=most)
    hits = np.zeros(len(sizes))
    for _ in range(_N_ORDERS):
        order[least:] = random.permutation(order[least:])
        for i, size in enumerate(sizes):
            kept = order[:size]
            hits[i] += intervals.mean(Ranking.of(to_all[image][:, kept], behind[image][:, kept]).hits(1))
    chance = [blind_chance(cases, int(size), "cluster") for size in sizes]
    return pd.DataFrame({"n_people": sizes, "rank1_cluster": hits / _N_ORDERS, "chance_cluster": chance})
