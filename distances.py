"""Distances and means of points, with memory and rounding under control."""

from __future__ import annotations

import numpy as np


def squared_lengths(vectors: np.ndarray) -> np.ndarray:
    """Squared Euclidean lengths along the last axis, (..., d) -> (...)."""
    return np.einsum("...i,...i->...", vectors, vectors)


def squared_distances(a: np.ndarray, b: np.ndarray) -> np.ndarray:
    """Squared Euclidean distances between rows, (n, d) and (m, d) -> (n, m), by one matrix product."""
    squares = -2.0 * (a @ b.T)
    squares += squared_lengths(a)[:, None]
    squares += squared_lengths(b)[None, :]
    return np.maximum(squares, 0.0, out=squares)


def mean_of_groups(points: np.ndarray, group: np.ndarray, groups: int) -> np.ndarray:
    """Mean of the points (n, d) of each group, (groups, d), summed in float64 one column at a time."""
    counts = np.bincount(group, minlength=groups)
    means = np.empty((groups, points.shape[1]), dtype=points.dtype)
    for axis in range(points.shape[1]):
        means[:, axis] = np.bincount(group, points[:, axis], groups) / counts
    return means


def nearest_columns(squares: np.ndarray, count: int) -> np.ndarray:
    """Columns of each row's `count` smallest values, in no order, (n, count) or fewer."""
    count = min(count, squares.shape[1])
    return np.argpartition(squares, count - 1, axis=1)[:, :count]
