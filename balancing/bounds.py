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

from dataclasses import dataclass

import numpy as np
from numpy.typing import ArrayLike
from scipy.optimize import linprog
from scipy.sparse import coo_array, vstack

from checks import ParameterError
from distances import squared_distances, squared_lengths
from people import check_descriptors, cluster_sizes

_SHARES = (0.6, 0.3, 0.0)  # of the C-th largest eigenvalue: c in the docstring above
_PAIRS = 3_000_000  # listed pairs in a linear program: 2 GB and minutes
_TRIANGLE_PEOPLE, _TRIANGLE_PAIRS = (
    2_000,
    100_000,
)  # more people or pairs get no triangles: 20 s for a gain of 0.1 %
_TRIANGLES, _ROUNDS = 20_000, 3  # most new triangles in a round
_VIOLATED, _GAIN = 0.02, 5e-4  # of a triangle's inequality, and of the bound, to go on
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
        If X or cluster_size are invalid, or if there are more than 3 million pairs and more clusters than columns.

    Notes
    -----
    Each person is paired with about 3 k near ones. Memory is three copies of X as float64 and about 1 KB per pair.
    Beyond 3 million pairs the bound is that of the spectrum alone, which is 0 if there are more clusters than columns.

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
    best, pairs, spectral = -np.inf, None, 0.0
    largest = values[clusters - 1] if clusters <= len(values) else 0.0
    for share in _SHARES if largest > 0 else (0.0,):
        part = np.minimum(values, share * largest)
        rest = points * np.sqrt(1 - part / np.maximum(values, np.finfo(float).tiny))
        tried, spectral_part = _Pairs.of_near(rest, clusters, near), _spectral_bound(part, clusters)
        bound = spectral_part + tried.bound()
        if bound < best:  # smaller shares are no better
            break
        best, pairs, spectral = bound, tried, spectral_part
    if len(points) <= _TRIANGLE_PEOPLE and len(pairs.keys) <= _TRIANGLE_PAIRS:
        for _ in range(_ROUNDS):
            if not pairs.add_triangles():
                break
            before, best = best, max(best, spectral + pairs.bound())
            if best < before * (1 + _GAIN):
                break
    return best


