"""Combine several releases of the same people."""

from __future__ import annotations

from collections.abc import Sequence

import numpy as np
import scipy

import checks
from attacks.cases import AttackResult, DescribedRelease, Gallery, distances, members_of
from attacks.search import Ranking, blind_chance


def linkability(first: DescribedRelease, second: DescribedRelease, *, random_state=0) -> list[AttackResult]:
    """Match a person's image in one release to another release.

    Threat model: the attacker has two releases of the same people (with another k, seed or photo) and no original
    photos. They search for the nearest image in the second release.

    Returns
    -------
    list of one AttackResult
        ``"linkability"``: share of people whose nearest image is one of their own. Images are shared, so a success
        links clusters, not people. A person counts as failed if their image in the first release, or all their images
        in the second, show no face. Chance: a random image.

    Raises
    ------
    NotApplicableError
        If no person is in both releases.
    """
    cases, other = first.cases, second.cases
    cases = cases[cases["person"].isin(other["person"])].reset_index(drop=True)
    if cases.empty:
        raise checks.NotApplicableError("linkability needs people who are in both releases")
    theirs = members_of(other, cases["person"].to_numpy(dtype=str), len(second.descriptors)).T  # (m, c2)
    to_images = distances(first.descriptors, second.descriptors)[cases["image"]]  # (m, c2)
    lost = other.groupby("person")["failed"].all().reindex(cases["person"]).to_numpy()
    hits = Ranking.of(to_images, theirs).hits(1)
    table = cases.assign(success=hits, failed=cases["failed"].to_numpy() | lost)
    chance = float(np.mean(theirs.sum(axis=1) / theirs.shape[1]))
    return [AttackResult.of_cases("linkability", "cluster", table, chance, random_state)]


def minimality(release: DescribedRelease, guessed: DescribedRelease, *, random_state=0) -> list[AttackResult]:
    """Repeat the release with other photos of the same people, and match the clusters one to one.

    Threat model: the attacker knows who is in the release and has another photo of everyone. Embedding, partition, seed
    and generator are public (or the defaults), so the attacker makes a release of their own photos, knows its clusters,
    matches its images to the released ones at the least total distance, and draws one of the people of the matched
    cluster. That a deterministic method of minimal loss leaks who shares an image was shown by Wong et al.,
    "Minimality Attack in Privacy Preserving Data Publishing" (VLDB 2007).

    Parameters
    ----------
    release : DescribedRelease
    guessed : DescribedRelease
        The attacker's own release.
    random_state : int, RandomState or None, default 0

    Returns
    -------
    list of AttackResult
        ``"minimality"`` at both levels: the drawn person is the right one, or shares the image. Chance: a random
        person.

    Raises
    ------
    NotApplicableError
        If no person is in both releases.
    """
    cases, people = release.cases, np.unique(np.asarray(guessed.identities, dtype=str))
    if not cases["person"].isin(people).any():
        raise checks.NotApplicableError("minimality needs people who are in both releases")
    matched, theirs = scipy.optimize.linear_sum_assignment(
        distances(release.descriptors, guessed.descriptors)
    )
    # The people whom the attacker expects behind each image, none if it was not matched. (c, p)
    expected = np.zeros((len(release.descriptors), len(people)), dtype=bool)
    expected[matched] = members_of(guessed.cases, people, len(guessed.descriptors))[theirs]
    image, sizes = cases["image"].to_numpy(), np.maximum(expected.sum(axis=1), 1)
    wanted = {
        "person": cases["person"].to_numpy(dtype=str)[:, None] == people,  # (m, p)
        "cluster": members_of(cases, people, len(expected))[image],
    }
    return [
        AttackResult.of_cases(
            "minimality", level, cases.assign(success=(expected[image] & right).sum(axis=1) / sizes[image]),
            blind_chance(cases, len(people), level), random_state, f"{len(matched)} clusters matched",
        )
        for level, right in wanted.items()
    ]  # fmt: skip


