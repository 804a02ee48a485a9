"""Read the result files that the AnonFACES authors released as data, and convert them to our table format.

They are pickled pandas frames, pickled lists of numbers, and CSV. `utils.load_pickle` reads the pickles without
executing code. This module assembles a frame from its parts, because pandas' own unpickling calls whatever a file
names.
"""

from __future__ import annotations

import io
from collections.abc import Callable, Mapping, Sequence
from pathlib import Path

import numpy as np
import pandas as pd

import checks
import utils
from storage.encodings import check_csv
from storage.pickles import PickledObject, build_array, build_dtype
from storage.reading import VALUE_BYTES, Budget, RefusedError, naming, read_file

#: Put the files here; VisualizingResults.ipynb finds them.
FOLDER = Path(__file__).resolve().parent / "outputs" / "published"

# Limit on the columns of a table.
_MAX_COLUMNS = 10_000

# The first cluster size of their tables, some of which have no column for it.
_FIRST_K = 2

# The paper's figures over k: the name of each curve in our tables -> its column of ``IL_results`` and ``RI_results``,
# or a file with the columns ``IL`` and ``FailProb``.
_FIGURES = {
    "embedding": {
        "dlib": "hier_dlib_adjust", "pca": "hier_pca_adjust", "facenet": "hier_facenet_adjust", "random": "random_clt",
    },
    "partitioner": {
        "ward": "hier_dlib_adjust", "kmeans_elki": "kmeans_dlib_adjust", "knn_max": "knn_dlib_adjust",
        "random": "random_clt",
    },
    "anonymizer": {"pixel": "k_same_k20", "aam": "aam_rafd", "cnn": "cnn_rafd", "stylegan": "stylegan_rafd"},
    "version": {  # of AnonFACES itself, as columns of ``AnonFACES_ILs`` and ``AnonFACES_RIs``
        "stylegan": "Naive", "stylegan_adjusted_published": "Weight Adjusted",
        "stylegan_random_published": "Random Weight",
    },
}  # fmt: skip

#: The figures of `figure` -> what the authors measured.
SETTINGS = {
    **dict.fromkeys(["embedding", "partitioner", "version"], "StyleGAN, 979 CelebA people"),
    "anonymizer": "67 RaFD people",
}

# Their partitions at k = 20, as strategy and method -> the name in our tables.
_PARTITIONS = {
    ("hierarchical partition", "ward"): "ward",
    ("hierarchical partition", "average"): "average",
    ("hierarchical partition", "complete"): "complete",
    ("k-means variance", "elki"): "kmeans_elki",
    ("k-means variance", "random"): "kmeans_random",
    ("k-means variance", "OTP"): "oka_published",
    ("knn variance", "k-same"): "knn_random",
    ("knn variance", "max dist"): "knn_max",
    ("knn variance", "kmember"): "kmember_published",
}


def load_frame(path: str | Path) -> pd.DataFrame:
    """Read a table without executing code from the file.

    Parameters
    ----------
    path : str or Path
        ``.csv``; or ``.pickle`` or ``.pkl`` with a pandas frame or series of numbers and text, a list of numbers, a
        list of lists or of dicts (one row each), or a dict of lists (one column each). At most 10,000 columns.

    Returns
    -------
    DataFrame

    Raises
    ------
    FileNotFoundError
        If the file does not exist.
    ValueError
        If the file is damaged, hostile, far larger in memory than on disk, or holds something else.
    """
    path = Path(path)
    if path.suffix == ".csv":
        return _read_csv(path)
    if path.suffix not in (".pickle", ".pkl"):
        raise ValueError(f"{path}: results must be .csv, .pickle or .pkl")
    content = utils.load_pickle(path, _BUILDERS)
    try:
        return _as_frame(content)
    except RefusedError as error:
        raise ValueError(f"{path}: {error}") from None
    except (TypeError, ValueError, KeyError, IndexError, AttributeError) as error:
        raise ValueError(f"{path}: holds no table of numbers ({type(error).__name__})") from error


