"""Attacks on released images, and `attack_release`, which runs them all.

===================== =================================================================================================
attacks.cases         inputs and results of attacks: releases, galleries, practice images, results
attacks.search        gallery search: identification, and the posterior, which measures the remaining anonymity
attacks.thresholds    threshold decisions: verification, acceptance, calibration
attacks.open_set      a gallery with outsiders: rank 1, misses at a false-positive rate, k-map
attacks.membership    is a person in the release at all; the same attack on people who are not
attacks.linking       several releases: linkability, minimality, composition
attacks.insiders      a member of the cluster, or someone who knows members
attacks.regions       the region of the face that gives people away
attacks.learning      attackers who learn from their own images: parrot, reversal
attacks.network       reversal with a small neural network
attacks.running       running the attacks on a release, and the cache
===================== =================================================================================================

Every attack states its threat model and returns `AttackResult`: the share of people for whom it succeeds, the rate of a
random guess, and a bootstrap interval. Protocols follow Todt, Hanisch and Strufe, "Fantômas: Understanding Face
Anonymization Reversibility" (arXiv 2210.10651), Hanisch et al., "A False Sense of Privacy" (arXiv 2304.01635) and
"SEBA" (arXiv 2407.06648). The attacker who trains on anonymized faces is the "parrot" of Newton, Sweeney and Malin,
"Preserving Privacy by De-identifying Face Images" (IEEE TKDE 17(2), 2005).

Three rules hold for all attacks:

- Images without a detected face are reported separately. ``rate`` leaves their people out, ``rate_all`` attacks them
  like the others (with the recogniser's descriptor of the whole frame), ``rate_worst`` counts them as identified.
- Ties are broken at random; we report the expected success rate, so k people who share one image share one hit.
- Intervals resample people, or whole clusters at cluster level, because members succeed or fail together. If all
  outcomes agree, the exact binomial interval (Clopper and Pearson 1934) replaces the bootstrap interval of width 0.
"""

from __future__ import annotations

from collections.abc import Callable, Sequence
from dataclasses import replace
from functools import partial

import numpy as np
import pandas as pd

import checks
import detection
import utils
from attacks.cases import (
    AttackResult,
    DescribedRelease,
    Gallery,
    Practice,
    distances,
    gallery_faces,
    members_of,
)
from attacks.insiders import insider, insider_picture, rest_pictures
from attacks.learning import LEARNERS, learned
from attacks.linking import composition, linkability, minimality
from attacks.membership import control, membership
from attacks.network import reversal_network
from attacks.open_set import open_set, rank1_over_gallery
from attacks.regions import mask_regions, region
from attacks.running import (
    Attack,
    AttackScene,
    Evidence,
    Published,
    clear_threshold,
    hide_regions,
    practise,
    scene_rows,
)
from attacks.search import blind_chance, closed_set, identification, posterior
from attacks.thresholds import (
    Curve,
    Threshold,
    acceptance,
    calibrate_threshold,
    roc,
    stranger_share,
    verification,
    verification_across,
)
from datasets import Faces
from embedding import PAPER_THRESHOLD
from recognisers import MissingRecogniserError, UnfitGalleryError, grey_crops, prepare

__all__ = [
    "ATTACKS", "COLUMNS", "LEARNERS", "PAPER_THRESHOLD", "PIXEL_ATTACKS", "RECOGNISERS", "RECOMMENDED", "AttackResult",
    "AttackScene", "Curve", "DescribedRelease", "Gallery", "Practice", "Published", "Threshold", "acceptance",
    "attack_release", "blind_chance", "calibrate_threshold", "clear_threshold", "closed_set", "composition", "control",
    "distances", "gallery_faces", "identification", "insider", "insider_picture", "learned", "linkability",
    "mask_regions", "members_of", "membership", "minimality", "open_set", "posterior", "practise", "rank1_over_gallery",
    "region", "rest_pictures", "reversal_network", "roc", "stranger_share", "verification", "verification_across",
    "worst_case",
]  # fmt: skip

#: Default recognisers of attacks, see `recognisers.prepare`, and customary thresholds.
RECOGNISERS = ("dlib", "fisherfaces", "lbp", "faceres")
RECOMMENDED = {"dlib": PAPER_THRESHOLD}


def _anonymized(scene: AttackScene) -> DescribedRelease:
    if scene.anonymized is None:
        raise checks.NotApplicableError("needs a gallery that the attacker anonymized; pass anonymized=")
    return scene.anonymized


def _anonymized_gallery(scene: AttackScene, seed: int) -> list[AttackResult]:
    results = identification(scene.release, Gallery.anonymized(_anonymized(scene)), random_state=seed)
    return [replace(result, attack=f"{result.attack} (anonymized gallery)") for result in results]


