"""The result files that the AnonFACES authors released: read as data, brought into the form of our own tables.

They are pickled pandas frames, pickled lists of numbers, and CSV. Pickles go through `utils.load_pickle`, which runs
nothing; what a frame is made of is put together here from its parts, so that pandas' own unpickling, which calls
whatever a file names, is never used.
"""

from __future__ import annotations

from collections.abc import Callable, Mapping
from pathlib import Path

import numpy as np
import pandas as pd

import utils
from utils import PickledObject

#: Where a user puts the files, for VisualizingResults.ipynb to find them.
FOLDER = Path(__file__).resolve().parent / "outputs" / "published"

#: The first cluster size of their tables, which do not all have a column for it.
FIRST_K = 2


def load_frame(path: str | Path) -> pd.DataFrame:
    """Read a table, without running code from the file.

    Parameters
    ----------
    path : str or Path
        ``.csv``; or ``.pickle`` or ``.pkl`` with a pandas frame of numbers and text, a list of numbers, a list of lists
        (a row each), a list of dicts (a row each) or a dict of lists (a column each).

    Returns
    -------
    DataFrame

    Raises
    ------
    FileNotFoundError
        If there is no such file.
    ValueError
        If it is damaged, hostile, or holds something else.
    """
    path = Path(path)
    if path.suffix == ".csv":
        if not path.is_file():
            raise FileNotFoundError(f"{path}: there is no such table")
        try:
            return pd.read_csv(path)
        except (ValueError, UnicodeDecodeError) as error:
            raise ValueError(f"{path}: is no table of comma-separated values") from error
    if path.suffix not in (".pickle", ".pkl"):
        raise ValueError(f"{path}: results are read from .csv, .pickle and .pkl")
    content = utils.load_pickle(path, _BUILDERS)
    try:
        return _as_frame(content)
    except (TypeError, ValueError, KeyError, IndexError, AttributeError) as error:
        raise ValueError(f"{path}: holds no table of numbers ({type(error).__name__})") from error


def _as_frame(content) -> pd.DataFrame:
    if isinstance(content, pd.DataFrame):
        return content
    if isinstance(content, np.ndarray):
        content = content.tolist()
    if isinstance(content, dict) and content:
        return pd.DataFrame({str(name): list(values) for name, values in content.items()})
    if isinstance(content, list | tuple) and content:
        if all(isinstance(row, dict) for row in content):
            return pd.DataFrame(list(content))
        rows = [list(row) if isinstance(row, list | tuple | np.ndarray) else [row] for row in content]
        return pd.DataFrame(rows)
    raise ValueError("neither a table nor a list")


def load_results(folder: str | Path = FOLDER) -> dict[str, pd.DataFrame]:
    """Read all result files of a folder.

    Parameters
    ----------
    folder : str or Path
        By default ``outputs/published``.

    Returns
    -------
    dict of str to DataFrame
        By the file's name without its ending. Where a CSV and a pickle have one name, the pickle. Empty where there
        is no folder.

    Raises
    ------
    ValueError
        If a file is damaged or hostile; the message names it.
    """
    folder = Path(folder)
    if not folder.is_dir():
        return {}
    paths = sorted(folder.glob("*.csv")) + sorted([*folder.glob("*.pickle"), *folder.glob("*.pkl")])
    return {path.stem: load_frame(path) for path in paths}


#: What their columns and files are, in our words: partition, embedding, generator.
EXPERIMENTS = {
    "hier_dlib_adjust": ("ward", "dlib", "stylegan"),
    "hier_facenet_adjust": ("ward", "facenet", "stylegan"),
    "hier_pca_adjust": ("ward", "pca", "stylegan"),
    "kmeans_dlib_adjust": ("kmeans_elki", "dlib", "stylegan"),
    "knn_dlib_adjust": ("knn_max", "dlib", "stylegan"),
    "stylegan_rafd": ("ward", "dlib", "stylegan"),
    "cnn_rafd": ("ward", "dlib", "cnn"),
    "aam_rafd": ("ward", "dlib", "aam"),
}


def over_k(losses: pd.DataFrame, rates: pd.DataFrame) -> pd.DataFrame:
    """Join the authors' two tables over k into one of our form.

    Parameters
    ----------
    losses, rates : DataFrame
        One column for each experiment and the same in both, a row for each k: ``IL_results`` and ``RI_results``, or
        ``AnonFACES_ILs`` and ``AnonFACES_RIs``. Without a column ``k`` the first row is k = 2.

    Returns
    -------
    DataFrame
        ``experiment k information_loss re_identification``, and ``partitioner embedding anonymizer`` where the column
        is one of `EXPERIMENTS`.

    Raises
    ------
    ValueError
        If the tables do not have the same columns and rows.
    """
    losses, rates = _with_k(losses), _with_k(rates)
    if list(losses.columns) != list(rates.columns) or not losses.index.equals(rates.index):
        raise ValueError("the two tables must have the same columns and cluster sizes")
    parts = []
    for name in losses.columns:
        partitioner, embedding, generator = EXPERIMENTS.get(name, ("", "", ""))
        parts.append(
            pd.DataFrame(
                {
                    "experiment": name, "partitioner": partitioner, "embedding": embedding, "anonymizer": generator,
                    "k": losses.index, "information_loss": losses[name].to_numpy(dtype=float),
                    "re_identification": rates[name].to_numpy(dtype=float),
                }
            )
        )  # fmt: skip
    return pd.concat(parts, ignore_index=True)


