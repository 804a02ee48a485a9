"""Named experiments and grids, choices from text, and the command line of ``python -m evaluation``."""

from __future__ import annotations

import argparse
import difflib
import itertools
import re
import sys
import tomllib
import warnings
from collections.abc import Callable, Collection, Iterable, Sequence
from dataclasses import dataclass, field, replace
from functools import partial
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
import recognisers as recognition
import tuning
import utils
from checks import ParameterError, check_known, check_number
from commands import make_parser, run_command
from datasets import Faces
from evaluation import NO_ANONYMIZATION, NOT_APPLICABLE, RANDOM_PARTITION, Combination
from jobs import Job, run_jobs
from judging import JudgedImages
from releases import TABLES, Table, partition_for, release_jobs, sweep_jobs

#: Where tables are written, and where experiments lie, by default.
_OUTPUTS, _FILES = Path(__file__).resolve().parent / "outputs", Path(__file__).resolve().with_suffix("")

#: More people than this are many: an experiment may name fewer combinations for them.
_MANY_PEOPLE = 100


# ----------------------------------------------------------------------------------------------------------
# Choices from text
# ----------------------------------------------------------------------------------------------------------


def _items(value) -> list[str]:
    """The items of a list, or of text such as ``"a, b"``."""
    parts = value if isinstance(value, list | tuple | range) else str(value).split(",")
    return list(dict.fromkeys(str(part).strip() for part in parts))


def parse_k(sizes: str | int | Sequence[int]) -> list[int]:
    """Read cluster sizes from a list, or from text such as ``"5"``, ``"2,5,10"``, ``"2:20"`` or ``"2:20:3"``.

    With colons: first, last (not included), step.

    Raises
    ------
    ValueError
        If the text has another form, names no size, or names one below 2.
    """
    found: set[int] = set()
    for item in _items(sizes) or [""]:
        numbers = (
            [int(part) for part in item.split(":")] if re.fullmatch(r"\d{1,6}(:\d{1,6}){0,2}", item) else []
        )
        named = numbers if len(numbers) == 1 else range(*numbers) if numbers and 0 not in numbers[2:] else ()
        if not named:
            raise ParameterError(
                f"cluster sizes must look like 5, 2,5,10, 2:20 or 2:20:3 and name at least one, got {sizes!r}"
            )
        found |= set(named)
    check_number("the smallest cluster size", min(found), int, at_least=2)
    return sorted(found)


def parse_names(names: str | Sequence[str] | None) -> list[str] | None:
    """Read names from a list or from text such as ``"dlib,pca"``; None, which means all, from nothing or ``"all"``."""
    items = [] if names is None else [item for item in _items(names) if item]
    return None if items in ([], ["all"]) else items


