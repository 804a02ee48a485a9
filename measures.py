"""Measure the cost and the protection of one release.

A row of `evaluation.sweep` depends on the code in this file, on its imports, and on the anonymizer; its cache key
covers exactly these. So import only what a row needs; sweeps, tables and commands belong elsewhere.
"""

from __future__ import annotations

from collections.abc import Callable, Sequence
from dataclasses import dataclass
from functools import cached_property
from typing import TYPE_CHECKING

import numpy as np

import checks
import detection
import embedding
import intervals
import partitioning
import utils
from attacks.cases import DescribedRelease, Gallery, distances, gallery_faces, members_of
from attacks.running import Published, clear_threshold
from attacks.search import blind_chance, closed_set
from attacks.thresholds import Threshold, stranger_share
from datasets import Faces
from embedding import PAPER_THRESHOLD

if TYPE_CHECKING:  # a model has its own cache key
    from anonymizer import Anonymizer

#: Reconstructions are measured on at most this many photos.
_N_RECONSTRUCTIONS = 200


# ----------------------------------------------------------------------------------------------------------
# The original photos
# ----------------------------------------------------------------------------------------------------------


@dataclass(frozen=True, eq=False)
class ClearPhotos:
    """The photos to anonymize and the adversary's gallery, described by the same recogniser.

    Attributes
    ----------
    faces : Faces
        The n photos to anonymize.
    describe : callable
        The recogniser: photos or images -> descriptors.
    descriptors : ndarray, shape (n, d)
    gallery : Gallery
        The photos that `attacks.gallery_faces` picks.
    """

    faces: Faces
    describe: Callable[[Faces | Sequence[np.ndarray]], np.ndarray]
    descriptors: np.ndarray
    gallery: Gallery

    @classmethod
    def of(cls, faces: Faces, describe: Callable[[Faces | Sequence[np.ndarray]], np.ndarray]) -> ClearPhotos:
        """Describe the photos and the gallery, each once."""
        photos, kind = gallery_faces(faces)
        own = describe(faces)
        held = own if photos is faces else describe(photos)
        return cls(faces, describe, own, Gallery(held, photos.identities, kind))

    @cached_property
    def threshold(self) -> Threshold:
        """The distance below which 1 % of the pairs of different people lie among all clear photos; kept on disk."""
        # The rest of a gallery is in `faces`.
        n_others = 0 if self.faces.others is None else len(self.faces.others)
        return clear_threshold(
            np.concatenate([self.descriptors, self.gallery.descriptors[:n_others]]),
            np.concatenate([self.faces.identities, self.gallery.identities[:n_others]]),
        )

    def release(self, images: Sequence[np.ndarray], labels: np.ndarray) -> DescribedRelease:
        """Describe c images; `labels` (n,) says which of them each photo got."""
        return Published(images, labels, self.faces.identities).described(self.describe)

    @cached_property
    def unchanged(self) -> DescribedRelease:
        """The release without anonymization: every photo as it is."""
        return DescribedRelease.unchanged(self.descriptors, self.faces.identities)


def clear_photos(faces: Faces, recogniser: str = "dlib") -> ClearPhotos:
    """Describe the photos and the adversary's gallery by an embedding.

    Raises
    ------
    ValueError
        If the embedding is fitted to its input photos, so that photos and surrogates cannot be compared.
    """
    if recogniser in embedding.FITTED:
        raise ValueError(
            f"recogniser must not be {recogniser!r}: it is fitted to its input photos, so descriptors of photos "
            "and surrogates cannot be compared; use 'dlib'"
        )
    return ClearPhotos.of(faces, lambda photos: embedding.embed(photos, recogniser))


# ----------------------------------------------------------------------------------------------------------
# Measures
# ----------------------------------------------------------------------------------------------------------


