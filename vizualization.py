"""Tables and images -> figures. The one module that draws; every function returns the Figure.

Figures are made without pyplot: a notebook shows the one that a cell returns, once, and none stays in memory.

Colours are the Okabe-Ito set, which stays apart for all common kinds of colour blindness, and every line also has
its own marker, so that figures survive a grey printer.
"""

from __future__ import annotations

import io
import sys
from collections.abc import Mapping, Sequence
from pathlib import Path

import matplotlib
import numpy as np
import pandas as pd
from matplotlib.axes import Axes
from matplotlib.figure import Figure
from matplotlib.patches import FancyArrowPatch, FancyBboxPatch, Rectangle
from matplotlib.ticker import MaxNLocator
from PIL import Image
from scipy.cluster import hierarchy

import anonymizer
from datasets import Faces

COLOURS = ["#0072B2", "#D55E00", "#009E73", "#CC79A7", "#E69F00", "#56B4E9", "#000000", "#8C6D31"]
MARKERS = ["o", "s", "^", "D", "v", "P", "X", "*"]
BASELINE_GREY = "#7F7F7F"

STYLE = {
    "figure.constrained_layout.use": True,
    "figure.dpi": 110,
    "savefig.dpi": 300,
    "axes.spines.top": False,
    "axes.spines.right": False,
    "axes.grid": True,
    "grid.alpha": 0.3,
    "font.size": 9,
    "legend.frameon": False,
    "pdf.fonttype": 42,  # text stays text, as publishers ask for
}

#: Of these, resolution and fonts are looked up only when a figure is written; the layout may not be, then.
LOOKED_UP_LATE = ("savefig.dpi", "pdf.fonttype")

#: What the names in tables are called in figures.
LABELS = {
    "information_loss": "Information loss (distance)",
    "information_loss_gallery": "Information loss, other photos (distance)",
    "re_identification": "Re-identification rate",
    "re_identification_gallery": "Re-identification rate, other photos",
    "rank1_cluster": "Cluster found first",
    "rank1_person": "Person found first",
    "stranger_share": "Strangers under the threshold",
    "detection_rate": "Surrogates with a face",
    "embedding": "Embedding",
    "partitioner": "Partition",
    "anonymizer": "Anonymizer",
    "dlib": "dlib",
    "pca": "PCA",
    "facenet": "FaceNet",
    "pixel": "k-Same (pixel)",
    "eigen": "k-Same-Eigen",
    "aam": "k-Same-M (AAM)",
    "cnn": "k-Same-Net (CNN)",
    "stylegan": "AnonFACES (StyleGAN), mean",
    "stylegan_adjusted": "AnonFACES, weight adjusted",
    "stylegan_random": "AnonFACES, random weights",
    "stylegan_tuned": "AnonFACES, tuned (ours)",
    "stylegan_adjusted_published": "weight adjusted, released form",
    "stylegan_random_published": "random weights, released form",
    "rate": "Success rate",
    "age_error": "Age error (years)",
    "sex_agreement": "Same sex read",
    "expression_agreement": "Same expression read",
    "pose_error": "Pose error (degrees)",
    "landmark_error": "Landmark error (eye distances)",
    "sharpness": "Sharpness",
    "similarity": "SSIM to the photo",
    "fid": "FID (dlib descriptors)",
    "kid": "KID (dlib descriptors)",
    "privacy": "Success rate of the target",
    "loss": "Information loss (distance)",
    "none": "no anonymization",
    "random": "random",
}

#: The side of one face on a contact sheet, in inches.
FACE_SIZE = 0.75


def _teach_notebook() -> None:
    """Tell a running notebook how to show figures; else it learns that only when pyplot makes one."""
    shell = sys.modules["IPython"].get_ipython() if "IPython" in sys.modules else None
    if shell is not None:
        shell.display_formatter.formatters["image/png"].for_type(Figure, notebook_png)


def notebook_png(figure: Figure) -> bytes:
    """PNG of a figure as a notebook keeps it: small. One channel where all is grey; 256 colours for curves and bars."""
    buffer = io.BytesIO()
    figure.savefig(buffer, format="png", bbox_inches="tight", facecolor="white")
    picture = Image.open(buffer).convert("RGB")
    red, green, blue = picture.split()
    if red.tobytes() == green.tobytes() == blue.tobytes():
        picture = red
    elif not any(axis.images for axis in figure.axes):
        picture = picture.quantize(256, dither=Image.Dither.NONE)
    buffer = io.BytesIO()
    picture.save(buffer, format="png", optimize=True)
    return buffer.getvalue()


_teach_notebook()


def label(name: str) -> str:
    """What a name in a table is called in a figure."""
    return LABELS.get(name, name.replace("_", " "))


def save(figure: Figure, path: str | Path) -> None:
    """Write a figure as PNG (300 dpi) and PDF; `path` names both, with or without one of these endings."""
    path = Path(path)
    if path.suffix in (".png", ".pdf"):  # any other dot belongs to the name, as that of a folder of photos
        path = path.with_suffix("")
    path.parent.mkdir(parents=True, exist_ok=True)
    for ending in (".png", ".pdf"):
        metadata = {"CreationDate": None} if ending == ".pdf" else {}  # the same figure, the same bytes
        with matplotlib.rc_context({name: STYLE[name] for name in LOOKED_UP_LATE}):
            figure.savefig(path.with_name(path.name + ending), metadata=metadata)


