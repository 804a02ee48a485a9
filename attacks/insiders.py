"""Attacks from within a cluster: subtract the known members of a mean, as descriptors, pixels or W+ codes."""

from __future__ import annotations

from collections.abc import Callable, Sequence
from itertools import combinations
from math import comb

import numpy as np
import pandas as pd

import checks
import detection
import frame
import utils
from attacks.cases import (
    LEVELS,
    AttackResult,
    DescribedRelease,
    Gallery,
    check_descriptors,
    members_of,
)
from attacks.search import Ranking

#: Maximum number of sets of known members to try for each image.
_N_DRAWS = 20


def insider(
    release: DescribedRelease, photos: np.ndarray, gallery: Gallery, n_known: int = 1, *, random_state=0
) -> list[AttackResult]:
    """Subtract the members whom the attacker knows, and identify the others.

    Threat model: the attacker is one of the k members, or has the original photos of `n_known` members, and knows that
    an image is the mean of all members. They estimate the others' mean as
    ``(k * image - sum of known) / (k - n_known)`` and search the gallery for it, leaving out the people they know. With
    a recogniser that is linear in the pixels (``"fisherfaces"``) this subtracts pixels.

    Parameters
    ----------
    release : DescribedRelease
    photos : ndarray, shape (n, d)
        Descriptors of the anonymized photos, in the order of ``release.labels``.
    gallery : Gallery
    n_known : int, default 1
        At least 1. Images shared by at most this many people are left out; the note reports how many people have them.
    random_state : int, RandomState or None, default 0
        Draws the sets of known members if there are more than 20.

    Returns
    -------
    list of AttackResult
        ``"insider knows m"``, rank 1 at both levels. The rate at person level is at most 1 / (k - n_known).
        Chance: a random person in the gallery other than the known people.

    Raises
    ------
    NotApplicableError
        If no image is shared by more than `n_known` people.
    """
    checks.check_number("n_known", n_known, int, at_least=1)
    check_descriptors("photos", photos, len(release.labels))
    random = utils.check_random_state(random_state)
    cases, people = release.cases, gallery.people
    gallery.check_holds(cases["person"])
    names, identities = cases["person"].to_numpy(dtype=str), np.asarray(release.identities, dtype=str)
    column = np.searchsorted(people, names)  # (m,)
    tried = np.zeros(len(cases))
    hits = {level: np.zeros(len(cases)) for level in LEVELS}
    for image, rows in cases.groupby("image").groups.items():
        k = len(rows)
        if k <= n_known:
            continue
        # Average each member's photos, and estimate the mean of the unknown members in each try.
        own = [(release.labels == image) & (identities == person) for person in names[rows]]
        means = np.stack([photos[photo].mean(axis=0) for photo in own])  # (k, d)
        known = _known_sets(k, n_known, random)  # (tries, k)
        rest = (k * release.descriptors[image] - known @ means) / (k - n_known)  # (tries, d)
        for to_people, is_known in zip(gallery.distances_from(rest), known, strict=True):
            # Search without the known members: for each unknown member, and in the last row for any of them.
            places = rows[~is_known]
            remaining = column[places]
            to_people[column[rows[is_known]]] = np.inf
            wanted = np.zeros((len(remaining) + 1, len(people)), dtype=bool)
            wanted[np.arange(len(remaining)), remaining] = True
            wanted[-1, remaining] = True
            found = Ranking.of(np.broadcast_to(to_people, wanted.shape), wanted).hits(1)
            hits["person"][places] += found[:-1]
            hits["cluster"][places] += found[-1]
            tried[places] += 1
    reached = tried > 0
    if not reached.any():
        raise checks.NotApplicableError(f"an insider needs images shared by more than {n_known} people")
    out = int((~reached).sum())
    note = f"{out} people left out, whose image has too few people" if out else ""
    # A random guess names one of the people whom the attacker does not know.
    unknown = cases.groupby("image")["person"].transform("size")[reached] - n_known
    chances = {"person": 1 / (len(people) - n_known), "cluster": unknown.mean() / (len(people) - n_known)}
    results, name = [], f"insider knows {n_known}"
    for level in LEVELS:
        table = cases[reached].assign(success=hits[level][reached] / tried[reached])
        results.append(AttackResult.of_cases(name, level, table, chances[level], random_state, note))
    return results


def _known_sets(k: int, n_known: int, random: np.random.RandomState) -> np.ndarray:
    """Choose the known members of each try: bool (tries, k). Every member is unknown at least once."""
    most = max(_N_DRAWS, k)
    if comb(k, n_known) <= most:
        chosen = list(combinations(range(k), n_known))
    else:
        chosen = []
        while len(chosen) < most:
            order = random.permutation(k)
            for start in range(0, k, k - n_known):  # each member is unknown in turn
                chosen.append(np.roll(order, start)[:n_known])
    known = np.zeros((len(chosen), k), dtype=bool)
    for row, members in zip(known, chosen, strict=True):
        row[list(members)] = True
    return known


