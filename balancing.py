"""Points and sizes -> one label a point, with as small a within-cluster sum of squares (SSE) as moves allow.

The machinery of ``partitioning.balanced_partition``, which checks what callers pass, on plain arrays::

    labels = balance(points, sizes, moves=100_000, random_state=0)

Recursive bisection gives a first partition, and swaps between near clusters better it: by local search and
simulated annealing in loops that numba compiles, or, where numba is missing or where there are rules,
weights or another objective, in numpy.
"""

from copy import deepcopy
from dataclasses import dataclass
from functools import partial
from itertools import pairwise
from time import perf_counter

import numpy as np
from threadpoolctl import threadpool_limits

try:
    import numba
except ImportError:  # the compiled loops are left out; numpy does their work, more slowly
    numba = None


@dataclass(frozen=True)
class Rules:
    """What every cluster has to keep, besides its size."""

    attributes: (
        tuple  # of arrays (n,) int64: each point's value of an attribute, 0 .. values - 1, or -1 if unknown
    )
    diversity: int  # at least so many different known values of each attribute
    closeness: (
        float | None
    )  # at most this total variation distance between the cluster's and all points' shares
    apart: np.ndarray  # (m, 2) int64, different pairs of points that must not share a cluster


def balance(
    points,
    sizes,
    *,
    moves,
    random_state=None,
    objective="sse",
    weights=None,
    rules=None,
    seconds=None,
    pieces=1,
    n_jobs=None,
):
    """Label points so that clusters have the given sizes and a small within-cluster sum of squares.

    Parameters
    ----------
    points : array (n, d), float32 or float64
        Finite; never changed.
    sizes : int64 array (clusters,)
        Sum n, the larger ones first, differing by at most one.
    moves : int
        Annealing moves in all, each of which weighs one point against all members of one cluster.
    random_state : int, Generator or None
        The same seed and moves give the same labels.
    objective : {"sse", "diameter"}
        A name of `OBJECTIVES`.
    weights : float64 array (n,), optional
        How much each point counts in the SSE and in the mean; positive.
    rules : Rules, optional
        What clusters have to keep.
    seconds : float, optional
        Anneal for about so long instead of by `moves`, which is not reproducible; for one piece alone.
    pieces : int, 1 .. clusters
        Bisect into so many pieces first, and solve these in parallel.
    n_jobs : int, optional
        How many pieces at once, as in ``joblib.Parallel``.

    Returns
    -------
    int64 array (n,), the cluster of each point, 0 .. clusters - 1; which clusters are larger may differ from `sizes`

    Raises
    ------
    ValueError
        Weights with the objective "diameter", or no partition found that keeps the rules.
    """
    generator = np.random.default_rng(random_state)
    seed = int(_draw_seeds(generator, 1)[0])
    refined = objective != "sse" or weights is not None or rules is not None
    # The products here are small: several threads would mostly wait for each other, and round differently.
    with threadpool_limits(1, user_api="blas"):
        rows = _principal_rows(points)
        if pieces > 1:
            labels = _solve_pieces(rows, sizes, moves, seed, pieces, n_jobs)
        else:
            labels = _solve(rows.copy() if refined else rows, sizes, moves, seed, seconds)
        if not refined:
            return labels
        grouping = _Grouping(labels, len(sizes))
        cost = OBJECTIVES[objective](rows, weights, grouping)
        breaches = None if rules is None else _Breaches(rules, grouping)
        if breaches is not None:
            _repair(grouping, cost, breaches, generator)
        _search_swaps(rows, grouping, cost, breaches, generator, _passes(moves, len(rows)))
        return grouping.labels


def _draw_seeds(generator, count):
    return generator.integers(1, 2**62, size=count)


# ---------------------------------------------------------------------------------------------------------
# Distances and means
# ---------------------------------------------------------------------------------------------------------


def squared_lengths(vectors):
    """Squared Euclidean lengths along the last axis, (..., d) -> (...)."""
    return np.einsum("...i,...i->...", vectors, vectors)


def squared_distances(A, B):
    """Squared Euclidean distances, (len(A), len(B)), by one matrix product."""
    squares = -2.0 * (A @ B.T)
    squares += squared_lengths(A)[:, None]
    squares += squared_lengths(B)[None, :]
    return np.maximum(squares, 0.0, out=squares)


def squared_diameter(points):
    """Largest squared distance between two of the points."""
    return float(squared_distances(points, points).max())


def mean_of_groups(X, group, groups):
    """Mean of the rows of each group, (groups, d), summed in float64 one column at a time."""
    counts = np.bincount(group, minlength=groups)
    means = np.empty((groups, X.shape[1]), dtype=X.dtype)
    for axis in range(X.shape[1]):
        means[:, axis] = np.bincount(group, X[:, axis], groups) / counts
    return means


def _nearest_columns(squares, count):
    """Columns of each row's `count` smallest values, in no order, (n, count) or fewer."""
    count = min(count, squares.shape[1])
    return np.argpartition(squares, count - 1, axis=1)[:, :count]


# ---------------------------------------------------------------------------------------------------------
# Bisection, local search and annealing in compiled loops
#
# The compiled loops work on rows laid out by cluster: cluster c owns the places c * capacity ..
# (c + 1) * capacity - 1, where capacity is the largest size, and an unused place (always the last) holds
# zeros. A cluster's members lie side by side, so that looking at all of them reads memory in order.
# ---------------------------------------------------------------------------------------------------------

