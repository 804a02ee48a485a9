"""Originals and surrogates -> tables of what anonymization costs and protects; and the sweep that makes them.

Two measures are the paper's (Le et al., "AnonFACES: Anonymizing Faces Adjusted to Constraints on Efficacy and
Security", WPES 2020, section 4): information loss and re-identification rate. Both read the same distances, between a
surrogate and the members of its own cluster, so beside them always stands what an adversary does with a gallery:
closed-set identification of the cluster and of the person, with their chance levels, and the share of strangers
that the surrogate would be taken for.
"""

from __future__ import annotations

import argparse
import functools
import inspect
import itertools
import json
import sys
import uuid
import warnings
from collections.abc import Callable, Iterable, Sequence
from pathlib import Path
from typing import NamedTuple

import joblib
import numpy as np
import pandas as pd

import anonymizer
import attacks
import datasets
import detection
import embedding
import partitioning
import recognisers
import utility
import utils
from attacks import DescribedRelease, Gallery
from datasets import Faces
from release import AuditReport, audit_release

OUTPUTS = Path(__file__).resolve().parent / "outputs"

#: The distance under which dlib's descriptors are taken for one person, in the paper and by dlib's author.
DLIB_THRESHOLD = attacks.PAPER_THRESHOLD


#: Reconstructions are measured on at most so many photos.
N_RECONSTRUCTIONS = 200

#: Fewer pending combinations than this are computed in this process: starting others would take longer.
PARALLEL_COMBINATIONS = 4

#: The baselines that stand in every table.
RANDOM_PARTITION, NO_ANONYMIZATION = "random", "none"

#: What stands in the columns that do not apply to a row.
NOT_APPLICABLE = "-"


def clear_gallery(faces: Faces, recogniser: str = "dlib") -> Gallery:
    """What the adversary holds, see `attacks.gallery_faces`, by an embedding."""
    return Gallery.of(faces, lambda photos: embedding.embed(photos, recogniser))


def measure(
    release: DescribedRelease, descriptors: np.ndarray, gallery: Gallery, threshold: float = DLIB_THRESHOLD
) -> dict[str, float]:
    """Measure a release against the photos it was made from and a gallery.

    An image without a face has no distances. It is left out of the plain measures, and counted as the worst
    that could be in those that end in ``_worst``: lost as much as the two most different photos differ,
    re-identified, and identified.

    Parameters
    ----------
    release : DescribedRelease
        c images for n photos.
    descriptors : ndarray, shape (n, d)
        Of the photos, by the recogniser that also described release and gallery.
    gallery : Gallery
        Everybody in the release must be in it.
    threshold : float, default 0.6
        Two descriptors nearer than this count as one person.

    Returns
    -------
    dict
        - ``information_loss``: mean distance between a photo's descriptor and its image's (section 4.1 of the paper).
        - ``re_identification``: share of photos nearer to their image than the threshold (section 4.2). Not a
          probability of being identified.
        - ``information_loss_gallery``, ``re_identification_gallery``: the same from the image to the gallery photos
          of its members.
        - ``rank1_cluster``: share of people whose image has a member of their cluster as its nearest gallery face;
          ``chance_cluster`` is what naming anybody in the gallery blindly gives.
        - ``rank1_person``: share whose image leads to themselves; ``chance_person`` as above.
        - ``stranger_share``: share of pairs of an image and a gallery photo of somebody outside its cluster
          that are nearer than the threshold. NaN where there are no such pairs.
        - ``detection_rate``, ``n_failed``: share of images with a face, number without one.

    Raises
    ------
    ValueError
        If sizes do not fit, or somebody is not in the gallery.

    Notes
    -----
    People are counted once for each image that they share: of p people who share one image, at most one is its
    nearest gallery face, so ``rank1_person`` is at most 1 / k for clusters of at least k people. Search and chance are
    those of `attacks.identification`.
    """
    if len(release.labels) != len(descriptors):
        raise ValueError(
            f"{len(release.labels)} labels and {len(descriptors)} descriptors; there must be one of each for each photo"
        )
    lengths = {part.shape[1:] for part in (release.descriptors, descriptors, gallery.descriptors)}
    if len(lengths) != 1:
        raise ValueError(
            f"release, photos and gallery have descriptors of different shapes: {sorted(lengths)}"
        )
    found = np.asarray(release.found)
    shown = found[release.labels]  # (n,) photos whose image has a face
    own = np.linalg.norm(release.descriptors[release.labels] - descriptors, axis=1)
    cases = attacks.closed_set(release, gallery)
    failed, n_people = cases["failed"], len(np.unique(gallery.identities))
    known = attacks.members_of(cases, gallery.identities, len(found)) & found[:, None]  # (c, g)
    to_members = attacks.distances(release.descriptors, gallery.descriptors)[known]
    share = 1 / cases.groupby("image")["person"].transform(
        "size"
    )  # of one hit, for each who shares the image
    return {
        "information_loss": _mean(own[shown]),
        "information_loss_worst": _mean(np.where(shown, own, _diameter(descriptors))),
        "re_identification": _mean(own[shown] < threshold),
        "re_identification_worst": _mean((own < threshold) | ~shown),
        "information_loss_gallery": _mean(to_members),
        "re_identification_gallery": _mean(to_members < threshold),
        "rank1_cluster": _mean(cases["hit_cluster"][~failed]),
        "rank1_cluster_worst": _mean(cases["hit_cluster"].where(~failed, 1.0)),
        "chance_cluster": attacks.blind_chance(cases, n_people, "cluster"),
        "rank1_person": _mean(cases["hit_person"][~failed]),
        "rank1_person_worst": _mean(cases["hit_person"].where(~failed, share)),
        "chance_person": attacks.blind_chance(cases, n_people, "person"),
        "stranger_share": attacks.stranger_share(release, gallery, threshold),
        "detection_rate": float(found.mean()),
        "n_failed": int((~found).sum()),
    }


def _people_per_image(labels: np.ndarray, identities: np.ndarray) -> np.ndarray:
    pairs = pd.DataFrame({"label": labels, "identity": identities}).drop_duplicates()
    return np.bincount(pairs["label"])


def _diameter(descriptors: np.ndarray) -> float:
    """Largest distance between two rows."""
    return float(max(np.linalg.norm(descriptors - row, axis=1).max() for row in descriptors))


def _mean(values: np.ndarray) -> float:
    return float(np.mean(values)) if len(values) else float("nan")


