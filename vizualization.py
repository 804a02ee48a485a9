"""Draw figures from tables. Every function returns a Matplotlib Figure; figures of images are in `pictures`,
and how figures are shown and saved in `figure_files`.

Labels and colours are in `labels`. Figures are made without pyplot: a notebook shows a figure once, when a cell returns
it, and no figure stays open.
"""

from __future__ import annotations

import contextlib
from collections.abc import Iterator, Mapping, Sequence

import matplotlib
import numpy as np
import pandas as pd
from matplotlib.axes import Axes
from matplotlib.figure import Figure
from matplotlib.lines import Line2D
from matplotlib.ticker import MaxNLocator
from scipy.cluster import hierarchy

import recognisers
from embedding import PAPER_THRESHOLD
from figure_files import save
from labels import BASELINE_GREY, COLOURS, MARKERS, REFERENCE_LINE, STYLE, label, line_style
from pictures import clusters_with_surrogates, contact_sheet, image_grid, people_and_surrogates, style_mixing

__all__ = [
    "attack_intervals", "attack_matrix", "cluster_map", "clusters_with_surrogates", "contact_sheet", "dendrogram",
    "distance_histogram", "identification", "image_grid", "label", "loss_against_time", "loss_and_reidentification",
    "pairwise_page", "pareto", "partition_bars", "people_and_surrogates", "save", "style_mixing", "trade_off",
    "tuning_trace", "utility_dots",
]  # fmt: skip

#: With more clusters than this, each panel of the pair-wise page gets the full width.
_CLUSTERS_PER_PANEL = 25

#: Panels per row, and panels of a tuning trace.
_COLUMNS, _TRACED_CLUSTERS = 4, 8

# ----------------------------------------------------------------------------------------------------------
# Shared by all figures
# ----------------------------------------------------------------------------------------------------------


@contextlib.contextmanager
def _new_figure(width: float, height: float, title: str = "", **style) -> Iterator[Figure]:
    """Yield an empty figure (inches) to draw on in our style; it gets its title at the end."""
    with matplotlib.rc_context({**STYLE, **style}):
        figure = Figure(figsize=(width, height))
        yield figure
        figure.suptitle(title)