def _read_csv(path: Path) -> pd.DataFrame:
    data = read_file(path)
    with naming(path):
        check_csv(data, _MAX_COLUMNS)
        Budget(len(data)).take(VALUE_BYTES * (data.count(b",") + data.count(b"\n")))
    try:
        return pd.read_csv(io.BytesIO(data))
    except ValueError as error:
        raise ValueError(f"{path}: is not a table of comma-separated values") from error


def _check_size(n_rows: int, n_columns: int) -> None:
    """Raise RefusedError for a table that is too large: in a pickle, few bytes can name one list many times."""
    if n_columns > _MAX_COLUMNS:
        raise RefusedError(f"its table has {n_columns} columns; at most {_MAX_COLUMNS} are read")
    Budget(0).take(
        VALUE_BYTES * n_rows * max(n_columns, 1), f"its table of {n_rows} times {n_columns} values"
    )


def _as_frame(content) -> pd.DataFrame:
    if isinstance(content, pd.DataFrame):
        return content
    if isinstance(content, pd.Series):
        return content.to_frame()
    if isinstance(content, np.ndarray):
        _check_size(len(content), content[:1].size)
        content = content.tolist()
    if isinstance(content, dict) and content:
        _check_size(max(map(len, content.values())), len(content))
        if any(isinstance(values, pd.DataFrame | dict) for values in content.values()):
            raise ValueError("a column must be a list")
        return pd.DataFrame({str(name): list(values) for name, values in content.items()})
    if not isinstance(content, list | tuple) or not content:
        raise ValueError("neither a table nor a list")
    different = {id(row): row for row in content}.values()
    if all(isinstance(row, dict) for row in different):
        _check_size(len(content), len(set().union(*different)))
        return pd.DataFrame(list(content))
    if any(isinstance(row, dict | pd.DataFrame) for row in different):
        raise ValueError("a row must be a list")
    kinds = (list, tuple, np.ndarray, pd.Series)
    _check_size(len(content), max(len(row) if isinstance(row, kinds) else 1 for row in different))
    return pd.DataFrame([list(row) if isinstance(row, kinds) else [row] for row in content])


def load_results(folder: str | Path = FOLDER) -> dict[str, pd.DataFrame]:
    """Read all result files of a folder.

    Parameters
    ----------
    folder : str or Path
        By default ``outputs/published``.

    Returns
    -------
    dict of str to DataFrame
        By file name without suffix. A pickle is preferred to a CSV of the same name. Empty if the folder does not
        exist.

    Raises
    ------
    ValueError
        If a file is damaged or hostile; the message names it.
    """
    folder = Path(folder)
    paths = [path for suffix in ("csv", "pickle", "pkl") for path in sorted(folder.glob(f"*.{suffix}"))]
    return {path.stem: load_frame(path) for path in paths}


def figure(results: Mapping[str, pd.DataFrame], by: str) -> pd.DataFrame:
    """Assemble the authors' curves of one of the paper's figures over k.

    Parameters
    ----------
    results : mapping of str to DataFrame
        From `load_results`.
    by : {"embedding", "partitioner", "anonymizer", "version"}
        The part that varies in the figure.

    Returns
    -------
    DataFrame
        The column `by` ("anonymizer" for versions) with the names of our tables, then ``k information_loss
        re_identification``. Curves without a file are left out, so the table can be empty.

    Raises
    ------
    ValueError
        If the figure is unknown, or the authors' two tables differ in columns or rows.
    """
    checks.check_known("figure", by, _FIGURES)
    column = "anonymizer" if by == "version" else by
    pair = ("AnonFACES_ILs", "AnonFACES_RIs") if by == "version" else ("IL_results", "RI_results")
    complete = set(pair) <= set(results)
    losses, rates = (_by_k(results[name]) if complete else pd.DataFrame() for name in pair)
    if list(losses) != list(rates) or not losses.index.equals(rates.index):
        raise ValueError(f"{pair[0]} and {pair[1]} must have the same columns and cluster sizes")
    curves = []
    for ours, theirs in _FIGURES[by].items():
        if theirs in losses:
            loss, rate = losses[theirs], rates[theirs]
        elif {"IL", "FailProb"} <= set(results.get(theirs, ())):
            table = _by_k(results[theirs])
            loss, rate = table["IL"], table["FailProb"]
        else:
            continue
        values = {"information_loss": loss.to_numpy(float), "re_identification": rate.to_numpy(float)}
        curves.append(pd.DataFrame({column: ours, "k": loss.index, **values}))
    columns = [column, "k", "information_loss", "re_identification"]
    return pd.concat(curves, ignore_index=True) if curves else pd.DataFrame(columns=columns)