def evaluate(
    faces: Faces,
    model: anonymizer.Anonymizer,
    labels: np.ndarray | None = None,
    *,
    recogniser: str = "dlib",
    threshold: float = DLIB_THRESHOLD,
) -> dict[str, float | int | str]:
    """Anonymize faces and measure the release.

    Parameters
    ----------
    faces : Faces
        With `others`, these are the adversary's gallery; else it holds the very photos.
    model : Anonymizer
        Made for these faces.
    labels : ndarray of int, shape (n,), optional
        The cluster of each photo, for an anonymizer that makes surrogates; those that change each photo by itself
        take none.
    recogniser : str, default "dlib"
        The embedding by which everything is measured.
    threshold : float, default 0.6

    Returns
    -------
    dict
        What `measure` returns, and ``gallery`` (what kind), ``n_people``, ``n_missed`` (photos whose face the detector
        missed; they are measured from the whole frame). ``threshold_calibrated`` is `calibrated_threshold`,
        ``threshold_low`` and ``threshold_high`` its interval, and ``re_identification_calibrated`` and
        ``stranger_share_calibrated`` the two shares under it; NaN where there are too few pairs.

    Raises
    ------
    ValueError
        If labels are missing, not wanted or do not fit, or `model` was made for other photos.
    """
    _check_recogniser(recogniser)
    images, labels = release_images(faces, model, labels)
    descriptors = embedding.embed(faces, recogniser)
    found = detection.detect(images).found
    release = DescribedRelease(embedding.embed(images, recogniser), found, labels, faces.identities)
    gallery = clear_gallery(faces, recogniser)
    scores = measure(release, descriptors, gallery, threshold)
    limit = calibrated_threshold(faces, recogniser)
    calibrated = {
        "threshold_calibrated": limit.value,
        "threshold_low": limit.low,
        "threshold_high": limit.high,
        **dict.fromkeys(("re_identification_calibrated", "stranger_share_calibrated"), float("nan")),
    }
    if np.isfinite(limit.value):
        at_limit = measure(release, descriptors, gallery, limit.value)
        calibrated |= {
            f"{name}_calibrated": at_limit[name] for name in ("re_identification", "stranger_share")
        }
    if model.k_anonymous:
        _assert_person_bound(scores, labels, faces.identities)
    missed = int((~detection.detect(faces).found).sum())
    return {"n_people": faces.n_people, **scores, **calibrated, "gallery": gallery.kind, "n_missed": missed}


def calibrated_threshold(faces: Faces, recogniser: str = "dlib") -> attacks.Threshold:
    """The distance at which 1 % of the pairs of different people among all clear photos are accepted; kept on disk."""
    parts = [faces] if faces.others is None else [faces, faces.others]
    return attacks.clear_threshold(
        np.concatenate([embedding.embed(part, recogniser) for part in parts]),
        np.concatenate([part.identities for part in parts]),
    )


def _check_recogniser(name: str) -> None:
    if name in embedding.FITTED:
        raise ValueError(
            f"the embedding {name!r} is fitted anew to whatever it is given, so photos and surrogates do not compare; "
            "measure by another, such as 'dlib'"
        )


def release_images(
    faces: Faces, model: anonymizer.Anonymizer, labels: np.ndarray | None
) -> tuple[list[np.ndarray], np.ndarray]:
    """Make the images of a release: c images, and which of them each of the n photos gets (n,)."""
    if not model.k_anonymous:
        _check_made_for(faces, model)
        if labels is not None:
            raise ValueError(
                f"the anonymizer {model.name!r} changes each photo by itself; leave out the labels"
            )
        return [model.apply(i) for i in range(len(faces))], np.arange(len(faces))
    return model.surrogates(clusters_of(faces, model, labels)), np.asarray(labels)


def _check_made_for(faces: Faces, model: anonymizer.Anonymizer) -> None:
    if model.faces.image_keys != faces.image_keys:
        raise ValueError(
            f"the anonymizer {model.name!r} was made for other photos; make it for these with anonymizer.load"
        )


def clusters_of(faces: Faces, model: anonymizer.Anonymizer, labels: np.ndarray | None) -> list[np.ndarray]:
    """Rows of each cluster's photos, after checking that the labels fit.

    Raises
    ------
    ValueError
        If labels are missing, do not fit the photos, leave a number out, or split a person; or if `model` was made
        for other photos.
    """
    _check_made_for(faces, model)
    if labels is None:
        raise ValueError(f"the anonymizer {model.name!r} makes one face for each cluster; give the labels")
    labels = np.asarray(labels)
    if labels.shape != (len(faces),):
        raise ValueError(
            f"{len(faces)} photos need {len(faces)} labels, not an array of shape {labels.shape}"
        )
    n_clusters = len(np.unique(labels))
    if labels.dtype.kind not in "iu" or labels.min() != 0 or labels.max() != n_clusters - 1:
        raise ValueError(
            "labels must be whole numbers that start at 0 and leave none out, as a partition gives"
        )
    n_split = _people_per_image(labels, faces.identities).sum() - faces.n_people
    if n_split:
        raise ValueError(
            f"{n_split} times a person has photos in a further cluster, which is not k-anonymous; "
            "give the partition identities=faces.identities"
        )
    return [np.flatnonzero(labels == label) for label in range(n_clusters)]


def _assert_person_bound(scores: dict, labels: np.ndarray, identities: np.ndarray) -> None:
    """A shared image cannot lead to more than one person of its cluster; anything else is a fault of ours."""
    smallest = _people_per_image(labels, identities).min()
    for name in ("rank1_person", "rank1_person_worst"):
        if scores[name] > 1 / smallest + 1e-9:
            raise AssertionError(
                f"{name} is {scores[name]:.4f}, above 1/{smallest}: images are not shared as labelled"
            )


