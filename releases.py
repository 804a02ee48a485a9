"""Make named releases, and measure each: attacks, utility, groups of people, distances in clusters; all cached.

A table of a release depends on the code in this file and on its imports; its cache key covers these, the anonymizer,
and the content of photos, options and recognisers.
"""

from __future__ import annotations

import functools
import inspect
import time
import uuid
from collections.abc import Callable, Sequence
from dataclasses import dataclass
from typing import NamedTuple

import numpy as np
import pandas as pd

import anonymizer
import attacks
import detection
import embedding
import recognisers as recognition
import utility
import utils
from datasets import Faces
from jobs import Job
from measures import (
    ClearPhotos,
    clear_photos,
    measure_row,
    partition_people,
    partitioner,
    reconstruction_scores,
    release_images,
)

#: Placeholder in columns that do not apply to a row.
NOT_APPLICABLE = "-"

#: CPU seconds of a row of the sweep, of each image in it, and of a fit of the network of ``cnn`` to a photo.
_SECONDS_PER_ROW, _SECONDS_PER_IMAGE, _SECONDS_PER_FIT = 0.05, 0.05, 0.8


# ----------------------------------------------------------------------------------------------------------
# Named releases
# ----------------------------------------------------------------------------------------------------------


class Combination(NamedTuple):
    """How a release is made; an anonymizer that changes each photo separately has "-", "-" and k = 1."""

    embedding: str
    partitioner: str
    anonymizer: str
    k: int


#: Models of this process, so that a worker fits each only once: (name, faces) -> model.
_MODELS: dict[tuple[str, str], anonymizer.Anonymizer] = {}


def load_model(name: str, faces: Faces) -> anonymizer.Anonymizer:
    """Make an anonymizer, once in each process."""
    key = (name, faces.fingerprint)
    if key not in _MODELS:
        _MODELS[key] = anonymizer.load(name, faces)
    return _MODELS[key]


def _model_key(name: str, faces: Faces) -> str:
    """Cache key of what an anonymizer makes of faces, if possible without making the model, which takes seconds."""
    kind, options = anonymizer.kind(name), anonymizer.VARIANTS.get(name, (name, {}))[1]
    if not kind.__module__.startswith("anonymizer.") or set(options) & set(kind.files):
        return utils.content_key(load_model(name, faces).fingerprint, _definition(kind))
    files = [path.read_bytes() for paths in kind.files.values() for path in paths]
    return utils.content_key(kind.name, options, faces.fingerprint, kind.code_key(), files)


def _definition(entry: Callable) -> str:
    """Source of a registry entry that users added, for the cache's keys.

    An entry whose source cannot be read gets a new name each time, so that rows of an older one never come back.
    """
    entry = entry.func if isinstance(entry, functools.partial) else entry
    module = str(getattr(entry, "__module__", None))
    if module.partition(".")[0] in ("partitioning", "balancing", "anonymizer"):
        return ""  # part of the other keys
    try:
        return inspect.getsource(entry)
    except (OSError, TypeError):
        return uuid.uuid4().hex


def partition_for(faces: Faces, combination: Combination, random_state: int) -> np.ndarray:
    """Partition people as a combination says: the cluster of each photo, int (n,)."""
    descriptors = embedding.embed(faces, combination.embedding)
    return partition_people(faces, descriptors, combination.partitioner, combination.k, random_state)


def _make_release(
    faces: Faces, combination: Combination, random_state: int
) -> tuple[anonymizer.Anonymizer, list[np.ndarray], np.ndarray]:
    """The model, the images, and the image of each photo."""
    model = load_model(combination.anonymizer, faces)
    labels = partition_for(faces, combination, random_state) if model.k_anonymous else None
    return model, *release_images(faces, model, labels)


# ----------------------------------------------------------------------------------------------------------
# Jobs: rows of the sweep, and tables
# ----------------------------------------------------------------------------------------------------------


def _code_key() -> str:
    """Key of the code that computes a row of the sweep, except the code of the anonymizers."""
    return utils.source_key("measures", without=["anonymizer"])[:16]


