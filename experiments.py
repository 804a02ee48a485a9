"""Named experiments and grids, choices from text, and the command line of ``python -m evaluation``."""

from __future__ import annotations

import argparse
import itertools
import warnings
from collections.abc import Callable, Iterable, Sequence
from pathlib import Path

import pandas as pd

import anonymizer
import attacks
import datasets
import detection
import embedding
import evaluation
import measures
import partitioning
import tuning
from checks import ParameterError, check_known
from commands import make_parser, run_command
from datasets import Faces
from evaluation import NO_ANONYMIZATION, NOT_APPLICABLE, RANDOM_PARTITION, Combination
from jobs import Job, run_jobs
from releases import TABLES, Table, partition_for, release_jobs, sweep_jobs

_OUTPUTS = Path(__file__).resolve().parent / "outputs"


# ----------------------------------------------------------------------------------------------------------
# Choices from text
# ----------------------------------------------------------------------------------------------------------


def parse_k(text: str) -> range:
    """Read cluster sizes from text such as ``"2:20"`` or ``"2:20:3"``: first, last (not included), step.

    Raises
    ------
    ValueError
        If the text has another form, or names no size.
    """
    parts = [part.strip() for part in text.split(":")]
    numbers = [int(part) for part in parts if part.isdecimal()]
    step_is_zero = 0 in numbers[2:]
    if len(parts) not in (2, 3) or len(numbers) != len(parts) or step_is_zero or not range(*numbers):
        raise ParameterError(
            f"cluster sizes must look like 2:20 or 2:20:3 and name at least one, got {text!r}"
        )
    return range(*numbers)


def parse_names(text: str) -> list[str] | None:
    """Read names from text such as ``"dlib,pca"``; None, which means all, from an empty text or ``"all"``."""
    names = [name.strip() for name in text.split(",") if name.strip()]
    return None if names in ([], ["all"]) else list(dict.fromkeys(names))


def parse_seeds(text: str | int) -> list[int]:
    """Read seeds from text such as ``"0"`` or ``"0,1,2"``.

    Raises
    ------
    ValueError
        If the text has another form.
    """
    parts = [part.strip() for part in str(text).split(",")]
    if not all(part.isdecimal() for part in parts):
        raise ParameterError(f"seeds must look like 0 or 0,1,2, got {text!r}")
    return [int(part) for part in dict.fromkeys(parts)]


# ----------------------------------------------------------------------------------------------------------
# Grids
# ----------------------------------------------------------------------------------------------------------


def _quick_grid(embeddings: Sequence[str], k_values: Iterable[int]) -> list[dict]:
    """The sweeps of ``make experiments``: one part varies at a time, for every k.

    All partitioners with dlib, all embeddings with Ward, every anonymizer once.
    """
    kinds = anonymizer.ANONYMIZERS.items()
    surrogates = [name for name, kind in kinds if kind.k_anonymous]
    filters = [name for name, kind in kinds if not kind.k_anonymous]
    fixed = {
        "embeddings": ["dlib"], "partitioners": ["ward"], "anonymizers": ["aam"], "k_values": list(k_values),
    }  # fmt: skip
    return [
        {**fixed, "partitioners": list(partitioning.PARTITIONERS)},
        {**fixed, "embeddings": list(embeddings)},
        {**fixed, "anonymizers": [*surrogates, *filters]},
    ]


def _full_grid(embeddings: Sequence[str], k_values: Iterable[int]) -> list[dict]:
    """The sweep of ``make experiments-full``: every combination, published forms of the algorithms included."""
    return [
        {
            "embeddings": list(embeddings),
            "partitioners": [*partitioning.PARTITIONERS, *partitioning.VARIABLE_SIZE],
            "anonymizers": list(anonymizer.ANONYMIZERS),
            "k_values": list(k_values),
        }
    ]


#: Grids by name: embeddings and cluster sizes -> options of several calls of `evaluation.sweep`.
GRIDS: dict[str, Callable[[Sequence[str], Iterable[int]], list[dict]]] = {
    "quick": _quick_grid,
    "full": _full_grid,
}


