"""Balanced partitions by bisection, local search and simulated annealing, in one process or in pieces.

S. Kirkpatrick, C. D. Gelatt, M. P. Vecchi, "Optimization by simulated annealing", Science 220, 1983. The loops are
in `kernels`.
"""

from __future__ import annotations

from collections.abc import Iterator
from copy import deepcopy
from dataclasses import dataclass
from itertools import pairwise
from time import perf_counter

import numpy as np

import utils
from balancing import kernels, swaps
from distances import nearest_columns, squared_distances, squared_lengths

_WIDEST = 1024  # the most axes to rotate; more columns are rotated only for few people
_SAMPLE = 2048  # rows that determine the direction of a bisection
_GROUP, _GROUPS_TRIED, _REACH = 64, 40, 128  # near clusters: the nearest 128 in the nearest 40 groups of 64
_SEARCHED, _ANNEALED = 8, 4  # candidate clusters per person in local search and in annealing

# Temperatures in units of the median cluster's mean squared distance to its mean.
_HOT, _WARM, _COLD = 0.12, 0.06, 0.015
_LONGEST, _AGAIN = 20_000, 5_000  # moves per person: at most, in the first annealing; in each further one
_STAGE, _STAGES = 33, 60  # at least this many moves per person in a stage; at most this many stages

_AT_ONCE = 1_000_000  # moves between two updates of the bar; Ctrl-C also waits for them
_SHOWN_AFTER = 3.0  # seconds before a bar appears

_GUMBEL = np.random.default_rng(20250).gumbel(size=kernels.NOISE).astype(np.float32)