def reconstruction_scores(
    faces: Faces, model: anonymizer.Anonymizer, *, recogniser: str = "dlib", random_state=0
) -> dict[str, float]:
    """Measure what an anonymizer can draw at all: each photo's own reconstruction.

    A generator that cannot draw a person looks private, whatever it is told to mix.

    Returns
    -------
    dict
        ``reconstruction_loss``: mean distance from the photo to its reconstruction, over those with a face;
        ``reconstruction_rank1``: share of reconstructions whose nearest gallery face is of the same person, one
        without a face counting as not recognised; ``reconstruction_detection_rate``: share of them with a face. NaN
        for an anonymizer that has none. At most 200 photos are drawn, chosen by `random_state`.
    """
    if not model.k_anonymous:
        names = ("reconstruction_loss", "reconstruction_rank1", "reconstruction_detection_rate")
        return dict.fromkeys(names, float("nan"))
    rows = np.arange(len(faces))
    if len(rows) > N_RECONSTRUCTIONS:
        rows = np.sort(utils.check_random_state(random_state).choice(rows, N_RECONSTRUCTIONS, replace=False))
    descriptors = embedding.embed(faces, recogniser)
    gallery = clear_gallery(faces, recogniser)
    images = [model.reconstruct(i) for i in rows]
    drawn, found = embedding.embed(images, recogniser), detection.detect(images).found
    nearest = gallery.identities[attacks.distances(drawn, gallery.descriptors).argmin(axis=1)]
    own = np.linalg.norm(drawn - descriptors[rows], axis=1)
    return {
        "reconstruction_loss": _mean(own[found]),
        "reconstruction_rank1": _mean((nearest == faces.identities[rows]) & found),
        "reconstruction_detection_rate": _mean(found),
    }


def cluster_distances(
    faces: Faces, model: anonymizer.Anonymizer, labels: np.ndarray, *, recogniser: str = "dlib"
) -> pd.DataFrame:
    """Distances from each cluster's surrogate to the photos of its members.

    Returns
    -------
    DataFrame
        A row for each photo: ``label``, ``row`` (of the photo in `faces`), ``distance`` (NaN where the surrogate shows
        no face).
    """
    images, labels = release_images(faces, model, labels)
    drawn, found = embedding.embed(images, recogniser), detection.detect(images).found
    distance = np.linalg.norm(drawn[labels] - embedding.embed(faces, recogniser), axis=1)
    distance[~found[labels]] = np.nan
    table = pd.DataFrame({"label": labels, "row": np.arange(len(faces)), "distance": distance})
    return table.sort_values(["label", "row"], ignore_index=True)


def sweep(
    faces: Faces,
    embeddings: Sequence[str] = ("dlib",),
    partitioners: Sequence[str] = ("balanced",),
    anonymizers: Sequence[str] = ("aam",),
    k_values: Iterable[int] = range(2, 20),
    random_state: int | Sequence[int] = 0,
    *,
    recogniser: str = "dlib",
    threshold: float = DLIB_THRESHOLD,
    n_jobs: int = -1,
    output: str | Path | None = None,
) -> pd.DataFrame:
    """Measure every combination of embedding, partitioner, anonymizer and k.

    The random partition and a row without anonymization are always measured along, as baselines. Finished
    combinations are cached on disk: an interrupted sweep goes on where it stopped, in this or another session.

    Parameters
    ----------
    faces : Faces
    embeddings : sequence of str
        What the people are clustered by; see `embedding.embed`.
    partitioners : sequence of str
        Names in `partitioning.PARTITIONERS` or `partitioning.VARIABLE_SIZE`.
    anonymizers : sequence of str
        Names in `anonymizer.ANONYMIZERS` or `anonymizer.VARIANTS`. Those that change each photo by itself give one
        row, at k = 1.
    k_values : iterable of int
        Each from 2 to the number of people.
    random_state : int or sequence of int, default 0
        The seed; several give a row each.
    recogniser : str, default "dlib"
        The embedding by which everything is measured.
    threshold : float, default 0.6
        As the paper has it, for dlib.
    n_jobs : int, default -1
        Processes; -1 takes all cores. ``joblib.parallel_config`` chooses another backend, such as Dask.
    output : path, optional
        Write the table there as CSV, too.

    Returns
    -------
    DataFrame
        One row for each combination: ``embedding partitioner anonymizer k`` and ``seed`` say which, ``n_people``
        and ``gallery`` whom, ``recogniser`` and ``threshold`` how, then what `measure` and
        `reconstruction_scores` return, and ``n_missed``.

    Raises
    ------
    ValueError, TypeError
        For unknown names, or a k or seed that does not fit, before any work is done.

    Examples
    --------
    >>> import datasets, evaluation
    >>> faces = datasets.load_faces("orl", per_identity=1)
    >>> table = evaluation.sweep(faces, ["dlib"], ["ward"], ["aam"], [2, 5])
    """
    _check_recogniser(recogniser)
    combinations = _combinations(faces, embeddings, partitioners, anonymizers, k_values, random_state)
    for name in dict.fromkeys([*embeddings, recogniser]):  # a wrong one shows on two photos, too
        embedding.embed(faces.select(slice(0, 2)), name)
    clustered_by = {c["embedding"] for c in combinations} - {NOT_APPLICABLE}
    descriptors = {name: embedding.embed(faces, name) for name in sorted({*clustered_by, recogniser})}
    if faces.others is not None:
        embedding.embed(faces.others, recogniser)  # in the cache before the workers ask for it
    models = {name: _model(name, faces) for name in dict.fromkeys(c["anonymizer"] for c in combinations)}
    store = utils.CacheStore("sweep-" + _code_key())
    how = {"recogniser": recogniser, "threshold": float(threshold)}
    for c in combinations:
        clusters = descriptors.get(c["embedding"], descriptors[recogniser])
        added = [_definition(type(models[c["anonymizer"]]))]
        if c["partitioner"] != NOT_APPLICABLE:
            added.append(_definition(partitioner(c["partitioner"])))
        c["key"] = utils.content_key(
            models[c["anonymizer"]].fingerprint, descriptors[recogniser], clusters, *c.values(), how, *added
        )
    rows = {key: json.loads(value) for key, value in store.get(c["key"] for c in combinations).items()}
    pending = [c for c in combinations if c["key"] not in rows]
    tasks = (_task(_measure_combination, faces, c, descriptors.get(c["embedding"]), how) for c in pending)
    jobs = n_jobs if len(pending) >= PARALLEL_COMBINATIONS else 1
    results = joblib.Parallel(n_jobs=jobs, return_as="generator_unordered")(tasks)
    with warnings.catch_warnings():
        # A worker that holds a network looks to joblib as if it leaked memory; it is replaced, and no task is lost.
        warnings.filterwarnings("ignore", message="A worker stopped while some jobs were given")
        for key, row in utils.progress(
            results, "combinations", total=len(pending), disable=None if pending else True
        ):
            store.put({key: json.dumps(row).encode()})
            rows[key] = row
    table = pd.DataFrame([rows[c["key"]] for c in combinations])
    if output is not None:
        save_table(table, output)
    return table