def sweep_jobs(
    faces: Faces,
    combinations: Sequence[dict],
    recogniser: str = "dlib",
    threshold: float = attacks.PAPER_THRESHOLD,
) -> list[Job]:
    """Make a job for each row of `evaluation.sweep`, then one for the reconstructions of each anonymizer in it.

    Parameters
    ----------
    faces : Faces
    combinations : sequence of dict
        ``embedding partitioner anonymizer k seed``.
    recogniser, threshold
        See `evaluation.sweep`.
    """
    how = {"recogniser": recogniser, "threshold": float(threshold)}
    # Describe the photos before the workers start: they read the cache.
    clear = clear_photos(faces, recogniser)
    clustered_by = sorted({c["embedding"] for c in combinations} - {NOT_APPLICABLE})
    descriptors = {name: embedding.embed(faces, name) for name in clustered_by}
    models = {name: _model_key(name, faces) for name in dict.fromkeys(c["anonymizer"] for c in combinations)}
    store, jobs = "sweep-" + _code_key(), []
    for c in combinations:
        clusters = descriptors.get(c["embedding"])
        own = [] if c["partitioner"] == NOT_APPLICABLE else [_definition(partitioner(c["partitioner"]))]
        held = clear.descriptors if clusters is None else clusters
        key = utils.content_key(models[c["anonymizer"]], clear.descriptors, held, *c.values(), how, *own)
        cost = _SECONDS_PER_ROW + _seconds_per_image(c["anonymizer"]) * len(faces) / c["k"]
        jobs.append(
            Job(store, key, _measure_combination, (faces, c, clusters, how, models[c["anonymizer"]]), cost)
        )
    for name, model in models.items():
        key = utils.content_key("reconstructions", model, clear.descriptors, recogniser)
        cost = len(faces) * (_SECONDS_PER_FIT if name == "cnn" else _SECONDS_PER_IMAGE)
        jobs.append(Job(store, key, _measure_reconstructions, (faces, name, recogniser), cost))
    return jobs


def _seconds_per_image(name: str) -> float:
    """What an image costs to draw, find and describe; mixtures that are adjusted are drawn several times."""
    return _SECONDS_PER_IMAGE * (1 if name in anonymizer.ANONYMIZERS else 6)


def _measure_combination(
    faces: Faces, combination: dict, descriptors: np.ndarray | None, how: dict, model_key: str
) -> dict[str, float | int | str]:
    model = load_model(combination["anonymizer"], faces)
    return {**combination, **measure_row(faces, model, descriptors, combination, how, model_key)}


def _measure_reconstructions(faces: Faces, name: str, recogniser: str) -> dict[str, float]:
    return reconstruction_scores(clear_photos(faces, recogniser), load_model(name, faces))


@dataclass(frozen=True)
class Table:
    """A kind of table of one release.

    Attributes
    ----------
    measure : callable
        Faces, `Combination`, seed and options -> DataFrame, or another plain value.
    cost : float
        CPU seconds for a release of 40 people, roughly.
    without : tuple of str
        Modules that `measure` does not use, although its module imports them.
    """

    measure: Callable[[Faces, Combination, int, dict], pd.DataFrame | dict]
    cost: float
    without: tuple[str, ...] = ()


def release_jobs(
    table: Table, faces: Faces, combinations: Sequence[Combination], random_state: int = 0, **options
) -> list[Job]:
    """Make a job for the table of each release; its result is ``{"columns": ..., "data": ...}`` for a DataFrame."""
    code = utils.source_key(table.measure.__module__, without=["anonymizer", *table.without])[:16]
    store, inputs, jobs = f"{table.measure.__name__.strip('_')}-{code}", _inputs(faces, options), []
    models = {name: _model_key(name, faces) for name in {c.anonymizer for c in combinations}}
    for c in combinations:
        own = []
        if c.partitioner != NOT_APPLICABLE:
            own = [embedding.embed(faces, c.embedding), _definition(partitioner(c.partitioner))]
        key = utils.content_key(models[c.anonymizer], list(c), own, int(random_state), options, inputs)
        cost = table.cost * len(faces) / 40 * (1.5 if c.anonymizer.startswith("stylegan") else 1)
        jobs.append(Job(store, key, _run_table, (table.measure, faces, c, random_state, options), cost))
    return jobs


