"""Check descriptors, reduce rows to one point per person, and expand labels to rows."""

from __future__ import annotations

import contextlib
import functools
import inspect
from collections.abc import Callable, Sequence
from dataclasses import dataclass

import numpy as np
import pandas as pd
from numpy.typing import ArrayLike

import utils
from checks import ParameterError, check_number
from distances import mean_of_groups

Seed = int | np.random.Generator | None


@dataclass(frozen=True)
class People:
    """One point per person, and the mapping from rows to people.

    Attributes
    ----------
    descriptors : array (n, d), float32 or float64
        The caller's own array if rows are people.
    cluster_size : int
    sizes : int64 array (n // cluster_size,)
        Sizes of the clusters, the larger ones first.
    row_person : int64 array (rows,)
        The person of each row.
    """

    descriptors: np.ndarray
    cluster_size: int
    sizes: np.ndarray
    row_person: np.ndarray

    def __len__(self) -> int:
        return len(self.descriptors)

    @functools.cached_property
    def points(self) -> np.ndarray:
        """Copy of the descriptors (n, d), centred and scaled to absolute values up to 1: no square overflows."""
        kind = self.descriptors.dtype.type
        scale = float(max(self.descriptors.max(), -self.descriptors.min())) or 1.0
        centred = self.descriptors / kind(scale)
        centred -= centred.mean(axis=0, dtype=np.float64).astype(kind)
        spread = float(max(centred.max(), -centred.min())) or 1.0
        centred /= kind(spread)
        return centred


def on_people(algorithm: Callable[..., np.ndarray]) -> Callable[..., np.ndarray]:
    """Make a partition of rows from ``algorithm(people, random_state, **options) -> labels of people``.

    The partition has the parameters that all partitions share, described in `partitioning.hierarchical_partition`, and
    the algorithm's options.
    """

    def partition(
        X: ArrayLike,
        cluster_size: int,
        *arguments,
        identities: Sequence | None = None,
        random_state: Seed = None,
        normalise: bool = False,
        **options,
    ) -> np.ndarray:
        people = _gather(X, cluster_size, identities, normalise)
        labels = algorithm(people, random_state, *arguments, **options)
        return pd.factorize(labels[people.row_person])[0]  # numbered in the order of the rows

    # Show all parameters in `help` and in editors, the positional ones first.
    shared = inspect.signature(partition).parameters.values()
    own = [*inspect.signature(algorithm).parameters.values()][2:]
    named = [parameter for parameter in (*shared, *own) if not parameter.kind.name.startswith("VAR")]
    functools.update_wrapper(partition, algorithm)
    named.sort(key=lambda parameter: parameter.kind)
    partition.__signature__ = inspect.Signature(named, return_annotation="np.ndarray")
    return partition


def _gather(X: ArrayLike, cluster_size: int, identities: Sequence | None, normalise: bool) -> People:
    """Check the arguments of a partition, and reduce the rows to people."""
    points = check_descriptors(X)
    row_person = number_people(identities, len(points))
    people = int(row_person.max()) + 1
    sizes = cluster_sizes(people, cluster_size)
    points = _unit_rows(points) if normalise else points
    if people < len(points):
        points = mean_of_groups(points, row_person, people)
        points = _unit_rows(points) if normalise else points
    return People(points, int(cluster_size), sizes, row_person)


def check_descriptors(X: ArrayLike) -> np.ndarray:
    """Return X as a finite float32 or float64 array (n, d) of at least 2 rows; float32 is not copied."""
    array = np.asarray(X)
    if array.dtype == object:
        with contextlib.suppress(TypeError, ValueError):
            array = array.astype(np.float64)
    if array.dtype.kind not in "fiu" or array.ndim != 2 or array.shape[0] < 2 or array.shape[1] == 0:
        raise ParameterError(
            "X must be an array (n, d) of real numbers with at least 2 rows and 1 column, "
            f"got {array.dtype} of shape {array.shape}"
        )
    if array.dtype not in (np.float32, np.float64):
        array = array.astype(np.float32 if array.dtype == np.float16 else np.float64)
    with np.errstate(over="ignore", invalid="ignore"):
        finite = np.isfinite(array.sum())  # a finite sum makes a mask of X's size unnecessary
    if not finite and not np.isfinite(array).all():
        row = int(np.flatnonzero(~np.isfinite(array).all(axis=1))[0])
        raise ParameterError(f"X must be finite, got NaN or infinity in row {row}; drop or repair such rows")
    return array


def number_people(identities: Sequence | None, rows: int) -> np.ndarray:
    """Number people in the order in which they first appear, int64 (rows,); without identities each row is a person.

    Names that look the same are one person: see `utils.tidy_name`.
    """
    if identities is None:
        return np.arange(rows)
    identities = [utils.tidy_name(str(one)) if isinstance(one, str) else one for one in identities]
    numbers = number_values("identities", identities, rows)
    if (numbers < 0).any():
        raise ParameterError("identities must name a person for every row, got a missing value")
    return numbers


def number_values(name: str, values: Sequence, rows: int) -> np.ndarray:
    """Number values in the order in which they first appear, int64 (rows,); -1 for None and NaN."""
    values = pd.Series(list(values), dtype=object)
    if len(values) != rows:
        raise ParameterError(f"{name} must have one value per row, got {len(values)} values for {rows} rows")
    try:
        return pd.factorize(values)[0]
    except TypeError:
        raise ParameterError(f"{name} must be a list of strings or numbers") from None


def cluster_sizes(people: int, cluster_size: int) -> np.ndarray:
    """Sizes of a fixed-size partition: ``people // cluster_size`` integers that differ by at most one.

    Returns an int64 array, the larger sizes first; its sum is `people`. Raises ValueError or TypeError if
    `cluster_size` is not an integer of 2 to `people`.
    """
    check_number("cluster_size", cluster_size, int, at_least=2)
    if cluster_size > people:
        raise ParameterError(
            f"cluster_size must be at most the number of people, {people}, got {cluster_size}"
        )
    clusters = people // cluster_size
    sizes = np.full(clusters, people // clusters, dtype=np.int64)
    sizes[: people % clusters] += 1
    return sizes


def _unit_rows(points: np.ndarray) -> np.ndarray:
    """Scale every row (n, d) to length 1, without overflow; ValueError for a row of zeros."""
    scaled = points / np.maximum(np.abs(points).max(axis=1, keepdims=True), np.finfo(points.dtype).tiny)
    lengths = np.linalg.norm(scaled, axis=1, keepdims=True)
    if not lengths.all():
        raise ParameterError("normalise=True needs descriptors, and means of people, of non-zero length")
    return scaled / lengths