def parse_seeds(seeds: str | int | Sequence[int]) -> list[int]:
    """Read seeds from a list, or from text such as ``"0"`` or ``"0,1,2"``.

    Raises
    ------
    ValueError
        If the text has another form.
    """
    items = _items(seeds)
    if not items or not all(item.isdecimal() for item in items):
        raise ParameterError(f"seeds must look like 0 or 0,1,2, got {seeds!r}")
    return [int(item) for item in items]


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
    k_values: Sequence[int] | None = None,
) -> list[Combination]:
    """Restrict combinations to the selected values; None selects all.

    The first selected embedding, partition or cluster size replaces one that is not selected. Anonymizers that are not
    selected are left out. The baselines, random partition and no anonymization, stay.
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
        if k_values is not None and c.k not in [*k_values, 1]:
            c = c._replace(k=k_values[0])
        kept.append(c)
    return list(dict.fromkeys(kept))


# ----------------------------------------------------------------------------------------------------------
# Experiments as files
# ----------------------------------------------------------------------------------------------------------


def _one_of(known: Collection[str]) -> Callable[[object], str]:
    def read(value) -> str:
        check_known("value", value, known)
        return value

    return read


def _read_data(value) -> str:
    if not isinstance(value, str) or not value:
        raise ParameterError(f"must be a data set or a folder of photos, got {value!r}")
    return value


def _names_of(check: Callable[[str], object]) -> Callable[[object], list[str] | None]:
    """Read names, each of which passes a check; None means all."""

    def read(value) -> list[str] | None:
        names = parse_names(value)
        for name in names or ():
            check(name)
        return names

    return read


def _check_recogniser(name: str) -> None:
    unfitted = [known for known in embedding.EMBEDDINGS if known not in embedding.FITTED]
    check_known("recogniser", name.partition(":")[0], [*recognition.RECOGNISERS, *unfitted])


def _read_number(value) -> int | None:
    if value in (None, "all"):
        return None
    value = int(value) if isinstance(value, str) and value.isdecimal() else value
    return check_number("the number", value, int, at_least=1)


#: The keys of an experiment's file, each with the function that reads and checks its value.
_KEYS: dict[str, Callable] = {
    "data": _read_data,
    "people": _one_of(datasets.PEOPLE),
    "grid": lambda value: _one_of(GRIDS)(value),
    "k": parse_k,
    "embeddings": _names_of(lambda name: embedding.split_name(name, embedding.EMBEDDINGS)),
    "partitioners": _names_of(evaluation.partitioner),
    "anonymizers": _names_of(anonymizer.kind),
    "seeds": parse_seeds,
    "recognisers": lambda value: _names_of(_check_recogniser)(value) or list(attacks.RECOGNISERS),
    "n_attacked": _read_number,
}


@dataclass(frozen=True)
class Experiment:
    """What is measured, on which photos; see `load_experiment`.

    Attributes
    ----------
    name : str
        The name of its file without the ending; a key follows if the settings differ from those in the file.
    data, people : str
        As for `datasets.load_faces`.
    grid : str
        ``"quick"`` varies one part at a time, ``"full"`` measures every combination.
    k : list of int
        Cluster sizes.
    embeddings, partitioners, anonymizers : list of str, or None for all of the grid
    seeds : list of int
        The first one also draws the photo of each person.
    recognisers : list of str
        Of the attacks; see `recognisers.prepare`.
    n_attacked : int, or None for all
        Number of named releases that are attacked, the most informative first.
    many : dict
        Values of the above for more than 100 people; see `fitted_to`.
    """

    name: str
    data: str
    people: str
    grid: str
    k: list[int]
    embeddings: list[str] | None
    partitioners: list[str] | None
    anonymizers: list[str] | None
    seeds: list[int]
    recognisers: list[str]
    n_attacked: int | None
    many: dict = field(default_factory=dict)

    @property
    def chosen(self) -> dict[str, list[str] | None]:
        """The embeddings, partitioners and anonymizers, by these names."""
        return {part: getattr(self, part) for part in ("embeddings", "partitioners", "anonymizers")}

    @property
    def settings(self) -> dict:
        """Everything except the name, the photos and what is kept for many people."""
        apart = ("name", "data", "people", "many")
        return {key: value for key, value in vars(self).items() if key not in apart}

    def fitted_to(self, faces: Faces) -> Experiment:
        """Return the experiment with the values for many people, if there are more than 100."""
        return replace(self, many={}, **(self.many if faces.n_people > _MANY_PEOPLE else {}))

    def load_faces(self) -> Faces:
        """Load one photo of each person; the others are the adversary's gallery."""
        return datasets.load_faces(self.data, per_identity=1, random_state=self.seeds[0], people=self.people)

    def released(self, faces: Faces) -> list[Combination]:
        """List the releases that are attacked and measured for utility."""
        sizes = [k for k in self.k if k <= faces.n_people] or None
        named = LOOKED_INTO[self.grid](faces, self.k)
        return restrict(named, **self.chosen, k_values=sizes)[: self.n_attacked]

    def tables(self, faces: Faces, folder: str | Path) -> evaluation.Tables:
        """Name the tables of this experiment on some faces, so that they never replace those of another one.

        Raises
        ------
        PermissionError
            If the folder cannot be written to.
        """
        return evaluation.Tables.of(faces, folder, self.name, self.settings)