def measure(
    release: DescribedRelease,
    descriptors: np.ndarray,
    gallery: Gallery,
    threshold: float = PAPER_THRESHOLD,
) -> dict[str, float]:
    """Measure a release against the photos it was made from and a gallery.

    An image without a face has no distances. The plain measures leave it out. Those that end in ``_worst`` count it as
    the worst case: its loss is the largest distance between two photos, and its people are re-identified and
    identified.

    Parameters
    ----------
    release : DescribedRelease
        c images for n photos.
    descriptors : ndarray, shape (n, d)
        Descriptors of the photos, by the same recogniser as for release and gallery.
    gallery : Gallery
        g photos; everyone in the release must be in it.
    threshold : float, default 0.6
        Two descriptors nearer than this count as one person.

    Returns
    -------
    dict
        - ``information_loss``: mean distance between a photo's descriptor and its image's (section 4.1 of the paper).
        - ``re_identification``: share of photos nearer to their image than the threshold (section 4.2). Not the
          probability of being identified.
        - ``information_loss_gallery``, ``re_identification_gallery``: the same from each image to the gallery photos
          of its members.
        - ``rank1_cluster``: share of people whose image has a member of their cluster as its nearest gallery face;
          ``chance_cluster`` is the success rate of naming a random person in the gallery.
        - ``rank1_person``: share of people whose image leads to themselves; ``chance_person`` as above.
        - ``stranger_share``: share of pairs of an image and a gallery photo of a person outside its cluster
          that are nearer than the threshold. NaN without such pairs.
        - ``detection_rate``, ``n_failed``: share of images with a face, number without one.

    Raises
    ------
    ValueError
        If sizes do not match, or a person is not in the gallery.

    Notes
    -----
    A person counts once for each image. Of p people who share an image, at most one is its nearest gallery face, so
    ``rank1_person`` is at most 1 / k for clusters of at least k people. Search and chance are those of
    `attacks.identification`.
    """
    if len(release.labels) != len(descriptors):
        raise ValueError(
            f"labels and descriptors must have one row per photo, got {len(release.labels)} and {len(descriptors)}"
        )
    lengths = {part.shape[1:] for part in (release.descriptors, descriptors, gallery.descriptors)}
    if len(lengths) != 1:
        raise ValueError(
            f"release, photos and gallery must have descriptors of one length, got {sorted(lengths)}"
        )
    found, (own, shown) = np.asarray(release.found), _own_distances(release, descriptors)
    # Search the gallery by each image: one row per image and person behind it.
    cases = closed_set(release, gallery)
    failed, n_people = cases["failed"], len(gallery.people)
    # Measure from each image with a face to the gallery photos of its members. (c, g)
    known = members_of(cases, gallery.identities, len(found)) & found[:, None]
    to_members = distances(release.descriptors, gallery.descriptors)[known]
    # In the worst case an image without a face leads to one of the people who share it.
    share = 1 / cases.groupby("image")["person"].transform("size")
    return {
        "information_loss": _mean(own[shown]),
        "information_loss_worst": _mean(np.where(shown, own, _diameter(descriptors))),
        "re_identification": _mean(own[shown] < threshold),
        "re_identification_worst": _mean((own < threshold) | ~shown),
        "information_loss_gallery": _mean(to_members),
        "re_identification_gallery": _mean(to_members < threshold),
        "rank1_cluster": _mean(cases["hit_cluster"][~failed]),
        "rank1_cluster_worst": _mean(cases["hit_cluster"].where(~failed, 1.0)),
        "chance_cluster": blind_chance(cases, n_people, "cluster"),
        "rank1_person": _mean(cases["hit_person"][~failed]),
        "rank1_person_worst": _mean(cases["hit_person"].where(~failed, share)),
        "chance_person": blind_chance(cases, n_people, "person"),
        "stranger_share": stranger_share(release, gallery, threshold),
        "detection_rate": float(found.mean()),
        "n_failed": int((~found).sum()),
    }


def _own_distances(release: DescribedRelease, descriptors: np.ndarray) -> tuple[np.ndarray, np.ndarray]:
    """Distance from each photo to its image, and whether the image has a face: (n,), bool (n,)."""
    own = np.linalg.norm(release.descriptors[release.labels] - descriptors, axis=1)
    return own, np.asarray(release.found)[release.labels]


