"""The results on the experiment pages: ``python -m docs.tables [FOLDER]``, or ``make docs``.

From the tables that `make experiments` wrote for the built-in faces, small tables are made and kept in docs/tables with
their records. Each page shows its table, and a sentence computed from it, between two comments. Without tables of the
experiment, the pages are written from the kept ones.
"""

from __future__ import annotations

import argparse
import re
from collections.abc import Callable
from dataclasses import dataclass
from pathlib import Path

import pandas as pd

import embedding
import evaluation
from labels import LABELS, label

ROOT = Path(__file__).resolve().parents[1]
KEPT, PAGES = ROOT / "docs" / "tables", ROOT / "docs" / "experiments"

#: The tables' name, the cluster size that is shown, and the columns of the main table that pages show.
STEM, K = "orl_quick", 5
MEASURES = [
    "information_loss", "re_identification", "stranger_share", "rank1_cluster", "rank1_cluster_low",
    "rank1_cluster_high", "chance_cluster",
]  # fmt: skip

#: Reads one of the experiment's tables by its part.
Load = Callable[[str], pd.DataFrame]


@dataclass(frozen=True)
class Result:
    """A small table on a page, and the answer that it gives.

    Attributes
    ----------
    page : str
        The file in docs/experiments.
    part : str
        The experiment's table that it is made from, whose record is kept.
    make : callable
        Makes the small table.
    answer : callable
        The small table -> a sentence.
    """

    page: str
    part: str
    make: Callable[[Load], pd.DataFrame]
    answer: Callable[[pd.DataFrame], str]


def _compared(load: Load, by: str, further: tuple[str, ...] = ()) -> pd.DataFrame:
    """One part varies, at k = 5: a row for each value, the least loss first, and the mean loss over all k."""
    table = load("main")
    rows = evaluation.compare(table, by, **evaluation.reference(table))
    rows = rows[rows["k"] > 1]
    small = rows[rows["k"] == K].set_index(by)[[*MEASURES, *further]]
    small.insert(1, "mean_loss_over_k", rows.groupby(by)["information_loss"].mean())
    return small.sort_values("information_loss").reset_index()


def _values(table: pd.DataFrame, by: str, column: str, form: str = ".3f") -> str:
    return ", ".join(f"{label(name)} {value:{form}}" for name, value in table.set_index(by)[column].items())


def _say_embedding(table: pd.DataFrame) -> str:
    return (
        f"The loss at *k* = {K}, least first: {_values(table, 'embedding', 'information_loss')}. Random clusters "
        "ignore the descriptor, so the difference from them is what an embedding gains."
    )


def _say_partition(table: pd.DataFrame) -> str:
    best, worst = table.iloc[0], table.iloc[-1]
    found, chance = table["rank1_cluster"], table["chance_cluster"].iloc[0]
    return (
        f"`{best['partitioner']}` loses least ({best['information_loss']:.3f} at *k* = {K}), `{worst['partitioner']}` "
        f"most ({worst['information_loss']:.3f}). No partition hides the cluster: a search finds it for "
        f"{found.min():.0%} to {found.max():.0%} of people (chance {chance:.1%}). There are eight clusters, so a step "
        "of 12.5% in that rate is one cluster, and neighbours in the table may be in this order by chance."
    )


def _say_generator(table: pd.DataFrame) -> str:
    table = table[table["anonymizer"] != "random"]
    best, worst = table.iloc[0], table.iloc[-1]
    nearest = table.sort_values("reconstruction_loss").iloc[[0, -1]]
    return (
        f"{label(best['anonymizer'])} loses least ({best['information_loss']:.3f} at *k* = {K}), "
        f"{label(worst['anonymizer'])} most ({worst['information_loss']:.3f}). Single photos are drawn best by "
        f"{_values(nearest.head(1), 'anonymizer', 'reconstruction_loss')}, worst by "
        f"{_values(nearest.tail(1), 'anonymizer', 'reconstruction_loss')}."
    )


def _make_pairwise(load: Load) -> pd.DataFrame:
    rows = load(f"clusters_k{K}")
    rows = rows.assign(within=rows["distance"] < embedding.PAPER_THRESHOLD)
    grouped = rows.groupby(["anonymizer", "label"], sort=False)
    small = grouped["distance"].agg(nearest="min", mean="mean", farthest="max")
    return small.assign(n_within=grouped["within"].sum(), n=grouped.size()).reset_index()