def _panels(figure: Figure, n_panels: int, **options) -> np.ndarray:
    """Return axes for some panels, at most `_COLUMNS` in a row, without the empty places of the last row."""
    shape = -(-n_panels // _COLUMNS), min(_COLUMNS, n_panels)
    axes = figure.subplots(*shape, squeeze=False, **options).ravel()
    for axis in axes[n_panels:]:
        axis.axis("off")
    return axes[:n_panels]


def _legend(figure: Figure, *axes: Axes) -> None:
    """Put one legend for some axes to their right, where it covers no curve, with each text once."""
    pairs = [pair for axis in axes for pair in zip(*axis.get_legend_handles_labels(), strict=True)]
    entries = {text: handle for handle, text in pairs if not text.startswith(label("none"))}
    clear = [text for _, text in pairs if text.startswith(label("none"))]
    if clear:  # one entry with the values of all axes
        values = ", ".join(text.split(": ")[1] for text in clear)
        entries[f"{label('none')}: {values}"] = next(handle for handle, text in pairs if text == clear[0])
    figure.legend(entries.values(), entries.keys(), loc="outside right center")


def _names(table: pd.DataFrame, by: str) -> list[str]:
    """Return the values of a column in their order, the random baseline last, so that colours agree in all figures."""
    return sorted(dict.fromkeys(table[by]), key=lambda name: name == "random")


def _check_columns(table: pd.DataFrame, *columns: str) -> None:
    missing = [column for column in columns if column not in table]
    if missing:
        raise ValueError(f"the table has no column {', '.join(missing)}; it has {', '.join(table.columns)}")
    if table.empty:
        raise ValueError("the table must have at least one row, got none")


def _rows_over_k(table: pd.DataFrame, by: str, columns: Sequence[str]) -> pd.DataFrame:
    """Return the rows with k above 1, if each curve has at most one row per k and seed."""
    _check_columns(table, "k", by, *columns)
    rows = table[table["k"] > 1]
    if rows.empty:
        raise ValueError("the table must have a row with k above 1, got none")
    if "seed" in rows and rows.duplicated([by, "k", "seed"]).any():
        raise ValueError(
            f"the table must have at most one row for each {by}, k and seed; select rows with evaluation.compare"
        )
    return rows


# ----------------------------------------------------------------------------------------------------------
# Curves over k
# ----------------------------------------------------------------------------------------------------------


def loss_and_reidentification(
    table: pd.DataFrame,
    by: str,
    title: str = "",
    published: pd.DataFrame | None = None,
    interval_of: str = "",
) -> Figure:
    """Draw the paper's pair of curves: information loss and re-identification rate over k.

    Parameters
    ----------
    table : DataFrame
        From `evaluation.sweep` and `evaluation.compare`; a row with ``k = 1`` and anonymizer ``"none"`` gives the
        values of the original photos.
    by : str
        Column with one curve per value: ``"embedding"``, ``"partitioner"`` or ``"anonymizer"``.
    title : str, optional
    published : DataFrame, optional
        Published curves with the same columns, from `published.figure`. They are dashed, with hollow markers, in the
        colour of our curve of the same name.
    interval_of : str, optional
        The curve whose 95 % interval is drawn, if the table has columns ``..._low`` and ``..._high`` and one seed.

    Returns
    -------
    Figure
        Left: information loss. Right: re-identification rate, with the paper's goal 1/k as a dotted line, and with the
        mean share of strangers under the threshold as a thin line. Bands span the seeds, or the interval of one curve.
        The legend gives the values of the original photos.

    Raises
    ------
    ValueError
        If a column is missing, no row has k above 1, or a curve has several rows for one k and seed.
    """
    measures = ["information_loss", "re_identification"]
    rows = _rows_over_k(table, by, measures)
    names = _names(rows, by)
    if published is not None:
        published = _rows_over_k(published, by, measures)
        names += [name for name in _names(published, by) if name not in names]
    with _new_figure(8.5, 3.2 if published is None else 3.6, title) as figure:
        left, right = figure.subplots(1, 2)
        for axis, measure in ((left, measures[0]), (right, measures[1])):
            _curves(axis, rows, measure, by, interval_of)
            if published is not None:
                _published_curves(axis, published, measure, by, names)
            axis.set_title(label(measure), fontsize=9)
            if axis is right:
                axis.set_ylim(-0.02, 1.05)
            _clear_photos(axis, table, measure)
        k = np.unique(rows["k"])
        right.plot(k, 1 / k, label="1 / k", **REFERENCE_LINE)
        if "stranger_share" in rows:
            strangers = rows.groupby("k")["stranger_share"].mean()
            right.plot(strangers.index, strangers, color="black", linewidth=0.8, label="strangers (mean)")
        _legend(figure, left, right)
    return figure


def identification(table: pd.DataFrame, by: str, title: str = "") -> Figure:
    """Draw the rates of a gallery search over k: the cluster, the person, and strangers.

    Parameters
    ----------
    table : DataFrame
        From `evaluation.sweep` and `evaluation.compare`.
    by : str
        Column whose values get a curve each.
    title : str, optional

    Returns
    -------
    Figure
        Rates for the cluster, the person and strangers, from left to right. Dotted: chance for the cluster and the
        person. Thin line: the bound 1/k for the person.

    Raises
    ------
    ValueError
        As `loss_and_reidentification`.
    """
    measures = ["rank1_cluster", "rank1_person", "stranger_share"]
    rows = _rows_over_k(table, by, [*measures, "chance_cluster", "chance_person"])
    with _new_figure(11, 3.2, title) as figure:
        axes = figure.subplots(1, 3)
        for axis, measure in zip(axes, measures, strict=True):
            _curves(axis, rows, measure, by)
            if rows[measure].notna().any():
                axis.set_ylim(bottom=-0.02 * axis.get_ylim()[1])
            _clear_photos(axis, table, measure)
        for axis, column in zip(axes, ("chance_cluster", "chance_person"), strict=False):
            chance = rows.groupby("k")[column].mean()
            axis.plot(chance.index, chance, label="chance", **REFERENCE_LINE)
        axes[0].set_ylim(-0.02, 1.05)
        k = np.unique(rows["k"])
        axes[1].plot(k, 1 / k, color="black", linewidth=0.8, label="1 / k")
        _legend(figure, *axes)
    return figure


def trade_off(table: pd.DataFrame, by: str, title: str = "") -> Figure:
    """Draw re-identification against information loss: one line per value of `by`, one point per k.

    Points at the lower left are better in both measures. Numbers at points are k.

    Parameters
    ----------
    table : DataFrame
        From `evaluation.sweep` and `evaluation.compare`.
    by : str
        Column whose values get a line each.
    title : str, optional

    Raises
    ------
    ValueError
        As `loss_and_reidentification`.
    """
    measures = ["information_loss", "re_identification"]
    rows = _rows_over_k(table, by, measures)
    with _new_figure(5.5, 3.8, title) as figure:
        axis = figure.subplots()
        for position, name in enumerate(_names(rows, by)):
            points = rows[rows[by] == name].groupby("k")[measures].mean()
            axis.plot(*points.to_numpy().T, label=label(name), **line_style(name, position))
            for k in (points.index[0], *points.index[points.index.isin([5, 10])]):
                axis.annotate(str(k), points.loc[k], textcoords="offset points", xytext=(4, 4), fontsize=7)
        axis.set(xlabel=label(measures[0]), ylabel=label(measures[1]), ylim=(-0.02, 1.02))
        _legend(figure, axis)
    return figure


def _curves(axis: Axes, table: pd.DataFrame, measure: str, by: str, interval_of: str = "") -> None:
    """Draw a curve over k for each value of a column: the mean of the seeds, in a band that spans them."""
    many_seeds = "seed" in table and table["seed"].nunique() > 1
    for position, name in enumerate(_names(table, by)):
        rows, style = table[table[by] == name], line_style(name, position)
        over_k = rows.groupby("k")[measure]
        mean, band = over_k.mean(), {"color": style["color"], "alpha": 0.15, "lw": 0}
        axis.plot(mean.index, mean, label=label(name), **style)
        if many_seeds:
            text = "bands: range over the seeds" if position == 0 else None
            axis.fill_between(mean.index, over_k.min(), over_k.max(), label=text, **band)
        elif name == interval_of and f"{measure}_low" in rows:
            ends = rows.sort_values("k")[[f"{measure}_low", f"{measure}_high"]].to_numpy().T
            text = f"95 % interval of {label(name)}\n(people resampled)"
            axis.fill_between(mean.index, *ends, label=text, **band)
    axis.set(xlabel="Cluster size k", ylabel=label(measure))
    axis.xaxis.set_major_locator(MaxNLocator(integer=True))


def _published_curves(axis: Axes, table: pd.DataFrame, measure: str, by: str, names: Sequence[str]) -> None:
    """Draw published curves dashed and hollow; the position of a name in `names` determines its colour."""
    hollow = {"linestyle": "--", "linewidth": 1.0, "markerfacecolor": "white", "markeredgewidth": 0.8}
    for name in _names(table, by):
        rows = table[table[by] == name].sort_values("k")
        style = {**line_style(name, names.index(name)), "markersize": 4, **hollow}
        axis.plot(rows["k"], rows[measure], alpha=0.9, label=f"{label(name)}, published", **style)


def _clear_photos(axis: Axes, table: pd.DataFrame, measure: str) -> None:
    """Draw the value of the original photos, if the table has it, without changing the limits of the axis."""
    clear = table[table["anonymizer"] == "none"] if "anonymizer" in table else table.iloc[:0]
    if clear.empty or clear[measure].isna().all():
        return
    limits, value = axis.get_ylim(), clear[measure].mean()
    text = f"{label('none')}: {value:.3g}"
    axis.axhline(value, color=BASELINE_GREY, linewidth=1.0, linestyle="-.", label=text, zorder=1)
    axis.set_ylim(limits)


# ----------------------------------------------------------------------------------------------------------
# Distances
# ----------------------------------------------------------------------------------------------------------


def distance_histogram(
    same: np.ndarray, different: np.ndarray, threshold: float = PAPER_THRESHOLD, title: str = ""
) -> Figure:
    """Draw the distances between photos of one person and of two people.

    Parameters
    ----------
    same, different : ndarray, shape (n_pairs,)
        Distances between two photos of one person, and of two people; see `evaluation.pair_distances`.
    threshold : float, default 0.6
        Drawn as a dotted line.
    title : str, optional
    """
    edges = np.linspace(0, max(same.max(), different.max()), 60)
    with _new_figure(6.5, 2.8, title) as figure:
        axis = figure.subplots()
        parts = {"same person": same, "different people": different}
        for colour, (name, values) in zip(COLOURS, parts.items(), strict=False):
            style = {"alpha": 0.6, "color": colour, "label": f"{name} ({len(values)} pairs)"}
            axis.hist(values, edges, weights=np.full(len(values), 1 / len(values)), **style)
        axis.axvline(threshold, label=f"threshold {threshold:g}", **REFERENCE_LINE)
        axis.set(xlabel="Distance between two descriptors", ylabel="Share of pairs")
        _legend(figure, axis)
    return figure


def pairwise_page(
    distances: pd.DataFrame,
    threshold: float = PAPER_THRESHOLD,
    title: str = "",
    published: pd.DataFrame | None = None,
) -> Figure:
    """Draw the paper's page of pair-wise distances: the distances between each surrogate and its members.

    Parameters
    ----------
    distances : DataFrame
        From `evaluation.cluster_distances`; with a column ``anonymizer`` each anonymizer gets a pair of panels.
    threshold : float, default 0.6
        Members below this line count as re-identified.
    title : str, optional
    published : DataFrame, optional
        The authors' mean ``distance`` of each cluster, from `published.cluster_means`.

    Returns
    -------
    Figure
        For each anonymizer, the distances of each cluster as a box, and beside it the mean of each cluster and of all
        members. With `published`, a last panel: the share of clusters whose mean lies below a distance, ours and
        published.

    Raises
    ------
    ValueError
        If a column is missing, or the table is empty.
    """
    _check_columns(distances, "label", "distance")
    parts = {"": distances}
    if "anonymizer" in distances:
        parts = dict(list(distances.groupby("anonymizer", sort=False)))
    has_published = published is not None and len(published) > 0
    columns = 2 if distances["label"].nunique() <= _CLUSTERS_PER_PANEL else 1
    n_rows = 2 * len(parts) // columns + has_published
    top = 1.08 * max(distances["distance"].max(), threshold)
    with _new_figure(8.5, 2.5 * n_rows + 0.6, title) as figure:
        axes = list(figure.subplots(n_rows, columns, squeeze=False).flat)
        for position, (name, part) in enumerate(parts.items()):
            pair = axes[2 * position : 2 * position + 2]
            overall = part["distance"].mean()
            _boxes(pair[0], part)
            _means(pair[1], part)
            for axis, what in zip(pair, ("each member", f"means (all: {overall:.3f})"), strict=True):
                axis.axhline(threshold, label=f"threshold {threshold:g}", **REFERENCE_LINE)
                axis.set_ylim(0, top)
                axis.set_title(f"{label(name)} – {what}".lstrip(" –"), fontsize=8)
            pair[1].axhline(overall, color=COLOURS[1], linewidth=1.0, label="mean over all members")
        if has_published:
            last, *empty = axes[2 * len(parts) :]
            _spread_of_means(last, parts, published, threshold)
            for axis in empty:
                axis.axis("off")
            place = {"loc": "center left"} if empty else {"loc": "lower right"}
            (*empty, last)[0].legend(*last.get_legend_handles_labels(), **place)
        handles = dict(zip(*reversed(axes[1].get_legend_handles_labels()), strict=True))
        figure.legend(handles.values(), handles.keys(), loc="outside lower center", ncols=2)
    return figure


def _boxes(axis: Axes, distances: pd.DataFrame) -> None:
    """Draw the distances of each cluster as a box."""
    clusters = [part.dropna().to_numpy() for _, part in distances.groupby("label")["distance"]]
    many = len(clusters) > 2 * _CLUSTERS_PER_PANEL
    thin = {"linewidth": 0.5 if many else 0.9}
    axis.boxplot(
        clusters, positions=range(len(clusters)), widths=0.6, medianprops={**thin, "color": COLOURS[1]},
        boxprops=thin, whiskerprops=thin, capprops=thin, flierprops={"markersize": 1.5 if many else 3},
    )  # fmt: skip
    _cluster_axis(axis, sorted(distances["label"].unique()), [len(cluster) > 0 for cluster in clusters])


def _means(axis: Axes, distances: pd.DataFrame) -> None:
    """Draw the mean distance of each cluster as a bar."""
    means = distances.groupby("label")["distance"].mean()
    axis.bar(range(len(means)), means, width=0.6, color=COLOURS[5])
    _cluster_axis(axis, list(means.index), means.notna())


def _cluster_axis(axis: Axes, names: Sequence[int], drawn: Sequence[bool]) -> None:
    """Name the clusters, and mark those without distances because their surrogate shows no face."""
    for cluster in np.flatnonzero(~np.asarray(drawn)):
        place = {"transform": axis.get_xaxis_transform(), "ha": "center", "va": "bottom"}
        axis.text(cluster, 0.03, "no face", rotation=90, fontsize=7, **place)
    axis.set(xlabel="Cluster", ylabel="Distance to surrogate", xlim=(-0.7, len(names) - 0.3))
    least = min(len(names) / 16, len(names))  # at most 16 names fit
    every = next(every for every in (1, 2, 5, 10, 25, 50, 100, len(names)) if every >= least)
    axis.set_xticks(range(0, len(names), every), [str(name) for name in names[::every]])
    axis.grid(visible=False, axis="x")


def _spread_of_means(
    axis: Axes, parts: Mapping[str, pd.DataFrame], published: pd.DataFrame, threshold: float
) -> None:
    """Draw the share of clusters whose mean distance lies below a distance, ours and published."""
    curves = {
        f"{label(name)}, ours".removeprefix(", "): part.groupby("label")["distance"].mean()
        for name, part in parts.items()
    }
    curves[f"published ({len(published)} clusters)"] = published["distance"]
    for position, (name, means) in enumerate(curves.items()):
        values = np.sort(means.dropna())
        axis.step(
            [values[0], *values], np.linspace(0, 1, len(values) + 1), where="post", label=name, linewidth=1.3,
            color=COLOURS[position], linestyle="--" if name.startswith("published") else "-",
        )  # fmt: skip
    axis.axvline(threshold, **REFERENCE_LINE)
    axis.set(xlabel="Mean distance to surrogate", ylabel="Share of clusters below")


# ----------------------------------------------------------------------------------------------------------
# Attacks, tuning and utility
# ----------------------------------------------------------------------------------------------------------


def _name_attackers(table: pd.DataFrame, title: str) -> str:
    """Add the strongest recogniser in a table to a title."""
    if "recogniser" not in table:
        return title
    return "; ".join(filter(None, [title, recognisers.attackers(table["recogniser"].dropna())]))


def attack_matrix(
    table: pd.DataFrame,
    rows: str = "attack",
    columns: str = "recogniser",
    title: str = "",
) -> Figure:
    """Draw a rate beside its chance for each pair of two columns, by default for each attack and recogniser.

    Parameters
    ----------
    table : DataFrame
        Columns ``rate low chance`` and those of `rows` and `columns`; from `attacks.attack_release` or
        `evaluation.attack_table`. Several rows for one pair are averaged.
    rows, columns : str
        Columns of the table whose values name the pairs.
    title : str, optional

    Returns
    -------
    Figure
        Each cell holds the rate and, in brackets, chance; its colour is the difference. It is bold if the whole
        interval lies above chance. Rates that were not measured are white.

    Raises
    ------
    ValueError
        If a column is missing, or the table is empty.
    """
    _check_columns(table, rows, columns, "rate", "low", "chance")
    across, down = list(dict.fromkeys(table[columns])), list(dict.fromkeys(table[rows]))
    means = table.groupby([rows, columns])[["rate", "low", "chance"]].mean().unstack()
    # One grid for each measure. (rows, columns)
    rates, lows, chances = (
        means[name].reindex(index=down, columns=across).to_numpy(dtype=float)
        for name in ("rate", "low", "chance")
    )
    title = _name_attackers(table[table["rate"].notna()], title)
    width = 1.9 + 1.0 * len(across) + 0.06 * max(map(len, down))
    with _new_figure(width, 0.9 + 0.26 * len(down), title, **{"axes.grid": False}) as figure:
        axis = figure.subplots()
        edges = np.arange(len(across) + 1) - 0.5, np.arange(len(down) + 1) - 0.5
        cells = axis.pcolormesh(*edges, rates - chances, vmin=0, vmax=1, cmap="cividis")
        axis.invert_yaxis()
        axis.set_xticks(range(len(across)), [label(name) for name in across])
        axis.set_yticks(range(len(down)), [label(name) for name in down])
        for (r, c), rate in np.ndenumerate(rates):
            unknown, chance = np.isnan(rate), chances[r, c]
            axis.text(
                c, r, "–" if unknown else f"{rate:.2f} ({chance:.2f})", ha="center", va="center", fontsize=7,
                color="black" if unknown or rate - chance > 0.5 else "white",
                fontweight="bold" if lows[r, c] > chance else "normal",
                in_layout=False,  # half of the time, as it lies within its cell
            )  # fmt: skip
        figure.colorbar(cells, ax=axis, label="Rate above chance")
    return figure


def attack_intervals(table: pd.DataFrame, by: str = "attack", title: str = "") -> Figure:
    """Draw success rates with their intervals, beside the rate of a blind guess.

    Parameters
    ----------
    table : DataFrame
        Columns ``rate low high chance`` and `by`; optional ``recogniser`` and ``clear``. From
        `attacks.attack_release`.
    by : str
        Column whose values get a line each.
    title : str, optional

    Returns
    -------
    Figure
        Dots and lines: rates with 95 % intervals, in one colour for each recogniser. Black ticks: a blind guess. An
        attack succeeds if its interval lies to the right of its tick. Grey crosses: the rate of the same attack on
        original photos.

    Raises
    ------
    ValueError
        If a column is missing, or no rate was measured.
    """
    _check_columns(table, by, "rate", "low", "high", "chance")
    table = table[table["rate"].notna()]
    if table.empty:
        raise ValueError("the table must have at least one measured rate, got none")
    title = _name_attackers(table, title)
    groups = table["recogniser"] if "recogniser" in table else pd.Series("", index=table.index)
    down, named = list(dict.fromkeys(table[by])), list(dict.fromkeys(groups))
    # Place one line for each recogniser with a rate, and leave 0.7 lines between attacks.
    pairs = set(zip(table[by], groups, strict=True))
    present = [[name for name in named if (row, name) in pairs] for row in down]
    starts = np.cumsum([0, *(len(names) + 0.7 for names in present)])
    with _new_figure(7.5, 1.0 + 0.11 * starts[-1], title) as figure:
        axis = figure.subplots()
        for position, name in enumerate(named):
            part = table[groups == name]
            places = [down.index(row) for row in part[by]]
            y = np.array([starts[place] + present[place].index(name) for place in places])
            # A bootstrap interval may miss its rate by a rounding error, so clip at 0. (2, n)
            spread = np.clip([part["rate"] - part["low"], part["high"] - part["rate"]], 0, None)
            style = line_style(name, position)
            axis.errorbar(
                part["rate"], y, xerr=spread, fmt=style["marker"], color=style["color"], markersize=3,
                linewidth=1.0, label=label(name) or None,
            )  # fmt: skip
            axis.plot(part["chance"], y, "|", color="black", markersize=6, zorder=3)
            if "clear" in part:
                axis.plot(part["clear"], y, "x", color=BASELINE_GREY, markersize=3.5, zorder=1)
        axis.plot([], [], "|", color="black", label="blind guess")
        if "clear" in table and table["clear"].notna().any():
            axis.plot([], [], "x", color=BASELINE_GREY, markersize=4, label="original photos")
        middles = [start + (len(names) - 1) / 2 for start, names in zip(starts, present, strict=False)]
        axis.set_yticks(middles, [label(name) for name in down])
        axis.hlines(starts[1:-1] - 0.85, -0.02, 1.02, color=BASELINE_GREY, linewidth=0.5, alpha=0.5)
        axis.grid(visible=False, axis="y")
        axis.set(
            xlabel=label("rate"),
            xlim=(min(0, table["low"].min()) - 0.02, 1.02),
            ylim=(starts[-1] - 0.7, -0.7),
        )
        _legend(figure, axis)
    return figure


def tuning_trace(trace: pd.DataFrame, bound: float, title: str = "") -> Figure:
    """Draw the trials of a tuning: success rate against loss, in a panel for each of the first eight clusters.

    Parameters
    ----------
    trace : DataFrame
        `tuning.Tuning.trace`.
    bound : float
        The largest rate allowed, drawn as a dotted line.
    title : str, optional

    Returns
    -------
    Figure
        Dots are trials; a ring marks the chosen one. Images without a face are left out, and counted in the panel's
        title.

    Raises
    ------
    ValueError
        If a column is missing, or the table is empty.
    """
    _check_columns(trace, "label", "round", "loss", "success", "found", "chosen")
    shown = list(dict.fromkeys(trace["label"]))[:_TRACED_CLUSTERS]
    columns, n_rows = min(_COLUMNS, len(shown)), -(-len(shown) // _COLUMNS)
    with _new_figure(2.2 * columns + 0.4, 2.0 * n_rows + 0.3, title) as figure:
        axes = _panels(figure, len(shown), sharex=True, sharey=True)
        for axis, cluster in zip(axes, shown, strict=True):
            rows = trace[trace["label"] == cluster]
            seen, n_without = rows[rows["found"]], int((~rows["found"]).sum())
            axis.plot(seen["loss"], seen["success"], ".", color=COLOURS[0], markersize=4)
            for row in seen[seen["round"] == 0].itertuples():
                place = {"xytext": (3, 3), "textcoords": "offset points"}
                axis.annotate("start", (row.loss, row.success), fontsize=6, **place)
            chosen = rows[rows["chosen"]]
            ring = {"markersize": 9, "markerfacecolor": "none", "color": COLOURS[1]}
            axis.plot(chosen["loss"], chosen["success"], "o", **ring)
            axis.axhline(bound, **REFERENCE_LINE)
            without = f", {n_without} without face" if n_without else ""
            axis.set_title(f"cluster {cluster}{without}", fontsize=8)
        axes[0].set_ylim(-0.05, 1.05)
        figure.supxlabel(label("loss"), fontsize=9)
        figure.supylabel(label("privacy"), fontsize=9)
    return figure


def pareto(
    table: pd.DataFrame,
    front: np.ndarray,
    by: str = "anonymizer",
    loss: str = "information_loss",
    privacy: str = "re_identification",
    title: str = "",
    chance: float = float("nan"),
) -> Figure:
    """Draw all combinations as points, and the Pareto front as steps: the least loss for each level of privacy.

    Parameters
    ----------
    table : DataFrame
        A row for each combination, with ``k``.
    front : ndarray of bool, shape (len(table),)
        From `tuning.pareto_front`.
    by : str
        Column that gives colours and markers.
    loss, privacy : str
        Columns of the two axes; smaller is better.
    title : str, optional
    chance : float, optional
        What `privacy` is by chance; dotted.

    Returns
    -------
    Figure
        Numbers on the front are k, where there is room.

    Raises
    ------
    ValueError
        If a column is missing, the table is empty, or `front` has another length.
    """
    _check_columns(table, by, loss, privacy)
    if np.shape(front) != (len(table),):
        raise ValueError(f"front must have shape ({len(table)},), one value per row, got {np.shape(front)}")
    with _new_figure(6.2, 3.8, title) as figure:
        axis = figure.subplots()
        for position, name in enumerate(_names(table, by)):
            rows, style = table[table[by] == name], {**line_style(name, position), "linestyle": ""}
            axis.plot(rows[loss], rows[privacy], alpha=0.55, label=label(name), **style)
        best = table[np.asarray(front, dtype=bool)].sort_values(loss)
        steps = {"where": "post", "color": "black", "linewidth": 1.2}
        axis.step(best[loss], best[privacy], label="nothing below", **steps)
        if "k" in best:
            for k, point in _apart(best.drop_duplicates("k"), loss, privacy):
                axis.annotate(str(k), point, fontsize=7, xytext=(3, 4), textcoords="offset points")
        if np.isfinite(chance):
            axis.axhline(chance, label=f"chance: {chance:.3g}", **REFERENCE_LINE)
        axis.set(xlabel=label(loss), ylabel=label(privacy))
        axis.set_ylim(bottom=-0.02 * axis.get_ylim()[1])
        _legend(figure, axis)
    return figure


def _apart(rows: pd.DataFrame, across: str, up: str) -> list[tuple[int, tuple[float, float]]]:
    """Return k and place of those rows whose numbers do not cover each other, the first rows first."""
    width, height = 0.04 * max(np.ptp(rows[across]), 1e-9), 0.05  # of a number
    kept: list[tuple[int, tuple[float, float]]] = []
    for k, x, y in zip(rows["k"], rows[across], rows[up], strict=True):
        if all(abs(x - other[0]) > width or abs(y - other[1]) > height for _, other in kept):
            kept.append((k, (x, y)))
    return kept


def utility_dots(table: pd.DataFrame, by: str = "anonymizer", title: str = "") -> Figure:
    """Draw the utility of surrogates: one panel per metric, one dot with its interval per anonymizer.

    Parameters
    ----------
    table : DataFrame
        Columns ``metric value`` and `by`; optional ``low high baseline chance``. From `utility.measure_utility`.
    by : str
        Column whose values get a dot each.
    title : str, optional

    Returns
    -------
    Figure
        Dotted: another original photo of the same person. Black ticks: another person's image, that is chance.
        Scales differ between panels.

    Raises
    ------
    ValueError
        If a column is missing, or the table is empty.
    """
    _check_columns(table, "metric", "value", by)
    table = table[table["value"].notna()]
    metrics, names = list(dict.fromkeys(table["metric"])), _names(table, by)
    columns, n_rows = min(_COLUMNS, len(metrics)), -(-len(metrics) // _COLUMNS)
    with _new_figure(2.3 * columns + 1.2, (0.75 + 0.16 * len(names)) * n_rows + 0.55, title) as figure:
        axes = _panels(figure, len(metrics), sharey=True)
        for axis, metric in zip(axes, metrics, strict=True):
            rows = table[table["metric"] == metric]
            for position, name in enumerate(names):
                style = line_style(name, position)
                for row in rows[rows[by] == name].itertuples():
                    low, high = getattr(row, "low", row.value), getattr(row, "high", row.value)
                    axis.plot([low, high], [position] * 2, color=style["color"], linewidth=1.2)
                    axis.plot(row.value, position, marker=style["marker"], color=style["color"], markersize=4)
                    if "chance" in rows:
                        axis.plot(row.chance, position, "|", color="black", markersize=7)
            if "baseline" in rows and rows["baseline"].notna().any():
                axis.axvline(rows["baseline"].dropna().iloc[0], **REFERENCE_LINE)
            axis.set_title(label(metric), fontsize=8)
            axis.tick_params(axis="x", labelsize=7)
            axis.set_yticks(range(len(names)), [label(name) for name in names], fontsize=8)
        axes[0].set_ylim(len(names) - 0.5, -0.5)
        texts = {"another original photo": REFERENCE_LINE}
        if "chance" in table:
            texts["another person's image (chance)"] = {"color": "black", "marker": "|", "linestyle": ""}
        handles = [Line2D([], [], label=text, **style) for text, style in texts.items()]
        figure.legend(handles=handles, loc="outside lower center", ncols=2)
    return figure


# ----------------------------------------------------------------------------------------------------------
# Partitions
# ----------------------------------------------------------------------------------------------------------


def partition_bars(stats: pd.DataFrame, by: str = "partitioner", title: str = "") -> Figure:
    """Compare partitions by the distances within their clusters, as in the paper's clustering figures.

    Parameters
    ----------
    stats : DataFrame
        A row for each cluster: the columns of `partitioning.cluster_stats`, and `by`.
    by : str, default "partitioner"
        Column whose values get a bar each.
    title : str, optional

    Returns
    -------
    Figure
        Panels for the largest, smallest and mean distance in a cluster, and for the silhouette. Bars are means over
        the clusters; whiskers span the middle half.
    """
    measures = {
        "max_dist": "Largest distance",
        "min_dist": "Smallest distance",
        "mean_dist": "Mean distance",
        "mean_silhouette": "Silhouette",
    }
    names = list(dict.fromkeys(stats[by]))
    with _new_figure(11, 0.22 * len(names) + 1.1, title) as figure:
        axes = figure.subplots(1, 4, sharey=True)
        for axis, colour, (column, text) in zip(axes, COLOURS, measures.items(), strict=False):
            groups = [stats.loc[stats[by] == name, column].dropna() for name in names]
            means = np.array([group.mean() for group in groups])
            low, high = (np.array([group.quantile(q) for group in groups]) for q in (0.25, 0.75))
            whiskers = np.maximum([means - low, high - means], 0)
            colours = [BASELINE_GREY if name == "random" else colour for name in names]
            thin = {"height": 0.7, "error_kw": {"linewidth": 0.7}}
            axis.barh(range(len(names)), means, xerr=whiskers, color=colours, **thin)
            axis.set_xlabel(text)
            axis.grid(visible=False, axis="y")
        axes[0].set_yticks(range(len(names)), [label(name) for name in names])
        axes[0].invert_yaxis()
    return figure


def dendrogram(linkage: np.ndarray, cut: float | None = None, names: Sequence[str] | None = None) -> Figure:
    """Draw the tree of a hierarchical clustering.

    Parameters
    ----------
    linkage : ndarray, shape (n - 1, 4)
        From `scipy.cluster.hierarchy.linkage`.
    cut : float, optional
        Height at which a line is drawn.
    names : sequence of n str, optional
        Names of the leaves, shown for at most 60 of them.
    """
    with _new_figure(11, 3.2) as figure:
        axis = figure.subplots()
        hierarchy.dendrogram(
            linkage, ax=axis, labels=names, no_labels=names is None or len(linkage) >= 60, color_threshold=0,
            above_threshold_color=COLOURS[0], leaf_font_size=7, leaf_rotation=90,
        )  # fmt: skip
        if cut is not None:
            axis.axhline(cut, color=COLOURS[1], linewidth=1.0, label=f"cut at {cut:.2f}")
            _legend(figure, axis)
        axis.set_ylabel("Height of the merge")
        axis.grid(visible=False)
    return figure


def cluster_map(points: np.ndarray, labels: np.ndarray, title: str = "") -> Figure:
    """Draw clusters on a map: a dot for each person, connected to the centre of its cluster.

    Parameters
    ----------
    points : ndarray, shape (n, 2)
        For example the first two principal components, or t-SNE.
    labels : ndarray of int, shape (n,)
    title : str, optional
    """
    with _new_figure(5.2, 4.2, title, **{"axes.grid": False}) as figure:
        axis = figure.subplots()
        for position, cluster in enumerate(np.unique(labels)):
            members = points[labels == cluster]
            centre, colour = members.mean(axis=0), COLOURS[position % len(COLOURS)]
            for member in members:
                axis.plot(*np.stack([centre, member]).T, color=colour, linewidth=0.7, alpha=0.6)
            marker = MARKERS[position // len(COLOURS) % len(MARKERS)]
            axis.scatter(*members.T, s=14, color=colour, marker=marker)
        axis.set(xticks=[], yticks=[])
    return figure


def loss_against_time(table: pd.DataFrame, loss: str = "SSE / SST", title: str = "") -> Figure:
    """Draw the loss of each partition against its CPU seconds, on a logarithmic axis.

    Parameters
    ----------
    table : DataFrame
        Columns ``partitioner``, ``seconds`` and `loss`.
    loss : str, default "SSE / SST"
        Share of the total sum of squares that stays within the clusters; smaller is better.
    title : str, optional
    """
    with _new_figure(6.5, 3.8, title) as figure:
        axis = figure.subplots()
        for position, (name, seconds, value) in enumerate(table[["partitioner", "seconds", loss]].to_numpy()):
            style = {**line_style(name, position), "linestyle": "", "markersize": 6}
            axis.plot(seconds, value, label=label(name), **style)
        axis.set(xscale="log", xlabel="CPU seconds", ylabel=loss)
        axis.xaxis.set_major_formatter("{x:g}")
        axis.xaxis.set_minor_formatter("")
        _legend(figure, axis)
    return figure
