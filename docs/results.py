"""The results on four sets of faces: ``python -m docs.results [DATA]``, or ``make results``.

The built-in set is read from the tables of `make experiments`. Other photos are measured by `experiments/results.toml`;
descriptors without photos get simulated surrogates. Small tables and their records are kept in docs/tables/results,
figures as docs/results_*.png. docs/results.md shows them beside the authors' published numbers.
"""

from __future__ import annotations

import argparse
from collections.abc import Mapping
from dataclasses import dataclass
from pathlib import Path

import numpy as np
import pandas as pd
from matplotlib.figure import Figure

import attacks
import detection
import embedding
import evaluation
import experiments
import intervals
import measures
import partitioning
import published
import utils
import vizualization
from commands import make_parser, run_command
from distances import mean_of_groups
from docs.figures import save_figure
from docs.tables import ATTACKS, ROOT, STEM, K, cells_with_intervals, markdown, origin, page_with_results
from labels import label
from sentences import Measured

KEPT, PAGE = ROOT / "docs" / "tables" / "results", ROOT / "docs" / "results.md"

#: Cluster sizes in tables, and those at which descriptors are partitioned for figures.
_SHOWN_K, _SIMULATED_K = (2, 5, 10, 50), (2, 3, 5, 7, 10, 15, 19)
#: The paper's partitions, ours, and the baseline.
_PARTITIONERS = ("ward", "kmeans_elki", "knn_max", "balanced", "random")
#: The attacks that are run, and their rows that are shown.
_RUN = (
    "identification", "identification (anonymized gallery)", "linkability", "composition", "membership", "insider",
    "parrot", "reversal",
)  # fmt: skip
_SHOWN_ATTACKS = [*ATTACKS, "membership"]
_METRICS = [
    "age_error", "sex_kappa", "expression_kappa", "pose_error", "landmark_error", "similarity", "fid", "sharpness",
    "seconds",
]  # fmt: skip
_TELLING = ["expression_kappa", "landmark_error", "similarity", "fid", "sharpness"]
_SHARES = ["re_identification", "stranger_share", "rank1_cluster", "rank1_person"]
_MAIN = [
    "k", "information_loss", "information_loss_low", "information_loss_high",
    *(f"{name}{end}" for name in _SHARES for end in ("", "_low", "_high") if name != "stranger_share" or not end),
    "chance_cluster", "chance_person", "detection_rate",
]  # fmt: skip


# ----------------------------------------------------------------------------------------------------------
# Sets
# ----------------------------------------------------------------------------------------------------------


@dataclass(frozen=True)
class Photos:
    """A set of photos on the page.

    Attributes
    ----------
    title : str
    people : str
        What tells people apart, as for `datasets.load_faces`.
    theirs : str
        The figure of `published.figure` that is shown beside it; none if empty.
    """

    title: str
    people: str = "folders"
    theirs: str = ""
    by: str = "anonymizer"

    def tables(self, data: str) -> tuple[dict[str, pd.DataFrame], dict]:
        """Measure everything, and return the small tables by their part, and what is recorded about them."""
        plan = experiments.load_experiment("results", data=data, people=self.people)
        faces, seed = plan.load_faces(), plan.seeds[0]
        detection.report_photos(faces)
        rows = experiments.grid_combinations(
            faces, plan.grid, **plan.chosen, k_values=plan.k, random_state=plan.seeds
        )
        # Random clusters are shown with one generator alone.
        rows = [row for row in rows if row["partitioner"] != "random" or row["anonymizer"] == "aam"]
        main = evaluation.measure_combinations(faces, rows)
        released = [c for c in plan.released(faces) if (c.partitioner, c.k) == ("ward", K)]
        found = evaluation.attack_table(
            faces, released, recognisers=plan.recognisers, random_state=seed, attacks=_RUN
        )
        useful = evaluation.utility_table(faces, released, random_state=seed)
        return _small_tables(main, found, useful), plan.tables(faces, ROOT / "outputs").about


@dataclass(frozen=True)
class Experiment:
    """The built-in set, as `make experiments` measured it; attributes as of `Photos`."""

    title: str
    theirs: str
    by: str = "anonymizer"

    def tables(self, data: str) -> tuple[dict[str, pd.DataFrame], dict]:
        """Read what `make experiments` wrote, and return the same as `Photos.tables`."""
        tables = evaluation.Tables(ROOT / "outputs", STEM, {})
        parts = (tables.load(part) for part in ("main", "attacks", "utility"))
        return _small_tables(*parts), evaluation.load_record(tables.path())