def _by_k(table: pd.DataFrame) -> pd.DataFrame:
    """Return a table indexed by cluster size."""
    k = table["k"].to_numpy(int) if "k" in table else np.arange(_FIRST_K, _FIRST_K + len(table))
    return table.drop(columns="k", errors="ignore").set_axis(pd.Index(k, name="k"))


def cluster_means(results: Mapping[str, pd.DataFrame]) -> pd.DataFrame:
    """Return the authors' mean distances between surrogate and members at k = 5, one row per cluster.

    Parameters
    ----------
    results : mapping of str to DataFrame
        From `load_results`.

    Returns
    -------
    DataFrame
        ``label distance``; empty if ``avg_per_cluster_k5`` is missing.
    """
    means = results.get("avg_per_cluster_k5")
    if means is None:
        return pd.DataFrame(columns=["label", "distance"])
    return means.rename(columns={"avg_dist": "distance"})[["label", "distance"]]


def partitions(results: Mapping[str, pd.DataFrame]) -> pd.DataFrame:
    """Return the authors' statistics of clusters at k = 20, one row per cluster.

    Parameters
    ----------
    results : mapping of str to DataFrame
        From `load_results`.

    Returns
    -------
    DataFrame
        ``partitioner`` and columns of `partitioning.cluster_stats`; empty if ``df_final`` is missing. We take
        their OTP as OKA: `partitioning.VARIABLE_SIZE` has it as released, and it gives the same means.
    """
    stats = results.get("df_final")
    if stats is None:
        return pd.DataFrame(columns=["partitioner", "max_dist", "min_dist", "mean_dist", "mean_silhouette"])
    stats = stats.rename(columns=lambda name: name.replace(" ", "_"))
    pairs = zip(stats["strategy"], stats["method"], strict=True)
    stats.insert(0, "partitioner", [_PARTITIONS.get(pair, " ".join(pair)) for pair in pairs])
    return stats.drop(columns=["strategy", "method"])


# A pickled frame, part by part. pandas 0.20 to 1.2 write its manager with a state, later versions with arguments.


class _TextArray(list):
    """An array of Python objects that holds text or plain numbers, as a list."""


def _build_dtype(pickled: PickledObject) -> np.dtype | str:
    """Make the types that `storage` reads, and "object" for arrays of objects."""
    return "object" if pickled.args[:1] == ("O8",) else build_dtype(pickled)


def _build_array(pickled: PickledObject) -> np.ndarray | _TextArray:
    """Make the arrays that `storage` reads, and lists of plain values from arrays of objects."""
    match pickled.state:
        case (_, _, "object", _, values):
            plain = str | int | float | np.generic | None
            others = [v for v in values if not isinstance(v, plain)] if isinstance(values, list) else [values]
            if others:
                kind = type(others[0]).__name__
                raise RefusedError(
                    f"an array of objects must hold text or numbers, got {kind}; save it as .csv"
                )
            return _TextArray(values)
    return build_array(pickled)


def _build_strings(pickled: PickledObject) -> _TextArray:
    """Make an array of text as pandas 3 writes it: the state is (type, array of objects)."""
    return next(part for part in pickled.state if isinstance(part, _TextArray))