def _against_further(attack: Callable, scene: AttackScene, seed: int) -> list[AttackResult]:
    """Attack with each further release in turn."""
    if not scene.further:
        raise checks.NotApplicableError("needs a second release of the same people; pass further=")
    return [
        replace(result, attack=f"{result.attack} ({what})" if what else result.attack)
        for what, other in scene.further
        for result in attack(scene.release, other, random_state=seed)
    ]


def _acceptances(scene: AttackScene, seed: int) -> list[AttackResult]:
    """Accept by the recogniser's customary threshold, if any, and by the calibrated threshold."""
    limit, limits = scene.threshold, []
    if scene.recommended is not None:
        name = f"accepted at {scene.recommended:g} (paper)"
        limits.append((scene.recommended, name, "threshold of the paper, not calibrated"))
    if not np.isnan(limit.value):
        note = f"threshold {limit.value:.3f} ({limit.low:.3f} to {limit.high:.3f})"
        note += f" by {limit.n_impostors} clear impostor pairs"
        limits.append((limit.value, f"accepted at FAR {limit.false_accept_rate:g}", note))
    if not limits:
        raise checks.NotApplicableError(limit.note)
    return [
        replace(result, attack=name, note="; ".join(filter(None, [note, result.note])))
        for value, name, note in limits
        for result in acceptance(scene.release, scene.gallery, value, random_state=seed)
    ]


def _insiders(scene: AttackScene, seed: int) -> list[AttackResult]:
    """An insider who knows one member, and one who knows all but one."""
    smallest = int(scene.release.cases.groupby("image").size().min())
    numbers = dict.fromkeys([1, max(smallest - 1, 1)])
    attack = partial(insider, scene.release, scene.photos, scene.gallery, random_state=seed)
    return [result for n_known in numbers for result in attack(n_known)]


def _part(scene: AttackScene) -> DescribedRelease:
    """A release that leaves out people of the gallery."""
    return scene.release if scene.part is None else scene.part


def _learner(method: str) -> Attack:
    return lambda s, seed: learned(s.release, s.gallery, s.practice, method=method, random_state=seed)


#: Name -> attack by a recogniser's descriptors.
ATTACKS: dict[str, Attack] = {
    "identification": lambda s, seed: identification(s.release, s.gallery, random_state=seed),
    "identification (anonymized gallery)": _anonymized_gallery,
    "posterior": lambda s, seed: posterior(s.release, s.gallery, random_state=seed),
    "acceptance": _acceptances,
    "verification": lambda s, seed: verification(s.release, s.gallery, random_state=seed),
    "verification across": partial(_against_further, verification_across),
    "linkability": partial(_against_further, linkability),
    "composition": lambda s, seed: composition(
        [s.release, *(other for _, other in s.further)], s.gallery, random_state=seed
    ),
    "minimality": lambda s, seed: minimality(s.release, _anonymized(s), random_state=seed),
    "membership": lambda s, seed: membership(_part(s), s.gallery, random_state=seed),
    "control": lambda s, seed: control(_part(s), s.gallery, s.threshold.value, random_state=seed),
    "open set": lambda s, seed: open_set(_part(s), s.gallery, s.distractors, random_state=seed),
    "region": lambda s, seed: region(s.release, s.masked, s.gallery, random_state=seed),
    "insider": _insiders,
    "insider's picture": lambda s, seed: insider_picture(s.release, s.rests, s.gallery, random_state=seed),
    "parrot": _learner("parrot"),
    "reversal": _learner("reversal"),
}

#: Name -> attack by pixels.
PIXEL_ATTACKS: dict[str, Attack] = {
    "parrot pairs": _learner("parrot pairs"),
    "reversal pixels": _learner("reversal pixels"),
}

#: The attack that takes minutes and runs only if requested by name.
_NETWORK_ATTACK = "reversal network"

#: Regions are hidden on at most this many photos, to compare with images.
_N_MASKED = 20

