"""How small the sum of squares (SSE) of a fixed-size partition can be at best.

n people form C = n // k clusters of q = n // C or q + 1 people. If i and j share a cluster of s people, let
w_ij = 1 / s, otherwise 0; let z_i = 1 / s for i's own cluster. With D_ij = |x_i - x_j|^2 and sums over pairs i < j::

    SSE = sum of w_ij D_ij                                                                              (1)
    0 <= w_ij <= 1 / q,   sum of w_ij over j = 1 - z_i,   sum of z_i = C,   1 / (q + 1) <= z_i <= 1 / q  (2)
    w_ij + w_il - w_jl <= z_i, because if i is with j and with l, then j is with l                      (3)

**Pairs.** Choose any prices u_i for people and t >= 0 for triangles (i; j, l). Let D' be D plus t on the sides ij and
il and minus t on jl, and T_i the sum of t over triangles centred at i. Adding t times (3) to (1), and then the
second equation of (2) times u_i, ::

    SSE >= sum of w_ij D'_ij - sum of T_i z_i
         = sum of u_i - sum of (u_i + T_i) z_i + sum of w_ij (D'_ij - u_i - u_j)
        >= sum of u_i - Z + 1 / q sum of min(0, D'_ij - u_i - u_j)                                      (4)

where Z is the largest possible value of the second sum: z_i = 1 / (q + 1) for as many people as the larger clusters
hold, those with the smallest u_i + T_i, and 1 / q for the others. This covers any n, a multiple of k or not. (4) holds
for all prices, so the bound does not rely on the solver that finds them: they are the dual solution of the linear
program (1) to (3) over pairs of near people, while (4) is summed over all pairs.

**Spectrum.** The matrix W of all w_ij, with z_i on the diagonal, is a projection of rank C that maps ones to ones.
Hence SSE = trace X'(I - W)X for centred X is at least the sum of all eigenvalues of X'X but the C - 1 largest (H. Zha
et al., "Spectral relaxation for k-means clustering", NIPS 2001). This is tight for few large clusters, (4) for small
ones.

**Together.** The SSE is a sum over principal axes. The spectrum bounds a part min(eigenvalue, c) of each axis, (4) the
rest. The sum of both is a bound for every c; the best of a few is taken.

Triangles: M. Grötschel, Y. Wakabayashi, "A cutting plane algorithm for a clustering problem", Mathematical
Programming 45, 1989.
"""

from __future__ import annotations

import numpy as np
import scipy
from numpy.typing import ArrayLike

from checks import ParameterError
from distances import squared_distances, squared_lengths
from people import check_descriptors, cluster_sizes

_SHARES = (0.6, 0.3, 0.0)  # of the C-th largest eigenvalue: c in the docstring above
_PAIRS = 1_000_000  # listed pairs in a linear program: 1 GB and 10 s; 3 million take more than 4 minutes
# More people or pairs get no triangles: 20 s for a gain of 0.1 %.
_TRIANGLE_PEOPLE, _TRIANGLE_PAIRS = 2_000, 100_000
_TRIANGLES, _ROUNDS = 20_000, 3  # most new triangles in a round
_VIOLATED, _GAIN = 0.02, 5e-4  # of a triangle's inequality, and of the bound, to go on
_SIGNS = (1.0, 1.0, -1.0)  # of the sides ij, il, jl in (3)
_ROUNDING = 1e-11  # of the total sum of squares, subtracted for rounding errors