def composition(
    releases: Sequence[DescribedRelease], gallery: Gallery, *, random_state=0
) -> list[AttackResult]:
    """Combine what several releases reveal about one person.

    Threat model: the attacker holds a gallery of original photos, and knows which image each release has for the person
    they look for (from other fields of a record). In each release the candidates are the people nearest to the image,
    as many as share it.

    Returns
    -------
    list of AttackResult
        - ``"composition: intersection"``: the attacker draws one of the people who are candidates in all releases; if
          there are none, they name the person with the smallest mean distance.
        - ``"composition: mean distance"``: they name the person with the smallest mean distance over the releases.
        - ``"composition: known clusters"``: the worst case, in which they know who shares each image, and draw one of
          the people who share all images. It uses no descriptors.

        Images without a face are ignored; a person counts as failed if none of their images shows a face. If a person
        has several images in a release, the first counts.

    Raises
    ------
    NotApplicableError
        With fewer than two releases, or if no person is in all releases.
    """
    if len(releases) < 2:
        raise checks.NotApplicableError(f"composition needs at least two releases, got {len(releases)}")
    tables = [r.cases.drop_duplicates("person").set_index("person") for r in releases]
    common = sorted(set.intersection(*(set(table.index) for table in tables)))
    if not common:
        raise checks.NotApplicableError("composition needs people who are in all releases")
    gallery.check_holds(common)
    people = gallery.people
    own = np.asarray(common)[:, None] == people  # (m, p)
    candidates, together = np.ones(own.shape), np.ones(own.shape, dtype=bool)
    total, n_shown = np.zeros(own.shape), np.zeros(len(common))
    for release, table in zip(releases, tables, strict=True):
        image = table.loc[common, "image"].to_numpy()  # (m,)
        shown = release.found[image]
        # Keep the people who share this image as well.
        sharing = members_of(release.cases, people, len(release.descriptors))  # (c, p)
        together &= sharing[image]
        # For images with a face, multiply the chances of being a candidate, and add the distances.
        to_people = gallery.distances_from(release.descriptors)  # (c, p)
        likely = _among_first(to_people, sharing.sum(axis=1))
        candidates *= np.where(shown[:, None], likely[image], 1.0)
        total += np.where(shown[:, None], to_people[image], 0.0)
        n_shown += shown
    # Draw one of the remaining candidates, or name the nearest person. (m,)
    nearest = Ranking.of(total, own).hits(1)
    left, sizes = candidates.sum(axis=1), together.sum(axis=1)
    intersected = np.where(left > 0, (candidates * own).sum(axis=1) / np.maximum(left, 1e-300), nearest)
    left_note = f"candidates left: median {np.median(left):.1f}, none for {(left == 0).sum()} people"
    sizes_note = f"people left: median {np.median(sizes):.1f}, at least {sizes.min()}"
    base = tables[0].loc[common].reset_index().assign(failed=n_shown == 0)
    results = []
    for name, success, note in (
        ("intersection", intersected, left_note),
        ("mean distance", nearest, ""),
        ("known clusters", 1.0 / sizes, sizes_note),
    ):
        table, name = base.assign(success=success), f"composition: {name}"
        results.append(AttackResult.of_cases(name, "person", table, 1 / len(people), random_state, note))
    return results


def _among_first(to_people: np.ndarray, counts: np.ndarray) -> np.ndarray:
    """Chance that each person is among the `counts` nearest to an image: (c, p), (c,) -> (c, p)."""
    ordered = np.sort(to_people, axis=1)
    better, until = np.empty(to_people.shape, dtype=int), np.empty(to_people.shape, dtype=int)
    for i, row in enumerate(ordered):
        better[i] = np.searchsorted(row, to_people[i], side="left")
        until[i] = np.searchsorted(row, to_people[i], side="right")
    # People tied at one distance share the remaining places.
    return np.clip((counts[:, None] - better) / (until - better), 0.0, 1.0)