def grid_combinations(
    faces: Faces,
    grid: str = "quick",
    *,
    embeddings: Sequence[str] | None = None,
    partitioners: Sequence[str] | None = None,
    anonymizers: Sequence[str] | None = None,
    k_values: Iterable[int] = range(2, 20),
    random_state=0,
) -> list[dict]:
    """List the combinations of a grid, each once; parameters, warnings and errors as for `run_grid`."""
    check_known("grid", grid, GRIDS)
    for name in partitioners or ():
        evaluation.partitioner(name)
    k_values = list(k_values)
    fitting = [k for k in k_values if k <= faces.n_people]
    if not fitting:
        raise ParameterError(
            f"no cluster size of {k_values} fits {faces.n_people} people; choose from 2 to {faces.n_people}"
        )
    unfit = {name for name in anonymizers or anonymizer.ANONYMIZERS if not anonymizer.kind(name).fits(faces)}
    if anonymizers is not None and unfit >= set(anonymizers):
        raise ValueError(f"for these faces {', '.join(sorted(unfit))} need further files or options")
    if unfit:
        warnings.warn(
            f"left out because they need further files or options for these faces: {', '.join(sorted(unfit))}",
            stacklevel=2,
        )
    fit = None if anonymizers is None else [name for name in anonymizers if name not in unfit]
    chosen = {"embeddings": embeddings, "partitioners": partitioners, "anonymizers": fit}
    combinations = {}
    for one in GRIDS[grid](embeddings or embedding.available(), fitting):
        for part, names in chosen.items():
            if names is not None:
                fixed = one[part] if len(one[part]) == 1 else []
                one[part] = fixed if set(fixed) & set(names) else list(names[:1] if fixed else names)
        one["anonymizers"] = [name for name in one["anonymizers"] if name not in unfit]
        for c in evaluation.sweep_combinations(faces, **one, random_state=random_state):
            combinations[tuple(c.values())] = c
    return list(combinations.values())


def run_grid(
    faces: Faces, grid: str = "quick", *, random_state=0, n_jobs: int = -1, **chosen
) -> pd.DataFrame:
    """Run all sweeps of a grid and return one table without duplicates.

    Anonymizers that need further files for these faces are left out: see `Anonymizer.fits`. One warning each names the
    photos in which no face or several faces are found.

    Parameters
    ----------
    faces : Faces
    grid : str, default "quick"
        A name in `GRIDS`.
    random_state : int or sequence of int
    n_jobs : int, default -1
        Processes, as for `evaluation.sweep`.
    **chosen
        ``embeddings``, ``partitioners``, ``anonymizers`` : sequences of str. Values to vary over; by default all values
        in the grid. If the grid fixes a value that is not among them, the first replaces it. ``k_values``: cluster
        sizes, 2 to 19 by default; those above the number of people are left out.

    Raises
    ------
    ValueError
        For unknown names, if no cluster size fits, or if none of the anonymizers can be made for these faces.
    """
    combinations = grid_combinations(faces, grid, random_state=random_state, **chosen)
    detection.report_photos(faces)
    return evaluation.measure_combinations(faces, combinations, n_jobs=n_jobs)


# ----------------------------------------------------------------------------------------------------------
# Releases that are attacked
# ----------------------------------------------------------------------------------------------------------


def _every_combination(faces: Faces, k_values: Iterable[int]) -> list[Combination]:
    """Every partition with every anonymizer, on dlib, for every valid k; and anonymizers without a partition."""
    kinds = {name: kind for name, kind in anonymizer.ANONYMIZERS.items() if kind.fits(faces)}
    shared = [name for name, kind in kinds.items() if kind.k_anonymous]
    single = [name for name, kind in kinds.items() if not kind.k_anonymous]
    k_values = [k for k in k_values if k <= faces.n_people]
    grid = itertools.product(["dlib"], partitioning.PARTITIONERS, shared, k_values)
    return [Combination(*c) for c in grid] + [
        Combination(NOT_APPLICABLE, NOT_APPLICABLE, name, 1) for name in single
    ]


#: Releases that are attacked and measured for utility, by the name of the grid: faces, cluster sizes -> combinations.
LOOKED_INTO: dict[str, Callable[[Faces, Iterable[int]], list[Combination]]] = {
    "quick": lambda faces, k_values: evaluation.fitting(faces),
    "full": _every_combination,
}


