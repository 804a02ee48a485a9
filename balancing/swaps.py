"""Bisection and swaps in numpy, one person and all near partners at a time.

This code runs with rules, weights or an objective other than the SSE, and always if numba is missing.

An objective has ``changes(person, near, partners)``, the change of the objective by each swap (m, capacity), and
``exchange(person, partner, own, other)``, which updates its sums after a swap. `rules.Breaches` has the same methods.
"""

from __future__ import annotations

import numpy as np

from balancing.rules import Breaches, Rules
from distances import mean_of_groups, nearest_columns, squared_distances, squared_lengths

_CANDIDATES = 8  # clusters per person in local search


def bisect(points: np.ndarray, sizes: np.ndarray, generator: np.random.Generator) -> np.ndarray:
    """Split points (n, d), and the list of sizes with them, in halves until each part is one cluster: labels (n,)."""
    labels = np.empty(len(points), dtype=np.int64)
    parts = [(np.arange(len(points)), 0, len(sizes))]
    while parts:
        members, first, last = parts.pop()
        if last - first == 1:
            labels[members] = first
            continue
        middle = (first + last) // 2
        chosen = _halve(points[members], int(sizes[first:middle].sum()), generator)
        parts += [(members[chosen], first, middle), (members[~chosen], middle, last)]
    return labels


def _halve(points, count, generator, rounds=4):
    """Mask of the `count` points on one side, (n,): two-means in which the sides' sizes are fixed."""
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
    """The assignment of people to clusters.

    Attributes
    ----------
    labels : int64 array (n,)
    counts : int64 array (clusters,)
    slots : int64 array (clusters, capacity)
        Members of each cluster; -1 for an unused place.
    """

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

        A person may move to an unused place (-1) from a cluster without one, so that sizes still differ by at most one.
        """
        partners = self.slots[near]
        full = self.counts[self.labels[person]] == self.slots.shape[1]
        return partners, (partners >= 0) | full

    def exchange(self, person, cluster, position):
        """Swap a person with a member of another cluster, or move the person to an unused place there."""
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
        """A cluster's SSE is a constant less |sum|^2 / mass: compare these before and after."""
        own = self.grouping.labels[person]
        step = self.weighted[partners] - self.weighted[person]  # (m, capacity, d)
        mass = self.weights[partners] - self.weights[person]  # (m, capacity)
        change = squared_lengths(self.sums[own]) / self.masses[own]
        change = change - squared_lengths(self.sums[own] + step) / (self.masses[own] + mass)
        change += (squared_lengths(self.sums[near]) / self.masses[near])[:, None]
        near_sums, near_masses = self.sums[near][:, None], self.masses[near][:, None]
        return change - squared_lengths(near_sums - step) / (near_masses - mass)

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
            raise ValueError('weights have no effect with objective="diameter"; leave them out')
        self.rows = np.vstack([rows, np.zeros((1, rows.shape[1]), rows.dtype)])
        self.grouping = grouping
        self.diameters = np.array([self._diameter(cluster) for cluster in range(len(grouping.counts))])

    def _diameter(self, cluster):
        members = self.rows[self.grouping.members(cluster)]
        return np.sqrt(squared_distances(members, members).max())

    def changes(self, person, near, partners):
        own = self.grouping.labels[person]
        # The own cluster without the person, and with each partner.
        stay = self.grouping.members(own)
        stay = self.rows[stay[stay != person]]
        flat = self.rows[partners.reshape(-1)]
        reach = np.sqrt(squared_distances(flat, stay).max(axis=1, initial=0.0)).reshape(partners.shape)
        reach[partners < 0] = 0.0
        own_after = np.maximum(reach, np.sqrt(squared_distances(stay, stay).max()) if len(stay) > 1 else 0.0)
        # The other clusters with the person, and without each partner.
        other_after = np.stack([self._after_joining(person, cluster) for cluster in near])
        return own_after - self.diameters[own] + other_after - self.diameters[near][:, None]

    def _after_joining(self, person, cluster):
        """Diameter with the person in and each slot's member out, (capacity,)."""
        slots = self.grouping.slots[cluster]
        members = self.rows[slots]
        # Distances among the members, without each of them: only the two ends of the diameter matter.
        distances = np.sqrt(squared_distances(members, members))
        distances[slots < 0] = distances[:, slots < 0] = 0.0
        among = np.full(len(slots), distances.max())
        for end in np.unravel_index(np.argmax(distances), distances.shape):
            among[end] = np.delete(np.delete(distances, end, 0), end, 1).max(initial=0.0)
        # Distances to the person, without each member: only the farthest one matters.
        joined = np.sqrt(squared_lengths(members - self.rows[person]))
        joined[slots < 0] = 0.0
        reach = np.full(len(slots), joined.max())
        farthest = int(np.argmax(joined))
        reach[farthest] = np.delete(joined, farthest).max(initial=0.0)
        return np.maximum(among, reach)

    def exchange(self, person, partner, own, other):
        self.diameters[[own, other]] = self._diameter(own), self._diameter(other)


OBJECTIVES = {"sse": _SumOfSquares, "diameter": _Diameters}


def _swap_best(person, near, grouping, cost, breaches):
    """Make the person's best swap with a cluster of `near`, rules before the objective; return whether a swap helps."""
    own = grouping.labels[person]
    near = near[near != own]
    partners, allowed = grouping.partners(person, near)
    change = np.where(allowed, cost.changes(person, near, partners), np.inf)  # (m, capacity)
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


def refine(
    labels: np.ndarray,
    rows: np.ndarray,
    clusters: int,
    generator: np.random.Generator,
    moves: int,
    objective: str = "sse",
    weights: np.ndarray | None = None,
    rules: Rules | None = None,
) -> np.ndarray:
    """Swap people, first until the rules are satisfied, then while the objective falls; return new labels (n,).

    The search takes about `moves` moves. See `balancing.balanced_partition`.
    """
    grouping = _Grouping(labels, clusters)
    cost = OBJECTIVES[objective](rows, weights, grouping)
    breaches = None
    if rules is not None:
        breaches = Breaches(rules, grouping)
        _repair(grouping, cost, breaches, generator)
    if clusters > 1:
        _search(rows, grouping, cost, breaches, generator, moves)
    return grouping.labels


def _search(rows, grouping, cost, breaches, generator, moves):
    """Swap people with near clusters while the objective falls; changes the grouping."""
    for _ in range(int(np.clip(moves // (_CANDIDATES * len(rows)), 4, 20))):
        means = mean_of_groups(rows, grouping.labels, len(grouping.counts))
        blocks = (rows[start : start + 1024] for start in range(0, len(rows), 1024))
        near = [nearest_columns(squared_distances(block, means), _CANDIDATES + 1) for block in blocks]
        near = np.concatenate(near)
        people = generator.permutation(len(rows))
        if not sum(_swap_best(person, near[person], grouping, cost, breaches) for person in people):
            break


def _repair(grouping, cost, breaches, generator, rounds=30):
    """Swap people of clusters that violate a rule until no rule is violated; raise ValueError on failure."""
    clusters = len(grouping.counts)
    for _ in range(rounds):
        broken = np.flatnonzero(breaches.by_cluster() > 0)
        if not len(broken):
            return
        for cluster in broken:
            for person in grouping.members(cluster):
                _swap_best(person, generator.permutation(clusters)[:256], grouping, cost, breaches)
    still = int((breaches.by_cluster() > 0).sum())
    if still:
        raise ValueError(
            f"no partition found that satisfies the rules: {still} of {clusters} clusters violate them; use "
            "a larger cluster_size, less diversity, a larger closeness, or fewer people apart"
        )