def _build_index(pickled: PickledObject) -> Sequence:
    """Make an index from ``cls, {"data": array, ...}`` or, for a range, ``{"start", "stop", "step"}``."""
    kind, parts = pickled.args
    if kind.name.endswith("RangeIndex"):
        return range(int(parts["start"]), int(parts["stop"]), int(parts["step"]))
    return parts["data"]


def _build_manager(pickled: PickledObject) -> tuple[list[Sequence], list]:
    """Return axes and blocks, from a state (pandas up to 1.2) or from arguments."""
    if pickled.state is not None and len(pickled.state) == 4:
        parts = pickled.state[3]["0.14.1"]
        return list(parts["axes"]), [(block["values"], block["mgr_locs"]) for block in parts["blocks"]]
    blocks, axes = pickled.args[:2]
    return list(axes), list(blocks)


def _build_frame(pickled: PickledObject) -> pd.DataFrame:
    state = pickled.state
    axes, blocks = state["_mgr"] if "_mgr" in state else state["_data"]
    names, rows = axes
    _check_size(len(rows), len(names))
    columns: dict[int, Sequence] = {}
    for values, places in blocks:
        if isinstance(places, slice):
            places = range(len(names))[places]
        if isinstance(values, _TextArray):  # one column after the other
            values = [values[i * len(rows) : (i + 1) * len(rows)] for i in range(len(places))]
        if len(values) != len(places):
            raise RefusedError("its columns do not match its header")
        columns |= {int(place): column for place, column in zip(places, values, strict=True)}
    if sorted(columns) != list(range(len(names))) or any(len(c) != len(rows) for c in columns.values()):
        raise RefusedError("its columns do not match its header")
    frame = pd.DataFrame({i: list(columns[i]) for i in range(len(names))}, index=list(rows))
    return frame.set_axis([str(name) for name in names], axis=1)


def _build_series(pickled: PickledObject) -> pd.Series:
    state = pickled.state
    (rows,), ((values, _),) = state["_mgr"] if "_mgr" in state else state["_data"]
    _check_size(len(rows), 1)
    if len(values) != len(rows):
        raise RefusedError("its values do not match its index")
    name = state.get("_name", state.get("name"))
    return pd.Series(list(values), index=list(rows), name="value" if name is None else str(name))


# Names of classes that only stand in arguments.
_NAMES_ONLY = (
    "pandas.StringDtype", "pandas.arrays.StringArray", "pandas.Index", "pandas.RangeIndex",
    "pandas.core.indexes.base.Index", "pandas.core.indexes.range.RangeIndex", "pandas.core.indexes.numeric.Int64Index",
    "pandas.core.indexes.numeric.UInt64Index", "pandas.core.indexes.numeric.Float64Index",
)  # fmt: skip

# Names in a pickled frame -> how each part is made.
_BUILDERS: dict[str, Callable[[PickledObject], object]] = {
    **dict.fromkeys(_NAMES_ONLY, lambda pickled: None),
    "pandas.core.frame.DataFrame": _build_frame,
    "pandas.DataFrame": _build_frame,
    "pandas.core.series.Series": _build_series,
    "pandas.Series": _build_series,
    "pandas.core.internals.managers.BlockManager": _build_manager,
    "pandas.core.internals.managers.SingleBlockManager": _build_manager,
    "pandas._libs.arrays.__pyx_unpickle_NDArrayBacked": _build_strings,
    "pandas.core.indexes.base._new_Index": _build_index,
    "pandas._libs.internals._unpickle_block": lambda pickled: pickled.args[:2],  # values, places
    "builtins.slice": lambda pickled: slice(*pickled.args),
    "__builtin__.slice": lambda pickled: slice(*pickled.args),
    "numpy.dtype": _build_dtype,
    "numpy.core.multiarray._reconstruct": _build_array,
    "numpy._core.multiarray._reconstruct": _build_array,
}
