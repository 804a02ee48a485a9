"""Sweep over combinations, and tabulate the cost and the protection of anonymization.

The paper (Le et al., "AnonFACES: Anonymizing Faces Adjusted to Constraints on Efficacy and Security", WPES 2020,
section 4) has two measures: information loss and re-identification rate. Both read the same distances, between a
surrogate and the members of its own cluster. Tables therefore also report the success of an adversary with a gallery:
closed-set identification of the cluster and of the person, with their chance levels, and the share of strangers
that match the surrogate.

`measures` measures one release; this file does so for many.
"""

from __future__ import annotations

import functools
import glob
import inspect
import itertools
import json
import os
import sys
import uuid
import warnings
from collections.abc import Callable, Iterable, Iterator, Sequence
from pathlib import Path
from typing import NamedTuple

import joblib
import numpy as np
import pandas as pd

import anonymizer
import attacks
import checks
import datasets
import detection
import embedding
import measures
import partitioning
import recognisers as recognition
import utility
import utils
from datasets import Faces
from measures import ClearPhotos, evaluate, measure, partition_people, partitioner, release_images
from release import audit_release as audit

__all__ = [
    "NAMED_COMBINATIONS", "NOT_APPLICABLE", "NO_ANONYMIZATION", "RANDOM_PARTITION", "Combination", "attack_table",
    "audit", "cluster_distances", "compare", "evaluate", "fairness_table", "fitting", "load_table", "measure",
    "pair_distances", "partition_people", "partitioner", "photo_privacy", "reference", "release_images",
    "save_table", "sweep", "table_stem", "utility_table",
]  # fmt: skip

#: The baselines in every table.
RANDOM_PARTITION, NO_ANONYMIZATION = "random", "none"

#: Placeholder in columns that do not apply to a row.
NOT_APPLICABLE = "-"

#: Fewer tasks than this run in this process: starting others would take longer.
_PARALLEL_TASKS = 4

#: At most this many photos enter the distances of all pairs.
_N_PAIR_PHOTOS = 2000

#: The record of the data set behind each name of tables, and how many digits of its key are kept.
_DATA_SETS, _KEY_DIGITS = "data_sets.json", 8

#: Default values of the fixed parts while one of the three varies.
_REFERENCE = {"embedding": "dlib", "partitioner": "ward", "anonymizer": "aam"}


# ----------------------------------------------------------------------------------------------------------
# The sweep
# ----------------------------------------------------------------------------------------------------------