def _run_table(measure: Callable, faces: Faces, combination: Combination, random_state: int, options: dict):
    result = measure(faces, combination, random_state, options)
    return result.to_dict("split", index=False) if isinstance(result, pd.DataFrame) else result


def _inputs(faces: Faces, options: dict) -> list:
    """What a table depends on beside photos and code: the attributes, and what recognisers and networks read."""
    attributes = [one.attributes.to_csv() for one in (faces, faces.others) if one is not None]
    names = [options.get("recogniser"), options.get("naturalness")]
    names += [name for several in ("recognisers", "checks", "also") for name in options.get(several) or ()]
    read = [_describe_two(faces, name) for name in names if name]
    readings = utility.FaceReadings(faces.select(slice(0, 2)))
    for reading in ("ages", "sexes", "expressions"):
        try:
            read.append(getattr(readings, reading))
        except utility.MissingModelError as error:
            read.append(str(error))
    return [attributes, recognition.available(), read]


def _describe_two(faces: Faces, name: str) -> np.ndarray | str:
    """Describe two photos by a recogniser; why it cannot be used, if so."""
    try:
        describe = recognition.prepare(name, attacks.gallery_faces(faces)[0])
    except (recognition.MissingRecogniserError, recognition.UnfitGalleryError) as error:
        return str(error)
    return describe(faces.select(slice(0, 2)))


# ----------------------------------------------------------------------------------------------------------
# Tables of one release
# ----------------------------------------------------------------------------------------------------------


def cluster_distances(
    faces: Faces, model: anonymizer.Anonymizer, labels: np.ndarray, *, recogniser: str = "dlib"
) -> pd.DataFrame:
    """Distances from each cluster's surrogate to the photos of its members.

    Returns
    -------
    DataFrame
        A row for each photo: ``label``, ``row`` (of the photo in `faces`), ``distance`` (NaN if the surrogate shows
        no face).
    """
    images, labels = release_images(faces, model, labels)
    drawn, found = embedding.embed(images, recogniser), detection.detect(images).found
    distance = np.linalg.norm(drawn[labels] - embedding.embed(faces, recogniser), axis=1)
    distance[~found[labels]] = np.nan
    table = pd.DataFrame({"label": labels, "row": np.arange(len(faces)), "distance": distance})
    return table.sort_values(["label", "row"], ignore_index=True)


def _attack(faces: Faces, combination: Combination, random_state: int, options: dict) -> pd.DataFrame:
    model, images, labels = _make_release(faces, combination, random_state)
    further = []
    if model.k_anonymous and combination.k < faces.n_people:
        other = combination._replace(k=combination.k + 1)
        _, more, their_labels = _make_release(faces, other, random_state)
        further.append(attacks.Published(more, their_labels, faces.identities))
    again = _release_of_other_photos(faces, combination, random_state)
    if again is not None:
        further.append(again)
    part = _release_of_half(faces, combination, random_state)
    return attacks.attack_release(
        faces, images, labels, model=model, anonymized=again, further=further, part=part, random_state=random_state,
        **options,
    )  # fmt: skip