def _with_k(table: pd.DataFrame) -> pd.DataFrame:
    table = table.copy()
    k = table.pop("k").to_numpy(dtype=int) if "k" in table else np.arange(FIRST_K, FIRST_K + len(table))
    table.index = pd.Index(k, name="k")
    return table


#: The paper's figures over k: what a curve of each is called in our tables -> the column of ``IL_results`` and
#: ``RI_results`` that shows it, or a file with the columns ``IL`` and ``FailProb``.
FIGURES: dict[str, dict[str, str]] = {
    "embedding": {
        "dlib": "hier_dlib_adjust",
        "pca": "hier_pca_adjust",
        "facenet": "hier_facenet_adjust",
        "random": "random_clt",
    },
    "partitioner": {
        "ward": "hier_dlib_adjust",
        "kmeans_elki": "kmeans_dlib_adjust",
        "knn_max": "knn_dlib_adjust",
        "random": "random_clt",
    },
    "anonymizer": {
        "pixel": "k_same_k20",
        "aam": "aam_rafd",
        "cnn": "cnn_rafd",
        "stylegan": "stylegan_rafd",
    },
}

#: The versions of AnonFACES, as in ``AnonFACES_ILs`` and ``AnonFACES_RIs``, by what they are called in our tables.
VERSIONS = {
    "stylegan": "Naive",
    "stylegan_adjusted_published": "Weight Adjusted",
    "stylegan_random_published": "Random Weight",
}