def sweep(
    faces: Faces,
    embeddings: Sequence[str] = ("dlib",),
    partitioners: Sequence[str] = ("balanced",),
    anonymizers: Sequence[str] = ("aam",),
    k_values: Iterable[int] = range(2, 20),
    random_state: int | Sequence[int] = 0,
    *,
    recogniser: str = "dlib",
    threshold: float = attacks.PAPER_THRESHOLD,
    n_jobs: int = -1,
    output: str | Path | None = None,
) -> pd.DataFrame:
    """Measure every combination of embedding, partitioner, anonymizer and k.

    The table always includes two baselines: the random partition, and a row without anonymization. Finished
    combinations are cached on disk, so an interrupted sweep resumes where it stopped, in this or another session.

    Parameters
    ----------
    faces : Faces
    embeddings : sequence of str
        Embeddings for clustering people; see `embedding.embed`.
    partitioners : sequence of str
        Names in `partitioning.PARTITIONERS` or `partitioning.VARIABLE_SIZE`.
    anonymizers : sequence of str
        Names in `anonymizer.ANONYMIZERS` or `anonymizer.VARIANTS`. Those that change each photo separately give one
        row with k = 1.
    k_values : iterable of int
        Each from 2 to the number of people.
    random_state : int or sequence of int, default 0
        The seed; several seeds give one row each.
    recogniser : str, default "dlib"
        The embedding for all measurements.
    threshold : float, default 0.6
        Distance threshold; the default is the paper's, for dlib.
    n_jobs : int, default -1
        Processes; -1 uses all cores. ``joblib.parallel_config`` selects another backend, such as Dask.
    output : path, optional
        Also write the table there as CSV.

    Returns
    -------
    DataFrame
        One row for each combination: ``embedding partitioner anonymizer k seed``, ``n_clusters``, ``recogniser``,
        ``threshold``, then what `evaluate` and `measures.reconstruction_scores` return.

    Raises
    ------
    ValueError, TypeError
        For unknown names, or an invalid k or seed, before any work is done.

    Examples
    --------
    >>> import datasets, evaluation
    >>> faces = datasets.load_faces("orl", per_identity=1)
    >>> table = evaluation.sweep(faces, ["dlib"], ["ward"], ["aam"], [2, 5])
    """
    combinations = _combinations(faces, embeddings, partitioners, anonymizers, k_values, random_state)
    for name in dict.fromkeys([*embeddings, recogniser]):  # an unknown one fails on two photos already
        embedding.embed(faces.select(slice(0, 2)), name)
    # Describe the photos before the workers start: they read the cache.
    clear = measures.clear_photos(faces, recogniser)
    clustered_by = sorted({c["embedding"] for c in combinations} - {NOT_APPLICABLE})
    descriptors = {name: embedding.embed(faces, name) for name in clustered_by}
    models = {name: _model(name, faces) for name in dict.fromkeys(c["anonymizer"] for c in combinations)}
    how = {"recogniser": recogniser, "threshold": float(threshold)}
    # Read the cached rows; a key covers the code and all inputs of a row.
    store = utils.CacheStore("sweep-" + _code_key())
    keys = []
    for c in combinations:
        model, clusters = models[c["anonymizer"]], descriptors.get(c["embedding"], clear.descriptors)
        added = [_definition(type(model))]
        if c["partitioner"] != NOT_APPLICABLE:
            added.append(_definition(partitioner(c["partitioner"])))
        keys.append(
            utils.content_key(model.fingerprint, clear.descriptors, clusters, *c.values(), how, *added)
        )
    rows = {key: json.loads(value) for key, value in store.get(keys).items()}
    # Compute the others, and keep each as soon as it is finished.
    tasks = [
        (key, faces, c, descriptors.get(c["embedding"]), how)
        for key, c in zip(keys, combinations, strict=True)
        if key not in rows
    ]
    for key, row in _in_parallel(_measure_combination, tasks, n_jobs, "combinations", ordered=False):
        store.put({key: json.dumps(row).encode()})
        rows[key] = row
    table = pd.DataFrame([rows[key] for key in keys])
    if output is not None:
        save_table(table, output)
    return table


def _combinations(faces, embeddings, partitioners, anonymizers, k_values, random_state) -> list[dict]:
    """Check the arguments of a sweep and list its combinations, baselines included."""
    parts = {"embeddings": embeddings, "partitioners": partitioners, "anonymizers": anonymizers}
    for part, names in parts.items():
        if isinstance(names, str) or not names:
            raise checks.ParameterError(f"{part} must be a list of at least one name, got {names!r}")
    for name in partitioners:
        partitioner(name)
    k_values = sorted(set(_integers("k_values", k_values, at_least=2, at_most=faces.n_people)))
    seeds = random_state if isinstance(random_state, Iterable) else [random_state]
    seeds = dict.fromkeys(_integers("random_state", seeds))
    shared = [name for name in anonymizers if anonymizer.kind(name).k_anonymous]
    single = [name for name in anonymizers if name not in shared and name != NO_ANONYMIZATION]
    partitioners = list(dict.fromkeys([*partitioners, RANDOM_PARTITION])) if shared else []
    grid = [
        *itertools.product(dict.fromkeys(embeddings), partitioners, dict.fromkeys(shared), k_values),
        *((NOT_APPLICABLE, NOT_APPLICABLE, name, 1) for name in dict.fromkeys([*single, NO_ANONYMIZATION])),
    ]
    columns = ("embedding", "partitioner", "anonymizer", "k", "seed")
    return [dict(zip(columns, (*cell, seed), strict=True)) for seed in seeds for cell in grid]