def _release_of_half(faces: Faces, combination: Combination, random_state: int) -> attacks.Published | None:
    """The same combination for half of the people, drawn at random; None if they are too few."""
    people = utils.check_random_state(random_state).permutation(faces.people)[: faces.n_people // 2]
    if len(people) < combination.k:
        return None
    photos = faces.select(np.isin(faces.identities, people))
    if not anonymizer.kind(combination.anonymizer).fits(photos):
        return None
    _, images, labels = _make_release(photos, combination, random_state)
    return attacks.Published(images, labels, photos.identities)


def _release_of_other_photos(
    faces: Faces, combination: Combination, random_state: int
) -> attacks.Published | None:
    """The same combination for another photo of each person; None if a person has no other, or on failure."""
    if faces.others is None or set(faces.identities) - set(faces.others.identities):
        return None
    kept = faces.others.select(np.isin(faces.others.identities, faces.identities)).split(1, random_state)
    photos = kept.select(slice(None))  # without others: the generator knows only these photos
    if not anonymizer.kind(combination.anonymizer).fits(photos):
        return None
    _, images, labels = _make_release(photos, combination, random_state)
    return attacks.Published(images, labels, photos.identities, "other photos")


def _utility(faces: Faces, combination: Combination, random_state: int, options: dict) -> pd.DataFrame:
    load_model(combination.anonymizer, faces)
    begun = time.process_time()
    _, images, labels = _make_release(faces, combination, random_state)
    seconds = (time.process_time() - begun) / len(images)
    table = utility.measure_utility(faces, images, labels, random_state=random_state, **options)
    note = "CPU time of each image, with the partition but without fitting or loading the model"
    row = {
        "metric": "seconds",
        "value": seconds,
        "n": len(images),
        "n_failed": 0,
        "better": "lower",
        "note": note,
    }
    return pd.concat([table, pd.DataFrame([row])], ignore_index=True)


def _compare_groups(faces: Faces, combination: Combination, random_state: int, options: dict) -> pd.DataFrame:
    _, images, labels = _make_release(faces, combination, random_state)
    groups = utility.people_groups(faces)
    private = photo_privacy(faces, images, labels, options["recogniser"])
    useful = utility.photo_utility(faces, images, labels).drop(columns=["identity", "label", "failed"])
    parts = [utility.by_group(pd.concat([private, useful], axis=1), groups, faces.identities, random_state)]
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
    """Measure what each photo's image reveals about its person.

    Returns
    -------
    DataFrame
        A row for each photo; NaN if its image shows no face. ``re_identification`` (at 0.6 for dlib, else at the
        calibrated threshold), ``rank1_cluster`` and ``rank1_person`` (success of a gallery search), ``set_size``
        (effective anonymity set, see `attacks.posterior`). To compare with: ``chance_cluster`` (a blind guess),
        ``stranger_share`` (share of other people's gallery photos within the threshold) and ``clear_rank1_person`` (a
        search by the photo itself).
    """
    clear = ClearPhotos.of(faces, recognition.prepare(recogniser, attacks.gallery_faces(faces)[0]))
    release, gallery = clear.release(images, labels), clear.gallery
    limit = attacks.RECOMMENDED.get(recogniser)
    if limit is None:
        limit = attacks.clear_threshold(gallery.descriptors, gallery.identities).value
    near = np.linalg.norm(release.descriptors[release.labels] - clear.descriptors, axis=1) < limit
    # Search the gallery for each image, and compute the posterior: one row per image and person.
    cases = attacks.closed_set(release, gallery).set_index(["person", "image"])
    cases["chance_cluster"] = cases.groupby("image")["failed"].transform("size") / len(gallery.people)
    sizes = attacks.posterior(release, gallery)[0].per_person.set_index(["person", "image"])["set_size"]
    keys = list(zip(faces.identities.tolist(), release.labels.tolist(), strict=True))
    # Count the strangers near each image, and search with the original photos.
    strangers = ~attacks.members_of(release.cases, gallery.identities, len(release.found))  # (c, g)
    taken = strangers & (attacks.distances(release.descriptors, gallery.descriptors) < limit)
    shares = taken.sum(axis=1) / np.where(strangers.any(axis=1), strangers.sum(axis=1), np.nan)
    unchanged = attacks.closed_set(clear.unchanged, gallery).sort_values("image")["hit_person"]
    table = pd.DataFrame(
        {
            "re_identification": near.astype(float),
            "rank1_cluster": cases["hit_cluster"][keys].to_numpy(),
            "chance_cluster": cases["chance_cluster"][keys].to_numpy(),
            "rank1_person": cases["hit_person"][keys].to_numpy(),
            "set_size": sizes[keys].to_numpy(),
            "stranger_share": shares[release.labels],
            "clear_rank1_person": unchanged.to_numpy(),
        }
    )
    table.loc[~release.found[release.labels]] = np.nan
    return table


def _measure_distances(
    faces: Faces, combination: Combination, random_state: int, options: dict
) -> pd.DataFrame:
    labels = partition_for(faces, combination, random_state)
    return cluster_distances(faces, load_model(combination.anonymizer, faces), labels, **options)


#: Name -> table.
TABLES: dict[str, Table] = {
    "attacks": Table(_attack, 20, ("utility",)),
    "utility": Table(_utility, 4),
    "fairness": Table(_compare_groups, 2),
    "distances": Table(_measure_distances, 1, ("utility",)),
}