def _registries() -> tuple[dict, ...]:
    return (
        embedding.EMBEDDINGS,
        partitioning.PARTITIONERS,
        partitioning.VARIABLE_SIZE,
        anonymizer.ANONYMIZERS,
        anonymizer.VARIANTS,
    )


def _task(function: Callable, *arguments):
    """A call for `joblib.Parallel`, with the registries: workers do not know what the caller has added to them."""
    return joblib.delayed(_run_task)([dict(registry) for registry in _registries()], function, arguments)


def _run_task(entries: list[dict], function: Callable, arguments: tuple):
    for registry, known in zip(_registries(), entries, strict=True):
        registry.update(known)
    return function(*arguments)


def _definition(entry: Callable) -> str:
    """The source of a registry entry that is not the suite's own, for the cache's keys.

    One whose source cannot be read gets a name of its own each time, so that rows of an older one never come back.
    """
    entry = entry.func if isinstance(entry, functools.partial) else entry
    module = str(getattr(entry, "__module__", None))
    if module in ("embedding", "partitioning", "balancing") or module.startswith("anonymizer."):
        return ""  # part of the other keys
    try:
        return inspect.getsource(entry)
    except (OSError, TypeError):
        return uuid.uuid4().hex


def partitioner(name: str) -> Callable:
    """A partition by its name in `partitioning.PARTITIONERS` or `partitioning.VARIABLE_SIZE`.

    Raises
    ------
    ValueError
        For an unknown name.
    """
    known = {**partitioning.PARTITIONERS, **partitioning.VARIABLE_SIZE}
    if name not in known:
        raise ValueError(f"unknown partitioner {name!r}; there is {', '.join(map(repr, known))}")
    return known[name]


def partition_people(
    faces: Faces, descriptors: np.ndarray, name: str, k: int, random_state: int = 0
) -> np.ndarray:
    """Labels (n,) that a partition gives the photos by their descriptors (n, d).

    Raises
    ------
    ValueError
        For an unknown name, or if a partition of `partitioning.PARTITIONERS` does not keep its sizes.
    """
    labels = partitioner(name)(descriptors, k, identities=faces.identities, random_state=random_state)
    if name in partitioning.PARTITIONERS:
        if np.shape(labels) != (len(faces),):
            raise ValueError(
                f"the partitioner {name!r} gave labels of shape {np.shape(labels)}; {len(faces)} photos need one each"
            )
        smallest = _people_per_image(labels, faces.identities).min()
        if smallest < k:
            raise ValueError(
                f"the partitioner {name!r} made a cluster of {smallest} people for k = {k}; one that does not keep "
                "sizes belongs into partitioning.VARIABLE_SIZE"
            )
    return labels


def _combinations(faces, embeddings, partitioners, anonymizers, k_values, random_state) -> list[dict]:
    """Check what a sweep is asked for, and list its combinations, baselines included."""
    for label, names in (
        ("embeddings", embeddings),
        ("partitioners", partitioners),
        ("anonymizers", anonymizers),
    ):
        if isinstance(names, str) or not names:
            raise TypeError(f"{label} must be a list of names that is not empty, not {names!r}")
    for name in partitioners:
        partitioner(name)
    if not isinstance(k_values, Iterable) or isinstance(k_values, str):
        raise TypeError(f"k_values must be a list or range of whole numbers, not {k_values!r}")
    k_values = sorted(set(k_values))
    for k in k_values:
        if isinstance(k, bool) or not isinstance(k, int | np.integer):
            raise TypeError(f"k must be a whole number, not {k!r}")
        if not 2 <= k <= faces.n_people:
            raise ValueError(
                f"k = {k} does not fit {faces.n_people} people; it must lie between 2 and {faces.n_people}"
            )
    if not k_values:
        raise ValueError("k_values is empty; give at least one k")
    seeds = list(random_state) if isinstance(random_state, Iterable) else [random_state]
    for seed in seeds:
        if isinstance(seed, bool) or not isinstance(seed, int | np.integer):
            raise TypeError(f"random_state must be a whole number or several, not {seed!r}")
    if not seeds:
        raise ValueError("random_state is empty; give at least one seed")
    shared = [name for name in anonymizers if anonymizer.kind(name).k_anonymous]
    single = [name for name in anonymizers if name not in shared and name != NO_ANONYMIZATION]
    partitioners = list(dict.fromkeys([*partitioners, RANDOM_PARTITION])) if shared else []
    grid = [
        *itertools.product(
            dict.fromkeys(embeddings), partitioners, dict.fromkeys(shared), map(int, k_values)
        ),
        *((NOT_APPLICABLE, NOT_APPLICABLE, name, 1) for name in dict.fromkeys([*single, NO_ANONYMIZATION])),
    ]
    names = ("embedding", "partitioner", "anonymizer", "k", "seed")
    return [
        dict(zip(names, (*cell, int(seed)), strict=True)) for seed in dict.fromkeys(seeds) for cell in grid
    ]


def _measure_combination(faces: Faces, combination: dict, descriptors: np.ndarray | None, how: dict):
    """Compute one row of a sweep; returns its key and the row."""
    model = _model(combination["anonymizer"], faces)
    labels = None
    if model.k_anonymous:
        labels = partition_people(
            faces, descriptors, combination["partitioner"], combination["k"], combination["seed"]
        )
    scores = evaluate(faces, model, labels, **how)
    n_clusters = len(faces) if labels is None else int(labels.max()) + 1
    drawn = _model_scores(combination["anonymizer"], faces, how["recogniser"])
    which = {name: value for name, value in combination.items() if name != "key"}
    return combination["key"], {**which, "n_clusters": n_clusters, **how, **scores, **drawn}


#: Models of this process, so that a worker fits each only once: (name, faces) -> model and its own scores.
_MODELS: dict[tuple[str, str], anonymizer.Anonymizer] = {}
_MODEL_SCORES: dict[tuple[str, str, str], dict[str, float]] = {}


def _model(name: str, faces: Faces) -> anonymizer.Anonymizer:
    key = (name, faces.fingerprint)
    if key not in _MODELS:
        _MODELS[key] = anonymizer.load(name, faces)
    return _MODELS[key]


def _model_scores(name: str, faces: Faces, recogniser: str) -> dict[str, float]:
    key = (name, faces.fingerprint, recogniser)
    if key not in _MODEL_SCORES:
        _MODEL_SCORES[key] = reconstruction_scores(faces, _model(name, faces), recogniser=recogniser)
    return _MODEL_SCORES[key]