def _integers(name: str, values: Iterable[int], **limits: int) -> list[int]:
    values = list(values) if isinstance(values, Iterable) and not isinstance(values, str) else values
    if not isinstance(values, list) or not values:
        raise checks.ParameterError(f"{name} must be a list or range of at least one integer, got {values!r}")
    return [int(checks.check_number(f"each of {name}", value, int, **limits)) for value in values]


def _measure_combination(
    key: str, faces: Faces, combination: dict, descriptors: np.ndarray | None, how: dict
):
    """Compute one row of a sweep; returns its key and the row."""
    model = _model(combination["anonymizer"], faces)
    return key, {**combination, **measures.measure_row(faces, model, descriptors, combination, how)}


#: Models of this process, so that a worker fits each only once: (name, faces) -> model.
_MODELS: dict[tuple[str, str], anonymizer.Anonymizer] = {}


def _model(name: str, faces: Faces) -> anonymizer.Anonymizer:
    key = (name, faces.fingerprint)
    if key not in _MODELS:
        _MODELS[key] = anonymizer.load(name, faces)
    return _MODELS[key]


def _code_key() -> str:
    """Key of the code that computes a row, except the code of the anonymizers."""
    return utils.source_key("measures", without=["anonymizer"])[:16]


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


# ----------------------------------------------------------------------------------------------------------
# Work in parallel
# ----------------------------------------------------------------------------------------------------------


def _in_parallel(
    function: Callable, tasks: Sequence[tuple], n_jobs: int, description: str, ordered: bool = True
) -> Iterator:
    """Results of a function, called with each of several tuples of arguments, by several processes."""
    entries = [dict(registry) for registry in _registries()]
    calls = (joblib.delayed(_run_task)(entries, function, arguments) for arguments in tasks)
    jobs = n_jobs if len(tasks) >= _PARALLEL_TASKS else 1
    results = utils.run_parallel(calls, jobs, return_as="generator" if ordered else "generator_unordered")
    with warnings.catch_warnings():
        # joblib mistakes a worker that holds a network for a memory leak and replaces it; no task is lost.
        warnings.filterwarnings("ignore", message="A worker stopped while some jobs were given")
        yield from utils.progress(results, description, total=len(tasks), disable=None if tasks else True)


def _registries() -> tuple[dict, ...]:
    return (
        embedding.EMBEDDINGS, partitioning.PARTITIONERS, partitioning.VARIABLE_SIZE, anonymizer.ANONYMIZERS,
        anonymizer.VARIANTS,
    )  # fmt: skip


def _run_task(entries: list[dict], function: Callable, arguments: tuple):
    """Call a function after registering the caller's entries, which a new process does not have."""
    for registry, known in zip(_registries(), entries, strict=True):
        registry.update(known)
    return function(*arguments)


# ----------------------------------------------------------------------------------------------------------
# Comparisons
# ----------------------------------------------------------------------------------------------------------