# ---- the last member's picture ----


def _pixel_rests(
    model, images: Sequence[np.ndarray], image: np.ndarray, others: list, sizes: np.ndarray
) -> list:
    """Subtract aligned photos from an image: of m people, the mean of whose cluster is `images[image]`."""
    rests = []
    for place, rows, k in zip(image, others, sizes, strict=True):
        whole = images[place][..., : model.channels].astype(float)
        rests.append(frame.to_photo(k * whole - sum(share * model.texture(i) for i, share in rows)))
    return rests


def _code_rests(
    model, images: Sequence[np.ndarray], image: np.ndarray, others: list, sizes: np.ndarray
) -> list:
    """Encode the images, subtract the codes of photos, and draw what is left."""
    codes = type(model)(detection.as_faces(images), network=model.network_path).codes.astype(float)
    rests = []
    for place, rows, k in zip(image, others, sizes, strict=True):
        rest = k * codes[place] - sum(share * model.codes[i] for i, share in rows)
        rests.append(model.draw(rest.astype(np.float32)))
    return rests


#: Name of the space -> what a generator that mixes in it has, and the function that subtracts in it.
_SPACES: dict[str, tuple[str, Callable]] = {"pixels": ("texture", _pixel_rests), "W+": ("codes", _code_rests)}


def rest_pictures(model, images: Sequence[np.ndarray], labels: np.ndarray) -> dict[str, list[np.ndarray]]:
    """Draw each person by subtracting all others from the image that they share.

    Parameters
    ----------
    model : anonymizer.Anonymizer
        The generator of the images; the known photos are aligned or encoded by it.
    images : sequence of c uint8 arrays (h, w, 3)
    labels : ndarray of int, shape (n,)
        The image that replaces each photo.

    Returns
    -------
    dict
        Space -> one picture, uint8 (h, w, 3), for each pair of an image and a person in the order of
        `DescribedRelease.cases`. ``"pixels"`` for generators that mix aligned photos, ``"W+"`` for StyleGAN, whose
        encoder finds the code of the image. Empty for other anonymizers, and if an image stands for one person.
    """
    identities, labels = np.asarray(model.faces.identities, dtype=str), np.asarray(labels)
    cases = pd.DataFrame({"person": identities, "image": labels}).drop_duplicates()
    cases = cases.sort_values(["image", "person"], ignore_index=True)
    sizes = cases.groupby("image")["person"].transform("size").to_numpy()
    if not model.k_anonymous or sizes.min() < 2:
        return {}
    others = []
    for person, place in cases.itertuples(index=False):
        rows = np.flatnonzero((labels == place) & (identities != person))
        _, who, n_photos = np.unique(identities[rows], return_inverse=True, return_counts=True)
        others.append(list(zip(rows, 1 / n_photos[who], strict=True)))
    place = cases["image"].to_numpy()
    return {
        space: subtract(model, images, place, others, sizes)
        for space, (needed, subtract) in _SPACES.items()
        if hasattr(model, needed)
    }


def insider_picture(
    release: DescribedRelease,
    rests: Sequence[tuple[str, DescribedRelease]],
    gallery: Gallery,
    *,
    random_state=0,
) -> list[AttackResult]:
    """Recognise the last member on the picture that is left after subtracting all others.

    Threat model: the attacker has the aligned photos of k - 1 of the k members and knows that the image is their mean,
    in pixels or in W+. They draw k times the image minus the known photos, and search the gallery for the face on this
    picture, leaving out the people they know.

    Parameters
    ----------
    release : DescribedRelease
    rests : sequence of (str, DescribedRelease)
        Space and the pictures of `rest_pictures`, one for each of ``release.cases``.
    gallery : Gallery
    random_state : int, RandomState or None, default 0

    Returns
    -------
    list of AttackResult
        ``"insider's picture (pixels)"`` and ``"insider's picture (W+)"``, rank 1 at person level. Chance: a random
        person in the gallery other than the known ones. A picture without a face counts as failed.

    Raises
    ------
    NotApplicableError
        If `rests` is empty.
    """
    if not rests:
        raise checks.NotApplicableError(
            "needs a generator that mixes aligned photos or W+ codes; pass model="
        )
    cases, people = release.cases, gallery.people
    gallery.check_holds(cases["person"])
    own = cases["person"].to_numpy(dtype=str)[:, None] == people  # (m, p)
    known = members_of(cases, people, len(release.descriptors))[cases["image"]] & ~own
    chance = float(np.mean(1 / (len(people) - known.sum(axis=1))))
    results = []
    for space, pictures in rests:
        to_people = np.where(known, np.inf, gallery.distances_from(pictures.descriptors))
        hits = Ranking.of(to_people, own).hits(1)
        table = cases.assign(success=hits, failed=~np.asarray(pictures.found))
        results.append(
            AttackResult.of_cases(f"insider's picture ({space})", "person", table, chance, random_state)
        )
    return results