def _diameter(descriptors: np.ndarray) -> float:
    """Largest distance between two rows."""
    return float(max(np.linalg.norm(descriptors - row, axis=1).max() for row in descriptors))


def _mean(values: np.ndarray) -> float:
    return float(np.mean(values)) if len(values) else float("nan")


def evaluate(
    faces: Faces,
    model: Anonymizer,
    labels: np.ndarray | None = None,
    *,
    recogniser: str = "dlib",
    threshold: float = PAPER_THRESHOLD,
) -> dict[str, float | int | str]:
    """Anonymize faces and measure the release.

    Parameters
    ----------
    faces : Faces
        The adversary's gallery is `others`, or these photos if there are no others.
    model : Anonymizer
        Made for these faces.
    labels : ndarray of int, shape (n,), optional
        The cluster of each photo, for an anonymizer that makes surrogates; leave it out for one that changes each
        photo separately.
    recogniser : str, default "dlib"
        The embedding for all measurements.
    threshold : float, default 0.6

    Returns
    -------
    dict
        What `measure` returns, and ``gallery`` (its kind), ``n_people``, ``n_missed`` (photos in which the detector
        finds no face; they are measured from the whole frame). ``threshold_calibrated`` is `ClearPhotos.threshold`,
        ``threshold_low`` and ``threshold_high`` its interval; ``re_identification_calibrated`` and
        ``stranger_share_calibrated`` are the two shares at that threshold. NaN with too few pairs. Columns that end in
        ``_low`` and ``_high`` are the 95 % intervals of the measures in `_spans`.

    Raises
    ------
    ValueError
        If labels are missing, not needed or invalid, or `model` was made for other photos.
    """
    return _evaluate(clear_photos(faces, recogniser), model, labels, threshold)


def _evaluate(
    clear: ClearPhotos, model: Anonymizer, labels: np.ndarray | None, threshold: float
) -> dict[str, float | int | str]:
    images, labels = release_images(clear.faces, model, labels)
    scores = measure_images(clear, images, labels, threshold)
    if model.k_anonymous:
        _assert_person_bound(scores, labels, clear.faces.identities)
    return scores


def measure_images(
    clear: ClearPhotos, images: Sequence[np.ndarray], labels: np.ndarray, threshold: float = PAPER_THRESHOLD
) -> dict[str, float | int | str]:
    """Measure c images, whoever made them, as `evaluate` does; `labels` (n,) says which of them each photo got."""
    release = clear.release(images, labels)
    scores = measure(release, clear.descriptors, clear.gallery, threshold)
    limit, at_limit = clear.threshold, {}
    if np.isfinite(limit.value):
        own, shown = _own_distances(release, clear.descriptors)
        at_limit = {
            "re_identification": _mean(own[shown] < limit.value),
            "stranger_share": stranger_share(release, clear.gallery, limit.value),
        }
    return {
        "n_people": clear.faces.n_people,
        **scores,
        **_spans(release, clear, threshold),
        "threshold_calibrated": limit.value,
        "threshold_low": limit.low,
        "threshold_high": limit.high,
        "re_identification_calibrated": at_limit.get("re_identification", float("nan")),
        "stranger_share_calibrated": at_limit.get("stranger_share", float("nan")),
        "gallery": clear.gallery.kind,
        "n_missed": int((~detection.detect(clear.faces).found).sum()),
    }


def _spans(release: DescribedRelease, clear: ClearPhotos, threshold: float) -> dict[str, float]:
    """95 % intervals: of the paper's measures over people, of a search over images, whose people are found together."""
    own, shown = _own_distances(release, clear.descriptors)
    near, people = own[shown], clear.faces.identities[shown]
    cases = closed_set(release, clear.gallery)
    cases = cases[~cases["failed"]]
    found = cases.drop_duplicates("image")  # a search has one answer for each image
    spans = {
        "information_loss": intervals.mean_interval(near, people),
        "re_identification": intervals.rate_interval(near < threshold, people),
        "rank1_cluster": intervals.rate_interval(cases["hit_cluster"].to_numpy(), cases["image"].to_numpy()),
    }
    # An image leads to at most one of its people.
    hits = intervals.rate_interval(found["hit_cluster"].to_numpy(), found["image"].to_numpy())
    spans["rank1_person"] = tuple(bound * len(found) / max(len(cases), 1) for bound in hits)
    return {
        f"{name}_{end}": bound
        for name, span in spans.items()
        for end, bound in zip(("low", "high"), span, strict=True)
    }