@dataclass(frozen=True)
class Descriptors:
    """A set of descriptors without photos, one of each person, whose surrogates are simulated; attributes as above."""

    title: str
    theirs: str
    by: str

    def tables(self, data: str) -> tuple[dict[str, pd.DataFrame], dict]:
        """Partition the people, and measure the means of their clusters as if they were surrogates."""
        names, X = utils.load_encodings(data)
        key = utils.content_key(list(map(str, names)), X)
        rows = [
            {self.by: name if self.by == "partitioner" else "simulated", **simulated(X, names, name, k)}
            for name in (_PARTITIONERS if self.by == "partitioner" else ("ward",))
            for k in _SIMULATED_K
        ]
        size = {"n_photos": len(X), "n_people": len(X)}
        return {"": pd.DataFrame(rows)}, {"data": {"name": Path(data).stem, "key": key, **size}}


#: Sets by the name of their folder or file.
SETS: dict[str, Experiment | Photos | Descriptors] = {
    "orl": Experiment("ORL, 40 people", theirs="anonymizer"),
    "celeba": Photos("CelebA, 500 people, one photo each", people="photos", theirs="version"),
    "people": Photos("25 people, several photos each"),
    "dlib_celeba_979": Descriptors("descriptors of 979 CelebA people", "partitioner", "partitioner"),
    "encodings": Descriptors("descriptors of 67 RaFD people", "anonymizer", "anonymizer"),
}


def simulated(X: np.ndarray, names: np.ndarray, partitioner: str, k: int) -> dict[str, float]:
    """Measure a release whose surrogates have the mean descriptor of their cluster, which no image reaches.

    Parameters
    ----------
    X : ndarray, shape (n, d)
        One descriptor of each person, who is also the adversary's gallery.
    names : ndarray of str, shape (n,)
    partitioner : str
    k : int

    Returns
    -------
    dict
        ``k``, what `measures.measure` returns, and 95 % intervals.
    """
    labels = partitioning.PARTITIONERS[partitioner](X, k, random_state=0)
    n_clusters = int(labels.max()) + 1
    release = attacks.DescribedRelease(
        mean_of_groups(X, labels, n_clusters), np.ones(n_clusters, dtype=bool), labels, names
    )
    gallery = attacks.Gallery(X, names, "same photos")
    own = np.linalg.norm(release.descriptors[labels] - X, axis=1)  # (n,)
    cases = attacks.closed_set(release, gallery)
    spans = {
        "information_loss": intervals.mean_interval(own, names),
        "re_identification": intervals.rate_interval(own < embedding.PAPER_THRESHOLD, names),
        "rank1_cluster": intervals.rate_interval(cases["hit_cluster"].to_numpy(), cases["image"].to_numpy()),
    }
    ends = {f"{name}_{end}": span[i] for name, span in spans.items() for i, end in enumerate(("low", "high"))}
    return {"k": k, **measures.measure(release, X, gallery), **ends}


# ----------------------------------------------------------------------------------------------------------
# Small tables, and their answers
# ----------------------------------------------------------------------------------------------------------


def _small_tables(main: pd.DataFrame, found: pd.DataFrame, useful: pd.DataFrame) -> dict[str, pd.DataFrame]:
    """The small tables by their part, from those of the sweep, of attacks and of utility."""
    released, measured = (
        part[(part["partitioner"] == "ward") & (part["k"] == K)] for part in (found, useful)
    )
    return {"": _small_main(main), "attacks": _small_attacks(released), "utility": _small_utility(measured)}


def _small_main(table: pd.DataFrame) -> pd.DataFrame:
    rows = evaluation.compare(table, "anonymizer", **evaluation.reference(table))
    singles = table[(table["k"] == 1) & (table["anonymizer"] != "none")]
    return pd.concat([rows, singles])[["anonymizer", *_MAIN]].reset_index(drop=True)


def _small_attacks(table: pd.DataFrame) -> pd.DataFrame:
    parts = [
        attacks.worst_case(part).assign(anonymizer=name)
        for name, part in table.groupby("anonymizer", sort=False)
    ]
    rows = pd.concat(parts)
    rows = rows[rows["attack"].isin(_SHOWN_ATTACKS)]
    return rows[["anonymizer", "attack", "level", "recogniser", "rate", "low", "high", "chance", "clear"]]


def _small_utility(table: pd.DataFrame) -> pd.DataFrame:
    rows = table[table["metric"].isin(_METRICS)]
    return rows[["anonymizer", "metric", "better", "value", "low", "high", "baseline", "chance"]]