def lower_bound(X: ArrayLike, cluster_size: int) -> float:
    """Bound the sum of squares (SSE) of every fixed-size partition from below.

    The SSE of a partition can fall by at most the share ``1 - lower_bound(X, k) / within_cluster_sse(X, labels)``. The
    bound is the best of two relaxations: pairs of people (with triangle inequalities for up to 2,000 people) and the
    spectrum. See `balancing.bounds` for the proof.

    Parameters
    ----------
    X : array (n, d) of descriptors
        One row per person.
    cluster_size : int, 2 .. n
        The smallest number of people in a cluster (k).

    Returns
    -------
    float
        In the units of `within_cluster_sse`; at least 0.

    Raises
    ------
    ValueError, TypeError
        If X or cluster_size are invalid, or if there are more than 1 million pairs and more clusters than columns.

    Notes
    -----
    Each person is paired with about 3 k near ones. Memory is three copies of X as float64 and about 1.3 KB per pair.
    Beyond 1 million pairs the bound is that of the spectrum alone, which is 0 if there are more clusters than columns.

    Examples
    --------
    >>> X = np.array([[0.0], [2.0], [9.0], [11.0]])
    >>> round(lower_bound(X, 2), 6)
    4.0
    """
    X = check_descriptors(X).astype(np.float64)
    clusters = len(cluster_sizes(len(X), cluster_size))
    largest = np.abs(X).max() or 1.0
    points = X / largest
    points -= points.mean(axis=0)
    total = float(squared_lengths(points).sum()) / len(X)
    if total == 0:
        return 0.0
    points /= np.sqrt(total)  # a mean squared length of 1
    # Rotate to principal axes. (n, axes), (axes,)
    left, values, _ = np.linalg.svd(points, full_matrices=False)
    points, values = left * values, values**2
    near = min(len(X) - 1, 3 * (len(X) // clusters) + 10)
    best = _spectral_bound(values, clusters)
    if len(X) * near <= _PAIRS:
        best = max(best, _split_bound(points, values, clusters, near))
    elif clusters > len(values):
        raise ParameterError(
            f"a lower bound for {len(X)} people in {clusters} clusters needs {len(X) * near} pairs of people, at most "
            f"{_PAIRS} are allowed; use a sample of the people"
        )
    return float(max(0.0, best - _ROUNDING * len(X)) * total * largest**2)


def _spectral_bound(values, clusters):
    """Bound the SSE by the eigenvalues (axes,) of the scatter, in any order."""
    return float(np.sort(values)[: max(0, len(values) - clusters + 1)].sum())


def _split_bound(points, values, clusters, near):
    """Bound a part of each principal axis by the spectrum and the rest by pairs, for the best of a few parts."""
    best = -np.inf
    largest = values[clusters - 1] if clusters <= len(values) else 0.0
    for share in _SHARES if largest > 0 else (0.0,):
        part = np.minimum(values, share * largest)
        rest = _Pairs(points * np.sqrt(1 - part / np.maximum(values, np.finfo(float).tiny)), clusters, near)
        bound = _spectral_bound(part, clusters) + rest.bound()
        if bound < best:  # smaller shares are no better
            break
        best, fixed, pairs = bound, _spectral_bound(part, clusters), rest
    if len(points) <= _TRIANGLE_PEOPLE and len(pairs.keys) <= _TRIANGLE_PAIRS:
        for _ in range(_ROUNDS):
            pairs.add_triangles()
            before, best = best, max(best, fixed + pairs.bound())
            if best < before * (1 + _GAIN):
                break
    return best


class _Pairs:
    """The linear program over pairs of near people; for the symbols see the docstring of the module.

    Attributes
    ----------
    points : float64 array (n, d)
    keys : int64 array (pairs,)
        i * n + j for each pair i < j, ascending.
    triangles : int64 array (triangles, 3)
        The people i, j, l.
    weights, triangle_prices : float64 arrays (pairs,), (triangles,)
        The last solution: q w_ij, t.
    """

    def __init__(self, points, clusters, near):
        from sklearn.neighbors import NearestNeighbors  # slow to import, and only needed here

        self.points, self.clusters, self.smallest = points, clusters, len(points) // clusters
        found = NearestNeighbors(n_neighbors=near, algorithm="brute").fit(points).kneighbors()[1]
        self.keys = np.unique(self._key(np.arange(len(points))[:, None], found))
        self.triangles = np.empty((0, 3), dtype=np.int64)

    def _key(self, first, second):
        return np.minimum(first, second) * len(self.points) + np.maximum(first, second)

    def bound(self):
        """Solve the linear program, and bound the SSE by its prices."""
        # Distances of the pairs (pairs,), and positions of the sides ij, il, jl of each triangle (3, triangles).
        first, second = np.divmod(self.keys, len(self.points))
        costs = sum((axis[first] - axis[second]) ** 2 for axis in self.points.T)
        i, j, l = self.triangles.T  # noqa: E741
        sides = np.searchsorted(self.keys, self._key(np.stack([i, i, j]), np.stack([j, l, l])))
        self.weights, prices, self.triangle_prices = self._solve(costs, sides)
        # Sum (4) over all pairs, and correct it for the pairs in triangles.
        reduced = costs - prices[first] - prices[second]
        change = np.bincount(sides.ravel(), np.outer(_SIGNS, self.triangle_prices).ravel(), len(costs))
        corrected = (np.minimum(reduced + change, 0) - np.minimum(reduced, 0)).sum()
        coefficients = prices + np.bincount(i, self.triangle_prices, len(prices))
        return self._at(prices, coefficients) + corrected / self.smallest

    def _solve(self, costs, sides):
        """Weights (pairs,), prices (n,) and triangle prices of the linear program with all z_i = C / n."""
        people, pairs, share = len(self.points), len(costs), self.clusters / len(self.points)
        # Each person's weights sum to at least q (1 - z), those of a triangle to at most q z. (n + triangles, pairs)
        rows = np.concatenate(
            [*np.divmod(self.keys, people), *np.tile(people + np.arange(sides.shape[1]), (3, 1))]
        )
        columns = np.concatenate([np.tile(np.arange(pairs), 2), sides.ravel()])
        entries = np.repeat([-1.0, *_SIGNS], [2 * pairs, *[sides.shape[1]] * 3])
        limits = np.repeat([self.smallest * (share - 1), self.smallest * share], [people, sides.shape[1]])
        table = scipy.sparse.coo_array((entries, (rows, columns)), (len(limits), pairs)).tocsr()
        method = (
            "highs-ipm" if sides.size else "highs-ds"
        )  # the interior-point method is faster with triangles
        found = scipy.optimize.linprog(costs, table, limits, bounds=(0, 1), method=method)
        if found.x is None:  # no prices, and so no use of the pairs
            return np.zeros(pairs), np.zeros(people), np.zeros(sides.shape[1])
        prices = np.maximum(-found.ineqlin.marginals, 0)
        return found.x, prices[:people], prices[people:]

    def _at(self, prices, coefficients):
        """The right-hand side of (4) with D for D', given u_i and u_i + T_i, both (n,)."""
        people, smallest = len(self.points), self.smallest
        larger = (people - smallest * self.clusters) * (smallest + 1)
        lengths = np.repeat([smallest + 1, smallest], [larger, people - larger])
        twice = -np.minimum(
            0, -2 * prices
        ).sum()  # the blocks count each pair twice, and everybody with themselves
        for start in range(0, people, 1024):  # (1024, n) at a time
            block = slice(start, start + 1024)
            reduced = squared_distances(self.points[block], self.points) - prices[block, None] - prices
            twice += np.minimum(reduced, 0, out=reduced).sum()
        return float(prices.sum() - (np.sort(coefficients) / lengths).sum() + twice / 2 / smallest)

    def add_triangles(self):
        """Keep the triangles with a price; add those that the weights violate most, and their sides."""
        people = len(self.points)
        first, second = np.divmod(self.keys, people)
        table = np.zeros((people, people), dtype=np.float32)
        table[first, second] = table[second, first] = self.weights
        found = [self.triangles[self.triangle_prices > 0]]
        for centre in range(people):
            near = np.flatnonzero(table[centre] > _VIOLATED)
            own = table[centre, near]
            excess = np.triu(own[:, None] + own - 1 - table[np.ix_(near, near)], 1).ravel()
            most = np.argsort(-excess)[: max(1, _TRIANGLES // people)]
            j, l = np.divmod(most[excess[most] > _VIOLATED], max(1, len(near)))  # noqa: E741
            found.append(np.stack([np.full(len(j), centre), near[j], near[l]], axis=1))
        self.triangles = np.unique(np.concatenate(found), axis=0)
        self.keys = np.union1d(self.keys, self._key(self.triangles[:, 1], self.triangles[:, 2]))
