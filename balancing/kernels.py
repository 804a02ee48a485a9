"""Bisection, local search and annealing in loops that numba compiles.

The loops work on rows laid out by cluster: cluster c owns the places ``c * capacity`` to ``(c + 1) * capacity - 1``,
where capacity is the largest cluster size, and an unused place (always a cluster's last) holds zeros. A cluster's
members lie side by side, so scanning all of them reads memory in order.

A `layout` is the tuple (rows, squares, people, sums, counts, capacity) of `annealing.Layout.arrays`.
"""

from __future__ import annotations

from functools import partial

import numpy as np

try:
    import numba
except ImportError:  # `annealing` then uses numpy instead, which is slower
    numba = None

#: Entries of the table of Gumbel noise, a power of two.
NOISE = 8192

#: Members of a cluster with which a move compares a person. Of a larger cluster it compares these many, chosen anew
#: each time, so that the time per person does not grow with the cluster size.
COMPARED = 100

# Sums of products may be reordered, so that the processor adds several at a time. Results differ from
# the sequential sum by rounding only; NaN and infinity keep their meaning.
_SUMS = {"reassoc", "contract", "nsz"}


def _compiled(function=None, **options):
    """Compile with numba and cache the machine code beside this file; without numba, return the function as it is."""
    if function is None:
        return partial(_compiled, **options)
    if numba is None:
        return function
    try:
        return numba.njit(cache=True, nogil=True, **options)(function)
    except RuntimeError:  # the cache cannot be written
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
    """Dot product of a row and a vector."""
    total = np.float32(0)
    for axis in range(rows.shape[1]):
        total += rows[place, axis] * vector[axis]
    return total


@_compiled(fastmath=_SUMS)
def _project_difference(rows, place, origin, vector):
    """Dot product of a row, seen from the origin, and a vector."""
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
def _smallest(values, count):
    """Mask of the `count` smallest values; ties go to the earlier position."""
    limit = np.partition(values, count - 1)[count - 1]
    chosen = values < limit
    ties = np.flatnonzero(values == limit)
    chosen[ties[: count - chosen.sum()]] = True
    return chosen


# ----------------------------------------------------------------------------------------------------------
# Bisection
# ----------------------------------------------------------------------------------------------------------


@_compiled
def _two_means_direction(rows, low, high, share, sample, state, mean, direction):
    """Fill `direction` (d,) from one half of rows low .. high - 1 to the other, and their `mean` (d,), from a sample.

    The lower half holds `share` of the rows. The direction starts as the difference of two random rows, is turned to
    the principal direction by power iteration, and then alternates between splitting at the quantile and joining
    the means of the two sides.
    """
    # Take evenly spaced rows as the sample, and their mean.
    count = min(sample, high - low)
    step = (high - low) / count
    dimension = rows.shape[1]
    mean[:] = 0
    for position in range(count):
        row = low + int(position * step)
        for axis in range(dimension):
            mean[axis] += rows[row, axis] / np.float32(count)
    # Start at the difference of two random rows.
    first = low + int(state % np.uint64(high - low))
    second = low + int((state >> np.uint64(20)) % np.uint64(high - low))
    for axis in range(dimension):
        direction[axis] = rows[first, axis] - rows[second, axis]
    projections = np.empty(count, dtype=np.float32)
    lower_count = min(max(int(count * share + 0.5), 1), count - 1)
    for turn in range(7):
        # Scale the direction, so that nothing overflows, and project the sample on it. (count,)
        largest = np.float32(0)
        for axis in range(dimension):
            largest = max(largest, abs(direction[axis]))
        if largest == 0:  # all rows have been equal so far: any direction will do
            direction[turn % dimension] = largest = np.float32(1)
        for axis in range(dimension):
            direction[axis] /= largest
        for position in range(count):
            projections[position] = _project_difference(rows, low + int(position * step), mean, direction)
        # Weigh rows by their projection (power iteration), then by side. The lower side's sum is minus
        # the upper's, as the mean is subtracted: the mean of the upper side lies along its sum.
        weights = projections
        direction[:] = 0
        if turn >= 3:
            limit = np.partition(projections, lower_count)[lower_count]
            weights = (projections >= limit).astype(np.float32)
            if weights.min() == 1:  # no row is below the limit: any direction will do
                break
        for position in range(count):
            row = low + int(position * step)
            if weights[position] != 0:
                for axis in range(dimension):
                    direction[axis] += weights[position] * (rows[row, axis] - mean[axis])