def _code_key() -> str:
    """Changes with the code that results depend on, besides that of the anonymizers."""
    # Fingerprints cover the anonymizers; release and utility do not affect a row.
    return utils.source_key(__file__, without=["anonymizer", "release", "utility"])[:16]


class Combination(NamedTuple):
    """What a release is made by; an anonymizer that changes each photo by itself has "-", "-" and k = 1."""

    embedding: str
    partitioner: str
    anonymizer: str
    k: int


#: What ``make experiments`` attacks and looks into, the most telling first: one thing varied at a time, and baselines.
NAMED_COMBINATIONS = (
    Combination("dlib", "ward", "aam", 5),
    Combination(NOT_APPLICABLE, NOT_APPLICABLE, NO_ANONYMIZATION, 1),
    *(Combination("dlib", "ward", name, 5) for name in ("stylegan", "cnn", "pixel", "stylegan_adjusted")),
    *(Combination("dlib", "ward", "aam", k) for k in (2, 10)),
    *(Combination("dlib", name, "aam", 5) for name in (RANDOM_PARTITION, "balanced")),
    *(Combination(NOT_APPLICABLE, NOT_APPLICABLE, name, 1) for name in ("blur", "pixelate")),
)


def fitting(faces: Faces, combinations: Iterable[Combination] = NAMED_COMBINATIONS) -> list[Combination]:
    """The combinations that can be made for these faces without further files: see `Anonymizer.fits`."""
    return [c for c in combinations if c.k <= faces.n_people and anonymizer.kind(c.anonymizer).fits(faces)]


def all_combinations(faces: Faces, k_values: Iterable[int] = range(2, 20)) -> list[Combination]:
    """Every partition with every anonymizer, on dlib, at every k that fits; and those that take no partition."""
    kinds = {name: cls for name, cls in anonymizer.ANONYMIZERS.items() if cls.fits(faces)}
    shared = [name for name, cls in kinds.items() if cls.k_anonymous]
    single = [name for name, cls in kinds.items() if not cls.k_anonymous]
    k_values = [k for k in k_values if k <= faces.n_people]
    grid = itertools.product(["dlib"], partitioning.PARTITIONERS, shared, k_values)
    return [Combination(*c) for c in grid] + [Combination("-", "-", name, 1) for name in single]


def restrict(
    combinations: Iterable[Combination],
    embeddings: Sequence[str] | None = None,
    partitioners: Sequence[str] | None = None,
    anonymizers: Sequence[str] | None = None,
) -> list[Combination]:
    """Combinations made of what is chosen; None chooses everything.

    The first chosen embedding or partition stands in for one that is not chosen. Anonymizers that are not chosen are
    left out. The baselines, random partition and no anonymization, stay.
    """
    kept = []
    for c in combinations:
        if anonymizers is not None and c.anonymizer not in [*anonymizers, NO_ANONYMIZATION]:
            continue
        if embeddings is not None and c.embedding not in [*embeddings, NOT_APPLICABLE]:
            c = c._replace(embedding=embeddings[0])
        if partitioners is not None and c.partitioner not in [
            *partitioners,
            RANDOM_PARTITION,
            NOT_APPLICABLE,
        ]:
            c = c._replace(partitioner=partitioners[0])
        kept.append(c)
    return list(dict.fromkeys(kept))


#: Which releases are attacked and looked into, by the name of the grid.
LOOKED_INTO: dict[str, Callable] = {
    "quick": lambda faces, k_values: fitting(faces),
    "full": all_combinations,
}


def make_release(
    faces: Faces, combination: Combination, random_state: int = 0
) -> tuple[anonymizer.Anonymizer, list[np.ndarray], np.ndarray]:
    """Make the images of a combination.

    Returns
    -------
    model : Anonymizer
    images : list of c uint8 arrays (h, w, 3)
    labels : ndarray of int, shape (n,)
        Which image each photo gets.
    """
    model = _model(combination.anonymizer, faces)
    labels = None
    if model.k_anonymous:
        descriptors = embedding.embed(faces, combination.embedding)
        labels = partition_people(faces, descriptors, combination.partitioner, combination.k, random_state)
    return model, *release_images(faces, model, labels)


def attack_table(
    faces: Faces,
    combinations: Iterable[Combination] | None = None,
    *,
    recognisers: Sequence[str] = attacks.RECOGNISERS,
    random_state: int = 0,
    n_jobs: int = -1,
    **options,
) -> pd.DataFrame:
    """Make every attack on several releases.

    Each release is also attacked together with further ones of the same people, by composition and linking: surrogates
    of clusters of one more, and the same method on another photo of everybody, where there is one. That last one is
    the anonymized gallery, too.

    Parameters
    ----------
    faces : Faces
    combinations : iterable of Combination, optional
        By default those of `NAMED_COMBINATIONS` that fit.
    recognisers : sequence of str
        See `recognisers.prepare`.
    random_state : int, default 0
    n_jobs : int, default -1
        Processes, as for `sweep`.
    **options
        Passed to `attacks.attack_release`.

    Returns
    -------
    DataFrame
        ``embedding partitioner anonymizer k seed`` and the columns of `attacks.attack_release`.
    """
    return _over_releases(
        _attack, faces, combinations, random_state, n_jobs, "attacking", recognisers=recognisers, **options
    )


def fairness_table(
    faces: Faces,
    combinations: Iterable[Combination] | None = None,
    *,
    recogniser: str = "dlib",
    random_state: int = 0,
    n_jobs: int = -1,
) -> pd.DataFrame:
    """Compare what groups of people get of privacy and utility, for several releases.

    Parameters as for `attack_table`; privacy is measured by `recogniser`, see `recognisers.prepare`.

    Returns
    -------
    DataFrame
        ``embedding partitioner anonymizer k seed`` and the columns of `utility.by_group`, with intervals over people.
        Measures of privacy: ``re_identification`` (see `measure`), ``rank1_cluster`` and ``rank1_person`` (success of a
        gallery search), ``set_size`` (effective anonymity set, see `attacks.posterior`), with ``stranger_share`` and
        ``clear_rank1_person`` to hold them against (see `photo_privacy`); then those of `utility.photo_utility`.
        Groups: `utility.people_groups`. The last rows, with the measures ``cluster_...`` and the group ``"random
        clusters"`` beside ``"clusters"``, are `utility.cluster_homogeneity`.
    """
    return _over_releases(
        _be_fair, faces, combinations, random_state, n_jobs, "fairness", recogniser=recogniser
    )