def restrict(
    combinations: Iterable[Combination],
    embeddings: Sequence[str] | None = None,
    partitioners: Sequence[str] | None = None,
    anonymizers: Sequence[str] | None = None,
) -> list[Combination]:
    """Restrict combinations to the selected values; None selects all.

    The first selected embedding or partition replaces one that is not selected. Anonymizers that are not selected are
    left out. The baselines, random partition and no anonymization, stay.
    """
    kept = []
    for c in combinations:
        if anonymizers is not None and c.anonymizer not in [*anonymizers, NO_ANONYMIZATION]:
            continue
        if embeddings is not None and c.embedding not in [*embeddings, NOT_APPLICABLE]:
            c = c._replace(embedding=embeddings[0])
        baselines = [RANDOM_PARTITION, NOT_APPLICABLE]
        if partitioners is not None and c.partitioner not in [*partitioners, *baselines]:
            c = c._replace(partitioner=partitioners[0])
        kept.append(c)
    return list(dict.fromkeys(kept))


# ----------------------------------------------------------------------------------------------------------
# Versions of AnonFACES, and everything at once
# ----------------------------------------------------------------------------------------------------------

#: The ways of mixing codes that `versions_table` compares, and the cluster sizes that tables show.
_VERSIONS = ("stylegan", *(name for name in anonymizer.VARIANTS if name.startswith("stylegan")))
_SHOWN_SIZES = (2, 5, 10, 19)


def shown_sizes(k_values: Sequence[int]) -> list[int]:
    """Return the cluster sizes to show of those that are measured, at most four."""
    return [k for k in _SHOWN_SIZES if k in k_values] or list(k_values)[:4]


def versions_table(
    faces: Faces,
    k_values: Sequence[int],
    embedding: str = "dlib",
    partitioner: str = "ward",
    random_state: Sequence[int] = (0,),
    n_jobs: int = -1,
) -> pd.DataFrame:
    """Compare the versions of AnonFACES, and the one that `tuning.tune` finds.

    Returns
    -------
    DataFrame
        Rows of `evaluation.sweep`; those of ``stylegan_tuned`` are without columns about the generator.
    """
    rows, releases = _versions(k_values, embedding, partitioner, random_state)
    swept = evaluation.measure_combinations(faces, rows, n_jobs=n_jobs)
    tuned = tuning.tune_releases(faces, releases, random_state=random_state[0], n_jobs=n_jobs, checks=())
    clear, further = measures.clear_photos(faces), []
    for c, one in zip(releases, tuned, strict=True):
        labels = partition_for(faces, c, random_state[0])
        named = {**c._asdict(), "anonymizer": "stylegan_tuned", "seed": random_state[0]}
        further.append(
            {**named, "n_clusters": len(one.images), **measures.measure_images(clear, one.images, labels)}
        )
    return pd.concat([swept, pd.DataFrame(further)], ignore_index=True)


def _versions(k_values, embedding, partitioner, seeds) -> tuple[list[dict], list[Combination]]:
    """The rows of the sweep, and the releases to tune, of `versions_table`."""
    rows = [
        {**Combination(embedding, partitioner, name, k)._asdict(), "seed": seed}
        for seed in seeds for name in _VERSIONS for k in k_values
    ]  # fmt: skip
    return rows, [Combination(embedding, partitioner, "stylegan", k) for k in k_values]