def load_experiment(file: str | Path = "quick", **changes) -> Experiment:
    """Read an experiment from a TOML file, and check every key and value.

    Parameters
    ----------
    file : str or Path, default "quick"
        The name of a file in the folder ``experiments``, such as ``"quick"`` or ``"full"``, or the path of one that
        ends in ``.toml``. Its keys are the attributes of `Experiment` except ``name``, and all are optional. A
        value may be a list or text such as ``"2:20"`` or ``"dlib,pca"``; ``"all"`` selects all. A table ``[many]``
        holds values for more than 100 people.
    **changes
        Values that replace those of the file, also for many people; None replaces nothing.

    Raises
    ------
    FileNotFoundError
        If there is no such file.
    ValueError
        If the file is no TOML, or a key or value is unknown.

    Examples
    --------
    >>> import experiments
    >>> experiments.load_experiment("quick", k="2,5", anonymizers="aam").k
    [2, 5]
    """
    path = Path(file) if str(file).endswith(".toml") else _FILES / f"{file}.toml"
    if not path.is_file():
        known = ", ".join(sorted(repr(one.stem) for one in _FILES.glob("*.toml")))
        raise FileNotFoundError(
            f"{path}: no such experiment; choose from {known}, or give the path of a file that ends in .toml"
        )
    if not re.fullmatch(r"[A-Za-z0-9-]+", path.stem):
        raise ParameterError(
            f"{path}: names tables, so its name may hold letters, digits and hyphens only; rename it"
        )
    try:
        values = tomllib.loads(path.read_text(encoding="utf-8"))
    except (ValueError, RecursionError) as error:
        raise ParameterError(f"{path}: is no TOML ({error})") from None
    changes = {key: value for key, value in changes.items() if value is not None}
    defaults, many = dict.fromkeys(_KEYS) | _DEFAULTS, values.pop("many", {})
    if not isinstance(many, dict):
        raise ParameterError(f"{path}: many: must be a table [many] of keys and values, got {many!r}")
    plain = Experiment(path.stem, **_read_values(defaults | values, f"{path}: "))
    many = _read_values({key: many[key] for key in many if key not in changes}, f"{path}: many: ")
    changed = replace(plain, many=many, **_read_values(changes))
    if changed.settings == plain.settings:
        return changed
    return replace(changed, name=f"{path.stem}-{evaluation.short_key(changed.settings)}")


#: Values of keys that a file leaves out.
_DEFAULTS = {"data": "orl", "people": "folders", "grid": "quick", "k": "2:20", "seeds": 0}


def _read_values(values: dict, place: str = "") -> dict:
    """Check the keys and values of an experiment; errors start with the place and name the key."""
    read = {}
    for key, value in values.items():
        if key not in _KEYS:
            near = difflib.get_close_matches(key, _KEYS, 1)
            hint = f"did you mean {near[0]!r}?" if near else f"choose from {', '.join(map(repr, _KEYS))}"
            raise ParameterError(f"{place}unknown key {key!r}; {hint}")
        try:
            read[key] = _KEYS[key](value)
        except (ValueError, TypeError) as error:
            raise ParameterError(f"{place}{key}: {error}") from None
    return read


# ----------------------------------------------------------------------------------------------------------
# Versions of AnonFACES, and everything at once
# ----------------------------------------------------------------------------------------------------------

#: The ways of mixing codes that `versions_table` compares, and the cluster sizes that tables show.
_VERSIONS = ("stylegan", *(name for name in anonymizer.VARIANTS if name.startswith("stylegan")))
_SHOWN_SIZES = (2, 5, 10, 19, 50)
#: What takes many images for each cluster is shown for at most this many clusters.
_MANY_CLUSTERS = 60


