"""Tables about a partition: distances and spread of each cluster, and its k-anonymity."""

from __future__ import annotations

from collections.abc import Mapping, Sequence

import numpy as np
import pandas as pd
import scipy
from numpy.typing import ArrayLike

from checks import ParameterError
from people import check_descriptors, number_people, number_values


def _check_labels(labels: ArrayLike, rows: int) -> np.ndarray:
    """Labels of any kind, one per row."""
    labels = np.asarray(labels)
    if labels.shape != (rows,) or rows == 0:
        raise ParameterError(f"labels must be one label per row, {rows} rows, got shape {labels.shape}")
    return labels


def cluster_stats(X: ArrayLike, labels: ArrayLike, *, silhouette_rows: int = 20_000) -> pd.DataFrame:
    """Describe every cluster: its size, the distances between its members, silhouette, SSE.

    Parameters
    ----------
    X : array (n, d) of descriptors
        One row per member (a person's mean if people have several photos).
    labels : array (n,)
        The cluster of each row.
    silhouette_rows : int, default 20,000
        Silhouettes need all n^2 distances; they are NaN for more rows than this.

    Returns
    -------
    pandas.DataFrame
        One row per cluster in the order of the labels:

        - label: the cluster's label
        - size: number of rows with it
        - min_dist, max_dist, mean_dist: smallest, largest and mean Euclidean distance *between two different
          members* of the cluster, over its size (size - 1) / 2 pairs; 0 for a cluster of one
        - mean_silhouette: mean over its members of (b - a) / max(a, b), a the mean distance to the other
          members, b the smallest mean distance to another cluster's members (Rousseeuw 1987), -1 .. 1; 0 for a
          cluster of one and NaN if there is only one cluster
        - sse: sum of the members' squared distances *to the cluster's mean*, in float64
    """
    X = check_descriptors(X)
    names, number = np.unique(_check_labels(labels, len(X)), return_inverse=True)
    silhouettes = _silhouettes(X, number) if len(X) <= silhouette_rows else np.full(len(X), np.nan)
    order = np.argsort(number, kind="stable")
    rows = []
    for name, members in zip(names, np.split(order, np.cumsum(np.bincount(number))[:-1]), strict=True):
        points = X[members].astype(np.float64)
        distances = scipy.spatial.distance.pdist(points) if len(points) > 1 else np.zeros(1)
        rows.append(
            {
                "label": name,
                "size": len(members),
                "min_dist": distances.min(),
                "max_dist": distances.max(),
                "mean_dist": distances.mean(),
                "mean_silhouette": silhouettes[members].mean(),
                "sse": float(((points - points.mean(axis=0)) ** 2).sum()),
            }
        )
    return pd.DataFrame(rows)


def _silhouettes(X: np.ndarray, number: np.ndarray) -> np.ndarray:
    """Silhouette of each row, (n,)."""
    clusters = int(number.max()) + 1
    if clusters == 1:
        return np.full(len(X), np.nan)
    if clusters == len(X):
        return np.zeros(len(X))
    from sklearn.metrics import silhouette_samples  # slow to import, and only needed here

    return silhouette_samples(X, number)


def within_cluster_sse(X: ArrayLike, labels: ArrayLike) -> float:
    """Sum over all rows of the squared distance to the mean of the row's cluster, in float64."""
    X = check_descriptors(X)
    _, number = np.unique(_check_labels(labels, len(X)), return_inverse=True)
    counts = np.bincount(number)
    total = 0.0
    for axis in range(X.shape[1]):  # one column at a time, so that no float64 copy of X is needed
        column = X[:, axis].astype(np.float64)
        total += ((column - (np.bincount(number, column) / counts)[number]) ** 2).sum()
    return float(total)


def anonymity_report(
    labels: ArrayLike, identities: Sequence | None = None, attributes: Mapping[str, Sequence] | None = None
) -> pd.DataFrame:
    """Check k-anonymity: count the rows, people and attribute values in every cluster.

    Parameters
    ----------
    labels : array (n,)
        The cluster of each row.
    identities : sequence (n,), optional
        The person of each row; without it every row is a different person.
    attributes : mapping of a name to one value per row, optional
        Attributes such as sex, ethnicity, age group. Missing values (None or NaN) count as no value.

    Returns
    -------
    pandas.DataFrame
        One row per cluster in the order of the labels: label, rows, people (different identities), and for each
        attribute `name` the columns `name_values` (distinct l-diversity: number of different known values),
        `name_share` (share of the most frequent value among the known; 1 means that being in the cluster reveals the
        attribute) and `name_distance` (t-closeness by total variation, 0 .. 1: half the summed absolute differences
        between the shares in the cluster and among all rows). The partition is k-anonymous for k up to
        ``table["people"].min()``; 1-diversity in sex means ``table["sex_values"].min() == 1``.

    Raises
    ------
    ValueError
        If lengths differ, or a person's rows are in more than one cluster: releasing both surrogates would reveal
        who is in both.

    Notes
    -----
    Sources: L. Sweeney, "k-anonymity" (2002); A. Machanavajjhala et al., "l-diversity" (2007);
    N. Li et al., "t-closeness" (2007). Attribute counts are over rows.
    """
    labels = _check_labels(labels, len(labels))
    table = pd.DataFrame({"label": labels, "person": number_people(identities, len(labels))})
    split = int((table.groupby("person")["label"].nunique() > 1).sum())
    if split:
        raise ParameterError(
            f"{split} people have photos in more than one cluster; pass `identities` to the partition, so that a "
            "person gets one label"
        )
    clusters = table.groupby("label")
    report = pd.DataFrame({"rows": clusters.size(), "people": clusters["person"].nunique()})
    for name, values in (attributes or {}).items():
        codes = pd.Series(number_values(f"attribute {name!r}", values, len(labels)))
        counts = pd.crosstab(pd.Series(labels), codes.where(codes >= 0)).reindex(report.index, fill_value=0)
        shares = counts.div(counts.sum(axis=1), axis=0)
        overall = counts.sum() / counts.to_numpy().sum() if counts.size else counts.sum()
        report[f"{name}_values"] = (counts > 0).sum(axis=1).astype(np.int64)
        report[f"{name}_share"] = shares.max(axis=1)
        report[f"{name}_distance"] = (shares - overall).abs().sum(axis=1, min_count=1) / 2
    return report.rename_axis("label").reset_index()