def _say_pairwise(table: pd.DataFrame) -> str:
    own = table[table["anonymizer"] == "aam"]
    return (
        f"With {label('aam')}, the mean distance in a cluster ranges from {own['mean'].min():.2f} to "
        f"{own['mean'].max():.2f}. All members are within the threshold of {embedding.PAPER_THRESHOLD} in "
        f"{(own['n_within'] == own['n']).sum()} of {len(own)} clusters, none in {(own['n_within'] == 0).sum()}: the "
        "average over people hides how unequally they are protected."
    )


def _make_versions(load: Load) -> pd.DataFrame:
    rows = load("versions")
    rows = rows[rows["k"].isin([2, 5, 10])]
    rows = rows.assign(bound=1 / rows["k"], met=rows["re_identification"] <= 1 / rows["k"] + 1e-9)
    return rows[["anonymizer", "k", "information_loss", "re_identification", "bound", "met"]]


def _say_versions(table: pd.DataFrame) -> str:
    met = table.groupby("anonymizer", sort=False)["met"].agg(["sum", "size"])
    loss = table[table["k"] == K].set_index("anonymizer")["information_loss"]
    parts = [
        f"{label(name)}: {row['sum']} of {row['size']} ({loss[name]:.3f})" for name, row in met.iterrows()
    ]
    return (
        f"At how many *k* the re-identification rate is at most 1/*k*, and the loss at *k* = {K}: {'; '.join(parts)}. "
        "This is judged by dlib, which the versions use to adjust and tune."
    )


#: The attacks on the page, in its order.
ATTACKS = ["rank-1", "rank-1 (anonymized gallery)", "linkability", "composition: known clusters", "insider knows 1",
            "insider knows 4", "parrot", "reversal"]  # fmt: skip


def _make_attacks(load: Load) -> pd.DataFrame:
    rows = _released(load("attacks"), "aam")
    rows = rows[rows["attack"].isin(ATTACKS) & (rows["recogniser"] == "dlib")]
    return rows[["attack", "level", "rate", "low", "high", "chance", "clear"]]


def _released(table: pd.DataFrame, name: str) -> pd.DataFrame:
    """The rows of a release: of Ward clusters at k = 5, or of a filter."""
    clustered = (table["partitioner"] == "ward") & (table["k"] == K)
    return table[(table["anonymizer"] == name) & (clustered | (table["partitioner"] == "-"))]


def _say_attacks(table: pd.DataFrame) -> str:
    beaten = table["low"] > table["chance"]
    first = table[table["attack"] == "rank-1"].set_index("level")
    cluster, person = first.loc["cluster"], first.loc["person"]
    return (
        f"{beaten.sum()} of the {len(table)} rates lie above chance with their whole interval. A search with dlib "
        f"leads to the right cluster for {cluster['rate']:.0%} of people [{cluster['low']:.0%}, {cluster['high']:.0%}] "
        f"(chance {cluster['chance']:.1%}). It leads to the right person for {person['rate']:.0%} (chance "
        f"{person['chance']:.1%}); a shared image allows at most 1/*k* = {1 / K:.0%}."
    )


def _make_releases(load: Load) -> pd.DataFrame:
    rows = load("attacks")
    rows = rows[(rows["attack"] == "rank-1") & rows["rate"].notna()]
    keys = ["anonymizer", "partitioner", "k", "level"]
    rates = rows.pivot_table(index=keys, columns="recogniser", values="rate_worst", sort=False)
    small = rates.assign(chance=rows.groupby(keys)["chance"].mean()).reset_index()
    return small[(small["k"] > 1) | (small["level"] == "person")].rename_axis(columns=None)


def _recognisers(table: pd.DataFrame) -> list[str]:
    return [
        name for name in table.columns if name not in ("anonymizer", "partitioner", "k", "level", "chance")
    ]


def _say_releases(table: pd.DataFrame) -> str:
    columns, single = _recognisers(table), table["k"] == 1
    best = table.assign(best=table[columns].max(axis=1), by=table[columns].idxmax(axis=1))
    filters = best[single & (table["anonymizer"] != "none")]
    shared = best[(table["k"] == K) & (table["level"] == "cluster")]["best"]
    said = ", ".join(
        f"{row.best:.0%} of the people behind {row.anonymizer} (by {row.by})" for row in filters.itertuples()
    )
    return (
        f"The recogniser that is best at it finds {said}, counting images without a face as found. Of surrogates at "
        f"*k* = {K}, it finds the right cluster for {shared.min():.0%} to {shared.max():.0%} of people, but never the "
        "person for more than 1/*k*."
    )


