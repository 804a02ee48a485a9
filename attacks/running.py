"""Prepare a release for the attacks, run them, and cache the rows of their table."""

from __future__ import annotations

from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass, field, fields, is_dataclass, replace
from functools import cached_property
from itertools import combinations

import numpy as np

import checks
import detection
import utils
from attacks.cases import AttackResult, DescribedRelease, Gallery, Practice
from attacks.regions import mask_regions
from attacks.thresholds import Threshold, calibrate_threshold, stranger_share
from datasets import Faces

#: The false accept rate for calibrating thresholds on original photos.
_CALIBRATED_RATE = 1e-2

#: Number of images of known people that an attacker makes to learn from.
_N_PRACTICE = 168


@dataclass(frozen=True, eq=False)
class Published:
    """The images of one release.

    Attributes
    ----------
    images : sequence of c uint8 arrays (h, w, 3)
    labels : ndarray of int, shape (n,)
        The image that replaces each of n photos.
    identities : ndarray of str, shape (n,)
    what : str
        A description, e.g. ``"other photos"``, that distinguishes attacks with several further releases.
    """

    images: Sequence[np.ndarray]
    labels: np.ndarray
    identities: np.ndarray
    what: str = ""

    def described(self, describe: Callable[[Sequence[np.ndarray]], np.ndarray]) -> DescribedRelease:
        """Describe the images with a recogniser, see `recognisers.prepare`."""
        found = detection.detect(self._faces).found
        return DescribedRelease(describe(self._faces), found, np.asarray(self.labels), self.identities)

    @cached_property
    def _faces(self) -> Faces:
        """The images, whose keys are computed once for all recognisers."""
        return detection.as_faces(self.images)


def hide_regions(release: Published) -> dict[str, Published]:
    """The release with each region hidden in turn, by name, see `attacks.regions.mask_regions`."""
    return {name: replace(release, images=images) for name, images in mask_regions(release.images).items()}