def utility_table(
    faces: Faces,
    combinations: Iterable[Combination] | None = None,
    *,
    random_state: int = 0,
    n_jobs: int = -1,
    **options,
) -> pd.DataFrame:
    """Measure what the surrogates of several releases still tell.

    Parameters as for `attack_table`; `options` are those of `utility.measure_utility`.

    Returns
    -------
    DataFrame
        ``embedding partitioner anonymizer k seed`` and the columns of `utility.measure_utility`.
    """
    return _over_releases(_use, faces, combinations, random_state, n_jobs, "utility", **options)


def _over_releases(
    function, faces, combinations, random_state, n_jobs, description, **options
) -> pd.DataFrame:
    """Tables of a function of several releases, joined, in the order of the combinations."""
    chosen = fitting(faces) if combinations is None else [Combination(*c) for c in combinations]
    if not chosen:
        raise ValueError("there is no combination to look into; give at least one")
    for c in chosen:
        anonymizer.kind(c.anonymizer)
        if c.partitioner != NOT_APPLICABLE:
            partitioner(c.partitioner)
    tasks = (_task(function, faces, c, random_state, options) for c in chosen)
    jobs = n_jobs if len(chosen) >= PARALLEL_COMBINATIONS else 1
    results = joblib.Parallel(n_jobs=jobs, return_as="generator")(tasks)
    with warnings.catch_warnings():
        warnings.filterwarnings("ignore", message="A worker stopped while some jobs were given")
        tables = list(utils.progress(results, description, total=len(chosen)))
    for c, table in zip(chosen, tables, strict=True):
        for place, (name, value) in enumerate({**c._asdict(), "seed": random_state}.items()):
            table.insert(place, name, value)
    return pd.concat([table for table in tables if len(table)], ignore_index=True)


def _attack(faces: Faces, combination: Combination, random_state: int, options: dict) -> pd.DataFrame:
    model, images, labels = make_release(faces, combination, random_state)
    further = []
    if model.k_anonymous and combination.k < faces.n_people:
        other = combination._replace(k=combination.k + 1)
        _, more, their_labels = make_release(faces, other, random_state)
        further.append(attacks.Published(more, their_labels, faces.identities))
    again = _release_of_other_photos(faces, combination, random_state)
    if again is not None:
        further.append(again)
    return attacks.attack_release(
        faces,
        images,
        labels,
        model=model,
        anonymized=again,
        further=further,
        random_state=random_state,
        **options,
    )


def _release_of_other_photos(
    faces: Faces, combination: Combination, random_state: int
) -> attacks.Published | None:
    """The same combination made for another photo of each person; None where not everybody has one, or it cannot be."""
    if faces.others is None or set(faces.identities) - set(faces.others.identities):
        return None
    kept = faces.others.select(np.isin(faces.others.identities, faces.identities)).split(1, random_state)
    photos = kept.select(slice(None))  # without others: nothing but these photos is known to the generator
    if not anonymizer.kind(combination.anonymizer).fits(photos):
        return None
    _, images, labels = make_release(photos, combination, random_state)
    return attacks.Published(images, labels, photos.identities, "other photos")


def _use(faces: Faces, combination: Combination, random_state: int, options: dict) -> pd.DataFrame:
    _, images, labels = make_release(faces, combination, random_state)
    return utility.measure_utility(faces, images, labels, random_state=random_state, **options)


def _be_fair(faces: Faces, combination: Combination, random_state: int, options: dict) -> pd.DataFrame:
    _, images, labels = make_release(faces, combination, random_state)
    groups = utility.people_groups(faces)
    people = photo_privacy(faces, images, labels, options["recogniser"])
    useful = utility.photo_utility(faces, images, labels).drop(columns=["identity", "label", "failed"])
    table = utility.by_group(pd.concat([people, useful], axis=1), groups, faces.identities, random_state)
    parts = [table]
    for grouping in groups.columns:
        alike = utility.cluster_homogeneity(
            labels, groups[grouping].to_numpy(), faces.identities, random_state=random_state
        )
        named = {"measure": "cluster_" + alike["measure"], "grouping": grouping, "n_people": faces.n_people}
        own = pd.DataFrame({**named, "group": "clusters", "value": alike["value"]})
        dealt = {"value": alike["random"], "low": alike["random_low"], "high": alike["random_high"]}
        parts += [own, pd.DataFrame({**named, "group": "random clusters", **dealt})]
    return pd.concat(parts, ignore_index=True)


def photo_privacy(
    faces: Faces, images: Sequence[np.ndarray], labels: np.ndarray, recogniser: str = "dlib"
) -> pd.DataFrame:
    """What each photo's image gives away of its person.

    Returns
    -------
    DataFrame
        A row for each photo: ``re_identification`` (at 0.6 for dlib, else at the calibrated threshold),
        ``rank1_cluster``, ``rank1_person``, ``set_size``; NaN where the image shows no face. To hold them against:
        ``stranger_share`` (of others' gallery photos, those taken for the image's people at this threshold) and
        ``clear_rank1_person`` (the search by the photo itself).
    """
    photos, kind = attacks.gallery_faces(faces)
    describe = recognisers.prepare(recogniser, photos)
    own, held = describe(faces), describe(photos)
    gallery = Gallery(held, photos.identities, kind)
    release = attacks.Published(images, labels, faces.identities).described(describe)
    limit = attacks.RECOMMENDED.get(recogniser)
    if limit is None:
        limit = attacks.clear_threshold(held, photos.identities).value
    near = np.linalg.norm(release.descriptors[release.labels] - own, axis=1) < limit
    cases = attacks.closed_set(release, gallery).set_index(["person", "image"])
    sizes = attacks.posterior(release, gallery)[0].per_person.set_index(["person", "image"])["set_size"]
    keys = list(zip(faces.identities.tolist(), release.labels.tolist(), strict=True))
    strangers = ~attacks.members_of(release.cases, gallery.identities, len(release.found))  # (c, g)
    taken = strangers & (attacks.distances(release.descriptors, gallery.descriptors) < limit)
    shares = taken.sum(axis=1) / np.where(strangers.any(axis=1), strangers.sum(axis=1), np.nan)
    plain = DescribedRelease(own, np.ones(len(faces), dtype=bool), np.arange(len(faces)), faces.identities)
    clear = attacks.closed_set(plain, gallery).sort_values("image")["hit_person"]  # one case for each photo
    table = pd.DataFrame(
        {
            "re_identification": near.astype(float),
            "rank1_cluster": cases["hit_cluster"][keys].to_numpy(),
            "rank1_person": cases["hit_person"][keys].to_numpy(),
            "set_size": sizes[keys].to_numpy(),
            "stranger_share": shares[release.labels],
            "clear_rank1_person": clear.to_numpy(),
        }
    )
    table.loc[~release.found[release.labels]] = np.nan
    return table