def compare(table: pd.DataFrame, by: str, **fixed: str) -> pd.DataFrame:
    """Select the rows of a sweep in which one thing varies and the others are fixed, with both baselines.

    Parameters
    ----------
    table : DataFrame
        From `sweep`.
    by : str
        The part that varies: ``"embedding"``, ``"partitioner"`` or ``"anonymizer"``.
    **fixed : str
        Values of the other two, such as those of `reference`; one for `by` is ignored.

    Returns
    -------
    DataFrame
        The random partition of the fixed anonymizer and embedding counts as one more value of `by`, called
        ``"random"``; rows without anonymization come last.

    Raises
    ------
    ValueError
        If the table has no such row.
    """
    fixed = {part: name for part, name in fixed.items() if part != by}
    if {by, *fixed} != set(_REFERENCE):
        raise ValueError(
            f"`by` must be one of embedding, partitioner and anonymizer, and the other two fixed; got {by!r} and "
            f"{fixed}"
        )
    rows = _rows(table, fixed)
    if rows.empty:
        raise ValueError(f"the table has no row with {fixed}; sweep them first")
    parts = [rows, _rows(table, {"anonymizer": NO_ANONYMIZATION})]
    if by != "partitioner":
        baseline = _rows(table, {**fixed, "partitioner": RANDOM_PARTITION, by: rows[by].iloc[0]})
        parts.insert(1, baseline.assign(**{by: RANDOM_PARTITION}))
    return pd.concat(parts, ignore_index=True)


def _rows(table: pd.DataFrame, values: dict[str, str]) -> pd.DataFrame:
    """The rows with these values."""
    return table[(table[list(values)] == pd.Series(values)).all(axis=1)]


def reference(table: pd.DataFrame) -> dict[str, str]:
    """The fixed values for a sweep's table: dlib, Ward and AAM, or for each the first value in the table instead."""
    rows = table[(table["k"] > 1) & (table["partitioner"] != RANDOM_PARTITION)]
    rows = rows if len(rows) else table
    return {
        part: name if (rows[part] == name).any() else str(rows[part].iloc[0])
        for part, name in _REFERENCE.items()
    }


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


def pair_distances(
    descriptors: np.ndarray, identities: np.ndarray, random_state=0
) -> tuple[np.ndarray, np.ndarray]:
    """Distances of all pairs of photos: of one person, and of different people.

    Parameters
    ----------
    descriptors : ndarray, shape (n, d)
    identities : ndarray, shape (n,)
    random_state : int, RandomState or None, default 0
        Draws 2000 of the photos if there are more.

    Returns
    -------
    same, different : ndarray
        Together n (n - 1) / 2 distances.
    """
    if len(descriptors) > _N_PAIR_PHOTOS:
        rows = utils.check_random_state(random_state).choice(len(descriptors), _N_PAIR_PHOTOS, replace=False)
        descriptors, identities = descriptors[rows], identities[rows]
    first, second = np.triu_indices(len(descriptors), k=1)
    distance = attacks.distances(descriptors, descriptors)[first, second]
    alike = identities[first] == identities[second]
    return distance[alike], distance[~alike]


# ----------------------------------------------------------------------------------------------------------
# Attacks, utility and fairness of several releases
# ----------------------------------------------------------------------------------------------------------


class Combination(NamedTuple):
    """How a release is made; an anonymizer that changes each photo separately has "-", "-" and k = 1."""

    embedding: str
    partitioner: str
    anonymizer: str
    k: int


#: The releases that ``make experiments`` attacks, most informative first: one thing varied at a time, and baselines.
NAMED_COMBINATIONS = (
    Combination("dlib", "ward", "aam", 5),
    Combination(NOT_APPLICABLE, NOT_APPLICABLE, NO_ANONYMIZATION, 1),
    *(Combination("dlib", "ward", name, 5) for name in ("stylegan", "cnn", "pixel", "stylegan_adjusted")),
    *(Combination("dlib", "ward", "aam", k) for k in (2, 10)),
    *(Combination("dlib", name, "aam", 5) for name in (RANDOM_PARTITION, "balanced")),
    *(Combination(NOT_APPLICABLE, NOT_APPLICABLE, name, 1) for name in ("blur", "pixelate")),
)


def fitting(faces: Faces, combinations: Iterable[Combination] = NAMED_COMBINATIONS) -> list[Combination]:
    """Select the combinations that these faces allow without further files: see `Anonymizer.fits`."""
    return [c for c in combinations if c.k <= faces.n_people and anonymizer.kind(c.anonymizer).fits(faces)]