_METRICS = ["age_error", "sex_kappa", "expression_kappa", "pose_error", "landmark_error", "similarity", "fid"]


def _make_utility(load: Load) -> pd.DataFrame:
    table = load("utility")
    own = _released(table, "aam").set_index("metric").loc[_METRICS]
    small = own[["better", "baseline", "chance", "value", "low", "high"]].rename(columns={"value": "aam"})
    for name in ("stylegan", "cnn", "pixel", "blur", "pixelate"):
        small[name] = _released(table, name).set_index("metric")["value"]
    return small.reset_index()


def _say_utility(table: pd.DataFrame) -> str:
    told = table[table["chance"].notna()]
    # Chance is measured by a few deals; for kappa, it is 0 by definition.
    chance = told["chance"].mask(told["metric"].str.endswith("kappa"), 0.0)
    beats = (told["low"] > chance).where(told["better"] == "higher", told["high"] < chance)
    better, not_better = (
        ", ".join(f"`{name}`" for name in told["metric"][which]) or "none" for which in (beats, ~beats)
    )
    return (
        f"Of surrogates by {label('aam')} at *k* = {K}, these measures are better than chance by their whole interval: "
        f"{better}. These are not: {not_better}. What the latter measure is gone, or forty people are too few to tell."
    )


def _make_tuning(load: Load) -> pd.DataFrame:
    trace = load(f"tuning_k{K}")
    start = trace[trace["round"] == 0].groupby("label")[["loss", "success"]].first()
    chosen = trace[trace["chosen"].astype(bool)].groupby("label")[["loss", "success"]].first()
    return start.join(chosen.add_suffix("_tuned")).assign(bound=trace["bound"].iloc[0]).reset_index()


def _say_tuning(table: pd.DataFrame) -> str:
    mean, met = table.mean(), table["success_tuned"] <= table["bound"] + 1e-9
    return (
        f"{met.sum()} of {len(table)} clusters keep the bound of {mean['bound']:.2f}. The mean loss goes from "
        f"{mean['loss']:.3f} to {mean['loss_tuned']:.3f}, the mean re-identification rate from {mean['success']:.2f} "
        f"to {mean['success_tuned']:.2f}, judged by the recogniser that the search used."
    )


def _make_methods(load: Load) -> pd.DataFrame:
    attacked, useful = load("attacks"), load("utility")
    table = pd.concat([load("main"), load("versions")])
    first = attacked[(attacked["attack"] == "rank-1") & attacked["rate"].notna()]
    rows = []
    for name in ("aam", "stylegan", "stylegan_adjusted", "cnn", "pixel", "blur", "pixelate", "none"):
        hits, own = _released(first, name), _released(useful, name).set_index("metric")["value"]
        main = _released(table, name)
        level = {level: hits[hits["level"] == level]["rate_worst"].max() for level in ("cluster", "person")}
        rows.append(
            {
                "anonymizer": name,
                "information_loss": main["information_loss"].iloc[0],
                "cluster_found": level["cluster"],
                "person_found": level["person"],
                **own[["expression_kappa", "landmark_error", "similarity", "fid", "sharpness"]],
            }
        )
    return pd.DataFrame(rows)


def _say_methods(table: pd.DataFrame) -> str:
    own = table.set_index("anonymizer")
    found, sharp = own["person_found"], own["sharpness"]
    filters = ["blur", "pixelate"]
    shared = own.drop(index=[*filters, "none"])
    natural, sharpest = shared["fid"].idxmin(), shared["sharpness"].idxmax()
    return (
        f"At *k* = {K}, a search finds at most {found[shared.index].max():.0%} of the people behind shared images, "
        f"and at least {found[filters].min():.0%} of those behind filters. The lowest FID has {label(natural)} "
        f"({own['fid'][natural]:.2f}); the sharpest images are those of {label(sharpest)} ({sharp[sharpest]:.0f}; the "
        f"photos have {sharp['none']:.0f})."
    )