# Sums of products may be re-associated, so that the processor adds several at a time. Results differ from
# the sequential sum by rounding alone; NaN and infinity keep their meaning.
_SUMS = {"reassoc", "contract", "nsz"}


def _compiled(function=None, **options):
    """Compile with numba and keep the machine code beside this file; without numba, leave as it is."""
    if function is None:
        return partial(_compiled, **options)
    if numba is None:
        return function
    try:
        return numba.njit(cache=True, nogil=True, **options)(function)
    except RuntimeError:  # no place to write a cache to
        return numba.njit(nogil=True, **options)(function)


@_compiled
def _random_bits(state):
    """Next state of a 64-bit xorshift generator (Marsaglia 2003); its value is the random number."""
    state ^= state << np.uint64(13)
    state ^= state >> np.uint64(7)
    state ^= state << np.uint64(17)
    return state


@_compiled(fastmath=_SUMS)
def _project(rows, place, vector):
    total = np.float32(0)
    for axis in range(rows.shape[1]):
        total += rows[place, axis] * vector[axis]
    return total


@_compiled(fastmath=_SUMS)
def _project_difference(rows, place, origin, vector):
    total = np.float32(0)
    for axis in range(rows.shape[1]):
        total += (rows[place, axis] - origin[axis]) * vector[axis]
    return total


@_compiled(fastmath=_SUMS)
def _squared_to_mean(rows, place, sums, cluster, inverse):
    """Squared distance of a row to a cluster's mean, ``sums[cluster] * inverse``."""
    total = np.float32(0)
    for axis in range(rows.shape[1]):
        difference = rows[place, axis] - sums[cluster, axis] * inverse
        total += difference * difference
    return total


@_compiled
def _swap_rows(rows, order, first, second):
    for axis in range(rows.shape[1]):
        rows[first, axis], rows[second, axis] = rows[second, axis], rows[first, axis]
    order[first], order[second] = order[second], order[first]