@_compiled
def bisect_rows(rows, order, starts, sample, state):
    """Reorder rows (n, d), and `order` (n,) with them, so that starts[c] .. starts[c + 1] - 1 is cluster c.

    Each part is halved along its two-means direction, where the list of sizes is halved.
    """
    mean = np.empty(rows.shape[1], dtype=np.float32)
    direction = np.empty(rows.shape[1], dtype=np.float32)
    stack = np.empty((128, 2), dtype=np.int64)  # first and last cluster of the parts still to be halved
    stack[0, 0], stack[0, 1] = 0, len(starts) - 1
    depth = 1
    while depth:
        depth -= 1
        first, last = stack[depth, 0], stack[depth, 1]
        if last - first < 2:
            continue
        middle = (first + last) // 2
        low, cut, high = starts[first], starts[middle], starts[last]
        # Project the part's rows on its direction. (high - low,)
        state = _random_bits(state)
        _two_means_direction(rows, low, high, (cut - low) / (high - low), sample, state, mean, direction)
        projections = np.empty(high - low, dtype=np.float32)
        for place in range(low, high):
            projections[place - low] = _project_difference(rows, place, mean, direction)
        # Swap rows until the smallest projections lie below the cut.
        lower = _smallest(projections, cut - low)
        leaving = low + np.flatnonzero(~lower[: cut - low])
        coming = cut + np.flatnonzero(lower[cut - low :])
        for position in range(len(leaving)):
            a, b = leaving[position], coming[position]
            for axis in range(rows.shape[1]):
                rows[a, axis], rows[b, axis] = rows[b, axis], rows[a, axis]
            order[a], order[b] = order[b], order[a]
        stack[depth, 0], stack[depth, 1] = first, middle
        stack[depth + 1, 0], stack[depth + 1, 1] = middle, last
        depth += 2


# ----------------------------------------------------------------------------------------------------------
# Candidate clusters
# ----------------------------------------------------------------------------------------------------------


@_compiled
def keep_nearest(means, halves, first, last, names, near):
    """For clusters first .. last - 1, put those of `names` with the nearest means into near[first:last].

    `halves` are half the means' squared lengths: |m|^2 / 2 - x.m orders the means m by their distance to x.
    """
    costs = np.empty((last - first, len(names)), dtype=np.float32)
    for start in range(0, len(names), 64):  # a few means at a time stay in the processor's cache
        for row in range(last - first):
            for column in range(start, min(start + 64, len(names))):
                name = names[column]
                costs[row, column] = halves[name] - _project(means, name, means[first + row])
    for row in range(len(costs)):
        near[first + row] = names[_smallest(costs[row], near.shape[1])]