def principal_rows(points: np.ndarray) -> np.ndarray:
    """Centre points (n, d), rotate them to principal axes, and scale to a mean squared length of 1.

    Distances stay the same except for the scale. Works in blocks of rows.

    Returns
    -------
    float32 array (n, axes)
        Trailing axes that together hold less than 1e-5 of the variance are left out, and columns of zeros pad to a
        multiple of 8. Zeros if all rows are equal.
    """
    people, dimension = points.shape
    largest = max(abs(float(points.max())), abs(float(points.min()))) or 1.0
    blocks = [slice(start, start + 4096) for start in range(0, people, 4096)]

    def scaled(block):
        return points[block].astype(np.float64) / largest

    # Find the axes (d, axes) and the sum of squares along each.
    mean = sum(scaled(block).sum(axis=0) for block in blocks) / people
    if dimension <= _WIDEST:
        products = sum((scaled(block) - mean).T @ (scaled(block) - mean) for block in blocks)
        values, axes = np.linalg.eigh(products)
    elif people <= 4 * _WIDEST:  # at most as many axes as people: they follow from the (n, n) products
        centred = scaled(slice(None)) - mean
        values, vectors = np.linalg.eigh(centred @ centred.T)
        axes = centred.T @ (vectors / np.sqrt(np.maximum(values, 1e-12 * values[-1] + 1e-300)))
    else:
        values = sum(((scaled(block) - mean) ** 2).sum(axis=0) for block in blocks)
        axes = np.eye(dimension)[:, np.argsort(values, kind="stable")]
        values = np.sort(values, kind="stable")
    values, axes = values[::-1], axes[:, ::-1]  # largest first
    total = values.sum()
    if not total > 0:
        return np.zeros((people, 8), dtype=np.float32)
    # Project on the leading axes. (n, axes)
    kept = int((np.cumsum(values) < (1 - 1e-5) * total).sum()) + 1
    axes = axes[:, :kept] * np.sqrt(people / total)
    rows = np.zeros((people, -(-axes.shape[1] // 8) * 8), dtype=np.float32)
    for block in blocks:
        rows[block, : axes.shape[1]] = (scaled(block) - mean) @ axes
    return rows


def solve(
    rows: np.ndarray,
    sizes: np.ndarray,
    moves: int,
    seed: int,
    seconds: float | None = None,
    pieces: int = 1,
    n_jobs: int | None = None,
    hidden: bool | None = None,
) -> np.ndarray:
    """Labels (n,) of a balanced partition of `principal_rows`, which may be reordered in place to save memory.

    See `balancing.balanced_partition`; `hidden` is True for no bar.
    """
    if pieces > 1:
        return _solve_pieces(rows, sizes, moves, seed, pieces, n_jobs)
    if len(sizes) == 1:
        return np.zeros(len(rows), dtype=np.int64)
    if kernels.numba is None:
        generator = np.random.default_rng(seed)
        return swaps.refine(swaps.bisect(rows, sizes, generator), rows, len(sizes), generator, moves)
    order = np.arange(len(rows))
    kernels.bisect_rows(rows, order, _starts(sizes), _SAMPLE, np.uint64(seed))
    labels = np.empty(len(rows), dtype=np.int64)
    total = moves if seconds is None else None
    with utils.progress(None, "partitioning (moves)", total, hidden, _SHOWN_AFTER) as bar:
        labels[order] = _optimise(_lay_out(rows, sizes), moves, seed, seconds, bar)
    return labels


def _solve_pieces(rows, sizes, moves, seed, pieces, n_jobs):
    """Bisect into pieces, solve these in parallel, then let people swap across the borders."""
    from joblib import delayed

    # Bisect, and order the rows by piece.
    generator = np.random.default_rng(seed)
    cuts = np.unique(np.linspace(0, len(sizes), pieces + 1).round().astype(np.int64))  # first clusters
    starts = _starts(sizes)[cuts]  # first rows
    order = np.argsort(swaps.bisect(rows, np.diff(starts), generator), kind="stable")
    rows = rows[order]
    # Solve each piece with its share of the moves.
    seeds = generator.integers(1, 2**62, size=len(cuts) - 1)
    parts = zip(pairwise(starts), pairwise(cuts), seeds, strict=True)
    tasks = (
        delayed(_solve_piece)(rows[a:b], sizes[first:last], moves * int(b - a) // len(rows), int(piece_seed))
        for (a, b), (first, last), piece_seed in parts
    )
    solved = utils.run_parallel(tasks, n_jobs)
    solved = utils.progress(solved, "partitioning (pieces)", total=len(seeds), delay=_SHOWN_AFTER)
    labels = np.concatenate([part + first for part, first in zip(solved, cuts[:-1], strict=True)])
    # Swap across the borders.
    if kernels.numba is not None:
        within = np.argsort(labels, kind="stable")
        layout = _lay_out(rows[within], np.bincount(labels))
        _improve(layout, _find_near(layout), passes=20)
        labels[within] = layout.labels()
    result = np.empty(len(rows), dtype=np.int64)
    result[order] = labels
    return result


def _solve_piece(rows, sizes, moves, seed):
    # A copy, as rows from another process may be read-only.
    return solve(np.array(rows), sizes, moves, seed, hidden=True)


def _starts(sizes):
    """Start of each cluster, and the end: (clusters + 1,)."""
    return np.concatenate(([0], np.cumsum(sizes)))


# ----------------------------------------------------------------------------------------------------------
# Search and annealing on rows laid out by cluster
# ----------------------------------------------------------------------------------------------------------


@dataclass
class _Layout:
    """Rows ordered by cluster, with one unused place in each smaller cluster; see `kernels`."""

    rows: np.ndarray  # (clusters * capacity, d) float32
    squares: np.ndarray  # (clusters * capacity,) float32, squared lengths of the rows
    people: np.ndarray  # (clusters * capacity,) int32, whose row it is; -1 for an unused place
    sums: np.ndarray  # (clusters, d) float32
    counts: np.ndarray  # (clusters,) int64
    capacity: int

    @property
    def arrays(self):
        """All fields, the `layout` of the compiled loops."""
        return self.rows, self.squares, self.people, self.sums, self.counts, self.capacity

    @property
    def n_people(self):
        return int(self.counts.sum())

    def means(self):
        return self.sums / self.counts[:, None].astype(np.float32)

    def sum_clusters(self):
        """Sum each cluster's rows again, so that rounding errors do not add up."""
        self.sums[:] = self.rows.reshape(len(self.counts), self.capacity, -1).sum(axis=1)

    def cost(self):
        """SSE minus the sum of all squared lengths, which no partition changes."""
        return -float((squared_lengths(self.sums.astype(np.float64)) / self.counts).sum())

    def labels(self):
        """Cluster of each person, (n,)."""
        used = np.flatnonzero(self.people >= 0)
        labels = np.empty(len(used), dtype=np.int64)
        labels[self.people[used]] = used // self.capacity
        return labels

    def spreads(self):
        """Mean squared distance of each cluster's members to its mean, (clusters,)."""
        squares = self.squares.reshape(len(self.counts), -1).sum(axis=1)
        return np.maximum(squares / self.counts - squared_lengths(self.means()), 0.0)


def _lay_out(rows, sizes):
    """Lay out rows that are sorted by cluster; person i is row i."""
    capacity, clusters = int(sizes.max()), len(sizes)
    first_place = np.arange(clusters) * capacity - (np.cumsum(sizes) - sizes)
    places = np.arange(len(rows)) + np.repeat(first_place, sizes)
    laid = np.zeros((clusters * capacity, rows.shape[1]), dtype=np.float32)
    laid[places] = rows
    people = np.full(clusters * capacity, -1, dtype=np.int32)
    people[places] = np.arange(len(rows))
    sums = np.empty((clusters, rows.shape[1]), dtype=np.float32)
    layout = _Layout(laid, squared_lengths(laid), people, sums, sizes.copy(), capacity)
    layout.sum_clusters()
    return layout


def _find_near(layout):
    """Each cluster's nearest clusters, including itself, (clusters, up to 128) int32.

    The bisection numbers near clusters similarly, so only the nearest groups of numbers are searched, and the time
    grows linearly except for the comparison of groups.
    """
    means = layout.means()
    clusters = len(means)
    halves = squared_lengths(means) / 2
    starts = np.arange(0, clusters, _GROUP)
    centres = np.add.reduceat(means, starts, axis=0) / np.diff(np.append(starts, clusters))[:, None]
    near_groups = nearest_columns(squared_distances(centres, centres), _GROUPS_TRIED)
    near = np.empty((clusters, min(_REACH, clusters)), dtype=np.int32)
    for start, groups in zip(starts, near_groups, strict=True):
        others = (np.sort(groups)[:, None] * _GROUP + np.arange(_GROUP)).reshape(-1)
        others = others[others < clusters]
        kernels.keep_nearest(means, halves, start, min(start + _GROUP, clusters), others, near)
    return near


def _find_candidates(layout, near, count):
    """Each person's own cluster and `count` - 1 near clusters, (n, count)."""
    means = layout.means()
    candidates = np.empty((layout.n_people, min(count, near.shape[1])), dtype=np.int32)
    halves = squared_lengths(means) / 2
    kernels.choose_candidates(layout.rows, layout.people, means, halves, layout.capacity, near, candidates)
    return candidates


def _improve(layout, near, passes):
    """Search locally until a pass finds no swap; return the number of swaps.

    Few large clusters trade members; otherwise each person swaps with the best of all near people.
    """
    if layout.capacity > kernels.COMPARED:
        search, targets = kernels.trade, near
    else:
        search, targets = kernels.swap, _find_candidates(layout, near, _SEARCHED)
    changed = np.zeros(len(layout.counts), dtype=np.int64)
    made = 0
    for turn in range(passes):
        found = search(layout.arrays, targets, changed, turn)
        made += found
        if not found:
            break
    layout.sum_clusters()
    return made


def _settle(layout):
    """Repeat local search until there is almost no gain."""
    near = _find_near(layout)
    for _ in range(3):  # candidates change as the clusters do
        if _improve(layout, near, passes=20) < 5e-3 * len(layout.people):
            break


def _optimise(layout, moves, seed, seconds, bar):
    """Search, anneal, search; labels in the order in which the layout was filled.

    The first annealing takes at most 20,000 moves per person. The remaining moves go into further ones of
    5,000 each, which start half as hot from the best partition so far.
    """
    near = _find_near(layout)
    _improve(layout, near, passes=1)
    spread = float(np.median(layout.spreads())) or float(layout.spreads().mean())
    first = min(moves, _LONGEST * layout.n_people)
    _anneal(layout, near, spread * _HOT, spread * _COLD, first, seed, seconds, bar)
    _settle(layout)
    best, least = layout, layout.cost()
    again = 0 if seconds is not None else (moves - first) // (_AGAIN * layout.n_people)
    for turn in range(again):
        layout = deepcopy(best)
        near = _find_near(layout)
        further = _AGAIN * layout.n_people
        _anneal(layout, near, spread * _WARM, spread * _COLD, further, seed + turn + 1, None, bar)
        _settle(layout)
        cost = layout.cost()
        if cost < least:
            best, least = layout, cost
    return best.labels()


def _anneal(layout, near, hot, cold, moves, seed, seconds, bar):
    """Anneal in stages, with new candidates at each; changes the layout."""
    if not hot > 0 or not (moves or seconds):
        return
    noise = np.concatenate([_GUMBEL, np.resize(_GUMBEL, layout.capacity + 2)])
    place, state = -1, seed
    for stage, (begin, end, count) in enumerate(_stages(hot, cold, moves, layout.n_people, seconds)):
        if stage:
            near = _find_near(layout)
        candidates = _find_candidates(layout, near, _ANNEALED)
        parts = -(-count // _AT_ONCE)
        for warm, cool in pairwise(np.geomspace(begin, end, parts + 1)):
            place, state = kernels.anneal(
                layout.arrays, candidates, noise, place, count // parts, warm, cool, np.uint64(state)
            )
            bar.update(count // parts)
        layout.sum_clusters()


def _stages(hot, cold, moves, people, seconds) -> Iterator[tuple[float, float, int]]:
    """First and last temperature and number of moves of each stage, until moves or seconds are used up."""
    if seconds is not None:
        start = perf_counter()
        while (past := (perf_counter() - start) / seconds) < 1:
            temperature = hot * (cold / hot) ** past
            yield temperature, temperature, 20 * people
        return
    stages = int(np.clip(moves // (_STAGE * people), 3, _STAGES))
    for begin, end in pairwise(hot * (cold / hot) ** (np.arange(stages + 1) / stages)):
        yield begin, end, moves // stages
