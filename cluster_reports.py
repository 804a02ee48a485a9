"""Tables about a partition: distances and spread of each cluster, its k-anonymity, and what its images can leak."""

from __future__ import annotations

import math
from collections.abc import Mapping, Sequence

import numpy as np
import pandas as pd
import scipy
from numpy.typing import ArrayLike

from checks import ParameterError, check_number
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
        between the shares in the cluster and among all rows). Further columns: `name_entropy` (the cluster has entropy
        l-diversity for l up to this effective number of values, exp of the entropy), `name_recursive` (recursive
        (c, l)-diversity for every c above this, with l the least `name_values` of all clusters; NaN for l = 1),
        `name_beta` (basic beta-likeness: largest relative rise of a share over that among all rows) and `name_delta`
        (delta-disclosure: largest absolute logarithm of the ratio of both shares, over the values in the cluster). The
        partition is k-anonymous for k up to ``table["people"].min()``; 1-diversity in sex means
        ``table["sex_values"].min() == 1``; the least entropy and the largest value of the others hold for all clusters.

    Raises
    ------
    ValueError
        If lengths differ, or a person's rows are in more than one cluster: releasing both surrogates would reveal
        who is in both.

    Notes
    -----
    Sources: L. Sweeney, "k-anonymity" (2002); A. Machanavajjhala et al., "l-diversity" (2007);
    N. Li et al., "t-closeness" (2007); J. Cao and P. Karras, "Publishing microdata with a robust privacy guarantee"
    (2012, beta-likeness); J. Brickell and V. Shmatikov, "The cost of privacy" (2008, delta-disclosure). pyCANON 1.3.6
    gives the same values, entropy rounded down to an integer; its recursive (c, l)-diversity starts from the least
    frequent value, while the paper and this table start from the most frequent. Attribute counts are over rows.
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
        report = report.join(_diversity(counts, shares, shares / overall).add_prefix(f"{name}_"))
    return report.rename_axis("label").reset_index()


def _diversity(counts: pd.DataFrame, shares: pd.DataFrame, ratios: pd.DataFrame) -> pd.DataFrame:
    """Entropy, recursive diversity, beta and delta of each cluster (row) from the counts of each value (column)."""
    known = shares.notna().all(axis=1)  # a cluster without known values has none of them
    entropy = np.exp(scipy.special.entr(shares).sum(axis=1)).where(known)
    ordered = -np.sort(-counts.to_numpy(), axis=1)  # the most frequent value first
    least = int((counts > 0).sum(axis=1).min()) if counts.size else 0
    rest = ordered[:, max(least - 1, 0) :].sum(axis=1)
    recursive = ordered[:, 0] / rest if least > 1 else np.full(len(counts), np.nan)
    logs = np.log(ratios.where(ratios > 0)).abs()
    columns = {
        "entropy": entropy,
        "recursive": recursive,
        "beta": ratios.max(axis=1) - 1,
        "delta": logs.max(axis=1),
    }
    return pd.DataFrame(columns, index=counts.index)


def leakage_bounds(n_people: int, *n_images: int) -> dict[str, float]:
    """Bound what anyone can learn from which shared image a person got, whatever their recogniser.

    A shared release maps each of n people to one of m images. An attacker who sees the image of a person drawn at
    random names them with a probability of at most m / n, and reaches it if the clusters are known (posterior Bayes
    vulnerability). The release leaks at most log2 m bits, and for no prior knowledge does the chance of naming the
    person rise by more than the factor m (Alvim, Chatzikokolakis, Palamidessi and Smith, "Measuring information
    leakage using generalized gain functions", CSF 2012). Releases of the same people multiply: once m1 * m2 >= n, two
    of them may tell all people apart, and the bounds promise nothing.

    Parameters
    ----------
    n_people : int
        At least 1.
    *n_images : int
        Number of distinct images of each release of these people; each at least 1 and at most `n_people`.

    Returns
    -------
    dict
        ``n_people``, ``n_images`` (distinguishable outcomes: the product, at most n), ``vulnerability``,
        ``leakage_bits`` and ``greatest_gain``.

    Examples
    --------
    >>> leakage_bounds(40, 8)
    {'n_people': 40, 'n_images': 8, 'vulnerability': 0.2, 'leakage_bits': 3.0, 'greatest_gain': 8}
    >>> leakage_bounds(40, 8, 6)["vulnerability"]
    1.0
    """
    check_number("n_people", n_people, int, at_least=1)
    for m in n_images:
        check_number("each of n_images", m, int, at_least=1, at_most=n_people)
    outcomes = min(math.prod(int(m) for m in n_images), int(n_people))
    return {
        "n_people": int(n_people),
        "n_images": outcomes,
        "vulnerability": outcomes / n_people,
        "leakage_bits": math.log2(outcomes),
        "greatest_gain": outcomes,
    }