def all_jobs(
    faces: Faces,
    grid: str,
    k_values: Iterable[int],
    seeds: Sequence[int] = (0,),
    embeddings: Sequence[str] | None = None,
    partitioners: Sequence[str] | None = None,
    anonymizers: Sequence[str] | None = None,
) -> list[Job]:
    """Make the jobs of everything that the command and NumericalExperiments.ipynb show, to run them together."""
    chosen = {"embeddings": embeddings, "partitioners": partitioners, "anonymizers": anonymizers}
    rows = grid_combinations(faces, grid, **chosen, k_values=k_values, random_state=seeds)
    looked_into = restrict(LOOKED_INTO[grid](faces, k_values), **chosen)

    def tables(table: Table, releases: Sequence[Combination], **options) -> list[Job]:
        return release_jobs(table, faces, releases, seeds[0], **options)

    jobs = [
        *sweep_jobs(faces, rows),
        *tables(TABLES["attacks"], looked_into, recognisers=attacks.RECOGNISERS),
        *tables(TABLES["utility"], looked_into),
    ]
    if not any(row["k"] > 1 for row in rows):
        return jobs
    fixed = evaluation.reference(pd.DataFrame(rows))
    sizes = [k for k in k_values if k <= faces.n_people]
    own = Combination(**fixed, k=5 if 5 in sizes else sizes[0])
    drawn = {row["anonymizer"] for row in rows}
    first = next((c for c in looked_into if c.k > 1), looked_into[0])
    jobs += tables(TABLES["fairness"], [first], recogniser="dlib") + tables(tuning.TUNED, [own])
    drawers = dict.fromkeys([own.anonymizer, *({"stylegan"} & drawn)])
    jobs += tables(TABLES["distances"], [own._replace(anonymizer=name) for name in drawers])
    if "stylegan" in drawn:
        shown = sizes if grid == "full" else shown_sizes(sizes)
        versions, tuned = _versions(shown, own.embedding, own.partitioner, seeds)
        jobs += sweep_jobs(faces, versions) + tables(tuning.TUNED, tuned, checks=())
    return jobs


# ----------------------------------------------------------------------------------------------------------
# The command line
# ----------------------------------------------------------------------------------------------------------


def main(arguments: Sequence[str] | None = None) -> int:
    """Run a grid, attack selected releases and measure their utility, and write the tables to outputs/."""
    parser = make_parser("evaluation", main.__doc__)
    parser.add_argument("source", nargs="?", default="orl", help="orl, or a folder of photos (default: orl)")
    datasets.add_people_option(parser)
    parser.add_argument("--grid", choices=GRIDS, default="quick")
    parser.add_argument(
        "--k", default="2:20", metavar="FROM:TO[:STEP]", help="cluster sizes, TO not included (2:20)"
    )
    for part in ("embeddings", "partitioners", "anonymizers"):
        parser.add_argument(f"--{part}", default="all", metavar="NAMES", help="separated by commas (all)")
    parser.add_argument("--seed", default="0", metavar="SEEDS", help="one or several, such as 0,1,2 (0)")
    parser.add_argument("--jobs", type=int, default=-1, help="processes (default: all cores)")
    parser.add_argument(
        "--output", type=Path, default=_OUTPUTS, help="folder for the tables (default: outputs)"
    )
    return run_command(parser, arguments, _run)


def _run(chosen: argparse.Namespace) -> None:
    k_values, seeds = parse_k(chosen.k), parse_seeds(chosen.seed)
    names = {
        part: parse_names(getattr(chosen, part)) for part in ("embeddings", "partitioners", "anonymizers")
    }
    how = {"random_state": seeds[0], "n_jobs": chosen.jobs}  # of the photos, and of what is attacked
    faces = datasets.load_faces(chosen.source, per_identity=1, random_state=seeds[0], people=chosen.people)
    print(faces)
    stem = evaluation.table_stem(faces.source, faces.set_key, chosen.output)
    # Run everything together, with one progress bar; the tables are then read from the cache.
    jobs = all_jobs(faces, chosen.grid, k_values, seeds, **names)
    detection.report_photos(faces)
    run_jobs(jobs, chosen.jobs, "experiments")
    with warnings.catch_warnings():
        warnings.simplefilter("ignore")  # given above
        table = run_grid(
            faces, chosen.grid, **names, k_values=k_values, random_state=seeds, n_jobs=chosen.jobs
        )
    released = restrict(LOOKED_INTO[chosen.grid](faces, k_values), **names)
    tables = {
        chosen.grid: table,
        f"{chosen.grid}_attacks": evaluation.attack_table(faces, released, **how),
        f"{chosen.grid}_utility": evaluation.utility_table(faces, released, **how),
    }
    for name, table in tables.items():
        path = chosen.output / f"{stem}_{name}.csv"
        evaluation.save_table(table, path)
        print(f"{len(table)} rows -> {path}")