@dataclass
class _Pairs:
    """The linear program over pairs of near people; for the symbols see the docstring of the module."""

    points: np.ndarray  # (n, d)
    clusters: int
    keys: np.ndarray  # (pairs,) int64, i * n + j for the pair i < j, ascending
    triangles: np.ndarray  # (triangles, 3) int64, people i, j, l
    weights: np.ndarray | None = None  # (pairs,) the solution, q w_ij
    triangle_prices: np.ndarray | None = None  # (triangles,), t

    @classmethod
    def of_near(cls, points, clusters, near):
        """Pair each of the points with the `near` nearest others."""
        from sklearn.neighbors import NearestNeighbors  # slow to import, and only needed here

        model = NearestNeighbors(n_neighbors=near, algorithm="brute").fit(points)
        people = np.arange(len(points))[:, None]
        keys = _keys(len(points), people, model.kneighbors(return_distance=False))
        return cls(points, clusters, np.unique(keys), np.empty((0, 3), dtype=np.int64))

    @property
    def smallest(self):
        """The smaller cluster size, q."""
        return len(self.points) // self.clusters

    def bound(self):
        """Bound the SSE by the prices of the linear program's solution."""
        self.weights, prices, self.triangle_prices = self._solve()
        return self._certify(prices, self.triangle_prices)

    def _sides(self):
        """Positions in `keys` of the three sides ij, il, jl of each triangle, (triangles, 3)."""
        first, second, third = self.triangles.T
        sides = _keys(len(self.points), [first, first, second], [second, third, third])
        return np.searchsorted(self.keys, sides).T

    def _costs(self):
        """Squared distance of each pair, (pairs,)."""
        costs = np.empty(len(self.keys))
        for start in range(0, len(costs), 65_536):
            first, second = np.divmod(self.keys[start : start + 65_536], len(self.points))
            costs[start : start + 65_536] = squared_lengths(self.points[first] - self.points[second])
        return costs

    def _solve(self):
        """Weights q w_ij of the pairs, prices u (n,) and triangle prices t of the linear program with z_i = C / n."""
        people, pairs, share = len(self.points), len(self.keys), self.clusters / len(self.points)
        # Each person's weights sum to at least q (1 - z). (n, pairs)
        column = np.tile(np.arange(pairs), 2)
        row = np.concatenate(np.divmod(self.keys, people))
        rows = [coo_array((np.full(2 * pairs, -1.0), (row, column)), (people, pairs))]
        # The weights of a triangle are at most q z. (triangles, pairs)
        sides = self._sides()
        signs = np.broadcast_to([1.0, 1.0, -1.0], sides.shape)
        number = np.broadcast_to(np.arange(len(sides))[:, None], sides.shape)
        rows.append(coo_array((signs.ravel(), (number.ravel(), sides.ravel())), (len(sides), pairs)))
        limits = np.repeat([self.smallest * (share - 1), self.smallest * share], [people, len(sides)])
        # With triangles the interior-point method is faster.
        method = "highs-ipm" if len(sides) else "highs-ds"
        found = linprog(self._costs(), vstack(rows, "csr"), limits, bounds=(0, 1), method=method)
        if found.x is None:  # no prices, and so no use of the pairs
            return np.zeros(pairs), np.zeros(people), np.zeros(len(sides))
        prices = np.maximum(-found.ineqlin.marginals, 0)
        return found.x, prices[:people], prices[people:]

    def _certify(self, prices, triangle_prices):
        """The right-hand side of (4) for any prices (n,) and triangle prices (triangles,)."""
        people, smallest = len(self.points), self.smallest
        # The smallest coefficients of z are those of the people in larger clusters.
        coefficients = prices + np.bincount(self.triangles[:, 0], triangle_prices, people)
        larger = (people - smallest * self.clusters) * (smallest + 1)
        lengths = np.repeat([smallest + 1, smallest], [larger, people - larger])
        bound = prices.sum() - (np.sort(coefficients) / lengths).sum()
        # All pairs at their distances. (1024, n) at a time
        twice = np.minimum(0, -2 * prices).sum()  # each person with themselves, which the blocks count
        all_pairs = -twice
        for start in range(0, people, 1024):
            block = slice(start, start + 1024)
            reduced = squared_distances(self.points[block], self.points)
            reduced -= prices[block, None]
            reduced -= prices
            all_pairs += np.minimum(reduced, 0, out=reduced).sum()
        # The pairs in triangles at their changed costs.
        first, second = np.divmod(self.keys, people)
        reduced = self._costs() - prices[first] - prices[second]
        change = np.bincount(
            self._sides().ravel(), np.outer(triangle_prices, [1, 1, -1]).ravel(), len(reduced)
        )
        changed = (np.minimum(reduced + change, 0) - np.minimum(reduced, 0)).sum()
        return float(bound + (all_pairs / 2 + changed) / smallest)

    def add_triangles(self):
        """Keep the triangles that have a price, and add those that the solution violates most; return whether any.

        The pairs opposite to their centres are added, too.
        """
        people = len(self.points)
        first, second = np.divmod(self.keys, people)
        table = np.zeros((people, people), dtype=np.float32)
        table[first, second] = table[second, first] = self.weights
        kept = self.triangles[self.triangle_prices > 0]
        found = []
        for centre in range(people):
            near = np.flatnonzero(table[centre] > _VIOLATED)
            own = table[centre, near]
            excess = np.triu(own[:, None] + own - 1 - table[np.ix_(near, near)], 1).ravel()
            most = np.argsort(-excess)[: max(1, _TRIANGLES // people)]
            a, b = np.divmod(most[excess[most] > _VIOLATED], max(1, len(near)))
            found.append(np.stack([np.full(len(a), centre), near[a], near[b]], axis=1))
        self.triangles = np.unique(np.concatenate([kept, *found]), axis=0)
        self.keys = np.union1d(self.keys, _keys(people, self.triangles[:, 1], self.triangles[:, 2]))
        return any(map(len, found))


def _keys(people, first, second):
    """Number each pair of people, whatever their order: int64 array."""
    return np.minimum(first, second) * people + np.maximum(first, second)
