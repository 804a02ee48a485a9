"""Sweep over combinations, and tabulate the cost and the protection of anonymization.

The paper (Le et al., "AnonFACES: Anonymizing Faces Adjusted to Constraints on Efficacy and Security", WPES 2020,
section 4) has two measures: information loss and re-identification rate. Both read the same distances, between a
surrogate and the members of its own cluster. Tables therefore also report the success of an adversary with a gallery:
closed-set identification of the cluster and of the person, with their chance levels, and the share of strangers
that match the surrogate.

`measures` and `releases` measure one release; this file does so for many.
"""

from __future__ import annotations

import functools
import itertools
import json
import os
import subprocess
import sys
from collections.abc import Iterable, Sequence
from dataclasses import dataclass
from datetime import UTC, datetime
from pathlib import Path

import numpy as np
import pandas as pd

import anonymizer
import attacks
import checks
import datasets
import embedding
import utils
from commands import VERSION
from datasets import Faces
from jobs import run_jobs
from judging import judge
from measures import evaluate, measure, partition_people, partitioner, release_images
from release import audit_release as audit
from releases import (
    NOT_APPLICABLE,
    TABLES,
    Combination,
    cluster_distances,
    photo_privacy,
    release_jobs,
    sweep_jobs,
)
from utility import paper_table, to_hifd, to_latex

__all__ = [
    "NAMED_COMBINATIONS", "NOT_APPLICABLE", "NO_ANONYMIZATION", "RANDOM_PARTITION", "Combination", "Tables",
    "attack_table", "audit", "cluster_distances", "compare", "distance_table", "evaluate", "fairness_table",
    "fitting", "judge", "load_record", "load_results", "load_table", "measure", "measure_combinations",
    "pair_distances", "paper_table", "partition_people", "partitioner", "photo_privacy", "reference",
    "release_images", "save_table", "short_key", "sweep", "sweep_combinations", "table_stem", "to_hifd", "to_latex",
    "utility_table",
]  # fmt: skip

#: The baselines in every table.
RANDOM_PARTITION, NO_ANONYMIZATION = "random", "none"

#: At most this many photos enter the distances of all pairs.
_N_PAIR_PHOTOS = 2000

#: How many digits of a key are part of names.
_KEY_DIGITS = 8

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
        Also write the table there by `save_table`.

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
    combinations = sweep_combinations(faces, embeddings, partitioners, anonymizers, k_values, random_state)
    return measure_combinations(
        faces, combinations, recogniser=recogniser, threshold=threshold, n_jobs=n_jobs, output=output
    )


def measure_combinations(
    faces: Faces,
    combinations: Sequence[dict],
    *,
    recogniser: str = "dlib",
    threshold: float = attacks.PAPER_THRESHOLD,
    n_jobs: int = -1,
    output: str | Path | None = None,
) -> pd.DataFrame:
    """Measure the combinations of `sweep_combinations`; see `sweep`."""
    results = run_jobs(sweep_jobs(faces, combinations, recogniser, threshold), n_jobs, "combinations")
    rows, models = results[: len(combinations)], dict.fromkeys(c["anonymizer"] for c in combinations)
    drawn = dict(zip(models, results[len(combinations) :], strict=True))
    table = pd.DataFrame([{**row, **drawn[row["anonymizer"]]} for row in rows])
    if output is not None:
        save_table(table, output)
    return table