def attack_table(
    faces: Faces,
    combinations: Iterable[Combination] | None = None,
    *,
    recognisers: Sequence[str] = attacks.RECOGNISERS,
    random_state: int = 0,
    n_jobs: int = -1,
    **options,
) -> pd.DataFrame:
    """Run every attack on several releases.

    Composition and linking attack each release together with further releases of the same people: surrogates of
    clusters with one more person, and the same method on another photo of everyone, if available. The latter is also
    the anonymized gallery.

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
    """Compare the privacy and utility of groups of people, for several releases.

    Parameters as for `attack_table`; privacy is measured by `recogniser`, see `recognisers.prepare`.

    Returns
    -------
    DataFrame
        ``embedding partitioner anonymizer k seed`` and the columns of `utility.by_group`, with intervals over people.
        Measures of privacy are the columns of `photo_privacy`; then follow those of `utility.photo_utility`.
        Groups: `utility.people_groups`. The last rows, with the measures ``cluster_...`` and the group ``"random
        clusters"`` beside ``"clusters"``, are `utility.cluster_homogeneity`.
    """
    return _over_releases(
        _compare_groups, faces, combinations, random_state, n_jobs, "fairness", recogniser=recogniser
    )


def utility_table(
    faces: Faces,
    combinations: Iterable[Combination] | None = None,
    *,
    random_state: int = 0,
    n_jobs: int = -1,
    **options,
) -> pd.DataFrame:
    """Measure what the surrogates of several releases preserve.

    Parameters as for `attack_table`; `options` are those of `utility.measure_utility`.

    Returns
    -------
    DataFrame
        ``embedding partitioner anonymizer k seed`` and the columns of `utility.measure_utility`.
    """
    return _over_releases(_utility, faces, combinations, random_state, n_jobs, "utility", **options)


def _over_releases(
    function, faces, combinations, random_state, n_jobs, description, **options
) -> pd.DataFrame:
    """Tables of a function of several releases, joined in the order of the combinations."""
    chosen = fitting(faces) if combinations is None else [Combination(*c) for c in combinations]
    if not chosen:
        raise ValueError("combinations must hold at least one combination")
    for c in chosen:
        anonymizer.kind(c.anonymizer)
        if c.partitioner != NOT_APPLICABLE:
            partitioner(c.partitioner)
    tasks = [(faces, c, random_state, options) for c in chosen]
    tables = list(_in_parallel(function, tasks, n_jobs, description))
    for c, table in zip(chosen, tables, strict=True):
        for place, (name, value) in enumerate({**c._asdict(), "seed": random_state}.items()):
            table.insert(place, name, value)
    return pd.concat([table for table in tables if len(table)], ignore_index=True)


def _make_release(
    faces: Faces, combination: Combination, random_state: int
) -> tuple[anonymizer.Anonymizer, list[np.ndarray], np.ndarray]:
    """The model, the images, and the image of each photo."""
    model, labels = _model(combination.anonymizer, faces), None
    if model.k_anonymous:
        descriptors = embedding.embed(faces, combination.embedding)
        labels = partition_people(faces, descriptors, combination.partitioner, combination.k, random_state)
    return model, *release_images(faces, model, labels)


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
    return attacks.attack_release(
        faces, images, labels, model=model, anonymized=again, further=further, random_state=random_state,
        **options,
    )  # fmt: skip


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
    _, images, labels = _make_release(faces, combination, random_state)
    return utility.measure_utility(faces, images, labels, random_state=random_state, **options)


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
        (effective anonymity set, see `attacks.posterior`). To compare with: ``stranger_share`` (share of other
        people's gallery photos within the threshold) and ``clear_rank1_person`` (a search by the photo itself).
    """
    clear = ClearPhotos.of(faces, recognition.prepare(recogniser, attacks.gallery_faces(faces)[0]))
    release, gallery = clear.release(images, labels), clear.gallery
    limit = attacks.RECOMMENDED.get(recogniser)
    if limit is None:
        limit = attacks.clear_threshold(gallery.descriptors, gallery.identities).value
    near = np.linalg.norm(release.descriptors[release.labels] - clear.descriptors, axis=1) < limit
    # Search the gallery for each image, and compute the posterior: one row per image and person.
    cases = attacks.closed_set(release, gallery).set_index(["person", "image"])
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
            "rank1_person": cases["hit_person"][keys].to_numpy(),
            "set_size": sizes[keys].to_numpy(),
            "stranger_share": shares[release.labels],
            "clear_rank1_person": unchanged.to_numpy(),
        }
    )
    table.loc[~release.found[release.labels]] = np.nan
    return table