def audit(
    folder: str | Path, originals: Faces | None = None, ledger: str | Path | None = None
) -> AuditReport:
    """Check a folder of released images; see `release.audit_release`."""
    return audit_release(folder, originals, ledger)


def compare(table: pd.DataFrame, by: str, **fixed: str) -> pd.DataFrame:
    """Pick the rows of a sweep in which one thing varies and the others are fixed, with both baselines.

    Parameters
    ----------
    table : DataFrame
        From `sweep`.
    by : str
        ``"embedding"``, ``"partitioner"`` or ``"anonymizer"``: what varies.
    **fixed : str
        Values of the other two.

    Returns
    -------
    DataFrame
        The random partition of the fixed anonymizer and embedding counts as one more value of `by`, called
        ``"random"``; rows without anonymization come last.

    Raises
    ------
    ValueError
        If nothing is left.
    """
    if {by, *fixed} != {"embedding", "partitioner", "anonymizer"}:
        raise ValueError(
            "name each of embedding, partitioner and anonymizer once: one as `by`, two with their values"
        )
    rows = table[(table[list(fixed)] == pd.Series(fixed)).all(axis=1)]
    if rows.empty:
        raise ValueError(f"the table has no row with {fixed}; sweep them first")
    if by == "partitioner":
        random = rows.iloc[:0]
    else:
        reference = {**fixed, "partitioner": RANDOM_PARTITION, by: rows[by].iloc[0]}
        random = table[(table[list(reference)] == pd.Series(reference)).all(axis=1)].assign(
            **{by: RANDOM_PARTITION}
        )
    return pd.concat([rows, random, table[table["anonymizer"] == NO_ANONYMIZATION]], ignore_index=True)


#: What is held fixed while one of the three varies.
REFERENCE = {"embedding": "dlib", "partitioner": "ward", "anonymizer": "aam"}


def reference(table: pd.DataFrame) -> dict[str, str]:
    """What to hold fixed in a table of a sweep: dlib, Ward and AAM; for one that is not in it, the first that is."""
    rows = table[(table["k"] > 1) & (table["partitioner"] != RANDOM_PARTITION)]
    rows = rows if len(rows) else table
    return {
        part: name if (rows[part] == name).any() else str(rows[part].iloc[0])
        for part, name in REFERENCE.items()
    }


#: Distances of all pairs are taken among at most so many photos.
N_PAIR_PHOTOS = 2000


def pair_distances(
    descriptors: np.ndarray, identities: np.ndarray, random_state=0
) -> tuple[np.ndarray, np.ndarray]:
    """Distances of all pairs of photos: of one person, and of different people.

    Of more than 2000 photos so many are drawn by `random_state`.

    Parameters
    ----------
    descriptors : ndarray, shape (n, d)
    identities : ndarray, shape (n,)
    random_state : int, RandomState or None, default 0

    Returns
    -------
    same, different : ndarray
        Together n (n - 1) / 2 distances.
    """
    if len(descriptors) > N_PAIR_PHOTOS:
        rows = utils.check_random_state(random_state).choice(len(descriptors), N_PAIR_PHOTOS, replace=False)
        descriptors, identities = descriptors[rows], identities[rows]
    first, second = np.triu_indices(len(descriptors), k=1)
    distance = attacks.distances(descriptors, descriptors)[first, second]
    alike = identities[first] == identities[second]
    return distance[alike], distance[~alike]


def save_table(table: pd.DataFrame, path: str | Path) -> None:
    """Write a table as CSV; an interruption leaves the old file or the new one, never half of it."""
    path = Path(path)
    path.parent.mkdir(parents=True, exist_ok=True)
    utils.save_atomic(path, lambda file: file.write(table.to_csv(index=False).encode()))


def load_table(path: str | Path) -> pd.DataFrame:
    """Read a table that `save_table` wrote.

    Raises
    ------
    FileNotFoundError
        If it is not there yet; the message says how to make it.
    """
    if not Path(path).is_file():
        raise FileNotFoundError(
            f"{path}: no such table; run `make experiments` or NumericalExperiments.ipynb first"
        )
    return pd.read_csv(path, keep_default_na=False, na_values=[""])


ALL_K = range(2, 20)


def parse_k(text: str) -> range:
    """Cluster sizes from text such as ``"2:20"`` or ``"2:20:3"``: first, last (not included), step.

    Raises
    ------
    ValueError
        If the text has another form, or names no size.
    """
    parts = [part.strip() for part in text.split(":")]
    numbers = [int(part) for part in parts if part.isdecimal()]
    step_is_zero = 0 in numbers[2:]
    if len(parts) not in (2, 3) or len(numbers) != len(parts) or step_is_zero or not range(*numbers):
        raise ValueError(f"cluster sizes must look like 2:20 or 2:20:3 and name at least one, not {text!r}")
    return range(*numbers)


def parse_names(text: str) -> list[str] | None:
    """Names from text such as ``"dlib,pca"``; None, which means all, from an empty one or ``"all"``."""
    names = [name.strip() for name in text.split(",") if name.strip()]
    return None if names in ([], ["all"]) else list(dict.fromkeys(names))


def parse_seeds(text: str | int) -> list[int]:
    """Seeds from text such as ``"0"`` or ``"0,1,2"``.

    Raises
    ------
    ValueError
        If the text has another form.
    """
    parts = [part.strip() for part in str(text).split(",")]
    if not all(part.isdecimal() for part in parts):
        raise ValueError(f"seeds must look like 0 or 0,1,2, not {text!r}")
    return [int(part) for part in dict.fromkeys(parts)]