@_compiled
def _keep_smallest(values, names, held, value, name):
    """Insert into the ascending list `values` (and `names`), of which `held` are filled; return how many are now."""
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
def choose_candidates(rows, people, means, halves, capacity, near, candidates):
    """Fill candidates (n, m): for each person their own cluster and the m - 1 nearest of those near it.

    The own cluster is a candidate so that a person who leaves it may return. For `halves` see `keep_nearest`.
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
            names = candidates[person]
            held = _keep_smallest(values, names, 0, np.float32(-np.inf), own)
            for position in range(near.shape[1]):
                if near[own, position] != own:
                    held = _keep_smallest(values, names, held, costs[slot, position], near[own, position])


# ----------------------------------------------------------------------------------------------------------
# Swaps
# ----------------------------------------------------------------------------------------------------------


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
    """Swap the rows of two places, or move the first row to the second place if that is unused."""
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
    last = own * capacity + counts[own] - 1  # this row fills the gap
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
def _best_partner(layout, place, other, temperature, noise, at, limit, vector, first):
    """Place in cluster `other` whose swap with `place` changes the SSE least, and that change.

    Of a cluster with more than `COMPARED` members, that many are compared, starting with number `first`.

    With a temperature, Gumbel noise is subtracted from each change, so that the smallest sum is a draw from the
    Boltzmann distribution over the cluster's members (the Gumbel-max trick). Returns -1 and `limit` if
    no change is below `limit`.
    """
    rows, squares, _, sums, counts, capacity = layout
    own = place // capacity
    own_inverse = np.float32(1) / np.float32(counts[own])
    other_inverse = np.float32(1) / np.float32(counts[other])
    # Swap with each member.
    scale = own_inverse + other_inverse
    constant = scale * squares[place] - _swap_vector(
        rows, place, sums, own, other, own_inverse, other_inverse, vector
    )
    best = -1
    start, end = other * capacity, other * capacity + counts[other]
    compared = min(counts[other], COMPARED)
    member = start + first if compared < counts[other] else start
    for position in range(compared):
        change = constant + _project(rows, member, vector) - scale * squares[member]
        change -= temperature * noise[at + position]
        if change < limit:
            limit, best = change, member
        member = member + 1 if member + 1 < end else start
    # Or move to the unused place, from a larger cluster to a smaller one.
    if counts[other] < capacity and counts[own] == capacity:
        gain = np.float32(counts[other]) / np.float32(counts[other] + 1)
        loss = np.float32(counts[own]) / np.float32(counts[own] - 1)
        change = gain * _squared_to_mean(rows, place, sums, other, other_inverse)
        change -= loss * _squared_to_mean(rows, place, sums, own, own_inverse)
        change -= temperature * noise[at + compared]
        if change < limit:
            limit, best = change, end
    return best, limit


@_compiled
def swap(layout, candidates, changed, turn):
    """Make each person's best swap with a candidate cluster, if it lowers the SSE; return the number of swaps.

    Passes are counted by `turn`; `changed` (clusters,) is the last one in which a cluster changed, 0 at first.
    """
    rows, _, people, _, _, capacity = layout
    still, noise = np.float32(0), np.zeros(capacity + 1, dtype=np.float32)  # no temperature
    vector = np.empty(rows.shape[1], dtype=np.float32)
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
            partner, value = _best_partner(layout, place, other, still, noise, 0, limit, vector, 0)
            if partner >= 0:
                limit, best = value, partner
        if best >= 0:
            _exchange(layout, place, best)
            changed[own] = changed[best // capacity] = turn
            swaps += 1
    return swaps


@_compiled
def trade(layout, near, changed, turn):
    """Let near clusters trade members, two clusters at a time, if that lowers the SSE; return the number of swaps.

    If two clusters with means a and b exchange equally many members, whose sums are A and B, the SSE changes by at most
    2 (A - B).(a - b). So those with the smallest projections on a - b leave the first cluster for those of the
    second with the largest, as long as the latter are larger. Unlike `swap`, this considers every member
    of a large cluster, in a time per person that does not grow with its size. For `changed` and `turn` see `swap`.
    """
    rows, _, _, sums, counts, capacity = layout
    projections = np.empty((2, capacity), dtype=np.float32)
    swaps = 0
    for own in range(len(counts)):
        for other in near[own]:
            if other <= own or (changed[own] < turn - 1 and changed[other] < turn - 1):
                continue
            # Project the members on the difference of the means. (2, capacity)
            direction = sums[own] / np.float32(counts[own]) - sums[other] / np.float32(counts[other])
            for position in range(counts[own]):
                projections[0, position] = _project(rows, own * capacity + position, direction)
            for position in range(counts[other]):
                projections[1, position] = _project(rows, other * capacity + position, direction)
            # Exchange the smallest of the first cluster for the largest of the second.
            leaving = np.argsort(projections[0, : counts[own]])
            coming = np.argsort(-projections[1, : counts[other]])
            for a, b in zip(leaving, coming):  # noqa: B905 (compiled)
                if projections[1, b] - projections[0, a] < np.float32(1e-6):
                    break
                _exchange(layout, own * capacity + a, other * capacity + b)
                changed[own] = changed[other] = turn
                swaps += 1
    return swaps


@_compiled
def anneal(layout, candidates, noise, place, moves, hot, cold, state):
    """Make `moves` heat-bath moves while the temperature falls from `hot` to `cold`; return last place and state.

    A move takes the next person and one of their candidate clusters, and draws one of its members to swap
    with, or nobody, from the Boltzmann distribution at the temperature.
    """
    rows, _, people, _, counts, capacity = layout
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
        at = int(state & np.uint64(NOISE - 1))
        stay = -temperature * noise[at]
        first = np.int64(state >> np.uint64(13)) % counts[other]
        partner, _ = _best_partner(layout, place, other, temperature, noise, at + 1, stay, vector, first)
        if partner >= 0:
            _exchange(layout, place, partner)
    return place, state