def _style(name: str, position: int) -> dict:
    """Colour, marker and line of one curve; baselines are grey."""
    if name in ("random", "none"):
        return {"color": BASELINE_GREY, "marker": ".", "linestyle": "--", "zorder": 1}
    line = "-" if position < len(COLOURS) else ":"
    return {
        "color": COLOURS[position % len(COLOURS)],
        "marker": MARKERS[(position + position // len(COLOURS)) % len(MARKERS)],
        "linestyle": line,
        "markersize": 4,
        "linewidth": 1.3,
        "zorder": 2,
    }


def _names(table: pd.DataFrame, by: str) -> list[str]:
    """The values of a column as they come, the random baseline last: so all figures give them the same colours."""
    return sorted(dict.fromkeys(table[by]), key=lambda name: name == "random")


def _curves(axis: Axes, table: pd.DataFrame, measure: str, by: str) -> None:
    """Draw one curve over k for each value of a column; the band spans the seeds."""
    for position, name in enumerate(_names(table, by)):
        over_k = table[table[by] == name].groupby("k")[measure]
        mean = over_k.mean()
        axis.plot(mean.index, mean, label=label(name), **_style(name, position))
        if over_k.count().max() > 1:
            axis.fill_between(
                mean.index,
                over_k.min(),
                over_k.max(),
                color=_style(name, position)["color"],
                alpha=0.15,
                lw=0,
            )
    axis.set_xlabel("Cluster size k")
    axis.set_ylabel(label(measure))
    axis.xaxis.set_major_locator(MaxNLocator(integer=True))


def _published_curves(axis: Axes, table: pd.DataFrame, measure: str, by: str, names: Sequence[str]) -> None:
    """Draw published curves dashed and hollow; `names` are those of the whole figure, which give the colours."""
    for name in _names(table, by):
        rows = table[table[by] == name].sort_values("k")
        style = {**_style(name, names.index(name)), "linestyle": "--", "linewidth": 1.0, "markersize": 4}
        axis.plot(
            rows["k"], rows[measure], markerfacecolor="white", markeredgewidth=0.8, alpha=0.9,
            label=f"{label(name)}, published", **style,
        )  # fmt: skip


def _clear_photos(axis: Axes, table: pd.DataFrame, measure: str) -> None:
    """Draw what the clear photos give, where the table has that row; far off the curves only the legend says it."""
    clear = table[table["anonymizer"] == "none"] if "anonymizer" in table else table.iloc[:0]
    if clear.empty or clear[measure].isna().all():
        return
    limits, value = axis.get_ylim(), clear[measure].mean()
    text = f"{label('none')}: {value:.3g}"
    axis.axhline(value, color=BASELINE_GREY, linewidth=1.0, linestyle="-.", label=text, zorder=1)
    axis.set_ylim(limits)


def _check_rows(table: pd.DataFrame, by: str, columns: Sequence[str]) -> pd.DataFrame:
    missing = [column for column in ("k", by, *columns) if column not in table]
    if missing:
        raise ValueError(f"the table has no column {', '.join(missing)}; give one that evaluation.sweep made")
    rows = table[table["k"] > 1]
    if rows.empty:
        raise ValueError("the table has no row with k above 1, so there is nothing to draw over k")
    if "seed" in rows and rows.duplicated([by, "k", "seed"]).any():
        raise ValueError(
            f"the table has several rows for one {by}, k and seed, which one curve would mix; pick those to compare "
            "with evaluation.compare"
        )
    return rows


def loss_and_reidentification(
    table: pd.DataFrame, by: str, title: str = "", published: pd.DataFrame | None = None
) -> Figure:
    """The paper's pair of curves: information loss and re-identification rate over k.

    Parameters
    ----------
    table : DataFrame
        From `evaluation.sweep`, restricted to what shall be compared.
    by : str
        Column whose values get a curve each: ``"embedding"``, ``"partitioner"`` or ``"anonymizer"``.
    title : str, optional
    published : DataFrame, optional
        Curves to lay over ours, with the same columns, such as `published.figure` gives.

    Returns
    -------
    Figure
        Left information loss; right re-identification, with the 1/k that the paper aims for. What the clear photos
        give (0 and 1) stands in the legend, where the table has that row. Published curves are dashed, with hollow
        markers, in the colour of ours of the same name.
    """
    measures = ["information_loss", "re_identification"]
    rows = _check_rows(table, by, measures)
    names = _names(rows, by)
    if published is not None:
        published = _check_rows(published, by, measures)
        names += [name for name in _names(published, by) if name not in names]
    with matplotlib.rc_context(STYLE):
        figure = Figure(figsize=(8.5, 3.2 if published is None else 3.6))
        left, right = figure.subplots(1, 2)
        for axis, measure in ((left, "information_loss"), (right, "re_identification")):
            _curves(axis, rows, measure, by)
            if published is not None:
                _published_curves(axis, published, measure, by, names)
            axis.set_title(label(measure), fontsize=9)
        right.set_ylim(-0.02, 1.05)
        for axis, measure in ((left, "information_loss"), (right, "re_identification")):
            _clear_photos(axis, table, measure)
        k = np.unique(rows["k"])
        right.plot(k, 1 / k, color="black", linewidth=0.8, linestyle=":", label="1 / k")
        _legend(figure, left, right)
        figure.suptitle(title)
    return figure


def identification(table: pd.DataFrame, by: str, title: str = "") -> Figure:
    """What a gallery search finds over k: the cluster, the person, and strangers.

    Parameters
    ----------
    table : DataFrame
        From `evaluation.sweep`.
    by : str
        Column whose values get a curve each.
    title : str, optional

    Returns
    -------
    Figure
        Dotted black: what chance gives for the cluster, and the bound 1/k for the person.
    """
    measures = ["rank1_cluster", "rank1_person", "stranger_share"]
    rows = _check_rows(table, by, [*measures, "chance_cluster"])
    with matplotlib.rc_context(STYLE):
        figure = Figure(figsize=(11, 3.2))
        axes = figure.subplots(1, 3)
        for axis, measure in zip(axes, measures, strict=True):
            _curves(axis, rows, measure, by)
            if rows[measure].notna().any():
                axis.set_ylim(bottom=-0.02 * axis.get_ylim()[1])
            _clear_photos(axis, table, measure)
        chance = rows.groupby("k")["chance_cluster"].mean()
        axes[0].plot(chance.index, chance, color="black", linewidth=0.8, linestyle=":")
        axes[0].set_ylim(-0.02, 1.05)
        k = np.unique(rows["k"])
        axes[1].plot(
            k, 1 / k, color="black", linewidth=0.8, linestyle=":", label="chance (left), 1 / k (middle)"
        )
        _legend(figure, *axes)
        figure.suptitle(title)
    return figure


def _legend(figure: Figure, *axes: Axes) -> None:
    """Put one legend for some axes to their right, where it covers no curve; each text once."""
    pairs = [pair for axis in axes for pair in zip(*axis.get_legend_handles_labels(), strict=True)]
    entries = {text: handle for handle, text in pairs if not text.startswith(label("none"))}
    clear = [text for _, text in pairs if text.startswith(label("none"))]
    if clear:  # its value differs from axis to axis: one entry with all of them
        values = ", ".join(text.split(": ")[1] for text in clear)
        entries[f"{label('none')}: {values}"] = next(handle for handle, text in pairs if text == clear[0])
    figure.legend(entries.values(), entries.keys(), loc="outside right center")


def trade_off(table: pd.DataFrame, by: str, title: str = "") -> Figure:
    """Re-identification against information loss: one point for each k, one line for each value of `by`.

    Lower left is better in both; the number at a point is its k.
    """
    rows = _check_rows(table, by, ["information_loss", "re_identification"])
    with matplotlib.rc_context(STYLE):
        figure = Figure(figsize=(5.5, 3.8))
        axis = figure.subplots()
        for position, name in enumerate(_names(rows, by)):
            points = rows[rows[by] == name].groupby("k")[["information_loss", "re_identification"]].mean()
            axis.plot(*points.to_numpy().T, label=label(name), **_style(name, position))
            for k in (points.index[0], *points.index[points.index.isin([5, 10])]):
                axis.annotate(str(k), points.loc[k], textcoords="offset points", xytext=(4, 4), fontsize=7)
        axis.set_xlabel(label("information_loss"))
        axis.set_ylabel(label("re_identification"))
        axis.set_ylim(-0.02, 1.02)
        _legend(figure, axis)
        figure.suptitle(title)
    return figure


def distance_histogram(
    same: np.ndarray, different: np.ndarray, threshold: float = 0.6, title: str = ""
) -> Figure:
    """How far apart photos of one person and of different people are, with the threshold.

    Parameters
    ----------
    same, different : ndarray
        Distances between two photos of one person, and of two people.
    threshold : float, default 0.6
    title : str, optional
    """
    edges = np.linspace(0, max(same.max(), different.max()), 60)
    with matplotlib.rc_context(STYLE):
        figure = Figure(figsize=(6.5, 2.8))
        axis = figure.subplots()
        for values, name, colour in (
            (same, "same person", COLOURS[0]),
            (different, "different people", COLOURS[1]),
        ):
            weights = np.full(len(values), 1 / len(values))
            axis.hist(
                values, edges, weights=weights, alpha=0.6, color=colour, label=f"{name} ({len(values)} pairs)"
            )
        axis.axvline(threshold, color="black", linewidth=0.8, linestyle=":", label=f"threshold {threshold:g}")
        axis.set_xlabel("Distance between two descriptors")
        axis.set_ylabel("Share of pairs")
        _legend(figure, axis)
        figure.suptitle(title)
    return figure


#: Of more clusters than this a page gives each panel its whole width.
CLUSTERS_A_PANEL = 25


def cluster_boxes(distances: pd.DataFrame, threshold: float = 0.6, title: str = "") -> Figure:
    """Distances between surrogate and members, a box for each cluster, with the threshold.

    Parameters
    ----------
    distances : DataFrame
        From `evaluation.cluster_distances`.
    threshold : float, default 0.6
        Members below the line count as re-identified.
    title : str, optional
    """
    with matplotlib.rc_context(STYLE):
        figure, axis = _cluster_figure(distances, title)
        _boxes(axis, distances, threshold)
        _legend(figure, axis)
    return figure


def cluster_means(distances: pd.DataFrame, threshold: float = 0.6, title: str = "") -> Figure:
    """Mean distance between surrogate and members of each cluster, with the threshold and the overall mean."""
    with matplotlib.rc_context(STYLE):
        figure, axis = _cluster_figure(distances, title)
        _means(axis, distances, threshold)
        _legend(figure, axis)
    return figure


def pairwise_page(
    distances: pd.DataFrame,
    threshold: float = 0.6,
    title: str = "",
    published: pd.DataFrame | None = None,
) -> Figure:
    """The paper's page of pair-wise distances: for each cluster a box and a mean, with the threshold.

    Parameters
    ----------
    distances : DataFrame
        From `evaluation.cluster_distances`; with a column ``anonymizer`` there is a pair of panels for each.
    threshold : float, default 0.6
        Members below the line count as re-identified.
    title : str, optional
    published : DataFrame, optional
        The means that the authors published, a row for each cluster: ``distance``; see `published.cluster_means`.

    Returns
    -------
    Figure
        For each anonymizer a box of the distances from the surrogate to each member, for every cluster, and beside it
        the mean of every cluster and over all. With `published` a last panel: the share of clusters whose mean lies
        below a distance, published and ours.
    """
    _check_columns(distances, "label", "distance")
    parts = {"": distances}
    if "anonymizer" in distances:
        parts = dict(list(distances.groupby("anonymizer", sort=False)))
    has_published = published is not None and len(published) > 0
    columns = 2 if distances["label"].nunique() <= CLUSTERS_A_PANEL else 1
    n_rows = 2 * len(parts) // columns + has_published
    top = 1.08 * max(distances["distance"].max(), threshold)
    with matplotlib.rc_context(STYLE):
        figure = Figure(figsize=(8.5, 2.5 * n_rows + 0.6))
        axes = list(figure.subplots(n_rows, columns, squeeze=False).flat)
        for position, (name, part) in enumerate(parts.items()):
            pair = axes[2 * position : 2 * position + 2]
            _boxes(pair[0], part, threshold)
            _means(pair[1], part, threshold, name="mean over all members")
            overall = part["distance"].mean()
            for axis, what in zip(pair, ("each member", f"means (all: {overall:.3f})"), strict=True):
                axis.set_ylim(0, top)
                axis.set_title(f"{label(name)} – {what}".lstrip(" –"), fontsize=8)
        if has_published:
            last, *empty = axes[2 * len(parts) :]
            _spread_of_means(last, parts, published, threshold)
            for axis in empty:
                axis.axis("off")
            place = {"loc": "center left"} if empty else {"loc": "lower right"}
            (*empty, last)[0].legend(*last.get_legend_handles_labels(), **place)
        handles = dict(zip(*reversed(axes[1].get_legend_handles_labels()), strict=True))
        figure.legend(handles.values(), handles.keys(), loc="outside lower center", ncols=2)
        figure.suptitle(title)
    return figure


def _spread_of_means(
    axis: Axes, parts: Mapping[str, pd.DataFrame], published: pd.DataFrame, threshold: float
) -> None:
    """Draw the share of clusters whose mean distance lies below a distance: ours, and the published one."""
    curves = {
        f"{label(name)}, ours".removeprefix(", "): part.groupby("label")["distance"].mean()
        for name, part in parts.items()
    }
    curves[f"published ({len(published)} clusters)"] = published["distance"]
    for position, (name, means) in enumerate(curves.items()):
        values = np.sort(means.dropna())
        line = "--" if name.startswith("published") else "-"
        axis.step(
            [values[0], *values], np.linspace(0, 1, len(values) + 1), where="post", label=name,
            color=COLOURS[position], linestyle=line, linewidth=1.3,
        )  # fmt: skip
    axis.axvline(threshold, color="black", linewidth=0.8, linestyle=":")
    axis.set_xlabel("Mean distance to surrogate")
    axis.set_ylabel("Share of clusters below")


def _cluster_figure(distances: pd.DataFrame, title: str) -> tuple[Figure, Axes]:
    """A figure with one axis, wide enough for the clusters."""
    _check_columns(distances, "label", "distance")
    figure = Figure(figsize=(min(11.0, max(5.0, 0.35 * distances["label"].nunique() + 1.5)), 3.2))
    figure.suptitle(title)
    return figure, figure.subplots()


def _boxes(axis: Axes, distances: pd.DataFrame, threshold: float) -> None:
    clusters = [part.dropna().to_numpy() for _, part in distances.groupby("label")["distance"]]
    many = len(clusters) > 2 * CLUSTERS_A_PANEL
    thin = {"linewidth": 0.5 if many else 0.9}
    axis.boxplot(
        clusters,
        positions=range(len(clusters)),
        widths=0.6,
        medianprops={**thin, "color": COLOURS[1]},
        boxprops=thin,
        whiskerprops=thin,
        capprops=thin,
        flierprops={"markersize": 1.5 if many else 3},
    )
    axis.axhline(threshold, color="black", linewidth=0.8, linestyle=":", label=f"threshold {threshold:g}")
    _cluster_axis(axis, sorted(distances["label"].unique()), [len(cluster) > 0 for cluster in clusters])


def _means(axis: Axes, distances: pd.DataFrame, threshold: float, name: str | None = None) -> None:
    means, overall = distances.groupby("label")["distance"].mean(), distances["distance"].mean()
    axis.bar(range(len(means)), means, width=0.6, color=COLOURS[5])
    axis.axhline(threshold, color="black", linewidth=0.8, linestyle=":", label=f"threshold {threshold:g}")
    axis.axhline(overall, color=COLOURS[1], linewidth=1.0, label=name or f"mean {overall:.3f}")
    _cluster_axis(axis, list(means.index), means.notna())


def _cluster_axis(axis: Axes, names: Sequence[int], drawn: Sequence[bool]) -> None:
    """Name the clusters, and say which have no distance because their surrogate shows no face."""
    for cluster in np.flatnonzero(~np.asarray(drawn)):
        place = {"transform": axis.get_xaxis_transform(), "ha": "center", "va": "bottom"}
        axis.text(cluster, 0.03, "no face", rotation=90, fontsize=7, **place)
    axis.set_xlabel("Cluster")
    axis.set_ylabel("Distance to surrogate")
    step = len(names) / 16
    every = next(every for every in (1, 2, 5, 10, 25, 50, 100, len(names)) if every >= min(step, len(names)))
    axis.set_xlim(-0.7, len(names) - 0.3)
    axis.set_xticks(range(0, len(names), every), [str(name) for name in names[::every]])
    axis.grid(visible=False, axis="x")


def _check_columns(table: pd.DataFrame, *columns: str) -> None:
    missing = [column for column in columns if column not in table]
    if missing:
        raise ValueError(f"the table has no column {', '.join(missing)}; it has {', '.join(table.columns)}")
    if table.empty:
        raise ValueError("the table has no row, so there is nothing to draw")


def attack_matrix(
    table: pd.DataFrame,
    rows: str = "attack",
    columns: str = "recogniser",
    value: str = "rate",
    title: str = "",
) -> Figure:
    """A rate for each pair of two things, such as attack and recogniser, or what steered and what attacks.

    Parameters
    ----------
    table : DataFrame
        With one row for each pair; several are averaged. From `attacks.attack_release`, `evaluation.attack_table` or
        `tuning.check_release`.
    rows, columns : str
        Columns whose values name the pairs.
    value : str
        The rate, 0 to 1. What could not be measured stays white.
    title : str, optional
    """
    _check_columns(table, rows, columns, value)
    across, down = list(dict.fromkeys(table[columns])), list(dict.fromkeys(table[rows]))
    grid = table.groupby([rows, columns])[value].mean().unstack().reindex(index=down, columns=across)
    with matplotlib.rc_context({**STYLE, "axes.grid": False}):
        figure = Figure(
            figsize=(1.9 + 0.95 * len(across) + 0.06 * max(map(len, down)), 0.9 + 0.26 * len(down))
        )
        axis = figure.subplots()
        image = axis.imshow(grid.to_numpy(dtype=float), vmin=0, vmax=1, cmap="cividis", aspect="auto")
        axis.set_xticks(range(len(across)), [label(name) for name in across])
        axis.set_yticks(range(len(down)), [label(name) for name in down])
        for (r, c), rate in np.ndenumerate(grid.to_numpy(dtype=float)):
            text = "–" if np.isnan(rate) else f"{rate:.2f}"
            colour = "black" if np.isnan(rate) or rate > 0.5 else "white"
            axis.text(c, r, text, ha="center", va="center", fontsize=8, color=colour)
        figure.colorbar(image, ax=axis, label=label(value))
        figure.suptitle(title)
    return figure


def attack_intervals(table: pd.DataFrame, by: str = "attack", title: str = "") -> Figure:
    """Success rates with their intervals, and the blind guess beside each.

    Parameters
    ----------
    table : DataFrame
        ``rate low high chance`` and `by`; and ``recogniser`` where there are several. From `attacks.attack_release`.
    by : str
        Column whose values get a line each.
    title : str, optional

    Returns
    -------
    Figure
        Dots with lines: rate and 95 % interval. Black ticks: what a blind guess gives. An attack whose interval lies to
        the right of its tick tells something. Grey crosses, where the table has them: what the same attack finds from
        clear photos.
    """
    _check_columns(table, by, "rate", "low", "high", "chance")
    table = table[table["rate"].notna()]
    if table.empty:
        raise ValueError("no attack of the table was measured, so there is nothing to draw")
    groups = table["recogniser"] if "recogniser" in table else pd.Series("", index=table.index)
    down, colours = list(dict.fromkeys(table[by])), list(dict.fromkeys(groups))
    # One line for each recogniser that has a rate, and half a line between attacks
    present = [
        [name for name in colours if ((table[by] == value) & (groups == name)).any()] for value in down
    ]
    starts = np.cumsum([0, *(len(names) + 0.7 for names in present)])
    with matplotlib.rc_context(STYLE):
        figure = Figure(figsize=(7.5, 1.0 + 0.11 * starts[-1]))
        axis = figure.subplots()
        for position, name in enumerate(colours):
            part = table[groups == name]
            places = [down.index(value) for value in part[by]]
            y = np.array([starts[place] + present[place].index(name) for place in places])
            spread = np.clip(
                [part["rate"] - part["low"], part["high"] - part["rate"]], 0, None
            )  # a resampled interval may miss the rate by a hair
            style = _style(name, position)
            axis.errorbar(
                part["rate"], y, xerr=spread, fmt=style["marker"], color=style["color"], markersize=3,
                linewidth=1.0, label=label(name) or None,
            )  # fmt: skip
            axis.plot(part["chance"], y, "|", color="black", markersize=6, zorder=3)
            if "clear" in part:
                axis.plot(part["clear"], y, "x", color=BASELINE_GREY, markersize=3.5, zorder=1)
        axis.plot([], [], "|", color="black", label="blind guess")
        if "clear" in table and table["clear"].notna().any():
            axis.plot([], [], "x", color=BASELINE_GREY, markersize=4, label="from clear photos")
        middles = [start + (len(names) - 1) / 2 for start, names in zip(starts, present, strict=False)]
        axis.set_yticks(middles, [label(name) for name in down])
        axis.hlines(starts[1:-1] - 0.85, -0.02, 1.02, color=BASELINE_GREY, linewidth=0.5, alpha=0.5)
        axis.grid(visible=False, axis="y")
        axis.set_ylim(starts[-1] - 0.7, -0.7)
        axis.set_xlim(-0.02, 1.02)
        axis.set_xlabel(label("rate"))
        _legend(figure, axis)
        figure.suptitle(title)
    return figure


def anonymity_sets(
    sizes: Mapping[str, np.ndarray] | np.ndarray, k: int | None = None, title: str = ""
) -> Figure:
    """How many people an adversary still has to choose from, for each person.

    Parameters
    ----------
    sizes : array, or mapping of name to array, shape (n,)
        Effective sizes: 2 to the entropy of the adversary's belief, from `attacks.posterior`.
    k : int, optional
        What k-anonymity promises, as a line.
    title : str, optional
    """
    sizes = sizes if isinstance(sizes, Mapping) else {"": sizes}
    values = {name: np.asarray(part, dtype=float) for name, part in sizes.items()}
    values = {name: part[np.isfinite(part)] for name, part in values.items()}
    if not any(map(len, values.values())):
        raise ValueError("there is no anonymity set to show")
    largest = max(part.max() for part in values.values() if len(part))
    edges = np.linspace(
        0.5, np.ceil(largest) + 0.5, 1 + min(60, int(np.ceil(largest)))
    )  # around whole numbers
    with matplotlib.rc_context(STYLE):
        figure = Figure(figsize=(6.5, 2.8))
        axis = figure.subplots()
        for position, (name, part) in enumerate(values.items()):
            style = _style(name, position)
            axis.hist(
                part, edges, histtype="step", linewidth=1.6, color=style["color"], linestyle=style["linestyle"],
                label=label(name) or None,
            )  # fmt: skip
        if k is not None:
            axis.axvline(k, color="black", linewidth=0.8, linestyle=":", label=f"k = {k}")
        axis.set_xlabel("Effective anonymity set (people)")
        axis.set_ylabel("People")
        _legend(figure, axis)
        figure.suptitle(title)
    return figure


def roc_curves(curves: Mapping[str, object], title: str = "") -> Figure:
    """Receiver operating characteristics, the false accept rate on a logarithmic axis.

    Parameters
    ----------
    curves : mapping of name to attacks.Curve
    title : str, optional

    Returns
    -------
    Figure
        Dotted: chance, where strangers are accepted as often as the person. The legend gives equal error rates.
    """
    if not curves:
        raise ValueError("there is no curve to draw")
    with matplotlib.rc_context(STYLE):
        figure = Figure(figsize=(5.8, 3.4))
        axis = figure.subplots()
        for position, (name, curve) in enumerate(curves.items()):
            style = {**_style(name, position), "marker": ""}
            false, true = curve.false_accept_rate, curve.true_accept_rate
            text = f"{label(name)} (EER {curve.equal_error_rate:.3f})"
            axis.step(np.maximum(false, 1e-5), true, where="post", label=text, **style)
        chance = np.geomspace(1e-5, 1, 50)
        axis.plot(chance, chance, color="black", linewidth=0.8, linestyle=":", label="chance")
        axis.set_xscale("log")
        lowest = min(
            float(curve.false_accept_rate[curve.false_accept_rate > 0].min(initial=1))
            for curve in curves.values()
        )
        axis.set_xlim(max(lowest / 2, 1e-5), 1)
        axis.set_ylim(-0.02, 1.02)
        axis.set_xlabel("False accept rate")
        axis.set_ylabel("True accept rate")
        _legend(figure, axis)
        figure.suptitle(title)
    return figure


def tuning_trace(trace: pd.DataFrame, bound: float, title: str = "") -> Figure:
    """What a tuning tried: loss against success rate, a panel for each of the first eight clusters.

    Parameters
    ----------
    trace : DataFrame
        `tuning.Tuning.trace`.
    bound : float
        The largest rate allowed, drawn as a line.
    title : str, optional

    Returns
    -------
    Figure
        Numbers tell the order of the trials; the ring marks what was chosen. Images without a face are left out and
        counted in the panel's title.
    """
    _check_columns(trace, "label", "round", "loss", "success", "found", "chosen")
    shown = list(dict.fromkeys(trace["label"]))[:8]
    columns = min(4, len(shown))
    n_rows = -(-len(shown) // columns)
    with matplotlib.rc_context(STYLE):
        figure = Figure(figsize=(2.2 * columns + 0.4, 2.0 * n_rows + 0.3))
        axes = figure.subplots(n_rows, columns, sharex=True, sharey=True, squeeze=False)
        for axis in axes.flat[len(shown) :]:
            axis.axis("off")
        for axis, cluster in zip(axes.flat, shown, strict=False):
            rows = trace[trace["label"] == cluster]
            seen, blind = rows[rows["found"]], int((~rows["found"]).sum())
            axis.plot(seen["loss"], seen["success"], ".", color=COLOURS[0], markersize=4)
            for row in seen.itertuples():
                if row.round == 0:
                    axis.annotate(
                        "start",
                        (row.loss, row.success),
                        fontsize=6,
                        xytext=(3, 3),
                        textcoords="offset points",
                    )
            chosen = rows[rows["chosen"]]
            axis.plot(
                chosen["loss"], chosen["success"], "o", markersize=9, markerfacecolor="none", color=COLOURS[1]
            )
            axis.axhline(bound, color="black", linewidth=0.8, linestyle=":")
            axis.set_title(f"cluster {cluster}" + (f", {blind} without face" if blind else ""), fontsize=8)
        axes[0, 0].set_ylim(-0.05, 1.05)
        figure.supxlabel(label("loss"), fontsize=9)
        figure.supylabel(label("privacy"), fontsize=9)
        figure.suptitle(title)
    return figure


def _apart(rows: pd.DataFrame, across: str, up: str) -> list[tuple[int, tuple[float, float]]]:
    """Places of rows, with their k, whose numbers would not be written over each other."""
    room = 0.04 * max(np.ptp(rows[across]), 1e-9), 0.05  # a number's width and height
    kept: list[tuple[int, tuple[float, float]]] = []
    for k, x, y in zip(rows["k"], rows[across], rows[up], strict=True):
        if all(abs(x - other[0]) > room[0] or abs(y - other[1]) > room[1] for _, other in kept):
            kept.append((k, (x, y)))
    return kept


def pareto(
    table: pd.DataFrame,
    front: np.ndarray,
    by: str = "anonymizer",
    loss: str = "information_loss",
    privacy: str = "re_identification",
    title: str = "",
) -> Figure:
    """All combinations as points, and the step line under which none lies: what privacy costs at the least.

    Parameters
    ----------
    table : DataFrame
        A row for each combination, with ``k``.
    front : ndarray of bool, shape (len(table),)
        From `tuning.pareto_front`.
    by : str
        Column that gives colours and markers.
    loss, privacy : str
        Columns of the axes.
    title : str, optional

    Returns
    -------
    Figure
        Lower left is better; numbers on the line are k, as far as there is room.
    """
    _check_columns(table, by, loss, privacy)
    if np.shape(front) != (len(table),):
        raise ValueError(
            f"front must tell for each of {len(table)} rows, not have the shape {np.shape(front)}"
        )
    with matplotlib.rc_context(STYLE):
        figure = Figure(figsize=(6.2, 3.8))
        axis = figure.subplots()
        for position, name in enumerate(_names(table, by)):
            rows = table[table[by] == name]
            style = {**_style(name, position), "linestyle": ""}
            axis.plot(rows[loss], rows[privacy], alpha=0.55, label=label(name), **style)
        best = table[np.asarray(front, dtype=bool)].sort_values(loss)
        axis.step(
            best[loss], best[privacy], where="post", color="black", linewidth=1.2, label="nothing below"
        )
        if "k" in best:
            for k, point in _apart(best.drop_duplicates("k"), loss, privacy):
                axis.annotate(str(k), point, fontsize=7, xytext=(3, 4), textcoords="offset points")
        axis.set_xlabel(label(loss))
        axis.set_ylabel(label(privacy))
        axis.set_ylim(-0.02, 1.02)
        _legend(figure, axis)
        figure.suptitle(title)
    return figure


def utility_dots(table: pd.DataFrame, by: str = "anonymizer", title: str = "") -> Figure:
    """What surrogates still tell: one panel for each measure, one dot with its interval for each anonymizer.

    Parameters
    ----------
    table : DataFrame
        ``metric value low high baseline`` and `by`, from `utility.measure_utility`.
    by : str
    title : str, optional

    Returns
    -------
    Figure
        Dotted: the same measure on the clear photos. Scales differ from panel to panel.
    """
    _check_columns(table, "metric", "value", by)
    table = table[table["value"].notna()]
    metrics, names = list(dict.fromkeys(table["metric"])), _names(table, by)
    columns = min(4, len(metrics))
    n_rows = -(-len(metrics) // columns)
    with matplotlib.rc_context(STYLE):
        figure = Figure(figsize=(2.3 * columns + 1.2, (0.75 + 0.16 * len(names)) * n_rows + 0.3))
        axes = figure.subplots(n_rows, columns, sharey=True, squeeze=False)
        for axis in axes.flat[len(metrics) :]:
            axis.axis("off")
        for axis, metric in zip(axes.flat, metrics, strict=False):
            rows = table[table["metric"] == metric]
            for position, name in enumerate(names):
                row = rows[rows[by] == name]
                style = _style(name, position)
                for one in row.itertuples():
                    low, high = getattr(one, "low", one.value), getattr(one, "high", one.value)
                    axis.plot([low, high], [position] * 2, color=style["color"], linewidth=1.2)
                    axis.plot(one.value, position, marker=style["marker"], color=style["color"], markersize=4)
            if "baseline" in rows and rows["baseline"].notna().any():
                axis.axvline(rows["baseline"].dropna().iloc[0], color="black", linewidth=0.8, linestyle=":")
            axis.set_title(label(metric), fontsize=8)
            axis.tick_params(axis="x", labelsize=7)
            axis.set_yticks(range(len(names)), [label(name) for name in names], fontsize=8)
        axes[0, 0].set_ylim(len(names) - 0.5, -0.5)
        figure.suptitle(title)
    return figure


def partition_bars(stats: pd.DataFrame, by: str = "partitioner", title: str = "") -> Figure:
    """Compare partitions by the distances inside their clusters, as in the paper's clustering figures.

    Parameters
    ----------
    stats : DataFrame
        One row a cluster: the columns of `partitioning.cluster_stats`, and `by` that says whose it is.
    by : str, default "partitioner"
    title : str, optional

    Returns
    -------
    Figure
        A panel each for the largest, smallest and mean distance in a cluster and the silhouette; a bar is the
        mean over the clusters, its whisker spans the middle half of them.
    """
    measures = {"max_dist": "Largest distance", "min_dist": "Smallest distance", "mean_dist": "Mean distance"}
    measures["mean_silhouette"] = "Silhouette"
    names = list(dict.fromkeys(stats[by]))
    with matplotlib.rc_context(STYLE):
        figure = Figure(figsize=(11, 0.22 * len(names) + 1.1))
        for position, (axis, (column, text)) in enumerate(
            zip(figure.subplots(1, 4, sharey=True), measures.items(), strict=True)
        ):
            groups = [stats.loc[stats[by] == name, column].dropna() for name in names]
            means = np.array([group.mean() for group in groups])
            low, high = (np.array([group.quantile(q) for group in groups]) for q in (0.25, 0.75))
            whiskers = np.maximum([means - low, high - means], 0)
            colours = [BASELINE_GREY if name == "random" else COLOURS[position] for name in names]
            axis.barh(
                range(len(names)),
                means,
                xerr=whiskers,
                color=colours,
                height=0.7,
                error_kw={"linewidth": 0.7},
            )
            axis.set_xlabel(text)
            axis.grid(visible=False, axis="y")
        figure.axes[0].set_yticks(range(len(names)), [label(name) for name in names])
        figure.axes[0].invert_yaxis()
        figure.suptitle(title)
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
        Written under the leaves, for up to 60 of them.
    """
    n_leaves = len(linkage) + 1
    with matplotlib.rc_context(STYLE):
        figure = Figure(figsize=(11, 3.2))
        axis = figure.subplots()
        hierarchy.dendrogram(
            linkage, ax=axis, labels=names, no_labels=names is None or n_leaves > 60, color_threshold=0,
            above_threshold_color=COLOURS[0], leaf_font_size=7, leaf_rotation=90,
        )  # fmt: skip
        if cut is not None:
            axis.axhline(cut, color=COLOURS[1], linewidth=1.0, label=f"cut at {cut:.2f}")
            _legend(figure, axis)
        axis.set_ylabel("Height of the merge")
        axis.grid(visible=False)
    return figure


def cluster_map(points: np.ndarray, labels: np.ndarray, title: str = "") -> Figure:
    """Show clusters on a map: every person a dot, joined to the middle of its cluster.

    Parameters
    ----------
    points : ndarray, shape (n, 2)
        Such as the first two principal components, or t-SNE.
    labels : ndarray of int, shape (n,)
    title : str, optional
    """
    with matplotlib.rc_context({**STYLE, "axes.grid": False}):
        figure = Figure(figsize=(5.2, 4.2))
        axis = figure.subplots()
        for position, cluster in enumerate(np.unique(labels)):
            members = points[labels == cluster]
            middle, colour = members.mean(axis=0), COLOURS[position % len(COLOURS)]
            for member in members:
                axis.plot(*np.stack([middle, member]).T, color=colour, linewidth=0.7, alpha=0.6)
            axis.scatter(
                *members.T, s=14, color=colour, marker=MARKERS[position // len(COLOURS) % len(MARKERS)]
            )
        axis.set_xticks([])
        axis.set_yticks([])
        figure.suptitle(title)
    return figure


def loss_against_time(table: pd.DataFrame, loss: str = "SSE / SST", title: str = "") -> Figure:
    """Show what each partition reaches and what it takes: CPU seconds (logarithmic) against loss.

    Parameters
    ----------
    table : DataFrame
        With the columns ``partitioner``, ``seconds`` and one called `loss`.
    loss : str, default "SSE / SST"
        Share of the total sum of squares that is left inside the clusters; lower is better.
    title : str, optional
    """
    with matplotlib.rc_context(STYLE):
        figure = Figure(figsize=(6.5, 3.8))
        axis = figure.subplots()
        for position, row in enumerate(table.to_dict("records")):
            style = _style(row["partitioner"], position)
            axis.plot(
                row["seconds"],
                row[loss],
                **{**style, "linestyle": "", "markersize": 6},
                label=label(row["partitioner"]),
            )
        axis.set_xscale("log")
        axis.set_xlabel("CPU seconds")
        axis.set_ylabel(loss)
        _legend(figure, axis)
        figure.suptitle(title)
    return figure


def contact_sheet(
    images: Sequence[np.ndarray], titles: Sequence[str] | None = None, columns: int = 10
) -> Figure:
    """Show images in a grid.

    Parameters
    ----------
    images : sequence of uint8 arrays (h, w, 3)
    titles : sequence of str, optional
    columns : int, default 10
    """
    rows = [list(images[start : start + columns]) for start in range(0, len(images), columns)]
    named = None
    if titles is not None:
        named = [list(titles[start : start + columns]) for start in range(0, len(titles), columns)]
    return image_grid(rows, named)


def image_grid(
    rows: Sequence[Sequence[np.ndarray | None]],
    titles: Sequence[Sequence[str]] | None = None,
    row_labels: Sequence[str] | None = None,
) -> Figure:
    """Show rows of images; None leaves a gap.

    Parameters
    ----------
    rows : sequence of sequences of uint8 arrays (h, w, 3)
    titles : the same shape of str, optional
        Written over the images.
    row_labels : sequence of str, optional
        Written left of the rows.
    """
    shown = [image for row in rows for image in row if image is not None]
    if not shown:
        raise ValueError("there is no image to show")
    n_columns = max(map(len, rows))
    aspect = float(np.median([image.shape[0] / image.shape[1] for image in shown]))
    room = 0.16 if titles is not None else 0.0
    margin = 0.12 * max(map(len, row_labels)) * 0.6 if row_labels else 0.0
    size = (n_columns * FACE_SIZE + margin, len(rows) * (FACE_SIZE * aspect + room))
    with matplotlib.rc_context({**STYLE, "figure.constrained_layout.use": False, "axes.grid": False}):
        figure = Figure(figsize=size)
        grid = figure.add_gridspec(
            len(rows), n_columns, left=margin / size[0], right=1, bottom=0, top=1 - room / size[1],
            wspace=0.03, hspace=0.03 + room / (FACE_SIZE * aspect),
        )  # fmt: skip
        for r, row in enumerate(rows):
            for c, image in enumerate(row):
                axis = figure.add_subplot(grid[r, c])
                axis.axis("off")
                if image is not None:
                    axis.imshow(image, interpolation="lanczos")
                if titles is not None and c < len(titles[r]):
                    axis.set_title(titles[r][c], fontsize=6, pad=1.5)
                if c == 0 and row_labels:
                    axis.text(
                        -0.08,
                        0.5,
                        row_labels[r],
                        transform=axis.transAxes,
                        ha="right",
                        va="center",
                        fontsize=8,
                    )
    return figure


def clusters_with_surrogates(
    faces: Faces, model: anonymizer.Surrogates, labels: np.ndarray, clusters: Sequence[int] | None = None
) -> Figure:
    """Show clusters, one a row: the members' photos, a gap, and the surrogate they all get.

    Parameters
    ----------
    faces : Faces
    model : Surrogates
    labels : ndarray of int, shape (n,)
    clusters : sequence of int, optional
        Which clusters; the first six by default.
    """
    clusters = range(min(6, int(labels.max()) + 1)) if clusters is None else clusters
    members = [np.flatnonzero(labels == cluster) for cluster in clusters]
    widest = max(map(len, members))
    rows = [
        [*(faces.images[i] for i in rows), *([None] * (widest - len(rows))), None, model.surrogate(rows)]
        for rows in members
    ]
    return image_grid(rows, row_labels=[f"cluster {cluster}" for cluster in clusters])


def people_and_surrogates(
    faces: Faces, model: anonymizer.Surrogates, labels_by_k: Mapping[int, np.ndarray], rows: Sequence[int]
) -> Figure:
    """Show some photos, and under each the surrogates that stand for it at several k.

    Parameters
    ----------
    faces : Faces
    model : Surrogates
    labels_by_k : mapping of int to ndarray (n,)
        For each k the cluster of every photo.
    rows : sequence of int
        The photos to show.
    """
    sheet = [[faces.images[i] for i in rows]]
    for labels in labels_by_k.values():
        sheet.append([model.surrogate(np.flatnonzero(labels == labels[i])) for i in rows])
    return image_grid(sheet, row_labels=["photo", *(f"k = {k}" for k in labels_by_k)])


def style_mixing(sources: np.ndarray, destinations: np.ndarray, mixed: np.ndarray) -> Figure:
    """Show style mixing: sources on top, destinations at the left, and where they meet the mixture.

    Karras, Laine and Aila, "A style-based generator architecture for generative adversarial networks", CVPR 2019,
    figure 3.

    Parameters
    ----------
    sources : ndarray of uint8, shape (s, h, w, 3)
    destinations : ndarray of uint8, shape (d, h, w, 3)
    mixed : ndarray of uint8, shape (d, s, h, w, 3)
        From `stylegan.mixing.mixing_pictures`.
    """
    if mixed.shape[:2] != (len(destinations), len(sources)):
        raise ValueError(
            f"{len(destinations)} destinations and {len(sources)} sources need as many rows and columns of mixtures, "
            f"not {mixed.shape[:2]}"
        )
    rows = [[None, *sources], *([d, *row] for d, row in zip(destinations, mixed, strict=True))]
    return image_grid(rows)


#: Fills of the chart's boxes: pale enough for black text and a grey printer, far apart in lightness or hue.
CHART_FILLS = {"in": "#DCEBF7", "method": "#FFFFFF", "judge": "#FBE3D0", "out": "#E4E4E4"}

#: Boxes of the chart: column, row (from the top), columns spanned, kind, what it is, where it is, in a few words.
CHART_BOXES = {
    "descriptors": (2, 0, 1, "in", "Own descriptors", "encoding_data/", ".npz .npy .csv .pickle"),
    "networks": (4, 0, 1, "method", "Networks", "CNN/  stylegan/", "bundled, trained, brought"),
    "photos": (0, 1, 1, "in", "Photos", "datasets/", "ORL, folder,\nRaFD, CelebA"),
    "detection": (1, 1, 1, "method", "Detection", "detection.py", "box, 68 landmarks,\naligned crop"),
    "embedding": (2, 1, 1, "method", "Embedding", "embedding.py", "one row of numbers\na face"),
    "partitioning": (3, 1, 1, "method", "Partitioning", "partitioning.py", "clusters of k people,\nall of one size"),
    "anonymizer": (4, 1, 1, "method", "Anonymizer", "anonymizer/", "one surrogate face\na cluster"),
    "release": (5, 1, 1, "out", "Release", "release.py", "random names,\nledger apart, audit"),
    "gallery": (0, 2, 1, "in", "Gallery", "faces.others", "what an adversary\nholds"),
    "attacks": (2, 2, 1, "judge", "Attacks", "attacks.py", "search, parrot,\nreversal, insider"),
    "utility": (3, 2, 1, "judge", "Utility", "utility.py", "age, sex, pose,\nlikeness, FID"),
    "measures": (4, 2, 1, "judge", "Distances", "evaluation.py", "IL, RI, rank 1,\nover every k"),
    "tuning": (5, 2, 1, "judge", "Tuning", "tuning.py", "least loss that keeps\na privacy bound"),
    "notebooks": (0, 3, 2, "method", "Notebooks run it all", "*.ipynb", "experiments, partitions, figures"),
    "recognisers": (2, 3, 1, "judge", "Recognisers", "recognisers/", "apart from the one\nthat clusters"),
    "appearance": (3, 3, 1, "judge", "Appearance", "appearance.py", "what networks read\nin a face"),
    "tables": (4, 3, 1, "out", "Tables", "outputs/*.csv", "one row a\ncombination"),
    "figures": (5, 3, 1, "out", "Figures, explorer", "vizualization.py", "PNG, PDF,\na panel, a page"),
}  # fmt: skip

#: A frame around the boxes of one task: first and last column, row, its title.
CHART_FRAME = (2, 4, 2, "Evaluation: originals against surrogates")

#: Arrows of the chart: from a box, to a box; "frame" is the frame.
CHART_ARROWS = [
    ("photos", "detection"), ("detection", "embedding"), ("descriptors", "embedding"), ("embedding", "partitioning"),
    ("partitioning", "anonymizer"), ("networks", "anonymizer"), ("anonymizer", "release"), ("photos", "gallery"),
    ("gallery", "frame"), ("anonymizer", "frame"), ("recognisers", "attacks"), ("appearance", "utility"),
    ("measures", "tables"), ("frame", "tuning"), ("tuning", "anonymizer"), ("tables", "figures"),
]  # fmt: skip

#: Inches: a box, the room between two of them, and the margin.
CHART_BOX = (1.42, 0.82)
CHART_GAP = (0.32, 0.44)
CHART_MARGIN = 0.12


def _chart_rectangle(name: str) -> tuple[float, float, float, float]:
    """Left, bottom, right and top of a box of the chart, or of the frame, in inches."""
    if name == "frame":
        first, last, row, _ = CHART_FRAME
        left, bottom, _, top = _grid_rectangle(first, row, last - first + 1)
        pad = 0.1
        return left - pad, bottom - pad, _grid_rectangle(last, row, 1)[2] + pad, top + 0.26
    return _grid_rectangle(*CHART_BOXES[name][:3])


def _grid_rectangle(column: int, row: int, span: int) -> tuple[float, float, float, float]:
    n_rows = 1 + max(box[1] for box in CHART_BOXES.values())
    (width, height), (gap, line) = CHART_BOX, CHART_GAP
    left = CHART_MARGIN + column * (width + gap)
    bottom = CHART_MARGIN + (n_rows - 1 - row) * (height + line)
    return left, bottom, left + span * width + (span - 1) * gap, bottom + height


def _chart_ends(start: str, end: str) -> tuple[tuple[float, float], tuple[float, float]]:
    """Where an arrow leaves one box and meets another: sides that face each other, or corners."""
    (l0, b0, r0, t0), (l1, b1, r1, t1) = _chart_rectangle(start), _chart_rectangle(end)
    low, high = max(b0, b1), min(t0, t1)
    if low < high:  # side by side
        middle = (low + high) / 2
        return ((r0, middle), (l1, middle)) if r0 <= l1 else ((l0, middle), (r1, middle))
    inner, outer = max(l0, l1), min(r0, r1)
    if inner < outer:  # one above the other
        middle = (inner + outer) / 2
        return ((middle, b0), (middle, t1)) if b0 >= t1 else ((middle, t0), (middle, b1))
    return ((l0 if l0 > r1 else r0), t0 if b1 > t0 else b0), ((r1 if l0 > r1 else l1), b1 if b1 > t0 else t1)


def system_architecture() -> Figure:
    """Draw the whole suite as a flow chart: from photos to a release, and how it is judged.

    Returns
    -------
    Figure
        Every box names the module or folder that does it. Blue comes in, white works, orange judges, grey goes out;
        nothing is told by colour alone.
    """
    rectangles = {name: _chart_rectangle(name) for name in (*CHART_BOXES, "frame")}
    width, height = (max(r[i] for r in rectangles.values()) + CHART_MARGIN for i in (2, 3))
    with matplotlib.rc_context({**STYLE, "figure.constrained_layout.use": False, "axes.grid": False}):
        figure = Figure(figsize=(width, height))
        axis = figure.add_axes((0, 0, 1, 1), xlim=(0, width), ylim=(0, height))
        axis.axis("off")
        left, bottom, right, top = rectangles["frame"]
        axis.add_patch(
            Rectangle((left, bottom), right - left, top - bottom, fill=False, linestyle="--", linewidth=0.9)
        )
        axis.text(left + 0.08, top - 0.05, CHART_FRAME[3], fontsize=8, style="italic", va="top")
        for name, (*_, kind, title, place, words) in CHART_BOXES.items():
            left, bottom, right, top = rectangles[name]
            axis.add_patch(
                FancyBboxPatch(
                    (left, bottom), right - left, top - bottom,
                    boxstyle="round,pad=0,rounding_size=0.06", facecolor=CHART_FILLS[kind], linewidth=0.9,
                )
            )  # fmt: skip
            middle = (left + right) / 2
            axis.text(middle, top - 0.05, title, fontsize=8.5, weight="bold", ha="center", va="top")
            axis.text(middle, top - 0.22, place, fontsize=7.5, family="monospace", ha="center", va="top")
            axis.text(middle, bottom + 0.23, words, fontsize=7.5, ha="center", va="center", linespacing=1.1)
        for start, end in CHART_ARROWS:
            tail, head = _chart_ends(start, end)
            arrow = FancyArrowPatch(
                tail,
                head,
                arrowstyle="-|>",
                mutation_scale=9,
                shrinkA=0,
                shrinkB=0,
                linewidth=1.1,
                color="black",
            )
            axis.add_patch(arrow)
    return figure


def mixing(
    faces: Faces, models: Sequence[anonymizer.Surrogates], clusters: Sequence[Sequence[int]]
) -> Figure:
    """Show members mixed into surrogates: one cluster a row, its members at the left, then one face by each generator.

    Parameters
    ----------
    faces : Faces
    models : sequence of Surrogates
        From `anonymizer.load`, made for `faces`; each gets a column, under its name in figures.
    clusters : sequence of sequences of int
        Rows of the members of each cluster.

    Raises
    ------
    ValueError
        If there is no model or no cluster.
    """
    if not len(models) or not len(clusters):
        raise ValueError("a sheet of mixtures needs at least one model and one cluster")
    widest, gap, room = max(map(len, clusters)), 0.35, 0.42  # inches, the latter two
    aspect = float(np.median([image.shape[0] / image.shape[1] for image in faces.images[:10]]))
    face = 1.1 * FACE_SIZE
    pitch = face * 1.06
    width = (widest + len(models)) * pitch + gap + 0.05
    height = len(clusters) * pitch * aspect + room
    with matplotlib.rc_context({**STYLE, "figure.constrained_layout.use": False, "axes.grid": False}):
        figure = Figure(figsize=(width, height))

        def show(image: np.ndarray, left: float, row: int) -> None:
            bottom = height - room - row * pitch * aspect - face * aspect
            axis = figure.add_axes((left / width, bottom / height, face / width, face * aspect / height))
            axis.axis("off")
            axis.imshow(image, interpolation="lanczos", aspect="auto")

        for row, members in enumerate(clusters):
            for position, i in enumerate(members):
                show(faces.images[i], position * pitch, row)
            for position, model in enumerate(models):
                show(model.surrogate(members), (widest + position) * pitch + gap, row)
        heads = [("members of one cluster", widest * pitch / 2)]
        heads += [
            (
                label(model.name).replace(" (", "\n(").replace("), ", ")\n"),
                (widest + position) * pitch + gap + face / 2,
            )
            for position, model in enumerate(models)
        ]
        for text, left in heads:
            figure.text(left / width, 1 - room / 2 / height, text, fontsize=7, ha="center", va="center")
    return figure