def sweep_combinations(
    faces: Faces,
    embeddings: Sequence[str],
    partitioners: Sequence[str],
    anonymizers: Sequence[str],
    k_values: Iterable[int],
    random_state: int | Sequence[int] = 0,
) -> list[dict]:
    """Check the arguments of `sweep` and list its combinations, baselines included."""
    parts = {"embeddings": embeddings, "partitioners": partitioners, "anonymizers": anonymizers}
    for part, names in parts.items():
        if isinstance(names, str) or not names:
            raise checks.ParameterError(f"{part} must be a list of at least one name, got {names!r}")
    for name in embeddings:  # an unknown one fails on two photos already
        embedding.embed(faces.select(slice(0, 2)), name)
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
    options["recognisers"] = tuple(recognisers)
    return _over_releases("attacks", faces, combinations, random_state, n_jobs, **options)


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
    return _over_releases("fairness", faces, combinations, random_state, n_jobs, recogniser=recogniser)


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
        ``embedding partitioner anonymizer k seed`` and the columns of `utility.measure_utility`; the metric ``seconds``
        is the CPU time of each image.
    """
    return _over_releases("utility", faces, combinations, random_state, n_jobs, **options)


def distance_table(
    faces: Faces,
    combinations: Iterable[Combination] | None = None,
    *,
    random_state: int = 0,
    n_jobs: int = -1,
) -> pd.DataFrame:
    """Distances within the clusters of several releases.

    Parameters as for `attack_table`.

    Returns
    -------
    DataFrame
        ``embedding partitioner anonymizer k seed`` and the columns of `cluster_distances`.
    """
    return _over_releases("distances", faces, combinations, random_state, n_jobs)


def _check_combinations(faces: Faces, combinations: Iterable[Combination] | None) -> list[Combination]:
    chosen = fitting(faces) if combinations is None else [Combination(*c) for c in combinations]
    if not chosen:
        raise ValueError("combinations must hold at least one combination")
    for c in chosen:
        anonymizer.kind(c.anonymizer)
        if c.partitioner != NOT_APPLICABLE:
            partitioner(c.partitioner)
    return chosen


def _over_releases(name, faces, combinations, random_state, n_jobs, **options) -> pd.DataFrame:
    """Tables of several releases, joined in the order of the combinations."""
    chosen = _check_combinations(faces, combinations)
    results = run_jobs(release_jobs(TABLES[name], faces, chosen, random_state, **options), n_jobs, name)
    tables = [pd.DataFrame(**result) for result in results]
    for c, table in zip(chosen, tables, strict=True):
        for place, (column, value) in enumerate({**c._asdict(), "seed": random_state}.items()):
            table.insert(place, column, value)
    return pd.concat([table for table in tables if len(table)], ignore_index=True)


# ----------------------------------------------------------------------------------------------------------
# Tables on disk
# ----------------------------------------------------------------------------------------------------------


def short_key(*parts) -> str:
    """Return the first eight digits of `utils.content_key`, for names of files."""
    return utils.content_key(*parts)[:_KEY_DIGITS]


def table_stem(name: str, key: str) -> str:
    """Return how the names of a data set's tables and figures start.

    That is the name of a built-in data set, and for all others their name and the start of their key, so that two
    folders of one name never share tables.

    Parameters
    ----------
    name : str
        For faces, ``faces.source``.
    key : str
        For faces, ``faces.set_key``.

    Examples
    --------
    >>> import datasets, evaluation
    >>> faces = datasets.load_faces("orl")
    >>> evaluation.table_stem(faces.source, faces.set_key)
    'orl'
    """
    if name in datasets.DATASETS and datasets.built_in(name).set_key == key:
        return name
    return f"{name}-{key[:_KEY_DIGITS]}"


@dataclass(frozen=True)
class Tables:
    """The tables of one experiment on one set of faces, named after both.

    Attributes
    ----------
    folder : Path
    stem : str
        How their names start, such as ``"orl_quick"``.
    about : dict
        What is recorded beside each of them: the experiment and the data set.
    """

    folder: Path
    stem: str
    about: dict

    @classmethod
    def of(cls, faces: Faces, folder: str | Path, name: str, settings: dict) -> Tables:
        """Name the tables; if a table of another experiment has the name, the start of a key is added.

        Raises
        ------
        PermissionError
            If the folder cannot be written to.
        """
        folder, data = Path(folder), table_stem(faces.source, faces.set_key)
        folder.mkdir(parents=True, exist_ok=True)
        if not os.access(folder, os.W_OK):
            raise PermissionError(f"{folder}: cannot be written to; choose another folder for the tables")
        size = {"n_photos": len(faces), "n_people": faces.n_people}
        about = {
            "experiment": {"name": name, **settings},
            "data": {"name": data, "key": faces.set_key, **size},
        }
        tables = cls(folder, f"{data}_{name}", about)
        if load_record(tables.path()).get("experiment", about["experiment"]) == about["experiment"]:
            return tables
        return cls(folder, f"{tables.stem}-{short_key(settings)}", about)

    def path(self, part: str = "main") -> Path:
        """Return the path of a table: ``orl_quick.csv`` for the main table, ``orl_quick_attacks.csv`` ..."""
        return self.folder / (self.stem + ("" if part == "main" else f"_{part}") + ".csv")

    def save(self, table: pd.DataFrame, part: str = "main") -> Path:
        """Write a table with its record by `save_table`, and return its path."""
        save_table(table, self.path(part), {"part": part, **self.about})
        return self.path(part)

    def load(self, part: str = "main") -> pd.DataFrame:
        """Read a table by `load_table`."""
        return load_table(self.path(part))


def save_table(table: pd.DataFrame, path: str | Path, about: dict | None = None) -> None:
    """Write a table as CSV, and how it was made as JSON beside it.

    The file ``NAME.json`` beside ``NAME.csv`` holds the version, commit and date, and `about`. Both are written
    atomically: after an interruption a file is either old or new, never partial.
    """
    path = Path(path)
    path.parent.mkdir(parents=True, exist_ok=True)
    now = datetime.now(UTC).isoformat(timespec="seconds")
    record = {"version": VERSION, "commit": _commit(), "date": now, **(about or {})}
    lines = ",\n".join(f"{json.dumps(key)}: {json.dumps(value)}" for key, value in record.items())
    utils.save_atomic(path.with_suffix(".json"), lambda file: file.write(f"{{\n{lines}\n}}\n".encode()))
    utils.save_atomic(path, lambda file: file.write(table.to_csv(index=False).encode()))


@functools.cache
def _commit() -> str | None:
    """The commit of this code, with a plus if a Python file has changed since; None outside a checkout."""
    root = Path(__file__).resolve().parent

    def git(*arguments: str) -> str:
        command = ["git", "-C", str(root), *arguments]
        return subprocess.run(command, capture_output=True, text=True, check=True).stdout.strip()

    try:
        if git("rev-parse", "--show-prefix"):  # we lie in a repository of others
            return None
        return git("rev-parse", "HEAD") + (
            "+" if git("status", "--porcelain", "--untracked-files=no", "--", "*.py") else ""
        )
    except (OSError, subprocess.CalledProcessError):
        return None


def load_record(path: str | Path) -> dict:
    """Read how a table was made, from the JSON file beside it; an empty dict if there is none.

    Raises
    ------
    ValueError
        If the file is damaged.
    """
    path = Path(path).with_suffix(".json")
    if not path.exists():
        return {}
    try:
        return dict(utils.parse_json(path.read_bytes()))
    except (ValueError, TypeError) as error:
        raise ValueError(f"{path}: damaged ({error}); remove it, and the table beside it") from None


def load_results(folder: str | Path = "outputs", part: str = "main") -> pd.DataFrame:
    """Join the tables of all experiments in a folder.

    Parameters
    ----------
    folder : str or Path, default "outputs"
    part : str, default "main"
        Which table of each experiment: ``"main"``, ``"attacks"``, ``"utility"``, ``"versions"`` ...

    Returns
    -------
    DataFrame
        ``data experiment version commit date``, then the columns of the tables.

    Raises
    ------
    FileNotFoundError
        If the folder holds no such table.
    ValueError
        If a record is damaged.
    """
    records = {path: load_record(path) for path in sorted(Path(folder).glob("*.csv"))}
    tables = []
    for path, record in records.items():
        if record.get("part") == part:
            table = load_table(path)
            named = {"data": record["data"]["name"], "experiment": record["experiment"]["name"]}
            named |= {key: record[key] for key in ("version", "commit", "date")}
            for place, (column, value) in enumerate(named.items()):
                table.insert(place, column, value)
            tables.append(table)
    if not tables:
        parts = sorted({record["part"] for record in records.values() if "part" in record})
        raise FileNotFoundError(
            f"{folder}: holds no table {part!r} of an experiment; "
            + (f"choose from {', '.join(map(repr, parts))}" if parts else "run `make experiments` first")
        )
    return pd.concat(tables, ignore_index=True)


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