#: The columns of `attack_release`.
COLUMNS = [
    "attack", "recogniser", "gallery", "level", "rate", "low", "high", "rate_all", "rate_worst", "chance", "clear",
    "n_people", "n_failed", "worst_people", "worst_cluster", "threshold", "threshold_low", "threshold_high",
    "stranger_share", "note",
]  # fmt: skip


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
    part: Published | None = None,
    distractors: Faces | None = None,
    random_state: int = 0,
) -> pd.DataFrame:
    """Run all attacks on one release.

    Parameters
    ----------
    faces : Faces
        The anonymized photos. The attacker's gallery is `others`, or the anonymized photos' originals without others.
    images : sequence of c uint8 arrays (h, w, 3)
        The released images.
    labels : ndarray of int, shape (n,)
        The image that replaces each photo.
    model : anonymizer.Anonymizer, optional
        The generator of the images, so that learning attackers can practise; without it they learn only from the
        release.
    recognisers : sequence of str
        See `recognisers.prepare`. Fitted recognisers know the whole gallery, even if an attack learns from half of the
        people: then only what the attack learns about the method is disjoint. A recogniser that is not installed, or
        cannot be fitted to this gallery, gets one row with the reason.
    attacks : sequence of str
        Names in `ATTACKS` and `PIXEL_ATTACKS`, which are the default, or ``"reversal network"``, which takes minutes.
    anonymized : Published, optional
        Gallery photos as the attacker anonymized them.
    further : sequence of Published
        More releases of the same people, for linking (one by one) and composition (all together).
    part : Published, optional
        A release of some of the people by the same method, for attacks that need people who are not in it.
    distractors : Faces, optional
        One photo of each of further people, who join the gallery of the open-set search.
    random_state : int, default 0

    Returns
    -------
    DataFrame
        One row per attack and recogniser, with the columns of `AttackResult` and:

        - ``recogniser``, ``gallery``: the recogniser, or ``"pixels"`` for attacks without one, and the kind of
          `Gallery`.
        - ``clear``: the rate of the same attack on the original photos, if it applies to them. It shows whether a low
          rate is due to the anonymization or to a weak attacker.
        - ``threshold``, ``threshold_low``, ``threshold_high``: accepts 1 % of the impostor pairs of original photos.
        - ``stranger_share``: share of pairs of an image and a stranger's photo that this threshold accepts.

        An attack that does not apply has NaN, and the reason in ``note``. Each attack is cached on disk by the content
        of its inputs.

    Raises
    ------
    ValueError
        For unknown names or labels that do not match, before any work is done.
    """
    checks.check_all_known("attack", attacks, [*ATTACKS, *PIXEL_ATTACKS, _NETWORK_ATTACK])
    checks.check_number("random_state", random_state, int)
    labels = checks.check_labels(labels, len(faces), n_clusters=len(images))
    release, n_first = Published(images, labels, faces.identities), min(len(faces), _N_MASKED)
    first = Published(faces.images[:n_first], np.arange(n_first), faces.identities[:n_first])
    made, members = practise(model, labels, random_state=random_state) if model is not None else ([], ())
    evidence = Evidence(
        release, anonymized, further, part, distractors,
        practice=(detection.as_faces(made) if made else (), members),
        rests=rest_pictures(model, images, labels) if model is not None and "insider's picture" in attacks else {},
        masked=hide_regions(release) if "region" in attacks else {},
        masked_photos=hide_regions(first) if "region" in attacks else {},
    )  # fmt: skip
    scene_by = partial(AttackScene.of, faces, evidence)
    learning = replace(evidence, part=None, distractors=None, rests={}, masked={}, masked_photos={})
    crops_by = partial(AttackScene.of, faces, learning)
    rows = []
    for name in dict.fromkeys(recognisers):
        try:
            describe = prepare(name, gallery_faces(faces)[0])
        except (MissingRecogniserError, UnfitGalleryError) as error:
            rows.append({"attack": "all", "recogniser": name, "level": "-", "note": str(error)})
            continue
        scene = scene_by(describe, RECOMMENDED.get(name))
        chosen = {attack: ATTACKS[attack] for attack in attacks if attack in ATTACKS}
        rows += scene_rows(chosen, name, scene, random_state)
        if _NETWORK_ATTACK in attacks:
            network = {_NETWORK_ATTACK: _network_attack(crops_by, describe)}
            rows += scene_rows(network, name, scene, random_state, on_clear=False)
    chosen = {attack: PIXEL_ATTACKS[attack] for attack in attacks if attack in PIXEL_ATTACKS}
    if chosen:
        rows += scene_rows(chosen, "pixels", crops_by(grey_crops), random_state)
    return pd.DataFrame(rows).reindex(columns=COLUMNS)


def worst_case(table: pd.DataFrame, attacks: Sequence[str] | None = None) -> pd.DataFrame:
    """Select the recogniser that finds most, for each attack and level: a short table to read.

    Parameters
    ----------
    table : DataFrame
        From `attack_release`, or rows of one release from `evaluation.attack_table`.
    attacks : sequence of str, optional
        How the names of the attacks start; all but the equal error rates by default.

    Returns
    -------
    DataFrame
        ``attack level recogniser rate low high chance clear n_people n_failed note``. The largest of several rates is
        on average too large, so it errs in the attacker's favour.
    """
    known = table[table["rate"].notna() & ~table["attack"].str.startswith("EER")]
    if attacks is not None:
        known = known[known["attack"].str.startswith(tuple(attacks))]
    best = known.loc[known.groupby(["attack", "level"], sort=False)["rate"].idxmax()]
    columns = [
        "attack",
        "level",
        "recogniser",
        "rate",
        "low",
        "high",
        "chance",
        "clear",
        "n_people",
        "n_failed",
        "note",
    ]
    return best[columns].reset_index(drop=True)


def _network_attack(scene_by: Callable, describe: Callable) -> Attack:
    def run(scene: AttackScene, seed: int) -> list[AttackResult]:
        crops = scene_by(grey_crops)
        return reversal_network(
            crops.release, crops.gallery, describe, scene.gallery, crops.practice, random_state=seed
        )

    return run