def _shown_main(table: pd.DataFrame) -> pd.DataFrame:
    by = table.columns[0]
    rows = table[table["k"].isin((1, *_SHOWN_K))]
    rows = rows.sort_values(by, kind="stable", key=lambda names: names == "random")
    return cells_with_intervals(rows[[by, *(name for name in _MAIN if name in rows)]])


def _wide(table: pd.DataFrame, index: list[str], value: str) -> pd.DataFrame:
    """A row for each attack or metric, a column for each anonymizer, then what the first of them is compared with."""
    named = table.rename(columns={"low": f"{value}_low", "high": f"{value}_high"})
    cells = named.assign(cell=cells_with_intervals(named)[value])
    wide = cells.pivot_table(index=index, columns="anonymizer", values="cell", aggfunc="first", sort=False)
    compared = [name for name in ("baseline", "chance", "clear") if name in table]
    return wide.join(table.drop_duplicates(index).set_index(index)[compared]).reset_index()


def _say_main(table: pd.DataFrame) -> str:
    by = table.columns[0]
    rows = table[(table["k"] == K) & (table[by] != "random")].sort_values("information_loss")
    losses = "; ".join(
        f"{label(row[by])} {Measured.in_sweep(row, 'information_loss')}" for _, row in rows.iterrows()
    )
    best = rows.iloc[0]
    return (
        f"Information loss at *k* = {K}: {losses}. With {label(best[by])}, re-identification is "
        f"{Measured.in_sweep(best, 're_identification')}, and the nearest face in the gallery is a member of the "
        f"cluster for {Measured.in_sweep(best, 'rank1_cluster')}."
    )


def _say_attacks(table: pd.DataFrame) -> str:
    people = table[table["attack"].eq("rank-1") & table["level"].eq("person")]
    worst = people.loc[people["rate"].idxmax()]
    above = (table["low"] > table["chance"]).groupby(table["anonymizer"], sort=False).agg(["sum", "size"])
    counts = ", ".join(f"{label(name)} {n} of {of}" for name, n, of in above.itertuples())
    return (
        f"Attacks at *k* = {K} that beat a blind guess by their whole interval: {counts}. A search finds the person "
        f"most often behind {label(worst['anonymizer'])}: {Measured.in_attacks(worst)}."
    )


def _say_utility(table: pd.DataFrame) -> str:
    values = table.pivot(index="metric", columns="anonymizer", values="value")
    natural, sharp = values.loc["fid"].idxmin(), values.loc["sharpness"].idxmax()
    return (
        f"At *k* = {K}, {label(natural)} has the lowest FID ({values.loc['fid', natural]:.3f}), and {label(sharp)} the "
        f"sharpest images ({values.loc['sharpness', sharp]:.0f})."
    )


_PARTS = {
    "": (_shown_main, _say_main),
    "attacks": (lambda table: _wide(table, ["attack", "level"], "rate"), _say_attacks),
    "utility": (lambda table: _wide(table, ["metric", "better"], "value"), _say_utility),
}


# ----------------------------------------------------------------------------------------------------------
# The page
# ----------------------------------------------------------------------------------------------------------


def _path(name: str, part: str = "") -> Path:
    return KEPT / f"{name}{'_' if part else ''}{part}.csv"


def block(name: str) -> str:
    """Write a small table of a set with its answer as Markdown, or one that joins several sets."""
    if name == "paper":
        return markdown(_beside_paper())
    if name == "summary":
        table = _summary()
        return f"**Answer.** {_say_summary(table)}\n\n{markdown(table)}"
    name, part = next((n, p) for n in SETS for p in _PARTS if name == f"{n}{'_' if p else ''}{p}")
    if not _path(name, part).is_file():
        return "*Not measured yet.*"
    table, record = (read(_path(name, part)) for read in (evaluation.load_table, evaluation.load_record))
    show, answer = _PARTS[part]
    return f"**Answer.** {answer(table)}\n\n{markdown(show(table))}\n\n*{origin(record, SETS[name].title)}*"


def _beside_paper() -> pd.DataFrame:
    """Rows of our tables for which the authors published a number."""
    theirs, rows = evaluation.load_table(KEPT / "published.csv"), []
    for name, one in SETS.items():
        if one.theirs and _path(name).is_file():
            ours = evaluation.load_table(_path(name)).rename(columns={one.by: "name"})
            ours = ours[ours["k"].isin(_SHOWN_K)]
            paired = ours.merge(
                theirs[theirs["figure"] == one.theirs], on=["name", "k"], suffixes=("", "_paper")
            )
            rows.append(paired.assign(set=one.title, theirs=published.SETTINGS[one.theirs]))
    measured = [
        f"{name}{end}" for name in ("information_loss", "re_identification") for end in ("", "_paper")
    ]
    return pd.concat(rows)[["set", "name", "k", *measured, "theirs"]]