@_compiled
def _smallest(values, rank):
    """The value that would stand at `rank` if `values` were sorted (Hoare's quickselect); reorders them."""
    low, high = 0, len(values) - 1
    while low < high:
        pivot = values[(low + high) // 2]
        left, right = low, high
        while left <= right:
            while values[left] < pivot:
                left += 1
            while values[right] > pivot:
                right -= 1
            if left <= right:
                values[left], values[right] = values[right], values[left]
                left += 1
                right -= 1
        if rank <= right:
            high = right
        elif rank >= left:
            low = left
        else:
            break
    return values[rank]


@_compiled
def _two_means_direction(rows, low, high, share, sample, state, mean, direction):
    """Direction between two halves of rows low .. high - 1, the lower holding `share`; from a sample.

    Starts at the difference of two random rows, turns it to the principal direction by power iteration,
    and then alternates between splitting at the quantile and joining the two sides' means.
    """
    count = min(sample, high - low)
    step = (high - low) / count
    dimension = rows.shape[1]
    mean[:] = 0
    for position in range(count):
        row = low + int(position * step)
        for axis in range(dimension):
            mean[axis] += rows[row, axis] / np.float32(count)
    first = low + int(state % np.uint64(high - low))
    second = low + int((state >> np.uint64(20)) % np.uint64(high - low))
    for axis in range(dimension):
        direction[axis] = rows[first, axis] - rows[second, axis]
    projections = np.empty(count, dtype=np.float32)
    lower_count = min(max(int(count * share + 0.5), 1), count - 1)
    for turn in range(7):
        largest = np.float32(0)
        for axis in range(dimension):
            largest = max(largest, abs(direction[axis]))
        if largest == 0:  # all rows alike so far: any direction will do
            direction[turn % dimension] = largest = np.float32(1)
        for axis in range(dimension):
            direction[axis] /= largest
        for position in range(count):
            projections[position] = _project_difference(rows, low + int(position * step), mean, direction)
        direction[:] = 0
        if turn < 3:
            for position in range(count):
                row = low + int(position * step)
                for axis in range(dimension):
                    direction[axis] += projections[position] * (rows[row, axis] - mean[axis])
            continue
        # The lower side's sum is minus the upper's, as the mean is taken off: both means point along it.
        limit = _smallest(projections.copy(), lower_count)
        above = 0
        for position in range(count):
            row = low + int(position * step)
            if projections[position] >= limit:
                above += 1
                for axis in range(dimension):
                    direction[axis] += rows[row, axis] - mean[axis]
        if above == count:  # nobody is below: any direction will do
            direction[:] = 0
            break


@_compiled
def _bisect_rows(rows, order, starts, sample, state):
    """Reorder `rows` (and `order` with them) so that starts[c] .. starts[c + 1] - 1 is cluster c.

    Each part is halved along its two-means direction, at the place where the list of sizes is halved.
    """
    dimension = rows.shape[1]
    mean = np.empty(dimension, dtype=np.float32)
    direction = np.empty(dimension, dtype=np.float32)
    stack = np.empty((128, 2), dtype=np.int64)
    stack[0, 0], stack[0, 1] = 0, len(starts) - 1
    depth = 1
    while depth:
        depth -= 1
        first, last = stack[depth, 0], stack[depth, 1]
        if last - first < 2:
            continue
        middle = (first + last) // 2
        low, cut, high = starts[first], starts[middle], starts[last]
        state = _random_bits(state)
        _two_means_direction(rows, low, high, (cut - low) / (high - low), sample, state, mean, direction)
        projections = np.empty(high - low, dtype=np.float32)
        for place in range(low, high):
            projections[place - low] = _project_difference(rows, place, mean, direction)
        limit = _smallest(projections.copy(), cut - low)
        # How many of those at the limit belong to the lower side, and how many of these stand above the cut
        ties = cut - low - (projections < limit).sum()
        upper_ties = ties - (projections[: cut - low] == limit).sum()
        upper = cut  # next place of the upper side that may hold a row of the lower side
        for place in range(low, cut):
            value = projections[place - low]
            if value < limit:
                continue
            if value == limit and ties > 0:
                ties -= 1
                continue
            while True:
                other = projections[upper - low]
                if other < limit:
                    break
                if other == limit and upper_ties > 0:
                    upper_ties -= 1
                    break
                upper += 1
            _swap_rows(rows, order, place, upper)
            upper += 1
        stack[depth, 0], stack[depth, 1] = first, middle
        stack[depth + 1, 0], stack[depth + 1, 1] = middle, last
        depth += 2


@_compiled
def _keep_smallest(values, names, held, value, name):
    """Insert into the ascending list `values` (and `names`) of which `held` are filled; return how many are."""
    if held == len(values):
        if value >= values[held - 1]:
            return held
    else:
        held += 1
    position = held - 1
    while position > 0 and values[position - 1] > value:
        values[position], names[position] = values[position - 1], names[position - 1]
        position -= 1
    values[position], names[position] = value, name
    return held


@_compiled
def _keep_nearest(means, halves, first, last, names, near):
    """For clusters first .. last - 1 put those of `names` with the nearest means into near[first:last]."""
    costs = np.empty((last - first, len(names)), dtype=np.float32)
    for start in range(0, len(names), 64):  # a few means at a time stay in the processor's cache
        for row in range(last - first):
            for column in range(start, min(start + 64, len(names))):
                name = names[column]
                costs[row, column] = halves[name] - _project(means, name, means[first + row])
    count = near.shape[1]
    for row in range(len(costs)):
        limit = _smallest(costs[row].copy(), count - 1)
        held, ties = 0, count - (costs[row] < limit).sum()
        for column in range(costs.shape[1]):
            if costs[row, column] > limit:
                continue
            if costs[row, column] == limit:
                if ties == 0:
                    continue
                ties -= 1
            near[first + row, held] = names[column]
            held += 1


@_compiled
def _choose_candidates(rows, people, means, halves, capacity, near, candidates):
    """Fill candidates (n, m): for each person the own cluster and the m - 1 nearest of those near it.

    The own cluster is among them so that somebody who leaves it may come back. `halves` are half the means'
    squared lengths: |m|^2 / 2 - x.m orders the means m by their distance to x.
    """
    costs = np.empty((capacity, near.shape[1]), dtype=np.float32)
    values = np.empty(candidates.shape[1], dtype=np.float32)
    for own in range(len(means)):
        for position in range(near.shape[1]):
            cluster = near[own, position]
            for slot in range(capacity):
                cost = halves[cluster] - _project(rows, own * capacity + slot, means[cluster])
                costs[slot, position] = cost
        for slot in range(capacity):
            person = people[own * capacity + slot]
            if person < 0:
                continue
            held = _keep_smallest(values, candidates[person], 0, np.float32(-np.inf), own)
            for position in range(near.shape[1]):
                if near[own, position] != own:
                    held = _keep_smallest(
                        values, candidates[person], held, costs[slot, position], near[own, position]
                    )


@_compiled(fastmath=_SUMS)
def _swap_vector(rows, place, sums, own, other, own_inverse, other_inverse, vector):
    """Fill u so that swapping row x of `own` with row y of `other` changes the SSE by c + y.u - h |y|^2.

    With means a and b and h = 1 / n_a + 1 / n_b, the change is 2 (x - y).(a - b) - h |x - y|^2; collecting
    what multiplies y gives u = 2 h x - 2 (a - b), and c = h |x|^2 - x.u. Returns x.u.
    """
    total = np.float32(0)
    twice = np.float32(2)
    weight = twice * (own_inverse + other_inverse)
    for axis in range(rows.shape[1]):
        value = rows[place, axis]
        component = weight * value - twice * (
            sums[own, axis] * own_inverse - sums[other, axis] * other_inverse
        )
        vector[axis] = component
        total += value * component
    return total


@_compiled
def _exchange(layout, place, other_place):
    """Swap the rows of two places, or move the first to the second where that one is unused."""
    rows, squares, people, sums, counts, capacity = layout
    own, other = place // capacity, other_place // capacity
    if people[other_place] >= 0:
        for axis in range(rows.shape[1]):
            mine, theirs = rows[place, axis], rows[other_place, axis]
            sums[own, axis] += theirs - mine
            sums[other, axis] -= theirs - mine
            rows[place, axis], rows[other_place, axis] = theirs, mine
        squares[place], squares[other_place] = squares[other_place], squares[place]
        people[place], people[other_place] = people[other_place], people[place]
        return
    last = own * capacity + counts[own] - 1
    for axis in range(rows.shape[1]):
        mine = rows[place, axis]
        sums[own, axis] -= mine
        sums[other, axis] += mine
        rows[other_place, axis] = mine
        rows[place, axis] = rows[last, axis]
        rows[last, axis] = 0
    squares[other_place], squares[place], squares[last] = squares[place], squares[last], 0
    people[other_place], people[place], people[last] = people[place], people[last], -1
    counts[own] -= 1
    counts[other] += 1


@_compiled
def _best_partner(layout, place, other, temperature, noise, at, limit, vector):
    """Place in cluster `other` whose swap with `place` changes the SSE least, and that change.

    With a temperature, Gumbel noise is taken off each change, so that the smallest sum is a draw from the
    Boltzmann distribution over the cluster's members (the Gumbel-max trick). Returns -1 and `limit` where
    no change is below `limit`.
    """
    rows, squares, _, sums, counts, capacity = layout
    own = place // capacity
    own_inverse = np.float32(1) / np.float32(counts[own])
    other_inverse = np.float32(1) / np.float32(counts[other])
    scale = own_inverse + other_inverse
    constant = scale * squares[place] - _swap_vector(
        rows, place, sums, own, other, own_inverse, other_inverse, vector
    )
    best = -1
    start = other * capacity
    for position in range(counts[other]):
        change = constant + _project(rows, start + position, vector) - scale * squares[start + position]
        change -= temperature * noise[at + position]
        if change < limit:
            limit, best = change, start + position
    if counts[other] < capacity and counts[own] == capacity:  # a larger cluster may give to a smaller one
        gain = np.float32(counts[other]) / np.float32(counts[other] + 1)
        loss = np.float32(counts[own]) / np.float32(counts[own] - 1)
        change = gain * _squared_to_mean(rows, place, sums, other, other_inverse)
        change -= loss * _squared_to_mean(rows, place, sums, own, own_inverse)
        change -= temperature * noise[at + counts[other]]
        if change < limit:
            limit, best = change, start + counts[other]
    return best, limit


@_compiled
def _local_search(layout, candidates, passes):
    """Apply each person's best swap with a candidate cluster until none lowers the SSE; return swaps made."""
    rows, _, people, _, counts, capacity = layout
    still, noise = np.float32(0), np.zeros(capacity + 1, dtype=np.float32)  # no temperature
    vector = np.empty(rows.shape[1], dtype=np.float32)
    changed = np.zeros(len(counts), dtype=np.int64)  # the last pass in which a cluster changed
    total = 0
    for turn in range(passes):
        swaps = 0
        for place in range(len(rows)):
            person = people[place]
            if person < 0:
                continue
            own = place // capacity
            limit, best = np.float32(-1e-6), -1  # of a mean squared distance of 1
            for position in range(candidates.shape[1]):
                other = candidates[person, position]
                if other == own or (changed[own] < turn - 1 and changed[other] < turn - 1):
                    continue
                partner, value = _best_partner(layout, place, other, still, noise, 0, limit, vector)
                if partner >= 0:
                    limit, best = value, partner
            if best >= 0:
                _exchange(layout, place, best)
                changed[own] = turn
                changed[best // capacity] = turn
                swaps += 1
        total += swaps
        if swaps == 0:
            break
    return total


_NOISE = 8192  # entries of the table of Gumbel noise, a power of two


@_compiled
def _anneal(layout, candidates, noise, place, moves, hot, cold, state):
    """`moves` heat-bath moves while the temperature falls from `hot` to `cold`; return where it stopped.

    A move takes the next person and one of the candidate clusters, and draws one of its members to swap
    with, or nobody, by the Boltzmann distribution at the temperature.
    """
    rows, _, people, _, _, capacity = layout
    vector = np.empty(rows.shape[1], dtype=np.float32)
    temperature = np.float32(hot)
    fall = np.float32((cold / hot) ** (1024.0 / max(moves, 1024)))
    choices = np.uint64(candidates.shape[1])
    for move in range(moves):
        if move % 1024 == 1023:
            temperature *= fall
        place += 1
        if place >= len(rows):
            place = 0
        person = people[place]
        if person < 0:
            continue
        state = _random_bits(state)
        other = candidates[person, int(((state >> np.uint64(32)) * choices) >> np.uint64(32))]
        if other == place // capacity:
            continue
        at = int(state & np.uint64(_NOISE - 1))
        stay = -temperature * noise[at]
        partner, _ = _best_partner(layout, place, other, temperature, noise, at + 1, stay, vector)
        if partner >= 0:
            _exchange(layout, place, partner)
    return place, state


_GUMBEL = np.random.default_rng(20250).gumbel(size=_NOISE).astype(np.float32)


@dataclass
class _Layout:
    """Rows ordered by cluster, with one unused place in the smaller clusters (see above)."""

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

    def means(self):
        return self.sums / self.counts[:, None].astype(np.float32)

    def sum_clusters(self):
        """Sum each cluster's rows afresh, so that rounding does not build up."""
        self.sums[:] = self.rows.reshape(len(self.counts), self.capacity, -1).sum(axis=1)

    def cost(self):
        """SSE less the sum of all squared lengths, which no partition changes."""
        return -float((squared_lengths(self.sums.astype(np.float64)) / self.counts).sum())

    def labels(self):
        used = np.flatnonzero(self.people >= 0)
        labels = np.empty(len(used), dtype=np.int64)
        labels[self.people[used]] = used // self.capacity
        return labels

    def spreads(self):
        """Mean squared distance of each cluster's members to its mean, (clusters,)."""
        squares = self.squares.reshape(len(self.counts), -1).sum(axis=1)
        return np.maximum(squares / self.counts - squared_lengths(self.means()), 0.0)


def _lay_out(rows, sizes):
    """Spread rows that are sorted by cluster over places; person i is row i."""
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


_GROUP, _GROUPS_TRIED, _REACH = 64, 40, 128  # near clusters: the nearest 128 in the nearest 40 groups of 64


def _find_near(layout):
    """Each cluster's nearest clusters, itself among them, (clusters, up to 128) int32.

    Clusters next to each other in number are near each other, as the bisection numbers them: only those in
    the nearest groups of numbers are looked at, so that time grows linearly but for the groups themselves.
    """
    means = layout.means()
    clusters = len(means)
    halves = squared_lengths(means) / 2
    starts = np.arange(0, clusters, _GROUP)
    centres = np.add.reduceat(means, starts, axis=0) / np.diff(np.append(starts, clusters))[:, None]
    near_groups = _nearest_columns(squared_distances(centres, centres), _GROUPS_TRIED)
    near = np.empty((clusters, min(_REACH, clusters)), dtype=np.int32)
    for start, groups in zip(starts, near_groups, strict=True):
        others = (np.sort(groups)[:, None] * _GROUP + np.arange(_GROUP)).reshape(-1)
        others = others[others < clusters]
        _keep_nearest(means, halves, start, min(start + _GROUP, clusters), others, near)
    return near


def _find_candidates(layout, near, count):
    """Each person's own cluster and `count` - 1 near ones, (n, count)."""
    means = layout.means()
    candidates = np.empty((int(layout.counts.sum()), min(count, near.shape[1])), dtype=np.int32)
    halves = squared_lengths(means) / 2
    _choose_candidates(layout.rows, layout.people, means, halves, layout.capacity, near, candidates)
    return candidates


def _improve(layout, near, passes):
    candidates = _find_candidates(layout, near, _SEARCHED)
    swaps = _local_search(layout.arrays, candidates, passes)
    layout.sum_clusters()
    return swaps


# Temperatures in units of the median cluster's mean squared distance to its mean.
_HOT, _WARM, _COLD = 0.12, 0.06, 0.015
_LONGEST, _AGAIN = 20_000, 5_000  # moves a person in the first annealing, at most, and in each further one
_STAGE, _STAGES = 33, 60  # moves a person in a stage, at least, and stages at most
_SEARCHED, _ANNEALED = 8, 4  # candidate clusters a person in local search and in annealing


def _anneal_layout(layout, near, hot, cold, moves, seed, seconds=None):
    """Simulated annealing in stages, with fresh candidates at each; the layout is changed in place."""
    if not hot > 0 or not (moves or seconds):
        return
    noise = np.concatenate([_GUMBEL, np.resize(_GUMBEL, layout.capacity + 2)])
    place, state = -1, seed
    stages = _stages(hot, cold, moves, int(layout.counts.sum()), seconds)
    for stage, (begin, end, count) in enumerate(stages):
        if stage:
            near = _find_near(layout)
        candidates = _find_candidates(layout, near, _ANNEALED)
        place, state = _anneal(layout.arrays, candidates, noise, place, count, begin, end, np.uint64(state))
        layout.sum_clusters()


def _stages(hot, cold, moves, people, seconds):
    """Yield each stage's first and last temperature and its moves, until the moves or the seconds are over."""
    if seconds is not None:
        start = perf_counter()
        while (past := (perf_counter() - start) / seconds) < 1:
            temperature = hot * (cold / hot) ** past
            yield temperature, temperature, 20 * people
        return
    stages = int(np.clip(moves // (_STAGE * people), 3, _STAGES))
    for begin, end in pairwise(hot * (cold / hot) ** (np.arange(stages + 1) / stages)):
        yield begin, end, moves // stages


_WIDEST = 1024  # the most axes to rotate; more columns are rotated only where people are few


def _principal_rows(points):
    """Centre, rotate to principal axes and scale to a mean squared length of 1; (n, axes) float32.

    Distances stay the same but for the scale. Trailing axes that hold less than 1e-5 of the variance
    together are left out, and columns of zeros fill up to a multiple of 8. Works in blocks of rows; where
    all rows are equal the result is zeros.
    """
    people, dimension = points.shape
    largest = max(abs(float(points.max())), abs(float(points.min()))) or 1.0
    blocks = [slice(start, start + 4096) for start in range(0, people, 4096)]

    def scaled(block):
        return points[block].astype(np.float64) / largest

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
    kept = int((np.cumsum(values) < (1 - 1e-5) * total).sum()) + 1
    axes = axes[:, :kept] * np.sqrt(people / total)
    rows = np.zeros((people, -(-axes.shape[1] // 8) * 8), dtype=np.float32)
    for block in blocks:
        rows[block, : axes.shape[1]] = (scaled(block) - mean) @ axes
    return rows


_SAMPLE = 2048  # rows that find the direction of a bisection


def _solve(rows, sizes, moves, seed, seconds=None):
    """Labels (n,) of a balanced partition of principal rows, which are reordered in place."""
    if len(sizes) == 1:
        return np.zeros(len(rows), dtype=np.int64)
    if numba is None:
        generator = np.random.default_rng(seed)
        grouping = _Grouping(_bisect(rows, sizes, generator), len(sizes))
        cost = _SumOfSquares(rows, None, grouping)
        _search_swaps(rows, grouping, cost, None, generator, _passes(moves, len(rows)))
        return grouping.labels
    order = np.arange(len(rows))
    _bisect_rows(rows, order, _starts(sizes), _SAMPLE, np.uint64(seed))
    labels = np.empty(len(rows), dtype=np.int64)
    labels[order] = _optimise(_lay_out(rows, sizes), moves, seed, seconds)
    return labels


def _starts(sizes):
    return np.concatenate(([0], np.cumsum(sizes)))


def _passes(moves, people):
    """Passes of the interpreted search that come to about `moves`, at least 4 and at most 20."""
    return int(np.clip(moves // (_SEARCHED * people), 4, 20))


def _optimise(layout, moves, seed, seconds=None):
    """Search, anneal, search; labels in the order in which the layout was filled.

    One annealing takes at most 20,000 moves a person. What is left of the moves goes into further ones of
    5,000 that start half as hot at the best partition so far.
    """
    people = int(layout.counts.sum())
    near = _find_near(layout)
    _improve(layout, near, passes=1)
    spread = float(np.median(layout.spreads())) or float(layout.spreads().mean())
    first = min(moves, _LONGEST * people)
    _anneal_layout(layout, near, spread * _HOT, spread * _COLD, first, seed, seconds)
    _settle(layout)
    best, least = layout, layout.cost()
    again = 0 if seconds is not None else (moves - first) // (_AGAIN * people)
    for turn in range(again):
        layout = deepcopy(best)
        near = _find_near(layout)
        _anneal_layout(layout, near, spread * _WARM, spread * _COLD, _AGAIN * people, seed + turn + 1)
        _settle(layout)
        cost = layout.cost()
        if cost < least:
            best, least = layout, cost
    return best.labels()


def _settle(layout):
    """Local search until next to nothing is gained."""
    near = _find_near(layout)
    for _ in range(3):  # candidates change as the clusters do
        if _improve(layout, near, passes=20) < 5e-3 * len(layout.people):
            break


def _solve_piece(rows, sizes, moves, seed):
    """`_solve` on a copy, as rows that come from another process may be read-only."""
    return _solve(np.array(rows), sizes, moves, seed)


def _solve_pieces(rows, sizes, moves, seed, pieces, n_jobs):
    """Bisect into pieces, solve these in parallel, then let people swap across the borders."""
    from joblib import Parallel, delayed

    generator = np.random.default_rng(seed)
    cuts = np.unique(np.linspace(0, len(sizes), pieces + 1).round().astype(np.int64))
    starts = _starts(sizes)[cuts]
    order = np.argsort(_bisect(rows, np.diff(starts), generator), kind="stable")
    rows = rows[order]
    solved = Parallel(n_jobs=n_jobs)(
        delayed(_solve_piece)(
            rows[low:high], sizes[first:last], moves * int(high - low) // len(rows), int(piece_seed)
        )
        for low, high, first, last, piece_seed in zip(
            starts[:-1], starts[1:], cuts[:-1], cuts[1:], _draw_seeds(generator, len(cuts) - 1), strict=True
        )
    )
    labels = np.concatenate([part + first for part, first in zip(solved, cuts[:-1], strict=True)])
    within = np.argsort(labels, kind="stable")
    counts = np.bincount(labels)
    if numba is not None:
        layout = _lay_out(rows[within], counts)
        _improve(layout, _find_near(layout), passes=20)
        labels[within] = layout.labels()
    result = np.empty(len(rows), dtype=np.int64)
    result[order] = labels
    return result


# ---------------------------------------------------------------------------------------------------------
# Without numba, and under rules or another objective: numpy, one person and all near partners at a time
# ---------------------------------------------------------------------------------------------------------


def _bisect(points, sizes, generator):
    """Split people, and the list of sizes with them, in halves until each part is one cluster."""
    labels = np.empty(len(points), dtype=np.int64)
    parts = [(np.arange(len(points)), 0, len(sizes))]
    while parts:
        members, first, last = parts.pop()
        if last - first == 1:
            labels[members] = first
            continue
        middle = (first + last) // 2
        chosen = _halve(points[members], int(sizes[first:middle].sum()), generator)
        parts.append((members[chosen], first, middle))
        parts.append((members[~chosen], middle, last))
    return labels


def _halve(points, count, generator, rounds=4):
    """Mask of the `count` points on one side: two-means in which the sides' sizes are fixed."""
    points = points - points.mean(axis=0)
    direction = generator.standard_normal(points.shape[1]).astype(points.dtype)
    for _ in range(3):  # power iteration towards the direction of largest variance
        direction = points.T @ (points @ direction)
        direction /= max(np.linalg.norm(direction), np.finfo(points.dtype).tiny)
    chosen = np.zeros(len(points), dtype=bool)
    for _ in range(rounds):
        previous, chosen = chosen, np.zeros(len(points), dtype=bool)
        chosen[np.argsort(points @ direction, kind="stable")[:count]] = True
        if np.array_equal(previous, chosen):
            break
        direction = points[~chosen].mean(axis=0) - points[chosen].mean(axis=0)
    return chosen


class _Grouping:
    """Who is in which cluster: labels (n,), and slots (clusters, capacity) with -1 for an unused place."""

    def __init__(self, labels, clusters):
        self.labels = labels.copy()
        self.counts = np.bincount(labels, minlength=clusters)
        order = np.argsort(labels, kind="stable")
        rank = np.arange(len(labels)) - np.repeat(np.cumsum(self.counts) - self.counts, self.counts)
        self.slots = np.full((clusters, int(self.counts.max())), -1, dtype=np.int64)
        self.slots[labels[order], rank] = order

    def members(self, cluster):
        slots = self.slots[cluster]
        return slots[slots >= 0]

    def partners(self, person, near):
        """People in the clusters `near`, (m, capacity), and which of them may be swapped with the person.

        An unused place (-1) may be moved to from a cluster without one, so that sizes keep differing by at
        most one.
        """
        partners = self.slots[near]
        full = self.counts[self.labels[person]] == self.slots.shape[1]
        return partners, (partners >= 0) | full

    def exchange(self, person, cluster, position):
        own, partner = self.labels[person], self.slots[cluster, position]
        self.slots[own, np.flatnonzero(self.slots[own] == person)[0]] = partner
        self.slots[cluster, position] = person
        self.labels[person] = cluster
        if partner >= 0:
            self.labels[partner] = own
        else:
            self.counts[own] -= 1
            self.counts[cluster] += 1


class _SumOfSquares:
    """The objective "sse": sum of w |x - m|^2, m the weighted mean of the cluster."""

    def __init__(self, rows, weights, grouping):
        self.grouping = grouping
        weights = np.ones(len(rows)) if weights is None else weights
        self.weights = np.append(weights, 0.0)  # entry -1 is the unused place
        self.weighted = np.vstack([rows * weights[:, None], np.zeros((1, rows.shape[1]))])
        clusters = len(grouping.counts)
        self.masses = np.bincount(grouping.labels, weights, minlength=clusters)
        self.sums = np.zeros((clusters, rows.shape[1]))
        np.add.at(self.sums, grouping.labels, self.weighted[:-1])

    def changes(self, person, near, partners):
        own = self.grouping.labels[person]
        step = self.weighted[partners] - self.weighted[person]  # (m, capacity, d)
        mass = self.weights[partners] - self.weights[person]  # (m, capacity)
        change = squared_lengths(self.sums[own]) / self.masses[own]
        change = change - squared_lengths(self.sums[own] + step) / (self.masses[own] + mass)
        change += (squared_lengths(self.sums[near]) / self.masses[near])[:, None]
        return change - squared_lengths(self.sums[near][:, None, :] - step) / (
            self.masses[near][:, None] - mass
        )

    def exchange(self, person, partner, own, other):
        step = self.weighted[partner] - self.weighted[person]
        mass = self.weights[partner] - self.weights[person]
        self.sums[own] += step
        self.sums[other] -= step
        self.masses[own] += mass
        self.masses[other] -= mass


class _Diameters:
    """The objective "diameter": sum over clusters of the largest distance between two members."""

    def __init__(self, rows, weights, grouping):
        if weights is not None:
            raise ValueError('weights have no meaning for objective="diameter"; leave them out.')
        self.rows = np.vstack([rows, np.zeros((1, rows.shape[1]), rows.dtype)])
        self.grouping = grouping
        self.diameters = np.array([self._diameter(cluster) for cluster in range(len(grouping.counts))])

    def _diameter(self, cluster):
        return np.sqrt(squared_diameter(self.rows[self.grouping.members(cluster)]))

    def changes(self, person, near, partners):
        own = self.grouping.labels[person]
        stay = self.grouping.members(own)
        stay = self.rows[stay[stay != person]]
        flat = self.rows[partners.reshape(-1)]
        reach = np.sqrt(squared_distances(flat, stay).max(axis=1, initial=0.0)).reshape(partners.shape)
        reach[partners < 0] = 0.0
        own_after = np.maximum(reach, np.sqrt(squared_diameter(stay)) if len(stay) > 1 else 0.0)
        other_after = np.stack([self._after_joining(person, cluster) for cluster in near])
        return own_after - self.diameters[own] + other_after - self.diameters[near][:, None]

    def _after_joining(self, person, cluster):
        """Diameter with the person in and each slot's member out, (capacity,)."""
        slots = self.grouping.slots[cluster]
        members = self.rows[slots]
        distances = np.sqrt(squared_distances(members, members))
        distances[slots < 0] = distances[:, slots < 0] = 0.0
        joined = np.sqrt(squared_lengths(members - self.rows[person]))
        joined[slots < 0] = 0.0
        largest = np.full(len(slots), distances.max())
        for end in np.unravel_index(np.argmax(distances), distances.shape):
            largest[end] = np.delete(np.delete(distances, end, 0), end, 1).max(initial=0.0)
        return np.maximum(largest, _largest_without_each(joined))

    def exchange(self, person, partner, own, other):
        self.diameters[[own, other]] = self._diameter(own), self._diameter(other)


def _largest_without_each(values):
    """For each position the largest of the other values."""
    result = np.full(len(values), values.max())
    top = int(np.argmax(values))
    result[top] = np.delete(values, top).max(initial=0.0)
    return result


OBJECTIVES = {"sse": _SumOfSquares, "diameter": _Diameters}


class _Breaches:
    """How far the clusters break the rules: values of attributes in each, people kept apart."""

    def __init__(self, rules, grouping):
        self.grouping = grouping
        self.diversity, self.closeness = rules.diversity, rules.closeness
        self.tables = []  # of each attribute: values of the people (n + 1,), counts (clusters, values), shares
        for codes in rules.attributes:
            values = int(codes.max()) + 1
            known = codes >= 0
            counts = np.zeros((len(grouping.counts), values), dtype=np.int64)
            np.add.at(counts, (grouping.labels[known], codes[known]), 1)
            shares = counts.sum(axis=0) / counts.sum()
            self.tables.append((np.append(np.where(known, codes, values), values), counts, shares))
        self.apart = {}
        for first, second in rules.apart.tolist():
            self.apart.setdefault(first, []).append(second)
            self.apart.setdefault(second, []).append(first)

    def _excess(self, counts, shares):
        """How much attribute counts (..., values) break the rules: values that lack, variation in excess."""
        excess = np.maximum(self.diversity - (counts > 0).sum(axis=-1), 0).astype(np.float64)
        if self.closeness is not None:
            totals = np.maximum(counts.sum(axis=-1, keepdims=True), 1)
            variation = np.abs(counts / totals - shares).sum(axis=-1) / 2
            excess += np.maximum(variation - self.closeness - 1e-12, 0.0)
        return excess

    def by_cluster(self):
        """How far each cluster breaks the rules, (clusters,); 0 where it keeps them."""
        total = np.zeros(len(self.grouping.counts))
        for _, counts, shares in self.tables:
            total += self._excess(counts, shares)
        labels = self.grouping.labels
        for person, others in self.apart.items():
            total[labels[person]] += (labels[others] == labels[person]).sum()
        return total

    def changes(self, person, near, partners):
        change = np.zeros(partners.shape)
        own = self.grouping.labels[person]
        for codes, counts, shares in self.tables:
            values = counts.shape[1]
            arriving = np.vstack([np.eye(values, dtype=np.int64), np.zeros((1, values), np.int64)])
            mine = arriving[codes[person]]
            own_after = self._excess(counts[own] - mine + arriving, shares)
            other_after = self._excess(np.maximum(counts[near][:, None] + mine - arriving, 0), shares)
            change += (own_after - self._excess(counts[own], shares))[codes[partners]]
            other_after -= self._excess(counts[near], shares)[:, None]
            change += np.take_along_axis(other_after, codes[partners], axis=1)
        if self.apart:
            change += self._apart_changes(person, own, near, partners)
        return change

    def _apart_changes(self, person, own, near, partners):
        labels = self.grouping.labels
        change = np.zeros(partners.shape)
        mine = self.apart.get(person, [])
        change -= (labels[mine] == own).sum()
        change += (labels[mine][:, None] == near).sum(axis=0)[:, None]
        for row, column in np.argwhere(np.isin(partners, list(self.apart))):
            theirs = self.apart[int(partners[row, column])]
            change[row, column] += (labels[theirs] == own).sum() - (labels[theirs] == near[row]).sum()
            change[row, column] -= 2 * (person in theirs)  # these two trade places and stay apart
        return change

    def exchange(self, person, partner, own, other):
        for codes, counts, _ in self.tables:
            for who, leaves, joins in ((person, own, other), (partner, other, own)):
                if codes[who] < counts.shape[1]:  # the value is known, and it is not the unused place
                    counts[leaves, codes[who]] -= 1
                    counts[joins, codes[who]] += 1


def _swap_best(person, near, grouping, cost, breaches):
    """Make the person's best swap with a cluster of `near`: rules first, then the objective; was there one?"""
    own = grouping.labels[person]
    near = near[near != own]
    partners, allowed = grouping.partners(person, near)
    change = np.where(allowed, cost.changes(person, near, partners), np.inf)
    if breaches is not None:
        broken = breaches.changes(person, near, partners)
        change += np.where(np.abs(broken) < 1e-9, 0.0, 1e9 * broken)
    if not change.size or not change.min() < -1e-7:
        return False
    row, column = np.unravel_index(np.argmin(change), change.shape)
    other, partner = int(near[row]), int(partners[row, column])
    grouping.exchange(person, other, column)
    cost.exchange(person, partner, own, other)
    if breaches is not None:
        breaches.exchange(person, partner, own, other)
    return True


def _search_swaps(rows, grouping, cost, breaches, generator, passes):
    """Swap people with near clusters while the objective falls; the grouping is changed in place."""
    clusters = len(grouping.counts)
    if clusters < 2:
        return
    for _ in range(passes):
        means = mean_of_groups(rows, grouping.labels, clusters)
        near = np.concatenate(
            [
                _nearest_columns(squared_distances(rows[start : start + 1024], means), _SEARCHED + 1)
                for start in range(0, len(rows), 1024)
            ]
        )
        people = generator.permutation(len(rows))
        if not sum(_swap_best(person, near[person], grouping, cost, breaches) for person in people):
            break


def _repair(grouping, cost, breaches, generator, rounds=30):
    """Let people of clusters that break a rule swap with anybody, until no rule is broken."""
    clusters = len(grouping.counts)
    for _ in range(rounds):
        broken = np.flatnonzero(breaches.by_cluster() > 0)
        if not len(broken):
            return
        for cluster in broken:
            for person in grouping.members(cluster):
                near = generator.permutation(clusters)[:256]
                _swap_best(person, near, grouping, cost, breaches)
    still = int((breaches.by_cluster() > 0).sum())
    if still:
        raise ValueError(
            f"No partition was found that keeps the rules: {still} of {clusters} clusters break them. Ask for "
            "a larger cluster_size, less diversity, a larger closeness, or fewer people apart."
        )