def quick_grid(embeddings: Sequence[str], k_values: Iterable[int] = ALL_K) -> list[dict]:
    """The sweeps of ``make experiments``: one thing varied at a time, every k.

    All partitioners with dlib, all embeddings with Ward, every anonymizer once.
    """
    surrogates = [name for name, cls in anonymizer.ANONYMIZERS.items() if cls.k_anonymous]
    filters = [name for name, cls in anonymizer.ANONYMIZERS.items() if not cls.k_anonymous]
    k_values = list(k_values)
    return [
        {
            "embeddings": ["dlib"],
            "partitioners": list(partitioning.PARTITIONERS),
            "anonymizers": ["aam"],
            "k_values": k_values,
        },
        {
            "embeddings": list(embeddings),
            "partitioners": ["ward"],
            "anonymizers": ["aam"],
            "k_values": k_values,
        },
        {
            "embeddings": ["dlib"],
            "partitioners": ["ward"],
            "anonymizers": [*surrogates, *filters],
            "k_values": k_values,
        },
    ]


def full_grid(embeddings: Sequence[str], k_values: Iterable[int] = ALL_K) -> list[dict]:
    """The sweep of ``make experiments-full``: every combination, published forms of the algorithms included."""
    return [
        {
            "embeddings": list(embeddings),
            "partitioners": [*partitioning.PARTITIONERS, *partitioning.VARIABLE_SIZE],
            "anonymizers": list(anonymizer.ANONYMIZERS),
            "k_values": list(k_values),
        }
    ]


GRIDS = {"quick": quick_grid, "full": full_grid}


def run_grid(
    faces: Faces,
    grid: str = "quick",
    *,
    embeddings: Sequence[str] | None = None,
    partitioners: Sequence[str] | None = None,
    anonymizers: Sequence[str] | None = None,
    k_values: Iterable[int] = ALL_K,
    random_state=0,
    **options,
) -> pd.DataFrame:
    """Run all sweeps of a grid and return one table without doubles.

    Anonymizers that need further files for these faces are left out: see `Anonymizer.fits`.

    Parameters
    ----------
    faces : Faces
    grid : str, default "quick"
        A name in `GRIDS`.
    embeddings, partitioners, anonymizers : sequence of str, optional
        Vary over these; by default over all that the grid names. Where the grid holds one fixed that is not among
        them, the first of them takes its place.
    k_values : iterable of int
        Those above the number of people are left out.
    random_state : int or sequence of int
    **options
        Passed to `sweep`.

    Raises
    ------
    ValueError
        For unknown names, cluster sizes of which none fits, or anonymizers of which none can be made for these faces.
    """
    if grid not in GRIDS:
        raise ValueError(f"unknown grid {grid!r}; there is {', '.join(map(repr, GRIDS))}")
    for name in partitioners or ():
        partitioner(name)
    for name in anonymizers or ():
        anonymizer.kind(name)
    k_values = list(k_values)
    fitting = [k for k in k_values if k <= faces.n_people]
    if not fitting:
        raise ValueError(
            f"no cluster size of {k_values} fits {faces.n_people} people; choose one from 2 to that number"
        )
    unfit = {name for name in anonymizers or anonymizer.ANONYMIZERS if not anonymizer.kind(name).fits(faces)}
    if anonymizers is not None and unfit >= set(anonymizers):
        raise ValueError(f"for these faces {', '.join(sorted(unfit))} need further files or options")
    if unfit:
        warnings.warn(
            f"left out, as they need further files or options for these faces: {', '.join(sorted(unfit))}",
            stacklevel=2,
        )
    tables = []
    fit = None if anonymizers is None else [name for name in anonymizers if name not in unfit]
    chosen = {"embeddings": embeddings, "partitioners": partitioners, "anonymizers": fit}
    for one in GRIDS[grid](embeddings or embedding.available(), fitting):
        for part, names in chosen.items():
            if names is not None:
                fixed = one[part] if len(one[part]) == 1 else []
                one[part] = fixed if set(fixed) & set(names) else list(names[:1] if fixed else names)
        one["anonymizers"] = [name for name in one["anonymizers"] if name not in unfit]
        tables.append(sweep(faces, **one, random_state=random_state, **options))
    return pd.concat(tables, ignore_index=True).drop_duplicates(
        ["embedding", "partitioner", "anonymizer", "k", "seed"], ignore_index=True
    )


def main(arguments: Sequence[str] | None = None) -> None:
    """Run a grid from the command line and write its table to outputs/."""
    parser = argparse.ArgumentParser(prog="python -m evaluation", description=main.__doc__)
    parser.add_argument("source", nargs="?", default="orl", help="orl, or a folder of photos (default: orl)")
    parser.add_argument("--grid", choices=GRIDS, default="quick")
    parser.add_argument(
        "--k", default="2:20", metavar="FROM:TO[:STEP]", help="cluster sizes, TO not included (2:20)"
    )
    for part in ("embeddings", "partitioners", "anonymizers"):
        parser.add_argument(f"--{part}", default="all", metavar="NAMES", help="separated by commas (all)")
    parser.add_argument(
        "--seed", type=parse_seeds, default="0", metavar="SEEDS", help="such as 0 or 0,1,2 (0)"
    )
    parser.add_argument("--jobs", type=int, default=-1, help="processes (default: all cores)")
    parser.add_argument(
        "--output", type=Path, default=OUTPUTS, help="folder for the table (default: outputs)"
    )
    chosen = parser.parse_args(arguments)
    try:
        k_values = parse_k(chosen.k)
        seeds, jobs = chosen.seed, chosen.jobs
        names = {
            part: parse_names(getattr(chosen, part)) for part in ("embeddings", "partitioners", "anonymizers")
        }
        seed = seeds[0]  # of the photos, and of what is attacked
        faces = datasets.load_faces(chosen.source, per_identity=1, random_state=seed)
        print(faces)
        table = run_grid(faces, chosen.grid, **names, k_values=k_values, random_state=seeds, n_jobs=jobs)
        released = restrict(LOOKED_INTO[chosen.grid](faces, k_values), **names)
        tables = {
            chosen.grid: table,
            f"{chosen.grid}_attacks": attack_table(faces, released, random_state=seed, n_jobs=jobs),
            f"{chosen.grid}_utility": utility_table(faces, released, random_state=seed, n_jobs=jobs),
        }
    except (ValueError, FileNotFoundError) as error:
        sys.exit(f"error: {error}")
    except KeyboardInterrupt:
        sys.exit("interrupted; finished combinations are kept, run the same command again to go on")
    for name, table in tables.items():
        path = chosen.output / f"{faces.source}_{name}.csv"
        save_table(table, path)
        print(f"{len(table)} rows -> {path}")


if __name__ == "__main__":
    import evaluation  # workers get functions by name, not with all that this process has loaded

    evaluation.main()