# ----------------------------------------------------------------------------------------------------------
# Tables on disk
# ----------------------------------------------------------------------------------------------------------


def table_stem(name: str, key: str, folder: str | Path) -> str:
    """Return how the files of a data set's tables and figures start: its name, but never that of another data set.

    If tables of other data are in the folder under this name, such as those of another folder ``photos``, the start of
    the key is added. The file ``data_sets.json`` in the folder records whose each name is.

    Parameters
    ----------
    name : str
        For faces, ``faces.source``.
    key : str
        For faces, ``faces.set_key``.
    folder : str or Path
        The folder of the tables; it is created.

    Raises
    ------
    ValueError
        If the record is damaged.
    OSError
        If the folder cannot be written to.

    Examples
    --------
    >>> import datasets, evaluation
    >>> faces = datasets.load_faces("orl")
    >>> evaluation.table_stem(faces.source, faces.set_key, "outputs")
    'orl'
    """
    folder, key = Path(folder), key[:_KEY_DIGITS]
    folder.mkdir(parents=True, exist_ok=True)
    if not os.access(folder, os.W_OK):
        raise PermissionError(f"{folder}: cannot be written to; choose another folder for the tables")
    path = folder / _DATA_SETS
    try:
        owners = dict(utils.parse_json(path.read_bytes())) if path.exists() else {}
    except (ValueError, TypeError) as error:
        raise ValueError(
            f"{path}: damaged ({error}); remove it, and the tables in its folder or their names"
        ) from None
    if name in datasets.DATASETS:
        owner = datasets.built_in(name).set_key[:_KEY_DIGITS]
    else:
        owner = owners.get(name) or _unknown_owner(name, folder, owners)
    stem = name if owner in (None, key) else f"{name}-{key}"
    if owners.get(stem) != key and stem not in datasets.DATASETS:
        content = json.dumps({**owners, stem: key}, indent=1)
        utils.save_atomic(path, lambda file: file.write(content.encode()))
    return stem


def _unknown_owner(name: str, folder: Path, owners: Iterable[str]) -> str | None:
    """Return "unknown" if the folder holds tables under a name that has no recorded owner, else None."""
    tables = [path.name for path in folder.glob(f"{glob.escape(name)}_*.csv")]
    known = tuple(f"{owner}_" for owner in owners)
    return "unknown" if any(not table.startswith(known) for table in tables) else None


def save_table(table: pd.DataFrame, path: str | Path) -> None:
    """Write a table as CSV atomically: after an interruption the file is either old or new, never partial."""
    path = Path(path)
    path.parent.mkdir(parents=True, exist_ok=True)
    utils.save_atomic(path, lambda file: file.write(table.to_csv(index=False).encode()))


def load_table(path: str | Path) -> pd.DataFrame:
    """Read a table that `save_table` wrote.

    Raises
    ------
    FileNotFoundError
        If the file does not exist; the message says how to make it.
    """
    if not Path(path).is_file():
        raise FileNotFoundError(
            f"{path} does not exist; run `make experiments` or NumericalExperiments.ipynb first"
        )
    return pd.read_csv(path, keep_default_na=False, na_values=[""])


if __name__ == "__main__":
    import experiments

    sys.exit(experiments.main())