def shown_sizes(k_values: Sequence[int], n_people: int) -> list[int]:
    """Return the cluster sizes to show of those that are measured, at most four, that make few clusters."""
    few = [k for k in k_values if n_people // k <= _MANY_CLUSTERS] or [max(k_values)]
    return [k for k in _SHOWN_SIZES if k in few] or few[:4]


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
        named |= {"recogniser": "dlib", "threshold": attacks.PAPER_THRESHOLD}
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


def all_jobs(faces: Faces, experiment: Experiment) -> list[Job]:
    """Make the jobs of everything that the command and NumericalExperiments.ipynb show, to run them together."""
    grid, k_values, seeds = experiment.grid, experiment.k, experiment.seeds
    rows = grid_combinations(faces, grid, **experiment.chosen, k_values=k_values, random_state=seeds)
    looked_into = experiment.released(faces)

    def tables(table: Table, releases: Sequence[Combination], **options) -> list[Job]:
        return release_jobs(table, faces, releases, seeds[0], **options)

    jobs = [
        *sweep_jobs(faces, rows),
        *tables(TABLES["attacks"], looked_into, recognisers=tuple(experiment.recognisers)),
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
        shown = sizes if grid == "full" else shown_sizes(sizes, faces.n_people)
        versions, tuned = _versions(shown, own.embedding, own.partitioner, seeds)
        jobs += sweep_jobs(faces, versions) + tables(tuning.TUNED, tuned, checks=())
    return jobs


# ----------------------------------------------------------------------------------------------------------
# The command line
# ----------------------------------------------------------------------------------------------------------


def main(arguments: Sequence[str] | None = None) -> int:
    """Run an experiment: measure its combinations, attack selected releases, measure their utility; tables in outputs/.

    judge ORIGINALS ANONYMIZED   judges the images of another tool instead; see python -m evaluation judge --help
    """
    arguments = sys.argv[1:] if arguments is None else arguments
    if arguments[:1] == ["judge"]:
        return _judge_main(arguments[1:])
    parser = make_parser("evaluation", main.__doc__)
    add = partial(parser.add_argument, metavar="NAMES", help="separated by commas, or all")
    add(
        "data", metavar="source", nargs="?", help="orl, or a folder of photos (default: as in the experiment)"
    )
    add(
        "--experiment",
        default="quick",
        metavar="FILE",
        help="quick, full, or the path of a .toml file (quick)",
    )
    datasets.add_people_option(parser)
    add("--k", metavar="SIZES", help="cluster sizes, such as 5, 2,5,10 or 2:20 (20 not included)")
    for part in ("embeddings", "partitioners", "anonymizers", "recognisers"):
        add(f"--{part}")
    add("--seed", dest="seeds", metavar="SEEDS", help="one or several, such as 0,1,2")
    add("--jobs", type=int, default=-1, metavar="N", help="processes (default: all cores)")
    add("--output", type=Path, default=_OUTPUTS, metavar="FOLDER", help="for the tables (default: outputs)")
    parser.set_defaults(people=None)
    return run_command(parser, arguments, _run)


def _run(options: argparse.Namespace) -> None:
    changes = {key: value for key, value in vars(options).items() if key in _KEYS}
    experiment = load_experiment(options.experiment, **changes)
    how = {"random_state": experiment.seeds[0], "n_jobs": options.jobs}  # of what is attacked
    faces = experiment.load_faces()
    print(faces)
    named, experiment = experiment.many, experiment.fitted_to(faces)
    if named and faces.n_people > _MANY_PEOPLE:
        print(
            f"More than {_MANY_PEOPLE} people, so {', '.join(named)} are those of [many] in the experiment's file."
        )
    tables = experiment.tables(faces, options.output)
    # Run everything together, with one progress bar; the tables are then read from the cache.
    jobs = all_jobs(faces, experiment)
    detection.report_photos(faces)
    run_jobs(jobs, options.jobs, "experiments")
    with warnings.catch_warnings():
        warnings.simplefilter("ignore")  # given above
        table = run_grid(
            faces, experiment.grid, **experiment.chosen, k_values=experiment.k, random_state=experiment.seeds,
            n_jobs=options.jobs,
        )  # fmt: skip
    released = experiment.released(faces)
    measured = {
        "main": table,
        "attacks": evaluation.attack_table(faces, released, recognisers=experiment.recognisers, **how),
        "utility": evaluation.utility_table(faces, released, **how),
    }
    for part, table in measured.items():
        print(f"{len(table)} rows -> {tables.save(table, part)}")


def _judge_main(arguments: Sequence[str]) -> int:
    """Judge the images of another tool: attacks, detection, utility; tables in outputs/.

    Each image has the path of its original, whatever its ending. One photo of each person is judged by its image; the
    other originals are the adversary's gallery.
    """
    parser = make_parser("evaluation judge", _judge_main.__doc__)
    add = parser.add_argument
    add("originals", help="folder of the photos before")
    add("anonymized", help="folder of the images that the tool made")
    add("--suffix", default="", help="what the tool adds to names, such as _anonymized (nothing)")
    datasets.add_people_option(parser)
    add("--recognisers", default="all", metavar="NAMES", help="of the attacks, separated by commas (all)")
    add("--seed", type=int, default=0, help="draws the photo of each person (0)")
    add("--output", type=Path, default=_OUTPUTS, metavar="FOLDER", help="for the tables (default: outputs)")
    return run_command(parser, arguments, _judge)


def _judge(options: argparse.Namespace) -> None:
    recognisers = _KEYS["recognisers"](options.recognisers)
    images = JudgedImages.of(
        options.originals, options.anonymized, options.suffix, options.people, options.seed
    )
    print(f"{images.faces}; {len(images.images)} different images of them in {images.name}")
    name = "judged-" + re.sub("[^A-Za-z0-9-]+", "-", images.name)
    settings = {"images": utils.content_key(images.images), "seed": options.seed, "recognisers": recognisers}
    tables = evaluation.Tables.of(images.faces, options.output, name, settings)
    detection.report_photos(images.faces)
    measured = images.tables(recognisers, options.seed)
    hits = measured["attacks"].query("attack == 'rank-1' and level == 'person'")
    print(
        "A search finds the person; images without a face are left out, attacked, too (all), or found (worst):"
    )
    shown = ["recogniser", "rate", "rate_all", "rate_worst", "chance", "clear", "n_failed"]
    print(hits[shown].to_string(index=False, float_format="%.3f"))
    for part, table in measured.items():
        print(f"{len(table)} rows -> {tables.save(table, part)}")