def _assert_person_bound(scores: dict, labels: np.ndarray, identities: np.ndarray) -> None:
    """A shared image leads to at most one person of its cluster; anything else is a bug."""
    smallest = _people_per_cluster(labels, identities).min()
    for name in ("rank1_person", "rank1_person_worst"):
        if scores[name] > 1 / smallest + 1e-9:
            raise AssertionError(
                f"{name} is {scores[name]:.4f}, above 1/{smallest}: images are not shared as labelled"
            )


# ----------------------------------------------------------------------------------------------------------
# Clusters and images
# ----------------------------------------------------------------------------------------------------------


def _people_per_cluster(labels: np.ndarray, identities: np.ndarray) -> np.ndarray:
    people, person = np.unique(identities, return_inverse=True)
    pairs = np.unique(np.asarray(labels) * len(people) + person)
    return np.bincount(pairs // len(people))


def partitioner(name: str) -> Callable:
    """Look up a partition in `partitioning.PARTITIONERS` and `partitioning.VARIABLE_SIZE`."""
    known = {**partitioning.PARTITIONERS, **partitioning.VARIABLE_SIZE}
    checks.check_known("partitioner", name, known)
    return known[name]


def partition_people(
    faces: Faces, descriptors: np.ndarray, name: str, k: int, random_state: int = 0
) -> np.ndarray:
    """Cluster people by their descriptors (n, d): the cluster of each photo, (n,).

    Raises
    ------
    ValueError
        For an unknown name, or if a partition of `partitioning.PARTITIONERS` does not keep its sizes.
    """
    labels = partitioner(name)(descriptors, k, identities=faces.identities, random_state=random_state)
    if name in partitioning.PARTITIONERS:
        fits = np.shape(labels) == (len(faces),)
        if not fits or _people_per_cluster(labels, faces.identities).min() < k:
            raise ValueError(
                f"the partitioner {name!r} must return {len(faces)} labels and clusters of at least {k} people; "
                "register it in partitioning.VARIABLE_SIZE if it does not keep its sizes"
            )
    return labels


def clusters_of(faces: Faces, model: Anonymizer, labels: np.ndarray | None) -> list[np.ndarray]:
    """Rows of each cluster's photos, after checking the labels.

    Raises
    ------
    ValueError
        If labels are missing, do not fit the photos, have gaps, or split a person; or if `model` was made for other
        photos.
    """
    _check_made_for(faces, model)
    if labels is None:
        raise ValueError(f"the anonymizer {model.name!r} makes one image per cluster; pass labels")
    labels = checks.check_labels(labels, len(faces))
    n_split = _people_per_cluster(labels, faces.identities).sum() - faces.n_people
    if n_split:
        raise ValueError(
            f"all photos of a person must be in one cluster, or the release is not k-anonymous; {n_split} are in "
            "several; pass identities=faces.identities to the partition"
        )
    return [np.flatnonzero(labels == label) for label in range(labels.max() + 1)]


def release_images(
    faces: Faces, model: Anonymizer, labels: np.ndarray | None
) -> tuple[list[np.ndarray], np.ndarray]:
    """Make the images of a release.

    Returns
    -------
    images : list of c uint8 arrays (h, w, 3)
    labels : ndarray of int, shape (n,)
        The image of each photo.
    """
    if model.k_anonymous:
        return model.surrogates(clusters_of(faces, model, labels)), np.asarray(labels)
    _check_made_for(faces, model)
    if labels is not None:
        raise ValueError(f"the anonymizer {model.name!r} changes each photo separately; omit labels")
    return [model.apply(i) for i in range(len(faces))], np.arange(len(faces))


def _check_made_for(faces: Faces, model: Anonymizer) -> None:
    if model.faces.image_keys != faces.image_keys:
        raise ValueError(
            f"the anonymizer {model.name!r} was made for other photos; make one for these with anonymizer.load"
        )


# ----------------------------------------------------------------------------------------------------------
# A row of a sweep
# ----------------------------------------------------------------------------------------------------------


def measure_row(
    faces: Faces,
    model: Anonymizer,
    descriptors: np.ndarray | None,
    combination: dict,
    how: dict,
    model_key: str,
) -> dict[str, float | int | str]:
    """Compute the row of `evaluation.sweep` for a combination.

    Combinations with the same clusters share their measures, which are kept in the cache.

    Parameters
    ----------
    faces : Faces
    model : Anonymizer
    descriptors : ndarray, shape (n, d), or None
        Descriptors for clustering people; not used if the model changes each photo separately.
    combination : dict
        ``partitioner``, ``k`` and ``seed``: as for `partition_people`.
    how : dict
        ``recogniser`` and ``threshold``: as for `evaluate`.
    model_key : str
        Cache key of what the model makes of these faces.

    Returns
    -------
    dict
        ``n_clusters``, `how`, and what `evaluate` returns.
    """
    labels, n_clusters = None, len(faces)
    if model.k_anonymous:
        labels = partition_people(
            faces, descriptors, combination["partitioner"], combination["k"], combination["seed"]
        )
        n_clusters = int(labels.max()) + 1
    key = (faces.fingerprint, how["recogniser"])
    if key not in _CLEAR_PHOTOS:
        _CLEAR_PHOTOS.clear()
        _CLEAR_PHOTOS[key] = clear_photos(faces, how["recogniser"])
    clear, code = _CLEAR_PHOTOS[key], utils.source_key(__name__, without=["anonymizer"])[:16]
    scores = utils.cached_json(
        f"{_STORE}-{code}",
        utils.content_key(model_key, clear.descriptors, clear.gallery.descriptors, labels, how),
        lambda: _evaluate(clear, model, labels, how["threshold"]),
    )
    return {"n_clusters": n_clusters, **how, **scores}


#: Name of the store of measures, before the version of their code.
_STORE = "measures"

#: The photos that this process measured last: (fingerprint, recogniser) -> photos.
_CLEAR_PHOTOS: dict[tuple[str, str], ClearPhotos] = {}


def reconstruction_scores(clear: ClearPhotos, model: Anonymizer, random_state=0) -> dict[str, float]:
    """Measure each photo's own reconstruction, to show what an anonymizer can represent.

    A generator that cannot represent a person looks private, whatever it mixes.

    Returns
    -------
    dict
        ``reconstruction_loss``: mean distance from a photo to its reconstruction, over those with a face;
        ``reconstruction_rank1``: share of reconstructions whose nearest gallery face shows the same person, where those
        without a face count as misses; ``reconstruction_detection_rate``: share of them with a face. NaN
        for an anonymizer without reconstructions. At most 200 photos are measured, drawn by `random_state`.
    """
    if not model.k_anonymous:
        names = ("reconstruction_loss", "reconstruction_rank1", "reconstruction_detection_rate")
        return dict.fromkeys(names, float("nan"))
    faces, gallery = clear.faces, clear.gallery
    rows = np.arange(len(faces))
    if len(rows) > _N_RECONSTRUCTIONS:
        rows = np.sort(utils.check_random_state(random_state).choice(rows, _N_RECONSTRUCTIONS, replace=False))
    images = model.reconstructions(rows)
    drawn, found = clear.describe(images), detection.detect(images).found
    nearest = gallery.identities[distances(drawn, gallery.descriptors).argmin(axis=1)]
    own = np.linalg.norm(drawn - clear.descriptors[rows], axis=1)
    return {
        "reconstruction_loss": _mean(own[found]),
        "reconstruction_rank1": _mean((nearest == faces.identities[rows]) & found),
        "reconstruction_detection_rate": _mean(found),
    }