def _summary() -> pd.DataFrame:
    """What the generators cost and protect at k = 5, for each set of photos."""
    rows = []
    for name, one in SETS.items():
        if _path(name, "utility").is_file():
            main, found, useful = (evaluation.load_table(_path(name, part)) for part in _PARTS)
            losses = main[main["k"] == K].set_index("anonymizer")["information_loss"]
            first = found[found["attack"] == "rank-1"].pivot(
                index="anonymizer", columns="level", values="rate"
            )
            values = useful.pivot(index="anonymizer", columns="metric", values="value")[_TELLING]
            joined = first.add_suffix("_found").join([losses, values], how="inner").reset_index()
            rows.append(joined.assign(set=one.title).set_index("set").reset_index())
    return pd.concat(rows) if rows else pd.DataFrame()


def _say_summary(table: pd.DataFrame) -> str:
    """Which generator is best at what, for each set."""
    best = {
        "the least loss": ("information_loss", "idxmin"),
        "the lowest FID": ("fid", "idxmin"),
        "the sharpest images": ("sharpness", "idxmax"),
        "the expression most often": ("expression_kappa", "idxmax"),
    }
    said = []
    for title, rows in table.groupby("set", sort=False):
        own = rows.set_index("anonymizer")
        wins = ", ".join(
            f"{what} {label(getattr(own[column], which)())}" for what, (column, which) in best.items()
        )
        said.append(f"{title}: {wins}")
    found = table["person_found"]
    return (
        f"At *k* = {K}, a search finds the person behind {found.min():.0%} to {found.max():.0%} of shared images, "
        f"whatever the generator; 1/*k* is the most it can. {'; '.join(said)}."
    )


def _figure(name: str, table: pd.DataFrame) -> Figure:
    one, theirs = SETS[name], None
    if one.theirs:
        known = evaluation.load_table(KEPT / "published.csv")
        theirs = known[known["figure"] == one.theirs].rename(columns={"name": one.by})
        theirs = theirs[theirs[one.by].isin([*table[one.by], "pixel", "aam", "cnn", "stylegan"])]
    what = "; dashed: published, " + published.SETTINGS[one.theirs] if one.theirs else ""
    first = table[one.by].iloc[0]
    return vizualization.loss_and_reidentification(table, one.by, one.title + what, theirs, first)


def _keep_published(results: Mapping[str, pd.DataFrame]) -> None:
    """Keep the authors' curves, if their files are at hand."""
    parts = []
    for by in ("partitioner", "anonymizer", "version"):
        table = published.figure(results, by)
        parts.append(table.rename(columns={table.columns[0]: "name"}).assign(figure=by))
    table = pd.concat(parts)
    if len(table):
        evaluation.save_table(
            table[["figure", "name", "k", "information_loss", "re_identification"]], KEPT / "published.csv"
        )


def main(arguments=None) -> int:
    """Measure one set of faces; write its small tables, its figure and docs/results.md."""
    parser = make_parser("docs.results", main.__doc__)
    parser.add_argument(
        "data", nargs="?", default="orl", help="orl (default), a folder of photos, or a file of descriptors"
    )
    parser.add_argument(
        "--set", choices=SETS, dest="name", help="which set it is (default: the name of the folder or file)"
    )
    parser.add_argument(
        "--published", type=Path, default=published.FOLDER, help="the authors' files (outputs/published)"
    )
    return run_command(parser, arguments, _run)


def _run(options: argparse.Namespace) -> None:
    name = options.name or Path(options.data).stem
    if name not in SETS:
        raise ValueError(f"{options.data}: is none of the sets {', '.join(SETS)}; say which by --set")
    tables, about = SETS[name].tables(options.data)
    for part, table in tables.items():
        evaluation.save_table(table, _path(name, part), about)
    _keep_published(published.load_results(options.published))
    save_figure(_figure(name, evaluation.load_table(_path(name))), f"docs/results_{name}.png")
    PAGE.write_text(page_with_results(PAGE.read_text(encoding="utf-8"), block), encoding="utf-8")
    print(PAGE.relative_to(ROOT))


if __name__ == "__main__":
    raise SystemExit(main())