RESULTS: dict[str, Result] = {
    "embedding": Result("embedding.md", "main", lambda load: _compared(load, "embedding"), _say_embedding),
    "clustering": Result("clustering.md", "main", lambda load: _compared(load, "partitioner"), _say_partition),
    "generator": Result(
        "generator.md", "main",
        lambda load: _compared(load, "anonymizer", ("reconstruction_loss", "detection_rate")), _say_generator,
    ),
    "pairwise": Result("pairwise.md", f"clusters_k{K}", _make_pairwise, _say_pairwise),
    "versions": Result("versions.md", "versions", _make_versions, _say_versions),
    "attacks": Result("attacks.md", "attacks", _make_attacks, _say_attacks),
    "releases": Result("attacks.md", "attacks", _make_releases, _say_releases),
    "utility": Result("utility.md", "utility", _make_utility, _say_utility),
    "tuning": Result("tuning.md", f"tuning_k{K}", _make_tuning, _say_tuning),
    "methods": Result("which_method.md", "main", _make_methods, _say_methods),
}  # fmt: skip


# ----------------------------------------------------------------------------------------------------------
# Pages
# ----------------------------------------------------------------------------------------------------------


def block(name: str) -> str:
    """Write the answer, the table and its origin as Markdown; for ``"labels"``, the words in figures."""
    if name == "labels":
        words = "\n".join(f"| {word} | `{column}` |" for column, word in LABELS.items())
        return f"| in figures | in tables |\n| --- | --- |\n{words}"
    path = KEPT / f"{name}.csv"
    table, record = evaluation.load_table(path), evaluation.load_record(path)
    made = origin(record, f"{record['data']['n_people']} ORL people, `make experiments`")
    return (
        f"**Answer.** {RESULTS[name].answer(table)}\n\n{markdown(table)}\n\n*{made} The columns are explained in "
        "[measures](../measures.md).*"
    )


def markdown(table: pd.DataFrame) -> str:
    """Write a table as Markdown."""
    head = "| " + " | ".join(f"`{column}`" for column in table.columns) + " |"
    lines = ["| " + " | ".join(map(_cell, row)) + " |" for row in table.itertuples(index=False)]
    return "\n".join([head, "|" + " --- |" * len(table.columns), *lines])


def origin(record: dict, measured: str) -> str:
    """Say what was measured, and by which version."""
    commit = (record["commit"] or "unknown")[:8]
    return f"{measured}; AnonFACES {record['version']} (commit {commit}, {record['date'][:10]})."


def cells_with_intervals(table: pd.DataFrame) -> pd.DataFrame:
    """Move the columns ``..._low`` and ``..._high`` into the cells of the column that they belong to."""
    whole = table.copy()
    for name in table.columns:
        low, high = f"{name}_low", f"{name}_high"
        if {low, high} <= set(table.columns):
            ends = whole.pop(low), whole.pop(high)
            whole[name] = [
                _cell(value) if pd.isna(start) else f"{value:.3f} [{start:.3f}, {end:.3f}]"
                for value, start, end in zip(table[name], *ends, strict=True)
            ]
    return whole


def _cell(value) -> str:
    if isinstance(value, bool):
        return "yes" if value else "no"
    if isinstance(value, float):
        return "–" if pd.isna(value) else f"{value:.3f}"
    return str(value)


def page_with_results(text: str, block: Callable[[str], str] = block) -> str:
    """Return a page with all its results written anew, each by `block`."""
    pattern = r"(<!-- result (\w+)[^>]*-->\n).*?(<!-- end -->)"
    return re.sub(pattern, lambda match: f"{match[1]}{block(match[2])}\n{match[3]}", text, flags=re.DOTALL)


def keep_tables(folder: Path) -> list[str]:
    """Make the small tables from those of the experiment in a folder; return the names of those that could be made."""
    tables, kept = evaluation.Tables(folder, STEM, {}), []
    for name, result in RESULTS.items():
        if tables.path(result.part).is_file():
            record = evaluation.load_record(tables.path(result.part))
            evaluation.save_table(result.make(tables.load), KEPT / f"{name}.csv", record)
            kept.append(name)
    return kept


def main() -> None:
    """Make the small tables from those in FOLDER, if it has any, and write the pages."""
    parser = argparse.ArgumentParser(prog="python -m docs.tables", description=main.__doc__)
    parser.add_argument("folder", nargs="?", type=Path, default=ROOT / "outputs", help="default: outputs")
    kept = keep_tables(parser.parse_args().folder)
    print(f"docs/tables: {len(kept)} of {len(RESULTS)} tables made anew")
    for page in [
        ROOT / "docs" / "measures.md",
        *sorted({PAGES / result.page for result in RESULTS.values()}),
    ]:
        page.write_text(page_with_results(page.read_text(encoding="utf-8")), encoding="utf-8")
        print(page.relative_to(ROOT))


if __name__ == "__main__":
    main()