def practise(
    model, labels: np.ndarray | None, n_images: int = _N_PRACTICE, random_state=0
) -> tuple[list[np.ndarray], tuple[frozenset[str], ...]]:
    """Make images of known people, as an attacker with the same method would.

    The people in each image come from at most two clusters, so however the clusters are split, each half has images
    whose members are all in that half.

    Parameters
    ----------
    model : anonymizer.Anonymizer
        With ``faces``, ``k_anonymous`` and ``surrogate(rows)``.
    labels : ndarray of int, shape (n,), or None
        The clusters of the release. A model that changes each photo separately needs no labels, and no images are made:
        the attacker practises on the release itself.
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
    # Iterate over all pairs of clusters in random order, as often as needed.
    two = list(combinations(range(len(clusters)), 2)) or [(0, 0)]
    order = np.concatenate([random.permutation(len(two)) for _ in range(-(-n_images // len(two)))])
    hidden = None if n_images > _N_PRACTICE else True
    images, members = [], []
    for pair in utils.progress(order[:n_images], "practising", disable=hidden):
        people = np.unique(np.concatenate([clusters[i] for i in two[pair]]))
        group = random.choice(people, k, replace=False)
        images.append(model.surrogate(np.flatnonzero(np.isin(identities, group))))
        members.append(frozenset(map(str, group)))
    return images, tuple(members)


@dataclass(frozen=True, eq=False)
class Evidence:
    """The images that attackers have, not yet described.

    Attributes
    ----------
    release : Published
    anonymized : Published or None
        Gallery photos as the attacker anonymized them, by the same method.
    further : sequence of Published
        Further releases of the same people.
    part : Published or None
        A release of some of the people in the gallery.
    distractors : Faces or None
        One photo of each of some people who are neither in a release nor in the gallery.
    practice : tuple
        The result of `practise`, with the images as Faces.
    rests : dict
        The result of `attacks.insiders.rest_pictures`.
    masked, masked_photos : dict of Published
        The release, and the first photos, with each region hidden in turn: the result of `hide_regions`.
    """

    release: Published
    anonymized: Published | None = None
    further: Sequence[Published] = ()
    part: Published | None = None
    distractors: Faces | None = None
    practice: tuple[Faces | tuple[()], tuple[frozenset[str], ...]] = ((), ())
    rests: Mapping[str, list[np.ndarray]] = field(default_factory=dict)
    masked: Mapping[str, Published] = field(default_factory=dict)
    masked_photos: Mapping[str, Published] = field(default_factory=dict)


@dataclass(frozen=True, eq=False)
class AttackScene:
    """The inputs of all attacks, described by one recogniser.

    Attributes
    ----------
    release : DescribedRelease
    photos : ndarray, shape (n, d)
        The anonymized photos.
    gallery : Gallery
        Original photos.
    threshold : Threshold
        Calibrated on original photos for a false accept rate of 1 %.
    anonymized : DescribedRelease or None
        Gallery photos that the attacker anonymized.
    further : tuple of (str, DescribedRelease)
        Descriptions, which may be empty, and further releases of the same people.
    practice : Practice or None
    recommended : float or None
        The customary threshold of the recogniser.
    part : DescribedRelease or None
        A release of some of the people in the gallery.
    distractors : ndarray, shape (m, d), or None
    rests : tuple of (str, DescribedRelease)
        Pictures of each person, see `attacks.insiders.insider_picture`.
    masked, masked_photos : tuple of (str, DescribedRelease)
        The release, and the first photos unchanged, with hidden regions.
    """

    release: DescribedRelease
    photos: np.ndarray
    gallery: Gallery
    threshold: Threshold
    anonymized: DescribedRelease | None = None
    further: tuple[tuple[str, DescribedRelease], ...] = ()
    practice: Practice | None = None
    recommended: float | None = None
    part: DescribedRelease | None = None
    distractors: np.ndarray | None = None
    rests: tuple[tuple[str, DescribedRelease], ...] = ()
    masked: tuple[tuple[str, DescribedRelease], ...] = ()
    masked_photos: tuple[tuple[str, DescribedRelease], ...] = ()

    @classmethod
    def of(
        cls, faces: Faces, evidence: Evidence, describe: Callable, recommended: float | None = None
    ) -> AttackScene:
        """Describe all inputs with one recogniser."""
        own, gallery = describe(faces), Gallery.of(faces, describe)
        clear, people = gallery.descriptors, gallery.identities
        if gallery.kind != "same photos":
            clear, people = np.concatenate([own, clear]), np.concatenate([faces.identities, people])
        images, members = evidence.practice

        def described(published: Published | None) -> DescribedRelease | None:
            return None if published is None else published.described(describe)

        def all_described(several: Mapping[str, Published]) -> tuple[tuple[str, DescribedRelease], ...]:
            return tuple((name, one.described(describe)) for name, one in several.items())

        return cls(
            evidence.release.described(describe),
            own,
            gallery,
            clear_threshold(clear, people),
            described(evidence.anonymized),
            tuple((one.what, one.described(describe)) for one in evidence.further),
            Practice(describe(images), members) if images else None,
            recommended,
            described(evidence.part),
            None if evidence.distractors is None else describe(evidence.distractors),
            all_described({space: _pictures(drawn) for space, drawn in evidence.rests.items()}),
            all_described(evidence.masked),
            all_described(evidence.masked_photos),
        )

    @cached_property
    def key(self) -> str:
        """The cache key of all inputs."""
        return utils.content_key(_content(self))

    def without_anonymization(self) -> AttackScene:
        """Release every photo as it is.

        If everyone has at least two other photos, one of each person becomes the second release and leaves the gallery.
        """
        plain, names = (
            DescribedRelease.unchanged(self.photos, self.release.identities),
            self.release.identities,
        )
        scene = replace(
            self,
            release=plain,
            anonymized=None,
            further=(),
            practice=None,
            rests=(),
            masked=self.masked_photos,
        )
        if self.part is not None:
            kept = np.isin(names, self.part.identities)
            scene = replace(scene, part=DescribedRelease.unchanged(self.photos[kept], names[kept]))
        held, gallery = self.gallery.identities, self.gallery
        _, first, counts = np.unique(held, return_index=True, return_counts=True)
        if counts.min() < 2 or gallery.kind != "other photos":
            return scene
        second = DescribedRelease.unchanged(gallery.descriptors[first], held[first])
        rest = np.setdiff1d(np.arange(len(held)), first)
        gallery = Gallery(gallery.descriptors[rest], held[rest], gallery.kind)
        further = tuple((what, second) for what, _ in self.further)
        anonymized = None if self.anonymized is None else second
        return replace(scene, gallery=gallery, further=further, anonymized=anonymized)


def _pictures(images: list[np.ndarray]) -> Published:
    """Images of one nameless person each."""
    numbers = np.arange(len(images))
    return Published(images, numbers, numbers.astype(str))


#: An attack on a scene, with a seed.
Attack = Callable[[AttackScene, int], list[AttackResult]]


def clear_threshold(descriptors: np.ndarray, identities: np.ndarray) -> Threshold:
    """`calibrate_threshold` for a false accept rate of 1 %, cached on disk."""
    code = utils.source_key("attacks.thresholds")[:16]
    key = utils.content_key(descriptors, identities, _CALIBRATED_RATE)

    def calibrate() -> dict:
        return vars(calibrate_threshold(descriptors, identities, _CALIBRATED_RATE))

    return Threshold(**utils.cached_json(f"thresholds-{code}", key, calibrate))


def scene_rows(
    attacks: dict[str, Attack], recogniser: str, scene: AttackScene, seed: int, on_clear: bool = True
) -> list[dict]:
    """Run some attacks on a scene: rows of the table of `attack_release`.

    With `on_clear`, ``clear`` is the rate of the same attack without anonymization.
    """
    rows = [row for name in attacks for row in _attack_rows(name, attacks[name], recogniser, scene, seed)]
    clear = {}
    if on_clear:
        plain = scene.without_anonymization()
        for name, attack in attacks.items():
            for row in _attack_rows(name, attack, recogniser, plain, seed):
                clear[row["attack"], row["level"]] = row.get("rate")
    limit = scene.threshold
    shared = {
        "recogniser": recogniser,
        "gallery": scene.gallery.kind,
        "threshold": limit.value,
        "threshold_low": limit.low,
        "threshold_high": limit.high,
        "stranger_share": stranger_share(scene.release, scene.gallery, limit.value),
    }
    return [{**shared, "clear": clear.get((row["attack"], row["level"])), **row} for row in rows]


def _attack_rows(name: str, attack: Attack, recogniser: str, scene: AttackScene, seed: int) -> list[dict]:
    """Rows of one attack, cached on disk by the content of the scene."""

    def compute() -> list[dict]:
        try:
            return [result.row() for result in attack(scene, seed)]
        except checks.NotApplicableError as error:
            return [{"attack": name, "level": "-", "note": str(error)}]

    key = utils.content_key(name, recogniser, scene.key, seed)
    return utils.cached_json(f"attacks-{utils.source_key('attacks')[:16]}", key, compute)


def _content(part):
    """A scene as plain values for `utils.content_key`."""
    if is_dataclass(part):
        return [_content(getattr(part, one.name)) for one in fields(part)]
    if isinstance(part, tuple):
        return [_content(value) for value in part]
    return sorted(part) if isinstance(part, frozenset) else part