#: Their partitions (strategy, method) at k = 20, by what they are called in our tables.
PARTITIONS = {
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


def figure(results: Mapping[str, pd.DataFrame], by: str) -> pd.DataFrame:
    """Put together the authors' curves of one of the paper's figures.

    Parameters
    ----------
    results : mapping of str to DataFrame
        From `load_results`.
    by : {"embedding", "partitioner", "anonymizer", "version"}
        What varies in the figure.

    Returns
    -------
    DataFrame
        ``k information_loss re_identification`` and the column `by`, "anonymizer" for versions, with the names of our
        own tables. Curves whose files are missing are left out; so the table can be empty.
    """
    column = "anonymizer" if by == "version" else by
    if by == "version":
        curves, pair = VERSIONS, ("AnonFACES_ILs", "AnonFACES_RIs")
    elif by in FIGURES:
        curves, pair = FIGURES[by], ("IL_results", "RI_results")
    else:
        raise ValueError(f"unknown figure {by!r}; there is {', '.join(map(repr, [*FIGURES, 'version']))}")
    joined = over_k(*(results[name] for name in pair)) if set(pair) <= set(results) else None
    parts = []
    for ours, theirs in curves.items():
        part = None
        if joined is not None and (joined["experiment"] == theirs).any():
            part = joined[joined["experiment"] == theirs]
        elif theirs in results and {"IL", "FailProb"} <= set(results[theirs]):
            part = over_k(results[theirs][["IL"]], results[theirs][["FailProb"]].set_axis(["IL"], axis=1))
        if part is not None:
            parts.append(part[["k", "information_loss", "re_identification"]].assign(**{column: ours}))
    columns = [column, "k", "information_loss", "re_identification"]
    return pd.concat(parts, ignore_index=True)[columns] if parts else pd.DataFrame(columns=columns)


def cluster_means(results: Mapping[str, pd.DataFrame]) -> pd.DataFrame:
    """The authors' mean distances between surrogate and members at k = 5, a row for each cluster.

    Returns
    -------
    DataFrame
        ``label distance``, as `vizualization.cluster_means` draws it; empty where ``avg_per_cluster_k5`` is missing.
    """
    means = results.get("avg_per_cluster_k5")
    if means is None:
        return pd.DataFrame(columns=["label", "distance"])
    return means.rename(columns={"avg_dist": "distance"})[["label", "distance"]]


def partitions(results: Mapping[str, pd.DataFrame]) -> pd.DataFrame:
    """The authors' statistics of clusters at k = 20, a row for each cluster.

    Returns
    -------
    DataFrame
        ``partitioner`` and columns of `partitioning.cluster_stats`; empty where ``df_final`` is missing. What they call
        OTP is taken for OKA: `partitioning.VARIABLE_SIZE` has it as released, and it gives the same means.
    """
    stats = results.get("df_final")
    if stats is None:
        return pd.DataFrame(columns=["partitioner", "max_dist", "min_dist", "mean_dist", "mean_silhouette"])
    stats = stats.rename(columns=lambda name: name.replace(" ", "_"))
    names = [
        PARTITIONS.get(pair, " ".join(pair)) for pair in zip(stats["strategy"], stats["method"], strict=True)
    ]
    stats.insert(0, "partitioner", names)
    return stats.drop(columns=["strategy", "method"])


# A pickled frame, part by part: pandas 0.20 to 1.2 write a manager with a state, later ones with arguments


class _TextArray(list):
    """An array of Python objects that holds text or plain numbers; a list is all that is needed of it."""


def _build_dtype(pickled: PickledObject):
    """Types as `utils` reads them, and the type of object arrays as a mark."""
    if pickled.args[:1] == ("O8",):
        return "object"
    return utils._build_dtype(pickled)


def _build_array(pickled: PickledObject):
    """Arrays as `utils` reads them; those of objects as lists of plain values."""
    state = pickled.state
    if isinstance(state, tuple) and len(state) == 5 and isinstance(state[2], str) and state[2] == "object":
        values = state[4]
        if not isinstance(values, list) or not all(isinstance(v, str | int | float) for v in values):
            raise ValueError("an array of objects that are not plain")
        return _TextArray(values)
    return utils._build_array(pickled)


def _build_strings(pickled: PickledObject) -> list:
    """Arrays of text as pandas 3 writes them: the state is (type, array of objects)."""
    return next(part for part in pickled.state if isinstance(part, _TextArray))


def _build_index(pickled: PickledObject) -> list:
    """``_new_Index(cls, {"data": array, ...})`` or, for ranges, ``{"start", "stop", "step"}``, as plain values."""
    kind, parts = pickled.args
    if kind.name.endswith("RangeIndex"):
        return list(range(int(parts["start"]), int(parts["stop"]), int(parts["step"])))
    return list(parts["data"])


def _build_block(pickled: PickledObject) -> tuple:
    """``_unpickle_block(values, places, ndim)``."""
    values, places, _ = pickled.args
    return values, places


def _build_slice(pickled: PickledObject) -> slice:
    return slice(*pickled.args)


def _build_manager(pickled: PickledObject) -> tuple[list, list]:
    """Axes and blocks: from a state of pandas up to 1.2, or the arguments of later ones."""
    if pickled.state is not None and len(pickled.state) == 4:
        parts = pickled.state[3]["0.14.1"]
        return list(parts["axes"]), [(block["values"], block["mgr_locs"]) for block in parts["blocks"]]
    blocks, axes = pickled.args[:2]
    return list(axes), list(blocks)


def _build_frame(pickled: PickledObject) -> pd.DataFrame:
    state = pickled.state
    axes, blocks = state["_mgr"] if "_mgr" in state else state["_data"]
    names, rows = list(axes[0]), list(axes[1])
    columns: dict[int, list] = {}
    for values, places in blocks:
        places = (
            range(len(names))[places] if isinstance(places, slice) else [int(i) for i in np.ravel(places)]
        )
        if isinstance(values, _TextArray):  # written column by column, as `(columns, rows)`
            values = [values[i * len(rows) : (i + 1) * len(rows)] for i in range(len(places))]
        for place, column in zip(places, values, strict=True):
            columns[place] = list(column)
    if sorted(columns) != list(range(len(names))) or any(len(c) != len(rows) for c in columns.values()):
        raise ValueError("its columns do not fit its headings")
    frame = pd.DataFrame({i: columns[i] for i in range(len(names))}, index=rows)
    frame.columns = [str(name) for name in names]
    return frame


#: Names in a pickled frame -> how its parts are put together.
_BUILDERS: dict[str, Callable[[PickledObject], object]] = {
    "pandas.core.frame.DataFrame": _build_frame,
    "pandas.DataFrame": _build_frame,
    "pandas.core.internals.managers.BlockManager": _build_manager,
    "pandas._libs.arrays.__pyx_unpickle_NDArrayBacked": _build_strings,
    "pandas.StringDtype": lambda pickled: None,
    "pandas.arrays.StringArray": lambda pickled: None,
    "pandas.Index": lambda pickled: None,
    "pandas.RangeIndex": lambda pickled: None,
    "pandas.core.indexes.base._new_Index": _build_index,
    "pandas.core.indexes.base.Index": lambda pickled: None,
    "pandas.core.indexes.range.RangeIndex": lambda pickled: None,
    "pandas.core.indexes.numeric.Int64Index": lambda pickled: None,
    "pandas._libs.internals._unpickle_block": _build_block,
    "builtins.slice": _build_slice,
    "__builtin__.slice": _build_slice,
    "numpy.dtype": _build_dtype,
    "numpy.core.multiarray._reconstruct": _build_array,
    "numpy._core.multiarray._reconstruct": _build_array,
}
